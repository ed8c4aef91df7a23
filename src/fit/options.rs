//! What a fit is told.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::tasks::{EvaluateOptions, Scores};

/// What evaluations are compared by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metric {
    /// [`Scores::score`](crate::tasks::Scores::score): 0 to 1, greater is better.
    #[default]
    Score,
    /// The mean loss; less is better.
    Loss,
}

impl Metric {
    /// Its name in logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Score => "score",
            Self::Loss => "loss",
        }
    }

    pub(super) fn value(self, scores: &Scores) -> f64 {
        match self {
            Self::Score => scores.score(),
            Self::Loss => scores.loss,
        }
    }

    /// Whether `value` is better than `best` by more than `min_delta`; NaN never is.
    pub(super) fn is_better(self, value: f64, best: Option<f64>, min_delta: f64) -> bool {
        let Some(best) = best else { return !value.is_nan() };
        match self {
            Self::Score => value - min_delta > best,
            Self::Loss => value + min_delta < best,
        }
    }

    /// The value where greater is better.
    pub(super) fn as_score(self, value: f64) -> f64 {
        match self {
            Self::Score => value,
            Self::Loss => -value,
        }
    }
}

/// How a fit goes: how long, when it evaluates, stops early, writes checkpoints and logs. *Every N
/// steps* counts the steps of the fit.
#[derive(Clone, Debug, PartialEq)]
pub struct FitOptions {
    /// Ends after so many epochs of the loader; 0: no limit. Default 3.
    pub epochs: u64,
    /// Ends after so many steps, if `epochs` do not end it before; 0 (default): no limit.
    pub max_steps: u64,
    /// Evaluates every so many steps, and always at an epoch's end and at the end; 0 (default):
    /// only then.
    pub evaluate_every: u64,
    /// What evaluations are compared by.
    pub metric: Metric,
    /// The model whose metric stops early; default none: the mean over all models.
    pub monitor: Option<String>,
    /// Stops after so many evaluations in a row that are not better than the best; 0 (default):
    /// never.
    pub patience: u64,
    /// An evaluation is better when it exceeds the best by more than this, finite and ≥ 0.
    /// Default 0.
    pub min_delta: f64,
    /// Keeps each model's weights of its own best evaluation in memory, and puts them back at the
    /// end. Default false.
    pub keep_best: bool,
    /// Evaluates the running means of the weights (option `ema_decay`, or mean teachers) in place
    /// of the weights; `keep_best` then keeps the means. Default false.
    pub use_ema_weights: bool,
    /// How predictions are made for scores.
    pub evaluate: EvaluateOptions,
    /// Where checkpoints are written: as the two options below say, and at the end. Default none.
    pub checkpoint_dir: Option<PathBuf>,
    /// A checkpoint every so many steps; 0 (default): none.
    pub checkpoint_every: u64,
    /// A checkpoint after so many minutes, at the next step's end; 0 (default): none.
    pub checkpoint_minutes: f64,
    /// Goes on from the last checkpoint in `checkpoint_dir`, if there is one. Default false.
    pub resume: bool,
    /// Every so many steps one is logged; at least 1. Default 1. Evaluations always are.
    pub log_every: u64,
    /// Writes a log of JSON lines. Default none.
    pub jsonl_path: Option<PathBuf>,
    /// Writes a log in CSV, a line for each model. Default none.
    pub csv_path: Option<PathBuf>,
    /// Writes an event file for TensorBoard into this directory. Default none.
    pub tensorboard_dir: Option<PathBuf>,
    /// Every so many steps the event file gets histograms of gradients, weights and the sizes of
    /// updates; 0 (default): never.
    pub histogram_every: u64,
    /// The event file gets an image of the cosines between models' gradients at each step that the
    /// trainer's option `metrics_every` names. Default false.
    pub sharing_images: bool,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            epochs: 3,
            max_steps: 0,
            evaluate_every: 0,
            metric: Metric::Score,
            monitor: None,
            patience: 0,
            min_delta: 0.0,
            keep_best: false,
            use_ema_weights: false,
            evaluate: EvaluateOptions::default(),
            checkpoint_dir: None,
            checkpoint_every: 0,
            checkpoint_minutes: 0.0,
            resume: false,
            log_every: 1,
            jsonl_path: None,
            csv_path: None,
            tensorboard_dir: None,
            histogram_every: 0,
            sharing_images: false,
        }
    }
}

impl FitOptions {
    /// Refuses what contradicts itself. `evaluates`: whether there are loaders to evaluate on.
    pub(super) fn check(&self, evaluates: bool) -> Result<()> {
        let invalid = |text: &str| Err(Error::invalid(text));
        if self.epochs == 0 && self.max_steps == 0 {
            return invalid("epochs and max_steps are both 0; one must limit the fit");
        }
        if self.log_every == 0 {
            return invalid("log_every is 0; it must be at least 1");
        }
        for (name, value) in
            [("min_delta", self.min_delta), ("checkpoint_minutes", self.checkpoint_minutes)]
        {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::invalid(format!("{name} {value} must be finite and >= 0")));
            }
        }
        let without_loaders = [
            ("evaluate_every", self.evaluate_every > 0),
            ("patience", self.patience > 0),
            ("keep_best", self.keep_best),
            ("monitor", self.monitor.is_some()),
            ("use_ema_weights", self.use_ema_weights),
        ];
        let without_directory = [
            ("checkpoint_every", self.checkpoint_every > 0),
            ("checkpoint_minutes", self.checkpoint_minutes > 0.0),
            ("resume", self.resume),
        ];
        let without_events = [
            ("histogram_every", self.histogram_every > 0),
            ("sharing_images", self.sharing_images),
        ];
        let needs = [
            (&without_loaders[..], evaluates, "evaluation loaders"),
            (&without_directory[..], self.checkpoint_dir.is_some(), "checkpoint_dir"),
            (&without_events[..], self.tensorboard_dir.is_some(), "tensorboard_dir"),
        ];
        for (options, given, what) in needs {
            if let Some((name, _)) = options.iter().find(|(_, set)| *set && !given) {
                return Err(Error::invalid(format!("{name} is set, but no {what}")));
            }
        }
        Ok(())
    }

    /// Those that decide what is done, for the log.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "epochs": self.epochs, "max_steps": self.max_steps,
            "evaluate_every": self.evaluate_every, "metric": self.metric.name(),
            "monitor": self.monitor, "patience": self.patience, "min_delta": self.min_delta,
            "keep_best": self.keep_best, "use_ema_weights": self.use_ema_weights,
            "checkpoint_every": self.checkpoint_every,
            "checkpoint_minutes": self.checkpoint_minutes, "log_every": self.log_every,
            "histogram_every": self.histogram_every,
        })
    }
}
