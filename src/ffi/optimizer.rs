//! Gradient mode: the host computes gradients, the library does everything from clipping to
//! synchronisation, in the host's own memory.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_void};
use std::path::Path;

use super::args::{c_string, choice, optional_output, output, owned_text, slice, text};
use super::error::mmopt_error;
use super::guard::{Cell, exclusive, free, guard, guard_or, handle, into_raw, shared};
use super::managed::{Held, borrow};
use super::names::Names;
use super::parameter::{mmopt_parameters, model_spec, strides};
use super::structs::options;
use super::tensor::DTYPES;
use super::trainer::mmopt_step_report;
use super::trainer_options::mmopt_trainer_options;
use super::trainer_state::{mmopt_rates, rates};
use crate::checkpoint::directory;
use crate::checkpoint::weights::{self, Weights};
use crate::error::{Error, Result};
use crate::optim::{self, ModelSpec, Optimizer, Place, SavedTensor};

/// Updates the parameters of several models together, in the host's memory.
pub struct mmopt_optimizer(Cell<OptimizerValue>);

handle!(mmopt_optimizer, OptimizerValue, "optimizer");

/// An optimizer and its models' and parameters' names as C texts.
pub struct OptimizerValue {
    // Dropped first: it holds addresses of what was handed over.
    pub(super) optimizer: Optimizer,
    pub(super) models: Vec<CString>,
    pub(super) names: Vec<Names>,
    /// Micro-batches since the last step.
    n_pending: usize,
    /// Gradients that were handed over, by model and parameter.
    gradients: BTreeMap<(usize, usize), Held>,
    /// Other managed tensors that were handed over.
    kept: Vec<Held>,
}

/// Plans what n_models models share and takes hold of their memory. Texts, arrays and layouts are
/// copied; values and gradients must stay where they are until the optimizer is freed. They are
/// read and written by mmopt_optimizer_accumulate and mmopt_optimizer_step only. The values that
/// are trained must lie apart from each other and from all gradients; gradients may share memory
/// where the host fills them in turn. Of the options, device, max_sessions and runtime_path play no
/// part.
///
/// Errors name the model and parameter: a name that is taken twice, a missing pointer, values that
/// share memory, strides that repeat an element, an element type that cannot be trained
/// (UNSUPPORTED), an option out of range, one that only a trainer can carry out (UNSUPPORTED:
/// max_loss_increase, mutual).
///
/// @param[in] options NULL: the defaults.
/// @param[in] models n_models models, none of them NULL.
/// @param n_models how many models.
/// @param[out] optimizer becomes the new object, the caller's: mmopt_optimizer_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_create(
    options: *const mmopt_trainer_options,
    models: *const mmopt_parameters,
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
        let (specs, places): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let name = |s: &ModelSpec| c_string(&s.name, "a model's name");
        let models = specs.iter().map(name).collect::<Result<_>>()?;
        let names = specs.iter().map(Names::of_host).collect::<Result<_>>()?;
        let mut optimizer = Optimizer::new(options.optimizer, specs)?;
        for (i, places) in places.into_iter().enumerate() {
            optimizer.bind_places(i, places)?;
        }
        optimizer.check_memory()?;
        out.set(into_raw(OptimizerValue {
            optimizer,
            models,
            names,
            n_pending: 0,
            gradients: BTreeMap::new(),
            kept: Vec::new(),
        }));
        Ok(())
    })
}

/// Refuses what only a trainer carries out, for it runs the models.
fn needs_no_models(options: &optim::Options) -> Result<()> {
    let given = [
        ("max_loss_increase", options.max_loss_increase.is_some()),
        ("mutual", options.mutual.is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Error::unsupported(format!(
            "{name} needs the models' losses and predictions, which gradient mode has not: use a \
             trainer, or leave it out"
        ))),
        None => Ok(()),
    }
}

