//! Structure-aware mutations of ONNX models: each keeps a decodable message and changes what it
//! says. Shared by the fuzz targets and by the test that runs a few thousand of them.

use std::collections::HashMap;

use bytes::Bytes;
use mmopt::autodiff::rows;
use mmopt::onnx::proto::{
    AttributeProto, Dimension, FunctionProto, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, dimension,
    type_proto,
};

/// A stream of choices, the same for the same seed (xorshift, Marsaglia 2003).
pub struct Choices(u64);

impl Choices {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Below `n`; 0 when there is nothing to choose from.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n.max(1)
    }

    /// True once in `n`.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        of.get(self.below(of.len())).cloned()
    }
}

const EXTREMES: &[i64] =
    &[i64::MIN, i64::MIN + 1, -100, -2, -1, 0, 1, 2, 3, 4, 7, 100, 1 << 20, 1 << 31, i64::MAX];
const SIZES: &[i64] = &[0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 8, 12, 1 << 10, 1 << 20, 1 << 40, -1];
const DTYPES: &[i32] = &[1, 1, 1, 11, 7, 7, 6, 9, 10, 16, 2, 3, 8, 0, 99];
const FLOATS: &[f32] = &[0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e30, f32::NAN, f32::INFINITY];
const OPSETS: &[i64] = &[13, 14, 16, 17, 18, 19, 20, 21, 23, 24, 1, 0, -1, 7, 1000, i64::MAX];
const DOMAINS: &[&str] = &["", "", "", "ai.onnx", "com.microsoft", "mmopt", "own"];
/// Operators that no row of the gradient table names.
const OPERATORS: &[&str] = &[
    "If",
    "Loop",
    "Scan",
    "Constant",
    "Shape",
    "SplitToSequence",
    "SequenceConstruct",
    "SequenceAt",
    "Attention",
    "RotaryEmbedding",
    "SoftmaxCrossEntropyLoss",
    "NegativeLogLikelihoodLoss",
    "LRN",
    "MeanVarianceNormalization",
    "MultiHeadAttention",
    "SkipLayerNormalization",
    "EmbedLayerNormalization",
    "GroupQueryAttention",
    "FusedMatMul",
    "call",
];
const ATTRIBUTES: &[&str] = &[
    "alpha",
    "auto_pad",
    "axes",
    "axis",
    "batch_dims",
    "beta",
    "blocksize",
    "ceil_mode",
    "count_include_pad",
    "dilations",
    "else_branch",
    "epsilon",
    "equation",
    "exclusive",
    "group",
    "is_causal",
    "keepdims",
    "kernel_shape",
    "kv_num_heads",
    "mode",
    "noop_with_empty_axes",
    "num_groups",
    "num_heads",
    "num_outputs",
    "output_padding",
    "output_shape",
    "p",
    "pads",
    "perm",
    "q_num_heads",
    "reduction",
    "split",
    "storage_order",
    "strides",
    "then_branch",
    "to",
    "training_mode",
    "transA",
    "transB",
    "upper",
    "value",
    "value_int",
    "value_ints",
];
const TEXTS: &[&str] = &[
    "add",
    "mul",
    "none",
    "mean",
    "sum",
    "max",
    "linear",
    "nearest",
    "SAME_UPPER",
    "VALID",
    "CRD",
    "tanh",
    "reflect",
    "ij,jk->ik",
    "...ij->...ji",
    "ii->",
    "bij,bjk",
    "",
    "odd",
];

/// One to four changes.
pub fn mutate(model: &mut ModelProto, c: &mut Choices) {
    for _ in 0..=c.below(4) {
        once(model, c);
    }
}

fn once(model: &mut ModelProto, c: &mut Choices) {
    match c.below(24) {
        0 => opsets(model, c),
        1 => function(model, c),
        2 => metadata(model, c),
        _ => {
            let ModelProto { graph, functions, .. } = model;
            if c.once_in(8)
                && let Some(at) = c.pick(&Vec::from_iter(0..functions.len()))
            {
                let FunctionProto { node, input, output, .. } = &mut functions[at];
                if c.once_in(4) {
                    let lists = [input, output];
                    let [a, b] = lists;
                    names(if c.once_in(2) { a } else { b }, &[], c);
                } else {
                    nodes(node, &[], c);
                }
            } else {
                graph_of(graph.get_or_insert_default(), c);
            }
        }
    }
}

