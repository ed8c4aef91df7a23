//! Finds from the graph what each parameter is used for, for models whose names do not show it.
//!
//! *product*: a MatMul or Gemm with a parameter, and its bias. Products are distinguished by their
//! position around a softmax, an activation and the norms. Where that is not enough the use is
//! `None`.

use std::collections::BTreeSet;

use crate::onnx::{Graph, Node, NodeId, ValueId};
use crate::optim::{Usage, UseKind, WeightLayout, WeightOrBias};

/// Most values that a trace visits.
const MAX_VISITS: usize = 256;

/// Operators that only move, mask or scale the result of a product.
const MOVES: &[&str] = &[
    "Reshape",
    "Transpose",
    "Split",
    "Slice",
    "Squeeze",
    "Unsqueeze",
    "Cast",
    "CastLike",
    "Identity",
    "Expand",
    "Flatten",
    "Dropout",
    "Mul",
    "Div",
    "Add",
    "Sub",
    "Neg",
    "Concat",
    "Where",
    "Clip",
    "Max",
    "Min",
    "Gather",
];
/// Operators between the two products of an mlp.
const ACTIVATES: &[&str] = &[
    "Gelu",
    "Erf",
    "Tanh",
    "Relu",
    "Sigmoid",
    "Silu",
    "Mul",
    "Add",
    "Div",
    "Pow",
    "Cast",
    "Identity",
    "Dropout",
    "Reshape",
    "LeakyRelu",
    "Elu",
    "Softplus",
    "Sqrt",
    "HardSwish",
];
/// Of those, the ones that make a branch of a gated mlp the gate.
const NONLINEAR: &[&str] = &["Gelu", "Erf", "Tanh", "Relu", "Sigmoid", "Silu", "HardSwish"];
/// Operators between a norm and the products that read its result.
const FEEDS: &[&str] = &["Reshape", "Transpose", "Cast", "Identity", "Flatten", "Dropout"];
/// Operators between a norm and the residual sum that reads its result.
const QUIET: &[&str] = &["Dropout", "Identity", "Cast"];
const NORMS: &[&str] = &["LayerNormalization", "RMSNormalization"];

struct Product {
    node: NodeId,
    weight: usize,
    bias: Option<usize>,
    layout: WeightLayout,
    /// Inputs and outputs of the linear map.
    n_in: usize,
    n_out: usize,
    input: ValueId,
    output: ValueId,
    kind: Option<UseKind>,
}

/// The use of each parameter in `parameters`, in their order.
pub(in crate::train) fn usages(graph: &Graph, parameters: &[ValueId]) -> Vec<Option<Usage>> {
    let mut finder = Finder {
        graph,
        parameters,
        producers: graph.producers(),
        consumers: graph.consumers(),
        products: Vec::new(),
    };
    finder.find_products();
    finder.find_attention();
    finder.find_mlp();
    finder.find_head();
    finder.collect()
}

struct Finder<'a> {
    graph: &'a Graph,
    parameters: &'a [ValueId],
    producers: Vec<Option<(NodeId, usize)>>,
    consumers: Vec<Vec<(NodeId, usize)>>,
    products: Vec<Product>,
}

/// What a trace towards the inputs found.
#[derive(Default)]
struct Upstream {
    products: BTreeSet<usize>,
    norm: bool,
}

