//! The memory that a pass takes, foreseen from its graph: the runtime's order of nodes is walked as
//! the runtime plans memory for it.
//!
//! *storage*: the memory of values that are the same bytes under several shapes. Inputs, outputs
//! and constants are bound or lie in the session and count nothing.

use std::collections::HashSet;

use crate::onnx::{Graph, MMOPT_DOMAIN, Node, NodeId, ValueId};
use crate::tensor::DType;

/// Bytes of working memory of one pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassMemory {
    /// Values that the forward part computes and the backward part reads: activations. 0 for
    /// graphs without a backward part.
    pub activations: usize,
    /// The most that is held at the same time, activations and what either part needs besides.
    pub peak: usize,
}

impl PassMemory {
    /// Passes that take this much or more run in turn, and their threads spin: measured, see
    /// docs/performance.md.
    pub const LARGE: usize = 64 << 20;
}

/// Operators whose result is their first input in another shape.
const SAME_BYTES: &[&str] = &["Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"];
/// Operators that write their result over an input that nothing else needs.
const IN_PLACE: &[&str] = &[
    "Abs",
    "Add",
    "Div",
    "Elu",
    "Erf",
    "Exp",
    "LeakyRelu",
    "Log",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Pow",
    "Reciprocal",
    "Relu",
    "Sigmoid",
    "Sqrt",
    "Sub",
    "Tanh",
];

/// What a pass over `graph`, all of whose values have types, takes; `forward` are the values that
/// its forward part makes.
pub(super) fn pass_memory(graph: &Graph, forward: &HashSet<ValueId>) -> PassMemory {
    let storage = Storage::of(graph);
    let peak = storage.walk(graph, &execution_order(graph));
    let is_backward = |node: &Node| !node.outputs.iter().flatten().any(|v| forward.contains(v));
    let mut kept = HashSet::new();
    for node in graph.nodes().iter().filter(|node| is_backward(node)) {
        let read = node.inputs.iter().flatten().filter(|v| forward.contains(v));
        kept.extend(read.map(|v| storage.root[v.index()]));
    }
    let activations = kept.into_iter().map(|root| storage.bytes[root]).sum();
    PassMemory { activations, peak }
}

/// The order in which ONNX Runtime executes nodes: depth first from the nodes whose results no node
/// reads, the last of them first, and of a node's inputs the last first (its
/// `GraphViewer::GetNodesInTopologicalOrder`).
fn execution_order(graph: &Graph) -> Vec<NodeId> {
    let (producers, consumers) = (graph.producers(), graph.consumers());
    let is_leaf = |id: &NodeId| {
        graph.node(*id).outputs.iter().flatten().all(|v| consumers[v.index()].is_empty())
    };
    let mut stack: Vec<(NodeId, bool)> =
        graph.node_ids().filter(is_leaf).map(|id| (id, false)).collect();
    let mut seen = vec![false; graph.nodes().len()];
    let mut order = Vec::with_capacity(seen.len());
    while let Some((id, leaving)) = stack.pop() {
        if leaving {
            order.push(id);
            continue;
        }
        if std::mem::replace(&mut seen[id.index()], true) {
            continue;
        }
        stack.push((id, true));
        let inputs = graph.node(id).inputs.iter().flatten();
        let mut before: Vec<NodeId> =
            inputs.filter_map(|v| producers[v.index()]).map(|(id, _)| id).collect();
        before.sort_unstable_by_key(|id| id.index());
        before.dedup();
        stack.extend(before.into_iter().map(|id| (id, false)));
    }
    order
}

/// Which memory each value lies in, by value index.
struct Storage {
    /// The index of the first value that lies there.
    root: Vec<usize>,
    /// Bytes of a root; 0 for what is not working memory.
    bytes: Vec<usize>,
    /// Nodes that read what lies there.
    n_reads: Vec<usize>,
}

impl Storage {
    fn of(graph: &Graph) -> Self {
        let n = graph.values().len();
        let mut storage = Self { root: (0..n).collect(), bytes: vec![0; n], n_reads: vec![0; n] };
        let consumers = graph.consumers();
        let outputs: HashSet<ValueId> = graph.outputs().iter().copied().collect();
        for node in graph.nodes() {
            let source = node.input(0).filter(|_| is_same_bytes(graph, node, &consumers));
            for &v in node.outputs.iter().flatten() {
                match source {
                    Some(x) if !outputs.contains(&v) => {
                        storage.root[v.index()] = storage.root[x.index()];
                    }
                    _ if outputs.contains(&v) || node.op == "Constant" => {}
                    _ => storage.bytes[v.index()] = bytes(graph, v),
                }
            }
        }
        for node in graph.nodes() {
            storage.reads(node).into_iter().for_each(|root| storage.n_reads[root] += 1);
        }
        storage
    }

    /// The storage that a node reads, each once.
    fn reads(&self, node: &Node) -> Vec<usize> {
        let mut roots: Vec<usize> =
            node.inputs.iter().flatten().map(|v| self.root[v.index()]).collect();
        roots.sort_unstable();
        roots.dedup();
        roots
    }

