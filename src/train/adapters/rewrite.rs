//! The graph around a product with an adapter:
//!
//! ```text
//! y = x W + b    becomes    y = (x W + b) + α/r · dropout(x) Aᵀ Bᵀ
//! ```
//!
//! *site*: one such place. A matrix that several products read has several, with one A and B.

use super::targets::Target;
use crate::error::{Error, Result};
use crate::onnx::{Attribute, Attributes, Graph, Node, NodeId, TensorData, ValueId};
use crate::tensor::DType;

/// A place where an adapter's product is added.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    /// What the layer gives without the adapter.
    base: ValueId,
    /// With it, under the name that the layer's result has always had.
    sum: ValueId,
}

/// What the graph of every adapter shares.
pub(super) struct Rewrite {
    /// The dropout's ratio, and that it is in training mode; `None` without dropout.
    dropout: Option<[ValueId; 2]>,
    n_dropouts: i64,
}

impl Rewrite {
    pub fn new(graph: &mut Graph, dropout: f32) -> Result<Self> {
        let mut constant = |dtype, value: f64| {
            let value = Attribute::Tensor(TensorData::scalar(dtype, value)?);
            Ok::<_, Error>(graph.op("Constant", &[], [("value", value)]))
        };
        let dropout = match dropout {
            0.0 => None,
            ratio => Some([constant(DType::F32, f64::from(ratio))?, constant(DType::Bool, 1.0)?]),
        };
        Ok(Self { dropout, n_dropouts: 0 })
    }

    /// Adds `scale · dropout(x) Aᵀ Bᵀ` at every product of the target. A is `[rank, in]`, B
    /// `[out, rank]`.
    pub fn add(
        &mut self,
        graph: &mut Graph,
        target: &Target,
        (a, b): (ValueId, ValueId),
        scale: f64,
    ) -> Result<Vec<Site>> {
        // What MatMul reads has any rank, so that A and B are turned around for it.
        let mut turned = None;
        let mut sites = Vec::new();
        for &id in &target.products {
            let node = graph.node(id).clone();
            let (Some(x), Some(y)) = (node.input(0), node.output(0)) else {
                return Err(Error::internal("a product without a factor or a result"));
            };
            let dropped = self.dropped(graph, x);
            let (at, added) = if node.op == "Gemm" {
                (id, gemm(graph, &node, dropped, (a, b), scale))
            } else {
                let (a, b) = match turned {
                    Some(pair) => pair,
                    None => *turned.insert((transpose(graph, a), scaled(graph, b, target, scale)?)),
                };
                let h = graph.op("MatMul", &[dropped, a], []);
                (bias_of(graph, id, y).unwrap_or(id), graph.op("MatMul", &[h, b], []))
            };
            sites.push(insert(graph, at, added)?);
        }
        Ok(sites)
    }

    fn dropped(&mut self, graph: &mut Graph, x: ValueId) -> ValueId {
        let Some([ratio, training]) = self.dropout else { return x };
        self.n_dropouts += 1;
        graph.op("Dropout", &[x, ratio, training], [("seed", Attribute::Int(self.n_dropouts))])
    }
}

fn transpose(graph: &mut Graph, matrix: ValueId) -> ValueId {
    graph.op("Transpose", &[matrix], [("perm", Attribute::Ints(vec![1, 0]))])
}

/// `scale · Bᵀ`: fewer elements than the product has.
fn scaled(graph: &mut Graph, b: ValueId, target: &Target, scale: f64) -> Result<ValueId> {
    let turned = transpose(graph, b);
    if scale == 1.0 {
        return Ok(turned);
    }
    let value = Attribute::Tensor(TensorData::scalar(target.dtype, scale)?);
    let factor = graph.op("Constant", &[], [("value", value)]);
    Ok(graph.op("Mul", &[turned, factor], []))
}

/// `s · x Aᵀ Bᵀ`, where s contains what Gemm multiplies its own product by.
fn gemm(
    graph: &mut Graph,
    node: &Node,
    x: ValueId,
    (a, b): (ValueId, ValueId),
    scale: f64,
) -> ValueId {
    let turned = Attribute::Int(node.int("transA").unwrap_or(0));
    let attributes = [("transA", turned), ("transB", Attribute::Int(1))];
    let h = graph.op("Gemm", &[x, a], attributes);
    let alpha = (f64::from(node.float("alpha").unwrap_or(1.0)) * scale) as f32;
    let attributes = [("alpha", Attribute::Float(alpha)), ("transB", Attribute::Int(1))];
    graph.op("Gemm", &[h, b], attributes)
}

