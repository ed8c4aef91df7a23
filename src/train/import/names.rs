//! Replaces names that exporters generate (`onnx::MatMul_123`, `val_92`) by those of the state
//! dict, where the file shows them.
//!
//! *partner*: the bias of a weight or the shift of a gain, and the other way round; where it kept
//! its name, `layer.query.bias` tells of `layer.query.weight`. *scope*: the older tracer names
//! nodes after the modules that they come from, `/layer/query/MatMul`.

use crate::error::Result;
use crate::onnx::{Graph, Node, NodeId, ValueId};
use crate::train::graphs::{GraphParameter, find_parameters};

/// A value under its new name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// The value.
    pub value: ValueId,
    /// Name in the file.
    pub old: String,
    /// Name in the state dict.
    pub new: String,
    /// Whether the file holds the transpose of what the state dict has under this name.
    pub transposed: bool,
}

/// Producers and consumers of values, by value index.
pub(super) struct Uses {
    producers: Vec<Option<(NodeId, usize)>>,
    pub(super) consumers: Vec<Vec<(NodeId, usize)>>,
}

impl Uses {
    pub(super) fn of(graph: &Graph) -> Self {
        Self { producers: graph.producers(), consumers: graph.consumers() }
    }
}

/// What a node's input is called in the state dict.
pub(super) struct StateName {
    pub name: String,
    pub transposed: bool,
}

/// Whether an exporter generated the name.
pub fn is_generated(name: &str) -> bool {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let numbered = stem.len() < name.len();
    name.starts_with("onnx::")
        || name.starts_with('/')
        || name.ends_with("_output_0")
        || stem.is_empty()
        || numbered && ["val_", "Constant_", "const_", "initializer_", "_v_"].contains(&stem)
}

/// Renames trainable parameters with generated names and one use, where a partner or a scope tells
/// the name and nothing else has it. Data stay as they lie.
pub fn restore_names(graph: &mut Graph) -> Result<Vec<Renamed>> {
    let uses = Uses::of(graph);
    let mut found: Vec<Renamed> = Vec::new();
    for p in find_parameters(graph).into_iter().filter(GraphParameter::trainable) {
        let &[(id, slot)] = &uses.consumers[p.value.index()][..] else { continue };
        if !is_generated(&p.name) {
            continue;
        }
        if let Some(named) = name_by_use(graph, &uses, id, slot) {
            let (old, new, transposed) = (p.name, named.name, named.transposed);
            found.push(Renamed { value: p.value, old, new, transposed });
        }
    }
    let names: Vec<String> = found.iter().map(|r| r.new.clone()).collect();
    let unique = |r: &Renamed| names.iter().filter(|n| **n == r.new).count() == 1;
    found.retain(|r| unique(r) && !graph.has_name(&r.new));
    found.iter().try_for_each(|r| graph.rename(r.value, &r.new))?;
    Ok(found)
}

/// The name in the state dict, as far as a use shows it.
pub(super) fn name_by_use(
    graph: &Graph,
    uses: &Uses,
    id: NodeId,
    slot: usize,
) -> Option<StateName> {
    let node = graph.node(id);
    let (part, transposed) = part(graph, node, slot)?;
    let by_partner = partner(graph, uses, node, slot).and_then(|v| {
        let (name, alone) = (graph.value_name(v), uses.consumers[v.index()].len() == 1);
        let stem = name.strip_suffix(if part == "weight" { "bias" } else { "weight" })?;
        (alone && !is_generated(name)).then(|| format!("{stem}{part}"))
    });
    let name = by_partner.or_else(|| scope(&node.name).map(|s| format!("{s}.{part}")))?;
    Some(StateName { name, transposed })
}

/// `weight` or `bias`, and whether a linear layer's weight lies here as `[in, out]`.
fn part(graph: &Graph, node: &Node, slot: usize) -> Option<(&'static str, bool)> {
    let rank_one = node
        .input(slot)
        .and_then(|v| graph.initializer(v))
        .is_some_and(|data| data.shape().len() == 1);
    Some(match (node.op.as_str(), slot) {
        ("MatMul", 1) => ("weight", true),
        ("Gemm", 1) => ("weight", node.int("transB") != Some(1)),
        ("Conv" | "ConvTranspose", 1) | ("Gather", 0) => ("weight", false),
        (op, 1) if op.ends_with("Normalization") => ("weight", false),
        (op, 2) if op.ends_with("Normalization") => ("bias", false),
        ("BatchNormalization", 3) => ("running_mean", false),
        ("BatchNormalization", 4) => ("running_var", false),
        ("Gemm" | "Conv" | "ConvTranspose", 2) => ("bias", false),
        ("Add", 0 | 1) if rank_one => ("bias", false),
        ("Mul", 0 | 1) if rank_one => ("weight", false),
        _ => return None,
    })
}

/// The product whose result an `Add` adds a bias to.
fn product<'g>(graph: &'g Graph, uses: &Uses, add: &Node, slot: usize) -> Option<&'g Node> {
    let (id, _) = uses.producers[add.input(1 - slot)?.index()]?;
    Some(graph.node(id)).filter(|n| n.op == "MatMul")
}