fn opsets(model: &mut ModelProto, c: &mut Choices) {
    let domain = c.pick(DOMAINS).unwrap_or_default().to_owned();
    let version = c.pick(OPSETS).unwrap_or_default();
    let found = model.opset_import.iter().position(|o| o.domain == domain);
    match found {
        Some(at) if c.once_in(8) => drop(model.opset_import.remove(at)),
        Some(at) => model.opset_import[at].version = version,
        None => model.opset_import.push(OperatorSetIdProto { domain, version }),
    }
}

fn metadata(model: &mut ModelProto, c: &mut Choices) {
    match c.below(3) {
        0 => model.ir_version = c.pick(EXTREMES).unwrap_or_default(),
        1 => model.graph = model.graph.take().filter(|_| !c.once_in(16)),
        _ => model.producer_name = "x".repeat(c.below(100)),
    }
}

/// Makes a node a call of a function that holds it, or a function call itself.
fn function(model: &mut ModelProto, c: &mut Choices) {
    let Some(graph) = &mut model.graph else { return };
    let Some(at) = c.pick(&Vec::from_iter(0..graph.node.len())) else { return };
    let node = &mut graph.node[at];
    let mut inner = node.clone();
    node.op_type = "call".into();
    node.domain = "own".into();
    if c.once_in(4) {
        inner = node.clone();
    }
    let opset = model.opset_import.iter().find(|o| o.domain.is_empty());
    let mut imports = Vec::from_iter(opset.cloned());
    imports.push(OperatorSetIdProto { domain: "own".into(), version: 1 });
    if !model.opset_import.iter().any(|o| o.domain == "own") {
        model.opset_import.push(imports[imports.len() - 1].clone());
    }
    model.functions.push(FunctionProto {
        name: "call".into(),
        domain: "own".into(),
        input: inner.input.clone(),
        output: inner.output.clone(),
        node: vec![inner; 1 + c.below(2)],
        opset_import: imports,
        ..FunctionProto::default()
    });
}

/// The graph, or a body that it holds.
fn graph_of(graph: &mut GraphProto, c: &mut Choices) {
    let bodies = graph.node.iter_mut().flat_map(|n| &mut n.attribute).filter_map(|a| a.g.as_mut());
    let mut bodies: Vec<&mut GraphProto> = bodies.collect();
    let n = bodies.len();
    if n > 0 && c.once_in(3) {
        return graph_of(bodies.swap_remove(c.below(n)), c);
    }
    let known = names_of(graph);
    match c.below(12) {
        0 => tensor(&mut graph.initializer, &known, c),
        1 => typed(&mut graph.input, &known, c),
        2 => typed(&mut graph.output, &known, c),
        3 | 4 => typed(&mut graph.value_info, &known, c),
        5 => wrap(graph, c),
        6 => rename(graph, &known, c),
        _ => nodes(&mut graph.node, &known, c),
    }
}

fn names_of(graph: &GraphProto) -> Vec<String> {
    let made = graph.node.iter().flat_map(|n| &n.output);
    let given = graph.input.iter().map(|i| &i.name);
    given.chain(graph.initializer.iter().map(|t| &t.name)).chain(made).cloned().collect()
}

/// Adds, drops, exchanges or repeats entries of a list.
fn shuffle<T: Clone>(list: &mut Vec<T>, c: &mut Choices) {
    let n = list.len();
    if n == 0 {
        return;
    }
    let (a, b) = (c.below(n), c.below(n));
    match c.below(4) {
        0 => drop(list.remove(a)),
        1 => list.swap(a, b),
        2 => list.truncate(a),
        _ if n < 200 => list.insert(b, list[a].clone()),
        _ => {}
    }
}

fn names(list: &mut Vec<String>, known: &[String], c: &mut Choices) {
    let other = c.pick(known).unwrap_or_else(|| "nothing".into());
    let at = c.below(list.len());
    match c.below(4) {
        0 => shuffle(list, c),
        1 => list.push(other),
        2 if at < list.len() => list[at].clear(),
        _ if at < list.len() => list[at] = other,
        _ => {}
    }
}

fn nodes(list: &mut Vec<NodeProto>, known: &[String], c: &mut Choices) {
    let Some(at) = c.pick(&Vec::from_iter(0..list.len())) else { return };
    let node = &mut list[at];
    match c.below(12) {
        0 => shuffle(list, c),
        1 | 2 => node.op_type = operator(c),
        3 => node.domain = c.pick(DOMAINS).unwrap_or_default().into(),
        4..=6 => names(&mut node.input, known, c),
        7 => names(&mut node.output, known, c),
        _ => attributes(node, known, c),
    }
}

