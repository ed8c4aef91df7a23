//! Compound and contrib operators rewritten to standard ones that have gradient rules, on a graph
//! with known types.
//!
//! A rewritten node becomes an `Identity` of the value that replaces its output, so values and
//! outputs keep their names; the runtime removes the Identity.

mod attention;
mod contrib;
mod gelu;
mod loss;
mod norm;
mod rewrite;
mod sequence;

use rewrite::{Rewrite, replace};

use crate::error::{Context, Result};
use crate::onnx::{Build, Graph, Node, NodeId, ValueId};

/// Operators of ONNX's own domain that are rewritten.
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
    REWRITES.iter().chain(contrib::REWRITES)
}

/// Domain and name of every operator that is rewritten.
pub fn lowered_operators() -> impl Iterator<Item = (&'static str, &'static str)> {
    let sequences = [("", "SequenceAt"), ("", "SequenceConstruct"), ("", "SplitToSequence")];
    rewrites_table().map(|(domain, op, _)| (*domain, *op)).chain(sequences)
}

/// Rewrites sequences that are split and indexed, attention, losses and fused operators. Nothing
/// changes on failure.
pub fn lower(graph: &mut Graph) -> Result<()> {
    let mut work = graph.clone();
    run(&mut work).context(|| format!("model '{}'", graph.name))?;
    *graph = work;
    Ok(())
}

/// Rewrites `SequenceAt` of `SplitToSequence` or `SequenceConstruct` to `Split`. The positions must
/// be initializers. Tensors whose shape is not known yet are left for another call.
pub fn lower_sequences(graph: &mut Graph) -> Result<()> {
    rewrite_sequences(graph, true)
}

fn rewrite_sequences(graph: &mut Graph, later: bool) -> Result<()> {
    if graph.nodes().iter().any(|n| n.op == "SequenceAt" && n.domain.is_empty()) {
        sequence::lower(graph, later)?;
        graph.prune();
    }
    Ok(())
}

/// Whether [`lower`] rewrites nodes of this operator.
pub fn is_lowered(node: &Node) -> bool {
    lowered_operators().any(|(domain, op)| node.domain == domain && node.op == op)
}

fn run(graph: &mut Graph) -> Result<()> {
    constants_to_initializers(graph);
    rewrite_sequences(graph, false)?;
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

/// `Constant` nodes become initializers of the same name.
fn constants_to_initializers(graph: &mut Graph) {
    let found: Vec<_> =
        graph.nodes().iter().filter_map(|n| Some((n.output(0)?, n.constant()?))).collect();
    for (v, data) in &found {
        graph.set_initializer(*v, data.clone());
    }
    let removed: std::collections::HashSet<ValueId> = found.into_iter().map(|(v, _)| v).collect();
    graph.retain_nodes(|_, n| {
        !n.output(0).is_some_and(|v| n.op == "Constant" && removed.contains(&v))
    });
}
