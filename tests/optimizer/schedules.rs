//! Learning-rate schedules against `transformers`' at the same optimizer step, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mmopt::optim::{LrSchedule, ModelSpec, Optimizer, Options, ParamSpec};
use mmopt::tensor::DType;

/// The schedule's factor in each of `n` steps.
fn factors(lr_schedule: LrSchedule, warmup_steps: u64, total_steps: u64, n: usize) -> Vec<f64> {
    let options = Options { lr_schedule, warmup_steps, total_steps, ..Options::adamw() };
    let model = ModelSpec::new("m", vec![ParamSpec::new("w", &[2])]);
    let mut o = Optimizer::new(options, vec![model]).unwrap();
    o.bind_owned(0, DType::F32).unwrap();
    let mut all = Vec::new();
    for _ in 0..n {
        o.gradient_mut(0, 0).unwrap().as_mut_slice::<f32>().unwrap().fill(1.0);
        o.step().unwrap();
        all.push(o.rates(0).unwrap().schedule);
    }
    all
}

/// `get_*_schedule_with_warmup` of transformers at `step` finished steps.
fn published(lr_schedule: LrSchedule, warmup: u64, total: u64, step: u64) -> f64 {
    let x = (step - warmup) as f64 / (total - warmup).max(1) as f64;
    match lr_schedule {
        LrSchedule::Linear | LrSchedule::Polynomial => (1.0 - x).max(0.0),
        _ => 0.5 * (1.0 + (std::f64::consts::PI * x.min(1.0)).cos()),
    }
}

#[test]
fn decays_are_those_of_the_field_and_the_last_step_trains() {
    assert_eq!(factors(LrSchedule::Linear, 0, 4, 5), [1.0, 0.75, 0.5, 0.25, 0.0]);
    for schedule in [LrSchedule::Linear, LrSchedule::Cosine, LrSchedule::Polynomial] {
        for (warmup, total) in [(0, 1), (0, 4), (3, 10), (4, 5), (6, 6)] {
            let got = factors(schedule, warmup, total, total as usize);
            for (t, &factor) in (1..).zip(&got) {
                // The warm-up begins one step later than in transformers, whose first rate is 0.
                let want = match t <= warmup {
                    true => t as f64 / warmup as f64,
                    false => published(schedule, warmup, total, t - 1),
                };
                let case = format!("{schedule:?}, {warmup} of {total}, step {t}");
                assert!((factor - want).abs() < 1e-12, "{case}: {factor} instead of {want}");
                assert!(factor > 0.0, "{case} does not train");
            }
        }
    }
}

#[test]
fn a_warmup_beyond_the_end_is_refused() {
    for lr_schedule in [LrSchedule::Linear, LrSchedule::Cosine, LrSchedule::Polynomial] {
        let options =
            Options { lr_schedule, warmup_steps: 11, total_steps: 10, ..Options::adamw() };
        let e = options.validate().unwrap_err();
        assert!(e.message().contains("warmup_steps") && e.message().contains("11"), "{e}");
        Options { warmup_steps: 10, ..options }.validate().unwrap();
    }
}
