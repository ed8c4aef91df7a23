//! The scores of a model on a corpus.

use serde_json::{Value, json};

use crate::text::metrics::{AnswerScores, ClassScores, EntityScores, Score};
use crate::text::{LabelMap, TextTask};

/// The scores of a model on a corpus.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// Mean loss over the labels that count. Not finite where a model's loss is not.
    pub loss: f64,
    /// Labels that count: neither missing nor ignored.
    pub n_labels: u64,
    /// Labels that were predicted.
    pub n_correct: u64,
    /// Examples; of packed text, blocks.
    pub n_examples: u64,
    /// The names of classes or tags; empty for other tasks.
    pub labels: LabelMap,
    /// What the task counts beside that.
    pub task: TaskScores,
}

/// The scores that one task has.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskScores {
    /// Of a class for each text.
    Classification(ClassScores),
    /// Of a tag for each word.
    TokenClassification {
        /// Of tags, over the words that the model saw.
        tags: ClassScores,
        /// As `conlleval` counts; `None` when the tags are no BIO, IOB or BIOES.
        entities: Option<EntityScores>,
        /// As `seqeval` counts in strict mode; `None` likewise.
        strict_entities: Option<EntityScores>,
        /// Words that the model did not see, because they were cut off or have no token.
        n_words_unseen: u64,
    },
    /// Of answers.
    QuestionAnswering(AnswerScores),
    /// Of tokens.
    LanguageModeling,
}

impl Scores {
    /// The task.
    pub fn text_task(&self) -> TextTask {
        match self.task {
            TaskScores::Classification(_) => TextTask::Classification,
            TaskScores::TokenClassification { .. } => TextTask::TokenClassification,
            TaskScores::QuestionAnswering(_) => TextTask::QuestionAnswering,
            TaskScores::LanguageModeling => TextTask::LanguageModeling,
        }
    }

    /// Fraction of the labels that were predicted, 0 to 1. Question answering counts a window as
    /// predicted when both ends are.
    pub fn accuracy(&self) -> f64 {
        self.n_correct as f64 / self.n_labels.max(1) as f64
    }

    /// `exp(loss)` of a language model; `None` for other tasks.
    pub fn perplexity(&self) -> Option<f64> {
        matches!(self.task, TaskScores::LanguageModeling).then(|| self.loss.exp())
    }

    /// Unweighted mean of the F1 of the classes or tags; `None` for other tasks.
    pub fn macro_f1(&self) -> Option<f64> {
        match &self.task {
            TaskScores::Classification(classes) => Some(classes.macro_f1),
            TaskScores::TokenClassification { tags, .. } => Some(tags.macro_f1),
            _ => None,
        }
    }

    /// Scores of entities as `conlleval` counts them.
    pub fn entities(&self) -> Option<&EntityScores> {
        match &self.task {
            TaskScores::TokenClassification { entities, .. } => entities.as_ref(),
            _ => None,
        }
    }

    /// Scores of entities as `seqeval` counts them in strict mode.
    pub fn strict_entities(&self) -> Option<&EntityScores> {
        match &self.task {
            TaskScores::TokenClassification { strict_entities, .. } => strict_entities.as_ref(),
            _ => None,
        }
    }

    /// Words that the model did not see, because they were cut off or have no token.
    pub fn n_words_unseen(&self) -> u64 {
        match self.task {
            TaskScores::TokenClassification { n_words_unseen, .. } => n_words_unseen,
            _ => 0,
        }
    }

    /// Scores of answers, in per cent.
    pub fn answers(&self) -> Option<&AnswerScores> {
        match &self.task {
            TaskScores::QuestionAnswering(answers) => Some(answers),
            _ => None,
        }
    }

    /// One number to compare models by, 0 to 1, greater is better: F1 of entities as `conlleval`
    /// counts them, F1 of answers as a fraction, else accuracy.
    pub fn score(&self) -> f64 {
        let entities = self.entities().map(|e| e.overall.f1);
        let answers = self.answers().map(|a| a.f1 / 100.0);
        entities.or(answers).unwrap_or(self.accuracy())
    }

    /// Everything as JSON. A loss that is not finite is `null`.
    pub fn to_json(&self) -> String {
        let task = match &self.task {
            TaskScores::Classification(_) => "classification",
            TaskScores::TokenClassification { .. } => "token_classification",
            TaskScores::QuestionAnswering(_) => "question_answering",
            TaskScores::LanguageModeling => "language_modeling",
        };
        let mut all = json!({
            "task": task, "score": self.score(), "loss": self.loss, "accuracy": self.accuracy(),
            "n_examples": self.n_examples, "n_labels": self.n_labels,
            "n_correct": self.n_correct,
        });
        match &self.task {
            TaskScores::Classification(classes) => self.add_classes(&mut all, classes),
            TaskScores::TokenClassification { tags, entities, strict_entities, n_words_unseen } => {
                self.add_classes(&mut all, tags);
                all["n_words_unseen"] = json!(n_words_unseen);
                all["entities"] = entities.as_ref().map_or(Value::Null, entities_json);
                all["strict_entities"] =
                    strict_entities.as_ref().map_or(Value::Null, entities_json);
            }
            TaskScores::QuestionAnswering(answers) => {
                all["exact_match"] = json!(answers.exact_match);
                all["answer_f1"] = json!(answers.f1);
            }
            TaskScores::LanguageModeling => all["perplexity"] = json!(self.loss.exp()),
        }
        all.to_string()
    }

    fn add_classes(&self, all: &mut Value, classes: &ClassScores) {
        let class = |(id, score): (usize, &Score)| {
            let mut row = score_json(score);
            row["name"] = json!(class_name(&self.labels, id));
            row
        };
        all["macro_f1"] = json!(classes.macro_f1);
        all["classes"] = classes.by_class.iter().enumerate().map(class).collect();
        all["confusion_matrix"] = json!(classes.confusion);
    }
}

/// The name of a class; `LABEL_n` for classes that a model has beyond those of the corpus.
pub(super) fn class_name(labels: &LabelMap, id: usize) -> String {
    labels.names().get(id).cloned().unwrap_or_else(|| format!("LABEL_{id}"))
}

fn score_json(s: &Score) -> Value {
    json!({
        "precision": s.precision, "recall": s.recall, "f1": s.f1,
        "support": s.support, "n_predicted": s.n_predicted, "n_correct": s.n_correct,
    })
}

fn entities_json(scores: &EntityScores) -> Value {
    let mut all = score_json(&scores.overall);
    let types = scores.by_type.iter().map(|(name, s)| (name.clone(), score_json(s)));
    all["by_type"] = Value::Object(types.collect());
    all
}
