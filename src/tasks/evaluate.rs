//! Evaluation: the scores of one model over every example of a loader.

use std::borrow::Cow;

use super::names::check_names;
use super::outputs::{ClassLogits, SpanLogits, argmax};
use super::scores::{Scores, TaskScores, class_name};
use crate::error::{Error, Result, count};
use crate::text::metrics::{EntityMode, answer_scores, class_scores, entity_scores_in};
use crate::text::{Batch, Dataset, LabelMap, Loader, PredictedAnswer, Reference, Target, TextTask};
use crate::train::{Evaluation, TensorView, Trainer};

/// How predictions are made for evaluation. Only question answering has a choice.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluateOptions {
    /// An answer begins and ends at one of so many best tokens of a window; at least 1. Default:
    /// 20.
    pub n_best: usize,
    /// Greatest length of an answer in tokens; at least 1. Default: 30.
    pub max_answer_tokens: usize,
    /// Whether "no answer" may be predicted, as for SQuAD 2.0. Default: false.
    pub allow_no_answer: bool,
    /// "No answer" is predicted when its score exceeds that of the best answer by more than this.
    /// Default: 0.
    pub no_answer_threshold: f64,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self { n_best: 20, max_answer_tokens: 30, allow_no_answer: false, no_answer_threshold: 0.0 }
    }
}

impl EvaluateOptions {
    pub(super) fn check(&self) -> Result<()> {
        for (name, value) in
            [("n_best", self.n_best), ("max_answer_tokens", self.max_answer_tokens)]
        {
            if value == 0 {
                return Err(Error::invalid(format!("{name} is 0; it must be at least 1")));
            }
        }
        if self.no_answer_threshold.is_nan() {
            return Err(Error::invalid("no_answer_threshold is not a number"));
        }
        Ok(())
    }
}

/// The scores of a trainer's model on its part of a loader: every example once, in order, without
/// dropout and gradients. The loader's order, `drop_last` and position do not matter and stay.
///
/// The loss is the mean over all labels that count, not a mean of batches' means. Words that were
/// cut off count for entities as if the model had put the tag `O` there.
///
/// Errors: `InvalidArgument` for an index out of range, options out of range, a corpus without
/// labels, questions that were not encoded with `all_windows`, `allow_no_answer` where the
/// tokenizer has no token for it; `Shape` when the model has another task's head; those of
/// [`Trainer::evaluate`].
pub fn evaluate(
    trainer: &mut Trainer,
    model: usize,
    loader: &Loader,
    options: &EvaluateOptions,
) -> Result<Scores> {
    evaluate_with(trainer, model, loader, options, |_| Ok(()))
}

/// [`evaluate`], which asks `proceed` before each batch whether to go on.
pub fn evaluate_with(
    trainer: &mut Trainer,
    model: usize,
    loader: &Loader,
    options: &EvaluateOptions,
    proceed: impl Fn(&Trainer) -> Result<()>,
) -> Result<Scores> {
    trainer.model_name(model)?;
    let (n, models) = (loader.datasets().len(), trainer.n_models());
    if n != models {
        return Err(Error::invalid(format!(
            "a loader for {}, but a trainer of {models}",
            count(n, "model")
        )));
    }
    evaluate_dataset(trainer, model, (loader, model), options, proceed)
}

/// [`evaluate_with`] on any dataset of a loader.
pub(crate) fn evaluate_dataset(
    trainer: &mut Trainer,
    model: usize,
    (loader, dataset): (&Loader, usize),
    options: &EvaluateOptions,
    proceed: impl Fn(&Trainer) -> Result<()>,
) -> Result<Scores> {
    let place = format!("model '{}'", trainer.model_name(model)?);
    if let Some(data) = loader.datasets().get(dataset) {
        check_names(trainer, model, data.names())?;
    }
    trainer.log_lost(model, loader.datasets().get(dataset).and_then(|d| d.stats().warning()));
    let run = |batch: &[TensorView]| {
        proceed(trainer)?;
        trainer.evaluate(model, batch)
    };
    score(loader, dataset, options, run)
        .map_err(|e| if e.message().starts_with(&place) { e } else { e.context(place) })
}

