//! Gradient mode: gradients come from the host, and steps use them.

use std::ffi::c_void;

use super::create::mmopt_optimizer;
use super::parameter::strides;
use crate::error::Error;
use crate::ffi::core::args::{choice, optional_output};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard};
use crate::ffi::core::tensor::DTYPES;
use crate::ffi::trainer::steps::mmopt_step_report;
use crate::optim::StridedBuffer;

/// Binds another gradient to a parameter, dense and row-major: for the next step, and for all later
/// ones if stable_gradients of the model is 1. Parameters are indexed in the order in which they
/// were given.
///
/// Errors: INVALID_ARGUMENT when model, parameter or gradient_dtype is out of range; UNSUPPORTED
/// for an element type that gradients cannot have.
///
/// @param[in,out] optimizer exclusive access.
/// @param model the index of the model, from 0.
/// @param parameter the index of the parameter within its model, from 0.
/// @param gradient as many elements as the value; may be NULL: none.
/// @param gradient_dtype an mmopt_dtype.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_set_gradient(
    optimizer: *mut mmopt_optimizer,
    model: usize,
    parameter: usize,
    gradient: *mut c_void,
    gradient_dtype: u32,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        let dtype = choice(gradient_dtype, "gradient_dtype", &DTYPES)?;
        optimizer.optimizer.set_gradient(model, parameter, gradient.cast(), dtype)?;
        optimizer.gradients.remove(&(model, parameter));
        Ok(())
    })
}

/// As mmopt_optimizer_set_gradient, for a gradient with strides in elements, one for each of the
/// parameter's n_dims dimensions.
///
/// Errors: as mmopt_optimizer_set_gradient; SHAPE for another number of dimensions; UNSUPPORTED for
/// strides that repeat an element.
///
/// @param[in,out] optimizer exclusive access.
/// @param model the index of the model, from 0.
/// @param parameter the index of the parameter within its model, from 0.
/// @param gradient the address of the element at index 0; may be NULL: none.
/// @param gradient_dtype an mmopt_dtype.
/// @param[in] strides n_dims strides in elements, copied; may be NULL: dense and row-major.
/// @param n_dims how many dimensions.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_set_gradient_strided(
    optimizer: *mut mmopt_optimizer,
    model: usize,
    parameter: usize,
    gradient: *mut c_void,
    gradient_dtype: u32,
    strides: *const i64,
    n_dims: usize,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        let dtype = choice(gradient_dtype, "gradient_dtype", &DTYPES)?;
        let strides = self::strides(strides, n_dims, "strides")?;
        let place = StridedBuffer { data: gradient.cast(), dtype, strides };
        optimizer.set_gradient(model, parameter, &place)?;
        optimizer.gradients.remove(&(model, parameter));
        Ok(())
    })
}

/// Binds other memory to the values of a parameter, which holds them already: of the element type
/// that the parameter has. Moments and counters stay. The old memory is not used any more.
///
/// Errors: INVALID_ARGUMENT when model or parameter is out of range, for a missing or unaligned
/// pointer, or for memory that is another parameter's; SHAPE for another number of dimensions;
/// UNSUPPORTED for strides that repeat an element. Nothing has changed then.
///
/// @param[in,out] optimizer exclusive access.
/// @param model the index of the model, from 0.
/// @param parameter the index of the parameter within its model, from 0.
/// @param data the address of the element at index 0.
/// @param[in] strides n_dims strides in elements, copied; may be NULL: dense and row-major.
/// @param n_dims how many dimensions.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_set_data(
    optimizer: *mut mmopt_optimizer,
    model: usize,
    parameter: usize,
    data: *mut c_void,
    strides: *const i64,
    n_dims: usize,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        let strides = self::strides(strides, n_dims, "strides")?;
        let spec = optimizer.optimizer.param_spec(model, parameter)?;
        if data.is_null() && !spec.shape.contains(&0) {
            return Err(Error::invalid("data is NULL"));
        }
        let place = StridedBuffer { data: data.cast(), dtype: spec.dtype, strides };
        optimizer.optimizer.set_value(model, parameter, &place)
    })
}

/// Discards the micro-batches since the last step.
///
/// Errors: only those of any call.
///
/// @param[in,out] optimizer exclusive access.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_zero_grad(
    optimizer: *mut mmopt_optimizer,
) -> *mut mmopt_error {
    // SAFETY: an optimizer of the caller, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        optimizer.optimizer.zero_grad();
        optimizer.n_pending = 0;
        Ok(())
    })
}

/// Takes the gradients and the loss of one micro-batch of one model, which the host has computed.
/// With more than one micro-batch per step the gradients are summed now; else the step reads them.
///
/// Errors: INVALID_ARGUMENT when model is out of range; STATE for a second micro-batch of a model
/// when gradient_accumulation_steps is 1, and for a gradient that was read already if
/// stable_gradients of the model is 0.
///
/// @param[in,out] optimizer exclusive access.
/// @param model the index of the model, from 0.
/// @param loss the loss of the micro-batch.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_accumulate(
    optimizer: *mut mmopt_optimizer,
    model: usize,
    loss: f64,
) -> *mut mmopt_error {
    // SAFETY: an optimizer of the caller, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        optimizer.optimizer.accumulate(model, loss)?;
        optimizer.n_pending += 1;
        Ok(())
    })
}

/// As mmopt_optimizer_accumulate, with the weight of the micro-batch in the step's mean: the number
/// that its loss was divided by, such as that of its labels. mmopt_optimizer_accumulate has weight
/// 1.
///
/// Errors: those of mmopt_optimizer_accumulate; INVALID_ARGUMENT for a weight that is negative or
/// not finite, or other than 1 when gradient_accumulation is not weighted_mean.
///
/// @param[in,out] optimizer exclusive access.
/// @param model the index of the model, from 0.
/// @param loss the loss of the micro-batch.
/// @param weight finite, at least 0.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_accumulate_weighted(
    optimizer: *mut mmopt_optimizer,
    model: usize,
    loss: f64,
    weight: f64,
) -> *mut mmopt_error {
    // SAFETY: an optimizer of the caller, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        optimizer.optimizer.accumulate_weighted(model, loss, weight)?;
        optimizer.n_pending += 1;
        Ok(())
    })
}

/// One step of all models: check, clip, share, update, synchronise.
///
/// Errors: STATE without mmopt_optimizer_accumulate since the last step; NON_FINITE if the options
/// ask for it; CANCELLED by the gradient callback; INVALID_ARGUMENT for a bad result of a callback.
/// After an error the step can be taken again.
///
/// @param[in,out] optimizer exclusive access.
/// @param[out] report what the step did; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_step(
    optimizer: *mut mmopt_optimizer,
    report: *mut mmopt_step_report,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        let out = optional_output(report, "report")?;
        if optimizer.n_pending == 0 {
            return Err(Error::state(
                "step without gradients: call mmopt_optimizer_accumulate for a model first",
            ));
        }
        let report = optimizer.optimizer.step()?;
        optimizer.n_pending = 0;
        out.set((&report).into());
        Ok(())
    })
}
