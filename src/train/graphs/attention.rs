//! Attention as exporters and builders write it, found by its formula and fused to one operator of
//! this library, which keeps no matrix of scores:
//!
//! `MatMul(Dropout(Softmax(scale · MatMul(q, kᵀ) + mask)), v)`
//!
//! The scale may be on the queries, the keys or the scores, by `Mul` or `Div`, in several places.
//! The mask is added, or chosen by a `Where` with a number that hides. Probabilities that are not
//! numbers may be made zeros by `Where(IsNaN(p), 0, p)`. Dropout is this library's, or there is
//! none. What reads a parameter by way of its mask, as learned distances do, stays as it is.

use std::collections::HashSet;

use crate::error::Result;
use crate::onnx::build::broadcast;
use crate::onnx::{
    Attribute, Attributes, Build, Graph, MMOPT_DOMAIN, Node, NodeId, TensorData, ValueId, ValueType,
};
use crate::optim::AttentionForm;
use crate::runtime::kernels::has_f32_products;
use crate::tensor::DType;

/// From so many scores of one head on it was measured to be faster, see docs/performance.md: where
/// vectors have 16 numbers, and elsewhere.
const LEAST_SCORES: (usize, usize) = (32 * 32, 512 * 512);
/// A number that makes a probability zero where it takes a score's place.
const HIDDEN: f64 = -1e30;

/// Fuses the attentions of a forward graph whose values have types. Returns how many.
pub(super) fn fuse(graph: &mut Graph, params: &[ValueId], form: AttentionForm) -> Result<usize> {
    let least = match form {
        AttentionForm::Auto if has_f32_products() => LEAST_SCORES.0,
        AttentionForm::Auto => LEAST_SCORES.1,
        AttentionForm::Fused => 0,
        AttentionForm::Unfused => return Ok(0),
    };
    let view = View::new(graph, params);
    let ids = graph.node_ids();
    let found: Vec<(NodeId, Found)> =
        ids.filter_map(|id| Some((id, view.attention(id, least)?))).collect();
    let mut candidates = Vec::new();
    for (id, found) in &found {
        candidates.extend(found.inner.iter().chain([id]).copied());
        candidates.extend(replace(graph, *id, found)?);
    }
    drop_unread(graph, candidates);
    Ok(found.len())
}

/// Drops those of `nodes` whose results nobody reads any more, and what only they read.
fn drop_unread(graph: &mut Graph, mut nodes: Vec<NodeId>) {
    let mut reads: Vec<usize> = graph.consumers().iter().map(Vec::len).collect();
    graph.outputs().iter().for_each(|v| reads[v.index()] += 1);
    let producers = graph.producers();
    let mut dropped = HashSet::new();
    while let Some(id) = nodes.pop() {
        let node = graph.node(id);
        if node.outputs.iter().flatten().any(|v| reads[v.index()] > 0) || !dropped.insert(id) {
            continue;
        }
        for v in node.inputs.iter().flatten() {
            reads[v.index()] -= 1;
            nodes.extend(producers[v.index()].map(|(id, _)| id));
        }
    }
    graph.retain_nodes(|id, _| !dropped.contains(&id));
}

/// A value under other axes, times a number: axis i of the result is axis `perm[i]` of `value`.
#[derive(Clone, Copy, Debug)]
struct Turned {
    value: ValueId,
    perm: [usize; 4],
    factor: f64,
}

/// What is added to scores.
#[derive(Clone, Copy, Debug)]
enum Mask {
    Added(ValueId),
    /// 0 where the first holds, else the second; or the other way round.
    Chosen(ValueId, ValueId, bool),
}

/// One attention.
#[derive(Debug)]
struct Found {
    /// Queries, keys and values as [batch, length, heads, width].
    qkv: [Turned; 3],
    /// [batch, queries, heads, width of values].
    shape: [usize; 4],
    /// Of scores, beside those of queries and keys.
    scale: f64,
    masks: Vec<Mask>,
    /// Seed, ratio and salt.
    dropout: Option<(ValueId, f32, i64)>,
    empty_is_zero: bool,
    /// The nodes that the operator stands for, but for the last.
    inner: Vec<NodeId>,
}

struct View<'g> {
    graph: &'g Graph,
    producers: Vec<Option<(NodeId, usize)>>,
    consumers: Vec<Vec<(NodeId, usize)>>,
    /// Whether a value depends on a parameter, by value index.
    learned: Vec<bool>,
}

