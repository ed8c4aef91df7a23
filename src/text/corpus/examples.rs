//! A corpus: the examples of one task, independent of tokenizers and models.

use crate::error::{Error, Result, count};
use crate::memory::{Gather, check_room, room};
use crate::text::corpus::labels::LabelMap;

/// What a model learns from a corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum TextTask {
    /// One class for a text or a pair of texts.
    Classification = 1,
    /// One tag for each word.
    TokenClassification = 2,
    /// The span of a context that answers a question (extractive question answering).
    QuestionAnswering = 3,
    /// The next token of plain text, or masked ones.
    LanguageModeling = 4,
}

/// An accepted answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The answer as written in the context.
    pub text: String,
    /// Its first byte in the context.
    pub start: usize,
}

/// One example of a corpus.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Example {
    /// A text or a pair of texts, and its class if known.
    Text {
        /// The text.
        text: String,
        /// The second text of a pair task.
        pair: Option<String>,
        /// The id of the class.
        label: Option<u32>,
    },
    /// Words and, if known, a tag for each.
    Words {
        /// The words.
        words: Vec<String>,
        /// Ids of the tags: as many as words, or none.
        tags: Vec<u32>,
    },
    /// A question about a context.
    Question {
        /// The identifier in the file; empty where it has none.
        id: String,
        /// The text that holds the answer.
        context: String,
        /// The question.
        question: String,
        /// The accepted answers if they are known; empty when the context has none.
        answers: Option<Vec<Answer>>,
    },
    /// A document of plain text.
    Document(String),
}

/// The examples of one task and the names of its classes or tags.
#[derive(Clone, Debug, PartialEq)]
pub struct Corpus {
    task: TextTask,
    labels: LabelMap,
    examples: Vec<Example>,
}

impl Corpus {
    /// From examples.
    ///
    /// Errors: `InvalidArgument` when an example is of another task, a label is outside
    /// `labels`, or words and tags differ in number; the message names the example.
    pub fn new(task: TextTask, labels: LabelMap, examples: Vec<Example>) -> Result<Self> {
        for (i, example) in examples.iter().enumerate() {
            check(task, labels.len(), example).map_err(|e| e.context(format!("example {i}")))?;
        }
        Ok(Self { task, labels, examples })
    }

    /// A classification corpus from texts and the names of their classes (as many as texts, or
    /// none). With `labels` the ids are taken from there and an unknown name is an error.
    pub fn from_texts(
        texts: Vec<String>,
        classes: &[String],
        labels: Option<&LabelMap>,
    ) -> Result<Self> {
        Self::from_pairs(texts, Vec::new(), classes, labels)
    }

    /// As [`Corpus::from_texts`], with the second text of each pair; as many as texts, or none.
    pub fn from_pairs(
        texts: Vec<String>,
        pairs: Vec<String>,
        classes: &[String],
        labels: Option<&LabelMap>,
    ) -> Result<Self> {
        if !pairs.is_empty() && pairs.len() != texts.len() {
            let (n, m) = (texts.len(), pairs.len());
            return Err(Error::invalid(format!("{m} second texts for {n} texts")));
        }
        if !classes.is_empty() && classes.len() != texts.len() {
            return Err(Error::invalid(format!(
                "{} for {}",
                count(classes.len(), "label"),
                count(texts.len(), "text")
            )));
        }
        let seen = || LabelMap::from_seen(classes.iter().map(String::as_str));
        let labels = labels.cloned().unwrap_or_else(seen);
        let label = |i: usize| match classes.get(i) {
            None => Ok(None),
            Some(name) => labels.id(name).map(Some).ok_or_else(|| unknown_label(name, &labels)),
        };
        let mut examples = room(texts.len())?;
        let mut pairs = pairs.into_iter();
        for (i, text) in texts.into_iter().enumerate() {
            let label = label(i).map_err(|e| e.context(format!("example {i}")))?;
            examples.push(Example::Text { text, pair: pairs.next(), label });
        }
        Self::new(TextTask::Classification, labels, examples)
    }

    /// The task of all examples.
    pub fn task(&self) -> TextTask {
        self.task
    }

