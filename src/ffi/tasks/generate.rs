//! Generated text.

use std::ffi::c_char;

use super::predict::{Predictions, mmopt_predictions, mmopt_predictor};
use crate::error::Result;
use crate::ffi::core::args::{flag, output, texts};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard, into_raw, shared};
use crate::ffi::core::structs::{Options, init, options};
use crate::ffi::data::tokenizer::mmopt_tokenizer;
use crate::ffi::trainer::callback::mmopt_phase;
use crate::ffi::trainer::create::mmopt_trainer;
use crate::tasks::{GenerateOptions, generate_with};

/// How text is generated; the names are those of Hugging Face's generate.
/// mmopt_generate_options_init fills in the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_generate_options {
    /// sizeof(mmopt_generate_options).
    pub struct_size: usize,
    /// Most tokens that are added to a prompt, 1 to 1,000,000; default 64.
    pub max_new_tokens: usize,
    /// 1: tokens are drawn by their probability; 0 (default): the most probable one is taken.
    pub do_sample: u32,
    /// 0; for later versions.
    pub reserved: u32,
    /// Drawing: logits are divided by it; above 0; default 1.
    pub temperature: f64,
    /// Drawing: only the so many most probable tokens; 0 (default): all.
    pub top_k: usize,
    /// Drawing, after top_k: only the fewest most probable tokens whose probabilities sum to at
    /// least this; above 0, at most 1; default 1: all.
    pub top_p: f64,
    /// Drawing: decides what is drawn. Prompt i of a call has numbers of its own; default 0.
    pub seed: u64,
    /// Longest sequence in tokens; 0 (default): the tokenizer's or the model's, the shorter.
    pub max_length: usize,
}

impl Default for mmopt_generate_options {
    fn default() -> Self {
        let o = GenerateOptions::default();
        Self {
            struct_size: size_of::<Self>(),
            max_new_tokens: o.max_new_tokens,
            do_sample: u32::from(o.do_sample),
            reserved: 0,
            temperature: o.temperature,
            top_k: o.top_k,
            top_p: o.top_p,
            seed: o.seed,
            max_length: 0,
        }
    }
}

// SAFETY: repr(C), begins with its size, numbers only.
unsafe impl Options for mmopt_generate_options {
    const NAME: &'static str = "mmopt_generate_options";
}

impl mmopt_generate_options {
    fn checked(&self) -> Result<GenerateOptions> {
        crate::ffi::core::args::reserved(self.reserved == 0, "reserved")?;
        Ok(GenerateOptions {
            max_new_tokens: self.max_new_tokens,
            do_sample: flag(self.do_sample, "do_sample")?,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            seed: self.seed,
            max_length: (self.max_length > 0).then_some(self.max_length),
        })
    }
}

/// Fills in the defaults. NULL is harmless.
///
/// @param[out] options filled with the defaults; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_generate_options_init(options: *mut mmopt_generate_options) {
    // SAFETY: the caller's struct, by the header's contract.
    unsafe { init(options) };
}

/// What a model that predicts the next token (MMOPT_TASK_CAUSAL_LM, such as a GPT-2) writes after
/// each of n prompts, without dropout and gradients. mmopt_predictions_of gives for each prompt one
/// mmopt_prediction: text is what comes after the prompt; label is "stop" when the model ended the
/// text by its end token, which text does not have, else "length"; score is the sum of the
/// logarithms of the tokens' probabilities by the logits as they are, and probability e to the mean
/// of these; start and end are 0.
///
/// A text that is longer than max_length is cut at the left: the model reads its last tokens. An
/// empty prompt stands for the token that begins or ends a text. Prompts are run one after another,
/// so that each has the result that it has alone. Each token costs a pass over the text. The same
/// seed gives the same text.
///
/// A progress callback is asked before each token, in the phase MMOPT_PHASE_EVALUATE.
///
/// Errors: INVALID_ARGUMENT when model or an option is out of range, for a prompt that is not
/// UTF-8, or an empty one where the tokenizer has no token for it; UNSUPPORTED for a model of
/// another task; RUNTIME when logits are not finite; CANCELLED; and those of
/// mmopt_trainer_evaluate.
///
/// @param[in,out] trainer exclusive access.
/// @param model the index of the model, from 0.
/// @param[in] tokenizer the model's; shared access.
/// @param[in] prompts n texts, UTF-8.
/// @param n how many prompts.
/// @param[in] options NULL: the defaults.
/// @param[out] predictions the new object; free it with mmopt_predictions_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_generate(
    trainer: *mut mmopt_trainer,
    model: usize,
    tokenizer: *const mmopt_tokenizer,
    prompts: *const *const c_char,
    n: usize,
    options: *const mmopt_generate_options,
    predictions: *mut *mut mmopt_predictions,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        let tokenizer = shared(tokenizer)?;
        let prompts = texts(prompts, n, "prompts")?;
        let options = self::options(options)?.checked()?;
        let out = output(predictions, "predictions")?;
        let (progress, n_steps) = (trainer.progress, trainer.n_steps);
        let proceed = |_: &_| progress.ask(mmopt_phase::Evaluate, model, n_steps);
        let one = &mut trainer.trainer;
        let done = generate_with(one, model, &tokenizer, &prompts, &options, proceed);
        let done = trainer.trainer.log_error("generation", done)?;
        out.set(into_raw(Predictions::new(done)?));
        Ok(())
    })
}

/// As mmopt_trainer_generate, of a predictor's model. Threads may call it on one predictor at once.
///
/// Errors: as mmopt_trainer_generate.
///
/// @param[in] predictor shared access.
/// @param[in] prompts n texts, UTF-8.
/// @param n how many prompts.
/// @param[in] options NULL: the defaults.
/// @param[out] predictions the new object; free it with mmopt_predictions_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_predictor_generate(
    predictor: *const mmopt_predictor,
    prompts: *const *const c_char,
    n: usize,
    options: *const mmopt_generate_options,
    predictions: *mut *mut mmopt_predictions,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let predictor = shared(predictor)?;
        let prompts = texts(prompts, n, "prompts")?;
        let options = self::options(options)?.checked()?;
        let out = output(predictions, "predictions")?;
        out.set(into_raw(Predictions::new(predictor.generate(&prompts, &options)?)?));
        Ok(())
    })
}
