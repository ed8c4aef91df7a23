//! Products of f32 matrices whose factors are rounded to bf16; sums stay in f32.
//!
//! Both factors are copied into *tiles* of 16 by 32 numbers, as the processor's tile registers take
//! them. A column of tiles that follow each other along the summed axis is a *panel*. The result is
//! computed in blocks of 32 by 32, each from two panels of either factor. The order of a sum
//! depends on the shape alone, so the same bits come out at any number of threads.

mod pack;
mod tile;

use std::slice::from_raw_parts_mut;

use ort::operator::ComputeContext;

use super::kernel::{DEFECT, KernelAttributes, KernelResult, require};
use super::pool::Pool;
use super::products::{self, GROUPS, Operands, Parallel, STREAMED};
use super::stream;
use pack::{Factor, TILE_K, TILE_SIDE, Tile, pack_panels};
pub use tile::is_fast;
use tile::{BLOCK, Block, Isa, add_block};

/// How much is packed at once.
#[derive(Clone, Copy)]
struct Limits {
    /// The greatest length of the summed axis.
    depth: usize,
    /// Most tiles of one factor, each 1 KiB.
    tiles: usize,
    /// Results from so many elements on are written past the caches.
    streamed: usize,
}

const LIMITS: Limits = Limits { depth: 4096, tiles: 8192, streamed: STREAMED };
/// Tiles of a panel that are gone through at a time, so that two panels stay in the first cache.
const DEPTH_TILES: usize = 16;
/// Rows and columns of the result that one thread works on at a time: whole blocks.
const PART: (usize, usize) = (128, 256);
/// Tiles of factors: each block at most 8 MiB.
static TILES: Pool<Tile> = Pool::new(Tile::ZERO, usize::MAX);
/// Blocks of the part of a result that a thread works on.
static SUMS: Pool<Block> = Pool::new(Block([0.0; BLOCK * BLOCK]), usize::MAX);

/// y = alpha op(a) op(b), op transposes where the attributes say so
pub(super) fn product(cx: &ComputeContext, attributes: &KernelAttributes) -> KernelResult {
    products::compute(cx, attributes, false, best)
}

/// y = alpha op(a) op(b) + beta c, c a row
pub(super) fn product_and_row(cx: &ComputeContext, attributes: &KernelAttributes) -> KernelResult {
    products::compute(cx, attributes, true, best)
}

fn best(operands: &Operands, y: &mut [f32], parallel: &Parallel) -> KernelResult {
    multiply(operands, y, LIMITS, Isa::best(), parallel)
}

/// How a length is parted into as few equal pieces as may be, each a multiple of `unit` and at most
/// `most`: the length of a piece.
fn piece(length: usize, unit: usize, most: usize) -> usize {
    let most = (most / unit).max(1) * unit;
    length.div_ceil(length.div_ceil(most).max(1)).next_multiple_of(unit)
}

/// Where sums go: y = alpha · sums + row.
struct Target<'a> {
    y: *mut f32,
    width: usize,
    alpha: f32,
    /// One row of the result, or nothing.
    row: &'a [f32],
    /// Whether it is written past the caches.
    is_streamed: bool,
}

// SAFETY: parts of the work write elements of their own.
unsafe impl Sync for Target<'_> {}