    /// Names of classes (classification) or tags (tokens); empty for other tasks.
    pub fn labels(&self) -> &LabelMap {
        &self.labels
    }

    /// The examples in file order.
    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.examples.len()
    }

    /// True without any example.
    pub fn is_empty(&self) -> bool {
        self.examples.is_empty()
    }

    /// All texts, in order, for training a tokenizer; words are joined by spaces.
    pub fn texts(&self) -> Result<Vec<String>> {
        self.check_room()?;
        let mut texts = room(2 * self.examples.len())?;
        for example in &self.examples {
            match example {
                Example::Text { text, pair, .. } => {
                    texts.push(text.clone());
                    texts.extend(pair.clone());
                }
                Example::Words { words, .. } => texts.push(words.join(" ")),
                Example::Question { context, question, .. } => {
                    texts.push(question.clone());
                    texts.push(context.clone());
                }
                Example::Document(text) => texts.push(text.clone()),
            }
        }
        Ok(texts)
    }

    /// The examples at `indices`, in that order, with the same labels.
    ///
    /// Error: an index is out of range.
    pub fn subset(&self, indices: &[usize]) -> Result<Self> {
        let pick = |&i: &usize| {
            self.examples.get(i).cloned().ok_or_else(|| {
                Error::invalid(format!("example {i} of a corpus of {}", self.examples.len()))
            })
        };
        self.check_room()?;
        let examples = indices.iter().map(pick).gathered_or_error()?;
        Ok(Self { task: self.task, labels: self.labels.clone(), examples })
    }

    /// The examples of both, these first: [`Corpus::concatenate_all`] of two.
    pub fn concatenate(&self, other: &Self) -> Result<Self> {
        Self::concatenate_all(&[self, other])
    }

    /// The examples of all corpora, in their order, e.g. labelled and unlabelled texts to learn
    /// from together. All must have the same classes, except that some may have none.
    ///
    /// Errors: `InvalidArgument` for no corpus, or another task or classes than the first with any;
    /// the message names both.
    pub fn concatenate_all(corpora: &[&Self]) -> Result<Self> {
        let Some(first) = corpora.first() else {
            return Err(Error::invalid("no corpora to concatenate"));
        };
        let named = corpora.iter().position(|c| !c.labels.is_empty()).unwrap_or(0);
        let labels = &corpora[named].labels;
        for (i, corpus) in corpora.iter().enumerate() {
            if corpus.task != first.task {
                return Err(Error::invalid(format!(
                    "corpora 0 and {i} cannot be one: their tasks are {:?} and {:?}",
                    first.task, corpus.task
                )));
            }
            if !corpus.labels.is_empty() && corpus.labels != *labels {
                return Err(Error::invalid(format!(
                    "corpora {named} and {i} cannot be one: their classes are {:?} and {:?}; read \
                     corpus {i} with the classes of corpus {named}",
                    labels.names(),
                    corpus.labels.names()
                )));
            }
        }
        corpora.iter().try_for_each(|c| c.check_room())?;
        let mut examples = room(corpora.iter().map(|c| c.len()).sum())?;
        examples.extend(corpora.iter().flat_map(|c| &c.examples).cloned());
        Ok(Self { task: first.task, labels: labels.clone(), examples })
    }

    /// A copy with the same classes whose examples have no labels, e.g. to learn from them beside
    /// labelled ones. Plain text stays as it is.
    pub fn without_labels(&self) -> Result<Self> {
        let mut copy = Self::concatenate_all(&[self])?;
        for example in &mut copy.examples {
            match example {
                Example::Text { label, .. } => *label = None,
                Example::Words { tags, .. } => tags.clear(),
                Example::Question { answers, .. } => *answers = None,
                Example::Document(_) => {}
            }
        }
        Ok(copy)
    }

    /// The texts as documents of plain text, e.g. to train a language model on them before a
    /// classifier: [`Corpus::texts`] for language modelling.
    pub fn plain_text(&self) -> Result<Self> {
        let examples = self.texts()?.into_iter().map(Example::Document).gathered()?;
        Ok(Self { task: TextTask::LanguageModeling, labels: LabelMap::default(), examples })
    }

    /// Bytes of all texts.
    pub(crate) fn n_bytes(&self) -> usize {
        let of = |example: &Example| match example {
            Example::Text { text, pair, .. } => text.len() + pair.as_ref().map_or(0, String::len),
            Example::Words { words, .. } => {
                words.iter().map(|w| w.len() + size_of::<String>()).sum()
            }
            Example::Question { context, question, .. } => context.len() + question.len(),
            Example::Document(text) => text.len(),
        };
        self.examples.iter().map(of).sum()
    }

    /// Whether there is memory for a copy, which is made of many small blocks.
    fn check_room(&self) -> Result<()> {
        check_room(self.n_bytes())
    }

    /// How often each class (classification) or tag (tokens) occurs, by id.
    pub fn label_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.labels.len()];
        for example in &self.examples {
            match example {
                Example::Text { label: Some(label), .. } => counts[*label as usize] += 1,
                Example::Words { tags, .. } => {
                    tags.iter().for_each(|&tag| counts[tag as usize] += 1);
                }
                _ => {}
            }
        }
        counts
    }

    /// Fraction of the labels that are the most frequent class or tag, 0 to 1: the accuracy of
    /// always predicting it. 0 without labels.
    pub fn majority_fraction(&self) -> f64 {
        let counts = self.label_counts();
        let total: usize = counts.iter().sum();
        let most = counts.iter().copied().max().unwrap_or(0);
        if total == 0 { 0.0 } else { most as f64 / total as f64 }
    }
}

