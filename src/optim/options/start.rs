//! What fresh models start from. `optim` holds the option; whoever makes the models acts on it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the parameters of fresh models are when training begins. A model is fresh if all of its
/// weights were drawn, and none was read. The rules stand in docs/optimizer.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Start {
    /// What was drawn from each model's own seed.
    #[default]
    Own,
    /// Equal values where fresh models have the same role, shape and relative depth.
    Aligned,
    /// Values of a model of the run that was loaded with weights.
    Pretrained,
    /// As pretrained where exactly one model of the run was loaded with weights and all
    /// vocabularies are known, else as own; the plan says which, and why.
    Auto,
}
