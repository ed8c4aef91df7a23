//! Forward graphs of known architectures from their published configuration and weights.
//!
//! A [`Config`] and a [`Task`] decide the graph. Its parameters are initializers under their
//! state-dict names and in the published layout; everything else that is constant is a
//! `Constant` node, so the initializers are exactly what can be trained. *head*: what a task
//! puts on top of the model; a checkpoint of the bare model lacks it. *alias*: a second
//! state-dict name of one tensor.

mod attention;
mod config;
mod config_keys;
mod config_read;
mod directory;
mod encoder;
mod encoder_names;
mod fill;
mod gpt2;
mod heads;
mod init;
mod net;

#[cfg(test)]
mod tests;

pub use config::{Activation, Architecture, Config, Sizes};
pub use directory::{load, save};

use crate::checkpoint::weights::Weights;
use crate::error::Result;
use crate::onnx::Graph;

/// What a model is trained for; decides the head and the outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// One of `num_labels` classes (or a value, with 1) per sequence: `logits` [batch, labels].
    SequenceClassification {
        /// Number of classes, ≥ 1.
        num_labels: usize,
    },
    /// One of `num_labels` classes per token: `logits` [batch, sequence, labels].
    TokenClassification {
        /// Number of classes, ≥ 1.
        num_labels: usize,
    },
    /// Where an answer starts and ends: `start_logits`, `end_logits` [batch, sequence].
    QuestionAnswering,
    /// The tokens behind the masked ones: `logits` [batch, sequence, vocab].
    MaskedLm,
    /// The next token: `logits` [batch, sequence, vocab]; place t predicts token t + 1.
    CausalLm,
}

impl Task {
    /// The number of labels, for tasks that have labels.
    pub fn num_labels(self) -> Option<usize> {
        match self {
            Self::SequenceClassification { num_labels }
            | Self::TokenClassification { num_labels } => Some(num_labels),
            _ => None,
        }
    }

    fn class_suffix(self) -> &'static str {
        match self {
            Self::SequenceClassification { .. } => "ForSequenceClassification",
            Self::TokenClassification { .. } => "ForTokenClassification",
            Self::QuestionAnswering => "ForQuestionAnswering",
            Self::MaskedLm => "ForMaskedLM",
            Self::CausalLm => "ForCausalLM",
        }
    }

    fn from_class(class: &str, num_labels: usize) -> Option<Self> {
        let tasks = [
            Self::SequenceClassification { num_labels },
            Self::TokenClassification { num_labels },
            Self::QuestionAnswering,
            Self::MaskedLm,
            Self::CausalLm,
        ];
        if class.ends_with("LMHeadModel") {
            return Some(Self::CausalLm);
        }
        tasks.into_iter().find(|task| class.ends_with(task.class_suffix()))
    }
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SequenceClassification { num_labels } => {
                write!(f, "sequence classification with {num_labels} labels")
            }
            Self::TokenClassification { num_labels } => {
                write!(f, "token classification with {num_labels} labels")
            }
            Self::QuestionAnswering => f.write_str("question answering"),
            Self::MaskedLm => f.write_str("masked language modelling"),
            Self::CausalLm => f.write_str("causal language modelling"),
        }
    }
}

/// How weights are read and missing ones made.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Seed of fresh parameters and of dropout; default 0.
    pub seed: u64,
    /// Replaces every dropout probability of the configuration; default: keep them.
    pub dropout: Option<f64>,
    /// Makes the head fresh even where the file has one, whatever its shape; default false.
    pub fresh_head: bool,
    /// Makes parameters of the body fresh where the file lacks them instead of refusing;
    /// default false.
    pub allow_missing: bool,
    /// Takes weights with NaN or infinity; default false.
    pub allow_non_finite: bool,
}

/// A row of an embedding that is zero and gets no gradient in the published model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaddingRow {
    /// State-dict name of the table.
    pub parameter: String,
    /// The row.
    pub row: usize,
}

/// A forward graph with its weights inside, and what training it needs to know.
#[derive(Clone, Debug)]
pub struct BuiltModel {
    /// The graph. Inputs are int64 [batch, sequence] with free dimensions of these names;
    /// outputs are f32, as [`Task`] says. Dropout is in training mode;
    /// [`BuiltModel::remove_dropout`] gives the form for evaluation.
    pub graph: Graph,
    /// The configuration, with `architectures` and `labels` of the task.
    pub config: Config,
    /// The task.
    pub task: Task,
    /// State-dict names of the parameters, in the order of use; each an initializer.
    pub parameters: Vec<String>,
    /// State-dict names that are other names of a parameter: (alias, parameter).
    pub tied: Vec<(String, String)>,
    /// Parameters that no weight was given for, so they are fresh; all of them without weights.
    pub missing: Vec<String>,
    /// Names in the weights that the model has no use for.
    pub unexpected: Vec<String>,
    /// Rows that the published model keeps at zero.
    pub padding_rows: Vec<PaddingRow>,
    /// Names of the inputs: `input_ids`, `attention_mask` and, for BERT and ALBERT,
    /// `token_type_ids`.
    pub inputs: Vec<String>,
    /// Names of the outputs.
    pub outputs: Vec<String>,
}

impl BuiltModel {
    /// Takes every `Dropout` node out of a graph, for evaluation.
    pub fn remove_dropout(graph: &mut Graph) {
        let pairs: Vec<_> = graph
            .nodes()
            .iter()
            .filter(|node| node.op == "Dropout" && node.domain.is_empty())
            .filter_map(|node| Some((node.output(0)?, node.input(0)?)))
            .collect();
        graph.retain_nodes(|_, node| node.op != "Dropout" || !node.domain.is_empty());
        // Chains resolve because nodes come in topological order: the input is replaced first.
        for (output, input) in pairs.into_iter().rev() {
            graph.replace_uses(output, input);
        }
        graph.prune();
    }
}

/// Builds the graph of `config` for `task`, with `weights` where given and fresh parameters of
/// the architecture's own initialisation where not, seeded by `seed`.
///
/// # Errors
/// `InvalidData` for sizes that contradict each other or a body that the weights lack;
/// `Unsupported` for a task that the architecture has no head for; `Shape` for weights of another
/// shape; `NonFinite` for weights with NaN or infinity. Messages name the parameter.
pub fn build(
    config: &Config,
    task: Task,
    weights: Option<&Weights>,
    seed: u64,
) -> Result<BuiltModel> {
    build_with(config, task, weights, &LoadOptions { seed, ..LoadOptions::default() })
}

/// [`build`] with all options.
pub fn build_with(
    config: &Config,
    task: Task,
    weights: Option<&Weights>,
    options: &LoadOptions,
) -> Result<BuiltModel> {
    let mut config = config.clone();
    if let Some(rate) = options.dropout {
        config.set_dropout(rate);
    }
    config.set_task(task);
    config.check()?;
    let drawn = heads::draw(&config, task, options.seed)?;
    fill::fill(drawn, config, task, weights, options)
}
