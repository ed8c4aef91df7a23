//! Rates, weights and validations, as read and set between steps.

use crate::error::{Error, Result, count};
use crate::optim::optimizer::Optimizer;
use crate::optim::optimizer::callback::RateCallback;
use crate::optim::options::Weighting;
use crate::optim::rates::adaptive::{Trend, trend};
use crate::optim::rates::factors::Rates;
use crate::optim::rates::validation::moved_weight;

impl Optimizer {
    /// Factors and effective rate of a model: those of the last step, before it those of the
    /// first.
    pub fn rates(&self, model: usize) -> Result<Rates> {
        Ok(self.models.of_caller(model)?.rates)
    }

    /// Effective rates of all models, in the caller's order.
    pub fn learning_rates(&self) -> Vec<f64> {
        self.models.order.iter().map(|&m| self.models.states[m].rates.effective).collect()
    }

    /// State of the adaptive rule: the published r, or the project's smoothed factor; 1 at
    /// the start.
    pub fn adaptive_state(&self, model: usize) -> Result<f64> {
        Ok(self.rates.adaptive.state(self.models.index(model)?))
    }

    /// Sets the base rate for the coming steps, finite and ≥ 0.
    pub fn set_learning_rate(&mut self, rate: f64) -> Result<()> {
        if !(rate.is_finite() && rate >= 0.0) {
            return Err(Error::invalid(format!("learning rate {rate} must be finite and >= 0")));
        }
        self.options.learning_rate = rate;
        Ok(())
    }

    /// A callback that sees (model's name, step, rate) and returns the rate to use; `None`
    /// removes it. A result that is negative or not finite fails the step.
    pub fn set_rate_callback(&mut self, callback: Option<RateCallback>) {
        self.callbacks.rate = callback;
    }

    /// Sets a model's weight, finite and ≥ 0; the sum of all must stay positive.
    pub fn set_model_weight(&mut self, model: usize, weight: f64) -> Result<()> {
        let model = self.models.index(model)?;
        let others: f64 = self
            .models
            .states
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != model)
            .map(|(_, m)| m.weight)
            .sum();
        if !(weight.is_finite() && weight >= 0.0 && weight + others > 0.0) {
            return Err(Error::invalid(format!(
                "model '{}': weight {weight} must be finite and >= 0, and the sum of all > 0",
                self.models.states[model].spec.name
            )));
        }
        self.models.states[model].base_weight = weight;
        self.models.states[model].weight = weight;
        self.models.normalise_weights()
    }

    /// The weight that a model was made with, and its weight, where a call or a restored state
    /// has set another one.
    pub(crate) fn other_weight(&self, model: usize) -> Option<(f64, f64)> {
        let one = self.models.states.get(model)?;
        let (given, weight) = (one.spec.weight, one.base_weight);
        (given != weight).then_some((given, weight))
    }

    /// Normalised weight of a model.
    pub fn normalised_weight(&self, model: usize) -> Result<f64> {
        Ok(self.models.of_caller(model)?.normalised_weight)
    }

    /// Slope, progress and certainty of a model's last losses; `None` below four of them or
    /// without an adaptive rule.
    pub fn loss_trend(&self, model: usize) -> Result<Option<Trend>> {
        let losses = self.rates.adaptive.losses(self.models.index(model)?);
        Ok((losses.len() >= 4).then(|| trend(losses.iter())))
    }

    /// Reports one validation score per model, in the caller's order; higher is better and all
    /// are on one scale (accuracy, or the negative loss). A plateau schedule sees their mean;
    /// with dynamic weights, models above the mean come to weigh more.
    pub fn report_validation(&mut self, scores: &[f64]) -> Result<()> {
        if scores.len() != self.models.states.len() {
            return Err(Error::invalid(format!(
                "{} for {}",
                count(scores.len(), "validation score"),
                count(self.models.states.len(), "model")
            )));
        }
        if let Some(bad) = scores.iter().find(|s| !s.is_finite()) {
            return Err(Error::invalid(format!("validation score {bad} must be finite")));
        }
        if scores.is_empty() {
            return Ok(());
        }
        for (i, score) in scores.iter().enumerate() {
            let ours = self.models.index(i)?;
            self.models.states[ours].score = Some(*score);
        }
        let sum: f64 = self.models.states.iter().filter_map(|m| m.score).sum();
        let mean = sum / scores.len() as f64;
        self.rates.plateau.report(&self.options, mean);
        if self.options.weighting == Weighting::Fixed {
            return Ok(());
        }
        let (temperature, limit) =
            (self.options.weighting_temperature, self.options.weighting_limit);
        for m in &mut self.models.states {
            if m.base_weight > 0.0 {
                let score = m.score.unwrap_or(mean);
                let factor =
                    moved_weight(m.weight / m.base_weight, score, mean, temperature, limit);
                m.weight = m.base_weight * factor;
            }
        }
        self.models.normalise_weights()
    }
}
