//! Models of old opsets: an operator in its old form gives the loss and the gradient of the same
//! operator in its form of opset 17.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use crate::runtime;
use mmopt::autodiff::{LossKind, LossSpec, check_operators};
use mmopt::error::{Error, Kind, Result};
use mmopt::onnx::proto::{AttributeProto, GraphProto, NodeProto, ValueInfoProto};
use mmopt::onnx::{Attribute, Graph, Node, TensorData, ValueId, ValueType};
use mmopt::runtime::{Session, SessionOptions};
use mmopt::tensor::{DType, Tensor};
use mmopt::train::graphs::training_graph;

/// One operator on the parameter `w` and constants.
struct Form {
    opset: i64,
    op: &'static str,
    attributes: Vec<(&'static str, Attribute)>,
    /// Inputs after the first; `None` is left out.
    inputs: Vec<Option<TensorData>>,
    n_outputs: usize,
    /// Outputs that enter the loss.
    n_used: usize,
}

fn form(opset: i64, op: &'static str) -> Form {
    Form { opset, op, attributes: Vec::new(), inputs: Vec::new(), n_outputs: 1, n_used: 1 }
}

impl Form {
    fn list(mut self, name: &'static str, values: &[i64]) -> Self {
        self.attributes.push((name, Attribute::Ints(values.to_vec())));
        self
    }

    fn int(mut self, name: &'static str, value: i64) -> Self {
        self.attributes.push((name, Attribute::Int(value)));
        self
    }

    fn float(mut self, name: &'static str, value: f32) -> Self {
        self.attributes.push((name, Attribute::Float(value)));
        self
    }

    fn text(mut self, name: &'static str, value: &str) -> Self {
        self.attributes.push((name, Attribute::String(value.into())));
        self
    }

    fn floats(mut self, name: &'static str, values: &[f32]) -> Self {
        self.attributes.push((name, Attribute::Floats(values.to_vec())));
        self
    }

    fn ints(mut self, values: &[i64]) -> Self {
        self.inputs.push(Some(TensorData::ints(values)));
        self
    }

    fn numbers(mut self, shape: &[usize], values: &[f32]) -> Self {
        self.inputs.push(Some(TensorData::from_slice(shape, values).unwrap()));
        self
    }

    fn none(mut self) -> Self {
        self.inputs.push(None);
        self
    }

    fn outputs(mut self, n: usize) -> Self {
        (self.n_outputs, self.n_used) = (n, n);
        self
    }

    fn first_of(mut self, n: usize) -> Self {
        (self.n_outputs, self.n_used) = (n, 1);
        self
    }

    /// loss = Σ over outputs of Σ y · exp(y/2 - one), by operators that are the same since opset 7.
    fn graph(&self, w_shape: &[usize]) -> (Graph, ValueId) {
        let mut g = Graph::new("old", self.opset);
        let one = g.add_input("one", ValueType::known(DType::F32, &[1])).unwrap();
        let n = w_shape.iter().product::<usize>();
        let w: Vec<f32> = (0..n).map(|i| ((i * 37 % 11) as f32 - 4.6) / 3.0).collect();
        let w = TensorData::from_slice(w_shape, &w).unwrap();
        let w = g.add_initializer("w", w).unwrap();
        let mut inputs = vec![Some(w)];
        for data in &self.inputs {
            inputs.push(data.clone().map(|d| g.add_initializer("", d).unwrap()));
        }
        let outputs: Vec<ValueId> = (0..self.n_outputs).map(|_| g.add_value("").unwrap()).collect();
        g.push_node(Node {
            name: "tested".into(),
            op: self.op.into(),
            domain: String::new(),
            inputs,
            outputs: outputs.iter().map(|&v| Some(v)).collect(),
            attributes: self.attributes.iter().map(|(k, v)| ((*k).into(), v.clone())).collect(),
        });
        let mut total = None;
        for &y in &outputs[..self.n_used] {
            let half = g.add_initializer("", TensorData::scalar(DType::F32, 0.5).unwrap()).unwrap();
            let t = g.op("Mul", &[y, half], []);
            let t = g.op("Sub", &[t, one], []);
            let t = g.op("Exp", &[t], []);
            let t = g.op("Mul", &[t, y], []);
            let t = g.op("ReduceSum", &[t], [("keepdims", Attribute::Int(0))]);
            total = Some(total.map_or(t, |sum| g.op("Add", &[sum, t], [])));
        }
        let total = total.unwrap();
        g.rename(total, "loss").unwrap();
        g.set_type(total, ValueType::known(DType::F32, &[]));
        g.add_output(total);
        (g, w)
    }

