//! A step's coefficients: computed in f64, rounded once.

use crate::optim::kernel::update::{Coef, Formula};
use crate::optim::options::{EpsForm, Method, Options};

/// A coefficient that moves nothing.
pub(in crate::optim) fn idle() -> Coef {
    Coef {
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
pub(in crate::optim) fn coefficient(
    o: &Options,
    rate: f64,
    weight_decay: f64,
    n: u64,
    muon: bool,
) -> Coef {
    let exponent = i32::try_from(n).unwrap_or(i32::MAX);
    let (b1, b2) = (o.beta1, o.beta2);
    let (fix1, root) = (1.0 - b1.powi(exponent), (1.0 - b2.powi(exponent)).sqrt());
    let adam = Coef {
        formula: if o.amsgrad { Formula::AmsGrad } else { Formula::AdamW },
        beta1: b1 as f32,
        rest1: (1.0 - b1) as f32,
        beta2: b2 as f32,
        rest2: (1.0 - b2) as f32,
        step: match o.eps_form {
            EpsForm::Corrected => (rate / fix1) as f32,
            EpsForm::Raw => (rate * root / fix1) as f32,
        },
        decay: (rate * weight_decay) as f32,
        root: match o.eps_form {
            EpsForm::Corrected => (1.0 / root) as f32,
            EpsForm::Raw => 1.0,
        },
        eps: o.eps as f32,
    };
    let momentum = o.momentum as f32;
    match o.method {
        Method::AdamW => adam,
        Method::Muon if !muon => adam,
        Method::Muon => {
            Coef { formula: Formula::Muon { nesterov: o.nesterov }, beta1: momentum, ..adam }
        }
        Method::Lion => Coef { formula: Formula::Lion, step: rate as f32, ..adam },
        Method::Sgd => Coef {
            formula: Formula::Sgd { nesterov: o.nesterov },
            beta1: momentum,
            step: rate as f32,
            decay: weight_decay as f32,
            ..adam
        },
    }
}
