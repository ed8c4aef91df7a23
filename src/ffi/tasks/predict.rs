//! Predictions for texts, from a trainer or from a directory.

use std::ffi::{CString, c_char};
use std::path::Path;
use std::ptr;

use super::evaluate::mmopt_evaluate_options;
use crate::error::Result;
use crate::ffi::core::args::{c_string, choice, flag, output, text, texts};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{Cell, exclusive, free, guard, guard_or, handle, into_raw, shared};
use crate::ffi::core::structs::{Options, init, options};
use crate::ffi::data::tokenizer::mmopt_tokenizer;
use crate::ffi::trainer::callback::mmopt_phase;
use crate::ffi::trainer::create::mmopt_trainer;
use crate::runtime::Device;
use crate::tasks::{
    EvaluateOptions, PredictOptions, Prediction, Predictor, PredictorOptions, predict_with,
};

/// How texts are encoded and answers are found. mmopt_predict_options_init fills in the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_predict_options {
    /// sizeof(mmopt_predict_options).
    pub struct_size: usize,
    /// Texts, or windows of contexts, that run at once, at least 1; default 16.
    pub batch_size: usize,
    /// Longest sequence in tokens; 0 (default): the tokenizer's.
    pub max_length: usize,
    /// Entities: 1 (default): punctuation around a word, and a final 's, are words of their own, as
    /// in most corpora; 0: words are what white space separates.
    pub split_punctuation: u32,
    /// Answers: 1: "no answer" may be predicted, as for SQuAD 2.0; 0 (default): never.
    pub allow_no_answer: u32,
    /// Answers: tokens that neighbouring windows of a context share; default 64, at most half of
    /// the window's context.
    pub overlap: usize,
    /// Answers: an answer begins at one of the n_best tokens of a window with the greatest start
    /// logits, and ends likewise; and so many answers are listed at most; at least 1; default 20.
    pub n_best: usize,
    /// Answers: greatest length of an answer in tokens, at least 1; default 30.
    pub max_answer_tokens: usize,
    /// Answers: as in mmopt_evaluate_options; default 0.
    pub no_answer_threshold: f64,
}

impl Default for mmopt_predict_options {
    fn default() -> Self {
        let (o, answers) = (PredictOptions::default(), mmopt_evaluate_options::default());
        Self {
            struct_size: size_of::<Self>(),
            batch_size: o.batch_size,
            max_length: 0,
            split_punctuation: u32::from(o.split_punctuation),
            allow_no_answer: answers.allow_no_answer,
            overlap: o.overlap,
            n_best: answers.n_best,
            max_answer_tokens: answers.max_answer_tokens,
            no_answer_threshold: answers.no_answer_threshold,
        }
    }
}

// SAFETY: repr(C), begins with its size, numbers only.
unsafe impl Options for mmopt_predict_options {
    const NAME: &'static str = "mmopt_predict_options";
}

impl mmopt_predict_options {
    fn checked(&self) -> Result<PredictOptions> {
        Ok(PredictOptions {
            batch_size: self.batch_size,
            max_length: (self.max_length > 0).then_some(self.max_length),
            split_punctuation: flag(self.split_punctuation, "split_punctuation")?,
            overlap: self.overlap,
            answers: EvaluateOptions {
                n_best: self.n_best,
                max_answer_tokens: self.max_answer_tokens,
                allow_no_answer: flag(self.allow_no_answer, "allow_no_answer")?,
                no_answer_threshold: self.no_answer_threshold,
            },
        })
    }
}

/// Fills in the defaults. NULL is harmless.
///
/// @param[out] options filled with the defaults; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_predict_options_init(options: *mut mmopt_predict_options) {
    // SAFETY: the caller's struct, by the header's contract.
    unsafe { init(options) };
}

/// A class, an entity or an answer. mmopt_trainer_generate says what generated text has.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_prediction {
    /// The class, or the type of the entity (without B- and I-); NULL for answers.
    pub label: *const c_char,
    /// The words of the entity or the answer; empty for "no answer"; NULL for classes.
    pub text: *const c_char,
    /// Its first byte in the text, or for answers in the context.
    pub start: usize,
    /// The byte after its last. With start equal to end: no span.
    pub end: usize,
    /// 0 to 1. Of classes the softmax of the logits; of an entity the mean over its words of their
    /// tags' softmax; of answers the softmax of the scores of those that are listed.
    pub probability: f64,
    /// Of classes the logit; of an entity the mean of its words' tags' logits; of answers the start
    /// logit plus the end logit.
    pub score: f64,
}

/// What a model says about texts. Immutable.
pub struct mmopt_predictions(Cell<Predictions>);

handle!(mmopt_predictions, Predictions, "predictions");

