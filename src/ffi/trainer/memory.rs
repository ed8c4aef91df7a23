//! What training takes in memory.

use std::ffi::c_char;

use super::create::{TrainerValue, mmopt_trainer};
#[cfg(feature = "text")]
use super::steps::part_views;
use super::steps::{all_views, borrow};
use crate::error::Result;
use crate::ffi::core::args::{output, owned_text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{guard, shared};
use crate::ffi::core::tensor::mmopt_tensor;
#[cfg(feature = "text")]
use crate::ffi::data::batch::mmopt_batch;
use crate::train::TensorView;

/// What training takes in memory, as one JSON object, before training or during it. Nothing runs.
///
/// The key models has an object for each model, with sizes in bytes: parameters, gradients,
/// moments, gradient_sums, running_means, activations (what a pass over tensors of these shapes
/// keeps for its backward part) and pass (the most working memory of the pass, activations
/// included), both foreseen from the graph, and measured_pass (the most that the model's runs took
/// so far; null before the first, on GPUs, and on other systems than Linux). Then: kept (what all
/// models keep from step to step), side_by_side, in_turn and total (with all passes at the same
/// time, one at a time, and as many as there are), max_parallel_models and parallel (how many there
/// are, and why), available (what the system and control groups have left; null where that is not
/// known) and memory_limit (the option).
///
/// tensors and n_tensors hold the array of tensors and its length for each model, of which only
/// names and shapes count. With n_models 0 they are not read; activations and pass are 0 then.
///
/// Errors: INVALID_ARGUMENT when the number of models differs from the trainer's; as
/// mmopt_trainer_forward_backward for tensors that do not fit the model.
///
/// @param[in] trainer shared access.
/// @param[in] tensors an array for each model.
/// @param[in] n_tensors the length of each array.
/// @param n_models how many models, or 0.
/// @param[out] json the text; free it with mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_memory_report(
    trainer: *const mmopt_trainer,
    tensors: *const *const mmopt_tensor,
    n_tensors: *const usize,
    n_models: usize,
    json: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let json = output(json, "json")?;
        let views = all_views(tensors, n_tensors, n_models)?;
        let batches: Vec<_> = views.iter().map(|v| borrow(v)).collect();
        json.set(owned_text(&report(&trainer, &batches)?, "the report")?);
        Ok(())
    })
}

/// As mmopt_trainer_memory_report, with the parts of a batch: one for each model, in the order of
/// the models.
///
/// Errors: as mmopt_trainer_memory_report.
///
/// @param[in] trainer shared access.
/// @param[in] batch shared access.
/// @param[out] json the text; free it with mmopt_string_free.
#[cfg(feature = "text")]
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_memory_report_batch(
    trainer: *const mmopt_trainer,
    batch: *const mmopt_batch,
    json: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let batch = shared(batch)?;
        let json = output(json, "json")?;
        let batches: Vec<_> = batch.tensors().map(part_views).collect();
        json.set(owned_text(&report(&trainer, &batches)?, "the report")?);
        Ok(())
    })
}

fn report(trainer: &TrainerValue, batches: &[Vec<TensorView>]) -> Result<String> {
    let batches: Vec<&[TensorView]> = batches.iter().map(Vec::as_slice).collect();
    Ok(trainer.trainer.memory_report(&batches)?.to_json().to_string())
}
