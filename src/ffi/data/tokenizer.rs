//! Tokenizers: loaded from published files or trained on a corpus; encoded texts.

use std::ffi::c_char;
use std::path::Path;
use std::sync::Arc;

use super::corpus::mmopt_corpus;
use crate::error::{Error, Result};
use crate::ffi::core::architecture::mmopt_architecture;
use crate::ffi::core::args::{
    choice, flag, optional_text, output, owned_text, reserved, slice, text,
};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{Cell, free, guard, guard_or, handle, into_raw, shared};
use crate::ffi::core::structs::{Options, init, options};
use crate::text::{
    Encoding, SpecialToken, Tokenizer, TokenizerAlgorithm, TokenizerStyle, TokenizerTrainOptions,
    Truncation,
};

/// Turns text into token ids and back. Immutable.
pub struct mmopt_tokenizer(Cell<Arc<Tokenizer>>);

handle!(mmopt_tokenizer, Arc<Tokenizer>, "tokenizer");

/// How words are split into subwords.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_tokenizer_algorithm {
    /// That of the architecture's published models.
    Auto = 0,
    /// The longest known subwords from the left; a word may be unknown.
    WordPiece = 1,
    /// Byte-pair encoding of UTF-8 bytes; nothing is unknown.
    ByteLevelBpe = 2,
}

/// The roles of special tokens.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_special_token {
    /// Pads short sequences.
    Pad = 0,
    /// Stands for unknown words.
    Unk = 1,
    /// First token of a sequence.
    Cls = 2,
    /// Separates sequences.
    Sep = 3,
    /// Replaces a masked token.
    Mask = 4,
    /// Begins a text.
    Bos = 5,
    /// Ends a text.
    Eos = 6,
}

/// How a tokenizer is trained. mmopt_tokenizer_options_init fills in the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_tokenizer_options {
    /// sizeof(mmopt_tokenizer_options).
    pub struct_size: usize,
    /// Decides the special tokens and where they go: an mmopt_architecture; default
    /// MMOPT_ARCHITECTURE_BERT.
    pub architecture: u32,
    /// An mmopt_tokenizer_algorithm; default MMOPT_TOKENIZER_ALGORITHM_AUTO.
    pub algorithm: u32,
    /// Greatest number of ids, special tokens included; default 8000. Byte-level vocabularies need
    /// at least 256 and their special tokens.
    pub vocab_size: usize,
    /// A pair of symbols is merged only if it occurs this often; default 2.
    pub min_frequency: u64,
    /// 1 (default): lower-case and strip accents first (WordPiece only).
    pub lowercase: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Greatest length of a sequence in tokens, also in the saved files; default 512.
    pub model_max_length: usize,
}

impl Default for mmopt_tokenizer_options {
    fn default() -> Self {
        let defaults = TokenizerTrainOptions::default();
        Self {
            struct_size: size_of::<Self>(),
            architecture: mmopt_architecture::Bert as u32,
            algorithm: mmopt_tokenizer_algorithm::Auto as u32,
            vocab_size: defaults.vocab_size,
            min_frequency: defaults.min_frequency,
            lowercase: u32::from(defaults.lowercase),
            reserved: 0,
            model_max_length: defaults.model_max_length,
        }
    }
}

// SAFETY: repr(C), begins with its size, integers only.
unsafe impl Options for mmopt_tokenizer_options {
    const NAME: &'static str = "mmopt_tokenizer_options";
}

impl mmopt_tokenizer_options {
    fn checked(&self) -> Result<TokenizerTrainOptions> {
        reserved(self.reserved == 0, "reserved")?;
        let styles = [
            (1, TokenizerStyle::Bert),
            (2, TokenizerStyle::Gpt2),
            (3, TokenizerStyle::Roberta),
            (4, TokenizerStyle::Bert),
        ];
        let algorithms = [
            (0, None),
            (1, Some(TokenizerAlgorithm::WordPiece)),
            (2, Some(TokenizerAlgorithm::ByteLevelBpe)),
        ];
        Ok(TokenizerTrainOptions {
            style: choice(self.architecture, "architecture", &styles)?,
            algorithm: choice(self.algorithm, "algorithm", &algorithms)?,
            vocab_size: self.vocab_size,
            min_frequency: self.min_frequency,
            lowercase: flag(self.lowercase, "lowercase")?,
            model_max_length: self.model_max_length,
        })
    }
}

/// Fills in the defaults. NULL is harmless.
///
/// @param[out] options filled with the defaults; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_tokenizer_options_init(options: *mut mmopt_tokenizer_options) {
    // SAFETY: the caller's struct, by the header's contract.
    unsafe { init(options) };
}

