//! Micro-batches of unequal weight: their mean is that of one large batch.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::small_optimizer::{number, optimizer};
use mmopt::Kind;
use mmopt::optim::{
    GradientAccumulation, GradientAction, ModelSpec, Moment, Optimizer, Options, ParamSpec,
};

fn one() -> Vec<ModelSpec> {
    vec![ModelSpec::new("m", vec![ParamSpec::new("w", &[7])])]
}

fn options(gradient_accumulation: GradientAccumulation) -> Options {
    Options {
        gradient_accumulation,
        gradient_accumulation_steps: 3,
        n_threads: 1,
        ..Options::adamw()
    }
}

/// The mean gradient that a step over three micro-batches used.
fn mean(options: Options, weights: [f64; 3]) -> Vec<f64> {
    let beta1 = options.beta1;
    let mut o = optimizer(options, &one());
    for (micro, weight) in weights.into_iter().enumerate() {
        let g = o.gradient_mut(0, 0).unwrap().as_mut_slice::<f32>().unwrap();
        g.iter_mut().enumerate().for_each(|(i, g)| *g = gradient(micro, i));
        o.accumulate_weighted(0, 1.0, weight).unwrap();
    }
    o.step().unwrap();
    let m = o.moment(0, 0, Moment::First).unwrap().unwrap();
    m.iter().map(|&m| f64::from(m) / (1.0 - beta1)).collect()
}

fn gradient(micro: usize, i: usize) -> f32 {
    number("m", "w", i, micro as u64 + 1)
}

fn expected(weights: [f64; 3]) -> Vec<f64> {
    let total: f64 = weights.iter().sum();
    let of = |i| (0..3).map(|micro| weights[micro] * f64::from(gradient(micro, i)) / total).sum();
    (0..7).map(of).collect()
}

fn near(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6)
}

#[test]
fn the_mean_is_weighted() {
    for weights in [[9.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.25, 300.0, 5000.0]] {
        let got = mean(options(GradientAccumulation::WeightedMean), weights);
        assert!(near(&got, &expected(weights)), "{weights:?}: {got:?}");
    }
    assert_eq!(Options::default().gradient_accumulation, GradientAccumulation::WeightedMean);
    assert_eq!(Options::paper().gradient_accumulation, GradientAccumulation::Sum);
    let alike = [1.0; 3];
    assert!(near(&mean(options(GradientAccumulation::Mean), alike), &expected(alike)));
    // Nothing has weight: there is no gradient.
    let none = mean(options(GradientAccumulation::WeightedMean), [0.0; 3]);
    assert!(none.iter().all(|g| *g == 0.0), "{none:?}");
}

#[test]
fn weights_that_do_not_count_are_refused() {
    let check = |accumulation, weight, word: &str| {
        let mut o = optimizer(options(accumulation), &one());
        let e = o.accumulate_weighted(0, 1.0, weight).unwrap_err();
        assert!(e.kind() == Kind::InvalidArgument && e.message().contains(word), "{e}");
    };
    check(GradientAccumulation::Mean, 2.0, "weighted_mean");
    check(GradientAccumulation::Sum, 2.0, "weighted_mean");
    for weight in [-1.0, f64::NAN, f64::INFINITY] {
        check(GradientAccumulation::WeightedMean, weight, "'m'");
    }
}

/// The callback's scale, and a window that is resumed half-way.
#[test]
fn weights_are_part_of_scale_and_state() {
    let start = || optimizer(options(GradientAccumulation::WeightedMean), &one());
    let micro_batch = |o: &mut Optimizer, micro: usize, weight: f64| {
        let g = o.gradient_mut(0, 0).unwrap().as_mut_slice::<f32>().unwrap();
        g.iter_mut().enumerate().for_each(|(i, g)| *g = gradient(micro, i));
        o.accumulate_weighted(0, 1.0, weight).unwrap();
    };
    let mut o = start();
    micro_batch(&mut o, 0, 9.0);
    micro_batch(&mut o, 1, 1.0);
    let json = serde_json::to_string(&o.state_json().unwrap()).unwrap();
    let tensors = o.state_tensors();
    let mut again = start();
    let find = |name: &str| {
        let found = tensors.iter().find(|t| t.name == name)?;
        Some((found.dtype, found.shape, found.bytes))
    };
    again.load_state(&serde_json::from_str(&json).unwrap(), &find).unwrap();
    for o in [&mut o, &mut again] {
        o.set_gradient_callback(Some(Box::new(|view| {
            assert!((view.scale - 0.05).abs() < 1e-15, "{}", view.scale);
            Ok(GradientAction::Use)
        })));
        micro_batch(o, 2, 10.0);
        o.step().unwrap();
    }
    assert_eq!(o.values(0, 0).unwrap(), again.values(0, 0).unwrap());
}
