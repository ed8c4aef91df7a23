//! A trainer's sharing plan, learning rates and weights.

use std::ffi::c_char;

use super::create::mmopt_trainer;
use crate::error::Result;
use crate::ffi::core::args::{output, owned_text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard, guard_or, shared};
use crate::optim::{Optimizer, Rates};

/// What is shared with what and why, as text for people; the caller owns it: mmopt_string_free.
///
/// Errors: INVALID_ARGUMENT for NULL only.
///
/// @param[in] trainer only read: threads may share it.
/// @param[out] text becomes the text, the caller's: mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_plan(
    trainer: *const mmopt_trainer,
    text: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let text = output(text, "text")?;
        text.set(owned_text(&trainer.trainer.plan().to_string(), "the plan")?);
        Ok(())
    })
}

/// What is shared with what and why, as one JSON object; the caller owns it: mmopt_string_free.
///
/// Errors: INVALID_ARGUMENT for NULL only.
///
/// @param[in] trainer only read: threads may share it.
/// @param[out] json becomes the text, the caller's: mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_plan_json(
    trainer: *const mmopt_trainer,
    json: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let json = output(json, "json")?;
        json.set(owned_text(&trainer.trainer.plan().to_json().to_string(), "the plan")?);
        Ok(())
    })
}

/// A model's learning rate, the factors it is made of, and other numbers of its last step.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_rates {
    /// The base rate.
    pub base: f64,
    /// Warm-up and decay.
    pub schedule: f64,
    /// From the model's losses.
    pub convergence: f64,
    /// From the model's weight.
    pub scale: f64,
    /// The published second multiplier; 1 elsewhere.
    pub multiplier: f64,
    /// The product, or what the rate callback made of it.
    pub effective: f64,
    /// L2 norm of the gradient before clipping; 0 where nothing needed it.
    pub gradient_norm: f64,
    /// The model's weight over the sum of all.
    pub share: f64,
    /// Steps that skipped this model.
    pub n_skipped: u64,
    /// 0; for later versions.
    pub reserved: [u64; 3],
}

/// The numbers of one model.
pub(crate) fn rates(optimizer: &Optimizer, model: usize) -> Result<mmopt_rates> {
    let Rates { base, schedule, adaptive, scale, multiplier, effective } =
        optimizer.rates(model)?;
    Ok(mmopt_rates {
        base,
        schedule,
        convergence: adaptive,
        scale,
        multiplier,
        effective,
        gradient_norm: optimizer.grad_norm(model)?,
        share: optimizer.normalised_weight(model)?,
        n_skipped: optimizer.skipped(model)?.1,
        reserved: [0; 3],
    })
}

/// Learning rate, gradient norm, weight and skipped steps of one model, as of the last step.
///
/// Errors: INVALID_ARGUMENT for a model that there is not.
///
/// @param[in] trainer only read: threads may share it.
/// @param model its number, from 0.
/// @param[out] rates become the numbers.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_rates(
    trainer: *const mmopt_trainer,
    model: usize,
    rates: *mut mmopt_rates,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let out = output(rates, "rates")?;
        out.set(self::rates(trainer.trainer.optimizer(), model)?);
        Ok(())
    })
}

/// Steps taken, those before a resume included; 0 for NULL.
///
/// @param[in] trainer only read: threads may share it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_trainer_n_steps(trainer: *const mmopt_trainer) -> u64 {
    // SAFETY: a trainer of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(trainer) }?.trainer.optimizer().step_count()))
}

/// Sets the base learning rate of the coming steps, finite and at least 0.
///
/// Errors: INVALID_ARGUMENT for a number out of range.
///
/// @param[in,out] trainer changed: needed alone.
/// @param rate finite, at least 0.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_set_learning_rate(
    trainer: *mut mmopt_trainer,
    rate: f64,
) -> *mut mmopt_error {
    // SAFETY: a trainer of the caller, by the header's contract.
    guard(|| unsafe { exclusive(trainer)?.trainer.optimizer_mut().set_learning_rate(rate) })
}

/// Sets a model's weight for the coming steps, finite and at least 0; not all may be 0.
///
/// Errors: INVALID_ARGUMENT for a model that there is not, or a weight out of range.
///
/// @param[in,out] trainer changed: needed alone.
/// @param model its number, from 0.
/// @param weight finite, at least 0.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_set_model_weight(
    trainer: *mut mmopt_trainer,
    model: usize,
    weight: f64,
) -> *mut mmopt_error {
    // SAFETY: a trainer of the caller, by the header's contract.
    guard(|| unsafe { exclusive(trainer)?.trainer.optimizer_mut().set_model_weight(model, weight) })
}
