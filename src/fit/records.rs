//! What is logged: one struct for each type of record, its JSON, its rows and scalars.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use super::passes::Passed;
use super::state::Best;
use crate::error::{Error, Result};
use crate::optim::StepReport;
use crate::train::Trainer;

/// Version of the JSON lines.
pub(super) const FORMAT: u32 = 1;

/// Seconds since 1970.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}

/// The greatest resident size of this process so far, where the system tells it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// A line of the log.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Record<'a> {
    Run(Run),
    Step(&'a Step),
    Evaluation(&'a Evaluation),
    Sharing(Sharing),
    End(End<'a>),
}

impl Record<'_> {
    /// One line of JSON with its end.
    pub fn line(&self) -> Result<String> {
        let mut line = serde_json::to_string(self).map_err(|e| Error::internal(e.to_string()))?;
        line.push('\n');
        Ok(line)
    }
}

/// What is trained, and how.
#[derive(Serialize)]
pub(super) struct Run {
    format: u32,
    step: u64,
    time: f64,
    version: &'static str,
    runtime: Option<String>,
    seed: u64,
    threads: usize,
    n_batches: usize,
    options: Value,
    fit: Value,
    models: Vec<RunModel>,
    plan: Value,
}

#[derive(Serialize)]
struct RunModel {
    name: String,
    architecture: Option<String>,
    n_parameters: u64,
    n_trainable: u64,
    weight: f64,
}

impl Run {
    pub fn new(trainer: &Trainer, seed: u64, n_batches: usize, fit: Value) -> Result<Self> {
        let optimizer = trainer.optimizer();
        let model = |i: usize| {
            let (mut n_parameters, mut n_trainable) = (0, 0);
            for parameter in trainer.parameters(i)? {
                let n = parameter.shape.iter().map(|&d| d as u64).product::<u64>();
                n_parameters += n;
                n_trainable += n * u64::from(parameter.trainable);
            }
            Ok(RunModel {
                name: trainer.model_name(i)?.to_owned(),
                architecture: trainer.model_type(i)?.map(str::to_owned),
                n_parameters,
                n_trainable,
                weight: optimizer.normalised_weight(i)?,
            })
        };
        let runtime = crate::runtime::loaded().map(|library| {
            let (major, minor, patch) = library.version();
            format!("{major}.{minor}.{patch}")
        });
        Ok(Self {
            format: FORMAT,
            step: optimizer.step_count(),
            time: now(),
            version: env!("CARGO_PKG_VERSION"),
            runtime,
            seed,
            threads: optimizer.threads(),
            n_batches,
            options: serde_json::to_value(optimizer.options())
                .map_err(|e| Error::internal(e.to_string()))?,
            fit,
            models: (0..trainer.n_models()).map(model).collect::<Result<_>>()?,
            plan: trainer.plan_json(),
        })
    }
}

/// A step.
#[derive(Serialize)]
pub(super) struct Step {
    pub step: u64,
    pub time: f64,
    pub epoch: u64,
    pub batch: usize,
    n_micro_batches: usize,
    shared: bool,
    synced: bool,
    pub seconds: f64,
    pub examples_per_second: f64,
    pub tokens_per_second: f64,
    pub peak_memory_bytes: Option<u64>,
    pub models: Vec<StepModel>,
}

#[derive(Serialize)]
pub(super) struct StepModel {
    pub name: String,
    /// None where no micro-batch of the step had labels.
    pub loss: Option<f64>,
    pub mutual_loss: f64,
    pub n_correct: u64,
    pub n_labels: u64,
    pub learning_rate: f64,
    rates: StepRates,
    pub weight: f64,
    pub gradient_norm: f64,
    pub clip_factor: f64,
    clipped: bool,
    pub skipped: bool,
    pub n_skipped: u64,
    pub convergence: Convergence,
}

#[derive(Serialize)]
struct StepRates {
    base: f64,
    schedule: f64,
    adaptive: f64,
    scale: f64,
    multiplier: f64,
}

#[derive(Serialize)]
pub(super) struct Convergence {
    pub adaptive_state: f64,
    slope: Option<f64>,
    pub progress: Option<f64>,
    certainty: Option<f64>,
}

impl Step {
    /// The record of the trainer's last step. `at`: epoch and batches of it that are done.
    pub fn new(
        trainer: &Trainer,
        passed: &Passed,
        report: &StepReport,
        at: (u64, usize),
        seconds: f64,
    ) -> Result<Self> {
        let models = passed.models.iter().enumerate().map(|(i, sums)| {
            let optimizer = trainer.optimizer();
            let rates = optimizer.rates(i)?;
            let (skipped, n_skipped) = optimizer.skipped(i)?;
            let clip_factor = optimizer.clip_factor(i)?;
            let trend = optimizer.loss_trend(i)?;
            Ok(StepModel {
                name: trainer.model_name(i)?.to_owned(),
                loss: sums.has_loss().then(|| sums.mean_loss()),
                mutual_loss: sums.mean_mutual_loss(),
                n_correct: sums.n_correct,
                n_labels: sums.n_labels,
                learning_rate: rates.effective,
                rates: StepRates {
                    base: rates.base,
                    schedule: rates.schedule,
                    adaptive: rates.adaptive,
                    scale: rates.scale,
                    multiplier: rates.multiplier,
                },
                weight: optimizer.normalised_weight(i)?,
                gradient_norm: optimizer.grad_norm(i)?,
                clip_factor,
                clipped: clip_factor < 1.0,
                skipped,
                n_skipped,
                convergence: Convergence {
                    adaptive_state: optimizer.adaptive_state(i)?,
                    slope: trend.map(|t| t.slope),
                    progress: trend.map(|t| t.progress),
                    certainty: trend.map(|t| t.certainty),
                },
            })
        });
        let per_second = |n: usize| if seconds > 0.0 { n as f64 / seconds } else { 0.0 };
        Ok(Self {
            step: report.step,
            time: now(),
            epoch: at.0,
            batch: at.1,
            n_micro_batches: passed.n_micro_batches,
            shared: report.shared,
            synced: report.synced,
            seconds,
            examples_per_second: per_second(passed.n_examples),
            tokens_per_second: per_second(passed.n_tokens),
            peak_memory_bytes: peak_memory(),
            models: models.collect::<Result<_>>()?,
        })
    }
}

/// An evaluation of all models.
#[derive(Serialize)]
pub(super) struct Evaluation {
    pub step: u64,
    pub time: f64,
    pub epoch: u64,
    pub seconds: f64,
    pub metric: &'static str,
    pub mean_score: f64,
    pub monitor: String,
    pub monitored: f64,
    pub best: Option<f64>,
    pub best_step: u64,
    pub is_best: bool,
    pub n_bad: u64,
    pub models: Vec<EvaluationModel>,
}

#[derive(Serialize)]
pub(super) struct EvaluationModel {
    pub name: String,
    pub score: f64,
    pub loss: f64,
    pub best_score: Option<f64>,
    pub best_step: u64,
    pub is_best: bool,
    pub scores: Value,
}

/// How models agree: the optimizer's metrics.
#[derive(Serialize)]
pub(super) struct Sharing {
    step: u64,
    time: f64,
    models: Value,
    cosine: Value,
    distance: Value,
    groups: Value,
}

impl Sharing {
    /// The metrics of the trainer's last step; `None` when it was not measured.
    pub fn new(trainer: &Trainer) -> Result<Option<Self>> {
        let optimizer = trainer.optimizer();
        let measured = optimizer.metrics().is_some_and(|m| m.step == optimizer.step_count());
        if !measured || optimizer.step_count() == 0 || optimizer.plan().groups().is_empty() {
            return Ok(None);
        }
        let mut all = optimizer.metrics_json()?;
        for (i, group) in optimizer.plan().groups().iter().enumerate() {
            let depth = group.slot.map(|(slot, slots)| vec![slot, slots]);
            all["groups"][i]["depth"] = depth.into();
        }
        let mut take = |key: &str| all[key].take();
        let [models, cosine, distance, groups] =
            ["models", "cosine", "distance", "groups"].map(&mut take);
        let step = optimizer.step_count();
        Ok(Some(Self { step, time: now(), models, cosine, distance, groups }))
    }
}

/// The end of a fit.
#[derive(Serialize)]
pub(super) struct End<'a> {
    pub step: u64,
    pub time: f64,
    pub epoch: u64,
    pub reason: &'static str,
    pub restored_best: bool,
    pub models: Vec<EndModel<'a>>,
}

