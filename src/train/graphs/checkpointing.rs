//! Activation checkpointing: the backward part computes activations a second time, from a few that
//! are kept, instead of holding all of them until it needs them (Chen et al., 2016, "Training Deep
//! Nets with Sublinear Memory Cost").
//!
//! The forward part is cut where little passes from one node to the next: in a transformer, at the
//! residual stream behind each attention and each feed-forward block. What passes there is kept.
//! Between two cuts the nodes are written once more for the backward part, behind `mmopt.After`
//! nodes that let them begin only when the gradient of what lies behind them is there. Dropout is a
//! function of its seed, so both computations have one mask.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::pass_memory::bytes;
use crate::error::Result;
use crate::onnx::{Attribute, Graph, MMOPT_DOMAIN, Node, NodeId, TensorData, ValueId};
use crate::tensor::DType;

/// A cut is made where it drops at least so many bytes for each that it keeps…
const LEAST_GAIN: usize = 4;
/// …and where so many times as much passes behind it.
const LEAST_RISE: usize = 2;

/// Lets the nodes from `n_forward` on, which are the backward part, read activations that are
/// computed again. The nodes before them are in topological order. Returns how many parts of the
/// forward part are computed again; the graph stays as it is where that is none.
pub(super) fn recompute(graph: &mut Graph, n_forward: usize, params: &[ValueId]) -> Result<usize> {
    let (mut work, n_parts) = rewrite(graph, n_forward, params)?;
    // A gradient that a part waits for may need the part, by way of another one.
    if n_parts == 0 || work.sort().is_err() {
        return Ok(0);
    }
    *graph = work;
    Ok(n_parts)
}

/// The graph with copies, not in order, and the number of parts that have them.
fn rewrite(graph: &Graph, n_forward: usize, params: &[ValueId]) -> Result<(Graph, usize)> {
    let forward = Forward::of(graph, n_forward, params);
    let mut cuts = forward.cuts();
    cuts.push(n_forward);
    let parts: Vec<Part> =
        cuts.windows(2).map(|cut| Part::new(graph, &forward, cut[0], cut[1])).collect();
    let (mut work, mut n_parts) = (graph.clone(), 0);
    for pair in parts.windows(2) {
        n_parts += usize::from(pair[0].recompute(&mut work, &pair[1])?);
    }
    Ok((work, n_parts))
}

/// The forward part of a graph. *activation*: a value that depends on data and on parameters.
/// *position*: the index of a node.
struct Forward {
    n_nodes: usize,
    /// Of each activation, by value index: the node that makes it, the last forward node that reads
    /// it (itself where there is none), and its bytes.
    activations: BTreeMap<ValueId, Activation>,
    producers: Vec<Option<(NodeId, usize)>>,
    consumers: Vec<Vec<(NodeId, usize)>>,
    /// The last node whose activation a value needs, by value index; 0 for none.
    needs: Vec<usize>,
}

#[derive(Clone, Copy)]
struct Activation {
    made: usize,
    read: usize,
    bytes: usize,
}

impl Activation {
    /// Whether it is needed behind a position and made before it.
    fn passes(&self, position: usize) -> bool {
        self.made <= position && position < self.read
    }
}

