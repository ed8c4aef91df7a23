//! The update formulas. p parameter, g gradient, m and v moments, x the maximum of v.
//!
//! Coefficients are computed in f64 once per step and rounded once. p changes in a single
//! rounded subtraction, so a weight decay far below one unit in the last place is not lost in a
//! factor 1 − ηλ. The moments move by (1−β) times a difference: β rounded to f32 would bias v by
//! the rounding over 1 − β, 1e-5 at β₂ = 0.999.

use super::{Build, builds};

/// Which formula; the part of the coefficients that is not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Formula {
    /// m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; p ← p − (decay·p + step·m / (√v·root + eps)).
    AdamW,
    /// As AdamW with x ← max(x, v) under the root.
    AmsGrad,
    /// g ← g + decay·p; m ← β₁m + g; p ← p − step·m, or p − step·(g + β₁m) with Nesterov.
    Sgd { nesterov: bool },
    /// p ← p − (decay·p + step·sign(β₁m + (1−β₁)g)); m ← β₂m + (1−β₂)g.
    Lion,
    /// m ← β₁m + g; v ← m, or g + β₁m with Nesterov: the matrix to orthogonalise.
    Muon { nesterov: bool },
}

/// Coefficients of one parameter in one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coef {
    pub formula: Formula,
    pub beta1: f32,
    pub rest1: f32,
    pub beta2: f32,
    pub rest2: f32,
    /// Step size, bias correction of the first moment included.
    pub step: f32,
    /// Step size times weight decay; SGD: the weight decay itself.
    pub decay: f32,
    /// 1 / √(1 − β₂ᵗ), or 1 where `eps` is added to the raw root.
    pub root: f32,
    pub eps: f32,
}

/// The gradient of a stretch: g · own, or g · own + group · pull.
#[derive(Clone, Copy)]
pub(crate) struct Gradient<'a> {
    pub g: &'a [f32],
    pub own: f32,
    pub group: Option<(&'a [f32], f32)>,
}

/// The memory that a stretch updates. `v` and `x` are empty where the formula has none.
pub(crate) struct Stretch<'a> {
    pub p: &'a mut [f32],
    pub m: &'a mut [f32],
    pub v: &'a mut [f32],
    pub x: &'a mut [f32],
}

/// Updates one stretch; all slices in use have one length.
pub(crate) fn update(build: Build, c: &Coef, g: Gradient<'_>, s: Stretch<'_>) {
    let Stretch { p, m, v, x } = s;
    let (group, pull) = g.group.unwrap_or((g.g, 0.0));
    let mixed = g.group.is_some();
    let (g, own) = (g.g, g.own);
    match (c.formula, mixed) {
        (Formula::AdamW, false) => adamw(build, c, g, own, p, m, v),
        (Formula::AdamW, true) => adamw_mixed(build, c, g, own, group, pull, p, m, v),
        (Formula::AmsGrad, false) => amsgrad(build, c, g, own, p, m, v, x),
        (Formula::AmsGrad, true) => amsgrad_mixed(build, c, g, own, group, pull, p, m, v, x),
        (Formula::Sgd { nesterov: false }, _) => sgd(build, c, g, own, group, pull, p, m),
        (Formula::Sgd { nesterov: true }, _) => nesterov(build, c, g, own, group, pull, p, m),
        (Formula::Lion, _) => lion(build, c, g, own, group, pull, p, m),
        (Formula::Muon { nesterov }, _) => {
            muon(build, c, g, own, group, pull, m, v, nesterov);
        }
    }
}

/// One element of AdamW: (p, m, v) after the step.
#[inline(always)]
pub(crate) fn adamw_one(c: &Coef, g: f32, p: f32, m: f32, v: f32) -> (f32, f32, f32) {
    let m = m + c.rest1 * (g - m);
    let v = v + c.rest2 * (g * g - v);
    (moved(c, p, m, v), m, v)
}

/// One element of AMSGrad: (p, m, v, x) after the step.
#[inline(always)]
fn amsgrad_one(c: &Coef, g: f32, p: f32, m: f32, v: f32, x: f32) -> (f32, f32, f32, f32) {
    let m = m + c.rest1 * (g - m);
    let v = v + c.rest2 * (g * g - v);
    let x = if v > x { v } else { x };
    (moved(c, p, m, x), m, v, x)
}

#[inline(always)]
fn moved(c: &Coef, p: f32, m: f32, v: f32) -> f32 {
    p - (c.decay * p + c.step * (m / (v.sqrt() * c.root + c.eps)))
}

