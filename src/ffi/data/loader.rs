//! Loaders: a corpus in batches, in seeded order, encoded for one or several models.

use std::ffi::c_char;
use std::sync::Arc;

use super::batch::{Batches, mmopt_batch};
use super::corpus::mmopt_corpus;
use super::tokenizer::{all, mmopt_tokenizer};
use crate::error::{Context, Error, Result};
use crate::ffi::core::args::{choice, flag, output, owned_text, reserved, text, texts};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{Cell, exclusive, free, guard, guard_or, handle, into_raw, shared};
use crate::ffi::core::structs::{Options, init, options};
use crate::text::{Corpus, Dataset, EncodeOptions, Loader, LoaderOptions, Objective, Tokenizer};

/// Yields a corpus in batches, in seeded order, with a part for each model. It owns what it needs of
/// corpus and tokenizers.
pub struct mmopt_loader(Cell<Loader>);

handle!(mmopt_loader, Loader, "loader");

/// What a language model predicts in plain text.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_objective {
    /// The next token.
    Causal = 0,
    /// Masked tokens; the tokenizer must have a mask token.
    Masked = 1,
}

/// How a corpus is encoded, ordered and padded. mmopt_loader_options_init fills in the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_loader_options {
    /// sizeof(mmopt_loader_options).
    pub struct_size: usize,
    /// Rows of a batch, at least 1; default 16.
    pub batch_size: usize,
    /// Greatest length of a sequence in tokens; 0 (default): each tokenizer's.
    pub max_length: usize,
    /// 1 (default): a new order in each epoch; 0: the order of the examples.
    pub shuffle: u32,
    /// 1: leave out a last batch that is not full. Default 0.
    pub drop_last: u32,
    /// Decides every order and every masked token; default 0.
    pub seed: u64,
    /// Batches whose examples are sorted by length together, so that little is padded; 0: none;
    /// default 32. Without shuffling nothing is sorted.
    pub bucket_batches: usize,
    /// Padded lengths are multiples of this, so that there are few shapes; default 8.
    pub pad_to_multiple_of: usize,
    /// 1 (default): all models see the same examples at the same step; 0: each has its own order,
    /// and the epoch ends with the shortest.
    pub aligned: u32,
    /// Plain text: an mmopt_objective; default MMOPT_OBJECTIVE_CAUSAL.
    pub objective: u32,
    /// Masked language modelling: the probability that a token is masked, above 0 and up to 1;
    /// default 0.15.
    pub mlm_probability: f64,
    /// Question answering: 1: a long context becomes several overlapping rows (for evaluation); 0
    /// (default): one, with the most context around the answer.
    pub all_windows: u32,
    /// Must be 0.
    pub reserved: u32,
}

impl Default for mmopt_loader_options {
    fn default() -> Self {
        let (order, encode) = (LoaderOptions::default(), EncodeOptions::default());
        Self {
            struct_size: size_of::<Self>(),
            batch_size: order.batch_size,
            max_length: 0,
            shuffle: u32::from(order.shuffle),
            drop_last: u32::from(order.drop_last),
            seed: order.seed,
            bucket_batches: order.bucket_batches,
            pad_to_multiple_of: order.pad_to_multiple_of,
            aligned: u32::from(order.aligned),
            objective: mmopt_objective::Causal as u32,
            mlm_probability: encode.mlm_probability,
            all_windows: u32::from(encode.all_windows),
            reserved: 0,
        }
    }
}

// SAFETY: repr(C), begins with its size, numbers only.
unsafe impl Options for mmopt_loader_options {
    const NAME: &'static str = "mmopt_loader_options";
}

impl mmopt_loader_options {
    fn order(&self) -> Result<LoaderOptions> {
        reserved(self.reserved == 0, "reserved")?;
        Ok(LoaderOptions {
            batch_size: self.batch_size,
            shuffle: flag(self.shuffle, "shuffle")?,
            seed: self.seed,
            bucket_batches: self.bucket_batches,
            pad_to_multiple_of: self.pad_to_multiple_of,
            drop_last: flag(self.drop_last, "drop_last")?,
            aligned: flag(self.aligned, "aligned")?,
        })
    }

