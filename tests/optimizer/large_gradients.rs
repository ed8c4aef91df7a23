//! Large finite gradients: the square is formed without overflow, and a step that would make a
//! moment overflow is skipped and counted. Decays of 0 are exact.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::small_optimizer::number;
use mmopt::Kind;
use mmopt::optim::{
    InstructionSet, Method, ModelSpec, MomentDtype, NonFinite, Optimizer, Options, ParamSpec,
    ShareGroup, ShareMember, SharePolicy, ShareRule,
};
use mmopt::tensor::DType;

const N: usize = 37;

fn plain() -> Options {
    let (learning_rate, weight_decay) = (1e-2, 0.0);
    Options { learning_rate, weight_decay, n_threads: 1, ..Options::adamw() }
}

/// Models of one parameter each, whose elements are 1.
fn ones(options: Options, n_models: usize) -> Optimizer {
    let name = "bert.encoder.layer.0.attention.self.query.weight";
    let model = |i: usize| ModelSpec::new(format!("m{i}"), vec![ParamSpec::new(name, &[1, N])]);
    let mut o = Optimizer::new(options, (0..n_models).map(model).collect()).unwrap();
    for m in 0..n_models {
        o.bind_owned(m, DType::F32).unwrap();
        o.values_mut(m, 0).unwrap().fill(1.0);
    }
    o
}

fn groups(n_models: usize) -> Vec<ShareGroup> {
    let name = "bert.encoder.layer.0.attention.self.query.weight";
    let members = (0..n_models).map(|i| ShareMember::whole(&format!("m{i}"), name)).collect();
    vec![ShareGroup { name: "g".into(), members }]
}

/// One step in which every element of every model has the gradient `g`: the first model's value,
/// and how many models were skipped.
fn step(o: &mut Optimizer, n_models: usize, g: f32) -> (f32, usize) {
    for m in 0..n_models {
        o.gradient_mut(m, 0).unwrap().as_mut_slice::<f32>().unwrap().fill(g);
    }
    let skipped = o.step().unwrap().skipped;
    let values = o.values(0, 0).unwrap();
    // bfloat16 moments are rounded by chance.
    let near = |x: &f32| (x - values[0]).abs() <= 2e-2 * values[0].abs().max(1.0);
    assert!(values.iter().all(near), "{values:?}");
    (values[0], skipped)
}

/// AdamW's value after each gradient, in f64.
fn adamw(o: &Options, gradients: &[f32]) -> Vec<f64> {
    let (mut p, mut m, mut v, mut x) = (1.0, 0.0, 0.0f64, 0.0f64);
    let mut out = Vec::new();
    for (t, &g) in (1..).zip(gradients) {
        let g = f64::from(g);
        m = o.beta1 * m + (1.0 - o.beta1) * g;
        v = o.beta2 * v + (1.0 - o.beta2) * g * g;
        x = x.max(v);
        let root = if o.amsgrad { x } else { v };
        let (c1, c2) = (1.0 - o.beta1.powi(t), 1.0 - o.beta2.powi(t));
        p -= o.learning_rate * (m / c1) / ((root / c2).sqrt() + o.eps);
        out.push(p);
    }
    out
}

#[test]
fn a_square_beyond_f32_is_formed_without_overflow() {
    let shared = |rule, base: Options| Options {
        share_policy: SharePolicy::Custom,
        share_groups: groups(2),
        share_rule: rule,
        share_every: 1,
        sync_every: 0,
        ..base
    };
    let paper = Options {
        learning_rate: 1e-2,
        weight_decay: 0.0,
        adaptive_lr: mmopt::optim::AdaptiveLr::None,
        model_weight_lr_scale: mmopt::optim::ModelWeightLrScale::None,
        published_multiplier: None,
        ..Options::paper()
    };
    let cases = [
        (plain(), 1, 1e-5),
        (Options { amsgrad: true, ..plain() }, 1, 1e-5),
        (Options { moment_dtype: MomentDtype::BF16, ..plain() }, 1, 3e-4),
        (Options { share_policy: SharePolicy::None, ..paper.clone() }, 1, 1e-5),
        (shared(ShareRule::Mean, plain()), 2, 1e-5),
        (shared(ShareRule::Gated, plain()), 2, 1e-5),
        (shared(ShareRule::Project, plain()), 2, 1e-5),
        (shared(ShareRule::Sum, paper), 2, 1e-5),
    ];
    let gradients = [1.0, 2e19, 1.0];
    let expected = [0.99, 0.98256, 0.97681];
    for (options, n_models, tolerance) in cases {
        let reference = adamw(&options, &gradients);
        for (r, e) in reference.iter().zip(expected).filter(|_| !options.amsgrad) {
            assert!((r - e).abs() < 1e-5, "{r} instead of {e}");
        }
        for isa in [InstructionSet::Portable, InstructionSet::Avx2, InstructionSet::Avx512] {
            let options = Options { instruction_set: isa, ..options.clone() };
            if Optimizer::new(options.clone(), Vec::new()).is_err() {
                continue;
            }
            let mut o = ones(options.clone(), n_models);
            for (&g, &want) in gradients.iter().zip(&reference) {
                let (got, skipped) = step(&mut o, n_models, g);
                let off = (f64::from(got) - want).abs();
                assert!(skipped == 0 && off < tolerance, "{options:?}: {g}: {got} and not {want}");
            }
        }
    }
}