    fn run(&self, w_shape: &[usize]) -> Result<Vec<f64>> {
        let (graph, w) = self.graph(w_shape);
        // As a file: types of inner values are not known.
        let graph = Graph::from_bytes(graph.to_bytes()?.into())?;
        run(&graph, graph.find("w").unwrap_or(w))
    }
}

/// Loss, then the gradient of `w`.
fn run(graph: &Graph, w: ValueId) -> Result<Vec<f64>> {
    check_operators(graph, graph.outputs()[0], &[w])?;
    let spec = LossSpec::new(LossKind::Output("loss".into()));
    let training = training_graph(graph, &[w], &spec, &BTreeMap::new())?;
    let session = Session::from_bytes(&training.bytes, &SessionOptions::default())?;
    let one = Tensor::from_slice(&[1], &[1f32])?;
    let value = graph.initializer(w).ok_or_else(|| Error::data("no w"))?.to_tensor()?;
    let gradient = training.grads[0].clone().ok_or_else(|| Error::data("no gradient"))?;
    let feeds = [("one", &one), (training.params[0].as_str(), &value)];
    let results = session.run(&feeds, &[training.loss.as_str(), gradient.as_str()])?;
    let mut all = Vec::new();
    for t in &results {
        all.extend(TensorData::from_tensor(t)?.to_f64s()?);
    }
    Ok(all)
}

/// Loss of the file as it is, by the runtime.
fn as_it_is(form: &Form, w_shape: &[usize]) -> Result<f64> {
    let (graph, _) = form.graph(w_shape);
    let session = Session::from_bytes(&graph.to_bytes()?, &SessionOptions::default())?;
    let one = Tensor::from_slice(&[1], &[1f32])?;
    let loss = session.run(&[("one", &one)], &["loss"])?;
    Ok(TensorData::from_tensor(&loss[0])?.to_f64s()?[0])
}

fn same(old: &Form, new: &Form, w_shape: &[usize]) -> Option<String> {
    let place = format!("{} of opset {} {:?}", old.op, old.opset, old.attributes);
    let (a, b) = match (old.run(w_shape), new.run(w_shape)) {
        (Ok(a), Ok(b)) => (a, b),
        (a, b) => return Some(format!("{place}: {:?} {:?}", a.err(), b.err())),
    };
    match as_it_is(old, w_shape) {
        Ok(own) if (own - a[0]).abs() <= 1e-5 * own.abs().max(1.0) => {}
        own => {
            return Some(format!(
                "{place}: the runtime itself gives {own:?}, the new form {}",
                a[0]
            ));
        }
    }
    let close = |(x, y): (&f64, &f64)| (x - y).abs() <= 1e-5 * y.abs().max(1.0);
    let fits = a.len() == b.len() && a.iter().zip(&b).all(close) && b[1..].iter().any(|g| *g != 0.);
    (!fits).then(|| format!("{place}: {a:?} for {b:?}"))
}

/// Old form, new form, shape of `w`.
fn pairs() -> Vec<(Form, Form, &'static [usize])> {
    let mut pairs: Vec<(Form, Form, &'static [usize])> = Vec::new();
    for opset in [7, 9, 11, 12] {
        for op in ["Squeeze", "Unsqueeze"] {
            let shape: &[usize] = if op == "Squeeze" { &[2, 1, 3] } else { &[2, 3] };
            pairs.push((form(opset, op).list("axes", &[1]), form(17, op).ints(&[1]), shape));
        }
        pairs.push((form(opset, "Squeeze"), form(17, "Squeeze"), &[2, 1, 3]));
        let sum = form(opset, "ReduceSum").list("axes", &[1]).int("keepdims", 0);
        pairs.push((sum, form(17, "ReduceSum").ints(&[1]).int("keepdims", 0), &[2, 3]));
        let split = form(opset, "Split").int("axis", 1).list("split", &[1, 3]).outputs(2);
        let new = form(17, "Split").int("axis", 1).ints(&[1, 3]).outputs(2);
        pairs.push((split, new, &[2, 4]));
        pairs.push((form(opset, "Split").outputs(2), form(17, "Split").outputs(2), &[4, 3]));
        if opset < 12 {
            let dropout = form(opset, "Dropout").float("ratio", 0.4);
            pairs.push((dropout, form(17, "Identity"), &[2, 3]));
        }
        let batch = |f: Form| {
            f.numbers(&[2], &[0.5, 1.5])
                .numbers(&[2], &[0.1, 0.2])
                .numbers(&[2], &[0.3, -0.2])
                .numbers(&[2], &[0.9, 1.4])
        };
        let old = batch(form(opset, "BatchNormalization")).float("momentum", 0.9);
        pairs.push((old, batch(form(17, "BatchNormalization")), &[3, 2, 4]));
        for op in ["Softmax", "LogSoftmax"] {
            // One softmax over all of what lies behind the axis.
            pairs.push((form(opset, op).int("axis", 2), form(17, op), &[2, 3, 4]));
            pairs.push((form(opset, op), form(17, op), &[3, 4]));
        }
    }
    pairs.push((form(11, "Softmax").int("axis", -1), form(17, "Softmax"), &[2, 3, 4]));
    pairs.push((form(12, "Dropout").numbers(&[], &[0.4]), form(17, "Identity"), &[2, 3]));
    let pad = || form(9, "Pad").list("pads", &[0, 1, 1, 2]);
    let new = || form(17, "Pad").ints(&[0, 1, 1, 2]);
    pairs.push((pad(), new(), &[2, 3]));
    pairs.push((pad().float("value", 0.7), new().numbers(&[], &[0.7]), &[2, 3]));
    pairs.push((pad().text("mode", "edge"), new().text("mode", "edge"), &[2, 3]));
    let bounds = |low, high| form(17, "Clip").numbers(&[], &[low]).numbers(&[], &[high]);
    let clip = form(10, "Clip").float("min", -0.5).float("max", 0.6);
    pairs.push((clip, bounds(-0.5, 0.6), &[3, 4]));
    let high = form(17, "Clip").none().numbers(&[], &[0.6]);
    pairs.push((form(7, "Clip").float("max", 0.6), high, &[3, 4]));
    let slice = form(9, "Slice").list("starts", &[1, -2]).list("ends", &[2, 9]);
    pairs.push((
        slice.list("axes", &[0, 1]),
        form(17, "Slice").ints(&[1, -2]).ints(&[2, 9]),
        &[3, 4],
    ));
    let old = form(9, "TopK").int("k", 2).int("axis", 0).first_of(2);
    pairs.push((old, form(17, "TopK").ints(&[2]).int("axis", 0).first_of(2), &[4, 2]));
    for (mode, round) in [("nearest", "floor"), ("linear", "round_prefer_floor")] {
        let new = |scales: &[f32], round: &str| {
            form(17, "Resize")
                .text("mode", mode)
                .text("coordinate_transformation_mode", "asymmetric")
                .text("nearest_mode", round)
                .none()
                .numbers(&[4], scales)
        };
        let up = [1.0, 1.0, 2.0, 1.5];
        let old = || form(9, "Upsample").text("mode", mode).numbers(&[4], &up);
        pairs.push((old(), new(&up, round), &[1, 2, 3, 4]));
        let older = form(8, "Upsample").text("mode", mode).floats("scales", &up);
        pairs.push((older, new(&up, round), &[1, 2, 3, 4]));
        let resize = form(10, "Resize").text("mode", mode).numbers(&[4], &up);
        pairs.push((resize, new(&up, round), &[1, 2, 3, 4]));
        let down = [1.0, 1.0, 0.5, 0.6];
        let resize = form(10, "Resize").text("mode", mode).numbers(&[4], &down);
        pairs.push((resize, new(&down, "ceil"), &[1, 2, 4, 5]));
        let sized = |f: Form| f.ints(&[1, 2, 5, 6]);
        let empty = form(11, "Resize").text("mode", mode).numbers(&[0], &[]).numbers(&[0], &[]);
        let new = form(17, "Resize").text("mode", mode).none().none();
        pairs.push((sized(empty), sized(new), &[1, 2, 3, 4]));
    }
    pairs
}

#[test]
fn old_forms_are_those_of_today() {
    if !runtime() {
        return;
    }
    let pairs = pairs();
    let failures: Vec<String> = pairs.iter().filter_map(|(a, b, s)| same(a, b, s)).collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), pairs.len(), failures.join("\n"));
}

