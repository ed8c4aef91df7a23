//! Matrix products and convolutions with what was fused into them.

use super::pointwise;
use crate::error::{Error, Result};
use crate::onnx::compat::lower::rewrite::input;
use crate::onnx::{Attribute, Build, Node, ValueId};

/// y = α op(a) op(b): op exchanges the last two axes (transA, transB), and before that moves the
/// first axis behind the batch's (transBatchA, transBatchB). Vectors are never transposed.
pub(super) fn matmul(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let flag = |name: &str| node.int(name).unwrap_or(0) != 0;
    let a = transposed(g, input(node, 0)?, flag("transA"), flag("transBatchA"))?;
    let b = transposed(g, input(node, 1)?, flag("transB"), flag("transBatchB"))?;
    let a = g.scale(a, f64::from(node.float("alpha").unwrap_or(1.0)))?;
    let (a_shape, b_shape) = (g.shape(a)?, g.shape(b)?);
    let a2 = if let [k] = a_shape[..] { g.reshape(a, &[1, k])? } else { a };
    let b2 = if let [k] = b_shape[..] { g.reshape(b, &[k, 1])? } else { b };
    let y = g.matmul(a2, b2)?;
    let mut shape = g.shape(y)?;
    let rank = shape.len();
    if b_shape.len() == 1 {
        shape.remove(rank - 1);
    }
    if a_shape.len() == 1 {
        shape.remove(rank - 2);
    }
    Ok(Some(vec![g.reshape(y, &shape)?]))
}

fn transposed(g: &mut Build, x: ValueId, matrix: bool, batch: bool) -> Result<ValueId> {
    let rank = g.rank(x)?;
    if rank < 2 {
        return Ok(x);
    }
    let mut perm: Vec<usize> = (0..rank).collect();
    if batch {
        perm[..rank - 1].rotate_left(1);
    }
    if matrix {
        perm.swap(rank - 2, rank - 1);
    }
    g.transpose(x, &perm)
}

/// y = activation(α op(a) op(b) + β c)
pub(super) fn gemm(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let (a, b) = (input(node, 0)?, input(node, 1)?);
    let flag = |name: &str| node.int(name).unwrap_or(0) != 0;
    let alpha = node.float("alpha").unwrap_or(1.0);
    let mut y = g.gemm((a, flag("transA")), (b, flag("transB")), alpha)?;
    if let Some(c) = node.input(2) {
        let c = g.scale(c, f64::from(node.float("beta").unwrap_or(1.0)))?;
        y = g.add(y, c)?;
    }
    let names = ["activation_alpha", "activation_beta", "activation_gamma"];
    let parameters: Vec<f32> = names.iter().map_while(|n| node.float(n)).collect();
    Ok(Some(vec![pointwise::activation(g, y, node, &parameters)?]))
}

/// y = activation(x ∗ w + b + z)
pub(super) fn conv(g: &mut Build, node: &Node) -> Result<Option<Vec<ValueId>>> {
    let out = node.output(0).ok_or_else(|| Error::data("output 0 is missing"))?;
    let types = [(g.dtype(out)?, g.shape(out)?)];
    let inputs: Vec<Option<ValueId>> = (0..3).map(|i| node.input(i)).collect();
    let n = if inputs[2].is_some() { 3 } else { 2 };
    let y = g.emit_n("Conv", &inputs[..n], &types, [])[0];
    let last = g.graph().node_ids().next_back();
    let last = last.ok_or_else(|| Error::internal("no node was added"))?;
    let own = ["activation", "activation_params"];
    g.graph_mut().node_mut(last).attributes =
        node.attributes.clone().into_iter().filter(|(k, _)| !own.contains(&k.as_str())).collect();
    let y = node.input(3).map_or(Ok(y), |z| g.add(y, z))?;
    let parameters = match node.attributes.get("activation_params") {
        Some(Attribute::Floats(values)) => values.clone(),
        _ => Vec::new(),
    };
    Ok(Some(vec![pointwise::activation(g, y, node, &parameters)?]))
}
