//! The same operators as model-local functions of standard operators: what the runtime runs where
//! no kernel is registered.

use crate::error::{Error, Result};
use crate::onnx::Graph;
use crate::onnx::proto::{AttributeProto, FunctionProto, NodeProto, OperatorSetIdProto};

use super::attention;
use super::dropout::{A, C, P, ROUNDS};
use crate::onnx::MMOPT_DOMAIN;

/// Adds to a graph what its nodes of the domain `mmopt` need to run anywhere: the domain's import,
/// and each operator as a function of standard operators of the graph's opset (13 or newer).
/// Without such nodes the import is removed.
///
/// # Errors
/// [`crate::Kind::Unsupported`] for a node of the domain that no kernel implements, or an older
/// opset; the graph is then unchanged.
pub fn attach(graph: &mut Graph) -> Result<()> {
    let mut wanted: Vec<String> = Vec::new();
    for node in graph.nodes().iter().filter(|node| node.domain == MMOPT_DOMAIN) {
        if !wanted.contains(&node.op) {
            wanted.push(node.op.clone());
        }
    }
    if wanted.is_empty() {
        graph.opsets.remove(MMOPT_DOMAIN);
        return Ok(());
    }
    let opset = graph.opset();
    if opset < 13 {
        return Err(Error::unsupported(format!(
            "graph '{}': opset {opset} is too old for the operators of {MMOPT_DOMAIN}; 13 is \
             needed",
            graph.name
        )));
    }
    let functions = wanted.iter().map(|op| function(op, opset)).collect::<Result<Vec<_>>>()?;
    graph.functions.retain(|f| f.domain != MMOPT_DOMAIN || !wanted.contains(&f.name));
    graph.functions.extend(functions);
    graph.opsets.insert(MMOPT_DOMAIN.to_owned(), 1);
    graph.ir_version = graph.ir_version.max(8);
    Ok(())
}

/// One operator's form in standard operators of `opset`.
pub(super) fn function(op: &str, opset: i64) -> Result<FunctionProto> {
    let mut body = Body { opset, nodes: Vec::new() };
    let (inputs, outputs, attributes): (&[&str], &[&str], &[&str]) = match op {
        "LayerNormGrad" => {
            layer_norm_grad(&mut body);
            (&["dy", "x", "gamma", "mean", "inv"], &["dx", "dgamma", "dbeta"], &[])
        }
        "Gelu" => {
            gelu(&mut body);
            (&["x"], &["y"], &[])
        }
        "GeluTanh" => {
            gelu_tanh(&mut body);
            (&["x"], &["y"], &[])
        }
        "GeluGrad" => {
            gelu_grad(&mut body);
            (&["dy", "x"], &["dx"], &[])
        }
        "GeluTanhGrad" => {
            gelu_tanh_grad(&mut body);
            (&["dy", "x"], &["dx"], &[])
        }
        "SoftmaxGrad" => {
            softmax_grad(&mut body);
            (&["dy", "y"], &["dx"], &[])
        }
        "CrossEntropy" => {
            cross_entropy(&mut body);
            (&["logits", "labels"], &["rows", "lse"], &["ignore_index", "label_smoothing"])
        }
        "CrossEntropyGrad" => {
            cross_entropy_grad(&mut body);
            let inputs = &["drows", "logits", "labels", "lse"];
            (inputs, &["dlogits"], &["ignore_index", "label_smoothing"])
        }
        "After" => {
            body.put("y", "Identity", &["x"], vec![]);
            (&["x", "after"], &["y"], &[])
        }
        "Targets" => {
            let shape = body.add("Shape", &["logits"], vec![]);
            body.put("targets", "ConstantOfShape", &[&shape], vec![]);
            let sums = body.reduce("ReduceSum", "targets", -1, false);
            body.put("weights", "Identity", &[&sums], vec![]);
            (&["logits", "exchange"], &["targets", "weights"], &[])
        }
        "Dropout" => {
            dropout(&mut body);
            (&["x", "seed"], &["y"], &["ratio", "salt"])
        }
        "MatMulBf16" | "MatMulF32" => {
            gemm(&mut body, &["a", "b"], &["alpha"]);
            (&["a", "b"], &["y"], &["transA", "transB", "alpha"])
        }
        "GemmBf16" | "GemmF32" => {
            gemm(&mut body, &["a", "b", "c"], &["alpha", "beta"]);
            (&["a", "b", "c"], &["y"], &["transA", "transB", "alpha", "beta"])
        }
        "FusedAttention" => {
            attention::standard_form(&mut body);
            (&["q", "k", "v", "mask", "seed"], &["o", "max", "inverse"], attention::ATTRIBUTES)
        }
        "FusedAttentionGrad" => {
            attention::standard_grad(&mut body);
            let inputs = &["do", "q", "k", "v", "mask", "seed", "o", "max", "inverse"];
            (inputs, &["dq", "dk", "dv"], attention::ATTRIBUTES)
        }
        "EmbeddingGrad" => {
            embedding_grad(&mut body);
            (&["ids", "rows", "table"], &["dtable"], &[])
        }
        other => return Err(Error::unsupported(format!("operator {MMOPT_DOMAIN}.{other}"))),
    };
    let owned = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
    Ok(FunctionProto {
        name: op.to_owned(),
        domain: MMOPT_DOMAIN.to_owned(),
        input: owned(inputs),
        output: owned(outputs),
        attribute: owned(attributes),
        node: body.nodes,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: opset }],
        ..Default::default()
    })
}

