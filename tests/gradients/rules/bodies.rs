//! Models with functions of their own and with branches: the training graph gives the value and
//! the gradient of the same model written flat.

use std::collections::BTreeMap;

use mmopt::autodiff::{LossKind, LossSpec, check_operators};
use mmopt::error::{Kind, Result};
use mmopt::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, NodeProto, OperatorSetIdProto, TensorProto,
    ValueInfoProto,
};
use mmopt::onnx::{Attribute, Graph, Node, TensorData, ValueId, ValueType};
use mmopt::runtime::Session;
use mmopt::tensor::{DType, Tensor};
use mmopt::train::graphs::training_graph;

use super::case::session_options;
use crate::runtime;

pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |n: &[&str]| n.iter().map(|n| (*n).to_owned()).collect();
    NodeProto {
        op_type: op.into(),
        input: names(inputs),
        output: names(outputs),
        ..NodeProto::default()
    }
}

fn within(domain: &str, mut node: NodeProto) -> NodeProto {
    node.domain = domain.into();
    node
}

fn refers(mut node: NodeProto, name: &str, to: &str, kind: i32) -> NodeProto {
    node.attribute.push(AttributeProto {
        name: name.into(),
        ref_attr_name: to.into(),
        r#type: kind,
        ..AttributeProto::default()
    });
    node
}

fn function(name: &str, inputs: &[&str], outputs: &[&str], nodes: Vec<NodeProto>) -> FunctionProto {
    let names = |n: &[&str]| n.iter().map(|n| (*n).to_owned()).collect();
    FunctionProto {
        name: name.into(),
        domain: "own".into(),
        input: names(inputs),
        output: names(outputs),
        node: nodes,
        opset_import: vec![
            OperatorSetIdProto { domain: String::new(), version: 17 },
            OperatorSetIdProto { domain: "own".into(), version: 1 },
        ],
        ..FunctionProto::default()
    }
}

const W: [f64; 3] = [0.4, -1.2, 0.7];

/// A model with input x of three elements and parameter w = [`W`].
fn start() -> (Graph, ValueId, ValueId) {
    let mut g = Graph::new("bodies", 17);
    let x = g.add_input("x", ValueType::known(DType::F64, &[3])).unwrap();
    let w = g.add_initializer("w", TensorData::from_slice(&[3], &W).unwrap()).unwrap();
    (g, x, w)
}

fn call(g: &mut Graph, domain: &str, op: &str, inputs: &[ValueId], n: usize) -> Vec<ValueId> {
    let outputs: Vec<ValueId> = (0..n).map(|_| g.add_value("").unwrap()).collect();
    let name = format!("the_{op}_{}", g.nodes().len());
    g.push_node(Node {
        name,
        op: op.into(),
        domain: domain.into(),
        inputs: inputs.iter().map(|&v| Some(v)).collect(),
        outputs: outputs.iter().map(|&v| Some(v)).collect(),
        attributes: Default::default(),
    });
    outputs
}

/// Ends the model with the sum of y as its loss.
fn finish(g: &mut Graph, y: ValueId) {
    let axis = g.add_initializer("", TensorData::ints(&[0])).unwrap();
    let loss = g.op("ReduceSum", &[y, axis], [("keepdims", Attribute::Int(0))]);
    g.rename(loss, "loss").unwrap();
    g.add_output(loss);
}

/// Loss and gradient of w at `x`.
fn run(g: &Graph, w: ValueId, x: &[f64; 3]) -> Result<(f64, Vec<f64>)> {
    let spec = LossSpec::new(LossKind::Output("loss".into()));
    let t = training_graph(g, &[w], &spec, &BTreeMap::new())?;
    let session = Session::from_bytes(&t.bytes, &session_options())?;
    let (x, w) = (Tensor::from_slice(&[3], x)?, Tensor::from_slice(&[3], &W)?);
    let gradient = t.grads[0].clone().unwrap();
    let outputs =
        session.run(&[("x", &x), (t.params[0].as_str(), &w)], &[t.loss.as_str(), &gradient])?;
    let f64s = |t: &Tensor| TensorData::from_tensor(t)?.to_f64s();
    Ok((f64s(&outputs[0])?[0], f64s(&outputs[1])?))
}

fn check(g: &Graph, w: ValueId, x: [f64; 3], expected: impl Fn(f64, f64) -> (f64, f64)) {
    let (loss, gradient) = run(g, w, &x).unwrap();
    let each: Vec<(f64, f64)> = x.iter().zip(W).map(|(&x, w)| expected(x, w)).collect();
    let total: f64 = each.iter().map(|e| e.0).sum();
    assert!((loss - total).abs() < 1e-12, "{loss} for {total}");
    for (found, (_, slope)) in gradient.iter().zip(each) {
        assert!((found - slope).abs() < 1e-12, "{found} for {slope}");
    }
}

