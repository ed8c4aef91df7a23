//! Running statistics of batch normalisations in training mode: what a run makes of them becomes an
//! output of the training graph.

use crate::error::Result;
use crate::onnx::{Build, Graph, NodeId, ValueId, ValueType};
use crate::tensor::DType;

/// Pairs of an input that holds a running statistic and what the node moves it to, by its momentum;
/// f32. Statistics in `trained` are parameters and left out.
pub(super) fn running_statistics(
    graph: &mut Graph,
    trained: &[ValueId],
) -> Result<Vec<(ValueId, ValueId)>> {
    let producers = graph.producers();
    let mut found: Vec<(ValueId, ValueId)> = Vec::new();
    for id in graph.node_ids() {
        let node = graph.node(id);
        let own = node.op == "BatchNormalization" && node.domain.is_empty();
        if !own || node.int("training_mode") != Some(1) {
            continue;
        }
        for (slot, output) in [(3, 1), (4, 2)] {
            let Some(read) = graph.node(id).input(slot) else { continue };
            let Some(held) = held(graph, &producers, read) else { continue };
            if trained.contains(&held) || found.iter().any(|(v, _)| *v == held) {
                continue;
            }
            let moved = output_of(graph, id, output, read)?;
            found.push((held, Build::new(graph).cast(moved, DType::F32)?));
        }
    }
    Ok(found)
}

/// The input behind a value that is read as it is, or in another float type.
fn held(
    graph: &Graph,
    producers: &[Option<(NodeId, usize)>],
    mut value: ValueId,
) -> Option<ValueId> {
    while let Some((id, _)) = producers.get(value.index()).copied().flatten() {
        let node = graph.node(id);
        if !matches!(node.op.as_str(), "Cast" | "Identity") {
            return None;
        }
        value = node.input(0)?;
    }
    graph.inputs().contains(&value).then_some(value)
}

/// Output `slot` of the node, made with the type of `like` where it is left out.
fn output_of(graph: &mut Graph, id: NodeId, slot: usize, like: ValueId) -> Result<ValueId> {
    let ty: ValueType = graph.value(like).ty.clone();
    if let Some(v) = graph.node(id).output(slot) {
        graph.set_type(v, ty);
        return Ok(v);
    }
    let v = graph.add_value("")?;
    graph.set_type(v, ty);
    let outputs = &mut graph.node_mut(id).outputs;
    if outputs.len() <= slot {
        outputs.resize(slot + 1, None);
    }
    outputs[slot] = Some(v);
    Ok(v)
}
