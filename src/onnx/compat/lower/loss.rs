//! ONNX's own losses over classes, in standard operators.
//!
//! With classes in axis 1, one label for each place: `l = -w(label) ln p(label)`, 0 where the label
//! is `ignore_index`. `mean` divides by the sum of the weights of what counts, and is NaN where
//! nothing does, as the operator says.

use super::rewrite::input;
use crate::error::{Error, Result};
use crate::onnx::{Build, Node, ValueId};
use crate::tensor::DType;

/// `SoftmaxCrossEntropyLoss`: outputs the loss and ln p.
pub(super) fn cross_entropy(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let z = input(node, 0)?;
    let ln_p = g.softmax("LogSoftmax", z, 1)?;
    Ok(Some(vec![likelihood(g, node, ln_p)?, ln_p]))
}

/// `NegativeLogLikelihoodLoss` of ln p.
pub(super) fn negative_log_likelihood(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let ln_p = input(node, 0)?;
    Ok(Some(vec![likelihood(g, node, ln_p)?]))
}

fn likelihood(g: &mut Build, node: &Node, ln_p: ValueId) -> Result<ValueId> {
    let (labels, dtype, shape) = (input(node, 1)?, g.dtype(ln_p)?, g.shape(ln_p)?);
    let &[batch, _, ref places @ ..] = &shape[..] else {
        return Err(Error::shape(format!("a loss over classes of {shape:?}")));
    };
    let labels = g.cast(labels, DType::I64)?;
    let (safe, kept) = counted(g, node, labels)?;
    let at = g.reshape(safe, &[&[batch, 1], places].concat())?;
    let picked = g.gather_elements(ln_p, at, 1)?;
    let picked = g.reshape(picked, &[&[batch], places].concat())?;
    let mut share = kept.map(|k| g.cast(k, dtype)).transpose()?;
    if let Some(w) = node.input(2) {
        let w = g.gather(w, safe, 0)?;
        share = Some(share.map_or(Ok(w), |s| g.mul(s, w))?);
    }
    let own = share.map_or(Ok(picked), |s| g.mul(picked, s))?;
    let each = g.neg(own)?;
    reduced(g, node, each, share)
}

/// Labels with 0 where ignored, and which are not ignored; `None` means all.
fn counted(g: &mut Build, node: &Node, labels: ValueId) -> Result<(ValueId, Option<ValueId>)> {
    let Some(ignored) = node.int("ignore_index") else { return Ok((labels, None)) };
    let shape = g.shape(labels)?;
    let index = g.ints(&[ignored])?;
    let index = g.reshape(index, &[])?;
    let out = g.compare("Equal", labels, index)?;
    let zero = g.number(DType::I64, 0.0)?;
    let safe = g.select(out, zero, labels)?;
    Ok((safe, Some(g.emit("Not", &[out], (DType::Bool, &shape), []))))
}

fn reduced(g: &mut Build, node: &Node, each: ValueId, share: Option<ValueId>) -> Result<ValueId> {
    let axes: Vec<usize> = (0..g.rank(each)?).collect();
    let how = node.string("reduction").unwrap_or("mean");
    match (how, share) {
        ("none", _) => Ok(each),
        ("sum", _) => g.reduce("ReduceSum", each, &axes, false),
        ("mean", None) => g.reduce("ReduceMean", each, &axes, false),
        ("mean", Some(share)) => {
            let total = g.reduce("ReduceSum", each, &axes, false)?;
            let count = g.reduce("ReduceSum", share, &axes, false)?;
            g.div(total, count)
        }
        _ => Err(Error::data(format!("reduction '{how}'"))),
    }
}