#[derive(Serialize)]
pub(super) struct EndModel<'a> {
    name: &'a str,
    best_score: Option<f64>,
    best_step: Option<u64>,
}

impl<'a> EndModel<'a> {
    pub fn new(name: &'a str, best: &Best) -> Self {
        Self { name, best_score: best.score, best_step: best.score.map(|_| best.step) }
    }
}

/// A curve of the event file.
pub(super) type Scalar = (String, f64);

impl Step {
    pub fn scalars(&self) -> Vec<Scalar> {
        let mut all = Vec::new();
        for m in &self.models {
            let mut add = |what: &str, value: f64| all.push((format!("{what}/{}", m.name), value));
            if let Some(loss) = m.loss {
                add("loss", loss);
            }
            add("mutual_loss", m.mutual_loss);
            add("learning_rate", m.learning_rate);
            add("gradient_norm", m.gradient_norm);
            add("clip_factor", m.clip_factor);
            add("weight", m.weight);
            add("n_skipped", m.n_skipped as f64);
            add("adaptive_state", m.convergence.adaptive_state);
            if let Some(progress) = m.convergence.progress {
                add("progress", progress);
            }
        }
        all.push(("examples_per_second".into(), self.examples_per_second));
        all.push(("tokens_per_second".into(), self.tokens_per_second));
        all.extend(self.peak_memory_bytes.map(|n| ("peak_memory_bytes".into(), n as f64)));
        all.push(("epoch".into(), self.epoch as f64));
        all
    }
}

