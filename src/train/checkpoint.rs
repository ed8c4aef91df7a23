//! Checkpoints of a trainer: parameters, the optimizer's moments and counters, the host's text.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ema::Ema;
use super::log::Level;
use super::model::Model;
use super::ranks::Gathered;
use super::trainer::Trainer;
use crate::checkpoint::beside::Turn;
use crate::checkpoint::files::Files;
use crate::checkpoint::reader::{self, Checkpoint};
use crate::checkpoint::weights::{View, Weights};
use crate::checkpoint::writer::Keep;
use crate::error::{Context, Error, Kind, Result};
use crate::optim::{MAX_COUNT, NonFinite, StateTensor};
use crate::runtime::Device;
use crate::tensor::first_non_finite;

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
    /// What does not have to be the same, and what is told where it is not. Empty in checkpoints of
    /// libraries that did not note it.
    #[serde(default)]
    seeds: Vec<u64>,
    #[serde(default)]
    labels: Vec<Vec<String>>,
    #[serde(default)]
    device: String,
    /// Rank, α and dropout of each model's adapters.
    #[serde(default)]
    adapters: Vec<String>,
}

/// What differs from the checkpoint, and how loud it is told.
type Changes = Vec<(Level, String)>;

fn weights_file(model: usize) -> String {
    format!("model-{model:02}.safetensors")
}

impl Trainer {
    /// Writes a checkpoint below `root` and returns its directory. `user` is the host's own text,
    /// e.g. the state of its data loader; [`Trainer::resume`] gives it back. The two newest
    /// checkpoints of this run stay; those of other runs are not touched. From here on no other
    /// trainer can write there, until this one is dropped or writes elsewhere.
    ///
    /// On several ranks all call it: rank 0 writes, all wait for it, and get its path. What a
    /// replica has to itself (the memory of mutual learning, with local steps the moments) is
    /// rank 0's.
    ///
    /// # Errors
    /// `State` between a backward pass and its step, and where another trainer writes into the
    /// directory; `NonFinite` for weights that are NaN or infinite, unless the option `non_finite`
    /// ignores them; `Io`.
    pub fn checkpoint(&self, root: &Path, user: &str) -> Result<PathBuf> {
        self.checkpoint_keeping(root, user, Keep::last(KEEP))
    }

    /// As [`Trainer::checkpoint`], with a choice of which of this run's checkpoints stay.
    pub fn checkpoint_keeping(&self, root: &Path, user: &str, keep: Keep) -> Result<PathBuf> {
        self.checkpoint_with(root, user, keep, |_| Ok(()))
    }

    /// As [`Trainer::checkpoint_keeping`], beside the training: everything is copied, and a thread
    /// of its own writes the copy while training goes on. At most one is under way: the next
    /// checkpoint of this trainer waits for it. What it fails with is the error of that next call,
    /// which does nothing else then, or of [`Trainer::wait_for_checkpoint`]. Dropping the trainer
    /// waits for it as well.
    ///
    /// # Errors
    /// As [`Trainer::checkpoint`], those of writing later; those of the one before.
    pub fn checkpoint_beside(&self, root: &Path, user: &str, keep: Keep) -> Result<()> {
        let gathered = self.gather_on_first()?;
        if let Some(ranks) = &self.ranks {
            let begin = || self.begin_beside(root, user, keep, &gathered).map(|()| None);
            return ranks.written_by_first(begin).map(drop);
        }
        self.begin_beside(root, user, keep, &gathered)
    }

    fn begin_beside(&self, root: &Path, user: &str, keep: Keep, gathered: &Gathered) -> Result<()> {
        let place = || format!("checkpoint {}", root.display());
        let turn = self.next_checkpoint()?;
        let files = self.files(user, gathered)?;
        self.run.open(root).context(place)?;
        let files = files.into_owned().context(place)?;
        let (run, step) = (self.run.clone(), self.optimizer().step_count());
        let (root, place) = (root.to_owned(), place());
        turn.begin(move || {
            run.write(&root, step, keep, |dir| files.write(dir)).map_err(|e| e.context(place))
        });
        Ok(())
    }