    /// The most that is held while the nodes run. As the runtime plans it, memory of a value that
    /// is needed no more goes to the next value of the same type and shape, and is held until then.
    fn walk(&self, graph: &Graph, order: &[NodeId]) -> usize {
        let mut left = self.n_reads.clone();
        let mut buffers: Vec<Buffer> = Vec::new();
        let mut of = vec![None; self.root.len()];
        let mut free: Vec<usize> = Vec::new();
        for (step, &id) in order.iter().enumerate() {
            let node = graph.node(id);
            let reads = self.reads(node);
            let ends = |root: &usize| left[*root] == 1 && self.bytes[*root] > 0;
            let mut ended: Vec<usize> = reads.iter().copied().filter(ends).collect();
            for v in node.outputs.iter().flatten().filter(|v| self.bytes[v.index()] > 0) {
                let ty = &graph.value(*v).ty;
                let fits = |b: &usize| graph.value(buffers[*b].like).ty == *ty;
                let over = |r: &usize| {
                    let mut inputs = node.inputs.iter().flatten();
                    inputs.any(|x| self.root[x.index()] == *r && graph.value(*x).ty == *ty)
                };
                let over = ended.iter().position(over);
                let dead = free.iter().rposition(fits);
                of[v.index()] = match (over.filter(|_| is_in_place(node)), dead) {
                    (Some(at), _) => of[ended.swap_remove(at)],
                    (None, Some(at)) => Some(free.remove(at)),
                    (None, None) => {
                        let bytes = self.bytes[v.index()];
                        buffers.push(Buffer { like: *v, bytes, from: step, to: step });
                        Some(buffers.len() - 1)
                    }
                };
            }
            reads.iter().for_each(|&root| left[root] = left[root].saturating_sub(1));
            // What nothing reads goes at once.
            let unread = node.outputs.iter().flatten().map(|v| v.index());
            ended.extend(unread.filter(|&v| self.n_reads[v] == 0 && self.bytes[v] > 0));
            for b in ended.into_iter().filter_map(|root| of[root]) {
                buffers[b].to = step;
                free.push(b);
            }
        }
        most_at_once(&buffers, order.len())
    }
}

/// Memory that values of one type take in turn, from one step to another.
struct Buffer {
    like: ValueId,
    bytes: usize,
    from: usize,
    to: usize,
}

fn most_at_once(buffers: &[Buffer], n_steps: usize) -> usize {
    let mut change = vec![(0usize, 0usize); n_steps + 1];
    for b in buffers {
        change[b.from].0 += b.bytes;
        change[b.to].1 += b.bytes;
    }
    let (mut now, mut peak) = (0usize, 0usize);
    for (begin, end) in change {
        now += begin;
        peak = peak.max(now);
        now -= end;
    }
    peak
}

fn is_in_place(node: &Node) -> bool {
    node.domain.is_empty() && IN_PLACE.contains(&node.op.as_str())
}

/// Whether a node's result lies where its first input does. A transpose that only products read is
/// a part of them.
fn is_same_bytes(graph: &Graph, node: &Node, consumers: &[Vec<(NodeId, usize)>]) -> bool {
    if node.domain.is_empty() && SAME_BYTES.contains(&node.op.as_str()) {
        return true;
    }
    let Some(y) = node.output(0).filter(|_| node.op == "Transpose") else { return false };
    let swaps_last = node.ints("perm").is_none_or(|perm| {
        let n = perm.len();
        n >= 2 && perm[n - 2..] == [n as i64 - 1, n as i64 - 2]
    });
    let is_product = |(id, _): &(NodeId, usize)| {
        let node = graph.node(*id);
        node.op == "MatMul"
            || node.op == "Gemm"
            || node.domain == MMOPT_DOMAIN && node.op.starts_with("MatMul")
    };
    swaps_last && consumers[y.index()].iter().all(is_product)
}

/// Bytes of a value; 0 where its shape is not known.
pub(super) fn bytes(graph: &Graph, v: ValueId) -> usize {
    let ty = &graph.value(v).ty;
    let size = ty.dtype.map_or(0, DType::size);
    ty.static_shape().map_or(0, |s| s.iter().product::<usize>().saturating_mul(size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::ValueType;

    /// x → Exp → a → Softmax → b → Reshape → c; y = a·c is backward and makes the output.
    #[test]
    fn values_count_from_the_first_to_the_last_that_needs_them() {
        let mut g = Graph::new("m", 17);
        let ty = |shape: &[usize]| ValueType::known(DType::F32, shape);
        let x = g.add_input("x", ty(&[4, 8])).unwrap();
        let a = g.op("Exp", &[x], []);
        let b = g.op("Softmax", &[a], []);
        let shape = g.add_initializer("s", crate::onnx::TensorData::ints(&[32])).unwrap();
        let c = g.op("Reshape", &[b, shape], []);
        let forward: HashSet<ValueId> = [a, b, c].into();
        let flat = g.op("Reshape", &[a, shape], []);
        let d = g.op("Mul", &[flat, c], []);
        let y = g.op("Exp", &[d], []);
        for (v, s) in
            [(a, &[4, 8][..]), (b, &[4, 8]), (c, &[32]), (flat, &[32]), (d, &[32]), (y, &[32])]
        {
            g.set_type(v, ty(s));
        }
        g.add_output(y);
        let found = pass_memory(&g, &forward);
        // `d` takes the place of `a` or `b`; `y` is an output.
        assert_eq!(found, PassMemory { activations: 256, peak: 256 });
        g.set_type(b, ty(&[4, 16]));
        assert_eq!(pass_memory(&g, &forward).activations, 128 + 256);
    }
}
