//! DLPack, the exchange format of tensor libraries, in its versioned form (1.x).
//!
//! In C the structs pass as `void *`, so that the header neither needs nor clashes with a host's
//! own dlpack.h. Terms: a *managed tensor* is a tensor with a `deleter` that its owner calls once.

use std::ffi::{c_char, c_void};

use super::args::{output, reserved, text};
use super::error::mmopt_error;
use super::guard::guard;
use super::optimizer::mmopt_parameter;
use super::tensor::{mmopt_dtype, mmopt_tensor, view};
use crate::error::{Context, Error, Result};
use crate::tensor::{DType, Tensor, element_count};

const VERSION: [u32; 2] = [1, 0];
const CPU: i32 = 1;
const CUDA_HOST: i32 = 3;
const READ_ONLY: u64 = 1;
const IS_COPIED: u64 = 2;

/// Type codes and bits of DLPack with the element types that they stand for.
const TYPES: [(u8, u8, DType); 13] = [
    (2, 32, DType::F32),
    (1, 8, DType::U8),
    (0, 8, DType::I8),
    (1, 16, DType::U16),
    (0, 16, DType::I16),
    (0, 32, DType::I32),
    (0, 64, DType::I64),
    (6, 8, DType::Bool),
    (2, 16, DType::F16),
    (2, 64, DType::F64),
    (1, 32, DType::U32),
    (1, 64, DType::U64),
    (4, 16, DType::BF16),
];

/// DLPack's `DLTensor`, with `DLDevice` and `DLDataType` spread out.
#[repr(C)]
struct Plain {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    n_dims: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// DLPack's `DLManagedTensorVersioned`.
#[repr(C)]
struct Managed {
    version: [u32; 2],
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Managed)>,
    flags: u64,
    tensor: Plain,
}

/// A tensor of the host in memory that the processor reaches.
struct Borrowed {
    dtype: DType,
    shape: *const i64,
    n_dims: usize,
    n_bytes: usize,
    data: *mut u8,
    read_only: bool,
}

/// Looks at a managed tensor; its owner stays the host.
///
/// # Safety
/// `managed` is NULL or a valid `DLManagedTensorVersioned`.
unsafe fn borrow(managed: *const c_void, what: &str) -> Result<Borrowed> {
    // SAFETY: by this function's contract.
    let Some(m) = (unsafe { managed.cast::<Managed>().as_ref() }) else {
        return Err(Error::invalid(format!("{what} is NULL")));
    };
    // SAFETY: by this function's contract.
    unsafe { borrow_plain(m) }.context(|| what.to_owned())
}

unsafe fn borrow_plain(m: &Managed) -> Result<Borrowed> {
    let t = &m.tensor;
    if m.version[0] != VERSION[0] {
        return Err(Error::unsupported(format!(
            "DLPack {}.{}; 1.x is known",
            m.version[0], m.version[1]
        )));
    }
    if ![CPU, CUDA_HOST].contains(&t.device_type) {
        return Err(Error::unsupported(format!(
            "device {}; only memory that the processor reaches can be used",
            t.device_type
        )));
    }
    let known = TYPES.iter().find(|&&(c, b, _)| (c, b, 1) == (t.code, t.bits, t.lanes));
    let dtype = known.map(|k| k.2).ok_or_else(|| {
        Error::unsupported(format!("type code {}, {} bits, {} lanes", t.code, t.bits, t.lanes))
    })?;
    let n_dims =
        usize::try_from(t.n_dims).map_err(|_| Error::shape(format!("{} dimensions", t.n_dims)))?;
    // SAFETY: the caller's arrays, as DLPack has them.
    let (dims, strides) = unsafe {
        let dims = super::args::slice(t.shape.cast_const(), n_dims, "shape")?;
        let n_strides = if t.strides.is_null() { 0 } else { n_dims };
        (dims, super::args::slice(t.strides.cast_const(), n_strides, "strides")?)
    };
    let shape: Vec<usize> = dims
        .iter()
        .map(|&d| usize::try_from(d))
        .collect::<Result<_, _>>()
        .map_err(|_| Error::shape(format!("a dimension of {dims:?} is negative")))?;
    let n = element_count(&shape)?;
    if !strides.is_empty() && n > 0 && !is_dense(&shape, strides) {
        return Err(Error::unsupported(format!("strides {strides:?}; make it dense first")));
    }
    let n_bytes = n * dtype.size();
    let data = t.data.cast::<u8>();
    if data.is_null() && n_bytes > 0 {
        return Err(Error::invalid("data is NULL"));
    }
    let data = data.wrapping_add(t.byte_offset as usize);
    Ok(Borrowed {
        dtype,
        shape: t.shape,
        n_dims,
        n_bytes,
        data,
        read_only: m.flags & READ_ONLY != 0,
    })
}

