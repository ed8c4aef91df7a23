//! Encoders that normalise after each sublayer: BERT, RoBERTa, DistilBERT. They differ in the
//! embeddings and in names.

use super::attention::{Attention, cast};
use super::config::Architecture;
use super::init::Init;
use super::net::Net;
use crate::error::Result;
use crate::onnx::{Attribute, ValueId};
use crate::tensor::DType;

/// Names of one block's parts.
struct Block {
    query: String,
    key: String,
    value: String,
    mix: String,
    attention_norm: String,
    up: String,
    down: String,
    norm: String,
}

impl Block {
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
}

/// Name of the word embeddings, which a language-model head shares.
pub(super) fn word_embeddings(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Bert => "bert.embeddings.word_embeddings.weight",
        Architecture::Roberta => "roberta.embeddings.word_embeddings.weight",
        Architecture::DistilBert => "distilbert.embeddings.word_embeddings.weight",
        Architecture::Gpt2 => "transformer.wte.weight",
    }
}

/// The last hidden states, [batch · sequence, hidden].
pub(super) fn encode(net: &mut Net) -> Result<ValueId> {
    let mut x = embed(net)?;
    let attention = Attention::bidirectional(net);
    for i in 0..net.config.layers {
        let block = match net.config.architecture {
            Architecture::DistilBert => Block::distilbert(i),
            Architecture::Roberta => Block::bert("roberta", i),
            _ => Block::bert("bert", i),
        };
        x = apply(net, &block, &attention, x)?;
    }
    Ok(x)
}

fn apply(net: &mut Net, block: &Block, attention: &Attention, x: ValueId) -> Result<ValueId> {
    let (hidden, inner) = (net.config.hidden, net.config.intermediate);
    let square = (hidden, hidden);
    let rate = net.config.hidden_dropout;
    let scale = 1.0 / ((hidden / net.config.heads) as f64).sqrt();
    let q = net.scaled_linear(x, &block.query, square, scale)?;
    let k = net.linear(x, &block.key, square)?;
    let v = net.linear(x, &block.value, square)?;
    let y = attention.apply(net, q, k, v);
    let mut y = net.linear(y, &block.mix, square)?;
    if net.config.architecture != Architecture::DistilBert {
        y = net.dropout(y, rate);
    }
    let x = net.op("Add", &[y, x], []);
    let x = net.layer_norm(x, &block.attention_norm)?;
    let y = net.linear(x, &block.up, (hidden, inner))?;
    let y = net.activation(y);
    let y = net.linear(y, &block.down, (inner, hidden))?;
    let y = net.dropout(y, rate);
    let x = net.op("Add", &[y, x], []);
    net.layer_norm(x, &block.norm)
}

fn embed(net: &mut Net) -> Result<ValueId> {
    let words = word_embeddings(net.config.architecture);
    let prefix = words.trim_end_matches(".word_embeddings.weight");
    let (config, hidden, normal) = (net.config, net.config.hidden, net.normal());
    net.enter(prefix);
    let table =
        net.padded_parameter(words, &[config.vocab, hidden], normal, config.pad_token_id)?;
    let positions = format!("{prefix}.position_embeddings.weight");
    let shape = [config.positions, hidden];
    let types = match config.architecture {
        Architecture::Bert => Some(net.add_input("token_type_ids")?),
        _ => None,
    };
    let x = net.op("Gather", &[table, net.ids], []);
    let x = match config.architecture {
        Architecture::Roberta => {
            let row = config.pad_token_id;
            let table = net.padded_parameter(&positions, &shape, normal, row)?;
            let places = places_from_padding(net, row.unwrap_or(0));
            let place = net.op("Gather", &[table, places], []);
            net.op("Add", &[x, place], [])
        }
        _ => {
            let table = net.parameter(&positions, &shape, normal)?;
            let place = net.leading_rows(table);
            net.op("Add", &[x, place], [])
        }
    };
    let x = net.flatten(x, hidden);
    let x = add_types(net, x, prefix, types)?;
    let x = net.layer_norm(x, &format!("{prefix}.LayerNorm"))?;
    Ok(net.dropout(x, config.embedding_dropout))
}

