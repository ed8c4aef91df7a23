//! DLPack tensors that an optimizer takes over.

use std::ffi::c_void;

use super::create::mmopt_optimizer;
use crate::error::Error;
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard};
use crate::ffi::dlpack::managed::{Held, borrow};

/// Gives the optimizer a DLManagedTensorVersioned as the gradient of a parameter from the next step
/// on: of the parameter's shape, with any strides that do not overlap. Its deleter is called once,
/// when another gradient replaces it or the optimizer is freed, on the thread of that call; it must
/// not call into this optimizer. On error the caller keeps the tensor, and the old gradient stays.
///
/// Errors: as mmopt_tensor_from_dlpack, without those of strides; SHAPE for another shape;
/// UNSUPPORTED for other element types than f32, bf16 and f16.
///
/// @param[in,out] optimizer exclusive access.
/// @param model the index of the model, from 0.
/// @param parameter the index of the parameter within its model, from 0.
/// @param managed a DLManagedTensorVersioned; the optimizer owns it on success.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_set_gradient_dlpack(
    optimizer: *mut mmopt_optimizer,
    model: usize,
    parameter: usize,
    managed: *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        let b = borrow(managed, "managed")?;
        let shape = &optimizer.optimizer.param_spec(model, parameter)?.shape;
        if b.dims() != shape {
            let text = format!("managed has shape {:?}, the parameter {shape:?}", b.dims());
            return Err(Error::shape(text));
        }
        optimizer.set_gradient(model, parameter, &b.place())?;
        optimizer.gradients.insert((model, parameter), Held::new(managed));
        Ok(())
    })
}

/// Gives the optimizer a DLManagedTensorVersioned whose memory it uses, for example one that
/// mmopt_parameter_from_dlpack described. Its deleter is called once, when the optimizer is freed,
/// on the thread of that call. On error the caller keeps the tensor.
///
/// Errors: UNSUPPORTED for another major version.
///
/// @param[in,out] optimizer exclusive access.
/// @param managed a DLManagedTensorVersioned; the optimizer owns it on success.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_keep_dlpack(
    optimizer: *mut mmopt_optimizer,
    managed: *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        borrow(managed, "managed")?;
        optimizer.kept.push(Held::new(managed));
        Ok(())
    })
}