/// Loads a tokenizer from a directory or file: tokenizer.json, or vocab.txt (WordPiece), or
/// vocab.json with merges.txt (byte-level BPE). tokenizer_config.json, special_tokens_map.json and
/// added_tokens.json beside it count as for the published classes (docs/data.md).
///
/// Errors: NOT_FOUND or IO when a file cannot be read; INVALID_DATA when it is damaged; UNSUPPORTED
/// for another kind of tokenizer, such as SentencePiece's own files.
///
/// @param[in] path the directory or file, UTF-8.
/// @param[out] tokenizer the new object; free it with mmopt_tokenizer_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_tokenizer_load(
    path: *const c_char,
    tokenizer: *mut *mut mmopt_tokenizer,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let path = text(path, "path")?;
        let tokenizer = output(tokenizer, "tokenizer")?;
        tokenizer.set(into_raw(Arc::new(Tokenizer::load(Path::new(path))?)));
        Ok(())
    })
}

/// Trains a tokenizer on all texts of a corpus. The same texts and options give the same tokenizer.
///
/// Errors: INVALID_ARGUMENT when vocab_size is too small for the special tokens and the alphabet;
/// the message names the smallest size.
///
/// @param[in] corpus shared access.
/// @param[in] options NULL: the defaults.
/// @param[out] tokenizer the new object; free it with mmopt_tokenizer_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_tokenizer_train(
    corpus: *const mmopt_corpus,
    options: *const mmopt_tokenizer_options,
    tokenizer: *mut *mut mmopt_tokenizer,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let corpus = shared(corpus)?.corpus.clone();
        let options = self::options(options)?.checked()?;
        let tokenizer = output(tokenizer, "tokenizer")?;
        tokenizer.set(into_raw(Arc::new(Tokenizer::train(&options, &corpus.texts()?)?)));
        Ok(())
    })
}

/// Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json and the vocabulary's own
/// files (vocab.txt, or vocab.json and merges.txt) into a directory, which Hugging Face libraries
/// load. The directory is created where there is none.
///
/// Errors: IO when the directory cannot be created or a file cannot be written.
///
/// @param[in] tokenizer shared access.
/// @param[in] directory the directory, UTF-8.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_tokenizer_save(
    tokenizer: *const mmopt_tokenizer,
    directory: *const c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe { shared(tokenizer)?.save(Path::new(text(directory, "directory")?)) })
}

/// The size of the vocabulary, special tokens included. 0 for NULL.
///
/// @param[in] tokenizer shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_tokenizer_vocab_size(tokenizer: *const mmopt_tokenizer) -> usize {
    // SAFETY: a tokenizer of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(tokenizer) }?.vocab_size()))
}

/// The longest sequence in tokens, from the files or options. 0 for NULL.
///
/// @param[in] tokenizer shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_tokenizer_model_max_length(
    tokenizer: *const mmopt_tokenizer,
) -> usize {
    // SAFETY: a tokenizer of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(tokenizer) }?.model_max_length()))
}

/// The id of a special token; -1 when the tokenizer has none, when special is no
/// mmopt_special_token, and for NULL.
///
/// @param[in] tokenizer shared access.
/// @param special an mmopt_special_token.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_tokenizer_special_token_id(
    tokenizer: *const mmopt_tokenizer,
    special: u32,
) -> i64 {
    guard_or(-1, || {
        // SAFETY: a tokenizer of the caller or NULL, by the header's contract.
        let tokenizer = unsafe { shared(tokenizer) }?;
        let special = SpecialToken::ALL.into_iter().find(|s| *s as u32 == special);
        Ok(special.and_then(|s| tokenizer.special_token_id(s)).map_or(-1, i64::from))
    })
}

/// The text of n token ids. skip_special_tokens 1 leaves out special tokens.
///
/// Errors: INVALID_ARGUMENT when an id is not in the vocabulary, or skip_special_tokens is neither
/// 0 nor 1.
///
/// @param[in] tokenizer shared access.
/// @param[in] ids n ids.
/// @param n how many ids.
/// @param skip_special_tokens 0 or 1.
/// @param[out] text the text; free it with mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_tokenizer_decode(
    tokenizer: *const mmopt_tokenizer,
    ids: *const u32,
    n: usize,
    skip_special_tokens: u32,
    text: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let tokenizer = shared(tokenizer)?;
        let ids = slice(ids, n, "ids")?;
        let out = output(text, "text")?;
        if let Some(id) = ids.iter().find(|&&id| tokenizer.token(id).is_none()) {
            return Err(Error::invalid(format!("ids: {id} is not in the vocabulary")));
        }
        let mut words = tokenizer.decode(ids, flag(skip_special_tokens, "skip_special_tokens")?)?;
        words.retain(|c| c != '\0');
        out.set(owned_text(&words, "the text")?);
        Ok(())
    })
}