#[test]
fn a_moment_that_would_overflow_skips_the_step() {
    let check = |options: Options, gradients: &[f32], bad: &[usize]| {
        let mut o = ones(options.clone(), 1);
        let mut before = 1.0;
        for (i, &g) in gradients.iter().enumerate() {
            let (value, skipped) = step(&mut o, 1, g);
            let place = format!("{options:?}: gradient {i}");
            assert_eq!(skipped, usize::from(bad.contains(&i)), "{place}");
            assert!(value.is_finite(), "{place}: {value}");
            assert_eq!(value == before, bad.contains(&i), "{place}: {value}");
            before = value;
        }
        assert_eq!(o.skipped(0).unwrap().1, bad.len() as u64);
    };
    for moment_dtype in [MomentDtype::F32, MomentDtype::BF16] {
        let adam = Options { moment_dtype, ..plain() };
        check(adam.clone(), &[1.0, 1e21, 1.0, 1.0], &[1]);
        check(Options { amsgrad: true, ..adam.clone() }, &[1.0, 1e21, 1.0], &[1]);
        // v becomes 2e38 and 3e38, and would become 3.5e38.
        let gradients = [2e19, 2e19, 2e19, 1.0, 1.0];
        check(Options { beta2: 0.5, ..adam.clone() }, &gradients, &[2]);
        let small = Options { learning_rate: 1e-38, ..adam };
        let sgd = Options { method: Method::Sgd, ..small.clone() };
        check(sgd.clone(), &[1e38, 1e38, 1e38, 1e38, 1e38, 1.0], &[3, 4]);
        check(Options { nesterov: true, ..sgd }, &[1e38, 1e38, 1e38, 1.0], &[2]);
        let lion = Options { method: Method::Lion, learning_rate: 1e-2, ..small };
        check(lion, &[3e38, 3e38, 3e38, 1.0], &[]);
    }
    let muon = Options { method: Method::Muon, ..plain() };
    check(muon.clone(), &[1e38, 1e38, 1e38, 1e38, 1.0], &[3]);
    check(Options { nesterov: true, ..muon }, &[1e38, 1e38, 1e38, 1.0], &[2]);
    let fails = Options { non_finite: NonFinite::Fail, ..plain() };
    let mut o = ones(fails, 1);
    o.gradient_mut(0, 0).unwrap().as_mut_slice::<f32>().unwrap().fill(1e21);
    let e = o.step().unwrap_err();
    assert_eq!(e.kind(), Kind::NonFinite);
    assert!(e.message().contains("'m0'") && e.message().contains("overflow"), "{e}");
    assert_eq!((o.values(0, 0).unwrap()[0], o.step_count()), (1.0, 0));
}

#[test]
fn a_model_that_would_overflow_does_not_stop_the_others() {
    let options = Options {
        share_policy: SharePolicy::Custom,
        share_groups: groups(2),
        share_rule: ShareRule::Mean,
        share_every: 1,
        ..plain()
    };
    let mut o = ones(options, 2);
    step(&mut o, 2, 1.0);
    let before = o.values(1, 0).unwrap()[0];
    o.gradient_mut(0, 0).unwrap().as_mut_slice::<f32>().unwrap().fill(3e38);
    let report = o.step().unwrap();
    assert_eq!((report.updated, report.skipped), (1, 1));
    let after = o.values(1, 0).unwrap()[0];
    assert!(after < before && after.is_finite(), "{after}");
}

/// With β₁ or β₂ 0 nothing of the past remains, however large it was.
#[test]
fn decays_of_zero_are_exact() {
    for options in [
        Options { beta2: 0.0, ..plain() },
        Options { beta1: 0.0, ..plain() },
        Options { beta1: 0.0, beta2: 0.0, ..plain() },
    ] {
        let gradients: Vec<f32> = (0..300)
            .map(|t| 10f32.powi(t % 7 - 3) * (1.5 + number("m", "w", 0, t as u64)))
            .collect();
        let reference = adamw(&options, &gradients);
        let mut o = ones(options.clone(), 1);
        for (&g, want) in gradients.iter().zip(reference) {
            let (got, _) = step(&mut o, 1, g);
            let off = (f64::from(got) - want).abs() / want.abs().max(1.0);
            assert!(off < 3e-5, "{:?}: {got} instead of {want}", (options.beta1, options.beta2));
        }
    }
}
