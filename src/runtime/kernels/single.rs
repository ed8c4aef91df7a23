//! Products of large f32 matrices, in f32: where vectors have 16 numbers they are faster than the
//! runtime's.
//!
//! The first factor is copied into *panels* of 6 rows, the second into *strips* of 64 columns. The
//! result is computed in parts of 96 by 256, tile by tile of a panel and a strip, whose sums stay
//! in the second cache until they are complete. Each element is one sum in the order of the summed
//! axis, so its bits depend neither on the number of threads nor on how the work is cut; they may
//! differ between processors, which multiply and add with one rounding or two.

use std::slice::from_raw_parts_mut;

use ort::operator::ComputeContext;

use super::kernel::{DEFECT, KernelAttributes, KernelResult, require};
use super::pool::Pool;
use super::products::{self, GROUPS, Operands, Parallel, STREAMED};
use super::stream;

/// Numbers of a vector, and of a line of memory.
const LANES: usize = 16;
/// Rows of a tile of the result, which the registers hold.
const ROWS: usize = 6;
/// Columns of it.
const STRIP: usize = 64;
/// Rows (at most) and columns of a part of the result.
const PART: (usize, usize) = (96, 256);
/// How far sums go before the next strip begins.
const DEPTH: usize = 384;

/// Whether this processor makes large products faster than the runtime does.
pub fn is_fast() -> bool {
    stream::is_wide()
}

/// A line of memory.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

/// Copies of factors.
static FACTORS: Pool<Line> = Pool::new(Line([0.0; LANES]), usize::MAX);
/// The sums of the part that a thread works on.
static SUMS: Pool<Line> = Pool::new(Line([0.0; LANES]), usize::MAX);

/// Lines as their numbers.
fn values(lines: &mut [Line]) -> &mut [f32] {
    // SAFETY: a line is its numbers and nothing else.
    unsafe { from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LANES) }
}

/// y = alpha op(a) op(b), op transposes where the attributes say so
pub(super) fn product(cx: &ComputeContext, attributes: &KernelAttributes) -> KernelResult {
    products::compute(cx, attributes, false, best)
}

/// y = alpha op(a) op(b) + beta c, c a row
pub(super) fn product_and_row(cx: &ComputeContext, attributes: &KernelAttributes) -> KernelResult {
    products::compute(cx, attributes, true, best)
}

fn best(operands: &Operands, y: &mut [f32], parallel: &Parallel) -> KernelResult {
    multiply(operands, y, is_fast(), STREAMED, parallel)
}

/// A place that parts of the work write elements of their own to.
#[derive(Clone, Copy)]
struct Shared(*mut f32);

// SAFETY: parts of the work write elements of their own.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// The elements are there, and nobody else uses them.
    unsafe fn slice<'a>(self, from: usize, len: usize) -> &'a mut [f32] {
        // SAFETY: by the caller's promise.
        unsafe { from_raw_parts_mut(self.0.add(from), len) }
    }
}

fn multiply(
    operands: &Operands,
    y: &mut [f32],
    wide: bool,
    streamed: usize,
    parallel: &Parallel,
) -> KernelResult {
    let &Operands { sizes: (m, n, k), alpha, row, .. } = operands;
    let fits = operands.a.len() == m * k && operands.b.len() == k * n;
    require(y.len() == m * n && fits, DEFECT)?;
    if y.is_empty() {
        return Ok(());
    }
    let mut strips = FACTORS.block((n.div_ceil(STRIP) * STRIP * k).div_ceil(LANES))?;
    let strips = values(&mut strips);
    pack_strips(operands, strips, wide, parallel)?;
    let mut panels = FACTORS.block((m.div_ceil(ROWS) * ROWS * k).div_ceil(LANES))?;
    let panels = values(&mut panels);
    pack_panels(operands, panels, wide, parallel)?;
    let has_lines = n % 16 == 0 && y.as_ptr().align_offset(64) == 0;
    let is_streamed = has_lines && y.len() >= streamed;
    let height = m.div_ceil(m.div_ceil(PART.0)).next_multiple_of(ROWS);
    let parts = (m.div_ceil(height), n.div_ceil(PART.1));
    let n_parts = parts.0 * parts.1;
    let at_once = n_parts.div_ceil(GROUPS);
    let target = Shared(y.as_mut_ptr());
    let one = |i: usize, sums: &mut [f32]| {
        let (m0, n0) = (i % parts.0 * height, i / parts.0 * PART.1);
        let (down, across) = (height.min(m - m0), PART.1.min(n - n0));
        if k == 0 {
            sums.fill(0.0);
        }
        for p in (0..k).step_by(DEPTH) {
            let depth = DEPTH.min(k - p);
            for strip in 0..across.div_ceil(STRIP) {
                let b = &strips[(n0 / STRIP + strip) * STRIP * k + p * STRIP..][..depth * STRIP];
                for panel in 0..down.div_ceil(ROWS) {
                    let a = &panels[(m0 / ROWS + panel) * ROWS * k + p * ROWS..][..depth * ROWS];
                    let c = &mut sums[panel * ROWS * PART.1 + strip * STRIP..];
                    tile(wide, a, b, c, p > 0);
                }
            }
        }
        for (i, sums) in sums.chunks(PART.1).take(down).enumerate() {
            // SAFETY: the result has these rows and columns, and no other part has them.
            let y = unsafe { target.slice((m0 + i) * n + n0, across) };
            let row = row.get(n0..n0 + across).unwrap_or(&[]);
            finish_row(y, &sums[..across], alpha, row, is_streamed);
        }
    };
    parallel(n_parts.div_ceil(at_once), &|group| {
        let group = group * at_once..((group + 1) * at_once).min(n_parts);
        let mut sums = SUMS.block(height * PART.1 / LANES)?;
        let sums = values(&mut sums);
        group.for_each(|i| one(i, sums));
        if is_streamed {
            stream::finish();
        }
        Ok(())
    })
}

