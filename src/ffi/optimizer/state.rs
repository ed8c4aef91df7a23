//! An optimizer's sharing plan, learning rates and weights.

use std::ffi::c_char;

use super::create::mmopt_optimizer;
use crate::ffi::core::args::{output, owned_text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard, guard_or, shared};
use crate::ffi::trainer::state::{mmopt_rates, rates};

/// Learning rate, gradient norm, weight and skipped steps of one model, as of the last step.
///
/// Errors: INVALID_ARGUMENT for a model that there is not.
///
/// @param[in] optimizer only read: threads may share it.
/// @param model its number, from 0.
/// @param[out] rates become the numbers.
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

/// Steps taken, those before a load included; 0 for NULL.
///
/// @param[in] optimizer only read: threads may share it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_optimizer_n_steps(optimizer: *const mmopt_optimizer) -> u64 {
    // SAFETY: an optimizer of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(optimizer) }?.optimizer.step_count()))
}

/// Sets the base learning rate of the coming steps, finite and at least 0.
///
/// Errors: INVALID_ARGUMENT for a number out of range.
///
/// @param[in,out] optimizer changed: needed alone.
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

/// Sets a model's weight for the coming steps, finite and at least 0; not all may be 0.
///
/// Errors: INVALID_ARGUMENT for a model that there is not, or a weight out of range.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param model its number, from 0.
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

/// What is shared with what and why, as text for people; the caller owns it: mmopt_string_free.
///
/// Errors: INVALID_ARGUMENT for NULL only.
///
/// @param[in] optimizer only read: threads may share it.
/// @param[out] text becomes the text, the caller's: mmopt_string_free.
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

/// What is shared with what and why, as one JSON object; the caller owns it: mmopt_string_free.
///
/// Errors: INVALID_ARGUMENT for NULL only.
///
/// @param[in] optimizer only read: threads may share it.
/// @param[out] json becomes the text, the caller's: mmopt_string_free.
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
