//! What is done to the rows of scores of a block: all keys of some queries.

use super::super::dropout::hash;
use super::super::math::{LANES, exp, largest, total};

/// Rows of scores, one for each query.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// From the first number of one to that of the next.
    pub step: usize,
    /// Numbers of a row.
    pub keys: usize,
    /// What is added to them: of each row one number, or one for each key.
    pub mask: &'a [f32],
    /// From row to row of the mask.
    pub mask_step: usize,
    pub mask_is_one: bool,
    /// Dropout's position of the first number, and from row to row.
    pub first: u64,
    pub positions: u64,
    /// The least hash that is kept, and the scale of what is.
    pub dropout: Option<(u32, f32)>,
    /// Whether a row that is not a number counts as zeros.
    pub empty_is_zero: bool,
}

impl<'a> Rows<'a> {
    #[inline(always)]
    fn mask(&self, i: usize) -> &'a [f32] {
        &self.mask[i * self.mask_step..][..if self.mask_is_one { 1 } else { self.keys }]
    }

    #[inline(always)]
    fn first(&self, i: usize) -> u64 {
        self.first + i as u64 * self.positions
    }
}

/// Scores become probabilities after dropout; gives the largest score of each row, and 1 / Σ.
#[inline(always)]
pub fn softmax(scores: &mut [f32], of: Rows, max: &mut [f32], inverse: &mut [f32]) {
    for (i, (max, inverse)) in max.iter_mut().zip(inverse).enumerate() {
        let row = &mut scores[i * of.step..][..of.keys];
        let sum;
        (*max, sum) = exponentials(row, of.mask(i));
        if of.empty_is_zero && sum.is_nan() {
            row.fill(0.0);
            (*max, *inverse) = (0.0, 0.0);
            continue;
        }
        *inverse = 1.0 / sum;
        match of.dropout {
            Some((least, scale)) => kept(row, of.first(i), least, *inverse * scale),
            None => row.iter_mut().for_each(|x| *x *= *inverse),
        }
    }
}

/// What the backward part knows of each row: the largest score, 1 / Σ e^(score − max), and
/// Σ dy · y of the attention's result.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    pub max: &'a [f32],
    pub inverse: &'a [f32],
    pub delta: &'a [f32],
}

/// Scores become probabilities after dropout, and slopes, the gradients of what follows dropout,
/// become the scores' gradients.
#[inline(always)]
pub fn slopes(scores: &mut [f32], slopes: &mut [f32], of: Rows, known: Known) {
    for (i, ((&max, &inverse), &delta)) in
        known.max.iter().zip(known.inverse).zip(known.delta).enumerate()
    {
        let row = i * of.step..i * of.step + of.keys;
        let (x, dx) = (&mut scores[row.clone()], &mut slopes[row]);
        if of.empty_is_zero && inverse == 0.0 {
            x.fill(0.0);
            dx.fill(0.0);
            continue;
        }
        let (least, scale) = of.dropout.unwrap_or((0, 1.0));
        let row = RowGrad { max, inverse, delta, first: of.first(i), least, scale };
        match of.dropout {
            Some(_) => of_row::<true>(x, dx, of.mask(i), row),
            None => of_row::<false>(x, dx, of.mask(i), row),
        }
    }
}

/// x ← e^(x + mask − max) with max = max(x + mask). Returns max and Σ x. `mask` has one number, or
/// one for each of `x`.
#[inline(always)]
fn exponentials(x: &mut [f32], mask: &[f32]) -> (f32, f32) {
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
fn kept(x: &mut [f32], first: u64, least: u32, scale: f32) {
    for (k, x) in x.iter_mut().enumerate() {
        *x = if hash(first + k as u64) >= least { *x * scale } else { 0.0 };
    }
}

/// What [`Known`] and [`Rows`] say of one row.
struct RowGrad {
    max: f32,
    inverse: f32,
    delta: f32,
    first: u64,
    least: u32,
    scale: f32,
}

/// p = e^(x + mask − max) / Σ, m dropout's mask over 1 − ratio:
/// x ← p m, dx ← p (m dx − delta).
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
