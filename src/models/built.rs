//! A built model, and the options of building it.

use std::collections::HashMap;

use super::config::Config;
use super::task::Task;
use crate::onnx::Graph;
use crate::tensor::DType;

/// How weights are read, and what becomes of missing ones.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Seed of fresh parameters and of dropout; default 0.
    pub seed: u64,
    /// Replaces every dropout probability of the configuration; default: keep them.
    pub dropout: Option<f64>,
    /// Makes the head fresh even where the file has one, whatever its shape; default false. A
    /// head of another task is never taken. BERT's pooler belongs to the body.
    pub fresh_head: bool,
    /// Draws all parameters of a directory, and reads no weights; default false.
    pub fresh_weights: bool,
    /// Names of the classes in the order of their ids; empty (default): those of the
    /// configuration, if it is of the same task and number of classes, else `LABEL_0`, ….
    pub labels: Vec<String>,
    /// Makes parameters of the body fresh where the file lacks them; otherwise that is an error.
    /// Default false.
    pub allow_missing: bool,
    /// Accepts weights with NaN or infinity; default false.
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

/// A forward graph with its weights, and facts that training needs.
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
    /// State-dict names of the parameters that the task puts on top of the model. BERT's pooler is
    /// one of them.
    pub head: Vec<String>,
    /// State-dict names that are other names of a parameter: (alias, parameter).
    pub tied: Vec<(String, String)>,
    /// Parameters that are newly initialised: without a weight, or of a fresh head; all of them
    /// without weights.
    pub missing: Vec<String>,
    /// Names in the weights that the model does not use.
    pub unexpected: Vec<String>,
    /// Parameters whose weights are f16 or bf16, with that type. Newly initialised ones are among
    /// them where all weights that were read have one such type.
    pub stored: HashMap<String, DType>,
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
