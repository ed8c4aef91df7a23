//! Tensors that an object owns, with views of them that C can read.

use std::ffi::CString;

use super::args::c_string;
use super::tensor::mmopt_tensor;
use crate::error::Result;
use crate::tensor::Tensor;

/// Owned tensors with views of them that C can read; what the views point to never moves.
pub(crate) struct Tensors {
    /// Read through the views, and by other calls of the library where there is text.
    #[cfg_attr(not(feature = "text"), allow(dead_code))]
    owned: Vec<(String, Tensor)>,
    views: Vec<mmopt_tensor>,
    _names: Vec<CString>,
    _shapes: Vec<Vec<i64>>,
}

// SAFETY: the views point into memory that this value owns and that nobody changes.
unsafe impl Send for Tensors {}
// SAFETY: as above.
unsafe impl Sync for Tensors {}

impl Tensors {
    pub(crate) fn new(owned: Vec<(String, Tensor)>) -> Result<Self> {
        let names: Vec<CString> =
            owned.iter().map(|(n, _)| c_string(n, "a tensor's name")).collect::<Result<_>>()?;
        let dims = |t: &Tensor| t.shape().iter().map(|&d| d as i64).collect();
        let shapes: Vec<Vec<i64>> = owned.iter().map(|(_, t)| dims(t)).collect();
        let view = |(((_, tensor), name), shape): ((&(String, Tensor), &CString), &Vec<i64>)| {
            mmopt_tensor {
                name: name.as_ptr(),
                dtype: tensor.dtype() as u32,
                reserved: 0,
                shape: shape.as_ptr(),
                n_dims: shape.len(),
                data: tensor.bytes().as_ptr().cast(),
                n_bytes: tensor.bytes().len(),
            }
        };
        let views = owned.iter().zip(&names).zip(&shapes).map(view).collect();
        Ok(Self { owned, views, _names: names, _shapes: shapes })
    }

    #[cfg(feature = "text")]
    pub(crate) fn owned(&self) -> &[(String, Tensor)] {
        &self.owned
    }

    pub(crate) fn views(&self) -> &[mmopt_tensor] {
        &self.views
    }
}
