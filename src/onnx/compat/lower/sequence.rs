//! `SplitToSequence` and `SequenceAt`, as exporters leave them, rewritten to `Split`.

use std::collections::HashMap;

use super::rewrite::replace;
use crate::error::{Context, Error, Result};
use crate::onnx::build::positive_axis;
use crate::onnx::{Build, Graph, Node, NodeId, TensorData, ValueId};

/// Rewrites every `SequenceAt` of a `SplitToSequence` or `SequenceConstruct` with a constant
/// position. With `later` a tensor whose shape is not known yet stays for another call; else it is
/// an error.
pub(super) fn lower(graph: &mut Graph, later: bool) -> Result<()> {
    let mut pieces: HashMap<ValueId, Vec<ValueId>> = HashMap::new();
    let ids: Vec<NodeId> = graph.node_ids().collect();
    let mut g = Build::new(graph);
    for id in ids {
        let node = g.graph().node(id).clone();
        let place = g.graph().describe(id);
        match (node.op.as_str(), node.output(0)) {
            ("SplitToSequence", Some(_)) if later && !has_shape(g.graph(), &node) => {}
            ("SplitToSequence", Some(y)) => {
                let parts = split(&mut g, &node).context(|| place)?;
                pieces.insert(y, parts);
            }
            ("SequenceConstruct", Some(y)) => {
                pieces.insert(y, node.inputs.iter().flatten().copied().collect());
            }
            ("SequenceAt", Some(_)) => {
                let Some(parts) = node.input(0).and_then(|s| pieces.get(&s)) else { continue };
                let piece = at(g.graph(), &node, parts).context(|| place)?;
                replace(g.graph_mut(), id, &[piece])?;
            }
            _ => {}
        }
    }
    graph.sort()
}

/// Whether the shape of the tensor is known. The runtime reports a rank that it does not know as 0,
/// and a tensor of rank 0 cannot be split.
fn has_shape(graph: &Graph, node: &Node) -> bool {
    let shape = node.input(0).and_then(|x| graph.value(x).ty.static_shape());
    shape.is_some_and(|shape| !shape.is_empty())
}

fn constant<'g>(graph: &'g Graph, node: &Node, slot: usize) -> Result<Option<&'g TensorData>> {
    let Some(v) = node.input(slot) else { return Ok(None) };
    graph.initializer(v).map(Some).ok_or_else(|| {
        let name = graph.value_name(v);
        Error::unsupported(format!("its input {slot} ('{name}') is not a constant"))
    })
}

fn at(graph: &Graph, node: &Node, parts: &[ValueId]) -> Result<ValueId> {
    let position = constant(graph, node, 1)?.map(TensorData::to_i64s).transpose()?;
    let position = position.and_then(|p| p.first().copied()).unwrap_or(0);
    Ok(parts[positive_axis(position, parts.len())?])
}

fn split(g: &mut Build, node: &Node) -> Result<Vec<ValueId>> {
    let x = node.input(0).ok_or_else(|| Error::data("nothing to split"))?;
    let shape = g.shape(x)?;
    let axis = positive_axis(node.int("axis").unwrap_or(0), shape.len())?;
    let given = constant(g.graph(), node, 1)?.cloned();
    let squeeze = given.is_none() && node.int("keepdims") == Some(0);
    let sizes = sizes(given.as_ref(), shape[axis])?;
    let parts = g.split(x, axis, &sizes)?;
    if !squeeze {
        return Ok(parts);
    }
    let mut flat = shape;
    flat.remove(axis);
    parts.into_iter().map(|p| g.reshape(p, &flat)).collect()
}

/// Refuses sequences longer than any model has.
fn check_pieces(n: usize) -> Result<()> {
    const MOST: usize = 1 << 16;
    if n <= MOST {
        return Ok(());
    }
    Err(Error::unsupported(format!("a sequence of {n} pieces")))
}

fn sizes(given: Option<&TensorData>, n: usize) -> Result<Vec<usize>> {
    let wrong = || Error::data("the sizes of the pieces are not positive");
    let Some(given) = given else {
        check_pieces(n)?;
        return Ok(vec![1; n]);
    };
    let sizes = given.to_i64s()?;
    let sizes: Vec<usize> = sizes
        .into_iter()
        .map(|s| usize::try_from(s).map_err(|_| wrong()))
        .collect::<Result<_>>()?;
    match sizes[..] {
        [size] if given.shape().is_empty() => {
            if size == 0 {
                return Err(wrong());
            }
            check_pieces(n.div_ceil(size))?;
            Ok((0..n).step_by(size).map(|at| size.min(n - at)).collect())
        }
        _ => Ok(sizes),
    }
}
