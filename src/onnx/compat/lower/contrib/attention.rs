//! Attention with its projection (`Attention`) or after it (`MultiHeadAttention`), and rotary
//! positions.
//!
//! A mask is added to the scores: 0 where a key may be looked at, `mask_filter_value` elsewhere.

use crate::error::{Error, Result};
use crate::onnx::compat::lower::attention::{
    Scores, attend, causal, join_heads, lowest, split_heads, turn,
};
use crate::onnx::compat::lower::rewrite::input;
use crate::onnx::{Build, Node, ValueId};
use crate::tensor::DType;

/// Attribute `num_heads`.
fn heads(node: &Node) -> Result<usize> {
    let n = node.int("num_heads").and_then(|n| usize::try_from(n).ok());
    n.filter(|&n| n > 0).ok_or_else(|| Error::data("attribute num_heads is missing"))
}

/// `Attention`: q, k, v = pieces of x w + b; softmax(scale q kᵀ + mask + bias) v
///
/// Outputs y and the keys and values together, `[2, batch, heads, length, d]`.
pub(super) fn attention(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    if node.int("do_rotary").unwrap_or(0) != 0
        || node.int("past_present_share_buffer").unwrap_or(0) != 0
    {
        return Err(Error::unsupported("do_rotary or past_present_share_buffer"));
    }
    let n = heads(node)?;
    let [q, k, v] = projected(g, node)?;
    let q = split_heads(g, q, n)?;
    let (k, v) = (split_heads(g, k, n)?, split_heads(g, v, n)?);
    let mut past = None;
    if let Some(both) = node.input(4) {
        let shape = g.shape(both)?[1..].to_vec();
        let parts = g.split(both, 0, &[1, 1])?;
        past = Some((g.reshape(parts[0], &shape)?, g.reshape(parts[1], &shape)?));
    }
    let (k, v, before) = prepend(g, (k, v), past)?;
    let y = scored(g, node, (q, k, v), before, (node.input(3), node.input(5)))?;
    let mut outputs = vec![y];
    if node.output(1).is_some() {
        let shape = [&[1], &g.shape(k)?[..]].concat();
        let (k, v) = (g.reshape(k, &shape)?, g.reshape(v, &shape)?);
        outputs.push(g.concat(&[k, v], 0)?);
    }
    Ok(Some(outputs))
}

/// x w + b in three pieces.
fn projected(g: &mut Build, node: &Node) -> Result<[ValueId; 3]> {
    let (x, w) = (input(node, 0)?, input(node, 1)?);
    let mut all = g.matmul(x, w)?;
    if let Some(b) = node.input(2) {
        all = g.add(all, b)?;
    }
    let width = g.shape(all)?.last().copied().unwrap_or(0);
    let sizes = match node.ints("qkv_hidden_sizes") {
        Some(sizes) if !sizes.is_empty() => {
            sizes.iter().map(|&n| usize::try_from(n).unwrap_or(0)).collect()
        }
        _ => vec![width / 3; 3],
    };
    let parts = g.split(all, 2, &sizes)?;
    parts.try_into().map_err(|_| Error::data("qkv_hidden_sizes are not three"))
}

/// Keys and values after those of the past, and how many those are.
fn prepend(
    g: &mut Build,
    (k, v): (ValueId, ValueId),
    past: Option<(ValueId, ValueId)>,
) -> Result<(ValueId, ValueId, usize)> {
    let Some((past_k, past_v)) = past else { return Ok((k, v, 0)) };
    let n = g.shape(past_k)?.get(2).copied().unwrap_or(0);
    Ok((g.concat(&[past_k, k], 2)?, g.concat(&[past_v, v], 2)?, n))
}

