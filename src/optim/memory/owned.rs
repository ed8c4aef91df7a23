//! Memory that the optimizer owns itself, for hosts without buffers of their own, and tests.

use crate::error::{Error, Result};
use crate::optim::memory::bind::Buffers;
use crate::optim::optimizer::Optimizer;
use crate::tensor::{DType, Tensor};

/// Values and gradients of one model.
#[derive(Default)]
pub(in crate::optim) struct Owned {
    values: Vec<Tensor>,
    gradients: Vec<Tensor>,
}

impl Optimizer {
    /// Binds a model to zeroed memory of the optimizer's own: values of the types in its spec,
    /// gradients of `grad_dtype` (f32, bf16 or f16). Reach it with [`Optimizer::values_mut`] and
    /// [`Optimizer::gradient_mut`].
    pub fn bind_owned(&mut self, model: usize, grad_dtype: DType) -> Result<()> {
        let ours = self.index(model)?;
        let specs = &self.models[ours].spec.params;
        let values = specs.iter().map(|p| Tensor::zeros(p.dtype, &p.shape));
        let gradients = specs.iter().map(|p| Tensor::zeros(grad_dtype, &p.shape));
        let mut owned = Owned {
            values: values.collect::<Result<_>>()?,
            gradients: gradients.collect::<Result<_>>()?,
        };
        let pairs = owned.values.iter_mut().zip(&mut owned.gradients);
        let buffers = pairs.map(|(v, g)| Buffers {
            param: v.bytes_mut().as_mut_ptr(),
            grad: g.bytes_mut().as_mut_ptr(),
            grad_dtype,
        });
        let buffers = buffers.collect();
        // SAFETY: the tensors' memory never moves and lives in this optimizer from here on; it
        // is reached only through this object's methods.
        unsafe { self.bind(model, buffers)? };
        if self.owned.len() <= ours {
            self.owned.resize_with(self.models.len(), Owned::default);
        }
        self.owned[ours] = owned;
        Ok(())
    }

    fn owned(&self, model: usize, param: usize) -> Result<(usize, usize)> {
        let flat = self.param_index(model, param)?;
        let ours = self.index(model)?;
        let param = flat - self.base[ours];
        match self.owned.get(ours) {
            Some(o) if param < o.values.len() => Ok((ours, param)),
            _ => Err(Error::state(format!(
                "model '{}' is bound to the host's memory",
                self.models[ours].spec.name
            ))),
        }
    }

    /// Values of an f32 parameter in owned memory.
    pub fn values(&self, model: usize, param: usize) -> Result<&[f32]> {
        let (m, p) = self.owned(model, param)?;
        self.owned[m].values[p].as_slice()
    }

    /// Values of a parameter in owned memory, of any type.
    pub fn value_tensor(&mut self, model: usize, param: usize) -> Result<&mut Tensor> {
        let (m, p) = self.owned(model, param)?;
        Ok(&mut self.owned[m].values[p])
    }

    /// Values of an f32 parameter in owned memory, writable.
    pub fn values_mut(&mut self, model: usize, param: usize) -> Result<&mut [f32]> {
        let (m, p) = self.owned(model, param)?;
        self.owned[m].values[p].as_mut_slice()
    }

    /// Gradient of a parameter in owned memory, writable.
    pub fn gradient_mut(&mut self, model: usize, param: usize) -> Result<&mut Tensor> {
        let (m, p) = self.owned(model, param)?;
        Ok(&mut self.owned[m].gradients[p])
    }

    /// Whether a parameter in owned memory has a gradient in the coming steps; true after
    /// [`Optimizer::bind_owned`].
    pub fn set_present(&mut self, model: usize, param: usize, present: bool) -> Result<()> {
        let (m, p) = self.owned(model, param)?;
        let gradient = &mut self.owned[m].gradients[p];
        let dtype = gradient.dtype();
        let pointer =
            if present { gradient.bytes_mut().as_mut_ptr() } else { std::ptr::null_mut() };
        // SAFETY: as in `bind_owned`.
        unsafe { self.set_gradient(model, param, pointer, dtype) }
    }
}