fn multiply(
    operands: &Operands,
    y: &mut [f32],
    limits: Limits,
    isa: Isa,
    parallel: &Parallel,
) -> KernelResult {
    let &Operands { sizes: (m, n, k), trans, alpha, row, .. } = operands;
    let a = &Factor::new(operands.a, m, k, trans.0);
    let b = &Factor::new(operands.b, n, k, !trans.1);
    require(y.len() == m * n, DEFECT)?;
    if y.is_empty() {
        return Ok(());
    }
    if k == 0 {
        y.fill(0.0);
        y.chunks_exact_mut(n).for_each(|y| y.iter_mut().zip(row).for_each(|(y, c)| *y = *c));
    }
    let depth = piece(k, TILE_K, limits.depth).max(TILE_K);
    let depth_tiles = depth / TILE_K;
    let most = limits.tiles / depth_tiles * TILE_SIDE;
    let (rows, columns) = (piece(m, BLOCK, most), piece(n, BLOCK, most));
    let mut a_tiles = TILES.block(rows / TILE_SIDE * depth_tiles)?;
    let mut b_tiles = TILES.block(columns / TILE_SIDE * depth_tiles)?;
    // Rows of whole lines of memory: each begins with one if the first does.
    let has_lines = n % 16 == 0 && y.as_ptr().align_offset(64) == 0;
    let is_streamed = has_lines && y.len() >= limits.streamed && isa.can_stream();
    let target = Target { y: y.as_mut_ptr(), width: n, alpha, row, is_streamed };
    for k0 in (0..k).step_by(depth) {
        let k_tiles = (k - k0).min(depth).div_ceil(TILE_K);
        for m0 in (0..m).step_by(rows) {
            let m1 = (m0 + rows).min(m);
            pack_panels(a, (m0, m1), (k0, k_tiles), &mut a_tiles, false, isa, parallel)?;
            for n0 in (0..n).step_by(columns) {
                let n1 = (n0 + columns).min(n);
                // With one block of columns the tiles of the last rows still hold them.
                if columns < n || m0 == 0 {
                    pack_panels(b, (n0, n1), (k0, k_tiles), &mut b_tiles, true, isa, parallel)?;
                }
                let parts = ((m1 - m0).div_ceil(PART.0), (n1 - n0).div_ceil(PART.1));
                let n_parts = parts.0 * parts.1;
                let at_once = n_parts.div_ceil(GROUPS).max(1);
                let one = |i: usize, sums: &mut [Block]| {
                    let (m2, n2) = (m0 + i % parts.0 * PART.0, n0 + i / parts.0 * PART.1);
                    let part = Part {
                        rows: (m2, (m2 + PART.0).min(m1)),
                        columns: (n2, (n2 + PART.1).min(n1)),
                        a: &a_tiles[(m2 - m0) / TILE_SIDE * k_tiles..],
                        b: &b_tiles[(n2 - n0) / TILE_SIDE * k_tiles..],
                        k_tiles,
                    };
                    part.sum(sums, isa);
                    // SAFETY: `target` has m rows of n elements, and no other part has these.
                    unsafe { part.write(sums, &target, k0 == 0) };
                };
                parallel(n_parts.div_ceil(at_once), &|group| {
                    let group = group * at_once..((group + 1) * at_once).min(n_parts);
                    let mut sums = SUMS.block(PART.0.div_ceil(BLOCK) * PART.1.div_ceil(BLOCK))?;
                    group.for_each(|i| one(i, &mut sums));
                    if target.is_streamed {
                        stream::finish();
                    }
                    Ok(())
                })?;
            }
        }
    }
    Ok(())
}

/// A part of the result, and the panels that it is computed from.
struct Part<'a> {
    rows: (usize, usize),
    columns: (usize, usize),
    a: &'a [Tile],
    b: &'a [Tile],
    /// The length of a panel.
    k_tiles: usize,
}

