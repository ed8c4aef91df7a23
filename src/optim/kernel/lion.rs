//! Lion: p ← p − (decay·p + step·sign(β₁m + (1−β₁)g)); m ← β₂m + (1−β₂)g.

use crate::optim::kernel::coefficient::Coefficients;
use crate::optim::kernel::simd::multiversion;

/// −1, 0 or 1; NaN stays NaN.
#[inline(always)]
fn sign(x: f32) -> f32 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x
    }
}

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn lion_body(
    c: &Coefficients,
    g: &[f32],
    own: f32,
    group: &[f32],
    alpha: f32,
    p: &mut [f32],
    m: &mut [f32],
) {
    let c = *c;
    for (((g, t), p), m) in g.iter().zip(group).zip(p).zip(m) {
        let g = own * g + alpha * t;
        let direction = sign(c.beta1 * *m + c.rest1 * g);
        *p -= c.decay * *p + c.step * direction;
        *m = c.beta2 * *m + c.rest2 * g;
    }
}

multiversion!(lion = lion_body,
    (c: &Coefficients, g: &[f32], own: f32, group: &[f32], alpha: f32,
     p: &mut [f32], m: &mut [f32]));
