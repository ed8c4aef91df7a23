//! Graphs around differentiation: gradients that a model brings itself, and the finder of values
//! that are not finite.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::runtime;
use std::collections::BTreeMap;

use mmopt::autodiff::{LossKind, LossSpec};
use mmopt::error::Kind;
use mmopt::onnx::{Build, Graph, TensorData, ValueType};
use mmopt::tensor::{DType, Tensor};
use mmopt::train::graphs::{
    NonFiniteOrigin, PrecomputedGradients, find_non_finite, precomputed_graph, training_graph,
};

/// loss = Σ (x w)², with its gradient when `with_gradient`.
fn squares() -> Graph {
    let mut graph = Graph::new("own", 17);
    let x = graph.add_input("x", ValueType::known(DType::F32, &[2, 3])).unwrap();
    let w = TensorData::from_slice(&[3, 1], &[1f32, -2.0, 0.5]).unwrap();
    let w = graph.add_initializer("w", w).unwrap();
    let mut g = Build::new(&mut graph);
    let y = g.matmul(x, w).unwrap();
    let y = g.square(y).unwrap();
    let loss = g.reduce("ReduceSum", y, &[0, 1], false).unwrap();
    graph.rename(loss, "cost").unwrap();
    graph.add_output(loss);
    graph
}

#[test]
fn a_model_with_gradients_is_taken_as_it_is() {
    if !runtime() {
        return;
    }
    let graph = squares();
    let w = graph.find("w").unwrap();
    let spec = LossSpec::new(LossKind::Output("cost".into()));
    let ours = training_graph(&graph, &[w], &spec, &BTreeMap::new()).unwrap();
    let brought = Graph::from_bytes(ours.bytes.clone().into()).unwrap();
    let given = PrecomputedGradients {
        loss: ours.loss.clone(),
        gradients: vec![("w".into(), ours.grads[0].clone().unwrap())],
        logits: Vec::new(),
    };
    let again = precomputed_graph(&brought, &given, &BTreeMap::new()).unwrap();
    assert_eq!((again.params, again.data_inputs), (ours.params, ours.data_inputs));
    let swapped =
        PrecomputedGradients { gradients: vec![("w".into(), ours.loss)], ..given.clone() };
    let e = precomputed_graph(&brought, &swapped, &BTreeMap::new()).unwrap_err();
    assert_eq!(e.kind(), Kind::Shape, "{e}");
    let unknown = PrecomputedGradients { loss: "nothing".into(), ..given };
    let e = precomputed_graph(&brought, &unknown, &BTreeMap::new()).unwrap_err();
    assert_eq!(e.kind(), Kind::NotFound, "{e}");
}

/// y = √(x - 1), z = softmax(y + mask)
fn roots() -> Vec<u8> {
    let mut graph = Graph::new("roots", 17);
    let x = graph.add_input("x", ValueType::known(DType::F32, &[1, 3])).unwrap();
    let mask = [0.0f32, 0.0, f32::NEG_INFINITY];
    let mask = TensorData::from_slice(&[3], &mask).unwrap();
    let mask = graph.add_initializer("mask", mask).unwrap();
    let mut g = Build::new(&mut graph);
    let less = g.shift(x, -1.0).unwrap();
    let root = g.unary("Sqrt", less).unwrap();
    let scores = g.add(root, mask).unwrap();
    let z = g.softmax("Softmax", scores, 1).unwrap();
    graph.rename(root, "root").unwrap();
    graph.rename(z, "z").unwrap();
    graph.add_output(z);
    graph.to_bytes().unwrap()
}

fn find(x: [f32; 3]) -> Option<NonFiniteOrigin> {
    let x = Tensor::from_slice(&[1, 3], &x).unwrap();
    find_non_finite(&roots(), &["z"], &[("x", &x)]).unwrap()
}

#[test]
fn the_first_value_is_named() {
    if !runtime() {
        return;
    }
    assert_eq!(find([1.0, 2.0, 3.0]), None);
    let found = find([1.0, 0.0, 3.0]).unwrap();
    assert_eq!((found.value.as_str(), found.what, found.count), ("root", "NaN", 1));
    assert!(found.node.contains("Sqrt"), "{}", found.node);
    assert_eq!((found.op.as_str(), found.output, &found.position[..]), ("Sqrt", 0, &[0, 1][..]));
    assert_eq!((found.inputs[0].min, found.inputs[0].max), (-1.0, 2.0));
    let found = find([1.0, f32::NAN, 3.0]).unwrap();
    assert_eq!((found.node.as_str(), found.value.as_str()), ("", "x"));
}
