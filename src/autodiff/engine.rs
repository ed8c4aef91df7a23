//! The engine: finds the path from the parameters to the loss, walks it backwards, and sums what
//! the uses of a value contribute, in a fixed order.
//!
//! *reached*: a value that depends on a parameter through floats. *needed*: a value that the loss
//! is computed from. The path is the values that are both.

use std::collections::{HashMap, HashSet};

use super::alternatives::alternative;
use super::branch;
use super::row::{Entry, Row};
use super::rule::RuleCx;
use super::table;
use crate::error::{Context, Error, Result};
use crate::onnx::compat::{is_lowered, is_raised, raise_opset, unknown_attribute};
use crate::onnx::{Attribute, Build, Graph, Node, NodeId, ValueId};
use crate::tensor::DType;

/// Appends the gradients of `loss` (a float with one element) with respect to each of `wrt`.
///
/// Every value on the path needs a static shape (see [`crate::train::graphs`]). The result holds
/// one value of the same shape and element type for each of `wrt`, or `None` where the loss does
/// not depend on it. On failure the graph is as it was.
///
/// # Errors
/// `Unsupported` names the model, the node, its operator and opset when an operator on the path
/// has no rule; `InvalidArgument` when `loss` or a member of `wrt` is no float.
pub fn differentiate(
    graph: &mut Graph,
    loss: ValueId,
    wrt: &[ValueId],
) -> Result<Vec<Option<ValueId>>> {
    let mut work = graph.clone();
    let gradients = append(&mut work, loss, wrt).context(|| format!("model '{}'", graph.name))?;
    *graph = work;
    Ok(gradients)
}

/// Whether [`differentiate`] would succeed; changes nothing.
pub fn check_differentiable(graph: &Graph, loss: ValueId, params: &[ValueId]) -> Result<()> {
    let mut work = graph.clone();
    append(&mut work, loss, params).context(|| format!("model '{}'", graph.name)).map(|_| ())
}

/// Whether every operator between `params` and `output` has a rule or a rewrite to operators that
/// have one. Needs no shapes, so that it can be checked before anything is built; [`differentiate`]
/// can still fail on shapes and constants.
///
/// # Errors
/// `Unsupported` names the node, its operator and opset.
pub fn check_operators(graph: &Graph, output: ValueId, params: &[ValueId]) -> Result<()> {
    if graph.functions.is_empty() && !is_raised(graph.opset()) {
        return Path::trace(graph, &[output], params).check(graph, is_lowered);
    }
    let mut work = graph.clone();
    raise_opset(&mut work)?;
    work.inline_functions().context(|| format!("model '{}'", graph.name))?;
    Path::trace(&work, &[output], params).check(&work, is_lowered)
}

fn append(graph: &mut Graph, loss: ValueId, wrt: &[ValueId]) -> Result<Vec<Option<ValueId>>> {
    graph.sort()?;
    check_ends(graph, loss, wrt)?;
    let mut g = Build::new(graph);
    let (dtype, shape) = (g.dtype(loss)?, g.shape(loss)?);
    let one = g.number(dtype, 1.0)?;
    let seed = g.reshape(one, &shape)?;
    pull_back(graph, &[(loss, seed)], wrt)
}

/// Appends the cotangents of `wrt`, given those of other values: pairs of a value and its own.
fn pull_back(
    graph: &mut Graph,
    seeds: &[(ValueId, ValueId)],
    wrt: &[ValueId],
) -> Result<Vec<Option<ValueId>>> {
    let ends: Vec<ValueId> = seeds.iter().map(|s| s.0).collect();
    let path = Path::find(graph, &ends, wrt)?;
    let nodes: Vec<NodeId> = path.nodes(graph);
    let mut backward = Backward { g: Build::new(graph), contributions: HashMap::new() };
    for &(value, seed) in seeds {
        backward.contributions.entry(value).or_default().push(seed);
    }
    for id in nodes.into_iter().rev() {
        let place = backward.g.graph().describe(id);
        backward.node(id, &path).context(|| place)?;
    }
    wrt.iter().map(|&v| backward.total(v)).collect()
}

