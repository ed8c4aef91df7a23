//! An optimizer's sharing plan, learning rates and weights.

use std::ffi::c_char;

use super::create::mmopt_optimizer;
use crate::ffi::core::args::{output, owned_text, slice};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard, guard_or, shared};
use crate::ffi::trainer::state::{mmopt_rates, rates};

/// Learning rate, gradient norm, weight and skipped steps of one model, as of the last step.
///
/// Errors: INVALID_ARGUMENT when model is out of range.
///
/// @param[in] optimizer shared access.
/// @param model the index of the model, from 0.
/// @param[out] rates the numbers.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_rates(
    optimizer: *const mmopt_optimizer,
    model: usize,
    rates: *mut mmopt_rates,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let optimizer = shared(optimizer)?;
        let out = output(rates, "rates")?;
        out.set(self::rates(&optimizer.optimizer, model)?);
        Ok(())
    })
}

/// The number of steps, those before a resume included; 0 for NULL.
///
/// @param[in] optimizer shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_optimizer_n_steps(optimizer: *const mmopt_optimizer) -> u64 {
    // SAFETY: an optimizer of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(optimizer) }?.optimizer.step_count()))
}

/// Sets the base learning rate from the next step on.
///
/// Errors: INVALID_ARGUMENT when rate is out of range.
///
/// @param[in,out] optimizer exclusive access.
/// @param rate finite, at least 0.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_set_learning_rate(
    optimizer: *mut mmopt_optimizer,
    rate: f64,
) -> *mut mmopt_error {
    // SAFETY: an optimizer of the caller, by the header's contract.
    guard(|| unsafe { exclusive(optimizer)?.optimizer.set_learning_rate(rate) })
}

/// Sets the weight of a model from the next step on; not all weights may be 0.
///
/// Errors: INVALID_ARGUMENT when model or weight is out of range.
///
/// @param[in,out] optimizer exclusive access.
/// @param model the index of the model, from 0.
/// @param weight finite, at least 0.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_set_model_weight(
    optimizer: *mut mmopt_optimizer,
    model: usize,
    weight: f64,
) -> *mut mmopt_error {
    // SAFETY: an optimizer of the caller, by the header's contract.
    guard(|| unsafe { exclusive(optimizer)?.optimizer.set_model_weight(model, weight) })
}

/// The sharing plan as text: which parameters of the models belong together, and why, and what is
/// done with their gradients (share_rule) and values (sync_every).
///
/// Errors: only those of any call.
///
/// @param[in] optimizer shared access.
/// @param[out] text the text; free it with mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_plan(
    optimizer: *const mmopt_optimizer,
    text: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let optimizer = shared(optimizer)?;
        let text = output(text, "text")?;
        text.set(owned_text(&optimizer.optimizer.plan().to_string(), "the plan")?);
        Ok(())
    })
}

/// The sharing plan as one JSON object. Its keys gradients and parameters say in words what is done
/// with those of a group.
///
/// Errors: only those of any call.
///
/// @param[in] optimizer shared access.
/// @param[out] json the text; free it with mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_plan_json(
    optimizer: *const mmopt_optimizer,
    json: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let optimizer = shared(optimizer)?;
        let json = output(json, "json")?;
        json.set(owned_text(&optimizer.optimizer.plan().to_json().to_string(), "the plan")?);
        Ok(())
    })
}

/// As mmopt_trainer_report_validation, in gradient mode.
///
/// Errors: those of mmopt_trainer_report_validation.
///
/// @param[in,out] optimizer exclusive access.
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

/// As mmopt_trainer_metrics_json, in gradient mode.
///
/// Errors: those of mmopt_trainer_metrics_json.
///
/// @param[in] optimizer shared access.
/// @param[out] json the text; free it with mmopt_string_free.
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