impl Forward {
    fn of(graph: &Graph, n_nodes: usize, params: &[ValueId]) -> Self {
        let consumers = graph.consumers();
        // What each value depends on: data, parameters.
        let mut depends = vec![(false, false); graph.values().len()];
        for &v in graph.inputs() {
            depends[v.index()] = (true, false);
        }
        for &v in params {
            depends[v.index()] = (false, true);
        }
        let mut activations = BTreeMap::new();
        for id in graph.node_ids().take(n_nodes) {
            let node = graph.node(id);
            let inputs = node.inputs.iter().flatten().map(|v| depends[v.index()]);
            let on = inputs.fold((false, false), |on, d| (on.0 || d.0, on.1 || d.1));
            for &v in node.outputs.iter().flatten() {
                depends[v.index()] = on;
                if on == (true, true) {
                    let forward = |c: &&(NodeId, usize)| c.0.index() < n_nodes;
                    let reads = consumers[v.index()].iter().filter(forward);
                    let made = id.index();
                    let read = reads.map(|c| c.0.index()).max().unwrap_or(made);
                    activations.insert(v, Activation { made, read, bytes: bytes(graph, v) });
                }
            }
        }
        let mut needs = vec![0; graph.values().len()];
        for id in graph.node_ids() {
            let node = graph.node(id);
            let last = node.inputs.iter().flatten().map(|v| needs[v.index()]).max();
            for &v in node.outputs.iter().flatten() {
                let own = activations.get(&v).map_or(0, |a: &Activation| a.made);
                needs[v.index()] = own.max(last.unwrap_or(0));
            }
        }
        Self { n_nodes, activations, producers: graph.producers(), consumers, needs }
    }

    /// Positions behind which little passes.
    fn cuts(&self) -> Vec<usize> {
        let mut change = vec![(0usize, 0usize); self.n_nodes + 1];
        for a in self.activations.values() {
            change[a.made].0 += a.bytes;
            change[a.read].1 += a.bytes;
        }
        let (mut cuts, mut passing, mut made) = (Vec::new(), 0usize, 0usize);
        // Position, bytes that pass there, and bytes made since the last cut.
        let mut best: Option<(usize, usize, usize)> = None;
        for (position, (begin, end)) in change.into_iter().enumerate() {
            made += begin;
            passing = (passing + begin).saturating_sub(end);
            match best {
                Some((at, least, dropped))
                    if passing >= LEAST_RISE * least && dropped >= LEAST_GAIN * least =>
                {
                    cuts.push(at);
                    made -= dropped;
                    best = None;
                }
                Some((_, least, _)) if passing > least => {}
                _ if passing > 0 => best = Some((position, passing, made)),
                _ => {}
            }
        }
        cuts
    }
}

fn is_f32(graph: &Graph, v: ValueId) -> bool {
    graph.value(v).ty.dtype == Some(DType::F32)
}

/// The nodes behind one cut up to the next.
struct Part<'f> {
    forward: &'f Forward,
    from: usize,
    to: usize,
    /// Backward nodes that read an inner activation.
    readers: Vec<NodeId>,
    /// These, and all nodes that need their results.
    behind: BTreeSet<NodeId>,
}

impl<'f> Part<'f> {
    fn new(graph: &Graph, forward: &'f Forward, from: usize, to: usize) -> Self {
        let mut part = Self { forward, from, to, readers: vec![], behind: [].into() };
        let inner = forward.activations.keys().filter(|v| part.is_inner(**v));
        let readers = inner.flat_map(|v| &forward.consumers[v.index()]);
        let backward = readers.filter(|r| r.0.index() >= forward.n_nodes && r.1 != usize::MAX);
        let readers: BTreeSet<NodeId> = backward.map(|r| r.0).collect();
        let mut todo: Vec<NodeId> = readers.iter().copied().collect();
        while let Some(id) = todo.pop() {
            if part.behind.insert(id) {
                let outputs = graph.node(id).outputs.iter().flatten();
                todo.extend(outputs.flat_map(|v| &forward.consumers[v.index()]).map(|c| c.0));
            }
        }
        part.readers = readers.into_iter().collect();
        part
    }

    /// Whether the part makes an activation that no other forward node reads.
    fn is_inner(&self, v: ValueId) -> bool {
        let of = self.forward.activations.get(&v);
        of.is_some_and(|a| a.made > self.from && a.made <= self.to && !a.passes(self.to))
    }

