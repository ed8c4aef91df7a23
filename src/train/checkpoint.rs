//! Checkpoints of a trainer: parameters, the optimizer's moments and counters, the host's text.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ema::Ema;
use super::trainer::Trainer;
use crate::checkpoint::reader::{self, Checkpoint};
use crate::checkpoint::weights::{self, Weights};
use crate::checkpoint::writer::Keep;
use crate::error::{Context, Error, Kind, Result};

/// Checkpoints that are kept where nothing else is said.
const KEEP: usize = 2;
const TRAINER: &str = "trainer.json";
const OPTIMIZER: &str = "optimizer.json";
const MOMENTS: &str = "optimizer.safetensors";

#[derive(Serialize, Deserialize)]
struct TrainerState {
    version: String,
    models: Vec<String>,
    runs: Vec<u64>,
    user: String,
}

fn weights_file(model: usize) -> String {
    format!("model-{model:02}.safetensors")
}

impl Trainer {
    /// Writes a checkpoint below `root` and returns its directory. `user` is the host's own text,
    /// e.g. the state of its data loader; [`Trainer::resume`] gives it back. The two newest
    /// checkpoints of this run stay; those of other runs are not touched. From here on no other
    /// trainer can write there, until this one is dropped or writes elsewhere.
    ///
    /// # Errors
    /// `State` between a backward pass and its step, and where another trainer writes into the
    /// directory; `Io`.
    pub fn checkpoint(&self, root: &Path, user: &str) -> Result<PathBuf> {
        self.checkpoint_keeping(root, user, Keep::last(KEEP))
    }

    /// As [`Trainer::checkpoint`], with a choice of which of this run's checkpoints stay.
    pub fn checkpoint_keeping(&self, root: &Path, user: &str, keep: Keep) -> Result<PathBuf> {
        self.checkpoint_with(root, user, keep, |_| Ok(()))
    }

    /// As [`Trainer::checkpoint_keeping`], with files that `more` adds to the directory that it
    /// gets.
    pub(crate) fn checkpoint_with(
        &self,
        root: &Path,
        user: &str,
        keep: Keep,
        more: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        self.check_weights_in_place()?;
        if self.n_pending() > 0 {
            return Err(Error::state("a checkpoint needs a finished step; call step first"));
        }
        let header = TrainerState {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            models: self.models().iter().map(|m| m.name.clone()).collect(),
            runs: self.models().iter().map(|m| m.n_runs).collect(),
            user: user.to_owned(),
        };
        let json =
            serde_json::to_string_pretty(&header).map_err(|e| Error::internal(e.to_string()))?;
        let step = self.optimizer().step_count();
        let written = self
            .run
            .write(root, step, keep, |dir| {
                for (i, model) in self.models().iter().enumerate() {
                    let tensors = model.parameters.iter().map(|p| (p.name.as_str(), &p.value));
                    weights::write(&dir.join(weights_file(i)), tensors, &[])?;
                }
                let moments = self.optimizer().state_tensors();
                let moments = moments.iter().map(|t| {
                    let (dtype, shape, bytes) = (t.dtype, t.shape, t.bytes);
                    (t.name.as_str(), weights::View { dtype, shape, bytes })
                });
                weights::write(&dir.join(MOMENTS), moments, &[])?;
                let state = self.optimizer().state_json()?.to_string();
                write_text(&dir.join(OPTIMIZER), &state)?;
                self.mutual.as_ref().map_or(Ok(()), |m| m.write(dir))?;
                self.ema.as_ref().map_or(Ok(()), |ema| ema.write(dir, self.models()))?;
                more(dir)?;
                write_text(&dir.join(TRAINER), &json)
            })
            .context(|| format!("checkpoint {}", root.display()))?;
        self.log_info(|| format!("checkpoint written to {}", written.display()));
        Ok(written)
    }

    /// Restores the newest whole checkpoint below `root` and returns the host's text. Newer ones
    /// that are damaged are told in the log. The trainer must have the same models in the same
    /// order.
    ///
    /// # Errors `NotFound` where there never was a checkpoint; `InvalidData` where none is whole,
    /// or it is of other models; `Unsupported` for one of a later library; `Io`. Nothing is changed
    /// then.
    pub fn resume(&mut self, root: &Path) -> Result<String> {
        self.resume_with(root, |_, _, text| Ok(text.to_owned()))
    }

