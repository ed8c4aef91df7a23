//! What a batch's logits are worth: how many labels were predicted right.

use ndarray::{ArrayView1, ArrayViewD, Axis};

use super::batch::{Batch, TensorView};
use crate::autodiff::{LossKind, LossSpec};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Right predictions and labels counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Score {
    pub n_correct: u64,
    pub n_labels: u64,
}

/// Index of the largest element; the first of equals.
fn argmax(row: ArrayView1<f32>) -> i64 {
    let mut best = 0;
    for (i, v) in row.iter().enumerate() {
        if *v > row[best] {
            best = i;
        }
    }
    best as i64
}

fn logits(tensor: &Tensor) -> Result<ArrayViewD<'_, f32>> {
    ArrayViewD::from_shape(tensor.shape(), tensor.as_slice::<f32>()?)
        .map_err(|e| Error::internal(e.to_string()))
}

fn find<'a>(batch: Batch<'a>, name: &str) -> Option<TensorView<'a>> {
    batch.iter().find(|v| v.name == name).copied()
}

/// Counts. Question answering counts an example when both its start and its end are right;
/// regression counts its examples and none as right.
pub(super) fn score(spec: &LossSpec, outputs: &[&Tensor], batch: Batch) -> Result<Score> {
    match spec.kind {
        LossKind::SequenceClassification
        | LossKind::TokenClassification
        | LossKind::MaskedLm
        | LossKind::CausalLm => {
            let (Some(labels), Some(first)) = (find(batch, "labels"), outputs.first()) else {
                return Ok(Score::default());
            };
            let shift = usize::from(matches!(spec.kind, LossKind::CausalLm));
            classes(&logits(first)?, &labels, spec.ignore_index, shift)
        }
        LossKind::QuestionAnswering => spans(outputs, batch, spec.ignore_index),
        LossKind::MeanSquaredError | LossKind::Output(_) => Ok(Score::default()),
    }
}

fn classes(
    logits: &ArrayViewD<f32>,
    labels: &TensorView,
    ignore: i64,
    shift: usize,
) -> Result<Score> {
    let n_classes = logits.shape().last().copied().unwrap_or(0);
    let n_rows = logits.len() / n_classes.max(1);
    let rows = logits.to_shape((n_rows, n_classes)).map_err(|e| Error::internal(e.to_string()))?;
    let length = if labels.shape.len() > 1 { labels.shape[1] } else { 1 };
    let labels: Vec<i64> = labels.ints().collect();
    if labels.len() != n_rows {
        return Err(Error::shape(format!("{} labels for {n_rows} predictions", labels.len())));
    }
    let mut score = Score::default();
    for (i, row) in rows.axis_iter(Axis(0)).enumerate() {
        if i % length + shift >= length.max(1) && shift > 0 {
            continue;
        }
        let label = labels[i + shift];
        if label != ignore {
            score.n_labels += 1;
            score.n_correct += u64::from(argmax(row) == label);
        }
    }
    Ok(score)
}

fn spans(outputs: &[&Tensor], batch: Batch, ignore: i64) -> Result<Score> {
    let labels = (find(batch, "start_positions"), find(batch, "end_positions"));
    let ((Some(starts), Some(ends)), [start, end]) = (labels, outputs) else {
        return Ok(Score::default());
    };
    let (start, end) = (logits(start)?, logits(end)?);
    let mut score = Score::default();
    let rows = start.axis_iter(Axis(0)).zip(end.axis_iter(Axis(0)));
    for (((s, e), from), to) in rows.zip(starts.ints()).zip(ends.ints()) {
        let (Ok(s), Ok(e)) = (s.into_dimensionality(), e.into_dimensionality()) else {
            return Err(Error::shape("span logits must have shape [batch, sequence]"));
        };
        if from != ignore && to != ignore {
            score.n_labels += 1;
            score.n_correct += u64::from(argmax(s) == from && argmax(e) == to);
        }
    }
    Ok(score)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        kind: LossKind,
        shape: &[usize],
        values: &[f32],
        labels: &[i64],
        expected: (u64, u64),
    ) {
        let spec = LossSpec::new(kind);
        let logits = Tensor::from_slice(shape, values).unwrap();
        let labels = Tensor::from_slice(&shape[..shape.len() - 1], labels).unwrap();
        let batch = [TensorView::of("labels", &labels)];
        let found = score(&spec, &[&logits], &batch).unwrap();
        assert_eq!((found.n_correct, found.n_labels), expected);
    }

    #[test]
    fn counts_by_task() {
        let rows = [1.0, 2.0, 5.0, 0.0, 0.0, 3.0, 1.0, 0.0];
        check(LossKind::SequenceClassification, &[4, 2], &rows, &[1, 0, 0, 0], (3, 4));
        check(LossKind::TokenClassification, &[2, 2, 2], &rows, &[1, -100, 1, 1], (2, 3));
        // Predictions 1 0 | 1 0 are held against the labels one place further right.
        check(LossKind::CausalLm, &[2, 2, 2], &rows, &[0, 1, 0, 0], (1, 2));
    }
}