    /// Lets the part's readers read copies that begin when the backward part is through with the
    /// `next` part. Returns whether there are any.
    fn recompute(&self, graph: &mut Graph, next: &Self) -> Result<bool> {
        let Some(gradient) = self.gradient(graph) else { return Ok(false) };
        let again = self.again(graph);
        let reads =
            |id: &NodeId| graph.node(*id).inputs.iter().flatten().any(|v| again.contains_key(v));
        if !self.readers.iter().any(reads) {
            return Ok(false);
        }
        let signal = self.signal(graph, gradient, next)?;
        let mut copies = Copies { part: self, again, signal, of: HashMap::new() };
        for &id in &self.readers {
            for slot in 0..graph.node(id).inputs.len() {
                if let Some(v) = graph.node(id).input(slot).filter(|&v| copies.is_again(v)) {
                    graph.node_mut(id).inputs[slot] = Some(copies.copy(graph, v)?);
                }
            }
        }
        Ok(true)
    }

    /// Whether a backward node makes a value that needs none of the part's activations.
    fn comes_before(&self, graph: &Graph, v: ValueId) -> bool {
        let made = self.forward.producers.get(v.index()).copied().flatten();
        let is_backward = made.is_some_and(|(id, _)| {
            id.index() >= self.forward.n_nodes && !self.behind.contains(&id)
        });
        is_backward && is_f32(graph, v)
    }

    /// The gradient with which the backward part comes into this one: read beside the first of its
    /// values that need an inner activation, itself without need of one, but of what lies behind
    /// the part.
    fn gradient(&self, graph: &Graph) -> Option<ValueId> {
        let inputs = self.behind.iter().flat_map(|&id| graph.node(id).inputs.iter().flatten());
        inputs
            .copied()
            .find(|&v| self.comes_before(graph, v) && self.forward.needs[v.index()] > self.to)
    }

    /// A value that is there once the gradient is, and all that the next part's activations are
    /// needed for: the runtime would else leave gradients of parameters for last, and hold
    /// activations until then.
    fn signal(&self, graph: &mut Graph, gradient: ValueId, next: &Self) -> Result<ValueId> {
        let mut done = vec![gradient];
        for &id in next.behind.difference(&self.behind) {
            for &v in graph.node(id).outputs.iter().flatten() {
                let readers = &self.forward.consumers[v.index()];
                let is_last =
                    readers.is_empty() || readers.iter().any(|r| self.behind.contains(&r.0));
                if is_last && v != gradient && self.comes_before(graph, v) {
                    done.push(v);
                }
            }
        }
        let mut signal = graph.add_initializer("", TensorData::from_slice(&[1], &[0f32])?)?;
        for v in done {
            signal = after(graph, signal, v)?;
        }
        Ok(signal)
    }

    /// The inner activations that can be computed again from what passes the cut.
    fn again(&self, graph: &Graph) -> HashMap<ValueId, NodeId> {
        let mut again = HashMap::new();
        for id in graph.node_ids().take(self.to + 1).skip(self.from + 1) {
            let node = graph.node(id);
            let mut inputs = node.inputs.iter().flatten();
            let waits = |v: &ValueId| again.contains_key(v) || self.is_kept(graph, *v);
            if !is_repeated(node) || !inputs.any(waits) {
                continue;
            }
            let inner = node.outputs.iter().flatten().filter(|v| self.is_inner(**v));
            again.extend(inner.map(|&v| (v, id)));
        }
        again
    }

    /// An activation that stays in memory and can be made to wait.
    fn is_kept(&self, graph: &Graph, v: ValueId) -> bool {
        let Some(of) = self.forward.activations.get(&v) else { return false };
        let node = &graph.nodes()[of.made];
        (!self.is_inner(v) || !is_repeated(node)) && is_f32(graph, v)
    }
}