/// Strips of the second factor, `k` rows of [`STRIP`] columns each; zeros stand beyond it.
fn pack_strips(
    operands: &Operands,
    to: &mut [f32],
    wide: bool,
    parallel: &Parallel,
) -> KernelResult {
    let (_, n, k) = operands.sizes;
    if k == 0 {
        return Ok(());
    }
    let target = Shared(to.as_mut_ptr());
    parallel(n.div_ceil(STRIP), &|strip| {
        // SAFETY: each strip is one part's alone.
        let to = unsafe { target.slice(strip * STRIP * k, STRIP * k) };
        let first = strip * STRIP;
        let width = STRIP.min(n - first);
        if width < STRIP {
            to.fill(0.0);
        }
        if operands.trans.1 {
            stream::transpose((to, STRIP), (&operands.b[first * k..], k), (width, k), wide);
        } else {
            for (p, to) in to.chunks_mut(STRIP).enumerate() {
                to[..width].copy_from_slice(&operands.b[p * n + first..][..width]);
            }
        }
        Ok(())
    })
}

/// Panels of the first factor, `k` columns of [`ROWS`] rows each; zeros stand beyond it.
fn pack_panels(
    operands: &Operands,
    to: &mut [f32],
    wide: bool,
    parallel: &Parallel,
) -> KernelResult {
    let (m, _, k) = operands.sizes;
    if k == 0 {
        return Ok(());
    }
    let target = Shared(to.as_mut_ptr());
    let n_panels = m.div_ceil(ROWS);
    let at_once = n_panels.div_ceil(GROUPS);
    parallel(n_panels.div_ceil(at_once), &|group| {
        for panel in group * at_once..((group + 1) * at_once).min(n_panels) {
            // SAFETY: each panel is one part's alone.
            let to = unsafe { target.slice(panel * ROWS * k, ROWS * k) };
            let first = panel * ROWS;
            let height = ROWS.min(m - first);
            if height < ROWS {
                to.fill(0.0);
            }
            if operands.trans.0 {
                for (p, to) in to.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
                    let from = &operands.a[p * m + first..];
                    match from.first_chunk::<ROWS>() {
                        Some(from) if height == ROWS => *to = *from,
                        _ => to[..height].copy_from_slice(&from[..height]),
                    }
                }
            } else {
                stream::transpose((to, ROWS), (&operands.a[first * k..], k), (height, k), wide);
            }
        }
        Ok(())
    })
}