#[inline(always)]
fn adamw_body(c: &Coef, g: &[f32], own: f32, p: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    let c = *c;
    for (((g, p), m), v) in g.iter().zip(p).zip(m).zip(v) {
        (*p, *m, *v) = adamw_one(&c, own * g, *p, *m, *v);
    }
}

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn adamw_mixed_body(
    c: &Coef,
    g: &[f32],
    own: f32,
    group: &[f32],
    pull: f32,
    p: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    let c = *c;
    for ((((g, t), p), m), v) in g.iter().zip(group).zip(p).zip(m).zip(v) {
        (*p, *m, *v) = adamw_one(&c, own * g + pull * t, *p, *m, *v);
    }
}

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn amsgrad_body(
    c: &Coef,
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
    c: &Coef,
    g: &[f32],
    own: f32,
    group: &[f32],
    pull: f32,
    p: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
    x: &mut [f32],
) {
    let c = *c;
    for (((((g, t), p), m), v), x) in g.iter().zip(group).zip(p).zip(m).zip(v).zip(x) {
        (*p, *m, *v, *x) = amsgrad_one(&c, own * g + pull * t, *p, *m, *v, *x);
    }
}

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn sgd_body(c: &Coef, g: &[f32], own: f32, group: &[f32], pull: f32, p: &mut [f32], m: &mut [f32]) {
    let c = *c;
    for (((g, t), p), m) in g.iter().zip(group).zip(p).zip(m) {
        let g = own * g + pull * t + c.decay * *p;
        *m = c.beta1 * *m + g;
        *p -= c.step * *m;
    }
}

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn nesterov_body(
    c: &Coef,
    g: &[f32],
    own: f32,
    group: &[f32],
    pull: f32,
    p: &mut [f32],
    m: &mut [f32],
) {
    let c = *c;
    for (((g, t), p), m) in g.iter().zip(group).zip(p).zip(m) {
        let g = own * g + pull * t + c.decay * *p;
        *m = c.beta1 * *m + g;
        *p -= c.step * (g + c.beta1 * *m);
    }
}

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
    c: &Coef,
    g: &[f32],
    own: f32,
    group: &[f32],
    pull: f32,
    p: &mut [f32],
    m: &mut [f32],
) {
    let c = *c;
    for (((g, t), p), m) in g.iter().zip(group).zip(p).zip(m) {
        let g = own * g + pull * t;
        let direction = sign(c.beta1 * *m + c.rest1 * g);
        *p -= c.decay * *p + c.step * direction;
        *m = c.beta2 * *m + c.rest2 * g;
    }
}

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn muon_body(
    c: &Coef,
    g: &[f32],
    own: f32,
    group: &[f32],
    pull: f32,
    m: &mut [f32],
    v: &mut [f32],
    nesterov: bool,
) {
    let c = *c;
    for (((g, t), m), v) in g.iter().zip(group).zip(m).zip(v) {
        let g = own * g + pull * t;
        *m = c.beta1 * *m + g;
        *v = if nesterov { g + c.beta1 * *m } else { *m };
    }
}

builds!(adamw = adamw_body,
    (c: &Coef, g: &[f32], own: f32, p: &mut [f32], m: &mut [f32], v: &mut [f32]));
builds!(adamw_mixed = adamw_mixed_body,
    (c: &Coef, g: &[f32], own: f32, group: &[f32], pull: f32,
     p: &mut [f32], m: &mut [f32], v: &mut [f32]));
builds!(amsgrad = amsgrad_body,
    (c: &Coef, g: &[f32], own: f32, p: &mut [f32], m: &mut [f32], v: &mut [f32],
     x: &mut [f32]));
builds!(amsgrad_mixed = amsgrad_mixed_body,
    (c: &Coef, g: &[f32], own: f32, group: &[f32], pull: f32,
     p: &mut [f32], m: &mut [f32], v: &mut [f32], x: &mut [f32]));
builds!(sgd = sgd_body,
    (c: &Coef, g: &[f32], own: f32, group: &[f32], pull: f32, p: &mut [f32], m: &mut [f32]));
builds!(nesterov = nesterov_body,
    (c: &Coef, g: &[f32], own: f32, group: &[f32], pull: f32, p: &mut [f32], m: &mut [f32]));
builds!(lion = lion_body,
    (c: &Coef, g: &[f32], own: f32, group: &[f32], pull: f32, p: &mut [f32], m: &mut [f32]));
builds!(muon = muon_body,
    (c: &Coef, g: &[f32], own: f32, group: &[f32], pull: f32, m: &mut [f32], v: &mut [f32],
     nesterov: bool));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::kernel::builds_here;

    fn numbers(seed: u32, n: usize, scale: f32) -> Vec<f32> {
        let mut s = seed;
        (0..n)
            .map(|_| {
                s = s.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((s >> 8) as f32 / 8_388_608.0 - 1.0) * scale
            })
            .collect()
    }

    /// All builds, plain and mixed, at lengths that are no multiple of any vector.
    #[test]
    fn builds_give_equal_bits() {
        let formulas = [
            Formula::AdamW,
            Formula::AmsGrad,
            Formula::Sgd { nesterov: false },
            Formula::Sgd { nesterov: true },
            Formula::Lion,
            Formula::Muon { nesterov: true },
        ];
        for formula in formulas {
            for (n, mixed) in [(1, false), (37, true), (1021, false), (1021, true)] {
                let c = Coef {
                    formula,
                    beta1: 0.9,
                    rest1: 0.1,
                    beta2: 0.999,
                    rest2: 0.001,
                    step: 3e-3,
                    decay: 1e-4,
                    root: 1.7,
                    eps: 1e-8,
                };
                let (g, t) = (numbers(1, n, 0.3), numbers(2, n, 0.2));
                let run = |build| {
                    let mut a: Vec<Vec<f32>> = (3..7).map(|s| numbers(s, n, 0.1)).collect();
                    a[2].iter_mut().chain([]).for_each(|v| *v = v.abs());
                    let [p, m, v, x] = &mut a[..] else { unreachable!() };
                    let group = mixed.then_some((&t[..], 0.2));
                    let g = Gradient { g: &g, own: 0.8, group };
                    update(build, &c, g, Stretch { p, m, v, x });
                    a.concat().iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                };
                let all: Vec<_> = builds_here().into_iter().map(run).collect();
                assert!(all.iter().all(|x| *x == all[0]), "{formula:?}");
                assert!(all[0].iter().all(|&x| f32::from_bits(x).is_finite()));
            }
        }
    }
}
