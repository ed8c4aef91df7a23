//! Attention and rotary positions of opset 23 and later, in standard operators.
//!
//! `y = softmax(scale q kᵀ + bias) v`, heads in their own axis. A query that may attend to no key
//! gives zeros, as the operator specifies.

use crate::error::{Error, Result};
use crate::onnx::{Build, Node, TensorData, ValueId};
use crate::tensor::{DType, element_count};

/// Replaces minus infinity: finite, so that no row of a softmax is NaN.
pub(super) fn lowest(dtype: DType) -> f64 {
    if dtype == DType::F64 { f64::MIN } else { f64::from(f32::MIN) }
}

/// How scores are computed from q kᵀ.
#[derive(Default)]
pub(super) struct Scores {
    /// Factor of q kᵀ; default 1/√(head size).
    pub scale: Option<f64>,
    /// Bounds scores to ±softcap when positive.
    pub softcap: f64,
    /// Booleans: which query may attend to which key; broadcasts to [batch, heads, queries, keys].
    pub allowed: Option<ValueId>,
    /// Added to the scores.
    pub bias: Option<ValueId>,
    /// Whether `allowed` may leave a query without any key.
    pub may_be_empty: bool,
}

/// Attention over q [batch, heads, queries, d], k and v [batch, heads, keys, d or dv].
pub(super) fn attend(
    g: &mut Build,
    qkv: (ValueId, ValueId, ValueId),
    how: &Scores,
) -> Result<ValueId> {
    Ok(attend_in_stages(g, qkv, how)?.0)
}

/// The same, with the scores: scaled, bounded, with what is added to them, and after the softmax.
fn attend_in_stages(
    g: &mut Build,
    (q, k, v): (ValueId, ValueId, ValueId),
    how: &Scores,
) -> Result<(ValueId, [ValueId; 4])> {
    let dtype = g.dtype(q)?;
    let d = g.shape(q)?.last().copied().unwrap_or(1).max(1);
    let q = g.scale(q, how.scale.unwrap_or(1.0 / (d as f64).sqrt()))?;
    let kt = g.transpose_last(k)?;
    let mut scores = g.matmul(q, kt)?;
    let scaled = scores;
    if how.softcap > 0.0 {
        let small = g.scale(scores, 1.0 / how.softcap)?;
        let bounded = g.unary("Tanh", small)?;
        scores = g.scale(bounded, how.softcap)?;
    }
    let bounded = scores;
    if let Some(bias) = how.bias {
        scores = g.add(scores, bias)?;
    }
    if let Some(allowed) = how.allowed {
        let (zero, low) = (g.number(dtype, 0.0)?, g.number(dtype, lowest(dtype))?);
        let bias = g.select(allowed, zero, low)?;
        scores = g.add(scores, bias)?;
    }
    let mut p = g.softmax("Softmax", scores, 3)?;
    if let (Some(allowed), true) = (how.allowed, how.may_be_empty) {
        let mask = g.cast(allowed, dtype)?;
        p = g.mul(p, mask)?;
    }
    Ok((g.matmul(p, v)?, [scaled, bounded, scores, p]))
}

/// `[batch, length, heads * d]` as `[batch, heads, length, d]`.
pub(super) fn split_heads(g: &mut Build, x: ValueId, heads: usize) -> Result<ValueId> {
    let shape = g.shape(x)?;
    match shape[..] {
        [batch, length, width] if heads > 0 && width % heads == 0 => {
            let apart = g.reshape(x, &[batch, length, heads, width / heads])?;
            g.transpose(apart, &[0, 2, 1, 3])
        }
        _ => Err(Error::shape(format!("{shape:?} in {heads} heads"))),
    }
}

/// `[batch, heads, length, d]` as `[batch, length, heads * d]`.
pub(super) fn join_heads(g: &mut Build, x: ValueId) -> Result<ValueId> {
    let shape = g.shape(x)?;
    let &[batch, heads, length, d] = &shape[..] else {
        return Err(Error::shape(format!("heads of {shape:?}")));
    };
    let moved = g.transpose(x, &[0, 2, 1, 3])?;
    g.reshape(moved, &[batch, length, heads * d])
}

/// Each of k's heads repeated until there are `heads`.
pub(super) fn repeat_heads(g: &mut Build, k: ValueId, heads: usize) -> Result<ValueId> {
    let shape = g.shape(k)?;
    match shape[..] {
        [_, own, _, _] if own == heads => Ok(k),
        [batch, own, length, d] if own > 0 && heads.is_multiple_of(own) => {
            let apart = g.reshape(k, &[batch, own, 1, length, d])?;
            let all = g.expand(apart, &[batch, own, heads / own, length, d])?;
            g.reshape(all, &[batch, heads, length, d])
        }
        _ => Err(Error::shape(format!("{heads} query heads over keys {shape:?}"))),
    }
}