impl<'g> View<'g> {
    fn new(graph: &'g Graph, params: &[ValueId]) -> Self {
        let mut learned = vec![false; graph.values().len()];
        params.iter().for_each(|v| learned[v.index()] = true);
        let mut view = Self {
            graph,
            producers: graph.producers(),
            consumers: graph.consumers(),
            learned: vec![],
        };
        let mut todo: Vec<ValueId> = params.to_vec();
        while let Some(v) = todo.pop() {
            for &(id, _) in &view.consumers[v.index()] {
                for &y in graph.node(id).outputs.iter().flatten() {
                    if !std::mem::replace(&mut learned[y.index()], true) {
                        todo.push(y);
                    }
                }
            }
        }
        view.learned = learned;
        view
    }

    /// The node of a domain and operator that makes `v`.
    fn made(&self, v: ValueId, domain: &str, op: &str) -> Option<(NodeId, &'g Node)> {
        let (id, slot) = self.producers.get(v.index()).copied().flatten()?;
        let node = self.graph.node(id);
        (slot == 0 && node.domain == domain && node.op == op).then_some((id, node))
    }

    fn shape(&self, v: ValueId) -> Option<Vec<usize>> {
        self.graph.value(v).ty.static_shape()
    }

    fn shape4(&self, v: ValueId) -> Option<[usize; 4]> {
        let is_f32 = self.graph.value(v).ty.dtype == Some(DType::F32);
        self.shape(v).filter(|_| is_f32)?.try_into().ok()
    }

    /// The number behind a constant with one element, of rank 0 or 1.
    fn number(&self, v: ValueId) -> Option<f64> {
        let data =
            self.graph.initializer(v).filter(|d| d.len() == 1 && !self.learned[v.index()])?;
        data.to_f64s().ok()?.first().copied()
    }

    /// Whether only so many nodes read `v`, and nobody else.
    fn is_read_by(&self, v: ValueId, n: usize) -> bool {
        self.consumers[v.index()].len() == n && !self.graph.outputs().contains(&v)
    }

    /// `v` as a value times a number.
    fn scaled(&self, v: ValueId) -> Option<(NodeId, ValueId, f64)> {
        let same = |x: ValueId| self.shape(x).is_some_and(|x| Some(x) == self.shape(v));
        if let Some((id, node)) = self.made(v, "", "Div") {
            let (x, c) = (node.input(0)?, self.number(node.input(1)?)?);
            return (same(x) && c != 0.0).then_some((id, x, 1.0 / c));
        }
        let (id, node) = self.made(v, "", "Mul")?;
        let (a, b) = (node.input(0)?, node.input(1)?);
        let of = |x, c| Some((id, x, self.number(c)?)).filter(|_| same(x));
        of(a, b).or_else(|| of(b, a))
    }

    /// The attention that ends at a product, of at least so many scores a head.
    fn attention(&self, id: NodeId, least: usize) -> Option<Found> {
        let node = self.graph.node(id);
        if node.op != "MatMul" || !node.domain.is_empty() {
            return None;
        }
        let (p, v) = (node.input(0)?, node.input(1)?);
        let [batch, heads, queries, keys] = self.shape4(p)?;
        let [v_batch, v_heads, v_keys, width] = self.shape4(v)?;
        let fits = (v_batch, v_heads, v_keys) == (batch, heads, keys) && width > 0 && keys > 0;
        if !fits || queries * keys < least || batch * heads * queries == 0 {
            return None;
        }
        let mut inner = Vec::from_iter(self.producers[v.index()].map(|(id, _)| id));
        let (p, dropout) = self.without_dropout(p, &mut inner)?;
        let (p, empty_is_zero) = self.with_nans(p, &mut inner)?;
        let (softmax, node) = self.made(p, "", "Softmax")?;
        if !matches!(node.int("axis").unwrap_or(-1), -1 | 3) {
            return None;
        }
        inner.push(softmax);
        let mut found = Found {
            qkv: [self.turned(v, [0, 2, 1, 3]); 3],
            shape: [batch, queries, heads, width],
            scale: 1.0,
            masks: vec![],
            dropout,
            empty_is_zero,
            inner,
        };
        let (q, kt) = self.scores(node.input(0)?, &mut found)?;
        let (q_shape, k_shape) = (self.shape4(q)?, self.shape4(kt)?);
        let d = q_shape[3];
        if q_shape != [batch, heads, queries, d] || k_shape != [batch, heads, d, keys] || d == 0 {
            return None;
        }
        found.qkv[0] = self.turned(q, [0, 2, 1, 3]);
        found.qkv[1] = self.turned(kt, [0, 3, 1, 2]);
        Some(found)
    }

    /// The probabilities before dropout.
    #[allow(clippy::type_complexity)]
    fn without_dropout(
        &self,
        p: ValueId,
        inner: &mut Vec<NodeId>,
    ) -> Option<(ValueId, Option<(ValueId, f32, i64)>)> {
        if !self.is_read_by(p, 1) {
            return None;
        }
        if let Some((id, node)) = self.made(p, MMOPT_DOMAIN, "Dropout") {
            let of = (node.input(1)?, node.float("ratio")?, node.int("salt")?);
            inner.push(id);
            return Some((node.input(0)?, Some(of)));
        }
        // In training mode with a ratio of 0 it has one input left.
        if let Some((id, node)) = self.made(p, "", "Dropout")
            && node.inputs.len() == 1
        {
            inner.push(id);
            return Some((node.input(0)?, None));
        }
        Some((p, None))
    }

