//! Linear models of every task, small enough to be computed by hand in f64.

use bytes::Bytes;
use mmopt::autodiff::{LossKind, LossSpec};
use mmopt::onnx::{Build, Graph, TensorData, ValueType};
use mmopt::tensor::{DType, Tensor};
use mmopt::train::{ModelOptions, Source, TensorView};

/// For each row a distribution and the weight of its divergence.
pub type Targets = Vec<Option<(Vec<f64>, f64)>>;

/// Numbers in -1..1; reference.py makes the same.
pub fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

pub fn close(found: &[f64], expected: &[f64], bound: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= bound * b.abs().max(1.0), "{what}: {found:?}, not {expected:?}");
    }
}

/// logits = x w; x is [batch, width] or [batch, length, width].
pub struct Linear {
    pub name: &'static str,
    pub kind: LossKind,
    pub weight: f64,
    /// Of x.
    pub shape: Vec<usize>,
    /// Classes of a row: positions for answers.
    pub classes: usize,
    /// Answers: starts and ends apart.
    pub two_outputs: bool,
    pub frozen: bool,
    pub x: Vec<f32>,
    pub w: Vec<f32>,
    pub tensors: Vec<(&'static str, Tensor)>,
}

impl Clone for Linear {
    fn clone(&self) -> Self {
        let tensors = self.tensors.iter().map(|(name, t)| (*name, t.copy().unwrap())).collect();
        let (kind, shape) = (self.kind.clone(), self.shape.clone());
        Self { kind, shape, x: self.x.clone(), w: self.w.clone(), tensors, ..*self }
    }
}

pub struct Expected {
    pub loss: f64,
    pub mutual: f64,
    pub gradient: Vec<f64>,
}

fn ints(shape: &[usize], values: &[i64]) -> Tensor {
    Tensor::from_slice(shape, values).unwrap()
}

fn softmax(z: &[f64], t: f64) -> Vec<f64> {
    let e: Vec<f64> = z.iter().map(|z| (z / t).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|e| e / sum).collect()
}

impl Linear {
    fn new(name: &'static str, kind: LossKind, shape: &[usize], columns: usize, seed: u64) -> Self {
        let x = noise(seed, shape.iter().product());
        let w = noise(seed + 50, shape[shape.len() - 1] * columns);
        let spans = kind == LossKind::QuestionAnswering;
        let classes = if spans { shape[1] } else { columns };
        let tensors = vec![("x", Tensor::from_slice(shape, &x).unwrap())];
        let (shape, weight) = (shape.to_vec(), 1.0);
        Self {
            name,
            kind,
            weight,
            shape,
            classes,
            two_outputs: false,
            frozen: false,
            x,
            w,
            tensors,
        }
    }

    /// Six examples, two of them without a label.
    pub fn classification(name: &'static str, classes: usize, seed: u64) -> Self {
        let mut model = Self::new(name, LossKind::SequenceClassification, &[6, 4], classes, seed);
        model.set("labels", Some(ints(&[6], &[0, 1, -100, 1, 0, -100])));
        model.set("example_ids", Some(ints(&[6], &[3, 1, 4, 15, 9, 2])));
        model
    }

