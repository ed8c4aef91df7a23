//! Dropout in training graphs: its mask becomes a function of an input, so that a resumed run
//! draws what the first one drew, and the backward pass needs no mask in memory.

use crate::error::Result;
use crate::onnx::MMOPT_DOMAIN;
use crate::onnx::{Attribute, Attributes, Graph, NodeId, ValueId, ValueType};
use crate::tensor::DType;

/// Name of the input that seeds dropout: int64 `[1]`, a different number for each pass.
pub const SEED_INPUT: &str = "mmopt.seed";

/// Replaces the f32 `Dropout` nodes in training mode by the seeded operator and returns the seed
/// input, if there are any. Those whose ratio or mode is computed, or whose mask is used, stay.
pub(super) fn seed_dropout(graph: &mut Graph) -> Result<Option<ValueId>> {
    let found: Vec<(NodeId, f32)> =
        graph.node_ids().filter_map(|id| Some((id, ratio(graph, id)?))).collect();
    if found.iter().all(|&(_, ratio)| ratio == 0.0) {
        found.into_iter().for_each(|(id, _)| graph.node_mut(id).inputs.truncate(1));
        return Ok(None);
    }
    let seed = graph.claim_input(SEED_INPUT, ValueType::known(DType::I64, &[1]))?;
    graph.opsets.insert(MMOPT_DOMAIN.to_owned(), 1);
    for (salt, (id, ratio)) in found.into_iter().enumerate() {
        let node = graph.node_mut(id);
        if ratio == 0.0 {
            node.inputs.truncate(1);
            continue;
        }
        node.domain = MMOPT_DOMAIN.to_owned();
        node.inputs.truncate(1);
        node.inputs.push(Some(seed));
        node.outputs.truncate(1);
        node.attributes = Attributes::from([
            ("ratio".to_owned(), Attribute::Float(ratio)),
            ("salt".to_owned(), Attribute::Int(salt as i64 + 1)),
        ]);
    }
    Ok(Some(seed))
}

/// The ratio of a node that can be replaced.
fn ratio(graph: &Graph, id: NodeId) -> Option<f32> {
    let node = graph.node(id);
    if node.op != "Dropout" || !node.domain.is_empty() {
        return None;
    }
    let constant = |slot: usize| {
        let data = graph.initializer(node.input(slot)?)?;
        data.to_f64s().ok()?.first().copied()
    };
    let training = constant(2)? != 0.0;
    let ratio = if node.input(1).is_none() { 0.5 } else { constant(1)? };
    let is_f32 = graph.value(node.input(0)?).ty.dtype == Some(DType::F32);
    let mask_used = node.output(1).is_some_and(|mask| {
        graph.outputs().contains(&mask)
            || graph.nodes().iter().any(|n| n.inputs.contains(&Some(mask)))
    });
    let fits = (0.0..1.0).contains(&ratio) && is_f32 && !mask_used && training;
    fits.then_some(ratio as f32)
}
