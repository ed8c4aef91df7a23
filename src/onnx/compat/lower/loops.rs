//! A `Loop` with a known number of steps and states that keep their shapes is a `Scan` over the
//! steps' numbers.

use crate::error::{Context, Result};
use crate::onnx::{Attribute, Build, Graph, NodeId, TensorData, ValueId, ValueType, captures};
use crate::tensor::DType;

/// Loops of more steps stay.
const MOST_STEPS: usize = 1 << 20;

/// Rewrites the loops that can be, on a graph whose bodies have types; others stay. Returns whether
/// there was any.
pub fn loops_to_scans(graph: &mut Graph) -> Result<bool> {
    let mut any = false;
    for id in graph.node_ids() {
        let place = graph.describe(id);
        any |= rewrite(graph, id).context(|| place)?;
    }
    Ok(any)
}

fn rewrite(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let node = graph.node(id).clone();
    let Some((body, steps @ 1..=MOST_STEPS)) = graph.known_steps(&node) else { return Ok(false) };
    let known = |v: &ValueId| {
        let ty = &graph.value(*v).ty;
        Some(ValueType::known(ty.dtype?, &ty.static_shape()?))
    };
    let states: Vec<ValueId> = node.inputs[2..].iter().flatten().copied().collect();
    let types: Option<Vec<ValueType>> = states.iter().map(known).collect();
    let Some(types) = types.filter(|t| t.len() + 2 == node.inputs.len()) else { return Ok(false) };
    let given = [ValueType::known(DType::I64, &[]), ValueType::known(DType::Bool, &[])];
    let mut inner = graph.body(body, &[&given[..], &types[..]].concat())?;
    let outputs = inner.outputs().to_vec();
    let held = types.iter().zip(outputs.iter().skip(1));
    let steady = held.into_iter().all(|(ty, y)| inner.value(*y).ty == *ty);
    if !steady || outputs.len() < 1 + types.len() {
        return Ok(false);
    }
    let names = captures(body);
    graph.rename_apart(&mut inner, &names)?;
    let own = inner.inputs()[..node.inputs.len()].to_vec();
    inner.set_initializer(own[1], TensorData::new(DType::Bool, &[], vec![1u8].into())?);
    inner.set_outputs(outputs[1..].to_vec());
    inner.prune();
    let own = [&own[2..], &own[..1]].concat();
    let body = inner.to_body(&own, &names);
    let at = Build::new(graph).positions(steps)?;
    graph.set_body(id, "body", body);
    let scan = graph.node_mut(id);
    scan.op = "Scan".into();
    scan.inputs = states.into_iter().chain([at]).map(Some).collect();
    scan.attributes.insert("num_scan_inputs".into(), Attribute::Int(1));
    Ok(true)
}
