//! The training loop: forward and backward passes, steps.

use super::callback::mmopt_phase;
use super::create::mmopt_trainer;
use crate::error::{Context, Error, Result, count};
use crate::ffi::core::args::{optional_output, output_slice, slice};
use crate::ffi::core::error::mmopt_error;
#[cfg(feature = "text")]
use crate::ffi::core::guard::shared;
use crate::ffi::core::guard::{exclusive, guard};
use crate::ffi::core::tensor::{View, mmopt_tensor, views};
#[cfg(feature = "text")]
use crate::ffi::data::batch::mmopt_batch;
use crate::optim::StepReport;
#[cfg(feature = "text")]
use crate::tensor::Tensor;
use crate::train::{TensorView, TrainResult};

/// The result of one forward and backward pass of one model.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_train_result {
    /// The loss of the batch, 0 without a label that counts; with a communicator of all ranks'
    /// parts of it, and so are the counts.
    pub loss: f64,
    /// Correct predictions; 0 for regression.
    pub n_correct: u64,
    /// Labels that are not ignored; 0 for regression.
    pub n_labels: u64,
    /// What mutual learning added to the loss, with its weight; 0 without the option mutual.
    pub mutual_loss: f64,
}

impl From<TrainResult> for mmopt_train_result {
    fn from(o: TrainResult) -> Self {
        let TrainResult { loss, mutual_loss, n_correct, n_labels } = o;
        Self { loss, n_correct, n_labels, mutual_loss }
    }
}

/// What a step did.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_step_report {
    /// The step's number, from 1.
    pub step: u64,
    /// Models of which the step, or the gradient callback, updated a parameter.
    pub n_updated: u32,
    /// Models that were skipped because a loss or gradient was not finite, or so large that a
    /// moment would have overflowed.
    pub n_skipped: u32,
    /// 1 if gradients were shared, by share_rule.
    pub shared: u32,
    /// 1 if parameters were synchronised.
    pub synced: u32,
    /// 0; for later versions.
    pub reserved: [u64; 4],
}

impl From<&StepReport> for mmopt_step_report {
    fn from(r: &StepReport) -> Self {
        Self {
            step: r.step,
            n_updated: r.updated as u32,
            n_skipped: r.skipped as u32,
            shared: u32::from(r.shared),
            synced: u32::from(r.synced),
            reserved: [0; 4],
        }
    }
}

/// Discards the gradients since the last step.
///
/// Errors: only those of any call.
///
/// @param[in,out] trainer exclusive access.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_zero_grad(trainer: *mut mmopt_trainer) -> *mut mmopt_error {
    // SAFETY: a trainer of the caller, by the header's contract.
    guard(|| unsafe {
        exclusive(trainer)?.trainer.zero_grad();
        Ok(())
    })
}

/// Computes loss and gradients of one micro-batch of one model, for the next step. With
/// gradient_accumulation_steps above 1 so many micro-batches are added up; else a second pass
/// before the step replaces the gradients of the first, and a warning is logged.
///
/// tensors holds the model's inputs and labels in any order.
///
/// Errors: INVALID_ARGUMENT when model is out of range; NOT_FOUND for an unknown or missing input;
/// SHAPE or INVALID_ARGUMENT for a tensor that does not fit, and for ids and labels out of range;
/// CANCELLED by the progress callback or a cancel token; STATE with the option mutual where it is
/// required: all models run in one call then (in the default preset it is not, and the model trains
/// without the others). After an error this micro-batch is discarded.
///
/// @param[in,out] trainer exclusive access.
/// @param model the index of the model, from 0.
/// @param[in] tensors n_tensors views, read during the call only.
/// @param n_tensors how many tensors.
/// @param[out] result loss and counts; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_forward_backward(
    trainer: *mut mmopt_trainer,
    model: usize,
    tensors: *const mmopt_tensor,
    n_tensors: usize,
    result: *mut mmopt_train_result,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        let result = optional_output(result, "result")?;
        let views = views(tensors, n_tensors)?;
        trainer.ask(mmopt_phase::ForwardBackward, model)?;
        let done = trainer.trainer.forward_backward(model, &borrow(&views));
        result.set(trainer.trainer.log_error("forward and backward pass", done)?.into());
        Ok(())
    })
}

/// Computes loss and gradients of one micro-batch of every model, in parallel.
///
/// tensors and n_tensors hold the array of tensors and its length for each model; results has room
/// for n_models results. If one model fails, the micro-batches of all are discarded.
///
/// Errors: as mmopt_trainer_forward_backward; INVALID_ARGUMENT when the number of models differs
/// from the trainer's.
///
/// @param[in,out] trainer exclusive access.
/// @param[in] tensors an array for each model.
/// @param[in] n_tensors the length of each array.
/// @param n_models how many models.
/// @param[out] results losses and counts, one for each model; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_forward_backward_all(
    trainer: *mut mmopt_trainer,
    tensors: *const *const mmopt_tensor,
    n_tensors: *const usize,
    n_models: usize,
    results: *mut mmopt_train_result,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        let views = all_views(tensors, n_tensors, n_models)?;
        let results = room(results, n_models)?;
        let batches: Vec<_> = views.iter().map(|v| borrow(v)).collect();
        write_all(results, &trainer.run_all(&batches)?);
        Ok(())
    })
}

