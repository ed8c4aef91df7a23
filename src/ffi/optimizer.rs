//! Gradient mode: the host computes gradients, the library does everything from clipping to
//! synchronisation, in the host's own memory.

use std::ffi::{CString, c_char, c_void};
use std::path::Path;

use super::args::{
    c_string, choice, flag, optional_output, optional_text, output, owned_text, reserved, slice,
    text,
};
use super::error::mmopt_error;
use super::guard::{Cell, exclusive, free, guard, guard_or, handle, into_raw, shared};
use super::structs::options;
use super::tensor::DTYPES;
use super::trainer::mmopt_step_report;
use super::trainer_options::mmopt_trainer_options;
use super::trainer_state::{mmopt_rates, rates};
use crate::checkpoint::directory;
use crate::checkpoint::weights::{self, Weights};
use crate::error::{Context, Error, Result};
use crate::optim::{Buffers, ModelSpec, Optimizer, ParamSpec, SavedTensor};
use crate::tensor::element_count;

/// Updates the parameters of several models together, in the host's memory.
pub struct mmopt_optimizer(Cell<OptimizerValue>);

handle!(mmopt_optimizer, OptimizerValue, "optimizer");

/// An optimizer and its models' names as C texts.
pub struct OptimizerValue {
    optimizer: Optimizer,
    models: Vec<CString>,
    /// Micro-batches since the last step.
    n_pending: usize,
}

/// One parameter of the host: dense, row-major, in host memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_parameter {
    /// Unique within its model; the published name where there is one, as it decides the role.
    pub name: *const c_char,
    /// The dimensions, outermost first; NULL is allowed when n_dims is 0.
    pub shape: *const i64,
    /// How many dimensions.
    pub n_dims: usize,
    /// The values, f32, aligned to 4 bytes; updated in place.
    pub data: *mut f32,
    /// The gradient, of the same shape; NULL when there is none.
    pub gradient: *mut c_void,
    /// Element type of the gradient: MMOPT_DTYPE_F32, MMOPT_DTYPE_BF16 or MMOPT_DTYPE_F16.
    pub gradient_dtype: u32,
    /// 1: the optimizer changes it; 0: frozen.
    pub trainable: u32,
    /// NULL: role from the name. Else a JSON object that overrides it: role (for example
    /// "attention_query", or null to keep it out of every group), part ("weight" or "bias"), block,
    /// layout ("out_in" or "in_out").
    pub role_json: *const c_char,
    /// Must be 0.
    pub reserved: [u64; 2],
}

/// One model of the host.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_parameters {
    /// Unique among the models.
    pub name: *const c_char,
    /// Its parameters.
    pub parameters: *const mmopt_parameter,
    /// How many.
    pub n_parameters: usize,
    /// Weight among the models, finite and at least 0; only ratios matter.
    pub weight: f64,
    /// The published model_type, for reports; NULL: not known.
    pub architecture: *const c_char,
    /// Token tables share only between models of the same vocabulary; NULL: with none.
    pub vocabulary: *const c_char,
    /// Heads share only between models of the same task; NULL: with none.
    pub task: *const c_char,
    /// Must be 0.
    pub reserved: [u64; 2],
}

unsafe fn param_spec(p: &mmopt_parameter) -> Result<(ParamSpec, Buffers)> {
    // SAFETY: the caller's texts and arrays, by the header's contract.
    let (name, dims, role) = unsafe {
        let name = text(p.name, "parameter.name")?;
        let dims = slice(p.shape, p.n_dims, "parameter.shape")?;
        (name, dims, optional_text(p.role_json, "parameter.role_json")?)
    };
    let check = || -> Result<(ParamSpec, Buffers)> {
        let shape = dims.iter().map(|&d| usize::try_from(d)).collect::<Result<Vec<_>, _>>();
        let shape = shape.map_err(|_| Error::shape(format!("a dimension of {dims:?} < 0")))?;
        let n = element_count(&shape)?;
        if p.data.is_null() && n > 0 {
            return Err(Error::invalid("data is NULL"));
        }
        let role = role
            .map(serde_json::from_str)
            .transpose()
            .map_err(|e| Error::invalid(format!("role_json: {e}")).with_source(e))?;
        reserved(p.reserved == [0; 2], "reserved")?;
        let trainable = flag(p.trainable, "trainable")?;
        let grad_dtype = choice(p.gradient_dtype, "gradient_dtype", &DTYPES)?;
        let spec = ParamSpec { trainable, role, ..ParamSpec::new(name, &shape) };
        Ok((spec, Buffers { param: p.data.cast(), grad: p.gradient.cast(), grad_dtype }))
    };
    check().context(|| format!("parameter '{name}'"))
}

