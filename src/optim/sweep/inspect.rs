//! The one read of the gradients before the update, where something needs it: squares for norms and
//! non-finite values, inner products for rules and metrics.

use crate::optim::kernel::reduce;
use crate::optim::pool::DisjointSlice;
use crate::optim::sweep::buffers::{gradient, is_direct};
use crate::optim::sweep::scratch::Scratch;
use crate::optim::sweep::tile::BLOCK;
use crate::optim::sweep::update::Sweep;
use crate::optim::sweep::work::WorkItem;

impl Sweep<'_> {
    /// Σ g² of a chunk, or all inner products of a tile, into `out` from `at` on.
    ///
    /// # Safety
    /// The item's partial sums must be its own; the gradients must be readable.
    pub(in crate::optim) unsafe fn inspect(
        &self,
        s: &mut Scratch,
        item: &WorkItem,
        at: usize,
        out: &DisjointSlice<f64>,
    ) {
        match *item {
            WorkItem::Chunk { param, start, len } => {
                let active = self.param_steps[param].active;
                // SAFETY: the caller's promise.
                unsafe {
                    let sum = if active { self.square(param, start, len, s.load()) } else { 0.0 };
                    out.at(at, 1)[0] = sum;
                }
            }
            WorkItem::Tile { group, tile } => {
                let n = self.groups[group].n;
                // SAFETY: the caller's promise.
                unsafe { self.products(s, group, &tile, out.at(at, n * n)) };
            }
        }
    }

    /// Σ g² of some elements of a parameter.
    ///
    /// # Safety
    /// The gradient must be readable there.
    unsafe fn square(&self, param: usize, start: usize, len: usize, load: &mut [f32]) -> f64 {
        let buffers = &self.buffers[param];
        let block = if is_direct(buffers, f32::INFINITY) { len } else { BLOCK };
        let mut total = 0.0;
        let mut at = start;
        while at < start + len {
            let n = block.min(start + len - at);
            // SAFETY: the caller's promise.
            let g = unsafe { gradient(self.build, buffers, f32::INFINITY, at, n, load) };
            total += reduce::dot(self.build, g, g);
            at += n;
        }
        total
    }
}
