//! Views of a trainer's tensors that may outlive it: the last of trainer and views frees the
//! memory.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::tensor::{DType, Tensor};

/// Takes over a tensor when its trainer is dropped and views of it remain.
#[derive(Debug, Default)]
struct Keeper(Mutex<Option<Tensor>>);

/// A view of a trainer's tensor. Its memory stays valid, and in its place, for as long as the view
/// lives, even after the trainer was dropped; the elements change with the training until then.
#[derive(Clone, Debug)]
pub struct SharedTensor {
    address: *mut u8,
    dtype: DType,
    shape: Vec<usize>,
    _keeper: Arc<Keeper>,
}

impl SharedTensor {
    /// Address of the elements, dense and row-major, aligned to 64 bytes.
    pub fn address(&self) -> *mut u8 {
        self.address
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
}

/// The owner's handle of a tensor's views, created with the first one.
#[derive(Debug, Default)]
pub(super) struct Views(OnceLock<Arc<Keeper>>);

impl Views {
    /// A view of `tensor`, which must be the same each time and be handed to [`Views::release`]
    /// in the end; tensors never move their memory.
    pub fn view(&self, tensor: &Tensor) -> SharedTensor {
        SharedTensor {
            address: tensor.bytes().as_ptr().cast_mut(),
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            _keeper: self.0.get_or_init(Arc::default).clone(),
        }
    }

    /// Hands the tensor over to the views, if there are any.
    pub fn release(&mut self, tensor: &mut Tensor) {
        let Some(keeper) = self.0.take() else { return };
        let Ok(nothing) = Tensor::zeros(DType::F32, &[0]) else { return };
        let mut kept = keeper.0.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some(std::mem::replace(tensor, nothing));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_owner_and_views_frees() {
        let mut tensor = Tensor::from_slice(&[3], &[1.0f32, 2.0, 3.0]).unwrap();
        let mut share = Views::default();
        let (a, b) = (share.view(&tensor), share.view(&tensor));
        assert_eq!((a.shape(), a.dtype(), a.address()), (&[3][..], DType::F32, b.address()));
        let watch = Arc::downgrade(&a._keeper);
        share.release(&mut tensor);
        assert!(tensor.is_empty());
        drop((tensor, share, a));
        {
            let keeper = watch.upgrade().unwrap();
            let kept = keeper.0.lock().unwrap();
            let left = kept.as_ref().unwrap();
            assert_eq!(left.as_slice::<f32>().unwrap(), [1.0, 2.0, 3.0]);
            assert_eq!(left.bytes().as_ptr(), b.address().cast_const());
        }
        drop(b);
        assert!(watch.upgrade().is_none());
    }

    #[test]
    fn without_views_the_owner_keeps_its_tensor() {
        let mut tensor = Tensor::from_slice(&[1], &[1.0f32]).unwrap();
        Views::default().release(&mut tensor);
        assert_eq!(tensor.len(), 1);
    }
}
