//! A parameter in the host's memory, and what is checked when it is bound.

use crate::error::{Error, Result};
use crate::optim::memory::strided::{StridedArray, StridedBuffer};
use crate::optim::plan::spec::{ParamSpec, is_trainable};
use crate::tensor::DType;

/// Where one parameter lies in the host's memory, dense and row-major.
#[derive(Clone, Copy, Debug)]
pub struct Buffers {
    /// The values, of the type in the parameter's spec and aligned to it; updated in place.
    pub param: *mut u8,
    /// The gradient, of the same shape; null when there is none.
    pub grad: *mut u8,
    /// Element type of the gradient: f32, bf16 or f16.
    pub grad_dtype: DType,
}

impl Buffers {
    /// An f32 parameter with an f32 gradient.
    pub fn new(param: *mut f32, grad: *mut f32) -> Self {
        Self { param: param.cast(), grad: grad.cast(), grad_dtype: DType::F32 }
    }
}

/// Where one parameter lies in the host's memory, with any strides that do not overlap.
#[derive(Clone, Debug)]
pub struct StridedBuffers {
    /// The values, of the type in the parameter's spec: f32, or bf16 or f16, for which the
    /// optimizer keeps f32 masters.
    pub value: StridedBuffer,
    /// The gradient, of the same shape: f32, bf16 or f16; null when there is none.
    pub gradient: StridedBuffer,
}

/// Checks where a parameter's values lie.
pub(in crate::optim) fn check_value(
    buffer: &StridedBuffer,
    spec: &ParamSpec,
    trainable: bool,
) -> Result<StridedArray> {
    if trainable && buffer.data.is_null() && !spec.shape.contains(&0) {
        return Err(Error::invalid("its value pointer is null"));
    }
    if buffer.dtype != spec.dtype {
        let (declared, here) = (spec.dtype, buffer.dtype);
        let text = format!("its values are {here}, but were said to be {declared}");
        return Err(Error::invalid(text));
    }
    StridedArray::new(buffer, &spec.shape, "value")
}

/// Checks where a parameter's gradient lies.
pub(in crate::optim) fn check_gradient(
    buffer: &StridedBuffer,
    spec: &ParamSpec,
) -> Result<StridedArray> {
    if !is_trainable(buffer.dtype) {
        let text = format!("gradients of type {}; f32, bf16 and f16 are possible", buffer.dtype);
        return Err(Error::unsupported(text));
    }
    StridedArray::new(buffer, &spec.shape, "gradient")
}
