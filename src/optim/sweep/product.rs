//! Products of matrices for Muon, in blocks that stay in the caches.
//!
//! Every element is Σₖ aᵢₖ bₖⱼ, summed in the order of k with a rounding after each product and
//! each sum. Blocks, threads and instruction sets decide when a term is added, never in which
//! order, so all of them give the bits of three plain loops.
//!
//! This is why the products are our own: libraries of matrix products (`gemm`, `matrixmultiply`)
//! fuse multiplication and addition where the processor can, and choose the order of terms by its
//! caches, so that their bits differ between processors and thread counts.
//!
//! *block*: the rows of a left factor, `ROWS` at a time, stored `[k][ROWS]`. *panel*: the columns
//! of a right factor, `COLUMNS` at a time, stored `[k][COLUMNS]`. What a matrix lacks to the last
//! block or panel is 0.

use crate::error::Result;
use crate::optim::kernel::simd::{Build, multiversion};
use crate::optim::pool::{DisjointSlice, Pool};

/// Rows of a block: with `COLUMNS` the sums that fill the registers of AVX2.
const ROWS: usize = 6;
/// Columns of a panel.
const COLUMNS: usize = 16;
/// Terms that are added before the next block of rows: a panel's part stays in the second-level
/// cache, a block's in the first.
const DEPTH: usize = 384;
/// Rows of one work item.
const ITEM_ROWS: usize = 10 * ROWS;
/// Elements of one work item where nothing is multiplied.
const STRETCH: usize = 1 << 14;

/// Which part of a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::optim) enum Extent {
    /// Every element.
    Full,
    /// The upper half, copied to the lower: for products whose terms are the same on both sides.
    Symmetric,
}

/// The two factors as blocks and panels; as large as the largest product so far.
#[derive(Default)]
pub(in crate::optim) struct Packed {
    blocks: Vec<f32>,
    panels: Vec<f32>,
}

impl Packed {
    /// Makes room for the products of an `m` × `n` matrix, m ≤ n, with itself and with `m` × `m`.
    pub fn reserve(&mut self, [m, n]: [usize; 2]) -> Result<()> {
        let packed = |rows: usize, width: usize| rows.next_multiple_of(width);
        grow(&mut self.blocks, packed(m, ROWS) * n)?;
        grow(&mut self.panels, (packed(m, COLUMNS) * n).max(packed(n, COLUMNS) * m))
    }
}

/// Lengthens a buffer to `len` at least.
pub(in crate::optim) fn grow(buffer: &mut Vec<f32>, len: usize) -> Result<()> {
    if buffer.len() < len {
        buffer.try_reserve_exact(len - buffer.len())?;
        buffer.resize(len, 0.0);
    }
    Ok(())
}

fn room(buffer: &mut Vec<f32>, len: usize) -> Result<&mut [f32]> {
    grow(buffer, len)?;
    Ok(&mut buffer[..len])
}

/// Rows of the `m` × `k` matrix `x`, `width` at a time, stored `[k][width]`.
fn pack_rows(
    pool: &mut Pool,
    x: &[f32],
    [m, k]: [usize; 2],
    width: usize,
    into: &mut Vec<f32>,
) -> Result<()> {
    let n_packs = m.div_ceil(width);
    let slice = DisjointSlice::new(room(into, n_packs * width * k)?);
    pool.run(n_packs, &|_, item| {
        // SAFETY: items have their own packs.
        let pack = unsafe { slice.at(item * width * k, width * k) };
        for i in 0..width {
            let row = item * width + i;
            let column = pack[i..].iter_mut().step_by(width);
            if row < m {
                column.zip(&x[row * k..(row + 1) * k]).for_each(|(p, x)| *p = *x);
            } else {
                column.for_each(|p| *p = 0.0);
            }
        }
    })
}

/// Columns of the `k` × `n` matrix `x`, `COLUMNS` at a time, stored `[k][COLUMNS]`.
fn pack_columns(pool: &mut Pool, x: &[f32], [k, n]: [usize; 2], into: &mut Vec<f32>) -> Result<()> {
    let n_packs = n.div_ceil(COLUMNS);
    let slice = DisjointSlice::new(room(into, n_packs * COLUMNS * k)?);
    pool.run(n_packs, &|_, item| {
        // SAFETY: items have their own packs.
        let pack = unsafe { slice.at(item * COLUMNS * k, COLUMNS * k) };
        let (first, width) = (item * COLUMNS, COLUMNS.min(n - item * COLUMNS));
        for (to, row) in pack.chunks_exact_mut(COLUMNS).zip(x.chunks_exact(n)) {
            to[..width].copy_from_slice(&row[first..first + width]);
            to[width..].fill(0.0);
        }
    })
}

