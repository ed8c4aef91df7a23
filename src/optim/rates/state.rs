//! What learning rates depend on beside the options: losses, plateau, micro-batches.

use crate::optim::options::{ModelWeightLrScale, Options};
use crate::optim::rates::adaptive::AdaptiveRates;
use crate::optim::rates::factors::Rates;
use crate::optim::rates::paper::paper_multiplier;
use crate::optim::rates::schedule::{self, PlateauState};

/// The state of schedules and adaptive rates.
#[derive(Clone)]
pub(in crate::optim) struct RateState {
    pub adaptive: AdaptiveRates,
    pub plateau: PlateauState,
    /// Micro-batches seen, and those whose adaptive rates have been updated.
    pub micro_batches: u64,
    pub ended: u64,
}

/// The factors that all models have in common in a step.
#[derive(Clone, Copy)]
pub(in crate::optim) struct StepFactors {
    schedule: f64,
    multiplier: f64,
}

impl RateState {
    pub fn new(n_models: usize, options: &Options) -> Self {
        Self {
            adaptive: AdaptiveRates::new(n_models, options),
            plateau: PlateauState::default(),
            micro_batches: 0,
            ended: 0,
        }
    }

    /// Updates the adaptive rates up to the end of a micro-batch.
    pub fn end_micro_batches(&mut self, options: &Options, last: u64) {
        while self.ended < last {
            self.ended += 1;
            self.adaptive.end_micro_batch(options, self.ended);
        }
    }

    /// The common factors at `step` ≥ 1 with `micro_batches` ≥ 1 seen.
    pub fn of_step(&self, o: &Options, step: u64, micro_batches: u64) -> StepFactors {
        let a = o.gradient_accumulation_steps;
        let multiplier = o.published_multiplier.map_or(1.0, |m| paper_multiplier(&m, step, a));
        let schedule = schedule::factor(o, &self.plateau, step, micro_batches);
        StepFactors { schedule, multiplier }
    }

    /// The rate of one of `n` models.
    pub fn of_model(
        &self,
        o: &Options,
        step: StepFactors,
        model: usize,
        normalised_weight: f64,
        n: usize,
    ) -> Rates {
        let StepFactors { schedule, multiplier } = step;
        let scale = match o.model_weight_lr_scale {
            ModelWeightLrScale::None => 1.0,
            ModelWeightLrScale::Published => 0.5 + 0.5 * normalised_weight,
            ModelWeightLrScale::Relative => 0.5 + 0.5 * n as f64 * normalised_weight,
        };
        let adaptive = self.adaptive.factor(model);
        Rates {
            base: o.learning_rate,
            schedule,
            adaptive,
            scale,
            multiplier,
            effective: o.learning_rate * schedule * adaptive * scale * multiplier,
        }
    }
}
