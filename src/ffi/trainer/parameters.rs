//! A trainer's parameters: names, shapes, values, gradients.

use std::ffi::{c_char, c_void};

use super::create::{TrainerValue, mmopt_trainer};
use crate::error::{Error, Result};
use crate::ffi::core::args::{flag, optional_output, output, slice, text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard, guard_or, shared};
use crate::ffi::core::names::Names;
use crate::ffi::core::tensor::mmopt_tensor;

impl TrainerValue {
    pub(crate) fn names_of(&self, model: usize) -> Result<&Names> {
        self.names.get(model).ok_or_else(|| {
            Error::invalid(format!("model {model} of {}; counted from 0", self.names.len()))
        })
    }
}

/// The number of parameters of a model; 0 for NULL, and when model is out of range. Parameters are
/// indexed in graph order.
///
/// @param[in] trainer shared access.
/// @param model the index of the model, from 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_trainer_n_parameters(
    trainer: *const mmopt_trainer,
    model: usize,
) -> usize {
    // SAFETY: a trainer of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(trainer) }?.names_of(model)?.len()))
}

/// The index of the parameter of that name.
///
/// Errors: INVALID_ARGUMENT when model is out of range; NOT_FOUND for any other name.
///
/// @param[in] trainer shared access.
/// @param model the index of the model, from 0.
/// @param[in] name the parameter's name.
/// @param[out] parameter its index.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_parameter_index(
    trainer: *const mmopt_trainer,
    model: usize,
    name: *const c_char,
    parameter: *mut usize,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let (name, out) = (text(name, "name")?, output(parameter, "parameter")?);
        out.set(trainer.names_of(model)?.position(name)?);
        Ok(())
    })
}

/// A view of a parameter's value. It points into the trainer's memory and is valid until the
/// trainer is freed; the elements change with each step. trainable is as param_groups and
/// mmopt_trainer_set_trainable left it.
///
/// Errors: INVALID_ARGUMENT when model or parameter is out of range.
///
/// @param[in] trainer shared access.
/// @param model the index of the model, from 0.
/// @param parameter the index of the parameter within its model, from 0.
/// @param[out] tensor the view.
/// @param[out] trainable 1 or 0; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_parameter(
    trainer: *const mmopt_trainer,
    model: usize,
    parameter: usize,
    tensor: *mut mmopt_tensor,
    trainable: *mut u32,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let (tensor, trainable) =
            (output(tensor, "tensor")?, optional_output(trainable, "trainable")?);
        let names = trainer.names_of(model)?;
        let value = trainer.trainer.parameter(model, names.name(parameter)?)?;
        let spec = trainer.trainer.optimizer().param_spec(model, parameter)?;
        tensor.set(names.view(parameter, value));
        trainable.set(u32::from(spec.trainable));
        Ok(())
    })
}

/// Replaces a parameter's value by n_bytes bytes, which are copied and must be as many as it has.
///
/// Errors: INVALID_ARGUMENT when model or parameter is out of range; SHAPE for any other length.
///
/// @param[in,out] trainer exclusive access.
/// @param model the index of the model, from 0.
/// @param parameter the index of the parameter within its model, from 0.
/// @param[in] data n_bytes bytes of the parameter's element type, row-major.
/// @param n_bytes how many bytes.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_set_parameter(
    trainer: *mut mmopt_trainer,
    model: usize,
    parameter: usize,
    data: *const c_void,
    n_bytes: usize,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = &mut *exclusive(trainer)?;
        let data = slice(data.cast::<u8>(), n_bytes, "data")?;
        let name = trainer.names_of(model)?.name(parameter)?.to_owned();
        trainer.trainer.set_parameter(model, &name, data)
    })
}

/// A view of a parameter's gradient as of the last backward pass, valid until the trainer is freed.
///
/// Errors: INVALID_ARGUMENT when model or parameter is out of range; STATE before the first
/// backward pass, for frozen parameters, and for parameters that the loss does not depend on.
///
/// @param[in] trainer shared access.
/// @param model the index of the model, from 0.
/// @param parameter the index of the parameter within its model, from 0.
/// @param[out] tensor the view.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_gradient(
    trainer: *const mmopt_trainer,
    model: usize,
    parameter: usize,
    tensor: *mut mmopt_tensor,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let tensor = output(tensor, "tensor")?;
        let names = trainer.names_of(model)?;
        let name = names.name(parameter)?;
        let gradient = trainer.trainer.gradient(model, name)?;
        let gradient = gradient
            .ok_or_else(|| Error::state(format!("parameter '{name}' has no gradient (yet)")))?;
        tensor.set(names.view(parameter, gradient));
        Ok(())
    })
}

/// Replaces a gradient between the backward pass and the step by n_bytes bytes, which are copied
/// and must be as many as it has.
///
/// Errors: STATE without a gradient, or when it was accumulated already (with more than one
/// micro-batch per step) or summed over the ranks (overlap of mmopt_rank_options);
/// INVALID_ARGUMENT and SHAPE as mmopt_trainer_set_parameter.
///
/// @param[in,out] trainer exclusive access.
/// @param model the index of the model, from 0.
/// @param parameter the index of the parameter within its model, from 0.
/// @param[in] data n_bytes bytes of the parameter's element type, row-major.
/// @param n_bytes how many bytes.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_set_gradient(
    trainer: *mut mmopt_trainer,
    model: usize,
    parameter: usize,
    data: *const c_void,
    n_bytes: usize,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = &mut *exclusive(trainer)?;
        let data = slice(data.cast::<u8>(), n_bytes, "data")?;
        let name = trainer.names_of(model)?.name(parameter)?.to_owned();
        trainer.trainer.set_gradient(model, &name, data)
    })
}

/// Freezes (trainable 0) or trains (1) the parameters whose name matches pattern in the models
/// whose name matches model_pattern, from the next step on: * stands for any text, ? for any one
/// character. Only parameters that were trainable when the trainer was created have gradients.
///
/// Errors: INVALID_ARGUMENT when trainable is neither 0 nor 1, or a pattern is not UTF-8.
///
/// @param[in,out] trainer exclusive access.
/// @param[in] model_pattern the models, by name.
/// @param[in] pattern the parameters, by name.
/// @param trainable 0 or 1.
/// @param[out] n_changed how many parameters changed; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_set_trainable(
    trainer: *mut mmopt_trainer,
    model_pattern: *const c_char,
    pattern: *const c_char,
    trainable: u32,
    n_changed: *mut usize,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        let (models, pattern) = (text(model_pattern, "model_pattern")?, text(pattern, "pattern")?);
        let trainable = flag(trainable, "trainable")?;
        let n_changed = optional_output(n_changed, "n_changed")?;
        let optimizer = trainer.trainer.optimizer_mut();
        n_changed.set(optimizer.set_trainable(models, pattern, trainable)?);
        Ok(())
    })
}
