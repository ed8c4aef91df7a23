"""Joint training by the formulas of docs/optimizer.md, "The paper preset", in float32.

usage: record.py NAME [--out FOLDER] [--seed N]      NAME: a recording of the folder above
"""
import argparse
import json
import math
import pathlib

import numpy as np
from safetensors.numpy import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent.parent
# Relative and absolute, as in README.md of the folder above.
TOLERANCE = {"param": (2e-6, 2e-6), "exp_avg": (1e-5, 1e-7), "exp_avg_sq": (1e-5, 1e-10),
             "max_exp_avg_sq": (1e-5, 1e-10), "grad_used": (1e-5, 1e-7)}
f32 = np.float32


def multiplier(step, options):
    warmup = options["warmup_steps"]
    if step < warmup:
        return step / max(1, warmup)
    if not options["use_cosine_schedule"]:
        return 1.0
    period = 10_000 * options["gradient_accumulation_steps"]
    return max(0.1, (1 + math.cos(math.pi * max(1, step - warmup) / period)) / 2)


def scale(epoch, schedule):
    warmup, total = schedule["warmup_steps"], schedule["total_steps"]
    if epoch < warmup:
        return epoch / max(1, warmup)
    cosine = math.cos(math.pi * (epoch - warmup) / max(1, total - warmup))
    return max(schedule["min_lr_ratio"], (1 + cosine) / 2)


