//! Forms of operators that mean the same on every runtime that is supported. Older ones read some
//! forms otherwise, or end the process over them.

use crate::error::Result;
use crate::onnx::build::positive_axis;
use crate::onnx::{Attribute, Graph, Node, NodeId, TensorData, ValueId};
use crate::tensor::DType;

/// Rewrites, wherever enough is known, what older runtimes understand otherwise, and tells
/// whether it changed anything:
/// - reductions over no axes with `noop_with_empty_axes`, which then are elementwise;
/// - negative `axes` of `Resize`;
/// - `AveragePool` with `ceil_mode` that counts its padding.
///
/// Values keep their ids. What replaces a node has no types yet.
pub fn make_portable(graph: &mut Graph) -> Result<bool> {
    let mut changed = false;
    for id in graph.node_ids() {
        let node = graph.node(id);
        if !node.domain.is_empty() {
            continue;
        }
        changed |= match node.op.as_str() {
            op if op.starts_with("Reduce") => elementwise(graph, id),
            "Resize" => positive_axes(graph, id)?,
            "AveragePool" => count_apart(graph, id)?,
            _ => false,
        };
    }
    if changed {
        graph.sort()?;
    }
    Ok(changed)
}

/// Whether a node's form ends the process in older runtimes and [`make_portable`] lacks a shape to
/// change it: it must not be handed over yet.
pub fn must_wait(node: &Node) -> bool {
    let negative = |axes: &[i64]| axes.iter().any(|&a| a < 0);
    node.op == "Resize" && node.domain.is_empty() && node.ints("axes").is_some_and(negative)
}

/// A reduction over no axes: y = |x|, ln x, x² or x.
fn elementwise(graph: &mut Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let none = match (node.ints("axes"), node.input(1)) {
        (Some(axes), _) => axes.is_empty(),
        (None, None) => true,
        (None, Some(axes)) => constant(graph, axes).is_some_and(|d| d.is_empty()),
    };
    let (Some(x), true) = (node.input(0), none && node.int("noop_with_empty_axes") == Some(1))
    else {
        return false;
    };
    let (op, inputs) = match node.op.as_str() {
        "ReduceL1" | "ReduceL2" => ("Abs", vec![Some(x)]),
        "ReduceLogSum" => ("Log", vec![Some(x)]),
        "ReduceSumSquare" => ("Mul", vec![Some(x), Some(x)]),
        _ => ("Identity", vec![Some(x)]),
    };
    let node = graph.node_mut(id);
    (node.op, node.inputs) = (op.to_owned(), inputs);
    node.attributes.clear();
    true
}

/// The constant behind a value: an initializer or what a `Constant` node holds.
fn constant(graph: &Graph, v: ValueId) -> Option<TensorData> {
    let made = || graph.nodes().iter().find(|n| n.output(0) == Some(v))?.constant();
    graph.initializer(v).cloned().or_else(made)
}

fn positive_axes(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let node = graph.node(id);
    let shape = node.input(0).and_then(|x| graph.value(x).ty.shape.as_ref());
    let (Some(shape), true, Some(axes)) = (shape, must_wait(node), node.ints("axes")) else {
        return Ok(false);
    };
    let rank = shape.len();
    let axes: Result<Vec<i64>> =
        axes.iter().map(|&a| positive_axis(a, rank).map(|a| a as i64)).collect();
    let axes = Attribute::Ints(axes?);
    graph.node_mut(id).attributes.insert("axes".to_owned(), axes);
    Ok(true)
}

