//! Passes of all ranks: what is told of them, and what part of it is this rank's.

use super::Agreed;
use super::exchange::{Call, Numbers};
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
            // With mutual learning a micro-batch without labels teaches all the same.
            if is_mutual && own.weight == 0.0 {
                (own.weight, own.own_weight) = (1.0, 1.0);
            }
            if is_filler(batch) {
                own = Agreed { n_correct: 0, n_labels: 0, weight: 0.0, own_weight: 0.0, ..own };
            }
            own
        };
        let own: Vec<Agreed> = runs.iter().zip(batches).map(own).collect();
        let Some(ranks) = self.ranks.as_mut().filter(|r| r.is_joint()) else { return Ok(own) };
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
        ranks.shares[model] = agreed.weight().share();
        if std::mem::replace(&mut ranks.summed[model], false) && ranks.rank() > 0 {
            for sum in self.optimizer_mut().gradient_sums_mut(model)?.into_iter().flatten() {
                sum.fill(0.0);
            }
        }
        Ok(())
    }
}

/// Whether a batch is there only so that its rank has one.
fn is_filler(batch: Batch) -> bool {
    batch.iter().any(|v| v.name == FILLER)
}
