//! What is done about what exporters do to parameters, and what is found in a model.

use std::ffi::c_char;

use super::create::mmopt_model;
use crate::ffi::core::args::{choice, flag, output, owned_text, text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard, shared};
use crate::train::{DuplicateWeights, SharedInitializers};

/// What is done with a tensor that an exporter put in place of several equal parameters: fresh
/// gains are all 1, fresh biases all 0.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_shared_initializers {
    /// It is reported and trained as one parameter; whether the model keeps them apart cannot be
    /// told from the file.
    Report = 0,
    /// Each use gets a copy of its own.
    Split = 1,
}

/// What is done with two equal matrices, possibly transposed.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_duplicate_weights {
    /// They are reported and trained apart.
    Report = 0,
    /// They become one parameter where rows of one of them are looked up: a shared embedding that
    /// the exporter wrote twice.
    Embeddings = 1,
    /// All become one parameter.
    All = 2,
}

/// Decides about merged parameters of an ONNX graph, an mmopt_shared_initializers. Default
/// MMOPT_SHARED_INITIALIZERS_REPORT.
///
/// Errors: INVALID_ARGUMENT for another number.
///
/// @param[in,out] model changed: needed alone.
/// @param merging an mmopt_shared_initializers.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_set_shared_initializers(
    model: *mut mmopt_model,
    merging: u32,
) -> *mut mmopt_error {
    // SAFETY: a model of the caller, by the header's contract.
    guard(|| unsafe {
        let choices = [(0, SharedInitializers::Report), (1, SharedInitializers::Split)];
        exclusive(model)?.import_fixes.shared_initializers = choice(merging, "merging", &choices)?;
        Ok(())
    })
}

/// Decides about equal matrices of an ONNX graph, an mmopt_duplicate_weights. Default
/// MMOPT_DUPLICATE_WEIGHTS_EMBEDDINGS.
///
/// Errors: INVALID_ARGUMENT for another number.
///
/// @param[in,out] model changed: needed alone.
/// @param tying an mmopt_duplicate_weights.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_set_duplicate_weights(
    model: *mut mmopt_model,
    tying: u32,
) -> *mut mmopt_error {
    // SAFETY: a model of the caller, by the header's contract.
    guard(|| unsafe {
        let choices = [
            (0, DuplicateWeights::Report),
            (1, DuplicateWeights::Embeddings),
            (2, DuplicateWeights::All),
        ];
        exclusive(model)?.import_fixes.duplicate_weights = choice(tying, "tying", &choices)?;
        Ok(())
    })
}

/// Gives parameters of an ONNX graph whose names an exporter invented (onnx::MatMul_123, val_92)
/// those of the state dict where the file tells them (1, the default), or leaves them (0). Their
/// data stay as they lie, which may be transposed. Patterns match the old names too.
///
/// Errors: INVALID_ARGUMENT for another number than 0 and 1.
///
/// @param[in,out] model changed: needed alone.
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

/// Leaves one row, counted from 0, of the parameters whose whole name matches the pattern as it is,
/// for example the embedding of the padding token: it gets no gradient, and neither weight decay,
/// sharing nor synchronisation moves it. May be called more than once. Models in published form
/// have their padding rows frozen already.
///
/// Errors: INVALID_ARGUMENT for a pattern that is not UTF-8. A row or name that there is not
/// shows when the trainer is created.
///
/// @param[in,out] model changed: needed alone.
/// @param[in] pattern the parameters, by name.
/// @param row its number, from 0.
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

/// What a trainer would find in this model and do about it, as text for people: parameters that
/// were merged, equal matrices, names, what is frozen, and what cannot be trained and why. Reads
/// the model's files, and needs no ONNX Runtime. The caller owns the text: mmopt_string_free.
///
/// Errors: whatever reading the model gives; NOT_FOUND for patterns that match nothing.
///
/// @param[in] model only read: threads may share it.
/// @param[out] text becomes the text, the caller's: mmopt_string_free.
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

/// As mmopt_model_report, as one JSON object; docs/exporting.md lists its fields. The caller owns
/// it: mmopt_string_free.
///
/// Errors: as mmopt_model_report.
///
/// @param[in] model only read: threads may share it.
/// @param[out] json becomes the text, the caller's: mmopt_string_free.
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
