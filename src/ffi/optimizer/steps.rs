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

/// Gives a parameter another gradient (NULL: none) for the coming steps, dense and row-major;
/// gradient_dtype as in mmopt_parameter. Parameters count from 0 in the order they were given.
///
/// Errors: INVALID_ARGUMENT for a model, parameter or number that there is not; UNSUPPORTED for
/// an element type that gradients cannot have.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param model its number, from 0.
/// @param parameter its number, from 0.
/// @param gradient as many elements as the value; may be NULL.
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

/// As mmopt_optimizer_set_gradient for a gradient with strides, in elements, one for each of the
/// parameter's n_dims dimensions; they are copied. NULL: dense and row-major.
///
/// Errors: SHAPE for another number of dimensions; UNSUPPORTED for strides that repeat an element.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param model its number, from 0.
/// @param parameter its number, from 0.
/// @param gradient the element at index 0; may be NULL.
/// @param gradient_dtype an mmopt_dtype.
/// @param[in] strides n_dims strides in elements; may be NULL.
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
        optimizer.set_gradient(model, parameter, n_dims, &place)?;
        optimizer.gradients.remove(&(model, parameter));
        Ok(())
    })
}

/// Forgets micro-batches that were accumulated since the last step.
///
/// Errors: STATE while another call uses the object.
///
/// @param[in,out] optimizer changed: needed alone.
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

/// Tells that the gradients of one model's micro-batch lie in its memory, and its loss. With more
/// than one micro-batch per step they are added up now; else they are read by the step.
///
/// Errors: INVALID_ARGUMENT for a model that there is not, or a parameter without the memory
/// that it needs.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param model its number, from 0.
/// @param loss of the micro-batch.
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

/// One coordinated step: check, clip, share, update, synchronise. report may be NULL.
///
/// Errors: STATE without mmopt_optimizer_accumulate since the last step; NON_FINITE when that is to
/// fail; CANCELLED by the gradient callback, and INVALID_ARGUMENT for what a callback returns. The
/// step can be taken again then.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param[out] report becomes what the step did; may be NULL.
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
