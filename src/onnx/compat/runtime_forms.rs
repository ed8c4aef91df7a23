//! Forms of operators that mean the same on every supported ONNX Runtime. Some runtimes read the
//! others differently, crash on them, or have no kernel for them.

use super::batch_first::steps_first;
use super::nearest::gather_nearest;
use crate::error::{Error, Result};
use crate::onnx::build::positive_axis;
use crate::onnx::{Attribute, Graph, Node, NodeId, TensorData};
use crate::tensor::DType;

/// Rewrites, wherever enough is known, what not every runtime understands as the standard has it;
/// returns whether anything changed:
/// - reductions over no axes with `noop_with_empty_axes`, which then are elementwise;
/// - negative `axes` of `Resize`;
/// - `Resize` to the nearest place where a position lies between two places;
/// - `AveragePool` with `ceil_mode` that counts its padding;
/// - pools with dilations that are padded to the same size, which runtimes pad as without
///   dilations;
/// - `Compress` by a constant, of whose result runtimes do not tell the shape;
/// - recurrent layers with the batch first, which runtimes refuse.
///
/// Values keep their ids. New nodes have no types yet.
pub fn rewrite_for_runtimes(graph: &mut Graph) -> Result<bool> {
    let mut changed = false;
    for id in graph.node_ids() {
        let node = graph.node(id);
        if !node.domain.is_empty() {
            continue;
        }
        changed |= match node.op.as_str() {
            op if op.starts_with("Reduce") => elementwise(graph, id),
            "Resize" => make_axes_positive(graph, id)? | gather_nearest(graph, id)?,
            "AveragePool" => pads_written_out(graph, id)? | factor_out_padding(graph, id)?,
            "LpPool" | "MaxPool" => pads_written_out(graph, id)?,
            "Compress" => picks(graph, id)?,
            "GRU" | "LSTM" | "RNN" => steps_first(graph, id)?,
            _ => false,
        };
    }
    if changed {
        graph.sort()?;
    }
    Ok(changed)
}

/// Whether older runtimes crash on a node's form and [`rewrite_for_runtimes`] needs a shape to
/// change it: the node must not be handed to a runtime before its input's shape is known.
pub fn needs_shape(node: &Node) -> bool {
    let negative = |axes: &[i64]| axes.iter().any(|&a| a < 0);
    let resize = node.op == "Resize" && node.ints("axes").is_some_and(negative);
    node.domain.is_empty() && (resize || pads_dilated(node))
}

/// Whether a pool with dilations is padded to the same size.
fn pads_dilated(node: &Node) -> bool {
    let wide = |dilations: &[i64]| dilations.iter().any(|&d| d != 1);
    ["AveragePool", "LpPool", "MaxPool"].contains(&node.op.as_str())
        && node.ints("dilations").is_some_and(wide)
        && node.string("auto_pad").is_some_and(|p| p.starts_with("SAME"))
}

/// `auto_pad` as pads, by the standard's formula: (steps - 1) stride + (kernel - 1) dilation + 1 -
/// size in all, with size / stride steps.
fn pads_written_out(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let node = graph.node(id);
    let shape = node.input(0).and_then(|x| graph.value(x).ty.static_shape());
    let (Some(shape), Some(kernel), true) = (shape, node.ints("kernel_shape"), pads_dilated(node))
    else {
        return Ok(false);
    };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for (i, (&kernel, &size)) in kernel.iter().zip(shape.iter().skip(2)).enumerate() {
        let at = |name: &str| node.ints(name).and_then(|v| v.get(i).copied()).unwrap_or(1).max(1);
        let size = size as i64;
        let steps = size.saturating_add(at("strides") - 1) / at("strides");
        let moved = steps.saturating_sub(1).saturating_mul(at("strides"));
        let wide = kernel.saturating_sub(1).saturating_mul(at("dilations")).saturating_add(1);
        let total = moved.saturating_add(wide).saturating_sub(size).max(0);
        let (small, large) = (total / 2, total - total / 2);
        if large >= kernel {
            let place = graph.describe(id);
            return Err(Error::unsupported(format!(
                "{place}: dilations that want {large} places of padding for a kernel of {kernel}"
            )));
        }
        let upper = node.string("auto_pad") == Some("SAME_UPPER");
        before.push(if upper { small } else { large });
        after.push(if upper { large } else { small });
    }
    let pads = Attribute::Ints([before, after].concat());
    let attributes = &mut graph.node_mut(id).attributes;
    attributes.remove("auto_pad");
    attributes.remove("ceil_mode");
    attributes.insert("pads".to_owned(), pads);
    Ok(true)
}

