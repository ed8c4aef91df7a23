//! Tokenizers: text to ids and back, with the special tokens that an architecture expects.
//!
//! Terms: *style* is the set of special tokens and the way sequences are framed (BERT:
//! `[CLS] a [SEP] b [SEP]`, RoBERTa: `<s> a </s></s> b </s>`, GPT-2: nothing); *kind* is how
//! words are cut into pieces. Offsets are bytes of the text given, without white space around.

use crate::error::{Error, Result};
use crate::text::tokenizer::style::{SpecialToken, TokenizerStyle};
use tokenizers::utils::truncation::{
    TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};
use tokenizers::{ModelWrapper, PostProcessor, PostProcessorWrapper, Tokenizer as Pipeline};

/// Words whose pieces a copy for much text remembers.
const REMEMBERED: usize = 10_000;
/// Greater ids are taken for damage: embeddings need a row for each.
const MOST_IDS: usize = 1 << 24;

/// What to do with texts that exceed the length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Truncation {
    /// Cut the longer of the two from its end until it fits.
    #[default]
    LongestFirst = 0,
    /// Cut the first text only.
    OnlyFirst = 1,
    /// Cut the second text only (contexts of questions).
    OnlySecond = 2,
    /// Too long is an error.
    Never = 3,
}

/// An encoded text. All vectors have one entry a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids.
    pub ids: Vec<u32>,
    /// 0, or 1 for the second text of a pair (BERT).
    pub type_ids: Vec<u32>,
    /// 1 for every token: nothing is padded here.
    pub mask: Vec<u32>,
    /// Bytes `start..end` of the token in its text; (0, 0) for added special tokens.
    pub offsets: Vec<(usize, usize)>,
    /// The word that a token belongs to; `None` for added special tokens. For
    /// [`Tokenizer::encode_words`] the index of the word given.
    pub word_ids: Vec<Option<u32>>,
    /// 0 for the first text, 1 for the second, `None` for added special tokens.
    pub sequence_ids: Vec<Option<u32>>,
    /// Tokens that were cut off.
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

/// A tokenizer: owned, immutable, usable from several threads at once.
#[derive(Clone)]
pub struct Tokenizer {
    pub(crate) pipeline: Pipeline,
    pub(crate) framing: Option<PostProcessorWrapper>,
    pub(crate) style: TokenizerStyle,
    pub(crate) specials: [Option<u32>; 7],
    pub(crate) max_length: usize,
    pub(crate) token_types: bool,
    n_ids: usize,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({:?}, {} tokens)", self.style, self.vocab_size())
    }
}

/// An error of the tokenizer library.
pub(crate) fn foreign(e: tokenizers::Error) -> Error {
    Error::data(format!("tokenizer: {e}")).with_source(e)
}

/// How many words byte-pair encoding remembers the pieces of. It does so in each thread until the
/// thread ends, even when the tokenizer is gone.
fn remember(pipeline: &mut Pipeline, words: usize) {
    if let ModelWrapper::BPE(model) = pipeline.get_model() {
        let mut model = model.clone();
        model.resize_cache(words);
        pipeline.with_model(model);
    }
}

impl Tokenizer {
    /// A copy for much text, to be used on threads that end with it.
    pub(crate) fn remembering(&self) -> Self {
        let mut copy = self.clone();
        remember(&mut copy.pipeline, REMEMBERED);
        copy
    }

    /// Takes a pipeline apart: framing is applied here, padding and truncation by the caller.
    pub(crate) fn from_pipeline(mut pipeline: Pipeline, style: TokenizerStyle) -> Result<Self> {
        let framing = pipeline.get_post_processor().cloned();
        pipeline.with_post_processor(None::<PostProcessorWrapper>);
        pipeline.with_padding(None);
        pipeline.with_truncation(None).map_err(foreign)?;
        remember(&mut pipeline, 0);
        let id = |special| style.token(special).and_then(|token| pipeline.token_to_id(token));
        let specials = SpecialToken::ALL.map(id);
        let n_ids = pipeline.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        if n_ids > MOST_IDS {
            return Err(Error::data(format!(
                "a token has the id {}; at most {MOST_IDS}",
                n_ids - 1
            )));
        }
        let token_types = style == TokenizerStyle::Bert;
        Ok(Self { pipeline, framing, style, specials, max_length: 512, token_types, n_ids })
    }

    /// Special tokens and framing.
    pub fn style(&self) -> TokenizerStyle {
        self.style
    }

    /// Number of ids, special tokens included: the rows that an embedding needs. Where ids have
    /// gaps it is the greatest id plus one.
    pub fn vocab_size(&self) -> usize {
        self.n_ids
    }

    /// The length that the files name, or 512: the default limit of [`crate::text::EncodeOptions`].
    pub fn model_max_length(&self) -> usize {
        self.max_length
    }

    /// Changes what [`Tokenizer::save`] writes as the model's greatest length, in tokens.
    pub fn set_model_max_length(&mut self, tokens: usize) {
        self.max_length = tokens;
    }

    /// The id of a special token; `None` when the vocabulary has none.
    pub fn special_token_id(&self, special: SpecialToken) -> Option<u32> {
        self.specials[special as usize]
    }