impl Finder<'_> {
    fn producer(&self, v: ValueId) -> Option<&Node> {
        self.producers[v.index()].map(|(id, _)| self.graph.node(id))
    }

    /// The parameter behind `v`, and whether it is read transposed.
    fn parameter(&self, mut v: ValueId) -> Option<(usize, bool)> {
        let mut transposed = false;
        for _ in 0..8 {
            if let Some(i) = self.parameters.iter().position(|&p| p == v) {
                return Some((i, transposed));
            }
            let node = self.producer(v)?;
            match node.op.as_str() {
                "Transpose" => transposed = !transposed,
                "Identity" | "Cast" | "Reshape" | "Unsqueeze" | "Squeeze" => {}
                _ => return None,
            }
            v = node.input(0)?;
        }
        None
    }

    fn find_products(&mut self) {
        for id in self.graph.node_ids() {
            let node = self.graph.node(id);
            if !matches!(node.op.as_str(), "MatMul" | "Gemm") {
                continue;
            }
            let (Some(input), Some(w), Some(output)) =
                (node.input(0), node.input(1), node.output(0))
            else {
                continue;
            };
            let Some((weight, flip)) = self.parameter(w) else { continue };
            let shape = self.graph.value(self.parameters[weight]).ty.static_shape();
            let Some(&[rows, columns]) = shape.as_deref() else { continue };
            let out_in = flip != (node.op == "Gemm" && node.int("transB") == Some(1));
            let (n_in, n_out) = if out_in { (columns, rows) } else { (rows, columns) };
            let layout = if out_in { WeightLayout::OutIn } else { WeightLayout::InOut };
            let (bias, output) = self.bias(node, output);
            let kind = None;
            let product =
                Product { node: id, weight, bias, layout, n_in, n_out, input, output, kind };
            self.products.push(product);
        }
    }

    /// The bias that is added to a product, and the sum.
    fn bias(&self, node: &Node, output: ValueId) -> (Option<usize>, ValueId) {
        if let Some((bias, _)) = node.input(2).and_then(|c| self.parameter(c)) {
            return (Some(bias), output);
        }
        if let [(id, slot)] = self.consumers[output.index()][..]
            && slot < 2
            && self.graph.node(id).op == "Add"
            && let Some((bias, _)) =
                self.graph.node(id).input(1 - slot).and_then(|v| self.parameter(v))
            && let Some(sum) = self.graph.node(id).output(0)
        {
            return (Some(bias), sum);
        }
        (None, output)
    }

    fn product_of(&self, id: NodeId) -> Option<usize> {
        self.products.iter().position(|p| p.node == id)
    }

    /// Products whose results reach `v` through `pass` operators.
    fn upstream(&self, v: ValueId, pass: &[&str]) -> Upstream {
        let mut found = Upstream::default();
        let mut seen = BTreeSet::new();
        let mut todo = vec![v];
        while let Some(v) = todo.pop() {
            if !seen.insert(v) || seen.len() > MAX_VISITS {
                continue;
            }
            let Some((id, _)) = self.producers[v.index()] else { continue };
            let node = self.graph.node(id);
            if let Some(p) = self.product_of(id) {
                found.products.insert(p);
            } else if NORMS.contains(&node.op.as_str()) {
                found.norm = true;
            } else if pass.contains(&node.op.as_str()) {
                todo.extend(node.inputs.iter().flatten());
            }
        }
        found
    }

    /// Nodes that `v` reaches through `pass` operators; those themselves are not among them.
    fn downstream(&self, v: ValueId, pass: &[&str]) -> Vec<(NodeId, usize)> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let mut todo = vec![v];
        while let Some(v) = todo.pop() {
            if !seen.insert(v) || seen.len() > MAX_VISITS {
                continue;
            }
            for &(id, slot) in &self.consumers[v.index()] {
                let node = self.graph.node(id);
                if pass.contains(&node.op.as_str()) && self.product_of(id).is_none() {
                    todo.extend(node.outputs.iter().flatten());
                } else {
                    found.push((id, slot));
                }
            }
        }
        found.sort_unstable();
        found
    }

    fn only(&self, v: ValueId) -> Option<usize> {
        let found = self.upstream(v, MOVES).products;
        if found.len() == 1 { found.first().copied() } else { None }
    }

    fn find_attention(&mut self) {
        let mut found = Vec::new();
        for id in self.graph.node_ids() {
            let node = self.graph.node(id);
            let parts = match node.op.as_str() {
                "Softmax" => self.around_softmax(node),
                "Attention" => [node.input(0), node.input(1), node.input(2), node.output(0)]
                    .into_iter()
                    .collect::<Option<Vec<_>>>(),
                _ => None,
            };
            let Some(&[query, key, value, context]) = parts.as_deref() else { continue };
            let (q, k, v) = (self.only(query), self.only(key), self.only(value));
            let (Some(q), Some(k), Some(v)) = (q, k, v) else { continue };
            if q == k && k == v {
                found.push((q, UseKind::FusedQkv));
            } else if q != k && k != v {
                let kinds = [UseKind::ScoreLeft, UseKind::ScoreRight, UseKind::Context];
                found.extend([q, k, v].into_iter().zip(kinds));
            }
            let after = self.downstream(context, MOVES);
            let after = after.iter().find_map(|&(id, _)| self.product_of(id));
            found.extend(after.map(|p| (p, UseKind::AfterContext)));
        }
        for (p, kind) in found {
            self.products[p].kind = Some(kind);
        }
    }

    /// Left and right operand of the scores, the values, and the context.
    fn around_softmax(&self, softmax: &Node) -> Option<Vec<ValueId>> {
        let free = |node: &Node| node.op == "MatMul";
        let mut todo = vec![softmax.input(0)?];
        let mut seen = BTreeSet::new();
        let score = loop {
            let v = todo.pop()?;
            if !seen.insert(v) || seen.len() > MAX_VISITS {
                continue;
            }
            let Some((id, _)) = self.producers[v.index()] else { continue };
            let node = self.graph.node(id);
            if free(node) && self.product_of(id).is_none() {
                break node;
            } else if MOVES.contains(&node.op.as_str()) {
                todo.extend(node.inputs.iter().flatten());
            }
        };
        let reached = self.downstream(softmax.output(0)?, MOVES);
        let context = reached.iter().find_map(|&(id, slot)| {
            let node = self.graph.node(id);
            (slot == 0 && free(node) && self.product_of(id).is_none()).then_some(node)
        })?;
        Some(vec![score.input(0)?, score.input(1)?, context.input(1)?, context.output(0)?])
    }

    fn find_mlp(&mut self) {
        let mut found = Vec::new();
        for (q, down) in self.products.iter().enumerate().filter(|(_, p)| p.kind.is_none()) {
            if down.n_in <= down.n_out {
                continue;
            }
            let sources = self.upstream(down.input, ACTIVATES);
            let ups: Vec<usize> = sources
                .products
                .iter()
                .copied()
                .filter(|&p| {
                    let up = &self.products[p];
                    up.kind.is_none() && up.n_out == down.n_in && up.n_in == down.n_out
                })
                .collect();
            match ups[..] {
                [up] if sources.products.len() == 1 => found.push((up, UseKind::Expanding)),
                [a, b] if sources.products.len() == 2 => {
                    let (gate, up) = if self.is_activated(a) { (a, b) } else { (b, a) };
                    found.extend([(gate, UseKind::Gate), (up, UseKind::Expanding)]);
                }
                _ => continue,
            }
            found.push((q, UseKind::Contracting));
        }
        for (p, kind) in found {
            self.products[p].kind = Some(kind);
        }
    }

    fn is_activated(&self, product: usize) -> bool {
        self.consumers[self.products[product].output.index()]
            .iter()
            .any(|&(id, _)| NONLINEAR.contains(&self.graph.node(id).op.as_str()))
    }

    fn find_head(&mut self) {
        let outputs: Vec<_> =
            self.graph.outputs().iter().map(|&v| self.upstream(v, MOVES).products).collect();
        for p in outputs.into_iter().filter(|found| found.len() == 1).flatten() {
            if self.products[p].kind.is_none() {
                self.products[p].kind = Some(UseKind::Head);
            }
        }
    }

    fn norm(&self, node: &Node) -> Option<UseKind> {
        let (x, y) = (node.input(0)?, node.output(0)?);
        let kind = |p: &usize| self.products[*p].kind;
        let above = self.upstream(x, MOVES);
        let residual = self.downstream(y, QUIET).into_iter().any(|(id, slot)| {
            let add = self.graph.node(id);
            add.op == "Add"
                && slot < 2
                && add.input(1 - slot).is_some_and(|v| self.parameter(v).is_none())
        });
        if residual || above.norm {
            let mut sources = above.products.iter().map(kind);
            // Tables can be read by products too, but nothing of a block lies above.
            if !above.norm && sources.clone().all(|kind| kind.is_none()) {
                return Some(UseKind::EmbeddingNorm);
            }
            return match (sources.next(), sources.next()) {
                (Some(Some(UseKind::AfterContext)), None) => Some(UseKind::NormAfterAttention),
                (Some(Some(UseKind::Contracting)), None) => Some(UseKind::NormAfterMlp),
                _ => None,
            };
        }
        let fed = self.downstream(y, FEEDS);
        let fed: Vec<_> = fed.iter().filter_map(|&(id, _)| kind(&self.product_of(id)?)).collect();
        use UseKind::*;
        if fed.iter().any(|k| matches!(k, ScoreLeft | ScoreRight | Context | FusedQkv)) {
            Some(NormBeforeAttention)
        } else if fed.iter().any(|k| matches!(k, Expanding | Gate)) {
            Some(NormBeforeMlp)
        } else if !above.products.is_empty() {
            Some(FinalNorm)
        } else {
            None
        }
    }

    /// The table behind a look-up, by tokens or by positions; the first rows of one that is
    /// sliced are those of the positions.
    fn table(&self, node: &Node) -> Option<(usize, UseKind)> {
        if !matches!(node.op.as_str(), "Gather" | "Slice") {
            return None;
        }
        let (table, _) = self.parameter(node.input(0)?)?;
        if node.op == "Slice" {
            // A table of a few rows tells segments apart, not positions.
            let rows = self.graph.value(self.parameters[table]).ty.static_shape()?;
            return (*rows.first()? > 4).then_some((table, UseKind::PositionTable));
        }
        let mut ids = node.input(1)?;
        while let Some(from) = self.producer(ids) {
            if !matches!(from.op.as_str(), "Cast" | "Identity" | "Reshape") {
                return Some((table, UseKind::PositionTable));
            }
            ids = from.input(0)?;
        }
        let fed = self.graph.inputs().contains(&ids);
        let name = self.graph.value_name(ids);
        let by_position = !fed || name.contains("position");
        let by_type = fed && name.contains("type");
        if by_type {
            return None;
        }
        Some((table, if by_position { UseKind::PositionTable } else { UseKind::Table }))
    }

    fn collect(&self) -> Vec<Option<Usage>> {
        let mut usages: Vec<Option<Usage>> = vec![None; self.parameters.len()];
        let mut set = |index: usize, usage: Usage| {
            usages[index].get_or_insert(usage);
        };
        let mut orders: Vec<(UseKind, usize)> = Vec::new();
        let mut order = |kind: UseKind| match orders.iter_mut().find(|(k, _)| *k == kind) {
            Some((_, n)) => {
                *n += 1;
                *n
            }
            None => {
                orders.push((kind, 0));
                0
            }
        };
        for id in self.graph.node_ids() {
            let node = self.graph.node(id);
            if let Some(p) = self.product_of(id) {
                let product = &self.products[p];
                let order = product.kind.map_or(0, &mut order);
                let layout = Some(product.layout);
                let usage = |part, layout| Usage { kind: product.kind, part, layout, order };
                set(product.weight, usage(WeightOrBias::Weight, layout));
                if let Some(bias) = product.bias {
                    set(bias, usage(WeightOrBias::Bias, None));
                }
            } else if NORMS.contains(&node.op.as_str()) {
                let Some(kind) = self.norm(node) else { continue };
                let order = order(kind);
                for (slot, part) in [(1, WeightOrBias::Weight), (2, WeightOrBias::Bias)] {
                    if let Some((p, _)) = node.input(slot).and_then(|v| self.parameter(v)) {
                        set(p, Usage { kind: Some(kind), part, layout: None, order });
                    }
                }
            } else if let Some((p, kind)) = self.table(node) {
                let (part, order) = (WeightOrBias::Weight, order(kind));
                set(p, Usage { kind: Some(kind), part, layout: None, order });
            }
        }
        usages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{Config, Sizes, Task, build};
    use crate::optim::{ParamSpec, Role, classify};

    /// Roles from the graph alone, under names that say nothing, against roles from names.
    fn check(config: &Config, expected_named: usize) {
        let graph = build(config, Task::SequenceClassification { num_labels: 2 }, None, 0).unwrap();
        let graph = graph.graph;
        let ids: Vec<ValueId> = graph.initializers().keys().copied().collect();
        let mut same = 0;
        for (&id, usage) in ids.iter().zip(usages(&graph, &ids)) {
            let (name, ty) = (graph.value_name(id), &graph.value(id).ty);
            let named = ParamSpec::new(name, &ty.static_shape().unwrap());
            let order = usage.map_or(0, |u| u.order);
            let blind = ParamSpec { name: "onnx::1".into(), usage, ..named.clone() };
            let (named, blind) = (classify(&named, 0), classify(&blind, order));
            if blind.is_empty() {
                continue;
            }
            assert_eq!(blind.len(), named.len(), "{name}: {usage:?}");
            for (b, n) in blind.iter().zip(&named) {
                assert_eq!(
                    (b.role, b.part, &b.view),
                    (n.role, n.part, &n.view),
                    "{name}: {usage:?}"
                );
                assert!(n.role == Role::Head || b.block == n.block, "{name}: {b:?} {n:?}");
            }
            same += 1;
        }
        assert_eq!(same, expected_named, "of {}", ids.len());
    }

    #[test]
    fn roles_from_graphs_are_those_from_names() {
        let sizes = Sizes {
            layers: 3,
            hidden: 16,
            heads: 2,
            intermediate: 48,
            vocab: 30,
            positions: 20,
            dropout: 0.1,
        };
        // Of BERT's 57 parameters all but the type table and the pooler.
        check(&Config::bert(&sizes), 16 * 3 + 4 + 2);
        // Of RoBERTa's 57 all but the type table and the dense layer of the head.
        check(&Config::roberta(&sizes), 16 * 3 + 4 + 2);
        // All of GPT-2's 41.
        check(&Config::gpt2(&sizes), 12 * 3 + 2 + 2 + 1);
    }
}