/// The scores over one dataset of a loader with what `run` makes of each batch.
fn score(
    loader: &Loader,
    dataset: usize,
    options: &EvaluateOptions,
    mut run: impl FnMut(&[TensorView]) -> Result<Evaluation>,
) -> Result<Scores> {
    options.check()?;
    let batches = loader.batches_in_order(dataset)?;
    let data = &loader.datasets()[dataset];
    let mut counter = Counter::new(data, options)?;
    let mut sums = Sums::default();
    for batch in batches {
        let batch = batch?;
        let views: Vec<TensorView> =
            batch.tensors.iter().map(|(name, t)| TensorView::of(name, t)).collect();
        let done = run(&views)?;
        sums.add(&done);
        counter.add(&batch, &done)?;
    }
    if sums.n_labels == 0 {
        return Err(Error::invalid("no example has a label to compare with"));
    }
    let n_examples = match data.is_packed() {
        true => data.len(),
        false => data.sequences().chunk_by(|a, b| a.example == b.example).count(),
    } as u64;
    Ok(Scores {
        loss: sums.loss / sums.n_labels as f64,
        n_labels: sums.n_labels,
        n_correct: sums.n_correct,
        n_examples,
        labels: data.labels().clone(),
        task: counter.scores()?,
    })
}

#[derive(Default)]
struct Sums {
    /// Of all labels that count.
    loss: f64,
    n_labels: u64,
    n_correct: u64,
}

impl Sums {
    fn add(&mut self, done: &Evaluation) {
        // A batch's loss is the mean over its labels; without any it says nothing.
        if let (Some(loss), 1..) = (done.loss, done.n_labels) {
            self.loss += loss * done.n_labels as f64;
        }
        self.n_labels += done.n_labels;
        self.n_correct += done.n_correct;
    }
}

/// Collects what the scores of a task are counted from.
enum Counter<'a> {
    Classes(Classes),
    Words(Words<'a>),
    Answers(Answers<'a>),
    Language,
}

impl<'a> Counter<'a> {
    fn new(data: &'a Dataset, options: &'a EvaluateOptions) -> Result<Self> {
        Ok(match data.task() {
            TextTask::Classification => Self::Classes(Classes::default()),
            TextTask::TokenClassification => {
                let classes = Classes::default();
                Self::Words(Words {
                    data,
                    classes,
                    predicted: Vec::new(),
                    labelled: Vec::new(),
                    example: None,
                    unseen: 0,
                })
            }
            TextTask::QuestionAnswering => Self::Answers(Answers::new(data, options)?),
            TextTask::LanguageModeling => Self::Language,
        })
    }

    fn add(&mut self, batch: &Batch, done: &Evaluation) -> Result<()> {
        match self {
            Self::Classes(classes) => classes.add(batch, done),
            Self::Words(words) => words.add(batch, done),
            Self::Answers(answers) => answers.add(batch, done),
            Self::Language => Ok(()),
        }
    }

    fn scores(self) -> Result<TaskScores> {
        match self {
            Self::Classes(classes) => {
                let Classes { predictions, labels, n_classes } = classes;
                Ok(TaskScores::Classification(class_scores(&predictions, &labels, n_classes)?))
            }
            Self::Words(words) => words.scores(),
            Self::Answers(answers) => answers.scores(),
            Self::Language => Ok(TaskScores::LanguageModeling),
        }
    }
}

#[derive(Default)]
struct Classes {
    predictions: Vec<i64>,
    labels: Vec<i64>,
    n_classes: usize,
}

impl Classes {
    fn add(&mut self, batch: &Batch, done: &Evaluation) -> Result<()> {
        let logits = ClassLogits::new(&done.logits, batch, false)?;
        let Some(labels) = batch.tensor("labels") else { return Ok(()) };
        for (row, &label) in labels.as_slice::<i64>()?.iter().enumerate() {
            self.push(logits.row(row, 0), label);
        }
        self.n_classes = logits.n_classes;
        Ok(())
    }

    fn push(&mut self, logits: &[f32], label: i64) {
        self.predictions.push(argmax(logits) as i64);
        self.labels.push(label);
    }
}

struct Words<'a> {
    data: &'a Dataset,
    classes: Classes,
    predicted: Vec<Vec<Cow<'a, str>>>,
    labelled: Vec<Vec<Cow<'a, str>>>,
    /// The example of the last of them, whose next window may follow.
    example: Option<usize>,
    unseen: u64,
}

