//! Architectures and activations, the keys of each architecture's `config.json`, and defaults.

use crate::error::{Error, Result};

/// The families of graphs that can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Devlin et al. 2018, <https://arxiv.org/abs/1810.04805>.
    Bert,
    /// Liu et al. 2019, <https://arxiv.org/abs/1907.11692>.
    Roberta,
    /// Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
    Gpt2,
    /// Sanh et al. 2019, <https://arxiv.org/abs/1910.01108>.
    DistilBert,
    /// Lan et al. 2019, <https://arxiv.org/abs/1909.11942>.
    Albert,
    /// Song et al. 2020, <https://arxiv.org/abs/2004.09297>.
    MpNet,
}

/// The nonlinearity between the two matrices of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x/2 * (1 + erf(x/√2))`, Hendrycks and Gimpel 2016.
    Gelu,
    /// `x/2 * (1 + tanh(√(2/π) (x + 0.044715 x³)))`, the same paper's approximation.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// Hyperbolic tangent.
    Tanh,
    /// `x / (1 + exp(-x))`.
    Silu,
}

impl Activation {
    pub(super) fn parse(key: &str, name: &str) -> Result<Self> {
        Ok(match name {
            "gelu" | "gelu_python" => Self::Gelu,
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Self::GeluTanh,
            "relu" => Self::Relu,
            "tanh" => Self::Tanh,
            "silu" | "swish" => Self::Silu,
            other => {
                return Err(Error::unsupported(format!(
                    "'{key}' is '{other}'; known are gelu, gelu_new, gelu_fast, \
                     gelu_pytorch_tanh, relu, tanh, silu"
                )));
            }
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_new",
            Self::Relu => "relu",
            Self::Tanh => "tanh",
            Self::Silu => "silu",
        }
    }
}

/// One value of `model_type`, with the defaults of entries that a file may leave out.
pub(super) struct ModelType {
    pub name: &'static str,
    pub architecture: Architecture,
    /// What the published classes' names begin with.
    pub class: &'static str,
    pub pad_token_id: Option<usize>,
    pub type_vocab: usize,
    pub activation: Activation,
    pub norm_epsilon: f64,
    /// Dropout after sublayers and on attention probabilities.
    pub dropout: f64,
    /// Dropout before the head; `None` for that after sublayers.
    pub head_dropout: Option<f64>,
}

impl ModelType {
    pub const BERT: Self = Self {
        name: "bert",
        architecture: Architecture::Bert,
        class: "Bert",
        pad_token_id: Some(0),
        type_vocab: 2,
        activation: Activation::Gelu,
        norm_epsilon: 1e-12,
        dropout: 0.1,
        head_dropout: None,
    };
    pub const ROBERTA: Self = Self {
        name: "roberta",
        architecture: Architecture::Roberta,
        class: "Roberta",
        pad_token_id: Some(1),
        type_vocab: 1,
        ..Self::BERT
    };
    pub const GPT2: Self = Self {
        name: "gpt2",
        architecture: Architecture::Gpt2,
        class: "GPT2",
        pad_token_id: None,
        type_vocab: 0,
        activation: Activation::GeluTanh,
        norm_epsilon: 1e-5,
        dropout: 0.1,
        head_dropout: Some(0.1),
    };
    pub const DISTILBERT: Self = Self {
        name: "distilbert",
        architecture: Architecture::DistilBert,
        class: "DistilBert",
        type_vocab: 0,
        head_dropout: Some(0.2),
        ..Self::BERT
    };
    pub const ALBERT: Self = Self {
        name: "albert",
        architecture: Architecture::Albert,
        class: "Albert",
        activation: Activation::GeluTanh,
        dropout: 0.0,
        head_dropout: Some(0.1),
        ..Self::BERT
    };
    pub const MPNET: Self = Self {
        name: "mpnet",
        architecture: Architecture::MpNet,
        class: "MPNet",
        pad_token_id: Some(1),
        type_vocab: 0,
        ..Self::BERT
    };
    const XLM_ROBERTA: Self = Self { name: "xlm-roberta", class: "XLMRoberta", ..Self::ROBERTA };
    const CAMEMBERT: Self = Self { name: "camembert", class: "Camembert", ..Self::ROBERTA };

    pub const ALL: [Self; 8] = [
        Self::BERT,
        Self::ROBERTA,
        Self::GPT2,
        Self::DISTILBERT,
        Self::ALBERT,
        Self::MPNET,
        Self::XLM_ROBERTA,
        Self::CAMEMBERT,
    ];

    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name == name)
    }
}

/// The keys of one architecture; empty where it has no such setting.
pub(super) struct Keys {
    pub hidden: &'static str,
    pub layers: &'static str,
    pub heads: &'static str,
    pub intermediate: &'static str,
    pub positions: &'static str,
    pub type_vocab: &'static str,
    pub activation: &'static str,
    pub hidden_dropout: &'static str,
    pub attention_dropout: &'static str,
    pub embedding_dropout: &'static str,
    pub head_dropout: &'static str,
    pub norm_epsilon: &'static str,
}

/// The general names of sizes, which a file may use in place of its architecture's own.
pub(super) const GENERAL: [&str; 5] =
    [BERT.hidden, BERT.layers, BERT.heads, BERT.intermediate, BERT.positions];

const BERT: Keys = Keys {
    hidden: "hidden_size",
    layers: "num_hidden_layers",
    heads: "num_attention_heads",
    intermediate: "intermediate_size",
    positions: "max_position_embeddings",
    type_vocab: "type_vocab_size",
    activation: "hidden_act",
    hidden_dropout: "hidden_dropout_prob",
    attention_dropout: "attention_probs_dropout_prob",
    embedding_dropout: "",
    head_dropout: "classifier_dropout",
    norm_epsilon: "layer_norm_eps",
};

const ALBERT: Keys = Keys { head_dropout: "classifier_dropout_prob", ..BERT };

const MPNET: Keys = Keys { head_dropout: "", type_vocab: "", ..BERT };

const GPT2: Keys = Keys {
    hidden: "n_embd",
    layers: "n_layer",
    heads: "n_head",
    intermediate: "n_inner",
    positions: "n_positions",
    type_vocab: "",
    activation: "activation_function",
    hidden_dropout: "resid_pdrop",
    attention_dropout: "attn_pdrop",
    embedding_dropout: "embd_pdrop",
    head_dropout: "classifier_dropout",
    norm_epsilon: "layer_norm_epsilon",
};

const DISTILBERT: Keys = Keys {
    hidden: "dim",
    layers: "n_layers",
    heads: "n_heads",
    intermediate: "hidden_dim",
    positions: "max_position_embeddings",
    type_vocab: "",
    activation: "activation",
    hidden_dropout: "dropout",
    attention_dropout: "attention_dropout",
    embedding_dropout: "",
    head_dropout: "seq_classif_dropout",
    norm_epsilon: "",
};

impl Keys {
    pub fn of(architecture: Architecture) -> &'static Self {
        match architecture {
            Architecture::Bert | Architecture::Roberta => &BERT,
            Architecture::Gpt2 => &GPT2,
            Architecture::DistilBert => &DISTILBERT,
            Architecture::Albert => &ALBERT,
            Architecture::MpNet => &MPNET,
        }
    }
}