    fn encode(&self) -> Result<EncodeOptions> {
        // Also where nothing is masked: a number out of range is a mistake.
        if !(self.mlm_probability > 0.0 && self.mlm_probability <= 1.0) {
            let text = format!(
                "mlm_probability is {}; it must be above 0 and at most 1",
                self.mlm_probability
            );
            return Err(Error::invalid(text));
        }
        let objectives = [(0, Objective::Causal), (1, Objective::Masked)];
        Ok(EncodeOptions {
            max_length: (self.max_length > 0).then_some(self.max_length),
            objective: choice(self.objective, "objective", &objectives)?,
            mlm_probability: self.mlm_probability,
            all_windows: flag(self.all_windows, "all_windows")?,
            ..EncodeOptions::default()
        })
    }
}

/// Fills the options with their defaults. NULL is harmless.
///
/// @param[out] options becomes the defaults; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_loader_options_init(options: *mut mmopt_loader_options) {
    // SAFETY: the caller's struct, by the header's contract.
    unsafe { init(options) };
}

fn encode(
    corpus: &Corpus,
    tokenizers: &[Arc<Tokenizer>],
    options: &EncodeOptions,
) -> Result<Vec<Arc<Dataset>>> {
    let one = |(i, tokenizer): (usize, &Arc<Tokenizer>)| {
        Dataset::encode(corpus, tokenizer, options)
            .map(Arc::new)
            .context(|| format!("tokenizers[{i}]"))
    };
    tokenizers.iter().enumerate().map(one).collect()
}

/// Encodes a corpus with the tokenizer of each of n_models models (the same one may appear twice)
/// and makes a loader that stands at the start of epoch 0.
///
/// Errors: INVALID_ARGUMENT for no tokenizer, an empty corpus, a batch_size of 0, a max_length
/// without room beside the special tokens, or not one full batch with drop_last.
///
/// @param[in] corpus only read: threads may share it.
/// @param[in] tokenizers n_models tokenizers; the same one may be there twice.
/// @param n_models how many models.
/// @param[in] options NULL: the defaults.
/// @param[out] loader becomes the new object, the caller's: mmopt_loader_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_loader_create(
    corpus: *const mmopt_corpus,
    tokenizers: *const *const mmopt_tokenizer,
    n_models: usize,
    options: *const mmopt_loader_options,
    loader: *mut *mut mmopt_loader,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let corpus = shared(corpus)?.corpus.clone();
        let tokenizers = all(tokenizers, n_models)?;
        let options = self::options(options)?;
        let loader = output(loader, "loader")?;
        let (order, encoding) = (options.order()?, options.encode()?);
        loader.set(into_raw(Loader::new(encode(&corpus, &tokenizers, &encoding)?, order)?));
        Ok(())
    })
}

/// The next batch, with a part for each model; the caller owns it: mmopt_batch_free. At the end of
/// an epoch the result is NULL without an error, and the next call begins the following epoch.
///
/// Errors: INVALID_ARGUMENT for NULL; STATE while another call uses the loader.
///
/// @param[in,out] loader changed: needed alone.
/// @param[out] batch becomes the new object, the caller's: mmopt_batch_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_loader_next(
    loader: *mut mmopt_loader,
    batch: *mut *mut mmopt_batch,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let out = output(batch, "batch")?;
        let batches = exclusive(loader)?.next_batches()?;
        out.set(match batches {
            Some(parts) => into_raw(Batches::new(parts)?),
            None => std::ptr::null_mut(),
        });
        Ok(())
    })
}

/// The batches of an epoch; 0 for NULL.
///
/// @param[in] loader only read: threads may share it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_loader_n_batches(loader: *const mmopt_loader) -> usize {
    // SAFETY: a loader of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(loader) }?.n_batches()))
}

