//! Loaders: a corpus in batches, in seeded order, encoded for one or several models.

use std::ffi::c_char;
use std::path::Path;
use std::sync::Arc;

use super::batch::{Batches, mmopt_batch};
use super::corpus::{mmopt_corpus, sample_by_of};
use super::tokenizer::{all, mmopt_tokenizer};
use crate::error::{Context, Error, Result};
use crate::ffi::core::args::{choice, flag, output, owned_text, reserved, slice, text, texts};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{Cell, exclusive, free, guard, guard_or, handle, into_raw, shared};
use crate::ffi::core::structs::{Options, init, options};
use crate::text::{
    Corpus, Dataset, EncodeOptions, Loader, LoaderOptions, Objective, Sampling, TokenFile,
    Tokenizer,
};

/// Yields the batches of a corpus, epoch by epoch, in seeded order. It keeps what it needs of the
/// corpus and the tokenizers.
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
    /// Masked tokens for each model whose tokenizer has a mask token, the next token for others.
    Auto = 2,
}

/// How the examples of an epoch are chosen.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_sampling {
    /// Each example once.
    EachOnce = 0,
    /// Drawn with replacement, all classes equally likely.
    ClassBalanced = 1,
    /// Drawn with replacement, in proportion to example_weights.
    Weighted = 2,
}

/// How a corpus is encoded, shuffled and batched. mmopt_loader_options_init fills in the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_loader_options {
    /// sizeof(mmopt_loader_options).
    pub struct_size: usize,
    /// Examples per batch and model, at least 1; default 16.
    pub batch_size: usize,
    /// Longest sequence in tokens; 0 (default): each tokenizer's.
    pub max_length: usize,
    /// 1 (default): a new order in each epoch; 0: the order of the examples.
    pub shuffle: u32,
    /// 1: drop a last batch that is not full. Default 0.
    pub drop_last: u32,
    /// Seed of the order and of masking; default 0.
    pub seed: u64,
    /// Length bucketing: so many batches are sorted by length together, which saves padding; 0:
    /// none; default 32. Without shuffle nothing is sorted.
    pub bucket_batches: usize,
    /// Sequences are padded to a multiple of this, so that few shapes occur; default 8.
    pub pad_to_multiple_of: usize,
    /// 1 (default): all models see the same examples at each step; 0: each model has an order of
    /// its own, and the shortest ends the epoch.
    pub aligned: u32,
    /// Plain text: an mmopt_objective; default MMOPT_OBJECTIVE_AUTO.
    pub objective: u32,
    /// Masked language modelling: the fraction of tokens that are masked, above 0 and up to 1;
    /// default 0.15.
    pub mlm_probability: f64,
    /// Question answering: 1: a long context becomes several overlapping rows, for evaluation; 0
    /// (default): one row, with the answer near its middle. Token classification: 1: a long
    /// sentence becomes several overlapping rows, which together have the tag of each word once; 0
    /// (default): it is cut.
    pub all_windows: u32,
    /// Language modelling: 1 (default): examples are joined and cut into rows of max_length; 0:
    /// each is a row of its own.
    pub pack: u32,
    /// With all_windows: tokens that neighbouring windows share; default 64, at most half of the
    /// window's context or sentence.
    pub overlap: usize,
    /// Unlabelled examples for each labelled one in every batch; then an epoch is one walk over the
    /// unlabelled examples, and the labelled ones are walked over again and again, across epochs,
    /// each time in a new order. batch_size / (1 + unlabelled_ratio) rows, rounded, are labelled,
    /// at least one and not all. 0 (default): examples come as they are.
    pub unlabelled_ratio: f64,
    /// An mmopt_sampling; default MMOPT_SAMPLING_EACH_ONCE. The others need shuffle, and exclude
    /// unlabelled_ratio. With aligned the models see the same examples.
    pub sampling: u32,
    /// Must be 0.
    pub reserved: u32,
    /// MMOPT_SAMPLING_WEIGHTED: a weight for each example of the corpus, finite and at least 0, as
    /// PyTorch's WeightedRandomSampler has. Not for packed text. Copied.
    pub example_weights: *const f64,
    /// How many.
    pub n_example_weights: usize,
    /// Examples that are drawn for an epoch, up to 2^28; 0 (default): as many as there are.
    pub n_samples: usize,
    /// Most tokens of a batch of a model, rows times padded length. Then batches have as many rows
    /// as that allows in place of batch_size, and epochs may differ in their number of batches.
    /// Excludes drop_last and unlabelled_ratio. 0 (default): batch_size rows.
    pub max_tokens: usize,
    /// With n_ranks: this rank, counted from 0. Default 0.
    pub rank: usize,
    /// Ranks that train together (mmopt_trainer_set_communicator): every batch of batch_size rows
    /// is dealt out to them, row i to rank i modulo n_ranks, so that all together see what one
    /// alone would see. A rank for which a short batch has no row gets its first row again, with a
    /// tensor "filler", by which the trainer knows that it counts for nothing. At most batch_size.
    /// A loader's state may be restored with another number of ranks. 0 or 1 (default): all rows.
    pub n_ranks: usize,
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
            objective: mmopt_objective::Auto as u32,
            mlm_probability: encode.mlm_probability,
            all_windows: u32::from(encode.all_windows),
            pack: u32::from(encode.pack),
            overlap: encode.overlap,
            unlabelled_ratio: order.unlabelled_ratio,
            sampling: mmopt_sampling::EachOnce as u32,
            reserved: 0,
            example_weights: std::ptr::null(),
            n_example_weights: 0,
            n_samples: 0,
            max_tokens: 0,
            rank: 0,
            n_ranks: 1,
        }
    }
}

