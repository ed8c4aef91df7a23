//! Running means of weights, for mean teachers (Tarvainen and Valpola 2017):
//! θ′ ← d θ′ + (1 − d) θ after step t = 1, 2, …, with d = min(decay, (1 + t) / (10 + t)), so that
//! the first weights do not stay for long.

use std::path::Path;

use crate::checkpoint::weights::{self, Weights};
use crate::error::{Context, Error, Result};
use crate::tensor::Tensor;
use crate::train::parameter::Parameter;

/// The running mean of one model's trained parameters.
#[derive(Debug)]
pub(super) struct MeanWeights {
    /// In the order of the parameters that are trained.
    means: Vec<Tensor>,
}

/// d after step `t`, from 1.
fn decay_at(decay: f64, t: u64) -> f64 {
    decay.min((1.0 + t as f64) / (10.0 + t as f64))
}

fn trained(parameters: &[Parameter]) -> impl Iterator<Item = &Parameter> {
    parameters.iter().filter(|p| p.trainable)
}

impl MeanWeights {
    /// Begins with the weights as they are.
    pub fn of(parameters: &[Parameter]) -> Self {
        Self { means: trained(parameters).map(|p| p.value.clone()).collect() }
    }

    /// Moves towards the weights after step `t`.
    pub fn follow(&mut self, parameters: &[Parameter], decay: f64, t: u64) -> Result<()> {
        let rate = (1.0 - decay_at(decay, t)) as f32;
        for (mean, parameter) in self.means.iter_mut().zip(trained(parameters)) {
            let values = parameter.value.as_slice::<f32>()?;
            let means = mean.as_mut_slice::<f32>()?;
            means.iter_mut().zip(values).for_each(|(m, p)| *m += rate * (p - *m));
        }
        Ok(())
    }

    /// Exchanges the means and the weights, which lie where sessions read them.
    pub fn swap(&mut self, parameters: &mut [Parameter]) {
        let trained = parameters.iter_mut().filter(|p| p.trainable);
        for (mean, parameter) in self.means.iter_mut().zip(trained) {
            mean.bytes_mut().swap_with_slice(parameter.value.bytes_mut());
        }
    }

    /// Writes the means under the parameters' names.
    pub fn write(&self, path: &Path, parameters: &[Parameter]) -> Result<()> {
        let names = trained(parameters).map(|p| p.name.as_str());
        weights::write(path, names.zip(&self.means), &[])
    }

    /// Reads what [`MeanWeights::write`] wrote.
    pub fn read(path: &Path, parameters: &[Parameter]) -> Result<Self> {
        let file = Weights::read(path)?;
        let read = |p: &Parameter| {
            let mean = file.tensor(&p.name)?;
            if mean.shape() != p.value.shape() || mean.dtype() != p.value.dtype() {
                return Err(Error::shape(format!(
                    "parameter '{}' is {}{:?} there",
                    p.name,
                    mean.dtype(),
                    mean.shape()
                )));
            }
            Ok(mean)
        };
        let means = trained(parameters).map(read).collect::<Result<_>>();
        Ok(Self { means: means.context(|| path.display().to_string())? })
    }

    /// A trained parameter's mean.
    pub fn of_parameter(&self, parameters: &[Parameter], name: &str) -> Option<&Tensor> {
        trained(parameters).zip(&self.means).find(|(p, _)| p.name == name).map(|(_, mean)| mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_its_formula() {
        let tensor = |x: &[f32]| Tensor::from_slice(&[2], x).unwrap();
        let parameter = |name: &str, trained| {
            Parameter::new(name.into(), tensor(&[1.0, -3.0]), trained).unwrap()
        };
        let mut parameters = vec![parameter("frozen", false), parameter("w", true)];
        let mut mean = MeanWeights::of(&parameters);
        let mut expected = [1.0f64, -3.0];
        for t in 1..=200u64 {
            let values = [t as f64 / 7.0, (t as f64).sin()];
            let narrow: Vec<f32> = values.iter().map(|&v| v as f32).collect();
            parameters[1].value.as_mut_slice::<f32>().unwrap().copy_from_slice(&narrow);
            mean.follow(&parameters, 0.9, t).unwrap();
            let d = if t < 80 { (1.0 + t as f64) / (10.0 + t as f64) } else { 0.9 };
            let d = d.min(0.9);
            for (e, v) in expected.iter_mut().zip(values) {
                *e = d * *e + (1.0 - d) * v;
            }
        }
        mean.swap(&mut parameters);
        let found = parameters[1].value.as_slice::<f32>().unwrap();
        for (a, b) in found.iter().zip(expected) {
            assert!((f64::from(*a) - b).abs() <= 1e-6 * b.abs().max(1.0), "{a} against {b}");
        }
        mean.swap(&mut parameters);
        assert_eq!(parameters[1].value.as_slice::<f32>().unwrap()[1], 200f64.sin() as f32);
        assert_eq!(parameters[0].value.as_slice::<f32>().unwrap(), [1.0, -3.0]);
    }
}
