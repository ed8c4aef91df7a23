//! What a trainer and its models are made from.

use std::path::PathBuf;
use std::sync::Arc;

use super::adapters::AdapterSource;
use super::graphs::PrecomputedGradients;
use super::start::tokens::Tokens;
use crate::autodiff::LossSpec;
use crate::error::Result;
use crate::models::{Config, Task};
use crate::optim;
use crate::runtime::Device;

/// Options of a [`super::Trainer`].
#[derive(Clone, Debug, Default)]
pub struct TrainerOptions {
    /// The coordinated optimizer's options; `Default` is the project's preset. Its `n_threads` are
    /// shared by models that run side by side.
    pub optimizer: optim::Options,
    /// Where sessions compute. Default the CPU.
    pub device: Device,
    /// On CUDA, products of f32 matrices in TF32 (10 bits of mantissa). Default false.
    pub tf32: bool,
    /// Sessions that each model keeps open, one per shape; 0 means 16, the default.
    pub max_sessions: usize,
    /// Path of ONNX Runtime's library; `None` (the default) searches the usual places.
    pub runtime: Option<PathBuf>,
}

/// Where a model comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory with `config.json` and `model.safetensors`.
    Directory(PathBuf),
    /// A forward graph.
    Onnx(PathBuf),
    /// A forward graph in memory.
    OnnxBytes(bytes::Bytes),
    /// A fresh model of a known architecture.
    Config(Box<Config>),
}

/// What is done with an initializer that an exporter put in place of several equal parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SharedInitializers {
    /// It is reported and trained as one parameter. The default: the file does not tell
    /// whether the model has one parameter here or several.
    #[default]
    Report,
    /// Each use gets a copy of its own.
    Split,
}

/// What is done with two equal matrices, possibly transposed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DuplicateWeights {
    /// They are reported and trained as separate parameters.
    Report,
    /// They become one parameter where rows of one of them are looked up: a shared embedding that
    /// the exporter wrote twice. The default.
    #[default]
    Embeddings,
    /// All become one parameter.
    All,
}

/// What is done about what exporters do to parameters; for ONNX sources only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportFixes {
    /// Initializers that stand for several equal parameters. Default: reported.
    pub shared_initializers: SharedInitializers,
    /// Shared embeddings that were written twice. Default: tied again.
    pub duplicate_weights: DuplicateWeights,
    /// Whether invented names become those of the state dict where the file tells them. Default
    /// true.
    pub restore_names: bool,
}

impl Default for ImportFixes {
    fn default() -> Self {
        Self {
            shared_initializers: SharedInitializers::default(),
            duplicate_weights: DuplicateWeights::default(),
            restore_names: true,
        }
    }
}

/// A model that computes its own gradients.
#[derive(Clone, Debug, Default)]
pub struct GradientGraph {
    /// Its loss, gradients and logits, by name.
    pub outputs: PrecomputedGradients,
    /// A safetensors file with the values of parameters that are inputs of the graph, under their
    /// names; f32, f64, f16 or bf16.
    pub weights: Option<PathBuf>,
}

/// One model to train.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// Unique, non-empty name: it appears in messages, metrics and checkpoints.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// Weight among the models, ≥ 0; only ratios matter. Default 1.
    pub weight: f64,
    /// Task of a directory or configuration; default what the directory's configuration says.
    pub task: Option<Task>,
    /// Loss; default what the task says. Required for ONNX sources.
    pub loss: Option<LossSpec>,
    /// Glob patterns (`*`, `?`) of parameters to train; default `*`. A running statistic of a batch
    /// normalisation is trained only where one is its name.
    pub trainable: Vec<String>,
    /// Glob patterns of parameters to leave as they are; they win over `trainable`.
    pub frozen: Vec<String>,
    /// Rows of parameters that stay as they are: a glob pattern and the row, e.g. the embedding of
    /// the padding token. They get no gradient, and neither weight decay, sharing nor
    /// synchronisation moves them. Those of published models are frozen without being named, unless
    /// the table is a head's matrix, too.
    pub frozen_rows: Vec<(String, usize)>,
    /// Low-rank adapters: all parameters but these and whole modules that they name are frozen;
    /// `trainable` and `frozen` choose among them. Default none.
    pub adapters: Option<AdapterSource>,
    /// What is done about what exporters do to parameters.
    pub import_fixes: ImportFixes,
    /// The model, an ONNX source, computes its own gradients: nothing is differentiated, and
    /// `loss` is not needed. Default none.
    pub gradients: Option<GradientGraph>,
    /// Names the vocabulary: token tables and language-model heads are shared only between models
    /// that name the same. Default none: not shared.
    pub vocabulary: Option<String>,
    /// What the token ids stand for; the option `start` compares vocabularies by it. Default none:
    /// unknown.
    pub tokens: Option<Arc<Tokens>>,
    /// Names the label space: task heads are shared only between models that name the same.
    /// Default none: not shared.
    pub task_name: Option<String>,
    /// Dropout probability in place of the configuration's, 0 to below 1.
    pub dropout: Option<f32>,
    /// Seed of fresh weights and dropout. Default 0.
    pub seed: u64,
    /// A newly initialised head in place of that of the directory, e.g. for another number of
    /// classes; for another task it always is. Default false.
    pub fresh_head: bool,
    /// Newly initialised weights for a directory, none of which are read. Default false: a
    /// directory without weights is an error.
    pub fresh_weights: bool,
    /// Names of the classes in the order of their ids, for `config.json`; not for ONNX sources.
    /// Default empty: those of the configuration, where it is of the same task and number of
    /// classes, else `LABEL_0`, ….
    pub label_names: Vec<String>,
}

impl ModelOptions {
    /// Names of the classes by their ids; empty for a task without classes and for ONNX sources.
    ///
    /// # Errors
    /// What reading `config.json` gives; `InvalidArgument` for `label_names` that do not fit.
    pub fn class_names(&self) -> Result<Vec<String>> {
        let mut config = match &self.source {
            Source::Directory(dir) => Config::read(dir)?,
            Source::Config(config) => (**config).clone(),
            _ => return Ok(Vec::new()),
        };
        if let Some(task) = self.task {
            config.set_task(task);
        }
        if !self.label_names.is_empty() {
            config.set_labels(&self.label_names)?;
        }
        Ok(config.labels)
    }

    /// The defaults for a name and a source.
    pub fn new(name: impl Into<String>, source: Source) -> Self {
        Self {
            name: name.into(),
            source,
            weight: 1.0,
            task: None,
            loss: None,
            trainable: Vec::new(),
            frozen: Vec::new(),
            frozen_rows: Vec::new(),
            adapters: None,
            import_fixes: ImportFixes::default(),
            gradients: None,
            vocabulary: None,
            tokens: None,
            task_name: None,
            dropout: None,
            seed: 0,
            fresh_head: false,
            fresh_weights: false,
            label_names: Vec::new(),
        }
    }
}