/// Whether elements lie row by row without gaps; strides of dimensions of 1 do not matter.
fn is_dense(shape: &[usize], strides: &[i64]) -> bool {
    let mut expected = 1i64;
    shape.iter().zip(strides).rev().all(|(&d, &stride)| {
        let fits = d == 1 || stride == expected;
        expected = expected.saturating_mul(d as i64);
        fits
    })
}

/// Looks at a DLManagedTensorVersioned as a tensor of that name, for example as an input of a pass.
/// It and name stay the caller's and must stay valid as long as the view is used; its deleter is
/// not called.
///
/// Errors: UNSUPPORTED for another major version, memory that the processor does not reach, an
/// unknown element type, or elements that are not dense and row-major.
///
/// @param[in] name UTF-8.
/// @param[in] managed a DLManagedTensorVersioned.
/// @param[out] tensor becomes the view.
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

/// Describes a parameter by two DLManagedTensorVersioned: its value, f32, and its gradient (NULL:
/// none), f32, bf16 or f16. They and name stay the caller's and must stay valid until the optimizer
/// that gets the parameter is freed; their deleters are not called. The parameter is trainable,
/// and its role follows from its name; both can be changed afterwards.
///
/// Errors: as mmopt_tensor_from_dlpack; INVALID_ARGUMENT for a value that is read-only or not f32;
/// SHAPE for a gradient of another shape.
///
/// @param[in] name UTF-8.
/// @param[in] value a DLManagedTensorVersioned.
/// @param[in] gradient a DLManagedTensorVersioned; may be NULL.
/// @param[out] parameter becomes the description.
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
        text(name, "name")?;
        let out = output(parameter, "parameter")?;
        let v = borrow(value, "value")?;
        if v.dtype != DType::F32 || v.read_only {
            return Err(Error::invalid("value must be f32 and writable"));
        }
        let mut made = mmopt_parameter {
            name,
            shape: v.shape,
            n_dims: v.n_dims,
            data: v.data.cast(),
            gradient: std::ptr::null_mut(),
            gradient_dtype: mmopt_dtype::F32 as u32,
            trainable: 1,
            role_json: std::ptr::null(),
            reserved: [0; 2],
        };
        if !gradient.is_null() {
            let g = borrow(gradient, "gradient")?;
            let dims = |b: &Borrowed| super::args::slice(b.shape, b.n_dims, "shape");
            if dims(&g)? != dims(&v)? {
                return Err(Error::shape("value and gradient differ in shape"));
            }
            made.gradient = g.data.cast();
            made.gradient_dtype = g.dtype as u32;
        }
        out.set(made);
        Ok(())
    })
}

/// What a managed tensor of this library keeps alive.
struct Kept {
    tensor: Tensor,
    shape: Vec<i64>,
}

/// Frees what `mmopt_tensor_to_dlpack` made.
unsafe extern "C" fn delete(managed: *mut Managed) {
    super::guard::guard_or((), || {
        if !managed.is_null() {
            // SAFETY: made from boxes by `mmopt_tensor_to_dlpack`; its owner calls this once.
            let managed = unsafe { Box::from_raw(managed) };
            // SAFETY: as above.
            drop(unsafe { Box::from_raw(managed.context.cast::<Kept>()) });
        }
        Ok(())
    });
}

/// Copies a tensor into a new DLManagedTensorVersioned. The caller owns it and calls its deleter
/// once; it depends on nothing else.
///
/// Errors: as for an input: INVALID_ARGUMENT for an unknown element type; SHAPE where n_bytes
/// does not fit the shape.
///
/// @param[in] tensor what to copy.
/// @param[out] managed becomes the new DLManagedTensorVersioned.
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
        let shape = view.shape.iter().map(|&d| d as i64).collect();
        let tensor = Tensor::from_bytes(view.dtype, &view.shape, view.data)?;
        let mut kept = Box::new(Kept { tensor, shape });
        let known = TYPES.iter().find(|k| k.2 == view.dtype);
        let &(code, bits, _) = known.ok_or_else(|| Error::unsupported("its element type"))?;
        let plain = Plain {
            data: kept.tensor.bytes_mut().as_mut_ptr().cast(),
            device_type: CPU,
            device_id: 0,
            n_dims: kept.shape.len() as i32,
            code,
            bits,
            lanes: 1,
            shape: kept.shape.as_mut_ptr(),
            strides: std::ptr::null_mut(),
            byte_offset: 0,
        };
        let made = Box::new(Managed {
            version: VERSION,
            context: Box::into_raw(kept).cast(),
            deleter: Some(delete),
            flags: IS_COPIED,
            tensor: plain,
        });
        out.set(Box::into_raw(made).cast());
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_means_row_by_row_without_gaps() {
        assert!(is_dense(&[2, 3], &[3, 1]) && is_dense(&[2, 1, 3], &[3, 99, 1]));
        assert!(!is_dense(&[2, 3], &[1, 2]) && !is_dense(&[2, 3], &[4, 1]));
    }
}
