//! Embeddings with their sum and its normalisation.

use super::norm;
use crate::error::{Error, Result};
use crate::onnx::compat::lower::rewrite::input;
use crate::onnx::{Build, Node, ValueId};
use crate::tensor::DType;

/// s = word[ids] + position[places] + segment[segments], y = layer norm of s
///
/// Outputs y, the number of ones in each row of the mask (zeros without a mask), s.
pub(super) fn embed(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let ids = input(node, 0)?;
    let shape = g.shape(ids)?;
    let &[batch, length] = &shape[..] else {
        return Err(Error::shape(format!("ids of shape {shape:?}")));
    };
    let places = match node.input(8) {
        Some(places) => places,
        None => g.positions(length)?,
    };
    let words = g.gather(input(node, 2)?, ids, 0)?;
    let positions = g.gather(input(node, 3)?, places, 0)?;
    let mut sum = g.add(words, positions)?;
    if let (Some(ids), Some(table)) = (node.input(1), node.input(4)) {
        let segments = g.gather(table, ids, 0)?;
        sum = g.add(sum, segments)?;
    }
    let scale = (input(node, 5)?, node.input(6));
    let y = norm::layer_norm(g, sum, scale, node.float("epsilon").unwrap_or(1e-12))?[0];
    let counts = match node.input(7) {
        None => g.zeros(DType::I32, &[batch])?,
        Some(mask) => {
            let one = g.number(DType::I32, 1.0)?;
            let ones = g.compare("Equal", mask, one)?;
            let ones = g.cast(ones, DType::I32)?;
            g.reduce("ReduceSum", ones, &[1], false)?
        }
    };
    Ok(Some(vec![y, counts, sum]))
}