/// `gate(a, b)` = leaky relu(a b, slope) + a, by way of the function `product`, whose inner names
/// are the same as those of the model.
fn functions() -> Vec<FunctionProto> {
    let product = function("product", &["x", "w"], &["v"], vec![node("Mul", &["x", "w"], &["v"])]);
    let leaky = refers(node("LeakyRelu", &["v"], &["x"]), "alpha", "slope", 1);
    let nodes = vec![
        within("own", node("product", &["a", "b"], &["v"])),
        leaky,
        node("Add", &["x", "a"], &["w"]),
    ];
    let mut gate = function("gate", &["a", "b"], &["w", "a"], nodes);
    gate.attribute.push("slope".into());
    vec![gate, product]
}

#[test]
fn functions_are_inlined() {
    if !runtime() {
        return;
    }
    let (mut g, x, w) = start();
    g.functions = functions();
    g.opsets.insert("own".into(), 1);
    let ys = call(&mut g, "own", "gate", &[x, w], 2);
    let last = g.node_ids().next_back().unwrap();
    g.node_mut(last).attributes.insert("slope".into(), Attribute::Float(0.25));
    // Twice, so that fresh names are needed; the second output is the input passed through.
    let again = call(&mut g, "own", "gate", &[ys[1], w], 2);
    let last = g.node_ids().next_back().unwrap();
    g.node_mut(last).attributes.insert("slope".into(), Attribute::Float(0.5));
    let y = g.op("Add", &[ys[0], again[0]], []);
    finish(&mut g, y);
    check(&g, w, [1.0, 0.5, -2.0], |x, w| {
        let slope = |s: f64| if x * w < 0.0 { s } else { 1.0 };
        let both = slope(0.25) + slope(0.5);
        (both * x * w + 2.0 * x, both * x)
    });
}

#[test]
fn functions_that_cannot_be_inlined_are_named() {
    let model = |functions: Vec<FunctionProto>| {
        let (mut g, x, w) = start();
        g.functions = functions;
        g.opsets.insert("own".into(), 1);
        let y = call(&mut g, "own", "gate", &[x, w], 1)[0];
        finish(&mut g, y);
        let loss = g.find("loss").unwrap();
        check_operators(&g, loss, &[w])
    };
    model(functions()).unwrap();
    let turned = function("gate", &["a", "b"], &["c"], vec![node("Det", &["b"], &["c"])]);
    let e = model(vec![turned]).unwrap_err();
    assert_eq!(e.kind(), Kind::Unsupported);
    assert!(e.message().contains("the_gate_0/") && e.message().contains("Det"), "{e}");
    let mut newer = functions();
    newer[0].opset_import[0].version = 21;
    let e = model(newer).unwrap_err();
    assert!(e.message().contains("version 21") && e.message().contains("the_gate"), "{e}");
    let nodes = vec![within("own", node("gate", &["a", "b"], &["c"]))];
    let e = model(vec![function("gate", &["a", "b"], &["c"], nodes)]).unwrap_err();
    assert_eq!(e.kind(), Kind::InvalidData);
}

/// `y` = an `If` of both branches the same.
fn either(body: &GraphProto, y: &str) -> NodeProto {
    let attribute = |name: &str| AttributeProto {
        name: name.into(),
        r#type: 5,
        g: Some(body.clone()),
        ..AttributeProto::default()
    };
    let mut either = node("If", &["condition"], &[y]);
    either.attribute = vec![attribute("then_branch"), attribute("else_branch")];
    either
}

