//! Evaluation over a loader: the scores of each task.

use std::ffi::c_char;

use crate::error::Result;
use crate::ffi::core::args::{flag, optional_output, output, owned_text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard, shared};
use crate::ffi::core::structs::{Options, init, options};
use crate::ffi::data::loader::mmopt_loader;
use crate::ffi::trainer::callback::mmopt_phase;
use crate::ffi::trainer::create::mmopt_trainer;
use crate::tasks::{EvaluateOptions, Scores, evaluate_with};

/// How predictions are made for scores. Only question answering has a choice.
/// mmopt_evaluate_options_init fills in the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_evaluate_options {
    /// sizeof(mmopt_evaluate_options).
    pub struct_size: usize,
    /// Question answering: an answer begins at one of the n_best tokens of a window with the
    /// greatest start logits, and ends likewise; at least 1; default 20.
    pub n_best: usize,
    /// Question answering: greatest length of an answer in tokens, at least 1; default 30.
    pub max_answer_tokens: usize,
    /// Question answering: 1: "no answer" may be predicted, as for SQuAD 2.0; 0 (default): never.
    pub allow_no_answer: u32,
    /// 0; for later versions.
    pub reserved: u32,
    /// Question answering: "no answer" is predicted when its score, the sum of the first start and
    /// end logit, least over the windows, exceeds that of the best answer by more than this; a
    /// number, also infinite; default 0.
    pub no_answer_threshold: f64,
}

impl Default for mmopt_evaluate_options {
    fn default() -> Self {
        let o = EvaluateOptions::default();
        Self {
            struct_size: size_of::<Self>(),
            n_best: o.n_best,
            max_answer_tokens: o.max_answer_tokens,
            allow_no_answer: u32::from(o.allow_no_answer),
            reserved: 0,
            no_answer_threshold: o.no_answer_threshold,
        }
    }
}

// SAFETY: repr(C), begins with its size, numbers only.
unsafe impl Options for mmopt_evaluate_options {
    const NAME: &'static str = "mmopt_evaluate_options";
}

impl mmopt_evaluate_options {
    pub(crate) fn checked(&self) -> Result<EvaluateOptions> {
        crate::ffi::core::args::reserved(self.reserved == 0, "reserved")?;
        Ok(EvaluateOptions {
            n_best: self.n_best,
            max_answer_tokens: self.max_answer_tokens,
            allow_no_answer: flag(self.allow_no_answer, "allow_no_answer")?,
            no_answer_threshold: self.no_answer_threshold,
        })
    }
}

/// Fills in the defaults. NULL is harmless.
///
/// @param[out] options filled with the defaults; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_evaluate_options_init(options: *mut mmopt_evaluate_options) {
    // SAFETY: the caller's struct, by the header's contract.
    unsafe { init(options) };
}

/// The scores of a model on a corpus. What the corpus's task does not have is NaN.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_scores {
    /// One number to compare models by, 0 to 1, greater is better: entity_f1 for tags in BIO, IOB
    /// or BIOES; answer_f1 / 100 for questions; else accuracy.
    pub score: f64,
    /// The mean loss over the labels that count, of the whole corpus.
    pub loss: f64,
    /// n_correct / n_labels.
    pub accuracy: f64,
    /// Classes and tags: the unweighted mean of the F1 of each that occurs among labels or
    /// predictions.
    pub macro_f1: f64,
    /// Entities, counted as the script conlleval does (and seqeval by default).
    pub entity_precision: f64,
    /// As entity_precision.
    pub entity_recall: f64,
    /// As entity_precision: the harmonic mean of both.
    pub entity_f1: f64,
    /// Entities, counted as seqeval does in strict mode: a B- tag begins one, only I- tags of its
    /// type continue it; with tags E- and S-, E- ends it and S- is one.
    pub strict_entity_precision: f64,
    /// As strict_entity_precision.
    pub strict_entity_recall: f64,
    /// As strict_entity_precision: the harmonic mean of both.
    pub strict_entity_f1: f64,
    /// Questions: per cent of the answers that equal an accepted one, by SQuAD's script.
    pub exact_match: f64,
    /// Questions: mean F1 of the answers' words, 0 to 100, by SQuAD's script.
    pub answer_f1: f64,
    /// Language models: exp(loss).
    pub perplexity: f64,
    /// The examples; of packed text, its rows.
    pub n_examples: u64,
    /// The labels that count, neither missing nor ignored: texts, words, windows of contexts, or
    /// tokens.
    pub n_labels: u64,
    /// The labels that were predicted; of a window, start and end.
    pub n_correct: u64,
    /// Tags: words that the model did not see, because their sentence was cut off before them.
    pub n_words_unseen: u64,
    /// 0; for later versions.
    pub reserved: [u64; 4],
}

