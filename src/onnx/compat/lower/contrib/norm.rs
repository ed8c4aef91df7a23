//! Layer and RMS normalisation with the additions that were fused into them.

use crate::error::Result;
use crate::onnx::compat::lower::rewrite::input;
use crate::onnx::{Attribute, Build, Node, ValueId};

/// Σ of the given inputs, those that are there.
fn total(g: &mut Build, node: &Node, slots: &[usize]) -> Result<ValueId> {
    let mut sum = input(node, 0)?;
    for &slot in slots {
        if let Some(x) = node.input(slot) {
            sum = g.add(sum, x)?;
        }
    }
    Ok(sum)
}

fn epsilon(node: &Node, default: f32) -> f32 {
    node.float("epsilon").unwrap_or(default)
}

/// Normalisation over the last axis, y = x̂ γ + β; with mean and 1/σ.
pub(super) fn layer_norm(
    g: &mut Build,
    x: ValueId,
    (gamma, beta): (ValueId, Option<ValueId>),
    epsilon: f32,
) -> Result<Vec<ValueId>> {
    let (dtype, shape) = (g.dtype(x)?, g.shape(x)?);
    let mut kept = shape.clone();
    if let Some(last) = kept.last_mut() {
        *last = 1;
    }
    let types = [(dtype, shape), (dtype, kept.clone()), (dtype, kept)];
    let mut inputs = vec![Some(x), Some(gamma)];
    inputs.extend(beta.map(Some));
    let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(epsilon))];
    Ok(g.emit_n("LayerNormalization", &inputs, &types, attributes))
}

/// s = x + skip + bias, y = x̂ γ + β of it; outputs y, mean, 1/σ, s
pub(super) fn skip_layer_norm(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let sum = total(g, node, &[1, 4])?;
    let scale = (input(node, 2)?, node.input(3));
    let mut outputs = layer_norm(g, sum, scale, epsilon(node, 1e-12))?;
    outputs.push(sum);
    Ok(Some(outputs))
}

/// y = x/r γ over the axes from `axis` on, r = √(mean x² + ε); with 1/r
fn scaled(
    g: &mut Build,
    (x, gamma): (ValueId, ValueId),
    axis: i64,
    epsilon: f32,
) -> Result<(ValueId, ValueId)> {
    let rank = g.rank(x)?;
    let axes: Vec<usize> = (crate::onnx::build::positive_axis(axis, rank)?..rank).collect();
    let square = g.square(x)?;
    let mean = g.mean_keep(square, &axes)?;
    let shifted = g.shift(mean, f64::from(epsilon))?;
    let root = g.unary("Sqrt", shifted)?;
    let inverse = g.unary("Reciprocal", root)?;
    let xhat = g.mul(x, inverse)?;
    Ok((g.mul(xhat, gamma)?, inverse))
}

/// s = x + skip + bias, y = s/r γ; outputs y, mean (which is never made), 1/r, s
pub(super) fn skip_rms_norm(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let sum = total(g, node, &[1, 3])?;
    let (y, inverse) = scaled(g, (sum, input(node, 2)?), -1, epsilon(node, 1e-12))?;
    Ok(Some(vec![y, inverse, inverse, sum]))
}

/// y = x/r γ; outputs y, 1/r
pub(super) fn rms_norm(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let inputs = (input(node, 0)?, input(node, 1)?);
    let axis = node.int("axis").unwrap_or(-1);
    let (y, inverse) = scaled(g, inputs, axis, epsilon(node, 1e-5))?;
    Ok(Some(vec![y, inverse]))
}
