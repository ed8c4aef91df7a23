//! Raises a model's opset to the one that gradient rules rely on: operators that changed their form
//! get the new one.

use super::old_forms::{changed, rewrite};
use crate::error::{Context, Error, Result};
use crate::onnx::proto::{GraphProto, NodeProto};
use crate::onnx::read::value_type;
use crate::onnx::{Attribute, Graph, captures};

/// The oldest opset that is read: older ones broadcast by attributes.
const OLDEST_OPSET: i64 = 7;

/// The opset that gradient rules rely on (ScatterElements with addition came with 16,
/// LayerNormalization with 17).
const RULES_OPSET: i64 = 17;

/// First opset of which no operator changed its form up to 17, but for two that are refused.
const SAME_FORMS: i64 = 13;

/// Whether [`raise_opset`] changes a model of this opset.
pub fn is_raised(opset: i64) -> bool {
    opset < RULES_OPSET
}

/// Raises a model of opset 7 to 16 to 17; newer ones stay as they are. Values keep their ids, and
/// nothing changes on failure.
///
/// # Errors
/// `Unsupported` for an older opset, and names the node whose form has no equal: RoiAlign before
/// opset 16, BatchNormalization whose saved statistics are used.
pub fn raise_opset(graph: &mut Graph) -> Result<()> {
    let opset = graph.opset();
    if opset < OLDEST_OPSET {
        return Err(Error::unsupported(format!(
            "model '{}': opset {opset} is too old, {OLDEST_OPSET} is the oldest supported; export \
             the model again with a newer opset",
            graph.name
        )));
    }
    if !is_raised(opset) {
        return Ok(());
    }
    let mut work = graph.clone();
    raise(&mut work, opset).context(|| format!("model '{}'", graph.name))?;
    *graph = work;
    Ok(())
}

fn raise(graph: &mut Graph, opset: i64) -> Result<()> {
    for function in &graph.functions {
        let own = function.opset_import.iter().find(|o| o.domain.is_empty());
        if let Some(old) = own.filter(|o| o.version < SAME_FORMS) {
            return Err(Error::unsupported(format!(
                "its function '{}.{}' is of opset {}; export the model at opset {SAME_FORMS} or \
                 newer",
                function.domain, function.name, old.version
            )));
        }
    }
    for id in graph.node_ids() {
        let place = graph.describe(id);
        let place = || place.clone();
        raise_bodies(graph, id, opset).context(place)?;
        if graph.node(id).domain.is_empty() {
            rewrite(graph, id, opset).context(place)?;
        }
    }
    graph.opsets.insert(String::new(), RULES_OPSET);
    graph.sort()
}

/// The same within the bodies of a node.
fn raise_bodies(graph: &mut Graph, id: crate::onnx::NodeId, opset: i64) -> Result<()> {
    let node = graph.node(id).clone();
    for (name, attribute) in &node.attributes {
        let Attribute::Graph(body) = attribute else { continue };
        let Some(old) = changed_within(body, opset) else { continue };
        if opset >= SAME_FORMS {
            let op = &old.op_type;
            return Err(Error::unsupported(format!(
                "in its {name}, {op} '{}' has another form from opset {RULES_OPSET} on; export the \
                 model at that opset",
                old.name
            )));
        }
        let captured = captures(body);
        let types = body.input.iter().map(value_type).collect::<Result<Vec<_>>>()?;
        let mut inner = graph.body(body, &types)?;
        raise(&mut inner, opset).context(|| name.clone())?;
        graph.rename_apart(&mut inner, &captured)?;
        let own = inner.inputs()[..types.len()].to_vec();
        graph.set_body(id, name, inner.to_body(&own, &captured));
    }
    Ok(())
}

/// The first node of a body, or of bodies within, whose form changed.
fn changed_within(body: &GraphProto, opset: i64) -> Option<&NodeProto> {
    body.node.iter().find_map(|node| {
        let own = node.domain.is_empty() || node.domain == "ai.onnx";
        if own && changed(&node.op_type, node.output.len(), opset) {
            return Some(node);
        }
        let bodies = node.attribute.iter().flat_map(|a| a.g.iter().chain(&a.graphs));
        bodies.filter_map(|g| changed_within(g, opset)).next()
    })
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
        let mut g = Graph::new("m", 6);
        assert_eq!(raise_opset(&mut g).unwrap_err().kind(), Kind::Unsupported);
        for opset in [12, 15] {
            let mut g = Graph::new("m", opset);
            let x = g.add_input("x", Default::default()).unwrap();
            g.op("RoiAlign", &[x], []);
            assert!(raise_opset(&mut g).unwrap_err().message().contains("RoiAlign"));
            assert_eq!(g.opset(), opset);
        }
    }
}
