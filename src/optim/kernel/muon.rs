//! Muon's momentum: m ← β₁m + g; v ← m, or g + β₁m with Nesterov: the matrix to orthogonalise.

use crate::optim::kernel::coefficient::Coefficients;
use crate::optim::kernel::simd::multiversion;

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn muon_body(
    c: &Coefficients,
    g: &[f32],
    own: f32,
    group: &[f32],
    alpha: f32,
    m: &mut [f32],
    v: &mut [f32],
    nesterov: bool,
) {
    let c = *c;
    for (((g, t), m), v) in g.iter().zip(group).zip(m).zip(v) {
        let g = own * g + alpha * t;
        *m = c.beta1 * *m + g;
        *v = if nesterov { g + c.beta1 * *m } else { *m };
    }
}

multiversion!(muon = muon_body,
    (c: &Coefficients, g: &[f32], own: f32, group: &[f32], alpha: f32, m: &mut [f32], v: &mut [f32],
     nesterov: bool));
