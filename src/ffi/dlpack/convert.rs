//! DLPack, the exchange format of tensor libraries: its versioned form (1.x), and conversion from
//! and to the form before.
//!
//! In C the structs pass as `void *`, so that the header neither needs nor clashes with a host's
//! own dlpack.h.

use std::ffi::{c_char, c_void};

use super::managed::{
    Borrowed, Held, IS_COPIED, Managed, Memory, READ_ONLY, Unversioned, VERSION, borrow,
    check_version, export,
};
use crate::error::{Error, Result};
use crate::ffi::core::args::{Out, output, reserved, text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{guard, guard_or};
use crate::ffi::core::tensor::{mmopt_dtype, mmopt_tensor, view};
use crate::ffi::optimizer::parameter::{mmopt_parameter, mmopt_parameter_layout};
use crate::tensor::{DType, Tensor};

/// Greater numbers are no major version of DLPack.
const MAX_MAJOR: u32 = 256;

/// A view of a DLManagedTensorVersioned as a tensor of that name, for example an input of a pass.
/// The caller keeps both, which must stay valid as long as the view is used; the deleter is not
/// called.
///
/// Errors: UNSUPPORTED for another major version of DLPack, memory that is not the CPU's, an
/// unknown element type, or elements that are not dense and row-major.
///
/// @param[in] name UTF-8.
/// @param[in] managed a DLManagedTensorVersioned.
/// @param[out] tensor the view.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_tensor_from_dlpack(
    name: *const c_char,
    managed: *const c_void,
    tensor: *mut mmopt_tensor,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        text(name, "name")?;
        let out = output(tensor, "tensor")?;
        let b = borrow(managed, "managed")?;
        b.check_dense("make it dense first")?;
        out.set(mmopt_tensor {
            name,
            dtype: b.dtype as u32,
            reserved: 0,
            shape: b.shape,
            n_dims: b.n_dims,
            data: b.data.cast_const().cast(),
            n_bytes: b.n_bytes,
        });
        Ok(())
    })
}

/// Describes a parameter by two DLManagedTensorVersioned: its value, dense f32, and its gradient
/// (NULL: none), dense f32, bf16 or f16. The caller keeps them and name, which must stay valid
/// until the optimizer of the parameter is freed; the deleters are not called
/// (mmopt_optimizer_keep_dlpack gives them to the optimizer). The parameter is trainable, and its
/// role follows from its name; both fields can be changed afterwards.
///
/// Errors: as mmopt_tensor_from_dlpack; INVALID_ARGUMENT for a value that is read-only or not f32;
/// SHAPE for a gradient of another shape.
///
/// @param[in] name UTF-8.
/// @param[in] value a DLManagedTensorVersioned.
/// @param[in] gradient a DLManagedTensorVersioned; may be NULL.
/// @param[out] parameter the description.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_parameter_from_dlpack(
    name: *const c_char,
    value: *const c_void,
    gradient: *const c_void,
    parameter: *mut mmopt_parameter,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let (v, g, out) = pair(name, value, gradient, parameter)?;
        if v.dtype != DType::F32 {
            return Err(Error::invalid("value must be f32; mmopt_parameter_from_dlpack_strided"));
        }
        for b in [Some(&v), g.as_ref()].into_iter().flatten() {
            b.check_dense("use mmopt_parameter_from_dlpack_strided")?;
        }
        out.set(described(name, &v, g.as_ref()));
        Ok(())
    })
}

/// As mmopt_parameter_from_dlpack, for f32, bf16 and f16 values with any strides that do not
/// overlap. The parameter points to layout, which must stay where it is until
/// mmopt_optimizer_create returns.
///
/// Errors: as mmopt_parameter_from_dlpack, without those of strides and types, which
/// mmopt_optimizer_create checks.
///
/// @param[in] name UTF-8.
/// @param[in] value a DLManagedTensorVersioned.
/// @param[in] gradient a DLManagedTensorVersioned; may be NULL.
/// @param[out] layout element type and strides.
/// @param[out] parameter the description.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_parameter_from_dlpack_strided(
    name: *const c_char,
    value: *const c_void,
    gradient: *const c_void,
    layout: *mut mmopt_parameter_layout,
    parameter: *mut mmopt_parameter,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let (v, g, out) = pair(name, value, gradient, parameter)?;
        let into = output(layout, "layout")?;
        into.set(mmopt_parameter_layout {
            dtype: v.dtype as u32,
            strides: v.strides,
            gradient_strides: g.as_ref().map_or(std::ptr::null(), |g| g.strides),
            ..mmopt_parameter_layout::default()
        });
        out.set(mmopt_parameter { layout, ..described(name, &v, g.as_ref()) });
        Ok(())
    })
}

/// A value, its gradient if there is one, and the place for the parameter, checked.
unsafe fn pair(
    name: *const c_char,
    value: *const c_void,
    gradient: *const c_void,
    parameter: *mut mmopt_parameter,
) -> Result<(Borrowed, Option<Borrowed>, Out<mmopt_parameter>)> {
    // SAFETY: the caller's arguments, by the header's contract.
    unsafe {
        text(name, "name")?;
        let out = output(parameter, "parameter")?;
        let v = borrow(value, "value")?;
        if v.read_only {
            return Err(Error::invalid("value is read-only; it must be writable"));
        }
        let g = if gradient.is_null() { None } else { Some(borrow(gradient, "gradient")?) };
        if g.as_ref().is_some_and(|g| g.dims() != v.dims()) {
            return Err(Error::shape("value and gradient differ in shape"));
        }
        Ok((v, g, out))
    }
}

