//! Sums of squares and products with a fixed order: 64 lanes over blocks of 4096 elements in
//! f32, blocks added in f64. A block whose f32 sum overflowed or vanished is summed again in
//! f64, so only a NaN or infinite element makes a sum of squares non-finite.

use crate::optim::kernel::simd::multiversion;

const LANES: usize = 64;
const BLOCK: usize = 4096;
/// Below this a block's f32 sum of squares has lost digits to underflow.
const TINY: f32 = 1e-25;

#[inline(always)]
fn block(x: &[f32], y: &[f32]) -> f64 {
    let mut lanes = [0.0f32; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (xr, yr) = (xs.remainder(), ys.remainder());
    for (x, y) in xs.zip(ys) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    for (lane, (x, y)) in lanes.iter_mut().zip(xr.iter().zip(yr)) {
        *lane += x * y;
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    if lanes[0].is_finite() && lanes[0].abs() >= TINY {
        return f64::from(lanes[0]);
    }
    x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}

#[inline(always)]
fn dot_body(x: &[f32], y: &[f32]) -> f64 {
    // A loop: the closure of a `map` would be compiled without the build's instruction set.
    let mut sum = 0.0;
    for (x, y) in x.chunks(BLOCK).zip(y.chunks(BLOCK)) {
        sum += block(x, y);
    }
    sum
}

/// The greatest |x|; 0 of none. NaN is passed over.
#[inline(always)]
fn largest_body(x: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if a > b { a } else { b };
    let mut lanes = [0.0f32; LANES];
    let xs = x.chunks_exact(LANES);
    let rest = xs.remainder();
    for x in xs {
        for i in 0..LANES {
            lanes[i] = greater(x[i].abs(), lanes[i]);
        }
    }
    lanes.iter().chain(rest).fold(0.0, |a, x| greater(x.abs(), a))
}

multiversion!(
    /// The greatest |x|; 0 of none. NaN is passed over.
    largest = largest_body, (x: &[f32]) -> f32);
multiversion!(
    /// Σ x·y over two slices of one length; Σ x² where they are the same.
    dot = dot_body, (x: &[f32], y: &[f32]) -> f64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::kernel::simd::builds_here;

    #[test]
    fn sums_are_exact_enough_and_equal_across_builds() {
        let check = |scale: f32, n: usize| {
            let x: Vec<f32> = (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) * scale).collect();
            let exact: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let all: Vec<f64> = builds_here().into_iter().map(|b| dot(b, &x, &x)).collect();
            assert!(all.iter().all(|s| s.to_bits() == all[0].to_bits()));
            assert!((all[0] - exact).abs() <= 1e-6 * exact, "{scale} {n}: {} {exact}", all[0]);
        };
        for n in [0, 1, 63, 4097, 50_000] {
            for scale in [1.0, 1e-30, 1e30] {
                check(scale, n);
            }
        }
    }

    #[test]
    fn the_largest_is_found_anywhere() {
        for build in builds_here() {
            for (n, at) in [(1, 0), (64, 63), (200, 130), (200, 199)] {
                let mut x = vec![-1.0f32; n];
                x[at] = -7.5;
                assert_eq!(largest(build, &x), 7.5);
            }
            assert_eq!((largest(build, &[]), largest(build, &[f32::NAN, 2.0])), (0.0, 2.0));
        }
    }

    #[test]
    fn only_a_bad_element_makes_the_sum_bad() {
        for build in builds_here() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = vec![1e-3f32; 9000];
                assert!(dot(build, &x, &x).is_finite());
                x[8999] = bad;
                assert!(!dot(build, &x, &x).is_finite());
            }
        }
    }
}