/// Nodes of a function under construction; values are identified by name.
pub(super) struct Body {
    opset: i64,
    nodes: Vec<NodeProto>,
}

impl Body {
    /// Adds a node whose output is called `to`.
    pub(super) fn put(
        &mut self,
        to: &str,
        op: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) {
        self.nodes.push(NodeProto {
            op_type: op.to_owned(),
            input: inputs.iter().map(|&n| n.to_owned()).collect(),
            output: vec![to.to_owned()],
            attribute: attributes,
            ..Default::default()
        });
    }

    /// Adds a node and returns its output's name.
    pub(super) fn add(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> String {
        let name = format!("t{}", self.nodes.len());
        self.put(&name, op, inputs, attributes);
        name
    }

    pub(super) fn mul(&mut self, a: &str, b: &str) -> String {
        self.add("Mul", &[a, b], vec![])
    }

    fn modulo(&mut self, a: &str, b: &str) -> String {
        self.add("Mod", &[a, b], vec![])
    }

    pub(super) fn sub(&mut self, a: &str, b: &str) -> String {
        self.add("Sub", &[a, b], vec![])
    }

    pub(super) fn plus(&mut self, a: &str, b: &str) -> String {
        self.add("Add", &[a, b], vec![])
    }

    pub(super) fn float(&mut self, value: f32) -> String {
        let value = AttributeProto { f: Some(value), r#type: 1, ..named("value_float") };
        self.add("Constant", &[], vec![value])
    }

    fn floats(&mut self, values: &[f32]) -> String {
        let values = AttributeProto { floats: values.to_vec(), r#type: 6, ..named("value_floats") };
        self.add("Constant", &[], vec![values])
    }

    fn integer(&mut self, value: i64) -> String {
        self.add("Constant", &[], vec![int("value_int", value)])
    }

    fn integers(&mut self, values: &[i64]) -> String {
        self.add("Constant", &[], vec![ints("value_ints", values)])
    }

    /// A scalar from the attribute `name` of the node that the function stands for.
    pub(super) fn attribute(&mut self, name: &str, is_float: bool) -> String {
        let (as_, kind) = if is_float { ("value_float", 1) } else { ("value_int", 2) };
        let of = AttributeProto { ref_attr_name: name.to_owned(), r#type: kind, ..named(as_) };
        self.add("Constant", &[], vec![of])
    }

    /// A reduction over one axis; the axis is an attribute or an input, as the opset has it.
    pub(super) fn reduce(&mut self, op: &str, x: &str, axis: i64, keep: bool) -> String {
        let keep = int("keepdims", i64::from(keep));
        if op != "ReduceSum" && self.opset < 18 {
            return self.add(op, &[x], vec![ints("axes", &[axis]), keep]);
        }
        let axes = self.integers(&[axis]);
        self.add(op, &[x, &axes], vec![keep])
    }

    fn shaped(&mut self, op: &str, x: &str, axis: i64) -> String {
        let axes = self.integers(&[axis]);
        self.add(op, &[x, &axes], vec![])
    }
}

fn named(name: &str) -> AttributeProto {
    AttributeProto { name: name.to_owned(), ..Default::default() }
}

pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), r#type: 2, ..named(name) }
}

pub(super) fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), r#type: 7, ..named(name) }
}