/// A softmax of an old opset over several axes is one over all of them.
#[test]
fn an_old_softmax_spans_the_axes_behind_its_own() {
    if !runtime() {
        return;
    }
    let all = form(11, "Softmax").run(&[1, 2, 3]).unwrap();
    let flat = form(17, "Softmax").run(&[6]).unwrap();
    for (a, b) in all.iter().zip(&flat) {
        assert!((a - b).abs() < 1e-6, "{all:?} for {flat:?}");
    }
}

/// Operators whose form of today is newer than the file's opset, and that mean the same there.
#[test]
fn models_of_opset_13_to_16_are_checked_as_raised() {
    if !runtime() {
        return;
    }
    for opset in [13, 14, 15, 16] {
        let mask = |f: Form| f.numbers(&[3], &[0.5, 1.0, 2.0]);
        let mut f = mask(form(opset, "Where"));
        f.inputs.push(Some(TensorData::from_slice(&[3], &[0.5f32, 0.1, 0.2]).unwrap()));
        let (mut g, w) = f.graph(&[3]);
        let condition = TensorData::new(DType::Bool, &[3], vec![1u8, 0, 1].into()).unwrap();
        let condition = g.add_initializer("mask", condition).unwrap();
        let last = g.node_ids().next().unwrap();
        let other = g.node(last).inputs[1];
        g.node_mut(last).inputs = vec![Some(condition), Some(w), other];
        let result = run(&g, w).unwrap_or_else(|e| panic!("Where at {opset}: {e}"));
        assert!(result[1] != 0.0 && result[2] == 0.0, "{result:?}");
    }
    let batch = form(13, "BatchNormalization")
        .numbers(&[2], &[0.5, 1.5])
        .numbers(&[2], &[0.1, 0.2])
        .numbers(&[2], &[0.3, -0.2])
        .numbers(&[2], &[0.9, 1.4]);
    batch.run(&[3, 2, 4]).unwrap();
}

