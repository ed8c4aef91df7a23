//! Confusion matrices, scores of numbers, perplexity.

use std::ffi::c_char;

use crate::error::{Error, Result};
use crate::ffi::core::args::{output, output_slice, slice, text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::guard;
use crate::text::metrics::{class_scores, perplexity, regression_scores};

/// How many of each class were predicted as which, of n predicted classes. Entries whose label is
/// negative, such as -100, are left out.
///
/// Errors: INVALID_ARGUMENT for a class that is not below n_classes.
///
/// @param[in] predictions n classes.
/// @param[in] labels n classes; negative: left out.
/// @param n how many classes.
/// @param n_classes how many different classes there are.
/// @param[out] matrix n_classes rows, one for each label, of n_classes counts, one for each
/// prediction.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_metrics_confusion_matrix(
    predictions: *const i64,
    labels: *const i64,
    n: usize,
    n_classes: usize,
    matrix: *mut u64,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let predictions = slice(predictions, n, "predictions")?;
        let labels = slice(labels, n, "labels")?;
        let matrix = output_slice(matrix, cells(n_classes)?, "matrix")?;
        write(&class_scores(predictions, labels, n_classes)?.confusion, matrix);
        Ok(())
    })
}

/// The confusion matrix of scores: the counts that mmopt_trainer_evaluate_loader wrote as JSON.
///
/// Errors: INVALID_DATA when json is no text of mmopt_trainer_evaluate_loader; NOT_FOUND when its
/// task has no classes or tags; INVALID_ARGUMENT when they are not n_classes.
///
/// @param[in] json the text that mmopt_trainer_evaluate_loader gave.
/// @param n_classes how many classes or tags the model has.
/// @param[out] matrix n_classes rows, one for each label, of n_classes counts, one for each
/// prediction.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_scores_confusion_matrix(
    json: *const c_char,
    n_classes: usize,
    matrix: *mut u64,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let json = text(json, "json")?;
        let matrix = output_slice(matrix, cells(n_classes)?, "matrix")?;
        let all: serde_json::Value =
            serde_json::from_str(json).map_err(|e| Error::json(e).context("the scores"))?;
        let found = all.get("confusion_matrix").ok_or_else(|| {
            Error::not_found("the scores have no confusion matrix: their task has no classes")
        })?;
        let rows: Vec<Vec<usize>> = serde_json::from_value(found.clone())
            .map_err(|e| Error::json(e).context("the confusion matrix"))?;
        if rows.len() != n_classes || rows.iter().any(|row| row.len() != n_classes) {
            let n = rows.len();
            return Err(Error::invalid(format!("n_classes is {n_classes}, but there are {n}")));
        }
        write(&rows, matrix);
        Ok(())
    })
}

fn cells(n_classes: usize) -> Result<usize> {
    n_classes
        .checked_mul(n_classes)
        .filter(|n| *n <= isize::MAX as usize / 8)
        .ok_or_else(|| Error::invalid(format!("n_classes is {n_classes}: no memory holds that")))
}

fn write(rows: &[Vec<usize>], matrix: &mut [u64]) {
    let counts = rows.iter().flatten().map(|&n| n as u64);
    matrix.iter_mut().zip(counts).for_each(|(to, n)| *to = n);
}

/// Scores of predicted numbers against the right ones.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_regression_scores {
    /// Mean of the squared differences.
    pub mse: f64,
    /// Pearson's correlation, -1 to 1; NaN where either side is constant, or for fewer than 2.
    pub pearson: f64,
    /// Spearman's rank correlation; equal numbers share their mean rank. NaN as for pearson.
    pub spearman: f64,
    /// 0; for later versions.
    pub reserved: [f64; 5],
}

/// Scores of n predicted numbers, as scipy computes them.
///
/// Errors: INVALID_ARGUMENT when n is 0, or for a number that is not finite.
///
/// @param[in] predictions n numbers.
/// @param[in] labels n numbers.
/// @param n how many.
/// @param[out] scores the scores.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_metrics_regression(
    predictions: *const f64,
    labels: *const f64,
    n: usize,
    scores: *mut mmopt_regression_scores,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let predictions = slice(predictions, n, "predictions")?;
        let labels = slice(labels, n, "labels")?;
        let out = output(scores, "scores")?;
        let found = regression_scores(predictions, labels)?;
        out.set(mmopt_regression_scores {
            mse: found.mse,
            pearson: found.pearson,
            spearman: found.spearman,
            reserved: [0.0; 5],
        });
        Ok(())
    })
}

/// The perplexity over n batches of tokens: e to the mean loss of a token. Batches without tokens
/// do not count.
///
/// Errors: INVALID_ARGUMENT without any token, or for a loss that is not a number.
///
/// @param[in] losses n mean losses, one for each batch.
/// @param[in] n_tokens n counts of the tokens that each is the mean over.
/// @param n how many batches.
/// @param[out] value the perplexity.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_metrics_perplexity(
    losses: *const f64,
    n_tokens: *const u64,
    n: usize,
    value: *mut f64,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let (losses, n_tokens) = (slice(losses, n, "losses")?, slice(n_tokens, n, "n_tokens")?);
        output(value, "value")?.set(perplexity(losses, n_tokens)?);
        Ok(())
    })
}
