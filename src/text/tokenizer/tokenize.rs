//! Tokenizers: text to ids and back, with the special tokens that an architecture expects.
//!
//! A *pipeline* is the `tokenizers` crate's normalizer, pre-tokenizer and model. Its
//! *post-processor* puts the special tokens around one text or two; it is kept beside the pipeline
//! and runs after truncation. Offsets are bytes of the given text, without white space around.

use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};
use crate::text::tokenizer::check::{MAX_IDS, caught, tokenizers_error};
use crate::text::tokenizer::config::Config;
use crate::text::tokenizer::encoding::{Encoding, Truncation};
use crate::text::tokenizer::long::{self, Encoded, slice};
use crate::text::tokenizer::style::{SpecialToken, TokenizerStyle};
use tokenizers::utils::truncation::{
    TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};
use tokenizers::{ModelWrapper, PostProcessor, PostProcessorWrapper, Tokenizer as Pipeline};

/// Words that byte-pair encoding caches while it encodes a corpus.
const CACHED_WORDS: usize = 10_000;

/// A tokenizer: owned, immutable, usable from several threads at once.
#[derive(Clone)]
pub struct Tokenizer {
    pub(crate) pipeline: Pipeline,
    pub(crate) post_processor: Option<PostProcessorWrapper>,
    pub(crate) style: TokenizerStyle,
    pub(crate) special_token_ids: [Option<u32>; 7],
    pub(crate) max_length: usize,
    pub(crate) token_types: bool,
    /// What its files said; empty for one that was trained here.
    pub(crate) config: Config,
    n_ids: usize,
    /// [`Tokenizer::pieces`], once it was asked for.
    pub(crate) pieces: OnceLock<Arc<[String]>>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({:?}, {} tokens)", self.style, self.vocab_size())
    }
}

/// Sets the size of byte-pair encoding's cache, in words. Each thread has one, which stays until
/// the thread ends, also when the tokenizer is freed.
fn resize_cache(pipeline: &mut Pipeline, words: usize) {
    if let ModelWrapper::BPE(model) = pipeline.get_model() {
        let mut model = model.clone();
        model.resize_cache(words);
        pipeline.with_model(model);
    }
}

impl Tokenizer {
    /// A copy with a cache, for threads that end with it.
    pub(crate) fn with_cache(&self) -> Self {
        let mut copy = self.clone();
        resize_cache(&mut copy.pipeline, CACHED_WORDS);
        copy
    }

    /// From a pipeline. Its padding and truncation are dropped. Special tokens are those that the
    /// configuration names, else the style's, else added tokens with a usual name.
    pub(crate) fn from_pipeline(
        mut pipeline: Pipeline,
        style: TokenizerStyle,
        config: &Config,
    ) -> Result<Self> {
        let post_processor = pipeline.get_post_processor().cloned();
        pipeline.with_post_processor(None::<PostProcessorWrapper>);
        pipeline.with_padding(None);
        pipeline.with_truncation(None).map_err(tokenizers_error)?;
        resize_cache(&mut pipeline, 0);
        let added = pipeline.get_added_tokens_decoder();
        let id = |special: SpecialToken| {
            let of = |token: &str| pipeline.token_to_id(token);
            let is_added = |name: &&str| added.values().any(|t| t.content == **name);
            let usual = || special.usual().iter().find(|name| is_added(name)).copied();
            let of_style = style.token(special);
            let named = config.token(special).and_then(of);
            // In a vocabulary of pieces a style's token may be a piece like others.
            let added = || of_style.filter(|name| is_added(name)).or_else(usual).and_then(of);
            named.or_else(added).or_else(|| of_style.and_then(of))
        };
        let special_token_ids = SpecialToken::ALL.map(id);
        let n_ids = pipeline.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        if n_ids > MAX_IDS {
            return Err(Error::data(format!(
                "a token has the id {}; at most {MAX_IDS}",
                n_ids - 1
            )));
        }
        let token_types = style == TokenizerStyle::Bert;
        Ok(Self {
            pipeline,
            post_processor,
            style,
            special_token_ids,
            max_length: 512,
            token_types,
            config: Config::default(),
            n_ids,
            pieces: OnceLock::new(),
        })
    }

    /// The special tokens and where they go.
    pub fn style(&self) -> TokenizerStyle {
        self.style
    }

    /// Number of ids, special tokens included: the greatest id plus one, which is the number of
    /// rows that an embedding needs.
    pub fn vocab_size(&self) -> usize {
        self.n_ids
    }

