//! Replicas that step by themselves and meet now and then: local SGD, and DiLoCo (Douillard et al.
//! 2023, "DiLoCo: Distributed Low-Communication Training of Language Models", algorithm 1).
//!
//! After every H steps of its own each replica r has weights θ_r, where all began with θ. With the
//! mean difference Δ = θ − (1/n) Σ_r θ_r, and μ the momentum and η the rate of the outer step:
//!
//! u ← μ u + Δ        θ ← θ − η (μ u + Δ)
//!
//! which is SGD with Nesterov momentum as PyTorch has it. With μ = 0 and η = 1 θ becomes the mean
//! of the replicas: local SGD. Every replica keeps the moments of its own inner optimizer.

use super::options::LocalSteps;
use crate::checkpoint::files::Files;
use crate::checkpoint::reader::Checkpoint;
use crate::error::{Error, Result};
use crate::optim::Optimizer;
use crate::tensor::{DType, Tensor};
use crate::train::model::Model;

/// The weights of the last meeting and the outer momentum, of each model's trained parameters.
#[derive(Debug)]
pub(in crate::train) struct Outer {
    pub(super) weights: Vec<Vec<Option<Tensor>>>,
    pub(super) momentum: Vec<Vec<Option<Tensor>>>,
}

impl Outer {
    /// θ as it is now, u = 0.
    pub(super) fn new(models: &[Model], optimizer: &Optimizer) -> Result<Self> {
        let (mut weights, mut momentum) = (Vec::new(), Vec::new());
        for (m, model) in models.iter().enumerate() {
            let (mut of_model, mut zeros) = (Vec::new(), Vec::new());
            for (i, p) in model.parameters.iter().enumerate() {
                let trained = optimizer.param_spec(m, i)?.trainable;
                let zero = || Tensor::zeros(DType::F32, p.value.shape());
                of_model.push(trained.then(|| p.value.copy()).transpose()?);
                zeros.push(trained.then(zero).transpose()?);
            }
            weights.push(of_model);
            momentum.push(zeros);
        }
        Ok(Self { weights, momentum })
    }

    /// Adds the momentum under the parameters' names.
    pub fn add_to<'a>(&'a self, files: &mut Files<'a>, models: &'a [Model]) {
        for (i, (model, momentum)) in models.iter().zip(&self.momentum).enumerate() {
            let named = model.parameters.iter().zip(momentum);
            let there = named.filter_map(|(p, u)| u.as_ref().map(|u| (p.name.as_str(), u)));
            files.add_tensors(file_name(i), there);
        }
    }

    /// Reads what [`Outer::add_to`] added; a checkpoint without it gives a fresh start.
    pub fn read(&self, found: &Checkpoint, models: &[Model]) -> Result<Momentum> {
        if found.find(&file_name(0)).is_none() {
            return Ok(Vec::new());
        }
        let of_model = |(i, model): (usize, &Model)| -> Result<Vec<Option<Tensor>>> {
            let file = found.weights(&file_name(i))?;
            let named = model.parameters.iter().zip(&self.momentum[i]);
            let read = named.map(|(p, own)| match own {
                Some(own) => {
                    let read = file.tensor(&p.name)?;
                    if read.shape() != own.shape() || read.dtype() != own.dtype() {
                        let (model, name) = (&model.name, &p.name);
                        return Err(Error::data(format!(
                            "model '{model}': the outer momentum of '{name}' has another shape"
                        )));
                    }
                    Ok(Some(read))
                }
                None => Ok(None),
            });
            read.collect()
        };
        models.iter().enumerate().map(of_model).collect()
    }

    /// Goes on from what was read, with the weights that the models have now.
    pub fn restore(&mut self, models: &[Model], momentum: Momentum) -> Result<()> {
        for (model, kept) in models.iter().zip(&mut self.weights) {
            for (p, kept) in model.parameters.iter().zip(kept) {
                if let Some(kept) = kept {
                    kept.bytes_mut().copy_from_slice(p.value.bytes());
                }
            }
        }
        if momentum.is_empty() {
            let all = self.momentum.iter_mut().flatten().flatten();
            all.for_each(|u| u.bytes_mut().fill(0));
        } else {
            self.momentum = momentum;
        }
        Ok(())
    }
}

/// The outer momentum of each model's parameters; empty where there is none to go on from.
pub(in crate::train) type Momentum = Vec<Vec<Option<Tensor>>>;

fn file_name(model: usize) -> String {
    format!("outer-{model:02}.safetensors")
}

/// One outer step: `mean` is the mean of the replicas on entry, and the new weights afterwards.
pub(super) fn outer_step(
    mean: &mut [f32],
    weights: &mut [f32],
    momentum: &mut [f32],
    options: LocalSteps,
) {
    let (rate, mu) = (options.outer_lr as f32, options.outer_momentum as f32);
    for ((x, w), u) in mean.iter_mut().zip(weights).zip(momentum) {
        let delta = *w - *x;
        *u = mu * *u + delta;
        *w -= rate * (mu * *u + delta);
        *x = *w;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The formula, written out in f64.
    #[test]
    fn outer_steps_are_nesterov_momentum_on_the_difference() {
        let options = LocalSteps { sync_every: 1, outer_lr: 0.7, outer_momentum: 0.9 };
        let n = 6;
        let start: Vec<f64> = (0..n).map(|i| 0.3 * f64::from(i) - 0.5).collect();
        let (mut theta, mut u) = (start.clone(), vec![0.0; n as usize]);
        let mut weights: Vec<f32> = start.iter().map(|&x| x as f32).collect();
        let mut momentum = vec![0f32; n as usize];
        for round in 1..=20 {
            let drift = |i: usize| 0.01 * f64::from(round) * (i as f64 - 2.5);
            let mut mean: Vec<f32> =
                theta.iter().enumerate().map(|(i, x)| (x + drift(i)) as f32).collect();
            for i in 0..theta.len() {
                let delta = -drift(i);
                u[i] = 0.9 * u[i] + delta;
                theta[i] -= 0.7 * (0.9 * u[i] + delta);
            }
            outer_step(&mut mean, &mut weights, &mut momentum, options);
            for i in 0..theta.len() {
                assert!((f64::from(mean[i]) - theta[i]).abs() < 1e-5, "{round}: {i}");
                assert_eq!(mean[i].to_bits(), weights[i].to_bits());
            }
        }
    }

    #[test]
    fn without_momentum_and_at_rate_1_it_is_the_mean() {
        let options = LocalSteps { sync_every: 1, outer_lr: 1.0, outer_momentum: 0.0 };
        let (mut mean, mut weights, mut momentum) = ([3.0, -1.0], [1.0, 1.0], [0.0, 0.0]);
        outer_step(&mut mean, &mut weights, &mut momentum, options);
        assert_eq!((mean, weights), ([3.0, -1.0], [3.0, -1.0]));
    }
}
