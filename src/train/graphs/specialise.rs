//! Fixing shapes: the runtime itself is asked for every value's type, and what depends on shapes
//! alone is computed once and becomes a constant.

use std::collections::{BTreeMap, HashSet};

use crate::autodiff::einsum_shape;
use crate::error::{Context, Error, Result};
use crate::onnx::build::check_size;
use crate::onnx::compat::{
    loops_to_scans, lower_defects, lower_sequences, needs_shape, raise_opset, rewrite_for_runtimes,
};
use crate::onnx::proto::GraphProto;
use crate::onnx::{Attribute, Dim, Graph, Node, Scan, TensorData, ValueId, ValueType, captures};
use crate::runtime::{self, Optimize, Session, SessionOptions};
use crate::tensor::{DType, element_count};

/// Float constants with more elements than this are weights, which shapes never depend on.
const MAX_SHAPE_DATA: usize = 16;
/// Constants with more elements than this are left to be computed in each run.
const MAX_FOLDED: usize = 1 << 22;
/// The ONNX format version that graphs are written in.
const IR_VERSION: i64 = 8;
/// Rounds of asking the runtime and folding; two serve the usual exports.
const MAX_ROUNDS: usize = 64;

/// A copy of `graph` in which each input has the shape that `shapes` gives it, every value that
/// the runtime can tell has its type set, and integer and boolean values that follow from shapes
/// are constants. Model-local functions, and the branch of each `If` whose condition is known,
/// stand where they are used. Values keep their ids.
///
/// # Errors
/// `Shape` when a shape does not fit its input or an input is left without one; `NotFound` for
/// unknown inputs; `Runtime` when the runtime refuses the model, which means that it is not valid
/// ONNX at its opset or newer than the runtime.
pub fn fix_shapes_and_types(graph: &Graph, shapes: &BTreeMap<String, Vec<usize>>) -> Result<Graph> {
    specialise(graph, shapes, false)
}

/// The same with each `Loop` written out, or made a `Scan`, where that is possible.
pub(super) fn without_loops(graph: &Graph, shapes: &BTreeMap<String, Vec<usize>>) -> Result<Graph> {
    specialise(graph, shapes, true)
}

fn specialise(
    graph: &Graph,
    shapes: &BTreeMap<String, Vec<usize>>,
    training: bool,
) -> Result<Graph> {
    let place = || format!("model '{}'", graph.name);
    let mut work = graph.clone();
    raise_opset(&mut work)?;
    work.inline_functions().context(place)?;
    // Nothing that a graph says here is newer; an older runtime refuses a newer stamp.
    work.ir_version = IR_VERSION;
    work.fix_input_shapes(shapes).context(place)?;
    check_inputs(&work).context(place)?;
    work.prune();
    // What one round makes constant lets the runtime see further in the next.
    let mut unknown = usize::MAX;
    rewrite_for_runtimes(&mut work).context(place)?;
    for _ in 0..MAX_ROUNDS {
        ask_runtime(&mut work).context(place)?;
        fold_shapes(&mut work).context(place)?;
        let sequences = count_sequences(&work);
        lower_sequences(&mut work).context(place)?;
        let inlined = work.inline_branches().context(place)?;
        work.inline_functions().context(place)?;
        let rewritten = rewrite_for_runtimes(&mut work).context(place)?;
        // What took their place has no types yet.
        if inlined || rewritten || count_sequences(&work) < sequences {
            unknown = usize::MAX;
            continue;
        }
        let now = count_unknown(&work);
        if now == 0 || now >= unknown {
            break;
        }
        unknown = now;
    }
    lower_defects(&mut work, runtime::load(None)?.version()).context(place)?;
    type_bodies(&mut work, training).context(place)?;
    if training
        && (work.unroll_loops().context(place)? | loops_to_scans(&mut work).context(place)?)
    {
        return specialise(&work, &BTreeMap::new(), training);
    }
    Ok(work)
}

fn count_sequences(graph: &Graph) -> usize {
    graph.nodes().iter().filter(|n| n.op == "SequenceAt" && n.domain.is_empty()).count()
}

