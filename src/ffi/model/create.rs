//! Models to be trained: where each comes from, its task, loss and weight.

use std::ffi::{c_char, c_void};
use std::path::PathBuf;

use crate::autodiff::{LossKind, LossSpec};
use crate::error::{Context, Error, Result};
use crate::ffi::core::args::{choice, optional_text, output, owned_text, reserved, slice, text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{Cell, exclusive, free, guard, handle, into_raw, shared};
use crate::ffi::core::structs::{Options, init, options};
use crate::models::{Config, Sizes, Task};
use crate::train::{ModelOptions, Source};

/// What a trainer needs to know of one model. Nothing is read before the trainer is created.
pub struct mmopt_model(Cell<ModelOptions>);

handle!(mmopt_model, ModelOptions, "model");

/// What a model is trained for; decides its head and its outputs.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_task {
    /// One class per sequence.
    SequenceClassification = 1,
    /// One class per token.
    TokenClassification = 2,
    /// Where an answer starts and ends.
    QuestionAnswering = 3,
    /// The tokens behind hidden ones.
    MaskedLm = 4,
    /// The next token.
    CausalLm = 5,
}

/// Losses that the library attaches to a graph.
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
    /// Mean squared difference of the output and labels of its shape.
    MeanSquaredError = 6,
    /// The model has its loss as an output, a float with one element.
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
    /// Share of a label's weight that is spread over all classes, at least 0, below 1; default 0.
    pub label_smoothing: f64,
    /// Rows of this label count nothing; default -100.
    pub ignore_index: i64,
    /// A weight of at least 0 for each class; NULL (default): all 1. Copied.
    pub class_weights: *const f32,
    /// How many class weights.
    pub n_class_weights: usize,
    /// The output that the loss looks at (two names with a comma between for questions; the loss
    /// itself for MMOPT_LOSS_OUTPUT). NULL (default): logits, or start_logits and end_logits, or
    /// the only float output.
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

/// Fills the options with their defaults. NULL is harmless.
///
/// @param[out] options becomes the defaults; may be NULL.
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

/// The sizes of a fresh model. mmopt_model_config_init fills in those of a small one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_model_config {
    /// sizeof(mmopt_model_config).
    pub struct_size: usize,
    /// An mmopt_architecture; default MMOPT_ARCHITECTURE_BERT.
    pub architecture: u32,
    /// An mmopt_task; default MMOPT_TASK_SEQUENCE_CLASSIFICATION.
    pub task: u32,
    /// Number of classes or tags, for classification; default 2.
    pub n_labels: usize,
    /// Ids of the vocabulary; default 8000.
    pub vocab_size: usize,
    /// Transformer blocks; default 2.
    pub layers: usize,
    /// Width, a multiple of heads; default 128.
    pub hidden: usize,
    /// Attention heads; default 4.
    pub heads: usize,
    /// Width inside the feed-forward blocks; 0 (default): 4 times hidden.
    pub intermediate: usize,
    /// Longest sequence in tokens; default 128.
    pub positions: usize,
    /// Every dropout probability, at least 0, below 1; default 0.1.
    pub dropout: f64,
    /// The padding token's id; -1 (default): the architecture's.
    pub pad_id: i64,
}

impl Default for mmopt_model_config {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            architecture: 1,
            task: mmopt_task::SequenceClassification as u32,
            n_labels: 2,
            vocab_size: 8000,
            layers: 2,
            hidden: 128,
            heads: 4,
            intermediate: 0,
            positions: 128,
            dropout: 0.1,
            pad_id: -1,
        }
    }
}

// SAFETY: repr(C), begins with its size, numbers only.
unsafe impl Options for mmopt_model_config {
    const NAME: &'static str = "mmopt_model_config";
}

/// Fills in the sizes of a small model. NULL is harmless.
///
/// @param[out] sizes becomes the defaults; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_model_config_init(sizes: *mut mmopt_model_config) {
    // SAFETY: the caller's struct, by the header's contract.
    unsafe { init(sizes) };
}

impl mmopt_model_config {
    /// The configuration and task; `labels` are the names of the classes, if known.
    pub(crate) fn config(&self, labels: Vec<String>) -> Result<(Config, Task)> {
        if !(0.0..1.0).contains(&self.dropout) {
            let text = format!("dropout is {}; it is at least 0 and below 1", self.dropout);
            return Err(Error::invalid(text));
        }
        let sizes = Sizes {
            layers: self.layers,
            hidden: self.hidden,
            heads: self.heads,
            intermediate: match self.intermediate {
                0 => self.hidden.saturating_mul(4),
                width => width,
            },
            vocab: self.vocab_size,
            positions: self.positions,
            dropout: self.dropout,
        };
        let make: fn(&Sizes) -> Config = choice(
            self.architecture,
            "architecture",
            &[
                (1, Config::bert as fn(&Sizes) -> Config),
                (2, Config::gpt2),
                (3, Config::roberta),
                (4, Config::distilbert),
            ],
        )?;
        let mut config = make(&sizes);
        if self.pad_id >= 0 {
            config.pad_token_id = Some(self.pad_id as usize);
        }
        config.labels = labels;
        let task = task(self.task, self.n_labels)?;
        config.set_task(task);
        config.check()?;
        Ok((config, task))
    }
}

