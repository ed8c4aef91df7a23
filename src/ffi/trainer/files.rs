//! What a trainer writes and reads: models, checkpoints.

use std::ffi::c_char;
use std::path::Path;

use super::create::mmopt_trainer;
use crate::error::Kind;
use crate::ffi::core::args::{optional_output, optional_text, owned_text, text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard, shared};

/// Writes one model into a directory, which is created if it does not exist: config.json and
/// model.safetensors, or model.onnx for a model from an ONNX graph. Each file appears whole or not
/// at all. Low-rank adapters are merged into the matrices beside them.
///
/// Errors: INVALID_ARGUMENT when model is out of range; NON_FINITE when weights are NaN or
/// infinite, as the files could not be loaded (a warning where non_finite is ignore); IO when a
/// file cannot be written.
///
/// @param[in] trainer shared access.
/// @param model the index of the model, from 0.
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

/// Writes the low-rank adapters of one model alone, with the modules that were trained whole, into
/// a directory, which is created if it does not exist: adapter_config.json and
/// adapter_model.safetensors, in the layout of Python's peft. mmopt_model_load_adapters reads them.
/// Each file appears whole or not at all.
///
/// Errors: INVALID_ARGUMENT when model is out of range; STATE for a model without adapters;
/// NON_FINITE when weights are NaN or infinite (a warning where non_finite is ignore); IO when a
/// file cannot be written.
///
/// @param[in] trainer shared access.
/// @param model the index of the model, from 0.
/// @param[in] directory the directory, UTF-8.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_save_adapters(
    trainer: *const mmopt_trainer,
    model: usize,
    directory: *const c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let saved = trainer.trainer.save_adapters(model, Path::new(text(directory, "directory")?));
        trainer.trainer.log_error("saving", saved)
    })
}

/// Writes the forward graph of one model with its present weights, for inference; low-rank adapters
/// are merged.
///
/// Errors: INVALID_ARGUMENT when model is out of range; NON_FINITE when weights are NaN or
/// infinite, as the file could not be loaded (a warning where non_finite is ignore); IO when the
/// file cannot be written.
///
/// @param[in] trainer shared access.
/// @param model the index of the model, from 0.
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

/// Writes a checkpoint, all that training depends on, into a directory, which is created if it does
/// not exist. host_text is stored with it, for example the state of a loader. A crash at any point
/// leaves the previous checkpoint intact. The two newest of this run stay, see
/// mmopt_checkpoint_options; those of other runs are not touched.
///
/// From the first checkpoint on no other trainer or optimizer can write into the directory, until
/// this one is freed or writes elsewhere, or its process ends; all can read there. File systems
/// without locks do not have this.
///
/// Errors: STATE between a backward pass and its step, as gradients are not stored, and where
/// another trainer or optimizer writes into the directory; NON_FINITE when weights are NaN or
/// infinite and non_finite is not ignore; IO when a file cannot be written; those of an
/// asynchronous checkpoint before (mmopt_trainer_save_checkpoint_with).
/// Nothing is left behind then, unless the text says that the checkpoint is in place.
///
/// @param[in] trainer shared access.
/// @param[in] directory the directory, UTF-8.
/// @param[in] host_text any text; may be NULL: empty.
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

/// Resumes from the newest whole checkpoint in a directory; every file is checked against its hash.
/// Newer ones that are damaged are skipped, which the log says as a warning. The same models and
/// options continue bit by bit.
///
/// Errors: NOT_FOUND where there never was a checkpoint; INVALID_DATA where there are some and none
/// is whole, and for one of other models, with what differs; UNSUPPORTED for one that a later
/// library wrote; IO. The trainer is unchanged then. docs/checkpoints.md says what may differ from
/// the run that wrote it.
///
/// @param[in,out] trainer exclusive access.
/// @param[in] directory the directory, UTF-8.
/// @param[out] host_text the text that was stored; free it with mmopt_string_free; may be NULL.
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
        // No checkpoint is what a first start finds.
        let host = match host {
            Err(none) if none.kind() == Kind::NotFound => return Err(none),
            host => trainer.trainer.log_error("resuming", host)?,
        };
        if out.is_wanted() {
            out.set(owned_text(&host, "the host's text")?);
        }
        Ok(())
    })
}
