//! Kernels whose elements depend only on their own row.

use ort::operator::ComputeContext;

use super::kernel::{KernelAttributes, KernelResult, each, input, output, require, rows_per_part};
use super::math;

/// y = x · Φ(x), Φ the normal distribution
pub(super) fn gelu(cx: &ComputeContext, _: &KernelAttributes) -> KernelResult {
    forward(cx, math::gelu)
}

/// y = x / (1 + e^(-2u)), u = √(2/π) (x + 0.044715 x³)
pub(super) fn gelu_tanh(cx: &ComputeContext, _: &KernelAttributes) -> KernelResult {
    forward(cx, math::gelu_tanh)
}

/// y = x, once the second input is there.
pub(super) fn after(cx: &ComputeContext, _: &KernelAttributes) -> KernelResult {
    forward(cx, <[f32]>::copy_from_slice)
}

fn forward(cx: &ComputeContext, work: fn(&mut [f32], &[f32])) -> KernelResult {
    input!(cx, 0, f32 => x);
    let (dims, x) = x;
    output!(cx, 0, dims => y);
    let Some(y) = y else { return Ok(()) };
    let part = rows_per_part(1);
    let parts = y.chunks_mut(part).zip(x.chunks(part)).collect();
    each(cx, parts, |_, (y, x)| work(y, x))
}

/// y = x · Φ(x)        dx = dy · (Φ(x) + x φ(x))
pub(super) fn gelu_grad(cx: &ComputeContext, _: &KernelAttributes) -> KernelResult {
    pointwise(cx, math::gelu_grad)
}

/// The tanh form of GELU.
pub(super) fn gelu_tanh_grad(cx: &ComputeContext, _: &KernelAttributes) -> KernelResult {
    pointwise(cx, math::gelu_tanh_grad)
}

/// y = softmax(x)        dx = y · (dy - Σ dy · y)
pub(super) fn softmax_grad(cx: &ComputeContext, _: &KernelAttributes) -> KernelResult {
    by_rows(cx, true, math::softmax_grad)
}

fn pointwise(cx: &ComputeContext, work: fn(&mut [f32], &[f32], &[f32])) -> KernelResult {
    by_rows(cx, false, move |dx, dy, x, _| work(dx, dy, x))
}

/// Work in parts of whole rows of the last axis, or of single elements where rows do not matter.
fn by_rows(
    cx: &ComputeContext,
    whole: bool,
    work: impl Fn(&mut [f32], &[f32], &[f32], usize) + Sync + Send,
) -> KernelResult {
    input!(cx, 0, f32 => dy);
    input!(cx, 1, f32 => x);
    let ((dy_dims, dy), (dims, x)) = (dy, x);
    require(dy_dims[..] == dims[..], "dy and x differ in shape")?;
    output!(cx, 0, dims => dx);
    let Some(dx) = dx else { return Ok(()) };
    let width = if whole { dims.last().map_or(1, |&d| d as usize) } else { 1 };
    if x.is_empty() {
        return Ok(());
    }
    let part = rows_per_part(width) * width;
    let parts = dx.chunks_mut(part).zip(dy.chunks(part).zip(x.chunks(part))).collect();
    each(cx, parts, |_, (dx, (dy, x))| work(dx, dy, x, width))
}
