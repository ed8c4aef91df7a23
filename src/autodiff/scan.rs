//! Gradients through a `Scan`: the node gets outputs with what its steps computed and the gradient
//! reads, and a second `Scan` goes through the steps from the last to the first.
//!
//! *saved*: a value of each forward step that the same backward step reads. *product*: a use
//! `y = MatMul(a, w)` of a weight that steps only multiply by; the weight's gradient `Σ aᵀ dy` is
//! one product after the loop. Gradients of other captured values are summed up by a state.

use std::collections::{BTreeSet, HashSet};

use super::path::{Inner, Path};
use crate::error::{Context, Error, Result};
use crate::onnx::compat::lower;
use crate::onnx::{
    Attribute, Build, Graph, MMOPT_DOMAIN, Node, NodeId, Scan, Slices, ValueId, ValueType, captures,
};

/// The engine's reverse pass over a graph: cotangents of the last argument, given pairs of a value
/// and its cotangent.
type PullBack = fn(&mut Graph, &[(ValueId, ValueId)], &[ValueId]) -> Result<Vec<Option<ValueId>>>;

/// How slices lie that the steps append.
const APPENDED: Slices = Slices { axis: 0, backward: false };

/// Cotangents of the outer values on the path that the node reads, given those of its outputs.
pub(super) fn gradients(
    g: &mut Build,
    id: NodeId,
    dys: &[Option<ValueId>],
    path: &Path,
    pull_back: PullBack,
) -> Result<Vec<(ValueId, ValueId)>> {
    let node = g.graph().node(id).clone();
    let form = Scan::of(g.graph(), &node)?;
    let mut back = Reverse::new(g, &node, form)?;
    let ends = back.body.outputs().len();
    let ends: Vec<bool> = (0..ends).map(|i| dys.get(i).is_some_and(Option::is_some)).collect();
    let inner = path.scan(g.graph(), &node, &back.body, &ends)?;
    let seeds = back.seeds(g, &inner, dys)?;
    back.differentiate(g, &inner, &seeds, pull_back).context(|| "body")?;
    let saved = back.read_by_gradient();
    back.save(g, id, &saved)?;
    let found = back.emit(g)?;
    Ok(found.into_iter().filter(|(x, _)| path.contains(*x)).collect())
}

/// A state of the backward loop.
struct State {
    /// What it starts with, outside.
    start: ValueId,
    /// What a step reads and what it makes of it.
    own: ValueId,
    next: ValueId,
    /// The outer value whose cotangent it is after the last step.
    of: Option<ValueId>,
}

/// A tensor that the backward steps scan or collect.
struct Stack {
    /// The value inside.
    own: ValueId,
    slices: Slices,
    /// The tensor that is scanned, or whose cotangent is collected; none for a factor of a product.
    outer: Option<ValueId>,
}

/// `dw = Σ aᵀ dy`: the places of a among what is saved, and of dy among what is collected.
struct Product {
    weight: ValueId,
    a: ValueId,
    dy: usize,
}

/// The backward loop under way.
struct Reverse {
    node: Node,
    form: Scan,
    /// The forward step, then the backward step behind it.
    body: Graph,
    captured: Vec<String>,
    n_forward: usize,
    states: Vec<State>,
    scanned: Vec<Stack>,
    collected: Vec<Stack>,
    products: Vec<Product>,
    /// Values of the forward step, each with the outer tensor that holds it for all steps.
    saved: Vec<(ValueId, ValueId)>,
}

impl Reverse {
    fn new(g: &mut Build, node: &Node, form: Scan) -> Result<Self> {
        let proto = Scan::body(node)?;
        let captured = captures(proto);
        let mut body = g.graph().body(proto, &form.types)?;
        // Names of the body's values must differ from those of the outer graph.
        g.graph_mut().rename_apart(&mut body, &captured)?;
        // A body cannot hold fused operators; it is written in standard ones.
        body.opsets.remove(MMOPT_DOMAIN);
        lower(&mut body)?;
        let mut outputs = Vec::new();
        for v in body.outputs().to_vec() {
            outputs.push(body.own_output(v, &outputs));
        }
        body.set_outputs(outputs);
        body.sort()?;
        Ok(Self {
            node: node.clone(),
            form,
            captured,
            n_forward: body.nodes().len(),
            body,
            states: Vec::new(),
            scanned: Vec::new(),
            collected: Vec::new(),
            products: Vec::new(),
            saved: Vec::new(),
        })
    }

