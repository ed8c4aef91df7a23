//! What the host can decide within a step of gradient mode.

use std::ffi::c_void;

use super::create::mmopt_optimizer;
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard};
use crate::ffi::trainer::callback::{mmopt_rate_fn, rate_callback};
use crate::ffi::trainer::gradient_callback::{gradient_callback, mmopt_gradient_fn};

/// Shows a callback each gradient of a step before anything looks at it, so that a filter or an
/// update of the host's own can be put in; a NULL callback ends that. user is handed back to it and
/// must stay valid until then, or until the optimizer is freed.
///
/// Values and gradients that lie in memory as dense f32 are seen there, and so are the sums of
/// micro-batches. Of others the callback sees dense f32 copies: bf16 and f16 gradients are rounded
/// back where it has changed them, changes of a gradient with strides count for this step and do
/// not reach the host's memory, and changed values reach it when the step succeeds.
///
/// Errors: STATE while another call uses the optimizer.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param callback NULL: none.
/// @param user handed back to the callback.
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

/// Lets the host decide each model's learning rate at each step; a NULL callback ends that. user
/// is handed back to it and must stay valid until then, or until the optimizer is freed.
///
/// Errors: STATE while another call uses the optimizer.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param callback NULL: none.
/// @param user handed back to the callback.
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
