//! Predictions for texts: classes, entities, answers.

use std::ops::Range;
use std::sync::Arc;

use super::evaluate::{EvaluateOptions, is_entity_tag};
use super::names::check_names;
use super::outputs::{ClassLogits, SpanLogits, argmax};
use crate::autodiff::LossKind;
use crate::error::{Context, Error, Result};
use crate::text::metrics::entities;
use crate::text::{
    Batch, Corpus, Dataset, EncodeOptions, Example, IdNames, LabelMap, Loader, LoaderOptions,
    TextTask, Tokenizer,
};
use crate::train::{Evaluation, TensorView, Trainer};

/// How texts are encoded and answers are found.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictOptions {
    /// Texts, or windows of contexts, that run at once; at least 1. Default: 16.
    pub batch_size: usize,
    /// Longest sequence in tokens; `None` (default): the tokenizer's.
    pub max_length: Option<usize>,
    /// Entities: whether punctuation around a word, and a final 's, are words of their own, as in
    /// most corpora (default); else words are what white space separates.
    pub split_punctuation: bool,
    /// Answers: tokens that neighbouring windows of a context share. Default: 64; at most half of
    /// the window's context.
    pub overlap: usize,
    /// Answers: how they are found. `n_best` is the greatest number of answers to a question, too.
    pub answers: EvaluateOptions,
}

impl Default for PredictOptions {
    fn default() -> Self {
        Self {
            batch_size: 16,
            max_length: None,
            split_punctuation: true,
            overlap: 64,
            answers: EvaluateOptions::default(),
        }
    }
}

/// A class, an entity or an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The class, or the entity's type; `None` for answers.
    pub label: Option<String>,
    /// The entity or the answer, empty for "no answer"; `None` for classes.
    pub text: Option<String>,
    /// Its bytes in the text, or in the context.
    pub span: Range<usize>,
    /// 0 to 1. Of classes the softmax of the logits; of an entity the mean over its words of their
    /// tags' softmax; of answers the softmax of the scores of those that are listed.
    pub probability: f64,
    /// Of classes the logit; of an entity the mean of its words' tags' logits; of answers the start
    /// logit plus the end logit.
    pub score: f64,
}

/// What a trainer's model says about texts, without dropout and gradients; the model's loss tells
/// its task.
///
/// - Classification: of each text, or pair of texts, all classes, most probable first.
/// - Token classification: of each text the entities, in order; where the tags are no BIO, IOB or
///   BIOES, every word with its tag. Longer texts are predicted in parts.
/// - Question answering: `texts` are questions and `pairs` their contexts; of each the best answers
///   over all windows, best first.
///
/// Errors: `InvalidArgument` for another number of pairs, pairs for token classification, none for
/// question answering, options out of range; `Unsupported` for a model of another task; those of
/// [`Dataset::encode`] and [`Trainer::evaluate`].
pub fn predict(
    trainer: &mut Trainer,
    model: usize,
    tokenizer: &Tokenizer,
    texts: &[&str],
    pairs: Option<&[&str]>,
    options: &PredictOptions,
) -> Result<Vec<Vec<Prediction>>> {
    predict_with(trainer, model, tokenizer, texts, pairs, options, |_| Ok(()))
}

/// [`predict`], which asks `proceed` before each batch whether to go on.
pub fn predict_with(
    trainer: &mut Trainer,
    model: usize,
    tokenizer: &Tokenizer,
    texts: &[&str],
    pairs: Option<&[&str]>,
    options: &PredictOptions,
    proceed: impl Fn(&Trainer) -> Result<()>,
) -> Result<Vec<Vec<Prediction>>> {
    let name = trainer.model_name(model)?.to_owned();
    let (kind, labels) = (trainer.loss_kind(model)?.clone(), trainer.label_names(model)?.to_vec());
    if trainer.tokens(model)?.is_some() {
        let pieces = tokenizer.pieces();
        check_names(trainer, model, &IdNames { pieces, ..IdNames::default() })?;
    }
    let run = |batch: &[TensorView]| {
        proceed(trainer)?;
        trainer.evaluate(model, batch)
    };
    predict_by(run, &name, &kind, &labels, tokenizer, texts, pairs, options)
}

