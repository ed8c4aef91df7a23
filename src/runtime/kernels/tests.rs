//! Each kernel against an f64 reference and against its form in standard operators.

use super::kernel::KernelResult;
use super::products::{Operands, Parallel};
use super::*;
use crate::error::Kind;
use crate::onnx::{Attribute, Dim, Graph, Node, ValueType};
use crate::runtime::{Session, SessionOptions};
use crate::tensor::{DType, Tensor};

#[path = "attention/tests.rs"]
mod attention;

unsafe extern "C" {
    /// The C library's error function.
    safe fn erf(x: f64) -> f64;
}

/// Numbers in [-scale, scale], the same every time.
pub(super) fn series(seed: u64, n: usize, scale: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next() * scale).collect()
}

fn tensor(seed: u64, shape: &[usize], scale: f32) -> Tensor {
    Tensor::from_slice(shape, &series(seed, shape.iter().product(), scale)).unwrap()
}

/// A node of the domain with its inputs and as many outputs as asked for.
struct Case<'a> {
    op: &'a str,
    inputs: &'a [Tensor],
    outputs: usize,
    attributes: &'a [(&'a str, Attribute)],
}

impl Case<'_> {
    fn graph(&self, opset: i64) -> Graph {
        let mut graph = Graph::new("case", opset);
        graph.opsets.insert(MMOPT_DOMAIN.into(), 1);
        let mut inputs = Vec::new();
        for (i, t) in self.inputs.iter().enumerate() {
            let ty = ValueType::known(t.dtype(), t.shape());
            inputs.push(Some(graph.add_input(&format!("i{i}"), ty).unwrap()));
        }
        let mut outputs = Vec::new();
        for i in 0..self.outputs {
            let output = graph.add_value(&format!("o{i}")).unwrap();
            graph.add_output(output);
            outputs.push(Some(output));
        }
        let attributes = self.attributes.iter().map(|(k, v)| ((*k).to_owned(), v.clone()));
        graph.push_node(Node {
            name: String::new(),
            op: self.op.into(),
            domain: MMOPT_DOMAIN.into(),
            inputs,
            outputs,
            attributes: attributes.collect(),
        });
        graph
    }

    fn run(&self, graph: &Graph, options: SessionOptions) -> crate::Result<Vec<Tensor>> {
        let session = Session::from_bytes(&graph.to_bytes()?, &options)?;
        let names: Vec<String> = (0..self.inputs.len()).map(|i| format!("i{i}")).collect();
        let inputs: Vec<_> = names.iter().map(String::as_str).zip(self.inputs).collect();
        let outputs: Vec<String> = (0..self.outputs).map(|i| format!("o{i}")).collect();
        session.run(&inputs, &outputs.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The kernel against `expected`, at several numbers of threads; the standard form against it
    /// at several opsets. Errors count relative to each output's largest element.
    fn check(&self, expected: &[Vec<f64>]) {
        let kernel_only = self.graph(17);
        let with = |kernels, threads| SessionOptions { kernels, threads, ..Default::default() };
        let got = self.run(&kernel_only, with(true, 1)).unwrap();
        for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
            close(self.op, i, got, expected, 2e-6);
        }
        for threads in [2, 3, 8] {
            let again = self.run(&kernel_only, with(true, threads)).unwrap();
            for (a, b) in again.iter().zip(&got) {
                assert_eq!(a.bytes(), b.bytes(), "{} with {threads} threads", self.op);
            }
        }
        assert!(self.run(&kernel_only, with(false, 1)).is_err(), "{} ran unregistered", self.op);
        let empty = self.inputs.iter().any(Tensor::is_empty);
        if empty && crate::runtime::load(None).unwrap().version() < (1, 25, 0) {
            // Their reductions of nothing keep the shape, their products of nothing are undefined.
            return println!("not run: this runtime's own operators do not work on empty tensors");
        }
        let version = crate::runtime::load(None).unwrap().version();
        let newest = if version >= (1, 24, 0) { 23 } else { 21 };
        for opset in [13, 15, 16, 17, 18, newest] {
            let mut graph = self.graph(opset);
            attach(&mut graph).unwrap();
            let standard = self.run(&graph, with(false, 2)).unwrap();
            for (i, (got, expected)) in standard.iter().zip(expected).enumerate() {
                close(&format!("{} at opset {opset}", self.op), i, got, expected, 1e-5);
            }
            let both = self.run(&graph, with(true, 2)).unwrap();
            for (a, b) in both.iter().zip(&got) {
                assert_eq!(a.bytes(), b.bytes(), "{}: the kernel was not used", self.op);
            }
        }
    }
}

