//! A trainer's plan, rates, files and callbacks.

use std::ffi::{c_char, c_void};
use std::path::Path;

use super::args::{output, owned_text, text};
use super::callback::{
    Progress, User, mmopt_log_fn, mmopt_progress_fn, mmopt_rate_fn, rate_callback, sink,
};
use super::error::mmopt_error;
use super::guard::{Cell, exclusive, free, guard, guard_or, handle, into_raw, shared};
use super::trainer::mmopt_trainer;
use crate::error::Result;
use crate::optim::{Optimizer, Rates};
use crate::runtime::CancelToken;

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
pub(super) fn rates(optimizer: &Optimizer, model: usize) -> Result<mmopt_rates> {
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

/// Lets the host decide each model's learning rate at each step; a NULL callback ends that. user
/// is handed back to it and must stay valid until then, or until the trainer is freed.
///
/// Errors: STATE while another call uses the trainer.
///
/// @param[in,out] trainer changed: needed alone.
/// @param callback NULL: none.
/// @param user handed back to the callback.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_set_rate_callback(
    trainer: *mut mmopt_trainer,
    callback: mmopt_rate_fn,
    user: *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: a trainer of the caller, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        trainer.trainer.optimizer_mut().set_rate_callback(rate_callback(callback, user));
        Ok(())
    })
}

/// Sends messages up to level (an mmopt_log_level) to a callback; a NULL callback ends that, and
/// without one nothing is said. user is handed back to it and must stay valid until then, or until
/// the trainer is freed. What there was to say when the trainer was created comes during this call,
/// each message once.
///
/// Errors: INVALID_ARGUMENT for another level; STATE while another call uses the trainer.
///
/// @param[in,out] trainer changed: needed alone.
/// @param level an mmopt_log_level.
/// @param callback NULL: none.
/// @param user handed back to the callback.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_set_log(
    trainer: *mut mmopt_trainer,
    level: u32,
    callback: mmopt_log_fn,
    user: *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: a trainer of the caller, by the header's contract.
    guard(|| unsafe {
        let sink = sink(callback, User(user), level)?;
        exclusive(trainer)?.trainer.set_log(sink);
        Ok(())
    })
}

/// Asks a callback before each pass and step whether to go on; a NULL callback ends that. user is
/// handed back to it and must stay valid until then, or until the trainer is freed.
///
/// Errors: STATE while another call uses the trainer.
///
/// @param[in,out] trainer changed: needed alone.
/// @param callback NULL: none.
/// @param user handed back to the callback.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_set_progress(
    trainer: *mut mmopt_trainer,
    callback: mmopt_progress_fn,
    user: *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: a trainer of the caller, by the header's contract.
    guard(|| unsafe {
        exclusive(trainer)?.progress = Progress { callback, user: User(user) };
        Ok(())
    })
}

/// Writes one model into a directory, made if need be: in published form (config.json and
/// model.safetensors), or for models that came as ONNX as model.onnx. Files appear whole or not at
/// all.
///
/// Errors: INVALID_ARGUMENT for a model that there is not; IO when a file cannot be written.
///
/// @param[in] trainer only read: threads may share it.
/// @param model its number, from 0.
/// @param[in] directory the directory, UTF-8.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_save_model(
    trainer: *const mmopt_trainer,
    model: usize,
    directory: *const c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let saved = trainer.trainer.save_model(model, Path::new(text(directory, "directory")?));
        trainer.trainer.told("saving", saved)
    })
}

/// Writes one model's forward graph with its present weights, ready for inference.
///
/// Errors: INVALID_ARGUMENT for a model that there is not; IO when the file cannot be written.
///
/// @param[in] trainer only read: threads may share it.
/// @param model its number, from 0.
/// @param[in] path the file, UTF-8.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_save_onnx(
    trainer: *const mmopt_trainer,
    model: usize,
    path: *const c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let saved = trainer.trainer.save_onnx(model, Path::new(text(path, "path")?));
        trainer.trainer.told("saving", saved)
    })
}

/// Writes everything that training depends on into a directory, made if need be; host_text (NULL:
/// empty) is kept with it, for example a loader's state. A crash at any point leaves the last
/// checkpoint whole.
///
/// Errors: STATE between a backward pass and its step, as gradients are not kept.
///
/// @param[in] trainer only read: threads may share it.
/// @param[in] directory the directory, UTF-8.
/// @param[in] host_text kept with it; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_save_checkpoint(
    trainer: *const mmopt_trainer,
    directory: *const c_char,
    host_text: *const c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let directory = text(directory, "directory")?;
        let host = super::args::optional_text(host_text, "host_text")?.unwrap_or("");
        let written = trainer.trainer.checkpoint(Path::new(directory), host);
        trainer.trainer.told("writing", written).map(|_| ())
    })
}

/// Goes to the last checkpoint in a directory: the same models and options continue bit by bit.
/// host_text becomes what was kept with it; the caller owns it: mmopt_string_free. It may be NULL.
///
/// Errors: NOT_FOUND without a checkpoint; INVALID_DATA for a damaged one, or one of other models;
/// the trainer is unchanged then.
///
/// @param[in,out] trainer changed: needed alone.
/// @param[in] directory the directory, UTF-8.
/// @param[out] host_text becomes the text; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_resume(
    trainer: *mut mmopt_trainer,
    directory: *const c_char,
    host_text: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        let directory = text(directory, "directory")?;
        let out = super::args::optional_output(host_text, "host_text")?;
        let host = trainer.trainer.resume(Path::new(directory));
        let host = trainer.trainer.told("resuming", host)?;
        if out.is_wanted() {
            out.set(owned_text(&host, "the host's text")?);
        }
        Ok(())
    })
}

/// Ends a running pass from another thread. It keeps working after the trainer is freed, and then
/// does nothing.
pub struct mmopt_cancel_token(Cell<CancelToken>);

handle!(mmopt_cancel_token, CancelToken, "cancel_token");

/// A cancel_token of this trainer; the caller owns it: mmopt_cancel_token_free.
///
/// Errors: INVALID_ARGUMENT for NULL only.
///
/// @param[in] trainer only read: threads may share it.
/// @param[out] cancel_token becomes the new object, the caller's: mmopt_cancel_token_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_cancel_token(
    trainer: *const mmopt_trainer,
    cancel_token: *mut *mut mmopt_cancel_token,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let out = output(cancel_token, "cancel_token")?;
        out.set(into_raw(trainer.trainer.cancel_token()));
        Ok(())
    })
}

/// Makes passes that run, and all later ones, fail with MMOPT_CODE_CANCELLED. From any thread.
///
/// Errors: INVALID_ARGUMENT for NULL only.
///
/// @param[in] cancel_token only read: threads may share it.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_cancel_token_cancel(
    cancel_token: *const mmopt_cancel_token,
) -> *mut mmopt_error {
    // SAFETY: a cancel_token of the caller, by the header's contract.
    guard(|| unsafe {
        shared(cancel_token)?.cancel();
        Ok(())
    })
}

/// Lets passes run again. From any thread.
///
/// Errors: INVALID_ARGUMENT for NULL only.
///
/// @param[in] cancel_token only read: threads may share it.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_cancel_token_reset(
    cancel_token: *const mmopt_cancel_token,
) -> *mut mmopt_error {
    // SAFETY: a cancel_token of the caller, by the header's contract.
    guard(|| unsafe { shared(cancel_token)?.reset() })
}

/// Frees a cancel_token. NULL is harmless.
///
/// @param cancel_token may be NULL; gone afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_cancel_token_free(cancel_token: *mut mmopt_cancel_token) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(cancel_token) };
}