fn operator(c: &mut Choices) -> String {
    let all: Vec<&str> = rows().map(|r| r.op).chain(OPERATORS.iter().copied()).collect();
    c.pick(&all).unwrap_or_default().into()
}

fn attributes(node: &mut NodeProto, known: &[String], c: &mut Choices) {
    let at = c.below(node.attribute.len());
    if node.attribute.is_empty() || c.once_in(4) {
        let name = c.pick(ATTRIBUTES).unwrap_or_default().to_owned();
        node.attribute.push(value(name, known, c));
        return;
    }
    let attribute = &mut node.attribute[at];
    match c.below(6) {
        0 => shuffle(&mut node.attribute, c),
        1 => *attribute = value(attribute.name.clone(), known, c),
        2 => attribute.r#type = c.below(16) as i32,
        3 => attribute.ref_attr_name = "axis".into(),
        _ => change(attribute, c),
    }
}

/// Changes the value that is there.
fn change(attribute: &mut AttributeProto, c: &mut Choices) {
    let number = c.pick(EXTREMES).unwrap_or_default();
    match attribute.r#type {
        1 => attribute.f = c.pick(FLOATS),
        2 => attribute.i = Some(number),
        3 => attribute.s = Some(Bytes::from_static(c.pick(TEXTS).unwrap_or_default().as_bytes())),
        4 => {
            let mut list = Vec::from_iter(attribute.t.take());
            tensor(&mut list, &[], c);
            attribute.t = list.pop();
        }
        7 => {
            let at = c.below(attribute.ints.len());
            match attribute.ints.get_mut(at) {
                Some(old) if !c.once_in(4) => *old = number,
                _ if c.once_in(2) => attribute.ints.push(number),
                _ => shuffle(&mut attribute.ints, c),
            }
        }
        6 => shuffle(&mut attribute.floats, c),
        _ => {}
    }
}

