//! Dropout whose mask is a function of a seed and the position, not of hidden state: the gradient
//! draws the same mask again instead of keeping it, and a resumed run draws what the first one did.
//!
//! h₀ = (position + salt · A + seed) mod P, then [`ROUNDS`] times h ← (h² + A·h + C) mod P with
//! P = 2³¹ − 1: integers below 2⁶³ throughout, so standard operators compute the same mask. An
//! element is kept where h ≥ ratio · P.

use ort::operator::ComputeContext;

use super::kernel::{KernelAttributes, KernelResult, each, input, output, require, rows_per_part};

/// The prime 2³¹ − 1.
pub(super) const P: i64 = (1 << 31) - 1;
/// A primitive root of it (Park and Miller 1988).
pub(super) const A: i64 = 48_271;
/// Any odd number below it.
pub(super) const C: i64 = 1_013_904_223;
/// Each doubles the degree in the position; three leave no visible order.
pub(super) const ROUNDS: usize = 3;

/// The smallest hash that is kept.
pub(super) fn threshold(ratio: f32) -> i64 {
    (f64::from(ratio) * P as f64).round() as i64
}

fn reduce(x: u64) -> u64 {
    // Twice: a product below 2⁶³ folds to below 2³³, and that to at most P + 3.
    let x = (x & P as u64) + (x >> 31);
    let x = (x & P as u64) + (x >> 31);
    if x >= P as u64 { x - P as u64 } else { x }
}

fn hash(start: u64) -> i64 {
    (0..ROUNDS).fold(start, |h, _| reduce(h * h + A as u64 * h + C as u64)) as i64
}

/// y = x · m / (1 − ratio)        dx = dy · m / (1 − ratio), with the same m
pub(super) fn dropout(cx: &ComputeContext, attributes: &KernelAttributes) -> KernelResult {
    input!(cx, 0, f32 => x);
    input!(cx, 1, i64 => seed);
    let ((dims, x), (_, seed)) = (x, seed);
    require(seed.len() == 1, "the seed is not one number")?;
    require((0.0..1.0).contains(&attributes.ratio), "the ratio is not in [0, 1)")?;
    output!(cx, 0, dims => y);
    let Some(y) = y else { return Ok(()) };
    let first = attributes.salt.rem_euclid(P) * A + seed[0].rem_euclid(P);
    let first = first.rem_euclid(P) as u64;
    let (least, scale) = (threshold(attributes.ratio), 1.0 / (1.0 - attributes.ratio));
    let part = rows_per_part(1);
    let parts = y.chunks_mut(part).zip(x.chunks(part)).collect();
    each(cx, parts, |i, (y, x): (&mut [f32], &[f32])| {
        let first = first + (i * part) as u64;
        for (k, (y, x)) in y.iter_mut().zip(x).enumerate() {
            let kept = hash(reduce(first + k as u64)) >= least;
            *y = if kept { x * scale } else { 0.0 };
        }
    })
}