/// Booleans [queries, keys]: query i may attend to key j when j <= i + past.
pub(super) fn causal(g: &mut Build, queries: usize, keys: usize, past: usize) -> Result<ValueId> {
    window(g, (queries, keys), past, (None, Some(0)))
}

/// Booleans [queries, keys]: query i, at p = i + past, may attend to key j when
/// p - left <= j <= p + right; `None` is no bound.
fn window(
    g: &mut Build,
    (queries, keys): (usize, usize),
    past: usize,
    (left, right): (Option<usize>, Option<usize>),
) -> Result<ValueId> {
    let n = element_count(&[queries, keys])?;
    if n > 1 << 26 {
        return Err(Error::unsupported(format!("a mask of {queries} x {keys}")));
    }
    let allowed = |i: usize, j: usize| {
        let p = i + past;
        left.is_none_or(|left| j.saturating_add(left) >= p)
            && right.is_none_or(|right| j <= p.saturating_add(right))
    };
    let flags = (0..queries).flat_map(|i| (0..keys).map(move |j| u8::from(allowed(i, j))));
    let bytes: Vec<u8> = flags.collect();
    g.constant(TensorData::new(DType::Bool, &[queries, keys], bytes.into())?)
}

/// The bounds of a node's window, those of `is_causal` among them.
fn bounds(node: &Node) -> Result<(Option<usize>, Option<usize>)> {
    let bound = |name: &str| match node.int(name).unwrap_or(-1) {
        -1 => Ok(None),
        n => usize::try_from(n).map(Some).map_err(|_| Error::data(format!("{name} {n}"))),
    };
    let (left, right) = (bound("left_window_size")?, bound("right_window_size")?);
    let causal = node.int("is_causal") == Some(1);
    Ok((left, if causal { Some(0) } else { right }))
}

/// `Attention` of ONNX.
pub(super) fn attention(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let input =
        |i: usize| node.input(i).ok_or_else(|| Error::data(format!("input {i} is missing")));
    let (mut q, mut k, mut v) = (input(0)?, input(1)?, input(2)?);
    if node.input(6).is_some() {
        return Err(Error::unsupported("nonpad_kv_seqlen"));
    }
    let heads = |name: &str| {
        let n = node.int(name).and_then(|n| usize::try_from(n).ok());
        n.ok_or_else(|| Error::data(format!("attribute {name} is missing")))
    };
    let flat = g.rank(q)? == 3;
    if flat {
        q = split_heads(g, q, heads("q_num_heads")?)?;
        k = split_heads(g, k, heads("kv_num_heads")?)?;
        v = split_heads(g, v, heads("kv_num_heads")?)?;
    }
    let mut past = 0;
    if let (Some(past_k), Some(past_v)) = (node.input(4), node.input(5)) {
        past = g.shape(past_k)?.get(2).copied().unwrap_or(0);
        k = g.concat(&[past_k, k], 2)?;
        v = g.concat(&[past_v, v], 2)?;
    }
    let (present_k, present_v) = (k, v);
    let shape = g.shape(q)?;
    let &[_, n_heads, queries, _] = &shape[..] else {
        return Err(Error::shape(format!("queries of shape {shape:?}")));
    };
    k = repeat_heads(g, k, n_heads)?;
    v = repeat_heads(g, v, n_heads)?;
    let keys = g.shape(k)?[2];
    let mut how = Scores {
        scale: node.float("scale").map(f64::from),
        softcap: f64::from(node.float("softcap").unwrap_or(0.0)),
        ..Scores::default()
    };
    mask(g, node, &mut how)?;
    let (left, right) = bounds(node)?;
    if left.is_some() || right.is_some() {
        let near = window(g, (queries, keys), past, (left, right))?;
        // The window of a late query may lie behind the last key.
        how.may_be_empty |= left.is_some_and(|left| queries + past > keys.saturating_add(left));
        how.allowed = Some(match how.allowed {
            Some(mask) => {
                let shape = crate::onnx::build::broadcast(&g.shape(mask)?, &[queries, keys])?;
                g.emit("And", &[mask, near], (DType::Bool, &shape), [])
            }
            None => near,
        });
    }
    let (y, stages) = attend_in_stages(g, (q, k, v), &how)?;
    let y = if flat { join_heads(g, y)? } else { y };
    let mut outputs = vec![y, present_k, present_v];
    if node.output(3).is_some() {
        let mode = node.int("qk_matmul_output_mode").unwrap_or(0);
        // What is masked out is minus infinity there.
        if mode == 2 && how.allowed.is_some() {
            return Err(Error::unsupported("qk_matmul_output_mode 2 with positions masked out"));
        }
        let stage = usize::try_from(mode).ok().and_then(|i| stages.get(i));
        let stage = stage.ok_or_else(|| Error::data(format!("qk_matmul_output_mode {mode}")))?;
        outputs.push(*stage);
    }
    Ok(Some(outputs))
}

