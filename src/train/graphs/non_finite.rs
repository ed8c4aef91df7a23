//! Finding where a run first went non-finite, in the forward or the backward part.

use crate::error::Result;
use crate::onnx::{Graph, NodeId, TensorData, ValueId};
use crate::runtime::{Optimize, Session, SessionOptions};
use crate::tensor::{DType, Tensor};

/// Where a NaN or infinity came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonFinite {
    /// The node, as messages name it; empty when an input is to blame.
    pub node: String,
    /// The value.
    pub value: String,
    /// `NaN`, `inf` or `-inf`: the worst that it holds.
    pub what: &'static str,
    /// How many of its elements are not finite.
    pub count: usize,
}

/// Runs a graph once with every float value as an output, and names the first in the order of
/// computation that holds a NaN or +inf while nothing it was computed from did. If there is none,
/// the first -inf is named that no constant brought in: masks hold -inf on purpose.
///
/// `model` and `feeds` are those of the run that failed, e.g. [`super::TrainingGraph::bytes`].
/// It needs the memory of all values at once.
pub fn find_non_finite(model: &[u8], feeds: &[(&str, &Tensor)]) -> Result<Option<NonFinite>> {
    let mut graph = Graph::from_bytes(model.to_vec().into())?;
    for (name, tensor) in feeds {
        if let Some((what, count)) = inspect(tensor) {
            let (node, value) = (String::new(), (*name).to_owned());
            return Ok(Some(NonFinite { node, value, what, count }));
        }
    }
    let made: Vec<(NodeId, ValueId)> = graph
        .node_ids()
        .flat_map(|id| graph.node(id).outputs.iter().flatten().map(move |&v| (id, v)))
        .collect();
    graph.set_outputs(made.iter().map(|&(_, v)| v).collect());
    let options = SessionOptions {
        name: "non-finite".into(),
        optimize: Optimize::Disabled,
        ..SessionOptions::default()
    };
    let mut session = Session::from_bytes(&graph.to_bytes()?, &options)?;
    let is_float = |v: ValueId| {
        let name = graph.value_name(v);
        let output = session.outputs().iter().find(|o| o.name == name);
        output.and_then(|o| o.dtype).is_some_and(DType::is_float)
    };
    let made: Vec<(NodeId, ValueId)> = made.into_iter().filter(|&(_, v)| is_float(v)).collect();
    let names: Vec<&str> = made.iter().map(|&(_, v)| graph.value_name(v)).collect();
    let wanted: Vec<(&str, &Tensor)> = feeds
        .iter()
        .copied()
        .filter(|(name, _)| session.inputs().iter().any(|i| i.name == *name))
        .collect();
    let results = session.run(&wanted, &names)?;
    Ok(first(&graph, &made, &results))
}

fn first(graph: &Graph, made: &[(NodeId, ValueId)], results: &[Tensor]) -> Option<NonFinite> {
    let mut low = None;
    for (&(id, v), tensor) in made.iter().zip(results) {
        let Some((what, count)) = inspect(tensor) else { continue };
        let found = NonFinite {
            node: graph.describe(id),
            value: graph.value_name(v).to_owned(),
            what,
            count,
        };
        if what != "-inf" {
            return Some(found);
        }
        let masks = |v: &ValueId| {
            graph
                .initializer(*v)
                .and_then(|d| d.to_f64s().ok())
                .is_some_and(|values| values.contains(&f64::NEG_INFINITY))
        };
        let on_purpose = graph.node(id).inputs.iter().flatten().any(masks)
            || !matches!(graph.node(id).op.as_str(), "Log" | "LogSoftmax" | "Mul" | "Div");
        if !on_purpose && low.is_none() {
            low = Some(found);
        }
    }
    low
}

/// The worst of a tensor's non-finite elements, and how many there are.
fn inspect(tensor: &Tensor) -> Option<(&'static str, usize)> {
    if !tensor.dtype().is_float() {
        return None;
    }
    let values = TensorData::from_tensor(tensor).to_f64s().ok()?;
    let bad: Vec<f64> = values.into_iter().filter(|v| !v.is_finite()).collect();
    let what = match () {
        () if bad.is_empty() => return None,
        () if bad.iter().any(|v| v.is_nan()) => "NaN",
        () if bad.contains(&f64::INFINITY) => "inf",
        () => "-inf",
    };
    Some((what, bad.len()))
}