/// More than one output says that a batch normalisation of an old opset is in training mode.
#[test]
fn an_old_batch_normalisation_with_statistics_is_in_training_mode() {
    if !runtime() {
        return;
    }
    let batch = |f: Form| {
        f.numbers(&[2], &[0.5, 1.5])
            .numbers(&[2], &[0.1, 0.2])
            .numbers(&[2], &[0.3, -0.2])
            .numbers(&[2], &[0.9, 1.4])
    };
    let run_of = |form: &Form| {
        let (mut g, w) = form.graph(&[3, 2, 4]);
        let first = g.node_ids().next().unwrap();
        let more = if form.opset < 14 { 4 } else { 2 };
        for i in 0..more {
            let v = g.add_value(&format!("statistic{i}")).unwrap();
            g.node_mut(first).outputs.push(Some(v));
        }
        run(&g, w)
    };
    let old = run_of(&batch(form(9, "BatchNormalization"))).unwrap();
    let new = run_of(&batch(form(17, "BatchNormalization")).int("training_mode", 1)).unwrap();
    for (a, b) in old.iter().zip(&new) {
        assert!((a - b).abs() < 1e-5, "{old:?} for {new:?}");
    }
}

#[test]
fn an_opset_that_is_too_old_is_told() {
    let (g, w) = form(6, "Relu").graph(&[3]);
    let e = check_operators(&g, g.outputs()[0], &[w]).unwrap_err();
    assert_eq!(e.kind(), Kind::Unsupported);
    assert!(e.message().contains("opset 6 is too old"), "{e}");
}

