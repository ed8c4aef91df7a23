"""Small published models with the outputs and gradients that PyTorch computes. See README.md."""
import argparse
import json
import pathlib

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
# float32 on another machine or version: relative L2 of a tensor.
BOUND = 2e-5


def build(about, attention="sdpa"):
    config = dict(about["config"])
    kind = config.pop("model_type")
    config.pop("transformers_version", None)
    config = transformers.AutoConfig.for_model(kind, **config)
    model = getattr(transformers, about["model"])
    # Some architectures have the eager form alone.
    config._attn_implementation = attention if getattr(model, "_supports_sdpa", True) else "eager"
    return model(config).eval()


def split(tensors):
    parts = {"input": {}, "label": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(":")
        if part in parts:
            parts[part][rest] = tensor
    return parts["input"], parts["label"]


def loss_of(model, outputs, labels):
    """The losses of the models' own papers, as `loss_def` in oracle.json writes them."""
    kind = type(model).__name__
    if "start_positions" in labels:
        pairs = (outputs["start_logits"], "start_positions"), (outputs["end_logits"], "end_positions")
        return sum(F.cross_entropy(logits, labels[name]) for logits, name in pairs) / 2
    logits, target = outputs["logits"], labels["labels"]
    if kind.endswith(("ForCausalLM", "LMHeadModel")):
        logits, target = logits[:, :-1], target[:, 1:]
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), target.reshape(-1), ignore_index=-100)


def compute(model, inputs, labels):
    model.zero_grad()
    outputs = {k: v for k, v in model(**inputs).items() if torch.is_tensor(v) and v.is_floating_point()}
    loss = loss_of(model, outputs, labels)
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return loss, outputs, gradients


def load(folder, attention="sdpa"):
    about = json.loads((folder / "oracle.json").read_text())
    model = build(about, attention)
    params = load_file(folder / "params.safetensors")
    lacking = model.load_state_dict(params, strict=False)
    assert not lacking.unexpected_keys, lacking
    model.tie_weights()
    return about, model, load_file(folder / "oracle.safetensors")


def check(folder):
    about, model, committed = load(folder)
    inputs, labels = split(committed)
    loss, outputs, gradients = compute(model, inputs, labels)
    worst = [(abs(loss.item() - about["loss"]) / abs(about["loss"]), "loss")]
    got = {**gradients, **{"output:" + name: value for name, value in outputs.items()}}
    # Gradients that are zero in truth, such as those of key biases, are rounding alone.
    largest = max(committed[name].norm() for name in gradients if name in committed)
    zero = about.get("near_zero_grads") or [
        name for name in gradients if name in committed and committed[name].norm() < 1e-6 * largest]
    n = 0
    for name, want in committed.items():
        if name in got and name not in zero:
            gap = (got[name].detach().double() - want.double()).norm() / want.double().norm().clamp(min=1e-12)
            worst.append((gap.item(), name))
            n += 1
    error, name = max(worst)
    print(f"{folder.name}: loss and {n} tensors, worst {error:.1e} ({name})")
    return error <= BOUND and n > len(gradients) // 2


def make(folder, out, seed):
    torch.manual_seed(seed)
    about, model, committed = load(folder)
    with torch.no_grad():
        for name, p in model.named_parameters():
            # Distinct, so that an exporter merges none of them.
            p.copy_(torch.randn_like(p) * 0.1 + (1.0 if name.lower().endswith("norm.weight") else 0.0))
    inputs, labels = split(committed)
    for group, names in ((inputs, ("input_ids",)), (labels, tuple(labels))):
        for name in names:
            values, kept = group[name], group[name] < 0
            drawn = torch.randint(0, int(values.max()) + 1, values.shape)
            group[name] = torch.where(kept, values, drawn)
    loss, outputs, gradients = compute(model, inputs, labels)
    about.update(loss=loss.item(), near_zero_grads=[
        n for n, g in gradients.items() if g.norm() < 1e-6 * max(1e-30, model.get_parameter(n).norm().item())])
    for key in ("hf_loss", "loss64", "eager_loss", "eager_grad_maxdiff", "grad32_vs_64_rel_l2_max"):
        about.pop(key, None)
    out.mkdir(parents=True, exist_ok=True)
    plain = lambda tensors, prefix="": {prefix + n: t.detach().clone().contiguous() for n, t in tensors.items()}
    save_file(plain(dict(model.named_parameters())), out / "params.safetensors")
    save_file({**plain(inputs, "input:"), **plain(labels, "label:"), **plain(outputs, "output:"),
               **plain(gradients), "loss:": loss.detach()}, out / "oracle.safetensors")
    (out / "oracle.json").write_text(json.dumps(about, indent=1))


def export(folder, exporter, opset, attention):
    import onnx
    from onnx import numpy_helper
    about, model, committed = load(folder, attention)
    inputs, _ = split(committed)
    names = list(inputs)

    class Logits(torch.nn.Module):
        """Names as the state dict has them: nothing but the call changes."""

        def __init__(self):
            super().__init__()
            self.__dict__["inner"] = model
            for name, child in model.named_children():
                self.add_module(name, child)

        def forward(self, *values):
            out = self.inner(**dict(zip(names, values)))
            return tuple(out[name] for name in about["outputs"])

    path = folder / f"{exporter}-op{opset}-{attention}.onnx"
    options = {"input_names": names, "output_names": about["outputs"], "opset_version": opset}
    if exporter == "dyn":
        free = tuple({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for _ in names)
        options.update(dynamo=True, dynamic_shapes=(free,), external_data=False)
    else:
        options.update(dynamo=False, dynamic_axes={n: {0: "batch", 1: "sequence"} for n in names})
    torch.onnx.export(Logits().eval(), tuple(inputs.values()), str(path), **options)

    graph = onnx.load(path).graph
    params = {n: p.detach() for n, p in model.named_parameters()}
    tensors = [(t.name, "initializer", numpy_helper.to_array(t)) for t in graph.initializer]
    tensors += [(n.output[0], "Constant", numpy_helper.to_array(a.t)) for n in graph.node
                if n.op_type == "Constant" for a in n.attribute if a.name == "value"]
    entries, taken = [], set()
    for name, kind, array in tensors:
        value, source, how = torch.from_numpy(array.copy()), None, "int/bool constant"
        if value.is_floating_point():
            how = "constant"
            for param, p in params.items():
                for turned, word in ((p, "same"), (p.T if p.dim() == 2 else p, "transposed")):
                    if source is None and value.shape == turned.shape and torch.equal(value, turned):
                        source, how = param, "tied-alias" if param in taken and word == "same" else word
        taken.add(source)
        entries.append({"name": name, "kind": kind, "shape": list(array.shape), "torch_param": source, "how": how})
    path.with_suffix(".map.json").write_text(json.dumps({"onnx": path.name, "initializers": entries}, indent=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check").add_argument("folder", nargs="+", type=pathlib.Path)
    one = commands.add_parser("make")
    one.add_argument("folder", type=pathlib.Path)
    one.add_argument("out", type=pathlib.Path)
    one.add_argument("--seed", type=int, default=0)
    one = commands.add_parser("export")
    one.add_argument("folder", type=pathlib.Path)
    one.add_argument("--exporter", choices=["dyn", "ts"], default="dyn")
    one.add_argument("--opset", type=int, default=18)
    one.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
    o = parser.parse_args()
    if o.command == "check":
        raise SystemExit(not all([check(folder) for folder in o.folder]))
    if o.command == "make":
        make(o.folder, o.out, o.seed)
    else:
        export(o.folder, o.exporter, o.opset, o.attention)


if __name__ == "__main__":
    main()
