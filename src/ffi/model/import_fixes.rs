//! What is done about what exporters do to parameters, and what is found in a model.

use std::ffi::c_char;

use super::create::mmopt_model;
use crate::ffi::core::args::{choice, flag, output, owned_text, text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard, shared};
use crate::train::{DuplicateWeights, SharedInitializers};

/// What happens to one initializer that an exporter wrote for several equal parameters, as fresh
/// gains are all 1 and fresh biases all 0.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_shared_initializers {
    /// Train it as one parameter and report it; the file does not say whether the model has one or
    /// several.
    Report = 0,
    /// Give each use a parameter of its own.
    Split = 1,
}

/// What happens to equal matrices, possibly transposed.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_duplicate_weights {
    /// Train them separately and report them.
    Report = 0,
    /// Tie them where one is an embedding table: a tied embedding that the exporter wrote twice.
    TieEmbeddings = 1,
    /// Tie all of them.
    TieAll = 2,
}

/// Sets what happens to shared initializers of an ONNX graph. Default
/// MMOPT_SHARED_INITIALIZERS_REPORT.
///
/// Errors: INVALID_ARGUMENT for any other number.
///
/// @param[in,out] model exclusive access.
/// @param action an mmopt_shared_initializers.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_set_shared_initializers(
    model: *mut mmopt_model,
    action: u32,
) -> *mut mmopt_error {
    // SAFETY: a model of the caller, by the header's contract.
    guard(|| unsafe {
        let choices = [(0, SharedInitializers::Report), (1, SharedInitializers::Split)];
        exclusive(model)?.import_fixes.shared_initializers = choice(action, "action", &choices)?;
        Ok(())
    })
}

/// Sets what happens to duplicate weights of an ONNX graph. Default
/// MMOPT_DUPLICATE_WEIGHTS_TIE_EMBEDDINGS.
///
/// Errors: INVALID_ARGUMENT for any other number.
///
/// @param[in,out] model exclusive access.
/// @param action an mmopt_duplicate_weights.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_set_duplicate_weights(
    model: *mut mmopt_model,
    action: u32,
) -> *mut mmopt_error {
    // SAFETY: a model of the caller, by the header's contract.
    guard(|| unsafe {
        let choices = [
            (0, DuplicateWeights::Report),
            (1, DuplicateWeights::Embeddings),
            (2, DuplicateWeights::All),
        ];
        exclusive(model)?.import_fixes.duplicate_weights = choice(action, "action", &choices)?;
        Ok(())
    })
}

/// Sets whether parameters of an ONNX graph whose names an exporter invented (onnx::MatMul_123,
/// val_92) get their state dict names, where the file holds them. Default 1. The values are not
/// changed and may be transposed. Patterns match the invented names as well.
///
/// Errors: INVALID_ARGUMENT for any other number.
///
/// @param[in,out] model exclusive access.
/// @param restore 0 or 1.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_set_restore_names(
    model: *mut mmopt_model,
    restore: u32,
) -> *mut mmopt_error {
    // SAFETY: a model of the caller, by the header's contract.
    guard(|| unsafe {
        exclusive(model)?.import_fixes.restore_names = flag(restore, "restore")?;
        Ok(())
    })
}

/// Freezes one row of the parameters whose whole name matches the pattern, for example the
/// embedding of the padding token: it has no gradient, and weight decay, sharing and
/// synchronisation leave it alone. May be called more than once. The padding rows of models from a
/// directory or configuration are frozen already.
///
/// Errors: INVALID_ARGUMENT for a pattern that is not UTF-8. A row out of range, or a pattern that
/// matches nothing, fails the trainer's creation.
///
/// @param[in,out] model exclusive access.
/// @param[in] pattern the parameters, by name.
/// @param row the index of the row, from 0.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_freeze_row(
    model: *mut mmopt_model,
    pattern: *const c_char,
    row: usize,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let pattern = text(pattern, "pattern")?.to_owned();
        exclusive(model)?.frozen_rows.push((pattern, row));
        Ok(())
    })
}

/// What a trainer finds in this model and does about it, as text: shared initializers, duplicate
/// weights, restored names, what is frozen, and what cannot be trained and why. Reads the model's
/// files, and needs no ONNX Runtime.
///
/// Errors: those of reading the model; NOT_FOUND for a pattern that matches nothing.
///
/// @param[in] model shared access.
/// @param[out] text the text; free it with mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_report(
    model: *const mmopt_model,
    text: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let model = shared(model)?;
        let text = output(text, "text")?;
        text.set(owned_text(&model.inspect()?.to_string(), "the report")?);
        Ok(())
    })
}

/// As mmopt_model_report, as one JSON object; docs/exporting.md lists its fields.
///
/// Errors: as mmopt_model_report.
///
/// @param[in] model shared access.
/// @param[out] json the text; free it with mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_report_json(
    model: *const mmopt_model,
    json: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let model = shared(model)?;
        let json = output(json, "json")?;
        json.set(owned_text(&model.inspect()?.to_json().to_string(), "the report")?);
        Ok(())
    })
}
