//! What a trainer tells of its models: what was mended, and where a pass goes non-finite.

use std::ffi::c_char;

use super::create::mmopt_trainer;
use super::steps::borrow;
use crate::ffi::core::args::{optional_output, output, owned_text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{guard, shared};
use crate::ffi::core::tensor::{mmopt_tensor, views};

/// What was found in a model's graph and what was done about it, as mmopt_model_report tells it.
/// The caller owns the text: mmopt_string_free.
///
/// Errors: INVALID_ARGUMENT for a model that there is not.
///
/// @param[in] trainer only read: threads may share it.
/// @param model its number, from 0.
/// @param[out] text becomes the text, the caller's: mmopt_string_free.
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

/// As mmopt_trainer_model_report, as one JSON object; docs/exporting.md lists its fields. The
/// caller owns it: mmopt_string_free.
///
/// Errors: INVALID_ARGUMENT for a model that there is not.
///
/// @param[in] trainer only read: threads may share it.
/// @param model its number, from 0.
/// @param[out] json becomes the text, the caller's: mmopt_string_free.
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

/// Finds where a training pass of one model over a batch first goes non-finite, forward or
/// backward, with the parameters as they are now: node, operator, output, position, and the ranges
/// of what the node read. Nothing changes. It runs without ONNX Runtime's optimisation and needs
/// the memory of all values at once.
///
/// tensors is what mmopt_trainer_forward_backward takes. text becomes the finding for people, json
/// the same as an object (docs/exporting.md lists its fields); either may be NULL if it is not
/// wanted. Both become NULL when the loss and all gradients are finite. The caller owns them:
/// mmopt_string_free. Errors: as mmopt_trainer_forward_backward.
///
/// @param[in] trainer only read: threads may share it.
/// @param model its number, from 0.
/// @param[in] tensors n_tensors views, read in the call only.
/// @param n_tensors how many tensors.
/// @param[out] text becomes the finding, or NULL, the caller's: mmopt_string_free; may be NULL.
/// @param[out] json the same as JSON, the caller's: mmopt_string_free; may be NULL.
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
