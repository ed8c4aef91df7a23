//! Compound and contrib operators rewritten to standard ones that have gradient rules, on a graph
//! with known types.
//!
//! A rewritten node becomes an `Identity` of the value that replaces its output, so values and
//! outputs keep their names; the runtime removes the Identity.

mod attention;
mod contrib;
mod defects;
mod gelu;
mod grid;
mod loops;
mod loss;
mod norm;
mod recurrent;
mod rewrite;
mod sequence;
mod signal;

pub use defects::lower_defects;
pub use loops::loops_to_scans;
use rewrite::{Lowered, replace};

use crate::error::{Context, Error, Result};
use crate::onnx::{Build, Graph, Node, NodeId, ValueId};

/// Operators of ONNX's own domain that are rewritten.
const REWRITES: &[Lowered] = &[
    Lowered {
        op: "Attention",
        attributes: &[
            "is_causal",
            "kv_num_heads",
            "left_window_size",
            "q_num_heads",
            "qk_matmul_output_mode",
            "right_window_size",
            "scale",
            "softcap",
            "softmax_precision",
        ],
        ..Lowered::by(attention::attention)
    },
    Lowered { op: "CenterCropPad", attributes: &["axes"], ..Lowered::by(signal::center) },
    Lowered { op: "GRU", attributes: recurrent::OF_GRU, ..Lowered::by(recurrent::gru) },
    Lowered {
        op: "LRN",
        attributes: &["alpha", "beta", "bias", "size"],
        ..Lowered::by(norm::local_response)
    },
    Lowered {
        op: "GridSample",
        attributes: &["align_corners", "mode", "padding_mode"],
        ..Lowered::by(grid::sample)
    },
    Lowered { op: "LSTM", attributes: recurrent::OF_LSTM, ..Lowered::by(recurrent::lstm) },
    Lowered {
        op: "MeanVarianceNormalization",
        attributes: &["axes"],
        ..Lowered::by(norm::mean_variance)
    },
    Lowered {
        op: "NegativeLogLikelihoodLoss",
        attributes: &["ignore_index", "reduction"],
        ..Lowered::by(loss::negative_log_likelihood)
    },
    Lowered { op: "RNN", attributes: recurrent::OF_RNN, ..Lowered::by(recurrent::rnn) },
    Lowered {
        op: "RotaryEmbedding",
        attributes: &["interleaved", "num_heads", "rotary_embedding_dim"],
        ..Lowered::by(attention::rotary)
    },
    Lowered { op: "STFT", attributes: &["onesided"], ..Lowered::by(signal::stft) },
    Lowered {
        op: "SoftmaxCrossEntropyLoss",
        attributes: &["ignore_index", "reduction"],
        ..Lowered::by(loss::cross_entropy)
    },
];

/// Operators that are rewritten together with others, or in some cases: name and attributes.
const OTHERS: &[(&str, &[&str])] = &[
    ("Compress", &["axis"]),
    ("Loop", &["body"]),
    ("SequenceAt", &[]),
    ("SequenceConstruct", &[]),
    ("SplitToSequence", &["axis", "keepdims"]),
];

/// Every rewrite.
fn rewrites_table() -> impl Iterator<Item = &'static Lowered> {
    REWRITES.iter().chain(contrib::REWRITES)
}

/// Domain and name of every operator that is rewritten.
pub fn lowered_operators() -> impl Iterator<Item = (&'static str, &'static str)> {
    rewrites_table().map(|l| (l.domain, l.op)).chain(OTHERS.iter().map(|(op, _)| ("", *op)))
}

/// The attributes that the rewrite of an operator understands; `None` for operators that are not
/// rewritten.
pub fn lowered_attributes(domain: &str, op: &str) -> Option<&'static [&'static str]> {
    let rewrite = rewrites_table().find(|l| l.domain == domain && l.op == op);
    let other = || OTHERS.iter().find(|(name, _)| domain.is_empty() && *name == op);
    rewrite.map(|l| l.attributes).or_else(|| other().map(|(_, attributes)| *attributes))
}

/// The attribute of a node that its rewrite does not understand.
pub fn unknown_attribute(node: &Node) -> Option<&str> {
    let known = lowered_attributes(&node.domain, &node.op)?;
    node.attributes.keys().map(String::as_str).find(|name| !known.contains(name))
}

/// Rewrites sequences that are split and indexed, recurrent layers, attention, losses and
/// fused operators. Nothing
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
    lowered_attributes(&node.domain, &node.op).is_some()
}

fn run(graph: &mut Graph) -> Result<()> {
    constants_to_initializers(graph);
    rewrite_sequences(graph, false)?;
    let ids: Vec<NodeId> = graph.node_ids().collect();
    let mut g = Build::new(graph);
    for id in ids {
        rewrite(&mut g, id)?;
    }
    gelu::lower(graph)?;
    graph.sort()
}

/// Rewrites one node, if there is a rewrite for it; returns whether there is.
fn rewrite(g: &mut Build, id: NodeId) -> Result<bool> {
    let node = g.graph().node(id).clone();
    let found = rewrites_table().find(|l| node.domain == l.domain && node.op == l.op);
    let Some(found) = found else { return Ok(false) };
    let place = g.graph().describe(id);
    check_attributes(&node).context(|| place.clone())?;
    let Some(outputs) = (found.rewrite)(g, &node).context(|| place)? else { return Ok(false) };
    replace(g.graph_mut(), id, &outputs)?;
    Ok(true)
}

fn check_attributes(node: &Node) -> Result<()> {
    unknown_attribute(node).map_or(Ok(()), |name| {
        let op = &node.op;
        Err(Error::unsupported(format!("{op} with the attribute '{name}' has no gradient rule")))
    })
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
