//! DLPack tensors that an optimizer takes over.

use std::ffi::c_void;

use super::create::mmopt_optimizer;
use crate::error::Error;
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard};
use crate::ffi::dlpack::managed::{Held, borrow};

/// Hands over a DLManagedTensorVersioned, of the parameter's shape and in any strides without
/// overlap, as the gradient of the coming steps. Its deleter is called once, on the thread of that
/// call, when another gradient takes its place or the optimizer is freed; it must not call into
/// this optimizer. On error the tensor stays the caller's and the old gradient in place.
///
/// Errors: as mmopt_tensor_from_dlpack, but for strides; SHAPE for another shape; UNSUPPORTED for
/// other element types than f32, bf16 and f16.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param model its number, from 0.
/// @param parameter its number, from 0.
/// @param managed a DLManagedTensorVersioned, handed over.
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
        optimizer.set_gradient(model, parameter, b.n_dims, &b.place())?;
        optimizer.gradients.insert((model, parameter), Held::new(managed));
        Ok(())
    })
}

/// Hands over a DLManagedTensorVersioned whose memory the optimizer uses, for example one that
/// mmopt_parameter_from_dlpack has looked at. Its deleter is called once, when the optimizer is
/// freed, on the thread of that call. On error the tensor stays the caller's.
///
/// Errors: UNSUPPORTED for another major version.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param managed a DLManagedTensorVersioned, handed over.
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