    /// Waits for the checkpoint that is being written beside the training, and returns its
    /// directory; `None` where there was none since the last time.
    ///
    /// # Errors
    /// Those of writing it; they are told once.
    pub fn wait_for_checkpoint(&self) -> Result<Option<PathBuf>> {
        let (_, written) = self.writing.turn()?;
        if let Some(written) = &written {
            self.log_written(written);
        }
        Ok(written)
    }

    fn next_checkpoint(&self) -> Result<Turn<'_>> {
        let (turn, written) = self.writing.turn()?;
        if let Some(written) = written {
            self.log_written(&written);
        }
        Ok(turn)
    }

    fn log_written(&self, written: &Path) {
        self.log_info(|| format!("checkpoint written to {}", written.display()));
    }

    /// Refuses a checkpoint within a step.
    pub(super) fn check_finished(&self) -> Result<()> {
        self.check_weights_in_place()?;
        if self.n_pending() > 0 {
            return Err(Error::state("a checkpoint needs a finished step; call step first"));
        }
        self.check_at_meeting()
    }

    /// All files of a checkpoint, with what other ranks have.
    fn files<'a>(&'a self, user: &str, gathered: &'a Gathered) -> Result<Files<'a>> {
        self.check_finished()?;
        // What could not be resumed is not written as if all were well.
        if !self.allows_non_finite() {
            let all = self.models().iter().enumerate();
            all.into_iter().try_for_each(|(i, model)| check_finite(model, i, gathered))?;
        }
        let header = TrainerState {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            models: self.models().iter().map(|m| m.name.clone()).collect(),
            runs: self.models().iter().map(|m| m.n_runs).collect(),
            user: user.to_owned(),
            seeds: self.models().iter().map(Model::seed).collect(),
            adapters: self.models().iter().map(|m| m.adapters.to_string()).collect(),
            labels: self.models().iter().map(|m| m.label_names().to_vec()).collect(),
            device: self.device_text(),
        };
        let header =
            serde_json::to_string_pretty(&header).map_err(|e| Error::internal(e.to_string()))?;
        let mut files = Files::default();
        for (i, model) in self.models().iter().enumerate() {
            let tensors = model.parameters.iter().enumerate();
            let tensors =
                tensors.map(|(j, p)| (p.name.as_str(), gathered.weight((i, j), &p.value)));
            files.add_tensors(weights_file(i), tensors);
        }
        let moments = self.optimizer().state_tensors().into_iter().map(named);
        let others = gathered.state.iter().map(|(name, t)| (name.clone(), View::from(t)));
        files.add_tensors(MOMENTS, moments.chain(others));
        files.add_text(OPTIMIZER, self.optimizer().state_json()?.to_string());
        if let Some(mutual) = &self.mutual {
            mutual.add_to(&mut files)?;
        }
        if let Some(ema) = &self.ema {
            ema.add_to(&mut files, self.models(), gathered);
        }
        if let Some(ranks) = &self.ranks {
            ranks.add_to(&mut files, self.models());
        }
        files.add_text(TRAINER, header);
        Ok(files)
    }

    /// Whether weights may hold NaN and infinity: where the options ignore them.
    fn allows_non_finite(&self) -> bool {
        self.optimizer().options().non_finite == NonFinite::Ignore
    }

    /// Before a model is written, which could then not be loaded: an error for weights that are not
    /// finite, or a warning where the options ignore them.
    pub(super) fn check_savable(&self, model: &Model) -> Result<()> {
        match check_finite(model, 0, &Gathered::default()) {
            Err(e) if self.allows_non_finite() => {
                self.log_warning(|| format!("{e}; what is written cannot be loaded as it is"));
                Ok(())
            }
            done => done,
        }
    }

    /// Where sessions compute, as far as it decides about the bits of a result.
    fn device_text(&self) -> String {
        let Some(session) = self.models().first().map(|m| &m.train_session) else {
            return String::new();
        };
        let tf32 = session.tf32 && session.device != Device::Cpu;
        format!("{}{}", session.device, if tf32 { " with tf32" } else { "" })
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
        let gathered = self.gather_on_first()?;
        let write = || self.write(root, user, keep, &gathered, more);
        let Some(ranks) = &self.ranks else { return write() };
        let written = ranks.written_by_first(|| write().map(Some))?;
        written.ok_or_else(|| Error::internal("a checkpoint without a path"))
    }

    fn write(
        &self,
        root: &Path,
        user: &str,
        keep: Keep,
        gathered: &Gathered,
        more: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        // Until this one is written no other can begin.
        let _turn = self.next_checkpoint()?;
        let files = self.files(user, gathered)?;
        let step = self.optimizer().step_count();
        let written = self
            .run
            .write(root, step, keep, |dir| files.write(dir).and_then(|()| more(dir)))
            .context(|| format!("checkpoint {}", root.display()))?;
        self.log_written(&written);
        Ok(written)
    }

    /// Restores the newest whole checkpoint below `root` and returns the host's text. Newer ones
    /// that are damaged are told in the log. The trainer must have the same models in the same
    /// order.
    ///
    /// On several ranks, of which there may be others than when it was written, all read the same
    /// directory; `State` where they find different checkpoints.
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
        self.writing.wait();
        let read = self.restore(root, more).context(|| format!("checkpoint {}", root.display()));
        let (text, found, changes) = self.agree_on_resume(read)?;
        for skipped in &found.skipped {
            self.log_warning(|| format!("a newer checkpoint cannot be used: {}", skipped.why));
        }
        self.log_info(|| {
            let step = self.optimizer().step_count();
            format!("resumed from {} at step {step}", found.path.display())
        });
        for (level, change) in changes {
            self.log.send(level, || change);
        }
        for change in self.optimizer().changed_options() {
            self.log_warning(|| format!("resumed with another option: {change}"));
        }
        Ok(text)
    }

    fn restore<T>(
        &mut self,
        root: &Path,
        more: impl FnOnce(&Self, &Checkpoint, &str) -> Result<T>,
    ) -> Result<(T, Checkpoint, Changes)> {
        self.check_weights_in_place()?;
        let found = reader::open(root)?;
        // What it holds is whole, so what does not fit is of other models.
        let told = |e: Error| match e.kind() {
            Kind::NotFound | Kind::Shape | Kind::InvalidArgument => Error::data(e.message()),
            _ => e,
        };
        let (text, changes) = self.restore_from(&found, more).map_err(told)?;
        Ok((text, found, changes))
    }

    fn restore_from<T>(
        &mut self,
        found: &Checkpoint,
        more: impl FnOnce(&Self, &Checkpoint, &str) -> Result<T>,
    ) -> Result<(T, Changes)> {
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
        let n_runs = self.models().iter().zip(&header.runs);
        if let Some((model, n)) = n_runs.into_iter().find(|(_, n)| **n > MAX_COUNT) {
            return Err(Error::data(format!(
                "{}: {n} passes of model '{}'",
                found.path_of(TRAINER).display(),
                model.name
            )));
        }
        let mut changes = self.changes(&header)?;
        let files = (0..header.models.len())
            .map(|i| found.weights(&weights_file(i)))
            .collect::<Result<Vec<_>>>()?;
        for (model, file) in self.models().iter().zip(&files) {
            let finite = !self.allows_non_finite();
            check_parameters(model, file, finite).context(|| format!("model '{}'", model.name))?;
        }
        let mutual = self.mutual.as_mut().map(|m| m.read(found)).transpose()?;
        let means =
            self.ema.as_ref().map(|_| Ema::read(found, self.models(), !self.allows_non_finite()));
        let means = means.transpose()?;
        let outer = self.ranks.as_ref().map(|r| r.read(found, self.models())).transpose()?;
        let moments = found.weights(MOMENTS)?;
        let state = serde_json::from_str(found.text(OPTIMIZER)?)
            .map_err(|e| Error::json(e).context(found.path_of(OPTIMIZER).display()))?;
        let more = more(self, found, &header.user)?;
        // Everything is checked; the optimizer checks its part before it changes.
        self.bind_all()?;
        let tensor = |name: &str| moments.find(name).map(|t| (t.dtype, t.shape, t.bytes));
        self.optimizer_mut().load_state(&state, &tensor)?;
        for (model, one) in self.models().iter().enumerate() {
            let Some((given, weight)) = self.optimizer().other_weight(model) else { continue };
            let text = format!(
                "model '{}': resumed with the weight {weight} of the checkpoint, not {given}, \
                 which it was made with; set_model_weight changes it",
                one.name
            );
            changes.push((Level::Warning, text));
        }
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
            let ranks = self.ranks.as_ref();
            let here = |i: usize| ranks.is_none_or(|ranks| ranks.runs(i));
            ema.restore(&mut self.models, means, here);
        }
        if let (Some(ranks), Some(momentum)) = (&mut self.ranks, outer) {
            ranks.restore(&self.models, momentum)?;
        }
        self.run.go_on(&found.run);
        self.zero_grad();
        Ok((more, changes))
    }

    /// What is not as it was, and is told.
    ///
    /// # Errors
    /// `InvalidData` for the same labels in another order: what was learned would be taken for
    /// something else.
    fn changes(&self, header: &TrainerState) -> Result<Changes> {
        let mut changes = Changes::new();
        let own = env!("CARGO_PKG_VERSION");
        if header.version != own {
            let text = format!("resumed what libmmopt {} wrote, with {own}", header.version);
            changes.push((Level::Info, text));
        }
        let device = self.device_text();
        if !header.device.is_empty() && header.device != device {
            let text = format!(
                "resumed on {device} what was trained on {}: results differ in their last digits",
                header.device
            );
            changes.push((Level::Warning, text));
        }
        for (model, &was) in self.models().iter().zip(&header.seeds) {
            if was != model.seed() {
                let (name, seed) = (&model.name, model.seed());
                let text = format!(
                    "model '{name}': resumed with the seed {seed}, which was {was}: dropout draws \
                     anew"
                );
                changes.push((Level::Warning, text));
            }
        }
        for (model, was) in self.models().iter().zip(&header.adapters) {
            let (name, now) = (&model.name, model.adapters.to_string());
            if *was != now {
                let text = format!("model '{name}': resumed with adapters: {now}; were: {was}");
                changes.push((Level::Warning, text));
            }
        }
        for (model, was) in self.models().iter().zip(&header.labels) {
            let (name, labels) = (&model.name, model.label_names());
            if labels == was.as_slice() || was.is_empty() || labels.is_empty() {
                continue;
            }
            let sorted = |labels: &[String]| {
                let mut sorted = labels.to_vec();
                sorted.sort_unstable();
                sorted
            };
            if sorted(labels) == sorted(was) {
                return Err(Error::data(format!(
                    "model '{name}': it learned the labels {was:?}, and has them here in another \
                     order, {labels:?}; make the model with the labels in their old order"
                )));
            }
            let text = format!("model '{name}': resumed with the labels {labels:?}, were {was:?}");
            changes.push((Level::Warning, text));
        }
        Ok(changes)
    }
}

fn named(tensor: StateTensor<'_>) -> (String, View<'_>) {
    let StateTensor { name, dtype, shape, bytes } = tensor;
    (name, View { dtype, shape, bytes })
}

fn check_finite(model: &Model, i: usize, gathered: &Gathered) -> Result<()> {
    for (j, parameter) in model.parameters.iter().enumerate() {
        let value = gathered.weight((i, j), &parameter.value);
        if let Some(at) = first_non_finite(value.dtype(), value.bytes()) {
            let (name, parameter) = (&model.name, &parameter.name);
            let text = format!("model '{name}': '{parameter}' is not finite at element {at}");
            return Err(Error::new(Kind::NonFinite, text));
        }
    }
    Ok(())
}

fn check_parameters(model: &Model, file: &Weights, finite: bool) -> Result<()> {
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
        let bad = first_non_finite(view.dtype, view.bytes).filter(|_| finite);
        if let Some(at) = bad {
            let name = &parameter.name;
            return Err(Error::data(format!("parameter '{name}' is not finite at element {at}")));
        }
    }
    Ok(())
}
