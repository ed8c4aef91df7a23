//! Trainers: models side by side.

use std::ffi::{CString, c_char};
#[cfg(feature = "text")]
use std::sync::Arc;

use super::callback::{Progress, mmopt_phase};
use super::options::mmopt_trainer_options;
use crate::error::{Context, Result};
use crate::ffi::core::args::{c_string, output, slice, text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{Cell, free, guard, guard_or, handle, into_raw, shared};
use crate::ffi::core::names::Names;
use crate::ffi::core::structs::options;
use crate::ffi::model::create::mmopt_model;
#[cfg(feature = "text")]
use crate::text::IdNames;
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
    /// Of each model what the batches last checked stand for.
    #[cfg(feature = "text")]
    names_checked: Vec<Option<Arc<IdNames>>>,
}

impl TrainerValue {
    fn new(trainer: Trainer) -> Result<Self> {
        let range = 0..trainer.n_models();
        let model = |i| c_string(trainer.model_name(i)?, "a model's name");
        let models = range.clone().map(model).collect::<Result<Vec<_>>>()?;
        let names = range.map(|i| Names::of_trainer(&trainer, i)).collect::<Result<_>>()?;
        let progress = Progress::default();
        Ok(Self {
            #[cfg(feature = "text")]
            names_checked: vec![None; models.len()],
            trainer,
            models,
            names,
            progress,
            n_steps: 0,
        })
    }

    /// Refuses a batch whose ids or labels mean another thing than the model's.
    #[cfg(feature = "text")]
    pub(crate) fn check_names(&mut self, model: usize, names: &Arc<IdNames>) -> Result<()> {
        let known = self.names_checked[model].as_ref();
        if known.is_some_and(|known| Arc::ptr_eq(known, names)) {
            return Ok(());
        }
        crate::tasks::check_names(&self.trainer, model, names)?;
        self.names_checked[model] = Some(names.clone());
        Ok(())
    }

    /// Asks the host whether to go on; `Cancelled` when not, which the other ranks are told.
    pub(crate) fn ask(&self, phase: mmopt_phase, model: usize) -> Result<()> {
        self.progress.ask(phase, model, self.n_steps).inspect_err(|_| match phase {
            mmopt_phase::ForwardBackward => self.trainer.tell_refused(Some(model), false),
            mmopt_phase::Step => self.trainer.tell_refused(None, true),
            mmopt_phase::Evaluate => {}
        })
    }

    pub(crate) fn run_all(&mut self, batches: &[Vec<TensorView>]) -> Result<Vec<TrainResult>> {
        self.ask(mmopt_phase::ForwardBackward, usize::MAX)?;
        let batches: Vec<&[TensorView]> = batches.iter().map(Vec::as_slice).collect();
        let results = self.trainer.forward_backward_all(&batches);
        self.trainer.log_error("forward and backward pass", results)
    }
}

/// Reads n_models models, checks that each can be trained, and plans what they share. Loads ONNX
/// Runtime if it is not loaded. The models are copied, and may be freed or used again.
///
/// Errors, with the model's name: those of reading it; NON_FINITE for weights that are not finite;
/// UNSUPPORTED for an operator without a gradient rule; INVALID_ARGUMENT for a name that occurs
/// twice, an option out of range, the option start without the model or the vocabularies that it
/// needs, or models that are to learn from each other and have the same classes in another order;
/// NOT_FOUND for an unknown start_from, and for a model that param_groups names and that is not
/// there; RUNTIME_UNAVAILABLE without ONNX Runtime, or for a device that it was built without.
///
/// @param[in] options NULL: the defaults.
/// @param[in] models n_models models, none of them NULL.
/// @param n_models how many models.
/// @param[out] trainer the new object; free it with mmopt_trainer_free.
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
        #[cfg_attr(not(feature = "text"), expect(unused_mut))]
        let mut models = slice(models, n_models, "models")?
            .iter()
            .enumerate()
            .map(|(i, &m)| Ok(shared(m).context(|| format!("models[{i}]"))?.clone()))
            .collect::<Result<Vec<_>>>()?;
        #[cfg(feature = "text")]
        if crate::train::needs_tokens(&options.optimizer, &models) {
            models.iter_mut().for_each(crate::ffi::model::for_corpus::find_tokens);
        }
        let out = output(trainer, "trainer")?;
        out.set(into_raw(TrainerValue::new(Trainer::new(options, models)?)?));
        Ok(())
    })
}

/// The number of models; 0 for NULL.
///
/// @param[in] trainer shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_trainer_n_models(trainer: *const mmopt_trainer) -> usize {
    // SAFETY: a trainer of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(trainer) }?.models.len()))
}

/// The name of a model, valid as long as the trainer; NULL when model is out of range.
///
/// @param[in] trainer shared access.
/// @param model the index of the model, from 0.
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

/// The index of the model of that name.
///
/// Errors: NOT_FOUND for any other name.
///
/// @param[in] trainer shared access.
/// @param[in] name the model's name.
/// @param[out] model its index.
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

/// Frees a trainer, after an asynchronous checkpoint of it is written. NULL is harmless.
///
/// @param trainer may be NULL; freed by the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_trainer_free(trainer: *mut mmopt_trainer) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(trainer) };
}
