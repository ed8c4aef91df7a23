//! Recurrent layers whose tensors have the batch first, which the runtime has no kernel for.

use crate::error::Result;
use crate::onnx::{Attribute, Graph, Node, NodeId};

/// Rewrites `layout` 1 of an `RNN`, `GRU` or `LSTM` to 0 with transposed inputs and outputs; new
/// nodes have no types yet.
pub(super) fn steps_first(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let node = graph.node(id).clone();
    if node.int("layout").unwrap_or(0) != 1 {
        return Ok(false);
    }
    for slot in [0, 5, 6] {
        let Some(x) = node.input(slot) else { continue };
        let turned = graph.op("Transpose", &[x], [("perm", Attribute::Ints(vec![1, 0, 2]))]);
        graph.node_mut(id).inputs[slot] = Some(turned);
    }
    for (slot, perm) in [vec![2, 0, 1, 3], vec![1, 0, 2], vec![1, 0, 2]].into_iter().enumerate() {
        let Some(y) = node.output(slot) else { continue };
        let made = graph.add_value("")?;
        graph.push_node(Node {
            name: String::new(),
            op: "Transpose".into(),
            domain: String::new(),
            inputs: vec![Some(made)],
            outputs: vec![Some(y)],
            attributes: [("perm".to_owned(), Attribute::Ints(perm))].into(),
        });
        graph.node_mut(id).outputs[slot] = Some(made);
    }
    graph.node_mut(id).attributes.remove("layout");
    Ok(true)
}
