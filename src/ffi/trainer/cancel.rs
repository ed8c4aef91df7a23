//! Ending a running call from another thread.

use super::create::mmopt_trainer;
use crate::ffi::core::args::output;
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{Cell, free, guard, handle, into_raw, shared};
use crate::runtime::CancelToken;

/// Stops a running pass of a trainer from another thread. It may outlive the trainer, and does
/// nothing then.
pub struct mmopt_cancel_token(Cell<CancelToken>);

handle!(mmopt_cancel_token, CancelToken, "cancel_token");

/// A new cancel token of this trainer.
///
/// Errors: only those of any call.
///
/// @param[in] trainer shared access.
/// @param[out] cancel_token the new object; free it with mmopt_cancel_token_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_cancel_token(
    trainer: *const mmopt_trainer,
    cancel_token: *mut *mut mmopt_cancel_token,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let out = output(cancel_token, "cancel_token")?;
        out.set(into_raw(trainer.trainer.cancel_token()));
        Ok(())
    })
}

/// Makes running and later passes fail with MMOPT_CODE_CANCELLED. May be called from any thread.
///
/// Errors: only those of any call.
///
/// @param[in] cancel_token shared access.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_cancel_token_cancel(
    cancel_token: *const mmopt_cancel_token,
) -> *mut mmopt_error {
    // SAFETY: a cancel_token of the caller, by the header's contract.
    guard(|| unsafe {
        shared(cancel_token)?.cancel();
        Ok(())
    })
}

/// Lets passes run again. May be called from any thread.
///
/// Errors: only those of any call.
///
/// @param[in] cancel_token shared access.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_cancel_token_reset(
    cancel_token: *const mmopt_cancel_token,
) -> *mut mmopt_error {
    // SAFETY: a cancel_token of the caller, by the header's contract.
    guard(|| unsafe { shared(cancel_token)?.reset() })
}

/// Frees a cancel token. NULL is harmless.
///
/// @param cancel_token may be NULL; freed by the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_cancel_token_free(cancel_token: *mut mmopt_cancel_token) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(cancel_token) };
}
