//! What is decided about a model before a trainer is created: task, loss, weight, what is trained.

use std::ffi::c_char;

use super::config;
use super::create::mmopt_model;
use crate::autodiff::{LossKind, LossSpec};
use crate::error::{Error, Result};
use crate::ffi::core::args::{choice, optional_text, reserved, slice, text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard};
use crate::ffi::core::structs::{Options, init, options};

/// Losses that the library adds to a graph.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_loss {
    /// Cross-entropy of logits [batch, classes] and labels, i64 [batch].
    SequenceClassification = 1,
    /// Cross-entropy of logits [batch, length, classes] and labels, i64 [batch, length].
    TokenClassification = 2,
    /// Mean of two cross-entropies over the length: start_logits and end_logits [batch, length],
    /// start_positions and end_positions, i64 [batch].
    QuestionAnswering = 3,
    /// As token classification, over the vocabulary.
    MaskedLm = 4,
    /// Next-token cross-entropy: labels, i64 [batch, length], usually the input ids, are shifted.
    CausalLm = 5,
    /// Mean squared error of the output and labels of the same shape.
    MeanSquaredError = 6,
    /// The graph computes its loss: an output that is a float with one element.
    Output = 7,
}

/// A loss. mmopt_loss_options_init fills in the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_loss_options {
    /// sizeof(mmopt_loss_options).
    pub struct_size: usize,
    /// An mmopt_loss; default MMOPT_LOSS_SEQUENCE_CLASSIFICATION.
    pub kind: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Label smoothing, at least 0, below 1; default 0.
    pub label_smoothing: f64,
    /// Labels of this value are ignored; default -100.
    pub ignore_index: i64,
    /// A weight of at least 0 for each class; NULL (default): all 1. Copied.
    pub class_weights: *const f32,
    /// How many class weights.
    pub n_class_weights: usize,
    /// The output that the loss reads; two names with a comma between them for question answering;
    /// the loss itself for MMOPT_LOSS_OUTPUT. NULL (default): logits, or start_logits and
    /// end_logits, or the only float output.
    pub output: *const c_char,
}

impl Default for mmopt_loss_options {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            kind: mmopt_loss::SequenceClassification as u32,
            reserved: 0,
            label_smoothing: 0.0,
            ignore_index: -100,
            class_weights: std::ptr::null(),
            n_class_weights: 0,
            output: std::ptr::null(),
        }
    }
}

// SAFETY: repr(C), begins with its size, numbers and raw pointers only.
unsafe impl Options for mmopt_loss_options {
    const NAME: &'static str = "mmopt_loss_options";
}

/// Fills in the defaults. NULL is harmless.
///
/// @param[out] options filled with the defaults; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_loss_options_init(options: *mut mmopt_loss_options) {
    // SAFETY: the caller's struct, by the header's contract.
    unsafe { init(options) };
}

unsafe fn loss_spec(o: &mmopt_loss_options) -> Result<LossSpec> {
    reserved(o.reserved == 0, "reserved")?;
    if !(0.0..1.0).contains(&o.label_smoothing) {
        let text =
            format!("label_smoothing is {}; it is at least 0 and below 1", o.label_smoothing);
        return Err(Error::invalid(text));
    }
    // SAFETY: the caller's text and array, by the header's contract.
    let (output, weights) = unsafe {
        let weights = slice(o.class_weights, o.n_class_weights, "class_weights")?;
        (optional_text(o.output, "output")?.map(str::to_owned), weights)
    };
    let own = || {
        let name = output.clone();
        name.map(LossKind::Output).ok_or_else(|| Error::invalid("output names no loss"))
    };
    let kind = match choice(o.kind, "kind", &(1..=7).map(|n| (n, n)).collect::<Vec<_>>())? {
        1 => LossKind::SequenceClassification,
        2 => LossKind::TokenClassification,
        3 => LossKind::QuestionAnswering,
        4 => LossKind::MaskedLm,
        5 => LossKind::CausalLm,
        6 => LossKind::MeanSquaredError,
        _ => own()?,
    };
    let logits = output.filter(|_| !matches!(kind, LossKind::Output(_)));
    Ok(LossSpec {
        kind,
        label_smoothing: o.label_smoothing as f32,
        class_weights: (!weights.is_empty()).then(|| weights.to_vec()),
        ignore_index: o.ignore_index,
        logits,
    })
}

