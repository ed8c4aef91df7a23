//! The range test for learning rates (Smith 2017, "Cyclical Learning Rates for Training Neural
//! Networks", section 3.3): the rate grows by a constant factor from step to step, and the loss is
//! watched. The suggestion is where the smoothed loss falls most steeply over the logarithm of the
//! rate.

use super::passes::{PassSums, check_loader, pass};
use super::progress::{Phase, Proceed};
use crate::error::{Error, Kind, Result};
use crate::text::Loader;
use crate::train::Trainer;

/// How rates are tried.
#[derive(Clone, Debug, PartialEq)]
pub struct FindLearningRateOptions {
    /// The first rate, above 0. Default 1e-7.
    pub min_lr: f64,
    /// The last rate, above `min_lr`. Default 1.
    pub max_lr: f64,
    /// Steps at most, at least 2. Default 100.
    pub n_steps: u64,
    /// How much of the smoothed loss stays from step to step, 0 to below 1. Default 0.95.
    pub smoothing: f64,
    /// Ends when the smoothed mean loss exceeds so many times the least one, above 1. Default 4.
    pub divergence: f64,
}

impl Default for FindLearningRateOptions {
    fn default() -> Self {
        Self { min_lr: 1e-7, max_lr: 1.0, n_steps: 100, smoothing: 0.95, divergence: 4.0 }
    }
}

impl FindLearningRateOptions {
    fn check(&self) -> Result<()> {
        let Self { min_lr, max_lr, n_steps, smoothing, divergence } = *self;
        let bad = |text: String| Err(Error::invalid(text));
        if !(min_lr > 0.0 && min_lr < max_lr && max_lr.is_finite()) {
            return bad(format!("min_lr {min_lr} must be above 0 and below max_lr {max_lr}"));
        }
        if n_steps < 2 {
            return bad(format!("n_steps {n_steps} must be at least 2"));
        }
        if !(0.0..1.0).contains(&smoothing) {
            return bad(format!("smoothing {smoothing} must be at least 0 and below 1"));
        }
        if !(divergence > 1.0 && divergence.is_finite()) {
            return bad(format!("divergence {divergence} must be finite and above 1"));
        }
        Ok(())
    }
}

/// Losses over learning rates.
#[derive(Clone, Debug, PartialEq)]
pub struct LearningRateCurve {
    /// The rates that were tried, in order.
    pub rates: Vec<f64>,
    /// Each model's loss before the step with each rate, smoothed and corrected for its start; a
    /// step in which a model had no label leaves its as it was.
    pub losses: Vec<Vec<f64>>,
    /// Each model's suggestion; `None` when its loss falls nowhere.
    pub suggestions: Vec<Option<f64>>,
    /// The suggestion for all models together: of the mean of their losses, each divided by its
    /// first.
    pub suggestion: Option<f64>,
}

/// Tries rates over some steps, the same for all models, and puts everything back: weights,
/// moments, schedules, counters of dropout, what mutual learning remembers, the loader's place.
/// Schedules, adaptive rates and a rate callback do not count meanwhile. A step has as many
/// micro-batches as in training; epochs follow each other.
///
/// It needs memory for a copy of weights and moments. Errors: `InvalidArgument` for options out of
/// range; those of passes and steps. Then, too, everything is put back.
pub fn find_learning_rate(
    trainer: &mut Trainer,
    loader: &mut Loader,
    options: &FindLearningRateOptions,
) -> Result<LearningRateCurve> {
    find_learning_rate_with(trainer, loader, options, &|_, _, _| Ok(()))
}

/// [`find_learning_rate`], which asks `proceed` before each pass and step.
pub fn find_learning_rate_with(
    trainer: &mut Trainer,
    loader: &mut Loader,
    options: &FindLearningRateOptions,
    proceed: Proceed,
) -> Result<LearningRateCurve> {
    options.check()?;
    trainer.check_alone("find_learning_rate")?;
    check_loader(trainer, loader)?;
    if trainer.n_pending() > 0 {
        return Err(Error::state("a step is under way; call step or zero_grad first"));
    }
    let (saved, place) = (trainer.snapshot()?, loader.state());
    let host = trainer.optimizer_mut().replace_rate_callback(None);
    let curve = walk(trainer, loader, options, proceed);
    trainer.optimizer_mut().replace_rate_callback(host);
    trainer.restore_snapshot(saved)?;
    loader.restore(&place)?;
    curve
}

