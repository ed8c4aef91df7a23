//! The default preset's variants against an independent f64 model, element by element.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::small_optimizer::{give_gradients, number, optimizer};
use mmopt::optim::{
    GradientAccumulation, Influence, Method, ModelSpec, MomentDtype, Optimizer, Options,
    ParamGroup, ParamSpec, ShareGroup, ShareMember, SharePolicy, ShareRule,
};
use mmopt::tensor::DType;

/// One tensor's state in f64.
struct Reference {
    p: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
    x: Vec<f64>,
}

impl Reference {
    fn new(p: &[f32]) -> Self {
        let zeros = vec![0.0; p.len()];
        let p = p.iter().map(|&p| f64::from(p)).collect();
        Self { p, m: zeros.clone(), v: zeros.clone(), x: zeros }
    }

    /// One textbook step.
    fn step(&mut self, o: &Options, t: i32, g: &[f64]) {
        for i in 0..g.len() {
            let (lr, wd) = (o.learning_rate, o.weight_decay);
            match o.method {
                Method::Sgd => {
                    let g = g[i] + wd * self.p[i];
                    self.m[i] = o.momentum * self.m[i] + g;
                    let d = if o.nesterov { g + o.momentum * self.m[i] } else { self.m[i] };
                    self.p[i] -= lr * d;
                }
                Method::Lion => {
                    let d = (o.beta1 * self.m[i] + (1.0 - o.beta1) * g[i]).signum();
                    self.p[i] -= lr * (d + wd * self.p[i]);
                    self.m[i] = o.beta2 * self.m[i] + (1.0 - o.beta2) * g[i];
                }
                _ => {
                    self.p[i] *= 1.0 - lr * wd;
                    self.m[i] = o.beta1 * self.m[i] + (1.0 - o.beta1) * g[i];
                    self.v[i] = o.beta2 * self.v[i] + (1.0 - o.beta2) * g[i] * g[i];
                    self.x[i] = self.x[i].max(self.v[i]);
                    let v = if o.amsgrad { self.x[i] } else { self.v[i] };
                    let (c1, c2) = (1.0 - o.beta1.powi(t), 1.0 - o.beta2.powi(t));
                    self.p[i] -= lr * (self.m[i] / c1) / ((v / c2).sqrt() + o.eps);
                }
            }
        }
    }
}

/// Worst error relative to the tensor's largest magnitude.
fn error(got: &[f32], want: &[f64]) -> f64 {
    let scale = want.iter().fold(1e-30, |s: f64, w| s.max(w.abs()));
    got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).abs() / scale).fold(0.0, f64::max)
}

fn one(shape: &[usize]) -> Vec<ModelSpec> {
    vec![ModelSpec::new("m", vec![ParamSpec::new("w", shape)])]
}

/// 1000 steps with gradients of changing size and direction.
fn check(options: Options, tolerance: f64) {
    let specs = one(&[23, 29]);
    let mut o = optimizer(options.clone(), &specs);
    let mut r = Reference::new(o.values(0, 0).unwrap());
    for t in 1..=1000u64 {
        let size = 0.01 * (1.5 + (t as f32 * 0.05).sin());
        let g: Vec<f32> =
            (0..667).map(|i| size * (number("m", "w", i, t) + number("m", "w", i, 0))).collect();
        let into = o.gradient_mut(0, 0).unwrap();
        into.as_mut_slice::<f32>().unwrap().copy_from_slice(&g);
        o.step().unwrap();
        let g: Vec<f64> = g.iter().map(|&g| f64::from(g)).collect();
        r.step(&options, t as i32, &g);
    }
    let got = o.values(0, 0).unwrap();
    // A thousand roundings of p alone make about 8e-7 in the mean, three times that at worst.
    let worst = error(got, &r.p);
    assert!(worst <= 4.0 * tolerance, "{:?}: {worst:e}", options.method);
    let off: f64 = got.iter().zip(&r.p).map(|(g, w)| (f64::from(*g) - w).powi(2)).sum();
    let relative = (off / r.p.iter().map(|p| p * p).sum::<f64>()).sqrt();
    assert!(relative <= tolerance, "{:?}: {relative:e}", options.method);
}