/// Sets the task. n_labels is the number of classes or tags, and ignored for other tasks. Weights
/// of another task keep their body and get a newly initialised head, e.g. a language model that
/// becomes a classifier. With the same task, another number of classes needs
/// mmopt_model_set_fresh_head. Not for ONNX graphs.
///
/// Errors: INVALID_ARGUMENT when task is no mmopt_task, or n_labels is 0 or above 2^24 for
/// classification.
///
/// @param[in,out] model exclusive access.
/// @param task an mmopt_task.
/// @param n_labels how many classes or tags.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_set_task(
    model: *mut mmopt_model,
    task: u32,
    n_labels: usize,
) -> *mut mmopt_error {
    // SAFETY: a model of the caller, by the header's contract.
    guard(|| unsafe {
        let mut model = exclusive(model)?;
        model.task = Some(config::task(task, n_labels)?);
        Ok(())
    })
}

/// Sets the loss. The default is that of the task; ONNX graphs have no default.
///
/// Errors: INVALID_ARGUMENT for an unknown kind or a number out of range; UNSUPPORTED for options
/// of a newer version. A loss that does not fit the model fails the trainer's creation.
///
/// @param[in,out] model exclusive access.
/// @param[in] options NULL: the defaults.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_set_loss(
    model: *mut mmopt_model,
    options: *const mmopt_loss_options,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut model = exclusive(model)?;
        model.loss = Some(loss_spec(&self::options(options)?)?);
        Ok(())
    })
}

/// Sets the weight of the model among the models of a trainer; only ratios matter. Default 1. It
/// scales the model's learning rate as the option model_weight_lr_scale says (in the default preset
/// a model of twice the others' weight has a greater rate, and they have lesser ones), and counts
/// in means over models: of shared gradients, of synchronisation and, with teacher_weights model,
/// of teachers.
///
/// Errors: INVALID_ARGUMENT when it is out of range.
///
/// @param[in,out] model exclusive access.
/// @param weight finite, at least 0.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_set_weight(
    model: *mut mmopt_model,
    weight: f64,
) -> *mut mmopt_error {
    // SAFETY: a model of the caller, by the header's contract.
    guard(|| unsafe {
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(Error::invalid(format!("weight {weight} must be finite and >= 0")));
        }
        exclusive(model)?.weight = weight;
        Ok(())
    })
}

/// Replaces all dropout probabilities of the configuration.
///
/// Errors: INVALID_ARGUMENT when it is out of range.
///
/// @param[in,out] model exclusive access.
/// @param dropout at least 0, below 1.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_set_dropout(
    model: *mut mmopt_model,
    dropout: f64,
) -> *mut mmopt_error {
    // SAFETY: a model of the caller, by the header's contract.
    guard(|| unsafe {
        if !(0.0..1.0).contains(&dropout) {
            return Err(Error::invalid(format!("dropout {dropout} must be in [0, 1)")));
        }
        exclusive(model)?.dropout = Some(dropout as _);
        Ok(())
    })
}

/// Sets the seed of fresh weights and of dropout. Default 0. Two fresh models of equal architecture
/// and sizes need different ones: with one seed they start equal, learn the same, and have nothing
/// to teach each other, which a new trainer logs as a warning.
///
/// Errors: only those of any call.
///
/// @param[in,out] model exclusive access.
/// @param seed any number.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_set_seed(
    model: *mut mmopt_model,
    seed: u64,
) -> *mut mmopt_error {
    // SAFETY: a model of the caller, by the header's contract.
    guard(|| unsafe {
        exclusive(model)?.seed = seed;
        Ok(())
    })
}

/// Freezes the parameters whose whole name matches the pattern: * stands for any text, ? for any
/// one character. A parameter matches by the name that the trainer gives it, by its name in the
/// file, and by the names of duplicates that were tied to it. May be called more than once; takes
/// precedence over mmopt_model_train_only. A pattern that matches nothing fails the trainer's
/// creation.
///
/// Errors: INVALID_ARGUMENT for a pattern that is not UTF-8.
///
/// @param[in,out] model exclusive access.
/// @param[in] pattern the parameters, by name.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_freeze(
    model: *mut mmopt_model,
    pattern: *const c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let pattern = text(pattern, "pattern")?.to_owned();
        exclusive(model)?.frozen.push(pattern);
        Ok(())
    })
}

/// Trains only the parameters whose whole name matches this pattern or that of another call, as for
/// mmopt_model_freeze. Float constants of the graph that are not trained by default are trained
/// when a pattern names them. Operator settings such as a dropout ratio are no parameters, and *
/// leaves them out. A pattern that names one of them, quantised weights or integers fails the
/// trainer's creation with UNSUPPORTED; so does one that matches nothing, with NOT_FOUND.
///
/// Errors: INVALID_ARGUMENT for a pattern that is not UTF-8.
///
/// @param[in,out] model exclusive access.
/// @param[in] pattern the parameters, by name.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_train_only(
    model: *mut mmopt_model,
    pattern: *const c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let pattern = text(pattern, "pattern")?.to_owned();
        exclusive(model)?.trainable.push(pattern);
        Ok(())
    })
}
