//! What products of matrices are computed in. `optim` holds the option; whoever runs the models
//! acts on it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What products of matrices are computed in. Parameters, gradients, moments, and everything
/// between two products are f32 in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// f32 throughout.
    #[default]
    F32,
    /// Factors are rounded to bf16 (8 bits of mantissa), sums are f32. For training and evaluation
    /// on a CPU that is faster in it (AMX, or AMD's AVX512-BF16); on another it is f32, and the log
    /// says so. An error on a GPU. See docs/runtime.md.
    Bf16,
}