fn plain() -> Options {
    Options { learning_rate: 1e-3, weight_decay: 0.1, ..Options::adamw() }
}

#[test]
fn adamw_and_amsgrad_follow_the_field_over_1000_steps() {
    check(plain(), 1e-6);
    check(Options { amsgrad: true, ..plain() }, 1e-6);
    check(Options { eps: 1e-3, beta1: 0.8, beta2: 0.99, ..plain() }, 1e-6);
}

/// The preset is PyTorch's AdamW with its defaults: every parameter decays, models of any weight
/// alike.
#[test]
fn the_preset_adamw_is_the_fields_adamw() {
    let options = Options { n_threads: 2, ..Options::adamw() };
    let o = &options;
    assert_eq!((o.learning_rate, o.beta1, o.beta2), (1e-3, 0.9, 0.999));
    assert_eq!((o.eps, o.weight_decay, o.max_grad_norm), (1e-8, 1e-2, 0.0));
    let params = vec![ParamSpec::new("w", &[13, 7]), ParamSpec::new("bias", &[11])];
    let spec = |name: &str, weight| ModelSpec { weight, ..ModelSpec::new(name, params.clone()) };
    let specs = vec![spec("a", 1.0), spec("b", 3.0)];
    let mut o = optimizer(options.clone(), &specs);
    let places = [(0, 0), (0, 1), (1, 0), (1, 1)];
    let mut r = places.map(|(m, p)| Reference::new(o.values(m, p).unwrap()));
    for t in 1..=100 {
        give_gradients(&mut o, &specs, t);
        for ((m, p), r) in places.iter().zip(&mut r) {
            let g = o.gradient_mut(*m, *p).unwrap().as_slice::<f32>().unwrap();
            let g: Vec<f64> = g.iter().map(|&g| f64::from(g)).collect();
            r.step(&options, t as i32, &g);
        }
        for m in 0..2 {
            o.accumulate(m, 1.0 / t as f64).unwrap();
        }
        o.step().unwrap();
    }
    for ((m, p), r) in places.iter().zip(&r) {
        let worst = error(o.values(*m, *p).unwrap(), &r.p);
        assert!(worst <= 3e-6, "{m}, {p}: {worst:e}");
    }
}

#[test]
fn sgd_and_lion_follow_their_papers() {
    let sgd = Options { method: Method::Sgd, weight_decay: 0.01, ..plain() };
    check(sgd.clone(), 1e-6);
    check(Options { nesterov: true, ..sgd }, 1e-6);
    // Where rounding turns a sign at a tie, one element is two steps off.
    check(Options { method: Method::Lion, learning_rate: 1e-4, beta2: 0.99, ..plain() }, 2e-3);
}

#[test]
fn narrow_moments_stay_near() {
    check(Options { moment_dtype: MomentDtype::BF16, ..plain() }, 5e-2);
}