// SAFETY: repr(C), begins with its size, numbers and a raw pointer only.
unsafe impl Options for mmopt_loader_options {
    const NAME: &'static str = "mmopt_loader_options";
}

impl mmopt_loader_options {
    /// # Safety
    /// `example_weights` is NULL or leads to `n_example_weights` numbers.
    unsafe fn order(&self) -> Result<LoaderOptions> {
        reserved(self.reserved == 0, "reserved")?;
        // SAFETY: by this function's contract.
        let sampling = unsafe { self.sampling() }?;
        Ok(LoaderOptions {
            batch_size: self.batch_size,
            shuffle: flag(self.shuffle, "shuffle")?,
            seed: self.seed,
            bucket_batches: self.bucket_batches,
            pad_to_multiple_of: self.pad_to_multiple_of,
            drop_last: flag(self.drop_last, "drop_last")?,
            aligned: flag(self.aligned, "aligned")?,
            unlabelled_ratio: self.unlabelled_ratio,
            sampling,
            n_samples: self.n_samples,
            max_tokens: self.max_tokens,
            rank: self.rank,
            n_ranks: self.n_ranks.max(1),
        })
    }

    /// # Safety
    /// As for [`Self::order`].
    unsafe fn sampling(&self) -> Result<Sampling> {
        // SAFETY: by this function's contract.
        let weights =
            unsafe { slice(self.example_weights, self.n_example_weights, "example_weights") }?;
        let n = weights.len();
        match choice(self.sampling, "sampling", &[(0, 0), (1, 1), (2, 2)])? {
            2 => Ok(Sampling::Weighted(weights.to_vec())),
            _ if n > 0 => Err(Error::invalid(format!(
                "{n} example_weights, but sampling is {}; set it to MMOPT_SAMPLING_WEIGHTED",
                self.sampling
            ))),
            1 => Ok(Sampling::ClassBalanced),
            _ => Ok(Sampling::EachOnce),
        }
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
        let objectives = [(0, Objective::Causal), (1, Objective::Masked), (2, Objective::Auto)];
        Ok(EncodeOptions {
            max_length: (self.max_length > 0).then_some(self.max_length),
            objective: choice(self.objective, "objective", &objectives)?,
            mlm_probability: self.mlm_probability,
            all_windows: flag(self.all_windows, "all_windows")?,
            pack: flag(self.pack, "pack")?,
            overlap: self.overlap,
            ..EncodeOptions::default()
        })
    }
}

/// Fills in the defaults. NULL is harmless.
///
/// @param[out] options filled with the defaults; may be NULL.
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

