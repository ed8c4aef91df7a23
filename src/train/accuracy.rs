//! How many labels a batch's logits predict right.

use super::batch::{Batch, TensorView};
use crate::autodiff::{LossKind, LossSpec};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Numbers of right predictions and of labels that count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Accuracy {
    pub n_correct: u64,
    pub n_labels: u64,
}

/// Index of the largest element; the first of equals.
fn argmax(row: &[f32]) -> i64 {
    let mut best = 0;
    for (i, v) in row.iter().enumerate() {
        if *v > row[best] {
            best = i;
        }
    }
    best as i64
}

fn find<'a>(batch: Batch<'a>, name: &str) -> Option<TensorView<'a>> {
    batch.iter().find(|v| v.name == name).copied()
}

/// Counts right predictions. Question answering counts an example as right when both its start and
/// its end are; regression has nothing to count.
pub(super) fn accuracy(spec: &LossSpec, outputs: &[&Tensor], batch: Batch) -> Result<Accuracy> {
    match spec.kind {
        LossKind::SequenceClassification
        | LossKind::TokenClassification
        | LossKind::MaskedLm
        | LossKind::CausalLm => {
            let (Some(labels), Some(first)) = (find(batch, "labels"), outputs.first()) else {
                return Ok(Accuracy::default());
            };
            let shift = usize::from(matches!(spec.kind, LossKind::CausalLm));
            classes(first, &labels, spec.ignore_index, shift)
        }
        LossKind::QuestionAnswering => spans(outputs, batch, spec.ignore_index),
        LossKind::MeanSquaredError | LossKind::Output(_) => Ok(Accuracy::default()),
    }
}

fn classes(logits: &Tensor, labels: &TensorView, ignore: i64, shift: usize) -> Result<Accuracy> {
    let n_classes = logits.shape().last().copied().unwrap_or(0).max(1);
    let rows = logits.as_slice::<f32>()?.chunks_exact(n_classes);
    let length = if labels.shape.len() > 1 { labels.shape[1] } else { 1 };
    let labels: Vec<i64> = labels.ints().collect();
    if labels.len() != rows.len() {
        return Err(Error::shape(format!(
            "{} labels for {} predictions",
            labels.len(),
            rows.len()
        )));
    }
    let mut counts = Accuracy::default();
    for (i, row) in rows.enumerate() {
        if i % length + shift >= length.max(1) && shift > 0 {
            continue;
        }
        let label = labels[i + shift];
        if label != ignore {
            counts.n_labels += 1;
            counts.n_correct += u64::from(argmax(row) == label);
        }
    }
    Ok(counts)
}

/// What the loss of a batch divides by: the weight of the batch in a mean over several. Labels that
/// count, each by its class weight; elements for a squared error; 1 where the model computes its
/// loss itself.
pub(super) fn loss_weight(spec: &LossSpec, batch: Batch, n_labels: u64) -> f64 {
    let labels = find(batch, "labels");
    match (&spec.kind, &spec.class_weights, labels) {
        (LossKind::Output(_), ..) => 1.0,
        (LossKind::MeanSquaredError, _, Some(labels)) => {
            labels.shape.iter().product::<usize>() as f64
        }
        (LossKind::QuestionAnswering, ..) | (_, None, _) | (_, _, None) => n_labels as f64,
        (kind, Some(weights), Some(labels)) => {
            let shift = usize::from(matches!(kind, LossKind::CausalLm));
            let length = labels.shape.get(1).copied().unwrap_or(1).max(1);
            let counts = labels.ints().enumerate().filter(|(i, _)| i % length >= shift);
            let kept = counts.filter(|&(_, label)| label != spec.ignore_index);
            let weight = |label| usize::try_from(label).ok().and_then(|l| weights.get(l));
            kept.map(|(_, label)| weight(label).map_or(0.0, |&w| f64::from(w))).sum()
        }
    }
}

fn spans(outputs: &[&Tensor], batch: Batch, ignore: i64) -> Result<Accuracy> {
    if let [both] = outputs
        && let &[n, length, 2] = both.shape()
    {
        let both = both.as_slice::<f32>()?;
        let part = |k: usize| {
            let values: Vec<f32> = both.iter().skip(k).step_by(2).copied().collect();
            Tensor::from_slice(&[n, length], &values)
        };
        return spans(&[&part(0)?, &part(1)?], batch, ignore);
    }
    let labels = (find(batch, "start_positions"), find(batch, "end_positions"));
    let ((Some(starts), Some(ends)), [start, end]) = (labels, outputs) else {
        return Ok(Accuracy::default());
    };
    let mut counts = Accuracy::default();
    let rows = span_rows(start)?.zip(span_rows(end)?);
    for (((s, e), from), to) in rows.zip(starts.ints()).zip(ends.ints()) {
        if from != ignore && to != ignore {
            counts.n_labels += 1;
            counts.n_correct += u64::from(argmax(s) == from && argmax(e) == to);
        }
    }
    Ok(counts)
}

fn span_rows(logits: &Tensor) -> Result<std::slice::ChunksExact<'_, f32>> {
    let &[_, length] = logits.shape() else {
        return Err(Error::shape("span logits must have shape [batch, sequence]"));
    };
    Ok(logits.as_slice::<f32>()?.chunks_exact(length.max(1)))
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
        let found = accuracy(&spec, &[&logits], &batch).unwrap();
        assert_eq!((found.n_correct, found.n_labels), expected);
    }

    #[test]
    fn a_batch_weighs_what_its_loss_divides_by() {
        let check = |kind: LossKind, weights: Option<Vec<f32>>, expected: f64| {
            let spec = LossSpec { class_weights: weights, ..LossSpec::new(kind) };
            let labels = Tensor::from_slice(&[2, 3], &[0i64, 1, -100, 1, 0, 1]).unwrap();
            let batch = [TensorView::of("labels", &labels)];
            assert_eq!(loss_weight(&spec, &batch, 5), expected, "{spec:?}");
        };
        check(LossKind::TokenClassification, None, 5.0);
        check(LossKind::TokenClassification, Some(vec![0.5, 2.0]), 7.0);
        // The first label of each row is nobody's next token.
        check(LossKind::CausalLm, Some(vec![0.5, 2.0]), 4.5);
        check(LossKind::MeanSquaredError, None, 6.0);
        check(LossKind::Output("loss".into()), None, 1.0);
    }

    #[test]
    fn right_predictions_are_counted_by_task() {
        let rows = [1.0, 2.0, 5.0, 0.0, 0.0, 3.0, 1.0, 0.0];
        check(LossKind::SequenceClassification, &[4, 2], &rows, &[1, 0, 0, 0], (3, 4));
        check(LossKind::TokenClassification, &[2, 2, 2], &rows, &[1, -100, 1, 1], (2, 3));
        // Predictions 1 0 | 1 0 are compared with the labels one place further right.
        check(LossKind::CausalLm, &[2, 2, 2], &rows, &[0, 1, 0, 0], (1, 2));
    }
}
