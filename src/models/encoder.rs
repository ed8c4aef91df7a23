//! Encoders that normalise after each sublayer: BERT, RoBERTa, DistilBERT, ALBERT, MPNet. They
//! differ in the embeddings, in names, and in which blocks share parameters.

use super::attention::{Attention, cast};
use super::builder::ModelBuilder;
use super::config::Architecture;
use super::encoder_names::{Block, MaskedLmNames, prefix, word_embeddings};
use super::init::Init;
use crate::error::Result;
use crate::onnx::{Attribute, ValueId};
use crate::tensor::DType;

/// The last hidden states, [batch · sequence, hidden].
pub(super) fn encode(net: &mut ModelBuilder) -> Result<ValueId> {
    let mut x = embed(net)?;
    if net.config.architecture == Architecture::Albert {
        let widen = (net.config.embedding, net.config.hidden);
        x = net.linear(x, "albert.encoder.embedding_hidden_mapping_in", widen)?;
    }
    let mut attention = Attention::bidirectional(net);
    if net.config.architecture == Architecture::MpNet {
        attention.add_distance_bias(net, "mpnet.encoder.relative_attention_bias.weight")?;
    }
    for block in Block::all(net.config) {
        x = apply(net, &block, &attention, x)?;
    }
    Ok(x)
}

fn apply(
    net: &mut ModelBuilder,
    block: &Block,
    attention: &Attention,
    x: ValueId,
) -> Result<ValueId> {
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
    let mut y = net.linear(y, &block.down, (inner, hidden))?;
    if net.config.architecture != Architecture::Albert {
        y = net.dropout(y, rate);
    }
    let x = net.op("Add", &[y, x], []);
    net.layer_norm(x, &block.norm)
}

fn embed(net: &mut ModelBuilder) -> Result<ValueId> {
    let words = word_embeddings(net.config.architecture);
    let prefix = &format!("{}.embeddings", prefix(net.config.architecture));
    let (config, width, normal) = (net.config, net.config.embedding, net.normal());
    net.enter(prefix);
    let table =
        net.padded_parameter(&words, &[config.vocab, width], normal, config.pad_token_id)?;
    let positions = format!("{prefix}.position_embeddings.weight");
    let shape = [config.positions, width];
    let types = match config.architecture {
        Architecture::Bert | Architecture::Albert => Some(net.add_input("token_type_ids")?),
        _ => None,
    };
    let x = net.op("Gather", &[table, net.ids], []);
    let x = match config.architecture {
        Architecture::Roberta | Architecture::MpNet => {
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
    let x = net.flatten(x, width);
    let x = add_types(net, x, prefix, types)?;
    let x = net.layer_norm_of(x, &format!("{prefix}.LayerNorm"), width)?;
    Ok(net.dropout(x, config.embedding_dropout))
}

/// RoBERTa counts places over real tokens, from `pad + 1`; padding sits at `pad`.
fn places_from_padding(net: &mut ModelBuilder, pad: usize) -> ValueId {
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
fn add_types(
    net: &mut ModelBuilder,
    x: ValueId,
    prefix: &str,
    types: Option<ValueId>,
) -> Result<ValueId> {
    let (n, width) = (net.config.type_vocab, net.config.embedding);
    if n == 0 {
        return Ok(x);
    }
    let name = format!("{prefix}.token_type_embeddings.weight");
    let table = net.parameter(&name, &[n, width], net.normal())?;
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

/// The pooler of BERT and ALBERT: `tanh(W x₀ + b)`.
pub(super) fn pool(net: &mut ModelBuilder, x: ValueId) -> Result<ValueId> {
    let hidden = net.config.hidden;
    let x = net.first_token(x);
    let name = match net.config.architecture {
        Architecture::Albert => "albert.pooler",
        _ => "bert.pooler.dense",
    };
    let x = net.linear(x, name, (hidden, hidden))?;
    Ok(net.op("Tanh", &[x], []))
}

/// Logits over the vocabulary, [batch · sequence, vocab]: a dense layer, the activation, a norm,
/// then the product with the word embeddings, or with a matrix of its own when untied.
pub(super) fn masked_lm(net: &mut ModelBuilder, x: ValueId) -> Result<ValueId> {
    let names = MaskedLmNames::of(net.config.architecture);
    let (config, width) = (net.config, net.config.embedding);
    let x = net.linear(x, names.dense, (config.hidden, width))?;
    let x = match config.architecture {
        Architecture::Roberta | Architecture::MpNet => net.gelu(x),
        _ => net.activation(x),
    };
    let x = net.layer_norm_of(x, names.norm, width)?;
    let table = match config.tie_word_embeddings {
        true => word_embeddings(config.architecture),
        false => names.decoder.to_owned(),
    };
    let w = net.parameter(&table, &[config.vocab, width], net.normal())?;
    let b = net.parameter(names.bias, &[config.vocab], Init::Zeros)?;
    net.enter(names.decoder);
    Ok(net.op("Gemm", &[x, w, b], [("transB", Attribute::Int(1))]))
}
