//! Gradients through an `If` whose condition depends on data: a second `If` with the same
//! condition, whose branches recompute their forward pass and pull the cotangents back to the outer
//! values that they read.

use crate::error::{Context, Error, Result};
use crate::onnx::compat::lower;
use crate::onnx::proto::GraphProto;
use crate::onnx::{Attribute, Build, Graph, MMOPT_DOMAIN, Node, ValueId, captures};

/// The engine's reverse pass over a graph: cotangents of the last argument, given pairs of a value
/// and its cotangent.
type PullBack = fn(&mut Graph, &[(ValueId, ValueId)], &[ValueId]) -> Result<Vec<Option<ValueId>>>;

pub(super) fn is_if(node: &Node) -> bool {
    node.op == "If" && node.domain.is_empty()
}

/// Cotangents of `captured` outer values, given those of the node's outputs.
pub(super) fn gradients(
    g: &mut Build,
    node: &Node,
    dys: &[Option<ValueId>],
    captured: &[ValueId],
    pull_back: PullBack,
) -> Result<Vec<(ValueId, ValueId)>> {
    let condition = node.input(0).ok_or_else(|| Error::data("input 0 is missing"))?;
    let names = ["then_branch", "else_branch"];
    let mut bodies = Vec::new();
    for (name, body) in names.into_iter().zip(g.graph().branches(node)?) {
        let place = || name.to_owned();
        bodies.push(backward(g, body, dys, captured, pull_back).context(place)?);
    }
    let mut types = Vec::new();
    for &v in captured {
        types.push((g.dtype(v)?, g.shape(v)?));
    }
    let attributes = [("then_branch", bodies.remove(0)), ("else_branch", bodies.remove(0))];
    let gradients = g.emit_n("If", &[Some(condition)], &types, attributes);
    Ok(captured.iter().copied().zip(gradients).collect())
}

/// The branch that computes the cotangents of `captured`; zeros for what it does not read.
fn backward(
    g: &mut Build,
    body: &GraphProto,
    dys: &[Option<ValueId>],
    captured: &[ValueId],
    pull_back: PullBack,
) -> Result<Attribute> {
    let mut branch = g.graph().branch(body)?;
    let mut outside = captures(body);
    // Names of the branch's values must differ from those of the outer graph.
    g.graph_mut().rename_apart(&mut branch, &outside)?;
    let seeds = seeds(g, &mut branch, dys, &mut outside)?;
    // A body cannot hold fused operators; it is written in standard ones.
    branch.opsets.remove(MMOPT_DOMAIN);
    check_deterministic(&branch)?;
    lower(&mut branch)?;
    let inner: Vec<Option<ValueId>> =
        captured.iter().map(|&v| branch.find(g.graph().value_name(v))).collect();
    let wrt: Vec<ValueId> = inner.iter().flatten().copied().collect();
    let mut found = pull_back(&mut branch, &seeds, &wrt)?.into_iter();
    let mut outputs = Vec::new();
    let mut b = Build::new(&mut branch);
    for (&outer, inner) in captured.iter().zip(inner) {
        let (dtype, shape) = (g.dtype(outer)?, g.shape(outer)?);
        let gradient = inner.and_then(|_| found.next()).flatten();
        let gradient = gradient.map_or_else(|| b.zeros(dtype, &shape), Ok)?;
        outputs.push(b.graph_mut().own_output(gradient, &outputs));
    }
    branch.set_outputs(outputs);
    branch.prune();
    branch.sort()?;
    g.graph_mut().rename_apart(&mut branch, &outside)?;
    Ok(Attribute::Graph(Box::new(branch.to_branch(&outside))))
}

/// The branch's outputs with their cotangents, which become captured values.
fn seeds(
    g: &Build,
    branch: &mut Graph,
    dys: &[Option<ValueId>],
    outside: &mut Vec<String>,
) -> Result<Vec<(ValueId, ValueId)>> {
    let mut seeds = Vec::new();
    for (y, dy) in branch.outputs().to_vec().into_iter().zip(dys) {
        let Some(dy) = *dy else { continue };
        let (name, ty) = (g.graph().value_name(dy).to_owned(), g.graph().value(dy).ty.clone());
        // Rules rely on cotangents of the same shape as their values.
        let inner = branch.value(y).ty.static_shape();
        if inner.is_some() && inner != ty.static_shape() {
            let (y, outer) = (branch.value_name(y), ty.static_shape());
            let text = format!("the branch outputs '{y}' as {inner:?}, the node as {outer:?}");
            return Err(Error::shape(text));
        }
        let seed = match branch.find(&name) {
            Some(known) => known,
            None => branch.add_input(&name, ty)?,
        };
        outside.push(name);
        seeds.push((y, seed));
    }
    Ok(seeds)
}

fn check_deterministic(branch: &Graph) -> Result<()> {
    for id in branch.node_ids() {
        let node = branch.node(id);
        let off =
            |v| branch.initializer(v).is_some_and(|d| matches!(d.to_i64s(), Ok(f) if f == [0]));
        let draws = node.op == "Dropout" && node.input(2).is_some_and(|v| !off(v));
        if (node.domain.is_empty() && draws) || node.draws_numbers() {
            return Err(Error::unsupported(format!(
                "{}: random numbers in a branch with gradients",
                branch.describe(id)
            )));
        }
    }
    Ok(())
}