    /// Whether `IsNaN` and a choice are all that read `p`.
    fn has_nan_test(&self, p: ValueId) -> bool {
        let is_test = |c: &(NodeId, usize)| self.graph.node(c.0).op == "IsNaN";
        self.is_read_by(p, 2) && self.consumers[p.index()].iter().any(is_test)
    }

    /// The probabilities, and whether zeros take the place of what is not a number in them.
    fn with_nans(&self, p: ValueId, inner: &mut Vec<NodeId>) -> Option<(ValueId, bool)> {
        if !self.is_read_by(p, 1) {
            return None;
        }
        let Some((choice, node)) = self.made(p, "", "Where") else { return Some((p, false)) };
        let (test, zero, x) = (node.input(0)?, node.input(1)?, node.input(2)?);
        let (test, is_nan) = self.made(test, "", "IsNaN")?;
        if is_nan.input(0)? != x || self.number(zero)? != 0.0 || !self.has_nan_test(x) {
            return None;
        }
        inner.extend([choice, test]);
        Some((x, true))
    }

    /// Queries and transposed keys of scores; masks and scale go into `found`.
    fn scores(&self, mut v: ValueId, found: &mut Found) -> Option<(ValueId, ValueId)> {
        loop {
            if !self.is_read_by(v, 1) {
                return None;
            }
            if let Some((id, node)) = self.made(v, "", "MatMul") {
                found.inner.push(id);
                return Some((node.input(0)?, node.input(1)?));
            }
            if let Some((id, x, c)) = self.scaled(v) {
                found.inner.push(id);
                (v, found.scale) = (x, found.scale * c);
                continue;
            }
            // What is scaled after a mask would scale the mask.
            if found.scale != 1.0 {
                return None;
            }
            let (id, x, mask) = self.masked(v)?;
            found.inner.push(id);
            found.masks.push(mask);
            v = x;
        }
    }

    /// `v` as scores with a mask.
    fn masked(&self, v: ValueId) -> Option<(NodeId, ValueId, Mask)> {
        let shape = self.shape(v)?;
        let fits = |m: ValueId| {
            let own = self.shape(m).and_then(|own| broadcast(&own, &shape).ok());
            own.is_some_and(|whole| whole == shape) && !self.learned[m.index()]
        };
        let is_score = |x: ValueId| self.shape(x).is_some_and(|x| x == shape);
        if let Some((id, node)) = self.made(v, "", "Add") {
            let (a, b) = (node.input(0)?, node.input(1)?);
            let of = |x, m| (is_score(x) && fits(m)).then_some((id, x, Mask::Added(m)));
            return of(a, b).filter(|_| self.learned[a.index()]).or_else(|| of(b, a));
        }
        let (id, node) = self.made(v, "", "Where")?;
        let (test, a, b) = (node.input(0)?, node.input(1)?, node.input(2)?);
        let hides = |c: ValueId| self.number(c).is_some_and(|c| c <= HIDDEN);
        if !fits(test) {
            return None;
        }
        let keeps = (is_score(a) && hides(b)).then_some((id, a, Mask::Chosen(test, b, true)));
        keeps.or_else(|| (is_score(b) && hides(a)).then_some((id, b, Mask::Chosen(test, a, false))))
    }

    /// A value of four axes, taken back through factors, transposes and other names.
    fn turned(&self, value: ValueId, perm: [usize; 4]) -> Turned {
        let mut of = Turned { value, perm, factor: 1.0 };
        while let Some(before) = self.before(of) {
            of = before;
        }
        of
    }

    fn before(&self, of: Turned) -> Option<Turned> {
        let then = |value: ValueId, perm: &[i64]| {
            let perm: Option<Vec<usize>> =
                of.perm.iter().map(|&i| usize::try_from(*perm.get(i)?).ok()).collect();
            Some(Turned { value, perm: perm?.try_into().ok()?, ..of })
        };
        if let Some((_, value, c)) = self.scaled(of.value) {
            return Some(Turned { value, factor: of.factor * c, ..of });
        }
        if let Some((_, node)) = self.made(of.value, "", "Transpose") {
            let perm = node.ints("perm").filter(|p| p.len() == 4)?;
            return then(node.input(0)?, perm);
        }
        if let Some((_, node)) = self.made(of.value, "", "Identity") {
            return then(node.input(0)?, &[0, 1, 2, 3]);
        }
        let (_, node) = self.made(of.value, "", "Reshape")?;
        let x = node.input(0)?;
        if self.shape(x)? == self.shape(of.value)? {
            return then(x, &[0, 1, 2, 3]);
        }
        // Keys transposed as three axes: batch and heads are one meanwhile.
        let (_, turn) = self.made(x, "", "Transpose")?;
        if turn.ints("perm") != Some(&[0, 2, 1]) {
            return None;
        }
        let (_, node) = self.made(turn.input(0)?, "", "Reshape")?;
        let x = node.input(0)?;
        let ([b, h, d, t], from) = (self.shape4(of.value)?, self.shape4(x)?);
        (from == [b, h, t, d]).then(|| then(x, &[0, 1, 3, 2]))?
    }
}

