//! What a model puts out for a batch, checked against the batch.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::text::Batch;

/// Index of the largest element; the first of equals.
pub(super) fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in row.iter().enumerate() {
        if *v > row[best] {
            best = i;
        }
    }
    best
}

/// The logits of classes: of each row, f32 \[B, C\], or with `by_token` of each token,
/// f32 \[B, S, C\].
pub(super) struct ClassLogits<'a> {
    values: &'a [f32],
    pub n_classes: usize,
    /// 1, or the length of the rows.
    length: usize,
}

impl<'a> ClassLogits<'a> {
    pub fn new(outputs: &'a [(String, Tensor)], batch: &Batch, by_token: bool) -> Result<Self> {
        let length = if by_token { batch.sequence_length() } else { 1 };
        if let [(_, logits)] = outputs {
            let expected: &[usize] = if by_token { &[batch.len(), length] } else { &[batch.len()] };
            if let Some((&n_classes, shape)) = logits.shape().split_last()
                && shape == expected
                && n_classes > 0
            {
                return Ok(Self { values: logits.as_slice()?, n_classes, length });
            }
        }
        let wanted = if by_token { "[batch, length, tags]" } else { "[batch, classes]" };
        Err(unfit(outputs, wanted))
    }

    /// The logits of a row, or of a token of it.
    pub fn row(&self, row: usize, token: usize) -> &'a [f32] {
        let start = (row * self.length + token) * self.n_classes;
        &self.values[start..start + self.n_classes]
    }
}

/// Start and end logits, one of each for every token.
pub(super) struct SpanLogits {
    starts: Vec<f32>,
    ends: Vec<f32>,
    length: usize,
}

impl SpanLogits {
    /// From two outputs f32 \[B, S\], or one of \[B, S, 2\].
    pub fn new(outputs: &[(String, Tensor)], batch: &Batch) -> Result<Self> {
        let length = batch.sequence_length();
        let shape = [batch.len(), length];
        let (starts, ends) = match outputs {
            [(_, both)] if both.shape() == [shape[0], shape[1], 2] => {
                let both: &[f32] = both.as_slice()?;
                let part = |k: usize| both.iter().skip(k).step_by(2).copied().collect();
                (part(0), part(1))
            }
            [(_, starts), (_, ends)] if starts.shape() == shape && ends.shape() == shape => {
                (starts.as_slice()?.to_vec(), ends.as_slice()?.to_vec())
            }
            _ => return Err(unfit(outputs, "[batch, length] twice, of starts and ends")),
        };
        Ok(Self { starts, ends, length })
    }

    pub fn row(&self, row: usize) -> (&[f32], &[f32]) {
        let span = row * self.length..(row + 1) * self.length;
        (&self.starts[span.clone()], &self.ends[span])
    }
}

fn unfit(outputs: &[(String, Tensor)], wanted: &str) -> Error {
    let found: Vec<String> =
        outputs.iter().map(|(name, t)| format!("'{name}' {:?}", t.shape())).collect();
    Error::shape(format!(
        "the task needs logits {wanted}, but the model puts out {}; give it the head of the \
         corpus's task",
        found.join(", ")
    ))
}
