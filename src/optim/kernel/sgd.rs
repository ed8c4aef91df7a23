//! SGD with momentum: g ← g + decay·p; m ← β₁m + g; p ← p − step·m, or p − step·(g + β₁m) with
//! Nesterov.

use crate::optim::kernel::coefficient::Coefficients;
use crate::optim::kernel::simd::multiversion;

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn sgd_body(
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
        let g = own * g + alpha * t + c.decay * *p;
        *m = c.beta1 * *m + g;
        *p -= c.step * *m;
    }
}

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn nesterov_body(
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
        let g = own * g + alpha * t + c.decay * *p;
        *m = c.beta1 * *m + g;
        *p -= c.step * (g + c.beta1 * *m);
    }
}

multiversion!(sgd = sgd_body,
    (c: &Coefficients, g: &[f32], own: f32, group: &[f32], alpha: f32,
     p: &mut [f32], m: &mut [f32]));
multiversion!(nesterov = nesterov_body,
    (c: &Coefficients, g: &[f32], own: f32, group: &[f32], alpha: f32,
     p: &mut [f32], m: &mut [f32]));
