//! Metrics of text tasks over the host's predictions, and the answers that a model predicts.

use std::ffi::c_char;

use super::batch::mmopt_batch;
use crate::error::{Error, Result};
use crate::ffi::core::args::{optional_output, output, owned_text, slice, texts};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{guard, shared};
use crate::text::metrics::{
    EntityMode, EntityScores, Score, accuracy, answer_scores, entity_scores_of_ids_in, macro_f1,
};

/// The fraction of n predicted classes that equal their label, 0 to 1. Entries whose label is
/// negative, such as -100, are left out; 0 when none is left.
///
/// Errors: only those of any call.
///
/// @param[in] predictions n classes.
/// @param[in] labels n classes; negative: left out.
/// @param n how many classes.
/// @param[out] value the accuracy.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_metrics_accuracy(
    predictions: *const i64,
    labels: *const i64,
    n: usize,
    value: *mut f64,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let (predictions, labels) = pair(predictions, labels, n)?;
        output(value, "value")?.set(accuracy(predictions, labels)?);
        Ok(())
    })
}

/// The unweighted mean of the F1 of each class that occurs among n labels or predictions, 0 to 1.
/// Entries whose label is negative, such as -100, are left out; 0 when none is left.
///
/// Errors: only those of any call.
///
/// @param[in] predictions n classes.
/// @param[in] labels n classes; negative: left out.
/// @param n how many classes.
/// @param[out] value the macro F1.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_metrics_macro_f1(
    predictions: *const i64,
    labels: *const i64,
    n: usize,
    value: *mut f64,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let (predictions, labels) = pair(predictions, labels, n)?;
        output(value, "value")?.set(macro_f1(predictions, labels)?);
        Ok(())
    })
}

unsafe fn pair<'a>(
    predictions: *const i64,
    labels: *const i64,
    n: usize,
) -> Result<(&'a [i64], &'a [i64])> {
    // SAFETY: the caller's arrays, by the header's contract.
    unsafe { Ok((slice(predictions, n, "predictions")?, slice(labels, n, "labels")?)) }
}

/// Scores of named entities over all types. An entity is right when its type and both ends are.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_entity_scores {
    /// n_correct / n_predicted; 0 without predictions.
    pub precision: f64,
    /// n_correct / support; 0 without support.
    pub recall: f64,
    /// The harmonic mean of precision and recall; 0 when both are 0.
    pub f1: f64,
    /// The fraction of tags that equal their label.
    pub accuracy: f64,
    /// Entities of the labels.
    pub support: u64,
    /// Entities of the predictions.
    pub n_predicted: u64,
    /// Entities of the predictions that are entities of the labels.
    pub n_correct: u64,
    /// 0; for later versions.
    pub reserved: [u64; 4],
}

impl From<&EntityScores> for mmopt_entity_scores {
    fn from(s: &EntityScores) -> Self {
        Self {
            precision: s.overall.precision,
            recall: s.overall.recall,
            f1: s.overall.f1,
            accuracy: s.accuracy,
            support: s.overall.support as u64,
            n_predicted: s.overall.n_predicted as u64,
            n_correct: s.overall.n_correct as u64,
            reserved: [0; 4],
        }
    }
}

/// Precision, recall and F1 of named entities, counted as the CoNLL script conlleval does. Tags are
/// BIO, IOB or BIOES: O, or a prefix, a hyphen and a type, such as B-PER.
///
/// predictions and labels hold n_sequences rows of length tags each, as ids: positions in tags,
/// such as those of a corpus (mmopt_corpus_label_name). Entries whose label is negative are left
/// out, so the labels of a token classification batch fit as they are: -100 stands for padding and
/// for all but the first token of a word.
///
/// Errors: INVALID_ARGUMENT for a length of 0, or an id that is not below n_tags.
///
/// @param[in] predictions n_sequences * length ids.
/// @param[in] labels n_sequences * length ids; negative: left out.
/// @param n_sequences how many rows.
/// @param length tags of a row, at least 1.
/// @param[in] tags n_tags names, UTF-8.
/// @param n_tags how many names.
/// @param[out] scores the scores over all types.
/// @param[out] by_type a JSON object with precision, recall, f1, support, n_predicted and
/// n_correct for each type; free it with mmopt_string_free; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_metrics_entities(
    predictions: *const i64,
    labels: *const i64,
    n_sequences: usize,
    length: usize,
    tags: *const *const c_char,
    n_tags: usize,
    scores: *mut mmopt_entity_scores,
    by_type: *mut *mut c_char,
) -> *mut mmopt_error {
    let out = (scores, by_type);
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let rows = Rows { predictions, labels, n_sequences, length, tags, n_tags };
        rows.score(EntityMode::Lenient, out)
    })
}

