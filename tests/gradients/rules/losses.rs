//! Losses against a plain f64 computation of the published formula: value, and every element of
//! the gradient by central differences of that computation.

use std::collections::BTreeMap;

use mmopt::autodiff::{LossKind, LossSpec};
use mmopt::error::Kind;
use mmopt::onnx::{Graph, TensorData, ValueId, ValueType};
use mmopt::runtime::{Device, Session};
use mmopt::tensor::{DType, Tensor};
use mmopt::train::graphs::training_graph;

use super::case::{Random, device, session_options};
use crate::runtime;

/// A model whose output `name` is its only parameter, of the given shape.
fn model(outputs: &[(&str, &[usize])], dtype: DType) -> (Graph, Vec<ValueId>) {
    let mut g = Graph::new("direct", 17);
    let one = g.add_input("one", ValueType::known(dtype, &[1])).unwrap();
    let mut params = Vec::new();
    for (name, shape) in outputs {
        let n = shape.iter().product::<usize>();
        let w = TensorData::from_tensor(&floats(dtype, shape, &vec![0.0; n])).unwrap();
        let w = g.add_initializer(&format!("w_{name}"), w).unwrap();
        let y = g.op("Mul", &[w, one], []);
        g.rename(y, name).unwrap();
        g.add_output(y);
        params.push(w);
    }
    (g, params)
}

fn floats(dtype: DType, shape: &[usize], values: &[f64]) -> Tensor {
    let narrow: Vec<f32> = values.iter().map(|&v| v as f32).collect();
    match dtype {
        DType::F64 => Tensor::from_slice(shape, values).unwrap(),
        _ => Tensor::from_slice(shape, &narrow).unwrap(),
    }
}

/// -ln softmax(row)[label], weighted and smoothed; and the weight of the row.
fn row_loss(row: &[f64], label: i64, spec: &LossSpec) -> (f64, f64) {
    if label == spec.ignore_index {
        return (0.0, 0.0);
    }
    let top = row.iter().copied().fold(f64::MIN, f64::max);
    let sum: f64 = row.iter().map(|z| (z - top).exp()).sum();
    let nll = |c: usize| top + sum.ln() - row[c];
    let weight = |c: usize| spec.class_weights.as_ref().map_or(1.0, |w| f64::from(w[c]));
    let (own, e) = (label as usize, f64::from(spec.label_smoothing));
    let spread: f64 = (0..row.len()).map(|c| weight(c) * nll(c)).sum();
    let loss = (1.0 - e) * weight(own) * nll(own) + e / row.len() as f64 * spread;
    (loss, weight(own))
}

fn mean_loss(z: &[f64], classes: usize, labels: &[i64], spec: &LossSpec) -> f64 {
    let rows = z.chunks(classes).zip(labels).map(|(row, &label)| row_loss(row, label, spec));
    let (loss, weight) = rows.fold((0.0, 0.0), |(a, b), (c, d)| (a + c, b + d));
    if weight == 0.0 { 0.0 } else { loss / weight }
}

/// Runs the attached loss in f64 and f32 and compares value and gradients with `reference`.
fn check(
    outputs: &[(&str, &[usize])],
    spec: &LossSpec,
    labels: &[(&str, Tensor)],
    reference: impl Fn(&[Vec<f64>]) -> f64,
) {
    if runtime() {
        check_in(DType::F64, outputs, spec, labels, &reference);
        check_in(DType::F32, outputs, spec, labels, &reference);
    }
}

fn check_in(
    dtype: DType,
    outputs: &[(&str, &[usize])],
    spec: &LossSpec,
    labels: &[(&str, Tensor)],
    reference: &dyn Fn(&[Vec<f64>]) -> f64,
) {
    let (graph, params) = model(outputs, dtype);
    let t = training_graph(&graph, &params, spec, &BTreeMap::new()).unwrap();
    let mut random = Random::new(11);
    let mut values: Vec<Vec<f64>> = outputs
        .iter()
        .map(|(_, s)| (0..s.iter().product()).map(|_| random.unit() * 4.0 - 2.0).collect())
        .collect();
    let one = floats(dtype, &[1], &[1.0]);
    let tensors: Vec<Tensor> =
        values.iter().zip(outputs).map(|(v, (_, s))| floats(dtype, s, v)).collect();
    let cast = |t: &Tensor| match t.as_slice::<f64>() {
        Ok(values) => floats(dtype, t.shape(), values),
        Err(_) => t.copy().unwrap(),
    };
    let labels: Vec<(&str, Tensor)> = labels.iter().map(|(n, t)| (*n, cast(t))).collect();
    let mut feeds = vec![("one", &one)];
    feeds.extend(t.params.iter().map(String::as_str).zip(&tensors));
    feeds.extend(labels.iter().map(|(name, tensor)| (*name, tensor)));
    let mut names = vec![t.loss.as_str()];
    names.extend(t.grads.iter().map(|g| g.as_deref().unwrap()));
    let session = Session::from_bytes(&t.bytes, &session_options()).unwrap();
    let results = session.run(&feeds, &names).unwrap();
    let read = |t: &Tensor| TensorData::from_tensor(t).unwrap().to_f64s().unwrap();
    let loss = read(&results[0])[0];
    let expected = reference(&values);
    let bound = match (dtype, device()) {
        (DType::F64, Device::Cpu) => 1e-9,
        (_, Device::Cpu) => 2e-6,
        _ => 1e-5,
    };
    assert!((loss - expected).abs() < bound, "{:?}: loss {loss}, not {expected}", spec.kind);
    for (p, gradient) in results[1..].iter().enumerate() {
        for (i, found) in read(gradient).into_iter().enumerate() {
            let h = 1e-5;
            let kept = values[p][i];
            values[p][i] = kept + h;
            let up = reference(&values);
            values[p][i] = kept - h;
            let down = reference(&values);
            values[p][i] = kept;
            let slope = (up - down) / (2.0 * h);
            assert!(
                (found - slope).abs() < bound.max(1e-7),
                "{:?}: d[{i}] {found}, not {slope}",
                spec.kind
            );
        }
    }
}

