//! Encoding a corpus: from examples to items of token ids, in parallel, in order.

use super::batch::IGNORE;
use super::corpus::{Answer, Corpus, Example, Task};
use super::dataset::{Dataset, Item, Masking, Target};
use super::tokenizer::{Encoding, Special, Tokenizer, Truncation};
use crate::error::{Context, Error, Result};
use rayon::prelude::*;

/// What a language model learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Objective {
    /// The next token; the loss shifts the labels.
    #[default]
    Causal = 0,
    /// Hidden tokens; needs a tokenizer with a mask token.
    Masked = 1,
}

/// How a corpus is encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodeOptions {
    /// Greatest number of tokens of an item; `None` (default): the tokenizer's.
    pub max_length: Option<usize>,
    /// What is cut of long texts (classification). Default: the longer one.
    pub truncation: Truncation,
    /// Whether batches carry `token_type_ids`; `None` (default): as the flavour has it.
    pub token_types: Option<bool>,
    /// Language: next or hidden tokens. Default: next.
    pub objective: Objective,
    /// Language: documents are joined and cut into blocks of `max_length` (default), else each
    /// is an item of its own.
    pub pack: bool,
    /// Language: share of tokens to hide, above 0 and up to 1. Default: 0.15.
    pub mask_share: f64,
    /// Questions: a long context becomes several items that overlap (for evaluation), else one
    /// (default, for training): the one with the most room around the answer.
    pub all_windows: bool,
    /// Questions: tokens of overlap between windows. Default: 64, at most half of the room.
    pub overlap: usize,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            max_length: None,
            truncation: Truncation::LongestFirst,
            token_types: None,
            objective: Objective::Causal,
            pack: true,
            mask_share: 0.15,
            all_windows: false,
            overlap: 64,
        }
    }
}

impl Dataset {
    /// Encodes every example. Items stand in the order of the examples.
    ///
    /// Errors: an empty corpus; a `max_length` without room beside the special tokens; a masked
    /// objective without a mask token; with the index of the example where one fails.
    pub fn encode(corpus: &Corpus, tokenizer: &Tokenizer, options: &EncodeOptions) -> Result<Self> {
        if corpus.is_empty() {
            return Err(Error::invalid("the corpus has no examples"));
        }
        let masking = masking(corpus, tokenizer, options)?;
        let max_length = options.max_length.unwrap_or(tokenizer.model_max_length());
        let encoder = Encoder { tokenizer, options, max_length };
        let items = if corpus.task() == Task::Language && options.pack {
            encoder.blocks(corpus)?
        } else {
            let one = |(i, example): (usize, &Example)| {
                encoder.items(i, example).context(|| format!("example {i}"))
            };
            let all: Result<Vec<Vec<Item>>> =
                corpus.examples().par_iter().enumerate().map(one).collect();
            all?.into_iter().flatten().collect()
        };
        let token_types = options.token_types.unwrap_or(tokenizer.has_token_types());
        Ok(Dataset::from_parts(corpus, tokenizer, items, max_length, token_types, masking))
    }
}

fn masking(
    corpus: &Corpus,
    tokenizer: &Tokenizer,
    options: &EncodeOptions,
) -> Result<Option<Masking>> {
    if corpus.task() != Task::Language || options.objective == Objective::Causal {
        return Ok(None);
    }
    if !(options.mask_share > 0.0 && options.mask_share <= 1.0) {
        return Err(Error::invalid(format!("mask_share {} is not in (0, 1]", options.mask_share)));
    }
    let mask_id = tokenizer.special_id(Special::Mask).ok_or_else(|| {
        Error::invalid("the tokenizer has no mask token; use the causal objective")
    })?;
    let framing = [Special::Pad, Special::Cls, Special::Sep, Special::Bos, Special::Eos];
    let kept = framing.into_iter().filter_map(|s| tokenizer.special_id(s)).collect();
    let vocab_size = tokenizer.vocab_size();
    Ok(Some(Masking { mask_id, vocab_size, share: options.mask_share, kept }))
}

struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    options: &'a EncodeOptions,
    max_length: usize,
}