/// [`predict`] by a pass over a batch, for the model `name` of this loss and these labels.
#[expect(clippy::too_many_arguments, reason = "each is one part of a model or of its input")]
pub(super) fn predict_by(
    run: impl FnMut(&[TensorView]) -> Result<Evaluation>,
    name: &str,
    kind: &LossKind,
    labels: &[String],
    tokenizer: &Tokenizer,
    texts: &[&str],
    pairs: Option<&[&str]>,
    options: &PredictOptions,
) -> Result<Vec<Vec<Prediction>>> {
    let task = task(kind).context(|| format!("model '{name}'"))?;
    Inputs { task, labels, tokenizer, texts, pairs, options }.predict(run)
}

fn task(loss: &LossKind) -> Result<TextTask> {
    match loss {
        LossKind::SequenceClassification => Ok(TextTask::Classification),
        LossKind::TokenClassification => Ok(TextTask::TokenClassification),
        LossKind::QuestionAnswering => Ok(TextTask::QuestionAnswering),
        other => Err(Error::unsupported(format!(
            "predictions are made by models for classes, tags or answers, not for {other:?}"
        ))),
    }
}

struct Inputs<'a> {
    task: TextTask,
    labels: &'a [String],
    tokenizer: &'a Tokenizer,
    texts: &'a [&'a str],
    pairs: Option<&'a [&'a str]>,
    options: &'a PredictOptions,
}

