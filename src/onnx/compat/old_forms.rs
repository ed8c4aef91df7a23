//! Forms that operators had before opset 17, rewritten to those of opset 17, as the standard's
//! change log has them.

use crate::error::{Error, Result};
use crate::onnx::{Attribute, Graph, Node, NodeId, TensorData, ValueId};
use crate::tensor::DType;

/// Operators whose form changed, and the first opset that has the form of opset 17.
const CHANGED: &[(&str, i64)] = &[
    ("BatchNormalization", 14),
    ("Clip", 11),
    ("Dropout", 12),
    ("Hardmax", 13),
    ("LogSoftmax", 13),
    ("Pad", 11),
    ("ReduceSum", 13),
    ("Resize", 13),
    ("RoiAlign", 16),
    ("Scan", 9),
    ("Scatter", 17),
    ("Slice", 10),
    ("Softmax", 13),
    ("Split", 13),
    ("Squeeze", 13),
    ("TopK", 10),
    ("Unsqueeze", 13),
    ("Upsample", 17),
];

/// Whether a node of this operator may need another form. A BatchNormalization with one output has
/// the same since opset 9.
pub(super) fn changed(op: &str, n_outputs: usize, opset: i64) -> bool {
    let until = CHANGED.iter().find(|(name, _)| *name == op).map_or(0, |(_, until)| *until);
    opset < until && !(op == "BatchNormalization" && n_outputs <= 1 && opset >= 9)
}

/// Gives a node the form of opset 17.
///
/// # Errors
/// `Unsupported` where that form cannot say the same.
pub(super) fn rewrite(graph: &mut Graph, id: NodeId, opset: i64) -> Result<()> {
    let node = graph.node(id);
    if !changed(&node.op, node.outputs.len(), opset) {
        return Ok(());
    }
    match node.op.as_str() {
        "Squeeze" | "Unsqueeze" | "ReduceSum" => ints_to_input(graph, id, "axes", 1),
        "Split" => ints_to_input(graph, id, "split", 1),
        "Slice" => [("starts", 1), ("ends", 2), ("axes", 3)]
            .into_iter()
            .try_for_each(|(name, slot)| ints_to_input(graph, id, name, slot)),
        "TopK" => {
            let k = node.int("k").ok_or_else(|| Error::data("attribute k is missing"))?;
            graph.node_mut(id).attributes.insert("k".into(), Attribute::Ints(vec![k]));
            ints_to_input(graph, id, "k", 1)
        }
        "Pad" => {
            ints_to_input(graph, id, "pads", 1)?;
            number_to_input(graph, id, "value", 2)
        }
        "Clip" => {
            number_to_input(graph, id, "min", 1)?;
            number_to_input(graph, id, "max", 2)
        }
        "Dropout" => dropout(graph, id, opset),
        "Softmax" | "LogSoftmax" | "Hardmax" => softmax(graph, id),
        "Scatter" => {
            graph.node_mut(id).op = "ScatterElements".into();
            Ok(())
        }
        "BatchNormalization" => batch_norm(graph, id),
        "Upsample" => upsample(graph, id),
        "Resize" if opset < 11 => resize_by_scales(graph, id),
        "Resize" => resize(graph, id),
        op => Err(Error::unsupported(format!(
            "{op} means something else from opset 17 on; export the model at that opset"
        ))),
    }
}

/// Puts a value into a node's input `slot`; inputs before it that there are not are left out.
fn set_input(node: &mut Node, slot: usize, value: Option<ValueId>) {
    if node.inputs.len() <= slot {
        node.inputs.resize(slot + 1, None);
    }
    node.inputs[slot] = value;
}

/// An attribute of integers becomes a constant input.
fn ints_to_input(graph: &mut Graph, id: NodeId, name: &str, slot: usize) -> Result<()> {
    let Some(values) = graph.node(id).ints(name).map(<[i64]>::to_vec) else { return Ok(()) };
    let constant = graph.add_initializer("", TensorData::ints(&values))?;
    let node = graph.node_mut(id);
    node.attributes.remove(name);
    set_input(node, slot, Some(constant));
    Ok(())
}

/// An attribute with a number becomes a constant input of input 0's element type.
fn number_to_input(graph: &mut Graph, id: NodeId, name: &str, slot: usize) -> Result<()> {
    let Some(value) = graph.node(id).float(name) else { return Ok(()) };
    let dtype = float_type(graph, graph.node(id).input(0))?;
    let constant = graph.add_initializer("", TensorData::scalar(dtype, f64::from(value))?)?;
    let node = graph.node_mut(id);
    node.attributes.remove(name);
    set_input(node, slot, Some(constant));
    Ok(())
}

/// The element type of a float value: its own where that is known, else that of all floats that the
/// graph is given.
fn float_type(graph: &Graph, value: Option<ValueId>) -> Result<DType> {
    let own = value.and_then(|v| graph.value(v).ty.dtype);
    if let Some(dtype) = own {
        return Ok(dtype);
    }
    let given = graph.inputs().iter().chain(graph.initializers().keys());
    let mut floats = given.filter_map(|&v| graph.value(v).ty.dtype).filter(|d| d.is_float());
    match floats.next() {
        None => Ok(DType::F32),
        Some(first) if floats.all(|d| d == first) => Ok(first),
        Some(_) => Err(Error::unsupported(
            "the element type of its input is not told; export the model at opset 13 or newer",
        )),
    }
}

