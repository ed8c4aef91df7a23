//! What training takes in memory: of each model what it keeps from step to step, what a pass over a
//! batch takes, foreseen from the graph, and what passes took.

use std::fmt;

use serde::Serialize;

use super::batch::Batch;
use super::model::Model;
use super::parallel::megabytes;
use super::trainer::{Trainer, in_model};
use crate::error::{Error, Result, count};
use crate::memory::available;

/// Bytes that one model takes in training.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ModelMemory {
    /// The model's name.
    pub model: String,
    /// Values of all parameters, frozen ones too.
    pub parameters: usize,
    /// Gradients of the trained parameters. Those of tables that only look up rows take pages for
    /// the rows of a batch alone, on Linux; here they count whole.
    pub gradients: usize,
    /// The optimizer's moments.
    pub moments: usize,
    /// Sums of gradients over micro-batches; 0 for one micro-batch a step.
    pub gradient_sums: usize,
    /// Running means of weights (mean teachers, `ema_decay`).
    pub running_means: usize,
    /// Activations that a pass over the batch keeps for its backward part, foreseen. 0 without a
    /// batch.
    pub activations: usize,
    /// The most working memory that the pass takes, activations included, foreseen. 0 without a
    /// batch.
    pub pass: usize,
    /// The most that runs of the model took so far; `None` before the first, and where it is not
    /// counted (on GPUs, and on other systems than Linux).
    pub measured_pass: Option<usize>,
}

impl ModelMemory {
    /// What is kept from step to step.
    pub fn kept(&self) -> usize {
        self.parameters + self.gradients + self.moments + self.gradient_sums + self.running_means
    }
}

/// What all models take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryReport {
    /// In the order of the models.
    pub models: Vec<ModelMemory>,
    /// What all models keep from step to step.
    pub kept: usize,
    /// With all passes at the same time.
    pub side_by_side: usize,
    /// With one pass at a time.
    pub in_turn: usize,
    /// How many passes there are at the same time.
    pub max_parallel_models: usize,
    /// Why.
    pub parallel: String,
    /// Bytes that the process can take beside what it holds, by the system and the limits of
    /// control groups; `None` where that is not known.
    pub available: Option<usize>,
    /// The option `memory_limit`; 0 for none.
    pub memory_limit: u64,
}

impl MemoryReport {
    /// With as many passes at the same time as there are.
    pub fn total(&self) -> usize {
        let mut passes: Vec<usize> = self.models.iter().map(|m| m.pass).collect();
        passes.sort_unstable_by(|a, b| b.cmp(a));
        self.kept + passes.iter().take(self.max_parallel_models).sum::<usize>()
    }

    /// The report as one JSON object: its fields, in bytes, and `total`.
    pub fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::to_value(self).unwrap_or_default();
        json["total"] = self.total().into();
        json
    }
}

/// A table, one line for each model.
impl fmt::Display for MemoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.models.iter().map(|m| m.model.len()).max().unwrap_or(0).max(5);
        writeln!(
            f,
            "{:width$} {:>10} {:>10} {:>10} {:>10} {:>12} {:>10} {:>10}",
            "MB", "parameters", "gradients", "moments", "means", "activations", "pass", "measured"
        )?;
        let mb = |bytes: usize| format!("{:.1}", bytes as f64 / 1e6);
        for m in &self.models {
            let measured = m.measured_pass.map_or("-".to_owned(), mb);
            writeln!(
                f,
                "{:width$} {:>10} {:>10} {:>10} {:>10} {:>12} {:>10} {measured:>10}",
                m.model,
                mb(m.parameters),
                mb(m.gradients + m.gradient_sums),
                mb(m.moments),
                mb(m.running_means),
                mb(m.activations),
                mb(m.pass),
            )?;
        }
        write!(
            f,
            "in all {}: {} kept, side by side {}, in turn {}; {}",
            megabytes(self.total()),
            megabytes(self.kept),
            megabytes(self.side_by_side),
            megabytes(self.in_turn),
            self.parallel
        )
    }
}

impl Trainer {
    /// What training takes in memory. `batches` holds a batch for each model, of which only names
    /// and shapes count; without any, what passes take is left out. Nothing runs.
    ///
    /// # Errors
    /// `InvalidArgument` for another number of batches; those of [`Trainer::forward_backward`] for
    /// a batch that does not fit.
    pub fn memory_report(&self, batches: &[Batch]) -> Result<MemoryReport> {
        if !batches.is_empty() && batches.len() != self.n_models() {
            return Err(Error::invalid(format!(
                "{} for {}",
                count(batches.len(), "batch"),
                count(self.n_models(), "model")
            )));
        }
        let of = |(i, model): (usize, &Model)| {
            self.model_memory(i, batches.get(i).copied()).map_err(|e| in_model(e, &model.name))
        };
        let models = self.models().iter().enumerate().map(of).collect::<Result<Vec<_>>>()?;
        let kept: usize = models.iter().map(ModelMemory::kept).sum();
        let passes = models.iter().map(|m| m.pass);
        Ok(MemoryReport {
            kept,
            side_by_side: kept + passes.clone().sum::<usize>(),
            in_turn: kept + passes.max().unwrap_or(0),
            max_parallel_models: self.parallel.n.min(models.len()),
            parallel: self.parallel_text(),
            available: available(),
            memory_limit: self.optimizer().options().memory_limit,
            models,
        })
    }

    fn model_memory(&self, i: usize, batch: Option<Batch>) -> Result<ModelMemory> {
        let one = self.model(i)?;
        let pass = batch.map(|batch| one.pass_memory(batch)).transpose()?.unwrap_or_default();
        let is_trained = |k: &usize| self.optimizer().param_spec(i, *k).is_ok_and(|s| s.trainable);
        let bytes = |k: usize| one.parameters[k].value.bytes().len();
        let trained = (0..one.parameters.len()).filter(is_trained).map(bytes).sum();
        let moments = self.optimizer().moment_bytes(i)?;
        let sums = self.optimizer().options().gradient_accumulation_steps > 1;
        Ok(ModelMemory {
            model: one.name.clone(),
            parameters: (0..one.parameters.len()).map(bytes).sum(),
            gradients: trained,
            moments,
            gradient_sums: if sums { trained } else { 0 },
            running_means: if self.ema.is_some() { trained } else { 0 },
            activations: pass.activations,
            pass: pass.peak,
            measured_pass: Some(one.meter.peak()).filter(|&bytes| bytes > 0),
        })
    }
}