/// A `Compress` by a constant as a `Gather`.
fn picks(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let node = graph.node(id).clone();
    let condition = node.input(1).and_then(|v| graph.constant(v));
    let (Some(x), Some(condition)) = (node.input(0), condition) else { return Ok(false) };
    let flags = condition.to_i64s()?;
    let kept = flags.iter().enumerate().filter(|(_, flag)| **flag != 0).map(|(i, _)| i as i64);
    let kept = graph.add_initializer("", TensorData::ints(&kept.collect::<Vec<_>>()))?;
    let mut x = x;
    if !node.attributes.contains_key("axis") {
        let all = graph.add_initializer("", TensorData::ints(&[-1]))?;
        x = graph.op("Reshape", &[x, all], []);
    }
    let node = graph.node_mut(id);
    (node.op, node.inputs) = ("Gather".to_owned(), vec![Some(x), Some(kept)]);
    Ok(true)
}

/// A reduction over no axes: y = |x|, ln x, x² or x.
fn elementwise(graph: &mut Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let none = match (node.ints("axes"), node.input(1)) {
        (Some(axes), _) => axes.is_empty(),
        (None, None) => true,
        (None, Some(axes)) => graph.constant(axes).is_some_and(|d| d.is_empty()),
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

fn make_axes_positive(graph: &mut Graph, id: NodeId) -> Result<bool> {
    let node = graph.node(id);
    let shape = node.input(0).and_then(|x| graph.value(x).ty.shape.as_ref());
    let (Some(shape), true, Some(axes)) = (shape, needs_shape(node), node.ints("axes")) else {
        return Ok(false);
    };
    let rank = shape.len();
    let axes: Result<Vec<i64>> =
        axes.iter().map(|&a| positive_axis(a, rank).map(|a| a as i64)).collect();
    let axes = Attribute::Ints(axes?);
    graph.node_mut(id).attributes.insert("axes".to_owned(), axes);
    Ok(true)
}

/// A pool that counts its padding equals one that does not, times a constant: the fraction of each
/// window that is not padding.
fn factor_out_padding(graph: &mut Graph, id: NodeId) -> Result<bool> {
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
    let Some(parts) = unpadded_fractions(node, &shape) else { return Ok(false) };
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

/// For each axis and step of a pool over x, the fraction of the window that is x and not padding;
/// `None` where a step lies in the padding alone, or the attributes do not fit.
fn unpadded_fractions(node: &Node, x_shape: &[usize]) -> Option<Vec<Vec<f64>>> {
    const MOST: usize = 1 << 24;
    let n = x_shape.len().checked_sub(2)?;
    let kernel = node.ints("kernel_shape")?;
    let pads = node.ints("pads").map_or_else(|| vec![0; 2 * n], <[i64]>::to_vec);
    if kernel.len() != n || pads.len() != 2 * n || ends_in_padding(node, x_shape) {
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
/// disagree on whether that step exists, so such pools are refused.
pub fn ends_in_padding(node: &Node, x_shape: &[usize]) -> bool {
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
            assert!(rewrite_for_runtimes(&mut g).unwrap());
            assert_eq!(ops(&g), [becomes]);
            assert!(!rewrite_for_runtimes(&mut g).unwrap());
        }
        assert!(!rewrite_for_runtimes(&mut graph("ReduceL2", &[2, 3], &[])).unwrap());
    }

    #[test]
    fn axes_of_resize_are_counted_from_the_front() {
        let axes = [("axes", Attribute::Ints(vec![-1, 2]))];
        let mut g = graph("Resize", &[1, 2, 4, 6], &axes);
        assert!(needs_shape(&g.nodes()[0]));
        assert!(rewrite_for_runtimes(&mut g).unwrap());
        assert_eq!(g.nodes()[0].ints("axes"), Some(&[3, 2][..]));
        assert!(!needs_shape(&g.nodes()[0]));
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
        assert!(rewrite_for_runtimes(&mut g).unwrap());
        assert_eq!(ops(&g), ["AveragePool", "Mul"]);
        let part = g.nodes()[1].input(1).and_then(|v| g.initializer(v)).unwrap();
        assert_eq!(part.to_f64s().unwrap(), [0.5, 1.0, 1.0]);
        assert_eq!(g.outputs(), [g.nodes()[1].output(0).unwrap()]);
        // The last of three steps would begin in the padding.
        let mut g = pool(4, &[2, 2]);
        assert!(ends_in_padding(&g.nodes()[0], &[1, 1, 4]));
        assert!(!rewrite_for_runtimes(&mut g).unwrap());
    }
}