impl<'a> Words<'a> {
    fn add(&mut self, batch: &Batch, done: &Evaluation) -> Result<()> {
        let logits = ClassLogits::new(&done.logits, batch, true)?;
        self.classes.n_classes = logits.n_classes;
        for (row, &index) in batch.sequences.iter().enumerate() {
            let sequence = &self.data.sequences()[index];
            let Some(Reference::Tags(tags)) = self.data.reference(sequence.example) else {
                continue;
            };
            let Target::Tags(_) = sequence.target else { continue };
            if self.example != Some(sequence.example) {
                self.example = Some(sequence.example);
                self.unseen += tags.len() as u64;
                let label = |&tag: &u32| tag_name(self.data.labels(), tag as usize);
                self.labelled.push(tags.iter().map(label).collect());
                self.predicted.push(vec![Cow::Borrowed("O"); tags.len()]);
            }
            let Some(predicted) = self.predicted.last_mut() else { continue };
            for (token, word) in sequence.words.iter().enumerate() {
                let Some(word) = word.map(|w| w as usize).filter(|w| *w < tags.len()) else {
                    continue;
                };
                let scores = logits.row(row, token);
                self.classes.push(scores, i64::from(tags[word]));
                predicted[word] = tag_name(self.data.labels(), argmax(scores));
                self.unseen -= 1;
            }
        }
        Ok(())
    }

    fn scores(self) -> Result<TaskScores> {
        let Classes { predictions, labels, n_classes } = &self.classes;
        let named = self.data.labels().names().iter().all(|tag| is_entity_tag(tag));
        let entities = |mode| {
            named.then(|| entity_scores_in(mode, &self.predicted, &self.labelled)).transpose()
        };
        Ok(TaskScores::TokenClassification {
            tags: class_scores(predictions, labels, *n_classes)?,
            entities: entities(EntityMode::Lenient)?,
            strict_entities: entities(EntityMode::Strict)?,
            n_words_unseen: self.unseen,
        })
    }
}

fn tag_name(labels: &LabelMap, id: usize) -> Cow<'_, str> {
    match labels.names().get(id) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(class_name(labels, id)),
    }
}

/// `O`, or a prefix of BIO, IOB or BIOES and a type.
pub(super) fn is_entity_tag(tag: &str) -> bool {
    let prefix = tag.split_once('-').map(|(prefix, _)| prefix);
    tag == "O" || matches!(prefix, Some("B" | "I" | "E" | "S"))
}

/// The best answer of each question over its windows.
struct Answers<'a> {
    data: &'a Dataset,
    options: &'a EvaluateOptions,
    questions: Vec<Question<'a>>,
}

/// What the windows of one question's context have shown so far.
struct Question<'a> {
    example: usize,
    context: &'a str,
    best: Option<PredictedAnswer>,
    /// The least score of "no answer" over the windows.
    no_answer: Option<f32>,
}

