//! A dataset: a corpus encoded by one tokenizer.

use crate::error::Result;
use crate::memory::Gather;
use crate::text::batch::blocks::TokenBlocks;
use crate::text::batch::encode::EncodeOptions;
use crate::text::corpus::examples::{Answer, Corpus, Example, TextTask};
use crate::text::corpus::labels::LabelMap;
use crate::text::tokenizer::encoding::Encoding;
use crate::text::tokenizer::tokenize::Tokenizer;
use std::borrow::Cow;
use std::sync::Arc;

/// The label that losses and metrics leave out, as in PyTorch's `ignore_index`.
pub(crate) const IGNORE_INDEX: i64 = -100;

/// What a model is to predict for a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// The example has no label.
    None,
    /// The class of a text.
    Class(u32),
    /// A tag for each token; -100 where a token has none.
    Tags(Vec<i64>),
    /// First and last token of the answer. Without an answer in the sequence both are 0 where
    /// the tokenizer puts `[CLS]` or `<s>` first, else -100.
    Span(i64, i64),
    /// The next token at each position (causal language modelling).
    NextToken,
    /// Masked tokens, chosen anew in each epoch (masked language modelling).
    MaskedTokens,
}

/// One sequence of tokens: an example, a window of one, or a block of packed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// The index of its example in the corpus; for packed text, of the block.
    pub example: usize,
    /// Token ids with special tokens, without padding.
    pub ids: Vec<u32>,
    /// Token types, as many as ids.
    pub type_ids: Vec<u32>,
    /// What is to be predicted.
    pub target: Target,
    /// Question answering: the context, and its bytes for each token.
    pub context: Option<Arc<AnswerContext>>,
    /// Token classification: the word whose first token this is, for each token. Question
    /// answering: the word of the context, counted from 1, that holds the token's first character,
    /// and 0 for the token that stands for "no answer"; a word is a run of letters and digits, or
    /// any other character. Empty for other tasks.
    pub words: Vec<Option<u32>>,
    /// Number of tokens that were cut off.
    pub truncated: usize,
}

impl Sequence {
    pub(crate) fn new(example: usize, encoding: Encoding, target: Target) -> Self {
        let Encoding { ids, type_ids, truncated, .. } = encoding;
        Self { example, ids, type_ids, target, context: None, words: Vec::new(), truncated }
    }
}

/// The context of a question, and the bytes of it that each token of a sequence stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerContext {
    /// The context.
    pub text: Arc<str>,
    /// For each token of the sequence its bytes `start..end` in `text`; (0, 0) for tokens of the
    /// question and special tokens.
    pub offsets: Vec<(usize, usize)>,
}

/// How tokens are masked for a masked language model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Masking {
    pub(crate) mask_id: u32,
    pub(crate) vocab_size: usize,
    pub(crate) mlm_probability: f64,
    /// Ids that are never masked.
    pub(crate) never_masked: Vec<u32>,
}

/// What the predictions for an example are compared with, where a sequence does not hold it whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The tag of every word, also of those that were cut off; empty without tags.
    Tags(Vec<u32>),
    /// The accepted answers, if they are known; empty when there is none.
    Answers(Option<Vec<String>>),
}

impl Reference {
    fn of(example: &Example) -> Option<Self> {
        match example {
            Example::Words { tags, .. } => Some(Self::Tags(tags.clone())),
            Example::Question { answers, .. } => {
                let texts = |all: &Vec<Answer>| all.iter().map(|a| a.text.clone()).collect();
                Some(Self::Answers(answers.as_ref().map(texts)))
            }
            _ => None,
        }
    }
}