    /// Inputs of the body that are not captured.
    fn own_inputs(&self) -> &[ValueId] {
        &self.body.inputs()[..self.form.types.len()]
    }

    /// An input of the backward step, of the type of another value of the body.
    fn input(&mut self, like: ValueId) -> Result<ValueId> {
        let ty = self.body.value(like).ty.clone();
        let name = self.body.fresh_name("d");
        self.body.add_input(&name, ty)
    }

    /// The step's outputs with their cotangents: of states those that the step after left, of
    /// slices those from outside.
    fn seeds(
        &mut self,
        g: &mut Build,
        inner: &Inner,
        dys: &[Option<ValueId>],
    ) -> Result<Vec<(ValueId, ValueId)>> {
        let mut seeds = Vec::new();
        for (i, y) in self.body.outputs().to_vec().into_iter().enumerate() {
            let dy = dys.get(i).copied().flatten();
            if i >= self.form.n_states {
                let Some(dy) = dy else { continue };
                let slices = self.form.collected[i - self.form.n_states].turned();
                let own = self.input(y)?;
                self.scanned.push(Stack { own, slices, outer: Some(dy) });
                seeds.push((y, own));
            } else if inner.states[i] {
                let x = self.own_inputs()[i];
                let (made, held) = (self.body.value(y), self.body.value(x));
                if made.ty.static_shape() != held.ty.static_shape() {
                    let (made, held) = (made.ty.static_shape(), held.ty.static_shape());
                    return Err(Error::shape(format!("state {i} of {held:?} becomes {made:?}")));
                }
                let own = self.input(x)?;
                let of = self.node.input(i);
                let start = of.ok_or_else(|| Error::data(format!("input {i} is missing")))?;
                let start = dy.map_or_else(|| g.zeros_like(start), Ok)?;
                self.states.push(State { start, own, next: own, of });
                seeds.push((y, own));
            }
        }
        Ok(seeds)
    }

    /// Appends the backward step to the body.
    fn differentiate(
        &mut self,
        g: &mut Build,
        inner: &Inner,
        seeds: &[(ValueId, ValueId)],
        pull_back: PullBack,
    ) -> Result<()> {
        let own = self.own_inputs().to_vec();
        let n_states = self.form.n_states;
        let states: Vec<ValueId> =
            (0..n_states).filter(|i| inner.states[*i]).map(|i| own[i]).collect();
        let scanned: Vec<usize> = (0..inner.scanned.len()).filter(|i| inner.scanned[*i]).collect();
        let (mut plain, mut products) = (Vec::new(), Vec::new());
        for &(outer, v) in &inner.captured {
            match self.multiplied(v) {
                Some(uses) => products.extend(uses.into_iter().map(|(a, y)| (outer, a, y))),
                None => plain.push((outer, v)),
            }
        }
        let mut wrt = states;
        wrt.extend(scanned.iter().map(|i| own[n_states + i]));
        wrt.extend(plain.iter().map(|p| p.1).chain(products.iter().map(|p| p.2)));
        let mut found = pull_back(&mut self.body, seeds, &wrt)?.into_iter();
        for state in &mut self.states {
            let mut b = Build::new(&mut self.body);
            let dx = found.next().flatten().map_or_else(|| b.zeros_like(state.own), Ok)?;
            state.next = dx;
        }
        for i in scanned {
            let Some(dx) = found.next().flatten() else { continue };
            let (own, slices) = (dx, self.form.scanned[i].turned());
            self.collected.push(Stack { own, slices, outer: self.node.input(n_states + i) });
        }
        for (outer, v) in plain {
            let Some(dx) = found.next().flatten() else { continue };
            let own = self.input(v)?;
            let next = Build::new(&mut self.body).add(own, dx)?;
            self.states.push(State { start: g.zeros_like(outer)?, own, next, of: Some(outer) });
        }
        for (weight, a, _) in products {
            let Some(dy) = found.next().flatten() else { continue };
            self.products.push(Product { weight, a, dy: self.collected.len() });
            self.collected.push(Stack { own: dy, slices: APPENDED.turned(), outer: None });
        }
        self.own_outputs();
        Ok(())
    }