/// The error for a label that the training data do not have.
pub(crate) fn unknown_label(name: &str, labels: &LabelMap) -> Error {
    let known = labels.names().iter().take(20).map(|n| format!("'{n}'")).collect::<Vec<_>>();
    let more = if labels.len() > 20 { ", ..." } else { "" };
    Error::data(format!("label '{name}' is not one of {}{more}", known.join(", ")))
}

fn check(task: TextTask, n_labels: usize, example: &Example) -> Result<()> {
    let known = |id: u32| {
        if (id as usize) < n_labels {
            return Ok(());
        }
        Err(Error::invalid(format!("label {id}, but there are {n_labels}")))
    };
    match (task, example) {
        (TextTask::Classification, Example::Text { label, .. }) => label.map_or(Ok(()), known),
        (TextTask::TokenClassification, Example::Words { words, tags }) => {
            if !tags.is_empty() && tags.len() != words.len() {
                let text = format!("{} words but {} tags", words.len(), tags.len());
                return Err(Error::invalid(text));
            }
            tags.iter().copied().try_for_each(known)
        }
        (TextTask::QuestionAnswering, Example::Question { context, answers, .. }) => {
            let inside =
                |a: &&Answer| context.get(a.start..).is_none_or(|rest| !rest.starts_with(&a.text));
            match answers.iter().flatten().find(inside) {
                None => Ok(()),
                Some(a) => Err(Error::invalid(format!(
                    "the answer '{}' is not at byte {} of its context",
                    a.text, a.start
                ))),
            }
        }
        (TextTask::LanguageModeling, Example::Document(_)) => Ok(()),
        _ => Err(Error::invalid(format!("it does not belong to the task {task:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(all: &[&str]) -> Vec<String> {
        all.iter().map(|s| s.to_string()).collect()
    }

    #[test]
    fn majority_and_subset() {
        let texts = strings(&["a", "b", "c", "d"]);
        let corpus = Corpus::from_texts(texts, &strings(&["x", "y", "y", "y"]), None).unwrap();
        assert_eq!(corpus.label_counts(), [1, 3]);
        assert_eq!(corpus.majority_fraction(), 0.75);
        let part = corpus.subset(&[3, 0]).unwrap();
        assert_eq!(part.texts().unwrap(), ["d", "a"]);
        assert_eq!(part.labels(), corpus.labels());
        assert!(corpus.subset(&[4]).is_err());
    }

    #[test]
    fn pairs_of_texts() {
        let texts = || strings(&["a", "b"]);
        let corpus =
            Corpus::from_pairs(texts(), strings(&["c", "d"]), &strings(&["x", "y"]), None).unwrap();
        let second = Example::Text { text: "b".into(), pair: Some("d".into()), label: Some(1) };
        assert_eq!(corpus.examples()[1], second);
        let e = Corpus::from_pairs(texts(), strings(&["c"]), &[], None).unwrap_err();
        assert_eq!(e.message(), "1 second texts for 2 texts");
    }

    #[test]
    fn labelled_and_unlabelled_texts_become_one() {
        let read = |texts: &[&str], classes: &[&str]| {
            Corpus::from_texts(strings(texts), &strings(classes), None).unwrap()
        };
        let (labelled, bare) = (read(&["a", "b"], &["x", "y"]), read(&["c"], &[]));
        let both = labelled.concatenate(&bare).unwrap();
        assert_eq!(
            (both.texts().unwrap(), both.label_counts()),
            (strings(&["a", "b", "c"]), vec![1, 1])
        );
        assert_eq!(bare.concatenate(&labelled).unwrap().labels(), labelled.labels());
        let all = Corpus::concatenate_all(&[&bare, &labelled, &bare, &labelled]).unwrap();
        assert_eq!(
            (all.texts().unwrap().join(""), all.label_counts()),
            ("cabcab".into(), vec![2, 2])
        );
        let other = Corpus::concatenate_all(&[&bare, &labelled, &read(&["d"], &["z"])]);
        assert_eq!(
            other.unwrap_err().message(),
            "corpora 1 and 2 cannot be one: their classes are [\"x\", \"y\"] and [\"z\"]; read \
             corpus 2 with the classes of corpus 1"
        );
        let words =
            Corpus::new(TextTask::TokenClassification, LabelMap::default(), Vec::new()).unwrap();
        let other = labelled.concatenate(&words).unwrap_err();
        assert!(other.message().contains("Classification and TokenClassification"), "{other}");
        assert!(Corpus::concatenate_all(&[]).is_err());
    }

    #[test]
    fn a_copy_without_labels_keeps_the_classes() {
        let labels = LabelMap::from_names(["x", "y"]).unwrap();
        let check = |task, example: Example, bare: Example| {
            let corpus = Corpus::new(task, labels.clone(), vec![example]).unwrap();
            let copy = corpus.without_labels().unwrap();
            assert_eq!((copy.labels(), copy.examples()), (&labels, &[bare][..]));
            assert_eq!(corpus.concatenate(&copy).unwrap().len(), 2);
        };
        let text = |label| Example::Text { text: "a".into(), pair: None, label };
        check(TextTask::Classification, text(Some(1)), text(None));
        let words = |tags| Example::Words { words: strings(&["a", "b"]), tags };
        check(TextTask::TokenClassification, words(vec![0, 1]), words(vec![]));
        let question = |answers| Example::Question {
            id: "1".into(),
            context: "in May".into(),
            question: "when?".into(),
            answers,
        };
        let answer = Answer { text: "May".into(), start: 3 };
        check(TextTask::QuestionAnswering, question(Some(vec![answer])), question(None));
        let document = Example::Document("a".into());
        check(TextTask::LanguageModeling, document.clone(), document);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let labels = LabelMap::from_names(["x"]).unwrap();
        let e = Corpus::from_texts(strings(&["a"]), &strings(&["z"]), Some(&labels)).unwrap_err();
        assert_eq!(e.message(), "example 0: label 'z' is not one of 'x'");
        let words = Example::Words { words: strings(&["a", "b"]), tags: vec![0] };
        assert!(
            Corpus::new(TextTask::TokenClassification, labels.clone(), vec![words.clone()])
                .is_err()
        );
        assert!(Corpus::new(TextTask::LanguageModeling, labels, vec![words]).is_err());
        let question = Example::Question {
            id: String::new(),
            context: "in May".into(),
            question: "when?".into(),
            answers: Some(vec![Answer { text: "May".into(), start: 2 }]),
        };
        assert!(
            Corpus::new(TextTask::QuestionAnswering, LabelMap::default(), vec![question]).is_err()
        );
    }
}