/// Makes the types of what the bodies of each `If`, `Scan` and `Loop` hold known.
fn type_bodies(graph: &mut Graph, training: bool) -> Result<()> {
    for id in graph.node_ids() {
        let node = graph.node(id).clone();
        for (name, body, inputs) in bodies(graph, &node)? {
            let names = captures(body);
            let known = |n: &String| {
                let v = graph.find(n).map(|v| &graph.value(v).ty);
                v.is_some_and(|ty| ty.dtype.is_some() && ty.static_shape().is_some())
            };
            if !names.iter().all(known) {
                continue;
            }
            let place = || format!("{}: {name}", graph.describe(id));
            let inner = graph.body(body, &inputs).context(place)?;
            let typed = specialise(&inner, &BTreeMap::new(), training).context(place);
            let mut typed = match typed {
                Ok(typed) => typed,
                // What a loop's states become later may differ from what they start with.
                Err(_) if node.op == "Loop" => continue,
                Err(e) => return Err(e),
            };
            if node.op == "Loop" && !is_steady(&typed, inputs.len()) {
                continue;
            }
            graph.rename_apart(&mut typed, &names)?;
            let own = typed.inputs()[..inputs.len()].to_vec();
            graph.set_body(id, name, typed.to_body(&own, &names));
        }
    }
    Ok(())
}

/// Whether the states of a loop's body, which are all inputs but two, keep their types.
fn is_steady(body: &Graph, n_inputs: usize) -> bool {
    let states = body.inputs()[2..n_inputs].iter().zip(body.outputs().iter().skip(1));
    states.into_iter().all(|(x, y)| body.value(*x).ty == body.value(*y).ty)
}

/// Bodies of a node, with their names and the types of their inputs, where these are known.
fn bodies<'n>(
    graph: &Graph,
    node: &'n Node,
) -> Result<Vec<(&'static str, &'n GraphProto, Vec<ValueType>)>> {
    if Scan::is(node) {
        let Ok(form) = Scan::of(graph, node) else { return Ok(Vec::new()) };
        return Ok(vec![("body", Scan::body(node)?, form.types)]);
    }
    match (node.op.as_str(), node.attributes.get("body")) {
        _ if !node.domain.is_empty() => Ok(Vec::new()),
        ("If", _) => {
            let [yes, no] = graph.branches(node)?;
            Ok(vec![("then_branch", yes, Vec::new()), ("else_branch", no, Vec::new())])
        }
        ("Loop", Some(Attribute::Graph(body))) if node.inputs.len() >= 2 => {
            let known = |v: &Option<ValueId>| {
                let ty = &graph.value((*v)?).ty;
                Some(ValueType::known(ty.dtype?, &ty.static_shape()?))
            };
            let Some(states) = node.inputs[2..].iter().map(known).collect::<Option<Vec<_>>>()
            else {
                return Ok(Vec::new());
            };
            let step = [ValueType::known(DType::I64, &[]), ValueType::known(DType::Bool, &[])];
            Ok(vec![("body", body, [&step[..], &states[..]].concat())])
        }
        _ => Ok(Vec::new()),
    }
}

/// Number of values that nodes make and whose type is not fully known.
fn count_unknown(graph: &Graph) -> usize {
    let values = graph.nodes().iter().flat_map(|n| n.outputs.iter().flatten());
    let known = |v: ValueId| {
        let ty = &graph.value(v).ty;
        ty.dtype.is_some() && ty.static_shape().is_some()
    };
    values.filter(|v| !known(**v)).count()
}

fn check_inputs(graph: &Graph) -> Result<()> {
    for &v in graph.inputs() {
        let value = graph.value(v);
        let Some(shape) = value.ty.static_shape() else {
            return Err(Error::shape(format!(
                "input '{}' has free dimensions; give its shape",
                value.name
            )));
        };
        check_size(&shape).context(|| format!("input '{}'", value.name))?;
    }
    Ok(())
}