/// A product in f32.
fn gemm(b: &mut Body, inputs: &[&str], factors: &[&str]) {
    let given = |kind: i32| {
        move |name: &&str| AttributeProto {
            ref_attr_name: (*name).into(),
            r#type: kind,
            ..named(name)
        }
    };
    let flags = ["transA", "transB"];
    let attributes = flags.iter().map(given(2)).chain(factors.iter().map(given(1))).collect();
    b.put("y", "Gemm", inputs, attributes);
}

fn dropout(b: &mut Body) {
    let mask = dropout_mask(b, "x");
    let (one, ratio) = (b.float(1.0), b.attribute("ratio", true));
    let rest = b.sub(&one, &ratio);
    let scaled = b.mul("x", &mask);
    let inverse = b.add("Div", &[&one, &rest], vec![]);
    b.put("y", "Mul", &[&scaled, &inverse], vec![]);
}

/// Dropout's mask over the elements of `x`: 1 where an element is kept, else 0.
pub(super) fn dropout_mask(b: &mut Body, x: &str) -> String {
    let (p, a, c) = (b.integer(P), b.integer(A), b.integer(C));
    let salt = b.attribute("salt", false);
    let salt = b.modulo(&salt, &p);
    let seed = b.modulo("seed", &p);
    let first = b.mul(&salt, &a);
    let first = b.plus(&first, &seed);
    let first = b.modulo(&first, &p);
    let size = b.add("Size", &[x], vec![]);
    let (zero, one) = (b.integer(0), b.integer(1));
    let places = b.add("Range", &[&zero, &size, &one], vec![]);
    let sum = b.plus(&places, &first);
    let mut h = b.modulo(&sum, &p);
    for _ in 0..ROUNDS {
        let square = b.mul(&h, &h);
        let line = b.mul(&h, &a);
        let sum = b.plus(&square, &line);
        let sum = b.plus(&sum, &c);
        h = b.modulo(&sum, &p);
    }
    let ratio = b.attribute("ratio", true);
    let wide = b.add("Cast", &[&ratio], vec![int("to", 11)]);
    let p_wide = b.add("Cast", &[&p], vec![int("to", 11)]);
    let least = b.mul(&wide, &p_wide);
    let least = b.add("Round", &[&least], vec![]);
    let least = b.add("Cast", &[&least], vec![int("to", 7)]);
    let dropped = b.add("Less", &[&h, &least], vec![]);
    let kept = b.add("Not", &[&dropped], vec![]);
    let mask = b.add("Cast", &[&kept], vec![int("to", 1)]);
    let shape = b.add("Shape", &[x], vec![]);
    b.add("Reshape", &[&mask, &shape], vec![])
}

fn layer_norm_grad(b: &mut Body) {
    let centred = b.sub("x", "mean");
    let x_hat = b.mul(&centred, "inv");
    let g = b.mul("dy", "gamma");
    let gx = b.mul(&g, &x_hat);
    let mean = b.reduce("ReduceMean", &g, -1, true);
    let mean_x = b.reduce("ReduceMean", &gx, -1, true);
    let along = b.mul(&x_hat, &mean_x);
    let rest = b.sub(&g, &mean);
    let rest = b.sub(&rest, &along);
    b.put("dx", "Mul", &["inv", &rest], vec![]);
    let width = b.add("Shape", &["gamma"], vec![]);
    let any = b.integers(&[-1]);
    let flat = b.add("Concat", &[&any, &width], vec![int("axis", 0)]);
    let scaled = b.mul("dy", &x_hat);
    for (value, to) in [(scaled.as_str(), "dgamma"), ("dy", "dbeta")] {
        let rows = b.add("Reshape", &[value, &flat], vec![]);
        let axes = b.integers(&[0]);
        b.put(to, "ReduceSum", &[&rows, &axes], vec![int("keepdims", 0)]);
    }
}

