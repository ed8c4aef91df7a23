//! Matrix products. The gradient of a weight matrix is one product of [rows, k] and [rows, n]
//! matrices, not a batch of products and a sum.

use crate::autodiff::row::{Row, rule};
use crate::autodiff::rule::RuleCx;
use crate::error::{Error, Result};
use crate::onnx::{Build, ValueId};

pub(in crate::autodiff) const ROWS: &[Row] = &[
    rule("Gemm", 13, gemm).with(&["alpha", "beta", "transA", "transB"]),
    rule("MatMul", 13, matmul),
];

/// y = a b        da = dy bᵀ        db = aᵀ dy
fn matmul(cx: &mut RuleCx) -> Result<()> {
    let (a, b, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let (a_shape, b_shape) = (cx.x_shape(0)?, cx.x_shape(1)?);
    let g = cx.g();
    // Vectors become matrices of one row (a) or one column (b).
    let (a2, mut dy2) = match a_shape[..] {
        [k] => (g.reshape(a, &[1, k])?, with_axis(g, dy, 2, b_shape.len() == 1)?),
        _ => (a, dy),
    };
    let b2 = match b_shape[..] {
        [k] => {
            dy2 = with_axis(g, dy2, 1, false)?;
            g.reshape(b, &[k, 1])?
        }
        _ => b,
    };
    let (a2_shape, b2_shape) = (g.shape(a2)?, g.shape(b2)?);
    cx.add_grad(0, |g| {
        let bt = g.transpose_last(b2)?;
        let da = g.matmul(dy2, bt)?;
        let da = g.sum_to(da, &a2_shape)?;
        g.reshape(da, &a_shape)
    })?;
    cx.add_grad(1, |g| {
        let db = if b2_shape.len() == 2 {
            let (rows, grads) = (flat_rows(g, a2)?, flat_rows(g, dy2)?);
            let at = g.transpose_last(rows)?;
            g.matmul(at, grads)?
        } else {
            let at = g.transpose_last(a2)?;
            let db = g.matmul(at, dy2)?;
            g.sum_to(db, &b2_shape)?
        };
        g.reshape(db, &b_shape)
    })
}

/// dy with an axis of size 1 put `from_end` places before the end (`scalar`: dy has no axis).
fn with_axis(g: &mut Build, dy: ValueId, from_end: usize, scalar: bool) -> Result<ValueId> {
    let mut shape = g.shape(dy)?;
    let at = (shape.len() + 1).saturating_sub(if scalar { 1 } else { from_end });
    shape.insert(at.min(shape.len()), 1);
    g.reshape(dy, &shape)
}

/// [.., n] as [rows, n]
fn flat_rows(g: &mut Build, x: ValueId) -> Result<ValueId> {
    let shape = g.shape(x)?;
    let [lead @ .., n] = &shape[..] else {
        return Err(Error::shape("a matrix product of scalars"));
    };
    let rows: usize = lead.iter().product();
    g.reshape(x, &[rows, *n])
}

/// y = α op(a) op(b) + β c, op transposes where the attributes say so
///
/// da = α dy op(b)ᵀ, db = α op(a)ᵀ dy, transposed where a or b is; dc = β dy
fn gemm(cx: &mut RuleCx) -> Result<()> {
    let (a, b, dy) = (cx.x(0)?, cx.x(1)?, cx.dy()?);
    let flag = |name: &str| cx.node().int(name).unwrap_or(0) != 0;
    let (ta, tb) = (flag("transA"), flag("transB"));
    let alpha = cx.node().float("alpha").unwrap_or(1.0);
    let beta = f64::from(cx.node().float("beta").unwrap_or(1.0));
    cx.add_grad(0, |g| match ta {
        false => g.gemm((dy, false), (b, !tb), alpha),
        true => g.gemm((b, tb), (dy, true), alpha),
    })?;
    cx.add_grad(1, |g| match tb {
        false => g.gemm((a, !ta), (dy, false), alpha),
        true => g.gemm((dy, true), (a, ta), alpha),
    })?;
    if cx.needs(2) {
        cx.add_grad(2, |g| {
            let c = g.scale(dy, beta)?;
            Ok(c)
        })?;
    }
    Ok(())
}
