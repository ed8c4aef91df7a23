//! A step's coefficients: computed in f64 once per step and parameter, rounded once.

use crate::optim::options::{EpsPlacement, Method, Options};

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
pub(crate) struct Coefficients {
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

/// Coefficients that change nothing.
pub(in crate::optim) fn idle() -> Coefficients {
    Coefficients {
        formula: Formula::AdamW,
        beta1: 0.0,
        rest1: 0.0,
        beta2: 0.0,
        rest2: 0.0,
        step: 0.0,
        decay: 0.0,
        root: 1.0,
        eps: 1.0,
    }
}

/// The coefficients of a parameter at its own step `n` ≥ 1, computed in f64, rounded once.
pub(in crate::optim) fn coefficients(
    o: &Options,
    rate: f64,
    weight_decay: f64,
    n: u64,
    muon: bool,
) -> Coefficients {
    let exponent = i32::try_from(n).unwrap_or(i32::MAX);
    let (b1, b2) = (o.beta1, o.beta2);
    let (fix1, root) = (1.0 - b1.powi(exponent), (1.0 - b2.powi(exponent)).sqrt());
    let adam = Coefficients {
        formula: if o.amsgrad { Formula::AmsGrad } else { Formula::AdamW },
        beta1: b1 as f32,
        rest1: (1.0 - b1) as f32,
        beta2: b2 as f32,
        rest2: (1.0 - b2) as f32,
        step: match o.eps_placement {
            EpsPlacement::AfterBiasCorrection => (rate / fix1) as f32,
            EpsPlacement::BeforeBiasCorrection => (rate * root / fix1) as f32,
        },
        decay: (rate * weight_decay) as f32,
        root: match o.eps_placement {
            EpsPlacement::AfterBiasCorrection => (1.0 / root) as f32,
            EpsPlacement::BeforeBiasCorrection => 1.0,
        },
        eps: o.eps as f32,
    };
    let momentum = o.momentum as f32;
    match o.method {
        Method::AdamW => adam,
        Method::Muon if !muon => adam,
        Method::Muon => Coefficients {
            formula: Formula::Muon { nesterov: o.nesterov },
            beta1: momentum,
            ..adam
        },
        Method::Lion => Coefficients { formula: Formula::Lion, step: rate as f32, ..adam },
        Method::Sgd => Coefficients {
            formula: Formula::Sgd { nesterov: o.nesterov },
            beta1: momentum,
            step: rate as f32,
            decay: weight_decay as f32,
            ..adam
        },
    }
}