/// Sets the types that a session over the graph reports when every value is an output.
fn ask_runtime(graph: &mut Graph) -> Result<()> {
    let mut probe = graph.clone();
    let weights: Vec<ValueId> = graph
        .initializers()
        .iter()
        .filter(|(_, d)| d.dtype().is_float() && d.len() > MAX_SHAPE_DATA)
        .map(|(&v, _)| v)
        .chain(empty_parameters(graph))
        .collect();
    weights.into_iter().for_each(|v| {
        probe.make_input(v);
    });
    hold_back(&mut probe);
    let values = probe.nodes().iter().flat_map(|n| n.outputs.iter().flatten().copied());
    let values: Vec<ValueId> = values.collect();
    values.iter().for_each(|&v| probe.set_type(v, ValueType::default()));
    for (y, ty) in untold(graph) {
        probe.set_type(y, ty);
    }
    probe.set_outputs(values);
    for info in Session::probe_types(&probe.to_bytes()?)? {
        let Some(v) = graph.find(&info.name) else { continue };
        let known = |d: &Option<usize>| d.map_or(Dim::Unknown, Dim::Known);
        let shape = info.dtype.map(|_| info.shape.iter().map(known).collect());
        let ty = ValueType { dtype: info.dtype, shape };
        if let Some(shape) = ty.static_shape() {
            check_size(&shape).context(|| format!("value '{}'", info.name))?;
        }
        graph.set_type(v, ty);
    }
    Ok(())
}

/// Float initializers without elements, which the runtime would compute with while it optimises;
/// but for those that stand for an input that was left out.
fn empty_parameters(graph: &Graph) -> Vec<ValueId> {
    let optional: HashSet<ValueId> = graph
        .nodes()
        .iter()
        .filter(|n| n.op == "Resize")
        .flat_map(|n| n.inputs.iter().skip(1).flatten().copied())
        .collect();
    let empty =
        |v: &ValueId, d: &TensorData| d.dtype().is_float() && d.is_empty() && !optional.contains(v);
    graph.initializers().iter().filter(|(v, d)| empty(v, d)).map(|(&v, _)| v).collect()
}

/// Drops the nodes that may not be handed to the runtime before more is known, and all that
/// follows from them.
fn hold_back(graph: &mut Graph) {
    let mut held: HashSet<ValueId> = HashSet::new();
    for id in graph.node_ids() {
        let node = graph.node(id);
        let captured = node.captures();
        let mut reads = node.inputs.iter().flatten().copied();
        let waits = needs_shape(node)
            || reads.any(|v| held.contains(&v))
            || captured.iter().filter_map(|n| graph.find(n)).any(|v| held.contains(&v));
        if waits {
            held.extend(node.outputs.iter().flatten());
        }
    }
    if !held.is_empty() {
        graph.retain_nodes(|_, n| !n.outputs.iter().flatten().any(|v| held.contains(v)));
        graph.prune_inputs(&[]);
    }
}

/// Types of results that runtimes do not tell: of `MeanVarianceNormalization`, and in older ones
/// of `GroupNormalization` and `Einsum`.
fn untold(graph: &Graph) -> Vec<(ValueId, ValueType)> {
    let of = |node: &Node| {
        let (x, y) = (node.input(0)?, node.output(0)?);
        let ty = match node.op.as_str() {
            "GroupNormalization" | "MeanVarianceNormalization" => graph.value(x).ty.clone(),
            "Einsum" => {
                let shapes =
                    node.inputs.iter().flatten().map(|v| graph.value(*v).ty.static_shape());
                let shapes: Option<Vec<Vec<usize>>> = shapes.collect();
                let shape = einsum_shape(node.string("equation")?, &shapes?).ok()?;
                ValueType::known(graph.value(x).ty.dtype?, &shape)
            }
            _ => return None,
        };
        Some((y, ty))
    };
    graph.nodes().iter().filter(|n| n.domain.is_empty()).filter_map(of).collect()
}