impl Part<'_> {
    /// Blocks down and across.
    fn n_blocks(&self) -> (usize, usize) {
        let n = |(from, to): (usize, usize)| (to - from).div_ceil(BLOCK);
        (n(self.rows), n(self.columns))
    }

    /// Computes all blocks, column by column. They lie one after another, for rows of a wide result
    /// are too far from each other: the first cache would not hold those of a block.
    fn sum(&self, sums: &mut [Block], isa: Isa) {
        let (down, across) = self.n_blocks();
        isa.with_tiles(|| {
            for start in (0..self.k_tiles).step_by(DEPTH_TILES) {
                let n_tiles = DEPTH_TILES.min(self.k_tiles - start);
                let panels = |tiles: &'_ [Tile], i: usize| -> [*const Tile; 2] {
                    [2 * i, 2 * i + 1].map(|panel| {
                        let at = panel * self.k_tiles + start;
                        tiles[at..at + n_tiles].as_ptr()
                    })
                };
                for n in 0..across {
                    let b = panels(self.b, n);
                    for m in 0..down {
                        let (a, block) = (panels(self.a, m), &mut sums[n * down + m].0);
                        // SAFETY: the panels have `n_tiles` tiles from there on.
                        unsafe { add_block(isa, a, b, n_tiles, block, start == 0) };
                    }
                }
            }
        });
    }

    /// Writes the sums, or adds them to what is there where others of this part came before.
    /// [`stream::finish`] must follow.
    ///
    /// # Safety
    /// `to` has the rows and columns of this part, which nobody else uses.
    unsafe fn write(&self, sums: &[Block], to: &Target, is_first: bool) {
        let (down, _) = self.n_blocks();
        let (from, end) = self.columns;
        let row = to.row.get(from..end).unwrap_or(&[]);
        for m in self.rows.0..self.rows.1 {
            // SAFETY: by the caller's promise.
            let y = unsafe { from_raw_parts_mut(to.y.add(m * to.width + from), end - from) };
            let (first, i) = ((m - self.rows.0) / BLOCK, (m - self.rows.0) % BLOCK);
            let blocks = sums[first..].iter().step_by(down);
            if is_first && to.is_streamed {
                // SAFETY: the processor can, and `y` begins with a line and has whole ones.
                unsafe { tile::stream_row(y, &sums[first..], down, i, to.alpha, row) };
                continue;
            }
            for (n, (y, block)) in y.chunks_mut(BLOCK).zip(blocks).enumerate() {
                let places = y.iter_mut().zip(&block.0[i * BLOCK..]);
                match row.get(n * BLOCK..) {
                    _ if !is_first => places.for_each(|(y, s)| *y += to.alpha * s),
                    Some(row) if !row.is_empty() => {
                        places.zip(row).for_each(|((y, s), c)| *y = to.alpha * s + c);
                    }
                    _ => places.for_each(|(y, s)| *y = to.alpha * s),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::kernels::tests;
    use half::bf16;

    /// Largest error, relative to the root of the number of products in a sum. Bits of `i` say
    /// which factor is transposed and whether a row is added.
    fn error_of(isa: Isa, limits: Limits, size: (usize, usize, usize), i: usize) -> f64 {
        result_of(isa, limits, size, i).1
    }

    /// The same after the result, which begins with a line of memory.
    fn result_of(
        isa: Isa,
        limits: Limits,
        size: (usize, usize, usize),
        i: usize,
    ) -> (Vec<f32>, f64) {
        let rounded = |x| bf16::from_f32(x).to_f32();
        tests::result_of(size, i, rounded, |operands, y, serial| {
            multiply(operands, y, limits, isa, serial)
        })
    }

    #[test]
    fn products_are_those_of_rounded_factors() {
        let sizes = [
            (1, 1, 1),
            (32, 32, 32),
            (33, 31, 30),
            (16, 48, 65),
            (130, 257, 40),
            (5, 90, 0),
            (0, 5, 40),
            (5, 0, 40),
        ];
        for isa in Isa::all() {
            for size in sizes {
                for i in 0..8 {
                    let error = error_of(isa, LIMITS, size, i);
                    assert!(error < 1e-6, "{isa:?} {size:?} {i}: {error}");
                }
            }
        }
    }

    /// In several groups of parts, with rows of whole lines and others; and the same bits.
    #[test]
    fn streamed_results_are_the_same() {
        let limits = |streamed| Limits { depth: 64, tiles: 4096, streamed };
        for isa in Isa::all() {
            for size in [(130, 272, 100), (300, 48, 64), (40, 45, 64), (32, 16, 32)] {
                for i in [0, 4] {
                    let (usual, error) = result_of(isa, limits(usize::MAX), size, i);
                    let (streamed, _) = result_of(isa, limits(0), size, i);
                    assert!(error < 1e-6, "{isa:?} {size:?} {i}: {error}");
                    assert!(usual == streamed, "{isa:?} {size:?} {i}");
                }
            }
        }
    }

    #[test]
    fn large_products_are_cut_along_every_axis() {
        let limits = Limits { depth: 96, tiles: 12, streamed: usize::MAX };
        for isa in Isa::all() {
            for (i, size) in [(40, 130, 200), (130, 40, 200), (70, 70, 97)].into_iter().enumerate()
            {
                let error = error_of(isa, limits, size, 4 + i);
                assert!(error < 1e-6, "{isa:?} {size:?}: {error}");
            }
        }
    }

    #[test]
    fn not_a_number_and_infinity_stay() {
        for isa in Isa::all() {
            let (a, b) = (vec![f32::NAN; 4], vec![f32::INFINITY, 1.0, 1.0, 1.0]);
            let mut y = vec![0f32; 4];
            let serial =
                |n: usize, work: &(dyn Fn(usize) -> KernelResult + Sync)| (0..n).try_for_each(work);
            let product = |a: &[f32], y: &mut [f32]| {
                let trans = (false, true);
                let b = &[1.0; 4];
                let operands = Operands { a, b, sizes: (2, 2, 2), trans, alpha: 1.0, row: &[] };
                multiply(&operands, y, LIMITS, isa, &serial).unwrap();
            };
            product(&a, &mut y);
            assert!(y.iter().all(|y| y.is_nan()), "{isa:?}: {y:?}");
            product(&b, &mut y);
            assert_eq!(y, [f32::INFINITY, f32::INFINITY, 2.0, 2.0], "{isa:?}");
        }
    }
}