fn walk(
    trainer: &mut Trainer,
    loader: &mut Loader,
    options: &FindLearningRateOptions,
    proceed: Proceed,
) -> Result<LearningRateCurve> {
    let n = trainer.n_models();
    let ratio = options.max_lr / options.min_lr;
    let mut smoothed = vec![Smoothed::default(); n];
    let (mut rates, mut losses) = (Vec::new(), vec![Vec::new(); n]);
    let mut means: Vec<f64> = Vec::new();
    for i in 0..options.n_steps {
        let rate = options.min_lr * ratio.powf(i as f64 / (options.n_steps - 1) as f64);
        let callback = Box::new(move |_: &str, _: u64, _: f64| rate);
        trainer.optimizer_mut().replace_rate_callback(Some(callback));
        let mut passed = pass(trainer, loader, proceed)?;
        if passed.n_micro_batches == 0 {
            passed = pass(trainer, loader, proceed)?;
        }
        if passed.models.iter().any(|sums| !sums.mean_loss().is_finite()) {
            break;
        }
        for (sums, smoothed) in passed.models.iter().zip(&mut smoothed) {
            smoothed.add(sums, options.smoothing);
        }
        // Until each model has seen a label there is nothing to compare.
        if let Some(new) = smoothed.iter().map(Smoothed::value).collect::<Option<Vec<f64>>>() {
            rates.push(rate);
            for (loss, curve) in new.into_iter().zip(&mut losses) {
                curve.push(loss);
            }
            let at = rates.len() - 1;
            means.push(losses.iter().map(|curve| relative(curve, at)).sum::<f64>() / n as f64);
            let least = means.iter().copied().fold(f64::INFINITY, f64::min);
            if means[at] > options.divergence * least {
                break;
            }
        }
        proceed(Phase::Step, None, trainer.optimizer().step_count())?;
        match trainer.step() {
            // The gradients of too great a rate.
            Err(e) if e.kind() == Kind::NonFinite => break,
            stepped => stepped?,
        };
    }
    Ok(LearningRateCurve {
        suggestions: losses.iter().map(|curve| steepest(&rates, curve)).collect(),
        suggestion: steepest(&rates, &means),
        rates,
        losses,
    })
}

/// A loss of a curve, divided by the size of its first.
fn relative(curve: &[f64], at: usize) -> f64 {
    let first = curve[0].abs();
    if first > 0.0 { curve[at] / first } else { curve[at] }
}

/// An exponential mean that begins at its first value.
#[derive(Clone, Copy, Debug, Default)]
struct Smoothed {
    sum: f64,
    weight: f64,
}

impl Smoothed {
    /// Takes a step's loss in; a step without labels has none, and leaves the mean as it is.
    fn add(&mut self, sums: &PassSums, keep: f64) {
        if sums.has_loss() {
            self.sum = keep * self.sum + (1.0 - keep) * sums.mean_loss();
            self.weight = keep * self.weight + (1.0 - keep);
        }
    }

    /// The mean; `None` before the first loss.
    fn value(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

/// The rate at which a curve falls most steeply, by central differences over equal steps of the
/// rate's logarithm; `None` when it falls nowhere.
fn steepest(rates: &[f64], curve: &[f64]) -> Option<f64> {
    let slopes = curve.windows(3).map(|w| w[2] - w[0]).zip(rates.get(1..)?);
    let (slope, rate) = slopes.min_by(|a, b| a.0.total_cmp(&b.0))?;
    (slope < 0.0).then_some(*rate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::TrainResult;

    #[test]
    fn the_suggestion_is_where_the_loss_falls_most() {
        let rates = [1.0, 10.0, 100.0, 1000.0, 1e4];
        assert_eq!(steepest(&rates, &[5.0, 4.9, 3.0, 2.8, 9.0]), Some(100.0));
        assert_eq!(steepest(&rates, &[1.0, 2.0, 3.0, 4.0, 5.0]), None);
        assert_eq!(steepest(&rates[..2], &[2.0, 1.0]), None);
    }

    #[test]
    fn the_smoothed_loss_begins_at_the_first_and_passes_steps_without_labels_over() {
        let mut mean = Smoothed::default();
        let mut add = |n_labels, loss| {
            let mut sums = PassSums::default();
            sums.add(&TrainResult { loss, mutual_loss: 0.5, n_correct: 0, n_labels });
            mean.add(&sums, 0.9);
            mean.value()
        };
        assert_eq!(add(0, 0.0), None);
        assert_eq!(add(4, 3.0), Some(3.0));
        assert_eq!(add(0, 0.0), Some(3.0));
        assert!((add(4, 1.0).unwrap() - (0.9 * 3.0 + 1.0) / 1.9).abs() < 1e-12);
        // Regression counts no labels.
        assert!(add(0, 5.0).unwrap() > 3.0);
    }
}
