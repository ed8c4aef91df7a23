//! What the host can decide within a step of gradient mode.

use std::ffi::c_void;

use super::create::mmopt_optimizer;
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard};
use crate::ffi::trainer::callback::{mmopt_rate_fn, rate_callback};
use crate::ffi::trainer::gradient_callback::{gradient_callback, mmopt_gradient_fn};

/// Sets the callback that sees each gradient of a step before it is used, for a filter or an update
/// of the host; NULL removes it. user must stay valid until it is replaced or the optimizer is
/// freed.
///
/// The callback sees dense f32 values and gradients in place, and so the sums of micro-batches. Of
/// all others it sees dense f32 copies: a changed bf16 or f16 gradient is rounded back, a changed
/// gradient with strides counts for this step and does not reach the host's memory, and changed
/// values reach it if the step succeeds.
///
/// Errors: only those of any call.
///
/// @param[in,out] optimizer exclusive access.
/// @param callback may be NULL: no callback.
/// @param user passed to the callback.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_set_gradient_callback(
    optimizer: *mut mmopt_optimizer,
    callback: mmopt_gradient_fn,
    user: *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: an optimizer of the caller, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        let (models, names) = (optimizer.models.clone(), optimizer.names.clone());
        let made = gradient_callback(callback, user, models, names);
        optimizer.optimizer.set_gradient_callback(made);
        Ok(())
    })
}

/// Sets the callback that returns each model's learning rate at each step; NULL removes it. user
/// must stay valid until it is replaced or the optimizer is freed.
///
/// Errors: only those of any call.
///
/// @param[in,out] optimizer exclusive access.
/// @param callback may be NULL: no callback.
/// @param user passed to the callback.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_set_rate_callback(
    optimizer: *mut mmopt_optimizer,
    callback: mmopt_rate_fn,
    user: *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: an optimizer of the caller, by the header's contract.
    guard(|| unsafe {
        exclusive(optimizer)?.optimizer.set_rate_callback(rate_callback(callback, user));
        Ok(())
    })
}
