//! What a tokenizer makes of a text.

/// What is done with texts that exceed the length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Truncation {
    /// Cut the end of the longer of the two until both fit.
    #[default]
    LongestFirst = 0,
    /// Cut the first text only.
    OnlyFirst = 1,
    /// Cut the second text only (the context of a question).
    OnlySecond = 2,
    /// A text that is too long is an error.
    Never = 3,
}

/// An encoded text. All vectors have one entry for each token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// 0, or 1 for the second text of a pair (BERT).
    pub type_ids: Vec<u32>,
    /// 1 for every token: an encoding is not padded.
    pub attention_mask: Vec<u32>,
    /// Bytes `start..end` of the token in its text; (0, 0) for added special tokens.
    pub offsets: Vec<(usize, usize)>,
    /// The index of the word that a token belongs to; `None` for added special tokens.
    pub word_ids: Vec<Option<u32>>,
    /// 0 for the first text, 1 for the second, `None` for added special tokens.
    pub sequence_ids: Vec<Option<u32>>,
    /// Number of tokens that were cut off.
    pub truncated: usize,
}

impl Encoding {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True without tokens.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}
