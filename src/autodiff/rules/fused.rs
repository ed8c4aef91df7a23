//! This library's fused operators of the forward pass.

use crate::autodiff::fused::{emit, like_last};
use crate::autodiff::row::{Row, own, own_stop};
use crate::autodiff::rule::RuleCx;
use crate::error::Result;
use crate::onnx::Attribute;

pub(in crate::autodiff) const ROWS: &[Row] = &[
    own("FusedAttention", attention).with(&["scale", "ratio", "salt", "empty_is_zero"]),
    own("CrossEntropy", cross_entropy).with(&["ignore_index", "label_smoothing"]),
    own("Dropout", dropout).with(&["ratio", "salt"]),
    own("Gelu", gelu),
    own("GeluTanh", gelu),
    own_stop("Targets"),
];

/// y = Gelu(x), GeluTanh(x)        dx = GeluGrad(dy, x), GeluTanhGrad(dy, x)
fn gelu(cx: &mut RuleCx) -> Result<()> {
    let (x, dy) = (cx.x(0)?, cx.dy()?);
    let op = format!("{}Grad", cx.node().op);
    cx.add_grad(0, |g| like_last(g, &op, &[dy, x]))
}

/// o, max, inverse = FusedAttention(q, k, v, mask, seed)
/// dq, dk, dv = FusedAttentionGrad(do, q, k, v, mask, seed, o, max, inverse)
fn attention(cx: &mut RuleCx) -> Result<()> {
    let mut inputs = vec![cx.dy()?];
    for i in 0..5 {
        inputs.push(cx.x(i)?);
    }
    for i in 0..3 {
        inputs.push(cx.y(i)?);
    }
    let shapes = [cx.x_shape(0)?, cx.x_shape(1)?, cx.x_shape(2)?];
    let shapes = shapes.each_ref().map(Vec::as_slice);
    let attributes = attributes(cx);
    let grads = emit(cx.g(), "FusedAttentionGrad", &inputs, &shapes, &borrowed(&attributes))?;
    for (i, dx) in grads.into_iter().enumerate() {
        cx.add_grad(i, |_| Ok(dx))?;
    }
    Ok(())
}

/// y = Dropout(x, seed)        dx = Dropout(dy, seed), which draws the same mask
fn dropout(cx: &mut RuleCx) -> Result<()> {
    let (seed, dy, shape) = (cx.x(1)?, cx.dy()?, cx.x_shape(0)?);
    let attributes = attributes(cx);
    cx.add_grad(0, |g| Ok(emit(g, "Dropout", &[dy, seed], &[&shape], &borrowed(&attributes))?[0]))
}

/// rows, lse = CrossEntropy(x, labels)        dx = CrossEntropyGrad(drows, x, labels, lse)
fn cross_entropy(cx: &mut RuleCx) -> Result<()> {
    let (x, labels, lse) = (cx.x(0)?, cx.x(1)?, cx.y(1)?);
    let (drows, shape, attributes) = (cx.dy()?, cx.x_shape(0)?, attributes(cx));
    let inputs = [drows, x, labels, lse];
    let attributes = borrowed(&attributes);
    cx.add_grad(0, |g| Ok(emit(g, "CrossEntropyGrad", &inputs, &[&shape], &attributes)?[0]))
}

fn attributes(cx: &RuleCx) -> Vec<(String, Attribute)> {
    cx.node().attributes.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn borrowed(attributes: &[(String, Attribute)]) -> Vec<(&str, Attribute)> {
    attributes.iter().map(|(k, v)| (k.as_str(), v.clone())).collect()
}
