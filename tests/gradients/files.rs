//! Models as other tools write them: names, forms and attributes that are met in files, buffers
//! among the weights, weights in branches, several outputs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use crate::runtime;
use mmopt::autodiff::{Entry, LossKind, LossSpec, check_operators, differentiate, rows};
use mmopt::error::{Kind, Result};
use mmopt::onnx::proto::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};
use mmopt::onnx::{Attribute, Build, Dim, Graph, Node, TensorData, ValueId, ValueType};
use mmopt::optim;
use mmopt::runtime::{Session, SessionOptions};
use mmopt::tensor::{DType, Tensor};
use mmopt::train::graphs::{find_parameters, outputs_in_f32, training_graph};
use mmopt::train::{ModelOptions, Source, TensorView, Trainer, TrainerOptions};

fn floats(shape: &[usize], values: &[f32]) -> TensorData {
    TensorData::from_slice(shape, values).unwrap()
}

fn some(shape: &[usize]) -> TensorData {
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|i| ((i * 29 % 13) as f32 - 5.5) / 6.0).collect();
    floats(shape, &values)
}

/// Appends a node under a name, of `op`, `ai.onnx.op` or `domain.op`.
fn named(g: &mut Graph, name: &str, op: &str, inputs: &[ValueId]) -> ValueId {
    let y = g.op(op, inputs, []);
    let last = g.node_ids().next_back().unwrap();
    g.node_mut(last).name = name.into();
    y
}

fn set(g: &mut Graph, name: &str, value: Attribute) {
    let last = g.node_ids().next_back().unwrap();
    g.node_mut(last).attributes.insert(name.into(), value);
}

/// A graph with the input `one`, f32 [1], which every loss reads.
fn start(opset: i64) -> (Graph, ValueId) {
    let mut g = Graph::new("file", opset);
    let one = g.add_input("one", ValueType::known(DType::F32, &[1])).unwrap();
    (g, one)
}

/// Ends a graph with the loss Σ y · (y/2 + one).
fn finish(g: &mut Graph, one: ValueId, y: ValueId) {
    let half = g.add_initializer("", floats(&[], &[0.5])).unwrap();
    let t = g.op("Mul", &[y, half], []);
    let t = g.op("Add", &[t, one], []);
    let t = g.op("Mul", &[t, y], []);
    let loss = g.op("ReduceSum", &[t], [("keepdims", Attribute::Int(0))]);
    g.rename(loss, "loss").unwrap();
    g.set_type(loss, ValueType::known(DType::F32, &[]));
    g.add_output(loss);
}

/// Loss, and the gradient of each parameter; none where the loss does not depend on it.
fn run(g: &Graph, params: &[ValueId]) -> Result<(f64, Vec<Vec<f64>>)> {
    let spec = LossSpec::new(LossKind::Output("loss".into()));
    let t = training_graph(g, params, &spec, &BTreeMap::new())?;
    let written = Graph::from_bytes(t.bytes.clone().into())?;
    let mut names = BTreeSet::new();
    for node in written.nodes() {
        assert!(names.insert(node.name.clone()), "two nodes called '{}'", node.name);
    }
    let session = Session::from_bytes(&t.bytes, &SessionOptions::default())?;
    let one = Tensor::from_slice(&[1], &[1f32])?;
    let values: Vec<Tensor> =
        params.iter().map(|&p| g.initializer(p).unwrap().to_tensor()).collect::<Result<_>>()?;
    let mut feeds = vec![("one", &one)];
    feeds.extend(t.params.iter().map(String::as_str).zip(&values));
    feeds.retain(|(name, _)| session.inputs().iter().any(|i| i.name == *name));
    let mut names = vec![t.loss.as_str()];
    names.extend(t.grads.iter().flatten().map(String::as_str));
    let results = session.run(&feeds, &names)?;
    let f64s = |t: &Tensor| TensorData::from_tensor(t).unwrap().to_f64s();
    let mut found = results[1..].iter();
    let mut gradients = Vec::new();
    for name in &t.grads {
        gradients.push(if name.is_some() { f64s(found.next().unwrap())? } else { Vec::new() });
    }
    Ok((f64s(&results[0])?[0], gradients))
}

fn close(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| (x - y).abs() <= 1e-5 * y.abs().max(1.0))
}

