//! The task and the size of a fresh model.

use crate::error::{Error, Result};
use crate::ffi::core::args::choice;
use crate::ffi::core::structs::{Options, init};
use crate::models::{Config, Sizes, Task};

/// What a model is trained for; decides its head and outputs.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_task {
    /// One class per sequence.
    SequenceClassification = 1,
    /// One class per token.
    TokenClassification = 2,
    /// The start and the end of an answer.
    QuestionAnswering = 3,
    /// The masked tokens.
    MaskedLm = 4,
    /// The next token.
    CausalLm = 5,
}

/// The configuration of a fresh model. mmopt_model_config_init fills in that of a small one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_model_config {
    /// sizeof(mmopt_model_config).
    pub struct_size: usize,
    /// An mmopt_architecture; default MMOPT_ARCHITECTURE_BERT.
    pub architecture: u32,
    /// An mmopt_task; default MMOPT_TASK_SEQUENCE_CLASSIFICATION.
    pub task: u32,
    /// Number of classes or tags, for classification; default 2.
    pub n_labels: usize,
    /// Size of the vocabulary; default 8000.
    pub vocab_size: usize,
    /// Transformer blocks; default 2.
    pub n_layers: usize,
    /// Width, a multiple of n_heads; default 128.
    pub hidden_size: usize,
    /// Attention heads; default 4.
    pub n_heads: usize,
    /// Width of the feed-forward layers; 0 (default): 4 times hidden_size.
    pub intermediate_size: usize,
    /// Longest sequence in tokens; default 128.
    pub n_positions: usize,
    /// All dropout probabilities, at least 0, below 1; default 0.1.
    pub dropout: f64,
    /// The padding token's id; -1 (default): the architecture's.
    pub pad_token_id: i64,
}

impl Default for mmopt_model_config {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            architecture: 1,
            task: mmopt_task::SequenceClassification as u32,
            n_labels: 2,
            vocab_size: 8000,
            n_layers: 2,
            hidden_size: 128,
            n_heads: 4,
            intermediate_size: 0,
            n_positions: 128,
            dropout: 0.1,
            pad_token_id: -1,
        }
    }
}

// SAFETY: repr(C), begins with its size, numbers only.
unsafe impl Options for mmopt_model_config {
    const NAME: &'static str = "mmopt_model_config";
}

/// Fills in the configuration of a small model. NULL is harmless.
///
/// @param[out] config filled with the defaults; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_model_config_init(config: *mut mmopt_model_config) {
    // SAFETY: the caller's struct, by the header's contract.
    unsafe { init(config) };
}

impl mmopt_model_config {
    /// The configuration and task; `labels` are the names of the classes, if known.
    pub(crate) fn config(&self, labels: Vec<String>) -> Result<(Config, Task)> {
        if !(0.0..1.0).contains(&self.dropout) {
            let text = format!("dropout is {}; it is at least 0 and below 1", self.dropout);
            return Err(Error::invalid(text));
        }
        let sizes = Sizes {
            layers: self.n_layers,
            hidden: self.hidden_size,
            heads: self.n_heads,
            intermediate: match self.intermediate_size {
                0 => self.hidden_size.saturating_mul(4),
                width => width,
            },
            vocab: self.vocab_size,
            positions: self.n_positions,
            dropout: self.dropout,
        };
        let make: fn(&Sizes) -> Config = choice(
            self.architecture,
            "architecture",
            &[
                (1, Config::bert as fn(&Sizes) -> Config),
                (2, Config::gpt2),
                (3, Config::roberta),
                (4, Config::distilbert),
            ],
        )?;
        let mut config = make(&sizes);
        if self.pad_token_id >= 0 {
            config.pad_token_id = Some(self.pad_token_id as usize);
        }
        config.labels = labels;
        let task = task(self.task, self.n_labels)?;
        config.set_task(task);
        config.check()?;
        Ok((config, task))
    }
}

/// The task of a number; one that is no mmopt_task, and an impossible count of classes, are errors.
pub(crate) fn task(task: u32, n_labels: usize) -> Result<Task> {
    let tasks = [
        (1, Task::SequenceClassification { num_labels: n_labels }),
        (2, Task::TokenClassification { num_labels: n_labels }),
        (3, Task::QuestionAnswering),
        (4, Task::MaskedLm),
        (5, Task::CausalLm),
    ];
    let task = choice(task, "task", &tasks)?;
    match task.num_labels() {
        Some(0) => Err(Error::invalid("n_labels is 0; classification needs at least 1")),
        Some(n) if n > MAX_LABELS => {
            Err(Error::invalid(format!("n_labels is {n}; there can be {MAX_LABELS} at most")))
        }
        _ => Ok(task),
    }
}

/// Classes or tags that a head can have; more is a mistake in the caller's arithmetic.
const MAX_LABELS: usize = 1 << 24;
