//! A model's configuration, as published directories hold it in `config.json`.
//!
//! *architecture*: which graph is built. *model type*: the `model_type` of the file; several
//! types share an architecture (`xlm-roberta` is built as RoBERTa).

mod json;
mod keys;

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::task::Task;
use crate::error::{Error, Result, count};
use keys::{Keys, ModelType};

pub use keys::{Activation, Architecture};

// Limits of what a file may ask for; they protect memory and time against broken files.
/// Largest accepted number of layers.
const MAX_LAYERS: usize = 1 << 12;
/// Largest accepted position table.
const MAX_POSITIONS: usize = 1 << 22;
/// Largest accepted number of heads, labels or token types.
const MAX_COUNT: usize = 1 << 16;
/// Largest accepted width or vocabulary.
const MAX_SIZE: usize = 1 << 28;

/// Names of classes that have none, as the published libraries write them.
fn unnamed(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("LABEL_{i}")).collect()
}

/// The sizes of a fresh model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    /// Transformer blocks, ≥ 1.
    pub layers: usize,
    /// Width, a multiple of `heads`.
    pub hidden: usize,
    /// Attention heads, ≥ 1.
    pub heads: usize,
    /// Width inside the feed-forward blocks.
    pub intermediate: usize,
    /// Vocabulary.
    pub vocab: usize,
    /// Longest sequence. RoBERTa's table gets `pad_token_id + 1` rows more, as its published
    /// models have.
    pub positions: usize,
    /// Every dropout probability, in [0, 1).
    pub dropout: f64,
}

/// Everything that decides a model's graph, and the rest of the file as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// What the file calls itself, e.g. `xlm-roberta`.
    pub model_type: String,
    /// Which graph is built.
    pub architecture: Architecture,
    /// Vocabulary size.
    pub vocab: usize,
    /// Width.
    pub hidden: usize,
    /// Width of the embeddings; ALBERT's may be smaller than `hidden`, all others' are equal.
    pub embedding: usize,
    /// ALBERT: groups of blocks; those of one group share their parameters.
    pub groups: usize,
    /// ALBERT: blocks of its own that each step through a group applies.
    pub group_layers: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Width inside the feed-forward blocks.
    pub intermediate: usize,
    /// Rows of the position table.
    pub positions: usize,
    /// Rows of the token-type table; 0 where the architecture has none.
    pub type_vocab: usize,
    /// Nonlinearity of the feed-forward blocks.
    pub activation: Activation,
    /// Dropout after sublayers, in [0, 1).
    pub hidden_dropout: f64,
    /// Dropout on attention probabilities, in [0, 1).
    pub attention_dropout: f64,
    /// Dropout on the summed embeddings, in [0, 1).
    pub embedding_dropout: f64,
    /// Dropout before the head, in [0, 1).
    pub head_dropout: f64,
    /// Added to the variance in layer normalisation.
    pub norm_epsilon: f64,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// The padding token; its embedding row is zero and stays so in BERT and RoBERTa.
    pub pad_token_id: Option<usize>,
    /// Whether the language-model head uses the word embeddings.
    pub tie_word_embeddings: bool,
    /// GPT-2: scores are divided by the square root of the head's width.
    pub scale_attention: bool,
    /// GPT-2: scores of block `i` are divided by `i + 1` too.
    pub scale_by_inverse_layer: bool,
    /// Class names that the weights were saved from; the first decides the default task.
    pub architectures: Vec<String>,
    /// Names of the labels by class index; empty when the file has none.
    pub labels: Vec<String>,
    /// All other entries of the file, written back as they came.
    pub other: Map<String, Value>,
}

impl Config {
    /// A fresh BERT.
    pub fn bert(sizes: &Sizes) -> Self {
        Self::fresh(&ModelType::BERT, sizes)
    }

    /// A fresh RoBERTa; tokens 0, 1, 2 are start, padding, end.
    pub fn roberta(sizes: &Sizes) -> Self {
        Self::fresh(&ModelType::ROBERTA, sizes)
    }

    /// A fresh GPT-2 without padding token; set `pad_token_id` where the tokenizer has one.
    pub fn gpt2(sizes: &Sizes) -> Self {
        Self::fresh(&ModelType::GPT2, sizes)
    }

