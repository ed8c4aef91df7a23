//! Raises a model's opset where the operators kept their meaning, so that rules may use newer
//! operators.

use crate::error::{Error, Result};
use crate::onnx::Graph;

/// The oldest opset that is read; operators of older models have other semantics.
const OLDEST_OPSET: i64 = 13;

/// The opset that gradient rules rely on (ScatterElements with addition came with 16,
/// LayerNormalization with 17).
const RULES_OPSET: i64 = 17;

/// Raises a model of opset 13 to 16 to 17; newer ones stay as they are.
///
/// From 13 to 17 no operator changed its meaning for the same node, except RoiAlign (16) and
/// BatchNormalization with more than one output (14), which are errors.
pub fn raise_opset(graph: &mut Graph) -> Result<()> {
    let opset = graph.opset();
    if opset < OLDEST_OPSET {
        return Err(Error::unsupported(format!(
            "model '{}': opset {opset} is too old, {OLDEST_OPSET} is the oldest supported; export \
             the model again with a newer opset",
            graph.name
        )));
    }
    if opset >= RULES_OPSET {
        return Ok(());
    }
    for id in graph.node_ids() {
        let node = graph.node(id);
        let changed = match node.op.as_str() {
            "RoiAlign" => opset < 16,
            "BatchNormalization" => opset < 14 && node.outputs.len() > 1,
            _ => false,
        };
        if changed && node.domain.is_empty() {
            return Err(Error::unsupported(format!(
                "model '{}': {} means something else from opset {RULES_OPSET} on; export the \
                 model at that opset",
                graph.name,
                graph.describe(id)
            )));
        }
    }
    graph.opsets.insert(String::new(), RULES_OPSET);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn raises_what_keeps_its_meaning() {
        let mut g = Graph::new("m", 13);
        let x = g.add_input("x", Default::default()).unwrap();
        g.op("Relu", &[x], []);
        raise_opset(&mut g).unwrap();
        assert_eq!(g.opset(), 17);
        let mut newer = Graph::new("m", 20);
        raise_opset(&mut newer).unwrap();
        assert_eq!(newer.opset(), 20);
    }

    #[test]
    fn refuses_what_does_not() {
        let mut g = Graph::new("m", 12);
        assert_eq!(raise_opset(&mut g).unwrap_err().kind(), Kind::Unsupported);
        let mut g = Graph::new("m", 15);
        let x = g.add_input("x", Default::default()).unwrap();
        g.op("RoiAlign", &[x], []);
        assert!(raise_opset(&mut g).unwrap_err().message().contains("RoiAlign"));
        assert_eq!(g.opset(), 15);
    }
}
