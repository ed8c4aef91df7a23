//! Histograms of a step: gradients and weights of each parameter, sizes of its updates.

use super::tensorboard::{Histogram, Value, histogram};
use crate::error::Result;
use crate::tensor::{DType, Tensor};
use crate::train::Trainer;

/// Gradients as the last pass left them, and weights before the step.
pub(super) struct BeforeStep {
    values: Vec<Value>,
    /// Model, parameter, weights.
    weights: Vec<(usize, String, Tensor)>,
}

impl BeforeStep {
    pub fn new(trainer: &Trainer) -> Result<Self> {
        let (mut values, mut weights) = (Vec::new(), Vec::new());
        for model in 0..trainer.n_models() {
            for parameter in trainer.parameters(model)? {
                if !parameter.trainable || parameter.dtype != DType::F32 {
                    continue;
                }
                let name = parameter.name;
                if let Some(gradient) = trainer.gradient(model, name)? {
                    let tag = format!("gradients/{}/{name}", trainer.model_name(model)?);
                    values.push(histogram(tag, &of(gradient)?));
                }
                let value = trainer.parameter(model, name)?.copy()?;
                weights.push((model, name.to_owned(), value));
            }
        }
        Ok(Self { values, weights })
    }

    /// All histograms: of gradients, of weights after the step, and for each model one of
    /// ‖Δw‖ / ‖w‖ over its parameters.
    pub fn after(self, trainer: &Trainer) -> Result<Vec<Value>> {
        let Self { mut values, weights } = self;
        let mut ratios = vec![Histogram::default(); trainer.n_models()];
        for (model, name, before) in weights {
            let after = trainer.parameter(model, &name)?;
            let tag = format!("weights/{}/{name}", trainer.model_name(model)?);
            values.push(histogram(tag, &of(after)?));
            let pairs = before.as_slice::<f32>()?.iter().zip(after.as_slice::<f32>()?);
            let (mut moved, mut size) = (0.0, 0.0);
            for (old, new) in pairs {
                moved += (f64::from(*new) - f64::from(*old)).powi(2);
                size += f64::from(*old).powi(2);
            }
            if size > 0.0 {
                ratios[model].add((moved / size).sqrt());
            }
        }
        for (model, ratio) in ratios.iter().enumerate() {
            values.push(histogram(format!("update_ratios/{}", trainer.model_name(model)?), ratio));
        }
        Ok(values)
    }
}

fn of(tensor: &Tensor) -> Result<Histogram> {
    Ok(Histogram::of(tensor.as_slice::<f32>()?.iter().map(|&v| f64::from(v))))
}
