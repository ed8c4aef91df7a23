//! What rank 0 has of the other ranks when it writes a checkpoint.

use std::collections::HashMap;

use crate::tensor::Tensor;

/// What rank 0 has of the other ranks.
#[derive(Debug, Default)]
pub(in crate::train) struct Gathered {
    pub(super) weights: HashMap<(usize, usize), Tensor>,
    pub(super) means: HashMap<(usize, usize), Tensor>,
    /// Tensors of the optimizer's state, by name.
    pub(in crate::train) state: Vec<(String, Tensor)>,
}

impl Gathered {
    /// The value of a parameter of a model: that of another rank, or `own`.
    pub fn weight<'a>(&'a self, place: (usize, usize), own: &'a Tensor) -> &'a Tensor {
        self.weights.get(&place).unwrap_or(own)
    }

    /// The running mean of a parameter.
    pub fn mean<'a>(
        &'a self,
        place: (usize, usize),
        own: Option<&'a Tensor>,
    ) -> Option<&'a Tensor> {
        self.means.get(&place).or(own)
    }
}
