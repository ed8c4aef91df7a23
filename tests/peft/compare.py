"""Compares logits of tests/peft/adapters.c with those of transformers and peft.

    compare.py DIR

For each model of models.py: adapters that libmmopt trained, loaded by peft; the same, merged into a
model that transformers loads; and adapters of peft, loaded by libmmopt.
"""

import json
import struct
import sys
import warnings

import torch
from peft import PeftModel

from models import MODELS, head_of

TOLERANCE = 1e-5


def ids(rows, length):
    """As tests/peft/adapters.c makes them."""
    return torch.tensor([[5 + (7 * i + 3 * j) % 50 for j in range(length)] for i in range(rows)])


def read(path):
    """Row count, length, then f32 logits."""
    with open(path, "rb") as file:
        rows, length = struct.unpack("=qq", file.read(16))
        return rows, length, torch.frombuffer(bytearray(file.read()), dtype=torch.float32)


def apart(model, path):
    rows, length, found = read(path)
    tokens = ids(rows, length)
    with torch.no_grad():
        expected = model.eval()(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits
    assert expected.numel() == found.numel(), (path, expected.shape, found.shape)
    assert expected.abs().max() > 0.01
    return (expected.flatten() - found).abs().max().item()


def with_adapters(folder, name, adapters):
    _, _, with_head, task, _ = MODELS[name]
    torch.manual_seed(7)
    model = with_head.from_pretrained(f"{folder}/{name}/base", **head_of(task))
    with warnings.catch_warnings():
        # Of keys that are missing or not used.
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", FutureWarning)
        return PeftModel.from_pretrained(model, f"{folder}/{name}/{adapters}")


def main(folder):
    largest = 0
    with open(f"{folder}/list") as file:
        names = [line.split()[0] for line in file]
    for name in names:
        _, _, with_head, task, targets = MODELS[name]
        for adapters in ["trained", "given"]:
            model = with_adapters(folder, name, adapters)
            n = sum(1 for key, _ in model.named_parameters() if "lora_A" in key)
            assert n >= 2, name
            difference = apart(model, f"{folder}/{name}/{adapters}.logits")
            print(f"{name}: {adapters}: {n} adapters, largest difference {difference:.1e}")
            largest = max(largest, difference)
        merged = with_head.from_pretrained(f"{folder}/{name}/merged")
        difference = apart(merged, f"{folder}/{name}/trained.logits")
        print(f"{name}: merged: largest difference {difference:.1e}")
        largest = max(largest, difference)
        with open(f"{folder}/{name}/trained/adapter_config.json") as file:
            config = json.load(file)
        assert config["task_type"] == (None if task == "MASKED_LM" else task), config
        assert len(config["target_modules"]) == len(targets), config
    assert largest < TOLERANCE, largest
    print(f"ok: the largest difference is {largest:.1e}")


main(*sys.argv[1:])
