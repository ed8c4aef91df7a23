//! Parameters of a forward graph, as exporters leave them.

use std::collections::HashSet;

use crate::autodiff::passes_gradient;
use crate::error::{Error, Result};
use crate::onnx::{Graph, Node, NodeId, TensorData, ValueId, ValueType};
use crate::tensor::DType;

/// What a parameter is in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An initializer.
    Initializer,
    /// A `Constant` node.
    Constant,
    /// An `Identity` of an initializer whose elements are all equal: what the older tracer leaves
    /// of a norm's gain or a bias that was equal to another one when the model was exported. It
    /// is trained on its own. An `Identity` of other values is a use of a shared parameter.
    Identity,
}

/// A float tensor of the graph.
#[derive(Clone, Debug)]
pub struct GraphParameter {
    /// Name of the value.
    pub name: String,
    /// The value in the graph.
    pub value: ValueId,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its element type.
    pub dtype: DType,
    /// What it is in the file.
    pub origin: Origin,
    /// Why it should not be trained unless asked for: `None` means that it should be.
    pub fixed: Option<&'static str>,
}

impl GraphParameter {
    /// Whether it is trained by default.
    pub fn trainable(&self) -> bool {
        self.fixed.is_none()
    }

    /// Whether it is a running statistic: not trained, but part of the model's state.
    pub fn is_buffer(&self) -> bool {
        self.fixed == Some(RUNNING_STATISTIC)
    }
}

/// A tensor of the graph that cannot be trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonTrainableTensor {
    /// Name of the value.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its element type.
    pub dtype: DType,
    /// Why, and what to do.
    pub reason: &'static str,
}

/// Operators that read quantised weights.
const QUANTISED: &[&str] = &[
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeMatMul",
    "GatherBlockQuantized",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "QAttention",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
];
/// Inputs that set what an operator does and must be constant: no gradient flows to them.
const SETTINGS: &[(&str, usize)] =
    &[("Dropout", 1), ("OneHot", 2), ("Resize", 1), ("Resize", 2), ("Upsample", 1)];
/// Why the running mean and variance of a batch normalisation are not trained.
pub(in crate::train) const RUNNING_STATISTIC: &str =
    "it is a running statistic of a BatchNormalization, a buffer";
/// The result of [`Graph::consumers`].
type Consumers = [Vec<(NodeId, usize)>];
/// Integers with fewer elements are shapes, axes and indices of the exporter.
const FEW: usize = 16;

/// Tensors of integers and booleans that look like weights or buffers, and settings of operators
/// such as a dropout's ratio, with the reason why they cannot be trained. Other float tensors are
/// listed by [`find_parameters`].
pub fn find_non_trainable(graph: &Graph) -> Vec<NonTrainableTensor> {
    let consumers = graph.consumers();
    let mut found = Vec::new();
    let mut look = |value: ValueId, data: &TensorData| {
        let uses = &consumers[value.index()];
        let small = data.len() <= FEW || data.shape().len() < 2;
        let reason = match reads_quantised(graph, uses) {
            _ if data.dtype().is_float() && is_setting(graph, value, &consumers) => {
                "it sets what an operator does, such as a dropout's ratio, and has no gradient"
            }
            _ if data.dtype().is_float() || uses.is_empty() => return,
            true if !data.shape().is_empty() => {
                "quantised weights have no gradient; export the model in f32"
            }
            false if !small => "integers have no gradient",
            _ => return,
        };
        let (name, shape) = (graph.value_name(value).to_owned(), data.shape().to_vec());
        found.push(NonTrainableTensor { name, shape, dtype: data.dtype(), reason });
    };
    graph.initializers().iter().for_each(|(&value, data)| look(value, data));
    for node in graph.nodes() {
        if let (Some(value), Some(data)) = (node.output(0), node.constant()) {
            look(value, &data);
        }
    }
    found.extend(graph.inner_weights().into_iter().map(|w| {
        let reason = match w.holder.as_str() {
            "If" | "Loop" | "Scan" => {
                "within a body it sets what an operator does, or is put out as it is"
            }
            "function" => {
                "it is a constant within a function of the model; export without functions"
            }
            _ => "it lies in the body of an operator without a gradient",
        };
        NonTrainableTensor { name: w.name, shape: w.shape, dtype: w.dtype, reason }
    }));
    found
}

