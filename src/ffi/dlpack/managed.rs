//! DLPack's structs as they lie in memory, looked at and made.
//!
//! Terms: a *managed tensor* is a tensor with a `deleter` that its owner calls once; *versioned* is
//! the form since DLPack 1.0, which begins with its version.

use std::ffi::c_void;

use crate::error::{Context, Error, Result};
use crate::ffi::core::args::slice;
use crate::optim::StridedBuffer;
use crate::tensor::{DType, Tensor, element_count};
use crate::train::SharedTensor;

pub(crate) const VERSION: [u32; 2] = [1, 0];
pub(crate) const READ_ONLY: u64 = 1;
pub(crate) const IS_COPIED: u64 = 2;
const CPU: i32 = 1;
const CUDA_HOST: i32 = 3;

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
#[derive(Clone, Copy)]
pub(crate) struct Plain {
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

/// DLPack's `DLManagedTensorVersioned`. Up to the deleter it is the same in every version.
#[repr(C)]
pub(crate) struct Managed {
    pub version: [u32; 2],
    pub context: *mut c_void,
    pub deleter: Option<unsafe extern "C" fn(*mut Managed)>,
    pub flags: u64,
    pub tensor: Plain,
}

/// DLPack's `DLManagedTensor`, the form before 1.0.
#[repr(C)]
pub(crate) struct Unversioned {
    pub tensor: Plain,
    pub context: *mut c_void,
    pub deleter: Option<unsafe extern "C" fn(*mut Unversioned)>,
}

/// A managed tensor that is this library's to delete, when dropped.
pub(crate) struct Held(*mut Managed);

// SAFETY: only the deleter is used; the header says on which threads it may run.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

impl Held {
    /// # Safety
    /// `managed` is valid and from here on nobody else deletes it.
    pub unsafe fn new(managed: *mut c_void) -> Self {
        Self(managed.cast())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: by the contract of `new`.
        unsafe {
            if let Some(deleter) = (*self.0).deleter {
                deleter(self.0);
            }
        }
    }
}

/// A tensor of the host in memory that the processor reaches, its strides not yet looked at.
pub(crate) struct Borrowed {
    pub dtype: DType,
    pub shape: *const i64,
    pub n_dims: usize,
    /// NULL: dense and row-major.
    pub strides: *const i64,
    pub n_bytes: usize,
    pub data: *mut u8,
    pub read_only: bool,
    dims: Vec<usize>,
}

impl Borrowed {
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    fn stride_list(&self) -> Option<&[i64]> {
        // SAFETY: `borrow` has looked at the array, as long as the shape's.
        (!self.strides.is_null() && self.n_dims > 0)
            .then(|| unsafe { std::slice::from_raw_parts(self.strides, self.n_dims) })
    }

    /// Fails unless elements lie row by row without gaps.
    pub fn check_dense(&self, remedy: &str) -> Result<()> {
        match self.stride_list() {
            Some(strides) if self.n_bytes > 0 && !is_dense(&self.dims, strides) => {
                Err(Error::unsupported(format!("strides {strides:?}; {remedy}")))
            }
            _ => Ok(()),
        }
    }