/// Whether a node runs a second time: its result is that of the first then, and costs little
/// beside the memory.
fn is_repeated(node: &Node) -> bool {
    let is_random = (node.op == "Dropout" && node.domain.is_empty()) || node.draws_numbers();
    let has_body =
        node.attributes.values().any(|a| matches!(a, Attribute::Graph(_) | Attribute::Opaque(_)));
    // Targets hand the logits over, and wait; attention computes its scores, which are larger than
    // its result, and the gradient computes them once more.
    let is_kept = node.domain == MMOPT_DOMAIN && matches!(&*node.op, "Targets" | "FusedAttention");
    !is_random && !has_body && !is_kept
}

/// What a part computes again.
struct Copies<'p, 'f> {
    part: &'p Part<'f>,
    /// The activations that it may, each with its node.
    again: HashMap<ValueId, NodeId>,
    signal: ValueId,
    /// What stands for an activation in the backward part.
    of: HashMap<ValueId, ValueId>,
}

impl Copies<'_, '_> {
    fn is_again(&self, v: ValueId) -> bool {
        self.again.contains_key(&v)
    }

    /// The copy of an activation. Its node, and those before it, are written where they are not.
    fn copy(&mut self, graph: &mut Graph, v: ValueId) -> Result<ValueId> {
        // Chains of a part can be long: no recursion.
        let mut todo = vec![v];
        while let Some(v) = todo.last() {
            let Some(&id) = self.again.get(v).filter(|_| !self.of.contains_key(v)) else {
                todo.pop();
                continue;
            };
            let mut node = graph.node(id).clone();
            let inputs: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
            let missing = inputs.iter().filter(|v| self.is_again(**v) && !self.of.contains_key(v));
            let missing: Vec<ValueId> = missing.copied().collect();
            if !missing.is_empty() {
                todo.extend(missing);
                continue;
            }
            for input in node.inputs.iter_mut().flatten() {
                *input = self.input(graph, *input)?;
            }
            for output in node.outputs.iter_mut().flatten() {
                let copy = new_value(graph, *output)?;
                self.of.insert(*output, copy);
                *output = copy;
            }
            node.name.clear();
            graph.push_node(node);
        }
        Ok(self.of.get(&v).copied().unwrap_or(v))
    }

    /// What a copy reads for `v`.
    fn input(&mut self, graph: &mut Graph, v: ValueId) -> Result<ValueId> {
        if let Some(&copy) = self.of.get(&v) {
            return Ok(copy);
        }
        if !self.part.is_kept(graph, v) {
            return Ok(v);
        }
        let copy = after(graph, v, self.signal)?;
        self.of.insert(v, copy);
        Ok(copy)
    }
}

/// `v`, once `signal` is there.
fn after(graph: &mut Graph, v: ValueId, signal: ValueId) -> Result<ValueId> {
    let copy = new_value(graph, v)?;
    graph.push_node(Node {
        name: String::new(),
        op: "After".into(),
        domain: MMOPT_DOMAIN.into(),
        inputs: vec![Some(v), Some(signal)],
        outputs: vec![Some(copy)],
        attributes: [].into(),
    });
    Ok(copy)
}

