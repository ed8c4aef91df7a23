//! Dense copies of parameters that do not lie in memory as dense f32, and of strided gradients.
//!
//! The sweep works on dense buffers. Before a step the dense copy of a value is gathered from the
//! host's memory, after it scattered back. For values of a narrow type (bf16, f16) the copy is the
//! *master*: it keeps the digits that the narrow value cannot hold. The host's value always wins:
//! an element whose narrow value is no longer the rounded master was changed by the host and
//! replaces it.

use crate::error::Result;
use crate::optim::memory::param::ParamState;
use crate::optim::memory::strided::StridedArray;
use crate::optim::pool::Pool;
use crate::optim::sweep::buffers::ParamBuffers;
use crate::tensor::DType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// Elements of one work item.
const CHUNK: usize = 1 << 15;
/// Elements that are converted at once, on the stack.
const BLOCK: usize = 512;

/// A chunk of a parameter, in row-major order.
#[derive(Clone, Copy)]
struct CopyChunk {
    param: usize,
    start: usize,
    len: usize,
}

/// A narrow type as bits: exact widening, and rounding to the nearest, ties to even.
trait Narrow {
    fn widen(from: &[u16], to: &mut [f32]);
    fn round(from: &[f32], to: &mut [u16]);
}

impl Narrow for bf16 {
    #[inline]
    fn widen(from: &[u16], to: &mut [f32]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = f32::from_bits(u32::from(from) << 16);
        }
    }

    #[inline]
    fn round(from: &[f32], to: &mut [u16]) {
        for (to, &from) in to.iter_mut().zip(from) {
            let bits = from.to_bits();
            let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
            // A NaN stays one, whatever its payload was.
            *to = (if from.is_nan() { bits | 0x0040_0000 } else { nearest } >> 16) as u16;
        }
    }
}

impl Narrow for f16 {
    #[inline]
    fn widen(from: &[u16], to: &mut [f32]) {
        bytemuck::cast_slice::<u16, f16>(from).convert_to_f32_slice(to);
    }

    #[inline]
    fn round(from: &[f32], to: &mut [u16]) {
        bytemuck::cast_slice_mut::<u16, f16>(to).convert_from_f32_slice(from);
    }
}

/// Reads `to.len()` elements of one size, `stride` elements apart.
///
/// # Safety
/// All must be readable and aligned.
#[inline]
unsafe fn read<T: Copy>(from: *const T, stride: isize, to: &mut [T]) {
    if stride == 1 {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        return;
    }
    for (i, to) in to.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *to = unsafe { from.offset(i as isize * stride).read() };
    }
}

/// Writes elements, `stride` apart.
///
/// # Safety
/// All must be writable and aligned, and nobody else may use them meanwhile.
#[inline]
unsafe fn write<T: Copy>(from: &[T], to: *mut T, stride: isize) {
    if stride == 1 {
        // SAFETY: the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        return;
    }
    for (i, &from) in from.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { to.offset(i as isize * stride).write(from) };
    }
}

/// Gathers the host's narrow values where they are not the rounded master.
///
/// # Safety
/// As [`read`].
unsafe fn gather_narrow<N: Narrow>(from: *const u16, stride: isize, master: &mut [f32]) {
    let (mut host, mut ours, mut wide) = ([0u16; BLOCK], [0u16; BLOCK], [0f32; BLOCK]);
    for (i, master) in master.chunks_mut(BLOCK).enumerate() {
        let n = master.len();
        // SAFETY: the caller's promise.
        unsafe { read(from.offset((i * BLOCK) as isize * stride), stride, &mut host[..n]) };
        N::round(master, &mut ours[..n]);
        N::widen(&host[..n], &mut wide[..n]);
        for (((m, w), h), o) in master.iter_mut().zip(&wide).zip(&host).zip(&ours) {
            *m = if h == o { *m } else { *w };
        }
    }
}

/// Scatters the rounded master.
///
/// # Safety
/// As [`write`].
unsafe fn scatter_narrow<N: Narrow>(master: &[f32], to: *mut u16, stride: isize) {
    let mut ours = [0u16; BLOCK];
    for (i, master) in master.chunks(BLOCK).enumerate() {
        let ours = &mut ours[..master.len()];
        N::round(master, ours);
        // SAFETY: the caller's promise.
        unsafe { write(ours, to.offset((i * BLOCK) as isize * stride), stride) };
    }
}

