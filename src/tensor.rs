//! Element types, shapes, and host memory aligned for vector code.
//!
//! A [`Tensor`] owns dense row-major memory, aligned to 64 bytes; element access is checked
//! against its [`DType`]. Address stability: the memory of a tensor never moves while it lives.

use crate::error::{Error, Result};
use crate::memory::Memory;

/// The element types that cross this library's borders, with ONNX's numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
#[non_exhaustive]
pub enum DType {
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
    /// UTF-8 strings; never held in a [`Tensor`].
    String = 8,
    /// Boolean, one byte, 0 or 1.
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
    BF16 = 16,
}

impl DType {
    /// Bytes of one element; 0 for strings.
    pub fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::String => 0,
        }
    }

    /// From ONNX's `TensorProto.DataType`.
    pub fn from_onnx(code: i32) -> Result<Self> {
        Ok(match code {
            1 => Self::F32,
            2 => Self::U8,
            3 => Self::I8,
            4 => Self::U16,
            5 => Self::I16,
            6 => Self::I32,
            7 => Self::I64,
            8 => Self::String,
            9 => Self::Bool,
            10 => Self::F16,
            11 => Self::F64,
            12 => Self::U32,
            13 => Self::U64,
            16 => Self::BF16,
            other => return Err(Error::unsupported(format!("element type {other} of ONNX"))),
        })
    }

    /// ONNX's `TensorProto.DataType` number.
    pub fn onnx(self) -> i32 {
        self as i32
    }

    /// True for floating-point types: those that carry gradients.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::BF16)
    }

    /// The usual short name, e.g. `f32`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::String => "string",
            Self::Bool => "bool",
            Self::F16 => "f16",
            Self::F64 => "f64",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::BF16 => "bf16",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Rust types that a [`Tensor`] can be viewed as.
pub trait Element: bytemuck::Pod + Send + Sync {
    /// The matching element type.
    const DTYPE: DType;
}

macro_rules! element {
    ($($t:ty => $d:ident),*) => {$(impl Element for $t { const DTYPE: DType = DType::$d; })*};
}
element!(f32 => F32, f64 => F64, i64 => I64, i32 => I32, u8 => U8, i8 => I8,
    u16 => U16, i16 => I16, u32 => U32, u64 => U64, half::f16 => F16, half::bf16 => BF16);

/// Number of elements of a shape; an error when it exceeds the address space.
pub fn element_count(shape: &[usize]) -> Result<usize> {
    shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .filter(|&n| n <= isize::MAX as usize / 8)
        .ok_or_else(|| Error::shape(format!("shape {shape:?} is too large")))
}

/// The first element that is NaN or infinite among little-endian bytes, which need not be aligned;
/// `None` for types that are not floating-point.
pub(crate) fn first_non_finite(dtype: DType, bytes: &[u8]) -> Option<usize> {
    // All bits of the exponent are set in what is not finite.
    match dtype {
        DType::F32 => {
            let bad = |b: &[u8; 4]| u32::from_le_bytes(*b) & 0x7f80_0000 == 0x7f80_0000;
            bytes.as_chunks::<4>().0.iter().position(bad)
        }
        DType::F64 => {
            bytes.as_chunks::<8>().0.iter().position(|b| !f64::from_le_bytes(*b).is_finite())
        }
        DType::F16 | DType::BF16 => {
            let exponent = if dtype == DType::F16 { 0x7c00 } else { 0x7f80 };
            let bad = |b: &[u8; 2]| u16::from_le_bytes(*b) & exponent == exponent;
            bytes.as_chunks::<2>().0.iter().position(bad)
        }
        _ => None,
    }
}

/// The first element below zero among little-endian floats; -0 is not.
pub(crate) fn first_negative(dtype: DType, bytes: &[u8]) -> Option<usize> {
    match dtype {
        DType::F32 => bytes.as_chunks::<4>().0.iter().position(|b| f32::from_le_bytes(*b) < 0.0),
        DType::BF16 => {
            let bad = |b: &[u8; 2]| half::bf16::from_le_bytes(*b) < half::bf16::ZERO;
            bytes.as_chunks::<2>().0.iter().position(bad)
        }
        _ => None,
    }
}

/// Dense row-major host memory with dtype and shape.
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    n_bytes: usize,
    memory: Memory,
}

