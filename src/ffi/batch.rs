//! Batches: for each model the named tensors of one step.

use std::ffi::CString;

use super::args::{c_string, output};
use super::error::mmopt_error;
use super::guard::{Cell, free, guard, guard_or, handle, shared};
use super::tensor::mmopt_tensor;
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use crate::text::Batch;

/// The tensors of one step, a part for each model. It never changes.
pub struct mmopt_batch(Cell<Batches>);

handle!(mmopt_batch, Batches, "batch");

/// The parts of a batch.
pub struct Batches {
    parts: Vec<Part>,
}

/// One model's batch, and its tensors as C sees them.
struct Part {
    batch: Batch,
    tensors: Tensors,
}

impl Batches {
    pub(super) fn new(batches: Vec<Batch>) -> Result<Self> {
        let part = |mut batch: Batch| {
            let tensors = Tensors::new(std::mem::take(&mut batch.tensors))?;
            Ok(Part { batch, tensors })
        };
        Ok(Self { parts: batches.into_iter().map(part).collect::<Result<_>>()? })
    }

    /// The tensors of each model.
    pub(super) fn tensors(&self) -> impl ExactSizeIterator<Item = &[(String, Tensor)]> {
        self.parts.iter().map(|p| p.tensors.owned.as_slice())
    }

    fn part(&self, model: usize) -> Result<&Part> {
        self.parts.get(model).ok_or_else(|| {
            Error::invalid(format!("model {model} of a batch for {}", self.parts.len()))
        })
    }
}

/// Owned tensors with views of them that C can read; what the views point to never moves.
pub(super) struct Tensors {
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
    pub(super) fn new(owned: Vec<(String, Tensor)>) -> Result<Self> {
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

    pub(super) fn views(&self) -> &[mmopt_tensor] {
        &self.views
    }
}

/// The number of models; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_batch_n_models(batch: *const mmopt_batch) -> usize {
    // SAFETY: a batch of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(batch) }?.parts.len()))
}

/// The number of rows of one model's part; 0 for NULL, and for any other model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_batch_n_rows(batch: *const mmopt_batch, model: usize) -> usize {
    // SAFETY: a batch of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(batch) }?.part(model)?.batch.items.len()))
}

/// The tensors of one model: input_ids and attention_mask, i64 [rows, length]; token_type_ids where
/// the architecture has them; and where all rows are labelled, labels, i64 [rows] or [rows,
/// length], or start_positions and end_positions, i64 [rows]. -100 is left out of the loss. Both
/// results are valid as long as the batch.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_batch_tensors(
    batch: *const mmopt_batch,
    model: usize,
    tensors: *mut *const mmopt_tensor,
    n_tensors: *mut usize,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let batch = shared(batch)?;
        let (tensors, n) = (output(tensors, "tensors")?, output(n_tensors, "n_tensors")?);
        let views = batch.part(model)?.tensors.views();
        tensors.set(views.as_ptr());
        n.set(views.len());
        Ok(())
    })
}

/// Which example of the corpus stands behind each row of one model's part. Both results are valid
/// as long as the batch.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_batch_examples(
    batch: *const mmopt_batch,
    model: usize,
    examples: *mut *const usize,
    n_rows: *mut usize,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let batch = shared(batch)?;
        let (examples, n) = (output(examples, "examples")?, output(n_rows, "n_rows")?);
        let part = batch.part(model)?;
        examples.set(part.batch.examples.as_ptr());
        n.set(part.batch.examples.len());
        Ok(())
    })
}

/// Frees a batch. NULL is harmless.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_batch_free(batch: *mut mmopt_batch) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(batch) };
}
