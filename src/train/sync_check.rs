//! Synchronisation on trial within a step: kept only if it does no harm.

use super::log::Level;
use super::model::Model;
use super::trainer::{Trainer, in_model};
use crate::error::{Kind, Result};
use crate::optim::StepReport;

impl Trainer {
    /// Tries the synchronisation that is due. The update before it is done and must be reported,
    /// whatever becomes of the trial: an error would say that the step can be taken again. So a
    /// trial that is cancelled or fails is left out, and only a defect of the library is an error.
    pub(super) fn try_sync(&mut self, report: &mut StepReport) -> Result<()> {
        match self.is_harmless() {
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
    /// `barrier` says, else, and after an error, taken back. Returns whether it was kept.
    fn is_harmless(&mut self) -> Result<bool> {
        let limit = self.optimizer().options().barrier.unwrap_or(f64::INFINITY);
        let before = self.losses_again()?;
        if !self.optimizer_mut().propose_sync()? {
            return Ok(false);
        }
        let after = self.losses_again();
        let harmless = after.as_ref().is_ok_and(|after| {
            // NaN is no number to be at most anything.
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
    fn losses_again(&mut self) -> Result<Vec<f64>> {
        let again = |m: &mut Model| m.loss_again().map_err(|e| in_model(e, &m.name));
        self.models_mut().iter_mut().filter_map(|m| again(m).transpose()).collect()
    }
}
