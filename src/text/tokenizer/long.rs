//! Encoding of long texts in parts, so that memory is bounded by a part and by what is kept.
//!
//! A text of more than [`PART`] bytes is cut at a space between two letters or digits, where
//! WordPiece and byte-level BPE begin a new word anyway: the tokens are those of the whole text.
//! Only where [`LONGEST`] bytes have no such place, the cut is between any two characters.

use crate::error::{Error, Result};
use crate::text::tokenizer::check::caught;
use std::collections::HashMap;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, Tokenizer as Pipeline};

/// Longer texts are encoded in parts of about this many bytes.
pub(crate) const PART: usize = 1 << 18;
/// A part is never longer.
const LONGEST: usize = 1 << 20;
/// The longest text that is encoded as a whole, where a part could have other tokens.
const WHOLE: usize = 1 << 24;

/// A text's tokens, and how many more it has that were not asked for.
pub(crate) struct Encoded {
    pub tokens: tokenizers::Encoding,
    pub more: usize,
}

/// Encodes a text. With `keep`, the tokens from some part after the first `keep` ones on are only
/// counted.
///
/// Errors: as the pipeline; `InvalidArgument` for a text of more than [`WHOLE`] bytes that cannot
/// be read in parts.
pub(crate) fn encode(pipeline: &Pipeline, text: &str, keep: Option<usize>) -> Result<Encoded> {
    if text.len() <= PART {
        let tokens = caught(|| pipeline.encode(text, false))?;
        return Ok(Encoded { tokens, more: 0 });
    }
    if keep.is_none() && !ends_words_at_spaces(pipeline) {
        let tokens = whole(pipeline, text)?;
        return Ok(Encoded { tokens, more: 0 });
    }
    let mut joined = Joined::default();
    let mut more = 0;
    for (start, part) in parts(text) {
        if keep.is_some_and(|keep| joined.ids.len() > keep) {
            more += caught(|| pipeline.encode_fast(part, false))?.len();
        } else {
            joined.push(&caught(|| pipeline.encode(part, false))?, start);
        }
    }
    Ok(Encoded { tokens: joined.encoding(), more })
}

/// The ids alone.
pub(crate) fn ids(pipeline: &Pipeline, text: &str) -> Result<Vec<u32>> {
    if text.len() > PART && !ends_words_at_spaces(pipeline) {
        return Ok(whole(pipeline, text)?.get_ids().to_vec());
    }
    let mut all = Vec::new();
    for (_, part) in parts(text) {
        all.extend_from_slice(caught(|| pipeline.encode_fast(part, false))?.get_ids());
    }
    Ok(all)
}

fn whole(pipeline: &Pipeline, text: &str) -> Result<tokenizers::Encoding> {
    if text.len() > WHOLE {
        return Err(Error::invalid(format!(
            "a text has {} bytes; this kind of tokenizer reads {WHOLE} at most, so split it",
            text.len()
        )));
    }
    caught(|| pipeline.encode(text, false))
}

/// Whether a space between letters begins a new word, whatever is before it.
fn ends_words_at_spaces(pipeline: &Pipeline) -> bool {
    let normalizer = pipeline.get_normalizer();
    let plain = matches!(normalizer, None | Some(NormalizerWrapper::BertNormalizer(_)));
    match pipeline.get_pre_tokenizer() {
        Some(PreTokenizerWrapper::BertPreTokenizer(_)) => plain,
        Some(PreTokenizerWrapper::ByteLevel(b)) => plain && b.use_regex,
        _ => false,
    }
}

/// The parts of a text with where each begins. A part after the first begins with a space, if the
/// text has a space where it can be cut.
fn parts(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    // An empty text is one part.
    let mut first = true;
    std::iter::from_fn(move || {
        let rest = &text[start..];
        if rest.is_empty() && !std::mem::take(&mut first) {
            return None;
        }
        first = false;
        let part = &rest[..end(rest)];
        let at = start;
        start += part.len();
        Some((at, part))
    })
}

fn end(rest: &str) -> usize {
    if rest.len() <= PART {
        return rest.len();
    }
    let bytes = rest.as_bytes();
    let joins = |i: usize| bytes[i].is_ascii_alphanumeric();
    let fits = |&i: &usize| bytes[i] == b' ' && joins(i - 1) && joins(i + 1);
    let before = (PART / 2..PART).rev().find(fits);
    let last = LONGEST.min(rest.len() - 1);
    before.or_else(|| (PART..last).find(fits)).unwrap_or_else(|| match rest.len() <= LONGEST {
        true => rest.len(),
        false => (0..LONGEST).rev().find(|&i| rest.is_char_boundary(i)).unwrap_or(LONGEST),
    })
}

