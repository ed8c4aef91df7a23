//! One work item of a sweep: whichever way its group mixes, then its synchronisation.

use crate::optim::sweep::scratch::Scratch;
use crate::optim::sweep::tile::Tile;
use crate::optim::sweep::update::Sweep;
use crate::optim::sweep::work::{Mixing, SweepMember, WorkItem};

impl Sweep<'_> {
    /// Runs an item.
    ///
    /// # Safety
    /// All memory behind the buffers must be valid for their length, and nobody else may use it
    /// meanwhile.
    pub unsafe fn run(&self, s: &mut Scratch, item: &WorkItem) {
        match *item {
            // SAFETY: the caller's promise.
            WorkItem::Chunk { param, start, len } => unsafe {
                self.update_chunk(s, param, start, len)
            },
            // SAFETY: the caller's promise.
            WorkItem::Tile { group, tile } => unsafe { self.run_tile(s, group, &tile) },
        }
    }

    /// Whether a model of a group runs in this process; else gradients and newest values of the
    /// group are not here.
    pub(in crate::optim) fn is_local(&self, members: &[SweepMember]) -> bool {
        members.iter().any(|m| self.param_steps[m.param].local)
    }

    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn run_tile(&self, s: &mut Scratch, group: usize, tile: &Tile) {
        let group = self.groups[group];
        let members = &self.members[group.first..group.first + group.n];
        if !self.is_local(members) {
            return;
        }
        // SAFETY: the caller's promise.
        unsafe {
            if self.updates {
                match group.mixing {
                    Mixing::Separate => self.update_separate(s, members, tile),
                    Mixing::Shared { alpha } => self.update_shared(s, members, tile, alpha),
                    Mixing::Matrix { at, k } => self.update_by_matrix(s, members, tile, at, k),
                }
            }
            if group.beta != 0.0 {
                self.synchronise(s, members, tile, group.beta);
            }
        }
    }
}
