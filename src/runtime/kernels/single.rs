//! Products of f32 matrices, in f32: where vectors have 16 numbers they are faster than the
//! runtime's.
//!
//! Of large ones the first factor is copied into *panels* of 6 rows, the second into *strips* of 64
//! columns. The result is computed in parts of 96 by 256, tile by tile of a panel and a strip,
//! whose sums stay in the second cache until they are complete. Factors that the second cache
//! holds are read where they are, but for a second one that is transposed or met by many rows.
//!
//! Each element is one sum in the order of the summed axis, so its bits depend neither on the
//! number of threads nor on how the work is cut; they may differ between processors, which multiply
//! and add with one rounding or two.

use std::slice::from_raw_parts_mut;

use ort::operator::ComputeContext;

use super::kernel::{DEFECT, KernelAttributes, KernelResult, require};
use super::pool::Pool;
use super::products::{self, GROUPS, Operands, Parallel, STREAMED};
use super::stream;
use super::tiles::multiply_and_finish;
use super::tiles::{Finish, Isa, LANES, Left, ROWS, Right, STRIP, multiply as multiply_tiles};

/// Rows (at most) and columns of a part of the result.
const PART: (usize, usize) = (96, 256);
/// How far sums go before the next strip begins.
const DEPTH: usize = 384;
/// The same where factors are read where they are: a strip of so many rows stays in the first
/// cache.
const SHORT_DEPTH: usize = 128;
/// Elements of both factors, 4 MB, up to which they are read where they are.
const SMALL: usize = 1 << 20;
/// A second factor is copied if it is met by so many rows.
const MANY_ROWS: usize = 512;

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
    multiply(operands, y, Isa::best(), STREAMED, parallel)
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
    isa: Isa,
    streamed: usize,
    parallel: &Parallel,
) -> KernelResult {
    let (m, n, k) = operands.sizes;
    let fits = operands.a.len() == m * k && operands.b.len() == k * n;
    require(y.len() == m * n && fits, DEFECT)?;
    if y.is_empty() {
        return Ok(());
    }
    if k > 0 && n.is_multiple_of(LANES) && m * k + k * n <= SMALL {
        return multiply_small(operands, y, isa, parallel);
    }
    multiply_large(operands, y, isa, streamed, parallel)
}

/// Reads the factors where they are; a second one that is transposed or met by many rows is copied
/// into strips.
fn multiply_small(
    operands: &Operands,
    y: &mut [f32],
    isa: Isa,
    parallel: &Parallel,
) -> KernelResult {
    let &Operands { a, b, sizes: (m, n, k), trans, alpha, row } = operands;
    let is_copied = trans.1 || m >= MANY_ROWS;
    let mut strips = FACTORS.block(if is_copied { strips_of(n, k) } else { 0 })?;
    let strips = values(&mut strips);
    if is_copied {
        pack_strips(operands, strips, isa, parallel)?;
    }
    let height = part_height(m);
    let target = Shared(y.as_mut_ptr());
    parallel(m.div_ceil(height), &|part| {
        let first = part * height;
        let down = height.min(m - first);
        // SAFETY: the result has these rows, and no other part has them.
        let y = unsafe { target.slice(first * n, down * n) };
        let mut p = 0;
        loop {
            let depth = SHORT_DEPTH.min(k - p);
            let a = match trans.0 {
                true => Left { data: &a[p * m + first..], row: 1, column: m },
                false => Left { data: &a[first * k + p..], row: k, column: 1 },
            };
            let b = match is_copied {
                true => Right::strips(&strips[p * STRIP..], k),
                false => Right::rows(&b[p * n..], n),
            };
            let finish = (p + depth == k).then_some(Finish { alpha, row });
            multiply_and_finish(isa, (down, n, depth), a, b, (&mut *y, n), p > 0, finish);
            p += depth;
            if p == k {
                return Ok(());
            }
        }
    })
}

/// Lines of all strips.
fn strips_of(n: usize, k: usize) -> usize {
    (n.div_ceil(STRIP) * STRIP * k).div_ceil(LANES)
}

/// Rows of a part of a result with `m` > 0 rows.
fn part_height(m: usize) -> usize {
    m.div_ceil(m.div_ceil(PART.0)).next_multiple_of(ROWS)
}

