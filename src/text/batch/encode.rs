//! Encoding a corpus: from examples to sequences of token ids, in parallel, in order.

use crate::error::{Context, Error, Result};
use crate::memory::{Gather, check_room, room};
use crate::text::batch::blocks::{Frame, TokenBlocks};
use crate::text::batch::dataset::{
    AnswerContext, Dataset, IGNORE_INDEX, Masking, Sequence, Target,
};
use crate::text::batch::parallel::{BLOCK, encode_each};
use crate::text::batch::token_file::TokenFile;
use crate::text::corpus::examples::{Answer, Corpus, Example, TextTask};
use crate::text::tokenizer::encoding::{Encoding, Truncation};
use crate::text::tokenizer::style::SpecialToken;
use crate::text::tokenizer::tokenize::Tokenizer;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// What a language model predicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Objective {
    /// The next token; the loss shifts the labels.
    Causal = 0,
    /// Masked tokens; needs a tokenizer with a mask token.
    Masked = 1,
    /// Masked tokens where the tokenizer has a mask token, else the next token: models of both
    /// kinds can learn from one corpus.
    #[default]
    Auto = 2,
}

impl Objective {
    /// What it is for a tokenizer.
    fn of(self, tokenizer: &Tokenizer) -> Self {
        match self {
            Self::Auto if tokenizer.special_token_id(SpecialToken::Mask).is_some() => Self::Masked,
            Self::Auto => Self::Causal,
            chosen => chosen,
        }
    }
}

/// How a corpus is encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodeOptions {
    /// Greatest number of tokens of a sequence; `None` (default): the tokenizer's.
    pub max_length: Option<usize>,
    /// Which text is truncated (classification). Default: the longer one.
    pub truncation: Truncation,
    /// Whether batches have `token_type_ids`; `None` (default): as the tokenizer's files say.
    pub token_types: Option<bool>,
    /// Appended to the first text of a pair where the tokenizer puts no special token between the
    /// two (GPT-2). Default: a line feed.
    pub separator: String,
    /// Language modelling: next or masked tokens. Default: as the tokenizer has a mask token.
    pub objective: Objective,
    /// Language modelling: documents are joined and cut into blocks of `max_length` (default),
    /// else each is a sequence of its own.
    pub pack: bool,
    /// Masked language modelling: the probability that a token is masked, above 0 and up to 1.
    /// Default: 0.15.
    pub mlm_probability: f64,
    /// Question answering: a long context becomes several sequences that overlap (for
    /// evaluation), else one (default, for training): the one with the most context around the
    /// answer. Token classification: a long sentence becomes several sequences that overlap, in
    /// which each word is asked for once; else (default) it is cut.
    pub all_windows: bool,
    /// Tokens that neighbouring windows share. Default: 64; at most half of the window's context,
    /// or of its sentence.
    pub overlap: usize,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            max_length: None,
            truncation: Truncation::LongestFirst,
            token_types: None,
            separator: "\n".to_owned(),
            objective: Objective::Auto,
            pack: true,
            mlm_probability: 0.15,
            all_windows: false,
            overlap: 64,
        }
    }
}

impl Dataset {
    /// Encodes every example. Sequences are in the order of the examples.
    ///
    /// More than 32 examples are encoded on one thread for each core; the threads end with the
    /// call.
    ///
    /// Errors: an empty corpus; a `max_length` that leaves no room beside the special tokens; a
    /// masked objective without a mask token. The error of an example names its index.
    pub fn encode(corpus: &Corpus, tokenizer: &Tokenizer, options: &EncodeOptions) -> Result<Self> {
        if corpus.is_empty() {
            return Err(Error::invalid("the corpus has no examples"));
        }
        let masking = masking(corpus.task(), tokenizer, options)?;
        let max_length = max_length(tokenizer, options)?;
        // For the sequences, which are small blocks.
        check_room(corpus.n_bytes().saturating_mul(4))?;
        let cached = (corpus.len() > BLOCK).then(|| tokenizer.with_cache());
        let encoder =
            Encoder { tokenizer: cached.as_ref().unwrap_or(tokenizer), options, max_length };
        let sequences = encoder.all(corpus)?;
        Dataset::from_parts(corpus, tokenizer, sequences, max_length, options, masking)
    }

