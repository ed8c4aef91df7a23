//! A trainer's state set aside in memory, to be put back after steps that only try something.

use super::model::Model;
use super::mutual::MemorySnapshot;
use super::trainer::Trainer;
use crate::error::{Error, Result};
use crate::optim::OptimizerSnapshot;
use crate::tensor::Tensor;

/// Everything that later training depends on: weights, their running means, moments, counters,
/// schedules, what mutual learning remembers. As large as a checkpoint.
pub struct TrainerSnapshot {
    optimizer: OptimizerSnapshot,
    models: Vec<ModelSnapshot>,
    means_begun: bool,
    memory: Option<MemorySnapshot>,
}

struct ModelSnapshot {
    n_runs: u64,
    values: Vec<Tensor>,
    means: Vec<Option<Tensor>>,
}

impl Trainer {
    /// Sets the state aside in memory, to come back to it after steps that only try something.
    /// Between a backward pass and its step it is a `State` error.
    pub fn snapshot(&self) -> Result<TrainerSnapshot> {
        self.check_weights_in_place()?;
        let models = self.models.iter().map(|model| {
            let means = model.parameters.iter().map(|p| p.mean.as_ref().map(Tensor::copy));
            Ok(ModelSnapshot {
                n_runs: model.n_runs,
                values: model.parameters.iter().map(|p| p.value.copy()).collect::<Result<_>>()?,
                means: means.map(Option::transpose).collect::<Result<_>>()?,
            })
        });
        Ok(TrainerSnapshot {
            optimizer: self.optimizer().snapshot()?,
            models: models.collect::<Result<_>>()?,
            means_begun: self.ema.as_ref().is_some_and(|ema| ema.begun),
            memory: self.mutual.as_ref().map_or(Ok(None), |m| m.snapshot())?,
        })
    }

    /// Puts the state back; the gradients of the last pass stay as they are. For a snapshot of
    /// another trainer it is an `InvalidArgument` error.
    pub fn restore_snapshot(&mut self, saved: TrainerSnapshot) -> Result<()> {
        self.check_weights_in_place()?;
        let shapes = |model: &Model| -> Vec<Vec<usize>> {
            model.parameters.iter().map(|p| p.value.shape().to_vec()).collect()
        };
        let saved_shapes = |model: &ModelSnapshot| -> Vec<Vec<usize>> {
            model.values.iter().map(|v| v.shape().to_vec()).collect()
        };
        if !self.models.iter().map(shapes).eq(saved.models.iter().map(saved_shapes)) {
            return Err(Error::invalid("the snapshot is of a trainer with other models"));
        }
        self.zero_grad();
        self.optimizer_mut().restore_snapshot(saved.optimizer);
        for (model, saved) in self.models.iter_mut().zip(saved.models) {
            model.n_runs = saved.n_runs;
            let saved = saved.values.into_iter().zip(saved.means);
            for (parameter, (value, mean)) in model.parameters.iter_mut().zip(saved) {
                parameter.value.bytes_mut().copy_from_slice(value.bytes());
                // Sessions know its address once it exists; it begins anew where it had not begun.
                if let (Some(own), Some(mean)) = (&mut parameter.mean, mean) {
                    own.bytes_mut().copy_from_slice(mean.bytes());
                }
            }
        }
        if let Some(ema) = &mut self.ema {
            ema.begun = saved.means_begun;
        }
        if let Some(mutual) = &mut self.mutual {
            mutual.restore_snapshot(saved.memory);
        }
        Ok(())
    }
}
