//! Checks a proposed synchronisation within a step: it is kept only if no loss rises too much.

use super::log::Level;
use super::model::Model;
use super::trainer::{Trainer, in_model};
use crate::error::{Kind, Result};
use crate::optim::StepReport;

impl Trainer {
    /// Synchronises if no model's loss rises too much. The update before it is done and must be
    /// reported in any case: an error would say that the step can be repeated. So a check that is
    /// cancelled or fails leaves the synchronisation out, and only a defect of the library is an
    /// error.
    pub(super) fn sync_if_harmless(&mut self, report: &mut StepReport) -> Result<()> {
        match self.propose_and_check() {
            Ok(kept) => report.synced = kept,
            Err(error) if error.kind() == Kind::Internal => return Err(error),
            Err(error) => {
                report.sync_due = false;
                self.log.send(Level::Warning, || {
                    format!("step {}: synchronisation left out: {error}", report.step)
                });
            }
        }
        Ok(())
    }

    /// Synchronises: kept if no model's loss on its last batch rises by more than the option
    /// `max_loss_increase` says, else, and after an error, undone. Returns whether it was kept.
    fn propose_and_check(&mut self) -> Result<bool> {
        let limit = self.optimizer().options().max_loss_increase.unwrap_or(f64::INFINITY);
        let before = self.recompute_losses()?;
        if !self.propose_sync_of_ranks()? {
            return Ok(false);
        }
        let after = self.recompute_losses();
        let harmless = after.as_ref().is_ok_and(|after| {
            // The comparison is false for NaN.
            before.iter().zip(after).all(|(b, a)| a - b <= limit * b.abs())
        });
        if harmless {
            self.optimizer_mut().keep_sync()?;
        } else {
            self.optimizer_mut().undo_sync()?;
        }
        after.map(|_| harmless)
    }

    /// Every model's loss on its last batch with the parameters as they are now.
    fn recompute_losses(&mut self) -> Result<Vec<f64>> {
        let again = |m: &mut Model| m.recompute_loss().map_err(|e| in_model(e, &m.name));
        let own = self.models_mut().iter_mut().map(again).collect();
        self.losses_of_ranks(own)
    }
}
