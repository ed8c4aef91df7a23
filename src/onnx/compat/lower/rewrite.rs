//! What every rewrite uses: its type, a node's inputs, and putting the result in a node's place.

use crate::error::{Error, Result};
use crate::onnx::{Attributes, Build, Graph, Node, NodeId, ValueId};

/// A rewrite: appends nodes that compute the same outputs and returns these by slot, or `None` to
/// leave the node as it is.
pub(super) type Rewrite = fn(&mut Build, &Node) -> Result<Option<Vec<ValueId>>>;

/// An operator that is rewritten.
pub(super) struct Lowered {
    pub domain: &'static str,
    pub op: &'static str,
    /// The attributes that the rewrite understands; a node with any other is refused.
    pub attributes: &'static [&'static str],
    pub rewrite: Rewrite,
}

impl Lowered {
    /// An operator of ONNX's own domain, to be named, without attributes.
    pub const fn by(rewrite: Rewrite) -> Self {
        Self { domain: "", op: "", attributes: &[], rewrite }
    }
}

/// Input `i` of the node, which must be there.
pub(super) fn input(node: &Node, i: usize) -> Result<ValueId> {
    node.input(i).ok_or_else(|| Error::data(format!("input {i} is missing")))
}

/// Makes node `id` an Identity (several, if it has several outputs) of the given values.
pub(super) fn replace(graph: &mut Graph, id: NodeId, outputs: &[ValueId]) -> Result<()> {
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