    /// Makes what the backward step puts out values that it makes, each once.
    fn own_outputs(&mut self) {
        let nodes = self.body.nodes();
        let forward = nodes[..self.n_forward].iter().flat_map(|n| n.outputs.iter().flatten());
        let mut taken: Vec<ValueId> = forward.copied().collect();
        let next = self.states.iter_mut().map(|s| &mut s.next);
        for v in next.chain(self.collected.iter_mut().map(|s| &mut s.own)) {
            *v = self.body.own_output(*v, &taken);
            taken.push(*v);
        }
    }

    /// The uses `y = MatMul(a, w)` of w as pairs of a and y; `None` where there is another use.
    fn multiplied(&self, w: ValueId) -> Option<Vec<(ValueId, ValueId)>> {
        let rank = |v: ValueId| self.body.value(v).ty.shape.as_ref().map_or(0, Vec::len);
        let uses = &self.body.consumers()[w.index()];
        let product = |&(id, slot): &(NodeId, usize)| {
            let node = self.body.node(id);
            let a = node.input(0).filter(|&a| a != w && rank(a) >= 2)?;
            let fits = node.op == "MatMul" && node.domain.is_empty() && slot == 1;
            node.output(0).filter(|_| fits).map(|y| (a, y))
        };
        let found: Option<Vec<_>> = uses.iter().map(product).collect();
        found.filter(|_| rank(w) == 2 && !self.body.outputs().contains(&w))
    }

    /// Values of the forward step, and slices and states, that the backward step or products read.
    fn read_by_gradient(&self) -> BTreeSet<ValueId> {
        let (forward, backward) = self.body.nodes().split_at(self.n_forward);
        let mut made: HashSet<ValueId> = self.own_inputs().iter().copied().collect();
        made.extend(forward.iter().flat_map(|n| n.outputs.iter().flatten()));
        let captured = |n: &Node| n.captures().into_iter().filter_map(|c| self.body.find(&c));
        let read =
            backward.iter().flat_map(|n| n.inputs.iter().flatten().copied().chain(captured(n)));
        let read = read.collect::<Vec<_>>().into_iter();
        read.chain(self.products.iter().map(|p| p.a)).filter(|v| made.contains(v)).collect()
    }

    /// Adds outputs to the node for what its steps save; slices that it scans are scanned again.
    fn save(&mut self, g: &mut Build, id: NodeId, read: &BTreeSet<ValueId>) -> Result<()> {
        let own = self.own_inputs().to_vec();
        let factors: HashSet<ValueId> = self.products.iter().map(|p| p.a).collect();
        let mut kept = Vec::new();
        for &v in read {
            let scanned = own.iter().position(|&x| x == v).filter(|&i| i >= self.form.n_states);
            match scanned {
                Some(i) if !factors.contains(&v) => {
                    let slices = self.form.scanned[i - self.form.n_states].turned();
                    self.scanned.push(Stack { own: v, slices, outer: self.node.input(i) });
                }
                _ => kept.push(v),
            }
        }
        let mut forward = self.body.clone();
        forward.retain_nodes(|id, _| id.index() < self.n_forward);
        let mut outputs = forward.outputs().to_vec();
        let n_before = outputs.len();
        for &v in &kept {
            outputs.push(forward.own_output(v, &outputs));
        }
        forward.set_outputs(outputs);
        forward.prune();
        let mut stacks: Vec<Option<ValueId>> = self.node.outputs.clone();
        while stacks.len() < n_before {
            stacks.push(Some(g.graph_mut().add_value("")?));
        }
        for v in kept {
            let (dtype, shape) = types(&forward, v)?;
            let stack = g.graph_mut().add_value("")?;
            let shape = APPENDED.stacked(&shape, self.form.steps);
            g.graph_mut().set_type(stack, ValueType::known(dtype, &shape));
            stacks.push(Some(stack));
            self.saved.push((v, stack));
            self.scanned.push(Stack { own: v, slices: APPENDED.turned(), outer: Some(stack) });
        }
        let n_collected = stacks.len() - self.form.n_states;
        g.graph_mut().set_body(id, "body", forward.to_body(&own, &self.captured));
        let node = g.graph_mut().node_mut(id);
        node.outputs = stacks;
        for name in ["scan_output_axes", "scan_output_directions"] {
            if let Some(Attribute::Ints(list)) = node.attributes.get_mut(name) {
                list.resize(n_collected, 0);
            }
        }
        Ok(())
    }