impl OptimizerValue {
    /// # Safety
    /// The place must stay valid until the gradient is replaced or the optimizer dropped.
    unsafe fn set_gradient(
        &mut self,
        model: usize,
        parameter: usize,
        n_dims: usize,
        place: &Place,
    ) -> Result<()> {
        let wanted = self.optimizer.param_spec(model, parameter)?.shape.len();
        if place.strides.is_some() && n_dims != wanted {
            return Err(Error::shape(format!("{n_dims} strides for {wanted} dimensions")));
        }
        // SAFETY: by this function's contract.
        unsafe { self.optimizer.set_gradient_place(model, parameter, place) }
    }
}

/// The number of models; 0 for NULL.
///
/// @param[in] optimizer only read: threads may share it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_optimizer_n_models(optimizer: *const mmopt_optimizer) -> usize {
    // SAFETY: an optimizer of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(optimizer) }?.models.len()))
}

/// Gives a parameter another gradient (NULL: none) for the coming steps, dense and row-major;
/// gradient_dtype as in mmopt_parameter. Parameters count from 0 in the order they were given.
///
/// Errors: INVALID_ARGUMENT for a model, parameter or number that there is not; UNSUPPORTED for
/// an element type that gradients cannot have.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param model its number, from 0.
/// @param parameter its number, from 0.
/// @param gradient as many elements as the value; may be NULL.
/// @param gradient_dtype an mmopt_dtype.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_set_gradient(
    optimizer: *mut mmopt_optimizer,
    model: usize,
    parameter: usize,
    gradient: *mut c_void,
    gradient_dtype: u32,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        let dtype = choice(gradient_dtype, "gradient_dtype", &DTYPES)?;
        optimizer.optimizer.set_gradient(model, parameter, gradient.cast(), dtype)?;
        optimizer.gradients.remove(&(model, parameter));
        Ok(())
    })
}

/// As mmopt_optimizer_set_gradient for a gradient with strides, in elements, one for each of the
/// parameter's n_dims dimensions; they are copied. NULL: dense and row-major.
///
/// Errors: SHAPE for another number of dimensions; UNSUPPORTED for strides that repeat an element.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param model its number, from 0.
/// @param parameter its number, from 0.
/// @param gradient the element at index 0; may be NULL.
/// @param gradient_dtype an mmopt_dtype.
/// @param[in] strides n_dims strides in elements; may be NULL.
/// @param n_dims how many dimensions.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_set_gradient_strided(
    optimizer: *mut mmopt_optimizer,
    model: usize,
    parameter: usize,
    gradient: *mut c_void,
    gradient_dtype: u32,
    strides: *const i64,
    n_dims: usize,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        let dtype = choice(gradient_dtype, "gradient_dtype", &DTYPES)?;
        let strides = self::strides(strides, n_dims, "strides")?;
        let place = Place { data: gradient.cast(), dtype, strides };
        optimizer.set_gradient(model, parameter, n_dims, &place)?;
        optimizer.gradients.remove(&(model, parameter));
        Ok(())
    })
}

/// Hands over a DLManagedTensorVersioned, of the parameter's shape and in any strides without
/// overlap, as the gradient of the coming steps. Its deleter is called once, on the thread of that
/// call, when another gradient takes its place or the optimizer is freed; it must not call into
/// this optimizer. On error the tensor stays the caller's and the old gradient in place.
///
/// Errors: as mmopt_tensor_from_dlpack, but for strides; SHAPE for another shape; UNSUPPORTED for
/// other element types than f32, bf16 and f16.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param model its number, from 0.
/// @param parameter its number, from 0.
/// @param managed a DLManagedTensorVersioned, handed over.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_set_gradient_dlpack(
    optimizer: *mut mmopt_optimizer,
    model: usize,
    parameter: usize,
    managed: *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        let b = borrow(managed, "managed")?;
        let shape = &optimizer.optimizer.param_spec(model, parameter)?.shape;
        if b.dims() != shape {
            let text = format!("managed has shape {:?}, the parameter {shape:?}", b.dims());
            return Err(Error::shape(text));
        }
        optimizer.set_gradient(model, parameter, b.n_dims, &b.place())?;
        optimizer.gradients.insert((model, parameter), Held::new(managed));
        Ok(())
    })
}