impl<'a> Answers<'a> {
    fn new(data: &'a Dataset, options: &'a EvaluateOptions) -> Result<Self> {
        if !data.has_all_windows() {
            return Err(Error::invalid(
                "questions are scored over all windows of their contexts; make the loader with \
                 all_windows",
            ));
        }
        let marked = |s: &crate::text::Sequence| s.words.first() == Some(&Some(0));
        if options.allow_no_answer && !data.sequences().iter().all(marked) {
            return Err(Error::invalid(
                "allow_no_answer: the tokenizer puts no token first that stands for it",
            ));
        }
        Ok(Self { data, options, questions: Vec::new() })
    }

    fn add(&mut self, batch: &Batch, done: &Evaluation) -> Result<()> {
        let logits = SpanLogits::new(&done.logits, batch)?;
        for (row, &index) in batch.sequences.iter().enumerate() {
            let sequence = &self.data.sequences()[index];
            let Some(context) = sequence.context.as_deref() else { continue };
            let (starts, ends) = logits.row(row);
            let EvaluateOptions { n_best, max_answer_tokens, .. } = *self.options;
            let best = context.best_answers(starts, ends, n_best, max_answer_tokens)?;
            let no_answer = starts[0] + ends[0];
            if self.questions.last().is_none_or(|q| q.example != sequence.example) {
                let (example, context) = (sequence.example, &*context.text);
                self.questions.push(Question { example, context, best: None, no_answer: None });
            }
            if let Some(question) = self.questions.last_mut() {
                question.see(best.first().copied(), no_answer);
            }
        }
        Ok(())
    }

    fn scores(self) -> Result<TaskScores> {
        // Questions whose answers are not known are not scored.
        let pair = |q: &Question| match self.data.reference(q.example) {
            Some(Reference::Answers(Some(accepted))) => {
                Some((q.answer(self.options).to_owned(), accepted.clone()))
            }
            _ => None,
        };
        let (predicted, accepted): (Vec<String>, Vec<Vec<String>>) =
            self.questions.iter().filter_map(pair).unzip();
        Ok(TaskScores::QuestionAnswering(answer_scores(&predicted, &accepted)?))
    }
}

impl<'a> Question<'a> {
    fn see(&mut self, best: Option<PredictedAnswer>, no_answer: f32) {
        let better = |new: &PredictedAnswer| self.best.is_none_or(|old| new.score > old.score);
        self.best = best.filter(better).or(self.best);
        self.no_answer = Some(self.no_answer.map_or(no_answer, |least| least.min(no_answer)));
    }

    /// The text of the answer; empty for none.
    fn answer(&self, options: &EvaluateOptions) -> &'a str {
        let Some(best) = self.best else { return "" };
        let margin = self.no_answer.map(|score| f64::from(score) - f64::from(best.score));
        if options.allow_no_answer && margin.is_some_and(|m| m > options.no_answer_threshold) {
            return "";
        }
        self.context.get(best.start..best.end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Tensor;
    use crate::text::{
        Answer, Corpus, EncodeOptions, Example, LoaderOptions, Objective, Tokenizer,
        TokenizerStyle, TokenizerTrainOptions,
    };
    use std::sync::Arc;

    const CONTEXT: &str = "In the hot summer of 1907 the river fell, and the old mill stood still \
        until the rain came back in the autumn and the wheel turned again.";

    fn tokenizer(style: TokenizerStyle) -> Tokenizer {
        let options = TokenizerTrainOptions {
            style,
            vocab_size: 320,
            min_frequency: 1,
            ..Default::default()
        };
        Tokenizer::train(&options, &[CONTEXT]).unwrap()
    }

    fn loader(corpus: &Corpus, encode: &EncodeOptions, batch_size: usize) -> Loader {
        let data = Dataset::encode(corpus, &tokenizer(TokenizerStyle::Bert), encode).unwrap();
        // What evaluation must not depend on.
        let order = LoaderOptions { batch_size, seed: 4, drop_last: true, ..Default::default() };
        Loader::new(vec![Arc::new(data)], order).unwrap()
    }

    fn tensor(shape: &[usize], values: &[f32]) -> (String, Tensor) {
        ("logits".to_owned(), Tensor::from_slice(shape, values).unwrap())
    }

    fn find<'a>(batch: &'a [TensorView], name: &str) -> Option<&'a TensorView<'a>> {
        batch.iter().find(|t| t.name == name)
    }

