//! Trainers: models side by side.

use std::ffi::{CString, c_char};

use super::callback::{Progress, mmopt_phase};
use super::options::mmopt_trainer_options;
use crate::error::{Context, Result};
use crate::ffi::core::args::{c_string, output, slice, text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{Cell, free, guard, guard_or, handle, into_raw, shared};
use crate::ffi::core::names::Names;
use crate::ffi::core::structs::options;
use crate::ffi::model::create::mmopt_model;
use crate::train::{TensorView, TrainResult, Trainer};

/// Several models and the optimizer that trains them together.
pub struct mmopt_trainer(Cell<TrainerValue>);

handle!(mmopt_trainer, TrainerValue, "trainer");

/// A trainer, its names as C texts, and the host's callbacks.
pub struct TrainerValue {
    pub(crate) trainer: Trainer,
    pub(crate) models: Vec<CString>,
    pub(crate) names: Vec<Names>,
    pub(crate) progress: Progress,
    pub(crate) n_steps: u64,
}

impl TrainerValue {
    fn new(trainer: Trainer) -> Result<Self> {
        let range = 0..trainer.n_models();
        let model = |i| c_string(trainer.model_name(i)?, "a model's name");
        let models = range.clone().map(model).collect::<Result<_>>()?;
        let names = range.map(|i| Names::of_trainer(&trainer, i)).collect::<Result<_>>()?;
        let progress = Progress::default();
        Ok(Self { trainer, models, names, progress, n_steps: 0 })
    }

    /// Asks the host whether to go on; `Cancelled` when not.
    pub(crate) fn ask(&self, phase: mmopt_phase, model: usize) -> Result<()> {
        self.progress.ask(phase, model, self.n_steps)
    }

    pub(crate) fn run_all(&mut self, batches: &[Vec<TensorView>]) -> Result<Vec<TrainResult>> {
        self.ask(mmopt_phase::ForwardBackward, usize::MAX)?;
        let batches: Vec<&[TensorView]> = batches.iter().map(Vec::as_slice).collect();
        let results = self.trainer.forward_backward_all(&batches);
        self.trainer.log_error("forward and backward pass", results)
    }
}

/// Reads n_models models, checks that each can be trained, and plans what they share. Loads ONNX
/// Runtime if that has not been done. The models are copied: they may be freed, or used again.
///
/// Errors name the model: unreadable or non-finite weights, an operator without a gradient rule, a
/// name that is taken twice, an option out of range.
///
/// @param[in] options NULL: the defaults.
/// @param[in] models n_models models, none of them NULL.
/// @param n_models how many models.
/// @param[out] trainer becomes the new object, the caller's: mmopt_trainer_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_create(
    options: *const mmopt_trainer_options,
    models: *const *const mmopt_model,
    n_models: usize,
    trainer: *mut *mut mmopt_trainer,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let options = self::options(options)?.checked()?;
        let models = slice(models, n_models, "models")?
            .iter()
            .enumerate()
            .map(|(i, &m)| Ok(shared(m).context(|| format!("models[{i}]"))?.clone()))
            .collect::<Result<Vec<_>>>()?;
        let out = output(trainer, "trainer")?;
        out.set(into_raw(TrainerValue::new(Trainer::new(options, models)?)?));
        Ok(())
    })
}

/// The number of models; 0 for NULL.
///
/// @param[in] trainer only read: threads may share it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_trainer_n_models(trainer: *const mmopt_trainer) -> usize {
    // SAFETY: a trainer of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(trainer) }?.models.len()))
}

/// The name of a model by its number from 0, valid as long as the trainer; NULL for any other
/// number.
///
/// @param[in] trainer only read: threads may share it.
/// @param model its number, from 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_trainer_model_name(
    trainer: *const mmopt_trainer,
    model: usize,
) -> *const c_char {
    guard_or(std::ptr::null(), || {
        // SAFETY: a trainer of the caller or NULL, by the header's contract.
        let trainer = unsafe { shared(trainer) }?;
        Ok(trainer.models.get(model).map_or(std::ptr::null(), |name| name.as_ptr()))
    })
}

/// The number of the model of that name.
///
/// Errors: NOT_FOUND for another name.
///
/// @param[in] trainer only read: threads may share it.
/// @param[in] name the model's name.
/// @param[out] model becomes its number.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_model_index(
    trainer: *const mmopt_trainer,
    name: *const c_char,
    model: *mut usize,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let (name, model) = (text(name, "name")?, output(model, "model")?);
        model.set(trainer.trainer.model_index(name)?);
        Ok(())
    })
}

/// Frees a trainer. NULL is harmless.
///
/// @param trainer may be NULL; gone afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_trainer_free(trainer: *mut mmopt_trainer) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(trainer) };
}