/// Encodes a corpus with the tokenizer of each of n_models models, and makes a loader at the start
/// of epoch 0.
///
/// Errors: INVALID_ARGUMENT without a tokenizer, for an empty corpus, a batch_size of 0, a
/// max_length that the special tokens fill or that is above a tokenizer's, drop_last without one
/// full batch, unlabelled_ratio where all examples have labels, none have, or fewer than a batch
/// needs; a sampling without a class or a weight for each example, a row of more than max_tokens,
/// a rank that is not below n_ranks, and options that exclude each other.
///
/// @param[in] corpus shared access.
/// @param[in] tokenizers n_models tokenizers, in the order of the models; a tokenizer may occur
/// twice.
/// @param n_models how many models.
/// @param[in] options NULL: the defaults.
/// @param[out] loader the new object; free it with mmopt_loader_free.
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

/// Encodes plain text once and writes its tokens to a file, which loaders map into memory: for text
/// that is larger than memory, and for runs that begin at once. The text is read and encoded about
/// a megabyte at a time; only a document (sample_by) is in memory as a whole. A file that is there
/// already and was made of the same files (by name, size and time of change) by the same tokenizer
/// is left as it is. The file is written under another name first, and has a checksum.
///
/// Errors: NOT_FOUND or IO when the text cannot be read; INVALID_DATA for text that is not UTF-8,
/// an empty file, or a line of more than 64 MiB; INVALID_ARGUMENT when sample_by is no
/// mmopt_sample_by; IO when token_file cannot be written. token_file is unchanged then.
///
/// @param[in] path the text, or a pattern of several files (* and ?), UTF-8.
/// @param sample_by an mmopt_sample_by.
/// @param[in] tokenizer shared access.
/// @param[in] token_file the file to write, UTF-8.
/// @param[out] n_tokens how many tokens it has; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_token_file_write(
    path: *const c_char,
    sample_by: u32,
    tokenizer: *const mmopt_tokenizer,
    token_file: *const c_char,
    n_tokens: *mut u64,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let (path, file) = (text(path, "path")?, text(token_file, "token_file")?);
        let sample_by = sample_by_of(sample_by)?;
        let tokenizer = shared(tokenizer)?;
        let tokens = TokenFile::write(Path::new(path), sample_by, &tokenizer, Path::new(file))?;
        if let Some(out) = n_tokens.as_mut() {
            *out = tokens.n_tokens() as u64;
        }
        Ok(())
    })
}

/// Makes a loader of files of tokens, one for each of n_models models, at the start of epoch 0. It
/// gives the same batches as one of the texts as a corpus with pack. Each file is read once to
/// compare it with its checksum, and then mapped: it must not be changed while the loader lives.
///
/// Errors: NOT_FOUND or IO when a file cannot be read; INVALID_DATA when it is none that
/// mmopt_token_file_write made, or is damaged; INVALID_ARGUMENT when another tokenizer made it, for
/// pack 0, and as for mmopt_loader_create. With aligned, which is on by default, all models must
/// have equally many rows.
///
/// @param[in] token_files n_models paths, UTF-8; a file may occur twice.
/// @param[in] tokenizers n_models tokenizers, which made the files.
/// @param n_models how many models.
/// @param[in] options NULL: the defaults.
/// @param[out] loader the new object; free it with mmopt_loader_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_loader_create_from_token_files(
    token_files: *const *const c_char,
    tokenizers: *const *const mmopt_tokenizer,
    n_models: usize,
    options: *const mmopt_loader_options,
    loader: *mut *mut mmopt_loader,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let files = texts(token_files, n_models, "token_files")?;
        let tokenizers = all(tokenizers, n_models)?;
        let options = self::options(options)?;
        let loader = output(loader, "loader")?;
        let (order, encoding) = (options.order()?, options.encode()?);
        let one = |(file, tokenizer): (&&str, &Arc<Tokenizer>)| {
            let tokens = TokenFile::open(Path::new(file))?;
            let data = Dataset::from_token_file(&tokens, tokenizer, &encoding);
            data.map(Arc::new).context(|| (*file).to_owned())
        };
        let datasets = files.iter().zip(&tokenizers).map(one).collect::<Result<_>>()?;
        loader.set(into_raw(Loader::new(datasets, order)?));
        Ok(())
    })
}

/// The next batch, with a part for each model. At the end of an epoch batch becomes NULL without an
/// error, and the next call begins the next epoch.
///
/// Errors: only those of any call.
///
/// @param[in,out] loader exclusive access.
/// @param[out] batch the new object, or NULL; free it with mmopt_batch_free.
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

