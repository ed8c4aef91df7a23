//! What a trainer reports of its models: what was repaired on import, and where a pass becomes
//! non-finite.

use std::ffi::c_char;

use super::create::mmopt_trainer;
use super::steps::borrow;
use crate::ffi::core::args::{optional_output, output, owned_text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{guard, shared};
use crate::ffi::core::tensor::{mmopt_tensor, views};

/// What was found in a model's graph and what was done about it, as text; see mmopt_model_report.
///
/// Errors: INVALID_ARGUMENT when model is out of range.
///
/// @param[in] trainer shared access.
/// @param model the index of the model, from 0.
/// @param[out] text the text; free it with mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_model_report(
    trainer: *const mmopt_trainer,
    model: usize,
    text: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let text = output(text, "text")?;
        text.set(owned_text(&trainer.trainer.report(model)?.to_string(), "the report")?);
        Ok(())
    })
}

/// As mmopt_trainer_model_report, as one JSON object; docs/exporting.md lists its fields.
///
/// Errors: INVALID_ARGUMENT when model is out of range.
///
/// @param[in] trainer shared access.
/// @param model the index of the model, from 0.
/// @param[out] json the text; free it with mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_model_report_json(
    trainer: *const mmopt_trainer,
    model: usize,
    json: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let json = output(json, "json")?;
        let report = trainer.trainer.report(model)?.to_json().to_string();
        json.set(owned_text(&report, "the report")?);
        Ok(())
    })
}

/// Finds the first value that is not finite in a forward and backward pass of one model, with the
/// present parameters: its node, operator, output and position, and the ranges of the node's
/// inputs. The trainer does not change. The pass runs without ONNX Runtime's optimisations, and
/// keeps all values in memory.
///
/// tensors is as in mmopt_trainer_forward_backward. docs/exporting.md lists the fields of json.
/// Both results become NULL if loss and gradients are all finite.
///
/// Errors: as mmopt_trainer_forward_backward.
///
/// @param[in] trainer shared access.
/// @param model the index of the model, from 0.
/// @param[in] tensors n_tensors views, read during the call only.
/// @param n_tensors how many tensors.
/// @param[out] text the finding, or NULL; free it with mmopt_string_free; may be NULL.
/// @param[out] json the same as a JSON object; free it with mmopt_string_free; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_find_non_finite(
    trainer: *const mmopt_trainer,
    model: usize,
    tensors: *const mmopt_tensor,
    n_tensors: usize,
    text: *mut *mut c_char,
    json: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let (text, json) = (optional_output(text, "text")?, optional_output(json, "json")?);
        let views = views(tensors, n_tensors)?;
        let found = trainer.trainer.find_non_finite(model, &borrow(&views));
        let Some(found) = trainer.trainer.log_error("looking for NaN", found)? else {
            text.set(std::ptr::null_mut());
            json.set(std::ptr::null_mut());
            return Ok(());
        };
        if text.is_wanted() {
            text.set(owned_text(&found.to_string().replace('\0', ""), "the finding")?);
        }
        if json.is_wanted() {
            json.set(owned_text(&found.to_json().to_string(), "the finding")?);
        }
        Ok(())
    })
}
