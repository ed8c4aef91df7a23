//! Rates and weights, as read and set between steps.

use crate::error::{Error, Result};
use crate::optim::optimizer::{Optimizer, RateCallback, Rates};
use crate::optim::rates::adaptive::{Trend, trend};

impl Optimizer {
    /// Factors and effective rate of a model: those of the last step, before it those of the
    /// first.
    pub fn rates(&self, model: usize) -> Result<Rates> {
        Ok(self.models[self.index(model)?].rates)
    }

    /// Effective rates of all models, in the caller's order.
    pub fn learning_rates(&self) -> Vec<f64> {
        self.order.iter().map(|&m| self.models[m].rates.effective).collect()
    }

    /// State of the convergence rule: the published r, or the project's smoothed factor; 1 at
    /// the start.
    pub fn convergence_state(&self, model: usize) -> Result<f64> {
        Ok(self.tracker.state(self.index(model)?))
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
        self.callback = callback;
    }

    /// Sets a model's weight, finite and ≥ 0; the sum of all must stay positive.
    pub fn set_model_weight(&mut self, model: usize, weight: f64) -> Result<()> {
        let model = self.index(model)?;
        let others: f64 = self
            .models
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != model)
            .map(|(_, m)| m.weight)
            .sum();
        if !(weight.is_finite() && weight >= 0.0 && weight + others > 0.0) {
            return Err(Error::invalid(format!(
                "model '{}': weight {weight} must be finite and >= 0, and the sum of all > 0",
                self.models[model].spec.name
            )));
        }
        self.models[model].base_weight = weight;
        self.models[model].weight = weight;
        self.normalise()
    }

    /// Normalised weight of a model.
    pub fn model_share(&self, model: usize) -> Result<f64> {
        Ok(self.models[self.index(model)?].share)
    }

    pub(in crate::optim) fn normalise(&mut self) -> Result<()> {
        let total: f64 = self.models.iter().map(|m| m.weight).sum();
        if self.models.is_empty() {
            return Ok(());
        }
        if total <= 0.0 || !total.is_finite() {
            return Err(Error::invalid("the models' weights sum to 0; one must be positive"));
        }
        self.models.iter_mut().for_each(|m| m.share = m.weight / total);
        Ok(())
    }

    /// Slope, progress and certainty of a model's last losses; `None` below four of them or
    /// without a convergence rule.
    pub fn loss_trend(&self, model: usize) -> Result<Option<Trend>> {
        let losses = self.tracker.losses(self.index(model)?);
        Ok((losses.len() >= 4).then(|| trend(losses.iter())))
    }
}