    /// As the optimizer takes it.
    pub fn place(&self) -> StridedBuffer {
        let strides = self.stride_list().map(<[i64]>::to_vec);
        StridedBuffer { data: self.data, dtype: self.dtype, strides }
    }
}

/// Looks at a managed tensor; its owner stays the same.
///
/// # Safety
/// `managed` is NULL or a valid `DLManagedTensorVersioned`.
pub(crate) unsafe fn borrow(managed: *const c_void, what: &str) -> Result<Borrowed> {
    // SAFETY: by this function's contract.
    let Some(m) = (unsafe { managed.cast::<Managed>().as_ref() }) else {
        return Err(Error::invalid(format!("{what} is NULL")));
    };
    // SAFETY: by this function's contract.
    let look = || unsafe { check_version(m).and_then(|()| borrow_plain(&m.tensor, m.flags)) };
    look().context(|| what.to_owned())
}

/// Fails for another major version.
pub(crate) fn check_version(m: &Managed) -> Result<()> {
    if m.version[0] == VERSION[0] {
        return Ok(());
    }
    Err(Error::unsupported(format!("DLPack {}.{}; 1.x is known", m.version[0], m.version[1])))
}

unsafe fn borrow_plain(t: &Plain, flags: u64) -> Result<Borrowed> {
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
    let dims = unsafe { slice(t.shape.cast_const(), n_dims, "shape") }?;
    if !t.strides.is_null() {
        // SAFETY: as above; this checks the alignment.
        unsafe { slice(t.strides.cast_const(), n_dims, "strides") }?;
    }
    let dims: Vec<usize> = dims
        .iter()
        .map(|&d| usize::try_from(d))
        .collect::<Result<_, _>>()
        .map_err(|_| Error::shape(format!("a dimension of {dims:?} is negative")))?;
    let n_bytes = element_count(&dims)? * dtype.size();
    let data = t.data.cast::<u8>();
    if data.is_null() && n_bytes > 0 {
        return Err(Error::invalid("data is NULL"));
    }
    let data = data.wrapping_add(t.byte_offset as usize);
    let read_only = flags & READ_ONLY != 0;
    let (shape, strides) = (t.shape, t.strides);
    Ok(Borrowed { dtype, shape, n_dims, strides, n_bytes, data, read_only, dims })
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

/// What a managed tensor of this library keeps alive.
pub(crate) enum Memory {
    Copied(Tensor),
    Shared(SharedTensor),
}

/// What a managed tensor of this library points to.
struct Kept {
    _memory: Memory,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

/// Makes a managed tensor that its caller owns.
pub(crate) fn export(mut memory: Memory, flags: u64) -> Result<*mut c_void> {
    let (data, dtype, dims) = match &mut memory {
        Memory::Copied(t) => (t.bytes_mut().as_mut_ptr(), t.dtype(), t.shape().to_vec()),
        Memory::Shared(t) => (t.address(), t.dtype(), t.shape().to_vec()),
    };
    let known = TYPES.iter().find(|k| k.2 == dtype);
    let &(code, bits, _) = known.ok_or_else(|| Error::unsupported("its element type"))?;
    let shape: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
    let mut strides = vec![1i64; shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d].max(1);
    }
    let mut kept = Box::new(Kept { _memory: memory, shape, strides });
    let tensor = Plain {
        data: data.cast(),
        device_type: CPU,
        device_id: 0,
        n_dims: kept.shape.len() as i32,
        code,
        bits,
        lanes: 1,
        shape: kept.shape.as_mut_ptr(),
        strides: kept.strides.as_mut_ptr(),
        byte_offset: 0,
    };
    let context = Box::into_raw(kept).cast();
    let made = Managed { version: VERSION, context, deleter: Some(delete), flags, tensor };
    Ok(Box::into_raw(Box::new(made)).cast())
}

/// Frees what [`export`] made.
unsafe extern "C" fn delete(managed: *mut Managed) {
    crate::ffi::core::guard::guard_or((), || {
        if !managed.is_null() {
            // SAFETY: made from boxes by `export`; its owner calls this once.
            let managed = unsafe { Box::from_raw(managed) };
            // SAFETY: as above.
            drop(unsafe { Box::from_raw(managed.context.cast::<Kept>()) });
        }
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_means_row_by_row_without_gaps() {
        assert!(is_dense(&[2, 3], &[3, 1]) && is_dense(&[2, 1, 3], &[3, 99, 1]));
        assert!(!is_dense(&[2, 3], &[1, 2]) && !is_dense(&[2, 3], &[4, 1]));
    }

    #[test]
    fn what_is_exported_can_be_borrowed() {
        let tensor = Tensor::from_slice(&[2, 3], &[1i64, 2, 3, 4, 5, 6]).unwrap();
        let made = export(Memory::Copied(tensor), IS_COPIED).unwrap();
        // SAFETY: made above, deleted once below.
        let borrowed = unsafe { borrow(made, "made") }.unwrap();
        assert_eq!((borrowed.dims(), borrowed.dtype), (&[2, 3][..], DType::I64));
        assert_eq!(borrowed.stride_list().unwrap(), [3, 1]);
        assert!(borrowed.check_dense("").is_ok() && !borrowed.read_only);
        // SAFETY: as above.
        drop(unsafe { Held::new(made) });
    }
}
