//! Passes of all ranks: what is told of them, and what part of it is this rank's.

use super::exchange::{Call, Numbers, PER_MODEL, Sums};
use super::{Agreed, Ranks};
use crate::error::{Error, Result};
use crate::train::batch::{Batch, FILLER};
use crate::train::model::Run;
use crate::train::trainer::Trainer;

impl Trainer {
    /// Adds up over all ranks what one or all models' passes gave.
    pub(in crate::train) fn agree_on_passes(
        &mut self,
        call: Call,
        runs: &[(usize, &Run)],
        batches: &[Batch],
    ) -> Result<Vec<Agreed>> {
        let is_mutual = self.mutual.is_some();
        let own = |(&(_, run), batch): (&(usize, &Run), &Batch)| {
            let mut own = Agreed::alone(run);
            own.weight = weight_of(run.weight, batch, is_mutual);
            own.own_weight = own.weight;
            if is_filler(batch) {
                own = Agreed { n_correct: 0, n_labels: 0, ..own };
            }
            own
        };
        let mut own: Vec<Agreed> = runs.iter().zip(batches).map(own).collect();
        let Some(ranks) = self.ranks.as_mut().filter(|r| r.is_joint()) else { return Ok(own) };
        if ranks.is_placed() {
            let misread = agree_on_placed(ranks, call, runs, batches, &mut own)?;
            return match misread {
                None => Ok(own),
                Some(model) => Err(Error::state(format!(
                    "model '{}': ranks have different batches; with placement every rank reads \
                     the same whole batches (rank 0 and n_ranks 1 of the loader, or the number of \
                     its group and of groups)",
                    self.model_name(model)?
                ))),
            };
        }
        let mut numbers = vec![Numbers::default(); ranks.n_models];
        runs.iter().zip(&own).for_each(|(&(model, _), own)| numbers[model] = own.numbers());
        let sums = ranks.exchange(call, &numbers)?;
        if ranks.size() == 1 {
            return Ok(own);
        }
        let of = |(&(model, _), own): (&(usize, &Run), &Agreed)| {
            sums.get(model).map(|s| Agreed::of(s, own.own_weight))
        };
        let all: Option<Vec<Agreed>> = runs.iter().zip(&own).map(of).collect();
        all.ok_or_else(|| Error::internal("numbers of a model are missing"))
    }

    /// Notes what part of a model's gradient is this rank's, once its pass counts. After a step
    /// that failed, the sums over all ranks are those of rank 0 from here on.
    pub(in crate::train) fn note_share(&mut self, model: usize, agreed: &Agreed) -> Result<()> {
        let Some(ranks) = self.ranks.as_mut().filter(|r| r.is_joint()) else { return Ok(()) };
        if ranks.data_parallel().is_none() || !ranks.runs(model) {
            return Ok(());
        }
        ranks.shares[model] = agreed.weight().share();
        ranks.summed_early[model] = false;
        if std::mem::replace(&mut ranks.summed[model], false) && ranks.data_parallel_place().0 > 0 {
            for sum in self.optimizer_mut().gradient_sums_mut(model)?.into_iter().flatten() {
                sum.fill(0.0);
            }
        }
        Ok(())
    }
}

/// What passes of models on different ranks gave, each on its rank; or a model of which ranks have
/// read different batches.
fn agree_on_placed(
    ranks: &Ranks,
    call: Call,
    runs: &[(usize, &Run)],
    batches: &[Batch],
    own: &mut [Agreed],
) -> Result<Option<usize>> {
    let others = ranks.size() as f64 - 1.0;
    let mut numbers = vec![Numbers::default(); ranks.n_models];
    for ((&(model, _), own), batch) in runs.iter().zip(&*own).zip(batches) {
        // The sum is 0 where all have the same.
        let checksum = checksum(batch);
        if ranks.runs(model) {
            numbers[model] =
                if ranks.replicas.is_none() { own.as_they_are() } else { own.numbers() };
            numbers[model][BATCH] = others * checksum;
        } else {
            numbers[model][BATCH] = -checksum;
        }
    }
    let Sums { group, all } = ranks.exchange_in_group(call, &numbers)?;
    for (&(model, _), own) in runs.iter().zip(own) {
        *own = match ranks.replicas {
            None => Agreed::from_its_rank(&all[model]),
            // The weight of this group's batch, on each of its ranks.
            Some(_) => Agreed::of(&all[model], group[model][0]),
        };
    }
    let differs = |(group, all): (&Numbers, &Numbers)| group[BATCH] != 0.0 || all[BATCH] != 0.0;
    Ok(group.iter().zip(&all).position(differs))
}

/// The place of a batch's checksum among a pass's numbers, where models are on different ranks.
const BATCH: usize = PER_MODEL - 1;

/// A number below 2^24, of which sums are exact.
fn checksum(batch: Batch) -> f64 {
    let mut sum = crc32fast::Hasher::new();
    for view in batch {
        sum.update(view.name.as_bytes());
        view.shape.iter().for_each(|n| sum.update(&n.to_le_bytes()));
        sum.update(view.data);
    }
    f64::from(sum.finalize() >> 8)
}

/// What a pass over a batch weighs among those of all ranks.
pub(super) fn weight_of(weight: f64, batch: Batch, is_mutual: bool) -> f64 {
    if is_filler(batch) {
        return 0.0;
    }
    // With mutual learning a micro-batch without labels teaches all the same.
    if is_mutual && weight == 0.0 { 1.0 } else { weight }
}

/// Whether a batch is there only so that its rank has one.
fn is_filler(batch: Batch) -> bool {
    batch.iter().any(|v| v.name == FILLER)
}