/// Frees a tokenizer. NULL is harmless.
///
/// @param tokenizer may be NULL; freed by the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_tokenizer_free(tokenizer: *mut mmopt_tokenizer) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(tokenizer) };
}

/// An encoded text: token ids, token types and offsets. Immutable.
pub struct mmopt_encoding(Cell<EncodingValue>);

handle!(mmopt_encoding, EncodingValue, "encoding");

/// An encoding with its offsets as flat pairs.
pub struct EncodingValue {
    encoding: Encoding,
    offsets: Vec<usize>,
}

/// Encodes a text, or a pair of texts when pair is not NULL, with the special tokens of the
/// architecture, in at most max_length tokens (0: the tokenizer's). The longer text is truncated.
/// The result is never empty: an empty text without special tokens becomes one end-of-sequence
/// token.
///
/// Errors: INVALID_ARGUMENT for text that is not UTF-8, or a max_length that the special tokens
/// fill.
///
/// @param[in] tokenizer shared access.
/// @param[in] text UTF-8.
/// @param[in] pair the second text; may be NULL.
/// @param max_length longest sequence in tokens; 0: the tokenizer's.
/// @param[out] encoding the new object; free it with mmopt_encoding_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_tokenizer_encode(
    tokenizer: *const mmopt_tokenizer,
    text: *const c_char,
    pair: *const c_char,
    max_length: usize,
    encoding: *mut *mut mmopt_encoding,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let tokenizer = shared(tokenizer)?;
        let (text, pair) = (self::text(text, "text")?, optional_text(pair, "pair")?);
        let out = output(encoding, "encoding")?;
        let limit = if max_length == 0 { tokenizer.model_max_length() } else { max_length };
        let encoding = tokenizer.encode(text, pair, limit, Truncation::LongestFirst)?;
        let offsets = encoding.offsets.iter().flat_map(|&(start, end)| [start, end]).collect();
        out.set(into_raw(EncodingValue { encoding, offsets }));
        Ok(())
    })
}

/// The number of tokens; 0 for NULL.
///
/// @param[in] encoding shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_encoding_length(encoding: *const mmopt_encoding) -> usize {
    // SAFETY: an encoding of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(encoding) }?.encoding.len()))
}

/// The ids, as many as tokens; valid as long as the encoding. NULL for NULL.
///
/// @param[in] encoding shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_encoding_ids(encoding: *const mmopt_encoding) -> *const u32 {
    // SAFETY: an encoding of the caller or NULL, by the header's contract.
    guard_or(std::ptr::null(), || Ok(unsafe { shared(encoding) }?.encoding.ids.as_ptr()))
}

/// The token types, 0 for the first text and 1 for the second of a pair, as many as tokens; valid
/// as long as the encoding. NULL for NULL.
///
/// @param[in] encoding shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_encoding_type_ids(encoding: *const mmopt_encoding) -> *const u32 {
    // SAFETY: an encoding of the caller or NULL, by the header's contract.
    guard_or(std::ptr::null(), || Ok(unsafe { shared(encoding) }?.encoding.type_ids.as_ptr()))
}

/// The offsets of each token in its text, in bytes: a start and an end for each token, 0 and 0 for
/// special tokens. Valid as long as the encoding. NULL for NULL.
///
/// @param[in] encoding shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_encoding_offsets(encoding: *const mmopt_encoding) -> *const usize {
    // SAFETY: an encoding of the caller or NULL, by the header's contract.
    guard_or(std::ptr::null(), || Ok(unsafe { shared(encoding) }?.offsets.as_ptr()))
}

/// The number of tokens that were truncated; 0 for NULL.
///
/// @param[in] encoding shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_encoding_n_truncated(encoding: *const mmopt_encoding) -> usize {
    // SAFETY: an encoding of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(encoding) }?.encoding.truncated))
}

/// Frees an encoding. NULL is harmless.
///
/// @param encoding may be NULL; freed by the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_encoding_free(encoding: *mut mmopt_encoding) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(encoding) };
}

/// Borrowed tokenizers for a loader, in order; an empty list is an error.
///
/// # Safety
/// `tokenizers` is NULL or leads to `n` pointers, each NULL or a tokenizer of the caller.
pub(crate) unsafe fn all(
    tokenizers: *const *const mmopt_tokenizer,
    n: usize,
) -> Result<Vec<Arc<Tokenizer>>> {
    // SAFETY: by this function's contract.
    let pointers = unsafe { slice(tokenizers, n, "tokenizers") }?;
    if pointers.is_empty() {
        return Err(Error::invalid("tokenizers: at least one is needed"));
    }
    // SAFETY: by this function's contract.
    pointers.iter().map(|&t| Ok(unsafe { shared(t) }?.clone())).collect()
}