    /// A fresh DistilBERT.
    pub fn distilbert(sizes: &Sizes) -> Self {
        Self::fresh(&ModelType::DISTILBERT, sizes)
    }

    /// A fresh ALBERT with one block that all layers share and embeddings of at most 128.
    pub fn albert(sizes: &Sizes) -> Self {
        let embedding = sizes.hidden.min(128);
        Self { embedding, ..Self::fresh(&ModelType::ALBERT, sizes) }
    }

    /// A fresh MPNet; tokens 0, 1, 2 are start, padding, end.
    pub fn mpnet(sizes: &Sizes) -> Self {
        Self::fresh(&ModelType::MPNET, sizes)
    }

    fn fresh(kind: &ModelType, sizes: &Sizes) -> Self {
        let pad_token_id = kind.pad_token_id;
        let counts = [Architecture::Roberta, Architecture::MpNet].contains(&kind.architecture);
        let extra = if counts { 2 } else { 0 };
        Self {
            model_type: kind.name.to_owned(),
            architecture: kind.architecture,
            vocab: sizes.vocab,
            hidden: sizes.hidden,
            embedding: sizes.hidden,
            groups: 1,
            group_layers: 1,
            layers: sizes.layers,
            heads: sizes.heads,
            intermediate: sizes.intermediate,
            positions: sizes.positions + extra,
            type_vocab: kind.type_vocab,
            activation: kind.activation,
            hidden_dropout: sizes.dropout,
            attention_dropout: sizes.dropout,
            embedding_dropout: sizes.dropout,
            head_dropout: sizes.dropout,
            norm_epsilon: kind.norm_epsilon,
            initializer_range: 0.02,
            pad_token_id,
            tie_word_embeddings: true,
            scale_attention: true,
            scale_by_inverse_layer: false,
            architectures: Vec::new(),
            labels: Vec::new(),
            other: Map::new(),
        }
    }

    /// The longest sequence that the position table serves.
    pub fn max_sequence(&self) -> usize {
        match self.architecture {
            Architecture::Roberta | Architecture::MpNet => {
                self.positions.saturating_sub(self.pad_token_id.unwrap_or(0).saturating_add(1))
            }
            _ => self.positions,
        }
    }

    /// MPNet: number of buckets that distances between tokens fall into.
    pub(super) fn distance_buckets(&self) -> usize {
        let n = self.other.get("relative_attention_num_buckets").and_then(Value::as_u64);
        n.map_or(32, |n| n.clamp(4, 1 << 16) as usize)
    }

    /// Sets every dropout probability.
    pub fn set_dropout(&mut self, rate: f64) {
        self.hidden_dropout = rate;
        self.attention_dropout = rate;
        self.embedding_dropout = rate;
        self.head_dropout = rate;
        if self.architecture == Architecture::DistilBert {
            self.other.insert("qa_dropout".into(), rate.into());
        }
    }

    /// Dropout before a question-answering head; only DistilBERT has one.
    pub(super) fn answer_dropout(&self) -> f64 {
        self.other.get("qa_dropout").and_then(Value::as_f64).unwrap_or(0.1)
    }

    /// The task of the class that the weights were saved from, with the labels' number.
    ///
    /// # Errors
    /// `InvalidArgument` when `architectures` names no class with a task.
    pub fn default_task(&self) -> Result<Task> {
        let n = if self.labels.is_empty() { 2 } else { self.labels.len() };
        let class = self.architectures.first().map_or("", String::as_str);
        Task::from_class(class, n).ok_or_else(|| {
            Error::invalid(format!(
                "'architectures' is {:?}, which names no task; say which task is wanted",
                self.architectures
            ))
        })
    }

    /// Sets `architectures` and `labels` to what a model of this task has. Labels of another
    /// number, or of another task, are replaced by `LABEL_0`, `LABEL_1`, ….
    pub fn set_task(&mut self, task: Task) {
        if self.default_task().is_ok_and(|saved| !saved.is_kind_of(task)) {
            self.labels.clear();
        }
        self.architectures = vec![format!("{}{}", self.class_prefix(), task.class_suffix())];
        if self.architecture == Architecture::Gpt2 && task == Task::CausalLm {
            self.architectures = vec!["GPT2LMHeadModel".into()];
        }
        if let Some(n) = task.num_labels().filter(|&n| n != self.labels.len()) {
            self.labels = unnamed(n);
        }
    }