    fn ints(batch: &[TensorView], name: &str) -> Vec<i64> {
        let view = find(batch, name).unwrap();
        view.data.as_chunks::<8>().0.iter().map(|b| i64::from_ne_bytes(*b)).collect()
    }

    #[test]
    fn the_loss_is_the_mean_over_labels_not_over_batches() {
        let texts: Vec<String> = (0..5).map(|i| format!("the river {i}")).collect();
        let classes = ["a", "b", "a", "c", "a"].map(str::to_owned);
        let corpus = Corpus::from_texts(texts, &classes, None).unwrap();
        let mut loader = loader(&corpus, &EncodeOptions::default(), 2);
        loader.next_batches().unwrap();
        let before = loader.state();
        let mut seen = Vec::new();
        let scores = score(&loader, 0, &EvaluateOptions::default(), |batch| {
            let labels = ints(batch, "labels");
            seen.extend(ints(batch, "example_ids"));
            // Always class b; the loss of a batch is its number of rows.
            let rows = labels.iter().flat_map(|_| [0.0, 1.0, 0.5]).collect::<Vec<f32>>();
            let n_correct = labels.iter().filter(|l| **l == 1).count() as u64;
            let (n_labels, loss) = (labels.len() as u64, Some(labels.len() as f64));
            let logits = vec![tensor(&[labels.len(), 3], &rows)];
            Ok(Evaluation { loss, n_correct, n_labels, logits })
        })
        .unwrap();
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        assert_eq!(loader.state(), before);
        assert_eq!(scores.loss, (2.0 * 2.0 + 2.0 * 2.0 + 1.0) / 5.0);
        assert_eq!((scores.n_examples, scores.n_labels, scores.n_correct), (5, 5, 1));
        assert_eq!((scores.accuracy(), scores.score()), (0.2, 0.2));
        let TaskScores::Classification(classes) = &scores.task else { unreachable!() };
        assert_eq!(classes.confusion, [[0, 3, 0], [0, 1, 0], [0, 1, 0]]);
        assert!((classes.macro_f1 - 2.0 / 6.0 / 3.0).abs() < 1e-12);
        let json: serde_json::Value = serde_json::from_str(&scores.to_json()).unwrap();
        assert_eq!(json["classes"][1]["name"], "b");
        assert_eq!(json["confusion_matrix"][0][1], 3);
        assert_eq!(json["task"], "classification");
    }