    /// The text of a file of tokens, joined and cut into blocks as [`Dataset::encode`] does. Blocks
    /// are read from the file when a batch has them.
    ///
    /// Errors: tokens that another tokenizer made; options without `pack`; as for a corpus a
    /// `max_length` without room, and a masked objective without a mask token; fewer than two
    /// tokens.
    pub fn from_token_file(
        tokens: &TokenFile,
        tokenizer: &Tokenizer,
        options: &EncodeOptions,
    ) -> Result<Self> {
        if !tokens.is_of(tokenizer)? {
            return Err(Error::invalid(
                "another tokenizer made the file of tokens; write it with this one",
            ));
        }
        if !options.pack {
            return Err(Error::invalid(
                "a file of tokens holds joined documents; set pack, or read the text as a corpus",
            ));
        }
        let masking = masking(TextTask::LanguageModeling, tokenizer, options)?;
        let max_length = max_length(tokenizer, options)?;
        let frame = Frame::of(tokenizer, max_length)?;
        let target = match masking {
            Some(_) => Target::MaskedTokens,
            None => Target::NextToken,
        };
        let blocks = TokenBlocks::new(tokens.clone(), frame, target);
        if blocks.len() == 0 {
            return Err(too_short());
        }
        Ok(Dataset::from_blocks(tokenizer, blocks, max_length, options, masking))
    }
}

/// The longest sequence that options and tokenizer allow.
fn max_length(tokenizer: &Tokenizer, options: &EncodeOptions) -> Result<usize> {
    let longest = tokenizer.model_max_length();
    let max_length = options.max_length.unwrap_or(longest);
    if max_length > longest {
        return Err(Error::invalid(format!(
            "max_length is {max_length}, but the tokenizer's sequences have at most {longest} \
             tokens; lower it, or train a tokenizer with a greater model_max_length"
        )));
    }
    Ok(max_length)
}

fn masking(
    task: TextTask,
    tokenizer: &Tokenizer,
    options: &EncodeOptions,
) -> Result<Option<Masking>> {
    if task != TextTask::LanguageModeling || options.objective.of(tokenizer) == Objective::Causal {
        return Ok(None);
    }
    if !(options.mlm_probability > 0.0 && options.mlm_probability <= 1.0) {
        return Err(Error::invalid(format!(
            "mlm_probability {} is not in (0, 1]",
            options.mlm_probability
        )));
    }
    let mask_id = tokenizer.special_token_id(SpecialToken::Mask).ok_or_else(|| {
        Error::invalid("the tokenizer has no mask token; use the causal objective")
    })?;
    use SpecialToken::{Bos, Cls, Eos, Pad, Sep};
    let ids = [Pad, Cls, Sep, Bos, Eos].map(|token| tokenizer.special_token_id(token));
    let never_masked = ids.into_iter().flatten().collect();
    let vocab_size = tokenizer.vocab_size();
    Ok(Some(Masking {
        mask_id,
        vocab_size,
        mlm_probability: options.mlm_probability,
        never_masked,
    }))
}

struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    options: &'a EncodeOptions,
    max_length: usize,
}

