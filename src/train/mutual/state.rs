//! What mutual learning adds to a trainer's checkpoint: mean teachers and the memory.

use std::path::Path;

use super::mean_weights::MeanWeights;
use super::memory::Memory;
use super::step::Mutual;
use crate::error::{Context, Result};
use crate::optim::Teacher;
use crate::train::model::Model;

const MEMORY: &str = "mutual-memory.safetensors";

fn means_file(model: usize) -> String {
    format!("mean-teacher-{model:02}.safetensors")
}

/// What a checkpoint holds of mutual learning.
pub(in crate::train) struct Saved {
    means: Vec<MeanWeights>,
    memory: Memory,
}

impl Mutual {
    /// Writes what there is.
    pub fn write(&self, dir: &Path, models: &[Model]) -> Result<()> {
        for (i, (mean, model)) in self.means.iter().zip(models).enumerate() {
            mean.write(&dir.join(means_file(i)), &model.parameters)?;
        }
        if self.options.teacher == Teacher::Memory {
            self.memory.write(&dir.join(MEMORY))?;
        }
        Ok(())
    }

    /// Reads what the options need; a checkpoint that was written without it gives a fresh start.
    pub fn read(&self, dir: &Path, models: &[Model]) -> Result<Saved> {
        let mut saved = Saved { means: Vec::new(), memory: Memory::default() };
        if self.options.teacher == Teacher::MeanTeacher && dir.join(means_file(0)).exists() {
            let read = |(i, model): (usize, &Model)| {
                MeanWeights::read(&dir.join(means_file(i)), &model.parameters)
                    .context(|| format!("model '{}'", model.name))
            };
            saved.means = models.iter().enumerate().map(read).collect::<Result<_>>()?;
        }
        if self.options.teacher == Teacher::Memory && dir.join(MEMORY).exists() {
            saved.memory = Memory::read(&dir.join(MEMORY))?;
        }
        Ok(saved)
    }

    /// Goes on from what was read.
    pub fn restore(&mut self, saved: Saved) {
        (self.means, self.memory) = (saved.means, saved.memory);
    }
}