fn mask(g: &mut Build, node: &Node, how: &mut Scores) -> Result<()> {
    let Some(mask) = node.input(3) else { return Ok(()) };
    if g.dtype(mask)? == DType::Bool {
        (how.allowed, how.may_be_empty) = (Some(mask), true);
    } else {
        how.bias = Some(mask);
    }
    Ok(())
}

/// `RotaryEmbedding` of ONNX: with (x₁, x₂) the halves (or the even and odd places) of what
/// rotates, y = (x₁ cos - x₂ sin, x₂ cos + x₁ sin).
pub(super) fn rotary(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let input =
        |i: usize| node.input(i).ok_or_else(|| Error::data(format!("input {i} is missing")));
    let x = input(0)?;
    let flat = g.rank(x)? == 3;
    let size = |name: &str| usize::try_from(node.int(name).unwrap_or(0)).unwrap_or(0);
    let x4 = if flat { split_heads(g, x, size("num_heads"))? } else { x };
    let shape = g.shape(x4)?;
    let &[batch, _, length, width] = &shape[..] else {
        return Err(Error::shape(format!("rotary positions of {shape:?}")));
    };
    let turning = Some(size("rotary_embedding_dim")).filter(|&n| n > 0).unwrap_or(width);
    if turning > width || turning % 2 != 0 {
        return Err(Error::data(format!("{turning} of {width} places turn")));
    }
    let half = turning / 2;
    let mut table = |i: usize| -> Result<ValueId> {
        let cache = input(i)?;
        let rows = match node.input(3) {
            Some(ids) => g.gather(cache, ids, 0)?,
            None => cache,
        };
        let found = g.shape(rows)?;
        if found != [batch, length, half] {
            let name = if i == 1 { "cos_cache" } else { "sin_cache" };
            return Err(Error::data(format!(
                "its {name} gives {found:?}, the operator wants [{batch}, {length}, {half}]"
            )));
        }
        g.reshape(rows, &[batch, 1, length, half])
    };
    let (cos, sin) = (table(1)?, table(2)?);
    let y = turn(g, x4, (cos, sin), half, node.int("interleaved") == Some(1))?;
    let y = if flat { join_heads(g, y)? } else { y };
    Ok(Some(vec![y]))
}

/// Elements of x [batch, heads, length, width] rotated by the angles of the tables.
pub(super) fn turn(
    g: &mut Build,
    x: ValueId,
    (cos, sin): (ValueId, ValueId),
    half: usize,
    interleaved: bool,
) -> Result<ValueId> {
    let shape = g.shape(x)?;
    let (lead, width) = (&shape[..3], shape[3]);
    let moving = g.slice(x, 3, (0, 2 * half))?;
    let (a, b) = if interleaved {
        let pairs = g.reshape(moving, &[lead, &[half, 2]].concat())?;
        let parts = g.split(pairs, 4, &[1, 1])?;
        let flat = [lead, &[half]].concat();
        (g.reshape(parts[0], &flat)?, g.reshape(parts[1], &flat)?)
    } else {
        (g.slice(moving, 3, (0, half))?, g.slice(moving, 3, (half, 2 * half))?)
    };
    let (ac, bs) = (g.mul(a, cos)?, g.mul(b, sin)?);
    let (bc, as_) = (g.mul(b, cos)?, g.mul(a, sin)?);
    let (first, second) = (g.sub(ac, bs)?, g.add(bc, as_)?);
    let rotated = if interleaved {
        let apart = [lead, &[half, 1]].concat();
        let (first, second) = (g.reshape(first, &apart)?, g.reshape(second, &apart)?);
        let pairs = g.concat(&[first, second], 4)?;
        g.reshape(pairs, &[lead, &[2 * half]].concat())?
    } else {
        g.concat(&[first, second], 3)?
    };
    if 2 * half == width {
        return Ok(rotated);
    }
    let rest = g.slice(x, 3, (2 * half, width))?;
    g.concat(&[rotated, rest], 3)
}