/// What both operators do with heads q, k, v; `mask` is the padding mask and the bias.
fn scored(
    g: &mut Build,
    node: &Node,
    (q, k, v): (ValueId, ValueId, ValueId),
    past: usize,
    mask: (Option<ValueId>, Option<ValueId>),
) -> Result<ValueId> {
    let (q_shape, k_shape) = (g.shape(q)?, g.shape(k)?);
    let &[batch, _, queries, _] = &q_shape[..] else {
        return Err(Error::shape(format!("queries of shape {q_shape:?}")));
    };
    let keys = k_shape.get(2).copied().unwrap_or(0);
    let filter = f64::from(node.float("mask_filter_value").unwrap_or(-10_000.0));
    let mut bias = match mask.0 {
        Some(mask) => Some(padding(g, mask, (batch, keys), (g.dtype(q)?, filter))?),
        None => None,
    };
    if let Some(given) = mask.1 {
        bias = Some(bias.map_or(Ok(given), |b| g.add(b, given))?);
    }
    let scale = node.float("scale").filter(|&s| s != 0.0).map(f64::from);
    let mut how = Scores { scale, bias, ..Scores::default() };
    if node.int("unidirectional").unwrap_or(0) != 0 {
        how.allowed = Some(causal(g, queries, keys, past)?);
    }
    let y = attend(g, (q, k, v), &how)?;
    join_heads(g, y)
}

/// A padding mask as numbers to add to scores, broadcast to [batch, heads, queries, keys].
///
/// The mask: flags [batch, keys] or [batch, queries, keys]; or lengths [batch]; or ends and then
/// starts [2 batch] of what may be looked at.
fn padding(
    g: &mut Build,
    mask: ValueId,
    (batch, keys): (usize, usize),
    (dtype, filter): (DType, f64),
) -> Result<ValueId> {
    let shape = g.shape(mask)?;
    let allowed = match shape[..] {
        [b, k] if b == batch && k == keys => flags(g, mask, &[batch, 1, 1, keys])?,
        [b, q, k] if b == batch && k == keys => flags(g, mask, &[batch, 1, q, keys])?,
        [n] if n == batch => {
            let (ends, at) = (g.reshape(mask, &[batch, 1, 1, 1])?, places(g, mask, keys)?);
            g.compare("Less", at, ends)?
        }
        [n] if n == 2 * batch => {
            let at = places(g, mask, keys)?;
            let parts = g.split(mask, 0, &[batch, batch])?;
            let ends = g.reshape(parts[0], &[batch, 1, 1, 1])?;
            let starts = g.reshape(parts[1], &[batch, 1, 1, 1])?;
            let early = g.compare("Less", at, ends)?;
            let late = g.compare("GreaterOrEqual", at, starts)?;
            g.emit("And", &[early, late], (DType::Bool, &[batch, 1, 1, keys]), [])
        }
        _ => return Err(Error::unsupported(format!("a mask of shape {shape:?}"))),
    };
    let (zero, low) = (g.number(dtype, 0.0)?, g.number(dtype, filter.max(lowest(dtype)))?);
    g.select(allowed, zero, low)
}

fn flags(g: &mut Build, mask: ValueId, shape: &[usize]) -> Result<ValueId> {
    let mask = g.reshape(mask, shape)?;
    g.cast(mask, DType::Bool)
}

/// `0..n` in the integer type of `like`.
fn places(g: &mut Build, like: ValueId, n: usize) -> Result<ValueId> {
    let dtype = g.dtype(like)?;
    let at = g.positions(n)?;
    g.cast(at, dtype)
}

/// `MultiHeadAttention`: softmax(scale q kᵀ + mask + bias) v with q, k, v given flat, in heads, or
/// packed together; a bias over all three is added first.
///
/// Outputs y, and the keys and values in heads.
pub(super) fn multi_head(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let n = heads(node)?;
    if node.input(8).is_some() || node.input(9).is_some() {
        return Err(Error::unsupported("a shared buffer of past keys and values"));
    }
    let [q, k, v] = unpacked(g, node)?;
    let [q, k, v] = biased(g, [q, k, v], node.input(3))?;
    let mut apart = |x: ValueId| if g.rank(x)? == 3 { split_heads(g, x, n) } else { Ok(x) };
    let (q, k, v) = (apart(q)?, apart(k)?, apart(v)?);
    let past = node.input(6).zip(node.input(7));
    let (k, v, before) = prepend(g, (k, v), past)?;
    let y = scored(g, node, (q, k, v), before, (node.input(4), node.input(5)))?;
    Ok(Some(vec![y, k, v]))
}

