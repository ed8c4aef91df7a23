//! Memory as the sweep sees it: the lanes of parameters and the workers' scratch.

use crate::memory::Floats;
use crate::optim::kernel::{Build, convert};
use crate::optim::plan::view::{BLOCK, MAX_ROWS, PITCH_GAP, STRIP_BUFFER};
use crate::tensor::DType;
use std::cell::UnsafeCell;

/// Raw memory of one parameter; null where there is none. Elements of `m`, `v`, `x` are f32 or,
/// with narrow moments, bfloat16.
#[derive(Clone, Copy)]
pub(crate) struct Lane {
    pub p: *mut f32,
    pub g: *const u8,
    pub g_type: DType,
    pub m: *mut u8,
    pub v: *mut u8,
    pub x: *mut u8,
    pub len: usize,
}

// SAFETY: the pointers are used only in unsafe functions whose callers vouch for the memory.
unsafe impl Send for Lane {}
// SAFETY: as above.
unsafe impl Sync for Lane {}

/// A worker's own memory. `tiles` holds gradient tiles, `strip` some runs of a turned member, the
/// rest one block each.
pub(crate) struct Scratch {
    pub tiles: Floats,
    pub strip: Floats,
    pub load: Floats,
    pub m: Floats,
    pub v: Floats,
    pub x: Floats,
}

impl Scratch {
    pub fn new(tile_floats: usize) -> Self {
        let block = || Floats::new(BLOCK);
        Self {
            tiles: Floats::new(tile_floats + PITCH_GAP * MAX_ROWS),
            strip: Floats::new(STRIP_BUFFER),
            load: block(),
            m: block(),
            v: block(),
            x: block(),
        }
    }
}

impl Scratch {
    /// One block, for converted gradients.
    pub fn load(&mut self) -> &mut [f32] {
        &mut self.load
    }
}

/// One scratch per worker.
pub(crate) struct Scratches(Vec<UnsafeCell<Scratch>>);
// SAFETY: each worker uses only the element of its own number, see `Scratches::of`.
unsafe impl Sync for Scratches {}

impl Scratches {
    pub fn new(workers: usize, tile_floats: usize) -> Self {
        Self((0..workers).map(|_| UnsafeCell::new(Scratch::new(tile_floats))).collect())
    }

    /// # Safety
    /// No other reference to this worker's scratch may live.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn of(&self, worker: usize) -> &mut Scratch {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.0[worker].get() }
    }
}

/// `n` elements of a lane's gradient from `offset`: the memory itself, or its conversion in
/// `load`, for which `n` must not exceed a block.
///
/// # Safety
/// The lane's gradient must be readable for `offset + n` elements.
pub(crate) unsafe fn gradient<'s>(
    build: Build,
    lane: &Lane,
    bound: f32,
    offset: usize,
    n: usize,
    load: &'s mut [f32],
) -> &'s [f32] {
    match lane.g_type {
        DType::BF16 => {
            // SAFETY: the caller's promise.
            let raw = unsafe { std::slice::from_raw_parts(lane.g.cast::<u16>().add(offset), n) };
            convert::from_bf16(build, raw, &mut load[..n]);
        }
        DType::F16 => {
            // SAFETY: the caller's promise.
            let raw =
                unsafe { std::slice::from_raw_parts(lane.g.cast::<half::f16>().add(offset), n) };
            convert::from_f16(raw, &mut load[..n]);
        }
        _ => {
            // SAFETY: the caller's promise.
            let raw = unsafe { std::slice::from_raw_parts(lane.g.cast::<f32>().add(offset), n) };
            if bound == f32::INFINITY {
                return raw;
            }
            convert::clamp(build, raw, bound, &mut load[..n]);
            return &load[..n];
        }
    }
    if bound != f32::INFINITY {
        for x in &mut load[..n] {
            *x = if *x > bound {
                bound
            } else if *x < -bound {
                -bound
            } else {
                *x
            };
        }
    }
    &load[..n]
}

/// Whether a gradient can be read in place.
pub(crate) fn is_direct(lane: &Lane, bound: f32) -> bool {
    lane.g_type == DType::F32 && bound == f32::INFINITY
}

/// A stretch of moments as f32; empty where there is none.
///
/// # Safety
/// `from` must be null or valid for `at + n` floats that nobody else uses meanwhile.
pub(crate) unsafe fn wide<'a>(from: *mut u8, at: usize, n: usize) -> &'a mut [f32] {
    if from.is_null() {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(from.cast::<f32>().add(at), n) }
}