/// Hands over a DLManagedTensorVersioned whose memory the optimizer uses, for example one that
/// mmopt_parameter_from_dlpack has looked at. Its deleter is called once, when the optimizer is
/// freed, on the thread of that call. On error the tensor stays the caller's.
///
/// Errors: UNSUPPORTED for another major version.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param managed a DLManagedTensorVersioned, handed over.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_keep_dlpack(
    optimizer: *mut mmopt_optimizer,
    managed: *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        borrow(managed, "managed")?;
        optimizer.kept.push(Held::new(managed));
        Ok(())
    })
}

/// Forgets micro-batches that were accumulated since the last step.
///
/// Errors: STATE while another call uses the object.
///
/// @param[in,out] optimizer changed: needed alone.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_zero_grad(
    optimizer: *mut mmopt_optimizer,
) -> *mut mmopt_error {
    // SAFETY: an optimizer of the caller, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        optimizer.optimizer.zero_grad();
        optimizer.n_pending = 0;
        Ok(())
    })
}

/// Tells that the gradients of one model's micro-batch lie in its memory, and its loss. With more
/// than one micro-batch per step they are added up now; else they are read by the step.
///
/// Errors: INVALID_ARGUMENT for a model that there is not, or a parameter without the memory
/// that it needs.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param model its number, from 0.
/// @param loss of the micro-batch.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_accumulate(
    optimizer: *mut mmopt_optimizer,
    model: usize,
    loss: f64,
) -> *mut mmopt_error {
    // SAFETY: an optimizer of the caller, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        optimizer.optimizer.accumulate(model, loss)?;
        optimizer.n_pending += 1;
        Ok(())
    })
}

/// One coordinated step: check, clip, share, update, synchronise. report may be NULL.
///
/// Errors: STATE without mmopt_optimizer_accumulate since the last step; NON_FINITE when that is to
/// fail; CANCELLED by the gradient callback, and INVALID_ARGUMENT for what a callback returns. The
/// step can be taken again then.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param[out] report becomes what the step did; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_step(
    optimizer: *mut mmopt_optimizer,
    report: *mut mmopt_step_report,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        let out = optional_output(report, "report")?;
        if optimizer.n_pending == 0 {
            return Err(Error::state(
                "step without gradients: call mmopt_optimizer_accumulate for a model first",
            ));
        }
        let report = optimizer.optimizer.step()?;
        optimizer.n_pending = 0;
        out.set((&report).into());
        Ok(())
    })
}

/// Learning rate, gradient norm, weight and skipped steps of one model, as of the last step.
///
/// Errors: INVALID_ARGUMENT for a model that there is not.
///
/// @param[in] optimizer only read: threads may share it.
/// @param model its number, from 0.
/// @param[out] rates become the numbers.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_rates(
    optimizer: *const mmopt_optimizer,
    model: usize,
    rates: *mut mmopt_rates,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let optimizer = shared(optimizer)?;
        let out = output(rates, "rates")?;
        out.set(self::rates(&optimizer.optimizer, model)?);
        Ok(())
    })
}

/// Steps taken, those before a load included; 0 for NULL.
///
/// @param[in] optimizer only read: threads may share it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_optimizer_n_steps(optimizer: *const mmopt_optimizer) -> u64 {
    // SAFETY: an optimizer of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(optimizer) }?.optimizer.step_count()))
}

/// Sets the base learning rate of the coming steps, finite and at least 0.
///
/// Errors: INVALID_ARGUMENT for a number out of range.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param rate finite, at least 0.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_set_learning_rate(
    optimizer: *mut mmopt_optimizer,
    rate: f64,
) -> *mut mmopt_error {
    // SAFETY: an optimizer of the caller, by the header's contract.
    guard(|| unsafe { exclusive(optimizer)?.optimizer.set_learning_rate(rate) })
}

