//! Opening a trainer's sessions before the first pass.

use super::create::mmopt_trainer;
use super::steps::borrow;
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard};
use crate::ffi::core::tensor::{mmopt_tensor, views};

/// Opens the session that training one model on tensors of these shapes needs, and runs nothing, so
/// that the first pass takes no longer than the others. A session that is open stays as it is.
///
/// Errors: as mmopt_trainer_forward_backward for tensors that do not fit the model.
///
/// @param[in,out] trainer exclusive access.
/// @param model the index of the model, from 0.
/// @param[in] tensors n_tensors views, read during the call only; inputs and labels.
/// @param n_tensors how many tensors.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_prepare(
    trainer: *mut mmopt_trainer,
    model: usize,
    tensors: *const mmopt_tensor,
    n_tensors: usize,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        let views = views(tensors, n_tensors)?;
        let prepared = trainer.trainer.prepare(model, &borrow(&views));
        trainer.trainer.log_error("opening a session", prepared)
    })
}