fn reads_quantised(graph: &Graph, uses: &[(NodeId, usize)]) -> bool {
    !uses.is_empty() && uses.iter().all(|(id, _)| QUANTISED.contains(&&*graph.node(*id).op))
}

/// Whether a float tensor sets what an operator does, itself or rearranged. One such use is enough
/// whatever else reads it: a graph whose setting is an input cannot be differentiated.
fn is_setting(graph: &Graph, value: ValueId, consumers: &Consumers) -> bool {
    const PASSES: &[&str] = &["Cast", "Concat", "Identity", "Reshape", "Squeeze", "Unsqueeze"];
    let (mut todo, mut seen) = (vec![value], HashSet::new());
    while let Some(v) = todo.pop() {
        if !seen.insert(v) {
            continue;
        }
        for (id, slot) in &consumers[v.index()] {
            let node = graph.node(*id);
            if SETTINGS.contains(&(node.op.as_str(), *slot)) {
                return true;
            }
            if PASSES.contains(&node.op.as_str()) {
                todo.extend(node.outputs.iter().flatten());
            }
        }
    }
    false
}

/// Every float tensor that the graph holds and some node reads, in the order of the file.
/// Integers, booleans and settings of operators are not trainable and not listed; see
/// [`find_non_trainable`].
pub fn find_parameters(graph: &Graph) -> Vec<GraphParameter> {
    let Some(inlined) = inlined(graph) else { return parameters_of(graph) };
    let mut found = parameters_of(&inlined);
    // What a function holds itself is not the graph's.
    let own = |p: &GraphParameter| p.value.index() < graph.values().len();
    found.retain(|p| own(p) && parameter_data(graph, p.value).is_ok());
    found
}

/// The graph with its functions in place of their calls, which show what reads a tensor; `None`
/// where it has none. Values keep their ids.
fn inlined(graph: &Graph) -> Option<Graph> {
    if graph.functions.is_empty() {
        return None;
    }
    let mut work = graph.clone();
    work.inline_functions().is_ok().then_some(work)
}

fn parameters_of(graph: &Graph) -> Vec<GraphParameter> {
    let consumers = graph.consumers();
    let outputs: HashSet<ValueId> = graph.outputs().iter().copied().collect();
    let mut found = Vec::new();
    for (&value, data) in graph.initializers() {
        let uses = &consumers[value.index()];
        let alias = |id: NodeId| graph.node(id).op == "Identity" && all_equal(data);
        let aliases = uses.iter().filter(|(id, _)| alias(*id)).count();
        if data.dtype().is_float() && (uses.len() > aliases || outputs.contains(&value)) {
            found.push(parameter(graph, value, data, Origin::Initializer, &consumers));
        }
    }
    for node in graph.nodes().iter().filter(|n| n.domain.is_empty()) {
        let Some(value) = node.output(0) else { continue };
        if consumers[value.index()].is_empty() && !outputs.contains(&value) {
            continue;
        }
        if let Some(data) = node.constant().filter(|d| d.dtype().is_float()) {
            found.push(parameter(graph, value, &data, Origin::Constant, &consumers));
        }
        let source = node.input(0).filter(|_| node.op == "Identity");
        let source = source.and_then(|v| graph.initializer(v));
        if let Some(data) = source.filter(|d| d.dtype().is_float() && all_equal(d)) {
            found.push(parameter(graph, value, data, Origin::Identity, &consumers));
        }
    }
    found.retain(|p| !is_setting(graph, p.value, &consumers));
    found
}

/// Whether all elements have the same bits; false when there are none.
pub(in crate::train) fn all_equal(data: &TensorData) -> bool {
    let mut elements = data.bytes().chunks(data.dtype().size().max(1));
    let first = elements.next();
    first.is_some() && elements.all(|e| Some(e) == first)
}

fn parameter(
    graph: &Graph,
    value: ValueId,
    data: &TensorData,
    origin: Origin,
    consumers: &Consumers,
) -> GraphParameter {
    let fixed = match reads_quantised(graph, &consumers[value.index()]) {
        true => Some("it belongs to quantised weights"),
        false => why_fixed(graph, value, data, origin, consumers),
    };
    GraphParameter {
        name: graph.value_name(value).to_owned(),
        value,
        shape: data.shape().to_vec(),
        dtype: data.dtype(),
        origin,
        fixed,
    }
}