/// Φ(x), the normal distribution.
fn normal(b: &mut Body) -> String {
    let (root, one, half) = (b.float(std::f32::consts::FRAC_1_SQRT_2), b.float(1.0), b.float(0.5));
    let scaled = b.mul("x", &root);
    let erf = b.add("Erf", &[&scaled], vec![]);
    let cdf = b.plus(&erf, &one);
    b.mul(&cdf, &half)
}

fn gelu(b: &mut Body) {
    let cdf = normal(b);
    b.put("y", "Mul", &["x", &cdf], vec![]);
}

fn gelu_grad(b: &mut Body) {
    let cdf = normal(b);
    let (minus_half, norm) = (b.float(-0.5), b.float(0.398_942_3));
    let square = b.mul("x", "x");
    let exponent = b.mul(&square, &minus_half);
    let density = b.add("Exp", &[&exponent], vec![]);
    let density = b.mul(&density, &norm);
    let slope = b.mul("x", &density);
    let slope = b.plus(&cdf, &slope);
    b.put("dx", "Mul", &["dy", &slope], vec![]);
}

/// x², and the tanh of GELU's tanh form.
fn tanh(b: &mut Body) -> (String, String) {
    let (c, a, one) = (b.float(0.797_884_6), b.float(0.044_715), b.float(1.0));
    let x2 = b.mul("x", "x");
    let cubic = b.mul(&x2, &a);
    let cubic = b.plus(&cubic, &one);
    let u = b.mul("x", &cubic);
    let u = b.mul(&u, &c);
    (x2, b.add("Tanh", &[&u], vec![]))
}

fn gelu_tanh(b: &mut Body) {
    let (_, tanh) = tanh(b);
    let (one, half) = (b.float(1.0), b.float(0.5));
    let outer = b.plus(&tanh, &one);
    let outer = b.mul(&outer, &half);
    b.put("y", "Mul", &["x", &outer], vec![]);
}

fn gelu_tanh_grad(b: &mut Body) {
    let (x2, tanh) = tanh(b);
    let (c, one, half) = (b.float(0.797_884_6), b.float(1.0), b.float(0.5));
    let three_a = b.float(3.0 * 0.044_715);
    let du = b.mul(&x2, &three_a);
    let du = b.plus(&du, &one);
    let du = b.mul(&du, &c);
    let square = b.mul(&tanh, &tanh);
    let rest = b.sub(&one, &square);
    let inner = b.mul(&rest, &du);
    let inner = b.mul("x", &inner);
    let outer = b.plus(&tanh, &one);
    let slope = b.plus(&outer, &inner);
    let slope = b.mul(&slope, &half);
    b.put("dx", "Mul", &["dy", &slope], vec![]);
}

fn softmax_grad(b: &mut Body) {
    let product = b.mul("dy", "y");
    let sum = b.reduce("ReduceSum", &product, -1, true);
    let rest = b.sub("dy", &sum);
    b.put("dx", "Mul", &["y", &rest], vec![]);
}

/// `(kept, labels with 0 in the rows to ignore)`.
fn kept_labels(b: &mut Body) -> (String, String) {
    let ignore = b.attribute("ignore_index", false);
    let ignored = b.add("Equal", &["labels", &ignore], vec![]);
    let kept = b.add("Not", &[&ignored], vec![]);
    let zero = b.integer(0);
    let safe = b.add("Where", &[&kept, "labels", &zero], vec![]);
    (kept, safe)
}

