//! Products of f32 matrices that lie in the caches: one thread, no copies, sums in registers.
//!
//! Each element of a result is one sum along the summed axis in its order, so its bits depend
//! neither on the shape nor on how the work is cut; they may differ between instruction sets,
//! which multiply and add with one rounding or two.

/// Columns of a packed second factor that lie together.
pub(super) const STRIP: usize = 64;
/// Columns of second factors and results are padded to a multiple of it.
pub(super) const LANES: usize = 16;
/// Rows of the result that are computed at a time.
pub(super) const ROWS: usize = 6;
/// Steps along the summed axis without a branch: a tenth faster where a factor is not in the first
/// cache.
const UNROLLED: usize = 4;

/// The instructions that products are made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Isa {
    pub(super) fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// Whether vectors have 16 numbers.
    pub(super) fn is_wide(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self == Self::Avx512;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// All that this processor has.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Self::Avx2);
            }
            all.extend((Self::best() == Self::Avx512).then_some(Self::Avx512));
        }
        all
    }
}

/// The first factor, `[m, k]`: element (i, p) is at `i · row + p · column`.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) data: &'a [f32],
    pub(super) row: usize,
    pub(super) column: usize,
}

/// The second factor, `[k, n]`, n a multiple of [`LANES`]: element (p, j) is at
/// `j / STRIP · strip + p · row + j % STRIP`.
#[derive(Clone, Copy)]
pub(super) struct Right<'a> {
    pub(super) data: &'a [f32],
    pub(super) row: usize,
    pub(super) strip: usize,
}

impl<'a> Right<'a> {
    /// Rows of `width` elements.
    pub(super) fn rows(data: &'a [f32], width: usize) -> Self {
        Self { data, row: width, strip: STRIP }
    }

    /// Strips of `k` rows of [`STRIP`] elements.
    pub(super) fn strips(data: &'a [f32], k: usize) -> Self {
        Self { data, row: STRIP, strip: k * STRIP }
    }
}

/// What becomes of complete sums: alpha · sum + row, `row` as wide as the result or empty.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    pub(super) alpha: f32,
    pub(super) row: &'a [f32],
}

/// c = a b, or c += a b where `adds`; `c` has `m` rows, `c_row` elements apart, of `n` elements.
pub(super) fn multiply(
    isa: Isa,
    sizes: (usize, usize, usize),
    a: Left,
    b: Right,
    c: &mut [f32],
    c_row: usize,
    adds: bool,
) {
    multiply_and_finish(isa, sizes, a, b, (c, c_row), adds, None);
}

/// The same, and what [`Finish`] says where it is given.
pub(super) fn multiply_and_finish(
    isa: Isa,
    (m, n, k): (usize, usize, usize),
    a: Left,
    b: Right,
    (c, c_row): (&mut [f32], usize),
    adds: bool,
    finish: Option<Finish>,
) {
    if m == 0 || n == 0 || k == 0 {
        for i in 0..m {
            let c = &mut c[i * c_row..][..n];
            if !adds {
                c.fill(0.0);
            }
            if let Some(finish) = finish {
                c.iter_mut().for_each(|c| *c *= finish.alpha);
                c.iter_mut().zip(finish.row).for_each(|(c, row)| *c += row);
            }
        }
        return;
    }
    let Finish { alpha, row } = finish.unwrap_or(Finish { alpha: 1.0, row: &[] });
    assert!(row.is_empty() || row.len() >= n);
    let last = |n: usize| n - 1;
    assert!(n.is_multiple_of(LANES) && c.len() >= last(m) * c_row + n);
    assert!(a.data.len() > last(m) * a.row + last(k) * a.column);
    let strips = last(n) / STRIP;
    let tail = n - strips * STRIP;
    assert!(b.data.len() >= strips * b.strip + last(k) * b.row + tail);
    assert!(strips == 0 || b.data.len() >= (strips - 1) * b.strip + last(k) * b.row + STRIP);
    for strip in 0..=strips {
        let (first, width) = (strip * STRIP, if strip < strips { STRIP } else { tail });
        let row = if row.is_empty() { std::ptr::null() } else { row[first..].as_ptr() };
        for i in (0..m).step_by(ROWS) {
            // SAFETY: the assertions above are about the last elements of the factors and of the
            // result, and the processor has the instructions.
            unsafe {
                let part = Part {
                    sizes: (ROWS.min(m - i), width, k),
                    a: a.data.as_ptr().add(i * a.row),
                    a_steps: (a.row, a.column),
                    b: b.data.as_ptr().add(strip * b.strip),
                    b_row: b.row,
                    c: c.as_mut_ptr().add(i * c_row + first),
                    c_row,
                    adds,
                    finishes: finish.is_some(),
                    alpha,
                    row,
                };
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => avx512::rows(&part),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => avx2::rows(&part),
                    Isa::Portable => portable::rows(&part),
                }
            }
        }
    }
}