    #[test]
    fn words_that_were_cut_off_are_missed_entities() {
        let words: Vec<String> =
            ["the", "old", "mill", "and", "the", "river"].map(str::to_owned).to_vec();
        let labels = LabelMap::from_names(["O", "B-X", "I-X"]).unwrap();
        let example = Example::Words { words, tags: vec![0, 1, 2, 0, 0, 1] };
        let corpus = Corpus::new(TextTask::TokenClassification, labels, vec![example]).unwrap();
        let check = |max_length, n_unseen, recall: f64, all_windows| {
            let options =
                EncodeOptions { max_length, all_windows, overlap: 1, ..Default::default() };
            let data =
                Dataset::encode(&corpus, &tokenizer(TokenizerStyle::Bert), &options).unwrap();
            let order = LoaderOptions::evaluation(1);
            let loader = Loader::new(vec![Arc::new(data)], order).unwrap();
            let scores = score(&loader, 0, &EvaluateOptions::default(), |batch| {
                // The model is right wherever there is a label.
                let labels = ints(batch, "labels");
                let of = |l: &i64| (0..3).map(|c| f32::from(u8::from(*l == c))).collect::<Vec<_>>();
                let logits = labels.iter().flat_map(of).collect::<Vec<f32>>();
                let n = labels.iter().filter(|l| **l >= 0).count() as u64;
                let logits = vec![tensor(&[1, labels.len(), 3], &logits)];
                Ok(Evaluation { loss: Some(1.0), n_correct: n, n_labels: n, logits })
            })
            .unwrap();
            let TaskScores::TokenClassification { tags, entities, strict_entities, .. } =
                &scores.task
            else {
                unreachable!()
            };
            assert_eq!(scores.n_words_unseen(), n_unseen);
            assert_eq!(tags.accuracy, 1.0);
            for entities in [entities, strict_entities] {
                let overall = entities.as_ref().unwrap().overall;
                assert_eq!((overall.recall, overall.support), (recall, 2), "{max_length:?}");
                assert_eq!(overall.precision, if recall > 0.0 { 1.0 } else { 0.0 });
            }
        };
        let n_tokens = |n: usize| {
            let t = tokenizer(TokenizerStyle::Bert);
            let words = ["the", "old", "mill", "and", "the", "river"];
            let words: Vec<String> = words[..n].iter().map(|w| w.to_string()).collect();
            t.encode_words(&words, 400).unwrap().len()
        };
        check(None, 0, 1.0, false);
        check(Some(n_tokens(3)), 3, 0.5, false);
        check(Some(n_tokens(3)), 0, 1.0, true);
        check(Some(n_tokens(2)), 0, 1.0, true);
        // The first entity is cut in two: what is left of it is not it.
        let options = EncodeOptions { max_length: Some(n_tokens(2)), ..Default::default() };
        let data = Dataset::encode(&corpus, &tokenizer(TokenizerStyle::Bert), &options).unwrap();
        assert_eq!(data.sequences()[0].words.iter().flatten().count(), 2);
    }

    fn questions(all: &[&str]) -> Corpus {
        let example = |answer: &&str| Example::Question {
            id: String::new(),
            context: CONTEXT.into(),
            question: "when?".into(),
            answers: (*answer != "?").then(|| {
                let found = CONTEXT.find(answer).filter(|_| !answer.is_empty());
                found.map(|start| Answer { text: answer.to_string(), start }).into_iter().collect()
            }),
        };
        let all = all.iter().map(example).collect();
        Corpus::new(TextTask::QuestionAnswering, LabelMap::default(), all).unwrap()
    }

    /// A model that finds the labelled span with `found`, and "no answer" with `none`.
    fn answer_scores_of(options: &EvaluateOptions, found: f32, none: f32) -> Result<Scores> {
        let windows = EncodeOptions {
            max_length: Some(30),
            all_windows: true,
            overlap: 8,
            ..Default::default()
        };
        // Right, no answer, and one that is not known and is left out.
        let loader = loader(&questions(&["autumn", "", "?"]), &windows, 3);
        assert!(loader.datasets()[0].len() > 3, "several windows each");
        score(&loader, 0, options, |batch| {
            let shape = find(batch, "input_ids").unwrap().shape;
            let positions = |name| match find(batch, name) {
                Some(_) => ints(batch, name),
                None => vec![-100; shape[0]],
            };
            let (starts, ends) = (positions("start_positions"), positions("end_positions"));
            let logits = |at: &[i64]| {
                let mut values = vec![0.0; shape[0] * shape[1]];
                for (row, &at) in at.iter().enumerate() {
                    values[row * shape[1]] = none;
                    if at > 0 {
                        values[row * shape[1] + at as usize] = found;
                    }
                }
                tensor(shape, &values)
            };
            let n = starts.iter().filter(|s| **s >= 0).count() as u64;
            let logits = vec![logits(&starts), logits(&ends)];
            Ok(Evaluation { loss: Some(0.5), n_correct: n, n_labels: n, logits })
        })
    }