    /// The greatest length of a sequence in tokens, as in the files, else 512: the default of
    /// [`crate::text::EncodeOptions`].
    pub fn model_max_length(&self) -> usize {
        self.max_length
    }

    /// The id of a special token; `None` when the vocabulary has none.
    pub fn special_token_id(&self, special: SpecialToken) -> Option<u32> {
        self.special_token_ids[special as usize]
    }

    /// The id that pads short sequences: the pad token, else the end token, else 0. Padding is
    /// masked by `attention_mask`, so the id does not change results.
    pub fn pad_id(&self) -> u32 {
        let id = |s| self.special_token_id(s);
        id(SpecialToken::Pad).or(id(SpecialToken::Eos)).unwrap_or(0)
    }

    /// What follows each document of packed text: the end token, else the separator of a style that
    /// puts a class token before a text and a separator after it.
    pub(crate) fn document_end(&self) -> Option<u32> {
        let id = |s| self.special_token_id(s);
        let separator = || {
            let has_both = self.added_tokens(false) == 2 && id(SpecialToken::Cls).is_some();
            has_both.then(|| id(SpecialToken::Sep)).flatten()
        };
        id(SpecialToken::Eos).or_else(separator)
    }

    /// The text of an id.
    pub fn token(&self, id: u32) -> Option<String> {
        // The crate answers with the normalized text of an added token.
        let added = self.pipeline.get_added_vocabulary().get_added_tokens_decoder();
        let content = added.get(&id).map(|token| token.content.clone());
        content.or_else(|| self.pipeline.id_to_token(id))
    }

    /// True when the architecture distinguishes the two texts of a pair by `token_type_ids`.
    pub fn has_token_types(&self) -> bool {
        self.token_types
    }

    /// Number of special tokens that are added to one text or to a pair.
    pub fn added_tokens(&self, pair: bool) -> usize {
        self.post_processor.as_ref().map_or(0, |p| p.added_tokens(pair))
    }

    /// Encodes a text or a pair with the special tokens of its style, in at most `max_length`
    /// tokens. The result is never empty: an empty text without special tokens becomes one end
    /// token.
    ///
    /// Errors: `InvalidArgument` when `max_length` leaves no room beside the special tokens,
    /// or the text is too long under [`Truncation::Never`].
    pub fn encode(
        &self,
        text: &str,
        pair: Option<&str>,
        max_length: usize,
        truncation: Truncation,
    ) -> Result<Encoding> {
        let keep = (truncation != Truncation::Never).then_some(max_length);
        let mut first = long::encode(&self.pipeline, text, keep)?;
        let mut second = pair.map(|p| long::encode(&self.pipeline, p, keep)).transpose()?;
        let more = first.more + second.as_ref().map_or(0, |s| s.more);
        if let Some(second) = &mut second {
            keep_the_longer(&mut first, second, max_length);
        }
        let (first, second) = (first.tokens, second.map(|s| s.tokens));
        let (first, second, truncated) = self.truncate(first, second, max_length, truncation)?;
        let truncated = truncated + more;
        let whole = self.add_special_tokens(first, second)?;
        Ok(self.export(&whole, text, pair.unwrap_or(""), truncated))
    }

    /// Encodes words joined by single spaces. `word_ids` are indices of `words`, offsets are bytes
    /// of the joined text. A word may have no token (white space, control characters) or be cut
    /// off.
    ///
    /// Errors: as [`Tokenizer::encode`], with [`Truncation::LongestFirst`].
    pub fn encode_words(&self, words: &[String], max_length: usize) -> Result<Encoding> {
        let joined = words.join(" ");
        let mut encoding = self.encode(&joined, None, max_length, Truncation::LongestFirst)?;
        let mut starts = Vec::with_capacity(words.len());
        let mut at = 0;
        for word in words {
            starts.push(at);
            at += word.len() + 1;
        }
        for i in 0..encoding.len() {
            let (start, end) = encoding.offsets[i];
            let visible = joined.get(start..end).is_none_or(|piece| !piece.trim().is_empty());
            let word = starts.partition_point(|&s| s < end).checked_sub(1);
            encoding.word_ids[i] =
                encoding.sequence_ids[i].and(word.filter(|_| visible)).map(|w| w as u32);
        }
        Ok(encoding)
    }

