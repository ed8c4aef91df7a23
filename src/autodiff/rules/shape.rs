//! Operators that only rearrange, repeat or cut data.

use crate::autodiff::row::{Row, rule};
use crate::autodiff::rule::RuleCx;
use crate::error::{Error, Result};
use crate::onnx::build::{check_constant, positive_axis};
use crate::onnx::{Attribute, Build, ValueId};

pub(in crate::autodiff) const ROWS: &[Row] = &[
    rule("Concat", 13, concat).with(&["axis"]),
    rule("DepthToSpace", 13, depth_to_space).with(&["blocksize", "mode"]),
    rule("Expand", 13, reshaped),
    rule("Flatten", 13, reshaped).with(&["axis"]),
    rule("Pad", 13, pad).with(&["mode"]),
    rule("Reshape", 13, reshaped).with(&["allowzero"]),
    rule("ReverseSequence", 10, reverse_sequence).with(&["batch_axis", "time_axis"]),
    rule("Slice", 13, slice),
    rule("SpaceToDepth", 13, space_to_depth).with(&["blocksize", "mode"]),
    rule("Split", 13, split).with(&["axis", "num_outputs"]),
    rule("Squeeze", 13, reshaped),
    rule("Tile", 13, tile),
    rule("Transpose", 13, transpose).with(&["perm"]),
    rule("Trilu", 14, trilu).with(&["upper"]),
    rule("Unsqueeze", 13, reshaped),
];

/// The same elements under another shape, or repeated by broadcasting: dx is dy in x's shape.
fn reshaped(cx: &mut RuleCx) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    let expands = cx.node().op == "Expand";
    cx.add_grad(0, |g| {
        let shape = g.shape(x)?;
        if expands { g.sum_to(dy, &shape) } else { g.reshape(dy, &shape) }
    })
}

/// y = x with axes in the order `perm`        dx = dy in the inverse order
fn transpose(cx: &mut RuleCx) -> Result<()> {
    let (dy, rank) = (cx.dy()?, cx.x_shape(0)?.len());
    let mut inverse: Vec<usize> = (0..rank).rev().collect();
    if let Some(perm) = cx.node().ints("perm") {
        for (i, &p) in perm.iter().enumerate() {
            let p = positive_axis(p, rank)?;
            inverse[p] = i;
        }
    }
    cx.add_grad(0, |g| g.transpose(dy, &inverse))
}

/// y = x₀ | x₁ | …        dxᵢ = its part of dy
fn concat(cx: &mut RuleCx) -> Result<()> {
    let dy = cx.dy()?;
    let axis = cx.axis(0)?;
    let n = cx.node().inputs.len();
    let mut start = 0;
    for i in 0..n {
        let size = cx.x_shape(i)?.get(axis).copied().unwrap_or(0);
        cx.add_grad(i, |g| g.slice(dy, axis, (start, start + size)))?;
        start += size;
    }
    Ok(())
}

/// y₀ | y₁ | … = x        dx = dy₀ | dy₁ | …
fn split(cx: &mut RuleCx) -> Result<()> {
    let axis = cx.axis(0)?;
    let mut parts = Vec::new();
    for i in 0..cx.node().outputs.len() {
        let y = cx.y(i)?;
        let dy = cx.dy_of(i);
        parts.push(match dy {
            Some(dy) => dy,
            None => cx.g().zeros_like(y)?,
        });
    }
    cx.add_grad(0, |g| g.concat(&parts, axis))
}

/// y = x[start:end:step]        dx = dy put back at those places, else 0
fn slice(cx: &mut RuleCx) -> Result<()> {
    let dy = cx.dy()?;
    let shape = cx.x_shape(0)?;
    let required = |v: Option<Vec<i64>>| v.ok_or_else(|| Error::data("a Slice without bounds"));
    let (starts, ends) = (required(cx.ints(1)?)?, required(cx.ints(2)?)?);
    let axes = cx.ints(3)?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = cx.ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    let mut before = vec![0i64; shape.len()];
    let mut after = vec![0i64; shape.len()];
    let mut stepped = Vec::new();
    for (i, &axis) in axes.iter().enumerate() {
        let bound = |v: &[i64]| v.get(i).copied().ok_or_else(|| Error::data("Slice's lists"));
        let axis = positive_axis(axis, shape.len())?;
        let step = bound(&steps)?;
        let (start, end) = (bound(&starts)?, bound(&ends)?);
        if step == 1 {
            let n = shape[axis] as i64;
            let (first, last) = (wrapped(start, n).clamp(0, n), wrapped(end, n).clamp(0, n));
            before[axis] = first;
            after[axis] = n - last.max(first);
        } else {
            stepped.push((axis, places(shape[axis], start, end, step)?));
        }
    }
    cx.add_grad(0, |g| {
        let mut dx = g.pad(dy, &before, &after)?;
        for (axis, taken) in stepped {
            let mut full = g.shape(dx)?;
            let mut flat = vec![1; full.len()];
            flat[axis] = taken.len();
            let indices = g.ints(&taken)?;
            let indices = g.reshape(indices, &flat)?;
            let indices = g.expand(indices, &full)?;
            full[axis] = shape[axis];
            let dtype = g.dtype(dx)?;
            let base = g.zeros(dtype, &full)?;
            dx = g.scatter(base, (indices, dx), axis, false)?;
        }
        Ok(dx)
    })
}