/// A pool that counts its padding is one that does not, times the part of each window that is no
/// padding: a constant.
fn count_apart(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let node = graph.node(id);
    let on = |name: &str| node.int(name) == Some(1);
    let explicit = node.string("auto_pad").is_none_or(|p| p == "NOTSET");
    let (Some(x), Some(y), true) =
        (node.input(0), node.output(0), on("ceil_mode") && on("count_include_pad") && explicit)
    else {
        return Ok(false);
    };
    let (shape, dtype) = (graph.value(x).ty.static_shape(), graph.value(x).ty.dtype);
    let (Some(shape), Some(dtype)) =
        (shape, dtype.filter(|d| matches!(d, DType::F32 | DType::F64)))
    else {
        return Ok(false);
    };
    let Some(parts) = inner_parts(node, &shape) else { return Ok(false) };
    let steps: Vec<usize> = parts.iter().map(Vec::len).collect();
    let mut part = vec![1.0];
    for along in &parts {
        part = part.iter().flat_map(|p| along.iter().map(move |a| p * a)).collect::<Vec<f64>>();
    }
    let narrow: Vec<f32> = part.iter().map(|&p| p as f32).collect();
    let part = match dtype {
        DType::F64 => TensorData::from_slice(&steps, &part)?,
        _ => TensorData::from_slice(&steps, &narrow)?,
    };
    let part = graph.add_initializer("", part)?;
    let mean = graph.add_value("")?;
    let node = graph.node_mut(id);
    node.outputs = vec![Some(mean)];
    node.attributes.remove("count_include_pad");
    let mut product = Node { name: String::new(), ..node.clone() };
    (product.op, product.inputs) = ("Mul".to_owned(), vec![Some(mean), Some(part)]);
    product.outputs = vec![Some(y)];
    product.attributes.clear();
    graph.push_node(product);
    Ok(true)
}

/// For each axis and step of a pool over x, which part of the window is x and not padding; `None`
/// where a step lies in the padding alone, or the attributes do not fit.
fn inner_parts(node: &Node, x_shape: &[usize]) -> Option<Vec<Vec<f64>>> {
    const MOST: usize = 1 << 24;
    let n = x_shape.len().checked_sub(2)?;
    let kernel = node.ints("kernel_shape")?;
    let pads = node.ints("pads").map_or_else(|| vec![0; 2 * n], <[i64]>::to_vec);
    if kernel.len() != n || pads.len() != 2 * n || overruns(node, x_shape) {
        return None;
    }
    let at = |name: &str, i: usize| node.ints(name).map_or(Some(1), |v| v.get(i).copied());
    let mut parts = Vec::new();
    let mut total = 1usize;
    for i in 0..n {
        let (size, before, after) = (x_shape[i + 2] as i64, pads[i], pads[n + i]);
        let (stride, dilation) = (at("strides", i)?, at("dilations", i)?);
        let sane = |v: i64| (1..=MOST as i64).contains(&v);
        if ![kernel[i], stride, dilation].into_iter().all(sane) || !sane(size) {
            return None;
        }
        let room = size + before.clamp(0, MOST as i64) + after.clamp(0, MOST as i64);
        let free = room - (kernel[i] - 1) * dilation - 1;
        if free < 0 || before < 0 || after < 0 {
            return None;
        }
        let steps = (free + stride - 1) / stride + 1;
        total = total.checked_mul(usize::try_from(steps).ok()?).filter(|&t| t <= MOST)?;
        if kernel[i].checked_mul(steps)? > MOST as i64 {
            return None;
        }
        let along = (0..steps).map(|step| {
            let places = (0..kernel[i]).map(|k| step * stride - before + k * dilation);
            let inside = places.clone().filter(|p| (0..size).contains(p)).count();
            let counted = places.filter(|&p| p < size + after).count();
            (inside > 0).then(|| inside as f64 / counted as f64)
        });
        parts.push(along.collect::<Option<Vec<f64>>>()?);
    }
    Some(parts)
}

