//! This library's fused operators in gradients. In a graph that imports their domain, rules write
//! one node where standard operators would take many passes. The finished graph also contains each
//! of them in standard operators ([`crate::runtime::kernels::attach`]), so it runs without the
//! kernels too.

use crate::error::{Error, Result};
use crate::onnx::{Attribute, Build, MMOPT_DOMAIN, Node, ValueId, ValueType};
use crate::tensor::DType;

/// Whether a fused operator may take `x`: the graph imports the domain, and `x` is f32.
pub(super) fn allowed(g: &Build, x: ValueId) -> bool {
    g.graph().opsets.contains_key(MMOPT_DOMAIN) && matches!(g.dtype(x), Ok(DType::F32))
}

/// Appends a fused operator with one f32 output for each shape.
pub(super) fn emit(
    g: &mut Build,
    op: &str,
    inputs: &[ValueId],
    shapes: &[&[usize]],
    attributes: &[(&str, Attribute)],
) -> Result<Vec<ValueId>> {
    let mut outputs = Vec::new();
    for shape in shapes {
        let name = g.graph_mut().fresh_name(op);
        let output = g.graph_mut().add_value(&name)?;
        g.graph_mut().set_type(output, ValueType::known(DType::F32, shape));
        outputs.push(output);
    }
    g.graph_mut().push_node(Node {
        name: String::new(),
        op: op.into(),
        domain: MMOPT_DOMAIN.into(),
        inputs: inputs.iter().map(|&v| Some(v)).collect(),
        outputs: outputs.iter().map(|&v| Some(v)).collect(),
        attributes: attributes.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
    });
    Ok(outputs)
}

/// A fused operator with one output, like its last input.
pub(super) fn like_last(g: &mut Build, op: &str, inputs: &[ValueId]) -> Result<ValueId> {
    let last = *inputs.last().ok_or_else(|| Error::internal("no inputs"))?;
    let shape = g.shape(last)?;
    Ok(emit(g, op, inputs, &[&shape], &[])?[0])
}
