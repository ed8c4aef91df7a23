//! Transposes in cache, 8 × 8 elements at a time. No arithmetic, so every build gives
//! the same bits.

use crate::optim::kernel::simd::Build;
#[cfg(target_arch = "x86_64")]
use crate::optim::options::InstructionSet;

/// Rows and columns of a block.
const B: usize = 8;

/// A rectangle in row-major memory: its rows are `ld` elements apart.
#[derive(Clone, Copy)]
pub(crate) struct Rectangle {
    pub rows: usize,
    pub cols: usize,
    pub ld: usize,
}

impl Rectangle {
    /// A rectangle without gaps.
    pub fn dense(rows: usize, cols: usize) -> Self {
        Self { rows, cols, ld: cols }
    }

    /// Calls `f(row, col)` for the corner of every whole block. The side with the longer stride
    /// moves slowly, so that its cache lines are done with before they are evicted.
    #[inline(always)]
    fn for_blocks(self, to_ld: usize, mut f: impl FnMut(usize, usize)) {
        let (rows, cols) = (self.rows - self.rows % B, self.cols - self.cols % B);
        if to_ld > self.ld {
            for c in (0..cols).step_by(B) {
                (0..rows).step_by(B).for_each(|r| f(r, c));
            }
        } else {
            for r in (0..rows).step_by(B) {
                (0..cols).step_by(B).for_each(|c| f(r, c));
            }
        }
    }
}

#[inline(always)]
fn portable(from: &[f32], rectangle: Rectangle, to: &mut [f32], to_ld: usize) {
    rectangle.for_blocks(to_ld, |r, c| {
        let mut t = [[0.0f32; B]; B];
        for i in 0..B {
            let row = &from[(r + i) * rectangle.ld + c..][..B];
            for j in 0..B {
                t[j][i] = row[j];
            }
        }
        for (j, line) in t.iter().enumerate() {
            let out = &mut to[(c + j) * to_ld + r..][..B];
            out.copy_from_slice(line);
        }
    });
}

/// Rows and columns that fill no block.
fn edges(from: &[f32], rectangle: Rectangle, to: &mut [f32], to_ld: usize) {
    let Rectangle { rows, cols, ld } = rectangle;
    let (full_rows, full_cols) = (rows - rows % B, cols - cols % B);
    let first = if full_cols < cols { 0 } else { full_rows };
    for r in first..rows {
        let start = if r < full_rows { full_cols } else { 0 };
        for c in start..cols {
            to[c * to_ld + r] = from[r * ld + c];
        }
    }
}

/// # Safety
/// The processor must have AVX2; both rectangles must lie in the memory behind the pointers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn avx2(from: *const f32, rectangle: Rectangle, to: *mut f32, to_ld: usize) {
    use std::arch::x86_64::{
        _mm256_loadu_ps, _mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_storeu_ps,
        _mm256_unpackhi_ps, _mm256_unpacklo_ps,
    };
    rectangle.for_blocks(to_ld, |r, c| {
        // SAFETY: the caller's promise; the block lies in the rectangle.
        let row = |i: usize| unsafe { _mm256_loadu_ps(from.add((r + i) * rectangle.ld + c)) };
        // Pairs of rows, then quadruples, then halves of 128 bits.
        let two = |i: usize| {
            let (a, b) = (row(i), row(i + 1));
            [_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)]
        };
        let four = |i: usize| {
            let ([a, b], [c, d]) = (two(i), two(i + 2));
            [
                _mm256_shuffle_ps::<0x44>(a, c),
                _mm256_shuffle_ps::<0xee>(a, c),
                _mm256_shuffle_ps::<0x44>(b, d),
                _mm256_shuffle_ps::<0xee>(b, d),
            ]
        };
        let (top, bottom) = (four(0), four(4));
        for j in 0..B / 2 {
            let lines = [
                (j, _mm256_permute2f128_ps::<0x20>(top[j], bottom[j])),
                (j + B / 2, _mm256_permute2f128_ps::<0x31>(top[j], bottom[j])),
            ];
            for (j, line) in lines {
                // SAFETY: as above.
                unsafe {
                    _mm256_storeu_ps(to.add((c + j) * to_ld + r), line);
                }
            }
        }
    });
}

/// to ← fromᵀ; rows of `to` are `to_ld` elements apart.
pub(crate) fn transpose(
    build: Build,
    from: &[f32],
    rectangle: Rectangle,
    to: &mut [f32],
    to_ld: usize,
) {
    let Rectangle { rows, cols, ld } = rectangle;
    if rows == 0 || cols == 0 {
        return;
    }
    let (from, to) = (&from[..(rows - 1) * ld + cols], &mut to[..(cols - 1) * to_ld + rows]);
    #[cfg(target_arch = "x86_64")]
    if build.isa() != InstructionSet::Portable {
        // SAFETY: every other build has AVX2; the slices were just cut to the rectangles.
        unsafe { avx2(from.as_ptr(), rectangle, to.as_mut_ptr(), to_ld) };
        return edges(from, rectangle, to, to_ld);
    }
    let _ = build;
    portable(from, rectangle, to, to_ld);
    edges(from, rectangle, to, to_ld);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::kernel::simd::builds_here;

    #[test]
    fn transposes_of_any_shape() {
        for build in builds_here() {
            for (rows, cols) in [(1, 1), (8, 8), (17, 9), (3, 40), (64, 128)] {
                let (ld, to_ld) = (cols + 3, rows + 5);
                let from: Vec<f32> = (0..rows * ld).map(|i| i as f32).collect();
                let mut to = vec![1.0; cols * to_ld];
                let rectangle = Rectangle { rows, cols, ld };
                transpose(build, &from, rectangle, &mut to, to_ld);
                for c in 0..cols {
                    for r in 0..rows {
                        assert_eq!(to[c * to_ld + r], from[r * ld + c]);
                    }
                    assert!(to[c * to_ld + rows..(c + 1) * to_ld].iter().all(|&x| x == 1.0));
                }
            }
        }
    }
}