class Training:
    """Parameters are named by (model, name)."""

    def __init__(self, about, inputs):
        self.options, self.about, self.inputs = about["optimizer"], about, inputs
        self.weights = about["normalised_model_weights"]
        self.group = {(p["model"], p["name"]): (p["cls"], tuple(p["shape"])) for p in about["params"]}
        self.values = {key: inputs["param/%s/%s" % key][0].copy() for key in self.group}
        zeros = {key: np.zeros_like(value) for key, value in self.values.items()}
        self.moments = {kind: dict(zeros) for kind in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")}
        self.counts = dict.fromkeys(self.group, 0)
        self.step, self.calls = about["start_step_count"], 0
        self.rate = dict.fromkeys(self.weights, 1.0)
        self.lr = dict.fromkeys(self.weights, self.options["lr"])
        if about["scheduler"]:
            self.schedule()

    def schedule(self):
        base = self.options["lr"] * scale(self.calls, self.about["scheduler"])
        self.lr = {m: base * min(max(1 / r, 0.5), 1.5) for m, r in self.rate.items()}

    def call(self, missing):
        """One micro-batch; the gradients that were used, where this ended a step."""
        n = self.options["gradient_accumulation_steps"]
        gradients = None
        if (self.calls + 1) % n == 0:
            gradients = self.update(range(self.calls + 1 - n, self.calls + 1), missing)
        self.calls += 1
        if self.about["scheduler"]:
            self.schedule()
        every = self.about["convergence_update"]
        if every and self.calls % every["every"] == 0 and self.calls >= every["window"]:
            for m in self.rate:
                losses = self.inputs["loss/" + m][self.calls - every["window"]:self.calls]
                slope = np.polyfit(np.arange(len(losses)), losses, 1)[0]
                self.rate[m] = 0.9 * self.rate[m] + 0.1 / (1 + abs(slope))
        return gradients

    def update(self, micro, missing):
        self.step += 1
        gradients = {}
        for key in self.group:
            rows = self.inputs.get("grad/%s/%s" % key)
            if rows is not None and key not in missing:
                gradients[key] = sum((rows[i] for i in micro), f32(0)).astype(f32)
        self.clip(gradients)
        if self.step % self.options["grad_sync_frequency"] == 0:
            for keys in self.groups(gradients):
                total = sum(f32(self.weights[k[0]]) * gradients[k] for k in keys)
                for k in keys:
                    gradients[k] = f32(0.8) * gradients[k] + f32(0.2) * total
        for key, gradient in gradients.items():
            self.adamw(key, gradient)
        if self.options["sync_every_step"] and self.step % 10 == 0:
            self.synchronise()
        return gradients

    def clip(self, gradients):
        limit = self.options["clip_grad_norm"]
        for model in self.weights if limit is not None else ():
            own = [k for k in gradients if k[0] == model]
            norm = math.sqrt(sum(float(np.sum(gradients[k].astype(float) ** 2)) for k in own))
            for k in own:
                gradients[k] = gradients[k] * f32(min(1.0, limit / (norm + 1e-6)))

    def groups(self, among):
        """Two or more parameters of one class and shape."""
        groups = {}
        for key in self.group:
            if key in among:
                groups.setdefault(self.group[key], []).append(key)
        return [keys for keys in groups.values() if len(keys) > 1]

    def adamw(self, key, g):
        (b1, b2), eps = self.options["betas"], self.options["eps"]
        self.counts[key] += 1
        n, moments = self.counts[key], self.moments
        m = moments["exp_avg"][key] = f32(b1) * moments["exp_avg"][key] + f32(1 - b1) * g
        v = moments["exp_avg_sq"][key] = f32(b2) * moments["exp_avg_sq"][key] + f32(1 - b2) * g * g
        if self.options["amsgrad"]:
            v = moments["max_exp_avg_sq"][key] = np.maximum(moments["max_exp_avg_sq"][key], v)
        weight = self.weights[key[0]]
        lr = self.lr[key[0]] * multiplier(self.step, self.options) * (0.5 + 0.5 * weight)
        size = lr * math.sqrt(1 - b2**n) / (1 - b1**n)
        decayed = self.values[key] * f32(1 - lr * self.options["weight_decay"])
        self.values[key] = (decayed - f32(size) * m / (np.sqrt(v) + f32(eps))).astype(f32)

    def synchronise(self):
        for keys in self.groups(self.group):
            weight = sum(self.weights[k[0]] for k in keys)
            if weight > 0:
                mean = sum(f32(self.weights[k[0]] / weight) * self.values[k] for k in keys)
                for k in keys:
                    self.values[k] = f32(0.9) * self.values[k] + f32(0.1) * mean


def other_inputs(inputs, seed):
    random = np.random.default_rng(seed)
    def draw(name, x):
        if name.startswith("grad/"):
            return (random.standard_normal(x.shape) * np.std(x)).astype(f32)
        if name.startswith("param/"):
            return np.broadcast_to(random.standard_normal(x.shape[1:]) * 0.5, x.shape).astype(f32)
        return np.abs(random.standard_normal(x.shape)) if name.startswith("loss/") else x
    return {name: draw(name, x) for name, x in inputs.items()}


def record(about, inputs):
    training, out = Training(about, inputs), {n: x.copy() for n, x in inputs.items()}
    for t, step in enumerate(about["steps"]):
        missing = {tuple(x) for x in step["missing"]}
        for _ in range(about["optimizer"]["gradient_accumulation_steps"]):
            rates = dict(training.lr)
            used = training.call(missing)
        step.update(step_count=training.step, group_lr_used=rates,
                    multiplier=multiplier(training.step, about["optimizer"]))
        if step["convergence_rates_after"]:
            step["convergence_rates_after"] = dict(training.rate)
        rows = {"param": training.values, **training.moments}
        for key in training.group:
            for kind, values in rows.items():
                name = "%s/%s/%s" % (kind, *key)
                if name in out:
                    out[name][t + 1] = values[key]
            name = "grad_used/%s/%s" % key
            if name in out:
                out[name][t] = used.get(key, 0)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    about = json.loads((HERE / f"{options.name}.json").read_text())
    committed = load_file(HERE / f"{options.name}.safetensors")
    inputs = committed if options.seed is None else other_inputs(committed, options.seed)
    out = record(about, inputs)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        save_file(out, options.out / f"{options.name}.safetensors")
        (options.out / f"{options.name}.json").write_text(json.dumps(about, indent=1))
    if options.seed is None:
        worst = {}
        for name, want in committed.items():
            kind = name.split("/")[0]
            if kind in TOLERANCE:
                relative, absolute = TOLERANCE[kind]
                excess = np.abs(out[name].astype(float) - want) / (relative * np.abs(want) + absolute)
                worst[kind] = max(worst.get(kind, 0.0), float(excess.max()))
        print(options.name, "of tolerance:", {k: round(v, 3) for k, v in worst.items()})
        raise SystemExit(max(worst.values()) > 1)


if __name__ == "__main__":
    main()