/// q, k, v as `[batch, length, width]`, or k and v as `[batch, heads, length, d]`.
fn unpacked(g: &mut Build, node: &Node) -> Result<[ValueId; 3]> {
    let q = input(node, 0)?;
    if g.rank(q)? == 5 {
        let parts = parted(g, q, 3)?;
        return parts.try_into().map_err(|_| Error::internal("three parts are not three"));
    }
    let k = input(node, 1)?;
    if g.rank(k)? == 5 {
        let parts = parted(g, k, 2)?;
        return Ok([q, parts[0], parts[1]]);
    }
    Ok([q, k, input(node, 2)?])
}

/// `[batch, length, heads, n, d]` as n times `[batch, length, heads * d]`.
fn parted(g: &mut Build, x: ValueId, n: usize) -> Result<Vec<ValueId>> {
    let shape = g.shape(x)?;
    let &[batch, length, heads, _, d] = &shape[..] else {
        return Err(Error::shape(format!("{shape:?} in {n} parts")));
    };
    let parts = g.split(x, 3, &vec![1; n])?;
    parts.into_iter().map(|p| g.reshape(p, &[batch, length, heads * d])).collect()
}

fn biased(g: &mut Build, parts: [ValueId; 3], bias: Option<ValueId>) -> Result<[ValueId; 3]> {
    let Some(bias) = bias else { return Ok(parts) };
    let mut sums = parts;
    let mut at = 0;
    for part in &mut sums {
        let shape = g.shape(*part)?;
        let &[_, _, width] = &shape[..] else {
            return Err(Error::unsupported("a bias for keys that come in heads"));
        };
        let own = g.slice(bias, 0, (at, at + width))?;
        *part = g.add(*part, own)?;
        at += width;
    }
    Ok(sums)
}

/// `RotaryEmbedding`: as ONNX's own, with positions always given, and tables over positions.
pub(super) fn rotary(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let (x, at) = (input(node, 0)?, input(node, 1)?);
    if node.float("scale").is_some_and(|s| s != 1.0)
        || node.int("is_packed_batching").unwrap_or(0) != 0
    {
        return Err(Error::unsupported("a scale or packed batches"));
    }
    let flat = g.rank(x)? == 3;
    let half = g.shape(input(node, 2)?)?.last().copied().unwrap_or(0);
    let x4 = if flat {
        let width = g.shape(x)?.last().copied().unwrap_or(0);
        let given = node.int("num_heads").and_then(|n| usize::try_from(n).ok());
        let n = given.filter(|&n| n > 0).unwrap_or(width / (2 * half).max(1));
        split_heads(g, x, n)?
    } else {
        x
    };
    let shape = g.shape(x4)?;
    let &[batch, _, length, width] = &shape[..] else {
        return Err(Error::shape(format!("rotary positions of {shape:?}")));
    };
    let turning = node.int("rotary_embedding_dim").and_then(|n| usize::try_from(n).ok());
    let turning = turning.filter(|&n| n > 0).unwrap_or(width);
    if turning > width || turning != 2 * half {
        return Err(Error::data(format!("{turning} of {width} places turn by {half} angles")));
    }
    let at = if g.count(at)? == 1 && batch * length != 1 {
        let first = g.reshape(at, &[1, 1])?;
        let steps = places(g, at, length)?;
        g.add(first, steps)?
    } else {
        at
    };
    let rows = g.shape(at)?[0];
    let mut table = |i: usize| -> Result<ValueId> {
        let found = g.gather(input(node, i)?, at, 0)?;
        g.reshape(found, &[rows, 1, length, half])
    };
    let (cos, sin) = (table(2)?, table(3)?);
    let y = turn(g, x4, (cos, sin), half, node.int("interleaved").unwrap_or(0) != 0)?;
    Ok(Some(vec![if flat { join_heads(g, y)? } else { y }]))
}
