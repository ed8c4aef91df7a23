//! What a pass gave on all ranks together.

use super::exchange::Numbers;
use crate::optim::PassWeight;
use crate::train::model::Run;

/// What a pass gave on all ranks together; without other ranks, what it gave.
#[derive(Clone, Copy, Debug)]
pub(in crate::train) struct Agreed {
    pub loss: f64,
    pub mutual_loss: f64,
    pub n_correct: u64,
    pub n_labels: u64,
    /// What the loss divides by.
    pub weight: f64,
    /// This rank's part of it.
    pub own_weight: f64,
}

impl Agreed {
    pub(super) fn alone(run: &Run) -> Self {
        let weight = run.weight;
        Self {
            loss: run.loss,
            mutual_loss: run.mutual_loss,
            n_correct: run.accuracy.n_correct,
            n_labels: run.accuracy.n_labels,
            weight,
            own_weight: weight,
        }
    }

    /// Σ of weight, weight × loss, weight × mutual loss, right predictions, labels. A rank without
    /// weight says nothing of the loss.
    pub(super) fn numbers(&self) -> Numbers {
        let weighted = |loss: f64| if self.weight > 0.0 { self.weight * loss } else { 0.0 };
        let (correct, labels) = (self.n_correct as f64, self.n_labels as f64);
        [self.weight, weighted(self.loss), weighted(self.mutual_loss), correct, labels, 0.0]
    }

    /// The numbers of a pass that one rank alone has made.
    pub(super) fn as_they_are(&self) -> Numbers {
        let (correct, labels) = (self.n_correct as f64, self.n_labels as f64);
        [self.weight, self.loss, self.mutual_loss, correct, labels, 0.0]
    }

    /// What [`Agreed::as_they_are`] gave on its rank.
    pub(super) fn from_its_rank(numbers: &Numbers) -> Self {
        let [weight, loss, mutual_loss, correct, labels, _] = *numbers;
        let (n_correct, n_labels) = (correct as u64, labels as u64);
        Self { loss, mutual_loss, n_correct, n_labels, weight, own_weight: weight }
    }

    /// The means of what the sums say.
    pub(super) fn of(sums: &Numbers, own_weight: f64) -> Self {
        let [weight, loss, mutual_loss, correct, labels, _] = *sums;
        let mean = |sum: f64| if weight > 0.0 { sum / weight } else { 0.0 };
        let (n_correct, n_labels) = (correct as u64, labels as u64);
        let (loss, mutual_loss) = (mean(loss), mean(mutual_loss));
        Self { loss, mutual_loss, n_correct, n_labels, weight, own_weight }
    }

    /// What the pass weighs in the step.
    pub fn weight(&self) -> PassWeight {
        PassWeight { total: self.weight, own: self.own_weight }
    }
}