#[test]
fn parameter_groups_decide_rate_decay_and_freezing() {
    let names = ["a.weight", "a.bias", "b.weight", "c.weight"];
    let shapes: [&[usize]; 4] = [&[4, 5], &[5], &[3, 4], &[2, 2]];
    let params = names.iter().zip(shapes).map(|(n, s)| ParamSpec::new(*n, s)).collect();
    let specs = vec![ModelSpec::new("m", params)];
    let group = |pattern: &str| ParamGroup { pattern: pattern.into(), ..ParamGroup::default() };
    let groups = vec![
        ParamGroup { lr_scale: Some(0.5), ..group("b.*") },
        ParamGroup { trainable: Some(false), ..group("c.*") },
        ParamGroup { weight_decay: Some(0.3), ..group("a.weight") },
    ];
    let options = Options { param_groups: groups, decay_matrices_only: true, ..plain() };
    let mut o = optimizer(options.clone(), &specs);
    let mut r: Vec<_> = (0..4).map(|p| Reference::new(o.values(0, p).unwrap())).collect();
    for t in 1..=20 {
        give_gradients(&mut o, &specs, t);
        for (p, r) in r.iter_mut().enumerate() {
            let g: Vec<f64> = o
                .gradient_mut(0, p)
                .unwrap()
                .as_slice::<f32>()
                .unwrap()
                .iter()
                .map(|&g| f64::from(g))
                .collect();
            let own = match p {
                0 => Options { weight_decay: 0.3, ..options.clone() },
                1 => Options { weight_decay: 0.0, ..options.clone() },
                2 => Options { learning_rate: 0.5e-3, ..options.clone() },
                _ => continue,
            };
            r.step(&own, t as i32, &g);
        }
        o.step().unwrap();
    }
    for (p, r) in r.iter().enumerate() {
        let worst = error(o.values(0, p).unwrap(), &r.p);
        assert!(worst < 1e-6, "{}: {worst:e}", names[p]);
    }
    assert_eq!(o.set_trainable("*", "c.*", true).unwrap(), 1);
    give_gradients(&mut o, &specs, 21);
    o.step().unwrap();
    assert!(error(o.values(0, 3).unwrap(), &r[3].p) > 1e-4);
}

#[test]
fn a_short_window_is_divided_by_its_own_length() {
    let specs = one(&[7]);
    let options = Options {
        gradient_accumulation_steps: 4,
        gradient_accumulation: GradientAccumulation::Mean,
        ..plain()
    };
    let mut o = optimizer(options.clone(), &specs);
    let mut r = Reference::new(o.values(0, 0).unwrap());
    let mut micro = 0;
    for (t, window) in [4u32, 4, 2].into_iter().enumerate() {
        let mut mean = vec![0.0; 7];
        for _ in 0..window {
            micro += 1;
            give_gradients(&mut o, &specs, micro);
            let g = o.gradient_mut(0, 0).unwrap().as_slice::<f32>().unwrap();
            mean.iter_mut().zip(g).for_each(|(m, &g)| *m += f64::from(g) / f64::from(window));
            o.accumulate(0, 1.0).unwrap();
        }
        o.step().unwrap();
        r.step(&options, t as i32 + 1, &mean);
    }
    assert!(error(o.values(0, 0).unwrap(), &r.p) < 1e-6);
    assert!(o.step().is_err(), "a step without a micro-batch");
}

/// Views of the three members: a stored matrix, its transpose, a slice of a fused one.
fn views([rows, cols]: [usize; 2]) -> (Vec<ModelSpec>, Vec<ShareGroup>) {
    let model = |name: &str, weight, shape: &[usize]| ModelSpec {
        weight,
        ..ModelSpec::new(name, vec![ParamSpec::new("w", shape)])
    };
    let specs = vec![
        model("a", 1.0, &[rows, cols]),
        model("b", 0.5, &[cols, rows]),
        model("c", 1.5, &[cols, 3 * rows]),
    ];
    let member = |model: &str, slice, transpose| ShareMember {
        model: model.into(),
        param: "w".into(),
        slice,
        transpose,
    };
    let members = vec![
        member("a", None, false),
        member("b", None, true),
        member("c", Some([1, rows, rows]), true),
    ];
    (specs, vec![ShareGroup { name: "g".into(), members }])
}

/// Logical element `i` of member `m` in its parameter.
fn element([rows, cols]: [usize; 2], m: usize, i: usize) -> usize {
    let (row, col) = (i / cols, i % cols);
    match m {
        0 => i,
        1 => col * rows + row,
        _ => col * 3 * rows + rows + row,
    }
}