/// The bias beside a weight, the weight beside a bias.
fn partner(graph: &Graph, uses: &Uses, node: &Node, slot: usize) -> Option<ValueId> {
    let found = match (node.op.as_str(), slot) {
        ("MatMul", 1) => {
            let &[(id, at)] = &uses.consumers[node.output(0)?.index()][..] else { return None };
            let add = graph.node(id);
            if add.op != "Add" || at > 1 {
                return None;
            }
            add.input(1 - at)?
        }
        ("Add", _) => product(graph, uses, node, slot)?.input(1)?,
        ("Gather" | "Mul", _) => return None,
        (_, 1) => node.input(2)?,
        (_, 2) | ("BatchNormalization", 3 | 4) => node.input(1)?,
        _ => return None,
    };
    graph.initializer(found).map(|_| found)
}

/// `/model/layer.0/query/MatMul` gives `model.layer.0.query`.
fn scope(node: &str) -> Option<String> {
    let (modules, _op) = node.strip_prefix('/')?.rsplit_once('/')?;
    Some(modules.replace('/', "."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{Attribute, TensorData, ValueType};
    use crate::tensor::DType;

    fn zeros(shape: &[usize]) -> TensorData {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
        TensorData::from_slice(shape, &values).unwrap()
    }

    fn check(build: impl Fn(&mut Graph, ValueId) -> ValueId, expected: &[(&str, &str, bool)]) {
        let mut g = Graph::new("named", 17);
        let x = g.add_input("x", ValueType::known(DType::F32, &[2, 3, 3])).unwrap();
        let y = build(&mut g, x);
        g.add_output(y);
        let renamed = restore_names(&mut g).unwrap();
        let got: Vec<(&str, &str, bool)> =
            renamed.iter().map(|r| (r.old.as_str(), r.new.as_str(), r.transposed)).collect();
        assert_eq!(got, expected);
        assert!(renamed.iter().all(|r| g.find(&r.new) == Some(r.value)));
    }

    fn product(g: &mut Graph, x: ValueId, weight: &str, node: &str) -> ValueId {
        let w = g.add_initializer(weight, zeros(&[3, 3])).unwrap();
        let y = g.op("MatMul", &[x, w], []);
        let last = g.node_ids().next_back().unwrap();
        g.node_mut(last).name = node.into();
        y
    }

    fn plus(g: &mut Graph, y: ValueId, bias: &str) -> ValueId {
        let b = g.add_initializer(bias, zeros(&[3])).unwrap();
        g.op("Add", &[y, b], [])
    }

    #[test]
    fn a_bias_tells_the_name_of_its_weight() {
        check(
            |g, x| {
                let y = product(g, x, "val_7", "");
                let y = plus(g, y, "layer.query.bias");
                let y = product(g, y, "onnx::MatMul_3", "");
                plus(g, y, "in_proj_bias")
            },
            &[("val_7", "layer.query.weight", true), ("onnx::MatMul_3", "in_proj_weight", true)],
        );
    }

    #[test]
    fn a_scope_tells_the_name_where_there_is_no_bias() {
        check(
            |g, x| product(g, x, "onnx::MatMul_702", "/m/layers.0/q_proj/MatMul"),
            &[("onnx::MatMul_702", "m.layers.0.q_proj.weight", true)],
        );
    }

    #[test]
    fn a_gain_tells_the_name_of_its_shift() {
        check(
            |g, x| {
                let gain = g.add_initializer("norm.weight", zeros(&[3])).unwrap();
                let shift = g.add_initializer("val_1", zeros(&[3])).unwrap();
                g.op("LayerNormalization", &[x, gain, shift], [])
            },
            &[("val_1", "norm.bias", false)],
        );
    }

    /// A bias with two uses stands for two parameters; other names and taken ones stay; of two
    /// candidates for one name none gets it.
    #[test]
    fn what_is_not_certain_keeps_its_name() {
        check(
            |g, x| {
                let bias = g.add_initializer("shared.bias", zeros(&[3])).unwrap();
                let y = product(g, x, "val_1", "");
                let y = g.op("Add", &[y, bias], []);
                let y = product(g, y, "val_2", "");
                let y = g.op("Add", &[y, bias], []);
                let y = product(g, y, "mine", "/scope/MatMul");
                let y = product(g, y, "val_3", "/twice/MatMul");
                let y = product(g, y, "val_4", "/twice/MatMul");
                let y = product(g, y, "val_5", "/taken/MatMul");
                let taken = g.add_initializer("taken.weight", zeros(&[3, 3])).unwrap();
                let axes = Attribute::Ints(vec![0, 1]);
                let taken = g.op("Transpose", &[taken], [("perm", axes)]);
                g.op("Add", &[y, taken], [])
            },
            &[],
        );
    }

    #[test]
    fn generated_names() {
        for name in ["onnx::MatMul_1", "val_92", "123", "/a/Constant_1_output_0", "Constant_4"] {
            assert!(is_generated(name), "{name}");
        }
        for name in ["h.0.attn.c_attn.weight", "classifier.bias", "w1", "val_x", "weight"] {
            assert!(!is_generated(name), "{name}");
        }
    }
}