/// sum ← sum + aᵢₖ bₖⱼ over the k of a block and a panel, in order.
#[inline(always)]
fn tile_body(block: &[f32], panel: &[f32], sum: &mut [[f32; COLUMNS]; ROWS]) {
    let mut s = *sum;
    for (a, b) in block.chunks_exact(ROWS).zip(panel.chunks_exact(COLUMNS)) {
        for i in 0..ROWS {
            for j in 0..COLUMNS {
                s[i][j] += a[i] * b[j];
            }
        }
    }
    *sum = s;
}

// The compiler keeps the sums of this loop in AVX2's registers, but not in AVX-512's.
multiversion!(avx2 only tile = tile_body,
    (block: &[f32], panel: &[f32], sum: &mut [[f32; COLUMNS]; ROWS]));

/// The factors of one product, ready to be multiplied.
struct Job<'a> {
    build: Build,
    blocks: &'a [f32],
    panels: &'a [f32],
    shape: [usize; 3],
    out: DisjointSlice<f32>,
}

impl Job<'_> {
    /// The elements of up to `ITEM_ROWS` rows from `first` on in one panel's columns.
    ///
    /// # Safety
    /// Nobody else may use these elements meanwhile.
    unsafe fn multiply_rows(&self, first: usize, panel: usize) {
        let [m, k, n] = self.shape;
        let (left, width) = (panel * COLUMNS, COLUMNS.min(n - panel * COLUMNS));
        let end = (first + ITEM_ROWS).min(m);
        for from in (0..k).step_by(DEPTH) {
            let to = (from + DEPTH).min(k);
            let b = &self.panels[(panel * k + from) * COLUMNS..(panel * k + to) * COLUMNS];
            for row in (first..end).step_by(ROWS) {
                let at = row / ROWS * k;
                let a = &self.blocks[(at + from) * ROWS..(at + to) * ROWS];
                let mut sum = [[0.0; COLUMNS]; ROWS];
                let rows = ROWS.min(end - row);
                // SAFETY: by this function's contract; the rows and columns lie in the matrix.
                let line = |i: usize| unsafe { self.out.at((row + i) * n + left, width) };
                if from > 0 {
                    for (i, s) in sum.iter_mut().enumerate().take(rows) {
                        s[..width].copy_from_slice(line(i));
                    }
                }
                tile(self.build, a, b, &mut sum);
                for (i, s) in sum.iter().enumerate().take(rows) {
                    line(i).copy_from_slice(&s[..width]);
                }
            }
        }
    }
}

/// out ← the product of the packed factors; nothing to do for an empty matrix.
fn multiply(
    pool: &mut Pool,
    build: Build,
    packed: &Packed,
    shape: [usize; 3],
    extent: Extent,
    out: &mut [f32],
) -> Result<()> {
    let [m, k, n] = shape;
    if k == 0 {
        out[..m * n].fill(0.0);
        return Ok(());
    }
    let (blocks, panels) = (&packed.blocks[..], &packed.panels[..]);
    let job = Job { build, blocks, panels, shape, out: DisjointSlice::new(&mut out[..m * n]) };
    let tall = m.div_ceil(ITEM_ROWS);
    pool.run(tall * n.div_ceil(COLUMNS), &|_, item| {
        let (first, panel) = (item % tall * ITEM_ROWS, item / tall);
        if extent == Extent::Full || first < (panel + 1) * COLUMNS {
            // SAFETY: items have their own elements.
            unsafe { job.multiply_rows(first, panel) };
        }
    })?;
    if extent == Extent::Symmetric { mirror(pool, &mut out[..m * n], m) } else { Ok(()) }
}

/// Copies what lies above the diagonal of an `n` × `n` matrix below it.
fn mirror(pool: &mut Pool, x: &mut [f32], n: usize) -> Result<()> {
    let slice = DisjointSlice::new(x);
    pool.run(n.div_ceil(ITEM_ROWS), &|_, item| {
        let (first, end) = (item * ITEM_ROWS, ((item + 1) * ITEM_ROWS).min(n));
        for j in 0..end {
            for i in first.max(j + 1)..end {
                // SAFETY: items write rows of their own below the diagonal, and read above it,
                // where nobody writes.
                unsafe { slice.at(i * n + j, 1)[0] = slice.at(j * n + i, 1)[0] };
            }
        }
    })
}

