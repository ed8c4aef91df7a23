"""Rows of a fresh token table of width 8 that starts from one of width 16: projection.txt.

    python3 tests/data/start/reference.py      (numpy; tests/train/start.rs reads the file)

The formulas are those of docs/optimizer.md, written down again: rows of the source by token (the
mean of several where a token is put together), centred, times the eight leading right singular
vectors, whose entry of greatest size is positive. Rows are divided by the root mean square of all
token rows; the library multiplies by that of the drawn table and by its factor.
"""

import pathlib

import numpy as np

# The row sources of tests/train/start.rs: the padding row and an unknown token stay as drawn.
ROWS = {0: [2], 2: [3], 3: [1], 4: [10], 5: [4, 7, 8], 6: [5], 8: [7], 9: [6], 10: [4], 11: [11]}


def table(rows, first):
    r = np.arange(first, first + rows)[:, None]
    c = np.arange(16)[None, :]
    return ((r * r * 7 + c * 31 + r * c * 5 + c * c * 3) % 61 - 30) / 64


tokens = table(12, 0)
positions = table(10, 20)
taken = np.stack([tokens[rows].mean(0) for rows in ROWS.values()])


def projected(rows):
    centred = rows - rows.mean(0)
    directions = np.linalg.svd(centred)[2][:8].T
    largest = directions[np.abs(directions).argmax(0), np.arange(8)]
    return centred @ (directions * np.sign(largest))


narrow, places = projected(taken), projected(positions)
rms = np.sqrt((narrow**2).mean())

with open(pathlib.Path(__file__).with_name("projection.txt"), "w") as out:
    for row, values in zip(ROWS, narrow / rms):
        print("token", row, *(f"{v:.12e}" for v in values), file=out)
    for row, values in enumerate(places / rms):
        print("position", row, *(f"{v:.12e}" for v in values), file=out)