fn close(what: &str, i: usize, got: &Tensor, expected: &[f64], tolerance: f64) {
    let got = got.as_slice::<f32>().unwrap();
    assert_eq!(got.len(), expected.len(), "{what}, output {i}");
    let scale = expected.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
    for (k, (&g, &e)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(g) - e).abs() / scale;
        assert!(error <= tolerance, "{what}, output {i}[{k}]: {g} against {e}");
    }
}

fn wide(t: &Tensor) -> Vec<f64> {
    t.as_slice::<f32>().unwrap().iter().map(|&v| f64::from(v)).collect()
}

fn pointwise(op: &str, slope: impl Fn(f64) -> f64) {
    for shape in [&[7usize, 5, 333][..], &[40_000], &[0, 3], &[1]] {
        let inputs = [tensor(1, shape, 2.0), tensor(2, shape, 9.0)];
        let (dy, x) = (wide(&inputs[0]), wide(&inputs[1]));
        let expected = dy.iter().zip(&x).map(|(dy, &x)| dy * slope(x)).collect();
        Case { op, inputs: &inputs, outputs: 1, attributes: &[] }.check(&[expected]);
    }
}

#[test]
fn gelu() {
    pointwise("GeluGrad", |x| {
        let cdf = 0.5 * (1.0 + erf(x / 2f64.sqrt()));
        cdf + x * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
    });
}

#[test]
fn gelu_tanh() {
    pointwise("GeluTanhGrad", |x| {
        let c = (2.0 / std::f64::consts::PI).sqrt();
        let tanh = (c * (x + 0.044_715 * x * x * x)).tanh();
        let slope = c * (1.0 + 3.0 * 0.044_715 * x * x);
        0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * slope
    });
}

#[test]
fn gelu_forward() {
    type Formula = fn(f64) -> f64;
    let erf_form: Formula = |x| 0.5 * x * (1.0 + erf(x / 2f64.sqrt()));
    let tanh_form: Formula = |x| {
        let c = (2.0 / std::f64::consts::PI).sqrt();
        0.5 * x * (1.0 + (c * (x + 0.044_715 * x * x * x)).tanh())
    };
    for (op, formula) in [("Gelu", erf_form), ("GeluTanh", tanh_form)] {
        for shape in [&[7usize, 5, 333][..], &[40_000], &[0, 3]] {
            let inputs = [tensor(2, shape, 6.0)];
            let expected = wide(&inputs[0]).into_iter().map(formula).collect();
            Case { op, inputs: &inputs, outputs: 1, attributes: &[] }.check(&[expected]);
        }
    }
}

#[test]
fn after() {
    for shape in [&[7usize, 5, 333][..], &[40_000], &[0, 3]] {
        let inputs = [tensor(2, shape, 6.0), tensor(3, &[4, 2], 1.0)];
        let expected = wide(&inputs[0]);
        Case { op: "After", inputs: &inputs, outputs: 1, attributes: &[] }.check(&[expected]);
    }
}

#[test]
fn gelu_far_from_zero() {
    let x = [-1e30f32, -1e4, -40.0, -14.5, 14.5, 40.0, 1e4, 1e30];
    let inputs = [Tensor::from_slice(&[8], &[1f32; 8]), Tensor::from_slice(&[8], &x)];
    let inputs = inputs.map(|t| t.unwrap());
    let expected = x.map(|x| if x > 0.0 { 1.0 } else { 0.0 }).to_vec();
    for op in ["GeluGrad", "GeluTanhGrad"] {
        let case = Case { op, inputs: &inputs, outputs: 1, attributes: &[] };
        let got = case.run(&case.graph(17), SessionOptions::default()).unwrap();
        close(op, 0, &got[0], &expected, 1e-7);
    }
}

