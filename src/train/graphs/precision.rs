//! Element types: f64 graphs with parameters held in f32, f16 and bf16 refused.
//!
//! The optimizer works on f32. In an f64 graph a parameter becomes an f32 input that is cast, and
//! float outputs are cast back: what lies between is computed in f64, gradients come out as f32.

use crate::error::{Error, Result};
use crate::onnx::{Attribute, Graph, Node, ValueId, ValueType};
use crate::tensor::DType;

fn cast(graph: &mut Graph, from: ValueId, to: ValueId, dtype: DType) {
    let attributes = [("to".to_owned(), Attribute::Int(i64::from(dtype.onnx())))];
    graph.push_node(Node {
        name: String::new(),
        op: "Cast".into(),
        domain: String::new(),
        inputs: vec![Some(from)],
        outputs: vec![Some(to)],
        attributes: attributes.into(),
    });
}

/// Makes an f64 value that holds a parameter of that shape, or an f64 input, an f32 input under
/// its name that is cast where the graph reads it. Returns the input.
///
/// # Errors
/// `Unsupported` when the body of an `If` reads the parameter.
pub fn hold_in_f32(graph: &mut Graph, parameter: ValueId, shape: &[usize]) -> Result<ValueId> {
    let name = graph.value_name(parameter).to_owned();
    if graph.consumers()[parameter.index()].iter().any(|&(_, slot)| slot == usize::MAX) {
        return Err(Error::unsupported(format!(
            "parameter '{name}' is f64 and read inside a body; export the model in f32"
        )));
    }
    let old = graph.fresh_name(&format!("{name}/file"));
    graph.rename(parameter, &old)?;
    let input = graph.add_input(&name, ValueType::known(DType::F32, shape))?;
    let wide = graph.fresh_name(&format!("{name}/f64"));
    let wide = graph.add_value(&wide)?;
    graph.set_type(wide, ValueType::known(DType::F64, shape));
    graph.replace_uses(parameter, wide);
    cast(graph, input, wide, DType::F64);
    graph.prune();
    let others: Vec<ValueId> = graph.inputs().iter().copied().filter(|&v| v != parameter).collect();
    graph.prune_inputs(&others);
    graph.sort()?;
    Ok(input)
}

/// Casts f64 outputs to f32 under their names. Returns those names.
pub fn outputs_in_f32(graph: &mut Graph) -> Result<Vec<String>> {
    let mut changed = Vec::new();
    let mut outputs = graph.outputs().to_vec();
    for v in &mut outputs {
        let ty = graph.value(*v).ty.clone();
        let fed = graph.inputs().contains(v) || graph.initializer(*v).is_some();
        if ty.dtype != Some(DType::F64) || fed {
            continue;
        }
        let name = graph.value_name(*v).to_owned();
        let wide = graph.fresh_name(&format!("{name}/f64"));
        graph.rename(*v, &wide)?;
        let narrow = graph.add_value(&name)?;
        graph.set_type(narrow, ValueType { dtype: Some(DType::F32), ..ty });
        cast(graph, *v, narrow, DType::F32);
        changed.push(name);
        *v = narrow;
    }
    graph.set_outputs(outputs);
    Ok(changed)
}

/// Refuses f16 and bf16 between a parameter and what is computed from it, by the first value.
pub(super) fn refuse_narrow(graph: &Graph, parameters: &[ValueId]) -> Result<()> {
    let mut reached = vec![false; graph.values().len()];
    parameters.iter().for_each(|v| reached[v.index()] = true);
    for id in graph.node_ids() {
        let node = graph.node(id);
        if !node.inputs.iter().flatten().any(|v| reached[v.index()]) {
            continue;
        }
        for &v in node.outputs.iter().flatten() {
            let value = graph.value(v);
            if let Some(dtype @ (DType::F16 | DType::BF16)) = value.ty.dtype {
                return Err(Error::unsupported(format!(
                    "model '{}': '{}', made by {}, is {dtype}; mixed precision is not supported \
                     yet, export the model in f32",
                    graph.name,
                    value.name,
                    graph.describe(id)
                )));
            }
            reached[v.index()] |= value.ty.dtype.is_none_or(DType::is_float);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::TensorData;

    #[test]
    fn an_f64_graph_takes_f32_and_gives_f32() {
        let mut g = Graph::new("wide", 17);
        let x = g.add_input("x", ValueType::known(DType::F64, &[2, 2])).unwrap();
        let w = TensorData::from_slice(&[2, 2], &[1f64, 2.0, 3.0, 4.0]).unwrap();
        let w = g.add_initializer("w", w).unwrap();
        let y = g.op("MatMul", &[x, w], []);
        g.rename(y, "y").unwrap();
        g.set_type(y, ValueType::known(DType::F64, &[2, 2]));
        g.add_output(y);
        let input = hold_in_f32(&mut g, w, &[2, 2]).unwrap();
        assert_eq!(g.find("w"), Some(input));
        assert_eq!(g.value(input).ty.dtype, Some(DType::F32));
        assert!(g.initializers().is_empty());
        assert_eq!(outputs_in_f32(&mut g).unwrap(), ["y"]);
        let y = g.outputs()[0];
        assert_eq!((g.value_name(y), g.value(y).ty.dtype), ("y", Some(DType::F32)));
        let ops: Vec<&str> = g.nodes().iter().map(|n| n.op.as_str()).collect();
        assert_eq!(ops, ["Cast", "MatMul", "Cast"]);
    }

    #[test]
    fn narrow_values_are_named() {
        let mut g = Graph::new("narrow", 17);
        let w = g.add_input("w", ValueType::known(DType::F32, &[2])).unwrap();
        let half = g.add_value("half").unwrap();
        cast(&mut g, w, half, DType::F16);
        g.set_type(half, ValueType::known(DType::F16, &[2]));
        g.add_output(half);
        let e = refuse_narrow(&g, &[w]).unwrap_err();
        assert!(e.message().contains("'half'") && e.message().contains("f16"), "{e}");
        assert!(refuse_narrow(&g, &[]).is_ok());
    }
}