impl From<&Scores> for mmopt_scores {
    fn from(s: &Scores) -> Self {
        let number = |value: Option<f64>| value.unwrap_or(f64::NAN);
        let lenient = s.entities().map(|e| e.overall);
        let strict = s.strict_entities().map(|e| e.overall);
        let answers = s.answers();
        Self {
            score: s.score(),
            loss: s.loss,
            accuracy: s.accuracy(),
            macro_f1: number(s.macro_f1()),
            entity_precision: number(lenient.map(|e| e.precision)),
            entity_recall: number(lenient.map(|e| e.recall)),
            entity_f1: number(lenient.map(|e| e.f1)),
            strict_entity_precision: number(strict.map(|e| e.precision)),
            strict_entity_recall: number(strict.map(|e| e.recall)),
            strict_entity_f1: number(strict.map(|e| e.f1)),
            exact_match: number(answers.map(|a| a.exact_match)),
            answer_f1: number(answers.map(|a| a.f1)),
            perplexity: number(s.perplexity()),
            n_examples: s.n_examples,
            n_labels: s.n_labels,
            n_correct: s.n_correct,
            n_words_unseen: s.n_words_unseen(),
            reserved: [0; 4],
        }
    }
}

/// The scores of a model on its part of a loader: each example once, in order, in batches of the
/// loader's batch_size, without dropout and gradients. The loader's shuffle, drop_last and aligned
/// do not matter here, nor where it stands; it stays there. Masked language models are scored on
/// the same masks each time. The loader was made for as many models as the trainer has.
///
/// Words that were cut off (mmopt_scores.n_words_unseen) count for entities as if the model had
/// tagged them O, so their entities are missed; accuracy, macro_f1 and loss leave them out.
///
/// A progress callback is asked before each batch, in the phase MMOPT_PHASE_EVALUATE.
///
/// Errors: INVALID_ARGUMENT when model or an option is out of range, for a loader for another
/// number of models, a corpus without labels, questions without all_windows, or allow_no_answer
/// with a tokenizer that has no token for it, and when the loader's tokenizer has another
/// vocabulary than the model's, where that is known, or the corpus has the model's classes in
/// another order; SHAPE when the model has the head of another task; CANCELLED; and those of
/// mmopt_trainer_evaluate.
///
/// @param[in,out] trainer exclusive access.
/// @param model the index of the model, from 0.
/// @param[in] loader shared access.
/// @param[in] options NULL: the defaults.
/// @param[out] scores the scores.
/// @param[out] json the scores as a JSON object, with those of each class (classes,
/// confusion_matrix[label][prediction]) and of each type of entities (entities.by_type,
/// strict_entities.by_type); free it with mmopt_string_free; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_evaluate_loader(
    trainer: *mut mmopt_trainer,
    model: usize,
    loader: *const mmopt_loader,
    options: *const mmopt_evaluate_options,
    scores: *mut mmopt_scores,
    json: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        let loader = shared(loader)?;
        let options = self::options(options)?.checked()?;
        let (scores, json) = (output(scores, "scores")?, optional_output(json, "json")?);
        let (progress, n_steps) = (trainer.progress, trainer.n_steps);
        let proceed = |_: &_| progress.ask(mmopt_phase::Evaluate, model, n_steps);
        let done = evaluate_with(&mut trainer.trainer, model, &loader, &options, proceed);
        let done = trainer.trainer.log_error("evaluation", done)?;
        if json.is_wanted() {
            json.set(owned_text(&done.to_json(), "the scores")?);
        }
        scores.set((&done).into());
        Ok(())
    })
}
