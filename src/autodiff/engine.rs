//! The engine: finds the path from the parameters to the loss, walks it backwards, and sums what
//! the uses of a value contribute, in a fixed order.

use std::collections::HashMap;

use super::path::{Path, row};
use super::row::{Entry, Row};
use super::rule::RuleCx;
use super::{branch, scan};
use crate::error::{Context, Error, Result};
use crate::onnx::compat::{is_lowered, is_raised, raise_opset};
use crate::onnx::{Build, Graph, NodeId, Scan, ValueId};
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
        if Scan::is(&node) {
            for (x, dx) in scan::gradients(&mut self.g, id, &dys, path, pull_back)? {
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
