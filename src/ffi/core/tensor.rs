//! Tensors as C sees them: a view with a name, an element type, a shape and memory.

use std::ffi::c_char;
use std::ffi::c_void;

use super::args::{choice, reserved, slice, text};
use crate::error::{Context, Error, Result};
use crate::tensor::{DType, element_count};

/// Element types, with the numbers of ONNX.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_dtype {
    /// 32-bit IEEE float.
    F32 = 1,
    /// 8-bit unsigned integer.
    U8 = 2,
    /// 8-bit signed integer.
    I8 = 3,
    /// 16-bit unsigned integer.
    U16 = 4,
    /// 16-bit signed integer.
    I16 = 5,
    /// 32-bit signed integer.
    I32 = 6,
    /// 64-bit signed integer.
    I64 = 7,
    /// One byte, 0 or 1.
    Bool = 9,
    /// 16-bit IEEE float.
    F16 = 10,
    /// 64-bit IEEE float.
    F64 = 11,
    /// 32-bit unsigned integer.
    U32 = 12,
    /// 64-bit unsigned integer.
    U64 = 13,
    /// bfloat16.
    Bf16 = 16,
}

/// Every element type with its Rust counterpart.
pub(crate) const DTYPES: [(u32, DType); 13] = [
    (mmopt_dtype::F32 as u32, DType::F32),
    (mmopt_dtype::U8 as u32, DType::U8),
    (mmopt_dtype::I8 as u32, DType::I8),
    (mmopt_dtype::U16 as u32, DType::U16),
    (mmopt_dtype::I16 as u32, DType::I16),
    (mmopt_dtype::I32 as u32, DType::I32),
    (mmopt_dtype::I64 as u32, DType::I64),
    (mmopt_dtype::Bool as u32, DType::Bool),
    (mmopt_dtype::F16 as u32, DType::F16),
    (mmopt_dtype::F64 as u32, DType::F64),
    (mmopt_dtype::U32 as u32, DType::U32),
    (mmopt_dtype::U64 as u32, DType::U64),
    (mmopt_dtype::Bf16 as u32, DType::BF16),
];

/// A view of a dense, row-major tensor in host memory; it owns nothing.
///
/// An input must stay valid during the call, which only reads it. An output points into the object
/// that it belongs to; the function that returns it says how long it is valid.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_tensor {
    /// The name of the input, output or parameter; UTF-8.
    pub name: *const c_char,
    /// The element type, an mmopt_dtype.
    pub dtype: u32,
    /// Must be 0.
    pub reserved: u32,
    /// The dimensions, outermost first; NULL is allowed when n_dims is 0 (a scalar).
    pub shape: *const i64,
    /// How many dimensions.
    pub n_dims: usize,
    /// The elements, in native byte order; any alignment.
    pub data: *const c_void,
    /// The size of data in bytes: the product of the dimensions times the element's size.
    pub n_bytes: usize,
}

/// A checked view of a tensor from C.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub name: &'a str,
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub data: &'a [u8],
}

/// Checks one tensor: name, element type, dimensions and the length they ask for.
///
/// # Safety
/// The pointers inside are NULL or lead to what the header says, unchanged while `'a` lasts.
pub(crate) unsafe fn view<'a>(tensor: &mmopt_tensor) -> Result<View<'a>> {
    // SAFETY: by this function's contract.
    let name = unsafe { text(tensor.name, "tensor.name") }?;
    // SAFETY: by this function's contract.
    unsafe { view_named(tensor, name) }.context(|| format!("tensor '{name}'"))
}

unsafe fn view_named<'a>(tensor: &mmopt_tensor, name: &'a str) -> Result<View<'a>> {
    let dtype = choice(tensor.dtype, "dtype", &DTYPES)?;
    reserved(tensor.reserved == 0, "reserved")?;
    // SAFETY: by the contract of `view`.
    let dims = unsafe { slice(tensor.shape, tensor.n_dims, "shape") }?;
    let shape = dims
        .iter()
        .map(|&d| usize::try_from(d))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Error::shape(format!("a dimension of {dims:?} is negative")))?;
    let n_bytes = element_count(&shape)? * dtype.size();
    if n_bytes != tensor.n_bytes {
        return Err(Error::shape(format!(
            "n_bytes is {}, but {dtype}{shape:?} has {n_bytes} bytes",
            tensor.n_bytes
        )));
    }
    // SAFETY: by the contract of `view`.
    let data = unsafe { slice(tensor.data.cast::<u8>(), n_bytes, "data") }?;
    Ok(View { name, dtype, shape, data })
}

/// Checks an array of tensors; names must differ.
///
/// # Safety
/// `tensors` is NULL or leads to `n` tensors, each as for [`view`].
pub(crate) unsafe fn views<'a>(tensors: *const mmopt_tensor, n: usize) -> Result<Vec<View<'a>>> {
    // SAFETY: by this function's contract.
    let tensors = unsafe { slice(tensors, n, "tensors") }?;
    let mut views: Vec<View<'a>> = Vec::with_capacity(n);
    for (i, tensor) in tensors.iter().enumerate() {
        // SAFETY: by this function's contract.
        let view = unsafe { view(tensor) }.context(|| format!("tensors[{i}]"))?;
        if views.iter().any(|v| v.name == view.name) {
            return Err(Error::invalid(format!("tensors[{i}]: a second '{}'", view.name)));
        }
        views.push(view);
    }
    Ok(views)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(change: impl FnOnce(&mut mmopt_tensor)) -> String {
        let (shape, data) = ([2i64, 3], [0f32; 6]);
        let mut tensor = mmopt_tensor {
            name: c"x".as_ptr(),
            dtype: 1,
            reserved: 0,
            shape: shape.as_ptr(),
            n_dims: 2,
            data: data.as_ptr().cast(),
            n_bytes: 24,
        };
        change(&mut tensor);
        // SAFETY: the arrays above outlive the call; changes give NULL or shorter lengths.
        match unsafe { views(&raw const tensor, 1) } {
            Ok(v) => format!("{} {}{:?} {}", v[0].name, v[0].dtype, v[0].shape, v[0].data.len()),
            Err(e) => e.message().to_string(),
        }
    }

    #[test]
    fn a_view_is_checked_in_every_field() {
        assert_eq!(message(|_| ()), "x f32[2, 3] 24");
        assert!(message(|t| t.name = std::ptr::null()).contains("tensor.name is NULL"));
        assert!(message(|t| t.dtype = 8).contains("tensor 'x': dtype is 8"));
        assert!(message(|t| t.reserved = 1).contains("reserved is not 0"));
        assert!(message(|t| t.n_bytes = 20).contains("f32[2, 3] has 24 bytes"));
        assert!(message(|t| t.data = std::ptr::null()).contains("data is NULL"));
        assert!(message(|t| t.shape = std::ptr::null()).contains("shape is NULL"));
        let negative = [-1i64, 3];
        assert!(message(|t| t.shape = negative.as_ptr()).contains("negative"));
        let huge = [i64::MAX, 3];
        assert!(message(|t| t.shape = huge.as_ptr()).contains("too large"));
    }

    #[test]
    fn dtypes_have_the_same_numbers_on_both_sides() {
        assert!(DTYPES.iter().all(|&(code, dtype)| code == dtype as u32));
    }
}