/// Brings `dense`, which begins at element `start`, up to the host's values.
///
/// # Safety
/// The array must be readable.
unsafe fn gather(array: &StridedArray, start: usize, dense: &mut [f32]) {
    array.for_runs(start, dense.len(), |at, offset, n, stride| {
        let to = &mut dense[at..at + n];
        let (wide, narrow) = (array.data.cast::<f32>(), array.data.cast::<u16>());
        // SAFETY: the caller's promise; the offset lies in the array.
        unsafe {
            match array.dtype {
                DType::BF16 => gather_narrow::<bf16>(narrow.offset(offset), stride, to),
                DType::F16 => gather_narrow::<f16>(narrow.offset(offset), stride, to),
                _ => read(wide.offset(offset), stride, to),
            }
        }
    });
}

/// Writes `dense`, which begins at element `start`, to the host's memory.
///
/// # Safety
/// The array must be writable, and nobody else may use these elements.
unsafe fn scatter(array: &StridedArray, start: usize, dense: &[f32]) {
    array.for_runs(start, dense.len(), |at, offset, n, stride| {
        let from = &dense[at..at + n];
        let (wide, narrow) = (array.data.cast::<f32>(), array.data.cast::<u16>());
        // SAFETY: the caller's promise; the offset lies in the array.
        unsafe {
            match array.dtype {
                DType::BF16 => scatter_narrow::<bf16>(from, narrow.offset(offset), stride),
                DType::F16 => scatter_narrow::<f16>(from, narrow.offset(offset), stride),
                _ => write(from, wide.offset(offset), stride),
            }
        }
    });
}

/// Copies elements `start..start + len` of a strided array to a dense one of the same type.
///
/// # Safety
/// The array must be readable, `to` writable for its `len` elements from `start` on.
unsafe fn copy_dense(array: &StridedArray, start: usize, len: usize, to: *mut u8) {
    array.for_runs(start, len, |at, offset, n, stride| {
        // SAFETY: the caller's promise; gradients have elements of two or four bytes.
        unsafe {
            if array.dtype == DType::F32 {
                let to = std::slice::from_raw_parts_mut(to.cast::<u32>().add(start + at), n);
                read(array.data.cast::<u32>().offset(offset), stride, to);
            } else {
                let to = std::slice::from_raw_parts_mut(to.cast::<u16>().add(start + at), n);
                read(array.data.cast::<u16>().offset(offset), stride, to);
            }
        }
    });
}

/// The chunks of all parameters that have a dense copy.
#[derive(Default)]
pub(in crate::optim) struct DenseCopies {
    chunks: Vec<CopyChunk>,
}

impl DenseCopies {
    /// Cuts the parameters that have a dense copy into chunks.
    pub fn new(params: &[ParamState]) -> Self {
        let mut chunks = Vec::new();
        for (param, p) in params.iter().enumerate() {
            if p.dense_value.is_some() || p.dense_gradient.is_some() {
                let starts = (0..p.len).step_by(CHUNK);
                let chunk = |start| CopyChunk { param, start, len: CHUNK.min(p.len - start) };
                chunks.extend(starts.map(chunk));
            }
        }
        Self { chunks }
    }

    /// Runs `f` on each chunk of the parameters that `wanted` names.
    fn run(
        &self,
        pool: &mut Pool,
        wanted: impl Fn(usize) -> bool + Sync,
        f: impl Fn(CopyChunk) + Sync,
    ) -> Result<()> {
        if self.chunks.is_empty() {
            return Ok(());
        }
        pool.run(self.chunks.len(), &|_, i| {
            if wanted(self.chunks[i].param) {
                f(self.chunks[i]);
            }
        })
    }