/// As mmopt_metrics_entities, counted as seqeval does in strict mode: a B- tag begins an entity,
/// only I- tags of its type continue it; with tags E- and S-, E- ends it and S- is one.
///
/// Errors: as mmopt_metrics_entities.
///
/// @param[in] predictions n_sequences * length ids.
/// @param[in] labels n_sequences * length ids; negative: left out.
/// @param n_sequences how many rows.
/// @param length tags of a row, at least 1.
/// @param[in] tags n_tags names, UTF-8.
/// @param n_tags how many names.
/// @param[out] scores the scores over all types.
/// @param[out] by_type as for mmopt_metrics_entities; free it with mmopt_string_free; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_metrics_strict_entities(
    predictions: *const i64,
    labels: *const i64,
    n_sequences: usize,
    length: usize,
    tags: *const *const c_char,
    n_tags: usize,
    scores: *mut mmopt_entity_scores,
    by_type: *mut *mut c_char,
) -> *mut mmopt_error {
    let out = (scores, by_type);
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let rows = Rows { predictions, labels, n_sequences, length, tags, n_tags };
        rows.score(EntityMode::Strict, out)
    })
}

/// The caller's rows of tags.
struct Rows {
    predictions: *const i64,
    labels: *const i64,
    n_sequences: usize,
    length: usize,
    tags: *const *const c_char,
    n_tags: usize,
}

impl Rows {
    /// # Safety
    /// The pointers are the caller's, by the header's contract.
    unsafe fn score(
        &self,
        mode: EntityMode,
        (scores, by_type): (*mut mmopt_entity_scores, *mut *mut c_char),
    ) -> Result<()> {
        let Self { n_sequences, length, .. } = *self;
        // At least one, so that an impossible length is refused without any sequence, too.
        if n_sequences.max(1).checked_mul(length).is_none_or(|n| n > isize::MAX as usize / 8) {
            let message = format!("{n_sequences} sequences of length {length} fit no memory");
            return Err(Error::invalid(message));
        }
        // SAFETY: by this function's contract.
        unsafe {
            let (predictions, labels) = pair(self.predictions, self.labels, n_sequences * length)?;
            let tags = texts(self.tags, self.n_tags, "tags")?;
            let (scores, by_type) =
                (output(scores, "scores")?, optional_output(by_type, "by_type")?);
            let found = entity_scores_of_ids_in(mode, predictions, labels, length, &tags)?;
            if by_type.is_wanted() {
                by_type.set(owned_text(&types_json(&found), "the scores by type")?);
            }
            scores.set((&found).into());
        }
        Ok(())
    }
}

fn types_json(scores: &EntityScores) -> String {
    let one = |s: &Score| {
        serde_json::json!({
            "precision": s.precision, "recall": s.recall, "f1": s.f1,
            "support": s.support, "n_predicted": s.n_predicted, "n_correct": s.n_correct,
        })
    };
    let types = scores.by_type.iter().map(|(name, s)| (name.clone(), one(s)));
    serde_json::Value::Object(types.collect()).to_string()
}

