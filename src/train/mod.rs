//! Training: where graphs, sessions and the optimizer meet, and nowhere else.
//!
//! A [`Trainer`] holds several models and one coordinated optimizer. Its verbs: `zero_grad`,
//! `forward_backward` (one model, or all side by side), `log_loss`, `step`, `evaluate`, `save`,
//! `checkpoint`, `resume`.

mod batch;
mod bound;
pub mod graphs;
mod inspect;
mod load;
mod log;
mod model;
mod mutual;
mod options;
mod parameter;
mod recipe;
mod report;
mod score;
mod shared;
mod state;
mod trainer;
mod trial;
mod usage;

pub use batch::{Batch, TensorView};
pub use log::{Level, Sink};
pub use options::{
    DuplicateWeights, GradientGraph, ImportFixes, ModelOptions, SharedInitializers, Source,
    TrainerOptions,
};
pub use report::{
    ModelReport, NotTrainable, ReportedDuplicates, ReportedParameter, ReportedSharedInitializer,
};
pub use shared::SharedTensor;
pub use trainer::{Evaluation, ParameterInfo, TrainResult, Trainer};
