//! Options of mutual learning. `optim` holds them; whoever runs the models acts on them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whose predictions a model learns from. Models without a trained parameter teach beside the
/// others, whichever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Teacher {
    /// The models that ran before it in the step; another one begins each time. Costs no pass.
    #[default]
    PeersBefore,
    /// All other models, each by a forward pass without dropout before the step's training passes.
    Peers,
    /// All other models of the same step, with dropout: the training passes run side by side and
    /// meet when their logits are there (Zhang et al. 2018). Costs no pass; where they cannot run
    /// at the same time (`max_parallel_models`, devices), a forward pass each.
    Online,
    /// As `peers`, each by a running mean of its weights (Tarvainen and Valpola 2017). A model
    /// without others learns from its own.
    MeanTeacher,
    /// The mean of all models' past predictions of the same example (Laine and Aila 2017). Costs
    /// no pass; not for language models; batches name their examples, and the words of tokens.
    Memory,
    /// Only the models without a trained parameter (Hinton et al. 2015).
    Frozen,
}

impl Teacher {
    /// Whether models learn from the logits of each other's training passes of the same step.
    pub(crate) fn is_in_training_passes(self) -> bool {
        matches!(self, Self::PeersBefore | Self::Online)
    }
}

/// How much each teacher counts in the mean prediction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TeacherWeights {
    /// All the same.
    #[default]
    Equal,
    /// By model weight, which follows validation scores with `weighting = validation`.
    Model,
}

/// Learning from each other's predictions; carried out by whoever runs the models. The formulas
/// stand in docs/optimizer.md.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mutual {
    /// What happens where models cannot learn from each other: other tasks or classes, rows that do
    /// not fit, a pass of one model alone. true: an error. false: they train without, and the plan
    /// says why.
    #[schemars(example = false)]
    pub required: bool,
    /// Whose predictions a model learns from.
    #[schemars(example = Teacher::MeanTeacher)]
    pub teacher: Teacher,
    /// Weight of KL(teachers ‖ own) beside the loss; null is by task: 1 for token classification,
    /// 3 for all others.
    #[schemars(range(min = 0), example = 0.5)]
    pub weight: Option<f64>,
    /// Temperature of both softmaxes; the term is multiplied by its square.
    #[schemars(extend("exclusiveMinimum" = 0), example = 2)]
    pub temperature: f64,
    /// Steps over which the weight rises as exp(−5 (1 − t)²), t the finished share; 0 is
    /// what `ramp_up_fraction` says.
    #[schemars(example = 200)]
    pub ramp_up_steps: u64,
    /// The same as a part of the option `total_steps`, where `ramp_up_steps` is 0; 0 is at once,
    /// and so is any part where `total_steps` is 0.
    #[schemars(range(min = 0, max = 1), example = 0.5)]
    pub ramp_up_fraction: f64,
    /// Examples whose largest teacher probability is smaller are left out.
    #[schemars(range(min = 0, max = 1), example = 0.8)]
    pub confidence_threshold: f64,
    /// Leave out labelled examples where the teacher's answer is not the label.
    #[schemars(example = true)]
    pub label_agreement: bool,
    /// How much each teacher counts.
    #[schemars(example = TeacherWeights::Model)]
    pub teacher_weights: TeacherWeights,
    /// Whether fresh models, all of whose weights were drawn, teach models that were loaded with
    /// weights; not for the memory, which knows no single teachers.
    #[schemars(example = false)]
    pub fresh_teach_loaded: bool,
    /// Peers, online and mean teacher: whether a model's own prediction, made like the others', is
    /// one of its teachers'. All models of one task are then drawn towards one prediction, the mean
    /// of them all. The memory always holds them all.
    #[schemars(example = true)]
    pub include_self: bool,
    /// Peers and mean teacher: how many trained models predict in a step, one after another in
    /// turn. What each teaches then counts for those that wait, so that the mean gradient over the
    /// steps is the same, for fewer forward passes. null is all.
    #[schemars(range(min = 1), example = 1)]
    pub teachers_per_step: Option<usize>,
    /// Mean teacher: decay of the running mean of weights, unless the option `ema_decay` is set.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1), example = 0.999)]
    pub ema_decay: f64,
    /// Memory: decay of older predictions; 1 is the plain mean.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0), example = 1)]
    pub memory_decay: f64,
    /// Memory: most examples that it holds; one more is an error.
    #[schemars(range(min = 1), example = 50000)]
    pub memory_examples: usize,
    /// Memory: most bytes of what it holds of the examples; one more is an error.
    #[schemars(range(min = 1), example = 100000000)]
    pub memory_bytes: u64,
    /// Memory: a file that holds it in place of RAM, removed when the trainer is freed; null is
    /// RAM. Checkpoints hold a copy of it. It must not exist, or be one that an earlier process
    /// left.
    #[schemars(example = "predictions.mmopt")]
    pub memory_file: Option<String>,
}

/// Weight where none is given: of token classification, and of other tasks. Tags are for the most
/// part "outside": the mean of models that are not sure of a word is that too, and a greater weight
/// leaves entities unfound, above all in text of another source (docs/results.md).
const WEIGHTS: [f64; 2] = [1.0, 3.0];

impl Mutual {
    /// The weight for a task.
    pub(crate) fn weight_for(&self, is_token_classification: bool) -> f64 {
        let [tags, others] = WEIGHTS;
        self.weight.unwrap_or(if is_token_classification { tags } else { others })
    }

    /// What the default preset has.
    pub(super) fn preset() -> Self {
        Self {
            required: false,
            teacher: Teacher::Online,
            weight: None,
            ramp_up_fraction: 0.5,
            fresh_teach_loaded: false,
            ..Self::default()
        }
    }
}

impl Default for Mutual {
    fn default() -> Self {
        Self {
            required: true,
            fresh_teach_loaded: true,
            teacher: Teacher::default(),
            weight: Some(1.0),
            temperature: 1.0,
            ramp_up_steps: 0,
            ramp_up_fraction: 0.0,
            confidence_threshold: 0.0,
            label_agreement: false,
            teacher_weights: TeacherWeights::default(),
            include_self: false,
            teachers_per_step: None,
            ema_decay: 0.99,
            memory_decay: 0.6,
            memory_examples: 1_000_000,
            memory_bytes: 1 << 32,
            memory_file: None,
        }
    }
}