/// As mmopt_trainer_forward_backward_all, with the parts of a batch: one for each model, in the
/// order of the models. results has room for as many results.
///
/// Errors: as mmopt_trainer_forward_backward; INVALID_ARGUMENT when the number of models differs
/// from the trainer's, when a part's tokenizer has another vocabulary than the model's, where that
/// is known (mmopt_model_set_tokenizer), and when the corpus has the model's classes in another
/// order.
///
/// @param[in,out] trainer exclusive access.
/// @param[in] batch shared access.
/// @param[out] results losses and counts, one for each model; may be NULL.
#[cfg(feature = "text")]
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_forward_backward_batch(
    trainer: *mut mmopt_trainer,
    batch: *const mmopt_batch,
    results: *mut mmopt_train_result,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        let batch = shared(batch)?;
        let (n, n_models) = (batch.tensors().len(), trainer.models.len());
        if n != n_models {
            return Err(Error::invalid(format!(
                "a batch of {} for {}",
                count(n, "part"),
                count(n_models, "model")
            )));
        }
        let results = room(results, n)?;
        let mut names = batch.names().enumerate();
        names.try_for_each(|(model, names)| trainer.check_names(model, names))?;
        let batches: Vec<_> = batch.tensors().map(part_views).collect();
        write_all(results, &trainer.run_all(&batches)?);
        Ok(())
    })
}

/// Gives the adaptive learning rates losses that the host computed, one for each of n_models
/// models. Not needed for the losses of forward_backward, which count by themselves.
///
/// Errors: INVALID_ARGUMENT when the number of models differs from the trainer's.
///
/// @param[in,out] trainer exclusive access.
/// @param[in] losses n_models losses.
/// @param n_models how many models.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_log_metrics(
    trainer: *mut mmopt_trainer,
    losses: *const f64,
    n_models: usize,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        let losses = slice(losses, n_models, "losses")?;
        if n_models != trainer.models.len() {
            return Err(Error::invalid(format!(
                "{} for {}",
                count(n_models, "loss"),
                count(trainer.models.len(), "model")
            )));
        }
        losses.iter().enumerate().try_for_each(|(i, &loss)| trainer.trainer.log_loss(i, loss))
    })
}

/// One step of all models with the gradients since the last step: check, clip, share, update,
/// synchronise.
///
/// Errors: STATE without a forward and backward pass since the last step; NON_FINITE if the options
/// ask for it; CANCELLED by the progress or gradient callback; INVALID_ARGUMENT for a bad result of
/// a callback. After an error the step can be taken again.
///
/// @param[in,out] trainer exclusive access.
/// @param[out] report what the step did; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_step(
    trainer: *mut mmopt_trainer,
    report: *mut mmopt_step_report,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        let out = optional_output(report, "report")?;
        trainer.ask(mmopt_phase::Step, usize::MAX)?;
        let report = trainer.trainer.step();
        let report = trainer.trainer.log_error("step", report)?;
        trainer.n_steps = report.step;
        out.set((&report).into());
        Ok(())
    })
}

/// The tensors of each model.
///
/// # Safety
/// As the header says of the arguments of mmopt_trainer_forward_backward_all.
pub(super) unsafe fn all_views<'a>(
    tensors: *const *const mmopt_tensor,
    n_tensors: *const usize,
    n_models: usize,
) -> Result<Vec<Vec<View<'a>>>> {
    // SAFETY: the caller's arguments, by this function's contract.
    unsafe {
        let tensors = slice(tensors, n_models, "tensors")?;
        let lengths = slice(n_tensors, n_models, "n_tensors")?;
        let one = |(i, (&t, &n))| views(t, n).context(|| format!("model {i}"));
        tensors.iter().zip(lengths).enumerate().map(one).collect()
    }
}

#[cfg(feature = "text")]
pub(super) fn part_views(part: &[(String, Tensor)]) -> Vec<TensorView<'_>> {
    part.iter().map(|(name, tensor)| TensorView::of(name, tensor)).collect()
}

/// The views as the trainer takes them.
pub(crate) fn borrow<'a>(views: &'a [View<'a>]) -> Vec<TensorView<'a>> {
    let one = |v: &'a View<'a>| TensorView {
        name: v.name,
        dtype: v.dtype,
        shape: &v.shape,
        data: v.data,
    };
    views.iter().map(one).collect()
}

/// Room for results that the caller may not want.
unsafe fn room<'a>(
    results: *mut mmopt_train_result,
    n: usize,
) -> Result<&'a mut [mmopt_train_result]> {
    if results.is_null() {
        return Ok(&mut []);
    }
    // SAFETY: the caller's array, by the header's contract.
    unsafe { output_slice(results, n, "results") }
}

fn write_all(into: &mut [mmopt_train_result], from: &[TrainResult]) {
    into.iter_mut().zip(from).for_each(|(to, &o)| *to = o.into());
}
