//! Evaluations: losses, scores and outputs of a model without training it.

use super::callback::mmopt_phase;
use super::create::mmopt_trainer;
use super::steps::borrow;
use crate::error::Result;
use crate::ffi::core::args::{flag, output};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{Cell, exclusive, free, guard, guard_or, handle, into_raw, shared};
use crate::ffi::core::tensor::{mmopt_tensor, views};
use crate::ffi::core::tensors::Tensors;
use crate::train::Evaluation;

/// The result of an evaluation: loss, score and output tensors. Immutable.
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

/// Puts the running means (EMA) of all models' weights in the place of the weights, or the weights
/// back. The option ema_decay keeps such means, and so does the teacher mean_teacher of mutual
/// learning. While the means are in place, mmopt_trainer_evaluate, mmopt_trainer_save_model,
/// mmopt_trainer_save_onnx and mmopt_trainer_parameter use them. Doing it twice is once. Views of
/// parameters stay valid; their elements change.
///
/// Errors: INVALID_ARGUMENT when on is no flag; STATE when no means are kept. While the means are
/// in place, passes, steps, checkpoints, resuming and mmopt_trainer_set_parameter fail with STATE.
///
/// @param[in,out] trainer exclusive access.
/// @param on 1: the means; 0: the weights.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_use_ema_weights(
    trainer: *mut mmopt_trainer,
    on: u32,
) -> *mut mmopt_error {
    // SAFETY: a trainer of the caller, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        trainer.trainer.use_ema_weights(flag(on, "on")?)
    })
}

/// Runs one model without dropout and gradients. tensors holds its inputs, and its labels if loss
/// and score are wanted.
///
/// Errors: as mmopt_trainer_forward_backward.
///
/// @param[in,out] trainer exclusive access.
/// @param model the index of the model, from 0.
/// @param[in] tensors n_tensors views, read during the call only.
/// @param n_tensors how many tensors.
/// @param[out] evaluation the new object; free it with mmopt_evaluation_free.
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
/// @param[in] evaluation shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_evaluation_loss(evaluation: *const mmopt_evaluation) -> f64 {
    // SAFETY: an evaluation of the caller or NULL, by the header's contract.
    guard_or(f64::NAN, || Ok(unsafe { shared(evaluation) }?.loss))
}

/// The number of correct predictions; 0 without labels, and for NULL.
///
/// @param[in] evaluation shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_evaluation_n_correct(evaluation: *const mmopt_evaluation) -> u64 {
    // SAFETY: an evaluation of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(evaluation) }?.n_correct))
}

/// The number of labels that are not ignored; 0 without labels, and for NULL.
///
/// @param[in] evaluation shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_evaluation_n_labels(evaluation: *const mmopt_evaluation) -> u64 {
    // SAFETY: an evaluation of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(evaluation) }?.n_labels))
}

/// The outputs, f32, named as in the model: logits [batch, classes] or [batch, length, classes], or
/// start_logits and end_logits [batch, length]. Valid as long as the evaluation.
///
/// Errors: only those of any call.
///
/// @param[in] evaluation shared access.
/// @param[out] tensors an array of views.
/// @param[out] n_tensors how many.
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
/// @param evaluation may be NULL; freed by the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_evaluation_free(evaluation: *mut mmopt_evaluation) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(evaluation) };
}