impl Evaluation {
    pub fn scalars(&self) -> Vec<Scalar> {
        let mut all = vec![("evaluation/mean_score".to_owned(), self.mean_score)];
        for m in &self.models {
            all.push((format!("evaluation/score/{}", m.name), m.score));
            all.push((format!("evaluation/loss/{}", m.name), m.loss));
        }
        all
    }
}

/// The columns of the CSV log.
pub(super) const COLUMNS: [&str; 18] = [
    "type",
    "step",
    "epoch",
    "time",
    "seconds",
    "model",
    "loss",
    "mutual_loss",
    "score",
    "learning_rate",
    "gradient_norm",
    "clip_factor",
    "weight",
    "skipped",
    "n_correct",
    "n_labels",
    "examples_per_second",
    "peak_memory_bytes",
];

/// A row of the CSV log.
pub(super) type Row = [String; COLUMNS.len()];

impl Step {
    pub fn rows(&self) -> Vec<Row> {
        let memory = self.peak_memory_bytes.map_or(String::new(), |n| n.to_string());
        let row = |m: &StepModel| -> Row {
            [
                "step".into(),
                self.step.to_string(),
                self.epoch.to_string(),
                self.time.to_string(),
                self.seconds.to_string(),
                m.name.clone(),
                m.loss.map_or(String::new(), |loss| loss.to_string()),
                m.mutual_loss.to_string(),
                String::new(),
                m.learning_rate.to_string(),
                m.gradient_norm.to_string(),
                m.clip_factor.to_string(),
                m.weight.to_string(),
                u32::from(m.skipped).to_string(),
                m.n_correct.to_string(),
                m.n_labels.to_string(),
                self.examples_per_second.to_string(),
                memory.clone(),
            ]
        };
        self.models.iter().map(row).collect()
    }
}

impl Evaluation {
    pub fn rows(&self) -> Vec<Row> {
        let row = |m: &EvaluationModel| -> Row {
            let mut row: Row = std::array::from_fn(|_| String::new());
            row[0] = "evaluation".into();
            row[1] = self.step.to_string();
            row[2] = self.epoch.to_string();
            row[3] = self.time.to_string();
            row[4] = self.seconds.to_string();
            row[5] = m.name.clone();
            row[6] = m.loss.to_string();
            row[8] = m.score.to_string();
            for (at, key) in [(14, "n_correct"), (15, "n_labels")] {
                row[at] = m.scores[key].to_string();
            }
            row
        };
        self.models.iter().map(row).collect()
    }
}