/// The number of batches of the current epoch; 0 for NULL. It is the same for all epochs, except
/// with max_tokens.
///
/// @param[in] loader shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_loader_n_batches(loader: *const mmopt_loader) -> usize {
    // SAFETY: a loader of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(loader) }?.n_batches()))
}

/// What encoding made of a corpus for one model.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_encoding_stats {
    /// Examples of the corpus.
    pub n_examples: u64,
    /// Rows of an epoch: examples, windows of contexts, or blocks of packed text.
    pub n_rows: u64,
    /// Tokens of all rows, special ones included, padding not.
    pub n_tokens: u64,
    /// Tokens that were cut off.
    pub n_truncated_tokens: u64,
    /// Words of sentences that no row has a token of: cut off, or without a token. In scores their
    /// entities are missed.
    pub n_unseen_words: u64,
    /// Questions whose accepted answers no row holds: too long for a window, or without a token.
    /// They are trained on as if their answers were not known, and scored all the same.
    pub n_unplaced_answers: u64,
    /// 0; for later versions.
    pub reserved: [u64; 4],
}

/// What encoding made of the corpus for one model: how many rows and tokens, and what was lost. A
/// trainer logs what was lost, as a warning, when it evaluates the loader.
///
/// Errors: INVALID_ARGUMENT when model is out of range.
///
/// @param[in] loader shared access.
/// @param model the index of the model, from 0.
/// @param[out] stats the counts.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_loader_encoding_stats(
    loader: *const mmopt_loader,
    model: usize,
    stats: *mut mmopt_encoding_stats,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let loader = shared(loader)?;
        let out = output(stats, "stats")?;
        let all = loader.datasets();
        let found = all.get(model).map(|d| d.stats()).ok_or_else(|| {
            Error::invalid(format!("model {model} of a loader for {}; counted from 0", all.len()))
        })?;
        out.set(mmopt_encoding_stats {
            n_examples: found.n_examples,
            n_rows: found.n_sequences,
            n_tokens: found.n_tokens,
            n_truncated_tokens: found.n_truncated_tokens,
            n_unseen_words: found.n_unseen_words,
            n_unplaced_answers: found.n_unplaced_answers,
            reserved: [0; 4],
        });
        Ok(())
    })
}

/// The number of completed epochs; 0 for NULL.
///
/// @param[in] loader shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_loader_epoch(loader: *const mmopt_loader) -> u64 {
    // SAFETY: a loader of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(loader) }?.epoch()))
}

/// The number of batches of the current epoch that were taken; 0 for NULL.
///
/// @param[in] loader shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_loader_position(loader: *const mmopt_loader) -> usize {
    // SAFETY: a loader of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(loader) }?.position()))
}

/// Moves to the start of an epoch.
///
/// Errors: only those of any call.
///
/// @param[in,out] loader exclusive access.
/// @param epoch the epoch, from 0.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_loader_set_epoch(
    loader: *mut mmopt_loader,
    epoch: u64,
) -> *mut mmopt_error {
    // SAFETY: a loader of the caller, by the header's contract.
    guard(|| unsafe {
        exclusive(loader)?.set_epoch(epoch)?;
        Ok(())
    })
}

/// The position of the loader, as JSON. With the same corpus, tokenizers and options,
/// mmopt_loader_restore continues from there, bit by bit.
///
/// Errors: only those of any call.
///
/// @param[in] loader shared access.
/// @param[out] json the text; free it with mmopt_string_free.
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

/// Moves to the position that mmopt_loader_state returned.
///
/// Errors: INVALID_DATA when the text is no state, or is that of other data, options or another
/// seed; the loader is unchanged then.
///
/// @param[in,out] loader exclusive access.
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
/// @param loader may be NULL; freed by the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_loader_free(loader: *mut mmopt_loader) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(loader) };
}

/// Makes a batch without labels from n texts, for predictions, with a part for each of n_models
/// models.
///
/// Errors: INVALID_ARGUMENT without a tokenizer or a text, for a text that is not UTF-8, or a
/// max_length that the special tokens fill.
///
/// @param[in] tokenizers n_models tokenizers, in the order of the models; a tokenizer may occur
/// twice.
/// @param n_models how many models.
/// @param[in] texts n texts, UTF-8.
/// @param n how many texts.
/// @param max_length longest sequence in tokens; 0: each tokenizer's.
/// @param[out] batch the new object, or NULL; free it with mmopt_batch_free.
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