impl Encoder<'_> {
    fn all(&self, corpus: &Corpus) -> Result<Vec<Sequence>> {
        if corpus.task() == TextTask::LanguageModeling && self.options.pack {
            return self.blocks(corpus);
        }
        let one = |i, example: &_| self.sequences(i, example).context(|| format!("example {i}"));
        encode_each(corpus.examples(), one)?.into_iter().flatten().gathered()
    }

    fn sequences(&self, example: usize, from: &Example) -> Result<Vec<Sequence>> {
        match from {
            Example::Text { text, pair, label } => {
                let first = if pair.is_some() { self.first(text) } else { text.into() };
                let encoding = self.encode(&first, pair.as_deref())?;
                let target = label.map_or(Target::None, Target::Class);
                Ok(vec![Sequence::new(example, encoding, target)])
            }
            Example::Words { words, tags } => self.words(example, words, tags),
            Example::Question { context, question, answers, .. } => {
                self.question(example, question, context, answers.as_deref())
            }
            Example::Document(text) => {
                let encoding = self.encode(text, None)?;
                Ok(vec![Sequence::new(example, encoding, self.language_target())])
            }
        }
    }

    fn encode(&self, text: &str, pair: Option<&str>) -> Result<Encoding> {
        self.tokenizer.encode(text, pair, self.max_length, self.options.truncation)
    }

    /// The first text of a pair, with the separator where no special token follows it.
    fn first<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.tokenizer.added_tokens(true) {
            0 => format!("{text}{}", self.options.separator).into(),
            _ => text.into(),
        }
    }

    fn language_target(&self) -> Target {
        match self.options.objective.of(self.tokenizer) {
            Objective::Masked => Target::MaskedTokens,
            _ => Target::NextToken,
        }
    }

    /// The first token of each word has the word's tag; the others have [`IGNORE_INDEX`]. With
    /// `all_windows` what is cut off is in further sequences, and a word that two of them hold is
    /// asked for in the one where it is further from the cut.
    fn words(&self, example: usize, words: &[String], tags: &[u32]) -> Result<Vec<Sequence>> {
        let mut windows: Vec<(Encoding, Vec<Option<u32>>)> = Vec::new();
        let mut start = 0;
        loop {
            let encoding = self.tokenizer.encode_words(&words[start..], self.max_length)?;
            let mut last = None;
            let first = |word: &Option<u32>| {
                let is_first = word.is_some() && *word != last;
                last = word.or(last);
                word.filter(|_| is_first).map(|w| w + start as u32)
            };
            let first: Vec<Option<u32>> = encoding.word_ids.iter().map(first).collect();
            let seen: Vec<usize> = first.iter().flatten().map(|&w| w as usize).collect();
            let is_cut = encoding.truncated > 0;
            windows.push((encoding, first));
            let end = seen.last().map_or(start, |w| w + 1);
            if !is_cut || !self.options.all_windows || end >= words.len() || end == start {
                break;
            }
            // Neighbours share words of at most half of the tokens.
            let tokens = windows.last().map_or(0, |w| w.0.len());
            let shared = self.options.overlap.min(tokens / 2);
            let back = windows
                .last()
                .map_or(0, |w| w.1[w.1.len().saturating_sub(shared)..].iter().flatten().count());
            start = (end - back.min(end - start - 1)).max(start + 1);
        }
        for i in 1..windows.len() {
            let (before, after) = windows.split_at_mut(i);
            let (Some(before), Some(after)) = (before.last_mut(), after.first_mut()) else { break };
            let begin = after.1.iter().flatten().next().copied().unwrap_or(0);
            let end = before.1.iter().flatten().last().map_or(begin, |w| w + 1);
            // What both hold is parted in the middle.
            let middle = begin + end.saturating_sub(begin) / 2;
            before.1.iter_mut().for_each(|w| *w = w.filter(|&w| w < middle));
            after.1.iter_mut().for_each(|w| *w = w.filter(|&w| w >= middle));
        }
        let label = |word: &Option<u32>| {
            word.and_then(|w| tags.get(w as usize)).map_or(IGNORE_INDEX, |&tag| i64::from(tag))
        };
        let sequence = |(encoding, words): (Encoding, Vec<Option<u32>>)| {
            let target = match tags {
                [] => Target::None,
                _ => Target::Tags(words.iter().map(label).collect()),
            };
            Sequence { words, ..Sequence::new(example, encoding, target) }
        };
        Ok(windows.into_iter().map(sequence).collect())
    }

    fn question(
        &self,
        example: usize,
        question: &str,
        context: &str,
        answers: Option<&[Answer]>,
    ) -> Result<Vec<Sequence>> {
        let overlap = self.options.overlap;
        let first = self.first(question);
        let windows = self.tokenizer.encode_windows(&first, context, self.max_length, overlap)?;
        // The first accepted answer that a window holds.
        let held = answers.unwrap_or_default().iter().find_map(|answer| {
            let bytes = trimmed(&windows, answer.start..answer.start + answer.text.len())?;
            windows.iter().any(|w| span(w, bytes.start, bytes.end).is_some()).then_some(bytes)
        });
        // One that none holds is not learnt as "no answer".
        let is_known = answers.is_some_and(<[_]>::is_empty) || held.is_some();
        let has_cls = self.tokenizer.special_token_id(SpecialToken::Cls).is_some();
        let none = if has_cls { 0 } else { IGNORE_INDEX };
        let starts = word_starts(context);
        let mut sequences = Vec::with_capacity(windows.len());
        // For each window that holds the answer, the tokens of context on its shorter side.
        let mut margins = Vec::with_capacity(windows.len());
        let text: Arc<str> = context.into();
        for window in windows {
            let span = held.as_ref().and_then(|bytes| span(&window, bytes.start, bytes.end));
            margins.push(span.map(|(start, end)| {
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
            let mut words = words_of(context, &starts, &window);
            if let (true, Some(first)) = (has_cls, words.first_mut()) {
                *first = Some(0);
            }
            let target = if is_known { Target::Span(start, end) } else { Target::None };
            let mut sequence = Sequence::new(example, window, target);
            sequence.words = words;
            sequence.context = Some(Arc::new(AnswerContext { text: text.clone(), offsets }));
            sequences.push(sequence);
        }
        if !self.options.all_windows {
            // The first of the greatest margin; without an answer the first window.
            let best = (0..margins.len()).rev().max_by_key(|&i| margins[i]).unwrap_or(0);
            sequences = vec![sequences.swap_remove(best)];
        }
        Ok(sequences)
    }

    /// Documents joined, each followed by the end (or separator) token, cut into equal blocks.
    fn blocks(&self, corpus: &Corpus) -> Result<Vec<Sequence>> {
        let ids = |_, example: &Example| match example {
            Example::Document(text) => self.tokenizer.raw_ids(text),
            _ => Ok(Vec::new()),
        };
        let documents: Vec<Vec<u32>> = encode_each(corpus.examples(), ids)?;
        let frame = Frame::of(self.tokenizer, self.max_length)?;
        let end = self.tokenizer.document_end();
        let n = documents.iter().map(|ids| ids.len() + 1).sum();
        let mut joined: Vec<u32> = room(n)?;
        joined.extend(documents.into_iter().flat_map(|ids| ids.into_iter().chain(end)));
        let target = self.language_target();
        let block =
            |(i, chunk): (usize, &[u32])| frame.sequence(i, chunk.iter().copied(), target.clone());
        let chunks = joined.chunks(frame.room).filter(|c| c.len() >= 2).enumerate();
        let sequences = chunks.map(block).gathered()?;
        if sequences.is_empty() {
            return Err(too_short());
        }
        Ok(sequences)
    }
}

fn too_short() -> Error {
    Error::invalid("the text is too short for one block of two tokens")
}

/// Where the words of a text begin: runs of letters and digits, and every other character that is
/// no space by itself.
fn word_starts(text: &str) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut inside = false;
    for (at, c) in text.char_indices() {
        let joins = c.is_alphanumeric();
        let begins = if joins { !inside } else { !c.is_whitespace() };
        if begins {
            starts.push(at);
        }
        inside = joins;
    }
    starts
}

/// The word, from 1, that holds the first character of each of the window's tokens of the context.
fn words_of(context: &str, starts: &[usize], window: &Encoding) -> Vec<Option<u32>> {
    let word = |(&(from, to), sequence): (&(usize, usize), &Option<u32>)| {
        let text = context.get(from..to).filter(|_| *sequence == Some(1))?;
        let first = from + text.find(|c: char| !c.is_whitespace())?;
        u32::try_from(starts.partition_point(|&start| start <= first)).ok()
    };
    window.offsets.iter().zip(&window.sequence_ids).map(word).collect()
}

/// The part of bytes of a context that tokens stand for: without what yields no token at either
/// end, such as spaces, and accents that are stripped. `None` where no token does.
fn trimmed(windows: &[Encoding], bytes: Range<usize>) -> Option<Range<usize>> {
    let tokens = windows.iter().flat_map(|w| w.offsets.iter().zip(&w.sequence_ids));
    let inside = tokens
        .filter(|(o, s)| **s == Some(1) && o.0 < o.1 && o.0 < bytes.end && o.1 > bytes.start)
        .map(|(o, _)| o.0.max(bytes.start)..o.1.min(bytes.end));
    inside.reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))
}

