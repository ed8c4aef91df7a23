//! What a model predicts for a batch: rows of probabilities.
//!
//! A *row* is what one distribution is over: an example of sequence classification, a token of
//! token classification and language models. For question answering the rows are the examples'
//! starts and then their ends, and the classes are positions.

use crate::autodiff::LossKind;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Rows and classes of the logits that a loss of `kind` is computed from.
pub(in crate::train) fn row_shape(kind: &LossKind, outputs: &[&Tensor]) -> Result<(usize, usize)> {
    let shapes: Vec<&[usize]> = outputs.iter().map(|t| t.shape()).collect();
    match (kind, &shapes[..]) {
        (LossKind::QuestionAnswering, [[batch, length], _] | [[batch, length, 2]]) => {
            Ok((2 * batch, *length))
        }
        (_, [[lead @ .., classes]]) => Ok((lead.iter().product(), *classes)),
        _ => Err(Error::shape(format!("mutual learning from logits of shapes {shapes:?}"))),
    }
}

/// Probabilities of a model for a batch; its memory is kept from step to step.
#[derive(Clone, Debug, Default)]
pub(in crate::train) struct Prediction {
    pub n_classes: usize,
    /// `[rows, classes]`.
    pub probabilities: Vec<f32>,
}

impl Prediction {
    /// softmax(logits / temperature) of each row.
    pub fn set(&mut self, kind: &LossKind, outputs: &[&Tensor], temperature: f64) -> Result<()> {
        let (_, classes) = row_shape(kind, outputs)?;
        self.n_classes = classes;
        self.probabilities.clear();
        self.probabilities.try_reserve(outputs.iter().map(|o| o.len()).sum())?;
        match outputs {
            [both] if *kind == LossKind::QuestionAnswering => {
                let both = both.as_slice::<f32>()?;
                for part in 0..2 {
                    self.probabilities.extend(both.iter().skip(part).step_by(2));
                }
            }
            _ => {
                for output in outputs {
                    self.probabilities.extend_from_slice(output.as_slice::<f32>()?);
                }
            }
        }
        self.probabilities
            .chunks_exact_mut(classes.max(1))
            .for_each(|row| softmax(row, temperature));
        Ok(())
    }

    /// softmax(rows / temperature) of logits `[rows, classes]`.
    pub fn set_rows(&mut self, logits: Vec<f32>, classes: usize, temperature: f64) {
        self.n_classes = classes;
        self.probabilities = logits;
        let rows = self.probabilities.chunks_exact_mut(classes.max(1));
        rows.for_each(|row| softmax(row, temperature));
    }

    /// Whether it may be learnt from.
    pub fn is_finite(&self) -> bool {
        self.probabilities.iter().all(|p| p.is_finite())
    }

    /// Forgets the prediction.
    pub fn clear(&mut self) {
        self.probabilities.clear();
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.probabilities.is_empty()
    }

    pub fn shape(&self) -> (usize, usize) {
        (self.n_rows(), self.n_classes)
    }

    pub fn n_rows(&self) -> usize {
        self.probabilities.len() / self.n_classes.max(1)
    }

    pub fn row(&self, row: usize) -> &[f32] {
        &self.probabilities[row * self.n_classes..(row + 1) * self.n_classes]
    }
}

fn softmax(row: &mut [f32], temperature: f64) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|z| *z = ((*z - max) / temperature as f32).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|e| *e /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: LossKind, outputs: &[(&[usize], &[f32])], expected: &[f32]) {
        let tensors: Vec<Tensor> =
            outputs.iter().map(|(shape, z)| Tensor::from_slice(shape, z).unwrap()).collect();
        let mut p = Prediction::default();
        p.set(&kind, &tensors.iter().collect::<Vec<_>>(), 2.0).unwrap();
        assert_eq!(p.probabilities.len(), expected.len());
        for (a, b) in p.probabilities.iter().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{p:?}");
        }
    }

    #[test]
    fn softmax_of_each_row() {
        let z = 2.0 * 3f32.ln();
        let rows = [0.25, 0.75, 0.5, 0.5];
        check(LossKind::SequenceClassification, &[(&[2, 2], &[0.0, z, 1e3, 1e3])], &rows);
        let qa = LossKind::QuestionAnswering;
        check(qa.clone(), &[(&[1, 2], &[0.0, z]), (&[1, 2], &[1e3, 1e3])], &rows);
        check(qa, &[(&[1, 2, 2], &[0.0, 7.0, z, 7.0])], &rows);
    }
}
