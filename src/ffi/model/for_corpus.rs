//! Fresh models that fit a tokenizer and a corpus.

use std::ffi::c_char;

use super::config::{mmopt_model_config, mmopt_task, task};
use super::create::{give, mmopt_model};
use crate::error::Context;
use crate::ffi::core::args::{output, text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{guard, shared};
use crate::ffi::core::structs::options;
use crate::ffi::data::corpus::mmopt_corpus;
use crate::ffi::data::tokenizer::mmopt_tokenizer;
use crate::text::{Corpus, SpecialToken, TextTask, Tokenizer};
use crate::train::Source;

/// A fresh model that fits a tokenizer and a corpus: vocabulary, padding token and longest sequence
/// come from the tokenizer; task and classes, with their names, from the corpus. The rest, with the
/// architecture, comes from sizes (NULL: the defaults). For plain text the task stays that of
/// sizes, where anything but MMOPT_TASK_MASKED_LM becomes MMOPT_TASK_CAUSAL_LM.
///
/// Errors: as mmopt_model_create.
///
/// @param[in] name UTF-8.
/// @param[in] sizes NULL: a small BERT.
/// @param[in] tokenizer only read: threads may share it.
/// @param[in] corpus only read: threads may share it.
/// @param[out] model becomes the new object, the caller's: mmopt_model_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_for_corpus(
    name: *const c_char,
    sizes: *const mmopt_model_config,
    tokenizer: *const mmopt_tokenizer,
    corpus: *const mmopt_corpus,
    model: *mut *mut mmopt_model,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let name = text(name, "name")?;
        let mut sizes = options(sizes)?;
        task(sizes.task, 1)?;
        let tokenizer = shared(tokenizer)?;
        fit_tokenizer(&mut sizes, &tokenizer);
        let corpus = shared(corpus)?.corpus.clone();
        fit_corpus(&mut sizes, &corpus);
        let model = output(model, "model")?;
        let labels = corpus.labels().names().to_vec();
        let (mut config, task) = sizes.config(labels).context(|| format!("model '{name}'"))?;
        for (key, special) in
            [("bos_token_id", SpecialToken::Bos), ("eos_token_id", SpecialToken::Eos)]
        {
            if let Some(id) = tokenizer.special_token_id(special) {
                config.other.insert(key.to_owned(), id.into());
            }
        }
        model.set(give(name, Source::Config(Box::new(config)), Some(task)));
        Ok(())
    })
}

fn fit_tokenizer(sizes: &mut mmopt_model_config, tokenizer: &Tokenizer) {
    sizes.vocab_size = tokenizer.vocab_size();
    sizes.positions = tokenizer.model_max_length();
    let pad = tokenizer
        .special_token_id(SpecialToken::Pad)
        .or(tokenizer.special_token_id(SpecialToken::Eos));
    sizes.pad_id = pad.map_or(-1, i64::from);
}

fn fit_corpus(sizes: &mut mmopt_model_config, corpus: &Corpus) {
    sizes.n_labels = corpus.labels().len();
    let masked = sizes.task == mmopt_task::MaskedLm as u32;
    sizes.task = match corpus.task() {
        TextTask::Classification => mmopt_task::SequenceClassification,
        TextTask::TokenClassification => mmopt_task::TokenClassification,
        TextTask::QuestionAnswering => mmopt_task::QuestionAnswering,
        TextTask::LanguageModeling if masked => mmopt_task::MaskedLm,
        TextTask::LanguageModeling => mmopt_task::CausalLm,
    } as u32;
}
