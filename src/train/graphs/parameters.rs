//! Parameters of a forward graph, as exporters leave them.

use std::collections::HashSet;

use crate::error::{Error, Result};
use crate::onnx::{Graph, TensorData, ValueId, ValueType};
use crate::tensor::DType;

/// Where a parameter's values lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An initializer.
    Initializer,
    /// A `Constant` node.
    Constant,
    /// An `Identity` of an initializer: what the older tracer leaves of a parameter that was
    /// equal to another one when the model was exported. It is trained on its own.
    Identity,
}

/// A float tensor that the graph holds.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Name of the value.
    pub name: String,
    /// The value in the graph.
    pub value: ValueId,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its element type.
    pub dtype: DType,
    /// Where it lies.
    pub origin: Origin,
    /// Why it should not be trained unless asked for: `None` means that it should be.
    pub fixed: Option<&'static str>,
}

impl Parameter {
    /// Whether it is trained by default.
    pub fn trainable(&self) -> bool {
        self.fixed.is_none()
    }
}

/// Every float tensor that the graph holds and some node reads, in the order of the file.
/// Integer and boolean tensors are not trainable and not listed.
pub fn find_parameters(graph: &Graph) -> Vec<Parameter> {
    let consumers = graph.consumers();
    let outputs: HashSet<ValueId> = graph.outputs().iter().copied().collect();
    let mut found = Vec::new();
    for (&value, data) in graph.initializers() {
        let uses = &consumers[value.index()];
        let aliases = uses.iter().filter(|(id, _)| graph.node(*id).op == "Identity").count();
        if data.dtype().is_float() && (uses.len() > aliases || outputs.contains(&value)) {
            found.push(parameter(graph, value, data, Origin::Initializer));
        }
    }
    for node in graph.nodes().iter().filter(|n| n.domain.is_empty()) {
        let Some(value) = node.output(0) else { continue };
        if consumers[value.index()].is_empty() && !outputs.contains(&value) {
            continue;
        }
        if let Some(data) = node.constant().filter(|d| d.dtype().is_float()) {
            found.push(parameter(graph, value, &data, Origin::Constant));
        }
        let source = node.input(0).filter(|_| node.op == "Identity");
        let source = source.and_then(|v| graph.initializer(v));
        if let Some(data) = source.filter(|d| d.dtype().is_float()) {
            found.push(parameter(graph, value, data, Origin::Identity));
        }
    }
    found
}

fn parameter(graph: &Graph, value: ValueId, data: &TensorData, origin: Origin) -> Parameter {
    Parameter {
        name: graph.value_name(value).to_owned(),
        value,
        shape: data.shape().to_vec(),
        dtype: data.dtype(),
        origin,
        fixed: why_fixed(graph, value, data, origin),
    }
}

fn why_fixed(
    graph: &Graph,
    value: ValueId,
    data: &TensorData,
    origin: Origin,
) -> Option<&'static str> {
    if data.is_empty() {
        return Some("it is empty");
    }
    if data.shape().is_empty() {
        return Some("it is a scalar constant of the exporter");
    }
    if origin == Origin::Constant && data.shape().len() < 2 {
        return Some("it is a small constant of the exporter");
    }
    if feeds_only_angles(graph, value) {
        return Some("it holds the frequencies of rotary positions");
    }
    if is_mask(data) {
        return Some("it is an attention mask");
    }
    None
}

/// Whether every use ends in a sine or cosine after nothing but products and rearrangement.
fn feeds_only_angles(graph: &Graph, value: ValueId) -> bool {
    const PASSES: &[&str] = &[
        "Cast",
        "Concat",
        "Expand",
        "Identity",
        "MatMul",
        "Mul",
        "Reshape",
        "Transpose",
        "Unsqueeze",
    ];
    let consumers = graph.consumers();
    let mut todo = vec![value];
    let mut seen = HashSet::new();
    let mut angle = false;
    while let Some(v) = todo.pop() {
        if !seen.insert(v) {
            continue;
        }
        if seen.len() > 32 || graph.outputs().contains(&v) {
            return false;
        }
        for (id, _) in &consumers[v.index()] {
            let node = graph.node(*id);
            match node.op.as_str() {
                "Sin" | "Cos" => angle = true,
                op if PASSES.contains(&op) => todo.extend(node.outputs.iter().flatten()),
                _ => return false,
            }
        }
    }
    angle
}

/// A broadcast matrix of nothing but zeros and huge negative numbers.
fn is_mask(data: &TensorData) -> bool {
    let shape = data.shape();
    if shape.len() < 2 || shape[..shape.len() - 2].iter().any(|&d| d != 1) {
        return false;
    }
    let width = data.dtype().size() * shape[shape.len() - 1];
    let Ok(first) = TensorData::new(
        data.dtype(),
        &[shape[shape.len() - 1]],
        data.bytes().slice(..width.min(data.bytes().len())),
    ) else {
        return false;
    };
    let Ok(row) = first.to_f64s() else { return false };
    row.iter().all(|&v| v == 0.0 || v < -1e4) && row.iter().any(|&v| v < -1e4)
}

/// The data behind a parameter of the graph.
///
/// # Errors
/// `NotFound` when the value is neither an initializer, a `Constant` nor an `Identity` of one.
pub fn parameter_data(graph: &Graph, value: ValueId) -> Result<TensorData> {
    if let Some(data) = graph.initializer(value) {
        return Ok(data.clone());
    }
    let maker = graph.nodes().iter().find(|n| n.output(0) == Some(value));
    let data = maker.and_then(|n| match n.op.as_str() {
        "Identity" => n.input(0).and_then(|v| graph.initializer(v)).cloned(),
        _ => n.constant(),
    });
    data.ok_or_else(|| {
        Error::not_found(format!(
            "model '{}': '{}' holds no parameter",
            graph.name,
            graph.value_name(value)
        ))
    })
}

/// Makes parameters graph inputs: initializers lose their data, and nodes that made them go.
/// Those that are inputs already stay so.
///
/// # Errors
/// `InvalidArgument` for a parameter given twice; `NotFound` as [`parameter_data`].
pub fn make_inputs(graph: &mut Graph, params: &[ValueId]) -> Result<()> {
    let mut made = HashSet::new();
    for &p in params {
        if !made.insert(p) {
            return Err(Error::invalid(format!(
                "model '{}': parameter '{}' is given twice",
                graph.name,
                graph.value_name(p)
            )));
        }
        if graph.inputs().contains(&p) {
            continue;
        }
        let data = parameter_data(graph, p)?;
        let ty = ValueType::known(data.dtype(), data.shape());
        graph.retain_nodes(|_, n| n.output(0) != Some(p));
        graph.make_input(p);
        graph.set_type(p, ty);
    }
    Ok(())
}
