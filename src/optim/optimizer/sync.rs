//! Synchronisation on trial: propose, look at the loss, then keep or undo.
//!
//! With the option `barrier` set, a step does not synchronise by itself but reports that it is
//! due; whoever runs the models proposes it, evaluates the loss on the current batch before and
//! after, and keeps it only when the loss rose by no more than the barrier.

use crate::error::{Error, Result};
use crate::optim::optimizer::Optimizer;
use crate::tensor::{DType, Tensor};

impl Optimizer {
    /// Synchronises all groups now, with β, keeping a copy of what it changes (one buffer per
    /// grouped parameter, allocated at the first call and reused). False when no group has two
    /// members that took part in the last step. Must be followed by [`Optimizer::keep_sync`] or
    /// [`Optimizer::undo_sync`] before the next step.
    pub fn propose_sync(&mut self) -> Result<bool> {
        if self.proposed {
            return Err(Error::state("a synchronisation is already proposed; keep or undo it"));
        }
        self.prepare_groups(false, true);
        if self.layout.bundles.iter().all(|b| b.beta == 0.0) {
            return Ok(false);
        }
        self.gather_values()?;
        self.save_grouped()?;
        self.sweep(true, false)?;
        self.scatter_values(false, true)?;
        self.proposed = true;
        Ok(true)
    }

    fn save_grouped(&mut self) -> Result<()> {
        if self.saved.len() != self.params.len() {
            self.saved.resize_with(self.params.len(), || None);
        }
        for part in &self.layout.parts {
            let (i, own) = (part.param, self.own[part.param]);
            if !own.synced {
                continue;
            }
            let p = &self.params[i];
            let lane = &self.bound[i];
            let tensor = match &mut self.saved[i] {
                Some(t) => t,
                slot => slot.insert(Tensor::zeros(DType::F32, &[p.len])?),
            };
            // SAFETY: `bind` vouches for the lane.
            let values = unsafe { std::slice::from_raw_parts(lane.p, p.len) };
            tensor.as_mut_slice::<f32>()?.copy_from_slice(values);
        }
        Ok(())
    }

    /// Accepts the proposed synchronisation.
    pub fn keep_sync(&mut self) -> Result<()> {
        self.settle()
    }

    /// Takes the proposed synchronisation back, bit by bit.
    pub fn undo_sync(&mut self) -> Result<()> {
        self.settle()?;
        self.refused += 1;
        for part in &self.layout.parts {
            let (i, own) = (part.param, self.own[part.param]);
            let Some(saved) = &self.saved[i] else { continue };
            if own.synced {
                let lane = &self.bound[i];
                // SAFETY: `bind` vouches for the lane.
                let values = unsafe { std::slice::from_raw_parts_mut(lane.p, lane.len) };
                values.copy_from_slice(saved.as_slice()?);
            }
        }
        self.scatter_values(false, true)
    }

    /// Synchronisations that were undone.
    pub fn refused_syncs(&self) -> u64 {
        self.refused
    }

    fn settle(&mut self) -> Result<()> {
        if !self.proposed {
            return Err(Error::state("no synchronisation is proposed"));
        }
        self.proposed = false;
        Ok(())
    }
}
