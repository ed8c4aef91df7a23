//! Grouped-query attention of decoders, without past keys and values.

use crate::error::{Error, Result};
use crate::onnx::compat::lower::attention::{
    Scores, attend, causal, join_heads, repeat_heads, split_heads, turn,
};
use crate::onnx::compat::lower::rewrite::input;
use crate::onnx::{Build, Node, ValueId};

fn count(node: &Node, name: &str) -> Result<usize> {
    let n = node.int(name).and_then(|n| usize::try_from(n).ok());
    n.filter(|&n| n > 0).ok_or_else(|| Error::data(format!("attribute {name} is missing")))
}

/// softmax(scale q kᵀ) v, causal, each key head for several query heads; q and k rotated by their
/// positions first where `do_rotary` says so.
///
/// Without a past the sequence starts at position 0 and padding is at the end, where causality
/// hides it from what comes before. Outputs y, and the keys and values in heads.
pub(super) fn attention(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    check_supported(g, node)?;
    let (heads, kv_heads) = (count(node, "num_heads")?, count(node, "kv_num_heads")?);
    let q = input(node, 0)?;
    let (q, k, v) = match (node.input(1), node.input(2)) {
        (Some(k), Some(v)) => (q, k, v),
        _ => packed(g, q, heads, kv_heads)?,
    };
    let mut q = split_heads(g, q, heads)?;
    let (mut k, v) = (split_heads(g, k, kv_heads)?, split_heads(g, v, kv_heads)?);
    let length = g.shape(q)?[2];
    if node.int("do_rotary").unwrap_or(0) != 0 {
        let half = g.shape(input(node, 7)?)?.last().copied().unwrap_or(0);
        let mut table = |i: usize| -> Result<ValueId> {
            let rows = g.slice(input(node, i)?, 0, (0, length))?;
            g.reshape(rows, &[1, 1, length, half])
        };
        let tables = (table(7)?, table(8)?);
        let interleaved = node.int("rotary_interleaved").unwrap_or(0) != 0;
        q = turn(g, q, tables, half, interleaved)?;
        k = turn(g, k, tables, half, interleaved)?;
    }
    let (all_k, all_v) = (repeat_heads(g, k, heads)?, repeat_heads(g, v, heads)?);
    let how = Scores {
        scale: node.float("scale").filter(|&s| s != 0.0).map(f64::from),
        softcap: f64::from(node.float("softcap").unwrap_or(0.0)),
        allowed: Some(causal(g, length, length, 0)?),
        ..Scores::default()
    };
    let y = attend(g, (q, all_k, all_v), &how)?;
    Ok(Some(vec![join_heads(g, y)?, k, v]))
}

/// Refuses inputs and attributes that training on whole sequences does not support.
fn check_supported(g: &Build, node: &Node) -> Result<()> {
    for slot in [3, 4] {
        let Some(past) = node.input(slot) else { continue };
        if g.count(past)? != 0 {
            return Err(Error::unsupported(
                "past keys and values; feed a past of length 0, or export without a cache",
            ));
        }
    }
    let extra = (9..node.inputs.len()).find(|&i| node.input(i).is_some());
    if let Some(slot) = extra {
        return Err(Error::unsupported(format!("its input {slot}")));
    }
    if node.int("qk_output").unwrap_or(0) != 0 {
        return Err(Error::unsupported("qk_output"));
    }
    if node.int("local_window_size").unwrap_or(-1) != -1
        || node.int("smooth_softmax").unwrap_or(0) == 1
    {
        return Err(Error::unsupported("local_window_size or smooth_softmax"));
    }
    Ok(())
}

/// `[batch, length, (heads + 2 kv_heads) * d]` as q, k, v.
fn packed(
    g: &mut Build,
    all: ValueId,
    heads: usize,
    kv_heads: usize,
) -> Result<(ValueId, ValueId, ValueId)> {
    let width = g.shape(all)?.last().copied().unwrap_or(0);
    let d = width / (heads + 2 * kv_heads);
    let parts = g.split(all, 2, &[heads * d, kv_heads * d, kv_heads * d])?;
    match parts[..] {
        [q, k, v] => Ok((q, k, v)),
        _ => Err(Error::internal("three parts are not three")),
    }
}
