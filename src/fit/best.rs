//! The weights of each model's best evaluation.

use std::path::Path;

use crate::checkpoint::reader::Checkpoint;
use crate::checkpoint::weights;
use crate::error::{Context, Error, Result};
use crate::tensor::Tensor;
use crate::train::Trainer;

/// A copy of each model's parameters; empty where there was no evaluation yet.
pub(super) struct BestWeights(Vec<Vec<(String, Tensor)>>);

fn file_name(model: usize) -> String {
    format!("best-{model:02}.safetensors")
}

impl BestWeights {
    pub fn new(n_models: usize) -> Self {
        Self((0..n_models).map(|_| Vec::new()).collect())
    }

    /// Copies a model's parameters as they are now.
    pub fn keep(&mut self, trainer: &Trainer, model: usize) -> Result<()> {
        let kept = &mut self.0[model];
        if kept.is_empty() {
            let names: Vec<String> =
                trainer.parameters(model)?.map(|p| p.name.to_owned()).collect();
            let copy = |name: String| {
                let value = trainer.parameter(model, &name)?.copy()?;
                Ok((name, value))
            };
            *kept = names.into_iter().map(copy).collect::<Result<_>>()?;
            return Ok(());
        }
        for (name, value) in kept {
            value.bytes_mut().copy_from_slice(trainer.parameter(model, name)?.bytes());
        }
        Ok(())
    }

    /// Puts the copies in the place of the parameters; true if there are any.
    pub fn restore(&self, trainer: &mut Trainer) -> Result<bool> {
        for (model, kept) in self.0.iter().enumerate() {
            for (name, value) in kept {
                trainer.set_parameter(model, name, value.bytes())?;
            }
        }
        Ok(self.0.iter().any(|kept| !kept.is_empty()))
    }

    /// Adds them to a checkpoint.
    pub fn write(&self, dir: &Path) -> Result<()> {
        for (model, kept) in self.0.iter().enumerate().filter(|(_, kept)| !kept.is_empty()) {
            let tensors = kept.iter().map(|(name, value)| (name.as_str(), value));
            weights::write(&dir.join(file_name(model)), tensors, &[])?;
        }
        Ok(())
    }

    /// Reads what [`BestWeights::write`] wrote.
    pub fn read(found: &Checkpoint, trainer: &Trainer) -> Result<Self> {
        let mut all = Self::new(trainer.n_models());
        for (model, kept) in all.0.iter_mut().enumerate() {
            let name = file_name(model);
            if found.find(&name).is_none() {
                continue;
            }
            let file = found.weights(&name)?;
            for parameter in trainer.parameters(model)? {
                let value = file.tensor(parameter.name)?;
                if value.shape() != parameter.shape || value.dtype() != parameter.dtype {
                    let (of, shape) = (parameter.name, value.shape());
                    return Err(Error::shape(format!("parameter '{of}' is {shape:?} there")))
                        .context(|| found.path_of(&name).display().to_string());
                }
                kept.push((parameter.name.to_owned(), value));
            }
        }
        Ok(all)
    }
}