/// Mixed gradients of the three views by the rule's definition.
fn mixed(rule: ShareRule, alpha: f64, w: &[f64; 3], g: &[Vec<f64>; 3]) -> [Vec<f64>; 3] {
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let n = g[0].len();
    let sum = |parts: &[(f64, &[f64])]| -> Vec<f64> {
        (0..n).map(|e| parts.iter().map(|(c, x)| c * x[e]).sum()).collect()
    };
    let mean = |x: &[Vec<f64>; 3]| {
        let total: f64 = w.iter().sum();
        sum(&[(w[0] / total, &x[0]), (w[1] / total, &x[1]), (w[2] / total, &x[2])])
    };
    match rule {
        ShareRule::Mean => {
            let mean = mean(g);
            [0, 1, 2].map(|i| sum(&[(1.0 - alpha, &g[i]), (alpha, &mean)]))
        }
        ShareRule::Gated => [0, 1, 2].map(|i| {
            let c = [0, 1, 2].map(|j| {
                let length = (dot(&g[i], &g[i]) * dot(&g[j], &g[j])).sqrt();
                (dot(&g[i], &g[j]) / length).max(0.0)
            });
            let total: f64 = (0..3).map(|j| w[j] * c[j]).sum();
            let factor = |j: usize| {
                let ratio = (dot(&g[i], &g[i]) / dot(&g[j], &g[j])).sqrt();
                alpha * w[j] * c[j] * ratio / total + if i == j { 1.0 - alpha } else { 0.0 }
            };
            sum(&[(factor(0), &g[0]), (factor(1), &g[1]), (factor(2), &g[2])])
        }),
        ShareRule::Project => {
            let free = [0, 1, 2].map(|i| {
                let mut x = g[i].clone();
                for j in (0..3).filter(|&j| j != i) {
                    let product = dot(&x, &g[j]);
                    if product < 0.0 {
                        x = sum(&[(1.0, &x), (-product / dot(&g[j], &g[j]), &g[j])]);
                    }
                }
                x
            });
            let mean = mean(&free);
            [0, 1, 2].map(|i| sum(&[(1.0 - alpha, &free[i]), (alpha, &mean)]))
        }
        _ => [sum(&[(0.7, &g[0]), (0.3, &g[2])]), g[1].clone(), g[2].clone()],
    }
}

/// Every rule over transposed and sliced views, clipped, then synchronised.
#[test]
fn rules_and_synchronisation_over_views() {
    let influence = [Influence { to: "a".into(), from: "c".into(), amount: 0.3 }];
    // One tile, and several with several strips.
    let (small, large) = ([40, 56], [4200, 40]);
    let all = [ShareRule::Mean, ShareRule::Gated, ShareRule::Project, ShareRule::Influence]
        .map(|rule| (rule, small));
    for (rule, shape) in
        all.into_iter().chain([(ShareRule::Mean, large), (ShareRule::Gated, large)])
    {
        let n = shape[0] * shape[1];
        let element = |m, i| element(shape, m, i);
        let (specs, groups) = views(shape);
        let options = Options {
            share_policy: SharePolicy::Custom,
            share_groups: groups,
            share_rule: rule,
            share_influence: influence[..usize::from(rule == ShareRule::Influence)].to_vec(),
            share_every: 2,
            sync_every: 3,
            max_grad_norm: 0.2,
            model_weight_lr_scale: mmopt::optim::ModelWeightLrScale::None,
            ..plain()
        };
        let mut o = optimizer(options.clone(), &specs);
        let mut r: Vec<_> = (0..3).map(|m| Reference::new(o.values(m, 0).unwrap())).collect();
        for t in 1..=12u64 {
            give_gradients(&mut o, &specs, t);
            let mut g: Vec<Vec<f64>> = (0..3).map(|m| clipped(&mut o, m, 0.2)).collect();
            let logical = |x: &[Vec<f64>]| {
                [0, 1, 2].map(|m| -> Vec<f64> { (0..n).map(|i| x[m][element(m, i)]).collect() })
            };
            if t % 2 == 0 {
                let new = mixed(rule, 0.2, &[1.0 / 3.0, 0.5 / 3.0, 0.5], &logical(&g));
                for (m, new) in new.iter().enumerate() {
                    new.iter().enumerate().for_each(|(i, x)| g[m][element(m, i)] = *x);
                }
            }
            r.iter_mut().zip(&g).for_each(|(r, g)| r.step(&options, t as i32, g));
            if t % 3 == 0 {
                let p: Vec<_> = r.iter().map(|r| r.p.clone()).collect();
                let p = logical(&p);
                #[allow(clippy::needless_range_loop)] // i counts in several arrays
                for i in 0..n {
                    let mean = p[0][i] / 3.0 + p[1][i] * 0.5 / 3.0 + p[2][i] * 0.5;
                    for (m, r) in r.iter_mut().enumerate() {
                        r.p[element(m, i)] = 0.9 * p[m][i] + 0.1 * mean;
                    }
                }
            }
            let report = o.step().unwrap();
            assert_eq!((report.shared, report.synced), (t % 2 == 0, t % 3 == 0));
        }
        for (m, r) in r.iter().enumerate() {
            let worst = error(o.values(m, 0).unwrap(), &r.p);
            assert!(worst < 3e-6, "{rule:?}, {shape:?}, model {m}: {worst:e}");
        }
    }
}