/// Whether a node's input is the running mean or variance of a batch normalisation.
pub(in crate::train) fn is_statistic(node: &Node, slot: usize) -> bool {
    node.op == "BatchNormalization" && node.domain.is_empty() && matches!(slot, 3 | 4)
}

/// Whether an input of an operator within a branch may be a parameter of the model.
pub(in crate::train) fn may_be_trained(op: &str, slot: usize) -> bool {
    let statistic = op == "BatchNormalization" && matches!(slot, 3 | 4);
    !statistic && !SETTINGS.contains(&(op, slot)) && !QUANTISED.contains(&op)
}

fn why_fixed(
    graph: &Graph,
    value: ValueId,
    data: &TensorData,
    origin: Origin,
    consumers: &Consumers,
) -> Option<&'static str> {
    if data.is_empty() {
        return Some("it is empty");
    }
    let uses = &consumers[value.index()];
    if !uses.is_empty() && uses.iter().all(|&(id, slot)| is_statistic(graph.node(id), slot)) {
        return Some(RUNNING_STATISTIC);
    }
    let put_out = graph.outputs().contains(&value) || uses.is_empty();
    if !put_out && !uses.iter().any(|&(id, slot)| passes_gradient(graph, id, slot)) {
        return Some("only operators without a gradient read it");
    }
    if data.shape().is_empty() {
        return Some("it is a scalar constant of the exporter");
    }
    if origin == Origin::Constant && data.shape().len() < 2 {
        return Some("it is a small constant of the exporter");
    }
    if feeds_only_angles(graph, value, consumers) {
        return Some("it holds the frequencies of rotary positions");
    }
    if is_mask(data) {
        return Some("it is an attention mask");
    }
    None
}

