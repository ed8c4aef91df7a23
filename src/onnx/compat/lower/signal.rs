//! `STFT` as frames that a `DFT` transforms, and `CenterCropPad` as slices and pads.

use super::rewrite::input;
use crate::error::{Error, Result};
use crate::onnx::build::{check_constant, positive_axis};
use crate::onnx::{Attribute, Build, Node, ValueId};

/// The integers behind a constant input; `None` where it is left out.
fn constant(g: &Build, node: &Node, slot: usize) -> Result<Option<Vec<i64>>> {
    let Some(v) = node.input(slot) else { return Ok(None) };
    let data = g.graph().initializer(v).ok_or_else(|| {
        let name = g.graph().value_name(v);
        Error::unsupported(format!("its input {slot} ('{name}') is not a constant"))
    })?;
    data.to_i64s().map(Some)
}

fn length(g: &Build, node: &Node, slot: usize) -> Result<Option<usize>> {
    let Some(n) = constant(g, node, slot)?.and_then(|v| v.first().copied()) else {
        return Ok(None);
    };
    let n = usize::try_from(n).ok().filter(|&n| n > 0);
    n.map(Some).ok_or_else(|| Error::data(format!("input {slot} is not a positive length")))
}

/// `STFT`: y[b, i] = DFT(window · x[b, i step ..][..length])
pub(super) fn stft(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let x = input(node, 0)?;
    let shape = g.shape(x)?;
    let (batch, places, parts) = match shape[..] {
        [batch, places] => (batch, places, 1),
        [batch, places, parts] => (batch, places, parts),
        _ => return Err(Error::shape(format!("a signal of {shape:?}"))),
    };
    let x = g.reshape(x, &[batch, places, parts])?;
    let step = length(g, node, 1)?.ok_or_else(|| Error::data("input 1 is missing"))?;
    let window = node.input(2);
    let width = match (length(g, node, 3)?, window) {
        (Some(n), _) => n,
        (None, Some(window)) => g.count(window)?,
        (None, None) => places,
    };
    if width > places {
        return Err(Error::shape(format!("frames of {width} places in {places}")));
    }
    let frames = 1 + (places - width) / step;
    check_constant(frames.saturating_mul(width))?;
    let at = (0..frames).flat_map(|i| (0..width).map(move |j| (i * step + j) as i64));
    let at = g.ints(&at.collect::<Vec<_>>())?;
    let at = g.reshape(at, &[frames, width])?;
    let mut framed = g.gather(x, at, 1)?;
    if let Some(window) = window {
        let window = g.reshape(window, &[width, 1])?;
        framed = g.mul(framed, window)?;
    }
    let onesided = node.int("onesided").unwrap_or(1) == 1 && parts == 1;
    let bins = if onesided { width / 2 + 1 } else { width };
    let ty = (g.dtype(x)?, vec![batch, frames, bins, 2]);
    let onesided = ("onesided", Attribute::Int(onesided.into()));
    if g.graph().opset() < 20 {
        let axis = ("axis", Attribute::Int(2));
        return Ok(Some(g.emit_n("DFT", &[Some(framed)], &[ty], [onesided, axis])));
    }
    let axis = g.ints(&[2])?;
    let axis = g.reshape(axis, &[])?;
    Ok(Some(g.emit_n("DFT", &[Some(framed), None, Some(axis)], &[ty], [onesided])))
}

/// `CenterCropPad`: each axis cut, or padded with zeros, on both sides, less before than after.
pub(super) fn center(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let mut x = input(node, 0)?;
    let shape = g.shape(x)?;
    let wanted = constant(g, node, 1)?.ok_or_else(|| Error::data("input 1 is missing"))?;
    let axes = match node.ints("axes") {
        None => (0..shape.len()).collect(),
        Some(axes) => {
            axes.iter().map(|&a| positive_axis(a, shape.len())).collect::<Result<Vec<_>>>()?
        }
    };
    if axes.len() != wanted.len() {
        return Err(Error::shape(format!("{} sizes for {} axes", wanted.len(), axes.len())));
    }
    let (mut before, mut after) = (vec![0; shape.len()], vec![0; shape.len()]);
    for (axis, n) in axes.into_iter().zip(wanted) {
        let n = usize::try_from(n).map_err(|_| Error::data(format!("a size of {n}")))?;
        if n < shape[axis] {
            let start = (shape[axis] - n) / 2;
            x = g.slice(x, axis, (start, start + n))?;
        } else {
            let more = n - shape[axis];
            (before[axis], after[axis]) = ((more / 2) as i64, (more - more / 2) as i64);
        }
    }
    Ok(Some(vec![g.pad(x, &before, &after)?]))
}
