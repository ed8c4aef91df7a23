//! The declaration of models and parameters.

use std::sync::Arc;

use crate::optim::plan::role::{RoleOverride, Usage};
use crate::tensor::DType;

/// Whether parameters of this type can be trained.
pub(in crate::optim) fn is_trainable(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::BF16 | DType::F16)
}

/// A parameter: a named tensor that a step may change.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// Unique within its model; the published name where there is one.
    pub name: String,
    /// Dense row-major shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Element type; `f32`, `bf16` and `f16` can be trained.
    pub dtype: DType,
    /// False freezes it.
    pub trainable: bool,
    /// What the graph says it is used for, for names that say nothing.
    pub usage: Option<Usage>,
    /// The role that the host gives it, over name and graph.
    pub role: Option<RoleOverride>,
}

impl ParamSpec {
    /// A trainable f32 parameter of which only name and shape are known.
    pub fn new(name: impl Into<String>, shape: &[usize]) -> Self {
        Self {
            name: name.into(),
            shape: shape.to_vec(),
            dtype: DType::F32,
            trainable: true,
            usage: None,
            role: None,
        }
    }
}

/// A model: named parameters, and what decides whom it may share with.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// Unique among the models.
    pub name: String,
    /// Relative weight, ≥ 0; the sum over all models is > 0.
    pub weight: f64,
    /// The published `model_type`, e.g. `bert`, for reports.
    pub architecture: Option<String>,
    /// Parameters in any order; names are unique.
    pub params: Vec<ParamSpec>,
    /// Token tables and language-model heads share only between models that name the same
    /// vocabulary; `None` shares with nobody.
    pub vocabulary: Option<String>,
    /// What each row of the token table stands for, for the option `token_embeddings`; rows with
    /// equal texts stand for one token, and an empty text for none. `None` takes no part in it.
    pub tokens: Option<Arc<[String]>>,
    /// Task heads share only between models that name the same task; `None` shares with nobody.
    pub task: Option<String>,
}

impl ModelSpec {
    /// A model of weight 1 of which only name and parameters are known.
    pub fn new(name: impl Into<String>, params: Vec<ParamSpec>) -> Self {
        Self {
            name: name.into(),
            weight: 1.0,
            architecture: None,
            params,
            vocabulary: None,
            tokens: None,
            task: None,
        }
    }

    /// The same model with trainable element types replaced by f32, in which the step works.
    pub(in crate::optim) fn in_f32(&self) -> Self {
        let mut spec = self.clone();
        for p in spec.params.iter_mut().filter(|p| is_trainable(p.dtype)) {
            p.dtype = DType::F32;
        }
        spec
    }
}
