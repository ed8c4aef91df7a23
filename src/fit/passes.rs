//! The micro-batches of one step.

use super::progress::{Phase, Proceed};
use crate::error::{Error, Result, count};
use crate::tasks::check_names;
use crate::text::{Batch, Loader};
use crate::train::{TensorView, TrainResult, Trainer};

/// One model's sums over the micro-batches of a step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PassSums {
    pub loss: f64,
    pub mutual_loss: f64,
    pub n_correct: u64,
    pub n_labels: u64,
    /// Micro-batches, and those with labels.
    n: usize,
    n_labelled: usize,
}

impl PassSums {
    pub fn add(&mut self, result: &TrainResult) {
        // A loss over no label says nothing; regression counts no labels at all.
        let counts = result.n_labels > 0;
        if counts && self.n_labelled == 0 {
            self.loss = 0.0;
        }
        if counts || self.n_labelled == 0 {
            self.loss += result.loss;
        }
        self.n_labelled += usize::from(counts);
        self.n += 1;
        self.mutual_loss += result.mutual_loss;
        self.n_correct += result.n_correct;
        self.n_labels += result.n_labels;
    }

    /// Whether there is a loss: where no micro-batch had labels it is 0, and says nothing.
    pub fn has_loss(&self) -> bool {
        self.n_labelled > 0 || self.loss != 0.0
    }

    /// The mean loss over the micro-batches, of those with labels where there are any.
    pub fn mean_loss(&self) -> f64 {
        let n = if self.n_labelled > 0 { self.n_labelled } else { self.n };
        self.loss / n.max(1) as f64
    }

    /// The mean of what mutual learning added.
    pub fn mean_mutual_loss(&self) -> f64 {
        self.mutual_loss / self.n.max(1) as f64
    }
}

/// What the passes of a step came to.
#[derive(Clone, Debug)]
pub(super) struct Passed {
    pub models: Vec<PassSums>,
    pub n_micro_batches: usize,
    /// Rows of the batches.
    pub n_examples: usize,
    /// Tokens without padding, of all models.
    pub n_tokens: usize,
}

/// A loader for as many models as the trainer has.
pub(super) fn check_loader(trainer: &Trainer, loader: &Loader) -> Result<()> {
    let (n, n_models) = (loader.datasets().len(), trainer.n_models());
    if n == n_models {
        let mut data = loader.datasets().iter().enumerate();
        return data.try_for_each(|(model, data)| check_names(trainer, model, data.names()));
    }
    Err(Error::invalid(format!(
        "a training loader for {}, but a trainer of {n_models}",
        count(n, "model")
    )))
}

/// Passes over as many micro-batches as a step accumulates, or those that the epoch has left.
pub(super) fn pass(trainer: &mut Trainer, loader: &mut Loader, proceed: Proceed) -> Result<Passed> {
    let wanted = trainer.optimizer().options().gradient_accumulation_steps.max(1) as usize;
    let mut passed = Passed {
        models: vec![PassSums::default(); trainer.n_models()],
        n_micro_batches: 0,
        n_examples: 0,
        n_tokens: 0,
    };
    while passed.n_micro_batches < wanted {
        proceed(Phase::ForwardBackward, None, trainer.optimizer().step_count())?;
        let Some(batches) = loader.next_batches()? else { break };
        let views: Vec<Vec<TensorView>> = batches.iter().map(views).collect();
        let views: Vec<&[TensorView]> = views.iter().map(Vec::as_slice).collect();
        let results = trainer.forward_backward_all(&views)?;
        passed.models.iter_mut().zip(&results).for_each(|(sums, result)| sums.add(result));
        passed.n_micro_batches += 1;
        passed.n_examples += batches.first().map_or(0, Batch::len);
        passed.n_tokens += batches.iter().map(|b| b.tokens).sum::<usize>();
        if is_at_end(loader) {
            break;
        }
    }
    Ok(passed)
}

/// Whether the epoch has no batch left.
pub(super) fn is_at_end(loader: &Loader) -> bool {
    loader.position() >= loader.n_batches()
}

fn views(batch: &Batch) -> Vec<TensorView<'_>> {
    batch.tensors.iter().map(|(name, tensor)| TensorView::of(name, tensor)).collect()
}