impl Packed {
    /// out ← a·b of an `m` × `k` and a `k` × `n` matrix.
    pub fn product(
        &mut self,
        pool: &mut Pool,
        build: Build,
        [m, k, n]: [usize; 3],
        [a, b]: [&[f32]; 2],
        extent: Extent,
        out: &mut [f32],
    ) -> Result<()> {
        pack_rows(pool, a, [m, k], ROWS, &mut self.blocks)?;
        pack_columns(pool, b, [k, n], &mut self.panels)?;
        multiply(pool, build, self, [m, k, n], extent, out)
    }

    /// out ← x·xᵀ of an `m` × `k` matrix.
    pub fn gram(
        &mut self,
        pool: &mut Pool,
        build: Build,
        [m, k]: [usize; 2],
        x: &[f32],
        out: &mut [f32],
    ) -> Result<()> {
        pack_rows(pool, x, [m, k], ROWS, &mut self.blocks)?;
        pack_rows(pool, x, [m, k], COLUMNS, &mut self.panels)?;
        multiply(pool, build, self, [m, k, m], Extent::Symmetric, out)
    }
}

/// x ← f(x, y), element by element, on all threads.
pub(in crate::optim) fn combine(
    pool: &mut Pool,
    x: &mut [f32],
    y: &[f32],
    f: impl Fn(f32, f32) -> f32 + Sync,
) -> Result<()> {
    let len = x.len().min(y.len());
    let slice = DisjointSlice::new(&mut x[..len]);
    pool.run(len.div_ceil(STRETCH), &|_, item| {
        let (at, n) = (item * STRETCH, STRETCH.min(len - item * STRETCH));
        // SAFETY: items have their own elements.
        let x = unsafe { slice.at(at, n) };
        x.iter_mut().zip(&y[at..at + n]).for_each(|(x, y)| *x = f(*x, *y));
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::kernel::simd::builds_here;

    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1013) as f32 / 509.0 - 1.0).collect()
    }

    /// Three plain loops.
    fn plain([m, k, n]: [usize; 3], a: &[f32], b: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0f32; m * n];
        for i in 0..m {
            for t in 0..k {
                for j in 0..n {
                    out[i * n + j] += a[i * k + t] * b[t * n + j];
                }
            }
        }
        out
    }

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    fn transposed(x: &[f32], [m, k]: [usize; 2]) -> Vec<f32> {
        (0..k * m).map(|e| x[e % m * k + e / m]).collect()
    }

    /// Sizes around every block, panel, item and depth; old contents of all buffers are garbage.
    #[test]
    fn every_build_and_thread_count_gives_the_bits_of_plain_loops() {
        let shapes =
            [[1, 1, 1], [5, 3, 15], [7, 400, 17], [61, 384, 33], [130, 770, 50], [0, 2, 3]];
        for threads in [1, 2, 3] {
            let mut pool = Pool::new(threads).unwrap();
            for build in builds_here() {
                let mut packed = Packed::default();
                for [m, k, n] in shapes {
                    let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
                    let mut out = vec![f32::NAN; m * n];
                    let factors = [&a[..], &b[..]];
                    let full = Extent::Full;
                    packed.product(&mut pool, build, [m, k, n], factors, full, &mut out).unwrap();
                    let want = plain([m, k, n], &a, &b);
                    assert_eq!(bits(&out), bits(&want), "{build:?} {m} {k} {n}");
                    let mut gram = vec![f32::NAN; m * m];
                    packed.gram(&mut pool, build, [m, k], &a, &mut gram).unwrap();
                    let want = plain([m, k, m], &a, &transposed(&a, [m, k]));
                    assert_eq!(bits(&gram), bits(&want), "{build:?} {m} {k}");
                    let mut square = vec![f32::NAN; m * m];
                    let (factors, half) = ([&gram[..], &gram[..]], Extent::Symmetric);
                    let shape = [m, m, m];
                    packed.product(&mut pool, build, shape, factors, half, &mut square).unwrap();
                    let want = plain(shape, &gram, &gram);
                    assert_eq!(bits(&square), bits(&want), "{build:?} {m}");
                }
            }
        }
    }

    #[test]
    fn combining_reaches_every_element() {
        let mut pool = Pool::new(2).unwrap();
        let n = 2 * STRETCH + 3;
        let (mut x, y) = (numbers(n, 3), numbers(n, 4));
        let want: Vec<f32> = x.iter().zip(&y).map(|(x, y)| 2.0 * x + y).collect();
        combine(&mut pool, &mut x, &y, |x, y| 2.0 * x + y).unwrap();
        assert_eq!(bits(&x), bits(&want));
    }
}
