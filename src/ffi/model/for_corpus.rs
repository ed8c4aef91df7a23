//! Fresh models that fit a tokenizer and a corpus.

use std::ffi::c_char;
use std::path::Path;
use std::sync::Arc;

use super::config::{mmopt_model_config, mmopt_task, task};
use super::create::mmopt_model;
use crate::error::{Context, Error, Result};
use crate::ffi::core::architecture::mmopt_architecture;
use crate::ffi::core::args::{model_name, output, text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard, into_raw, shared};
use crate::ffi::core::structs::options;
use crate::ffi::data::corpus::mmopt_corpus;
use crate::ffi::data::tokenizer::mmopt_tokenizer;
use crate::models::{Architecture, Config};
use crate::text::{Corpus, SpecialToken, TextTask, Tokenizer};
use crate::train::{ModelOptions, Source, Tokens};

/// A fresh model that fits a tokenizer and a corpus: vocabulary size, padding token and longest
/// sequence are the tokenizer's; task and classes are the corpus's. config gives the rest. For
/// plain text the task is MMOPT_TASK_MASKED_LM if config says so; else MMOPT_TASK_CAUSAL_LM for
/// GPT-2, and MMOPT_TASK_MASKED_LM for the others.
/// The model knows its vocabulary, as after mmopt_model_set_tokenizer.
///
/// Errors: as mmopt_model_create; INVALID_ARGUMENT for texts that are all of one class.
///
/// @param[in] name of the model, UTF-8.
/// @param[in] config NULL: a small BERT.
/// @param[in] tokenizer shared access.
/// @param[in] corpus shared access.
/// @param[out] model the new object; free it with mmopt_model_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_for_corpus(
    name: *const c_char,
    config: *const mmopt_model_config,
    tokenizer: *const mmopt_tokenizer,
    corpus: *const mmopt_corpus,
    model: *mut *mut mmopt_model,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let name = model_name(name)?;
        let mut config = options(config)?;
        task(config.task, 1)?;
        let tokenizer = shared(tokenizer)?;
        fit_tokenizer(&mut config, &tokenizer);
        let corpus = shared(corpus)?.corpus.clone();
        check_classes(&corpus).context(|| format!("model '{name}'"))?;
        fit_corpus(&mut config, &corpus);
        let model = output(model, "model")?;
        let labels = corpus.labels().names().to_vec();
        let (mut config, task) = config.config(labels).context(|| format!("model '{name}'"))?;
        for (key, special) in
            [("bos_token_id", SpecialToken::Bos), ("eos_token_id", SpecialToken::Eos)]
        {
            if let Some(id) = tokenizer.special_token_id(special) {
                config.other.insert(key.to_owned(), id.into());
            }
        }
        let tokens = Some(Arc::new(tokens(&tokenizer)));
        let source = Source::Config(Box::new(config));
        let made = ModelOptions { task: Some(task), tokens, ..ModelOptions::new(name, source) };
        model.set(into_raw(made));
        Ok(())
    })
}

/// The model in a directory, as mmopt_model_from_directory, with the task and the classes of a
/// corpus: a published body for a task of one's own. A head in the directory stays if it is of the
/// same task and has the same names of classes in the same order; else it is fresh. For plain text
/// the task is MMOPT_TASK_CAUSAL_LM for GPT-2, and MMOPT_TASK_MASKED_LM for the others. The model
/// knows its vocabulary, as after mmopt_model_set_tokenizer.
///
/// Errors: INVALID_ARGUMENT for an empty name, or a corpus without labels whose task needs them;
/// NOT_FOUND, IO or INVALID_DATA when config.json cannot be read. Weights are read when the trainer
/// is created.
///
/// @param[in] name of the model, UTF-8.
/// @param[in] directory the directory, UTF-8.
/// @param[in] tokenizer that of the directory (mmopt_tokenizer_load); shared access.
/// @param[in] corpus shared access.
/// @param[out] model the new object; free it with mmopt_model_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_pretrained_for_corpus(
    name: *const c_char,
    directory: *const c_char,
    tokenizer: *const mmopt_tokenizer,
    corpus: *const mmopt_corpus,
    model: *mut *mut mmopt_model,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let (name, directory) = (model_name(name)?, Path::new(text(directory, "directory")?));
        let tokens = tokens(&**shared(tokenizer)?);
        let corpus = shared(corpus)?.corpus.clone();
        let model = output(model, "model")?;
        let place = || format!("model '{name}'");
        check_classes(&corpus).context(place)?;
        let config = Config::read(directory).context(place)?;
        let is_gpt2 = config.architecture == Architecture::Gpt2;
        let task = task(task_of(&corpus, !is_gpt2) as u32, corpus.labels().len()).context(place)?;
        let names = corpus.labels().names();
        model.set(into_raw(ModelOptions {
            task: Some(task),
            // What was trained on other classes says nothing about these.
            fresh_head: !names.is_empty() && config.labels != names,
            label_names: names.to_vec(),
            tokens: Some(Arc::new(tokens)),
            ..ModelOptions::new(name, Source::Directory(directory.to_owned()))
        }));
        Ok(())
    })
}

