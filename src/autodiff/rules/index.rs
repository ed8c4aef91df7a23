//! Gathering and scattering. Gradients of what is read several times are added with
//! ScatterElements: the runtime's ScatterND adds duplicates in a race.

use crate::autodiff::fused;
use crate::autodiff::row::{Row, rule};
use crate::autodiff::rule::RuleCx;
use crate::error::{Error, Result};
use crate::onnx::build::check_constant;
use crate::onnx::{Build, ValueId};
use crate::tensor::DType;

pub(in crate::autodiff) const ROWS: &[Row] = &[
    rule("Gather", 13, gather).with(&["axis"]),
    rule("GatherElements", 13, gather_elements).with(&["axis"]),
    rule("GatherND", 13, gather_nd).with(&["batch_dims"]),
    rule("ScatterElements", 13, scatter_elements).with(&["axis", "reduction"]),
    rule("ScatterND", 13, scatter_nd).with(&["reduction"]),
    rule("TopK", 11, top_k).with(&["axis", "largest", "sorted"]),
];

/// y = x[.., i, ..] along `axis`        dx = dy added at i
fn gather(cx: &mut RuleCx) -> Result<()> {
    let (x, indices, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let (shape, axis) = (cx.x_shape(0)?, cx.axis(0)?);
    let n = cx.g().count(indices)?;
    let single = if n == 1 { cx.number(1) } else { None };
    cx.add_grad(0, |g| {
        let before: usize = shape[..axis].iter().product();
        let after: usize = shape[axis + 1..].iter().product();
        let size = shape[axis];
        let dy = g.reshape(dy, &[before, n, after])?;
        let dx = if let Some(i) = single {
            one_row(g, dy, i as i64, size)?
        } else if axis == 0 && shape.len() == 2 && fused::allowed(g, dy) {
            let ids = g.cast(indices, DType::I64)?;
            return fused::like_last(g, "EmbeddingGrad", &[ids, dy, x]);
        } else if before == 1 {
            let rows = g.reshape(dy, &[n, after])?;
            g.add_rows(size, indices, rows)?
        } else {
            let dtype = g.dtype(dy)?;
            let flat = g.reshape(indices, &[1, n, 1])?;
            let flat = g.expand(flat, &[before, n, after])?;
            let base = g.zeros(dtype, &[before, size, after])?;
            g.scatter(base, (flat, dy), 1, true)?
        };
        g.reshape(dx, &shape)
    })
}

/// dy `[before, 1, after]` put at row `i` of `[before, size, after]`.
fn one_row(g: &mut Build, dy: ValueId, i: i64, size: usize) -> Result<ValueId> {
    let size = size as i64;
    let i = if i < 0 { i + size } else { i };
    if !(0..size).contains(&i) {
        return Err(Error::data(format!("index {i} of an axis of size {size}")));
    }
    g.pad(dy, &[0, i, 0], &[0, size - 1 - i, 0])
}

/// y[.., j, ..] = x[.., i[.., j, ..], ..] along `axis`        dx = dy added at i
fn gather_elements(cx: &mut RuleCx) -> Result<()> {
    let (x, indices, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let axis = cx.axis(0)?;
    cx.add_grad(0, |g| {
        let base = g.zeros_like(x)?;
        g.scatter(base, (indices, dy), axis, true)
    })
}

/// Index tuples `[.., k]` into the axes after the first `batch` of `shape`, as positions `[n]`
/// among all rows of the first `batch + k` axes. Negative indices count from the end.
fn flat_positions(
    g: &mut Build,
    indices: ValueId,
    shape: &[usize],
    batch: usize,
) -> Result<ValueId> {
    let i_shape = g.shape(indices)?;
    let k = i_shape.last().copied().unwrap_or(0);
    if batch + k > shape.len() || batch + 1 > i_shape.len() {
        return Err(Error::shape(format!("index tuples of {k} into {shape:?}")));
    }
    let b: usize = shape[..batch].iter().product();
    let per_batch: usize = i_shape[batch..i_shape.len() - 1].iter().product();
    let dims = &shape[batch..batch + k];
    let strides: Vec<i64> =
        (0..k).map(|j| dims[j + 1..].iter().product::<usize>() as i64).collect();
    let rows = g.reshape(indices, &[b, per_batch, k])?;
    let sizes = g.ints(&dims.iter().map(|&d| d as i64).collect::<Vec<_>>())?;
    let negative = g.compare_number("Less", rows, 0.0)?;
    let wrapped = g.add(rows, sizes)?;
    let rows = g.select(negative, wrapped, rows)?;
    let strides = g.ints(&strides)?;
    let parts = g.mul(rows, strides)?;
    let flat = g.reduce("ReduceSum", parts, &[2], false)?;
    let step: usize = dims.iter().product();
    check_constant(b)?;
    let offsets: Vec<i64> = (0..b).map(|i| (i * step) as i64).collect();
    let offsets = g.ints(&offsets)?;
    let offsets = g.reshape(offsets, &[b, 1])?;
    let flat = g.add(flat, offsets)?;
    g.reshape(flat, &[b * per_batch])
}

/// y = x[i₀, i₁, …]        dx = dy added there
fn gather_nd(cx: &mut RuleCx) -> Result<()> {
    let (indices, dy, shape) = (cx.x(1)?, cx.dy()?, cx.x_shape(0)?);
    let batch = cx.node().int("batch_dims").unwrap_or(0);
    let batch = usize::try_from(batch).map_err(|_| Error::data("negative batch_dims"))?;
    cx.add_grad(0, |g| {
        let at = flat_positions(g, indices, &shape, batch)?;
        let k = g.shape(indices)?.last().copied().unwrap_or(0);
        let (rows, width) = shape.split_at(batch + k);
        let (rows, width): (usize, usize) = (rows.iter().product(), width.iter().product());
        let n = g.count(at)?;
        let dy = g.reshape(dy, &[n, width])?;
        let dx = g.add_rows(rows, at, dy)?;
        g.reshape(dx, &shape)
    })
}

/// The node's `reduction`, which must be `none` or `add`.
fn adds(cx: &RuleCx) -> Result<bool> {
    match cx.node().string("reduction").unwrap_or("none") {
        "none" => Ok(false),
        "add" => Ok(true),
        other => Err(Error::unsupported(format!("no gradient rule for reduction '{other}'"))),
    }
}

/// y = x with u put (or added) at i        dx = dy, 0 where overwritten        du = dy at i
fn scatter_elements(cx: &mut RuleCx) -> Result<()> {
    let (indices, u, dy) = (cx.x(1)?, cx.x(2)?, cx.dy()?);
    let (axis, adds) = (cx.axis(0)?, adds(cx)?);
    cx.add_grad(0, |g| {
        if adds {
            return Ok(dy);
        }
        let zeros = g.zeros_like(u)?;
        g.scatter(dy, (indices, zeros), axis, false)
    })?;
    cx.add_grad(2, |g| g.gather_elements(dy, indices, axis))
}

/// y = x with u put (or added) at tuples i        dx = dy, 0 where overwritten        du = dy at i
fn scatter_nd(cx: &mut RuleCx) -> Result<()> {
    let (indices, u, dy, shape) = (cx.x(1)?, cx.x(2)?, cx.dy()?, cx.x_shape(0)?);
    let adds = adds(cx)?;
    cx.add_grad(0, |g| {
        if adds {
            return Ok(dy);
        }
        let zeros = g.zeros_like(u)?;
        let ty = (g.dtype(dy)?, &shape[..]);
        Ok(g.emit("ScatterND", &[dy, indices, zeros], ty, []))
    })?;
    cx.add_grad(2, |g| {
        let ty = (g.dtype(u)?, &g.shape(u)?[..]);
        Ok(g.emit("GatherND", &[dy, indices], ty, []))
    })
}

/// y, i = the k largest of x along `axis`        dx = dy put at i
fn top_k(cx: &mut RuleCx) -> Result<()> {
    let (x, y, dy, axis) = (cx.x(0)?, cx.y(0)?, cx.dy()?, cx.axis(-1)?);
    let shape = cx.shape(y)?;
    let indices = cx.extra_output(1, DType::I64, &shape)?;
    cx.add_grad(0, |g| {
        let base = g.zeros_like(x)?;
        g.scatter(base, (indices, dy), axis, false)
    })
}