    /// Encodes a question with a context that may be too long: windows of the context that overlap
    /// by `overlap` tokens (at most half a window), each after the question. The question is
    /// truncated to half of `max_length`.
    ///
    /// Error: `InvalidArgument` when `max_length` leaves no room beside the special tokens.
    pub fn encode_windows(
        &self,
        question: &str,
        context: &str,
        max_length: usize,
        overlap: usize,
    ) -> Result<Vec<Encoding>> {
        let mut question_tokens = long::encode(&self.pipeline, question, Some(max_length))?.tokens;
        let all = long::encode(&self.pipeline, context, None)?.tokens;
        let added = self.added_tokens(true);
        shorten(&mut question_tokens, max_length / 2, TruncationDirection::Right);
        let room = max_length.saturating_sub(added + question_tokens.len());
        if room < 2 {
            return Err(Error::invalid(format!(
                "max_length {max_length} leaves no room beside {added} special tokens"
            )));
        }
        let stride = room - overlap.min(room / 2);
        let mut windows = Vec::new();
        let mut start = 0;
        loop {
            let end = (start + room).min(all.len());
            let part = slice(&all, start..end);
            let whole = self.add_special_tokens(question_tokens.clone(), Some(part))?;
            windows.push(self.export(&whole, question, context, all.len() - (end - start)));
            if end == all.len() {
                return Ok(windows);
            }
            start += stride;
        }
    }

    /// Ids of a text without special tokens, however long.
    pub(crate) fn raw_ids(&self, text: &str) -> Result<Vec<u32>> {
        long::ids(&self.pipeline, text)
    }

    /// Text of `ids`; special tokens are left out when `skip_special_tokens`.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        caught(|| self.pipeline.decode(ids, skip_special_tokens))
    }

    fn truncate(
        &self,
        first: tokenizers::Encoding,
        second: Option<tokenizers::Encoding>,
        max_length: usize,
        truncation: Truncation,
    ) -> Result<(tokenizers::Encoding, Option<tokenizers::Encoding>, usize)> {
        let added = self.added_tokens(second.is_some());
        let total = first.len() + second.as_ref().map_or(0, |s| s.len());
        if total + added <= max_length {
            return Ok((first, second, 0));
        }
        if max_length <= added {
            return Err(Error::invalid(format!(
                "max_length {max_length} leaves no room beside {added} special tokens"
            )));
        }
        let strategy = match truncation {
            Truncation::LongestFirst => TruncationStrategy::LongestFirst,
            Truncation::OnlyFirst => TruncationStrategy::OnlyFirst,
            Truncation::OnlySecond => TruncationStrategy::OnlySecond,
            Truncation::Never => {
                return Err(Error::invalid(format!(
                    "{} tokens exceed max_length {max_length}; allow truncation or raise it",
                    total + added
                )));
            }
        };
        let room = max_length - added;
        let params = TruncationParams {
            direction: TruncationDirection::Right,
            max_length: room,
            strategy,
            stride: 0,
        };
        let (first, second) = truncate_encodings(first, second, &params)
            .map_err(|e| Error::invalid(format!("max_length {max_length}: {e}")))?;
        let (mut first, mut second) = (first, second);
        first.take_overflowing();
        if let Some(second) = &mut second {
            second.take_overflowing();
        }
        Ok((first, second, total - room))
    }

    fn add_special_tokens(
        &self,
        first: tokenizers::Encoding,
        second: Option<tokenizers::Encoding>,
    ) -> Result<tokenizers::Encoding> {
        if let Some(post_processor) = &self.post_processor {
            return caught(|| post_processor.process(first, second, true));
        }
        let parts = std::iter::once(first).chain(second).enumerate().map(|(i, mut part)| {
            part.set_sequence_id(i);
            part.set_type_ids(vec![i as u32; part.len()]);
            part
        });
        Ok(tokenizers::Encoding::merge(parts, false))
    }

    fn export(
        &self,
        from: &tokenizers::Encoding,
        text: &str,
        pair: &str,
        truncated: usize,
    ) -> Encoding {
        if from.is_empty() {
            return self.end_token_only(truncated);
        }
        let sequence_ids: Vec<Option<u32>> =
            from.get_sequence_ids().into_iter().map(|s| s.map(|s| s as u32)).collect();
        let trim = |(&(start, end), sequence): (&(usize, usize), &Option<u32>)| match sequence {
            None => (0, 0),
            Some(0) => trimmed(text, start, end),
            Some(_) => trimmed(pair, start, end),
        };
        Encoding {
            ids: from.get_ids().to_vec(),
            type_ids: from.get_type_ids().to_vec(),
            attention_mask: vec![1; from.len()],
            offsets: from.get_offsets().iter().zip(&sequence_ids).map(trim).collect(),
            word_ids: from.get_word_ids().to_vec(),
            sequence_ids,
            truncated,
        }
    }

    fn end_token_only(&self, truncated: usize) -> Encoding {
        Encoding {
            ids: vec![self.special_token_id(SpecialToken::Eos).unwrap_or_else(|| self.pad_id())],
            type_ids: vec![0],
            attention_mask: vec![1],
            offsets: vec![(0, 0)],
            word_ids: vec![None],
            sequence_ids: vec![None],
            truncated,
        }
    }
}

