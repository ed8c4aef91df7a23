//! A trainer's sharing plan, learning rates and weights.

use std::ffi::c_char;

use super::create::mmopt_trainer;
use crate::error::Result;
use crate::ffi::core::args::{output, owned_text, slice};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard, guard_or, shared};
use crate::optim::{Optimizer, Rates};

/// The sharing plan as text: which parameters of the models belong together, and why, and what is
/// done with their gradients (share_rule) and values (sync_every). With the option start it then
/// says what fresh models started from; then whether models learn from each other's predictions
/// (mutual), with a line for each model and its teachers, and how many run at a time. On several
/// ranks its last line begins with "ranks: " and says what this rank sends in bytes.
///
/// Errors: only those of any call.
///
/// @param[in] trainer shared access.
/// @param[out] text the text; free it with mmopt_string_free.
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
        text.set(owned_text(&trainer.trainer.plan_text(), "the plan")?);
        Ok(())
    })
}

/// The sharing plan as one JSON object. Its keys gradients and parameters say in words what is done
/// with those of a group; start says what fresh models started from; mutual and parallel are the
/// text's lines on mutual learning and on how many models run at a time; students has for each
/// trained model that learns from others' predictions model, weight (after the ramp-up) and
/// teachers, an array of names. On several ranks the key ranks has rank, n_ranks, way, placement
/// (or null), and the bytes that a rank sends, as a mean over the ranks: pass_bytes and, for each
/// probability that a model predicts for others, probability_bytes; step_bytes; sync_bytes more
/// with a synchronisation; meeting_bytes in a meeting after local steps. A group with by_token true
/// has rows of token tables; where view says so many rows, these may be any, in any order.
///
/// Errors: only those of any call.
///
/// @param[in] trainer shared access.
/// @param[out] json the text; free it with mmopt_string_free.
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
        json.set(owned_text(&trainer.trainer.plan_json().to_string(), "the plan")?);
        Ok(())
    })
}

/// The learning rate of a model, its factors, and other numbers of the last step.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_rates {
    /// The base learning rate.
    pub base: f64,
    /// Factor of the schedule: warm-up and decay.
    pub schedule: f64,
    /// Factor of the adaptive learning rate, from the model's losses.
    pub adaptive: f64,
    /// Factor of the model's weight.
    pub scale: f64,
    /// The second multiplier of the published method; 1 otherwise.
    pub multiplier: f64,
    /// The learning rate that was used: the product, or the result of the rate callback.
    pub effective: f64,
    /// L2 norm of the gradient before clipping; 0 if nothing needed it.
    pub gradient_norm: f64,
    /// The model's weight, normalised: divided by the sum of all.
    pub weight: f64,
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
        adaptive,
        scale,
        multiplier,
        effective,
        gradient_norm: optimizer.grad_norm(model)?,
        weight: optimizer.normalised_weight(model)?,
        n_skipped: optimizer.skipped(model)?.1,
        reserved: [0; 3],
    })
}

/// Learning rate, gradient norm, weight and skipped steps of one model, as of the last step.
///
/// Errors: INVALID_ARGUMENT when model is out of range.
///
/// @param[in] trainer shared access.
/// @param model the index of the model, from 0.
/// @param[out] rates the numbers.
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

/// The number of steps, those before a resume included; 0 for NULL.
///
/// @param[in] trainer shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_trainer_n_steps(trainer: *const mmopt_trainer) -> u64 {
    // SAFETY: a trainer of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(trainer) }?.trainer.optimizer().step_count()))
}

/// Sets the base learning rate from the next step on.
///
/// Errors: INVALID_ARGUMENT when rate is out of range.
///
/// @param[in,out] trainer exclusive access.
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

/// Sets the weight of a model from the next step on, see mmopt_model_set_weight; not all weights
/// may be 0.
///
/// Errors: INVALID_ARGUMENT when model or weight is out of range.
///
/// @param[in,out] trainer exclusive access.
/// @param model the index of the model, from 0.
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

/// Reports one validation score per model, in the order they were given; higher is better, and all
/// are on one scale: accuracies, or losses times -1. The options lr_schedule plateau, which sees
/// their mean, and weighting validation, with which better models come to weigh more, act on it
/// from the next step on; without either nothing changes.
///
/// Errors: INVALID_ARGUMENT for another number of scores than of models, or one that is not
/// finite; nothing changes then.
///
/// @param[in,out] trainer exclusive access.
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

/// How much the models' gradients agree and how far their parameters are apart, as of the last step
/// that the option metrics_every named, as one JSON object: step; models, the names in the plan's
/// order; cosine and distance, a row of numbers for each model; groups, each with name, members
/// (model, param, view), cosine and distance, a row for each member. Cosines are between gradients
/// before clipping and sharing; distances are root mean squares between models and L2 norms between
/// members. A number that is not finite is null.
///
/// Errors: STATE when metrics_every is 0, when the plan has no group, and before the first such
/// step.
///
/// @param[in] trainer shared access.
/// @param[out] json the text; free it with mmopt_string_free.
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
