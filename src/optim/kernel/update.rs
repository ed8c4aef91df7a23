//! The update of a stretch of memory: the formula that the coefficients name. p parameter, g
//! gradient, m and v moments, x the maximum of v.

use crate::optim::kernel::adamw::{adamw, adamw_mixed, amsgrad, amsgrad_mixed};
use crate::optim::kernel::coefficient::{Coefficients, Formula};
use crate::optim::kernel::lion::lion;
use crate::optim::kernel::muon::muon;
use crate::optim::kernel::sgd::{nesterov, sgd};
use crate::optim::kernel::simd::Build;

/// The gradient of a stretch: g · own, or g · own + group · alpha.
#[derive(Clone, Copy)]
pub(crate) struct Gradient<'a> {
    pub g: &'a [f32],
    pub own: f32,
    pub group: Option<(&'a [f32], f32)>,
}

/// The memory that a stretch updates. `v` and `x` are empty where the formula has none.
pub(crate) struct Slices<'a> {
    pub p: &'a mut [f32],
    pub m: &'a mut [f32],
    pub v: &'a mut [f32],
    pub x: &'a mut [f32],
}

/// Updates one stretch; all slices in use have one length.
pub(crate) fn update(build: Build, c: &Coefficients, g: Gradient<'_>, s: Slices<'_>) {
    let Slices { p, m, v, x } = s;
    let (group, alpha) = g.group.unwrap_or((g.g, 0.0));
    let mixed = g.group.is_some();
    let (g, own) = (g.g, g.own);
    match (c.formula, mixed) {
        (Formula::AdamW, false) => adamw(build, c, g, own, p, m, v),
        (Formula::AdamW, true) => adamw_mixed(build, c, g, own, group, alpha, p, m, v),
        (Formula::AmsGrad, false) => amsgrad(build, c, g, own, p, m, v, x),
        (Formula::AmsGrad, true) => amsgrad_mixed(build, c, g, own, group, alpha, p, m, v, x),
        (Formula::Sgd { nesterov: false }, _) => sgd(build, c, g, own, group, alpha, p, m),
        (Formula::Sgd { nesterov: true }, _) => nesterov(build, c, g, own, group, alpha, p, m),
        (Formula::Lion, _) => lion(build, c, g, own, group, alpha, p, m),
        (Formula::Muon { nesterov }, _) => {
            muon(build, c, g, own, group, alpha, m, v, nesterov);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::kernel::simd::builds_here;

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
                let c = Coefficients {
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
                    update(build, &c, g, Slices { p, m, v, x });
                    a.concat().iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                };
                let all: Vec<_> = builds_here().into_iter().map(run).collect();
                assert!(all.iter().all(|x| *x == all[0]), "{formula:?}");
                assert!(all[0].iter().all(|&x| f32::from_bits(x).is_finite()));
            }
        }
    }
}
