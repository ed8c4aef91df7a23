//! Cross-entropy of logits against class numbers, and its gradient.
//!
//! Per row, with ε the label smoothing, c classes and y the label:
//! loss = (1-ε) (lse - x_y) + ε (lse - mean x), lse = ln Σ e^x; 0 for rows to ignore.

use ort::operator::ComputeContext;
use ort::value::Shape;

use super::kernel::{
    KernelAttributes, KernelResult, each, error, input, output, require, rows_per_part,
};
use super::math;
use crate::memory::zeros;

/// Loss and log-sum-exp of each row.
pub(super) fn cross_entropy(cx: &ComputeContext, attributes: &KernelAttributes) -> KernelResult {
    input!(cx, 0, f32 => logits);
    input!(cx, 1, i64 => labels);
    let ((dims, logits), (label_dims, labels)) = (logits, labels);
    let classes = check(dims, label_dims, labels, attributes)?;
    output!(cx, 0, label_dims => rows);
    output!(cx, 1, label_dims => lses);
    let Some(rows) = rows else { return Ok(()) };
    let n_unused = if lses.is_none() { rows.len() } else { 0 };
    let mut unused = zeros::<f32>(n_unused).map_err(|e| error(e.message()))?;
    let lses = lses.unwrap_or(&mut unused);
    let part = rows_per_part(classes);
    let parts = rows
        .chunks_mut(part)
        .zip(lses.chunks_mut(part))
        .zip(labels.chunks(part).zip(logits.chunks(part * classes)))
        .collect();
    each(cx, parts, |_, ((rows, lses), (labels, logits))| {
        let outputs = rows.iter_mut().zip(lses.iter_mut());
        for ((row, lse), (label, x)) in outputs.zip(labels.iter().zip(logits.chunks(classes))) {
            (*row, *lse) = one_row(x, *label, attributes);
        }
    })
}

fn one_row(x: &[f32], label: i64, attributes: &KernelAttributes) -> (f32, f32) {
    let (lse, sum) = math::log_sum_exp(x);
    if label == attributes.ignore_index {
        return (0.0, lse);
    }
    let smoothing = attributes.label_smoothing;
    let sharp = lse - x[label as usize];
    if smoothing == 0.0 {
        return (sharp, lse);
    }
    let spread = lse - (sum / x.len() as f64) as f32;
    ((1.0 - smoothing) * sharp + smoothing * spread, lse)
}

/// dx = drow · (softmax(x) - (1-ε) [class = y] - ε/c); 0 for rows to ignore.
pub(super) fn cross_entropy_grad(
    cx: &ComputeContext,
    attributes: &KernelAttributes,
) -> KernelResult {
    input!(cx, 0, f32 => drows);
    input!(cx, 1, f32 => logits);
    input!(cx, 2, i64 => labels);
    input!(cx, 3, f32 => lses);
    let ((_, drows), (dims, logits)) = (drows, logits);
    let ((label_dims, labels), (_, lses)) = (labels, lses);
    let classes = check(dims, label_dims, labels, attributes)?;
    let n = labels.len();
    require(drows.len() == n && lses.len() == n, "drows, labels and lse differ in length")?;
    output!(cx, 0, dims => dlogits);
    let Some(dlogits) = dlogits else { return Ok(()) };
    let smoothing = attributes.label_smoothing;
    let part = rows_per_part(classes);
    let parts = dlogits.chunks_mut(part * classes).collect();
    each(cx, parts, |i, out: &mut [f32]| {
        for (k, out) in out.chunks_mut(classes).enumerate() {
            let row = i * part + k;
            let (label, scale) = (labels[row], drows[row]);
            if label == attributes.ignore_index {
                out.fill(0.0);
                continue;
            }
            let x = &logits[row * classes..(row + 1) * classes];
            math::scaled_softmax(out, x, lses[row], scale, smoothing / classes as f32);
            out[label as usize] -= scale * (1.0 - smoothing);
        }
    })
}

/// Checks shapes and labels; the number of classes.
fn check(
    dims: &Shape,
    label_dims: &Shape,
    labels: &[i64],
    of: &KernelAttributes,
) -> KernelResult<usize> {
    require(dims.len() == 2, "logits have not two dimensions")?;
    require(label_dims[..] == dims[..1], "not one label per row of logits")?;
    let classes = dims[1];
    require(classes > 0, "no classes")?;
    match labels.iter().find(|&&l| l != of.ignore_index && !(0..classes).contains(&l)) {
        Some(label) => Err(error(&format!("label {label} is not one of {classes} classes"))),
        None => Ok(classes as usize),
    }
}
