//! Packed text: documents joined and cut into equal blocks, each a sequence.

use crate::error::{Error, Result};
use crate::text::batch::dataset::{Sequence, Target};
use crate::text::batch::token_file::TokenFile;
use crate::text::tokenizer::encoding::Encoding;
use crate::text::tokenizer::style::SpecialToken;
use crate::text::tokenizer::tokenize::Tokenizer;

/// Of blocks of packed text: special tokens around each, and how many others it holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    head: Option<u32>,
    tail: Option<u32>,
    pub(super) room: usize,
}

impl Frame {
    pub(super) fn of(tokenizer: &Tokenizer, max_length: usize) -> Result<Self> {
        let id = |special| tokenizer.special_token_id(special);
        let has_cls_and_sep = tokenizer.added_tokens(false) == 2;
        let (head, tail) = match (has_cls_and_sep, id(SpecialToken::Cls), id(SpecialToken::Sep)) {
            (true, Some(cls), Some(sep)) => (Some(cls), Some(sep)),
            _ => (None, None),
        };
        let room = max_length.saturating_sub(head.iter().count() + tail.iter().count());
        if room < 2 {
            return Err(Error::invalid(format!("max_length {max_length} leaves no room")));
        }
        Ok(Self { head, tail, room })
    }

    pub(super) fn sequence(
        &self,
        i: usize,
        ids: impl Iterator<Item = u32>,
        target: Target,
    ) -> Sequence {
        let ids: Vec<u32> = self.head.into_iter().chain(ids).chain(self.tail).collect();
        let encoding = Encoding { type_ids: vec![0; ids.len()], ids, ..Default::default() };
        Sequence::new(i, encoding, target)
    }
}

/// The blocks of text whose tokens lie in a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TokenBlocks {
    tokens: TokenFile,
    frame: Frame,
    target: Target,
    len: usize,
}

impl TokenBlocks {
    /// A last block of one token teaches nothing and is left out.
    pub(super) fn new(tokens: TokenFile, frame: Frame, target: Target) -> Self {
        let (n, room) = (tokens.n_tokens(), frame.room);
        let len = n / room + usize::from(n % room >= 2);
        Self { tokens, frame, target, len }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The number of tokens of a block.
    pub(crate) fn n_tokens(&self, i: usize) -> usize {
        let start = i * self.frame.room;
        let n = self.tokens.n_tokens().min(start + self.frame.room).saturating_sub(start);
        n + self.frame.head.iter().count() + self.frame.tail.iter().count()
    }

    pub(crate) fn sequence(&self, i: usize) -> Option<Sequence> {
        let start = (i < self.len).then(|| i * self.frame.room)?;
        let tokens = self.tokens.tokens(start, start + self.frame.room);
        Some(self.frame.sequence(i, tokens, self.target.clone()))
    }

    pub(crate) fn n_documents(&self) -> u64 {
        self.tokens.n_documents()
    }
}