/// Encodings of parts, one after another.
#[derive(Default)]
struct Joined {
    ids: Vec<u32>,
    type_ids: Vec<u32>,
    tokens: Vec<String>,
    words: Vec<Option<u32>>,
    offsets: Vec<(usize, usize)>,
    special: Vec<u32>,
    attention: Vec<u32>,
    n_words: u32,
}

impl Joined {
    fn push(&mut self, from: &tokenizers::Encoding, start: usize) {
        self.ids.extend_from_slice(from.get_ids());
        self.type_ids.extend_from_slice(from.get_type_ids());
        self.tokens.extend_from_slice(from.get_tokens());
        let words = from.get_word_ids();
        self.words.extend(words.iter().map(|w| w.map(|w| w + self.n_words)));
        self.n_words += words.iter().flatten().max().map_or(0, |last| last + 1);
        self.offsets.extend(from.get_offsets().iter().map(|&(a, b)| (a + start, b + start)));
        self.special.extend_from_slice(from.get_special_tokens_mask());
        self.attention.extend_from_slice(from.get_attention_mask());
    }

    fn encoding(self) -> tokenizers::Encoding {
        tokenizers::Encoding::new(
            self.ids,
            self.type_ids,
            self.tokens,
            self.words,
            self.offsets,
            self.special,
            self.attention,
            Vec::new(),
            HashMap::new().into_iter().collect(),
        )
    }
}

/// A range of an encoding's tokens.
pub(crate) fn slice(
    from: &tokenizers::Encoding,
    range: std::ops::Range<usize>,
) -> tokenizers::Encoding {
    tokenizers::Encoding::new(
        from.get_ids()[range.clone()].to_vec(),
        from.get_type_ids()[range.clone()].to_vec(),
        from.get_tokens()[range.clone()].to_vec(),
        from.get_word_ids()[range.clone()].to_vec(),
        from.get_offsets()[range.clone()].to_vec(),
        from.get_special_tokens_mask()[range.clone()].to_vec(),
        from.get_attention_mask()[range].to_vec(),
        Vec::new(),
        HashMap::new().into_iter().collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Tokenizer, TokenizerStyle, TokenizerTrainOptions};

    #[test]
    fn parts_have_the_tokens_of_the_whole() {
        let line = "A fine film, really  fine; a caf\u{e9} (1907) \u{1F600} isn't bad\tat  all. ";
        let text = line.repeat(3 * PART / line.len());
        for style in [TokenizerStyle::Bert, TokenizerStyle::Gpt2] {
            let options = TokenizerTrainOptions { style, vocab_size: 400, ..Default::default() };
            let tokenizer = Tokenizer::train(&options, &[line, line]).unwrap();
            let pipeline = &tokenizer.pipeline;
            assert!(ends_words_at_spaces(pipeline));
            let expect = pipeline.encode(text.as_str(), false).unwrap();
            let found = encode(pipeline, &text, None).unwrap();
            assert_eq!(found.more, 0);
            assert_eq!(found.tokens.get_ids(), expect.get_ids());
            assert_eq!(found.tokens.get_offsets(), expect.get_offsets());
            assert_eq!(found.tokens.get_word_ids(), expect.get_word_ids());
            assert_eq!(ids(pipeline, &text).unwrap(), expect.get_ids());
            let some = encode(pipeline, &text, Some(100)).unwrap();
            assert!(some.tokens.len() > 100 && some.more > 0);
            assert_eq!(some.tokens.len() + some.more, expect.len());
        }
        let joined: String = parts(&text).map(|(_, part)| part).collect();
        assert!(joined == text && parts(&text).count() > 2);
    }

    #[test]
    fn texts_without_spaces_are_cut_between_characters() {
        let text = "\u{20AC}".repeat(LONGEST);
        let all: Vec<(usize, &str)> = parts(&text).collect();
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|(_, part)| part.len() <= LONGEST && !part.is_empty()));
        assert_eq!(parts("").collect::<Vec<_>>(), [(0, "")]);
    }
}
