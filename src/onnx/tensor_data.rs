//! Constant tensors of a graph: dtype, shape and little-endian bytes that may lie in a
//! memory-mapped file.

use bytes::Bytes;

use super::proto::TensorProto;
use crate::error::{Error, Result};
use crate::memory::{Gather, copied};
use crate::tensor::{DType, Element, Tensor, element_count};

/// An immutable dense tensor; clones share the bytes.
#[derive(Clone, PartialEq)]
pub struct TensorData {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl TensorData {
    /// From little-endian bytes; their number must be that of `dtype` and `shape`.
    pub fn new(dtype: DType, shape: &[usize], bytes: Bytes) -> Result<Self> {
        let expected = element_count(shape)? * dtype.size();
        if dtype == DType::String {
            return Err(Error::unsupported("tensors of strings"));
        }
        if bytes.len() != expected {
            return Err(Error::data(format!(
                "{dtype}{shape:?} needs {expected} bytes, has {}",
                bytes.len()
            )));
        }
        Ok(Self { dtype, shape: shape.to_vec(), bytes })
    }

    /// Copies elements.
    pub fn from_slice<T: Element>(shape: &[usize], data: &[T]) -> Result<Self> {
        Self::new(T::DTYPE, shape, copied::<u8>(bytemuck::cast_slice(data))?.into())
    }

    /// A 1-D int64 tensor: shapes, axes, indices.
    pub fn ints(data: &[i64]) -> Self {
        let bytes = Bytes::copy_from_slice(bytemuck::cast_slice(data));
        Self { dtype: DType::I64, shape: vec![data.len()], bytes }
    }

    /// A scalar of float type `dtype` (`F32` or `F64`, `F16`, `BF16`), or an integer type.
    pub fn scalar(dtype: DType, value: f64) -> Result<Self> {
        let bytes = match dtype {
            DType::F32 => Bytes::copy_from_slice(&(value as f32).to_le_bytes()),
            DType::F64 => Bytes::copy_from_slice(&value.to_le_bytes()),
            DType::F16 => Bytes::copy_from_slice(&half::f16::from_f64(value).to_le_bytes()),
            DType::BF16 => Bytes::copy_from_slice(&half::bf16::from_f64(value).to_le_bytes()),
            DType::I64 => Bytes::copy_from_slice(&(value as i64).to_le_bytes()),
            DType::I32 => Bytes::copy_from_slice(&(value as i32).to_le_bytes()),
            DType::Bool => Bytes::copy_from_slice(&[u8::from(value != 0.0)]),
            other => return Err(Error::unsupported(format!("scalar constants of {other}"))),
        };
        Ok(Self { dtype, shape: Vec::new(), bytes })
    }

    /// Copies a host tensor.
    pub fn from_tensor(tensor: &Tensor) -> Result<Self> {
        Ok(Self {
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            bytes: copied(tensor.bytes())?.into(),
        })
    }

    /// Copies into aligned host memory.
    pub fn to_tensor(&self) -> Result<Tensor> {
        Tensor::from_bytes(self.dtype, &self.shape, &self.bytes)
    }

    /// The same bytes under another shape of equal element count.
    pub fn reshaped(self, shape: &[usize]) -> Result<Self> {
        Self::new(self.dtype, shape, self.bytes)
    }

    /// Copies the bytes, so that they refer to no file.
    pub(super) fn detach(&mut self) -> Result<()> {
        self.bytes = copied(&self.bytes)?.into();
        Ok(())
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.dtype.size()
    }

    /// True when some dimension is 0.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The little-endian bytes; not necessarily aligned.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Elements as i64; integer and boolean types only.
    pub fn to_i64s(&self) -> Result<Vec<i64>> {
        match self.dtype {
            DType::I64 => self.read(i64::from_le_bytes),
            DType::I32 => self.read(|b| i64::from(i32::from_le_bytes(b))),
            DType::U8 | DType::Bool => self.bytes.iter().map(|&b| i64::from(b)).gathered(),
            DType::I8 => self.bytes.iter().map(|&b| i64::from(b as i8)).gathered(),
            other => Err(Error::invalid(format!("{other} tensor where integers are expected"))),
        }
    }

    /// Elements as f64; any numeric type.
    pub fn to_f64s(&self) -> Result<Vec<f64>> {
        match self.dtype {
            DType::F32 => self.read(|b| f64::from(f32::from_le_bytes(b))),
            DType::F64 => self.read(f64::from_le_bytes),
            DType::F16 => self.read(|b| half::f16::from_le_bytes(b).to_f64()),
            DType::BF16 => self.read(|b| half::bf16::from_le_bytes(b).to_f64()),
            _ => self.to_i64s()?.into_iter().map(|v| v as f64).gathered(),
        }
    }

    fn read<const N: usize, T>(&self, f: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
        self.bytes.as_chunks::<N>().0.iter().map(|c| f(*c)).gathered()
    }

    /// From the message; `external` resolves data outside the file.
    pub(super) fn from_proto(
        proto: &TensorProto,
        external: &dyn Fn(&TensorProto) -> Result<Bytes>,
    ) -> Result<Self> {
        let dtype = DType::from_onnx(proto.data_type)?;
        let shape = proto
            .dims
            .iter()
            .map(|&d| usize::try_from(d).map_err(|_| Error::data(format!("dimension {d}"))))
            .collect::<Result<Vec<_>>>()?;
        let bytes = if proto.data_location == 1 {
            external(proto)?
        } else if let Some(raw) = &proto.raw_data {
            raw.clone()
        } else {
            typed_bytes(dtype, proto)?
        };
        Self::new(dtype, &shape, bytes)
    }

    /// The message, with the data inside.
    pub(super) fn to_proto(&self, name: &str) -> TensorProto {
        TensorProto {
            dims: self.shape.iter().map(|&d| d as i64).collect(),
            data_type: self.dtype.onnx(),
            name: name.to_owned(),
            raw_data: Some(self.bytes.clone()),
            ..TensorProto::default()
        }
    }
}

/// The typed fields that `TensorProto` offers beside `raw_data`.
fn typed_bytes(dtype: DType, proto: &TensorProto) -> Result<Bytes> {
    fn le<T: bytemuck::NoUninit>(values: &[T]) -> Result<Bytes> {
        Ok(copied::<u8>(bytemuck::cast_slice(values))?.into())
    }
    let ints = &proto.int32_data;
    match dtype {
        DType::F32 => le(&proto.float_data),
        DType::F64 => le(&proto.double_data),
        DType::I64 => le(&proto.int64_data),
        DType::U64 => le(&proto.uint64_data),
        DType::U32 => le(&proto.uint64_data.iter().map(|&v| v as u32).gathered()?),
        DType::I32 => le(ints),
        DType::U16 | DType::I16 | DType::F16 | DType::BF16 => {
            le(&ints.iter().map(|&v| v as u16).gathered()?)
        }
        DType::U8 | DType::I8 | DType::Bool => le(&ints.iter().map(|&v| v as u8).gathered()?),
        DType::String => Ok(Bytes::new()),
    }
}

impl std::fmt::Debug for TensorData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TensorData({}{:?})", self.dtype, self.shape)
    }
}