/// The task of a number; one that is no mmopt_task, and an impossible count of classes, are errors.
pub(crate) fn task(task: u32, n_labels: usize) -> Result<Task> {
    let tasks = [
        (1, Task::SequenceClassification { num_labels: n_labels }),
        (2, Task::TokenClassification { num_labels: n_labels }),
        (3, Task::QuestionAnswering),
        (4, Task::MaskedLm),
        (5, Task::CausalLm),
    ];
    let task = choice(task, "task", &tasks)?;
    match task.num_labels() {
        Some(0) => Err(Error::invalid("n_labels is 0; classification needs at least 1")),
        Some(n) if n > MAX_LABELS => {
            Err(Error::invalid(format!("n_labels is {n}; there can be {MAX_LABELS} at most")))
        }
        _ => Ok(task),
    }
}

/// Classes or tags that a head can have; more is a mistake in the caller's arithmetic.
const MAX_LABELS: usize = 1 << 24;

pub(crate) fn give(name: &str, source: Source, task: Option<Task>) -> *mut mmopt_model {
    into_raw(ModelOptions { task, ..ModelOptions::new(name, source) })
}

/// A model from a directory of published form: config.json and model.safetensors. Without a task
/// set, that of the configuration. name is unique and not empty; it appears in messages, metrics
/// and checkpoints.
///
/// Errors: INVALID_ARGUMENT for an empty name; files are read when the trainer is created.
///
/// @param[in] name UTF-8.
/// @param[in] directory the directory, UTF-8.
/// @param[out] model becomes the new object, the caller's: mmopt_model_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_from_directory(
    name: *const c_char,
    directory: *const c_char,
    model: *mut *mut mmopt_model,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let (name, directory) = (text(name, "name")?, text(directory, "directory")?);
        let model = output(model, "model")?;
        model.set(give(name, Source::Directory(PathBuf::from(directory)), None));
        Ok(())
    })
}

/// A model from the file of a forward ONNX graph, f32 or f64. It needs a loss,
/// mmopt_model_set_loss, unless it brings its own gradients: mmopt_model_set_precomputed_gradients. What
/// exporters do to parameters is mended and reported: mmopt_model_report.
///
/// Errors: INVALID_ARGUMENT for an empty name; files are read when the trainer is created.
///
/// @param[in] name UTF-8.
/// @param[in] path the file, UTF-8.
/// @param[out] model becomes the new object, the caller's: mmopt_model_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_from_onnx(
    name: *const c_char,
    path: *const c_char,
    model: *mut *mut mmopt_model,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let (name, path) = (text(name, "name")?, text(path, "path")?);
        let model = output(model, "model")?;
        model.set(give(name, Source::Onnx(PathBuf::from(path)), None));
        Ok(())
    })
}

/// A model from n_bytes of a forward ONNX graph in memory, copied; else as mmopt_model_from_onnx.
///
/// Errors: INVALID_ARGUMENT for a length that exceeds the address space; the graph is read when
/// the trainer is created.
///
/// @param[in] name UTF-8.
/// @param[in] bytes the file's content, n_bytes of it.
/// @param n_bytes how many bytes.
/// @param[out] model becomes the new object, the caller's: mmopt_model_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_from_onnx_bytes(
    name: *const c_char,
    bytes: *const c_void,
    n_bytes: usize,
    model: *mut *mut mmopt_model,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let name = text(name, "name")?;
        let bytes = slice(bytes.cast::<u8>(), n_bytes, "bytes")?;
        let model = output(model, "model")?;
        model.set(give(name, Source::OnnxBytes(bytes::Bytes::copy_from_slice(bytes)), None));
        Ok(())
    })
}

/// A fresh model from the text of a published config.json.
///
/// Errors: INVALID_DATA for bad JSON or a missing key; UNSUPPORTED for an unknown model_type.
///
/// @param[in] name UTF-8.
/// @param[in] json the text of a config.json.
/// @param[out] model becomes the new object, the caller's: mmopt_model_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_from_config_json(
    name: *const c_char,
    json: *const c_char,
    model: *mut *mut mmopt_model,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let (name, json) = (text(name, "name")?, text(json, "json")?);
        let model = output(model, "model")?;
        let config = Config::from_json(json).context(|| format!("model '{name}'"))?;
        model.set(give(name, Source::Config(Box::new(config)), None));
        Ok(())
    })
}

