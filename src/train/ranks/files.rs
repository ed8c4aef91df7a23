//! Checkpoints of replicas: rank 0 writes, all wait; all read.

use std::path::PathBuf;

use super::Ranks;
use super::exchange::{Call, Numbers};
use super::outer::{Momentum, Outer};
use crate::checkpoint::files::Files;
use crate::checkpoint::reader::Checkpoint;
use crate::comm::SharedCommunicator;
use crate::error::{Error, Result};
use crate::train::model::Model;
use crate::train::trainer::Trainer;

impl Ranks {
    /// Where rank 0 has put what it has written, on every rank. `write` runs on rank 0 alone, and
    /// its failure is one of all.
    pub(in crate::train) fn written_by_first(
        &self,
        write: impl FnOnce() -> Result<Option<PathBuf>>,
    ) -> Result<Option<PathBuf>> {
        let none = vec![Numbers::default(); self.n_models];
        let written = if self.is_first() { write() } else { Ok(None) };
        let written = written.inspect_err(|_| self.tell_failure(Call::Checkpoint))?;
        self.exchange(Call::Checkpoint, &none)?;
        let text = written.map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
        let mut text = text_of_first(&self.comm, text)?;
        if let Some(replicas) = &self.replicas {
            text = text_of_first(replicas, text)?;
        }
        Ok(Some(PathBuf::from(text)).filter(|p| !p.as_os_str().is_empty()))
    }

    /// Adds what local steps need to go on.
    pub(in crate::train) fn add_to<'a>(&'a self, files: &mut Files<'a>, models: &'a [Model]) {
        if let Some(outer) = &self.outer {
            outer.add_to(files, models);
        }
    }

    /// Reads what [`Ranks::add_to`] added; a checkpoint without it gives a fresh start.
    pub(in crate::train) fn read(&self, found: &Checkpoint, models: &[Model]) -> Result<Momentum> {
        self.outer.as_ref().map_or_else(|| Ok(Vec::new()), |outer| outer.read(found, models))
    }

    /// Goes on from what was read, with the weights that the models have now.
    pub(in crate::train) fn restore(&mut self, models: &[Model], momentum: Momentum) -> Result<()> {
        self.outer.as_mut().map_or(Ok(()), |outer: &mut Outer| outer.restore(models, momentum))
    }
}

fn text_of_first(comm: &SharedCommunicator, own: String) -> Result<String> {
    let mut length = (own.len() as u64).to_le_bytes();
    comm.with(|comm| comm.broadcast(&mut length, 0))?;
    let length = usize::try_from(u64::from_le_bytes(length));
    let length = length.map_err(|_| Error::internal("a path of rank 0 without an end"))?;
    let mut bytes = own.into_bytes();
    crate::memory::check_room(length)?;
    bytes.resize(length, 0);
    comm.with(|comm| comm.broadcast(&mut bytes, 0))?;
    String::from_utf8(bytes).map_err(|_| Error::internal("a path of rank 0 is not UTF-8"))
}

impl Trainer {
    /// A checkpoint of local steps is of a meeting: in between each replica has weights of its own.
    pub(in crate::train) fn check_at_meeting(&self) -> Result<()> {
        let Some(local) = self.ranks.as_ref().and_then(|r| r.options.local) else { return Ok(()) };
        let (step, every) = (self.optimizer().step_count(), local.sync_every);
        if step.is_multiple_of(every) {
            return Ok(());
        }
        Err(Error::state(format!(
            "step {step} lies between two meetings of the ranks, so each has weights of its own; \
             write checkpoints after steps that are multiples of {every}"
        )))
    }

    /// After every rank has read a checkpoint: all must have read the same one.
    pub(in crate::train) fn agree_on_resume<T>(&mut self, read: Result<T>) -> Result<T> {
        let Some(ranks) = &self.ranks else { return read };
        let read = read.inspect_err(|_| ranks.tell_failure(Call::Resume))?;
        let x = self.optimizer().step_count() as f64;
        let mut own = vec![Numbers::default(); ranks.n_models];
        own[0] = [x, x * x, 0.0, 0.0, 0.0, 0.0];
        let sums = ranks.exchange(Call::Resume, &own)?;
        if sums[0][0] * sums[0][0] != (ranks.size() * ranks.n_groups()) as f64 * sums[0][1] {
            return Err(Error::state(format!(
                "this rank resumed at step {x}, and others at another one; all must read the same \
                 checkpoint"
            )));
        }
        for comm in std::iter::once(&ranks.comm).chain(&ranks.replicas) {
            self.check_replicas(comm, |_| true)?;
        }
        self.note_spread();
        if let Some(ranks) = &mut self.ranks {
            ranks.is_stale = false;
        }
        Ok(read)
    }
}