/// Makes the last product the operator's result under its axes. Returns the nodes behind it that
/// only gave the result another name.
fn replace(graph: &mut Graph, at: NodeId, found: &Found) -> Result<Vec<NodeId>> {
    let consumers = graph.consumers();
    let Some(y) = graph.node(at).output(0) else { return Ok(Vec::new()) };
    let mut g = Build::new(graph);
    let mut inputs = Vec::new();
    for of in &found.qkv {
        inputs.push(Some(g.transpose(of.value, &of.perm)?));
    }
    // A factor of the values is one of the result.
    let factors = found.qkv.map(|of| of.factor);
    inputs.push(Some(mask(&mut g, &found.masks)?));
    let (seed, ratio, salt) = match found.dropout {
        Some(of) => of,
        None => (g.constant(TensorData::ints(&[0]))?, 0.0, 0),
    };
    inputs.push(Some(seed));
    let [batch, queries, heads, _] = found.shape;
    let rows = [batch, heads, queries, 1];
    let mut outputs = Vec::new();
    for shape in [found.shape, rows, rows] {
        let name = g.graph_mut().fresh_name("FusedAttention");
        let output = g.graph_mut().add_value(&name)?;
        g.graph_mut().set_type(output, ValueType::known(DType::F32, &shape));
        outputs.push(output);
    }
    let attributes = [
        ("scale", Attribute::Float((found.scale * factors[0] * factors[1]) as f32)),
        ("ratio", Attribute::Float(ratio)),
        ("salt", Attribute::Int(salt)),
        ("empty_is_zero", Attribute::Int(found.empty_is_zero.into())),
    ];
    g.graph_mut().push_node(Node {
        name: String::new(),
        op: "FusedAttention".into(),
        domain: MMOPT_DOMAIN.into(),
        inputs,
        outputs: outputs.iter().map(|&v| Some(v)).collect(),
        attributes: attributes.map(|(k, v)| (k.to_owned(), v)).into(),
    });
    let o = g.scale(outputs[0], factors[2])?;
    let perm = Attribute::Ints(vec![0, 2, 1, 3]);
    become_node(graph, at, "Transpose", o, [("perm".to_owned(), perm.clone())].into());
    // What turns the result back reads it as it was.
    let (mut same, mut names) = (vec![y], Vec::new());
    while let Some(y) = same.pop() {
        for &(reader, slot) in &consumers[y.index()] {
            let (node, shape) = (graph.node(reader), graph.value(y).ty.static_shape());
            let z = node.output(0).filter(|_| node.domain.is_empty() && slot == 0);
            match (node.op.as_str(), z) {
                ("Transpose", _) if node.attributes.get("perm") == Some(&perm) => {
                    become_node(graph, reader, "Identity", o, Attributes::new());
                }
                ("Reshape", Some(z)) if graph.value(z).ty.static_shape() == shape => {
                    same.push(z);
                    names.push(reader);
                }
                _ => {}
            }
        }
    }
    Ok(names)
}

/// Makes the node with its first output another operator of one value.
fn become_node(graph: &mut Graph, id: NodeId, op: &str, of: ValueId, attributes: Attributes) {
    let node = graph.node_mut(id);
    node.op = op.into();
    node.domain.clear();
    node.inputs = vec![Some(of)];
    node.attributes = attributes;
}

/// The sum of all masks; one zero where there are none.
fn mask(g: &mut Build, masks: &[Mask]) -> Result<ValueId> {
    let mut sum = None;
    for mask in masks {
        let own = match *mask {
            Mask::Added(v) => v,
            Mask::Chosen(test, low, keeps) => {
                let zero = g.number(DType::F32, 0.0)?;
                let (yes, no) = if keeps { (zero, low) } else { (low, zero) };
                g.select(test, yes, no)?
            }
        };
        sum = Some(match sum {
            Some(sum) => g.add(sum, own)?,
            None => own,
        });
    }
    match sum {
        Some(sum) => Ok(sum),
        None => g.constant(TensorData::from_slice(&[1], &[0f32])?),
    }
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
