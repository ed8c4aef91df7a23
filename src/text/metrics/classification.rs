//! Accuracy and macro F1 of classes.

use crate::error::{Error, Result};
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

/// Scores of classes, with the counts behind them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassScores {
    /// [`accuracy`].
    pub accuracy: f64,
    /// [`macro_f1`].
    pub macro_f1: f64,
    /// For each class.
    pub by_class: Vec<Score>,
    /// `confusion[label][prediction]`: how many of a class were predicted as which.
    pub confusion: Vec<Vec<usize>>,
}

/// Scores of predictions among `n_classes` classes. Entries whose label is negative are left out.
///
/// Errors: the lengths differ; a class that is not below `n_classes`.
pub fn class_scores(predictions: &[i64], labels: &[i64], n_classes: usize) -> Result<ClassScores> {
    same_length(predictions.len(), labels.len())?;
    let mut confusion = vec![vec![0; n_classes]; n_classes];
    let known = |what: &str, i: usize, class: i64| {
        usize::try_from(class).ok().filter(|c| *c < n_classes).ok_or_else(|| {
            Error::invalid(format!("{what}[{i}] is {class}, but there are {n_classes} classes"))
        })
    };
    for (i, (&p, &label)) in predictions.iter().zip(labels).enumerate() {
        if label >= 0 {
            confusion[known("labels", i, label)?][known("predictions", i, p)?] += 1;
        }
    }
    let score = |class: usize| {
        Score::from(Counts {
            n_correct: confusion[class][class],
            n_predicted: confusion.iter().map(|row| row[class]).sum(),
            support: confusion[class].iter().sum(),
        })
    };
    Ok(ClassScores {
        accuracy: accuracy(predictions, labels)?,
        macro_f1: macro_f1(predictions, labels)?,
        by_class: (0..n_classes).map(score).collect(),
        confusion,
    })
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

    #[test]
    fn class_scores_by_hand() {
        let s = class_scores(&[0, 1, 1, 0, 2], &[0, 1, 0, -100, 1], 4).unwrap();
        assert_eq!(s.confusion, [[1, 1, 0, 0], [0, 1, 1, 0], [0; 4], [0; 4]]);
        assert_eq!((s.by_class[0].precision, s.by_class[0].recall), (1.0, 0.5));
        assert_eq!((s.by_class[1].precision, s.by_class[1].recall), (0.5, 0.5));
        assert_eq!((s.by_class[2].n_predicted, s.by_class[2].support), (1, 0));
        assert_eq!(s.accuracy, 0.5);
        // Classes 0, 1 and 2 occur; 3 does not.
        assert!((s.macro_f1 - (2.0 / 3.0 + 0.5 + 0.0) / 3.0).abs() < 1e-12);
        assert!(class_scores(&[4], &[0], 4).is_err());
        assert!(class_scores(&[0], &[4], 4).is_err());
        assert!(class_scores(&[7], &[-1], 4).is_ok());
    }
}
