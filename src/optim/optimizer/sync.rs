//! Synchronisation on proposal: synchronise, evaluate the loss, then keep or undo.
//!
//! With a limit on the rise of the loss, a step does not synchronise by itself but reports that it
//! is due; whoever runs the models proposes it, evaluates the loss on the current batch before and
//! after, and keeps it only when the loss rose by no more than the limit.

use crate::error::{Error, Result};
use crate::optim::optimizer::Optimizer;
use crate::optim::optimizer::peers::{Alone, Distribution, Peers, Stage, settled};
use crate::optim::sweep::sharing::Prepared;

impl Optimizer {
    /// Synchronises all groups now, with β, keeping a copy of what it changes (one buffer per
    /// grouped parameter, allocated at the first call and reused). False when no group has two
    /// members that took member in the last step. Must be followed by [`Optimizer::keep_sync`] or
    /// [`Optimizer::undo_sync`] before the next step.
    pub fn propose_sync(&mut self) -> Result<bool> {
        self.propose_sync_with(&mut Alone)
    }

    /// As [`Optimizer::propose_sync`], as one of several processes, all of which call it.
    pub(crate) fn propose_sync_with(&mut self, peers: &mut dyn Peers) -> Result<bool> {
        if self.sync.is_proposed() {
            return Err(Error::state("a synchronisation is already proposed; keep or undo it"));
        }
        self.prepare_sharing(Prepared { sync: true, ..Prepared::default() });
        if self.sharing.tiling.groups.iter().all(|g| g.beta == 0.0) {
            return Ok(false);
        }
        let saved = self.save_synced();
        settled(peers, Stage::Proposed, saved)?;
        if self.distribution == Distribution::Models {
            self.exchange_shared_values(true, peers)?;
        }
        self.executor.synchronise(&self.sharing)?;
        self.scatter_synced()?;
        self.sync.propose();
        Ok(true)
    }

    fn save_synced(&mut self) -> Result<()> {
        let Self { params, sharing, sync, executor, .. } = self;
        params.gather_values(&mut executor.pool)?;
        sync.save(&sharing.tiling.members, &executor.param_steps, &params.buffers)
    }

    /// Accepts the proposed synchronisation.
    pub fn keep_sync(&mut self) -> Result<()> {
        self.sync.keep()
    }

    /// Takes the proposed synchronisation back, bit by bit.
    pub fn undo_sync(&mut self) -> Result<()> {
        let members = &self.sharing.tiling.members;
        self.sync.undo(members, &self.executor.param_steps, &self.params.buffers)?;
        self.scatter_synced()
    }

    /// Synchronisations that were undone.
    pub fn undone_syncs(&self) -> u64 {
        self.sync.undone
    }

    fn scatter_synced(&mut self) -> Result<()> {
        let steps = &self.executor.param_steps;
        self.params.scatter_values(&mut self.executor.pool, |i| steps[i].synced)
    }
}
