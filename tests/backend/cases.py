"""Writes the node tests of the package `onnx`, and its models converted from PyTorch, as models
that can be trained: float inputs and weights become initializers, other inputs constants, and the
output `test/loss` is a weighted sum of all float outputs.

    python cases.py FOLDER
    python cases.py FOLDER RESULTS SAMPLE

FOLDER gets a file for each model, and `list` with a line for each: name, what the loss should be (or
`-` where results are random or the runtime's own), and whether `all` its floats can be parameters or
only those that are by `default`. `left_out` names the others with the reason. With RESULTS, a line
for each with its verdict, SAMPLE gets the smallest model of each operator that passed.
"""

import pathlib
import sys
import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.loader import load_model_tests

FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE}
# Elements of an output that enter the loss, about.
MOST = 500
# The runtime computes another value than the standard, and leaves these out of its own tests.
DIFFERENT = {
    "test_resize_downsample_scales_cubic_align_corners",
    "test_resize_downsample_scales_linear_align_corners",
}
# Functions of the standard that the runtime refuses: a Range of what is no scalar.
REFUSED = {f"test_affine_grid_{d}d{a}_expanded" for d in (2, 3) for a in ("", "_align_corners")}
RANDOM = {"Bernoulli", "Dropout", "Multinomial", "RandomNormalLike", "RandomUniformLike"}


def trainable(model, inputs, outputs):
    """The model with its loss, and the loss; a text where there is nothing to differentiate."""
    graph = model.graph
    named = dict(zip([i.name for i in graph.input], inputs))
    held = {t.name for t in graph.initializer}
    floats = 0
    for info in list(graph.input):
        if info.name in held:
            continue
        value = named.get(info.name)
        if getattr(value, "dtype", None) in (np.float32, np.float64) and not np.isfinite(value).all():
            return "an input that is not finite"
        if not info.type.HasField("tensor_type") or not isinstance(value, np.ndarray):
            return "an input that is no tensor"
        tensor = numpy_helper.from_array(value, info.name)
        tensor.data_type = info.type.tensor_type.elem_type
        floats += tensor.data_type in FLOATS
        graph.initializer.append(tensor)
    del graph.input[:]
    floats += sum(t.data_type in FLOATS for t in graph.initializer)
    if floats == 0:
        return "no input is f32 or f64"
    terms, loss = [], 0.0
    random = np.random.default_rng(5)
    opset = max([o.version for o in model.opset_import if o.domain in ("", "ai.onnx")] or [0])
    for i, (info, value) in enumerate(zip(graph.output, outputs)):
        elements = info.type.tensor_type.elem_type
        if not info.type.HasField("tensor_type") or elements not in FLOATS:
            continue
        weights = random.uniform(0.5, 1.5, value.size) * random.choice([-1, 1], value.size)
        # Sums of very many numbers are too rough for differences in f32.
        weights = (weights * (random.uniform(size=value.size) * value.size < MOST)).astype(np.float32)
        fixed = [
            numpy_helper.from_array(weights, f"fixed/{i}/weights"),
            numpy_helper.from_array(np.array([-1]), f"fixed/{i}/flat"),
        ]
        graph.initializer.extend(fixed)
        flat, cast, term = (f"test/{i}/{part}" for part in ("flat", "cast", "term"))
        graph.node.extend([
            helper.make_node("Reshape", [info.name, fixed[1].name], [flat]),
            helper.make_node("Cast", [flat], [cast], to=TensorProto.FLOAT),
            helper.make_node("MatMul", [cast, fixed[0].name], [term]),
        ])
        terms.append(term)
        loss += float(np.dot(np.asarray(value, np.float64).ravel(), weights.astype(np.float64)))
    if not terms or opset == 0:
        return "no output is f32 or f64"
    if not np.isfinite(loss):
        return "an output that is not finite"
    graph.input.append(helper.make_tensor_value_info("one", TensorProto.FLOAT, [1]))
    total = "one"
    for i, term in enumerate(terms):
        name = "test/loss" if i + 1 == len(terms) else f"test/{i}/sum"
        graph.node.append(helper.make_node("Add", [total, term], [name]))
        total = name
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("test/loss", TensorProto.FLOAT, [1]))
    return loss


def holds_constants(model):
    """Such as the exponent of a Pow of negative numbers: nothing to train."""
    for node in model.graph.node:
        for attribute in node.attribute:
            tensor = attribute.HasField("t") and attribute.t.data_type in FLOATS
            if node.op_type == "Constant" and (tensor or attribute.name.startswith("value_float")):
                return True
    return False


def node_tests():
    for case in collect_testcases(None):
        inputs, outputs = case.data_sets[0]
        yield case.name, case.model, inputs, outputs


def converted():
    for case in load_model_tests(kind="pytorch-converted"):
        folder = pathlib.Path(case.model_dir)
        data = folder / "test_data_set_0"

        def read(kind):
            files = sorted(data.glob(f"{kind}_*.pb"), key=lambda p: int(p.stem.split("_")[1]))
            return [numpy_helper.to_array(onnx.load_tensor(str(f))) for f in files]

        yield case.name, onnx.load(str(folder / "model.onnx")), read("input"), read("output")


# A row of scores that is masked out whole.
ALSO = {"test_attention_23_boolmask_fullymasked_row_nan_robustness_expanded"}


def sample(folder, results, out):
    passed = {line.split()[0] for line in results.read_text().splitlines() if "passed" in line}
    smallest = {}
    for line in (folder / "list").read_text().splitlines():
        name, loss, _ = line.split()
        path = folder / f"{name}.onnx"
        if name not in passed or loss == "-" or ("_expanded" in name and name not in ALSO):
            continue
        first = onnx.load(str(path)).graph.node[0]
        key = name if name in ALSO else (first.domain, first.op_type)
        if key not in smallest or path.stat().st_size < smallest[key][0]:
            smallest[key] = (path.stat().st_size, path, line)
    out.mkdir(parents=True, exist_ok=True)
    for _, path, _ in smallest.values():
        (out / path.name).write_bytes(path.read_bytes())
    (out / "list").write_text("".join(sorted(line + "\n" for _, _, line in smallest.values())))


def main():
    folder = pathlib.Path(sys.argv[1])
    if len(sys.argv) == 4:
        sample(folder, pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
        return
    folder.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    listed, left_out = [], []
    for name, model, inputs, outputs in [*node_tests(), *converted()]:
        refused = "the runtime refuses it" if name in REFUSED else None
        found = refused or trainable(model, inputs, outputs)
        if isinstance(found, str):
            left_out.append(f"{name} {found}\n")
            continue
        onnx.save(model, str(folder / f"{name}.onnx"))
        random = any(node.op_type in RANDOM for node in model.graph.node)
        loss = "-" if random or name in DIFFERENT else found
        listed.append(f"{name} {loss} {'default' if holds_constants(model) else 'all'}\n")
    (folder / "list").write_text("".join(listed))
    (folder / "left_out").write_text("".join(left_out))


main()
