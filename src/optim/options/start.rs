//! What fresh models start from, and what they have in common. `optim` holds the options; whoever
//! makes the models acts on them.

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

/// Rows of the token tables of fresh models that are equally wide and whose tokens are known. A
/// model is fresh if all of its weights were drawn; spaces of others have nothing to do with each
/// other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TokenEmbeddings {
    /// Each model has its own.
    #[default]
    Own,
    /// Rows that stand for the same token start equal, and their gradients have a part of the mean
    /// of all models that have the token.
    Shared,
}
