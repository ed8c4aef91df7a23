//! Evaluations: losses, scores and outputs of a model without training it.

use super::callback::mmopt_phase;
use super::create::mmopt_trainer;
use super::steps::borrow;
use crate::error::Result;
use crate::ffi::core::args::output;
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{Cell, exclusive, free, guard, guard_or, handle, into_raw, shared};
use crate::ffi::core::tensor::{mmopt_tensor, views};
use crate::ffi::core::tensors::Tensors;
use crate::train::Evaluation;

/// What an evaluation gave: loss, score and output tensors. It never changes.
pub struct mmopt_evaluation(Cell<EvaluationValue>);

handle!(mmopt_evaluation, EvaluationValue, "evaluation");

/// An evaluation with its tensors in C's form.
pub struct EvaluationValue {
    loss: f64,
    n_correct: u64,
    n_labels: u64,
    outputs: Tensors,
}

impl EvaluationValue {
    fn new(e: Evaluation) -> Result<Self> {
        Ok(Self {
            loss: e.loss.unwrap_or(f64::NAN),
            n_correct: e.n_correct,
            n_labels: e.n_labels,
            outputs: Tensors::new(e.logits)?,
        })
    }
}

/// Runs one model without dropout and gradients. tensors holds its inputs and, where loss and score
/// are wanted, its labels. The caller owns the result: mmopt_evaluation_free.
///
/// Errors: as mmopt_trainer_forward_backward.
///
/// @param[in,out] trainer changed: needed alone.
/// @param model its number, from 0.
/// @param[in] tensors n_tensors views, read in the call only.
/// @param n_tensors how many tensors.
/// @param[out] evaluation becomes the new object, the caller's: mmopt_evaluation_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_evaluate(
    trainer: *mut mmopt_trainer,
    model: usize,
    tensors: *const mmopt_tensor,
    n_tensors: usize,
    evaluation: *mut *mut mmopt_evaluation,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        let out = output(evaluation, "evaluation")?;
        let views = views(tensors, n_tensors)?;
        trainer.ask(mmopt_phase::Evaluate, model)?;
        let done = trainer.trainer.evaluate(model, &borrow(&views));
        let done = trainer.trainer.log_error("evaluation", done)?;
        out.set(into_raw(EvaluationValue::new(done)?));
        Ok(())
    })
}

/// The loss; NaN without labels, and for NULL.
///
/// @param[in] evaluation only read: threads may share it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_evaluation_loss(evaluation: *const mmopt_evaluation) -> f64 {
    // SAFETY: an evaluation of the caller or NULL, by the header's contract.
    guard_or(f64::NAN, || Ok(unsafe { shared(evaluation) }?.loss))
}

/// Right predictions; 0 without labels, and for NULL.
///
/// @param[in] evaluation only read: threads may share it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_evaluation_n_correct(evaluation: *const mmopt_evaluation) -> u64 {
    // SAFETY: an evaluation of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(evaluation) }?.n_correct))
}

/// Labels that count; 0 without labels, and for NULL.
///
/// @param[in] evaluation only read: threads may share it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_evaluation_n_labels(evaluation: *const mmopt_evaluation) -> u64 {
    // SAFETY: an evaluation of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(evaluation) }?.n_labels))
}

/// The outputs, f32, by the model's names: logits [batch, classes] or [batch, length, classes], or
/// start_logits and end_logits [batch, length]. Both results are valid as long as the evaluation.
///
/// Errors: INVALID_ARGUMENT for NULL only.
///
/// @param[in] evaluation only read: threads may share it.
/// @param[out] tensors become the views.
/// @param[out] n_tensors becomes how many.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_evaluation_tensors(
    evaluation: *const mmopt_evaluation,
    tensors: *mut *const mmopt_tensor,
    n_tensors: *mut usize,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let evaluation = shared(evaluation)?;
        let (tensors, n) = (output(tensors, "tensors")?, output(n_tensors, "n_tensors")?);
        let views = evaluation.outputs.views();
        tensors.set(views.as_ptr());
        n.set(views.len());
        Ok(())
    })
}

/// Frees an evaluation. NULL is harmless.
///
/// @param evaluation may be NULL; gone afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_evaluation_free(evaluation: *mut mmopt_evaluation) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(evaluation) };
}
