//! What to do about operators that have no gradient rule.

use crate::onnx::Node;

/// Operators of ONNX's own domain that exports contain and that have no rule, and what to do
/// instead.
pub(super) const ALTERNATIVES: &[(&[&str], &str)] = &[
    (
        &["Loop", "SequenceMap"],
        "gradients go through a Loop whose number of steps follows from shapes and constants and \
         whose condition stays true, if its states keep their shapes or it is short; export the \
         model with the loop written out, or freeze what is before it",
    ),
    (
        &[
            "ConvInteger",
            "DequantizeLinear",
            "DynamicQuantizeLinear",
            "MatMulInteger",
            "QLinearConv",
            "QLinearMatMul",
            "QuantizeLinear",
        ],
        "quantised weights are not trainable; train the model in f32 and quantise what comes out",
    ),
    (
        &["Compress"],
        "there is a gradient where the condition is a constant or follows from shapes; multiply by \
         a mask, or freeze what is before it",
    ),
    (&["Col2Im"], "export it as a ConvTranspose with a fixed weight of zeros and ones"),
    (
        &["AffineGrid"],
        "write the grid out as a product, use Resize where it is regular, or freeze what is before \
         it",
    ),
    (&["MaxRoiPool", "RoiAlign"], "freeze what is before it, and train what is behind it"),
    (&["Det"], "write it out in products and sums, or freeze what is before it"),
    (&["MaxUnpool"], "use ConvTranspose or Resize, or freeze what is before it"),
];

/// What to do about a node of this operator, if that is known.
pub(super) fn alternative(node: &Node) -> Option<&'static str> {
    let found = ALTERNATIVES.iter().find(|(ops, _)| ops.contains(&node.op.as_str()));
    found.filter(|_| node.domain.is_empty()).map(|(_, text)| *text)
}