/// c = a b, or c += a b where `adds`: six rows of 64, [`PART`]`.1` apart.
fn tile(wide: bool, a: &[f32], b: &[f32], c: &mut [f32], adds: bool) {
    let k = a.len() / ROWS;
    assert!(b.len() == k * STRIP && c.len() >= (ROWS - 1) * PART.1 + STRIP);
    #[cfg(target_arch = "x86_64")]
    if wide {
        // SAFETY: the processor has the instructions, and the elements are there.
        return unsafe { x86::tile(k, a.as_ptr(), b.as_ptr(), c.as_mut_ptr(), adds) };
    }
    for (i, c) in c.chunks_mut(PART.1).take(ROWS).enumerate() {
        for (j, c) in c[..STRIP].iter_mut().enumerate() {
            let first = if adds { *c } else { 0.0 };
            *c = (0..k).fold(first, |sum, p| sum + a[p * ROWS + i] * b[p * STRIP + j]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LANES, PART, ROWS, STRIP};

    const VECTORS: usize = STRIP / LANES;
    /// Steps along the summed axis without a branch.
    const UNROLLED: usize = 4;

    type Sums = [[__m512; VECTORS]; ROWS];

    // Plain loops: what iterators call is not always inlined into functions with features of their
    // own, and then the sums do not stay in registers.
    /// # Safety
    /// `a` has `k` times six elements, `b` as many times 64, `c` six rows.
    #[target_feature(enable = "avx512f")]
    #[allow(clippy::needless_range_loop)]
    pub(super) unsafe fn tile(
        k: usize,
        mut a: *const f32,
        mut b: *const f32,
        c: *mut f32,
        adds: bool,
    ) {
        // SAFETY: by the caller's promise.
        unsafe {
            let mut sums: Sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
            if adds {
                for i in 0..ROWS {
                    for j in 0..VECTORS {
                        sums[i][j] = _mm512_loadu_ps(c.add(i * PART.1 + j * LANES));
                    }
                }
            }
            let mut left = k;
            while left >= UNROLLED {
                step::<UNROLLED>(&mut sums, a, b);
                (a, b) = (a.add(UNROLLED * ROWS), b.add(UNROLLED * STRIP));
                left -= UNROLLED;
            }
            while left > 0 {
                step::<1>(&mut sums, a, b);
                (a, b) = (a.add(ROWS), b.add(STRIP));
                left -= 1;
            }
            for i in 0..ROWS {
                for j in 0..VECTORS {
                    _mm512_storeu_ps(c.add(i * PART.1 + j * LANES), sums[i][j]);
                }
            }
        }
    }

    /// # Safety
    /// `a` has N times six elements, `b` N times 64.
    #[target_feature(enable = "avx512f")]
    #[inline]
    #[allow(clippy::needless_range_loop)]
    unsafe fn step<const N: usize>(sums: &mut Sums, a: *const f32, b: *const f32) {
        for p in 0..N {
            // SAFETY: by the caller's promise.
            unsafe {
                let b = b.add(p * STRIP);
                let mut row = [_mm512_setzero_ps(); VECTORS];
                for j in 0..VECTORS {
                    row[j] = _mm512_loadu_ps(b.add(j * LANES));
                }
                for i in 0..ROWS {
                    let x = _mm512_set1_ps(*a.add(p * ROWS + i));
                    for j in 0..VECTORS {
                        sums[i][j] = _mm512_fmadd_ps(x, row[j], sums[i][j]);
                    }
                }
            }
        }
    }
}

/// y = alpha · sums + row, which may be empty.
fn finish_row(y: &mut [f32], sums: &[f32], alpha: f32, row: &[f32], is_streamed: bool) {
    if is_streamed {
        return stream::row(y, sums, alpha, row);
    }
    y.iter_mut().zip(sums).for_each(|(y, s)| *y = alpha * s);
    y.iter_mut().zip(row).for_each(|(y, c)| *y += c);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::kernels::tests;

    /// See `result_of` of the kernels' tests.
    fn result_of(
        wide: bool,
        streamed: usize,
        size: (usize, usize, usize),
        i: usize,
    ) -> (Vec<f32>, f64) {
        tests::result_of(size, i, std::convert::identity, |operands, y, serial| {
            multiply(operands, y, wide, streamed, serial)
        })
    }

    fn builds() -> impl Iterator<Item = bool> {
        [false, true].into_iter().filter(|&wide| !wide || is_fast())
    }

    /// Whole tiles and others, several parts and depths, transposed or not; streamed to the same
    /// bits.
    #[test]
    fn products_of_all_forms() {
        let sizes = [
            (1, 1, 1),
            (6, 64, 16),
            (7, 65, 17),
            (100, 272, 33),
            (200, 48, 400),
            (5, 90, 0),
            (0, 5, 40),
            (5, 0, 40),
        ];
        for wide in builds() {
            for size in sizes {
                for i in 0..8 {
                    let (usual, error) = result_of(wide, usize::MAX, size, i);
                    assert!(error < 1e-6, "{wide} {size:?} {i}: {error}");
                    let (streamed, _) = result_of(wide, 0, size, i);
                    assert!(usual == streamed, "{wide} {size:?} {i}");
                }
            }
        }
    }

    #[test]
    fn not_a_number_and_infinity_stay() {
        for wide in builds() {
            let serial =
                |n: usize, work: &(dyn Fn(usize) -> KernelResult + Sync)| (0..n).try_for_each(work);
            let product = |a: &[f32]| {
                let mut y = vec![0f32; 4];
                let (sizes, trans) = ((2, 2, 2), (false, false));
                let operands = Operands { a, b: &[1.0; 4], sizes, trans, alpha: 1.0, row: &[] };
                multiply(&operands, &mut y, wide, STREAMED, &serial).unwrap();
                y
            };
            assert!(product(&[f32::NAN; 4]).iter().all(|y| y.is_nan()));
            let y = product(&[f32::INFINITY, 1.0, 1.0, 1.0]);
            assert_eq!(y, [f32::INFINITY, f32::INFINITY, 2.0, 2.0], "{wide}");
        }
    }
}
