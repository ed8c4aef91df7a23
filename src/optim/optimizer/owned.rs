//! Training in memory that the optimizer owns itself.

use crate::error::{Error, Result};
use crate::optim::memory::owned::OwnedTensors;
use crate::optim::optimizer::Optimizer;
use crate::tensor::{DType, Tensor};

impl Optimizer {
    /// Binds a model to zeroed memory of the optimizer's own: values of the types in its spec,
    /// gradients of `grad_dtype` (f32, bf16 or f16). Reach it with [`Optimizer::values_mut`] and
    /// [`Optimizer::gradient_mut`].
    pub fn bind_owned(&mut self, model: usize, grad_dtype: DType) -> Result<()> {
        let ours = self.models.index(model)?;
        let mut owned = OwnedTensors::zeros(&self.models.states[ours].spec.params, grad_dtype)?;
        let buffers = owned.buffers();
        // SAFETY: the tensors' memory never moves and lives in this optimizer from here on; it
        // is reached only through this object's methods.
        unsafe { self.bind(model, buffers)? };
        if self.params.owned.len() <= ours {
            self.params.owned.resize_with(self.models.states.len(), OwnedTensors::default);
        }
        self.params.owned[ours] = owned;
        Ok(())
    }

    fn owned(&self, model: usize, param: usize) -> Result<(usize, usize)> {
        let flat = self.models.param_index(model, param)?;
        let ours = self.models.index(model)?;
        let param = flat - self.models.first_param[ours];
        match self.params.owned.get(ours) {
            Some(o) if param < o.values.len() => Ok((ours, param)),
            _ => Err(Error::state(format!(
                "model '{}' is bound to the host's memory",
                self.models.states[ours].spec.name
            ))),
        }
    }

    /// Values of an f32 parameter in owned memory.
    pub fn values(&self, model: usize, param: usize) -> Result<&[f32]> {
        let (m, p) = self.owned(model, param)?;
        self.params.owned[m].values[p].as_slice()
    }

    /// Values of a parameter in owned memory, of any type.
    pub fn value_tensor(&mut self, model: usize, param: usize) -> Result<&mut Tensor> {
        let (m, p) = self.owned(model, param)?;
        Ok(&mut self.params.owned[m].values[p])
    }

    /// Values of an f32 parameter in owned memory, writable.
    pub fn values_mut(&mut self, model: usize, param: usize) -> Result<&mut [f32]> {
        let (m, p) = self.owned(model, param)?;
        self.params.owned[m].values[p].as_mut_slice()
    }

    /// Gradient of a parameter in owned memory, writable.
    pub fn gradient_mut(&mut self, model: usize, param: usize) -> Result<&mut Tensor> {
        let (m, p) = self.owned(model, param)?;
        Ok(&mut self.params.owned[m].gradients[p])
    }

    /// Whether a parameter in owned memory has a gradient in the coming steps; true after
    /// [`Optimizer::bind_owned`].
    pub fn set_has_gradient(
        &mut self,
        model: usize,
        param: usize,
        has_gradient: bool,
    ) -> Result<()> {
        let (m, p) = self.owned(model, param)?;
        let gradient = &mut self.params.owned[m].gradients[p];
        let dtype = gradient.dtype();
        let pointer =
            if has_gradient { gradient.bytes_mut().as_mut_ptr() } else { std::ptr::null_mut() };
        // SAFETY: as in `bind_owned`.
        unsafe { self.set_gradient(model, param, pointer, dtype) }
    }
}
