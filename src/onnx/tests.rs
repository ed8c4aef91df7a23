//! Reader, writer and edits, on small graphs made here.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::error::Kind;
use crate::tensor::DType;

/// x[batch, 4] -> MatMul with w[4, 3] -> Relu -> y, and a node that nothing needs.
fn small() -> Graph {
    let mut g = Graph::new("small", 17);
    let dims = vec![Dim::Symbol("batch".into()), Dim::Known(4)];
    let x = g.add_input("x", ValueType { dtype: Some(DType::F32), shape: Some(dims) }).unwrap();
    let w = TensorData::from_slice(&[4, 3], &[0.5f32; 12]).unwrap();
    let w = g.add_initializer("w", w).unwrap();
    let y = g.op("MatMul", &[x, w], []);
    let y = g.op("Relu", &[y], []);
    g.op("Softmax", &[y], [("axis", Attribute::Int(-1))]);
    g.add_output(y);
    g
}

fn error_of(bytes: Vec<u8>) -> crate::Error {
    Graph::from_bytes(bytes.into()).unwrap_err()
}

#[test]
fn survives_a_round_trip() {
    let g = small();
    let again = Graph::from_bytes(g.to_bytes().unwrap().into()).unwrap();
    assert_eq!(again.nodes().len(), 3);
    assert_eq!(again.to_bytes().unwrap(), g.to_bytes().unwrap());
    assert_eq!(again.value(again.inputs()[0]).ty, g.value(g.inputs()[0]).ty);
}

#[test]
fn prunes_what_no_output_needs() {
    let mut g = small();
    g.add_initializer("unused", TensorData::ints(&[1])).unwrap();
    g.prune();
    assert_eq!(g.nodes().len(), 2);
    assert_eq!(g.initializers().len(), 1);
}

#[test]
fn sorts_and_finds_cycles() {
    let mut g = small();
    g.nodes_mut().reverse();
    g.sort().unwrap();
    let ops: Vec<_> = g.nodes().iter().map(|n| n.op.as_str()).collect();
    assert_eq!(ops[..2], ["MatMul", "Relu"]);
    let y = g.nodes()[1].output(0);
    g.nodes_mut()[0].inputs[0] = y;
    let e = error_of(g.to_bytes().unwrap());
    assert_eq!(e.kind(), Kind::InvalidData);
    assert!(e.message().contains("cycle"), "{e}");
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = small().to_bytes().unwrap();
    for n in 0..bytes.len() {
        assert_eq!(error_of(bytes[..n].to_vec()).kind(), Kind::InvalidData, "at {n}");
    }
}

#[test]
fn undefined_values_are_named() {
    let mut g = small();
    let lost = g.add_value("lost").unwrap();
    g.nodes_mut()[0].inputs[0] = Some(lost);
    let e = error_of(g.to_bytes().unwrap());
    assert!(e.message().contains("'lost'"), "{e}");
}

#[test]
fn external_data_round_trips_and_stays_in_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    let mut g = small();
    let data: Vec<f32> = (0..5000).map(|v| v as f32).collect();
    let big = TensorData::from_slice(&[50, 100], &data).unwrap();
    let v = g.add_initializer("big", big.clone()).unwrap();
    g.add_output(v);
    g.write(&path, true).unwrap();
    assert!(path.metadata().unwrap().len() < 2000);
    let again = Graph::read(&path).unwrap();
    let found = again.initializer(again.find("big").unwrap()).unwrap();
    assert_eq!(found, &big);

    let mut raw = std::fs::read(&path).unwrap();
    let at = raw.windows(11).position(|w| w == b"m.onnx.data").unwrap();
    raw[at..at + 11].copy_from_slice(b"../../a.dat");
    std::fs::write(&path, raw).unwrap();
    let e = Graph::read(&path).unwrap_err();
    assert!(e.message().contains("out of the model's folder"), "{e}");
    assert!(Graph::read(Path::new("/nonexistent.onnx")).unwrap_err().kind() == Kind::NotFound);
}

#[test]
fn input_shapes_are_checked() {
    let mut g = small();
    let fix = |g: &mut Graph, name: &str, shape: &[usize]| {
        g.fix_input_shapes(&BTreeMap::from([(name.to_owned(), shape.to_vec())]))
    };
    assert_eq!(fix(&mut g, "x", &[2, 5]).unwrap_err().kind(), Kind::Shape);
    assert_eq!(fix(&mut g, "z", &[2, 5]).unwrap_err().kind(), Kind::NotFound);
    fix(&mut g, "x", &[2, 4]).unwrap();
    assert_eq!(g.value(g.inputs()[0]).ty.static_shape(), Some(vec![2, 4]));
}
