//! Rewrites of compound operators to ones that have gradient rules, on a graph with known types.
//!
//! A rewritten node becomes an `Identity` of the value that replaces its output, so names of
//! values and outputs stay; the runtime drops those.

mod attention;
mod gelu;
mod loss;
mod microsoft;
mod norm;
mod sequence;

use crate::error::{Context, Error, Result};
use crate::onnx::{Attributes, Build, Graph, Node, NodeId, ValueId};

/// A rewrite: writes nodes that compute the same outputs and returns them by slot, or `None` to
/// leave the node.
type Rewrite = fn(&mut Build, &Node) -> Result<Option<Vec<ValueId>>>;

/// Which operators of ONNX's own are rewritten.
const REWRITES: &[(&str, &str, Rewrite)] = &[
    ("", "Attention", attention::attention),
    ("", "LRN", norm::local_response),
    ("", "MeanVarianceNormalization", norm::mean_variance),
    ("", "NegativeLogLikelihoodLoss", loss::negative_log_likelihood),
    ("", "RotaryEmbedding", attention::rotary),
    ("", "SoftmaxCrossEntropyLoss", loss::cross_entropy),
];

/// Every rewrite: domain, operator, and what does it.
fn rewrites_table() -> impl Iterator<Item = &'static (&'static str, &'static str, Rewrite)> {
    REWRITES.iter().chain(microsoft::REWRITES)
}

/// Domain and name of every operator that is rewritten.
pub(super) fn rewritten() -> impl Iterator<Item = (&'static str, &'static str)> {
    let sequences = [("", "SequenceAt"), ("", "SequenceConstruct"), ("", "SplitToSequence")];
    rewrites_table().map(|(domain, op, _)| (*domain, *op)).chain(sequences)
}

/// Rewrites what has no rule of its own: sequences that are split and indexed, attention, and
/// fused operators. Nothing changes on failure.
pub fn lower(graph: &mut Graph) -> Result<()> {
    let mut work = graph.clone();
    run(&mut work).context(|| format!("model '{}'", graph.name))?;
    *graph = work;
    Ok(())
}

/// Rewrites `SequenceAt` of a sequence that is split off a tensor, or built, to `Split`; needs the
/// positions to be initializers and the tensor's shape to be known.
pub fn lower_sequences(graph: &mut Graph) -> Result<()> {
    if graph.nodes().iter().any(|n| n.op == "SequenceAt" && n.domain.is_empty()) {
        sequence::lower(graph)?;
        graph.prune();
    }
    Ok(())
}

/// Whether [`lower`] rewrites nodes of this operator.
pub(super) fn rewrites(node: &Node) -> bool {
    rewritten().any(|(domain, op)| node.domain == domain && node.op == op)
}

fn run(graph: &mut Graph) -> Result<()> {
    constants_to_initializers(graph);
    lower_sequences(graph)?;
    let ids: Vec<NodeId> = graph.node_ids().collect();
    let mut g = Build::new(graph);
    for id in ids {
        let node = g.graph().node(id).clone();
        let found =
            rewrites_table().find(|(domain, op, _)| node.domain == *domain && node.op == *op);
        let Some((_, _, rewrite)) = found else { continue };
        let place = g.graph().describe(id);
        let Some(outputs) = rewrite(&mut g, &node).context(|| place)? else { continue };
        replace(g.graph_mut(), id, &outputs)?;
    }
    gelu::lower(graph)?;
    graph.sort()
}

/// Makes node `id` an Identity (several, if it has several outputs) of the given values.
fn replace(graph: &mut Graph, id: NodeId, outputs: &[ValueId]) -> Result<()> {
    let old = std::mem::take(&mut graph.node_mut(id).outputs);
    let mut pairs = Vec::new();
    for (slot, y) in old.into_iter().enumerate() {
        let Some(y) = y else { continue };
        let new = outputs.get(slot).ok_or_else(|| {
            Error::unsupported(format!("its output {slot} has no form in standard operators"))
        })?;
        pairs.push((*new, y));
    }
    let mut pairs = pairs.into_iter();
    let Some((x, y)) = pairs.next() else { return Ok(()) };
    *graph.node_mut(id) = identity(x, y);
    pairs.for_each(|(x, y)| {
        graph.push_node(identity(x, y));
    });
    Ok(())
}

fn identity(x: ValueId, y: ValueId) -> Node {
    Node {
        name: String::new(),
        op: "Identity".into(),
        domain: String::new(),
        inputs: vec![Some(x)],
        outputs: vec![Some(y)],
        attributes: Attributes::new(),
    }
}

/// `Constant` nodes become initializers of the same name.
fn constants_to_initializers(graph: &mut Graph) {
    let found: Vec<_> =
        graph.nodes().iter().filter_map(|n| Some((n.output(0)?, n.constant()?))).collect();
    for (v, data) in &found {
        graph.set_initializer(*v, data.clone());
    }
    let gone: std::collections::HashSet<ValueId> = found.into_iter().map(|(v, _)| v).collect();
    graph
        .retain_nodes(|_, n| !n.output(0).is_some_and(|v| n.op == "Constant" && gone.contains(&v)));
}
