//! What is done to one row of scores: all keys of one query.

use super::super::dropout::hash;
use super::super::math::{LANES, exp, largest, total};

/// x ← e^(x + mask − max) with max = max(x + mask). Returns max and Σ x. `mask` has one number, or
/// one for each of `x`.
#[inline(always)]
pub fn exponentials(x: &mut [f32], mask: &[f32]) -> (f32, f32) {
    if let &[same] = mask {
        x.iter_mut().for_each(|x| *x += same);
    } else {
        x.iter_mut().zip(mask).for_each(|(x, mask)| *x += mask);
    }
    let max = largest(x);
    let mut sums = [0f32; LANES];
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for x in chunks {
        for i in 0..LANES {
            x[i] = exp(x[i] - max);
            sums[i] += x[i];
        }
    }
    for (i, x) in rest.iter_mut().enumerate() {
        *x = exp(*x - max);
        sums[i] += *x;
    }
    (max, total(sums))
}

/// x ← x · `scale` where dropout's mask of the positions from `first` on keeps it, else 0.
#[inline(always)]
pub fn kept(x: &mut [f32], first: u64, least: u32, scale: f32) {
    for (k, x) in x.iter_mut().enumerate() {
        *x = if hash(first + k as u64) >= least { *x * scale } else { 0.0 };
    }
}

/// x ← x · factor
#[inline(always)]
pub fn scaled(x: &mut [f32], factor: f32) {
    x.iter_mut().for_each(|x| *x *= factor);
}

/// What the backward part knows of a row: the largest score and 1 / Σ e^(score − max), Σ dy · y of
/// the attention's result, and dropout: the first position, the least hash that is kept, and the
/// scale of what is.
#[derive(Clone, Copy)]
pub struct RowGrad {
    pub max: f32,
    pub inverse: f32,
    pub delta: f32,
    pub first: u64,
    pub least: u32,
    pub scale: f32,
}

/// p = e^(x + mask − max) / Σ, m dropout's mask over 1 − ratio:
/// x ← p m, dx ← p (m dx − delta).
#[inline(always)]
pub fn row_grad(x: &mut [f32], dx: &mut [f32], mask: &[f32], row: RowGrad) {
    of_row::<true>(x, dx, mask, row);
}

/// The same without dropout.
#[inline(always)]
pub fn row_grad_plain(x: &mut [f32], dx: &mut [f32], mask: &[f32], row: RowGrad) {
    of_row::<false>(x, dx, mask, row);
}

#[inline(always)]
fn of_row<const DROPS: bool>(x: &mut [f32], dx: &mut [f32], mask: &[f32], row: RowGrad) {
    if let &[same] = mask {
        x.iter_mut().for_each(|x| *x += same);
    } else {
        x.iter_mut().zip(mask).for_each(|(x, mask)| *x += mask);
    }
    for (k, (x, dx)) in x.iter_mut().zip(dx).enumerate() {
        let p = exp(*x - row.max) * row.inverse;
        if !DROPS {
            (*x, *dx) = (p, p * (*dx - row.delta));
            continue;
        }
        let keeps = hash(row.first + k as u64) >= row.least;
        let factor = if keeps { row.scale } else { 0.0 };
        // What is dropped gives no infinity or NaN either.
        let kept = if keeps { *dx * factor } else { 0.0 };
        (*x, *dx) = (p * factor, p * (kept - row.delta));
    }
}
