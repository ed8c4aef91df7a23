//! A trainer's values and gradients as DLPack tensors.

use std::ffi::c_void;

use super::create::mmopt_trainer;
use crate::error::{Error, Result};
use crate::ffi::core::args::{flag, output};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{guard, shared};
use crate::ffi::dlpack::managed::{Memory, READ_ONLY, export};
use crate::train::{SharedTensor, Trainer};

/// A parameter's value as a DLManagedTensorVersioned that points into the trainer's memory. The
/// caller calls its deleter once, before or after the trainer is freed, on any thread; the memory
/// lives until both are gone. The elements change with each step. writable 0 flags it as read-only.
/// With 1 it may be written, which counts as exclusive access to the trainer.
///
/// Errors: INVALID_ARGUMENT when model or parameter is out of range, or writable is neither 0 nor
/// 1.
///
/// @param[in] trainer shared access.
/// @param model the index of the model, from 0.
/// @param parameter the index of the parameter within its model, from 0.
/// @param writable 0 or 1.
/// @param[out] managed a new DLManagedTensorVersioned.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_parameter_dlpack(
    trainer: *const mmopt_trainer,
    model: usize,
    parameter: usize,
    writable: u32,
    managed: *mut *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        give_view(trainer, model, parameter, writable, managed, |trainer, name| {
            trainer.share_parameter(model, name)
        })
    })
}

/// As mmopt_trainer_parameter_dlpack for a parameter's gradient; each backward pass overwrites it.
///
/// Errors: STATE as mmopt_trainer_gradient.
///
/// @param[in] trainer shared access.
/// @param model the index of the model, from 0.
/// @param parameter the index of the parameter within its model, from 0.
/// @param writable 0 or 1.
/// @param[out] managed a new DLManagedTensorVersioned.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_gradient_dlpack(
    trainer: *const mmopt_trainer,
    model: usize,
    parameter: usize,
    writable: u32,
    managed: *mut *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        give_view(trainer, model, parameter, writable, managed, |trainer, name| {
            let view = trainer.share_gradient(model, name)?;
            view.ok_or_else(|| Error::state(format!("parameter '{name}' has no gradient (yet)")))
        })
    })
}

/// Makes `managed` the view that `of` gives of a parameter of that name.
///
/// # Safety
/// As mmopt_trainer_parameter_dlpack.
unsafe fn give_view(
    trainer: *const mmopt_trainer,
    model: usize,
    parameter: usize,
    writable: u32,
    managed: *mut *mut c_void,
    of: impl FnOnce(&Trainer, &str) -> Result<SharedTensor>,
) -> Result<()> {
    // SAFETY: by this function's contract.
    let (trainer, out) = unsafe { (shared(trainer)?, output(managed, "managed")?) };
    let flags = if flag(writable, "writable")? { 0 } else { READ_ONLY };
    let view = of(&trainer.trainer, trainer.names_of(model)?.name(parameter)?)?;
    out.set(export(Memory::Shared(view), flags)?);
    Ok(())
}
