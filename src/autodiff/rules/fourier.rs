//! The discrete Fourier transform. Its matrix is symmetric, so that its VJP is the transform by the
//! conjugate matrix, which is the inverse transform without its factor 1/n.

use crate::autodiff::row::{Row, rule};
use crate::autodiff::rule::RuleCx;
use crate::error::{Error, Result};
use crate::onnx::build::positive_axis;
use crate::onnx::{Attribute, Build, ValueId};

pub(in crate::autodiff) const ROWS: &[Row] =
    &[rule("DFT", 17, dft).with(&["axis", "inverse", "onesided"])];

/// y = F x over n places along `axis`, x cut or padded to these        dx = F̄ dy; of F̄/n: F dy/n
fn dft(cx: &mut RuleCx) -> Result<()> {
    let (x, dy, shape) = (cx.x(0)?, cx.dy()?, cx.x_shape(0)?);
    let by_input = cx.g().graph().opset() >= 20;
    let axis = if by_input {
        cx.ints(2)?.and_then(|v| v.first().copied()).unwrap_or(-2)
    } else {
        cx.node().int("axis").unwrap_or(1)
    };
    let axis = positive_axis(axis, shape.len())?;
    let n = match cx.ints(1)?.and_then(|v| v.first().copied()) {
        None => shape[axis],
        Some(n) => usize::try_from(n).map_err(|_| Error::data(format!("a length of {n}")))?,
    };
    let inverse = cx.node().int("inverse") == Some(1);
    let onesided = cx.node().int("onesided") == Some(1);
    if onesided && inverse {
        return Err(Error::unsupported("no gradient rule with onesided and inverse"));
    }
    let last = shape.len() - 1;
    if axis == last {
        return Err(Error::shape("a transform along the axis of real and imaginary parts"));
    }
    cx.add_grad(0, |g| {
        let dy = if onesided { resize(g, dy, axis, n)? } else { dy };
        let dx = transform(g, dy, axis, !inverse)?;
        let dx = g.scale(dx, if inverse { 1.0 / n as f64 } else { n as f64 })?;
        let dx = resize(g, dx, axis, shape[axis])?;
        g.slice(dx, last, (0, g.shape(x)?[last]))
    })
}

/// x cut, or padded with zeros at the end, to `n` places along `axis`.
fn resize(g: &mut Build, x: ValueId, axis: usize, n: usize) -> Result<ValueId> {
    let shape = g.shape(x)?;
    let Some(&length) = shape.get(axis) else {
        return Err(Error::shape(format!("a transform along axis {axis} of {shape:?}")));
    };
    if n <= length {
        return g.slice(x, axis, (0, n));
    }
    let (zeros, mut after) = (vec![0; shape.len()], vec![0; shape.len()]);
    after[axis] = (n - length) as i64;
    g.pad(x, &zeros, &after)
}

/// The transform of complex numbers along `axis`.
fn transform(g: &mut Build, x: ValueId, axis: usize, inverse: bool) -> Result<ValueId> {
    let ty = (g.dtype(x)?, &g.shape(x)?[..]);
    let inverse = ("inverse", Attribute::Int(inverse.into()));
    let at = axis as i64;
    if g.graph().opset() < 20 {
        return Ok(g.emit("DFT", &[x], ty, [inverse, ("axis", Attribute::Int(at))]));
    }
    let at = g.ints(&[at])?;
    let at = g.reshape(at, &[])?;
    Ok(g.emit_n("DFT", &[Some(x), None, Some(at)], &[(ty.0, ty.1.to_vec())], [inverse])[0])
}