/// A place counted from the end where it is negative.
fn wrapped(place: i64, n: i64) -> i64 {
    if place < 0 { place.saturating_add(n) } else { place }
}

/// The positions that a slice of an axis of size `n` takes, in order.
fn places(n: usize, start: i64, end: i64, step: i64) -> Result<Vec<i64>> {
    check_constant(n)?;
    let n = n as i64;
    let wrap = |v: i64| wrapped(v, n);
    let size = usize::try_from(step.unsigned_abs()).unwrap_or(usize::MAX);
    match step {
        0 => Err(Error::data("a Slice with step 0")),
        1.. => Ok((wrap(start).clamp(0, n)..wrap(end).clamp(0, n)).step_by(size).collect()),
        _ => {
            let (first, last) = (wrap(start).clamp(-1, n - 1), wrap(end).clamp(-1, n - 1));
            Ok((last + 1..=first).rev().step_by(size).collect())
        }
    }
}

/// y = x padded with a value c        dx = dy without the padding        dc = Σ dy over the padding
///
/// Where the padding repeats x (reflect, edge, wrap), its gradient is added to the elements that it
/// repeats.
fn pad(cx: &mut RuleCx) -> Result<()> {
    let mode = cx.node().string("mode").unwrap_or("constant").to_owned();
    let (dy, shape) = (cx.dy()?, cx.x_shape(0)?);
    let rank = shape.len();
    let pads = cx.ints(1)?.unwrap_or_default();
    let axes = cx.ints(3)?.unwrap_or_else(|| (0..rank as i64).collect());
    if pads.len() != 2 * axes.len() {
        return Err(Error::data(format!("{} pads for {} axes", pads.len(), axes.len())));
    }
    if pads.contains(&i64::MIN) {
        return Err(Error::data(format!("pads {pads:?}")));
    }
    let mut before = vec![0i64; rank];
    let mut after = vec![0i64; rank];
    for (i, &axis) in axes.iter().enumerate() {
        let axis = positive_axis(axis, rank)?;
        before[axis] = -pads[i];
        after[axis] = -pads[axes.len() + i];
    }
    if mode != "constant" {
        return cx.add_grad(0, |g| {
            (0..rank).try_fold(dy, |dx, axis| fold(g, dx, axis, (before[axis], after[axis]), &mode))
        });
    }
    let inner = cx.g().pad(dy, &before, &after)?;
    cx.add_grad(0, |_| Ok(inner))?;
    cx.add_grad(2, |g| {
        let (all, kept) = (sum_all(g, dy)?, sum_all(g, inner)?);
        g.sub(all, kept)
    })
}

/// dy without the padding before and after along `axis` (negated counts), whose gradient is added
/// to the elements that it repeats.
fn fold(
    g: &mut Build,
    dy: ValueId,
    axis: usize,
    (before, after): (i64, i64),
    mode: &str,
) -> Result<ValueId> {
    let shape = g.shape(dy)?;
    if axis >= shape.len() {
        return Err(Error::shape(format!("padding along axis {axis} of {shape:?}")));
    }
    let (mut front, mut back) = (vec![0; shape.len()], vec![0; shape.len()]);
    (front[axis], back[axis]) = (before, after);
    let mut dx = g.pad(dy, &front, &back)?;
    let n = g.shape(dx)?[axis] as i64;
    let whole = shape[axis];
    let source = |i: i64| match mode {
        "edge" => Ok(i.clamp(0, (n - 1).max(0))),
        "wrap" if n > 0 => Ok(i.rem_euclid(n)),
        "reflect" if n > 1 => {
            let turn = i.rem_euclid(2 * (n - 1));
            Ok(turn.min(2 * (n - 1) - turn))
        }
        "reflect" if n == 1 => Ok(0),
        _ => Err(Error::data(format!("mode '{mode}' of {n} places"))),
    };
    let early = usize::try_from(-before).unwrap_or(0);
    let late = whole - usize::try_from(-after).unwrap_or(0).min(whole);
    check_constant(early)?;
    check_constant(whole - late)?;
    for (start, end) in [(0, early), (late, whole)] {
        if start >= end {
            continue;
        }
        let part = g.slice(dy, axis, (start, end))?;
        let places = (start..end).map(|j| source(j as i64 + before)).collect::<Result<Vec<_>>>()?;
        let mut apart = vec![1; shape.len()];
        apart[axis] = end - start;
        let places = g.ints(&places)?;
        let places = g.reshape(places, &apart)?;
        let part_shape = g.shape(part)?;
        let places = g.expand(places, &part_shape)?;
        dx = g.scatter(dx, (places, part), axis, true)?;
    }
    Ok(dx)
}

