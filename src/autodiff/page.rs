//! The page of supported operators, generated from the rule table.

use std::fmt::Write;

use super::alternatives::ALTERNATIVES;
use super::row::Entry;
use super::table::FAMILIES;
use crate::onnx::compat::{lowered_attributes, lowered_operators};

/// docs/operators.md: every operator that gradients flow through, stop at, or that is lowered.
pub fn operators_markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    for (title, rows) in FAMILIES {
        let _ = write!(page, "\n## {title}\n\n");
        if rows.iter().all(|r| matches!(r.entry, Entry::Stop)) {
            let names: Vec<&str> = rows.iter().map(|r| r.op).collect();
            page.push_str(&wrap(&names.join(", ")));
            continue;
        }
        page.push_str("| operator | since opset | attributes |\n|---|---|---|\n");
        for row in *rows {
            let _ = writeln!(page, "| {} | {} | {} |", row.op, row.since, listed(row.attributes));
        }
    }
    page.push_str(
        "\n## Rewritten to the above\n\n| operator | domain | attributes |\n|---|---|---|\n",
    );
    for (domain, op) in lowered_operators() {
        let attributes = listed(lowered_attributes(domain, op).unwrap_or_default());
        let domain = if domain.is_empty() { "ai.onnx" } else { domain };
        let _ = writeln!(page, "| {op} | {domain} | {attributes} |");
    }
    page.push_str(
        "\n## No gradient, and what to do instead\n\n| operators | instead |\n|---|---|\n",
    );
    for (ops, text) in ALTERNATIVES {
        let _ = writeln!(page, "| {} | {text} |", ops.join(", "));
    }
    page
}

/// In alphabetical order.
fn listed(attributes: &[&str]) -> String {
    let mut sorted = attributes.to_vec();
    sorted.sort_unstable();
    if sorted.is_empty() { "-".to_owned() } else { sorted.join(", ") }
}

/// Lines of at most 100 columns.
fn wrap(text: &str) -> String {
    let mut page = String::new();
    let mut width = 0;
    for word in text.split(' ') {
        if width > 0 && width + 1 + word.len() > 100 {
            page.push('\n');
            width = 0;
        }
        if width > 0 {
            page.push(' ');
            width += 1;
        }
        page.push_str(word);
        width += word.len();
    }
    page.push('\n');
    page
}

const INTRODUCTION: &str = "\
# Operators with gradients

This page is generated from the table of gradient rules (`src/autodiff`); a test keeps it fresh.

Models of opset 7 and newer are read, as far as the loaded ONNX Runtime knows the opset. Element
types are f32 and f64. An operator that is not listed, or that has an attribute that is not listed
for it, is an error only when a trained parameter reaches the loss through it; the error names the
model, the node, the operator with its opset, and the attribute. Operators that are rewritten are
checked for their attributes wherever they are.

Opsets 7 to 16 are raised to 17 first, which changes no result. Not raised are `RoiAlign` before
opset 16, `Scan` of opset 8, a `BatchNormalization` with `spatial` 0 or whose saved statistics are
used, and a `Resize` of opset 10 by scales that are not constant. `Dropout` before opset 12 does not
say whether it is in training mode: as since then, it is not. A `BatchNormalization` before opset 14
with more than one output is in training mode.

Rules cover broadcasting, repeated inputs and empty tensors, with these limits:
axes, slices, pads, repeats, scales and dropout's ratio and mode must not depend on data (on shapes
they may); `MaxPool` with `storage_order` 0; pools whose `ceil_mode` puts no step wholly into the
padding; `Resize` without `antialias`, `keep_aspect_ratio_policy` and `tf_crop_and_resize`; scatter
reductions `none` and `add`; of `BatchNormalization` the first output; `DFT` not both `onesided` and
`inverse`; `Attention` without `nonpad_kv_seqlen`, and without its last output where
`qk_matmul_output_mode` is 2 and positions are masked out.

Where several elements tie for a maximum or minimum they share the gradient equally; `Relu` at 0 has
gradient 0. `Clip` is `Min(Max(x, min), max)`, as ONNX says: at a bound the gradient is that of x,
and where `min` is above `max` all of it goes to `max`. `Mod` has gradients towards both inputs.
Where a `Resize` to the nearest place has a position between two places, exact arithmetic decides.
`LpNormalization` of zeros is zero and has gradient 0.

The running mean and variance of a `BatchNormalization` are buffers: they are not trained unless
`trainable` names them, and move by the node's momentum in each training pass where `training_mode`
is 1.

Model-local functions are written out where they are called, and so is the branch of an `If` whose
condition follows from shapes and constants. Where the condition depends on data, gradients go
through the branch that is taken, to what it reads from outside. Gradients go through a `Scan` to
its states and slices and to what its body reads from outside, and through a `Loop` whose number of
steps follows from shapes and constants and whose condition stays true: short ones are written out,
others must have states that keep their shapes.

`RNN`, `GRU` and `LSTM` are trained as a `Scan` of their steps, with all activations of the standard
(`Affine`, `ScaledTanh` and `ThresholdedRelu` with their alpha and beta given, since runtimes
disagree on the defaults).
";