fn new_value(graph: &mut Graph, like: ValueId) -> Result<ValueId> {
    let name = format!("{}/again", graph.value_name(like));
    let name = graph.free_name(&name);
    let v = graph.add_value(&name)?;
    let ty = graph.value(like).ty.clone();
    graph.set_type(v, ty);
    Ok(v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{Build, ValueType};

    const ROWS: usize = 64;

    /// Blocks of x + f(x) between an input with its weight and a loss, differentiated; `f` is given
    /// the block's index.
    fn residual(
        blocks: usize,
        f: impl Fn(&mut Build, ValueId, ValueId, usize) -> ValueId,
    ) -> (Graph, usize, Vec<ValueId>) {
        let mut graph = Graph::new("residual", 17);
        let of = |shape: &[usize]| ValueType::known(DType::F32, shape);
        let data = graph.add_input("data", of(&[ROWS, 8])).unwrap();
        let weights = (0..=blocks).map(|i| {
            graph.add_input(&format!("w{i}"), of(if i == 0 { &[8, 8] } else { &[8, 32] }))
        });
        let weights: Vec<ValueId> = weights.map(|w| w.unwrap()).collect();
        graph.opsets.insert(MMOPT_DOMAIN.into(), 1);
        let mut b = Build::new(&mut graph);
        let mut x = b.matmul(data, weights[0]).unwrap();
        for (i, &w) in weights.iter().enumerate().skip(1) {
            let y = f(&mut b, x, w, i);
            x = b.add(x, y).unwrap();
        }
        let squares = b.square(x).unwrap();
        let loss =
            b.emit("ReduceSum", &[squares], (DType::F32, &[]), [("keepdims", Attribute::Int(0))]);
        graph.sort().unwrap();
        let n = graph.nodes().len();
        let gradients = crate::autodiff::differentiate(&mut graph, loss, &weights).unwrap();
        graph.set_outputs(gradients.into_iter().flatten().chain([loss]).collect());
        (graph, n, weights)
    }

    /// Wide between two products: exp(x w) wᵀ and a little more.
    fn wide(b: &mut Build, x: ValueId, w: ValueId, _: usize) -> ValueId {
        let h = b.matmul(x, w).unwrap();
        let h = b.unary("Tanh", h).unwrap();
        let h = b.unary("Sigmoid", h).unwrap();
        let turned = b.transpose(w, &[1, 0]).unwrap();
        b.matmul(h, turned).unwrap()
    }

    fn count(graph: &Graph, op: &str) -> usize {
        graph.nodes().iter().filter(|n| n.op == op).count()
    }

    /// Bytes of what the first `n` nodes make and a node behind them reads.
    fn held(graph: &Graph, n: usize) -> usize {
        let made = graph.nodes()[..n].iter().flat_map(|node| node.outputs.iter().flatten());
        let read = |v: &&ValueId| graph.nodes()[n..].iter().any(|m| m.inputs.contains(&Some(**v)));
        made.filter(read).map(|&v| bytes(graph, v)).sum()
    }

    /// No cut is before the first block, which has no wide values before it, and the last one is
    /// followed by its backward part at once.
    #[test]
    fn blocks_between_cuts_are_computed_again() {
        let (mut graph, n, weights) = residual(9, wide);
        let before = (held(&graph, n), count(&graph, "Tanh"));
        // Still in the order that `held` counts by.
        let (unsorted, _) = rewrite(&graph, n, &weights).unwrap();
        assert!(held(&unsorted, n) * 2 < before.0, "{} of {}", held(&unsorted, n), before.0);
        assert_eq!(recompute(&mut graph, n, &weights).unwrap(), 7);
        assert_eq!((before.1, count(&graph, "Tanh")), (9, 16));
    }

    /// The gradients of a block's weight are there before the copies of the block before it.
    #[test]
    fn gradients_of_parameters_are_not_left_for_last() {
        let (mut graph, n, weights) = residual(5, wide);
        recompute(&mut graph, n, &weights).unwrap();
        let order = graph.producers();
        let position = |v: ValueId| order[v.index()].unwrap().0.index();
        // The copies of x in the order of their blocks' backward parts: 4, 3, 2.
        let copies = graph.node_ids().map(|id| graph.node(id)).filter(|node| {
            let x = node.input(0).filter(|_| node.op == "After");
            x.is_some_and(|x| graph.value(x).ty.static_shape() == Some(vec![ROWS, 8]))
        });
        let copies: Vec<usize> = copies.map(|node| position(node.output(0).unwrap())).collect();
        assert_eq!(copies.len(), 3);
        let gradients = &graph.outputs()[..weights.len()];
        for (copy, block) in copies.iter().zip([4, 3, 2]) {
            let gradient = position(gradients[block + 1]);
            assert!(gradient < *copy, "block {block}: {copy} before gradient {gradient}");
        }
    }

    /// A copy begins when the gradient of the block behind it is there.
    #[test]
    fn copies_wait_for_the_gradient_behind_them() {
        let (mut graph, n, weights) = residual(3, wide);
        recompute(&mut graph, n, &weights).unwrap();
        let position = |of: &dyn Fn(&Node) -> bool| graph.nodes().iter().position(of).unwrap();
        let loss = position(&|node| node.op == "ReduceSum");
        let first = position(&|node| node.op == "After");
        assert!(loss < first, "copies at {first} come before the loss at {loss}");
        let producers = graph.producers();
        for node in graph.nodes().iter().filter(|node| node.op == "After") {
            let (by, _) = producers[node.input(1).unwrap().index()].unwrap();
            assert!(by.index() > loss, "waits for {}", graph.describe(by));
        }
    }

    /// What is drawn anew would differ, so it is kept, and what follows from it is computed again.
    #[test]
    fn random_values_are_kept() {
        let (mut graph, n, weights) = residual(3, |b, x, w, _| {
            let h = b.matmul(x, w).unwrap();
            let like = [("scale", Attribute::Float(0.1))];
            let noise = b.graph_mut().op("RandomNormalLike", &[h], like);
            b.graph_mut().set_type(noise, ValueType::known(DType::F32, &[ROWS, 32]));
            let noise = b.unary("Tanh", noise).unwrap();
            let h = b.mul(h, noise).unwrap();
            let turned = b.transpose(w, &[1, 0]).unwrap();
            b.matmul(h, turned).unwrap()
        });
        assert!(recompute(&mut graph, n, &weights).unwrap() > 0);
        assert_eq!(count(&graph, "RandomNormalLike"), 3);
        assert!(count(&graph, "Tanh") > 3);
    }

    /// Its result is as narrow as the stream, and dear to compute.
    #[test]
    fn attention_is_kept() {
        let (mut graph, n, weights) = residual(9, |b, x, w, _| {
            let h = b.matmul(x, w).unwrap();
            let heads = b.reshape(h, &[2, 32, 4, 8]).unwrap();
            let no_mask = TensorData::from_slice(&[1], &[0f32]).unwrap();
            let mask = b.graph_mut().add_initializer("", no_mask).unwrap();
            let no_seed = TensorData::from_slice(&[1], &[0i64]).unwrap();
            let seed = b.graph_mut().add_initializer("", no_seed).unwrap();
            let [o, max, inverse] = [(); 3].map(|()| b.graph_mut().add_value("").unwrap());
            b.graph_mut().set_type(o, ValueType::known(DType::F32, &[2, 32, 4, 8]));
            for v in [max, inverse] {
                b.graph_mut().set_type(v, ValueType::known(DType::F32, &[2, 4, 32, 1]));
            }
            b.graph_mut().push_node(Node {
                name: String::new(),
                op: "FusedAttention".into(),
                domain: MMOPT_DOMAIN.into(),
                inputs: [heads, heads, heads, mask, seed].map(Some).into(),
                outputs: [o, max, inverse].map(Some).into(),
                attributes: [].into(),
            });
            let h = b.reshape(o, &[ROWS, 32]).unwrap();
            let h = b.unary("Tanh", h).unwrap();
            let turned = b.transpose(w, &[1, 0]).unwrap();
            b.matmul(h, turned).unwrap()
        });
        assert!(recompute(&mut graph, n, &weights).unwrap() > 0);
        assert_eq!(count(&graph, "FusedAttention"), 9);
        assert!(count(&graph, "Tanh") > 9);
    }

    /// Nothing is won where all values have one size.
    #[test]
    fn narrow_graphs_stay() {
        let (mut graph, n, weights) = residual(4, |b, x, _, _| b.unary("Tanh", x).unwrap());
        let before = graph.nodes().len();
        assert_eq!(recompute(&mut graph, n, &weights).unwrap(), 0);
        assert_eq!(graph.nodes().len(), before);
    }
}