/// What encoding made of a corpus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodingStats {
    /// Examples of the corpus.
    pub n_examples: u64,
    /// Sequences: examples, windows of them, or blocks of packed text.
    pub n_sequences: u64,
    /// Tokens of all sequences, special ones included.
    pub n_tokens: u64,
    /// Tokens that were cut off.
    pub n_truncated_tokens: u64,
    /// Words of sentences that no sequence has a token of: cut off, or without a token.
    pub n_unseen_words: u64,
    /// Questions whose accepted answers no sequence holds: longer than a sequence has room for, or
    /// without a token. They are trained on as if their answers were not known.
    pub n_unplaced_answers: u64,
}

impl EncodingStats {
    fn of(corpus: &Corpus, sequences: &[Sequence]) -> Self {
        let mut stats = Self {
            n_examples: corpus.len() as u64,
            n_sequences: sequences.len() as u64,
            ..Self::default()
        };
        for sequence in sequences {
            stats.n_tokens += sequence.ids.len() as u64;
            stats.n_truncated_tokens += sequence.truncated as u64;
        }
        for same in sequences.chunk_by(|a, b| a.example == b.example) {
            match corpus.examples().get(same[0].example) {
                Some(Example::Words { words, .. }) => {
                    let seen = same.iter().flat_map(|s| &s.words).flatten().count();
                    stats.n_unseen_words += words.len().saturating_sub(seen) as u64;
                }
                Some(Example::Question { answers: Some(_), .. }) => {
                    let unplaced = same.iter().all(|s| s.target == Target::None);
                    stats.n_unplaced_answers += u64::from(unplaced);
                }
                _ => {}
            }
        }
        stats
    }

    /// What is lost, in words; `None` when nothing is.
    pub fn warning(&self) -> Option<String> {
        let mut parts = Vec::new();
        if self.n_unseen_words > 0 {
            parts.push(format!("{} words of sentences are beyond max_length", self.n_unseen_words));
        }
        if self.n_unplaced_answers > 0 {
            parts.push(format!(
                "the answers to {} questions are in no window of their contexts",
                self.n_unplaced_answers
            ));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// What numbers in a dataset's batches stand for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct IdNames {
    /// The text of each token id, as [`Tokenizer::pieces`] has it.
    pub pieces: Arc<[String]>,
    /// The class or tag of each label; empty for other tasks.
    pub labels: Vec<String>,
}

impl IdNames {
    fn of(tokenizer: &Tokenizer, labels: &LabelMap) -> Arc<Self> {
        Arc::new(Self { pieces: tokenizer.pieces(), labels: labels.names().to_vec() })
    }
}

/// Encoded examples of one corpus for one model. Made by [`Dataset::encode`].
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    names: Arc<IdNames>,
    task: TextTask,
    labels: LabelMap,
    /// Empty where the tokens are in a file.
    sequences: Vec<Sequence>,
    /// The sequences whose tokens are in a file.
    blocks: Option<TokenBlocks>,
    max_length: usize,
    pad_id: u32,
    token_types: bool,
    masking: Option<Masking>,
    all_windows: bool,
    /// Of the corpus.
    n_examples: usize,
    /// Whether examples were joined and cut into blocks.
    packed: bool,
    /// For each example, where its task has any.
    references: Vec<Reference>,
    stats: EncodingStats,
}

impl Dataset {
    pub(crate) fn from_parts(
        corpus: &Corpus,
        tokenizer: &Tokenizer,
        sequences: Vec<Sequence>,
        max_length: usize,
        options: &EncodeOptions,
        masking: Option<Masking>,
    ) -> Result<Self> {
        Ok(Self {
            names: IdNames::of(tokenizer, corpus.labels()),
            task: corpus.task(),
            labels: corpus.labels().clone(),
            stats: EncodingStats::of(corpus, &sequences),
            sequences,
            blocks: None,
            max_length,
            pad_id: tokenizer.pad_id(),
            token_types: options.token_types.unwrap_or(tokenizer.has_token_types()),
            masking,
            all_windows: options.all_windows,
            n_examples: corpus.len(),
            packed: corpus.task() == TextTask::LanguageModeling && options.pack,
            references: corpus.examples().iter().filter_map(Reference::of).gathered()?,
        })
    }