fn value(name: String, known: &[String], c: &mut Choices) -> AttributeProto {
    let mut made = AttributeProto { name, r#type: 1 + c.below(7) as i32, ..Default::default() };
    made.i = c.pick(EXTREMES);
    made.f = c.pick(FLOATS);
    made.ints = (0..c.below(6)).filter_map(|_| c.pick(EXTREMES)).collect();
    made.s = Some(Bytes::from_static(c.pick(TEXTS).unwrap_or_default().as_bytes()));
    made.t = Some(list_tensor("", c));
    made.g = (made.r#type == 5).then(|| body(known, c));
    made
}

/// A branch that passes one or two outer values on.
fn body(known: &[String], c: &mut Choices) -> GraphProto {
    let mut graph = GraphProto { name: "body".into(), ..GraphProto::default() };
    for i in 0..=c.below(2) {
        let output = format!("inner_{i}");
        let inputs = (0..=c.below(2)).filter_map(|_| c.pick(known)).collect();
        let op_type = if c.once_in(3) { operator(c) } else { "Identity".into() };
        graph.node.push(NodeProto {
            op_type,
            input: inputs,
            output: vec![output.clone()],
            ..NodeProto::default()
        });
        graph.output.push(ValueInfoProto { name: output, r#type: None });
    }
    graph
}

/// Puts a node into both branches of an `If`.
fn wrap(graph: &mut GraphProto, c: &mut Choices) {
    let Some(at) = c.pick(&Vec::from_iter(0..graph.node.len())) else { return };
    let inner = graph.node[at].clone();
    let infos: HashMap<&str, &ValueInfoProto> =
        graph.value_info.iter().chain(&graph.output).map(|v| (v.name.as_str(), v)).collect();
    let mut branch = GraphProto { name: "branch".into(), ..GraphProto::default() };
    let mut renamed = inner.clone();
    for name in &mut renamed.output {
        let ty = infos.get(name.as_str()).and_then(|v| v.r#type.clone());
        name.push_str("_inner");
        branch.output.push(ValueInfoProto { name: name.clone(), r#type: ty });
    }
    branch.node.push(renamed);
    let condition = TensorProto {
        name: format!("condition_{}", graph.initializer.len()),
        data_type: 9,
        raw_data: Some(Bytes::from_static(&[1])),
        ..TensorProto::default()
    };
    let attribute = |name: &str, g: &GraphProto| AttributeProto {
        name: name.into(),
        r#type: 5,
        g: Some(g.clone()),
        ..AttributeProto::default()
    };
    graph.node[at] = NodeProto {
        op_type: "If".into(),
        input: vec![condition.name.clone()],
        output: inner.output,
        attribute: vec![attribute("then_branch", &branch), attribute("else_branch", &branch)],
        ..NodeProto::default()
    };
    if c.once_in(3) {
        graph.initializer.push(condition);
    } else {
        // A condition that depends on data.
        let ty = tensor_type(9, &[]);
        graph.input.push(ValueInfoProto { name: condition.name, r#type: Some(ty) });
    }
}

/// Gives one place, or all, another name for a value.
fn rename(graph: &mut GraphProto, known: &[String], c: &mut Choices) {
    let (Some(old), Some(new)) = (c.pick(known), c.pick(known)) else { return };
    let inputs = graph.node.iter_mut().flat_map(|n| &mut n.input);
    for name in inputs.filter(|n| **n == old) {
        name.clone_from(&new);
    }
}

fn tensor_type(elem_type: i32, dims: &[i64]) -> TypeProto {
    let dim = |&n: &i64| Dimension { value: Some(dimension::Value::DimValue(n)) };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    TypeProto { value: Some(type_proto::Value::Tensor(type_proto::Tensor { elem_type, shape })) }
}

/// Changes what is said of values' types.
fn typed(list: &mut Vec<ValueInfoProto>, known: &[String], c: &mut Choices) {
    let at = c.below(list.len());
    match c.below(10) {
        0 => shuffle(list, c),
        1 => {
            let dims: Vec<i64> = (0..c.below(5)).filter_map(|_| c.pick(SIZES)).collect();
            let r#type = c.pick(DTYPES).map(|d| tensor_type(d, &dims));
            let name = c.pick(known).unwrap_or_else(|| "new".into());
            list.push(ValueInfoProto { name, r#type });
        }
        2 if at < list.len() => list[at].r#type = None,
        _ if at < list.len() => {
            let Some(TypeProto { value: Some(type_proto::Value::Tensor(t)) }) =
                &mut list[at].r#type
            else {
                return;
            };
            if c.once_in(4) {
                t.elem_type = c.pick(DTYPES).unwrap_or_default();
                return;
            }
            let dims = &mut t.shape.get_or_insert_default().dim;
            let i = c.below(dims.len());
            let value = match c.below(12) {
                0 => None,
                1 => Some(dimension::Value::DimParam("batch".into())),
                _ => c.pick(SIZES).map(dimension::Value::DimValue),
            };
            match dims.get_mut(i) {
                Some(dim) if !c.once_in(4) => dim.value = value,
                _ if c.once_in(2) => dims.push(Dimension { value }),
                _ => shuffle(dims, c),
            }
        }
        _ => {}
    }
}

/// A list of integers.
fn list_tensor(name: &str, c: &mut Choices) -> TensorProto {
    let list: Vec<i64> = (0..c.below(5)).filter_map(|_| c.pick(EXTREMES)).collect();
    let raw: Vec<u8> = list.iter().flat_map(|v| v.to_le_bytes()).collect();
    TensorProto {
        name: name.into(),
        data_type: 7,
        dims: vec![list.len() as i64],
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    }
}

/// Changes constants.
fn tensor(list: &mut Vec<TensorProto>, known: &[String], c: &mut Choices) {
    if list.is_empty() || c.once_in(12) {
        let name = c.pick(known).unwrap_or_default();
        return list.push(list_tensor(&name, c));
    }
    let at = c.below(list.len());
    let t = &mut list[at];
    match c.below(7) {
        0 => shuffle(list, c),
        1 => *t = list_tensor(&t.name.clone(), c),
        2 => t.data_type = c.pick(DTYPES).unwrap_or_default(),
        3 => {
            // Another shape with data to match.
            let old = t.raw_data.clone().unwrap_or_default();
            t.dims = (0..c.below(5)).map(|_| 1 + c.below(4) as i64).collect();
            let n = t.dims.iter().product::<i64>() as usize * if t.data_type == 7 { 8 } else { 4 };
            t.raw_data = Some(old.iter().copied().cycle().take(n).collect());
        }
        4 => t.data_location = 1,
        5 => {
            let n = t.dims.len();
            let size = c.pick(SIZES).unwrap_or_default();
            match t.dims.get_mut(c.below(n)) {
                Some(dim) => *dim = size,
                None => t.dims.push(size),
            }
        }
        _ => {
            let mut raw = t.raw_data.take().unwrap_or_default().to_vec();
            let at = c.below(raw.len());
            if let Some(byte) = raw.get_mut(at) {
                *byte = c.below(256) as u8;
            }
            t.raw_data = Some(raw.into());
        }
    }
}