fn check_ends(graph: &Graph, loss: ValueId, wrt: &[ValueId]) -> Result<()> {
    for &v in wrt.iter().chain([&loss]) {
        let value = graph.value(v);
        match value.ty.dtype {
            Some(DType::F32 | DType::F64) => {}
            Some(dtype) => {
                let hint = if dtype.is_float() {
                    "; mixed precision is not supported yet, export the model in f32"
                } else {
                    ", which has no gradient"
                };
                let name = &value.name;
                return Err(Error::unsupported(format!("'{name}' is of type {dtype}{hint}")));
            }
            None => {
                return Err(Error::invalid(format!(
                    "the element type of '{}' is not known",
                    value.name
                )));
            }
        }
    }
    let shape = graph.value(loss).ty.static_shape();
    if shape.as_ref().is_none_or(|s| s.iter().product::<usize>() != 1) {
        let name = graph.value_name(loss);
        return Err(Error::shape(format!(
            "the loss '{name}' is no scalar, its shape is {shape:?}"
        )));
    }
    Ok(())
}

/// Which values lie between the parameters and the loss.
struct Path {
    reached: Vec<bool>,
    needed: HashSet<ValueId>,
}

impl Path {
    fn find(graph: &Graph, ends: &[ValueId], wrt: &[ValueId]) -> Result<Self> {
        let path = Self::trace(graph, ends, wrt);
        path.check(graph, |_| false)?;
        Ok(path)
    }

    fn trace(graph: &Graph, ends: &[ValueId], wrt: &[ValueId]) -> Self {
        let mut reached = vec![false; graph.values().len()];
        wrt.iter().for_each(|v| reached[v.index()] = true);
        for node in graph.nodes() {
            let captured = node.captures();
            let mut reads = read_inputs(graph, node);
            let depends = reads.any(|v| reached[v.index()])
                || captured.iter().filter_map(|n| graph.find(n)).any(|v| reached[v.index()]);
            let stops = matches!(entry(graph, node), Some(Entry::Stop));
            if depends && !stops {
                for v in node.outputs.iter().flatten() {
                    let dtype = graph.value(*v).ty.dtype;
                    reached[v.index()] |= dtype.is_none_or(DType::is_float);
                }
            }
        }
        let mut path = Self { reached, needed: ends.iter().copied().collect() };
        for node in graph.nodes().iter().rev() {
            if node.outputs.iter().flatten().any(|v| path.needed.contains(v)) {
                path.needed.extend(read_inputs(graph, node));
                path.needed.extend(node.captures().iter().filter_map(|n| graph.find(n)));
            }
        }
        path
    }

    fn contains(&self, v: ValueId) -> bool {
        self.reached.get(v.index()).copied().unwrap_or(false) && self.needed.contains(&v)
    }

    fn reads(&self, graph: &Graph, node: &Node) -> bool {
        let captured = node.captures();
        let captured = captured.iter().filter_map(|n| graph.find(n));
        read_inputs(graph, node).chain(captured).any(|v| self.contains(v))
    }

    fn nodes(&self, graph: &Graph) -> Vec<NodeId> {
        let on_path = |id: &NodeId| {
            let node = graph.node(*id);
            node.outputs.iter().flatten().any(|&v| self.contains(v)) && self.reads(graph, node)
        };
        graph.node_ids().filter(on_path).collect()
    }

    /// Outer values on the path that the branches of an `If` read, each once.
    fn captured(&self, graph: &Graph, node: &Node) -> Vec<ValueId> {
        let mut values: Vec<ValueId> =
            node.captures().iter().filter_map(|n| graph.find(n)).collect();
        values.sort_unstable();
        values.dedup();
        values.retain(|&v| self.contains(v));
        values
    }

    /// The same as [`Path::check`] within the branches of an `If`.
    fn check_branches(&self, graph: &Graph, node: &Node, lowered: fn(&Node) -> bool) -> Result<()> {
        let captured = self.captured(graph, node);
        for body in graph.branches(node)? {
            let mut inner = graph.branch(body)?;
            inner.inline_functions()?;
            let names = captured.iter().map(|&v| graph.value_name(v));
            let wrt: Vec<ValueId> = names.filter_map(|n| inner.find(n)).collect();
            Self::trace(&inner, inner.outputs(), &wrt).check(&inner, lowered)?;
        }
        Ok(())
    }

    /// Every node of the path has a rule or is `lowered` later; its values are f32 or f64.
    fn check(&self, graph: &Graph, lowered: fn(&Node) -> bool) -> Result<()> {
        for id in self.nodes(graph) {
            let node = graph.node(id);
            if lowered(node) {
                if let Some(name) = unknown_attribute(node) {
                    let text = format!("{}: {}", graph.describe(id), unknown(name));
                    return Err(Error::unsupported(text));
                }
                continue;
            }
            if branch::is_if(node) {
                self.check_branches(graph, node, lowered).context(|| graph.describe(id))?;
                continue;
            }
            let problem = match entry(graph, node) {
                Some(Entry::Rule(_)) if has_bodies(node) => {
                    Some("gradients through a body are not supported".to_owned())
                }
                Some(Entry::Rule(_)) => row(graph, node)
                    .and_then(|row| unlisted(row, node))
                    .or(half_precision(graph, node)),
                Some(Entry::Stop) => None,
                None => Some(no_rule(node)),
            };
            if let Some(problem) = problem {
                return Err(Error::unsupported(format!("{}: {problem}", graph.describe(id))));
            }
        }
        Ok(())
    }
}