/// Before opset 12 the ratio is an attribute, and whether the node is in training mode is not said;
/// as since then, it is not.
fn dropout(graph: &mut Graph, id: NodeId, opset: i64) -> Result<()> {
    if opset < 10 && graph.node(id).output(1).is_some_and(|mask| is_used(graph, mask)) {
        return Err(Error::unsupported(
            "its mask is boolean from opset 10 on; export the model at opset 13 or newer",
        ));
    }
    graph.node_mut(id).attributes.remove("ratio");
    Ok(())
}

fn is_used(graph: &Graph, v: ValueId) -> bool {
    graph.outputs().contains(&v) || !graph.consumers()[v.index()].is_empty()
}

/// Before opset 13 a softmax spans `axis` (default 1) and all axes behind it: as one over the last
/// axis of a matrix.
fn softmax(graph: &mut Graph, id: NodeId) -> Result<()> {
    let node = graph.node(id).clone();
    let x = node.input(0).ok_or_else(|| Error::data("input 0 is missing"))?;
    let axis = node.int("axis").unwrap_or(1);
    let rank = graph.value(x).ty.shape.as_ref().map(|s| s.len() as i64);
    if axis == -1 || rank.is_some_and(|rank| axis == rank - 1) {
        graph.node_mut(id).attributes.insert("axis".into(), Attribute::Int(-1));
        return Ok(());
    }
    let shape = graph.op("Shape", &[x], []);
    let flat = graph.op("Flatten", &[x], [("axis", Attribute::Int(axis))]);
    let y = graph.op(&node.op, &[flat], [("axis", Attribute::Int(-1))]);
    let last = graph.node_mut(id);
    (last.op, last.inputs) = ("Reshape".to_owned(), vec![Some(y), Some(shape)]);
    last.attributes.clear();
    Ok(())
}

/// Before opset 14 more outputs than one mean training mode; the saved statistics are no more.
fn batch_norm(graph: &mut Graph, id: NodeId) -> Result<()> {
    let node = graph.node(id);
    if node.int("spatial").is_some_and(|s| s != 1) {
        return Err(Error::unsupported("spatial 0 has no form in newer opsets"));
    }
    if let Some(slot) =
        (3..node.outputs.len()).find(|&i| node.output(i).is_some_and(|v| is_used(graph, v)))
    {
        return Err(Error::unsupported(format!(
            "its output {slot} (a saved statistic) is used, and is no more from opset 14 on"
        )));
    }
    let node = graph.node_mut(id);
    node.attributes.remove("spatial");
    node.outputs.truncate(3);
    if node.outputs.len() > 1 {
        node.attributes.insert("training_mode".into(), Attribute::Int(1));
    }
    Ok(())
}

/// `Upsample` is the `Resize` whose positions are i / scale.
fn upsample(graph: &mut Graph, id: NodeId) -> Result<()> {
    let node = graph.node(id);
    let scales = match node.attributes.get("scales") {
        Some(Attribute::Floats(scales)) => {
            let data = TensorData::from_slice(&[scales.len()], scales)?;
            Some(graph.add_initializer("", data)?)
        }
        _ => node.input(1),
    };
    if graph.node(id).string("mode") == Some("bilinear") {
        graph.node_mut(id).attributes.insert("mode".into(), Attribute::String("linear".into()));
    }
    asymmetric(graph, id, scales, "floor");
    Ok(())
}

/// Makes a node the `Resize` by `scales` whose positions are i / scale.
fn asymmetric(graph: &mut Graph, id: NodeId, scales: Option<ValueId>, rounding: &str) {
    let node = graph.node_mut(id);
    node.op = "Resize".into();
    node.attributes.remove("scales");
    let text = |t: &str| Attribute::String(t.to_owned());
    node.attributes.insert("coordinate_transformation_mode".into(), text("asymmetric"));
    node.attributes.insert("nearest_mode".into(), text(rounding));
    node.inputs.truncate(1);
    set_input(node, 2, scales);
}

/// `Resize` of opset 10: positions are i / scale; the nearest place is rounded down where the axis
/// grows, up where it shrinks, as ONNX Runtime does.
fn resize_by_scales(graph: &mut Graph, id: NodeId) -> Result<()> {
    let node = graph.node(id);
    let scales = node.input(1);
    let nearest = node.string("mode").unwrap_or("nearest") == "nearest";
    let mut rounding = "floor";
    if nearest {
        let data = scales.and_then(|v| graph.constant(v)).ok_or_else(|| {
            Error::unsupported("its scales are no constant; export the model at opset 13 or newer")
        })?;
        let scales = data.to_f64s()?;
        let (grows, shrinks) = (scales.iter().any(|&s| s > 1.0), scales.iter().any(|&s| s < 1.0));
        if grows && shrinks {
            return Err(Error::unsupported(
                "it enlarges one axis and shrinks another; export the model at opset 13 or newer",
            ));
        }
        rounding = if shrinks { "ceil" } else { "floor" };
    }
    asymmetric(graph, id, scales, rounding);
    Ok(())
}

/// `Resize` of opset 11 and 12: what is given as an empty tensor may be left out.
fn resize(graph: &mut Graph, id: NodeId) -> Result<()> {
    let mode = graph.node(id).string("coordinate_transformation_mode").unwrap_or_default();
    if mode == "tf_half_pixel_for_nn" {
        let text = "coordinate_transformation_mode 'tf_half_pixel_for_nn' is no more";
        return Err(Error::unsupported(text));
    }
    for slot in [1, 2] {
        let given = graph.node(id).input(slot);
        if given.and_then(|v| graph.constant(v)).is_some_and(|d| d.is_empty()) {
            set_input(graph.node_mut(id), slot, None);
        }
    }
    Ok(())
}