/// The sum that alone reads a product and adds a row to it: product and bias stay side by side, so
/// that the runtime computes them as it did.
fn bias_of(graph: &Graph, product: NodeId, y: ValueId) -> Option<NodeId> {
    if graph.outputs().contains(&y) {
        return None;
    }
    let reads = |n: &Node| n.inputs.contains(&Some(y)) || !n.captures().is_empty();
    let mut readers = graph.node_ids().filter(|&id| id != product && reads(graph.node(id)));
    let (id, None) = (readers.next()?, readers.next()) else { return None };
    let node = graph.node(id);
    let row = match (node.input(0)?, node.input(1)?) {
        (first, row) if first == y => row,
        (row, second) if second == y => row,
        _ => return None,
    };
    let is_row = graph.constant(row).is_some_and(|data| data.shape().len() == 1);
    (node.op == "Add" && node.domain.is_empty() && is_row).then_some(id)
}

/// Adds a value to what a node gives: whoever read that reads the sum.
fn insert(graph: &mut Graph, at: NodeId, added: ValueId) -> Result<Site> {
    let sum = graph.node(at).output(0).ok_or_else(|| Error::internal("a node without a result"))?;
    let name = graph.fresh_name("lora");
    let base = graph.add_value(&name)?;
    graph.set_type(base, graph.value(sum).ty.clone());
    graph.node_mut(at).outputs[0] = Some(base);
    graph.push_node(Node {
        name: String::new(),
        op: "Add".into(),
        domain: String::new(),
        inputs: vec![Some(base), Some(added)],
        outputs: vec![Some(sum)],
        attributes: Attributes::new(),
    });
    Ok(Site { base, sum })
}

/// Takes the adapters out again: every layer gives what it gave without them.
pub(super) fn take_out<'a>(graph: &mut Graph, sites: impl Iterator<Item = &'a Site>) -> Result<()> {
    for site in sites {
        graph.retain_nodes(|_, n| n.output(0) != Some(site.sum));
        let maker = graph.node_ids().find(|&id| graph.node(id).output(0) == Some(site.base));
        let maker = maker.ok_or_else(|| Error::internal("a layer with an adapter is gone"))?;
        graph.node_mut(maker).outputs[0] = Some(site.sum);
    }
    graph.prune();
    graph.sort()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::ValueType;
    use crate::train::adapters::targets::find_targets;
    use crate::train::graphs::find_parameters;

    /// `tanh(x W + b)` with the bias on either side.
    fn layer(bias_first: bool) -> Graph {
        let mut g = Graph::new("layer", 17);
        let x = g.add_input("x", ValueType::known(DType::F32, &[2, 3, 4])).unwrap();
        let mut hold = |name: &str, shape: &[usize]| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|i| i as f32).collect();
            g.add_initializer(name, TensorData::from_slice(shape, &values).unwrap()).unwrap()
        };
        let (w, row) = (hold("w.weight", &[4, 5]), hold("w.bias", &[5]));
        let y = g.op("MatMul", &[x, w], []);
        let y = g.op("Add", &if bias_first { [row, y] } else { [y, row] }, []);
        let y = g.op("Tanh", &[y], []);
        g.add_output(y);
        g
    }

    fn text(graph: &Graph) -> Vec<String> {
        let name = |v: &Option<ValueId>| v.map_or("", |v| graph.value_name(v)).to_owned();
        let node = |n: &Node| {
            let list = |vs: &[Option<ValueId>]| vs.iter().map(name).collect::<Vec<_>>().join(" ");
            format!("{} = {} {}", list(&n.outputs), n.op, list(&n.inputs))
        };
        graph.nodes().iter().map(node).collect()
    }

    #[test]
    fn product_and_bias_stay_side_by_side_and_the_graph_comes_back() {
        for bias_first in [false, true] {
            let mut graph = layer(bias_first);
            let before = text(&graph);
            let target = find_targets(&graph, &find_parameters(&graph)).remove(0);
            let mut hold = |name: &str, shape: &[usize]| {
                let zeros = vec![0f32; shape.iter().product()];
                graph.add_initializer(name, TensorData::from_slice(shape, &zeros).unwrap()).unwrap()
            };
            let pair = (hold("a", &[2, 4]), hold("b", &[5, 2]));
            let mut rewrite = Rewrite::new(&mut graph, 0.5).unwrap();
            let sites = rewrite.add(&mut graph, &target, pair, 0.5).unwrap();
            graph.sort().unwrap();
            let product = graph.nodes().iter().find(|n| n.op == "MatMul").unwrap().output(0);
            let reads = |n: &&Node| n.inputs.contains(&product);
            let bias = graph.nodes().iter().find(reads).unwrap();
            assert!(bias.inputs.contains(&graph.find("w.bias")), "{:?}", text(&graph));
            assert_eq!(bias.output(0), Some(sites[0].base));
            take_out(&mut graph, sites.iter()).unwrap();
            assert_eq!(text(&graph), before);
        }
    }
}
