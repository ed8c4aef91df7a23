//! AdamW: m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; p ← p − (decay·p + step·m / (√v·root + eps)).
//! AMSGrad: the same with x ← max(x, v) under the root.
//!
//! g is own·g, or own·g + alpha·group where the group's gradient is shared. p changes in a single
//! rounded subtraction, so a weight decay far below one unit in the last place is not lost in a
//! factor 1 − ηλ. A moment decays by the subtraction of (1−β) times itself: β rounded to f32 would
//! bias v by the rounding over 1 − β, 1e-5 at β₂ = 0.999; and with β = 0 nothing of it remains. The
//! square is formed as ((1−β₂)g)·g, which overflows only where v does.

use crate::optim::kernel::coefficient::Coefficients;
use crate::optim::kernel::simd::multiversion;

/// Both moments after the step.
#[inline(always)]
fn moments(c: &Coefficients, g: f32, m: f32, v: f32) -> (f32, f32) {
    ((m - c.rest1 * m) + c.rest1 * g, (v - c.rest2 * v) + (c.rest2 * g) * g)
}

/// One element of AdamW: (p, m, v) after the step.
#[inline(always)]
pub(crate) fn adamw_one(c: &Coefficients, g: f32, p: f32, m: f32, v: f32) -> (f32, f32, f32) {
    let (m, v) = moments(c, g, m, v);
    (updated(c, p, m, v), m, v)
}

/// One element of AMSGrad: (p, m, v, x) after the step.
#[inline(always)]
fn amsgrad_one(c: &Coefficients, g: f32, p: f32, m: f32, v: f32, x: f32) -> (f32, f32, f32, f32) {
    let (m, v) = moments(c, g, m, v);
    let x = if v > x { v } else { x };
    (updated(c, p, m, x), m, v, x)
}

/// The parameter after the step; `v` is the second moment or its maximum.
#[inline(always)]
fn updated(c: &Coefficients, p: f32, m: f32, v: f32) -> f32 {
    p - (c.decay * p + c.step * (m / (v.sqrt() * c.root + c.eps)))
}

#[inline(always)]
fn adamw_body(c: &Coefficients, g: &[f32], own: f32, p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    let c = *c;
    for (((g, p), m), v) in g.iter().zip(p).zip(m).zip(v) {
        (*p, *m, *v) = adamw_one(&c, own * g, *p, *m, *v);
    }
}

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn adamw_mixed_body(
    c: &Coefficients,
    g: &[f32],
    own: f32,
    group: &[f32],
    alpha: f32,
    p: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    let c = *c;
    for ((((g, t), p), m), v) in g.iter().zip(group).zip(p).zip(m).zip(v) {
        (*p, *m, *v) = adamw_one(&c, own * g + alpha * t, *p, *m, *v);
    }
}

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn amsgrad_body(
    c: &Coefficients,
    g: &[f32],
    own: f32,
    p: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
    x: &mut [f32],
) {
    let c = *c;
    for ((((g, p), m), v), x) in g.iter().zip(p).zip(m).zip(v).zip(x) {
        (*p, *m, *v, *x) = amsgrad_one(&c, own * g, *p, *m, *v, *x);
    }
}

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn amsgrad_mixed_body(
    c: &Coefficients,
    g: &[f32],
    own: f32,
    group: &[f32],
    alpha: f32,
    p: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
    x: &mut [f32],
) {
    let c = *c;
    for (((((g, t), p), m), v), x) in g.iter().zip(group).zip(p).zip(m).zip(v).zip(x) {
        (*p, *m, *v, *x) = amsgrad_one(&c, own * g + alpha * t, *p, *m, *v, *x);
    }
}

multiversion!(adamw = adamw_body,
    (c: &Coefficients, g: &[f32], own: f32, p: &mut [f32], m: &mut [f32], v: &mut [f32]));
multiversion!(adamw_mixed = adamw_mixed_body,
    (c: &Coefficients, g: &[f32], own: f32, group: &[f32], alpha: f32,
     p: &mut [f32], m: &mut [f32], v: &mut [f32]));
multiversion!(amsgrad = amsgrad_body,
    (c: &Coefficients, g: &[f32], own: f32, p: &mut [f32], m: &mut [f32], v: &mut [f32],
     x: &mut [f32]));
multiversion!(amsgrad_mixed = amsgrad_mixed_body,
    (c: &Coefficients, g: &[f32], own: f32, group: &[f32], alpha: f32,
     p: &mut [f32], m: &mut [f32], v: &mut [f32], x: &mut [f32]));
