//! The workers' scratch memory.

use crate::error::Result;
use crate::memory::{Floats, Gather};
use crate::optim::sweep::tile::{BLOCK, MAX_ROWS, PITCH_GAP, STRIP_BUFFER};
use std::cell::UnsafeCell;

/// A worker's own memory. `tiles` holds gradient tiles, `strip` some runs of a transposed member,
/// the rest one block each.
pub(crate) struct Scratch {
    pub tiles: Floats,
    pub strip: Floats,
    pub load: Floats,
    pub m: Floats,
    pub v: Floats,
    pub x: Floats,
}

impl Scratch {
    pub fn new(tile_floats: usize) -> Result<Self> {
        let block = || Floats::new(BLOCK);
        Ok(Self {
            tiles: Floats::new(tile_floats + PITCH_GAP * MAX_ROWS)?,
            strip: Floats::new(STRIP_BUFFER)?,
            load: block()?,
            m: block()?,
            v: block()?,
            x: block()?,
        })
    }

    /// One block, for converted gradients.
    pub fn load(&mut self) -> &mut [f32] {
        &mut self.load
    }
}

/// One scratch per worker.
#[derive(Default)]
pub(crate) struct WorkerScratch(Vec<UnsafeCell<Scratch>>);
// SAFETY: each worker uses only the element of its own number, see `WorkerScratch::of`.
unsafe impl Sync for WorkerScratch {}

impl WorkerScratch {
    pub fn new(workers: usize, tile_floats: usize) -> Result<Self> {
        let one = |_| Scratch::new(tile_floats).map(UnsafeCell::new);
        (0..workers).map(one).gathered_or_error().map(Self)
    }

    /// # Safety
    /// No other reference to this worker's scratch may live.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn of(&self, worker: usize) -> &mut Scratch {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.0[worker].get() }
    }
}
