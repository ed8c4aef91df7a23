//! What validation results change: plateau schedules and dynamic model weights.

use crate::error::{Error, Result};
use crate::optim::optimizer::Optimizer;
use crate::optim::options::Weighting;

/// A weight's factor after a validation: half of the way, in logarithms, from the present factor
/// to exp((score − mean) / temperature), within 1/limit and limit.
fn moved(factor: f64, score: f64, mean: f64, temperature: f64, limit: f64) -> f64 {
    let target = ((score - mean) / temperature).exp().clamp(1.0 / limit, limit);
    (factor * target).sqrt()
}

impl Optimizer {
    /// Takes in one validation score per model, in the caller's order; higher is better and all
    /// are on one scale (accuracy, or the negative loss). A plateau schedule sees their mean;
    /// with dynamic weights, models above the mean come to weigh more.
    pub fn report_validation(&mut self, scores: &[f64]) -> Result<()> {
        if scores.len() != self.models.len() {
            return Err(Error::invalid(format!(
                "{} validation scores for {} models",
                scores.len(),
                self.models.len()
            )));
        }
        if let Some(bad) = scores.iter().find(|s| !s.is_finite()) {
            return Err(Error::invalid(format!("validation score {bad} must be finite")));
        }
        if scores.is_empty() {
            return Ok(());
        }
        for (i, score) in scores.iter().enumerate() {
            let ours = self.index(i)?;
            self.models[ours].score = Some(*score);
        }
        let sum: f64 = self.models.iter().filter_map(|m| m.score).sum();
        let mean = sum / scores.len() as f64;
        self.plateau.report(&self.options.schedule.decay, mean);
        let Weighting::Validation { temperature, limit } = self.options.weighting else {
            return Ok(());
        };
        for m in &mut self.models {
            if m.base_weight > 0.0 {
                let score = m.score.unwrap_or(mean);
                let factor = moved(m.weight / m.base_weight, score, mean, temperature, limit);
                m.weight = m.base_weight * factor;
            }
        }
        self.normalise()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::{ModelSpec, Options};

    #[test]
    fn better_models_come_to_weigh_more_within_the_limit() {
        let weighting = Weighting::Validation { temperature: 0.1, limit: 2.0 };
        let options = Options { weighting, threads: 1, ..Options::default() };
        let models = ["b", "a"].map(|n| ModelSpec::new(n, Vec::new()));
        let mut o = Optimizer::new(options, models.into()).unwrap();
        o.report_validation(&[0.9, 0.8]).unwrap();
        let expected = (0.5f64 / 2.0).exp(); // half of (0.9 − 0.85) / 0.1
        let share = |o: &Optimizer| o.model_share(0).unwrap();
        assert!((share(&o) - expected / (expected + 1.0 / expected)).abs() < 1e-12);
        for _ in 0..60 {
            o.report_validation(&[1.0, 0.0]).unwrap();
        }
        assert!((share(&o) - 0.8).abs() < 1e-9); // 2 against 1/2
        assert!(o.report_validation(&[1.0]).is_err());
        assert!(o.report_validation(&[1.0, f64::NAN]).is_err());
    }
}
