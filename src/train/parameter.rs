//! A model's parameter: its value, its gradient, and whether it is trained.

use super::shared_tensor::{SharedTensor, Views};
use crate::error::{Error, Kind, Result};
use crate::tensor::{DType, Tensor, first_non_finite};

/// One parameter; sessions and the optimizer work on these tensors in place.
#[derive(Debug)]
pub(super) struct Parameter {
    /// Name in the graph and in the published state dict.
    pub name: String,
    /// The value; changed in place, never replaced, as its address is known elsewhere.
    pub value: Tensor,
    /// Whether the optimizer may change it.
    pub trainable: bool,
    /// The running mean of the value, where one is kept; changed in place, never replaced.
    pub mean: Option<Tensor>,
    /// Rows that are not trained: their gradient is cleared, and they are restored after a step.
    pub frozen_rows: Vec<usize>,
    /// The half type that it is stored in, and written in; f32 otherwise.
    pub stored: Option<DType>,
    /// Whether rows of it are looked up and nothing else is done with it: few rows of its gradient
    /// are not zero.
    pub looked_up: bool,
    /// The row that gets no gradient where it is looked up, of a table that is a head, too.
    pub padding_row: Option<usize>,
    /// Those rows as they were before the step.
    saved_rows: Vec<u8>,
    gradient: Option<Tensor>,
    value_views: Views,
    gradient_views: Views,
}

impl Drop for Parameter {
    fn drop(&mut self) {
        self.value_views.release(&mut self.value);
        if let Some(gradient) = &mut self.gradient {
            self.gradient_views.release(gradient);
        }
    }
}

impl Parameter {
    pub fn new(name: String, value: Tensor, trainable: bool) -> Result<Self> {
        if let Some(index) = first_non_finite(value.dtype(), value.bytes()) {
            return Err(Error::new(
                Kind::NonFinite,
                format!("parameter '{name}' is not finite at element {index}; repair the weights"),
            ));
        }
        Ok(Self {
            name,
            value,
            trainable,
            mean: None,
            frozen_rows: Vec::new(),
            stored: None,
            looked_up: false,
            padding_row: None,
            saved_rows: Vec::new(),
            gradient: None,
            value_views: Views::default(),
            gradient_views: Views::default(),
        })
    }

    /// The gradient, if any session has one for it.
    pub fn gradient(&self) -> Option<&Tensor> {
        self.gradient.as_ref()
    }

    /// A view of the value that may outlive this parameter.
    pub fn share_value(&self) -> SharedTensor {
        self.value_views.view(&self.value)
    }

    /// A view of the gradient that may outlive this parameter.
    pub fn share_gradient(&self) -> Option<SharedTensor> {
        self.gradient.as_ref().map(|g| self.gradient_views.view(g))
    }

    /// The gradient's address; null without one.
    pub fn gradient_address(&mut self) -> *mut u8 {
        self.gradient.as_mut().map_or(std::ptr::null_mut(), |g| g.bytes_mut().as_mut_ptr())
    }

    /// The gradient, made at first use.
    pub fn gradient_mut(&mut self) -> Result<&mut Tensor> {
        if self.gradient.is_none() {
            let (dtype, shape) = (self.value.dtype(), self.value.shape());
            self.gradient = Some(match self.looked_up {
                true => Tensor::zeros_in_small_pages(dtype, shape)?,
                false => Tensor::zeros(dtype, shape)?,
            });
        }
        self.gradient.as_mut().ok_or_else(|| Error::internal("no gradient"))
    }
}

impl Parameter {
    /// Clears the gradient of frozen rows.
    pub fn clear_frozen_rows(&mut self) {
        let Some(gradient) = &mut self.gradient else { return };
        for row in rows(&self.frozen_rows, gradient) {
            gradient.bytes_mut()[row].fill(0);
        }
    }

    /// Saves the frozen rows before a step.
    pub fn save_frozen_rows(&mut self) {
        self.saved_rows.clear();
        for row in rows(&self.frozen_rows, &self.value) {
            self.saved_rows.extend_from_slice(&self.value.bytes()[row]);
        }
    }

    /// Restores what [`Parameter::save_frozen_rows`] saved: weight decay, sharing and
    /// synchronisation change whole tensors.
    pub fn restore_frozen_rows(&mut self) {
        let mut saved = &self.saved_rows[..];
        for row in rows(&self.frozen_rows, &self.value) {
            let Some((first, rest)) = saved.split_at_checked(row.len()) else { return };
            self.value.bytes_mut()[row].copy_from_slice(first);
            saved = rest;
        }
    }
}

/// The byte ranges of rows of a tensor.
fn rows(indices: &[usize], tensor: &Tensor) -> Vec<std::ops::Range<usize>> {
    let n_rows = tensor.shape().first().copied().unwrap_or(1).max(1);
    let row = tensor.bytes().len() / n_rows;
    let inside = indices.iter().filter(|&&index| index < n_rows);
    inside.map(|index| index * row..(index + 1) * row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_finite_weights_are_named() {
        let bad = Tensor::from_slice(&[3], &[1.0f32, f32::NAN, 0.0]).unwrap();
        let e = Parameter::new("w".into(), bad, true).unwrap_err();
        assert_eq!(e.kind(), Kind::NonFinite);
        assert!(e.message().contains("'w'") && e.message().contains("element 1"), "{e}");
    }
}
