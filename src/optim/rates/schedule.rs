//! Learning-rate schedules: warm-up, then a decay, as a factor of the base rate.
//!
//! Of N steps without warm-up a linear decay gives 1, (N−1)/N, …, 1/N: what
//! `get_linear_schedule_with_warmup` of transformers gives at the same optimizer step, and so do
//! the other decays. Its warm-up begins at 0; here it begins at 1/W, so that the first step trains.

use crate::optim::options::{LrSchedule, OneCycle, Options};
use crate::optim::rates::paper::paper_scale;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// What a plateau schedule remembers; 1 and nothing seen at the start.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlateauState {
    /// Present factor.
    pub factor: f64,
    /// Best score so far, higher is better.
    pub best: Option<f64>,
    /// Validations since the best.
    pub waited: u32,
}

impl Default for PlateauState {
    fn default() -> Self {
        Self { factor: 1.0, best: None, waited: 0 }
    }
}

impl PlateauState {
    /// Takes in a validation score, higher is better. `s` improves when it exceeds the best by
    /// more than threshold·|best|.
    pub(crate) fn report(&mut self, o: &Options, score: f64) {
        if o.lr_schedule != LrSchedule::Plateau {
            return;
        }
        if self.best.is_none_or(|best| score > best + o.plateau.threshold * best.abs()) {
            self.best = Some(score);
            self.waited = 0;
            return;
        }
        self.waited += 1;
        if self.waited > o.plateau.patience {
            self.factor = (self.factor * o.plateau.factor).max(o.min_lr_ratio);
            self.waited = 0;
        }
    }
}

/// The factor at optimizer step `step` ≥ 1, where `calls` ≥ 1 micro-batches have been seen.
pub fn factor(o: &Options, plateau: &PlateauState, step: u64, calls: u64) -> f64 {
    let (warmup, total, least) = (o.warmup_steps, o.total_steps, o.min_lr_ratio);
    match o.lr_schedule {
        LrSchedule::Published => {
            return paper_scale(calls.saturating_sub(1), total, warmup, least);
        }
        LrSchedule::OneCycle => return one_cycle(step, total, &o.one_cycle),
        _ => {}
    }
    if step <= warmup {
        return step as f64 / warmup as f64;
    }
    let length = total.saturating_sub(warmup).max(1) as f64;
    let share = ((step - 1 - warmup) as f64 / length).min(1.0);
    match o.lr_schedule {
        LrSchedule::Linear => 1.0 - (1.0 - least) * share,
        LrSchedule::Cosine => least + (1.0 - least) * 0.5 * (1.0 + (PI * share).cos()),
        LrSchedule::Polynomial => least + (1.0 - least) * (1.0 - share).powf(o.polynomial_power),
        LrSchedule::Plateau => plateau.factor,
        LrSchedule::Constant | LrSchedule::OneCycle | LrSchedule::Published => 1.0,
    }
}

fn one_cycle(step: u64, total: u64, o: &OneCycle) -> f64 {
    let peak = o.pct_start;
    let x = ((step - 1) as f64 / total.saturating_sub(1).max(1) as f64).min(1.0);
    let (low, last) = (1.0 / o.div_factor, 1.0 / (o.div_factor * o.final_div_factor));
    let ease = |from: f64, to: f64, x: f64| from + (to - from) * 0.5 * (1.0 - (PI * x).cos());
    if x < peak { ease(low, 1.0, x / peak) } else { ease(1.0, last, (x - peak) / (1.0 - peak)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::options::Plateau;

    fn check(lr_schedule: LrSchedule, set: impl Fn(&mut Options), expected: &[(u64, f64)]) {
        let mut o = Options { lr_schedule, ..Options::default() };
        set(&mut o);
        for &(step, want) in expected {
            let got = factor(&o, &PlateauState::default(), step, step);
            assert!(
                (got - want).abs() < 1e-12,
                "{lr_schedule:?} at {step}: {got} instead of {want}"
            );
        }
    }

    #[test]
    fn known_points() {
        let of = |total: u64, least: f64| {
            move |o: &mut Options| (o.total_steps, o.min_lr_ratio) = (total, least)
        };
        check(
            LrSchedule::Constant,
            |o| o.warmup_steps = 4,
            &[(1, 0.25), (4, 1.0), (5, 1.0), (1000, 1.0)],
        );
        check(
            LrSchedule::Linear,
            |o| (o.total_steps, o.warmup_steps) = (12, 2),
            &[(1, 0.5), (2, 1.0), (3, 1.0), (8, 0.5), (12, 0.1), (13, 0.0), (99, 0.0)],
        );
        check(LrSchedule::Cosine, of(10, 0.1), &[(1, 1.0), (6, 0.55), (11, 0.1), (12, 0.1)]);
        check(
            LrSchedule::Polynomial,
            |o| (o.total_steps, o.polynomial_power) = (10, 2.0),
            &[(1, 1.0), (6, 0.25), (10, 0.01), (11, 0.0)],
        );
        check(
            LrSchedule::OneCycle,
            |o| (o.total_steps, o.one_cycle.pct_start) = (11, 0.5),
            &[(1, 0.04), (6, 1.0), (11, 4e-6), (50, 4e-6)],
        );
        check(LrSchedule::Published, of(100, 0.1), &[(1, 1.0), (51, 0.5)]);
    }

    #[test]
    fn a_plateau_lowers_the_rate_once_per_patience() {
        let options = Options {
            lr_schedule: LrSchedule::Plateau,
            plateau: Plateau { factor: 0.5, patience: 1, threshold: 0.01 },
            min_lr_ratio: 0.2,
            ..Options::default()
        };
        let mut state = PlateauState::default();
        let mut factors = Vec::new();
        for score in [0.5, 0.6, 0.601, 0.602, 0.603, 0.604, 0.7, 0.6, 0.6, 0.6, 0.6] {
            state.report(&options, score);
            factors.push(state.factor);
        }
        assert_eq!(factors, [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2, 0.2, 0.2]);
    }
}