fn sum_all(g: &mut Build, x: ValueId) -> Result<ValueId> {
    let axes: Vec<usize> = (0..g.rank(x)?).collect();
    g.reduce("ReduceSum", x, &axes, false)
}

/// y = x repeated r times along each axis        dx = Σ dy over the repeats
fn tile(cx: &mut RuleCx) -> Result<()> {
    let dy = cx.dy()?;
    let (x_shape, y_shape) = (cx.x_shape(0)?, cx.shape(cx.y(0)?)?);
    let repeats = x_shape.iter().zip(&y_shape).map(|(x, y)| y.checked_div(*x).unwrap_or(1));
    let apart: Vec<usize> = repeats.zip(&x_shape).flat_map(|(r, x)| [r, *x]).collect();
    let axes: Vec<usize> = (0..apart.len()).step_by(2).filter(|&i| apart[i] != 1).collect();
    cx.add_grad(0, |g| {
        let apart = g.reshape(dy, &apart)?;
        let sum = g.sum_keep(apart, &axes)?;
        g.reshape(sum, &x_shape)
    })
}

/// y = x with the first nᵢ places of each sample turned around        dx = dy turned the same way
fn reverse_sequence(cx: &mut RuleCx) -> Result<()> {
    let (x, lengths, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let axis = |name: &str, default| Attribute::Int(cx.node().int(name).unwrap_or(default));
    let attributes = [("batch_axis", axis("batch_axis", 1)), ("time_axis", axis("time_axis", 0))];
    cx.add_grad(0, |g| {
        let ty = (g.dtype(x)?, &g.shape(x)?[..]);
        Ok(g.emit("ReverseSequence", &[dy, lengths], ty, attributes))
    })
}

/// y = x above (or below) a diagonal        dx = dy there
fn trilu(cx: &mut RuleCx) -> Result<()> {
    use crate::onnx::Attribute::Int;
    let (dy, k) = (cx.dy()?, cx.node().input(1));
    let upper = cx.node().int("upper").unwrap_or(1);
    cx.add_grad(0, |g| {
        let ty = [(g.dtype(dy)?, g.shape(dy)?)];
        let dx = g.emit_n("Trilu", &[Some(dy), k], &ty, [("upper", Int(upper))]);
        dx.first().copied().ok_or_else(|| Error::internal("no output"))
    })
}

/// The blocks of [N, C, H, W] that DepthToSpace moves: (N, block, C/block², H, W).
fn blocks(cx: &RuleCx, shape: &[usize]) -> Result<[usize; 5]> {
    let block = cx.node().int("blocksize").and_then(|b| usize::try_from(b).ok());
    let (Some(b @ 1..), &[n, c, h, w]) = (block, shape) else {
        return Err(Error::data(format!("blocksize {block:?} of {shape:?}")));
    };
    Ok([n, b, c, h, w])
}

/// y[n, c, h b + i, w b + j] = x[n, (i b + j) C + c, h, w] (mode CRD: x[n, c b² + i b + j, h, w])
fn depth_to_space(cx: &mut RuleCx) -> Result<()> {
    let (dy, shape) = (cx.dy()?, cx.x_shape(0)?);
    let [n, b, c, h, w] = blocks(cx, &shape)?;
    let column = channels_first(cx)?;
    cx.add_grad(0, |g| {
        let apart = g.reshape(dy, &[n, c / (b * b), h, b, w, b])?;
        let perm = if column { [0, 1, 3, 5, 2, 4] } else { [0, 3, 5, 1, 2, 4] };
        let moved = g.transpose(apart, &perm)?;
        g.reshape(moved, &shape)
    })
}

/// Whether channels come first in the order of depth (mode CRD), not last (DCR).
fn channels_first(cx: &RuleCx) -> Result<bool> {
    match cx.node().string("mode").unwrap_or("DCR") {
        "DCR" => Ok(false),
        "CRD" => Ok(true),
        other => Err(Error::data(format!("mode '{other}'"))),
    }
}

/// y[n, (i b + j) C + c, h, w] = x[n, c, h b + i, w b + j] (mode CRD: y[n, c b² + i b + j, h, w])
fn space_to_depth(cx: &mut RuleCx) -> Result<()> {
    let (dy, shape) = (cx.dy()?, cx.x_shape(0)?);
    let [n, b, c, h, w] = blocks(cx, &shape)?;
    let first = channels_first(cx)?;
    cx.add_grad(0, |g| {
        let (apart, perm) = match first {
            true => ([n, c, b, b, h / b, w / b], [0, 1, 4, 2, 5, 3]),
            false => ([n, b, b, c, h / b, w / b], [0, 3, 4, 1, 5, 2]),
        };
        let apart = g.reshape(dy, &apart)?;
        let moved = g.transpose(apart, &perm)?;
        g.reshape(moved, &shape)
    })
}
