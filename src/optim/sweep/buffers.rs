//! What a sweep knows of one parameter: its memory, and its part in this step.

use crate::optim::kernel::convert;
use crate::optim::kernel::simd::Build;
use crate::tensor::DType;

/// Raw memory of one parameter; null where there is none. Elements of `m`, `v`, `x` are f32 or,
/// with narrow moments, bfloat16.
#[derive(Clone, Copy)]
pub(crate) struct ParamBuffers {
    pub p: *mut f32,
    pub g: *const u8,
    pub g_type: DType,
    pub m: *mut u8,
    pub v: *mut u8,
    pub x: *mut u8,
    pub len: usize,
}

impl ParamBuffers {
    /// No memory yet.
    pub fn none(len: usize) -> Self {
        let null = std::ptr::null_mut();
        let (p, g) = (std::ptr::null_mut(), std::ptr::null());
        Self { p, g, g_type: DType::F32, m: null, v: null, x: null, len }
    }
}

// SAFETY: the pointers are used only in unsafe functions whose callers vouch for the memory.
unsafe impl Send for ParamBuffers {}
// SAFETY: as above.
unsafe impl Sync for ParamBuffers {}

/// What one parameter does in this step.
#[derive(Clone, Copy)]
pub(crate) struct ParamStep {
    /// Whether it is updated, here or in another process.
    pub active: bool,
    /// Whether it is synchronised.
    pub synced: bool,
    /// Whether this process runs its model.
    pub local: bool,
    /// Whether this process updates it.
    pub state_here: bool,
    /// Factor on its gradient: accumulation and clipping.
    pub grad_scale: f32,
    /// Elements are clamped to ± this before the factor; infinity does nothing.
    pub clip_value: f32,
}

impl ParamStep {
    /// Takes no part.
    pub const IDLE: Self = Self {
        active: false,
        synced: false,
        local: true,
        state_here: true,
        grad_scale: 1.0,
        clip_value: f32::INFINITY,
    };

    /// Whether this process updates it in this step.
    pub fn is_updated_here(&self) -> bool {
        self.active && self.state_here
    }
}

/// `n` elements of a parameter's gradient from `offset`: the memory itself, or its conversion in
/// `load`, for which `n` must not exceed a block.
///
/// # Safety
/// The gradient must be readable for `offset + n` elements.
pub(crate) unsafe fn gradient<'s>(
    build: Build,
    buffers: &ParamBuffers,
    clip_value: f32,
    offset: usize,
    n: usize,
    load: &'s mut [f32],
) -> &'s [f32] {
    match buffers.g_type {
        DType::BF16 => {
            // SAFETY: the caller's promise.
            let raw = unsafe { std::slice::from_raw_parts(buffers.g.cast::<u16>().add(offset), n) };
            convert::from_bf16(build, raw, &mut load[..n]);
        }
        DType::F16 => {
            // SAFETY: the caller's promise.
            let raw =
                unsafe { std::slice::from_raw_parts(buffers.g.cast::<half::f16>().add(offset), n) };
            convert::from_f16(raw, &mut load[..n]);
        }
        _ => {
            // SAFETY: the caller's promise.
            let raw = unsafe { std::slice::from_raw_parts(buffers.g.cast::<f32>().add(offset), n) };
            if clip_value == f32::INFINITY {
                return raw;
            }
            convert::clamp(build, raw, clip_value, &mut load[..n]);
            return &load[..n];
        }
    }
    if clip_value != f32::INFINITY {
        for x in &mut load[..n] {
            *x = if *x > clip_value {
                clip_value
            } else if *x < -clip_value {
                -clip_value
            } else {
                *x
            };
        }
    }
    &load[..n]
}

/// Whether a gradient can be read in place.
pub(crate) fn is_direct(buffers: &ParamBuffers, clip_value: f32) -> bool {
    buffers.g_type == DType::F32 && clip_value == f32::INFINITY
}

/// Some elements of a moment as f32; empty where there is none.
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