unsafe fn model_spec(m: &mmopt_parameters) -> Result<(ModelSpec, Vec<Buffers>)> {
    // SAFETY: the caller's texts and arrays, by the header's contract.
    unsafe {
        let name = text(m.name, "model.name")?;
        let owned = |t: *const c_char, what| -> Result<Option<String>> {
            Ok(optional_text(t, what)?.map(str::to_owned))
        };
        reserved(m.reserved == [0; 2], "model.reserved")?;
        let parameters = slice(m.parameters, m.n_parameters, "model.parameters")?;
        let read = |p| param_spec(p).context(|| format!("model '{name}'"));
        let all = parameters.iter().map(read).collect::<Result<Vec<_>>>()?;
        let (params, buffers) = all.into_iter().unzip();
        let spec = ModelSpec {
            weight: m.weight,
            architecture: owned(m.architecture, "model.architecture")?,
            vocabulary: owned(m.vocabulary, "model.vocabulary")?,
            task: owned(m.task, "model.task")?,
            ..ModelSpec::new(name, params)
        };
        Ok((spec, buffers))
    }
}

/// Plans what n_models models share and takes hold of their memory. Texts and arrays are copied;
/// values and gradients must stay where they are, and each must be apart from all others, until the
/// optimizer is freed. They are read and written by mmopt_optimizer_accumulate and
/// mmopt_optimizer_step only. Of the options, device, max_sessions and runtime_path play no part.
///
/// Errors name the model and parameter: a name that is taken twice, a missing pointer, a gradient
/// of another element type, an option out of range.
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
        let models = slice(models, n_models, "models")?;
        if models.is_empty() {
            return Err(Error::invalid("models: at least one is needed"));
        }
        let out = output(optimizer, "optimizer")?;
        let all = models.iter().map(|m| model_spec(m)).collect::<Result<Vec<_>>>()?;
        let (specs, buffers): (Vec<_>, Vec<_>) = all.into_iter().unzip();
        let name = |s: &ModelSpec| c_string(&s.name, "a model's name");
        let names = specs.iter().map(name).collect::<Result<_>>()?;
        let mut optimizer = Optimizer::new(options.optimizer, specs)?;
        for (i, buffers) in buffers.into_iter().enumerate() {
            optimizer.bind(i, buffers)?;
        }
        out.set(into_raw(OptimizerValue { optimizer, models: names, n_pending: 0 }));
        Ok(())
    })
}

/// The number of models; 0 for NULL.
///
/// @param[in] optimizer only read: threads may share it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_optimizer_n_models(optimizer: *const mmopt_optimizer) -> usize {
    // SAFETY: an optimizer of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(optimizer) }?.models.len()))
}

/// Gives a parameter another gradient (NULL: none) for the coming steps; gradient_dtype as in
/// mmopt_parameter. Parameters count from 0 in the order they were given.
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
        optimizer.optimizer.set_gradient(model, parameter, gradient.cast(), dtype)
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
/// fail.
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

/// What is shared with what and why, as text for people; the caller owns it: mmopt_text_free.
///
/// Errors: INVALID_ARGUMENT for NULL only.
///
/// @param[in] optimizer only read: threads may share it.
/// @param[out] text becomes the text, the caller's: mmopt_text_free.
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

/// What is shared with what and why, as one JSON object; the caller owns it: mmopt_text_free.
///
/// Errors: INVALID_ARGUMENT for NULL only.
///
/// @param[in] optimizer only read: threads may share it.
/// @param[out] json becomes the text, the caller's: mmopt_text_free.
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

/// Writes the optimizer's state (moments and counters, not the host's values) into a directory,
/// made if need be. A crash at any point leaves the last one whole.
///
/// Errors: IO when a file cannot be written.
///
/// @param[in] optimizer only read: threads may share it.
/// @param[in] directory the directory, UTF-8.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_save(
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

/// Goes to the state that mmopt_optimizer_save wrote; models and parameters must be the same.
///
/// Errors: NOT_FOUND without one; INVALID_DATA for a damaged one, or one of other models; the
/// optimizer is unchanged then.
///
/// @param[in,out] optimizer changed: needed alone.
/// @param[in] directory the directory, UTF-8.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_load(
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

/// Frees an optimizer; the host's memory is its own again. NULL is harmless.
///
/// @param optimizer may be NULL; gone afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_optimizer_free(optimizer: *mut mmopt_optimizer) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(optimizer) };
}
