//! Gradient mode: the host computes gradients, the library does everything from clipping to
//! synchronisation, in the host's own memory.

use std::collections::BTreeMap;
use std::ffi::CString;

use super::parameter::{mmopt_model_parameters, model_spec};
use crate::checkpoint::writer::RunWriter;
use crate::error::{Error, Result};
use crate::ffi::core::args::{c_string, flag, output, slice};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{Cell, free, guard, guard_or, handle, into_raw, shared};
use crate::ffi::core::names::Names;
use crate::ffi::core::structs::options;
use crate::ffi::dlpack::managed::Held;
use crate::ffi::trainer::options::mmopt_trainer_options;
use crate::optim::{
    AttentionForm, ModelSpec, Optimizer, Precision, Start, StridedBuffer, TokenEmbeddings,
};

/// Updates the parameters of several models together, in the host's memory, from gradients that the
/// host computes.
pub struct mmopt_optimizer(Cell<OptimizerValue>);

handle!(mmopt_optimizer, OptimizerValue, "optimizer");

/// An optimizer and its models' and parameters' names as C texts.
pub struct OptimizerValue {
    // Dropped first: it holds addresses of what was handed over.
    pub(crate) optimizer: Optimizer,
    pub(crate) models: Vec<CString>,
    pub(crate) names: Vec<Names>,
    /// Micro-batches since the last step.
    pub(crate) n_pending: usize,
    pub(crate) run: RunWriter,
    /// Gradients that were handed over, by model and parameter.
    pub(crate) gradients: BTreeMap<(usize, usize), Held>,
    /// Other managed tensors that were handed over.
    pub(crate) kept: Vec<Held>,
}

/// Plans what n_models models share and binds their memory. Texts, arrays and layouts are copied.
/// Values must stay where they are until the optimizer is freed, or until mmopt_optimizer_set_data
/// names another place; gradients as stable_gradients of their model says. Only
/// mmopt_optimizer_accumulate and mmopt_optimizer_step read or write them. Trained values must not
/// overlap each other or any gradient; gradients may overlap if the host fills them one after
/// another. The options device, max_sessions and runtime_path have no effect.
///
/// Errors, with model and parameter: INVALID_ARGUMENT for a name that occurs twice, a missing
/// pointer, values that overlap, or an option out of range; UNSUPPORTED for strides that repeat an
/// element, an element type that cannot be trained, or an option that only a trainer can carry out
/// (max_loss_increase, mutual with required true, ema_decay, precision, activation_checkpointing,
/// attention, max_parallel_models, memory_limit, start aligned or pretrained, token_embeddings).
/// Mutual learning that is not required and the start auto, as in the default preset, have no
/// effect: there models have only rates that follow each other's losses in common, unless
/// share_rule or sync_every is set.
///
/// @param[in] options NULL: the defaults.
/// @param[in] models n_models models.
/// @param n_models how many models.
/// @param[out] optimizer the new object; free it with mmopt_optimizer_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_create(
    options: *const mmopt_trainer_options,
    models: *const mmopt_model_parameters,
    n_models: usize,
    optimizer: *mut *mut mmopt_optimizer,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract; the memory stays bound until the
    // optimizer is freed, as the header asks.
    guard(|| unsafe {
        let options = self::options(options)?.checked()?;
        needs_no_models(&options.optimizer)?;
        let models = slice(models, n_models, "models")?;
        if models.is_empty() {
            return Err(Error::invalid("models: at least one is needed"));
        }
        let out = output(optimizer, "optimizer")?;
        let all = models.iter().map(|m| model_spec(m)).collect::<Result<Vec<_>>>()?;
        let stable = models.iter().map(|m| flag(m.stable_gradients, "model.stable_gradients"));
        let stable = stable.collect::<Result<Vec<_>>>()?;
        let (specs, places): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let name = |s: &ModelSpec| c_string(&s.name, "a model's name");
        let models = specs.iter().map(name).collect::<Result<_>>()?;
        let names = specs.iter().map(Names::of_host).collect::<Result<_>>()?;
        let mut optimizer = Optimizer::new(options.optimizer, specs)?;
        for (i, places) in places.into_iter().enumerate() {
            optimizer.bind_strided(i, places)?;
            optimizer.set_stable_gradients(i, stable[i])?;
        }
        optimizer.check_memory()?;
        out.set(into_raw(OptimizerValue {
            optimizer,
            models,
            names,
            n_pending: 0,
            run: RunWriter::default(),
            gradients: BTreeMap::new(),
            kept: Vec::new(),
        }));
        Ok(())
    })
}

/// Refuses what only a trainer carries out, for it runs the models.
fn needs_no_models(options: &crate::optim::Options) -> Result<()> {
    let given = [
        ("max_loss_increase", options.max_loss_increase.is_some()),
        ("mutual", options.mutual.as_ref().is_some_and(|m| m.required)),
        ("ema_decay", options.ema_decay.is_some()),
        ("precision", options.precision != Precision::F32),
        ("activation_checkpointing", options.activation_checkpointing),
        ("attention", options.attention != AttentionForm::Auto),
        ("max_parallel_models", options.max_parallel_models != 0),
        ("memory_limit", options.memory_limit != 0),
        ("start", !matches!(options.start, Start::Own | Start::Auto)),
        ("token_embeddings", options.token_embeddings != TokenEmbeddings::Own),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Error::unsupported(format!(
            "{name} needs the models and what they compute, which gradient mode has not: use a \
             trainer, or leave it out"
        ))),
        None => Ok(()),
    }
}

impl OptimizerValue {
    /// # Safety
    /// The place must stay valid until the gradient is replaced or the optimizer dropped.
    pub(crate) unsafe fn set_gradient(
        &mut self,
        model: usize,
        parameter: usize,
        place: &StridedBuffer,
    ) -> Result<()> {
        // SAFETY: by this function's contract.
        unsafe { self.optimizer.set_strided_gradient(model, parameter, place) }
    }
}

/// The number of models; 0 for NULL.
///
/// @param[in] optimizer shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_optimizer_n_models(optimizer: *const mmopt_optimizer) -> usize {
    // SAFETY: an optimizer of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(optimizer) }?.models.len()))
}

/// Frees an optimizer, and calls the deleters of the DLPack tensors that it owns. NULL is harmless.
///
/// @param optimizer may be NULL; freed by the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_optimizer_free(optimizer: *mut mmopt_optimizer) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(optimizer) };
}