/// Replaces `Shape` and `Size` by their values, and what follows from them by constants.
fn fold_shapes(graph: &mut Graph) -> Result<()> {
    let mut gone: HashSet<ValueId> = HashSet::new();
    for id in graph.node_ids() {
        let node = graph.node(id);
        let (Some(y), true) = (node.output(0), node.domain.is_empty()) else { continue };
        if let Some(data) = shape_value(graph, node) {
            graph.set_initializer(y, data);
            gone.insert(y);
        }
    }
    graph.retain_nodes(|_, n| !n.output(0).is_some_and(|v| gone.contains(&v)));
    let wanted = constant_results(graph);
    if !wanted.is_empty() {
        let results = compute(graph, &wanted)?;
        for (&v, data) in wanted.iter().zip(results) {
            graph.set_initializer(v, data);
        }
        let wanted: HashSet<ValueId> = wanted.into_iter().collect();
        graph.retain_nodes(|_, n| !n.output(0).is_some_and(|v| wanted.contains(&v)));
    }
    graph.prune();
    Ok(())
}

fn shape_value(graph: &Graph, node: &Node) -> Option<TensorData> {
    let shape = graph.value(node.input(0)?).ty.static_shape()?;
    let rank = shape.len() as i64;
    match node.op.as_str() {
        "Size" => TensorData::scalar(DType::I64, element_count(&shape).ok()? as f64).ok(),
        "Shape" => {
            let at = |name, default| {
                let i = node.int(name).unwrap_or(default);
                (if i < 0 { i.saturating_add(rank) } else { i }).clamp(0, rank) as usize
            };
            let (start, end) = (at("start", 0), at("end", rank));
            let dims: Vec<i64> =
                shape.get(start..end.max(start))?.iter().map(|&d| d as i64).collect();
            Some(TensorData::ints(&dims))
        }
        _ => None,
    }
}

/// Integer and boolean values that follow from constants alone and that others read.
fn constant_results(graph: &Graph) -> Vec<ValueId> {
    let mut constant = vec![false; graph.values().len()];
    for (v, data) in graph.initializers() {
        constant[v.index()] = !data.dtype().is_float() || data.len() == 1;
    }
    let mut results = Vec::new();
    for node in graph.nodes() {
        let is_random = node.op == "Dropout" || node.draws_numbers();
        let foldable = !is_random
            && !node.attributes.values().any(|a| matches!(a, Attribute::Graph(_)))
            && node.inputs.iter().flatten().all(|v| constant[v.index()])
            && node.constant().is_none_or(|d| !d.dtype().is_float() || d.len() == 1);
        if !foldable {
            continue;
        }
        let small = |v: &ValueId| {
            let ty = &graph.value(*v).ty;
            let n = ty.static_shape().and_then(|s| element_count(&s).ok());
            ty.dtype.is_some() && n.is_some_and(|n| n <= MAX_FOLDED)
        };
        if node.outputs.iter().flatten().all(small) {
            node.outputs.iter().flatten().for_each(|v| constant[v.index()] = true);
            let whole = |v: ValueId| graph.value(v).ty.dtype.is_some_and(|d| !d.is_float());
            results.extend(node.output(0).filter(|&v| node.outputs.len() == 1 && whole(v)));
        }
    }
    needed(graph, &results)
}

/// Those of `results` that are an output or read by a node whose own result is not among them.
fn needed(graph: &Graph, results: &[ValueId]) -> Vec<ValueId> {
    let folded: HashSet<ValueId> = results.iter().copied().collect();
    let mut read: HashSet<ValueId> = graph.outputs().iter().copied().collect();
    for node in graph.nodes() {
        if !node.output(0).is_some_and(|v| folded.contains(&v)) {
            read.extend(node.inputs.iter().flatten());
            read.extend(node.captures().iter().filter_map(|n| graph.find(n)));
        }
    }
    results.iter().copied().filter(|v| read.contains(v)).collect()
}

/// Runs the part of the graph that makes `wanted` from constants.
fn compute(graph: &Graph, wanted: &[ValueId]) -> Result<Vec<TensorData>> {
    let mut part = graph.clone();
    part.set_outputs(wanted.to_vec());
    part.prune();
    part.prune_inputs(&[]);
    let options = SessionOptions {
        name: "constants".into(),
        optimize: Optimize::Disabled,
        ..SessionOptions::default()
    };
    let session = Session::from_bytes(&part.to_bytes()?, &options)?;
    let names: Vec<&str> = wanted.iter().map(|&v| graph.value_name(v)).collect();
    let tensors = session.run(&[], &names)?;
    tensors.iter().map(TensorData::from_tensor).collect()
}
