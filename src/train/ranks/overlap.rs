//! Gradients that are summed over the ranks while passes still run.
//!
//! Passes run on threads of the library, and the thread that called into it sums: an engine is
//! called by one thread, as ever. The order is that of models on every rank, in whatever order
//! passes end. Before the sums of a model one small exchange tells what its pass weighs on all
//! ranks, and that none has failed. The gradients become sums where they lie. Nothing else knows of
//! them until the passes of all models are good on all ranks: else they count as little as those of
//! any pass that has failed.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use super::exchange::{Call, Numbers};
use super::gradients::{Part, sum_in_buckets};
use super::passes::weight_of;
use super::{Ended, Ranks};
use crate::error::{Error, Kind, Result};
use crate::optim::PassWeight;
use crate::threads::beside;
use crate::train::batch::Batch;
use crate::train::model::{Model, Run};
use crate::train::trainer::Trainer;

/// What the sums of one call need to know.
struct Sums<'a> {
    ranks: &'a mut Ranks,
    /// Which parameters of each model are trained; none of a model that only teaches.
    trained: Vec<Vec<bool>>,
    batches: &'a [Batch<'a>],
    is_mutual: bool,
    /// The model that comes next.
    next: usize,
}

impl Ranks {
    /// Whether gradients are summed in passes of all models.
    pub(in crate::train) fn sums_early(&self) -> bool {
        self.options.overlap && self.is_joint() && !self.is_placed()
    }

    /// Runs the passes, and sums the gradients of each as it ends. `passes` hands over each model,
    /// or leaves it where it is: then it comes last.
    pub(in crate::train) fn sum_beside(
        &mut self,
        models: &mut [Model],
        trained: Vec<Vec<bool>>,
        (batches, is_mutual): (&[Batch], bool),
        passes: impl for<'m> FnOnce(&'m mut [Model], Ended<'m>) -> Result<Vec<Run>> + Send,
    ) -> Result<Vec<Run>> {
        let mut sums = Sums { ranks: self, trained, batches, is_mutual, next: 0 };
        let (runs, summed) = {
            let (sender, receiver) = std::sync::mpsc::channel();
            let models = &mut *models;
            beside(|| passes(models, Ended(Some(sender))), || sums.as_they_end(&receiver))
        };
        match (runs, summed) {
            // Ranks do not agree any more.
            (_, Err(error)) if error.kind() == Kind::Communication => Err(error),
            (Err(error), _) | (_, Err(error)) => Err(error),
            (Ok(runs), Ok(())) => {
                sums.rest(models, &runs)?;
                Ok(runs)
            }
        }
    }
}

impl Trainer {
    /// Notes that gradients of the passes that count now are sums over the ranks.
    pub(in crate::train) fn note_early_sums(&mut self) {
        let teaches: Vec<bool> = self.models().iter().map(Model::only_teaches).collect();
        let Some(ranks) = self.ranks.as_mut().filter(|r| r.sums_early()) else { return };
        for (model, teaches) in teaches.into_iter().enumerate() {
            (ranks.summed[model], ranks.summed_early[model]) = (!teaches, !teaches);
        }
    }

    /// Refuses to change a gradient of which the sum over the ranks was taken.
    pub(in crate::train) fn check_not_summed(&self, model: usize) -> Result<()> {
        if !self.ranks.as_ref().is_some_and(|r| r.summed_early[model]) {
            return Ok(());
        }
        Err(Error::state(
            "its sum over the ranks was taken in the pass; leave out the option overlap of the \
             ranks to replace gradients",
        ))
    }
}

impl Sums<'_> {
    /// Sums the gradients of the models that are handed over, in order, until no more are.
    fn as_they_end(&mut self, receiver: &Receiver<(usize, &mut Model, f64)>) -> Result<()> {
        let mut ended: Vec<Option<(&mut Model, f64)>> = Vec::new();
        ended.resize_with(self.trained.len(), || None);
        self.skip_teachers();
        while self.next < self.trained.len() {
            if let Some((model, weight)) = ended[self.next].take() {
                self.sum(model, weight)?;
                continue;
            }
            let Ok((i, model, weight)) = receiver.recv() else { break };
            ended[i] = Some((model, weight));
        }
        Ok(())
    }

    /// Sums the gradients of the models that nobody handed over.
    fn rest(&mut self, models: &mut [Model], runs: &[Run]) -> Result<()> {
        while let Some((model, run)) = models.get_mut(self.next).zip(runs.get(self.next)) {
            self.sum(model, run.weight)?;
        }
        Ok(())
    }

    fn skip_teachers(&mut self) {
        while self.trained.get(self.next).is_some_and(Vec::is_empty) {
            self.next += 1;
        }
    }

    /// Replaces the gradients of the next model by those of the whole batch.
    fn sum(&mut self, model: &mut Model, weight: f64) -> Result<()> {
        let i = self.next;
        let own = weight_of(weight, self.batches[i], self.is_mutual);
        let trained = &self.trained[i];
        let is_summed = |(p, trained): (&crate::train::parameter::Parameter, &bool)| {
            u8::from(*trained && p.gradient().is_some())
        };
        let set: Vec<u8> = model.parameters.iter().zip(trained).map(is_summed).collect();
        let total = self.ranks.agree_on_sums(i, &model.name, own, &set)?;
        let factor = PassWeight { total, own }.share();
        let mut parts = Vec::new();
        for (parameter, _) in model.parameters.iter_mut().zip(&set).filter(|(_, s)| **s != 0) {
            parts.push(Part { values: parameter.gradient_mut()?.as_mut_slice()?, factor });
        }
        let Ranks { comm, bucket, sums: narrow, .. } = &mut *self.ranks;
        comm.with(|comm| sum_in_buckets(comm, &mut parts, bucket, narrow))?;
        self.next += 1;
        self.skip_teachers();
        Ok(())
    }
}

impl Ranks {
    /// The weight of a model's passes on all ranks together, which must have gradients of the same
    /// parameters.
    fn agree_on_sums(&self, model: usize, name: &str, own: f64, set: &[u8]) -> Result<f64> {
        let mut numbers = vec![Numbers::default(); self.n_models];
        let x = f64::from(crc32fast::hash(set) >> 8);
        numbers[model] = [own, x, x * x, 0.0, 0.0, 0.0];
        let sums = self.exchange(Call::PassPart, &numbers)?;
        let [total, x, squares, ..] = sums[model];
        if self.size() as f64 * squares == x * x {
            return Ok(total);
        }
        // All ranks see it.
        self.agreed.store(true, Ordering::Relaxed);
        Err(Error::state(format!("model '{name}': ranks have gradients of different parameters")))
    }
}
