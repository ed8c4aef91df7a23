//! One work item of a sweep: whichever way its group mixes, then its synchronisation.

use crate::optim::kernel::prefetch::{prefetch_bytes, runs_ahead};
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
        if self.updates {
            self.prefetch_rows(members, tile, true);
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

    /// Rows in an order of their own are tiles of one row each, of which only the next knows the
    /// one before: too late for the memory. Gradients, and all that an update reads.
    pub(in crate::optim) fn prefetch_rows(
        &self,
        members: &[SweepMember],
        tile: &Tile,
        update: bool,
    ) {
        let ahead = Tile { row: tile.row + runs_ahead(tile.cols), ..*tile };
        let bytes = |size: usize| ahead.cols * size;
        for member in members.iter().filter(|m| m.view.rows.is_some()) {
            let (step, b) = (self.param_steps[member.param], &self.buffers[member.param]);
            if ahead.row >= member.view.runs || !step.active {
                continue;
            }
            let at = member.view.first(&ahead);
            let wide = size_of::<f32>();
            let moment = if self.rounding_seed.is_some() { size_of::<u16>() } else { wide };
            let gradient = b.g_type.size();
            prefetch_bytes(b.g.wrapping_add(at * gradient), bytes(gradient));
            if update && step.state_here {
                prefetch_bytes(b.p.wrapping_add(at).cast(), bytes(wide));
                for m in [b.m, b.v, b.x].into_iter().filter(|m| !m.is_null()) {
                    prefetch_bytes(m.wrapping_add(at * moment), bytes(moment));
                }
            }
        }
    }
}