fn cross_entropy(b: &mut Body) {
    let (kept, safe) = kept_labels(b);
    let max = b.reduce("ReduceMax", "logits", -1, true);
    let shifted = b.sub("logits", &max);
    let exps = b.add("Exp", &[&shifted], vec![]);
    let sum = b.reduce("ReduceSum", &exps, -1, true);
    let log = b.add("Log", &[&sum], vec![]);
    let column = b.plus(&log, &max);
    let last = b.integers(&[-1]);
    b.put("lse", "Squeeze", &[&column, &last], vec![]);
    let index = b.shaped("Unsqueeze", &safe, -1);
    let picked = b.add("GatherElements", &["logits", &index], vec![int("axis", 1)]);
    let sharp = b.sub(&column, &picked);
    let mean = b.reduce("ReduceMean", "logits", -1, true);
    let spread = b.sub(&column, &mean);
    let (smoothing, one) = (b.attribute("label_smoothing", true), b.float(1.0));
    let rest = b.sub(&one, &smoothing);
    let sharp = b.mul(&sharp, &rest);
    let spread = b.mul(&spread, &smoothing);
    let loss = b.plus(&sharp, &spread);
    let loss = b.shaped("Squeeze", &loss, -1);
    let zero = b.float(0.0);
    b.put("rows", "Where", &[&kept, &loss, &zero], vec![]);
}

fn cross_entropy_grad(b: &mut Body) {
    let (kept, safe) = kept_labels(b);
    let column = b.shaped("Unsqueeze", "lse", -1);
    let shifted = b.sub("logits", &column);
    let softmax = b.add("Exp", &[&shifted], vec![]);
    let shape = b.add("Shape", &["logits"], vec![]);
    let one_axis = b.integers(&[1]);
    let classes = b.add("Gather", &[&shape, &one_axis], vec![int("axis", 0)]);
    let off_on = b.floats(&[0.0, 1.0]);
    let hot = b.add("OneHot", &[&safe, &classes, &off_on], vec![int("axis", -1)]);
    let (smoothing, one) = (b.attribute("label_smoothing", true), b.float(1.0));
    let rest = b.sub(&one, &smoothing);
    let hot = b.mul(&hot, &rest);
    let count = b.add("Cast", &[&classes], vec![int("to", 1)]);
    let shift = b.add("Div", &[&smoothing, &count], vec![]);
    let slope = b.sub(&softmax, &shift);
    let slope = b.sub(&slope, &hot);
    let zero = b.float(0.0);
    let scale = b.add("Where", &[&kept, "drows", &zero], vec![]);
    let scale = b.shaped("Unsqueeze", &scale, -1);
    b.put("dlogits", "Mul", &[&slope, &scale], vec![]);
}

/// `ScatterElements` with addition came with opset 16; before, a product with one-hot rows.
/// `ScatterND` is no choice: its additions race where an id occurs twice.
fn embedding_grad(b: &mut Body) {
    let any = b.integers(&[-1]);
    let ids = b.add("Reshape", &["ids", &any], vec![]);
    let shape = b.add("Shape", &["table"], vec![]);
    let (first, second) = (b.integers(&[0]), b.integers(&[1]));
    let width = b.add("Gather", &[&shape, &second], vec![int("axis", 0)]);
    let flat = b.add("Concat", &[&any, &width], vec![int("axis", 0)]);
    let rows = b.add("Reshape", &["rows", &flat], vec![]);
    if b.opset < 16 {
        let height = b.add("Gather", &[&shape, &first], vec![int("axis", 0)]);
        let off_on = b.floats(&[0.0, 1.0]);
        let hot = b.add("OneHot", &[&ids, &height, &off_on], vec![int("axis", 0)]);
        return b.put("dtable", "MatMul", &[&hot, &rows], vec![]);
    }
    let zeros = b.add("ConstantOfShape", &[&shape], vec![]);
    let column = b.shaped("Unsqueeze", &ids, 1);
    let wide = b.add("Shape", &[&rows], vec![]);
    let index = b.add("Expand", &[&column, &wide], vec![]);
    let add = AttributeProto { s: Some("add".into()), r#type: 3, ..named("reduction") };
    b.put("dtable", "ScatterElements", &[&zeros, &index, &rows], vec![int("axis", 0), add]);
}