fn described(name: *const c_char, v: &Borrowed, g: Option<&Borrowed>) -> mmopt_parameter {
    mmopt_parameter {
        name,
        shape: v.shape,
        n_dims: v.n_dims,
        data: v.data.cast(),
        gradient: g.map_or(std::ptr::null_mut(), |g| g.data.cast()),
        gradient_dtype: g.map_or(mmopt_dtype::F32 as u32, |g| g.dtype as u32),
        trainable: 1,
        role_json: std::ptr::null(),
        layout: std::ptr::null(),
        reserved: [0],
    }
}

/// Copies a tensor into a new DLManagedTensorVersioned, flagged as copied. The caller calls its
/// deleter once.
///
/// Errors: INVALID_ARGUMENT for an unknown element type; SHAPE when n_bytes does not fit the shape.
///
/// @param[in] tensor what to copy.
/// @param[out] managed the new DLManagedTensorVersioned.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_tensor_to_dlpack(
    tensor: *const mmopt_tensor,
    managed: *mut *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let tensor = tensor.as_ref().ok_or_else(|| Error::invalid("tensor is NULL"))?;
        let out = output(managed, "managed")?;
        reserved(tensor.reserved == 0, "tensor.reserved")?;
        let view = view(tensor)?;
        let tensor = Tensor::from_bytes(view.dtype, &view.shape, view.data)?;
        out.set(export(Memory::Copied(tensor), IS_COPIED)?);
        Ok(())
    })
}

/// Wraps a DLManagedTensor, the form before DLPack 1.0, in a DLManagedTensorVersioned, without
/// copying elements. The new tensor owns the old one, and its deleter calls the old one's. On error
/// the caller keeps the old one.
///
/// Errors: only those of any call.
///
/// @param unversioned a DLManagedTensor; managed owns it on success.
/// @param[out] managed the new DLManagedTensorVersioned.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_dlpack_from_unversioned(
    unversioned: *mut c_void,
    managed: *mut *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let out = output(managed, "managed")?;
        let old = unversioned.cast::<Unversioned>();
        let old = old.as_ref().ok_or_else(|| Error::invalid("unversioned is NULL"))?;
        let made = Managed {
            version: VERSION,
            context: unversioned,
            deleter: Some(delete_unversioned),
            flags: 0,
            tensor: old.tensor,
        };
        out.set(Box::into_raw(Box::new(made)).cast());
        Ok(())
    })
}

/// Wraps a DLManagedTensorVersioned in a DLManagedTensor, the form before DLPack 1.0, without
/// copying elements. The new tensor owns the versioned one, and its deleter calls that one's. On
/// error the caller keeps the versioned one.
///
/// Errors: UNSUPPORTED for another major version, and for read-only tensors, for which the old form
/// has no flag.
///
/// @param managed a DLManagedTensorVersioned; unversioned owns it on success.
/// @param[out] unversioned the new DLManagedTensor.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_dlpack_to_unversioned(
    managed: *mut c_void,
    unversioned: *mut *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let out = output(unversioned, "unversioned")?;
        let m = managed.cast::<Managed>();
        let m = m.as_ref().ok_or_else(|| Error::invalid("managed is NULL"))?;
        check_version(m)?;
        if m.flags & READ_ONLY != 0 {
            return Err(Error::unsupported("managed is read-only, which the old form cannot say"));
        }
        let made =
            Unversioned { tensor: m.tensor, context: managed, deleter: Some(delete_versioned) };
        out.set(Box::into_raw(Box::new(made)).cast());
        Ok(())
    })
}

/// Calls the deleter of any DLManagedTensorVersioned, for languages that cannot easily call a
/// function pointer. NULL is harmless. What does not begin with a version of DLPack from 1 on is
/// left alone, as a DLManagedTensor from before 1.0 would be.
///
/// @param managed may be NULL; freed by the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_dlpack_free(managed: *mut c_void) {
    guard_or((), || {
        // SAFETY: the caller's tensor, whose first member is its version.
        let major = unsafe { managed.cast::<u32>().as_ref() };
        // Up to the deleter later versions have the same members; an address is no such number.
        if major.is_some_and(|major| (1..MAX_MAJOR).contains(major)) {
            // SAFETY: the caller gives it up, by the header's contract.
            drop(unsafe { Held::new(managed) });
        }
        Ok(())
    });
}

unsafe extern "C" fn delete_unversioned(managed: *mut Managed) {
    guard_or((), || {
        if managed.is_null() {
            return Ok(());
        }
        // SAFETY: made from a box by `mmopt_dlpack_from_unversioned`; its owner calls this once.
        let old = unsafe { Box::from_raw(managed) }.context.cast::<Unversioned>();
        // SAFETY: the old one was given up for this.
        unsafe {
            if let Some(deleter) = (*old).deleter {
                deleter(old);
            }
        }
        Ok(())
    });
}

unsafe extern "C" fn delete_versioned(unversioned: *mut Unversioned) {
    guard_or((), || {
        if !unversioned.is_null() {
            // SAFETY: made from a box by `mmopt_dlpack_to_unversioned`; its owner calls this once.
            let managed = unsafe { Box::from_raw(unversioned) }.context;
            // SAFETY: the versioned one was given up for this.
            drop(unsafe { Held::new(managed) });
        }
        Ok(())
    });
}
