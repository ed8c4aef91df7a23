//! Attention and its gradients against their formulas in f64.

use super::*;

/// Batch, queries, keys, heads, widths of keys and of values.
#[derive(Clone, Copy, Debug)]
struct Shape {
    b: usize,
    s: usize,
    t: usize,
    h: usize,
    d: usize,
    e: usize,
}

const SEED: i64 = 77;
const SALT: i64 = 5;

#[derive(Clone, Copy)]
struct Setting {
    shape: Shape,
    ratio: f32,
    scale: f64,
    empty_is_zero: bool,
}

impl Setting {
    fn attributes(&self) -> [(&'static str, Attribute); 4] {
        [
            ("scale", Attribute::Float(self.scale as f32)),
            ("ratio", Attribute::Float(self.ratio)),
            ("salt", Attribute::Int(SALT)),
            ("empty_is_zero", Attribute::Int(self.empty_is_zero.into())),
        ]
    }
}

/// o, max, inverse, dq, dk, dv; probabilities that are not numbers are zeros.
fn formulas(
    of: &Setting,
    [q, k, v, dy]: [&[f64]; 4],
    mask: impl Fn(usize, usize, usize, usize) -> f64,
) -> [Vec<f64>; 6] {
    let Shape { b: n, s, t, h, d, e } = of.shape;
    let (mut o, mut dq) = (vec![0.0; n * s * h * e], vec![0.0; n * s * h * d]);
    let (mut dk, mut dv) = (vec![0.0; n * t * h * d], vec![0.0; n * t * h * e]);
    let (mut maxima, mut inverses) = (Vec::new(), Vec::new());
    let factors = dropped(&vec![1.0; n * h * s * t], SEED, SALT, of.ratio);
    for (b, head, i) in (0..n * h * s).map(|x| (x / (h * s), x / s % h, x % s)) {
        let query = ((b * s + i) * h + head) * d;
        let result = ((b * s + i) * h + head) * e;
        let key = |j: usize| ((b * t + j) * h + head) * d;
        let value = |j: usize| ((b * t + j) * h + head) * e;
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let scores: Vec<f64> = (0..t)
            .map(|j| {
                dot(&q[query..query + d], &k[key(j)..key(j) + d]) * of.scale + mask(b, head, i, j)
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|x| (x - max).exp()).sum();
        let is_zero = of.empty_is_zero && sum.is_nan();
        maxima.push(if is_zero { 0.0 } else { max });
        inverses.push(if is_zero { 0.0 } else { 1.0 / sum });
        if is_zero {
            continue;
        }
        let first = ((b * h + head) * s + i) * t;
        let p: Vec<f64> = scores.iter().map(|x| (x - max).exp() / sum).collect();
        let m = &factors[first..first + t];
        for j in 0..t {
            for c in 0..e {
                o[result + c] += p[j] * m[j] * v[value(j) + c];
                dv[value(j) + c] += p[j] * m[j] * dy[result + c];
            }
        }
        let dp: Vec<f64> = (0..t)
            .map(|j| m[j] * dot(&dy[result..result + e], &v[value(j)..value(j) + e]))
            .collect();
        let along = dot(&p, &dp);
        for j in 0..t {
            let ds = p[j] * (dp[j] - along) * of.scale;
            for c in 0..d {
                dq[query + c] += ds * k[key(j) + c];
                dk[key(j) + c] += ds * q[query + c];
            }
        }
    }
    [o, maxima, inverses, dq, dk, dv]
}

/// Forward and backward, with every number of threads and in standard operators.
fn check(of: Setting, mask: &Tensor) {
    let Shape { b, s, t, h, d, e } = of.shape;
    let inputs = [
        tensor(1, &[b, s, h, d], 1.5),
        tensor(2, &[b, t, h, d], 1.5),
        tensor(3, &[b, t, h, e], 1.0),
        mask.copy().unwrap(),
        Tensor::from_slice(&[1], &[SEED]).unwrap(),
    ];
    let dy = tensor(4, &[b, s, h, e], 1.0);
    let at = {
        let (dims, values) = (mask.shape().to_vec(), wide(mask));
        move |b: usize, h: usize, i: usize, j: usize| {
            let places = [b, h, i, j];
            let places = &places[4 - dims.len()..];
            let place = dims.iter().zip(places).fold(0, |at, (&n, &p)| at * n + p % n);
            values[place]
        }
    };
    let values = [&inputs[0], &inputs[1], &inputs[2], &dy].map(wide);
    let [o, max, inverse, dq, dk, dv] = formulas(&of, values.each_ref().map(Vec::as_slice), at);
    let attributes = of.attributes();
    let forward =
        Case { op: "FusedAttention", inputs: &inputs, outputs: 3, attributes: &attributes };
    forward.check(&[o.clone(), max.clone(), inverse.clone()]);
    let narrow = |shape: &[usize], x: &[f64]| {
        Tensor::from_slice(shape, &x.iter().map(|&x| x as f32).collect::<Vec<_>>()).unwrap()
    };
    let [q, k, v, mask, seed] = inputs;
    let rows = [b, h, s, 1];
    let inputs = [
        dy,
        q,
        k,
        v,
        mask,
        seed,
        narrow(&[b, s, h, e], &o),
        narrow(&rows, &max),
        narrow(&rows, &inverse),
    ];
    let backward =
        Case { op: "FusedAttentionGrad", inputs: &inputs, outputs: 3, attributes: &attributes };
    backward.check(&[dq, dk, dv]);
}

fn setting(shape: Shape, ratio: f32) -> Setting {
    let scale = 1.0 / (shape.d as f64).sqrt();
    Setting { shape, ratio, scale, empty_is_zero: false }
}

fn zero() -> Tensor {
    Tensor::from_slice(&[1], &[0f32]).unwrap()
}

/// Lengths are no multiples of a block or a tile; widths fill vectors or not; one head has several
/// tasks, or one.
#[test]
fn attention() {
    for (i, shape) in [
        Shape { b: 2, s: 101, t: 101, h: 3, d: 64, e: 64 },
        Shape { b: 1, s: 150, t: 70, h: 1, d: 20, e: 36 },
        Shape { b: 4, s: 5, t: 7, h: 5, d: 8, e: 3 },
        Shape { b: 1, s: 1, t: 1, h: 1, d: 1, e: 1 },
        Shape { b: 1, s: 49, t: 260, h: 2, d: 96, e: 80 },
        // Keys whose rows are read where they are, between those of other heads.
        Shape { b: 2, s: 20, t: 24, h: 3, d: 16, e: 32 },
    ]
    .into_iter()
    .enumerate()
    {
        let ratio = [0.0, 0.1, 0.5][i % 3];
        check(setting(shape, ratio), &zero());
    }
}

/// Masks of all the shapes that exporters write: padding at either end, causal ones with and
/// without padding, and numbers that hide nothing.
#[test]
fn attention_with_masks() {
    let shape = Shape { b: 2, s: 100, t: 100, h: 2, d: 16, e: 16 };
    let low = |hidden: bool| if hidden { f32::MIN } else { 0.0 };
    let padded = |b: usize, j: usize| (b == 0 && j >= 37) || (b == 1 && j < 70);
    let key = |x: usize| (x / 100, x % 100);
    let padding: Vec<f32> = (0..200).map(|x| low(padded(key(x).0, key(x).1))).collect();
    let causal: Vec<f32> = (0..10_000).map(|x| low(x % 100 > x / 100)).collect();
    // Sample 1 has rows without any key; their probabilities are all the same.
    let both: Vec<f32> =
        (0..20_000).map(|x| low(x % 100 > x / 100 % 100 || padded(x / 10_000, x % 100))).collect();
    let of = |shape: &[usize], x: &[f32]| Tensor::from_slice(shape, x).unwrap();
    for mask in [
        of(&[2, 1, 1, 100], &padding),
        of(&[100, 100], &causal),
        of(&[1, 1, 100, 100], &causal),
        of(&[2, 1, 100, 100], &both),
        tensor(8, &[2, 2, 100, 100], 3.0),
        tensor(8, &[1, 2, 1, 100], 3.0),
        tensor(8, &[2, 1, 100, 1], 3.0),
    ] {
        check(setting(shape, 0.1), &mask);
    }
}

/// Minus infinity for all keys: zeros where the attribute says so, else not a number.
#[test]
fn attention_to_nothing() {
    let shape = Shape { b: 2, s: 9, t: 70, h: 1, d: 8, e: 8 };
    let hidden = |x: usize| x >= 70 || x >= 30;
    let mask: Vec<f32> =
        (0..140).map(|x| if hidden(x) { f32::NEG_INFINITY } else { 0.0 }).collect();
    let mask = Tensor::from_slice(&[2, 1, 1, 70], &mask).unwrap();
    check(Setting { empty_is_zero: true, ..setting(shape, 0.1) }, &mask);
    let inputs = [
        tensor(1, &[2, 9, 1, 8], 1.0),
        tensor(2, &[2, 70, 1, 8], 1.0),
        tensor(3, &[2, 70, 1, 8], 1.0),
        mask,
        Tensor::from_slice(&[1], &[SEED]).unwrap(),
    ];
    let attributes = setting(shape, 0.0).attributes();
    let case = Case { op: "FusedAttention", inputs: &inputs, outputs: 3, attributes: &attributes };
    let got = case.run(&case.graph(17), SessionOptions::default()).unwrap();
    let o = got[0].as_slice::<f32>().unwrap();
    assert!(o[..72].iter().all(|x| x.is_finite()) && o[72..].iter().all(|x| x.is_nan()));
}

#[test]
fn attention_that_does_not_fit_is_an_error() {
    let f = |shape: &[usize]| tensor(1, shape, 1.0);
    let seed = |n: usize| Tensor::from_slice(&[n], &vec![1i64; n]).unwrap();
    let (q, k) = ([2, 5, 3, 4], [2, 6, 3, 4]);
    let shape = Shape { b: 2, s: 5, t: 6, h: 3, d: 4, e: 4 };
    let refused = |inputs: [Tensor; 5], ratio: f32, part: &str| {
        let attributes = setting(shape, ratio).attributes();
        let case =
            Case { op: "FusedAttention", inputs: &inputs, outputs: 3, attributes: &attributes };
        let error = case.run(&case.graph(17), SessionOptions::default()).unwrap_err();
        assert!(error.message().contains(part), "no '{part}' in: {error}");
    };
    refused([f(&q), f(&[2, 6, 3, 5]), f(&k), f(&[1]), seed(1)], 0.1, "q and k do not fit");
    refused([f(&q), f(&k), f(&[2, 7, 3, 4]), f(&[1]), seed(1)], 0.1, "k and v do not fit");
    refused([f(&[2, 5, 12]), f(&k), f(&k), f(&[1]), seed(1)], 0.1, "four axes");
    refused([f(&q), f(&k), f(&k), f(&[2, 1, 1, 5]), seed(1)], 0.1, "mask does not fit");
    refused([f(&q), f(&k), f(&k), f(&[1]), seed(2)], 0.1, "seed is not one number");
    refused([f(&q), f(&k), f(&k), f(&[1]), seed(1)], 1.0, "ratio is not in [0, 1)");
}