impl Encoder<'_> {
    fn items(&self, example: usize, from: &Example) -> Result<Vec<Item>> {
        match from {
            Example::Text { text, pair, label } => {
                let encoding = self.plain(text, pair.as_deref())?;
                let target = label.map_or(Target::None, Target::Class);
                Ok(vec![Item::new(example, encoding, target)])
            }
            Example::Words { words, tags } => Ok(vec![self.words(example, words, tags)?]),
            Example::Question { context, question, answers, .. } => {
                self.question(example, question, context, answers)
            }
            Example::Document(text) => {
                let encoding = self.plain(text, None)?;
                Ok(vec![Item::new(example, encoding, self.language_target())])
            }
        }
    }

    fn plain(&self, text: &str, pair: Option<&str>) -> Result<Encoding> {
        self.tokenizer.encode(text, pair, self.max_length, self.options.truncation)
    }

    fn language_target(&self) -> Target {
        match self.options.objective {
            Objective::Causal => Target::Next,
            Objective::Masked => Target::Hidden,
        }
    }

    /// The first piece of each word carries the word's tag; the others are left out.
    fn words(&self, example: usize, words: &[String], tags: &[u32]) -> Result<Item> {
        let encoding = self.tokenizer.encode_words(words, self.max_length)?;
        let mut last = None;
        let first: Vec<Option<u32>> = encoding
            .word_ids
            .iter()
            .map(|&word| {
                let is_first = word.is_some() && word != last;
                last = word.or(last);
                word.filter(|_| is_first)
            })
            .collect();
        let label = |word: &Option<u32>| {
            word.and_then(|w| tags.get(w as usize)).map_or(IGNORE, |&tag| i64::from(tag))
        };
        let target = match tags {
            [] => Target::None,
            _ => Target::Tags(first.iter().map(label).collect()),
        };
        let mut item = Item::new(example, encoding, target);
        item.words = first;
        Ok(item)
    }

    fn question(
        &self,
        example: usize,
        question: &str,
        context: &str,
        answers: &[Answer],
    ) -> Result<Vec<Item>> {
        let overlap = self.options.overlap;
        let windows = self.tokenizer.encode_windows(question, context, self.max_length, overlap)?;
        let answer = answers.first();
        let none = if self.tokenizer.special_id(Special::Cls).is_some() { 0 } else { IGNORE };
        let mut items = Vec::with_capacity(windows.len());
        let mut rooms = Vec::with_capacity(windows.len());
        for window in windows {
            let span = answer.and_then(|a| span(&window, a.start, a.start + a.text.len()));
            rooms.push(span.map(|(start, end)| {
                let inside = |s: &Option<u32>| *s == Some(1);
                let first = window.sequence_ids.iter().position(inside).unwrap_or(start);
                let last = window.sequence_ids.iter().rposition(inside).unwrap_or(end);
                (start - first).min(last - end)
            }));
            let (start, end) = span.map_or((none, none), |(s, e)| (s as i64, e as i64));
            let context_only = |(o, s): (&(usize, usize), &Option<u32>)| {
                if *s == Some(1) { *o } else { (0, 0) }
            };
            let offsets =
                window.offsets.iter().zip(&window.sequence_ids).map(context_only).collect();
            let mut item = Item::new(example, window, Target::Span(start, end));
            item.offsets = offsets;
            items.push(item);
        }
        if !self.options.all_windows {
            // The first of the greatest room; without an answer the first window.
            let best = (0..rooms.len()).rev().max_by_key(|&i| rooms[i]).unwrap_or(0);
            items = vec![items.swap_remove(best)];
        }
        Ok(items)
    }

    /// Documents joined, each ended by the end (or separator) token, cut into equal blocks.
    fn blocks(&self, corpus: &Corpus) -> Result<Vec<Item>> {
        let ids = |example: &Example| match example {
            Example::Document(text) => self.tokenizer.raw_ids(text),
            _ => Ok(Vec::new()),
        };
        let documents: Vec<Vec<u32>> =
            corpus.examples().par_iter().map(ids).collect::<Result<_>>()?;
        let id = |special| self.tokenizer.special_id(special);
        let framed = self.tokenizer.added_tokens(false) == 2;
        let (head, tail) = match (framed, id(Special::Cls), id(Special::Sep)) {
            (true, Some(cls), Some(sep)) => (Some(cls), Some(sep)),
            _ => (None, None),
        };
        let room = self.max_length.saturating_sub(head.iter().count() + tail.iter().count());
        if room < 2 {
            return Err(Error::invalid(format!("max_length {} leaves no room", self.max_length)));
        }
        let end = id(Special::Eos).or(tail);
        let stream: Vec<u32> =
            documents.into_iter().flat_map(|ids| ids.into_iter().chain(end)).collect();
        let whole = |(i, chunk): (usize, &[u32])| {
            let ids: Vec<u32> = head.into_iter().chain(chunk.iter().copied()).chain(tail).collect();
            let encoding = Encoding { type_ids: vec![0; ids.len()], ids, ..Default::default() };
            Item::new(i, encoding, self.language_target())
        };
        let chunks = stream.chunks(room).filter(|c| c.len() >= 2).enumerate();
        let items: Vec<Item> = chunks.map(whole).collect();
        if items.is_empty() {
            return Err(Error::invalid("the corpus is too short for one block of two tokens"));
        }
        Ok(items)
    }
}

/// First and last token of the context that bytes `start..end` touch; `None` unless the window
/// holds all of them.
fn span(window: &Encoding, start: usize, end: usize) -> Option<(usize, usize)> {
    let context = |i: &usize| window.sequence_ids[*i] == Some(1);
    let tokens: Vec<usize> = (0..window.len()).filter(context).collect();
    let first = tokens.iter().copied().find(|&i| window.offsets[i].1 > start)?;
    let last = tokens.iter().rev().copied().find(|&i| window.offsets[i].0 < end)?;
    let holds = window.offsets[first].0 <= start && window.offsets[last].1 >= end;
    (holds && first <= last).then_some((first, last))
}