    #[test]
    fn answers_are_the_best_over_windows() {
        let plain = EvaluateOptions::default();
        let answers = |options: &EvaluateOptions, found, none| {
            answer_scores_of(options, found, none).unwrap().answers().copied().unwrap()
        };
        // The first is right, the second finds a word where there is no answer.
        let scores = answers(&plain, 5.0, 3.0);
        assert_eq!((scores.exact_match, scores.f1, scores.total), (50.0, 50.0, 2));
        let allow = EvaluateOptions { allow_no_answer: true, ..plain.clone() };
        // 6 for "no answer" in every window, 10 for the answer, 0 for any other word.
        assert_eq!(answers(&allow, 5.0, 3.0).exact_match, 100.0);
        assert_eq!(answers(&allow, 2.0, 3.0).exact_match, 50.0);
        let bold = EvaluateOptions { no_answer_threshold: 4.0, ..allow.clone() };
        assert_eq!(answers(&bold, 2.0, 3.0).exact_match, 100.0);
        let fails = |options: &EvaluateOptions, text: &str| {
            let e = answer_scores_of(options, 1.0, 1.0).unwrap_err();
            assert!(e.message().contains(text), "{e}");
        };
        fails(&EvaluateOptions { n_best: 0, ..plain.clone() }, "n_best is 0");
        fails(&EvaluateOptions { max_answer_tokens: 0, ..plain.clone() }, "max_answer_tokens");
        fails(&EvaluateOptions { no_answer_threshold: f64::NAN, ..plain.clone() }, "no_answer");
        let one = loader(&questions(&["autumn"]), &EncodeOptions::default(), 1);
        let e = score(&one, 0, &plain, |_| unreachable!()).unwrap_err();
        assert!(e.message().contains("all_windows"), "{e}");
    }

    #[test]
    fn masks_and_perplexity_are_the_same_each_time() {
        let documents = (0..6).map(|_| Example::Document(CONTEXT.into())).collect();
        let corpus =
            Corpus::new(TextTask::LanguageModeling, LabelMap::default(), documents).unwrap();
        let options = EncodeOptions {
            max_length: Some(16),
            objective: Objective::Masked,
            ..Default::default()
        };
        let mut loader = loader(&corpus, &options, 4);
        let mut of = |epoch| {
            loader.set_epoch(epoch).unwrap();
            let mut ids = Vec::new();
            let scores = score(&loader, 0, &EvaluateOptions::default(), |batch| {
                ids.extend(ints(batch, "input_ids"));
                let n = ints(batch, "labels").iter().filter(|l| **l >= 0).count() as u64;
                Ok(Evaluation { loss: Some(2.0), n_correct: 0, n_labels: n, logits: vec![] })
            });
            (ids, scores.unwrap())
        };
        let (first, second) = (of(0), of(7));
        assert_eq!(first, second);
        assert_eq!(first.1.perplexity(), Some(2f64.exp()));
    }

    #[test]
    fn other_heads_and_unlabelled_corpora_are_refused() {
        let texts = vec!["the river".to_owned(), "the mill".to_owned()];
        let check = |classes: &[String], shape: &[usize], n_labels, text: &str| {
            let corpus = Corpus::from_texts(texts.clone(), classes, None).unwrap();
            let loader = loader(&corpus, &EncodeOptions::default(), 2);
            let e = score(&loader, 0, &EvaluateOptions::default(), |_| {
                let values = vec![0.0; shape.iter().product()];
                let logits = vec![tensor(shape, &values)];
                Ok(Evaluation { loss: None, n_correct: 0, n_labels, logits })
            });
            let e = e.unwrap_err();
            assert!(e.message().contains(text), "{e}");
        };
        let classes = ["a", "b"].map(str::to_owned);
        check(&classes, &[2, 8, 2], 2, "head of the corpus's task");
        check(&[], &[2, 2], 0, "no example has a label");
        let corpus = Corpus::from_texts(texts.clone(), &classes, None).unwrap();
        let loader = loader(&corpus, &EncodeOptions::default(), 2);
        let e = score(&loader, 1, &EvaluateOptions::default(), |_| unreachable!()).unwrap_err();
        assert!(e.message().contains("model 1 of a loader for 1"), "{e}");
    }
}