fn clipped(o: &mut Optimizer, model: usize, bound: f64) -> Vec<f64> {
    let g = o.gradient_mut(model, 0).unwrap().as_slice::<f32>().unwrap();
    let g: Vec<f64> = g.iter().map(|&g| f64::from(g)).collect();
    let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
    let factor = (bound / (norm + 1e-6)).min(1.0);
    g.iter().map(|g| g * factor).collect()
}

#[test]
fn clipping_by_value_clamps_every_element() {
    let specs = one(&[50]);
    let options = Options { max_grad_norm: 0.0, max_grad_value: 4e-3, ..plain() };
    let mut o = optimizer(options.clone(), &specs);
    let mut r = Reference::new(o.values(0, 0).unwrap());
    for t in 1..=5 {
        give_gradients(&mut o, &specs, t);
        let g = o.gradient_mut(0, 0).unwrap().as_slice::<f32>().unwrap();
        let g: Vec<f64> = g.iter().map(|&g| f64::from(g).clamp(-4e-3, 4e-3)).collect();
        r.step(&options, t as i32, &g);
        o.step().unwrap();
    }
    assert!(error(o.values(0, 0).unwrap(), &r.p) < 1e-6);
}

#[test]
fn wrong_models_and_memory_are_refused_by_name() {
    let check = |specs: Vec<ModelSpec>, word: &str| {
        let error = Optimizer::new(Options::default(), specs).err().expect("an error");
        assert!(error.to_string().contains(word), "{error}");
    };
    let spec = |name: &str| ModelSpec::new(name, vec![ParamSpec::new("w", &[2])]);
    check(vec![spec("a"), spec("a")], "'a'");
    check(vec![ModelSpec { weight: -1.0, ..spec("a") }], "weight");
    check(vec![ModelSpec { weight: 0.0, ..spec("a") }], "sum");
    let mut twice = spec("a");
    twice.params.push(ParamSpec::new("w", &[3]));
    check(vec![twice], "'w'");
    let mut integer = spec("a");
    integer.params[0].dtype = DType::I64;
    check(vec![integer], "i64");
    let mut o = Optimizer::new(Options::default(), vec![spec("a")]).unwrap();
    assert!(o.step().unwrap_err().to_string().contains("bind"));
    // SAFETY: no pointer is given.
    assert!(unsafe { o.bind(0, Vec::new()) }.is_err());
    assert!(o.accumulate(5, 0.0).is_err());
}