/// Whether `ceil_mode` puts the last step of a pool over x wholly into the padding. Runtimes
/// disagree on whether that step exists.
pub(super) fn overruns(node: &Node, x_shape: &[usize]) -> bool {
    let explicit = node.string("auto_pad").is_none_or(|p| p == "NOTSET");
    if node.int("ceil_mode") != Some(1) || !explicit {
        return false;
    }
    let n = x_shape.len().saturating_sub(2);
    let at = |name: &str, i: usize, default: i64| {
        node.ints(name).and_then(|v| v.get(i).copied()).unwrap_or(default)
    };
    (0..n).any(|i| {
        let size = x_shape[i + 2] as i64;
        let (before, after) = (at("pads", i, 0), at("pads", n + i, 0));
        let wide = at("kernel_shape", i, 1).saturating_sub(1);
        let wide = wide.saturating_mul(at("dilations", i, 1)).saturating_add(1);
        let stride = at("strides", i, 1).max(1);
        let room = size.saturating_add(before).saturating_add(after).saturating_sub(wide);
        let steps = room.div_euclid(stride) + i64::from(room.rem_euclid(stride) != 0);
        steps.saturating_mul(stride) >= size.saturating_add(before)
    })
}

/// Leaves no value without elements to be computed, nor sums over none: older runtimes end the
/// process over quotients of empty tensors, keep wrong shapes in sums over them, and do not write
/// products over an inner dimension of 0. Needs types; values keep their ids.
pub fn fold_empty(graph: &mut Graph) -> Result<()> {
    let empty =
        |g: &Graph, v: ValueId| g.value(v).ty.static_shape().is_some_and(|s| s.contains(&0));
    let mut gone = Vec::new();
    for id in graph.node_ids() {
        let node = graph.node(id).clone();
        let outputs: Vec<ValueId> = node.outputs.iter().flatten().copied().collect();
        if outputs.is_empty() || !node.captures().is_empty() {
            continue;
        }
        if outputs.iter().all(|&v| empty(graph, v) && !graph.outputs().contains(&v)) {
            if set_empty(graph, &outputs)? {
                gone.push(id);
            }
            continue;
        }
        let reads_empty = node.inputs.iter().flatten().any(|&v| empty(graph, v));
        let [y] = outputs[..] else { continue };
        if empty(graph, y) || (reads_empty && sums(&node)) {
            set_zeros(graph, id, y)?;
        }
    }
    graph.retain_nodes(|id, _| !gone.contains(&id));
    graph.sort()
}

/// Whether a node's result is a sum of products over what it reads and nothing else.
fn sums(node: &Node) -> bool {
    let bilinear = ["Gemm", "MatMul", "Conv", "ConvTranspose", "Einsum"];
    let plain = ["ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare"];
    let op = node.op.as_str();
    node.domain.is_empty()
        && (plain.contains(&op) || bilinear.contains(&op) && node.input(2).is_none())
}

/// Makes values without elements constants; says whether all their types are known.
fn set_empty(graph: &mut Graph, values: &[ValueId]) -> Result<bool> {
    let mut found = Vec::new();
    for &v in values {
        let ty = &graph.value(v).ty;
        let (Some(dtype), Some(shape)) = (ty.dtype, ty.static_shape()) else { return Ok(false) };
        found.push((v, TensorData::new(dtype, &shape, Vec::new().into())?));
    }
    found.into_iter().for_each(|(v, data)| graph.set_initializer(v, data));
    Ok(true)
}

