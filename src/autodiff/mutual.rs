//! Mutual learning: a model's predictions are drawn towards given ones (Zhang et al. 2018).
//!
//! For rows of logits z `[rows, classes]`, target probabilities p of that shape, a weight w for
//! each row, and temperature T (its square as in Hinton et al. 2015):
//! `T² Σ_r w_r Σ_c p (ln p - ln softmax(z / T))`, the divergence KL(p ‖ own) of each row. Only the
//! part that depends on z is written: `-T² Σ_r w_r Σ_c p ln softmax(z / T)`, which has its
//! gradient. Where the targets come from, and which rows have one, is not the graph's business.

use crate::autodiff::LossKind;
use crate::autodiff::fused::emit;
use crate::error::{Error, Result};
use crate::onnx::{Build, Graph, MMOPT_DOMAIN, ValueId, ValueType};
use crate::tensor::DType;

/// Input with the target probabilities, f32 `[rows, classes]`.
pub const TARGETS_INPUT: &str = "mmopt.targets";
/// Input with the weight of each row, f32 `[rows]`; 0 leaves a row out.
pub const TARGET_WEIGHTS_INPUT: &str = "mmopt.target_weights";
/// Input in place of these two where the pass asks for its targets while it runs, i64 `[2]`: the
/// number of the exchange and the position of the model.
pub const EXCHANGE_INPUT: &str = "mmopt.exchange";

/// How a model is drawn towards predictions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MutualTerm {
    /// T.
    pub temperature: f64,
    /// Whether the pass asks for its targets when its logits are there, by the operator `Targets`.
    pub asks: bool,
}

/// Adds the term for the logits that a loss of `kind` is computed from and returns it, a scalar of
/// the logits' type; the graph gets the two inputs, or that of the exchange. Values need static
/// shapes.
///
/// Rows are those of the logits before the last axis; for question answering the examples' starts
/// and then their ends, over positions.
///
/// # Errors
/// `InvalidArgument` for a temperature that is not positive; `Shape` for logits without classes.
pub fn attach_mutual(
    graph: &mut Graph,
    kind: &LossKind,
    logits: &[ValueId],
    term: MutualTerm,
) -> Result<ValueId> {
    let temperature = term.temperature;
    if !(temperature.is_finite() && temperature > 0.0) {
        return Err(Error::invalid(format!("mutual learning at temperature {temperature}")));
    }
    let mut g = Build::new(graph);
    let (z, rows, classes) = in_rows(&mut g, kind, logits)?;
    let (targets, weights) =
        if term.asks { exchanged(&mut g, z)? } else { given(&mut g, rows, classes)? };
    let dtype = g.dtype(z)?;
    let mut like_z = |v| if dtype == DType::F32 { Ok(v) } else { g.cast(v, dtype) };
    let (targets, weights) = (like_z(targets)?, like_z(weights)?);
    let cooled = g.scale(z, 1.0 / temperature)?;
    let logs = g.softmax("LogSoftmax", cooled, 1)?;
    let cross = g.mul(targets, logs)?;
    let cross = g.reduce("ReduceSum", cross, &[1], false)?;
    let weighted = g.mul(cross, weights)?;
    let total = g.reduce("ReduceSum", weighted, &[0], false)?;
    g.scale(total, -temperature * temperature)
}

/// Targets and weights that are fed.
fn given(g: &mut Build, rows: usize, classes: usize) -> Result<(ValueId, ValueId)> {
    let mut input = |name: &str, shape: &[usize]| {
        g.graph_mut().claim_input(name, ValueType::known(DType::F32, shape))
    };
    Ok((input(TARGETS_INPUT, &[rows, classes])?, input(TARGET_WEIGHTS_INPUT, &[rows])?))
}

/// Targets and weights that the pass asks for.
fn exchanged(g: &mut Build, z: ValueId) -> Result<(ValueId, ValueId)> {
    let place = g.graph_mut().claim_input(EXCHANGE_INPUT, ValueType::known(DType::I64, &[2]))?;
    let z = if g.dtype(z)? == DType::F32 { z } else { g.cast(z, DType::F32)? };
    let shape = g.shape(z)?;
    let rows = &shape[..shape.len() - 1];
    g.graph_mut().opsets.insert(MMOPT_DOMAIN.into(), 1);
    match emit(g, "Targets", &[z, place], &[&shape, rows], &[])?[..] {
        [targets, weights] => Ok((targets, weights)),
        _ => Err(Error::internal("Targets has two outputs")),
    }
}

/// The logits as `[rows, classes]`.
fn in_rows(g: &mut Build, kind: &LossKind, logits: &[ValueId]) -> Result<(ValueId, usize, usize)> {
    let spans = *kind == LossKind::QuestionAnswering;
    let z = match *logits {
        [start, end] if spans => g.concat(&[start, end], 0)?,
        [both] if spans => g.transpose(both, &[2, 0, 1])?,
        [only] => only,
        _ => return Err(Error::invalid("mutual learning needs a loss over logits")),
    };
    let shape = g.shape(z)?;
    let classes = shape.last().copied().filter(|&c| c > 0);
    let classes = classes.ok_or_else(|| Error::shape(format!("logits of shape {shape:?}")))?;
    let rows = shape.iter().product::<usize>() / classes;
    Ok((g.reshape(z, &[rows, classes])?, rows, classes))
}