    /// What short sequences are filled with: the pad token, else the end token, else 0. Filled
    /// places are masked out, so the choice does not matter to the result.
    pub fn pad_id(&self) -> u32 {
        let id = |s| self.special_token_id(s);
        id(SpecialToken::Pad).or(id(SpecialToken::Eos)).unwrap_or(0)
    }

    /// The id of a token's exact text.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.pipeline.token_to_id(token)
    }

    /// The text of an id.
    pub fn token(&self, id: u32) -> Option<String> {
        self.pipeline.id_to_token(id)
    }

    /// True when the architecture distinguishes the two texts of a pair by `token_type_ids`.
    pub fn has_token_types(&self) -> bool {
        self.token_types
    }

    /// Tokens that framing adds to one text or to a pair.
    pub fn added_tokens(&self, pair: bool) -> usize {
        self.framing.as_ref().map_or(0, |p| p.added_tokens(pair))
    }

    /// Encodes a text or a pair with the special tokens of its style, at most `max_length`
    /// tokens. The result is never empty: an empty text without framing becomes one end token.
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
        let first = self.pipeline.encode(text, false).map_err(foreign)?;
        let second = pair.map(|p| self.pipeline.encode(p, false).map_err(foreign)).transpose()?;
        let (first, second, truncated) = self.cut(first, second, max_length, truncation)?;
        let framed = self.frame(first, second)?;
        Ok(self.export(&framed, text, pair.unwrap_or(""), truncated))
    }

    /// Encodes words as their text joined by single spaces. `word_ids` index `words`, offsets
    /// are bytes of the joined text. Words may yield no token (white space, control characters)
    /// or be cut off.
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

    /// Encodes a question with a context that may be too long: windows of it that overlap by
    /// `overlap` tokens (at most half of the room), each with the question before it. A question
    /// keeps at most half of `max_length`.
    ///
    /// Error: `InvalidArgument` when `max_length` leaves no room beside the special tokens.
    pub fn encode_windows(
        &self,
        question: &str,
        context: &str,
        max_length: usize,
        overlap: usize,
    ) -> Result<Vec<Encoding>> {
        let mut asked = self.pipeline.encode(question, false).map_err(foreign)?;
        let all = self.pipeline.encode(context, false).map_err(foreign)?;
        let added = self.added_tokens(true);
        shorten(&mut asked, max_length / 2, TruncationDirection::Right);
        let room = max_length.saturating_sub(added + asked.len());
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
            let mut part = all.clone();
            shorten(&mut part, end, TruncationDirection::Right);
            shorten(&mut part, end - start, TruncationDirection::Left);
            let framed = self.frame(asked.clone(), Some(part))?;
            windows.push(self.export(&framed, question, context, all.len() - (end - start)));
            if end == all.len() {
                return Ok(windows);
            }
            start += stride;
        }
    }

    /// Ids of a text without special tokens, however long.
    pub(crate) fn raw_ids(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.pipeline.encode_fast(text, false).map_err(foreign)?.get_ids().to_vec())
    }

    /// Text of `ids`; special tokens are left out when `skip_special_tokens`.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        self.pipeline.decode(ids, skip_special_tokens).map_err(foreign)
    }

    fn cut(
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

    fn frame(
        &self,
        first: tokenizers::Encoding,
        second: Option<tokenizers::Encoding>,
    ) -> Result<tokenizers::Encoding> {
        if let Some(framing) = &self.framing {
            return framing.process(first, second, true).map_err(foreign);
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
            return self.lone_end(truncated);
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
            mask: vec![1; from.len()],
            offsets: from.get_offsets().iter().zip(&sequence_ids).map(trim).collect(),
            word_ids: from.get_word_ids().to_vec(),
            sequence_ids,
            truncated,
        }
    }

    fn lone_end(&self, truncated: usize) -> Encoding {
        Encoding {
            ids: vec![self.special_token_id(SpecialToken::Eos).unwrap_or_else(|| self.pad_id())],
            type_ids: vec![0],
            mask: vec![1],
            offsets: vec![(0, 0)],
            word_ids: vec![None],
            sequence_ids: vec![None],
            truncated,
        }
    }
}

/// Cuts an encoding and forgets what was cut off.
fn shorten(encoding: &mut tokenizers::Encoding, length: usize, direction: TruncationDirection) {
    if length < encoding.len() {
        encoding.truncate(length, 0, direction);
        encoding.take_overflowing();
    }
}

/// `start..end` without white space at either end; unchanged when nothing else is inside.
fn trimmed(text: &str, start: usize, end: usize) -> (usize, usize) {
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
    fn pairs_are_framed_as_the_architectures_expect() {
        let check = |style, expect: &[&str], types: &[u32]| {
            let t = tokenizer(style);
            let e = t.encode("very good", Some("bad film"), 32, Truncation::Never).unwrap();
            assert_eq!(tokens(&t, &e), expect);
            assert_eq!(e.type_ids, types);
            assert_eq!(e.mask, vec![1; e.len()]);
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
    fn offsets_give_the_text_back_and_decoding_too() {
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
    fn truncation_keeps_the_frame() {
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