impl Inputs<'_> {
    fn predict(
        &self,
        run: impl FnMut(&[TensorView]) -> Result<Evaluation>,
    ) -> Result<Vec<Vec<Prediction>>> {
        self.check()?;
        if self.texts.is_empty() {
            return Ok(Vec::new());
        }
        match self.task {
            TextTask::TokenClassification => self.entities(run),
            TextTask::QuestionAnswering => self.answers(run),
            _ => self.classes(run),
        }
    }

    fn check(&self) -> Result<()> {
        self.options.answers.check()?;
        if self.options.batch_size == 0 {
            return Err(Error::invalid("batch_size is 0; it must be at least 1"));
        }
        let n = self.texts.len();
        match (self.task, self.pairs) {
            (_, Some(pairs)) if pairs.len() != n => {
                Err(Error::invalid(format!("{} pairs for {n} texts", pairs.len())))
            }
            (TextTask::QuestionAnswering, None) => {
                Err(Error::invalid("a question needs its context: give them as pairs"))
            }
            (TextTask::TokenClassification, Some(_)) => {
                Err(Error::invalid("entities are found in texts, not in pairs of texts"))
            }
            _ => Ok(()),
        }
    }

    /// Runs every sequence of some examples, in order.
    fn run(
        &self,
        examples: Vec<Example>,
        mut run: impl FnMut(&[TensorView]) -> Result<Evaluation>,
        mut see: impl FnMut(&Dataset, &Batch, &Evaluation) -> Result<()>,
    ) -> Result<()> {
        let corpus = Corpus::new(self.task, LabelMap::default(), examples)?;
        let options = EncodeOptions {
            max_length: self.options.max_length,
            all_windows: true,
            overlap: self.options.overlap,
            ..Default::default()
        };
        let data = Arc::new(Dataset::encode(&corpus, self.tokenizer, &options)?);
        let order = LoaderOptions::evaluation(self.options.batch_size);
        let loader = Loader::new(vec![data.clone()], order)?;
        for batch in loader.batches_in_order(0)? {
            let batch = batch?;
            let is_target = |name: &str| matches!(name, "start_positions" | "end_positions");
            let tensors = batch.tensors.iter().filter(|(name, _)| !is_target(name));
            let views: Vec<TensorView> = tensors.map(|(name, t)| TensorView::of(name, t)).collect();
            see(&data, &batch, &run(&views)?)?;
        }
        Ok(())
    }

    fn name(&self, id: usize) -> String {
        self.labels.get(id).cloned().unwrap_or_else(|| format!("LABEL_{id}"))
    }

    fn classes(
        &self,
        run: impl FnMut(&[TensorView]) -> Result<Evaluation>,
    ) -> Result<Vec<Vec<Prediction>>> {
        let example = |(i, text): (usize, &&str)| Example::Text {
            text: (*text).to_owned(),
            pair: self.pairs.map(|pairs| pairs[i].to_owned()),
            label: None,
        };
        let mut all = Vec::with_capacity(self.texts.len());
        self.run(self.texts.iter().enumerate().map(example).collect(), run, |_, batch, done| {
            let logits = ClassLogits::new(&done.logits, batch, false)?;
            all.extend((0..batch.len()).map(|row| self.ranked(logits.row(row, 0))));
            Ok(())
        })?;
        Ok(all)
    }

    /// Every class, most probable first.
    fn ranked(&self, logits: &[f32]) -> Vec<Prediction> {
        let probabilities = softmax(logits.iter().copied().map(f64::from));
        let class = |(id, probability)| Prediction {
            label: Some(self.name(id)),
            text: None,
            span: 0..0,
            probability,
            score: f64::from(logits[id]),
        };
        let mut all: Vec<Prediction> = probabilities.into_iter().enumerate().map(class).collect();
        all.sort_by(|a, b| b.score.total_cmp(&a.score));
        all
    }

    fn entities(
        &self,
        run: impl FnMut(&[TensorView]) -> Result<Evaluation>,
    ) -> Result<Vec<Vec<Prediction>>> {
        let words: Vec<Vec<Range<usize>>> =
            self.texts.iter().map(|text| words(text, self.options.split_punctuation)).collect();
        let mut examples = Vec::new();
        // Which words of which text each example holds.
        let mut parts = Vec::new();
        for (text, words) in words.iter().enumerate() {
            for part in self.parts(text, words)? {
                let of = |w: &Range<usize>| self.texts[text][w.clone()].to_owned();
                let some = words[part.clone()].iter().map(of).collect();
                examples.push(Example::Words { words: some, tags: Vec::new() });
                parts.push((text, part.start));
            }
        }
        let mut tags: Vec<Vec<Option<Tag>>> = words.iter().map(|w| vec![None; w.len()]).collect();
        if !examples.is_empty() {
            self.run(examples, run, |data, batch, done| {
                let logits = ClassLogits::new(&done.logits, batch, true)?;
                for (row, &index) in batch.sequences.iter().enumerate() {
                    let sequence = &data.sequences()[index];
                    let (text, first) = parts[sequence.example];
                    for (token, word) in sequence.words.iter().enumerate() {
                        let slot = word.and_then(|w| tags[text].get_mut(first + w as usize));
                        if let Some(slot) = slot {
                            *slot = Some(Tag::new(logits.row(row, token)));
                        }
                    }
                }
                Ok(())
            })?;
        }
        let texts = self.texts.iter().zip(&words).zip(&tags);
        Ok(texts.map(|((text, words), tags)| self.spans(text, words, tags)).collect())
    }

    /// Cuts a text's words into parts that a sequence has room for.
    fn parts(&self, text: usize, words: &[Range<usize>]) -> Result<Vec<Range<usize>>> {
        let room = self.options.max_length.unwrap_or(self.tokenizer.model_max_length()).max(1);
        let mut parts = Vec::new();
        let mut start = 0;
        while start < words.len() {
            // Nearly every word has a token of its own, so that more never fit.
            let stop = words.len().min(start.saturating_add(room));
            let some: Vec<String> =
                words[start..stop].iter().map(|w| self.texts[text][w.clone()].to_owned()).collect();
            let encoding =
                self.tokenizer.encode_words(&some, room).context(|| format!("text {text}"))?;
            let seen = encoding.word_ids.iter().flatten().max().map_or(0, |&w| w as usize);
            let end = if encoding.truncated == 0 { stop } else { start + seen + 1 };
            parts.push(start..end);
            start = end;
        }
        Ok(parts)
    }

    /// The entities of a text, or every word where the tags form none.
    fn spans(&self, text: &str, words: &[Range<usize>], tags: &[Option<Tag>]) -> Vec<Prediction> {
        let name = |tag: &Option<Tag>| tag.as_ref().map_or("O".to_owned(), |t| self.name(t.id));
        let names: Vec<String> = tags.iter().map(name).collect();
        let found: Vec<(String, Range<usize>)> = if self.has_entities() {
            entities(&names).into_iter().map(|e| (e.entity_type, e.start..e.end)).collect()
        } else {
            let seen = (0..tags.len()).filter(|&i| tags[i].is_some());
            seen.map(|i| (names[i].clone(), i..i + 1)).collect()
        };
        let prediction = |(label, of): (String, Range<usize>)| {
            let span = words[of.start].start..words[of.end - 1].end;
            let tags: Vec<&Tag> = tags[of].iter().flatten().collect();
            let n = tags.len().max(1) as f64;
            Prediction {
                label: Some(label),
                text: Some(text[span.clone()].to_owned()),
                span,
                probability: tags.iter().map(|t| t.probability).sum::<f64>() / n,
                score: tags.iter().map(|t| t.logit).sum::<f64>() / n,
            }
        };
        found.into_iter().map(prediction).collect()
    }

    fn has_entities(&self) -> bool {
        !self.labels.is_empty() && self.labels.iter().all(|tag| is_entity_tag(tag))
    }

    fn answers(
        &self,
        run: impl FnMut(&[TensorView]) -> Result<Evaluation>,
    ) -> Result<Vec<Vec<Prediction>>> {
        let options = &self.options.answers;
        let contexts = self.pairs.unwrap_or_default();
        let example = |(question, context): (&&str, &&str)| Example::Question {
            id: String::new(),
            context: (*context).to_owned(),
            question: (*question).to_owned(),
            answers: None,
        };
        let mut all: Vec<Answers> = contexts.iter().map(|c| Answers::new(c)).collect();
        let examples = self.texts.iter().zip(contexts).map(example).collect();
        self.run(examples, run, |data, batch, done| {
            let logits = SpanLogits::new(&done.logits, batch)?;
            for (row, &index) in batch.sequences.iter().enumerate() {
                let sequence = &data.sequences()[index];
                if options.allow_no_answer && sequence.words.first() != Some(&Some(0)) {
                    return Err(Error::invalid(
                        "allow_no_answer: the tokenizer puts no token first that stands for it",
                    ));
                }
                let Some(context) = &sequence.context else { continue };
                let (starts, ends) = logits.row(row);
                let best = context.best_answers(
                    starts,
                    ends,
                    options.n_best,
                    options.max_answer_tokens,
                )?;
                let found = &mut all[sequence.example];
                found.no_answer = found.no_answer.min(f64::from(starts[0] + ends[0]));
                best.iter().for_each(|a| found.add(f64::from(a.score), a.start..a.end));
            }
            Ok(())
        })?;
        Ok(all.into_iter().map(|answers| answers.ranked(options)).collect())
    }
}