impl Tensor {
    /// All-zero tensor. `String` has no memory form and is refused. The pages of 2 MB or more are
    /// taken from the system only when they are first written.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Result<Self> {
        if dtype == DType::String {
            return Err(Error::unsupported("tensors of strings"));
        }
        let n_bytes = element_count(shape)? * dtype.size();
        Ok(Self { dtype, shape: shape.to_vec(), n_bytes, memory: Memory::zeroed(n_bytes)? })
    }

    /// All-zero tensor that is written in few places: no page is larger than what is written.
    pub(crate) fn zeros_in_small_pages(dtype: DType, shape: &[usize]) -> Result<Self> {
        let n_bytes = element_count(shape)? * dtype.size();
        let memory = Memory::zeroed_in_small_pages(n_bytes)?;
        Ok(Self { dtype, shape: shape.to_vec(), n_bytes, memory })
    }

    /// The same in memory of its own.
    pub fn copy(&self) -> Result<Self> {
        let Self { dtype, n_bytes, .. } = *self;
        Ok(Self { dtype, shape: self.shape.clone(), n_bytes, memory: self.memory.copy()? })
    }

    /// Lets a device copy the elements directly, where they are many and the machine can.
    pub(crate) fn pin(&mut self, device: i32) {
        self.memory.pin(device);
    }

    /// Copies `data`, which must have as many elements as `shape` says.
    pub fn from_slice<T: Element>(shape: &[usize], data: &[T]) -> Result<Self> {
        let mut tensor = Self::zeros(T::DTYPE, shape)?;
        let into = tensor.as_mut_slice::<T>()?;
        if into.len() != data.len() {
            return Err(Error::shape(format!(
                "{} elements given for shape {shape:?}, which has {}",
                data.len(),
                into.len()
            )));
        }
        into.copy_from_slice(data);
        Ok(tensor)
    }

    /// Copies little-endian bytes, `element_count(shape) * dtype.size()` of them.
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Self> {
        let mut tensor = Self::zeros(dtype, shape)?;
        if bytes.len() != tensor.n_bytes {
            return Err(Error::shape(format!(
                "{} bytes given for {dtype}{shape:?}, which has {}",
                bytes.len(),
                tensor.n_bytes
            )));
        }
        tensor.bytes_mut().copy_from_slice(bytes);
        Ok(tensor)
    }

    /// A scalar (shape `[]`).
    pub fn scalar<T: Element>(value: T) -> Result<Self> {
        Self::from_slice(&[], &[value])
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.n_bytes / self.dtype.size()
    }

    /// True when some dimension is 0.
    pub fn is_empty(&self) -> bool {
        self.n_bytes == 0
    }

    /// The memory, in the machine's byte order.
    pub fn bytes(&self) -> &[u8] {
        self.memory.bytes()
    }

    /// The memory, writable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.bytes_mut()
    }

    /// Elements as `T`; an error when the dtype differs. Booleans read as `u8`.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        self.check::<T>()?;
        Ok(bytemuck::cast_slice(self.bytes()))
    }

    /// Elements as `T`, writable; an error when the dtype differs.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T]> {
        self.check::<T>()?;
        Ok(bytemuck::cast_slice_mut(self.bytes_mut()))
    }

    /// The same memory under another shape of equal element count.
    pub fn reshape(mut self, shape: &[usize]) -> Result<Self> {
        if element_count(shape)? != self.len() {
            return Err(Error::shape(format!(
                "{:?} cannot be reshaped to {shape:?}: {} elements against {}",
                self.shape,
                self.len(),
                element_count(shape)?
            )));
        }
        self.shape = shape.to_vec();
        Ok(self)
    }

    fn check<T: Element>(&self) -> Result<()> {
        let same = T::DTYPE == self.dtype || (T::DTYPE == DType::U8 && self.dtype == DType::Bool);
        if same {
            return Ok(());
        }
        Err(Error::invalid(format!("tensor of {} read as {}", self.dtype, T::DTYPE)))
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({}{:?})", self.dtype, self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_or_negative_is_found_in_every_type() {
        let bits = |x: &[f32]| x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let row = [1.0, -f32::MAX, bad, f32::MIN_POSITIVE / 2.0];
            assert_eq!(first_non_finite(DType::F32, &bits(&row)), Some(2));
            let wide: Vec<u8> = row.iter().flat_map(|&v| f64::from(v).to_le_bytes()).collect();
            assert_eq!(first_non_finite(DType::F64, &wide), Some(2));
            let half = [1.0, bad].map(half::f16::from_f32);
            let half: Vec<u8> = half.iter().flat_map(|v| v.to_le_bytes()).collect();
            assert_eq!(first_non_finite(DType::F16, &half), Some(1));
            let half = [f32::MAX / 2.0, bad].map(half::bf16::from_f32);
            let half: Vec<u8> = half.iter().flat_map(|v| v.to_le_bytes()).collect();
            assert_eq!(first_non_finite(DType::BF16, &half), Some(1));
        }
        assert_eq!(first_non_finite(DType::F32, &bits(&[0.0, f32::MAX])), None);
        assert_eq!(first_non_finite(DType::I64, &[0xff; 8]), None);
        assert_eq!(first_negative(DType::F32, &bits(&[-0.0, 1.0, -1e-30])), Some(2));
        assert_eq!(first_negative(DType::F32, &bits(&[-0.0, 1.0])), None);
        let half = [0.0, -0.5].map(half::bf16::from_f32);
        let half: Vec<u8> = half.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(first_negative(DType::BF16, &half), Some(1));
    }

    #[test]
    fn memory_is_aligned_and_checked() {
        let t = Tensor::from_slice(&[3, 5], &[1.0f32; 15]).unwrap();
        assert_eq!(t.bytes().as_ptr() as usize % 64, 0);
        assert_eq!(t.as_slice::<f32>().unwrap().len(), 15);
        assert!(t.as_slice::<i64>().is_err());
        assert!(Tensor::from_slice(&[4], &[1.0f32; 3]).is_err());
        assert!(Tensor::zeros(DType::F32, &[usize::MAX, 2]).is_err());
        assert_eq!(Tensor::zeros(DType::I64, &[0, 7]).unwrap().len(), 0);
        assert!(t.reshape(&[5, 3]).is_ok());
    }
}
