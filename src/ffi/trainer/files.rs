//! What a trainer writes and reads: models, checkpoints.

use std::ffi::c_char;
use std::path::Path;

use super::create::mmopt_trainer;
use crate::ffi::core::args::{optional_output, optional_text, owned_text, text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard, shared};

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
        trainer.trainer.log_error("saving", saved)
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
        trainer.trainer.log_error("saving", saved)
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
        let host = optional_text(host_text, "host_text")?.unwrap_or("");
        let written = trainer.trainer.checkpoint(Path::new(directory), host);
        trainer.trainer.log_error("writing", written).map(|_| ())
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
        let out = optional_output(host_text, "host_text")?;
        let host = trainer.trainer.resume(Path::new(directory));
        let host = trainer.trainer.log_error("resuming", host)?;
        if out.is_wanted() {
            out.set(owned_text(&host, "the host's text")?);
        }
        Ok(())
    })
}