/// The tag of a word.
#[derive(Clone)]
struct Tag {
    id: usize,
    probability: f64,
    logit: f64,
}

impl Tag {
    fn new(logits: &[f32]) -> Self {
        let id = argmax(logits);
        let probability = softmax(logits.iter().copied().map(f64::from))[id];
        Self { id, probability, logit: f64::from(logits[id]) }
    }
}

/// The answers to one question.
struct Answers<'a> {
    context: &'a str,
    /// Scores and spans, each span once.
    found: Vec<(f64, Range<usize>)>,
    /// The least score of "no answer" over the windows.
    no_answer: f64,
}

impl<'a> Answers<'a> {
    fn new(context: &'a str) -> Self {
        Self { context, found: Vec::new(), no_answer: f64::INFINITY }
    }

    fn add(&mut self, score: f64, span: Range<usize>) {
        match self.found.iter_mut().find(|(_, other)| *other == span) {
            Some((best, _)) => *best = best.max(score),
            None => self.found.push((score, span)),
        }
    }

    /// At most `n_best`, best first. "No answer" is first where it is to be predicted.
    fn ranked(mut self, options: &EvaluateOptions) -> Vec<Prediction> {
        self.found.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.found.truncate(options.n_best);
        let best = self.found.first().map(|a| a.0);
        let exceeds = |best| self.no_answer - best > options.no_answer_threshold;
        if best.is_none_or(|best| options.allow_no_answer && exceeds(best)) {
            self.found.insert(0, (self.no_answer, 0..0));
            self.found.truncate(options.n_best);
        }
        let probabilities = softmax(self.found.iter().map(|a| a.0));
        let answer = |((score, span), probability): ((f64, Range<usize>), f64)| Prediction {
            label: None,
            text: Some(self.context.get(span.clone()).unwrap_or_default().to_owned()),
            span,
            probability,
            score,
        };
        self.found.into_iter().zip(probabilities).map(answer).collect()
    }
}

