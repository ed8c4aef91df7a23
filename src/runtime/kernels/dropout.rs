//! Dropout whose mask is a function of a seed and the position, not of hidden state: the gradient
//! draws the same mask again instead of keeping it, and a resumed run draws what the first one did.
//!
//! h₀ = (position + salt · A + seed) mod P, then [`ROUNDS`] times h ← (h² + A·h + C) mod P with
//! P = 2³¹ − 1: integers below 2⁶³ throughout, so standard operators compute the same mask. An
//! element is kept where h ≥ ratio · P.

use ort::operator::ComputeContext;

use super::kernel::{KernelAttributes, KernelResult, each, input, output, require, rows_per_part};
use super::math;

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

/// What is added to a position before it is hashed.
pub(super) fn first_position(salt: i64, seed: i64) -> u64 {
    (salt.rem_euclid(P) * A + seed.rem_euclid(P)).rem_euclid(P) as u64
}

/// x mod P, or that plus P; at most P + 3 for any x below 2⁶³.
#[inline(always)]
fn fold(x: u64) -> u64 {
    let x = (x & P as u64) + (x >> 31);
    (x & P as u64) + (x >> 31)
}

/// One product of 32 bits each a round, which vector registers have: h² + A·h = (h + A)·h. Only the
/// last round needs the smallest of the equal numbers.
#[inline(always)]
pub(super) fn hash(start: u64) -> u32 {
    let narrow = |x: u64| u64::from(x as u32);
    let round = |h: u64, _| fold(narrow(h + A as u64) * narrow(h) + C as u64);
    let last = (0..ROUNDS).fold(fold(start), round) as u32;
    // x − P wraps around where x is smaller.
    last.min(last.wrapping_sub(P as u32))
}

/// `y` = `x` · `scale` where the mask of the positions from `first` on keeps it, else 0.
#[inline(always)]
pub(super) fn masked(y: &mut [f32], x: &[f32], first: u64, least: u32, scale: f32) {
    for (k, (y, x)) in y.iter_mut().zip(x).enumerate() {
        let kept = hash(first + k as u64) >= least;
        *y = if kept { x * scale } else { 0.0 };
    }
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
    let first = first_position(attributes.salt, seed[0]);
    let (least, scale) = (threshold(attributes.ratio) as u32, 1.0 / (1.0 - attributes.ratio));
    let part = rows_per_part(1);
    let parts = y.chunks_mut(part).zip(x.chunks(part)).collect();
    each(cx, parts, |i, (y, x): (&mut [f32], &[f32])| {
        math::masked(y, x, first + (i * part) as u64, least, scale);
    })
}