#[test]
fn functions_without_end_are_refused() {
    let refused = |functions: Vec<FunctionProto>| {
        let (mut g, x, w) = start();
        g.functions = functions;
        g.opsets.insert("own".into(), 1);
        let y = call(&mut g, "own", "f0", &[x, w], 1)[0];
        finish(&mut g, y);
        let loss = g.find("loss").unwrap();
        let e = check_operators(&g, loss, &[w]).unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidData);
        e.message().to_owned()
    };
    let called = |i: usize, y: &str| within("own", node(&format!("f{i}"), &["a", "b"], &[y]));
    let made = |i: usize, nodes| function(&format!("f{i}"), &["a", "b"], &["c"], nodes);
    let in_branch = |i| either(&branch(vec![called(i, "inner")], Vec::new(), "inner"), "c");
    // A call of itself by way of a branch of another one.
    let e = refused(vec![made(0, vec![called(1, "c")]), made(1, vec![in_branch(0)])]);
    assert!(e.contains("own.f") && e.contains("calls itself"), "{e}");
    // Twice as many nodes with each one: 2^60.
    let mut many = Vec::from_iter((0..60).map(|i| made(i, vec![in_branch(i + 1)])));
    many.push(made(60, vec![node("Mul", &["a", "b"], &["c"])]));
    assert!(refused(many).contains("more nodes"));
    // The same by attributes: each hands on a body that holds twice what it was given.
    let mut many = Vec::new();
    for i in 0..60 {
        let twice = refers(node("Mul", &["a", "b"], &["d"]), "one", "body", 5);
        let body = branch(vec![refers(twice, "two", "body", 5)], Vec::new(), "d");
        let mut next = called(i + 1, "c");
        next.attribute.push(AttributeProto {
            name: "body".into(),
            r#type: 5,
            g: Some(body),
            ..AttributeProto::default()
        });
        many.push(made(i, vec![next]));
    }
    many.push(made(60, vec![node("Mul", &["a", "b"], &["c"])]));
    let e = refused(many);
    assert!(e.contains("more nodes") || e.contains("bodies within bodies"), "{e}");
}