/// Some rows of a result, at most [`ROWS`], of one strip.
struct Part {
    /// Rows, columns, length of the sums.
    sizes: (usize, usize, usize),
    a: *const f32,
    /// From row to row, and from column to column.
    a_steps: (usize, usize),
    b: *const f32,
    b_row: usize,
    c: *mut f32,
    c_row: usize,
    adds: bool,
    /// Whether what follows is applied.
    finishes: bool,
    alpha: f32,
    /// Null where nothing is added.
    row: *const f32,
}

/// Declares the module of one instruction set. `$n` are the numbers of vectors that make up a
/// tile's width, the greatest first; the last is of [`LANES`] columns.
macro_rules! instructions {
    ($name:ident, $(#[$feature:meta])? $vector:ty, $lanes:expr, [$($n:literal)*],
     $zero:expr, $load:expr, $store:expr, $splat:expr, $mul_add:expr, $mul:expr, $add:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use crate::runtime::kernels::tiles::*;

            /// # Safety
            /// The factors and the result have the elements that `part` tells, and the processor
            /// has the instructions.
            $(#[$feature])?
            pub(super) unsafe fn rows(part: &Part) {
                // SAFETY: by the caller's promise.
                unsafe {
                    match part.sizes.0 {
                        1 => columns::<1>(part),
                        2 => columns::<2>(part),
                        3 => columns::<3>(part),
                        4 => columns::<4>(part),
                        5 => columns::<5>(part),
                        _ => columns::<6>(part),
                    }
                }
            }

            /// # Safety
            /// As of [`rows`].
            $(#[$feature])?
            unsafe fn columns<const M: usize>(part: &Part) {
                let mut from = 0;
                $(
                    while part.sizes.1 - from >= $n * $lanes {
                        // SAFETY: by the caller's promise.
                        unsafe { tile::<M, $n>(part, from) };
                        from += $n * $lanes;
                    }
                )*
            }

            // Plain loops: what iterators call is not always inlined into functions with features
            // of their own, and then the sums do not stay in registers.
            /// # Safety
            /// As of [`rows`].
            $(#[$feature])?
            #[inline]
            #[allow(clippy::needless_range_loop)]
            unsafe fn tile<const M: usize, const N: usize>(part: &Part, from: usize) {
                let (row, column) = part.a_steps;
                // SAFETY: by the caller's promise.
                unsafe {
                    let (mut a, mut b) = (part.a, part.b.add(from));
                    let c = part.c.add(from);
                    let mut sums = [[$zero; N]; M];
                    if part.adds {
                        for i in 0..M {
                            for j in 0..N {
                                sums[i][j] = $load(c.add(i * part.c_row + j * $lanes));
                            }
                        }
                    }
                    let mut left = part.sizes.2;
                    while left >= UNROLLED {
                        for _ in 0..UNROLLED {
                            step::<M, N>(&mut sums, a, row, b);
                            (a, b) = (a.wrapping_add(column), b.wrapping_add(part.b_row));
                        }
                        left -= UNROLLED;
                    }
                    while left > 0 {
                        step::<M, N>(&mut sums, a, row, b);
                        (a, b) = (a.wrapping_add(column), b.wrapping_add(part.b_row));
                        left -= 1;
                    }
                    if part.finishes {
                        finish::<M, N>(part, &mut sums, from);
                    }
                    for i in 0..M {
                        for j in 0..N {
                            $store(c.add(i * part.c_row + j * $lanes), sums[i][j]);
                        }
                    }
                }
            }

            /// One term of each sum.
            ///
            /// # Safety
            /// As of [`rows`].
            $(#[$feature])?
            #[inline]
            #[allow(clippy::needless_range_loop)]
            unsafe fn step<const M: usize, const N: usize>(
                sums: &mut [[$vector; N]; M],
                a: *const f32,
                row: usize,
                b: *const f32,
            ) {
                // SAFETY: by the caller's promise.
                unsafe {
                    let mut values = [$zero; N];
                    for j in 0..N {
                        values[j] = $load(b.add(j * $lanes));
                    }
                    for i in 0..M {
                        let x = $splat(*a.add(i * row));
                        for j in 0..N {
                            sums[i][j] = $mul_add(x, values[j], sums[i][j]);
                        }
                    }
                }
            }

            /// # Safety
            /// As of [`rows`].
            $(#[$feature])?
            #[inline]
            #[allow(clippy::needless_range_loop)]
            unsafe fn finish<const M: usize, const N: usize>(
                part: &Part,
                sums: &mut [[$vector; N]; M],
                from: usize,
            ) {
                let alpha = $splat(part.alpha);
                for j in 0..N {
                    for i in 0..M {
                        sums[i][j] = $mul(alpha, sums[i][j]);
                    }
                    if !part.row.is_null() {
                        // SAFETY: by the caller's promise.
                        let row = unsafe { $load(part.row.add(from + j * $lanes)) };
                        for i in 0..M {
                            sums[i][j] = $add(sums[i][j], row);
                        }
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
instructions!(avx512, #[target_feature(enable = "avx512f")] __m512, 16, [4 2 1],
    _mm512_setzero_ps(), _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps,
    _mm512_mul_ps, _mm512_add_ps);

#[cfg(target_arch = "x86_64")]
instructions!(
    avx2,
    #[target_feature(enable = "avx2,fma")]
    __m256,
    8,
    [2],
    _mm256_setzero_ps(),
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_mul_ps,
    _mm256_add_ps
);

instructions!(portable, [f32; 4], 4, [4], [0f32; 4], load, store, splat, mul_add, mul, add);

/// # Safety
/// Four elements can be read there.
#[inline(always)]
unsafe fn load(from: *const f32) -> [f32; 4] {
    // SAFETY: by the caller's promise; arrays of f32 are aligned like f32.
    unsafe { *from.cast() }
}

/// # Safety
/// Four elements can be written there.
#[inline(always)]
unsafe fn store(to: *mut f32, x: [f32; 4]) {
    // SAFETY: by the caller's promise; arrays of f32 are aligned like f32.
    unsafe { *to.cast() = x };
}

#[inline(always)]
fn splat(x: f32) -> [f32; 4] {
    [x; 4]
}

#[inline(always)]
fn mul(x: [f32; 4], y: [f32; 4]) -> [f32; 4] {
    std::array::from_fn(|i| x[i] * y[i])
}

#[inline(always)]
fn add(x: [f32; 4], y: [f32; 4]) -> [f32; 4] {
    std::array::from_fn(|i| x[i] + y[i])
}

#[inline(always)]
fn mul_add(x: [f32; 4], y: [f32; 4], sum: [f32; 4]) -> [f32; 4] {
    // One instruction there; elsewhere a call.
    if cfg!(target_arch = "aarch64") {
        return std::array::from_fn(|i| x[i].mul_add(y[i], sum[i]));
    }
    std::array::from_fn(|i| x[i] * y[i] + sum[i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::kernels::tests::series;

    const SIZES: [(usize, usize, usize); 6] =
        [(1, 16, 1), (7, 48, 5), (12, 64, 64), (5, 80, 33), (50, 208, 20), (3, 32, 0)];

    /// Every number of rows and vectors, both layouts of either factor, into rows that are further
    /// apart than they are wide; what lies between them stays.
    #[test]
    fn products_of_all_shapes() {
        for isa in Isa::all() {
            for (i, (m, n, k)) in SIZES.into_iter().enumerate() {
                let (by_column, in_strips, adds) = (i % 2 == 0, i % 3 == 0, i % 4 < 2);
                let (a, b) = (series(1, m * k, 1.0), series(2, k * n.next_multiple_of(STRIP), 1.0));
                let (row, column) = if by_column { (1, m) } else { (k, 1) };
                let right = if in_strips { Right::strips(&b, k) } else { Right::rows(&b, n) };
                let step = n + 3;
                let before = series(3, m * step, 1.0);
                let mut c = before.clone();
                let left = Left { data: &a, row, column };
                multiply(isa, (m, n, k), left, right, &mut c, step, adds);
                for (at, (&got, &was)) in c.iter().zip(&before).enumerate() {
                    let (i, j) = (at / step, at % step);
                    let factor = |p: usize| {
                        let y = b[j / STRIP * right.strip + p * right.row + j % STRIP];
                        f64::from(a[i * row + p * column]) * f64::from(y)
                    };
                    let expected = match j < n {
                        true => {
                            (0..k).map(factor).sum::<f64>() + if adds { was.into() } else { 0.0 }
                        }
                        false => was.into(),
                    };
                    let error = (f64::from(got) - expected).abs();
                    assert!(error < 1e-5, "{isa:?} {m} {n} {k}, ({i}, {j}): {got}, not {expected}");
                }
            }
        }
    }
}