/// The predictions for each text in C's form, and the texts that they point to.
pub struct Predictions {
    of: Vec<Vec<mmopt_prediction>>,
    _texts: Vec<CString>,
}

// SAFETY: its pointers lead to `_texts`, whose bytes never move and never change.
unsafe impl Send for Predictions {}
// SAFETY: as above.
unsafe impl Sync for Predictions {}

impl Predictions {
    pub(super) fn new(all: Vec<Vec<Prediction>>) -> Result<Self> {
        let mut kept: Vec<CString> = Vec::new();
        let mut keep = |text: Option<&String>, what: &str| -> Result<*const c_char> {
            let Some(text) = text else { return Ok(ptr::null()) };
            let text = c_string(text, what)?;
            let address = text.as_ptr();
            kept.push(text);
            Ok(address)
        };
        let mut one = |p: &Prediction| {
            Ok(mmopt_prediction {
                label: keep(p.label.as_ref(), "a label")?,
                text: keep(p.text.as_ref(), "a span")?,
                start: p.span.start,
                end: p.span.end,
                probability: p.probability,
                score: p.score,
            })
        };
        let of = all
            .iter()
            .map(|list| list.iter().map(&mut one).collect())
            .collect::<Result<Vec<Vec<_>>>>()?;
        Ok(Self { of, _texts: kept })
    }
}

/// The number of texts; 0 for NULL.
///
/// @param[in] predictions shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_predictions_n_texts(predictions: *const mmopt_predictions) -> usize {
    // SAFETY: predictions of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(predictions) }?.of.len()))
}

/// What was predicted for a text; valid as long as the predictions. Classes: all of them, most
/// probable first; of equal ones the one with the smaller id. Entities: in the order of the text;
/// there may be none. Answers: best first.
///
/// Errors: INVALID_ARGUMENT when text is out of range.
///
/// @param[in] predictions shared access.
/// @param text the index of the text, from 0.
/// @param[out] list an array.
/// @param[out] n how many.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_predictions_of(
    predictions: *const mmopt_predictions,
    text: usize,
    list: *mut *const mmopt_prediction,
    n: *mut usize,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let predictions = shared(predictions)?;
        let (list, n) = (output(list, "list")?, output(n, "n")?);
        let found = predictions.of.get(text).ok_or_else(|| {
            let n = predictions.of.len();
            crate::error::Error::invalid(format!("text {text} of {n}; counted from 0"))
        })?;
        list.set(found.as_ptr());
        n.set(found.len());
        Ok(())
    })
}

/// Frees predictions. NULL is harmless.
///
/// @param predictions may be NULL; freed by the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_predictions_free(predictions: *mut mmopt_predictions) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(predictions) };
}

/// Texts and pairs of the caller.
///
/// # Safety
/// As for [`texts`]; `pairs` may be NULL.
unsafe fn both<'a>(
    first: *const *const c_char,
    pairs: *const *const c_char,
    n: usize,
) -> Result<(Vec<&'a str>, Option<Vec<&'a str>>)> {
    // SAFETY: by this function's contract.
    unsafe {
        let first = texts(first, n, "texts")?;
        let pairs = (!pairs.is_null()).then(|| texts(pairs, n, "pairs")).transpose()?;
        Ok((first, pairs))
    }
}

/// What a model says about n texts, without dropout and gradients. Its task decides:
///
/// - sequence classification: the classes of each text, or with pairs of each pair of texts;
/// - token classification: the entities of each text; where the tags are no BIO, IOB or BIOES,
///   every word with its tag. A text that is too long is predicted in parts;
/// - question answering: texts are questions and pairs their contexts; the answers over all windows
///   of the context.
///
/// Offsets count bytes of UTF-8, from 0. A progress callback is asked before each batch, in the
/// phase MMOPT_PHASE_EVALUATE.
///
/// Errors: INVALID_ARGUMENT when model or an option is out of range, for a text that is not UTF-8,
/// pairs for token classification, none for question answering, a max_length that the special
/// tokens fill, or a tokenizer of another vocabulary than the model's, where that is known;
/// UNSUPPORTED for a model of another task; CANCELLED; and those of mmopt_trainer_evaluate.
///
/// @param[in,out] trainer exclusive access.
/// @param model the index of the model, from 0.
/// @param[in] tokenizer the model's; shared access.
/// @param[in] texts n texts, UTF-8.
/// @param[in] pairs n texts, UTF-8; may be NULL.
/// @param n how many texts.
/// @param[in] options NULL: the defaults.
/// @param[out] predictions the new object; free it with mmopt_predictions_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_predict(
    trainer: *mut mmopt_trainer,
    model: usize,
    tokenizer: *const mmopt_tokenizer,
    texts: *const *const c_char,
    pairs: *const *const c_char,
    n: usize,
    options: *const mmopt_predict_options,
    predictions: *mut *mut mmopt_predictions,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        let tokenizer = shared(tokenizer)?;
        let (texts, pairs) = both(texts, pairs, n)?;
        let options = self::options(options)?.checked()?;
        let out = output(predictions, "predictions")?;
        let (progress, n_steps) = (trainer.progress, trainer.n_steps);
        let proceed = |_: &_| progress.ask(mmopt_phase::Evaluate, model, n_steps);
        let (one, pairs) = (&mut trainer.trainer, pairs.as_deref());
        let done = predict_with(one, model, &tokenizer, &texts, pairs, &options, proceed);
        let done = trainer.trainer.log_error("prediction", done)?;
        out.set(into_raw(Predictions::new(done)?));
        Ok(())
    })
}