    /// The backward loop: pairs of an outer value and its cotangent.
    fn emit(mut self, g: &mut Build) -> Result<Vec<(ValueId, ValueId)>> {
        if self.scanned.is_empty() {
            // A Scan needs something to count its steps by.
            let (own, slices) = (self.own_inputs()[self.form.n_states], self.form.scanned[0]);
            self.scanned.push(Stack { own, slices, outer: self.node.input(self.form.n_states) });
        }
        let body = self.backward_body(g)?;
        let mut inputs: Vec<Option<ValueId>> = self.states.iter().map(|s| Some(s.start)).collect();
        inputs.extend(self.scanned.iter().map(|s| s.outer));
        let mut made = Vec::new();
        for state in &self.states {
            made.push(types(&self.body, state.own)?);
        }
        for stack in &self.collected {
            let (dtype, shape) = types(&self.body, stack.own)?;
            made.push((dtype, stack.slices.stacked(&shape, self.form.steps)));
        }
        let axes =
            |of: &[Stack]| Attribute::Ints(of.iter().map(|s| s.slices.axis as i64).collect());
        let directions =
            |of: &[Stack]| Attribute::Ints(of.iter().map(|s| s.slices.backward.into()).collect());
        let attributes = [
            ("body", Attribute::Graph(Box::new(body))),
            ("num_scan_inputs", Attribute::Int(self.scanned.len() as i64)),
            ("scan_input_axes", axes(&self.scanned)),
            ("scan_input_directions", directions(&self.scanned)),
            ("scan_output_axes", axes(&self.collected)),
            ("scan_output_directions", directions(&self.collected)),
        ];
        let outputs = g.emit_n("Scan", &inputs, &made, attributes);
        let (finals, stacks) = outputs.split_at(self.states.len());
        let finals = self.states.iter().zip(finals).filter_map(|(s, &d)| Some((s.of?, d)));
        let mut found: Vec<(ValueId, ValueId)> = finals.collect();
        let collected = self.collected.iter().zip(stacks);
        found.extend(collected.filter_map(|(s, &d)| Some((s.outer?, d))));
        for product in &self.products {
            let a = self.saved.iter().find(|(v, _)| *v == product.a).map(|s| s.1);
            let a = a.ok_or_else(|| Error::internal("a factor that is not saved"))?;
            found.push((product.weight, multiply(g, a, stacks[product.dy])?));
        }
        Ok(found)
    }

    /// The backward step by itself.
    fn backward_body(&self, g: &mut Build) -> Result<crate::onnx::proto::GraphProto> {
        let mut body = self.body.clone();
        body.retain_nodes(|id, _| id.index() >= self.n_forward);
        let next = self.states.iter().map(|s| s.next);
        body.set_outputs(next.chain(self.collected.iter().map(|s| s.own)).collect());
        body.prune();
        g.graph_mut().rename_apart(&mut body, &self.captured)?;
        let own = self.states.iter().map(|s| s.own).chain(self.scanned.iter().map(|s| s.own));
        Ok(body.to_body(&own.collect::<Vec<_>>(), &self.captured))
    }
}

/// Element type and shape of a body's value.
fn types(body: &Graph, v: ValueId) -> Result<(crate::tensor::DType, Vec<usize>)> {
    let ty = &body.value(v).ty;
    ty.dtype.zip(ty.static_shape()).ok_or_else(|| {
        let name = body.value_name(v);
        Error::unsupported(format!("body: the type of '{name}' is not known before running"))
    })
}

/// `Σ aᵀ dy` over all but the last axis of both.
fn multiply(g: &mut Build, a: ValueId, dy: ValueId) -> Result<ValueId> {
    let flat = |g: &mut Build, x| {
        let shape = g.shape(x)?;
        let width = shape.last().copied().unwrap_or(1);
        let rows = shape[..shape.len().saturating_sub(1)].iter().product();
        g.reshape(x, &[rows, width])
    };
    let (a, dy) = (flat(g, a)?, flat(g, dy)?);
    g.gemm((a, true), (dy, false), 1.0)
}
