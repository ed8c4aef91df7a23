//! What mutual learning adds to a trainer's checkpoint: the memory.

use super::memory::{Memory, MemorySnapshot, SavedMemory};
use super::step::Mutual;
use crate::checkpoint::files::Files;
use crate::checkpoint::reader::Checkpoint;
use crate::error::{Context, Result};

const MEMORY: &str = "mutual-memory.safetensors";

/// What a checkpoint holds of mutual learning.
pub(in crate::train) struct Saved(Option<SavedMemory>);

impl Mutual {
    /// Adds what there is.
    pub fn add_to<'a>(&'a self, files: &mut Files<'a>) -> Result<()> {
        self.memory.as_ref().map_or(Ok(()), |memory| memory.add_to(files, MEMORY))
    }

    /// Reads what the options need; a checkpoint that was written without it gives a fresh start.
    pub fn read(&mut self, found: &Checkpoint) -> Result<Saved> {
        let file = found.find(MEMORY).map(|_| found.weights(MEMORY)).transpose()?;
        let memory = self.memory.as_mut().zip(file);
        let read = memory.map(|(memory, file)| memory.read(file));
        read.transpose().map(Saved).context(|| found.path_of(MEMORY).display().to_string())
    }

    /// Sets aside what a step changes.
    pub fn snapshot(&self) -> Result<Option<MemorySnapshot>> {
        self.memory.as_ref().map(Memory::snapshot).transpose()
    }

    /// Puts back what was set aside.
    pub fn restore_snapshot(&mut self, saved: Option<MemorySnapshot>) {
        if let (Some(memory), Some(saved)) = (&mut self.memory, saved) {
            memory.restore_snapshot(saved);
        }
    }

    /// Goes on from what was read.
    pub fn restore(&mut self, saved: Saved) {
        if let Some(memory) = &mut self.memory {
            memory.restore(saved.0);
        }
    }
}