/// Copies both factors.
fn multiply_large(
    operands: &Operands,
    y: &mut [f32],
    isa: Isa,
    streamed: usize,
    parallel: &Parallel,
) -> KernelResult {
    let &Operands { sizes: (m, n, k), alpha, row, .. } = operands;
    let mut strips = FACTORS.block(strips_of(n, k))?;
    let strips = values(&mut strips);
    pack_strips(operands, strips, isa, parallel)?;
    let mut panels = FACTORS.block((m.div_ceil(ROWS) * ROWS * k).div_ceil(LANES))?;
    let panels = values(&mut panels);
    pack_panels(operands, panels, isa, parallel)?;
    let has_lines = n % 16 == 0 && y.as_ptr().align_offset(64) == 0;
    let is_streamed = has_lines && y.len() >= streamed;
    let height = part_height(m);
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
            let tile = (ROWS, STRIP, DEPTH.min(k - p));
            for strip in 0..across.div_ceil(STRIP) {
                let b = Right::strips(&strips[(n0 / STRIP + strip) * STRIP * k + p * STRIP..], k);
                for panel in 0..down.div_ceil(ROWS) {
                    let data = &panels[(m0 / ROWS + panel) * ROWS * k + p * ROWS..];
                    let a = Left { data, row: 1, column: ROWS };
                    let c = &mut sums[panel * ROWS * PART.1 + strip * STRIP..];
                    multiply_tiles(isa, tile, a, b, c, PART.1, p > 0);
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
fn pack_strips(operands: &Operands, to: &mut [f32], isa: Isa, parallel: &Parallel) -> KernelResult {
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
            stream::transpose(
                (to, STRIP),
                (&operands.b[first * k..], k),
                (width, k),
                isa.is_wide(),
            );
        } else {
            for (p, to) in to.chunks_mut(STRIP).enumerate() {
                to[..width].copy_from_slice(&operands.b[p * n + first..][..width]);
            }
        }
        Ok(())
    })
}

/// Panels of the first factor, `k` columns of [`ROWS`] rows each; zeros stand beyond it.
fn pack_panels(operands: &Operands, to: &mut [f32], isa: Isa, parallel: &Parallel) -> KernelResult {
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
                stream::transpose(
                    (to, ROWS),
                    (&operands.a[first * k..], k),
                    (height, k),
                    isa.is_wide(),
                );
            }
        }
        Ok(())
    })
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
        isa: Isa,
        streamed: Option<usize>,
        size: (usize, usize, usize),
        i: usize,
    ) -> (Vec<f32>, f64) {
        tests::result_of(size, i, std::convert::identity, |operands, y, serial| match streamed {
            Some(streamed) => multiply_large(operands, y, isa, streamed, serial),
            None => multiply(operands, y, isa, STREAMED, serial),
        })
    }

    /// Whole tiles and others, several parts and depths, transposed or not; streamed, and without
    /// copies where columns are whole vectors, to the same bits.
    #[test]
    fn products_of_all_forms() {
        let sizes = [
            (1, 1, 1),
            (6, 64, 16),
            (7, 65, 17),
            (100, 272, 33),
            (200, 48, 400),
            (520, 80, 130),
            (5, 90, 0),
            (100, 80, 0),
            (0, 5, 40),
            (5, 0, 40),
        ];
        for isa in Isa::all() {
            for size in sizes.into_iter().filter(|&(m, n, _)| m * n > 0) {
                for i in 0..8 {
                    let (usual, error) = result_of(isa, None, size, i);
                    assert!(error < 1e-6, "{isa:?} {size:?} {i}: {error}");
                    for streamed in [0, usize::MAX] {
                        let (large, _) = result_of(isa, Some(streamed), size, i);
                        assert!(usual == large, "{isa:?} {size:?} {i} {streamed}");
                    }
                }
            }
        }
    }

    #[test]
    fn not_a_number_and_infinity_stay() {
        for isa in Isa::all() {
            let serial =
                |n: usize, work: &(dyn Fn(usize) -> KernelResult + Sync)| (0..n).try_for_each(work);
            let product = |a: &[f32]| {
                let mut y = vec![0f32; 4];
                let (sizes, trans) = ((2, 2, 2), (false, false));
                let operands = Operands { a, b: &[1.0; 4], sizes, trans, alpha: 1.0, row: &[] };
                multiply(&operands, &mut y, isa, STREAMED, &serial).unwrap();
                y
            };
            assert!(product(&[f32::NAN; 4]).iter().all(|y| y.is_nan()));
            let y = product(&[f32::INFINITY, 1.0, 1.0, 1.0]);
            assert_eq!(y, [f32::INFINITY, f32::INFINITY, 2.0, 2.0], "{isa:?}");
        }
    }
}