/// How a predictor runs. mmopt_predictor_options_init fills in the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_predictor_options {
    /// sizeof(mmopt_predictor_options).
    pub struct_size: usize,
    /// Threads that its calls share, beside the callers' own; 0 (default): one for each core.
    pub n_threads: usize,
    /// An mmopt_device; default MMOPT_DEVICE_CPU.
    pub device: u32,
    /// The GPU, from 0; default 0.
    pub device_id: i32,
    /// Sessions that it keeps open, one for each shape of batch; 0 (default): 16.
    pub max_sessions: usize,
}

impl Default for mmopt_predictor_options {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            n_threads: 0,
            device: 0,
            device_id: 0,
            max_sessions: 0,
        }
    }
}

// SAFETY: repr(C), begins with its size, numbers only.
unsafe impl Options for mmopt_predictor_options {
    const NAME: &'static str = "mmopt_predictor_options";
}

/// Fills in the defaults. NULL is harmless.
///
/// @param[out] options filled with the defaults; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_predictor_options_init(options: *mut mmopt_predictor_options) {
    // SAFETY: the caller's struct, by the header's contract.
    unsafe { init(options) };
}

/// A model and its tokenizer, for predictions alone.
pub struct mmopt_predictor(Cell<Predictor>);

handle!(mmopt_predictor, Predictor, "predictor");

/// Reads a model and its tokenizer from a directory: config.json, weights in safetensors, and the
/// tokenizer's files, as mmopt_trainer_save_model and mmopt_tokenizer_save, or Hugging Face's
/// libraries, write them. The task is that of config.json. Loads ONNX Runtime if it is not loaded.
///
/// Errors: NOT_FOUND when a file is missing; those of mmopt_trainer_create and
/// mmopt_tokenizer_load.
///
/// @param[in] directory its path, UTF-8.
/// @param[in] options NULL: the defaults.
/// @param[out] predictor the new object; free it with mmopt_predictor_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_predictor_load(
    directory: *const c_char,
    options: *const mmopt_predictor_options,
    predictor: *mut *mut mmopt_predictor,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let directory = text(directory, "directory")?;
        let o = self::options(options)?;
        let out = output(predictor, "predictor")?;
        let devices = [(0, Device::Cpu), (1, Device::Cuda { id: o.device_id })];
        let options = PredictorOptions {
            n_threads: o.n_threads,
            device: choice(o.device, "device", &devices)?,
            max_sessions: o.max_sessions,
        };
        out.set(into_raw(Predictor::load(Path::new(directory), &options)?));
        Ok(())
    })
}

/// As mmopt_trainer_predict. Threads may call it on one predictor at once: the calls run side by
/// side, share the predictor's threads, and have the results that each has alone.
///
/// Errors: as mmopt_trainer_predict.
///
/// @param[in] predictor shared access.
/// @param[in] texts n texts, UTF-8.
/// @param[in] pairs n texts, UTF-8; may be NULL.
/// @param n how many texts.
/// @param[in] options NULL: the defaults.
/// @param[out] predictions the new object; free it with mmopt_predictions_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_predictor_predict(
    predictor: *const mmopt_predictor,
    texts: *const *const c_char,
    pairs: *const *const c_char,
    n: usize,
    options: *const mmopt_predict_options,
    predictions: *mut *mut mmopt_predictions,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let predictor = shared(predictor)?;
        let (texts, pairs) = both(texts, pairs, n)?;
        let options = self::options(options)?.checked()?;
        let out = output(predictions, "predictions")?;
        let done = predictor.predict(&texts, pairs.as_deref(), &options)?;
        out.set(into_raw(Predictions::new(done)?));
        Ok(())
    })
}

/// Frees a predictor. NULL is harmless.
///
/// @param predictor may be NULL; freed by the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_predictor_free(predictor: *mut mmopt_predictor) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(predictor) };
}