#[test]
fn softmax() {
    for shape in [&[3usize, 4, 5, 37][..], &[600, 128], &[2, 1], &[0, 4], &[3, 40_000]] {
        let width = shape[shape.len() - 1];
        // Positive rows that sum to one, as softmax makes them.
        let mut y = series(2, shape.iter().product(), 1.0);
        y.iter_mut().for_each(|v| *v = v.abs() + 0.01);
        for row in y.chunks_mut(width) {
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|v| *v /= sum);
        }
        let inputs = [tensor(1, shape, 3.0), Tensor::from_slice(shape, &y).unwrap()];
        let (dy, y) = (wide(&inputs[0]), wide(&inputs[1]));
        let mut expected = Vec::new();
        for (dy, y) in dy.chunks(width).zip(y.chunks(width)) {
            let sum: f64 = dy.iter().zip(y).map(|(a, b)| a * b).sum();
            expected.extend(dy.iter().zip(y).map(|(dy, y)| y * (dy - sum)));
        }
        let case = Case { op: "SoftmaxGrad", inputs: &inputs, outputs: 1, attributes: &[] };
        case.check(&[expected]);
    }
}

#[test]
fn layer_norm() {
    for shape in [&[5usize, 9, 77][..], &[300, 768], &[1, 16], &[0, 8], &[2, 3, 4, 5]] {
        let width = shape[shape.len() - 1];
        let rows: usize = shape[..shape.len() - 1].iter().product();
        let mut of = shape.to_vec();
        of[shape.len() - 1] = 1;
        let inv = series(5, rows, 1.0).iter().map(|v| v.abs() + 0.3).collect::<Vec<_>>();
        let inputs = [
            tensor(1, shape, 1.0),
            tensor(2, shape, 3.0),
            tensor(3, &[width], 1.5),
            tensor(4, &of, 0.5),
            Tensor::from_slice(&of, &inv).unwrap(),
        ];
        let [dy, x, gamma, mean, inv] = inputs.each_ref().map(wide);
        let (mut dx, mut dgamma, mut dbeta) = (Vec::new(), vec![0.0; width], vec![0.0; width]);
        for r in 0..rows {
            let row = r * width..(r + 1) * width;
            let hat: Vec<f64> = x[row.clone()].iter().map(|x| (x - mean[r]) * inv[r]).collect();
            let g: Vec<f64> = dy[row.clone()].iter().zip(&gamma).map(|(a, b)| a * b).collect();
            let n = width as f64;
            let mean_g = g.iter().sum::<f64>() / n;
            let mean_gx = g.iter().zip(&hat).map(|(a, b)| a * b).sum::<f64>() / n;
            for i in 0..width {
                dx.push(inv[r] * (g[i] - mean_g - hat[i] * mean_gx));
                dgamma[i] += dy[row.start + i] * hat[i];
                dbeta[i] += dy[row.start + i];
            }
        }
        let case = Case { op: "LayerNormGrad", inputs: &inputs, outputs: 3, attributes: &[] };
        case.check(&[dx, dgamma, dbeta]);
    }
}