/// A fresh model of a known architecture. NULL sizes: a small BERT.
///
/// Errors: INVALID_ARGUMENT for an unknown architecture or task, or a number out of range;
/// INVALID_DATA for sizes that do not fit together.
///
/// @param[in] name UTF-8.
/// @param[in] sizes NULL: a small BERT.
/// @param[out] model becomes the new object, the caller's: mmopt_model_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_create(
    name: *const c_char,
    sizes: *const mmopt_model_config,
    model: *mut *mut mmopt_model,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let (name, sizes) = (text(name, "name")?, options(sizes)?);
        let model = output(model, "model")?;
        let made = sizes.config(Vec::new()).context(|| format!("model '{name}'"))?;
        model.set(give(name, Source::Config(Box::new(made.0)), Some(made.1)));
        Ok(())
    })
}

/// Sets the task, an mmopt_task; n_labels counts classes or tags and is ignored for other tasks. A
/// directory whose weights have another head gets a fresh one. Not for ONNX graphs.
///
/// Errors: INVALID_ARGUMENT for another number, or n_labels of 0 or above 2^24 for
/// classification.
///
/// @param[in,out] model changed: needed alone.
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
        model.task = Some(self::task(task, n_labels)?);
        Ok(())
    })
}

/// Sets the loss. Without it the task's is used; ONNX graphs must have one. NULL options: the
/// defaults of mmopt_loss_options.
///
/// Errors: INVALID_ARGUMENT for an unknown kind or a number out of range; UNSUPPORTED for
/// options of a newer version. Whether the loss fits the model shows when the trainer is
/// created.
///
/// @param[in,out] model changed: needed alone.
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

/// Sets the weight among the models, finite and at least 0; only ratios matter. Default 1.
///
/// Errors: INVALID_ARGUMENT for a number out of range.
///
/// @param[in,out] model changed: needed alone.
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

/// Replaces every dropout probability of the configuration; at least 0, below 1.
///
/// Errors: INVALID_ARGUMENT for a number out of range.
///
/// @param[in,out] model changed: needed alone.
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

/// Sets the seed of fresh weights and of dropout. Default 0.
///
/// Errors: INVALID_ARGUMENT for NULL only.
///
/// @param[in,out] model changed: needed alone.
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

/// Leaves the parameters whose whole name matches the pattern as they are: * stands for any text,
/// ? for any one character. A parameter's name is the one that the trainer gives it, the one in the
/// file, and that of a copy that was tied to it. May be called more than once; wins over
/// mmopt_model_train_only. A pattern that matches nothing fails the trainer's creation.
///
/// Errors: INVALID_ARGUMENT for a pattern that is not UTF-8. One that matches nothing shows
/// when the trainer is created.
///
/// @param[in,out] model changed: needed alone.
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

/// Trains only parameters whose whole name matches this pattern, or that of another call; names as
/// for mmopt_model_freeze. Constants of the exporter that are not trained by default are trained
/// when they are named. What sets an operator, such as a dropout's ratio, is none, and * leaves it
/// out. Naming that, quantised weights or integers fails the trainer's creation with UNSUPPORTED.
///
/// Errors: INVALID_ARGUMENT for a pattern that is not UTF-8. One that matches nothing shows
/// when the trainer is created.
///
/// @param[in,out] model changed: needed alone.
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

/// The name of a class by its number, from the configuration; the caller owns it: mmopt_string_free.
///
/// Errors: NOT_FOUND for a number that there is not, and for ONNX graphs; whatever reading the
/// directory's config.json gives.
///
/// @param[in] model only read: threads may share it.
/// @param label its number, from 0.
/// @param[out] name becomes its name; the caller's: mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_label(
    model: *const mmopt_model,
    label: usize,
    name: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let model = shared(model)?;
        let name = output(name, "name")?;
        let labels = match &model.source {
            Source::Directory(path) => Config::read(path)?.labels,
            Source::Config(config) => config.labels.clone(),
            _ => Vec::new(),
        };
        let found = labels.get(label).ok_or_else(|| {
            Error::not_found(format!("model '{}': no name for label {label}", model.name))
        })?;
        name.set(owned_text(found, "the label")?);
        Ok(())
    })
}

/// Frees a model. NULL is harmless.
///
/// @param model may be NULL; gone afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_model_free(model: *mut mmopt_model) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(model) };
}
