//! State-dict names of the encoders' parts.

use super::config::{Architecture, Config};

/// Names of one block's parts.
pub(super) struct Block {
    pub query: String,
    pub key: String,
    pub value: String,
    pub mix: String,
    pub attention_norm: String,
    pub up: String,
    pub down: String,
    pub norm: String,
}

impl Block {
    /// The blocks in the order in which they are applied. ALBERT names one several times.
    pub fn all(config: &Config) -> Vec<Self> {
        let n = config.layers;
        match config.architecture {
            Architecture::DistilBert => (0..n).map(Self::distilbert).collect(),
            Architecture::MpNet => (0..n).map(Self::mpnet).collect(),
            Architecture::Albert => {
                let group = |i: usize| i * config.groups / n;
                let inner = |i| (0..config.group_layers).map(move |j| Self::albert(group(i), j));
                (0..n).flat_map(inner).collect()
            }
            other => (0..n).map(|i| Self::bert(prefix(other), i)).collect(),
        }
    }

    fn bert(model: &str, i: usize) -> Self {
        let part = |name: &str| format!("{model}.encoder.layer.{i}.{name}");
        Self {
            query: part("attention.self.query"),
            key: part("attention.self.key"),
            value: part("attention.self.value"),
            mix: part("attention.output.dense"),
            attention_norm: part("attention.output.LayerNorm"),
            up: part("intermediate.dense"),
            down: part("output.dense"),
            norm: part("output.LayerNorm"),
        }
    }

    fn distilbert(i: usize) -> Self {
        let part = |name: &str| format!("distilbert.transformer.layer.{i}.{name}");
        Self {
            query: part("attention.q_lin"),
            key: part("attention.k_lin"),
            value: part("attention.v_lin"),
            mix: part("attention.out_lin"),
            attention_norm: part("sa_layer_norm"),
            up: part("ffn.lin1"),
            down: part("ffn.lin2"),
            norm: part("output_layer_norm"),
        }
    }

    fn mpnet(i: usize) -> Self {
        let part = |name: &str| format!("mpnet.encoder.layer.{i}.{name}");
        Self {
            query: part("attention.attn.q"),
            key: part("attention.attn.k"),
            value: part("attention.attn.v"),
            mix: part("attention.attn.o"),
            attention_norm: part("attention.LayerNorm"),
            ..Self::bert("mpnet", i)
        }
    }

    fn albert(group: usize, i: usize) -> Self {
        let place = format!("albert.encoder.albert_layer_groups.{group}.albert_layers.{i}");
        let part = |name: &str| format!("{place}.{name}");
        Self {
            query: part("attention.query"),
            key: part("attention.key"),
            value: part("attention.value"),
            mix: part("attention.dense"),
            attention_norm: part("attention.LayerNorm"),
            up: part("ffn"),
            down: part("ffn_output"),
            norm: part("full_layer_layer_norm"),
        }
    }
}

/// What the body's parameters begin with; files of a bare model leave it out.
pub(super) fn prefix(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Bert => "bert",
        Architecture::Roberta => "roberta",
        Architecture::DistilBert => "distilbert",
        Architecture::Albert => "albert",
        Architecture::MpNet => "mpnet",
        Architecture::Gpt2 => "transformer",
    }
}

/// Name of the word embeddings, which a language-model head shares.
pub(super) fn word_embeddings(architecture: Architecture) -> String {
    match architecture {
        Architecture::Gpt2 => "transformer.wte.weight".to_owned(),
        other => format!("{}.embeddings.word_embeddings.weight", prefix(other)),
    }
}

/// Names of a masked-language-model head.
pub(super) struct MaskedLmNames {
    pub dense: &'static str,
    pub norm: &'static str,
    /// The matrix onto the vocabulary; an alias of the word embeddings when tied.
    pub decoder: &'static str,
    /// The bias onto the vocabulary.
    pub bias: &'static str,
    /// A second name of that bias in state dicts; empty when there is none.
    pub bias_alias: &'static str,
}

impl MaskedLmNames {
    pub fn of(architecture: Architecture) -> Self {
        match architecture {
            Architecture::Roberta | Architecture::MpNet => Self {
                dense: "lm_head.dense",
                norm: "lm_head.layer_norm",
                decoder: "lm_head.decoder.weight",
                bias: "lm_head.bias",
                bias_alias: "lm_head.decoder.bias",
            },
            Architecture::DistilBert => Self {
                dense: "vocab_transform",
                norm: "vocab_layer_norm",
                decoder: "vocab_projector.weight",
                bias: "vocab_projector.bias",
                bias_alias: "",
            },
            Architecture::Albert => Self {
                dense: "predictions.dense",
                norm: "predictions.LayerNorm",
                decoder: "predictions.decoder.weight",
                bias: "predictions.bias",
                bias_alias: "predictions.decoder.bias",
            },
            Architecture::Bert | Architecture::Gpt2 => Self {
                dense: "cls.predictions.transform.dense",
                norm: "cls.predictions.transform.LayerNorm",
                decoder: "cls.predictions.decoder.weight",
                bias: "cls.predictions.bias",
                bias_alias: "cls.predictions.decoder.bias",
            },
        }
    }
}