fn no_rule(node: &Node) -> String {
    let text = format!("no gradient rule for the operator {}", node.op);
    alternative(node).map_or_else(|| text.clone(), |instead| format!("{text}; {instead}"))
}

fn unknown(attribute: &str) -> String {
    format!("no gradient rule with the attribute '{attribute}'")
}

/// An attribute of the node that the rule does not understand.
fn unlisted(row: &Row, node: &Node) -> Option<String> {
    node.attributes.keys().find(|name| !row.attributes.contains(&name.as_str())).map(|n| unknown(n))
}

fn has_bodies(node: &Node) -> bool {
    node.attributes.values().any(|a| matches!(a, Attribute::Graph(_)))
}

fn half_precision(graph: &Graph, node: &Node) -> Option<String> {
    let all = node.inputs.iter().chain(&node.outputs).flatten();
    let narrow = |d: &DType| matches!(d, DType::F16 | DType::BF16);
    let dtype = all.filter_map(|v| graph.value(*v).ty.dtype).find(narrow)?;
    Some(format!("works on {dtype}; mixed precision is not supported yet, export in f32"))
}

fn row(graph: &Graph, node: &Node) -> Option<&'static Row> {
    let opset = graph.opsets.get(&node.domain).copied().unwrap_or(1);
    table::find(&node.op, &node.domain, opset)
}

fn entry(graph: &Graph, node: &Node) -> Option<Entry> {
    row(graph, node).map(|row| row.entry)
}

/// Whether a gradient can reach input `slot` of a node, as far as the rule table tells.
pub fn passes_gradient(graph: &Graph, id: NodeId, slot: usize) -> bool {
    row(graph, graph.node(id))
        .is_none_or(|row| matches!(row.entry, Entry::Rule(_)) && !row.types_only.contains(&slot))
}

/// Inputs on whose elements the result depends.
fn read_inputs<'n>(graph: &Graph, node: &'n Node) -> impl Iterator<Item = ValueId> + use<'n> {
    let types_only = row(graph, node).map_or(&[][..], |row| row.types_only);
    let inputs = node.inputs.iter().enumerate().filter(|(i, _)| !types_only.contains(i));
    inputs.filter_map(|(_, v)| *v)
}

/// The backward pass under way.
struct Backward<'g> {
    g: Build<'g>,
    /// The cotangents that the uses of each value contributed so far.
    contributions: HashMap<ValueId, Vec<ValueId>>,
}

impl Backward<'_> {
    /// The cotangent of `v`: the sum of its contributions, which it replaces.
    fn total(&mut self, v: ValueId) -> Result<Option<ValueId>> {
        let Some(contributions) = self.contributions.get(&v).cloned() else { return Ok(None) };
        let total = self.g.sum(&contributions)?;
        self.contributions.insert(v, vec![total]);
        Ok(Some(total))
    }

    fn node(&mut self, id: NodeId, path: &Path) -> Result<()> {
        let node = self.g.graph().node(id).clone();
        let cotangent = |v: &Option<ValueId>| v.map_or(Ok(None), |v| self.total(v));
        let dys = node.outputs.iter().map(cotangent).collect::<Result<Vec<_>>>()?;
        if dys.iter().all(Option::is_none) {
            return Ok(());
        }
        if branch::is_if(&node) {
            let captured = path.captured(self.g.graph(), &node);
            for (x, dx) in branch::gradients(&mut self.g, &node, &dys, &captured, pull_back)? {
                self.contributions.entry(x).or_default().push(dx);
            }
            return Ok(());
        }
        let Some(row @ Row { entry: Entry::Rule(rule), .. }) = row(self.g.graph(), &node) else {
            return Err(Error::internal("a node without a rule on a checked path"));
        };
        let on_path = |v: &Option<ValueId>| v.is_some_and(|v| path.contains(v));
        let inputs = node.inputs.iter().enumerate();
        let needs = inputs.map(|(i, v)| on_path(v) && !row.types_only.contains(&i)).collect();
        let mut cx = RuleCx::new(&mut self.g, id, dys, needs);
        rule(&mut cx)?;
        for (x, dx) in cx.finish()? {
            self.contributions.entry(x).or_default().push(dx);
        }
        Ok(())
    }
}