    /// As [`Trainer::resume`]; `more` reads from the checkpoint and the host's text before anything
    /// changes, and its result is returned.
    pub(crate) fn resume_with<T>(
        &mut self,
        root: &Path,
        more: impl FnOnce(&Self, &Checkpoint, &str) -> Result<T>,
    ) -> Result<T> {
        let (text, found) =
            self.restore(root, more).context(|| format!("checkpoint {}", root.display()))?;
        for skipped in &found.skipped {
            self.log_warning(|| format!("a newer checkpoint cannot be used: {}", skipped.why));
        }
        self.log_info(|| {
            let step = self.optimizer().step_count();
            format!("resumed from {} at step {step}", found.path.display())
        });
        for change in self.optimizer().changed_options() {
            self.log_warning(|| format!("resumed with another option: {change}"));
        }
        Ok(text)
    }

    fn restore<T>(
        &mut self,
        root: &Path,
        more: impl FnOnce(&Self, &Checkpoint, &str) -> Result<T>,
    ) -> Result<(T, Checkpoint)> {
        self.check_weights_in_place()?;
        let found = reader::open(root)?;
        // What it holds is whole, so what does not fit is of other models.
        let told = |e: Error| match e.kind() {
            Kind::NotFound | Kind::Shape | Kind::InvalidArgument => Error::data(e.message()),
            _ => e,
        };
        let text = self.restore_from(&found, more).map_err(told)?;
        Ok((text, found))
    }

    fn restore_from<T>(
        &mut self,
        found: &Checkpoint,
        more: impl FnOnce(&Self, &Checkpoint, &str) -> Result<T>,
    ) -> Result<T> {
        let header: TrainerState = serde_json::from_str(found.text(TRAINER)?)
            .map_err(|e| Error::json(e).context(found.path_of(TRAINER).display()))?;
        let names: Vec<&String> = self.models().iter().map(|m| &m.name).collect();
        if names.iter().map(|n| n.as_str()).ne(header.models.iter().map(String::as_str)) {
            return Err(Error::data(format!(
                "it holds the models {:?}, not {names:?}",
                header.models
            )));
        }
        if header.runs.len() != names.len() {
            return Err(Error::data(format!(
                "{}: {} run counters for {} models",
                found.path_of(TRAINER).display(),
                header.runs.len(),
                names.len()
            )));
        }
        let files = (0..header.models.len())
            .map(|i| found.weights(&weights_file(i)))
            .collect::<Result<Vec<_>>>()?;
        for (model, file) in self.models().iter().zip(&files) {
            check_parameters(model, file).context(|| format!("model '{}'", model.name))?;
        }
        let mutual = self.mutual.as_mut().map(|m| m.read(found)).transpose()?;
        let means = self.ema.as_ref().map(|_| Ema::read(found, self.models())).transpose()?;
        let moments = found.weights(MOMENTS)?;
        let state = serde_json::from_str(found.text(OPTIMIZER)?)
            .map_err(|e| Error::json(e).context(found.path_of(OPTIMIZER).display()))?;
        let more = more(self, found, &header.user)?;
        // Everything is checked; the optimizer checks its part before it changes.
        self.bind_all()?;
        let tensor = |name: &str| moments.find(name).map(|t| (t.dtype, t.shape, t.bytes));
        self.optimizer_mut().load_state(&state, &tensor)?;
        for ((model, file), runs) in self.models_mut().iter_mut().zip(&files).zip(&header.runs) {
            for parameter in &mut model.parameters {
                let tensor = file.tensor(&parameter.name)?;
                parameter.value.bytes_mut().copy_from_slice(tensor.bytes());
            }
            model.n_runs = *runs;
        }
        if let (Some(own), Some(saved)) = (&mut self.mutual, mutual) {
            own.restore(saved);
        }
        if let (Some(ema), Some(means)) = (&mut self.ema, means) {
            ema.restore(&mut self.models, means);
        }
        self.run.go_on(&found.run);
        self.zero_grad();
        Ok(more)
    }
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| Error::io(path, e))
}

fn check_parameters(model: &super::model::Model, file: &Weights) -> Result<()> {
    for parameter in &model.parameters {
        let view = file
            .find(&parameter.name)
            .ok_or_else(|| Error::not_found(format!("it has no parameter '{}'", parameter.name)))?;
        if view.shape != parameter.value.shape() || view.dtype != parameter.value.dtype() {
            return Err(Error::shape(format!(
                "parameter '{}' is {}{:?} there, {}{:?} here",
                parameter.name,
                view.dtype,
                view.shape,
                parameter.value.dtype(),
                parameter.value.shape()
            )));
        }
    }
    Ok(())
}