    /// Brings the dense values up to the host's.
    pub fn gather_values(
        &self,
        pool: &mut Pool,
        params: &[ParamState],
        buffers: &[ParamBuffers],
    ) -> Result<()> {
        let wanted = |i: usize| has_dense_value(&params[i]);
        self.run(pool, wanted, |CopyChunk { param, start, len }| {
            // SAFETY: `bind` vouches for the host's memory; chunks are disjoint parts of the
            // optimizer's own tensor, which is as long as the parameter.
            unsafe {
                let dense = std::slice::from_raw_parts_mut(buffers[param].p.add(start), len);
                gather(&params[param].value, start, dense);
            }
        })
    }

    /// Writes the dense values of the parameters that changed.
    pub fn scatter_values(
        &self,
        pool: &mut Pool,
        params: &[ParamState],
        buffers: &[ParamBuffers],
        changed: impl Fn(usize) -> bool + Sync,
    ) -> Result<()> {
        let wanted = |i: usize| has_dense_value(&params[i]) && changed(i);
        self.run(pool, wanted, |CopyChunk { param, start, len }| {
            // SAFETY: as in `gather_values`.
            unsafe {
                let dense = std::slice::from_raw_parts(buffers[param].p.add(start), len);
                scatter(&params[param].value, start, dense);
            }
        })
    }

    /// Copies the strided gradients of one model, or of all.
    pub fn gather_gradients(
        &self,
        pool: &mut Pool,
        params: &[ParamState],
        buffers: &[ParamBuffers],
        model: Option<usize>,
    ) -> Result<()> {
        let wanted = |i: usize| {
            let p = &params[i];
            let asked = model.is_none_or(|m| m == p.model);
            asked && p.trainable && p.dense_gradient.is_some() && !buffers[i].g.is_null()
        };
        self.run(pool, wanted, |CopyChunk { param, start, len }| {
            // SAFETY: `bind` vouches for the host's memory; the buffer is the optimizer's own
            // tensor, as long as the parameter, and chunks are disjoint.
            unsafe {
                copy_dense(&params[param].gradient, start, len, buffers[param].g.cast_mut());
            }
        })
    }
}

fn has_dense_value(p: &ParamState) -> bool {
    p.dense_value.is_some() && !p.value.is_null()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every finite half and bfloat16, its neighbours' midpoints, and a little beyond.
    #[test]
    fn rounding_is_to_the_nearest_even() {
        fn check<N: Narrow>(widen: impl Fn(u16) -> f32, round: impl Fn(f32) -> u16) {
            for bits in 0..=u16::MAX {
                let mut wide = [0f32];
                N::widen(&[bits], &mut wide);
                assert!(wide[0].to_bits() == widen(bits).to_bits() || wide[0].is_nan());
                let x = wide[0];
                let nearby = [x, x * 1.001, f32::from_bits(x.to_bits().wrapping_add(0x8000))];
                for x in nearby.into_iter().chain([f32::from_bits(x.to_bits() ^ 0x1000)]) {
                    let mut narrow = [0u16];
                    N::round(&[x], &mut narrow);
                    if x.is_nan() {
                        N::widen(&narrow, &mut wide);
                        assert!(wide[0].is_nan());
                    } else {
                        assert_eq!(narrow[0], round(x), "{x:e}");
                    }
                }
            }
        }
        check::<bf16>(|b| bf16::from_bits(b).to_f32(), |x| bf16::from_f32(x).to_bits());
        check::<f16>(|b| f16::from_bits(b).to_f32(), |x| f16::from_f32(x).to_bits());
    }

    #[test]
    fn the_hosts_value_wins_and_else_the_digits_stay() {
        let mut master = vec![1.001f32; 1200];
        let rounded = bf16::from_f32(1.001).to_bits();
        let mut host = vec![rounded; 2400];
        host[2 * 700] = bf16::from_f32(5.0).to_bits();
        // SAFETY: both arrays are long enough.
        unsafe { gather_narrow::<bf16>(host.as_ptr(), 2, &mut master) };
        assert!(master.iter().enumerate().all(|(i, &m)| m == if i == 700 { 5.0 } else { 1.001 }));
        host.fill(7);
        // SAFETY: as above.
        unsafe { scatter_narrow::<bf16>(&master, host.as_mut_ptr(), 2) };
        assert!(host.iter().skip(1).step_by(2).all(|&h| h == 7));
        assert_eq!(host[2 * 699], rounded);
    }
}
