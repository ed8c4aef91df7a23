//! Models to be trained: where each comes from.

use std::ffi::{c_char, c_void};
use std::path::PathBuf;

use super::config::mmopt_model_config;
use crate::error::{Context, Error};
use crate::ffi::core::args::{model_name, output, owned_text, slice, text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{Cell, free, guard, handle, into_raw, shared};
use crate::ffi::core::structs::options;
use crate::memory::copied;
use crate::models::{Config, Task};
use crate::train::{ModelOptions, Source};

/// The description of one model. Its files are read when a trainer is created.
pub struct mmopt_model(Cell<ModelOptions>);

handle!(mmopt_model, ModelOptions, "model");

pub(crate) fn give(name: &str, source: Source, task: Option<Task>) -> *mut mmopt_model {
    into_raw(ModelOptions { task, ..ModelOptions::new(name, source) })
}

/// A model from a directory with config.json and model.safetensors, as mmopt_trainer_save_model and
/// Hugging Face libraries save it. Its task is that of the configuration, unless
/// mmopt_model_set_task sets another; then the body is kept and the head is newly initialised.
/// mmopt_model_report lists what is. Names are unique within a trainer and not empty; they appear
/// in messages and checkpoints.
///
/// Errors: INVALID_ARGUMENT for an empty name; files are read when the trainer is created, which
/// fails with NOT_FOUND for a directory without weights (mmopt_model_set_fresh_weights).
///
/// @param[in] name of the model, UTF-8.
/// @param[in] directory the directory, UTF-8.
/// @param[out] model the new object; free it with mmopt_model_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_from_directory(
    name: *const c_char,
    directory: *const c_char,
    model: *mut *mut mmopt_model,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let (name, directory) = (model_name(name)?, text(directory, "directory")?);
        let model = output(model, "model")?;
        model.set(give(name, Source::Directory(PathBuf::from(directory)), None));
        Ok(())
    })
}

/// A model from the file of a forward ONNX graph, f32 or f64. It needs a loss
/// (mmopt_model_set_loss), unless it computes its own gradients
/// (mmopt_model_set_precomputed_gradients). Shared initializers, duplicate weights and invented
/// names are repaired on import and reported (mmopt_model_report).
///
/// Errors: INVALID_ARGUMENT for an empty name; files are read when the trainer is created.
///
/// @param[in] name of the model, UTF-8.
/// @param[in] path the file, UTF-8.
/// @param[out] model the new object; free it with mmopt_model_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_from_onnx(
    name: *const c_char,
    path: *const c_char,
    model: *mut *mut mmopt_model,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let (name, path) = (model_name(name)?, text(path, "path")?);
        let model = output(model, "model")?;
        model.set(give(name, Source::Onnx(PathBuf::from(path)), None));
        Ok(())
    })
}

/// As mmopt_model_from_onnx, from n_bytes bytes in memory, which are copied.
///
/// Errors: INVALID_ARGUMENT for a length that exceeds the address space; the graph is read when
/// the trainer is created.
///
/// @param[in] name of the model, UTF-8.
/// @param[in] bytes the file's content, n_bytes of it.
/// @param n_bytes how many bytes.
/// @param[out] model the new object; free it with mmopt_model_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_from_onnx_bytes(
    name: *const c_char,
    bytes: *const c_void,
    n_bytes: usize,
    model: *mut *mut mmopt_model,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let name = model_name(name)?;
        let bytes = slice(bytes.cast::<u8>(), n_bytes, "bytes")?;
        let model = output(model, "model")?;
        model.set(give(name, Source::OnnxBytes(copied(bytes)?.into()), None));
        Ok(())
    })
}

/// A fresh model from the text of a published config.json.
///
/// Errors: INVALID_DATA for bad JSON or a missing key; UNSUPPORTED for an unknown model_type.
///
/// @param[in] name of the model, UTF-8.
/// @param[in] json the text of a config.json.
/// @param[out] model the new object; free it with mmopt_model_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_from_config_json(
    name: *const c_char,
    json: *const c_char,
    model: *mut *mut mmopt_model,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let (name, json) = (model_name(name)?, text(json, "json")?);
        let model = output(model, "model")?;
        let config = Config::from_json(json).context(|| format!("model '{name}'"))?;
        model.set(give(name, Source::Config(Box::new(config)), None));
        Ok(())
    })
}

/// A fresh model of a known architecture.
///
/// Errors: INVALID_ARGUMENT for an unknown architecture or task, or a number out of range;
/// INVALID_DATA for numbers that do not fit together.
///
/// @param[in] name of the model, UTF-8.
/// @param[in] config NULL: a small BERT.
/// @param[out] model the new object; free it with mmopt_model_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_create(
    name: *const c_char,
    config: *const mmopt_model_config,
    model: *mut *mut mmopt_model,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let (name, config) = (model_name(name)?, options(config)?);
        let model = output(model, "model")?;
        let made = config.config(Vec::new()).context(|| format!("model '{name}'"))?;
        model.set(give(name, Source::Config(Box::new(made.0)), Some(made.1)));
        Ok(())
    })
}

/// The name of a class: that of mmopt_model_set_label_names, else of the configuration. LABEL_0,
/// LABEL_1, ... where another task or number of classes is set.
///
/// Errors: NOT_FOUND when label is out of range, and for ONNX graphs; IO or INVALID_DATA when
/// config.json cannot be read; INVALID_ARGUMENT for label names that do not fit.
///
/// @param[in] model shared access.
/// @param label a class, by its id from 0.
/// @param[out] name its name; free it with mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_label_name(
    model: *const mmopt_model,
    label: usize,
    name: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let model = shared(model)?;
        let name = output(name, "name")?;
        let labels = model.class_names().context(|| format!("model '{}'", model.name))?;
        let found = labels.get(label).ok_or_else(|| {
            Error::not_found(format!("model '{}': no name for label {label}", model.name))
        })?;
        name.set(owned_text(found, "the label")?);
        Ok(())
    })
}

/// Frees a model. NULL is harmless.
///
/// @param model may be NULL; freed by the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_model_free(model: *mut mmopt_model) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(model) };
}
