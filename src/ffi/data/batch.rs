//! Batches: for each model the named tensors of one step.

use crate::error::{Error, Result};
use crate::ffi::core::args::output;
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{Cell, free, guard, guard_or, handle, shared};
use crate::ffi::core::tensor::mmopt_tensor;
use crate::ffi::core::tensors::Tensors;
use crate::tensor::Tensor;
use crate::text::{AnswerContext, Batch, IdNames};
use std::sync::Arc;

/// The input tensors of one step, a part for each model. Immutable.
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
    pub(crate) fn new(batches: Vec<Batch>) -> Result<Self> {
        let part = |mut batch: Batch| {
            let tensors = Tensors::new(std::mem::take(&mut batch.tensors))?;
            Ok(Part { batch, tensors })
        };
        Ok(Self { parts: batches.into_iter().map(part).collect::<Result<_>>()? })
    }

    /// What the ids and labels of each model's part stand for.
    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = &Arc<IdNames>> {
        self.parts.iter().map(|p| &p.batch.names)
    }

    /// The tensors of each model.
    pub(crate) fn tensors(&self) -> impl ExactSizeIterator<Item = &[(String, Tensor)]> {
        self.parts.iter().map(|p| p.tensors.owned())
    }

    /// The context of a row's question, and the length of the rows.
    pub(super) fn context(&self, model: usize, row: usize) -> Result<(&AnswerContext, usize)> {
        let part = self.part(model)?;
        let ids = part.tensors.owned().iter().find(|(name, _)| name == "input_ids");
        let length = ids.and_then(|(_, ids)| ids.shape().get(1).copied()).unwrap_or(0);
        Ok((part.batch.context(row)?, length))
    }

    /// What the model reads of one part. What mutual learning alone reads follows it.
    fn model_views(&self, model: usize) -> Result<&[mmopt_tensor]> {
        let part = self.part(model)?;
        let ours = |(name, _): &(String, Tensor)| name == "example_ids" || name == "word_ids";
        let owned = part.tensors.owned();
        let n = owned.iter().position(ours).unwrap_or(owned.len());
        Ok(&part.tensors.views()[..n])
    }

    fn part(&self, model: usize) -> Result<&Part> {
        self.parts.get(model).ok_or_else(|| {
            Error::invalid(format!("model {model} of a batch for {}", self.parts.len()))
        })
    }
}

/// The number of models; 0 for NULL.
///
/// @param[in] batch shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_batch_n_models(batch: *const mmopt_batch) -> usize {
    // SAFETY: a batch of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(batch) }?.parts.len()))
}

/// The number of rows of one model's part; 0 for NULL, and when model is out of range.
///
/// @param[in] batch shared access.
/// @param model the index of the model, from 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_batch_n_rows(batch: *const mmopt_batch, model: usize) -> usize {
    // SAFETY: a batch of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(batch) }?.part(model)?.batch.len()))
}

/// The tensors of one model: input_ids and attention_mask, i64 [rows, length]; token_type_ids where
/// the architecture has them; and where any row is labelled, labels, i64 [rows] or [rows, length],
/// or start_positions and end_positions, i64 [rows]. The loss ignores labels of -100. What mutual
/// learning reads beside them, the examples and words of each row, is not listed:
/// mmopt_trainer_forward_backward_batch takes it from the batch. The tensors are valid as long as
/// the batch.
///
/// Errors: INVALID_ARGUMENT when model is out of range.
///
/// @param[in] batch shared access.
/// @param model the index of the model, from 0.
/// @param[out] tensors an array of views.
/// @param[out] n_tensors how many.
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
        let views = batch.model_views(model)?;
        tensors.set(views.as_ptr());
        n.set(views.len());
        Ok(())
    })
}

/// The index in the corpus of each row's example, for one model's part. Both results are valid
/// as long as the batch.
///
/// Errors: INVALID_ARGUMENT when model is out of range.
///
/// @param[in] batch shared access.
/// @param model the index of the model, from 0.
/// @param[out] examples an index for each row.
/// @param[out] n_rows how many.
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
///
/// @param batch may be NULL; freed by the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_batch_free(batch: *mut mmopt_batch) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(batch) };
}
