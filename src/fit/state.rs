//! What a fit counts, as its checkpoints hold it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::options::FitOptions;
use crate::error::{Error, Result, count};
use crate::text::LoaderState;

/// Version of [`FitState`].
pub(super) const VERSION: u32 = 1;

/// Why a fit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// All epochs are done.
    Epochs,
    /// All steps are done.
    MaxSteps,
    /// The metric did not get better for `patience` evaluations.
    EarlyStopping,
    /// The progress callback asked to stop.
    Cancelled,
}

impl StopReason {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Epochs => "epochs",
            Self::MaxSteps => "max_steps",
            Self::EarlyStopping => "early_stopping",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The best evaluation so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The value of the metric; `None` before the first evaluation.
    #[serde(with = "exact")]
    pub score: Option<f64>,
    /// The trainer's step at which it was found.
    pub step: u64,
}

/// f64 as its bits, for the JSON library may round.
mod exact {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(value: &Option<f64>, s: S) -> Result<S::Ok, S::Error> {
        value.map(f64::to_bits).serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<f64>, D::Error> {
        Ok(Option::<u64>::deserialize(d)?.map(f64::from_bits))
    }
}

/// Lengths of the log files when a checkpoint is written; `None` for files that are not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LogLengths {
    pub jsonl: Option<u64>,
    pub csv: Option<u64>,
    pub events: Option<u64>,
}

/// Everything that a resumed fit needs beside the trainer's checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FitState {
    pub version: u32,
    /// Steps of the fit.
    pub steps: u64,
    /// Epochs of the fit.
    pub epochs: u64,
    /// Whether what follows the last step is done: evaluation, the epoch's end.
    pub is_settled: bool,
    /// What early stopping looks at.
    pub monitored: Best,
    /// Evaluations since the best.
    pub n_bad: u64,
    /// Each model's best.
    pub models: Vec<Best>,
    /// Options that must stay as they are, for the best would mean something else.
    pub fixed: BTreeMap<String, String>,
    pub loader: LoaderState,
    pub logs: LogLengths,
}

impl FitState {
    pub fn new(options: &FitOptions, n_models: usize, loader: LoaderState) -> Self {
        Self {
            version: VERSION,
            steps: 0,
            epochs: 0,
            is_settled: true,
            monitored: Best::default(),
            n_bad: 0,
            models: vec![Best::default(); n_models],
            fixed: fixed(options),
            loader,
            logs: LogLengths::default(),
        }
    }

    /// Reads the text of a checkpoint and checks that this fit can go on from it.
    pub fn read(text: &str, options: &FitOptions, n_models: usize) -> Result<Self> {
        let state: Self = serde_json::from_str(text).map_err(|e| {
            Error::json(e).context("it was not written by a fit, which alone can resume it")
        })?;
        if state.version != VERSION {
            let text = format!("fit of version {}; this library reads {VERSION}", state.version);
            return Err(Error::unsupported(text));
        }
        if state.models.len() != n_models {
            let n = state.models.len();
            return Err(Error::data(format!("a fit of {}, not of {n_models}", count(n, "model"))));
        }
        for (name, value) in fixed(options) {
            let was = state.fixed.get(&name);
            if was != Some(&value) {
                return Err(Error::invalid(format!(
                    "{name} is {value}, but the fit to be resumed began with {}; set it so, or \
                     begin anew without resume",
                    was.map_or("none", String::as_str)
                )));
            }
        }
        Ok(state)
    }

    pub fn to_text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::internal(e.to_string()))
    }
}

fn fixed(options: &FitOptions) -> BTreeMap<String, String> {
    let monitor = options.monitor.as_ref().map_or("the mean".into(), |m| format!("'{m}'"));
    [
        ("metric", options.metric.name().to_owned()),
        ("monitor", monitor),
        ("keep_best", options.keep_best.to_string()),
        ("use_ema_weights", options.use_ema_weights.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}