/// Nodes that the library adds, and nodes without a name, get names that no other has.
#[test]
fn names_of_nodes_that_exist_are_left_alone() {
    if !runtime() {
        return;
    }
    let mut failures = Vec::new();
    for i in 0..24 {
        let (mut g, one) = start(17);
        let x = g.add_initializer("x", some(&[3])).unwrap();
        let y = named(&mut g, &format!("Mul_{i}"), "Mul", &[one, x]);
        let y = named(&mut g, &format!("ReduceSum_{i}"), "Mul", &[y, x]);
        let y = named(&mut g, &format!("Add_{i}"), "Mul", &[y, x]);
        finish(&mut g, one, y);
        let g = Graph::from_bytes(g.to_bytes().unwrap().into()).unwrap();
        failures.extend(run(&g, &[g.find("x").unwrap()]).err().map(|e| format!("{i}: {e}")));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |n: &[&str]| n.iter().map(|n| (*n).to_owned()).collect();
    NodeProto {
        op_type: op.into(),
        input: names(inputs),
        output: names(outputs),
        ..NodeProto::default()
    }
}

fn body(nodes: Vec<NodeProto>, constants: Vec<TensorProto>, output: &str) -> GraphProto {
    GraphProto {
        name: "branch".into(),
        node: nodes,
        initializer: constants,
        output: vec![ValueInfoProto { name: output.into(), r#type: None }],
        ..GraphProto::default()
    }
}

fn choose(g: &mut Graph, condition: ValueId, yes: GraphProto, no: GraphProto) -> ValueId {
    let y = named(g, "choose", "If", &[condition]);
    set(g, "then_branch", Attribute::Graph(Box::new(yes)));
    set(g, "else_branch", Attribute::Graph(Box::new(no)));
    y
}

fn flag(g: &mut Graph, value: u8) -> ValueId {
    let data = TensorData::new(DType::Bool, &[], vec![value].into()).unwrap();
    g.add_initializer("", data).unwrap()
}

/// Nodes of a branch that takes the place of its `If`, and casts at the edge of an f64 model.
#[test]
fn names_of_inlined_nodes_and_of_casts_are_their_own() {
    if !runtime() {
        return;
    }
    let (mut g, one) = start(17);
    let x = g.add_initializer("x", some(&[3])).unwrap();
    let condition = flag(&mut g, 1);
    let branch = || {
        body(vec![node("Neg", &["x"], &["inner"]), node("Exp", &["inner"], &["y"])], vec![], "y")
    };
    let mut y = choose(&mut g, condition, branch(), branch());
    for i in 0..24 {
        y = named(&mut g, &format!("choose/inner_{i}"), "Identity", &[y]);
    }
    finish(&mut g, one, y);
    run(&g, &[x]).unwrap();

    let mut g = Graph::new("wide", 17);
    let x = g.add_input("x", ValueType::known(DType::F64, &[3])).unwrap();
    let y = named(&mut g, "y/cast", "Exp", &[x]);
    g.rename(y, "y").unwrap();
    g.set_type(y, ValueType::known(DType::F64, &[3]));
    g.add_output(y);
    outputs_in_f32(&mut g).unwrap();
    let names: Vec<&str> = g.nodes().iter().map(|n| n.name.as_str()).collect();
    assert!(names.len() == 2 && names[0] != names[1], "{names:?}");
}

/// Names of values inside a branch are taken too; a value called like a label or an input of the
/// library makes room.
#[test]
fn names_of_values_are_looked_up_in_branches() {
    let (mut g, one) = start(17);
    let _ = g.add_initializer("x", some(&[3])).unwrap();
    let condition = flag(&mut g, 1);
    let inner: Vec<String> = (0..9).map(|i| format!("v_{i}")).collect();
    let mut nodes = vec![node("Neg", &["x"], &[&inner[0]])];
    nodes.extend(inner.windows(2).map(|w| node("Neg", &[&w[0]], &[&w[1]])));
    let branch = body(nodes, vec![], &inner[8]);
    let y = choose(&mut g, condition, branch.clone(), branch);
    finish(&mut g, one, y);
    let mut g = Graph::from_bytes(g.to_bytes().unwrap().into()).unwrap();
    let fresh = g.fresh_name("v");
    assert!(!inner.contains(&fresh), "{fresh}");

    let mut g = Graph::new("labels", 17);
    let x = g.add_input("x", ValueType::known(DType::F32, &[2, 3])).unwrap();
    let w = g.add_initializer("w", some(&[3, 4])).unwrap();
    let y = g.op("MatMul", &[x, w], []);
    g.rename(y, "labels").unwrap();
    let y = g.op("Relu", &[y], []);
    g.rename(y, "logits").unwrap();
    g.set_type(y, ValueType::known(DType::F32, &[2, 4]));
    g.add_output(y);
    if runtime() {
        let spec = LossSpec::new(LossKind::SequenceClassification);
        let t = training_graph(&g, &[w], &spec, &BTreeMap::new()).unwrap();
        assert_eq!(t.data_inputs[1].0, "labels");
        let x = g.find("x").unwrap();
        g.rename(x, "labels").unwrap_err();
        let mut own = Graph::new("own", 17);
        let labels = own.add_input("labels", ValueType::known(DType::F32, &[2, 3])).unwrap();
        let w = own.add_initializer("w", some(&[3, 4])).unwrap();
        let y = own.op("MatMul", &[labels, w], []);
        own.add_output(y);
        let e = training_graph(&own, &[w], &spec, &BTreeMap::new()).unwrap_err();
        assert!(e.message().contains("input 'labels'"), "{e}");
    }
}

/// Axes that are a tensor of no elements mean all axes; they are no empty input.
#[test]
fn no_axes_mean_all() {
    if !runtime() {
        return;
    }
    for (op, expected) in [
        ("ReduceSum", 21.0),
        ("ReduceL1", 21.0),
        ("ReduceL2", 91f64.sqrt()),
        ("ReduceSumSquare", 91.),
    ] {
        let (mut g, one) = start(18);
        let x = g.add_initializer("x", floats(&[2, 3], &[1., 2., 3., 4., 5., 6.])).unwrap();
        let axes = g.add_initializer("axes", TensorData::ints(&[])).unwrap();
        let y = g.op(op, &[x, axes], [("keepdims", Attribute::Int(0))]);
        let y = g.op("Mul", &[y, one], []);
        let shape = g.add_initializer("", TensorData::ints(&[])).unwrap();
        let y = g.op("Reshape", &[y, shape], []);
        g.rename(y, "loss").unwrap();
        g.add_output(y);
        let (loss, gradients) = run(&g, &[x]).unwrap();
        assert!((loss - expected).abs() < 1e-4, "{op}: {loss} for {expected}");
        assert!(gradients[0].iter().all(|&g| g > 0.0), "{op}: {gradients:?}");
    }
}

/// An attribute that a rule does not know is told with node, operator and attribute, before
/// anything is built.
#[test]
fn unknown_attributes_are_refused_by_name() {
    let ruled = rows().filter(|r| matches!(r.entry, Entry::Rule(_))).map(|r| (r.domain, r.op, 28));
    let lowered = mmopt::onnx::compat::lowered_operators().map(|(d, op)| (d, op, 28));
    let mut failures = Vec::new();
    for (domain, op, opset) in ruled.chain(lowered) {
        let mut g = Graph::new("odd", opset);
        g.opsets.insert(domain.into(), opset);
        let w = g.add_initializer("w", some(&[2])).unwrap();
        let y = named(&mut g, "here", op, &[w, w, w]);
        let first = g.node_ids().next().unwrap();
        g.node_mut(first).domain = domain.into();
        set(&mut g, "not_in_the_standard", Attribute::Int(1));
        g.add_output(y);
        let parts = ["here", op, "'not_in_the_standard'"];
        match check_operators(&g, y, &[w]) {
            Err(e) if e.kind() == Kind::Unsupported => {
                failures.extend(
                    parts.iter().find(|p| !e.message().contains(*p)).map(|_| format!("{op}: {e}")),
                );
            }
            other => failures.push(format!("{domain}.{op}: {other:?}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// SpaceToDepth in both orders: y[c b² + i b + j] or y[(i b + j) C + c] = x[c, h b + i, w b + j].
#[test]
fn space_to_depth_in_both_orders() {
    if !runtime() {
        return;
    }
    let (c, b, h, w) = (3, 2, 2, 3);
    for mode in ["DCR", "CRD"] {
        let mut g = Graph::new("blocks", 28);
        let x = g.add_input("x", ValueType::known(DType::F32, &[1, c, h * b, w * b])).unwrap();
        let y = g.op("SpaceToDepth", &[x], [("blocksize", Attribute::Int(b as i64))]);
        set(&mut g, "mode", Attribute::String(mode.into()));
        let shape = [1, c * b * b, h, w];
        g.set_type(y, ValueType::known(DType::F32, &shape));
        let n: usize = shape.iter().product();
        let weights: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let weights = g.add_initializer("weights", floats(&shape, &weights)).unwrap();
        let mut build = Build::new(&mut g);
        let t = build.mul(y, weights).unwrap();
        let loss = build.reduce("ReduceSum", t, &[0, 1, 2, 3], false).unwrap();
        let dx = differentiate(&mut g, loss, &[x]).unwrap()[0].unwrap();
        g.set_outputs(vec![dx]);
        g.prune();
        g.prune_inputs(&[]);
        // What is left does not hold the operator; older runtimes know it.
        g.opsets.insert(String::new(), 17);
        let options = SessionOptions::default();
        let session = Session::from_bytes(&g.to_bytes().unwrap(), &options).unwrap();
        let result = session.run(&[], &[g.value_name(dx)]).unwrap();
        let found = result[0].as_slice::<f32>().unwrap();
        for (place, &value) in found.iter().enumerate() {
            let (row, column) = (place / (w * b) % (h * b), place % (w * b));
            let (channel, i, j) = (place / (w * b * h * b), row % b, column % b);
            let depth = match mode {
                "CRD" => channel * b * b + i * b + j,
                _ => (i * b + j) * c + channel,
            };
            let expected = (depth * h + row / b) * w + column / b;
            assert_eq!(value, expected as f32, "{mode} at {place}");
        }
    }
}

/// Attention over a window is attention with the mask of that window.
#[test]
fn attention_windows_are_masks() {
    if !runtime() {
        return;
    }
    let (queries, keys, past) = (4usize, 6usize, 2usize);
    for (left, right, causal) in [(2, 1, 0), (1, -1, 0), (-1, 0, 0), (2, -1, 1), (0, 0, 0)] {
        let build = |window: bool| {
            let (mut g, one) = start(if window { 25 } else { 23 });
            let q = g.add_initializer("q", some(&[1, 2, queries, 4])).unwrap();
            let k = g.add_initializer("k", some(&[1, 2, keys - past, 4])).unwrap();
            let v = g.add_initializer("v", some(&[1, 2, keys - past, 4])).unwrap();
            let past_k = g.add_initializer("past_k", some(&[1, 2, past, 4])).unwrap();
            let past_v = g.add_initializer("past_v", some(&[1, 2, past, 4])).unwrap();
            let allowed = (0..queries).flat_map(|i| {
                (0..keys).map(move |j| {
                    let p = (i + past) as i64;
                    let j = j as i64;
                    let far = left >= 0 && j < p - left || right >= 0 && j > p + right;
                    u8::from(!far && (causal == 0 || j <= p))
                })
            });
            let mask =
                TensorData::new(DType::Bool, &[queries, keys], allowed.collect::<Vec<u8>>().into());
            let mask = g.add_initializer("mask", mask.unwrap()).unwrap();
            let inputs = [q, k, v, mask, past_k, past_v].map(Some);
            let mut inputs = inputs.to_vec();
            let mut attributes = Vec::new();
            if window {
                inputs[3] = None;
                attributes.push(("left_window_size", Attribute::Int(left)));
                attributes.push(("right_window_size", Attribute::Int(right)));
                attributes.push(("is_causal", Attribute::Int(causal)));
            }
            let outputs: Vec<ValueId> = (0..3).map(|_| g.add_value("").unwrap()).collect();
            g.push_node(Node {
                name: "attention".into(),
                op: "Attention".into(),
                domain: String::new(),
                inputs,
                outputs: outputs.iter().map(|&v| Some(v)).collect(),
                attributes: attributes.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            });
            let shapes = [[1, 2, queries, 4], [1, 2, keys, 4], [1, 2, keys, 4]];
            for (y, shape) in outputs.iter().zip(&shapes) {
                g.set_type(*y, ValueType::known(DType::F32, shape));
            }
            finish(&mut g, one, outputs[0]);
            (g, vec![q, k, v, past_k, past_v])
        };
        let ((windowed, params), (masked, _)) = (build(true), build(false));
        let expected = run(&masked, &params).unwrap();
        match run(&windowed, &params) {
            Ok(found) => {
                assert!((found.0 - expected.0).abs() < 1e-4, "{left} {right}: {found:?}");
                for (a, b) in found.1.iter().zip(&expected.1) {
                    assert!(close(a, b), "{left} {right}: {a:?} for {b:?}");
                }
            }
            // The runtime is older than the attribute.
            Err(e) => assert!(e.message().contains("window_size"), "{e}"),
        }
    }
}

/// x [batch, 3, 2] normalised over the batch, then a product.
fn recogniser(training: bool) -> Graph {
    let mut g = Graph::new("recogniser", 17);
    let dims = vec![Dim::Symbol("batch".into()), Dim::Known(3), Dim::Known(2)];
    let x = g.add_input("x", ValueType { dtype: Some(DType::F32), shape: Some(dims) }).unwrap();
    let mut hold = |name: &str, data: TensorData| g.add_initializer(name, data).unwrap();
    let scale = hold("bn.weight", floats(&[3], &[0.9, 1.1, 1.2]));
    // A fresh shift and a fresh mean are one initializer in many files.
    let zero = hold("bn.bias", floats(&[3], &[0.0, 0.0, 0.0]));
    let variance = hold("bn.running_var", floats(&[3], &[0.01, 0.02, 0.03]));
    let w = hold("fc.weight", some(&[6, 2]));
    let y = g.op("BatchNormalization", &[x, scale, zero, zero, variance], []);
    set(&mut g, "momentum", Attribute::Float(0.75));
    if training {
        set(&mut g, "training_mode", Attribute::Int(1));
        let last = g.node_ids().next_back().unwrap();
        for name in ["new_mean", "new_variance"] {
            let v = g.add_value(name).unwrap();
            g.node_mut(last).outputs.push(Some(v));
        }
    }
    let y = g.op("Flatten", &[y], []);
    let y = g.op("MatMul", &[y, w], []);
    g.rename(y, "y").unwrap();
    let dims = vec![Dim::Symbol("batch".into()), Dim::Known(2)];
    g.set_type(y, ValueType { dtype: Some(DType::F32), shape: Some(dims) });
    g.add_output(y);
    g
}

fn options(g: &Graph, kind: LossKind) -> ModelOptions {
    let mut options = ModelOptions::new("m", Source::OnnxBytes(g.to_bytes().unwrap().into()));
    options.loss = Some(LossSpec::new(kind));
    options
}

fn trainer(options: ModelOptions, rate: f64) -> Result<Trainer> {
    let optimizer = optim::Options { learning_rate: rate, n_threads: 1, ..optim::Options::adamw() };
    Trainer::new(TrainerOptions { optimizer, ..TrainerOptions::default() }, vec![options])
}

fn views<'a>(tensors: &'a [(&'static str, Tensor)]) -> Vec<TensorView<'a>> {
    tensors.iter().map(|(name, t)| TensorView::of(name, t)).collect()
}

/// Running statistics are buffers: not trained, told in the report, moved by the momentum where
/// the graph is in training mode, and used in evaluation.
#[test]
fn running_statistics_are_buffers() {
    if !runtime() {
        return;
    }
    for training in [false, true] {
        let report = options(&recogniser(training), LossKind::MeanSquaredError).inspect().unwrap();
        let state = |name: &str| {
            let p = report.parameters.iter().find(|p| p.name == name);
            p.map(|p| (p.trained, p.reason.clone().unwrap_or_default()))
        };
        assert_eq!(state("bn.weight"), Some((true, String::new())));
        assert_eq!(state("bn.bias"), Some((true, String::new())));
        for name in ["bn.running_mean", "bn.running_var"] {
            let (trained, reason) = state(name).unwrap_or_else(|| panic!("{name}: {report}"));
            assert!(!trained && reason.contains("running statistic"), "{name}: {reason}");
        }
        // Neither does a pattern that matches everything train them.
        let mut all = options(&recogniser(training), LossKind::MeanSquaredError);
        all.trainable = vec!["*".into()];
        let report = all.inspect().unwrap();
        assert!(!report.parameters.iter().any(|p| p.trained && p.name.contains("running")));

        let mut trainer = trainer(options(&recogniser(training), LossKind::MeanSquaredError), 0.05);
        let trainer = trainer.as_mut().unwrap();
        let x: Vec<f32> = (0..24).map(|i| ((i * 7 % 17) as f32 - 6.0) / 4.0).collect();
        let batch = [
            ("x", Tensor::from_slice(&[4, 3, 2], &x).unwrap()),
            ("labels", Tensor::from_slice(&[4, 2], &[0.5f32; 8]).unwrap()),
        ];
        let value = |t: &Trainer, name: &str| -> Vec<f32> {
            t.parameter(0, name).unwrap().as_slice::<f32>().unwrap().to_vec()
        };
        let mut expected = [value(trainer, "bn.running_mean"), value(trainer, "bn.running_var")];
        for _ in 0..40 {
            let loss = trainer.forward_backward(0, &views(&batch)).unwrap().loss;
            assert!(loss.is_finite());
            trainer.step().unwrap();
            if !training {
                continue;
            }
            for c in 0..3 {
                let of = (0..4).flat_map(|n| (0..2).map(move |k| n * 6 + c * 2 + k));
                let values: Vec<f32> = of.map(|i| x[i]).collect();
                let mean = values.iter().sum::<f32>() / 8.0;
                let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 8.0;
                for (old, new) in expected.iter_mut().zip([mean, variance]) {
                    old[c] = old[c] * 0.75 + new * 0.25;
                }
            }
        }
        for (name, expected) in ["bn.running_mean", "bn.running_var"].iter().zip(&expected) {
            let found = value(trainer, name);
            let same = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4);
            assert!(same, "training {training}, {name}: {found:?} for {expected:?}");
        }
        if training {
            let loss = trainer.forward_backward(0, &views(&batch)).unwrap().loss;
            let evaluated = trainer.evaluate(0, &views(&batch)).unwrap().loss.unwrap();
            assert!((loss - evaluated).abs() < 0.01 * loss.max(0.1), "{loss} and {evaluated}");
        }
    }
}

/// The same where a function of the model holds the normalisation.
#[test]
fn running_statistics_are_seen_in_functions() {
    use mmopt::onnx::proto::{FunctionProto, OperatorSetIdProto};
    let mut g = recogniser(false);
    let names = ["x", "weight", "bias", "mean", "variance"];
    let of = |domain: &str, version: i64| OperatorSetIdProto { domain: domain.into(), version };
    g.functions.push(FunctionProto {
        name: "norm".into(),
        domain: "own".into(),
        input: names.iter().map(|n| (*n).to_owned()).collect(),
        output: vec!["y".into()],
        node: vec![node("BatchNormalization", &names, &["y"])],
        opset_import: vec![of("", 17)],
        ..FunctionProto::default()
    });
    g.opsets.insert("own".into(), 1);
    let first = g.node_ids().next().unwrap();
    let variance = g.find("bn.running_var").unwrap();
    let call = g.node_mut(first);
    (call.op, call.domain) = ("norm".into(), "own".into());
    call.attributes.clear();
    assert_eq!(call.inputs[4], Some(variance));
    let found = find_parameters(&g);
    let trained: Vec<&str> =
        found.iter().filter(|p| p.trainable()).map(|p| p.name.as_str()).collect();
    assert_eq!(trained, ["bn.weight", "bn.bias", "fc.weight"]);
}

/// CastLike reads only the type of its second input.
#[test]
fn cast_like_has_no_gradient_towards_the_type() {
    if !runtime() {
        return;
    }
    for wide in [false, true] {
        let (mut g, one) = start(19);
        let x = g.add_initializer("x", some(&[2, 3])).unwrap();
        let towards = match wide {
            true => TensorData::from_slice(&[4], &[0.5f64, 1.0, 1.5, 2.0]).unwrap(),
            false => some(&[4]),
        };
        let towards = g.add_initializer("towards", towards).unwrap();
        let y = g.op("CastLike", &[x, towards], []);
        let y = g.op("Cast", &[y], [("to", Attribute::Int(1))]);
        // The other is trained too, by another way.
        let own = g.op("Cast", &[towards], [("to", Attribute::Int(1))]);
        let own = g.op("ReduceSum", &[own], []);
        let y = g.op("Add", &[y, own], []);
        finish(&mut g, one, y);
        let (_, both) = run(&g, &[x, towards]).unwrap_or_else(|e| panic!("f64 {wide}: {e}"));
        assert_eq!(both[1].len(), 4);
        assert!(both[1].iter().all(|v| *v == both[1][0]), "{both:?}");
        let total: f64 = both[0].iter().sum();
        assert!((both[1][0] - total).abs() < 1e-4, "{both:?}");
    }
}

/// Where `min` is above `max` the result is `max`, as the standard says.
#[test]
fn a_clip_with_crossed_bounds_is_its_max() {
    if !runtime() {
        return;
    }
    let (mut g, one) = start(17);
    let x = g.add_initializer("x", floats(&[6], &[-3., -1.5, -0.5, 0.5, 1.5, 3.])).unwrap();
    let low = g.add_initializer("low", floats(&[], &[1.0])).unwrap();
    let high = g.add_initializer("high", floats(&[], &[-1.0])).unwrap();
    let y = g.op("Clip", &[x, low, high], []);
    let y = g.op("Mul", &[y, one], []);
    let loss = g.op("ReduceSum", &[y], [("keepdims", Attribute::Int(0))]);
    g.rename(loss, "loss").unwrap();
    g.add_output(loss);
    let (loss, gradients) = run(&g, &[x, low, high]).unwrap();
    assert_eq!(loss, -6.0);
    assert_eq!(gradients, [vec![0.0; 6], vec![0.0], vec![6.0]]);
}

/// The standard defines the normalisation of zeros as zero; its gradient is zero too.
#[test]
fn zeros_are_normalised_to_zeros() {
    if !runtime() {
        return;
    }
    for p in [1, 2] {
        let (mut g, one) = start(22);
        let x = g.add_initializer("x", floats(&[2, 3], &[0., 0., 0., 1., -2., 3.])).unwrap();
        let y = g.op("LpNormalization", &[x], [("p", Attribute::Int(p))]);
        finish(&mut g, one, y);
        let (loss, gradients) = run(&g, &[x]).unwrap();
        assert!(loss.is_finite(), "{loss}");
        assert_eq!(gradients[0][..3], [0.0; 3], "p {p}");
        assert!(gradients[0][3..].iter().all(|v| v.is_finite() && *v != 0.0), "{gradients:?}");
    }
}

/// Equal elements deviate by nothing: the normalisation by mean and variance has no NaN there.
#[test]
fn equal_elements_have_finite_gradients() {
    if !runtime() {
        return;
    }
    let (mut g, one) = start(17);
    let values = [2., 2., 2., 2., 1., -2., 3., 0.5];
    let x = g.add_initializer("x", floats(&[1, 2, 2, 2], &values)).unwrap();
    let y = g.op("MeanVarianceNormalization", &[x], []);
    finish(&mut g, one, y);
    let (loss, gradients) = run(&g, &[x]).unwrap();
    assert!(loss.is_finite() && gradients[0].iter().all(|v| v.is_finite()), "{gradients:?}");
}

/// Floats that only set what an operator does, or that only operators without a gradient read,
/// are no parameters.
#[test]
fn what_no_gradient_reaches_is_not_trained() {
    let (mut g, one) = start(17);
    let x = g.add_initializer("x", some(&[3, 2])).unwrap();
    let ids = g.add_initializer("ids", TensorData::ints(&[0, 1, 1])).unwrap();
    let depth = g.add_initializer("depth", TensorData::ints(&[2])).unwrap();
    let values = g.add_initializer("values", floats(&[2], &[0.0, 1.0])).unwrap();
    let limit =
        g.add_initializer("limit", floats(&[3, 2], &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])).unwrap();
    let hot = g.op("OneHot", &[ids, depth, values], []);
    let over = g.op("Greater", &[x, limit], []);
    let over = g.op("Cast", &[over], [("to", Attribute::Int(1))]);
    let y = g.op("Mul", &[x, hot], []);
    let y = g.op("Mul", &[y, over], []);
    finish(&mut g, one, y);
    let trained: Vec<String> =
        find_parameters(&g).into_iter().filter(|p| p.trainable()).map(|p| p.name).collect();
    assert_eq!(trained, ["x"]);
}

/// -1 is how some exporters write a free dimension.
#[test]
fn a_dimension_of_minus_one_is_free() {
    use mmopt::onnx::proto::{ModelProto, dimension, type_proto};
    use prost::Message;
    let bytes = recogniser(false).to_bytes().unwrap();
    let mut model = ModelProto::decode(&bytes[..]).unwrap();
    let graph = model.graph.as_mut().unwrap();
    for info in graph.input.iter_mut().chain(&mut graph.output) {
        let Some(type_proto::Value::Tensor(t)) = info.r#type.as_mut().unwrap().value.as_mut()
        else {
            panic!("a tensor")
        };
        t.shape.as_mut().unwrap().dim[0].value = Some(dimension::Value::DimValue(-1));
    }
    let g = Graph::from_bytes(model.encode_to_vec().into()).unwrap();
    let shape = g.value(g.inputs()[0]).ty.shape.clone().unwrap();
    assert_eq!(shape, [Dim::Unknown, Dim::Known(3), Dim::Known(2)]);
}

fn weight(name: &str, shape: &[usize]) -> TensorProto {
    let data = some(shape);
    TensorProto {
        name: name.into(),
        data_type: DType::F32.onnx(),
        dims: shape.iter().map(|&d| d as i64).collect(),
        raw_data: Some(data.bytes().clone()),
        ..TensorProto::default()
    }
}

/// y = flag ? x w1 : x w2 with w1 an initializer and w2 a `Constant` of the branches, both called
/// `w`; `op` is the node around the branches.
fn branched() -> Graph {
    let mut g = Graph::new("branched", 17);
    let x = g.add_input("x", ValueType::known(DType::F32, &[2, 3])).unwrap();
    let flag = g.add_input("flag", ValueType::known(DType::Bool, &[])).unwrap();
    let yes = body(vec![node("MatMul", &["x", "w"], &["y1"])], vec![weight("w", &[3, 2])], "y1");
    let mut constant = node("Constant", &[], &["w"]);
    constant.attribute.push(AttributeProto {
        name: "value".into(),
        r#type: 4,
        t: Some(weight("", &[3, 2])),
        ..AttributeProto::default()
    });
    let no = body(vec![constant, node("MatMul", &["x", "w"], &["y2"])], vec![], "y2");
    let _ = x;
    let y = choose(&mut g, flag, yes, no);
    g.rename(y, "y").unwrap();
    g.set_type(y, ValueType::known(DType::F32, &[2, 2]));
    g.add_output(y);
    g
}

#[test]
fn weights_in_branches_are_trained() {
    if !runtime() {
        return;
    }
    let report = options(&branched(), LossKind::MeanSquaredError).inspect().unwrap();
    let trained = report.parameters.iter().filter(|p| p.trained).count();
    assert_eq!(trained, 2, "{report}");
    let mut trainer = trainer(options(&branched(), LossKind::MeanSquaredError), 0.1).unwrap();
    let batch = |flag: u8| {
        let flag = TensorData::new(DType::Bool, &[], vec![flag].into()).unwrap();
        [
            ("x", some(&[2, 3]).to_tensor().unwrap()),
            ("flag", flag.to_tensor().unwrap()),
            ("labels", Tensor::from_slice(&[2, 2], &[1f32, 0.5, -0.5, 2.0]).unwrap()),
        ]
    };
    let mut losses = Vec::new();
    for i in 0..60 {
        losses.push(trainer.forward_backward(0, &views(&batch(i % 2))).unwrap().loss);
        trainer.step().unwrap();
    }
    assert!(losses[58] < 0.5 * losses[0] && losses[59] < 0.5 * losses[1], "{losses:?}");
}

/// Weights in the body of a loop are parameters.
#[test]
fn weights_in_loops_are_trained() {
    if !runtime() {
        return;
    }
    let mut g = Graph::new("looped", 17);
    let x = g.add_input("x", ValueType::known(DType::F32, &[2, 3])).unwrap();
    let trips = g.add_initializer("trips", TensorData::ints(&[2]).reshaped(&[]).unwrap()).unwrap();
    let go = flag(&mut g, 1);
    let info = |name: &str| ValueInfoProto { name: name.into(), r#type: None };
    let looped = GraphProto {
        name: "body".into(),
        input: vec![info("i"), info("on"), info("h")],
        node: vec![node("Identity", &["on"], &["still"]), node("MatMul", &["h", "w"], &["next"])],
        initializer: vec![weight("w", &[3, 3])],
        output: vec![info("still"), info("next")],
        ..GraphProto::default()
    };
    let y = named(&mut g, "steps", "Loop", &[trips, go, x]);
    set(&mut g, "body", Attribute::Graph(Box::new(looped)));
    g.set_type(y, ValueType::known(DType::F32, &[2, 3]));
    g.add_output(y);
    let mut trainer = trainer(options(&g, LossKind::MeanSquaredError), 0.1).unwrap();
    let labels = Tensor::from_slice(&[2, 3], &[1f32, 0.5, -0.5, 2.0, 0.3, 0.1]).unwrap();
    let batch = [("x", some(&[2, 3]).to_tensor().unwrap()), ("labels", labels)];
    let mut losses = Vec::new();
    for _ in 0..60 {
        losses.push(trainer.forward_backward(0, &views(&batch)).unwrap().loss);
        trainer.step().unwrap();
    }
    assert!(losses[59] < 0.5 * losses[0], "{losses:?}");
}

/// An output's name may hold commas.
#[test]
fn names_of_outputs_may_hold_commas() {
    if !runtime() {
        return;
    }
    let mut g = Graph::new("commas", 17);
    let x = g.add_input("x", ValueType::known(DType::F32, &[2, 3])).unwrap();
    let w = g.add_initializer("w", some(&[3, 4])).unwrap();
    for name in ["StatefulCall:0,1", "end, of it"] {
        let y = g.op("MatMul", &[x, w], []);
        g.rename(y, name).unwrap();
        g.set_type(y, ValueType::known(DType::F32, &[2, 4]));
        g.add_output(y);
    }
    let mut spec = LossSpec::new(LossKind::SequenceClassification);
    spec.logits = Some("StatefulCall:0,1".into());
    let t = training_graph(&g, &[w], &spec, &BTreeMap::new()).unwrap();
    assert_eq!(t.logits[0].0, "StatefulCall:0,1");
    let mut spec = LossSpec::new(LossKind::QuestionAnswering);
    spec.logits = Some("StatefulCall:0,1, end, of it".into());
    let t = training_graph(&g, &[w], &spec, &BTreeMap::new()).unwrap();
    assert_eq!(t.logits.len(), 2);
}

/// A model that computes its loss itself reports it in evaluation, beside its outputs.
#[test]
fn the_own_loss_is_evaluated() {
    if !runtime() {
        return;
    }
    let mut g = Graph::new("own", 17);
    let x = g.add_input("x", ValueType::known(DType::F32, &[2, 3])).unwrap();
    let w = g.add_initializer("w", some(&[3, 2])).unwrap();
    let y = g.op("MatMul", &[x, w], []);
    g.rename(y, "y").unwrap();
    g.set_type(y, ValueType::known(DType::F32, &[2, 2]));
    g.add_output(y);
    let square = g.op("Mul", &[y, y], []);
    let loss = g.op("ReduceSum", &[square], [("keepdims", Attribute::Int(0))]);
    g.rename(loss, "loss").unwrap();
    g.set_type(loss, ValueType::known(DType::F32, &[]));
    g.add_output(loss);
    let mut trainer = trainer(options(&g, LossKind::Output("loss".into())), 0.1).unwrap();
    let batch = [("x", some(&[2, 3]).to_tensor().unwrap())];
    let trained = trainer.forward_backward(0, &views(&batch)).unwrap().loss;
    let evaluation = trainer.evaluate(0, &views(&batch)).unwrap();
    assert!((evaluation.loss.unwrap() - trained).abs() < 1e-6);
    let names: Vec<&str> = evaluation.logits.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["y", "loss"]);
}

/// Of several outputs the logits are the one that the labels fit.
#[test]
fn logits_are_the_output_that_fits_the_labels() {
    if !runtime() {
        return;
    }
    let mut g = Graph::new("pair", 17);
    let free = |names: &[&str]| {
        let dims = names.iter().map(|n| match n.parse() {
            Ok(size) => Dim::Known(size),
            Err(_) => Dim::Symbol((*n).to_owned()),
        });
        ValueType { dtype: Some(DType::F32), shape: Some(dims.collect()) }
    };
    let a = g.add_input("encoded", free(&["batch", "source", "3"])).unwrap();
    let b = g.add_input("decoded", free(&["batch", "target", "3"])).unwrap();
    let w = g.add_initializer("w", some(&[3, 5])).unwrap();
    let state = g.op("Relu", &[a], []);
    g.rename(state, "encoder_last_hidden_state").unwrap();
    g.set_type(state, free(&["batch", "source", "3"]));
    let mean = g.op("ReduceMean", &[state], [("axes", Attribute::Ints(vec![1]))]);
    let y = g.op("Add", &[b, mean], []);
    let y = g.op("MatMul", &[y, w], []);
    g.rename(y, "prediction").unwrap();
    g.set_type(y, free(&["batch", "target", "5"]));
    g.add_output(state);
    g.add_output(y);
    let mut trainer = trainer(options(&g, LossKind::TokenClassification), 0.1).unwrap();
    let batch = |source: usize| {
        [
            ("encoded", some(&[2, source, 3]).to_tensor().unwrap()),
            ("decoded", some(&[2, 4, 3]).to_tensor().unwrap()),
            ("labels", Tensor::from_slice(&[2, 4], &[0i64, 1, 2, 3, 4, 3, 2, 1]).unwrap()),
        ]
    };
    trainer.forward_backward(0, &views(&batch(6))).unwrap();
    let e = trainer.forward_backward(0, &views(&batch(4))).unwrap_err();
    assert!(e.message().contains("which output holds the logits"), "{e}");
}