/// What a branch of an `If` holds is raised too.
#[test]
fn branches_are_raised() {
    if !runtime() {
        return;
    }
    let names = |n: &[&str]| n.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let axes = AttributeProto {
        name: "axes".into(),
        r#type: 7,
        ints: vec![0],
        ..AttributeProto::default()
    };
    let body = |op: &str, y: &str| GraphProto {
        name: "branch".into(),
        node: vec![
            NodeProto {
                op_type: op.into(),
                input: names(&["w"]),
                output: names(&["wide"]),
                attribute: vec![axes.clone()],
                ..NodeProto::default()
            },
            NodeProto {
                op_type: "Softmax".into(),
                input: names(&["wide"]),
                output: names(&[y]),
                ..NodeProto::default()
            },
        ],
        output: vec![ValueInfoProto { name: y.into(), r#type: None }],
        ..GraphProto::default()
    };
    let (mut g, w) = form(11, "Relu").graph(&[3]);
    let condition = g.add_input("condition", ValueType::known(DType::Bool, &[])).unwrap();
    let y = g.nodes()[0].output(0).unwrap();
    let first = g.node_ids().next().unwrap();
    *g.node_mut(first) = Node {
        name: "choose".into(),
        op: "If".into(),
        domain: String::new(),
        inputs: vec![Some(condition)],
        outputs: vec![Some(y)],
        attributes: [
            ("then_branch".to_owned(), Attribute::Graph(Box::new(body("Unsqueeze", "yes")))),
            ("else_branch".to_owned(), Attribute::Graph(Box::new(body("Unsqueeze", "no")))),
        ]
        .into(),
    };
    let spec = LossSpec::new(LossKind::Output("loss".into()));
    let training = training_graph(&g, &[w], &spec, &BTreeMap::new()).unwrap();
    let session = Session::from_bytes(&training.bytes, &SessionOptions::default()).unwrap();
    let one = Tensor::from_slice(&[1], &[1f32]).unwrap();
    let yes = TensorData::new(DType::Bool, &[], vec![1u8].into()).unwrap().to_tensor().unwrap();
    let value = g.initializer(w).unwrap().to_tensor().unwrap();
    let gradient = training.grads[0].clone().unwrap();
    let feeds = [("one", &one), ("condition", &yes), (training.params[0].as_str(), &value)];
    let results = session.run(&feeds, &[training.loss.as_str(), gradient.as_str()]).unwrap();
    let plain = form(17, "Softmax").run(&[3]).unwrap();
    let found = TensorData::from_tensor(&results[1]).unwrap().to_f64s().unwrap();
    for (a, b) in found.iter().zip(&plain[1..]) {
        assert!((a - b).abs() < 1e-5, "{found:?} for {plain:?}");
    }
}

/// So is what a step of a `Loop` holds.
#[test]
fn steps_are_raised() {
    if !runtime() {
        return;
    }
    let names = |n: &[&str]| n.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let info = |name: &str| ValueInfoProto { name: name.into(), r#type: None };
    let node = |op: &str, x: &str, y: &str| NodeProto {
        op_type: op.into(),
        input: names(&[x]),
        output: names(&[y]),
        attribute: vec![AttributeProto {
            name: "axes".into(),
            r#type: 7,
            ints: vec![0],
            ..AttributeProto::default()
        }],
        ..NodeProto::default()
    };
    let body = GraphProto {
        name: "step".into(),
        input: vec![info("i"), info("on"), info("h")],
        node: vec![node("Unsqueeze", "h", "wide"), node("Squeeze", "wide", "next")],
        output: vec![info("on"), info("next")],
        ..GraphProto::default()
    };
    let (mut g, w) = form(11, "Relu").graph(&[3]);
    let truth = TensorData::new(DType::Bool, &[], vec![1u8].into()).unwrap();
    let truth = g.add_initializer("", truth).unwrap();
    let steps = TensorData::ints(&[2]).reshaped(&[]).unwrap();
    let steps = g.add_initializer("", steps).unwrap();
    let first = g.node_ids().next().unwrap();
    let node = g.node_mut(first);
    node.op = "Loop".into();
    node.inputs = vec![Some(steps), Some(truth), Some(w)];
    node.attributes.insert("body".into(), Attribute::Graph(Box::new(body)));
    let (found, plain) = (run(&g, w).unwrap(), form(17, "Identity").run(&[3]).unwrap());
    for (a, b) in found.iter().zip(&plain) {
        assert!((a - b).abs() < 1e-5, "{found:?} for {plain:?}");
    }
}