    pub(crate) fn from_blocks(
        tokenizer: &Tokenizer,
        blocks: TokenBlocks,
        max_length: usize,
        options: &EncodeOptions,
        masking: Option<Masking>,
    ) -> Self {
        let n_sequences = blocks.len() as u64;
        Self {
            names: IdNames::of(tokenizer, &LabelMap::default()),
            task: TextTask::LanguageModeling,
            labels: LabelMap::default(),
            sequences: Vec::new(),
            max_length,
            pad_id: tokenizer.pad_id(),
            token_types: options.token_types.unwrap_or(tokenizer.has_token_types()),
            masking,
            all_windows: options.all_windows,
            n_examples: usize::try_from(blocks.n_documents()).unwrap_or(usize::MAX),
            packed: true,
            references: Vec::new(),
            stats: EncodingStats {
                n_examples: blocks.n_documents(),
                n_sequences,
                n_tokens: (0..blocks.len()).map(|i| blocks.n_tokens(i) as u64).sum(),
                ..EncodingStats::default()
            },
            blocks: Some(blocks),
        }
    }

    /// The task.
    pub fn task(&self) -> TextTask {
        self.task
    }

    /// What its tokens' and classes' numbers stand for.
    pub fn names(&self) -> &Arc<IdNames> {
        &self.names
    }

    /// Names of classes or tags.
    pub fn labels(&self) -> &LabelMap {
        &self.labels
    }

    /// The sequences that are in memory, in the order of the examples: all, or none where the
    /// tokens are in a file.
    pub fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }

    /// A sequence, wherever it is; `None` out of range.
    pub fn sequence(&self, i: usize) -> Option<Cow<'_, Sequence>> {
        match &self.blocks {
            None => self.sequences.get(i).map(Cow::Borrowed),
            Some(blocks) => blocks.sequence(i).map(Cow::Owned),
        }
    }

    /// The number of tokens of a sequence; 0 out of range.
    pub(crate) fn n_tokens(&self, i: usize) -> usize {
        match &self.blocks {
            None => self.sequences.get(i).map_or(0, |s| s.ids.len()),
            Some(blocks) => blocks.n_tokens(i),
        }
    }

    /// The example of a sequence.
    pub(crate) fn example(&self, i: usize) -> usize {
        self.sequences.get(i).map_or(i, |s| s.example)
    }

    /// Whether there is anything to learn from a sequence without other models.
    pub(crate) fn is_labelled(&self, i: usize) -> bool {
        self.sequences.get(i).is_none_or(|s| s.target != Target::None)
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.blocks.as_ref().map_or(self.sequences.len(), TokenBlocks::len)
    }

    /// True without sequences.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What encoding made of the corpus.
    pub fn stats(&self) -> EncodingStats {
        self.stats
    }

    /// Greatest number of tokens of a sequence.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The id that pads short sequences.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// Whether batches have `token_type_ids`.
    pub fn has_token_types(&self) -> bool {
        self.token_types
    }

    /// Whether a long context of question answering became several sequences.
    pub fn has_all_windows(&self) -> bool {
        self.all_windows
    }

    /// Number of examples of the corpus.
    pub fn n_examples(&self) -> usize {
        self.n_examples
    }

    /// Whether examples were joined and cut into blocks, which then are the examples of batches.
    pub fn is_packed(&self) -> bool {
        self.packed
    }

    /// What the predictions for an example are compared with: the tags of its words, or the
    /// accepted answers. `None` for other tasks, and out of range.
    pub fn reference(&self, example: usize) -> Option<&Reference> {
        self.references.get(example)
    }

    /// Whether tokens are masked, for a masked language model.
    pub fn is_masked(&self) -> bool {
        self.masking.is_some()
    }

    pub(crate) fn masking(&self) -> Option<&Masking> {
        self.masking.as_ref()
    }
}