/// First and last token of the context that bytes `start..end` overlap; `None` unless the window
/// contains all of these bytes.
fn span(window: &Encoding, start: usize, end: usize) -> Option<(usize, usize)> {
    let context = |i: &usize| window.sequence_ids[*i] == Some(1);
    let tokens: Vec<usize> = (0..window.len()).filter(context).collect();
    let first = tokens.iter().copied().find(|&i| window.offsets[i].1 > start)?;
    let last = tokens.iter().rev().copied().find(|&i| window.offsets[i].0 < end)?;
    let holds = window.offsets[first].0 <= start && window.offsets[last].1 >= end;
    (holds && first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{LabelMap, TokenizerStyle, TokenizerTrainOptions};

    const CONTEXT: &str = "The river rises in spring. In the caf\u{e9} of the old town one hears \
        that the summer of 1907 was very hot, and that the winter after it was very cold.";

    fn tokenizer(style: TokenizerStyle) -> Tokenizer {
        let options = TokenizerTrainOptions {
            style,
            vocab_size: 320,
            min_frequency: 1,
            ..Default::default()
        };
        Tokenizer::train(&options, &[CONTEXT]).unwrap()
    }

    fn question(answer: &str) -> Corpus {
        let answers = CONTEXT.find(answer).map(|start| Answer { text: answer.into(), start });
        let example = Example::Question {
            id: String::new(),
            context: CONTEXT.into(),
            question: "which summer was hot?".into(),
            answers: Some(answers.into_iter().collect()),
        };
        Corpus::new(TextTask::QuestionAnswering, LabelMap::default(), vec![example]).unwrap()
    }

    fn documents(texts: &[&str]) -> Corpus {
        let all = texts.iter().map(|t| Example::Document(t.to_string())).collect();
        Corpus::new(TextTask::LanguageModeling, LabelMap::default(), all).unwrap()
    }

    #[test]
    fn spans_point_at_the_answer_in_every_window() {
        for style in [TokenizerStyle::Bert, TokenizerStyle::Gpt2, TokenizerStyle::Roberta] {
            let tokenizer = tokenizer(style);
            for (max_length, all_windows) in [(400, false), (30, false), (30, true)] {
                let max_length = Some(max_length);
                let options =
                    EncodeOptions { max_length, all_windows, overlap: 12, ..Default::default() };
                let data = Dataset::encode(&question("summer of 1907"), &tokenizer, &options);
                let data = data.unwrap();
                let mut found = 0;
                for sequence in data.sequences() {
                    let Target::Span(start, end) = sequence.target else { unreachable!() };
                    let context = sequence.context.as_ref().unwrap();
                    if start > 0 {
                        let from = context.offsets[start as usize].0;
                        let to = context.offsets[end as usize].1;
                        assert_eq!(&context.text[from..to], "summer of 1907", "{style:?}");
                        found += 1;
                    }
                }
                assert!(found > 0, "{style:?} {max_length:?} {all_windows}");
                assert_eq!(data.len() > 1, all_windows);
            }
        }
    }

    /// The ends of the answer are the tokens inside it, whatever around them yields none.
    #[test]
    fn answers_end_at_tokens() {
        let options = TokenizerTrainOptions {
            style: TokenizerStyle::Bert,
            vocab_size: 300,
            min_frequency: 1,
            ..Default::default()
        };
        let texts = ["the cat sat on a caf\u{e9} mat", "who?"];
        let tokenizer = Tokenizer::train(&options, &texts).unwrap();
        let check = |context: &str, answer: &str, expect: Option<&str>| {
            let start = context.find(answer).unwrap();
            let answers = vec![Answer { text: answer.into(), start }];
            let example = Example::Question {
                id: String::new(),
                context: context.into(),
                question: "who?".into(),
                answers: Some(answers),
            };
            let corpus =
                Corpus::new(TextTask::QuestionAnswering, LabelMap::default(), vec![example]);
            let data =
                Dataset::encode(&corpus.unwrap(), &tokenizer, &EncodeOptions::default()).unwrap();
            let sequence = &data.sequences()[0];
            let found = match sequence.target {
                Target::Span(first, last) => {
                    let offsets = &sequence.context.as_ref().unwrap().offsets;
                    Some(&context[offsets[first as usize].0..offsets[last as usize].1])
                }
                _ => None,
            };
            assert_eq!(found, expect, "{context:?} {answer:?}");
            assert_eq!(data.stats().n_unplaced_answers, u64::from(expect.is_none()));
        };
        check("the cat sat", "cat", Some("cat"));
        check("the cat sat", "cat ", Some("cat"));
        check("the cat sat", " cat", Some("cat"));
        check("the cat sat ", "sat ", Some("sat"));
        check("the cat\u{200b} sat", "cat\u{200b}", Some("cat"));
        check("the \u{ad}cat sat", "\u{ad}cat", Some("cat"));
        check("a cafe\u{301} sat", "cafe\u{301}", Some("cafe"));
        check("the cat\u{fe0f} sat", "cat\u{fe0f}", Some("cat"));
        check("the  cat", " ", None);
    }

    #[test]
    fn an_answer_beyond_every_window_is_no_answer_of_none() {
        let options = EncodeOptions { max_length: Some(30), ..Default::default() };
        let long = "In the caf\u{e9} of the old town one hears that the summer of 1907 was very \
                    hot, and that the winter";
        for all_windows in [false, true] {
            let options = EncodeOptions { all_windows, ..options.clone() };
            let data = Dataset::encode(&question(long), &tokenizer(TokenizerStyle::Bert), &options);
            let data = data.unwrap();
            assert!(data.sequences().iter().all(|s| s.target == Target::None));
            assert_eq!(data.stats().n_unplaced_answers, 1);
        }
    }

    #[test]
    fn no_answer_points_at_the_first_token_or_is_ignored() {
        let target = |style| {
            let options = EncodeOptions { max_length: Some(400), ..Default::default() };
            let data = Dataset::encode(&question("nowhere"), &tokenizer(style), &options);
            data.unwrap().sequences()[0].target.clone()
        };
        assert_eq!(target(TokenizerStyle::Bert), Target::Span(0, 0));
        assert_eq!(target(TokenizerStyle::Gpt2), Target::Span(-100, -100));
    }

    #[test]
    fn pairs_without_special_tokens_are_separated() {
        let text = |style| {
            let t = tokenizer(style);
            let pair = Some("in spring".to_owned());
            let example = Example::Text { text: "the river".into(), pair, label: None };
            let corpus =
                Corpus::new(TextTask::Classification, LabelMap::default(), vec![example]).unwrap();
            let data = Dataset::encode(&corpus, &t, &EncodeOptions::default()).unwrap();
            t.decode(&data.sequences()[0].ids, true).unwrap()
        };
        assert_eq!(text(TokenizerStyle::Gpt2), "the river\nin spring");
        assert!(!text(TokenizerStyle::Roberta).contains('\n'));
    }

    #[test]
    fn best_answer_finds_the_labelled_span() {
        let options = EncodeOptions { max_length: Some(400), ..Default::default() };
        let data =
            Dataset::encode(&question("old town"), &tokenizer(TokenizerStyle::Bert), &options);
        let data = data.unwrap();
        let Target::Span(start, end) = data.sequences()[0].target else { unreachable!() };
        let n = data.sequences()[0].ids.len();
        let (mut starts, mut ends) = (vec![0.0; n], vec![0.0; n]);
        starts[start as usize] = 5.0;
        ends[end as usize] = 4.0;
        // Outside the context, and too far away: neither may win.
        starts[1] = 50.0;
        ends[n - 2] = 4.5;
        let found = data.best_answer(0, &starts, &ends, 8).unwrap().unwrap();
        assert_eq!(&CONTEXT[found.start..found.end], "old town");
        assert_eq!(found.score, 9.0);
        assert!(data.best_answer(0, &starts[1..], &ends, 8).is_err());
        assert!(data.best_answer(1, &starts, &ends, 8).is_err());
    }

    #[test]
    fn first_tokens_of_words_have_the_tags() {
        let words: Vec<String> = ["the", "winterish", "", "town"].map(str::to_owned).to_vec();
        let labels = LabelMap::from_names(["O", "B-X"]).unwrap();
        let example = Example::Words { words: words.clone(), tags: vec![0, 1, 0, 1] };
        let corpus = Corpus::new(TextTask::TokenClassification, labels, vec![example]).unwrap();
        for style in [TokenizerStyle::Bert, TokenizerStyle::Gpt2, TokenizerStyle::Roberta] {
            let t = tokenizer(style);
            let data = Dataset::encode(&corpus, &t, &EncodeOptions::default()).unwrap();
            let sequence = &data.sequences()[0];
            let Target::Tags(tags) = &sequence.target else { unreachable!() };
            let kept: Vec<i64> = tags.iter().copied().filter(|&t| t != IGNORE_INDEX).collect();
            assert_eq!(kept, [0, 1, 1], "{style:?}");
            assert!(tags.len() > 4, "winterish has several tokens");
            let classes: Vec<u32> = (0..sequence.ids.len() as u32).collect();
            let back = data.word_classes(0, &classes, 4).unwrap();
            assert_eq!(back[2], None);
            for (word, class) in back.iter().enumerate().filter_map(|(w, c)| Some((w, (*c)?))) {
                assert_eq!(sequence.words[class as usize], Some(word as u32));
            }
            let batch = data.batch(&[0], 16, 0).unwrap();
            let labels = batch.tensor("labels").unwrap();
            assert_eq!(labels.shape(), [1, batch.sequence_length()]);
            assert_eq!(&labels.as_slice::<i64>().unwrap()[..tags.len()], tags);
        }
    }

    #[test]
    fn long_sentences_are_asked_for_in_windows() {
        for style in [TokenizerStyle::Bert, TokenizerStyle::Gpt2] {
            let t = tokenizer(style);
            for n in [1usize, 5, 6, 7, 40, 63] {
                let words: Vec<String> = (0..n)
                    .map(|i| ["river", "caf\u{e9}", "of", "1907"][i % 4].to_owned())
                    .collect();
                let tags: Vec<u32> = (0..n).map(|i| (i % 3) as u32).collect();
                let labels = LabelMap::from_names(["a", "b", "c"]).unwrap();
                let example = Example::Words { words, tags: tags.clone() };
                let corpus =
                    Corpus::new(TextTask::TokenClassification, labels, vec![example]).unwrap();
                let encode = |all_windows, overlap| {
                    let options = EncodeOptions {
                        max_length: Some(16),
                        all_windows,
                        overlap,
                        ..EncodeOptions::default()
                    };
                    Dataset::encode(&corpus, &t, &options).unwrap()
                };
                for overlap in [0, 4, 64] {
                    let data = encode(true, overlap);
                    assert_eq!(data.stats().n_unseen_words, 0, "{n} words");
                    // Each word once, with its own tag, in order.
                    let mut seen: Vec<u32> = Vec::new();
                    for sequence in data.sequences() {
                        assert!(sequence.ids.len() <= 16 && sequence.example == 0);
                        let Target::Tags(own) = &sequence.target else { panic!() };
                        for (word, &tag) in sequence.words.iter().zip(own) {
                            assert_eq!(
                                word.map(|w| i64::from(tags[w as usize])).unwrap_or(-100),
                                tag
                            );
                            seen.extend(word);
                        }
                    }
                    assert!(seen.iter().copied().eq(0..n as u32), "{n} words: {seen:?}");
                }
                assert!(n < 40 || encode(true, 8).len() > encode(true, 0).len());
                assert_eq!(encode(false, 0).len(), 1);
                assert_eq!(n > 12, encode(false, 0).stats().n_unseen_words > 0);
            }
        }
    }

    #[test]
    fn words_of_a_context_align_tokenizers() {
        let context = "Hot (1907), and the caf\u{e9}s cold.";
        let parts = ["Hot", "(", "1907", ")", ",", "and", "the", "caf\u{e9}s", "cold", "."];
        let starts: Vec<usize> = word_starts(context);
        let firsts: Vec<&str> =
            starts.iter().zip(parts).map(|(&s, p)| &context[s..s + p.len()]).collect();
        assert_eq!((firsts, starts.len()), (parts.to_vec(), parts.len()));
        let question = Example::Question {
            id: String::new(),
            context: context.into(),
            question: "how was it?".into(),
            answers: Some(vec![Answer {
                text: "cold".into(),
                start: context.find("cold").unwrap(),
            }]),
        };
        let corpus =
            Corpus::new(TextTask::QuestionAnswering, LabelMap::default(), vec![question]).unwrap();
        for style in [TokenizerStyle::Bert, TokenizerStyle::Gpt2, TokenizerStyle::Roberta] {
            let t = tokenizer(style);
            let data = Dataset::encode(&corpus, &t, &EncodeOptions::default()).unwrap();
            let item = &data.sequences()[0];
            for (token, word) in item.words.iter().enumerate() {
                let (from, to) = item.context.as_ref().unwrap().offsets[token];
                match word {
                    Some(0) => assert!(token == 0 && style != TokenizerStyle::Gpt2),
                    None => assert_eq!(context[from..to].trim(), "", "{style:?}"),
                    Some(w) => {
                        let text = context[from..to].trim_start();
                        let word = parts[*w as usize - 1];
                        assert!(word.contains(text) || text.starts_with(word), "{text} in {word}");
                    }
                }
            }
            let Target::Span(start, _) = item.target else { unreachable!() };
            assert_eq!(item.words[start as usize], Some(9), "{style:?}");
            let batch = data.batch(&[0], 16, 0).unwrap();
            let words = batch.tensor("word_ids").unwrap().as_slice::<i64>().unwrap();
            assert_eq!(words.len(), batch.sequence_length());
            let expected = item.words.iter().map(|w| w.map_or(-1, i64::from));
            assert!(words.iter().copied().zip(expected).all(|(a, b)| a == b));
            assert_eq!(batch.tensor("example_ids").unwrap().as_slice::<i64>().unwrap(), [0]);
            assert!(data.word_classes(0, &vec![0; item.ids.len()], 4).is_err());
        }
    }

    #[test]
    fn rows_without_a_label_are_ignored_beside_others() {
        let text = |t: &str, label| Example::Text { text: t.into(), pair: None, label };
        let labels = LabelMap::from_names(["x", "y"]).unwrap();
        let examples = vec![text("the river", Some(1)), text("the old town", None)];
        let corpus = Corpus::new(TextTask::Classification, labels, examples).unwrap();
        let t = tokenizer(TokenizerStyle::Bert);
        let data = Dataset::encode(&corpus, &t, &EncodeOptions::default()).unwrap();
        let of = |items: &[usize]| {
            let batch = data.batch(items, 8, 0).unwrap();
            batch.tensor("labels").map(|t| t.as_slice::<i64>().unwrap().to_vec())
        };
        assert_eq!((of(&[1, 0]), of(&[1])), (Some(vec![IGNORE_INDEX, 1]), None));
    }

    #[test]
    fn questions_whose_answer_is_not_known_are_ignored_beside_others() {
        let asked = question("old town");
        let corpus = asked.concatenate(&asked.without_labels().unwrap()).unwrap();
        let options = EncodeOptions { max_length: Some(400), ..Default::default() };
        let data = Dataset::encode(&corpus, &tokenizer(TokenizerStyle::Bert), &options).unwrap();
        assert_eq!(data.sequences()[1].target, Target::None);
        let Target::Span(start, end) = data.sequences()[0].target else { unreachable!() };
        let batch = data.batch(&[1, 0], 8, 0).unwrap();
        for (name, position) in [("start_positions", start), ("end_positions", end)] {
            let positions = batch.tensor(name).unwrap().as_slice::<i64>().unwrap();
            assert_eq!(positions, [IGNORE_INDEX, position]);
            assert!(data.batch(&[1], 8, 0).unwrap().tensor(name).is_none());
        }
        assert_eq!(data.batch(&[1], 8, 0).unwrap().contexts.len(), 1);
    }

    #[test]
    fn blocks_hold_every_token_once() {
        let corpus = documents(&[CONTEXT, "the old river", CONTEXT]);
        for style in [TokenizerStyle::Gpt2, TokenizerStyle::Bert] {
            let t = tokenizer(style);
            let (max_length, objective) = (Some(16), Objective::Causal);
            let options = EncodeOptions { max_length, objective, ..Default::default() };
            let data = Dataset::encode(&corpus, &t, &options).unwrap();
            let end = t
                .special_token_id(SpecialToken::Eos)
                .or(t.special_token_id(SpecialToken::Sep))
                .unwrap();
            let mut expect = Vec::new();
            for text in corpus.texts().unwrap() {
                expect.extend(t.raw_ids(&text).unwrap());
                expect.push(end);
            }
            let frame = t.added_tokens(false) / 2;
            let inner = |s: &Sequence| s.ids[frame..s.ids.len() - frame].to_vec();
            let got: Vec<u32> = data.sequences().iter().flat_map(inner).collect();
            assert!(expect.len() - got.len() < 2);
            assert_eq!(got, expect[..got.len()]);
            let full = data.sequences().iter().filter(|s| s.ids.len() == 16).count();
            assert!(full + 1 >= data.len() && full > 2);
            let batch = data.batch(&[0, 1], 0, 0).unwrap();
            let of = |name| batch.tensor(name).unwrap().as_slice::<i64>().unwrap().to_vec();
            assert_eq!(of("labels"), of("input_ids"));
        }
    }

    #[test]
    fn masking_follows_its_probabilities_and_changes_by_seed() {
        let corpus = documents(&[CONTEXT; 60]);
        let t = tokenizer(TokenizerStyle::Roberta);
        let masked = EncodeOptions {
            max_length: Some(64),
            objective: Objective::Masked,
            ..Default::default()
        };
        let data = Dataset::encode(&corpus, &t, &masked).unwrap();
        let all: Vec<usize> = (0..data.len()).collect();
        let draw = |seed| data.batch(&all, 0, seed).unwrap();
        let of = |b: &crate::text::Batch, name: &str| {
            b.tensor(name).unwrap().as_slice::<i64>().unwrap().to_vec()
        };
        let batch = draw(1);
        let (ids, labels) = (of(&batch, "input_ids"), of(&batch, "labels"));
        let original: Vec<i64> = {
            let causal = EncodeOptions { objective: Objective::Causal, ..masked.clone() };
            of(
                &Dataset::encode(&corpus, &t, &causal).unwrap().batch(&all, 0, 1).unwrap(),
                "input_ids",
            )
        };
        let mask = i64::from(t.special_token_id(SpecialToken::Mask).unwrap());
        let special = |id: i64| id < 4;
        let (mut open, mut chosen, mut masks, mut same) = (0.0, 0.0, 0.0, 0.0);
        for i in 0..ids.len() {
            open += f64::from(!special(original[i]));
            if labels[i] == IGNORE_INDEX {
                assert_eq!(ids[i], original[i]);
                continue;
            }
            assert_eq!(labels[i], original[i]);
            assert!(!special(original[i]));
            chosen += 1.0;
            masks += f64::from(ids[i] == mask);
            same += f64::from(ids[i] == original[i]);
        }
        assert!((chosen / open - 0.15f64).abs() < 0.02, "{}", chosen / open);
        assert!((masks / chosen - 0.8f64).abs() < 0.05, "{}", masks / chosen);
        assert!((same / chosen - 0.1f64).abs() < 0.05, "{}", same / chosen);
        assert_eq!(of(&draw(1), "input_ids"), ids);
        assert_ne!(of(&draw(2), "input_ids"), ids);
        let e = Dataset::encode(&corpus, &tokenizer(TokenizerStyle::Gpt2), &masked).unwrap_err();
        assert!(e.message().contains("no mask token"), "{e}");
    }

    #[test]
    fn padding_and_token_types() {
        let texts = vec!["the river".to_owned(), "the".to_owned(), "in spring the old town".into()];
        let classes = ["0", "1", "0"].map(str::to_owned);
        let corpus = Corpus::from_texts(texts, &classes, None).unwrap();
        let t = tokenizer(TokenizerStyle::Bert);
        let options = EncodeOptions { max_length: Some(10), ..Default::default() };
        let data = Dataset::encode(&corpus, &t, &options).unwrap();
        let batch = data.batch(&[2, 1], 8, 0).unwrap();
        assert_eq!(batch.tensor("input_ids").unwrap().shape(), [2, 8]);
        assert!(batch.tensor("token_type_ids").is_some());
        let mask = batch.tensor("attention_mask").unwrap().as_slice::<i64>().unwrap();
        assert_eq!(mask.iter().sum::<i64>() as usize, batch.tokens);
        assert_eq!(&mask[8..], [1, 1, 1, 0, 0, 0, 0, 0]);
        assert_eq!(batch.tensor("labels").unwrap().as_slice::<i64>().unwrap(), [0, 1]);
        assert_eq!(batch.examples, [2, 1]);
        for multiple in [64, usize::MAX] {
            let wide = data.batch(&[0], multiple, 0).unwrap();
            assert_eq!(wide.sequence_length(), 10, "never beyond the greatest length");
        }
        assert!(data.batch(&[], 8, 0).is_err());
        assert!(data.batch(&[3], 8, 0).is_err());
        let plain = EncodeOptions { token_types: Some(false), ..options };
        let data = Dataset::encode(&corpus, &t, &plain).unwrap();
        assert!(data.batch(&[0], 8, 0).unwrap().tensor("token_type_ids").is_none());
        let bare = Corpus::from_texts(vec!["the".into()], &[], None).unwrap();
        let data = Dataset::encode(&bare, &t, &plain).unwrap();
        assert!(data.batch(&[0], 8, 0).unwrap().tensor("labels").is_none());
    }
}
