//! Low-rank adapters beside a model's frozen matrices.

use std::ffi::c_char;
use std::path::PathBuf;

use super::create::mmopt_model;
use crate::error::{Error, Result};
use crate::ffi::core::args::{text, texts};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard};
use crate::ffi::core::structs::{Options, init, options};
use crate::train::{AdapterOptions, AdapterSource, ModelOptions};

/// Low-rank adapters: y = x W + b + alpha / rank * dropout(x) A^T B^T, with A [rank, in] and
/// B [out, rank] (Hu et al. 2021, arXiv 2106.09685). mmopt_adapter_options_init fills in the
/// defaults. All of it is copied.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_adapter_options {
    /// sizeof(mmopt_adapter_options).
    pub struct_size: usize,
    /// The matrices of linear layers that get one: names of modules, whole or their last parts
    /// (query, c_attn), or patterns of modules or of weights, as for mmopt_model_freeze. Required.
    pub target_modules: *const *const c_char,
    /// How many.
    pub n_target_modules: usize,
    /// The rank, 1 to 65536; default 8.
    pub rank: usize,
    /// The product of A and B is multiplied by alpha / rank; 1e-30 to 1e30; default 8.
    pub alpha: f64,
    /// Dropout probability of what goes into A, at least 0, below 1; default 0.
    pub dropout: f64,
    /// Modules that are trained whole and saved with the adapters, named likewise. NULL (default):
    /// the newly initialised parts of the task's head. To train none, n_modules_to_save is 0 and
    /// this is not NULL.
    pub modules_to_save: *const *const c_char,
    /// How many.
    pub n_modules_to_save: usize,
}

impl Default for mmopt_adapter_options {
    fn default() -> Self {
        let plain = AdapterOptions::default();
        Self {
            struct_size: size_of::<Self>(),
            target_modules: std::ptr::null(),
            n_target_modules: 0,
            rank: plain.rank,
            alpha: plain.alpha,
            dropout: 0.0,
            modules_to_save: std::ptr::null(),
            n_modules_to_save: 0,
        }
    }
}

// SAFETY: repr(C), begins with its size, numbers and raw pointers only.
unsafe impl Options for mmopt_adapter_options {
    const NAME: &'static str = "mmopt_adapter_options";
}

/// Fills in the defaults. NULL is harmless.
///
/// @param[out] options filled with the defaults; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_adapter_options_init(options: *mut mmopt_adapter_options) {
    // SAFETY: the caller's struct, by the header's contract.
    unsafe { init(options) };
}

unsafe fn adapters(o: &mmopt_adapter_options) -> Result<AdapterOptions> {
    // SAFETY: the caller's arrays of texts, by the header's contract.
    let (targets, whole) = unsafe {
        let whole = texts(o.modules_to_save, o.n_modules_to_save, "modules_to_save")?;
        (texts(o.target_modules, o.n_target_modules, "target_modules")?, whole)
    };
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let options = AdapterOptions {
        target_modules: owned(targets),
        rank: o.rank,
        alpha: o.alpha,
        dropout: dropout(o.dropout)?,
        modules_to_save: (!o.modules_to_save.is_null()).then(|| owned(whole)),
    };
    options.check()?;
    Ok(options)
}

/// Checked before it is rounded: a little below 1 could become 1.
fn dropout(given: f64) -> Result<f32> {
    let rounded = given as f32;
    if (0.0..1.0).contains(&given) && rounded < 1.0 {
        return Ok(rounded);
    }
    Err(Error::invalid(format!("dropout is {given}; it is at least 0 and below 1")))
}

fn set(model: &mut ModelOptions, source: AdapterSource) -> Result<()> {
    if model.gradients.is_some() {
        return Err(Error::unsupported(format!(
            "model '{}' brings its own gradients, which there are none of for adapters",
            model.name
        )));
    }
    model.adapters = Some(source);
    Ok(())
}

/// Puts a low-rank adapter beside each matrix that options name, and freezes everything else but
/// the adapters and the modules to save: it has neither gradients nor moments. A is drawn as
/// published, by the seed of mmopt_model_set_seed, and B is 0: the model gives the same as without
/// until the first step. Adapters of an earlier call are replaced. A and B are parameters,
/// \<module\>.lora_A.weight and \<module\>.lora_B.weight, which share across models by the role of
/// their matrix. mmopt_model_train_only and mmopt_model_freeze choose among what is left to train.
/// What is saved as a model has its adapters merged; mmopt_trainer_save_adapters writes them alone.
/// A name that matches nothing fails the trainer's creation with NOT_FOUND and says what could
/// match; one of a parameter that can have no adapter fails it with UNSUPPORTED.
///
/// Errors: INVALID_ARGUMENT for a number out of range, without target_modules, and for text that is
/// not UTF-8; UNSUPPORTED for a model that brings its own gradients.
///
/// @param[in,out] model exclusive access.
/// @param[in] options names at least one target; not NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_add_adapters(
    model: *mut mmopt_model,
    options: *const mmopt_adapter_options,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut model = exclusive(model)?;
        if options.is_null() {
            return Err(Error::invalid("options is NULL; its target_modules are required"));
        }
        let given = adapters(&self::options(options)?)?;
        set(&mut model, AdapterSource::New(given))
    })
}

/// As mmopt_model_add_adapters, with the adapters that a directory holds in the layout of Python's
/// peft: adapter_config.json and adapter_model.safetensors, as mmopt_trainer_save_adapters writes
/// them. Rank, alpha, dropout and targets are those of the files. Modules that were trained whole
/// get their values from there, and are trained on. Files are read when the trainer is created.
///
/// The trainer's creation fails with UNSUPPORTED for adapters of another kind than plain LoRA (such
/// as DoRA, rank-stabilised, with biases, of several ranks), with NOT_FOUND and SHAPE for those of
/// another model, and with NOT_FOUND, IO or INVALID_DATA for files that cannot be read.
///
/// Errors: INVALID_ARGUMENT for text that is not UTF-8; UNSUPPORTED as mmopt_model_add_adapters.
///
/// @param[in,out] model exclusive access.
/// @param[in] directory the directory, UTF-8.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_load_adapters(
    model: *mut mmopt_model,
    directory: *const c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut model = exclusive(model)?;
        let directory = PathBuf::from(text(directory, "directory")?);
        set(&mut model, AdapterSource::Saved(directory))
    })
}
