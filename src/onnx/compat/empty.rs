//! Tensors without elements. Older runtimes crash on quotients of empty tensors, keep wrong shapes
//! in sums over them, and do not write products over an inner dimension of 0.

use crate::error::Result;
use crate::onnx::{Attribute, Graph, Node, NodeId, TensorData, ValueId};
use crate::tensor::DType;

/// Replaces empty values, and sums over no elements, by constants, so that no runtime computes
/// them. Needs types; values keep their ids.
pub fn fold_empty(graph: &mut Graph) -> Result<()> {
    let empty =
        |g: &Graph, v: ValueId| g.value(v).ty.static_shape().is_some_and(|s| s.contains(&0));
    let mut removed = Vec::new();
    for id in graph.node_ids() {
        let node = graph.node(id).clone();
        let outputs: Vec<ValueId> = node.outputs.iter().flatten().copied().collect();
        if outputs.is_empty() || !node.captures().is_empty() {
            continue;
        }
        if outputs.iter().all(|&v| empty(graph, v) && !graph.outputs().contains(&v)) {
            if set_empty(graph, &outputs)? {
                removed.push(id);
            }
            continue;
        }
        let reads_empty = summed(&node).iter().flatten().any(|&v| empty(graph, v));
        let [y] = outputs[..] else { continue };
        if empty(graph, y) || reads_empty {
            set_zeros(graph, id, y)?;
        }
    }
    graph.retain_nodes(|id, _| !removed.contains(&id));
    graph.sort()
}

/// The inputs whose products a node's result is a sum of, with nothing added; none where it is
/// something else. Axes are no such input: a tensor of none stands for all.
fn summed(node: &Node) -> &[Option<ValueId>] {
    let n = match node.op.as_str() {
        _ if !node.domain.is_empty() => 0,
        "ReduceL1" | "ReduceL2" | "ReduceSum" | "ReduceSumSquare" => 1,
        "Einsum" => node.inputs.len(),
        "Gemm" | "MatMul" | "Conv" | "ConvTranspose" if node.input(2).is_none() => 2,
        _ => 0,
    };
    &node.inputs[..n.min(node.inputs.len())]
}

/// Makes empty values constants; returns whether all their types are known.
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

    #[test]
    fn empty_tensors_are_not_computed() {
        let mut g = Graph::new("g", 18);
        let x = g.add_input("x", ValueType::known(DType::F32, &[0, 3])).unwrap();
        let y = g.op("Div", &[x, x], []);
        g.set_type(y, ValueType::known(DType::F32, &[0, 3]));
        let axes = g.add_initializer("axes", TensorData::ints(&[0])).unwrap();
        let sum = g.op("ReduceSum", &[y, axes], []);
        g.set_type(sum, ValueType::known(DType::F32, &[1, 3]));
        g.add_output(sum);
        fold_empty(&mut g).unwrap();
        let ops: Vec<&str> = g.nodes().iter().map(|n| n.op.as_str()).collect();
        assert_eq!(ops, ["ConstantOfShape"]);
        assert!(g.initializer(y).is_some_and(TensorData::is_empty));
    }
}
