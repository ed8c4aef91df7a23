"""Writes reference.json: scores of random predictions by scikit-learn, seqeval, and the functions of
SQuAD's evaluation script that transformers contains; answers over windows by the rule of Hugging
Face's example run_qa.py (utils_qa.py). tests/text/scores.rs compares.

    pip install scikit-learn==1.9.1 seqeval==1.2.2 transformers==4.57.1
    python reference.py > reference.json
"""
import json
import random
import warnings

import numpy as np
from seqeval.metrics import classification_report
from seqeval.scheme import IOB2, IOBES
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support
from scipy.stats import pearsonr, spearmanr
from transformers.data.metrics.squad_metrics import compute_exact, compute_f1, normalize_answer

warnings.filterwarnings("ignore")
rng = random.Random(5)


def classes():
    labels = [rng.choice([0, 1, 2, 4, -100]) for _ in range(60)]
    predictions = [rng.choice([max(label, 0), rng.randrange(5)]) for label in labels]
    p, l = zip(*((p, l) for p, l in zip(predictions, labels) if l >= 0))
    precision, recall, f1, _ = precision_recall_fscore_support(l, p, labels=range(6), zero_division=0)
    return {
        "labels": labels,
        "predictions": predictions,
        "accuracy": accuracy_score(l, p),
        "macro_f1": f1_score(l, p, average="macro"),
        "confusion": confusion_matrix(l, p, labels=range(6)).tolist(),
        "precision": precision.tolist(),
        "recall": recall.tolist(),
        "f1": f1.tolist(),
    }


def report(labels, predictions, **mode):
    """Numbers over all types and of each type."""
    found = classification_report(labels, predictions, output_dict=True, zero_division=0, **mode)
    named = {k: v for k, v in found.items() if k not in ("macro avg", "weighted avg")}
    numbers = ("precision", "recall", "f1-score", "support")
    return {k: [float(v[n]) for n in numbers] for k, v in named.items()}


def entities(prefixes, scheme):
    tags = ["O", "O"] + [p + t for p in prefixes for t in ("PER", "LOC")]
    labels, predictions = [], []
    for _ in range(80):
        n = rng.randrange(1, 9)
        truth, i = ["O"] * n, 0
        while i < n:
            size = rng.randrange(1, 4)
            kind = rng.choice(["", "PER", "LOC"])
            if kind and i + size <= n:
                if "S-" in prefixes:
                    inner = ["B-"] + ["I-"] * (size - 2) + ["E-"] if size > 1 else ["S-"]
                else:
                    inner = ["B-"] + ["I-"] * (size - 1)
                truth[i:i + size] = [p + kind for p in inner]
            i += size
        labels.append(truth)
        predictions.append([t if rng.random() < 0.8 else rng.choice(tags) for t in truth])
    return {
        "labels": labels,
        "predictions": predictions,
        "lenient": report(labels, predictions),
        "strict": report(labels, predictions, mode="strict", scheme=scheme),
    }


PAIRS = [
    ("The Cat's an A-Team", ["cats ateam", "dog"]),
    ("in 1907", ["1907", "year 1907"]),
    ("blue\u2013green", ["blue green"]),
    ("a", ["the"]),
    ("\u00c9cole  Normale", ["\u00e9cole normale sup\u00e9rieure"]),
    ("3.5 kg", ["35 kg"]),
    ("", ["x"]),
    ("x", []),
    ("", []),
    ("big big cat", ["big cat"]),
    ("An_other $5", ["other 5", "another 5"]),
    ("\u0130zmir the a an", ["i\u0307zmir"]),
]


def answers():
    exact = [max(compute_exact(a, p) for a in (accepted or [""])) for p, accepted in PAIRS]
    f1 = [max(compute_f1(a, p) for a in (accepted or [""])) for p, accepted in PAIRS]
    n = len(PAIRS)
    return {
        "predictions": [p for p, _ in PAIRS],
        "accepted": [accepted for _, accepted in PAIRS],
        "exact_match": 100 * sum(exact) / n,
        "f1": 100 * sum(f1) / n,
    }


def best(starts, ends, offsets, n_best, longest):
    """The best spans of one window as run_qa.py lists them: (score, first byte, last byte)."""
    found = []
    for s in np.argsort(-starts, kind="stable")[:n_best]:
        for e in np.argsort(-ends, kind="stable")[:n_best]:
            inside = s < len(offsets) and e < len(offsets) and offsets[s] and offsets[e]
            if inside and s <= e and e - s + 1 <= longest:
                score = np.float32(starts[s]) + np.float32(ends[e])
                found.append([float(score), offsets[s][0], offsets[e][1]])
    return sorted(found, key=lambda f: -f[0])[:n_best]


def windows():
    all_of_them = []
    for n_best, longest in [(20, 30), (5, 30), (3, 2), (20, 1)]:
        question, n, padding = rng.randrange(1, 4), rng.randrange(6, 16), rng.randrange(3)
        words = [[4 * i, 4 * i + 3] for i in range(n)]
        offsets = [None] * question + words + [None]
        starts, ends = (
            np.array([rng.gauss(0, 2) for _ in range(len(offsets) + padding)], dtype=np.float32)
            for _ in range(2)
        )
        all_of_them.append({
            "offsets": [o or [0, 0] for o in offsets],
            "starts": [float(x) for x in starts],
            "ends": [float(x) for x in ends],
            "n_best": n_best,
            "longest": longest,
            "best": best(starts, ends, offsets, n_best, longest),
        })
    return all_of_them


def normalized():
    """Texts of articles, and of characters that are or are not letters, spaces or punctuation."""
    draw = random.Random(5)
    parts = ["the", "a", "an", "The", "A", "cat", "1907", " ", " ", "_", "-", ".", "\u00a0", "\u001c",
             "\u001d", "\u001e", "\u001f", "\u0085", "\u2028", "\u200b", "\u0345", "\u0301", "\u24d0",
             "\u24b6", "\U0001f170", "\u0903", "\u00aa", "\u2160", "\u00bd", "\u00e9", "\u2019", "\u0130"]
    texts = ["".join(draw.choices(parts, k=draw.randrange(1, 7))) for _ in range(300)]
    return [[text, normalize_answer(text)] for text in texts]


def numbers():
    draw = random.Random(6)
    labels = [draw.choice([0.0, 1.0, 2.5, draw.uniform(0, 5)]) for _ in range(40)]
    predictions = [round(x + draw.gauss(0, 1), 1) for x in labels]
    return {
        "predictions": predictions,
        "labels": labels,
        "mse": float(np.mean((np.array(predictions) - np.array(labels)) ** 2)),
        "pearson": float(pearsonr(predictions, labels)[0]),
        "spearman": float(spearmanr(predictions, labels)[0]),
    }


print(json.dumps({
    "classes": classes(),
    "iob2": entities(["B-", "I-"], IOB2),
    "iobes": entities(["B-", "I-", "E-", "S-"], IOBES),
    "answers": answers(),
    "windows": windows(),
    "normalized": normalized(),
    "numbers": numbers(),
}, indent=None, separators=(",", ":")).replace('},"', '},\n"'))