/// e^x / Σ e^x. All 0 where a number is not finite.
fn softmax(values: impl Iterator<Item = f64> + Clone) -> Vec<f64> {
    let greatest = values.clone().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = values.map(|v| (v - greatest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    let share = |p: f64| if sum.is_finite() && sum > 0.0 { p / sum } else { 0.0 };
    powers.into_iter().map(share).collect()
}

/// The bytes of the words of a text: what white space separates; with `split_punctuation` every
/// character around it that is no letter or digit, and a final 's, is a word of its own.
fn words(text: &str, split_punctuation: bool) -> Vec<Range<usize>> {
    let mut all = Vec::new();
    for piece in text.split_whitespace() {
        let start = piece.as_ptr() as usize - text.as_ptr() as usize;
        if split_punctuation {
            split_word(piece, start, &mut all);
        } else {
            all.push(start..start + piece.len());
        }
    }
    all
}

fn split_word(piece: &str, start: usize, all: &mut Vec<Range<usize>>) {
    let outside = |c: char| !c.is_alphanumeric();
    let single = |part: &str, at: usize, all: &mut Vec<Range<usize>>| {
        all.extend(part.char_indices().map(|(i, c)| at + i..at + i + c.len_utf8()));
    };
    let rest = piece.trim_start_matches(outside);
    let head = piece.len() - rest.len();
    single(&piece[..head], start, all);
    let core = rest.trim_end_matches(outside);
    let core_start = start + head;
    let suffix = ["'s", "'S", "\u{2019}s", "\u{2019}S"].iter().find(|s| core.ends_with(**s));
    let inner = core.len() - suffix.map_or(0, |s| s.len());
    for part in [core_start..core_start + inner, core_start + inner..core_start + core.len()] {
        if !part.is_empty() {
            all.push(part);
        }
    }
    single(&rest[core.len()..], core_start + core.len(), all);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;
    use crate::text::{TokenizerStyle, TokenizerTrainOptions};

    #[test]
    fn words_of_a_text() {
        let check = |text: &str, split, expect: &[&str]| {
            let found: Vec<&str> = words(text, split).into_iter().map(|w| &text[w]).collect();
            assert_eq!(found, expect, "{text}");
        };
        check("  Anna  Curie\n(Paris),", true, &["Anna", "Curie", "(", "Paris", ")", ","]);
        check(
            "John's caf\u{e9}\u{2026} U.S.",
            true,
            &["John", "'s", "caf\u{e9}", "\u{2026}", "U.S", "."],
        );
        check("well-known $5.50 's --", true, &["well-known", "$", "5.50", "'", "s", "-", "-"]);
        check("(Paris), John's", false, &["(Paris),", "John's"]);
        check("", true, &[]);
    }

    fn tokenizer() -> Tokenizer {
        let options = TokenizerTrainOptions {
            style: TokenizerStyle::Bert,
            vocab_size: 300,
            min_frequency: 1,
            ..Default::default()
        };
        Tokenizer::train(&options, &["Anna Curie lives in Paris and in the old mill"]).unwrap()
    }

    /// A model that gives every token the tag `of` its id.
    fn tagged(
        text: &str,
        labels: &[&str],
        max_length: usize,
        of: impl Fn(&Tokenizer, u32) -> usize,
    ) -> Vec<Prediction> {
        let tokenizer = tokenizer();
        let labels: Vec<String> = labels.iter().map(|l| l.to_string()).collect();
        let options =
            PredictOptions { max_length: Some(max_length), batch_size: 2, ..Default::default() };
        let inputs = Inputs {
            task: TextTask::TokenClassification,
            labels: &labels,
            tokenizer: &tokenizer,
            texts: &[text],
            pairs: None,
            options: &options,
        };
        let n = labels.len().max(3);
        let found = inputs.predict(|batch| {
            assert!(batch.iter().all(|t| t.name != "labels"));
            let ids = batch.iter().find(|t| t.name == "input_ids").unwrap();
            let shape = [ids.shape[0], ids.shape[1], n];
            let mut logits = vec![0f32; shape.iter().product()];
            for (row, id) in logits.chunks_mut(n).zip(ids.data.as_chunks::<8>().0) {
                row[of(&tokenizer, i64::from_ne_bytes(*id) as u32)] = 2.0;
            }
            let logits = vec![("logits".to_owned(), Tensor::from_slice(&shape, &logits).unwrap())];
            Ok(Evaluation { loss: None, n_correct: 0, n_labels: 0, logits })
        });
        found.unwrap().remove(0)
    }

    #[test]
    fn entities_of_long_texts_have_their_bytes() {
        let text = "in the old mill, in the old mill, in the old mill lives Anna Curie.";
        let tag = |tokenizer: &Tokenizer, id: u32| match tokenizer.token(id).as_deref() {
            Some("anna") => 1,
            Some("curie") => 2,
            _ => 0,
        };
        let p = 2f64.exp() / (2f64.exp() + 2.0);
        for max_length in [12, 40] {
            let found = tagged(text, &["O", "B-PER", "I-PER"], max_length, tag);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].label.as_deref(), Some("PER"));
            assert_eq!(found[0].text.as_deref(), Some("Anna Curie"));
            assert_eq!(&text[found[0].span.clone()], "Anna Curie");
            assert!((found[0].probability - p).abs() < 1e-12 && found[0].score == 2.0);
        }
        let plain = tagged("Anna lives", &["noun", "name", "verb"], 40, tag);
        let labels: Vec<_> = plain.iter().map(|p| p.label.as_deref().unwrap()).collect();
        assert_eq!(labels, ["name", "noun"]);
        let unnamed = tagged("Anna lives", &[], 40, tag);
        assert_eq!(unnamed[0].label.as_deref(), Some("LABEL_1"));
    }

    #[test]
    fn answers_are_listed_once_and_best_first() {
        let check = |options: &EvaluateOptions, no_answer, expect: &[(&str, f64)]| {
            let mut answers = Answers::new("one two");
            [(1.0, 0..3), (3.0, 4..7), (2.0, 0..3)]
                .into_iter()
                .for_each(|(score, span)| answers.add(score, span));
            answers.no_answer = no_answer;
            let found = answers.ranked(options);
            let sum: f64 = found.iter().map(|p| p.probability).sum();
            assert!((sum - 1.0).abs() < 1e-12);
            let found: Vec<_> =
                found.iter().map(|p| (p.text.as_deref().unwrap(), p.score)).collect();
            assert_eq!(found, expect);
        };
        let plain = EvaluateOptions::default();
        check(&plain, 9.0, &[("two", 3.0), ("one", 2.0)]);
        let allow = EvaluateOptions { allow_no_answer: true, ..plain.clone() };
        check(&allow, 9.0, &[("", 9.0), ("two", 3.0), ("one", 2.0)]);
        check(&allow, 3.0, &[("two", 3.0), ("one", 2.0)]);
        check(&EvaluateOptions { n_best: 1, ..allow.clone() }, 9.0, &[("", 9.0)]);
        check(
            &EvaluateOptions { no_answer_threshold: 6.0, ..allow },
            9.0,
            &[("two", 3.0), ("one", 2.0)],
        );
        assert_eq!(Answers::new("x").ranked(&plain)[0].text.as_deref(), Some(""));
    }

    #[test]
    fn probabilities_sum_to_one() {
        let p = softmax([1000.0, 1000.0, f64::NEG_INFINITY].into_iter());
        assert_eq!(p, [0.5, 0.5, 0.0]);
        assert_eq!(softmax([f64::NAN, 1.0].into_iter()), [0.0, 0.0]);
    }
}
