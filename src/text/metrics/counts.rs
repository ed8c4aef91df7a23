//! Precision, recall and F1 from counts.

use crate::error::{Error, Result};

/// How many were predicted, how many there are, and how many of them are the same.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) n_correct: usize,
    pub(crate) n_predicted: usize,
    pub(crate) support: usize,
}

/// Precision, recall and their harmonic mean, each 0 to 1, with the counts behind them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// `n_correct / n_predicted`; 0 without predictions.
    pub precision: f64,
    /// `n_correct / support`; 0 without support.
    pub recall: f64,
    /// `2 p r / (p + r)`; 0 when both are 0.
    pub f1: f64,
    /// How many there are according to the labels.
    pub support: usize,
    /// How many were predicted.
    pub n_predicted: usize,
    /// How many of the predicted are right.
    pub n_correct: usize,
}

impl From<Counts> for Score {
    fn from(c: Counts) -> Self {
        Self {
            precision: ratio(c.n_correct, c.n_predicted),
            recall: ratio(c.n_correct, c.support),
            f1: ratio(2 * c.n_correct, c.n_predicted + c.support),
            support: c.support,
            n_predicted: c.n_predicted,
            n_correct: c.n_correct,
        }
    }
}

/// `part / whole`; 0 when there is nothing.
pub(crate) fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

pub(crate) fn same_length(n_predictions: usize, n_labels: usize) -> Result<()> {
    if n_predictions == n_labels {
        return Ok(());
    }
    Err(Error::invalid(format!("{n_predictions} predictions for {n_labels} labels")))
}