pub fn branch(nodes: Vec<NodeProto>, constants: Vec<TensorProto>, output: &str) -> GraphProto {
    GraphProto {
        name: "branch".into(),
        node: nodes,
        initializer: constants,
        output: vec![ValueInfoProto { name: output.into(), r#type: None }],
        ..GraphProto::default()
    }
}

pub fn two(name: &str) -> TensorProto {
    TensorProto {
        name: name.into(),
        data_type: DType::F64.onnx(),
        double_data: vec![2.0],
        ..TensorProto::default()
    }
}

/// y = condition ? x w : exp(w) + 2 v with v = x w²; both branches use the same inner names, and
/// read what the model makes.
fn conditional(g: &mut Graph, x: ValueId, w: ValueId, condition: ValueId) -> ValueId {
    let square = g.op("Mul", &[w, w], []);
    let v = g.op("Mul", &[x, square], []);
    g.rename(v, "v").unwrap();
    let yes = branch(vec![node("Mul", &["x", "w"], &["inner"])], Vec::new(), "inner");
    let no = vec![
        node("Exp", &["w"], &["inner"]),
        node("Mul", &["c", "v"], &["twice"]),
        node("Add", &["inner", "twice"], &["sum"]),
    ];
    let no = branch(no, vec![two("c")], "sum");
    let attributes = [
        ("then_branch", Attribute::Graph(Box::new(yes))),
        ("else_branch", Attribute::Graph(Box::new(no))),
    ];
    g.op("If", &[condition], attributes)
}

fn when(holds: bool, x: f64, w: f64) -> (f64, f64) {
    if holds { (x * w, x) } else { (w.exp() + 2.0 * x * w * w, w.exp() + 4.0 * x * w) }
}

#[test]
fn branches_with_a_known_condition_are_inlined() {
    if !runtime() {
        return;
    }
    for holds in [true, false] {
        let (mut g, x, w) = start();
        let size = g.op("Size", &[x], []);
        let bound = TensorData::scalar(DType::I64, if holds { 2.0 } else { 5.0 }).unwrap();
        let bound = g.add_initializer("", bound).unwrap();
        let condition = g.op("Greater", &[size, bound], []);
        let y = conditional(&mut g, x, w, condition);
        finish(&mut g, y);
        check(&g, w, [0.3, 1.5, -0.8], |x, w| when(holds, x, w));
    }
}

/// Σ x > 0 as a boolean: known only when it runs.
fn positive_sum(g: &mut Graph, x: ValueId) -> ValueId {
    let axis = g.add_initializer("", TensorData::ints(&[0])).unwrap();
    let sum = g.op("ReduceSum", &[x, axis], [("keepdims", Attribute::Int(0))]);
    let zero = g.add_initializer("", TensorData::scalar(DType::F64, 0.0).unwrap()).unwrap();
    g.op("Greater", &[sum, zero], [])
}

const SIDES: [[f64; 3]; 2] = [[0.3, 1.5, -0.8], [-0.3, -1.5, 0.8]];

#[test]
fn gradients_go_through_the_branch_that_is_taken() {
    if !runtime() {
        return;
    }
    let (mut g, x, w) = start();
    let condition = positive_sum(&mut g, x);
    let y = conditional(&mut g, x, w, condition);
    finish(&mut g, y);
    for side in SIDES {
        let holds = side.iter().sum::<f64>() > 0.0;
        check(&g, w, side, |x, w| when(holds, x, w));
    }
}

#[test]
fn gradients_go_through_branches_in_branches() {
    if !runtime() {
        return;
    }
    let (mut g, x, w) = start();
    let condition = positive_sum(&mut g, x);
    g.rename(condition, "holds").unwrap();
    let mut inner = node("If", &["holds"], &["y"]);
    for (name, op) in [("then_branch", "Exp"), ("else_branch", "Neg")] {
        inner.attribute.push(AttributeProto {
            name: name.into(),
            g: Some(branch(vec![node(op, &["product"], &["inner"])], Vec::new(), "inner")),
            r#type: 5,
            ..AttributeProto::default()
        });
    }
    let yes = branch(vec![node("Mul", &["x", "w"], &["product"]), inner], Vec::new(), "y");
    // The other one does not read w at all.
    let no = branch(vec![node("Neg", &["x"], &["y"])], Vec::new(), "y");
    let attributes = [
        ("then_branch", Attribute::Graph(Box::new(yes))),
        ("else_branch", Attribute::Graph(Box::new(no))),
    ];
    let y = g.op("If", &[condition], attributes);
    let y = g.op("Mul", &[y, w], []);
    finish(&mut g, y);
    check(&g, w, SIDES[0], |x, w| ((x * w).exp() * w, (x * w).exp() * (1.0 + x * w)));
    check(&g, w, SIDES[1], |x, w| (-x * w, -x));
}

#[test]
fn branches_without_gradients_are_named() {
    let (mut g, x, w) = start();
    let condition = positive_sum(&mut g, x);
    let yes = branch(vec![node("Det", &["w"], &["y"])], Vec::new(), "y");
    let no = branch(vec![node("Neg", &["x"], &["y"])], Vec::new(), "y");
    let attributes = [
        ("then_branch", Attribute::Graph(Box::new(yes))),
        ("else_branch", Attribute::Graph(Box::new(no))),
    ];
    let y = g.op("If", &[condition], attributes);
    finish(&mut g, y);
    let loss = g.find("loss").unwrap();
    let e = check_operators(&g, loss, &[w]).unwrap_err();
    assert_eq!(e.kind(), Kind::Unsupported);
    assert!(e.message().contains("Det") && e.message().contains("If"), "{e}");
}

/// A part of a sequence has a type only once the sequence is gone; that takes a round of its own
/// where everything else is known at once.
#[test]
fn parts_of_sequences_have_types() {
    if !runtime() {
        return;
    }
    let (mut g, x, w) = start();
    let product = g.op("Mul", &[x, w], []);
    let one = TensorData::scalar(DType::I64, 1.0).unwrap();
    let one = g.add_initializer("", one).unwrap();
    let parts = g.op("SplitToSequence", &[product, one], [("axis", Attribute::Int(0))]);
    let middle = g.op("SequenceAt", &[parts, one], []);
    finish(&mut g, middle);
    let x = [2.0, 5.0, -3.0];
    let (loss, gradient) = run(&g, w, &x).unwrap();
    assert!((loss - x[1] * W[1]).abs() < 1e-12, "{loss}");
    assert_eq!(gradient, [0.0, x[1], 0.0]);
}

/// A part of a sequence is split in turn: its rank is known only after the first was rewritten.
#[test]
fn parts_of_sequences_are_split_in_turn() {
    if !runtime() {
        return;
    }
    let (mut g, x, w) = start();
    let product = g.op("Mul", &[x, w], []);
    let one = TensorData::scalar(DType::I64, 1.0).unwrap();
    let one = g.add_initializer("", one).unwrap();
    let zero = TensorData::scalar(DType::I64, 0.0).unwrap();
    let zero = g.add_initializer("", zero).unwrap();
    let parts = g.op("SplitToSequence", &[product, one], [("axis", Attribute::Int(0))]);
    let middle = g.op("SequenceAt", &[parts, one], []);
    let doubled = g.op("Add", &[middle, middle], []);
    let parts = g.op("SplitToSequence", &[doubled, one], [("axis", Attribute::Int(-1))]);
    let first = g.op("SequenceAt", &[parts, zero], []);
    finish(&mut g, first);
    let x = [2.0, 5.0, -3.0];
    let (loss, gradient) = run(&g, w, &x).unwrap();
    assert!((loss - 2.0 * x[1] * W[1]).abs() < 1e-12, "{loss}");
    assert_eq!(gradient, [0.0, 2.0 * x[1], 0.0]);
}
