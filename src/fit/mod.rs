//! The usual training loop as one call: passes, steps, evaluation, early stopping, checkpoints,
//! logs. It uses what any program can use: [`Loader`], [`Trainer`], [`evaluate`].
//!
//! - `options`: what a fit is told
//! - `run`: the loop; `state`: what it counts, for checkpoints; `best`: the best weights
//! - `records`: what is logged; `logs`: the files; `tensorboard`: event files
//! - `find_learning_rate`: the range test
//!
//! [`Loader`]: crate::text::Loader
//! [`Trainer`]: crate::train::Trainer
//! [`evaluate`]: crate::tasks::evaluate

mod best;
mod find_learning_rate;
mod histograms;
mod log_file;
mod logs;
mod options;
mod passes;
mod progress;
mod records;
mod run;
mod state;
pub mod tensorboard;

pub use find_learning_rate::{
    FindLearningRateOptions, LearningRateCurve, find_learning_rate, find_learning_rate_with,
};
pub use options::{FitOptions, Metric};
pub use progress::{FitEvent, FitProgress, Phase};
pub use run::{FitResult, fit, fit_with};
pub use state::{Best, StopReason};