/// RoBERTa counts places over real tokens, from `pad + 1`; padding sits at `pad`.
fn places_from_padding(net: &mut Net, pad: usize) -> ValueId {
    let pad = net.int(pad as i64);
    let axis = net.int(1);
    let kept = net.op("Equal", &[net.ids, pad], []);
    let kept = net.op("Not", &[kept], []);
    let kept = cast(net, kept, DType::I64);
    let count = net.op("CumSum", &[kept, axis], []);
    let count = net.op("Mul", &[count, kept], []);
    net.op("Add", &[count, pad], [])
}

/// Adds the token types' embeddings: a one-hot product for ids that are given, whose gradient
/// is a product too instead of a scatter into a few rows; row 0 where no ids are given.
fn add_types(net: &mut Net, x: ValueId, prefix: &str, types: Option<ValueId>) -> Result<ValueId> {
    let (n, hidden) = (net.config.type_vocab, net.config.hidden);
    if n == 0 {
        return Ok(x);
    }
    let name = format!("{prefix}.token_type_embeddings.weight");
    let table = net.parameter(&name, &[n, hidden], net.normal())?;
    net.enter(prefix);
    let Some(types) = types else {
        let (zero, one) = (net.ints(&[0]), net.ints(&[1]));
        let row = net.op("Slice", &[table, zero, one, zero], []);
        return Ok(net.op("Add", &[x, row], []));
    };
    let column = net.flatten(types, 1);
    let all = net.ints(&(0..n as i64).collect::<Vec<_>>());
    let one_hot = net.op("Equal", &[column, all], []);
    let one_hot = cast(net, one_hot, DType::F32);
    Ok(net.op("Gemm", &[one_hot, table, x], []))
}

/// BERT's pooler: `tanh(W x₀ + b)`.
pub(super) fn pool(net: &mut Net, x: ValueId) -> Result<ValueId> {
    let hidden = net.config.hidden;
    let x = net.first_token(x);
    let x = net.linear(x, "bert.pooler.dense", (hidden, hidden))?;
    Ok(net.op("Tanh", &[x], []))
}

/// Logits over the vocabulary, [batch · sequence, vocab]: a dense layer, the activation, a norm,
/// then the product with the word embeddings, or with a matrix of its own when untied.
pub(super) fn masked_lm(net: &mut Net, x: ValueId) -> Result<ValueId> {
    let names = MaskedLmNames::of(net.config.architecture);
    let (config, hidden) = (net.config, net.config.hidden);
    let x = net.linear(x, names.dense, (hidden, hidden))?;
    let x = match config.architecture {
        Architecture::Roberta => net.gelu(x),
        _ => net.activation(x),
    };
    let x = net.layer_norm(x, names.norm)?;
    let shape = [config.vocab, hidden];
    let table = if config.tie_word_embeddings {
        word_embeddings(config.architecture)
    } else {
        names.decoder
    };
    let w = net.parameter(table, &shape, net.normal())?;
    let b = net.parameter(names.bias, &[config.vocab], Init::Zeros)?;
    net.enter(names.decoder);
    Ok(net.op("Gemm", &[x, w, b], [("transB", Attribute::Int(1))]))
}

/// Names of a masked-language-model head.
pub(super) struct MaskedLmNames {
    dense: &'static str,
    norm: &'static str,
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
            Architecture::Roberta => Self {
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
            _ => Self {
                dense: "cls.predictions.transform.dense",
                norm: "cls.predictions.transform.LayerNorm",
                decoder: "cls.predictions.decoder.weight",
                bias: "cls.predictions.bias",
                bias_alias: "cls.predictions.decoder.bias",
            },
        }
    }
}
