//! How attention is computed in training. `optim` holds the option; whoever runs the models acts on
//! it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How attention is computed in training. Gradients are the same but for rounding, and dropout is
/// the same to the bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AttentionForm {
    /// Fused where a batch is long enough for it to be no slower, on a CPU.
    #[default]
    Auto,
    /// By one operator that keeps no matrix of scores, and computes it again in the backward part,
    /// block by block. An error on a GPU. What has another form than softmax(scale q kᵀ + mask) v,
    /// or learns its mask, is unfused.
    Fused,
    /// As the model's graph says.
    Unfused,
}