fn labels(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::from_slice(shape, values).unwrap()
}

/// Every combination of smoothing, class weights and ignored rows.
fn variants(kind: &LossKind, classes: usize) -> Vec<LossSpec> {
    let weights: Vec<f32> = (0..classes).map(|c| 0.5 + c as f32 * 0.75).collect();
    let mut specs = Vec::new();
    for smoothing in [0.0, 0.1] {
        for weights in [None, Some(weights.clone())] {
            specs.push(LossSpec {
                label_smoothing: smoothing,
                class_weights: weights,
                ..LossSpec::new(kind.clone())
            });
        }
    }
    specs
}

#[test]
fn sequence_classification() {
    for spec in variants(&LossKind::SequenceClassification, 3) {
        for y in [[0, 2, 1, 2], [0, -100, 1, -100], [-100; 4]] {
            let given = [("labels", labels(&[4], &y))];
            check(&[("logits", &[4, 3])], &spec, &given, |z| mean_loss(&z[0], 3, &y, &spec));
        }
    }
}

#[test]
fn token_level() {
    for kind in [LossKind::TokenClassification, LossKind::MaskedLm] {
        for mut spec in variants(&kind, 5) {
            spec.ignore_index = 7;
            let y = [0, 7, 4, 3, 7, 1];
            let given = [("labels", labels(&[2, 3], &y))];
            check(&[("logits", &[2, 3, 5])], &spec, &given, |z| mean_loss(&z[0], 5, &y, &spec));
        }
    }
}

/// Position t is compared with the label of t + 1; the last position has none.
#[test]
fn causal_language_model() {
    for spec in variants(&LossKind::CausalLm, 4) {
        let y = [0, 3, -100, 1, 2, 1, 0, 3];
        let moved = [3, -100, 1, -100, 1, 0, 3, -100];
        let given = [("labels", labels(&[2, 4], &y))];
        check(&[("logits", &[2, 4, 4])], &spec, &given, |z| mean_loss(&z[0], 4, &moved, &spec));
    }
}

#[test]
fn question_answering() {
    let spec = LossSpec::new(LossKind::QuestionAnswering);
    let (start, end) = ([0, 3, 9], [2, 5, -1]);
    // Positions outside the sequence of 5 are ignored.
    let known = |y: &[i64]| -> Vec<i64> {
        y.iter().map(|&p| if (0..5).contains(&p) { p } else { -100 }).collect()
    };
    let given =
        || [("start_positions", labels(&[3], &start)), ("end_positions", labels(&[3], &end))];
    let both = |s: &[f64], e: &[f64]| {
        (mean_loss(s, 5, &known(&start), &spec) + mean_loss(e, 5, &known(&end), &spec)) / 2.0
    };
    let outputs: [(&str, &[usize]); 2] = [("start_logits", &[3, 5]), ("end_logits", &[3, 5])];
    check(&outputs, &spec, &given(), |z| both(&z[0], &z[1]));
    check(&[("logits", &[3, 5, 2])], &spec, &given(), |z| {
        let part = |k: usize| -> Vec<f64> { z[0].iter().skip(k).step_by(2).copied().collect() };
        both(&part(0), &part(1))
    });
}

#[test]
fn mean_squared_error() {
    let spec = LossSpec::new(LossKind::MeanSquaredError);
    let y = [0.5, -1.0, 2.0];
    let square = |z: &[f64]| z.iter().zip(y).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / 3.0;
    let given = [("labels", Tensor::from_slice(&[3], &y).unwrap())];
    check(&[("score", &[3, 1])], &spec, &given, |z| square(&z[0]));
    let given = [("labels", Tensor::from_slice(&[1, 3], &y).unwrap())];
    check(&[("score", &[1, 3])], &spec, &given, |z| square(&z[0]));
}

#[test]
fn what_does_not_fit_is_told() {
    if !runtime() {
        return;
    }
    let refused = |outputs: &[(&str, &[usize])], spec: &LossSpec| {
        let (graph, params) = model(outputs, DType::F32);
        training_graph(&graph, &params, spec, &BTreeMap::new()).unwrap_err()
    };
    let spec = LossSpec::new(LossKind::SequenceClassification);
    let e = refused(&[("logits", &[2, 3, 4])], &spec);
    assert_eq!((e.kind(), e.message().contains("rank 2")), (Kind::Shape, true), "{e}");
    let e = refused(&[("a", &[2, 3]), ("b", &[2, 3])], &spec);
    assert_eq!((e.kind(), e.message().contains("a, b")), (Kind::NotFound, true), "{e}");
    let named = LossSpec { logits: Some("c".into()), ..spec.clone() };
    assert_eq!(refused(&[("a", &[2, 3])], &named).kind(), Kind::NotFound);
    let weights = LossSpec { class_weights: Some(vec![1.0; 2]), ..spec.clone() };
    assert_eq!(refused(&[("a", &[2, 3])], &weights).kind(), Kind::Shape);
    let smooth = LossSpec { label_smoothing: 1.5, ..spec };
    assert_eq!(refused(&[("a", &[2, 3])], &smooth).kind(), Kind::InvalidArgument);
    let own = LossSpec::new(LossKind::Output("a".into()));
    assert_eq!(refused(&[("a", &[2, 3])], &own).kind(), Kind::Shape);
}