/// Makes a node give zeros of its output's type.
fn set_zeros(graph: &mut Graph, id: NodeId, y: ValueId) -> Result<()> {
    let ty = &graph.value(y).ty;
    let (Some(dtype @ (DType::F32 | DType::F64)), Some(shape)) = (ty.dtype, ty.static_shape())
    else {
        return Ok(());
    };
    let dims: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
    let dims = graph.add_initializer("", TensorData::ints(&dims))?;
    let zero = TensorData::scalar(dtype, 0.0)?.reshaped(&[1])?;
    let node = graph.node_mut(id);
    (node.op, node.domain, node.inputs) =
        ("ConstantOfShape".to_owned(), String::new(), vec![Some(dims)]);
    node.attributes.clear();
    node.attributes.insert("value".to_owned(), Attribute::Tensor(zero));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::ValueType;

    /// A graph with one operator on `x` of f32.
    fn graph(op: &str, shape: &[usize], attributes: &[(&str, Attribute)]) -> Graph {
        let mut g = Graph::new("g", 18);
        let x = g.add_input("x", ValueType::known(DType::F32, shape)).unwrap();
        let y = g.op(op, &[x], []);
        let last = g.node_ids().next_back().unwrap();
        for (name, a) in attributes {
            g.node_mut(last).attributes.insert((*name).to_owned(), a.clone());
        }
        g.add_output(y);
        g
    }

    fn ops(g: &Graph) -> Vec<&str> {
        g.nodes().iter().map(|n| n.op.as_str()).collect()
    }

    #[test]
    fn reductions_over_no_axes_are_elementwise() {
        let noop = [("noop_with_empty_axes", Attribute::Int(1))];
        for (op, becomes) in
            [("ReduceL2", "Abs"), ("ReduceSumSquare", "Mul"), ("ReduceMax", "Identity")]
        {
            let mut g = graph(op, &[2, 3], &noop);
            assert!(make_portable(&mut g).unwrap());
            assert_eq!(ops(&g), [becomes]);
            assert!(!make_portable(&mut g).unwrap());
        }
        assert!(!make_portable(&mut graph("ReduceL2", &[2, 3], &[])).unwrap());
    }

    #[test]
    fn axes_of_resize_are_counted_from_the_front() {
        let axes = [("axes", Attribute::Ints(vec![-1, 2]))];
        let mut g = graph("Resize", &[1, 2, 4, 6], &axes);
        assert!(must_wait(&g.nodes()[0]));
        assert!(make_portable(&mut g).unwrap());
        assert_eq!(g.nodes()[0].ints("axes"), Some(&[3, 2][..]));
        assert!(!must_wait(&g.nodes()[0]));
    }

    /// Steps at -2, 1 and 4 of a window of 4 over 6 places, two of padding before; the last window
    /// reaches beyond both.
    #[test]
    fn counted_padding_becomes_a_factor() {
        let pool = |size: usize, pads: &[i64]| {
            let attributes = [
                ("kernel_shape", Attribute::Ints(vec![4])),
                ("strides", Attribute::Ints(vec![3])),
                ("pads", Attribute::Ints(pads.to_vec())),
                ("ceil_mode", Attribute::Int(1)),
                ("count_include_pad", Attribute::Int(1)),
            ];
            graph("AveragePool", &[1, 1, size], &attributes)
        };
        let mut g = pool(6, &[2, 0]);
        assert!(make_portable(&mut g).unwrap());
        assert_eq!(ops(&g), ["AveragePool", "Mul"]);
        let part = g.nodes()[1].input(1).and_then(|v| g.initializer(v)).unwrap();
        assert_eq!(part.to_f64s().unwrap(), [0.5, 1.0, 1.0]);
        assert_eq!(g.outputs(), [g.nodes()[1].output(0).unwrap()]);
        // The last of three steps would begin in the padding.
        let mut g = pool(4, &[2, 2]);
        assert!(overruns(&g.nodes()[0], &[1, 1, 4]));
        assert!(!make_portable(&mut g).unwrap());
    }

    #[test]
    fn nothing_is_computed_of_nothing() {
        let mut g = Graph::new("g", 18);
        let x = g.add_input("x", ValueType::known(DType::F32, &[0, 3])).unwrap();
        let y = g.op("Div", &[x, x], []);
        g.set_type(y, ValueType::known(DType::F32, &[0, 3]));
        let axes = g.add_initializer("axes", TensorData::ints(&[0])).unwrap();
        let sum = g.op("ReduceSum", &[y, axes], []);
        g.set_type(sum, ValueType::known(DType::F32, &[1, 3]));
        g.add_output(sum);
        fold_empty(&mut g).unwrap();
        assert_eq!(ops(&g), ["ConstantOfShape"]);
        assert!(g.initializer(y).is_some_and(TensorData::is_empty));
    }
}
