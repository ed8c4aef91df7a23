//! GPT-2: a decoder that normalises before each sublayer, with matrices in [in, out].

use super::attention::{Attention, cast, places};
use super::builder::ModelBuilder;
use super::init::Init;
use crate::error::Result;
use crate::onnx::{Attribute, ValueId};
use crate::tensor::DType;

/// The last hidden states after the final norm, [batch · sequence, hidden].
pub(super) fn decode(net: &mut ModelBuilder) -> Result<ValueId> {
    let (config, hidden, normal) = (net.config, net.config.hidden, net.normal());
    net.enter("transformer");
    let words = net.parameter("transformer.wte.weight", &[config.vocab, hidden], normal)?;
    let table = net.parameter("transformer.wpe.weight", &[config.positions, hidden], normal)?;
    let x = net.op("Gather", &[words, net.ids], []);
    let place = net.leading_rows(table);
    let x = net.op("Add", &[x, place], []);
    let x = net.flatten(x, hidden);
    let mut x = net.dropout(x, config.embedding_dropout);
    let attention = Attention::causal(net);
    for i in 0..config.layers {
        x = block(net, &attention, x, i)?;
    }
    net.layer_norm(x, "transformer.ln_f")
}

fn block(net: &mut ModelBuilder, attention: &Attention, x: ValueId, i: usize) -> Result<ValueId> {
    let (config, hidden, normal) = (net.config, net.config.hidden, net.normal());
    let part = |name: &str| format!("transformer.h.{i}.{name}");
    // Projections back into the residual stream start smaller, by the number of them.
    let residual = Init::Normal(config.initializer_range / (2.0 * config.layers as f64).sqrt());
    let y = net.layer_norm(x, &part("ln_1"))?;
    let y = conv1d(net, y, &part("attn.c_attn"), (hidden, 3 * hidden), normal)?;
    let sizes = net.ints(&[hidden as i64; 3]);
    let qkv = net.op_n("Split", &[y, sizes], 3, [("axis", Attribute::Int(-1))]);
    let q = scale(net, qkv[0], i);
    let y = attention.apply(net, q, qkv[1], qkv[2]);
    let y = conv1d(net, y, &part("attn.c_proj"), (hidden, hidden), residual)?;
    let y = net.dropout(y, config.hidden_dropout);
    let x = net.op("Add", &[y, x], []);
    let y = net.layer_norm(x, &part("ln_2"))?;
    let y = conv1d(net, y, &part("mlp.c_fc"), (hidden, config.intermediate), normal)?;
    let y = net.activation(y);
    let y = conv1d(net, y, &part("mlp.c_proj"), (config.intermediate, hidden), residual)?;
    let y = net.dropout(y, config.hidden_dropout);
    Ok(net.op("Add", &[x, y], []))
}

fn scale(net: &mut ModelBuilder, q: ValueId, i: usize) -> ValueId {
    let config = net.config;
    let mut factor = 1.0;
    if config.scale_attention {
        factor /= ((config.hidden / config.heads) as f64).sqrt();
    }
    if config.scale_by_inverse_layer {
        factor /= (i + 1) as f64;
    }
    if factor == 1.0 {
        return q;
    }
    let factor = net.float(factor);
    net.op("Mul", &[q, factor], [])
}

/// `y = x W + b`, W in [in, out].
fn conv1d(
    net: &mut ModelBuilder,
    x: ValueId,
    name: &str,
    (n_in, n_out): (usize, usize),
    init: Init,
) -> Result<ValueId> {
    let w = net.parameter(&format!("{name}.weight"), &[n_in, n_out], init)?;
    let b = net.parameter(&format!("{name}.bias"), &[n_out], Init::Zeros)?;
    net.enter(name);
    Ok(net.op("Gemm", &[x, w, b], []))
}

/// The state of each sequence's last token, [batch, hidden]: the rightmost that is not the
/// padding token, or, without padding token, the rightmost that the attention mask keeps.
/// Picked by a one-hot product, whose gradient is a product too.
pub(super) fn last_token(net: &mut ModelBuilder, x: ValueId) -> ValueId {
    net.enter("last_token");
    let kept = match net.config.pad_token_id {
        Some(pad) => {
            let pad = net.int(pad as i64);
            let padding = net.op("Equal", &[net.ids, pad], []);
            net.op("Not", &[padding], [])
        }
        None => cast(net, net.mask, DType::Bool),
    };
    let kept = cast(net, kept, DType::I32);
    let places = places(net);
    let places = cast(net, places, DType::I32);
    let score = net.op("Mul", &[kept, places], []);
    let attributes = [("axis", Attribute::Int(-1)), ("keepdims", Attribute::Int(1))];
    let last = net.op("ArgMax", &[score], attributes);
    let last = cast(net, last, DType::I32);
    let one_hot = net.op("Equal", &[places, last], []);
    let one_hot = cast(net, one_hot, DType::F32);
    let axis = net.ints(&[1]);
    let one_hot = net.op("Unsqueeze", &[one_hot, axis], []);
    let x = net.unflatten(x, net.config.hidden);
    let x = net.op("MatMul", &[one_hot, x], []);
    net.flatten(x, net.config.hidden)
}
