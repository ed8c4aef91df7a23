//! What the optimizer keeps in memory for a model.

use super::Optimizer;
use crate::error::Result;

impl Optimizer {
    /// Bytes of a model's moments, whether they are made or will be when memory is bound.
    ///
    /// # Errors
    /// `InvalidArgument` for a model out of range.
    pub fn moment_bytes(&self, model: usize) -> Result<usize> {
        let model = self.models.index(model)?;
        let states = self.params.states.iter().filter(|p| p.model == model);
        Ok(states.map(|p| p.moment_bytes(&self.options)).sum())
    }
}