/// Sets a model's weight for the coming steps, finite and at least 0; not all may be 0.
///
/// Errors: INVALID_ARGUMENT for a model that there is not, or a weight out of range.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param model its number, from 0.
/// @param weight finite, at least 0.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_set_model_weight(
    optimizer: *mut mmopt_optimizer,
    model: usize,
    weight: f64,
) -> *mut mmopt_error {
    // SAFETY: an optimizer of the caller, by the header's contract.
    guard(|| unsafe { exclusive(optimizer)?.optimizer.set_model_weight(model, weight) })
}

/// What is shared with what and why, as text for people; the caller owns it: mmopt_string_free.
///
/// Errors: INVALID_ARGUMENT for NULL only.
///
/// @param[in] optimizer only read: threads may share it.
/// @param[out] text becomes the text, the caller's: mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_plan(
    optimizer: *const mmopt_optimizer,
    text: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let optimizer = shared(optimizer)?;
        let text = output(text, "text")?;
        text.set(owned_text(&optimizer.optimizer.plan().to_string(), "the plan")?);
        Ok(())
    })
}

/// What is shared with what and why, as one JSON object; the caller owns it: mmopt_string_free.
///
/// Errors: INVALID_ARGUMENT for NULL only.
///
/// @param[in] optimizer only read: threads may share it.
/// @param[out] json becomes the text, the caller's: mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_plan_json(
    optimizer: *const mmopt_optimizer,
    json: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let optimizer = shared(optimizer)?;
        let json = output(json, "json")?;
        json.set(owned_text(&optimizer.optimizer.plan().to_json().to_string(), "the plan")?);
        Ok(())
    })
}

const STATE: &str = "optimizer.json";
const MOMENTS: &str = "optimizer.safetensors";

/// Writes the optimizer's state (moments, masters and counters, not the host's values) into a
/// directory, made if need be. A crash at any point leaves the last one whole.
///
/// Errors: IO when a file cannot be written.
///
/// @param[in] optimizer only read: threads may share it.
/// @param[in] directory the directory, UTF-8.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_save_checkpoint(
    optimizer: *const mmopt_optimizer,
    directory: *const c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let optimizer = &shared(optimizer)?.optimizer;
        let root = Path::new(text(directory, "directory")?);
        let json = optimizer.state_json()?.to_string();
        directory::write(root, optimizer.step_count(), 1, |dir| {
            let tensors = optimizer.state_tensors();
            let views = tensors.iter().map(|t| {
                let view = weights::View { dtype: t.dtype, shape: t.shape, bytes: t.bytes };
                (t.name.as_str(), view)
            });
            weights::write(&dir.join(MOMENTS), views, &[])?;
            directory::write_text(&dir.join(STATE), &json)
        })
        .map(|_| ())
    })
}

/// Goes to the state that mmopt_optimizer_save_checkpoint wrote; models and parameters must be the same. With
/// the host's values as they were then, before or after this call, the same bits follow. A bf16 or
/// f16 value that is another one now replaces its master.
///
/// Errors: NOT_FOUND without one; INVALID_DATA for a damaged one, or one of other models; the
/// optimizer is unchanged then.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param[in] directory the directory, UTF-8.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_resume(
    optimizer: *mut mmopt_optimizer,
    directory: *const c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        let found = directory::open(Path::new(text(directory, "directory")?))?;
        let moments = Weights::read(&found.path.join(MOMENTS))?;
        let json = serde_json::from_str(&directory::read_text(&found.path.join(STATE))?)
            .map_err(|e| Error::data(format!("{STATE}: {e}")).with_source(e))?;
        let tensor = |name: &str| -> Option<SavedTensor> {
            moments.find(name).map(|v| (v.dtype, v.shape, v.bytes))
        };
        optimizer.optimizer.load_state(&json, &tensor)?;
        optimizer.n_pending = 0;
        Ok(())
    })
}

/// Frees an optimizer; the host's memory is its own again, and the deleters of what was handed over
/// are called. NULL is harmless.
///
/// @param optimizer may be NULL; gone afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_optimizer_free(optimizer: *mut mmopt_optimizer) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(optimizer) };
}