/// Tells a model its vocabulary: the text of each token id, which is copied. The option start needs
/// it, to match the rows of token embeddings. mmopt_model_for_corpus sets it, and for a model from
/// a directory it is that of the tokenizer's files there, if there are any, this function was
/// not called, and start or token_embeddings needs it. Batches of a tokenizer with other tokens are
/// refused.
///
/// Errors: only those of any call; a tokenizer with more ids than the token embedding has rows
/// fails the trainer's creation if start needs it.
///
/// @param[in,out] model exclusive access.
/// @param[in] tokenizer shared access.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_set_tokenizer(
    model: *mut mmopt_model,
    tokenizer: *const mmopt_tokenizer,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut model = exclusive(model)?;
        model.tokens = Some(Arc::new(tokens(&**shared(tokenizer)?)));
        Ok(())
    })
}

fn tokens(tokenizer: &Tokenizer) -> Tokens {
    let id = |special| tokenizer.special_token_id(special).map(|id| id as usize);
    Tokens {
        pieces: tokenizer.pieces().to_vec(),
        pad: id(SpecialToken::Pad),
        unknown: id(SpecialToken::Unk),
        first: id(SpecialToken::Cls).or(id(SpecialToken::Bos)),
        last: id(SpecialToken::Sep).or(id(SpecialToken::Eos)),
        mask: id(SpecialToken::Mask),
    }
}

/// Gives a model from a directory the vocabulary of the tokenizer's files there. Without files that
/// can be read it stays unknown, and what needs it says so.
pub(crate) fn find_tokens(model: &mut ModelOptions) {
    if let (Source::Directory(dir), None) = (&model.source, &model.tokens) {
        model.tokens = Tokenizer::load(Path::new(dir)).ok().map(|t| Arc::new(tokens(&t)));
    }
}

fn fit_tokenizer(config: &mut mmopt_model_config, tokenizer: &Tokenizer) {
    config.vocab_size = tokenizer.vocab_size();
    config.n_positions = tokenizer.model_max_length();
    let pad = tokenizer
        .special_token_id(SpecialToken::Pad)
        .or(tokenizer.special_token_id(SpecialToken::Eos));
    config.pad_token_id = pad.map_or(-1, i64::from);
}

fn fit_corpus(config: &mut mmopt_model_config, corpus: &Corpus) {
    config.n_labels = corpus.labels().len();
    let is_gpt2 = config.architecture == mmopt_architecture::Gpt2 as u32;
    let masked = config.task == mmopt_task::MaskedLm as u32 || !is_gpt2;
    config.task = task_of(corpus, masked) as u32;
}

/// Refuses a corpus of one class: a model with one label predicts a number.
fn check_classes(corpus: &Corpus) -> Result<()> {
    match (corpus.task(), corpus.labels().names()) {
        (TextTask::Classification, [only]) => Err(Error::invalid(format!(
            "the corpus has one class, '{only}': there is nothing to tell apart"
        ))),
        _ => Ok(()),
    }
}

/// The task of a corpus; `masked` says which of the two that plain text has.
fn task_of(corpus: &Corpus, masked: bool) -> mmopt_task {
    match corpus.task() {
        TextTask::Classification => mmopt_task::SequenceClassification,
        TextTask::TokenClassification => mmopt_task::TokenClassification,
        TextTask::QuestionAnswering => mmopt_task::QuestionAnswering,
        TextTask::LanguageModeling if masked => mmopt_task::MaskedLm,
        TextTask::LanguageModeling => mmopt_task::CausalLm,
    }
}
