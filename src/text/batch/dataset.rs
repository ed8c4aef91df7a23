//! A dataset: a corpus encoded by one tokenizer.

use crate::text::corpus::examples::{Corpus, TextTask};
use crate::text::corpus::labels::LabelMap;
use crate::text::tokenizer::tokenize::{Encoding, Tokenizer};

/// What an item teaches.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// Nothing: the example has no label.
    None,
    /// The class of a text.
    Class(u32),
    /// A tag for each token; -100 is left out of the loss.
    Tags(Vec<i64>),
    /// First and last token of the answer. Without an answer in the item both are 0 where the
    /// architecture has a first token to point to, else -100.
    Span(i64, i64),
    /// Each next token.
    NextToken,
    /// Hidden tokens, chosen anew in each epoch.
    MaskedTokens,
}

/// One sequence of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The example of the corpus (the number of the block, for packed text).
    pub example: usize,
    /// Token ids with special tokens, without padding.
    pub ids: Vec<u32>,
    /// Token types, as many as ids.
    pub type_ids: Vec<u32>,
    /// What it teaches.
    pub target: Target,
    /// Questions: bytes of the context for each token of it, (0, 0) for others. Else empty.
    pub offsets: Vec<(usize, usize)>,
    /// Tokens: the word that begins at each token. Else empty.
    pub words: Vec<Option<u32>>,
    /// Tokens that were cut off.
    pub truncated: usize,
}

impl Sequence {
    pub(crate) fn new(example: usize, encoding: Encoding, target: Target) -> Self {
        let Encoding { ids, type_ids, truncated, .. } = encoding;
        Self { example, ids, type_ids, target, offsets: Vec::new(), words: Vec::new(), truncated }
    }
}

/// How tokens are hidden from a masked language model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Masking {
    pub(crate) mask_id: u32,
    pub(crate) vocab_size: usize,
    pub(crate) share: f64,
    /// Ids that are never hidden.
    pub(crate) kept: Vec<u32>,
}

/// Encoded examples of one corpus for one model. Made by [`Dataset::encode`].
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    task: TextTask,
    labels: LabelMap,
    sequences: Vec<Sequence>,
    max_length: usize,
    pad_id: u32,
    token_types: bool,
    masking: Option<Masking>,
}

impl Dataset {
    pub(crate) fn from_parts(
        corpus: &Corpus,
        tokenizer: &Tokenizer,
        sequences: Vec<Sequence>,
        max_length: usize,
        token_types: bool,
        masking: Option<Masking>,
    ) -> Self {
        Self {
            task: corpus.task(),
            labels: corpus.labels().clone(),
            sequences,
            max_length,
            pad_id: tokenizer.pad_id(),
            token_types,
            masking,
        }
    }

    /// The task.
    pub fn task(&self) -> TextTask {
        self.task
    }

    /// Names of classes or tags.
    pub fn labels(&self) -> &LabelMap {
        &self.labels
    }

    /// The items.
    pub fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// True without items.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Greatest number of tokens of an item.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// What short items are filled with.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// Whether batches carry `token_type_ids`.
    pub fn has_token_types(&self) -> bool {
        self.token_types
    }

    /// Items that lost tokens to the greatest length.
    pub fn truncated_sequences(&self) -> usize {
        self.sequences.iter().filter(|i| i.truncated > 0).count()
    }

    pub(crate) fn masking(&self) -> Option<&Masking> {
        self.masking.as_ref()
    }
}
