//! Training: where graphs, sessions and the optimizer meet, and nowhere else.
//!
//! A [`Trainer`] holds several models and one coordinated optimizer. Its verbs: `zero_grad`,
//! `forward_backward` (one model, or all side by side), `log_loss`, `step`, `evaluate`, `save`,
//! `checkpoint`, `resume`.

mod batch;
mod bound;
pub mod graphs;
mod model;
mod mutual;
mod options;
mod parameter;
mod score;
mod shared;
mod state;
mod trainer;
mod usage;

pub use batch::{Batch, TensorView};
pub use options::{ModelOptions, Source, TrainerOptions};
pub use shared::SharedTensor;
pub use trainer::{Evaluation, Outcome, ParameterInfo, Trainer};