fn loss_attributes(smoothing: f32) -> [(&'static str, Attribute); 2] {
    let ignore = ("ignore_index", Attribute::Int(-100));
    [ignore, ("label_smoothing", Attribute::Float(smoothing))]
}

#[test]
fn cross_entropy_and_its_gradient() {
    for (n, classes, smoothing) in [(9, 2, 0.0f32), (33, 1001, 0.1), (4, 30_000, 0.0), (0, 3, 0.0)]
    {
        let logits = tensor(1, &[n, classes], 30.0);
        let label = |i: usize| if i % 4 == 3 { -100 } else { (i * 7919 % classes) as i64 };
        let labels: Vec<i64> = (0..n).map(label).collect();
        let drows = tensor(3, &[n], 1.0);
        let (x, d, eps) = (wide(&logits), wide(&drows), f64::from(smoothing));
        let (mut rows, mut lses, mut grads) = (Vec::new(), Vec::new(), Vec::new());
        for r in 0..n {
            let x = &x[r * classes..(r + 1) * classes];
            let max = x.iter().copied().fold(f64::MIN, f64::max);
            let lse = max + x.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
            let mean = x.iter().sum::<f64>() / classes as f64;
            lses.push(lse);
            let kept = labels[r] >= 0;
            let y = labels[r].max(0) as usize;
            let loss = (1.0 - eps) * (lse - x[y]) + eps * (lse - mean);
            rows.push(if kept { loss } else { 0.0 });
            for (i, x) in x.iter().enumerate() {
                let hot = if i == y { 1.0 - eps } else { 0.0 };
                let slope = (x - lse).exp() - hot - eps / classes as f64;
                grads.push(if kept { d[r] * slope } else { 0.0 });
            }
        }
        let attributes = loss_attributes(smoothing);
        let labels = Tensor::from_slice(&[n], &labels).unwrap();
        let inputs = [logits.copy().unwrap(), labels.copy().unwrap()];
        let forward =
            Case { op: "CrossEntropy", inputs: &inputs, outputs: 2, attributes: &attributes };
        forward.check(&[rows, lses.clone()]);
        let narrow: Vec<f32> = lses.iter().map(|&v| v as f32).collect();
        let lse = Tensor::from_slice(&[n], &narrow).unwrap();
        let inputs = [drows, logits, labels, lse];
        let backward =
            Case { op: "CrossEntropyGrad", inputs: &inputs, outputs: 1, attributes: &attributes };
        backward.check(&[grads]);
    }
}

#[test]
fn embedding() {
    for (ids_shape, height, width) in [
        (&[4usize, 50][..], 97, 33),
        (&[300], 11, 768),
        (&[3], 1000, 8),
        (&[0], 5, 4),
        (&[9], 70_000, 128),
    ] {
        let n: usize = ids_shape.iter().product();
        // Many ids occur more than once, some count from the end.
        let ids: Vec<i64> =
            (0..n).map(|i| (i * i % height) as i64 - (i % 3 / 2 * height) as i64).collect();
        let rows_shape = [ids_shape, &[width]].concat();
        let inputs = [
            Tensor::from_slice(ids_shape, &ids).unwrap(),
            tensor(1, &rows_shape, 1.0),
            Tensor::zeros(DType::F32, &[height, width]).unwrap(),
        ];
        let rows = wide(&inputs[1]);
        let mut expected = vec![0.0; height * width];
        for (k, &id) in ids.iter().enumerate() {
            let id = id.rem_euclid(height as i64) as usize;
            for i in 0..width {
                expected[id * width + i] += rows[k * width + i];
            }
        }
        // The one-hot form, for opsets below 16, takes ids from the end too.
        let case = Case { op: "EmbeddingGrad", inputs: &inputs, outputs: 1, attributes: &[] };
        case.check(&[expected]);
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let refused = |op: &str, inputs: &[Tensor], part: &str| {
        let attributes = loss_attributes(0.0);
        let attributes = if op.starts_with("Cross") { &attributes[..] } else { &[] };
        let outputs = table::ROWS.iter().find(|row| row.name == op).unwrap().outputs();
        let case = Case { op, inputs, outputs, attributes };
        let error = case.run(&case.graph(17), SessionOptions::default()).unwrap_err();
        assert!(error.message().contains(part), "no '{part}' in: {error}");
    };
    let f = |shape: &[usize]| tensor(1, shape, 1.0);
    let ids = |data: &[i64]| Tensor::from_slice(&[data.len()], data).unwrap();
    refused("GeluGrad", &[f(&[2, 3]), f(&[3, 2])], "dy and x differ in shape");
    refused("CrossEntropy", &[f(&[2, 3]), ids(&[0, 3])], "label 3 is not one of 3 classes");
    refused("CrossEntropy", &[f(&[2, 3]), ids(&[0, -1])], "label -1");
    refused("CrossEntropy", &[f(&[2, 3]), ids(&[0])], "not one label per row");
    refused("EmbeddingGrad", &[ids(&[0, 9]), f(&[2, 4]), f(&[9, 4])], "id 9 is not in a table");
    refused("EmbeddingGrad", &[ids(&[-10]), f(&[1, 4]), f(&[9, 4])], "id -10");
    refused("EmbeddingGrad", &[ids(&[0]), f(&[2, 4]), f(&[9, 4])], "not one row per id");
    let stats = [f(&[2, 1]), f(&[2, 1])];
    let [mean, inv] = stats;
    refused("LayerNormGrad", &[f(&[2, 4]), f(&[2, 4]), f(&[3]), mean, inv], "gamma");
}

#[test]
fn a_failure_inside_is_an_error() {
    // What the guard around each part does with a panic, without the runtime in between.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let caught = kernel::guarded(|| panic!("inside"));
    std::panic::set_hook(hook);
    assert!(caught.is_err());
}

#[test]
fn shapes_are_inferred() {
    let inputs = [tensor(1, &[6, 10], 1.0), Tensor::zeros(DType::I64, &[6]).unwrap()];
    let attributes = loss_attributes(0.0);
    let case = Case { op: "CrossEntropy", inputs: &inputs, outputs: 2, attributes: &attributes };
    let found = Session::probe_types(&case.graph(17).to_bytes().unwrap()).unwrap();
    assert!(found.iter().all(|v| v.shape == [Some(6)] && v.dtype == Some(DType::F32)));
    let products = ["MatMulF32", "MatMulBf16", "GemmF32", "GemmBf16"];
    for op in products {
        let n_inputs = if op.starts_with("Gemm") { 3 } else { 2 };
        for (ta, tb) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let shape = |turned: i64, x: usize, y| if turned == 0 { [x, y] } else { [y, x] };
            let [a, b] = [shape(ta, 3, 5), shape(tb, 5, 7)].map(|s| tensor(1, &s, 1.0));
            let inputs = [a, b, tensor(2, &[7], 1.0)];
            let attributes =
                [("transA", ta), ("transB", tb)].map(|(name, flag)| (name, Attribute::Int(flag)));
            let inputs = &inputs[..n_inputs];
            let case = Case { op, inputs, outputs: 1, attributes: &attributes };
            let found = Session::probe_types(&case.graph(17).to_bytes().unwrap()).unwrap();
            assert_eq!(found[0].shape, [Some(3), Some(7)], "{op} {ta} {tb}");
        }
    }
}

/// An axis that is not known and has no name stays so: what adds to it must open.
#[test]
fn an_unknown_axis_is_not_given_a_length() {
    let mut graph = Graph::new("unknown", 17);
    graph.opsets.insert(MMOPT_DOMAIN.into(), 1);
    let ty = ValueType { dtype: Some(DType::F32), shape: Some(vec![Dim::Unknown, Dim::Known(3)]) };
    let x = graph.add_input("x", ty).unwrap();
    let fixed = graph.add_input("fixed", ValueType::known(DType::F32, &[2, 3])).unwrap();
    let [y, sum] = ["y", "sum"].map(|name| graph.add_value(name).unwrap());
    let nodes =
        [("Gelu", MMOPT_DOMAIN, vec![Some(x)], y), ("Add", "", vec![Some(y), Some(fixed)], sum)];
    for (op, domain, inputs, output) in nodes {
        graph.push_node(Node {
            name: String::new(),
            op: op.into(),
            domain: domain.into(),
            inputs,
            outputs: vec![Some(output)],
            attributes: [].into(),
        });
    }
    graph.add_output(sum);
    let found = Session::probe_types(&graph.to_bytes().unwrap()).unwrap();
    assert_eq!(found[0].shape, [], "{found:?}");
}

#[test]
fn attach_adds_what_is_used_once() {
    let inputs = [tensor(1, &[2], 1.0), tensor(2, &[2], 1.0)];
    let case = Case { op: "GeluGrad", inputs: &inputs, outputs: 1, attributes: &[] };
    let mut graph = case.graph(17);
    attach(&mut graph).unwrap();
    attach(&mut graph).unwrap();
    assert_eq!(graph.functions.len(), 1);
    assert_eq!(graph.functions[0].name, "GeluGrad");
    let mut old = case.graph(12);
    assert_eq!(attach(&mut old).unwrap_err().kind(), Kind::Unsupported);
    assert!(old.functions.is_empty());
    let unknown = Case { op: "NoSuch", ..case };
    let error = attach(&mut unknown.graph(17)).unwrap_err();
    assert!(error.message().contains("mmopt.NoSuch"), "{error}");
    let mut plain = Graph::new("plain", 11);
    attach(&mut plain).unwrap();
    plain.opsets.insert(MMOPT_DOMAIN.into(), 1);
    attach(&mut plain).unwrap();
    assert_eq!(plain.opsets.len(), 1);
    for name in names() {
        functions::function(name, 13).unwrap();
    }
}

/// The mask by the written formula, in 128-bit arithmetic.
fn dropped(x: &[f32], seed: i64, salt: i64, ratio: f32) -> Vec<f64> {
    use super::dropout::{A, C, P, ROUNDS, threshold};
    let p = i128::from(P);
    let first = i128::from(salt) * i128::from(A) + i128::from(seed);
    let keep = |i: usize| {
        let mut h = (first + i as i128).rem_euclid(p);
        for _ in 0..ROUNDS {
            h = (h * h + i128::from(A) * h + i128::from(C)) % p;
        }
        h >= i128::from(threshold(ratio))
    };
    let scale = 1.0 / f64::from(1.0 - ratio);
    x.iter().enumerate().map(|(i, &v)| if keep(i) { f64::from(v) * scale } else { 0.0 }).collect()
}

/// A product that `multiply` makes, which begins with a line of memory, and its largest error
/// from the sums of products of `rounded` factors, relative to the root of how many a sum has.
/// Bits of `i` say which factor is transposed and whether a row is added.
pub(super) fn result_of(
    (m, n, k): (usize, usize, usize),
    i: usize,
    rounded: fn(f32) -> f32,
    multiply: impl Fn(&Operands, &mut [f32], &Parallel) -> KernelResult,
) -> (Vec<f32>, f64) {
    let (ta, tb) = (i & 1 != 0, i & 2 != 0);
    let (a, b) = (series(1, m * k, 1.0), series(2, k * n, 1.0));
    let row = if i & 4 != 0 { series(3, n, 1.0) } else { Vec::new() };
    let mut room = vec![f32::NAN; m * n + 16];
    let start = room.as_ptr().align_offset(64).min(16);
    let y = &mut room[start..start + m * n];
    let serial =
        |n: usize, work: &(dyn Fn(usize) -> KernelResult + Sync)| (0..n).rev().try_for_each(work);
    let operands =
        Operands { a: &a, b: &b, sizes: (m, n, k), trans: (ta, tb), alpha: 0.5, row: &row };
    multiply(&operands, y, &serial).unwrap();
    let mut worst = 0f64;
    for i in 0..m {
        for j in 0..n {
            let x = |p: usize| f64::from(rounded(a[if ta { p * m + i } else { i * k + p }]));
            let w = |p: usize| f64::from(rounded(b[if tb { j * k + p } else { p * n + j }]));
            let sum: f64 = (0..k).map(|p| x(p) * w(p)).sum();
            let expected = 0.5 * sum + row.get(j).map_or(0.0, |&c| f64::from(c));
            worst = worst.max((f64::from(y[i * n + j]) - expected).abs());
        }
    }
    (y.to_vec(), worst / (k as f64).sqrt().max(1.0))
}

/// Of factors that bf16 holds as they are, so that products in f32 are the same.
#[test]
fn products() {
    for (m, n, k) in [(3, 5, 7), (70, 40, 90)] {
        for (i, with_row) in (0..4).flat_map(|i| [(i, false), (i, true)]) {
            let (ta, tb) = (i & 1 != 0, i & 2 != 0);
            let whole = |t: Tensor| {
                let values: Vec<f32> =
                    t.as_slice::<f32>().unwrap().iter().map(|x| x.round()).collect();
                Tensor::from_slice(t.shape(), &values).unwrap()
            };
            let shape = |t: bool, x: usize, y: usize| if t { [y, x] } else { [x, y] };
            let mut inputs = vec![
                whole(tensor(1, &shape(ta, m, k), 8.0)),
                whole(tensor(2, &shape(tb, k, n), 8.0)),
            ];
            inputs.extend(with_row.then(|| tensor(3, &[n], 8.0)));
            let values: Vec<Vec<f64>> = inputs.iter().map(wide).collect();
            let a = |r: usize, c: usize| values[0][if ta { c * m + r } else { r * k + c }];
            let b = |r: usize, c: usize| values[1][if tb { c * k + r } else { r * n + c }];
            let row = |c: usize| values.get(2).map_or(0.0, |row| row[c]);
            let (alpha, beta) = (0.5f32, 0.25f32);
            let y = |r: usize, c: usize| {
                let sum = (0..k).map(|p| a(r, p) * b(p, c)).sum::<f64>();
                f64::from(alpha) * sum + f64::from(beta) * row(c)
            };
            let expected: Vec<f64> = (0..m * n).map(|at| y(at / n, at % n)).collect();
            let flag = |t: bool| Attribute::Int(t.into());
            let mut attributes = vec![("transA", flag(ta)), ("transB", flag(tb))];
            attributes.push(("alpha", Attribute::Float(alpha)));
            attributes.extend(with_row.then_some(("beta", Attribute::Float(beta))));
            let op = if with_row { "Gemm" } else { "MatMul" };
            for op in ["Bf16", "F32"].map(|kind| format!("{op}{kind}")) {
                let case = Case { op: &op, inputs: &inputs, outputs: 1, attributes: &attributes };
                case.check(std::slice::from_ref(&expected));
            }
        }
    }
}

#[test]
fn dropout_draws_the_same_mask_everywhere() {
    for (shape, seed, salt, ratio) in [
        (vec![3, 40, 200], 7i64, 3i64, 0.1f32),
        (vec![20_000], (1 << 31) - 2, 1_000_003, 0.5),
        (vec![5], 0, 0, 0.0),
    ] {
        let x = tensor(9, &shape, 2.0);
        let expected = dropped(x.as_slice().unwrap(), seed, salt, ratio);
        let seed = Tensor::from_slice(&[1], &[seed]).unwrap();
        let attributes = [("ratio", Attribute::Float(ratio)), ("salt", Attribute::Int(salt))];
        let case = Case { op: "Dropout", inputs: &[x, seed], outputs: 1, attributes: &attributes };
        case.check(&[expected]);
    }
}

#[test]
fn dropout_keeps_its_share_without_visible_order() {
    let n = 1 << 16;
    let ones = vec![1.0f32; n];
    for (seed, ratio) in [(1i64, 0.1f32), (2, 0.1), (12345, 0.5), (1 << 30, 0.9)] {
        let kept: Vec<bool> = dropped(&ones, seed, 5, ratio).iter().map(|&v| v > 0.0).collect();
        let share = |it: &mut dyn Iterator<Item = bool>| {
            let (mut hits, mut all) = (0u32, 0u32);
            it.for_each(|k| (hits, all) = (hits + u32::from(k), all + 1));
            f64::from(hits) / f64::from(all)
        };
        let keep = f64::from(1.0 - ratio);
        // Five standard deviations of a fair draw.
        let limit = 5.0 * (keep * (1.0 - keep) / n as f64).sqrt();
        let all = share(&mut kept.iter().copied());
        assert!((all - keep).abs() < limit, "seed {seed}: {all} kept, {keep} asked for");
        for lag in [1, 2, 3, 8, 64, 768] {
            let both = share(&mut kept.windows(lag + 1).map(|w| w[0] && w[lag]));
            assert!((both - keep * keep).abs() < 2.0 * limit, "seed {seed}, lag {lag}: {both}");
        }
        let other = dropped(&ones, seed + 1, 5, ratio);
        let same = share(&mut kept.iter().zip(&other).map(|(&a, &b)| a == (b > 0.0)));
        let expected = keep * keep + (1.0 - keep) * (1.0 - keep);
        assert!((same - expected).abs() < 2.0 * limit, "neighbouring seeds agree on {same}");
    }
}
