//! Memory that the optimizer owns itself, for hosts without buffers of their own, and tests.

use crate::error::Result;
use crate::optim::memory::host_buffers::Buffers;
use crate::optim::plan::spec::ParamSpec;
use crate::tensor::{DType, Tensor};

/// Values and gradients of one model; empty where the model is bound to the host's memory.
#[derive(Default)]
pub(in crate::optim) struct OwnedTensors {
    pub values: Vec<Tensor>,
    pub gradients: Vec<Tensor>,
}

impl OwnedTensors {
    /// Zeros of the parameters' types and shapes.
    pub fn zeros(specs: &[ParamSpec], grad_dtype: DType) -> Result<Self> {
        let values = specs.iter().map(|p| Tensor::zeros(p.dtype, &p.shape));
        let gradients = specs.iter().map(|p| Tensor::zeros(grad_dtype, &p.shape));
        Ok(Self {
            values: values.collect::<Result<_>>()?,
            gradients: gradients.collect::<Result<_>>()?,
        })
    }

    /// Where the tensors lie. Their memory never moves.
    pub fn buffers(&mut self) -> Vec<Buffers> {
        let pairs = self.values.iter_mut().zip(&mut self.gradients);
        let buffers = pairs.map(|(v, g)| Buffers {
            param: v.bytes_mut().as_mut_ptr(),
            grad_dtype: g.dtype(),
            grad: g.bytes_mut().as_mut_ptr(),
        });
        buffers.collect()
    }
}
