//! Training: where graphs, sessions and the optimizer meet, and nowhere else.
//!
//! A [`Trainer`] holds several models and one coordinated optimizer. Its verbs: `zero_grad`,
//! `forward_backward` (one model, or all side by side), `log_loss`, `step`, `evaluate`, `save`,
//! `checkpoint`, `resume`.

mod accuracy;
mod adapters;
mod batch;
mod checkpoint;
mod ema;
mod evaluator;
pub mod graphs;
pub mod import;
mod inspect;
mod log;
mod memory_report;
mod model;
mod mutual;
mod options;
mod parallel;
mod parameter;
mod passes;
mod plan_parallel;
mod ranks;
mod session;
mod shared_tensor;
mod snapshot;
mod start;
mod sync_check;
#[cfg(test)]
mod tests;
mod trainer;

pub use adapters::{AdapterOptions, AdapterSource};
pub use batch::{Batch, TensorView};
pub use evaluator::Evaluator;
pub use import::ModelReport;
pub use log::{Level, Sink};
pub use memory_report::{MemoryReport, ModelMemory};
pub use options::{
    DuplicateWeights, GradientGraph, ImportFixes, ModelOptions, SharedInitializers, Source,
    TrainerOptions,
};
pub use ranks::{GradientDtype, LocalSteps, RankOptions};
pub use shared_tensor::SharedTensor;
pub use snapshot::TrainerSnapshot;
#[cfg(feature = "text")]
pub(crate) use start::apply::needs_tokens;
pub use start::report::{StartReport, StartRows, StartedModel, StartedTable, StartedView};
pub use start::tokens::Tokens;
pub use trainer::{Evaluation, ParameterInfo, TrainResult, Trainer};
