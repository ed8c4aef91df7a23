//! Accuracy and macro F1 of classes.

use crate::error::Result;
use crate::text::metrics::counts::{Counts, Score, ratio, same_length};
use std::collections::BTreeMap;

/// Fraction of predictions that equal their label, 0 to 1. Entries whose label is negative (such
/// as -100) are left out. 0 when none is left.
///
/// Error: the lengths differ.
pub fn accuracy(predictions: &[i64], labels: &[i64]) -> Result<f64> {
    same_length(predictions.len(), labels.len())?;
    let (mut n_correct, mut total) = (0, 0);
    for (p, label) in predictions.iter().zip(labels).filter(|(_, label)| **label >= 0) {
        n_correct += usize::from(p == label);
        total += 1;
    }
    Ok(ratio(n_correct, total))
}

/// Mean of the F1 of each class that occurs among labels or predictions, 0 to 1. Entries whose
/// label is negative are left out. 0 when none is left.
///
/// Error: the lengths differ.
pub fn macro_f1(predictions: &[i64], labels: &[i64]) -> Result<f64> {
    same_length(predictions.len(), labels.len())?;
    let mut classes: BTreeMap<i64, Counts> = BTreeMap::new();
    for (&p, &label) in predictions.iter().zip(labels).filter(|(_, label)| **label >= 0) {
        classes.entry(label).or_default().support += 1;
        classes.entry(p).or_default().n_predicted += 1;
        classes.entry(label).or_default().n_correct += usize::from(p == label);
    }
    let sum: f64 = classes.values().map(|c| Score::from(*c).f1).sum();
    Ok(if classes.is_empty() { 0.0 } else { sum / classes.len() as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_and_macro_f1_leave_out_negatives() {
        let (predictions, labels) = ([0, 1, 1, 0], [0, 1, 0, -100]);
        assert_eq!(accuracy(&predictions, &labels).unwrap(), 2.0 / 3.0);
        assert!((macro_f1(&predictions, &labels).unwrap() - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(accuracy(&[], &[]).unwrap(), 0.0);
        assert!(accuracy(&[1], &[]).is_err());
    }
}