/// Epochs done; 0 for NULL.
///
/// @param[in] loader only read: threads may share it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_loader_epoch(loader: *const mmopt_loader) -> u64 {
    // SAFETY: a loader of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(loader) }?.epoch()))
}

/// Batches of the current epoch done; 0 for NULL.
///
/// @param[in] loader only read: threads may share it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_loader_position(loader: *const mmopt_loader) -> usize {
    // SAFETY: a loader of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(loader) }?.position()))
}

/// Moves to the start of an epoch; 0 is the first.
///
/// Errors: INVALID_ARGUMENT for NULL; STATE while another call uses the loader.
///
/// @param[in,out] loader changed: needed alone.
/// @param epoch its number, from 0.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_loader_set_epoch(
    loader: *mut mmopt_loader,
    epoch: u64,
) -> *mut mmopt_error {
    // SAFETY: a loader of the caller, by the header's contract.
    guard(|| unsafe {
        exclusive(loader)?.set_epoch(epoch);
        Ok(())
    })
}

/// The position of the loader as JSON; the caller owns it: mmopt_string_free. With the same corpus,
/// tokenizers and options, mmopt_loader_restore continues from there, bit by bit.
///
/// Errors: INVALID_ARGUMENT for NULL only.
///
/// @param[in] loader only read: threads may share it.
/// @param[out] json becomes the text, the caller's: mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_loader_state(
    loader: *const mmopt_loader,
    json: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let loader = shared(loader)?;
        let json = output(json, "json")?;
        json.set(owned_text(&loader.state_json()?, "the state")?);
        Ok(())
    })
}

/// Moves to the position where mmopt_loader_state was called.
///
/// Errors: INVALID_DATA when the text is no such state, or was taken with other data, options or
/// seed; the loader is unchanged then.
///
/// @param[in,out] loader changed: needed alone.
/// @param[in] json a text of mmopt_loader_state.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_loader_restore(
    loader: *mut mmopt_loader,
    json: *const c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let json = text(json, "json")?;
        exclusive(loader)?.restore_json(json)
    })
}

/// Frees a loader. NULL is harmless.
///
/// @param loader may be NULL; gone afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_loader_free(loader: *mut mmopt_loader) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(loader) };
}

/// One batch without labels from n texts, with a part for each of n_models models, for predictions.
/// max_length: greatest length in tokens, 0 for each tokenizer's. The caller owns the batch.
///
/// Errors: INVALID_ARGUMENT for no tokenizer, no text, one that is not UTF-8, or a max_length
/// without room beside the special tokens.
///
/// @param[in] tokenizers n_models tokenizers; the same one may be there twice.
/// @param n_models how many models.
/// @param[in] texts n texts, UTF-8.
/// @param n how many.
/// @param max_length greatest length in tokens; 0: the tokenizer's.
/// @param[out] batch becomes the new object, the caller's: mmopt_batch_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_batch_encode(
    tokenizers: *const *const mmopt_tokenizer,
    n_models: usize,
    texts: *const *const c_char,
    n: usize,
    max_length: usize,
    batch: *mut *mut mmopt_batch,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let tokenizers = all(tokenizers, n_models)?;
        let texts = self::texts(texts, n, "texts")?.into_iter().map(str::to_owned).collect();
        let out = output(batch, "batch")?;
        let corpus = Corpus::from_texts(texts, &[], None)?;
        let limit = (max_length > 0).then_some(max_length);
        let how = EncodeOptions { max_length: limit, ..EncodeOptions::default() };
        let datasets = encode(&corpus, &tokenizers, &how)?;
        let parts = Loader::new(datasets, LoaderOptions::evaluation(n))?.next_batches()?;
        let parts = parts.ok_or_else(|| Error::internal("a loader without a batch"))?;
        out.set(into_raw(Batches::new(parts)?));
        Ok(())
    })
}
