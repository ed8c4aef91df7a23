//! Mutual learning: models that see the same examples learn from each other's predictions.
//!
//! Models run one after another, the first one another each step. Each is drawn towards the mean
//! prediction of those that ran before it in the step: their logits are of the same step and cost
//! no second forward pass, and in n steps each model has n (n - 1) / 2 peers' predictions.

use ndarray::{ArrayView2, ArrayViewMut2};

use super::session::BoundSession;
use crate::autodiff::{PEERS_INPUT, PEERS_WEIGHT_INPUT};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Probabilities of a model for a batch.
#[derive(Clone, Debug)]
pub(super) struct Prediction {
    shape: Vec<usize>,
    probabilities: Vec<f32>,
}

impl Prediction {
    /// softmax(logits / temperature) over the last axis.
    pub fn of(logits: &Tensor, temperature: f64) -> Result<Self> {
        let shape = logits.shape().to_vec();
        let classes = shape.last().copied().unwrap_or(1).max(1);
        let mut probabilities = logits.as_slice::<f32>()?.to_vec();
        let rows = probabilities.len() / classes;
        let mut view = ArrayViewMut2::from_shape((rows, classes), &mut probabilities)
            .map_err(|e| Error::internal(e.to_string()))?;
        for mut row in view.rows_mut() {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.mapv_inplace(|z| ((z - max) / temperature as f32).exp());
            let sum = row.sum();
            row.mapv_inplace(|e| e / sum);
        }
        Ok(Self { shape, probabilities })
    }
}

/// What a model is drawn towards.
#[derive(Clone, Debug)]
pub(super) struct Peers {
    mean: Prediction,
    lambda: f64,
}

impl Peers {
    /// The mean of the predictions of equal shape; `None` without any.
    pub fn mean(predictions: &[Prediction], lambda: f64) -> Result<Option<Self>> {
        let Some(first) = predictions.first() else { return Ok(None) };
        let n = first.probabilities.len();
        let all: Vec<f32> = predictions
            .iter()
            .filter(|p| p.shape == first.shape)
            .flat_map(|p| p.probabilities.iter().copied())
            .collect();
        let rows = ArrayView2::from_shape((all.len() / n.max(1), n), &all)
            .map_err(|e| Error::internal(e.to_string()))?;
        let mean = rows.mean_axis(ndarray::Axis(0)).map(|m| m.to_vec()).unwrap_or_default();
        let mean = Prediction { shape: first.shape.clone(), probabilities: mean };
        Ok(Some(Self { mean, lambda }))
    }
}

/// Sets the inputs of the term; without peers, or with peers of another shape, its weight is 0.
pub(super) fn feed(bound: &mut BoundSession, peers: Option<&Peers>) -> Result<()> {
    let shape = bound.output(0)?.shape().to_vec();
    let fitting = peers.filter(|p| p.mean.shape == shape);
    let weight = fitting.map_or(0.0, |p| p.lambda as f32);
    if let Some(peers) = fitting {
        bound.set_input(PEERS_INPUT, bytemuck::cast_slice(&peers.mean.probabilities))?;
    }
    bound.set_input(PEERS_WEIGHT_INPUT, &weight.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_softmaxes() {
        let of = |z: &[f32]| Prediction::of(&Tensor::from_slice(&[1, 2], z).unwrap(), 2.0).unwrap();
        let a = of(&[0.0, 2.0 * 3f32.ln()]);
        assert!((a.probabilities[1] - 0.75).abs() < 1e-6);
        let peers = Peers::mean(&[a, of(&[1000.0, 1000.0])], 0.5).unwrap().unwrap();
        assert!((peers.mean.probabilities[1] - 0.625).abs() < 1e-6);
        assert!(Peers::mean(&[], 0.5).unwrap().is_none());
    }
}
