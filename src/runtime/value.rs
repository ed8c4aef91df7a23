//! The runtime's values: over this library's memory, or copied into it.

use std::ptr::null_mut;

use ort::sys::{self, ONNXTensorElementDataType as Code, OrtAllocatorType, OrtMemType};

use super::api::{Owned, api, check};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor, element_count};

/// A value over the memory at `ptr`, which is neither copied nor freed.
///
/// # Safety
/// `ptr` is not NULL and holds `element_count(shape)` elements of `dtype` for as long as the
/// runtime can reach the value; if it is bound as an output, writing there is allowed.
pub(super) unsafe fn over(
    dtype: DType,
    shape: &[usize],
    ptr: *mut u8,
) -> Result<Owned<sys::OrtValue>> {
    let api = api();
    let n_bytes = element_count(shape)? * dtype.size();
    let dims = shape
        .iter()
        .map(|&d| i64::try_from(d).map_err(|_| Error::shape("dimension too large")))
        .collect::<Result<Vec<_>>>()?;
    let code = code(dtype)?;
    // SAFETY: the release functions fit; the value copies the description of the memory, and
    // the caller answers for the memory.
    unsafe {
        let info = Owned::make(api.ReleaseMemoryInfo, |out| {
            let kind = OrtAllocatorType::OrtDeviceAllocator;
            (api.CreateCpuMemoryInfo)(kind, OrtMemType::OrtMemTypeDefault, out)
        })?;
        Owned::make(api.ReleaseValue, |out| {
            let (data, n_dims) = (ptr.cast(), dims.len());
            (api.CreateTensorWithDataAsOrtValue)(
                info.ptr(),
                data,
                n_bytes,
                dims.as_ptr(),
                n_dims,
                code,
                out,
            )
        })
    }
}

/// A copy of a value.
pub(super) fn to_tensor(value: &Owned<sys::OrtValue>) -> Result<Tensor> {
    let api = api();
    let mut is_tensor = 0;
    // SAFETY: the value lives; `is_tensor` is the place for the answer.
    check(unsafe { (api.IsTensor)(value.ptr(), &raw mut is_tensor) })?;
    if is_tensor == 0 {
        return Err(Error::unsupported("not a dense tensor"));
    }
    // SAFETY: the value is a tensor; the release function fits.
    let info = unsafe {
        Owned::make(api.ReleaseTensorTypeAndShapeInfo, |out| {
            (api.GetTensorTypeAndShape)(value.ptr(), out)
        })
    }?;
    let (dtype, dims) = type_and_dims(info.ptr())?;
    let shape = dims
        .into_iter()
        .map(|d| usize::try_from(d).map_err(|_| Error::internal("a result without a shape")))
        .collect::<Result<Vec<_>>>()?;
    let mut tensor = Tensor::zeros(DType::from_onnx(dtype)?, &shape)?;
    let mut data = null_mut();
    // SAFETY: the value is a tensor; `data` is the place for its address.
    check(unsafe { (api.GetTensorMutableData)(value.ptr(), &raw mut data) })?;
    let into = tensor.bytes_mut();
    if !into.is_empty() {
        // SAFETY: the runtime's tensor has as many bytes as its dtype and shape say.
        unsafe { data.cast::<u8>().copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) };
    }
    Ok(tensor)
}

/// ONNX's number of the element type, and the dimensions, -1 for a free one.
pub(super) fn type_and_dims(
    info: *const sys::OrtTensorTypeAndShapeInfo,
) -> Result<(i32, Vec<i64>)> {
    let api = api();
    let (mut dtype, mut n) = (0i32, 0);
    // SAFETY: the info lives. The number is read as an integer, for a newer runtime may know
    // types that the enumeration does not.
    unsafe {
        check((api.GetTensorElementType)(info, (&raw mut dtype).cast()))?;
        check((api.GetDimensionsCount)(info, &raw mut n))?;
    }
    let mut dims = vec![0; n];
    // SAFETY: room for as many numbers as there are dimensions.
    check(unsafe { (api.GetDimensions)(info, dims.as_mut_ptr(), n) })?;
    Ok((dtype, dims))
}

fn code(dtype: DType) -> Result<Code> {
    Ok(match dtype {
        DType::F32 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DType::U8 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DType::I8 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DType::U16 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DType::I16 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DType::I32 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DType::I64 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DType::Bool => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DType::F16 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DType::F64 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DType::U32 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DType::U64 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DType::BF16 => Code::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DType::String => return Err(Error::unsupported("tensors of strings")),
    })
}
