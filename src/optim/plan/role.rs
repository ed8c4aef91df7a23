//! Roles: what a parameter does in its model, the same in every architecture (attention query, mlp
//! up, norm before the mlp …), and what a graph or a host says about it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a view does.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs)] // the names are the documentation
pub enum Role {
    TokenEmbedding,
    PositionEmbedding,
    TypeEmbedding,
    PatchEmbedding,
    ClassToken,
    EmbeddingProjection,
    EmbeddingNorm,
    NormBeforeAttention,
    AttentionQuery,
    AttentionKey,
    AttentionValue,
    QueryNorm,
    KeyNorm,
    RelativePosition,
    AttentionOutput,
    NormAfterAttention,
    NormBeforeCross,
    CrossQuery,
    CrossKey,
    CrossValue,
    CrossOutput,
    NormBeforeMlp,
    MlpGate,
    MlpUp,
    MlpDown,
    NormAfterMlp,
    FinalNorm,
    Pooler,
    HeadDense,
    HeadNorm,
    Head,
    // Of parameters that hold several roles one after another, which become views of them; the
    // adapters of such a parameter stay whole.
    AttentionQkv,
    CrossQkv,
    MlpGateUp,
}

impl Role {
    /// The name in plans: `attention query`.
    pub fn name(self) -> &'static str {
        match self {
            Self::TokenEmbedding => "token embedding",
            Self::PositionEmbedding => "position embedding",
            Self::TypeEmbedding => "type embedding",
            Self::PatchEmbedding => "patch embedding",
            Self::ClassToken => "class token",
            Self::EmbeddingProjection => "embedding projection",
            Self::EmbeddingNorm => "embedding norm",
            Self::NormBeforeAttention => "norm before attention",
            Self::AttentionQuery => "attention query",
            Self::AttentionKey => "attention key",
            Self::AttentionValue => "attention value",
            Self::QueryNorm => "query norm",
            Self::KeyNorm => "key norm",
            Self::RelativePosition => "relative position",
            Self::AttentionOutput => "attention output",
            Self::NormAfterAttention => "norm after attention",
            Self::NormBeforeCross => "norm before cross attention",
            Self::CrossQuery => "cross query",
            Self::CrossKey => "cross key",
            Self::CrossValue => "cross value",
            Self::CrossOutput => "cross output",
            Self::NormBeforeMlp => "norm before mlp",
            Self::MlpGate => "mlp gate",
            Self::MlpUp => "mlp up",
            Self::MlpDown => "mlp down",
            Self::NormAfterMlp => "norm after mlp",
            Self::FinalNorm => "final norm",
            Self::Pooler => "pooler",
            Self::HeadDense => "head dense",
            Self::HeadNorm => "head norm",
            Self::Head => "head",
            Self::AttentionQkv => "attention query, key and value",
            Self::CrossQkv => "cross query, key and value",
            Self::MlpGateUp => "mlp gate and up",
        }
    }

    /// Whether the weight is the matrix of a linear map, stored `[out, in]` or `[in, out]`.
    pub fn is_linear(self) -> bool {
        use Role::*;
        matches!(
            self,
            EmbeddingProjection
                | AttentionQuery
                | AttentionKey
                | AttentionValue
                | AttentionOutput
                | CrossQuery
                | CrossKey
                | CrossValue
                | CrossOutput
                | MlpGate
                | MlpUp
                | MlpDown
                | Pooler
                | HeadDense
                | Head
                | AttentionQkv
                | CrossQkv
                | MlpGateUp
        )
    }

    /// Whether it lies inside a block, so that Muon may orthogonalise its matrix.
    pub fn is_hidden_matrix(self) -> bool {
        self.is_linear()
            && !matches!(
                self,
                Self::EmbeddingProjection | Self::Pooler | Self::HeadDense | Self::Head
            )
    }
}

/// The weight or the bias of a role, or an adapter of its weight.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum WeightOrBias {
    /// Matrix, table or gain.
    Weight,
    /// Bias or shift.
    Bias,
    /// The first matrix of a low-rank adapter, `[rank, in]`.
    LoraA,
    /// The second matrix of a low-rank adapter, `[out, rank]`.
    LoraB,
}

impl WeightOrBias {
    /// The name in plans: `weight`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Bias => "bias",
            Self::LoraA => "lora A",
            Self::LoraB => "lora B",
        }
    }

    /// Whether it is a matrix of a low-rank adapter.
    pub fn is_adapter(self) -> bool {
        matches!(self, Self::LoraA | Self::LoraB)
    }
}

/// How the matrix of a linear map is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightLayout {
    /// Rows are outputs.
    OutIn,
    /// Rows are inputs.
    InOut,
}

/// What a graph shows of a parameter's use. Filled by whoever knows the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UseKind {
    /// Rows are looked up by token ids.
    Table,
    /// Rows are looked up by positions.
    PositionTable,
    /// Product whose result is the left operand of the product before a softmax.
    ScoreLeft,
    /// Product whose result is the right operand of the product before a softmax.
    ScoreRight,
    /// Product whose result is multiplied by a softmax's result.
    Context,
    /// One product that is split into query, key and value, in this order.
    FusedQkv,
    /// Product that takes the attention's context.
    AfterContext,
    /// Product with more outputs than inputs, followed by an activation.
    Expanding,
    /// Product whose activated result multiplies another product's.
    Gate,
    /// Product with more inputs than outputs, after an activation.
    Contracting,
    /// Gain or shift of a norm in front of the attention.
    NormBeforeAttention,
    /// Gain or shift of a norm on the sum of attention and residual.
    NormAfterAttention,
    /// Gain or shift of a norm in front of the mlp.
    NormBeforeMlp,
    /// Gain or shift of a norm on the sum of mlp and residual.
    NormAfterMlp,
    /// Gain or shift of the norm after the last block.
    FinalNorm,
    /// Gain or shift of the norm on the embeddings.
    EmbeddingNorm,
    /// The product that makes a model's output.
    Head,
}

/// A parameter's use in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// What it is used for; `None` when only the layout is known.
    pub kind: Option<UseKind>,
    /// Weight or bias of that use.
    pub part: WeightOrBias,
    /// How a product reads it; overrides what the name says.
    pub layout: Option<WeightLayout>,
    /// Position of the use in topological order: the k-th of a kind lies in block k.
    pub order: usize,
}

/// The role that the host gives a parameter; it overrides names and graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["role", "part"]))]
pub struct RoleOverride {
    /// What it does; null keeps the parameter out of every group.
    #[schemars(example = Role::AttentionQuery)]
    pub role: Option<Role>,
    /// Weight or bias.
    #[schemars(example = WeightOrBias::Weight)]
    pub part: WeightOrBias,
    /// Block index, where the role has one.
    #[schemars(example = 3)]
    pub block: Option<usize>,
    /// How the matrix is stored; null is what the name or the graph says.
    #[schemars(example = WeightLayout::InOut)]
    pub layout: Option<WeightLayout>,
}

/// Which of a model's stacks of blocks: only T5-like models have the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stack {
    /// The encoder of encoder-decoder models, the only stack of others.
    Main,
    /// The decoder of encoder-decoder models.
    Decoder,
}