    pub fn set(&mut self, name: &'static str, tensor: Option<Tensor>) {
        self.tensors.retain(|(n, _)| *n != name);
        self.tensors.extend(tensor.map(|t| (name, t)));
    }

    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|(n, _)| *n == name).map(|(_, t)| t)
    }

    pub fn batch(&self) -> usize {
        self.shape[0]
    }

    pub fn length(&self) -> usize {
        self.shape[1]
    }

    fn width(&self) -> usize {
        self.shape[self.shape.len() - 1]
    }

    fn spans(&self) -> bool {
        self.kind == LossKind::QuestionAnswering
    }

    fn columns(&self) -> usize {
        self.w.len() / self.width()
    }

    pub fn options(&self) -> ModelOptions {
        let mut graph = Graph::new(self.name, 17);
        let x = graph.add_input("x", ValueType::known(DType::F32, &self.shape)).unwrap();
        let w = TensorData::from_slice(&[self.width(), self.columns()], &self.w).unwrap();
        let w = graph.add_initializer("w", w).unwrap();
        let mut g = Build::new(&mut graph);
        let z = g.matmul(x, w).unwrap();
        let outputs = if self.two_outputs {
            let parts = g.split(z, 2, &[1, 1]).unwrap();
            let flat = [self.shape[0], self.shape[1]];
            let parts: Vec<_> = parts.iter().map(|&p| g.reshape(p, &flat).unwrap()).collect();
            vec![("start_logits", parts[0]), ("end_logits", parts[1])]
        } else {
            vec![("logits", z)]
        };
        for (name, output) in outputs {
            graph.rename(output, name).unwrap();
            graph.add_output(output);
        }
        let bytes = Bytes::from(graph.to_bytes().unwrap());
        let mut options = ModelOptions::new(self.name, Source::OnnxBytes(bytes));
        options.loss = Some(LossSpec::new(self.kind.clone()));
        options.weight = self.weight;
        options.frozen = if self.frozen { vec!["*".into()] } else { Vec::new() };
        options
    }

    pub fn views(&self) -> Vec<TensorView<'_>> {
        self.tensors.iter().map(|(name, t)| TensorView::of(name, t)).collect()
    }

    /// For element c of row r of the logits: the row of x and the column of w.
    fn place(&self, r: usize, c: usize) -> (usize, usize) {
        match self.spans() {
            true => (r % self.batch() * self.length() + c, r / self.batch()),
            false => (r, c),
        }
    }

    /// Rows as mutual learning sees them.
    pub fn logits(&self) -> Vec<Vec<f64>> {
        let (h, k) = (self.width(), self.columns());
        let n_rows = if self.spans() { 2 * self.batch() } else { self.x.len() / h };
        let z = |r: usize, c: usize| {
            let (row, column) = self.place(r, c);
            let product = |i| f64::from(self.x[row * h + i]) * f64::from(self.w[i * k + column]);
            (0..h).map(product).sum::<f64>()
        };
        let n = if self.spans() { self.length() } else { k };
        (0..n_rows).map(|r| (0..n).map(|c| z(r, c)).collect()).collect()
    }

    pub fn softmax(&self, t: f64) -> Vec<Vec<f64>> {
        self.logits().iter().map(|z| softmax(z, t)).collect()
    }

    pub fn label(&self, row: usize) -> Option<usize> {
        let (name, at) = match self.spans() {
            true if row < self.batch() => ("start_positions", row),
            true => ("end_positions", row - self.batch()),
            false => ("labels", row),
        };
        let labels = self.find(name)?.as_slice::<i64>().unwrap();
        usize::try_from(labels[at]).ok()
    }

    /// The loss, the divergences, and the gradient of their sum.
    pub fn expected(&self, targets: &Targets, t: f64) -> Expected {
        let z = self.logits();
        let labels: Vec<Option<usize>> = (0..z.len()).map(|r| self.label(r)).collect();
        let parts = if self.spans() { 2 } else { 1 };
        let per_part = z.len() / parts;
        let counted = |r: usize| {
            let part = r / per_part * per_part;
            labels[part..part + per_part].iter().flatten().count() * parts
        };
        let (mut loss, mut mutual) = (0.0, 0.0);
        let mut gradient = vec![0.0; self.w.len()];
        for (r, z) in z.iter().enumerate() {
            let mut dz = vec![0.0; z.len()];
            if let Some(label) = labels[r] {
                let p = softmax(z, 1.0);
                let share = 1.0 / counted(r) as f64;
                loss -= share * p[label].ln();
                dz.iter_mut().zip(&p).for_each(|(d, p)| *d += share * p);
                dz[label] -= share;
            }
            if let Some((target, weight)) = &targets[r] {
                let q = softmax(z, t);
                for ((d, &q), &p) in dz.iter_mut().zip(&q).zip(target) {
                    if p > 0.0 {
                        mutual += weight * t * t * p * (p.ln() - q.ln());
                    }
                    *d += weight * t * (q - p);
                }
            }
            for (c, d) in dz.iter().enumerate() {
                let (row, column) = self.place(r, c);
                for i in 0..self.width() {
                    let x = f64::from(self.x[row * self.width() + i]);
                    gradient[i * self.columns() + column] += x * d;
                }
            }
        }
        Expected { loss, mutual, gradient }
    }
}

/// Three models of weights 1, 2, 3 and three classes.
pub fn classification() -> Vec<Linear> {
    let mut models: Vec<Linear> =
        [("a", 1), ("b", 2), ("c", 3)].map(|(n, seed)| Linear::classification(n, 3, seed)).to_vec();
    models.iter_mut().zip(1..).for_each(|(m, weight)| m.weight = f64::from(weight));
    models
}

/// Two taggers of two examples: words 0, 1, 2 and 0, 1 begin at other tokens, and each lacks one
/// that the other has.
pub fn tokens() -> Vec<Linear> {
    let mut models = [("a", 5, 4), ("b", 4, 5)].map(|(name, length, seed)| {
        Linear::new(name, LossKind::TokenClassification, &[2, length, 4], 3, seed)
    });
    models[0].set("word_ids", Some(ints(&[2, 5], &[-1, 0, 1, -1, 2, -1, 0, -1, 1, -1])));
    models[1].set("word_ids", Some(ints(&[2, 4], &[0, -1, 1, 3, 1, -1, 0, -1])));
    models[0].set("labels", Some(ints(&[2, 5], &[-100, 1, 2, -100, 0, -100, 0, -100, 1, -100])));
    models[1].set("labels", Some(ints(&[2, 4], &[1, -100, 2, 2, -100, -100, -100, -100])));
    models.to_vec()
}

/// Two models of answers in two contexts; word 0 is "no answer", which the second lacks. The
/// second example's end is not labelled.
pub fn answers(two_outputs: bool) -> Vec<Linear> {
    let mut models = [("a", 6, 6), ("b", 5, 7)].map(|(name, length, seed)| {
        Linear::new(name, LossKind::QuestionAnswering, &[2, length, 4], 2, seed)
    });
    models[0].two_outputs = two_outputs;
    models[0].set("word_ids", Some(ints(&[2, 6], &[0, -1, 1, 1, 2, 3, 0, -1, 1, 2, 2, -1])));
    models[1].set("word_ids", Some(ints(&[2, 5], &[-1, 1, 2, 2, 3, -1, 1, 2, 2, -1])));
    for (model, start) in models.iter_mut().zip([4, 3]) {
        model.set("start_positions", Some(ints(&[2], &[start, -100])));
        model.set("end_positions", Some(ints(&[2], &[start, start - 1])));
    }
    models.to_vec()
}