/// Whether every use ends in a sine or cosine after nothing but products and rearrangement.
fn feeds_only_angles(graph: &Graph, value: ValueId, consumers: &Consumers) -> bool {
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
    // Types first: once an initializer is an input, an Identity of it has no data any more.
    let mut found = Vec::new();
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
        found.push((p, ValueType::known(data.dtype(), data.shape())));
    }
    for (p, ty) in found {
        graph.retain_nodes(|_, n| n.output(0) != Some(p));
        graph.make_input(p);
        graph.set_type(p, ty);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::Attribute;

    fn floats(shape: &[usize], f: impl Fn(usize) -> f32) -> TensorData {
        let n = shape.iter().product();
        TensorData::from_slice(shape, &(0..n).map(f).collect::<Vec<_>>()).unwrap()
    }

    /// A gain and a weight, each also read through an Identity, rotary frequencies, a mask, a
    /// scalar, and integers.
    fn model() -> Graph {
        let mut g = Graph::new("found", 17);
        let x = g.add_input("x", ValueType::known(DType::F32, &[3, 3])).unwrap();
        let gain = g.add_initializer("gain", floats(&[3], |_| 1.0)).unwrap();
        let weight = g.add_initializer("weight", floats(&[3, 3], |i| i as f32)).unwrap();
        let frequency = g.add_initializer("frequency", floats(&[3], |i| 0.5 + i as f32)).unwrap();
        let low = |i: usize| if i.is_multiple_of(4) { 0.0 } else { f32::MIN };
        let mask = g.add_initializer("mask", floats(&[3, 3], low)).unwrap();
        let scale = g.add_initializer("scale", floats(&[], |_| 0.7)).unwrap();
        let dims = g.add_initializer("dims", TensorData::ints(&[3, 3])).unwrap();
        let (gain2, weight2) = (g.op("Identity", &[gain], []), g.op("Identity", &[weight], []));
        g.rename(gain2, "gain2").unwrap();
        let angle = g.op("Mul", &[x, frequency], []);
        let mut y = g.op("Sin", &[angle], []);
        for (op, v) in [
            ("Mul", gain),
            ("Mul", gain2),
            ("MatMul", weight),
            ("MatMul", weight2),
            ("Add", mask),
            ("Mul", scale),
            ("Reshape", dims),
        ] {
            y = g.op(op, &[y, v], []);
        }
        let c = [("value", Attribute::Tensor(floats(&[3, 3], |i| i as f32)))];
        let c = g.op("Constant", &[], c);
        g.rename(c, "constant").unwrap();
        let y = g.op("Add", &[y, c], []);
        g.add_output(y);
        g
    }

    #[test]
    fn parameters_are_found_as_they_are() {
        let found = find_parameters(&model());
        let of = |trainable: bool| -> Vec<&str> {
            let chosen = found.iter().filter(|p| p.trainable() == trainable);
            chosen.map(|p| p.name.as_str()).collect()
        };
        assert_eq!(of(true), ["gain", "weight", "gain2", "constant"]);
        assert_eq!(of(false), ["frequency", "mask", "scale"]);
    }

    #[test]
    fn an_alias_becomes_an_input_of_its_own() {
        let mut g = model();
        let params: Vec<ValueId> =
            ["gain", "gain2", "constant"].iter().map(|n| g.find(n).unwrap()).collect();
        make_inputs(&mut g, &params).unwrap();
        g.sort().unwrap();
        assert!(params.iter().all(|p| g.inputs().contains(p)));
        let twice = [params[0], params[0]];
        assert!(make_inputs(&mut model(), &twice).is_err());
        let no_parameter = [g.find("dims").unwrap(), g.outputs()[0]];
        assert!(make_inputs(&mut model(), &no_parameter).is_err());
    }

    #[test]
    fn quantised_weights_and_integers_are_listed_with_the_reason() {
        let mut g = Graph::new("quantised", 17);
        let x = g.add_input("x", ValueType::known(DType::F32, &[2, 3])).unwrap();
        let bytes = |n: usize| (0..n).map(|i| i as u8).collect::<Vec<u8>>();
        let w = TensorData::from_slice(&[3, 4], &bytes(12)).unwrap();
        let w = g.add_initializer("w_quantized", w).unwrap();
        let scale = g.add_initializer("w_scale", floats(&[4], |_| 0.1)).unwrap();
        let zero = TensorData::from_slice(&[4], &bytes(4)).unwrap();
        let zero = g.add_initializer("w_zero", zero).unwrap();
        let axis = [("axis", Attribute::Int(1))];
        let w = g.op("DequantizeLinear", &[w, scale, zero], axis);
        let y = g.op("MatMul", &[x, w], []);
        let ids = TensorData::from_slice(&[1, 40], &[0i64; 40]).unwrap();
        let ids = g.add_initializer("position_ids", ids).unwrap();
        let few = g.add_initializer("shape", TensorData::ints(&[2, 4])).unwrap();
        let y = g.op("Reshape", &[y, few], []);
        g.add_output(y);
        g.add_output(ids);
        let z = g.op("Identity", &[ids], []);
        g.add_output(z);
        let found = find_non_trainable(&g);
        let names: Vec<(&str, bool)> =
            found.iter().map(|f| (&*f.name, f.reason.starts_with("quantised"))).collect();
        assert_eq!(names, [("w_quantized", true), ("w_zero", true), ("position_ids", false)]);
        let scale = &find_parameters(&g)[0];
        assert_eq!((&*scale.name, scale.trainable()), ("w_scale", false));
    }

    #[test]
    fn settings_of_operators_are_no_parameters() {
        let mut g = Graph::new("settings", 17);
        let x = g.add_input("x", ValueType::known(DType::F32, &[1, 1, 2, 2])).unwrap();
        let ratio = [("value", Attribute::Tensor(floats(&[], |_| 0.1)))];
        let ratio = g.op("Constant", &[], ratio);
        g.rename(ratio, "ratio").unwrap();
        let width = g.add_initializer("width", floats(&[1], |_| 0.2)).unwrap();
        let roi = g.add_initializer("roi", floats(&[8], |_| 0.0)).unwrap();
        let scales = g.add_initializer("scales", floats(&[4], |_| 2.0)).unwrap();
        let weight = g.add_initializer("weight", floats(&[2, 2], |i| i as f32)).unwrap();
        let y = g.op("MatMul", &[x, weight], []);
        let y = g.op("Dropout", &[y, ratio], []);
        let scalar = g.op("Squeeze", &[width], []);
        let y = g.op("Dropout", &[y, scalar], []);
        let y = g.op("Mul", &[y, width], []);
        let y = g.op("Resize", &[y, roi, scales], []);
        g.add_output(y);
        let found: Vec<String> = find_parameters(&g).into_iter().map(|p| p.name).collect();
        assert_eq!(found, ["weight"]);
        let mut names: Vec<String> = find_non_trainable(&g).into_iter().map(|u| u.name).collect();
        names.sort();
        assert_eq!(names, ["ratio", "roi", "scales", "width"]);
    }
}