/// Exact match and F1 of n predicted answers, both in per cent, as SQuAD's evaluation script prints
/// them: answers are compared in lower case, without punctuation and the articles a, an, the; F1
/// counts common words; of several accepted answers the best counts.
///
/// answers holds the accepted answers of all questions one after the other, n_answers how many each
/// question has. With none, the right answer is empty.
///
/// Errors: only those of any call.
///
/// @param[in] predictions n texts, UTF-8.
/// @param[in] answers as many texts as the sum of n_answers, UTF-8; may be NULL when there are
/// none.
/// @param[in] n_answers for each question how many answers are accepted.
/// @param n how many questions.
/// @param[out] exact_match the percentage of answers that equal an accepted one.
/// @param[out] f1 the mean F1, 0 to 100.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_metrics_answers(
    predictions: *const *const c_char,
    answers: *const *const c_char,
    n_answers: *const usize,
    n: usize,
    exact_match: *mut f64,
    f1: *mut f64,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let owned = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let predictions = owned(texts(predictions, n, "predictions")?);
        let counts = slice(n_answers, n, "n_answers")?;
        let total = counts.iter().try_fold(0usize, |sum, &n| sum.checked_add(n));
        let total = total.ok_or_else(|| Error::invalid("n_answers: the sum fits no memory"))?;
        let mut answers = owned(texts(answers, total, "answers")?).into_iter();
        let accepted: Vec<Vec<String>> =
            counts.iter().map(|&n| answers.by_ref().take(n).collect()).collect();
        let (exact_match, f1) = (output(exact_match, "exact_match")?, output(f1, "f1")?);
        let scores = answer_scores(&predictions, &accepted)?;
        exact_match.set(scores.exact_match);
        f1.set(scores.f1);
        Ok(())
    })
}

/// The span of a context that a model predicts as the answer to a question.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_answer {
    /// Its first byte in the context.
    pub start: usize,
    /// The byte after its last.
    pub end: usize,
    /// Start logit plus end logit; NaN without an answer. With all_windows a question has several
    /// rows (mmopt_batch_examples says which), and its answer is that of the greatest score.
    pub score: f64,
}

/// The best answer of one row of a question answering batch: the span of at most max_answer_tokens
/// tokens of the context with the greatest sum of start and end logit; of equal ones the first.
///
/// start_logits and end_logits are one row of the outputs of mmopt_trainer_evaluate on this batch,
/// n_tokens logits each. Where the row has no token of the context, text becomes NULL, start and
/// end 0 and score NaN, without an error. Whether a question has no answer is for the caller to
/// decide, for example by comparing the score with the sum of the first start and end logit.
///
/// Errors: INVALID_ARGUMENT for a model or row out of range, a batch of another task, n_tokens
/// that is not the batch's length, or a max_answer_tokens of 0.
///
/// @param[in] batch shared access.
/// @param model the index of the model, from 0.
/// @param row the index of the row, from 0.
/// @param[in] start_logits n_tokens numbers.
/// @param[in] end_logits n_tokens numbers.
/// @param n_tokens the length of the batch, the second dimension of its input_ids.
/// @param max_answer_tokens greatest length of an answer in tokens, at least 1.
/// @param[out] answer the span and its score.
/// @param[out] text the text of the span, or NULL; free it with mmopt_string_free; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_batch_best_answer(
    batch: *const mmopt_batch,
    model: usize,
    row: usize,
    start_logits: *const f32,
    end_logits: *const f32,
    n_tokens: usize,
    max_answer_tokens: usize,
    answer: *mut mmopt_answer,
    text: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let batch = shared(batch)?;
        let (context, length) = batch.context(model, row)?;
        if n_tokens != length {
            let message = format!("n_tokens is {n_tokens}, but the batch's length is {length}");
            return Err(Error::invalid(message));
        }
        if max_answer_tokens == 0 {
            return Err(Error::invalid("max_answer_tokens is 0; it must be at least 1"));
        }
        let starts = slice(start_logits, n_tokens, "start_logits")?;
        let ends = slice(end_logits, n_tokens, "end_logits")?;
        let (answer, text) = (output(answer, "answer")?, optional_output(text, "text")?);
        let Some(best) = context.best_answer(starts, ends, max_answer_tokens)? else {
            answer.set(mmopt_answer { start: 0, end: 0, score: f64::NAN });
            text.set(std::ptr::null_mut());
            return Ok(());
        };
        if text.is_wanted() {
            let words = context.text.get(best.start..best.end).unwrap_or_default();
            text.set(owned_text(words, "the answer")?);
        }
        let (start, end, score) = (best.start, best.end, f64::from(best.score));
        answer.set(mmopt_answer { start, end, score });
        Ok(())
    })
}
