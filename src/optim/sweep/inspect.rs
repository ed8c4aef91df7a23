//! The one read of the gradients before the update, where something needs it: squares for norms and
//! non-finite values, inner products for rules and metrics.

use crate::optim::kernel::{convert, reduce};
use crate::optim::pool::DisjointSlice;
use crate::optim::sweep::buffers::{gradient, is_direct};
use crate::optim::sweep::scratch::Scratch;
use crate::optim::sweep::tile::BLOCK;
use crate::optim::sweep::update::Sweep;
use crate::optim::sweep::work::{SweepGroup, WorkItem};

/// The greatest absolute elements of a parameter's gradient, as it lies in memory, its moments and
/// its values.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::optim) struct Largest {
    pub g: f32,
    pub m: f32,
    pub v: f32,
    pub p: f32,
}

impl Largest {
    /// The greater of each.
    pub fn or(self, other: Self) -> Self {
        Self {
            g: self.g.max(other.g),
            m: self.m.max(other.m),
            v: self.v.max(other.v),
            p: self.p.max(other.p),
        }
    }
}

impl Sweep<'_> {
    /// The largest elements of a chunk; `is_bf16` are its moments.
    ///
    /// # Safety
    /// The chunk's memory must be readable, and nobody may write to it meanwhile.
    pub(in crate::optim) unsafe fn largest(
        &self,
        s: &mut Scratch,
        param: usize,
        [start, len]: [usize; 2],
        is_bf16: bool,
    ) -> Largest {
        let buffers = &self.buffers[param];
        let active = self.param_steps[param].active && !buffers.g.is_null();
        let mut found = Largest::default();
        for at in (start..start + len).step_by(BLOCK) {
            let n = BLOCK.min(start + len - at);
            // SAFETY: the caller's promise.
            let moment = |from: *mut u8, load: &mut [f32]| unsafe {
                if from.is_null() {
                    return 0.0;
                }
                if is_bf16 {
                    let raw = std::slice::from_raw_parts(from.cast::<u16>().add(at), n);
                    convert::from_bf16(self.build, raw, &mut load[..n]);
                    return reduce::largest(self.build, &load[..n]);
                }
                let wide = std::slice::from_raw_parts(from.cast::<f32>().add(at), n);
                reduce::largest(self.build, wide)
            };
            let (m, v) = (moment(buffers.m, &mut s.m), moment(buffers.v, &mut s.v));
            let mut here = Largest { m, v, ..Largest::default() };
            if active {
                // SAFETY: as above; an active parameter has values and a gradient.
                unsafe {
                    let g = gradient(self.build, buffers, f32::INFINITY, at, n, s.load());
                    here.g = reduce::largest(self.build, g);
                    let p = std::slice::from_raw_parts(buffers.p.add(at), n);
                    here.p = reduce::largest(self.build, p);
                }
            }
            found = found.or(here);
        }
        found
    }

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
                let step = self.param_steps[param];
                let active = step.active && step.local;
                // SAFETY: the caller's promise.
                unsafe {
                    let sum = if active { self.square(param, start, len, s.load()) } else { 0.0 };
                    out.at(at, 1)[0] = sum;
                }
            }
            WorkItem::Tile { group, tile } => {
                let SweepGroup { first, n, .. } = self.groups[group];
                self.prefetch_rows(&self.members[first..first + n], &tile, false);
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