    /// Names the classes of a configuration whose task is set, in the order of their ids.
    ///
    /// # Errors
    /// `InvalidArgument` for a task without classes, another number of names than of classes, and
    /// names that are empty or occur twice.
    pub fn set_labels(&mut self, labels: &[String]) -> Result<()> {
        let task = self.default_task()?;
        match task.num_labels() {
            Some(n) if n == labels.len() => {}
            Some(n) => {
                let given = labels.len();
                return Err(Error::invalid(format!(
                    "{} for {}",
                    count(given, "label name"),
                    count(n, "class")
                )));
            }
            None => return Err(Error::invalid(format!("label names for {task}"))),
        }
        let mut seen = HashSet::with_capacity(labels.len());
        for (id, name) in labels.iter().enumerate() {
            if name.is_empty() {
                return Err(Error::invalid(format!("the name of label {id} is empty")));
            }
            if !seen.insert(name) {
                return Err(Error::invalid(format!("label '{name}' occurs twice")));
            }
        }
        self.labels = labels.to_vec();
        Ok(())
    }

    /// Takes the names from the classes: those of a head that is replaced.
    pub(super) fn clear_labels(&mut self) {
        self.labels = unnamed(self.labels.len());
    }

    fn class_prefix(&self) -> &'static str {
        ModelType::find(&self.model_type).map_or("", |kind| kind.class)
    }

    /// Whether the sizes fit together; every build asks this first.
    pub fn check(&self) -> Result<()> {
        let keys = Keys::of(self.architecture);
        let sizes = [
            ("vocab_size", self.vocab, MAX_SIZE),
            (keys.hidden, self.hidden, MAX_SIZE),
            (keys.layers, self.layers, MAX_LAYERS),
            (keys.heads, self.heads, MAX_COUNT),
            (keys.intermediate, self.intermediate, MAX_SIZE),
            (keys.positions, self.positions, MAX_POSITIONS),
            ("embedding_size", self.embedding, MAX_SIZE),
            ("num_hidden_groups", self.groups, self.layers.max(1)),
            ("inner_group_num", self.group_layers, MAX_LAYERS / self.layers.clamp(1, MAX_LAYERS)),
        ];
        for (key, value, max) in sizes {
            if !(1..=max).contains(&value) {
                return Err(Error::data(format!("'{key}' is {value}, not in 1..={max}")));
            }
        }
        if self.type_vocab > MAX_COUNT || self.labels.len() > MAX_COUNT {
            return Err(Error::data("more token types or labels than 65536"));
        }
        if !self.hidden.is_multiple_of(self.heads) {
            let (hidden, heads) = (self.hidden, self.heads);
            return Err(Error::data(format!(
                "'{}' is {hidden}, not a multiple of '{}', {heads}",
                keys.hidden, keys.heads
            )));
        }
        if self.architecture != Architecture::Albert && self.embedding != self.hidden {
            return Err(Error::data(format!(
                "embeddings of width {} in a model of width {}; only ALBERT's may differ",
                self.embedding, self.hidden
            )));
        }
        self.check_rates()?;
        if let Some(pad) = self.pad_token_id.filter(|&pad| pad >= self.vocab) {
            return Err(Error::data(format!(
                "'pad_token_id' is {pad}, outside of the vocabulary of {}",
                self.vocab
            )));
        }
        if self.max_sequence() == 0 {
            return Err(Error::data(format!("'{}' leaves no position", keys.positions)));
        }
        Ok(())
    }

    fn check_rates(&self) -> Result<()> {
        let keys = Keys::of(self.architecture);
        let rates = [
            (keys.hidden_dropout, self.hidden_dropout),
            (keys.attention_dropout, self.attention_dropout),
            (keys.embedding_dropout, self.embedding_dropout),
            (keys.head_dropout, self.head_dropout),
        ];
        for (key, rate) in rates {
            if !(0.0..1.0).contains(&rate) {
                return Err(Error::data(format!("'{key}' is {rate}, not in [0, 1)")));
            }
        }
        for (key, value) in
            [(keys.norm_epsilon, self.norm_epsilon), ("initializer_range", self.initializer_range)]
        {
            if !value.is_finite() || value < 0.0 {
                return Err(Error::data(format!("'{key}' is {value}, not a number ≥ 0")));
            }
        }
        Ok(())
    }
}
