//! Validation scores in, metrics of sharing out, for trainers and for gradient mode.

use std::ffi::c_char;

use super::args::{output, owned_text, slice};
use super::error::mmopt_error;
use super::guard::{exclusive, guard, shared};
use super::optimizer::mmopt_optimizer;
use super::trainer::mmopt_trainer;

/// Reports one validation score per model, in the order they were given; higher is better, and all
/// are on one scale: accuracies, or losses times -1. The options lr_schedule plateau, which sees
/// their mean, and weighting validation, with which better models come to weigh more, act on it
/// from the next step on; without either nothing changes.
///
/// Errors: INVALID_ARGUMENT for another number of scores than of models, or one that is not
/// finite; nothing changes then.
///
/// @param[in,out] trainer changed: needed alone.
/// @param[in] scores n_scores scores, one per model.
/// @param n_scores the number of models.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_report_validation(
    trainer: *mut mmopt_trainer,
    scores: *const f64,
    n_scores: usize,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        trainer.trainer.optimizer_mut().report_validation(slice(scores, n_scores, "scores")?)
    })
}

/// As mmopt_trainer_report_validation, in gradient mode.
///
/// Errors: those of mmopt_trainer_report_validation.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param[in] scores n_scores scores, one per model.
/// @param n_scores the number of models.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_report_validation(
    optimizer: *mut mmopt_optimizer,
    scores: *const f64,
    n_scores: usize,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        optimizer.optimizer.report_validation(slice(scores, n_scores, "scores")?)
    })
}

/// How much the models' gradients agree and how far their parameters are apart, as of the last step
/// that the option metrics_every named, as one JSON object: step; models, the names in the plan's
/// order; cosine and distance, a row of numbers for each model; groups, each with name, members
/// (model, param, view), cosine and distance, a row for each member. Cosines are between gradients
/// before clipping and sharing; distances are root mean squares between models and L2 norms between
/// members. A number that is not finite is null. The caller owns the text: mmopt_string_free.
///
/// Errors: STATE when metrics_every is 0, and before the first such step.
///
/// @param[in] trainer only read: threads may share it.
/// @param[out] json becomes the text, the caller's: mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_metrics_json(
    trainer: *const mmopt_trainer,
    json: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let json = output(json, "json")?;
        let metrics = trainer.trainer.optimizer().metrics_json()?;
        json.set(owned_text(&metrics.to_string(), "the metrics")?);
        Ok(())
    })
}

/// As mmopt_trainer_metrics_json, in gradient mode. The caller owns the text: mmopt_string_free.
///
/// Errors: those of mmopt_trainer_metrics_json.
///
/// @param[in] optimizer only read: threads may share it.
/// @param[out] json becomes the text, the caller's: mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_metrics_json(
    optimizer: *const mmopt_optimizer,
    json: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let optimizer = shared(optimizer)?;
        let json = output(json, "json")?;
        let metrics = optimizer.optimizer.metrics_json()?;
        json.set(owned_text(&metrics.to_string(), "the metrics")?);
        Ok(())
    })
}