/// Of two texts that were not encoded to their ends, the longer one stays the longer one, which is
/// what truncation looks at.
fn keep_the_longer(first: &mut Encoded, second: &mut Encoded, max_length: usize) {
    let total = |e: &Encoded| e.tokens.len() + e.more;
    let first_is_longer = total(first) > total(second);
    let (shorter, longer) = if first_is_longer { (second, first) } else { (first, second) };
    if longer.more == 0 || longer.tokens.len() > shorter.tokens.len() || shorter.more == 0 {
        return;
    }
    let cut = shorter.tokens.len() - longer.tokens.len() + 1;
    let length = shorter.tokens.len() - cut;
    if length >= max_length {
        shorten(&mut shorter.tokens, length, TruncationDirection::Right);
        shorter.more += cut;
    }
}

/// Truncates an encoding and drops what was cut off.
fn shorten(encoding: &mut tokenizers::Encoding, length: usize, direction: TruncationDirection) {
    if length < encoding.len() {
        encoding.truncate(length, 0, direction);
        encoding.take_overflowing();
    }
}

/// `start..end` without white space at either end; unchanged when nothing else is inside.
fn trimmed(text: &str, start: usize, end: usize) -> (usize, usize) {
    // The crate trims spaces as if each were one byte, which may end inside of a character.
    let is_boundary = |at: &usize| text.is_char_boundary(*at);
    let start = (start..text.len()).find(is_boundary).unwrap_or(text.len());
    let end = (0..=end.min(text.len())).rev().find(is_boundary).unwrap_or(0).max(start);
    let Some(piece) = text.get(start..end) else { return (start, end) };
    let rest = piece.trim_start();
    if rest.is_empty() {
        return (start, end);
    }
    (end - rest.len(), end - rest.len() + rest.trim_end().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::TokenizerTrainOptions;

    const TEXTS: [&str; 2] = ["the film was very good and fun", "a bad film, not very good at all"];

    fn tokenizer(style: TokenizerStyle) -> Tokenizer {
        let options = TokenizerTrainOptions {
            style,
            vocab_size: 300,
            min_frequency: 1,
            ..Default::default()
        };
        Tokenizer::train(&options, &TEXTS).unwrap()
    }

    fn tokens(t: &Tokenizer, e: &Encoding) -> Vec<String> {
        e.ids.iter().map(|&id| t.token(id).unwrap()).collect()
    }

    #[test]
    fn pairs_have_the_special_tokens_of_the_architectures() {
        let check = |style, expect: &[&str], types: &[u32]| {
            let t = tokenizer(style);
            let e = t.encode("very good", Some("bad film"), 32, Truncation::Never).unwrap();
            assert_eq!(tokens(&t, &e), expect);
            assert_eq!(e.type_ids, types);
            assert_eq!(e.attention_mask, vec![1; e.len()]);
        };
        let bert = ["[CLS]", "very", "good", "[SEP]", "bad", "film", "[SEP]"];
        check(TokenizerStyle::Bert, &bert, &[0, 0, 0, 0, 1, 1, 1]);
        let t = tokenizer(TokenizerStyle::Roberta);
        let e = t.encode("good", Some("film"), 32, Truncation::Never).unwrap();
        let sep = t.special_token_id(SpecialToken::Sep).unwrap();
        let cls = t.special_token_id(SpecialToken::Cls).unwrap();
        assert_eq!(e.ids[0], cls);
        let seps: Vec<bool> = e.ids.iter().map(|&id| id == sep).collect();
        let first = seps.iter().position(|&s| s).unwrap();
        assert!(seps[first] && seps[first + 1] && *seps.last().unwrap());
        assert_eq!(seps.iter().filter(|&&s| s).count(), 3);
        assert!(e.type_ids.iter().all(|&t| t == 0));
        let t = tokenizer(TokenizerStyle::Gpt2);
        let e = t.encode("good", None, 32, Truncation::Never).unwrap();
        assert_eq!(t.decode(&e.ids, false).unwrap(), "good");
        assert_eq!(t.encode("", None, 32, Truncation::Never).unwrap().ids, [0]);
    }

    #[test]
    fn offsets_and_decoding_return_the_text() {
        let text = "the  film, VERY caf\u{e9} \u{1F600}good";
        for style in [TokenizerStyle::Bert, TokenizerStyle::Gpt2, TokenizerStyle::Roberta] {
            let t = tokenizer(style);
            let e = t.encode(text, None, 99, Truncation::Never).unwrap();
            let pieces: Vec<&str> =
                e.offsets.iter().map(|&(a, b)| text.get(a..b).unwrap()).collect();
            assert!(pieces.contains(&"film"), "{style:?} {pieces:?}");
            let last = pieces.iter().rposition(|p| !p.is_empty()).unwrap();
            assert_eq!(e.offsets[last].1, text.len(), "{style:?}");
            if style != TokenizerStyle::Bert {
                assert_eq!(t.decode(&e.ids, true).unwrap(), text);
            }
        }
    }

    #[test]
    fn truncation_keeps_the_special_tokens() {
        let t = tokenizer(TokenizerStyle::Bert);
        let cut = |n, how| t.encode("the film was", Some("very good and fun"), n, how);
        let e = cut(7, Truncation::LongestFirst).unwrap();
        assert_eq!(tokens(&t, &e).join(" "), "[CLS] the film [SEP] very good [SEP]");
        assert_eq!(e.truncated, 3);
        let e = cut(8, Truncation::OnlySecond).unwrap();
        assert_eq!(tokens(&t, &e).join(" "), "[CLS] the film was [SEP] very good [SEP]");
        let e = cut(8, Truncation::OnlyFirst).unwrap();
        assert_eq!(tokens(&t, &e).join(" "), "[CLS] the [SEP] very good and fun [SEP]");
        assert_eq!(cut(10, Truncation::Never).unwrap().truncated, 0);
        let e = cut(9, Truncation::Never).unwrap_err();
        assert!(e.message().starts_with("10 tokens exceed max_length 9"), "{e}");
        assert!(cut(3, Truncation::LongestFirst).is_err());
        assert!(cut(0, Truncation::LongestFirst).is_err());
        assert!(cut(5, Truncation::OnlySecond).is_err());
    }

    #[test]
    fn words_keep_their_index() {
        let words: Vec<String> =
            ["The", "unseen", "", "film", ",", "\u{200d}", "good"].map(str::to_owned).to_vec();
        let joined = words.join(" ");
        for style in [TokenizerStyle::Bert, TokenizerStyle::Gpt2, TokenizerStyle::Roberta] {
            let t = tokenizer(style);
            let e = t.encode_words(&words, 64).unwrap();
            for (i, word) in e.word_ids.iter().enumerate() {
                let (start, end) = e.offsets[i];
                let Some(word) = word else { continue };
                let from: usize = words[..*word as usize].iter().map(|w| w.len() + 1).sum();
                let to = from + words[*word as usize].len();
                assert!(from <= start && end <= to, "{style:?} {joined:?} {start}..{end} {word}");
            }
            let seen: std::collections::BTreeSet<u32> =
                e.word_ids.iter().filter_map(|w| *w).collect();
            for needed in [0, 1, 3, 4, 6] {
                assert!(seen.contains(&needed), "{style:?} lacks word {needed}");
            }
        }
    }

    #[test]
    fn windows_cover_the_context() {
        let t = tokenizer(TokenizerStyle::Bert);
        let context = "the film was very good and fun a bad film not very good at all";
        let windows = t.encode_windows("good film", context, 12, 2).unwrap();
        assert!(windows.len() > 2);
        let mut reached = 0;
        for w in &windows {
            assert!(w.len() <= 12);
            let inside: Vec<_> = (0..w.len()).filter(|&i| w.sequence_ids[i] == Some(1)).collect();
            let (first, last) = (w.offsets[inside[0]].0, w.offsets[*inside.last().unwrap()].1);
            assert!(first <= reached + 1, "a gap before byte {first}");
            reached = last;
            assert_eq!(tokens(&t, w)[..4].join(" "), "[CLS] good film [SEP]");
        }
        assert_eq!(reached, context.len());
        assert!(t.encode_windows("good film", context, 5, 2).is_err());
    }
}
