//! Learning-rate schedules: warm-up, then a decay, as a factor of the base rate.

use crate::optim::options::{Decay, Schedule};
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
    pub(crate) fn report(&mut self, decay: &Decay, score: f64) {
        let Decay::Plateau { factor, patience, threshold, floor } = *decay else { return };
        if self.best.is_none_or(|best| score > best + threshold * best.abs()) {
            self.best = Some(score);
            self.waited = 0;
            return;
        }
        self.waited += 1;
        if self.waited > patience {
            self.factor = (self.factor * factor).max(floor);
            self.waited = 0;
        }
    }
}

/// The factor at optimizer step `step` ≥ 1, where `calls` ≥ 1 micro-batches have been seen.
pub fn factor(schedule: &Schedule, plateau: &PlateauState, step: u64, calls: u64) -> f64 {
    let warmup = schedule.warmup;
    match schedule.decay {
        Decay::Published { total, floor } => {
            return paper_scale(calls.saturating_sub(1), total, warmup, floor);
        }
        Decay::OneCycle { total, peak, start_div, final_div } => {
            return one_cycle(step, total, peak, start_div, final_div);
        }
        _ => {}
    }
    if step <= warmup {
        return step as f64 / warmup as f64;
    }
    let share = |total: u64| {
        let length = total.saturating_sub(warmup).max(1) as f64;
        ((step - warmup) as f64 / length).min(1.0)
    };
    match schedule.decay {
        Decay::Linear { total, floor } => 1.0 - (1.0 - floor) * share(total),
        Decay::Cosine { total, floor } => {
            floor + (1.0 - floor) * 0.5 * (1.0 + (PI * share(total)).cos())
        }
        Decay::Polynomial { total, floor, power } => {
            floor + (1.0 - floor) * (1.0 - share(total)).powf(power)
        }
        Decay::Plateau { .. } => plateau.factor,
        _ => 1.0,
    }
}

fn one_cycle(step: u64, total: u64, peak: f64, start_div: f64, final_div: f64) -> f64 {
    let x = ((step - 1) as f64 / total.saturating_sub(1).max(1) as f64).min(1.0);
    let (low, last) = (1.0 / start_div, 1.0 / (start_div * final_div));
    let ease = |from: f64, to: f64, x: f64| from + (to - from) * 0.5 * (1.0 - (PI * x).cos());
    if x < peak { ease(low, 1.0, x / peak) } else { ease(1.0, last, (x - peak) / (1.0 - peak)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(decay: Decay, warmup: u64, expected: &[(u64, f64)]) {
        let schedule = Schedule { warmup, decay };
        for &(step, want) in expected {
            let got = factor(&schedule, &PlateauState::default(), step, step);
            assert!((got - want).abs() < 1e-12, "{decay:?} at {step}: {got} instead of {want}");
        }
    }

    #[test]
    fn known_points() {
        check(Decay::Constant, 4, &[(1, 0.25), (4, 1.0), (5, 1.0), (1000, 1.0)]);
        check(
            Decay::Linear { total: 12, floor: 0.0 },
            2,
            &[(1, 0.5), (2, 1.0), (7, 0.5), (99, 0.0)],
        );
        check(Decay::Cosine { total: 10, floor: 0.1 }, 0, &[(5, 0.55), (10, 0.1), (11, 0.1)]);
        let square = Decay::Polynomial { total: 10, floor: 0.0, power: 2.0 };
        check(square, 0, &[(5, 0.25), (10, 0.0)]);
        let cycle = Decay::OneCycle { total: 11, peak: 0.5, start_div: 25.0, final_div: 1e4 };
        check(cycle, 0, &[(1, 0.04), (6, 1.0), (11, 4e-6), (50, 4e-6)]);
        check(Decay::Published { total: 100, floor: 0.1 }, 0, &[(1, 1.0), (51, 0.5)]);
    }

    #[test]
    fn a_plateau_lowers_the_rate_once_per_patience() {
        let decay = Decay::Plateau { factor: 0.5, patience: 1, threshold: 0.01, floor: 0.2 };
        let mut state = PlateauState::default();
        let mut factors = Vec::new();
        for score in [0.5, 0.6, 0.601, 0.602, 0.603, 0.604, 0.7, 0.6, 0.6, 0.6, 0.6] {
            state.report(&decay, score);
            factors.push(state.factor);
        }
        assert_eq!(factors, [1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2, 0.2, 0.2]);
    }
}
