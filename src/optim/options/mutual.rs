//! Options of mutual learning. `optim` carries them; whoever runs the models carries them out.

use serde::{Deserialize, Serialize};

/// Whose predictions a model learns from. Models without a trained parameter teach beside the
/// others, whichever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Teacher {
    /// The models that ran before it in the step; another one begins each time. Costs no pass.
    #[default]
    PeersBefore,
    /// All other models, each by a forward pass without dropout before the step's training passes.
    Peers,
    /// As `Peers`, each by a running mean of its weights (Tarvainen and Valpola 2017). A model
    /// without others learns from its own.
    MeanTeacher,
    /// The mean of all models' past predictions of the same example (Laine and Aila 2017). Costs
    /// no pass; sequence classification only; batches name their examples.
    Memory,
    /// Only the models without a trained parameter (Hinton et al. 2015).
    Frozen,
}

/// How much each teacher counts in the mean prediction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mutual {
    /// Whose predictions a model learns from; peers_before.
    pub teacher: Teacher,
    /// Weight of KL(teachers ‖ own) beside the loss, ≥ 0; 1.
    pub weight: f64,
    /// Temperature of both softmaxes, > 0; the term is multiplied by its square; 1.
    pub temperature: f64,
    /// Steps over which the weight rises as exp(−5 (1 − t)²); 0 is at once; 0.
    pub ramp_up_steps: u64,
    /// Examples whose largest teacher probability is smaller are left out, in [0, 1]; 0.
    pub confidence_threshold: f64,
    /// Leave out labelled examples where the teacher's answer is not the label; false.
    pub label_agreement: bool,
    /// How much each teacher counts; equal.
    pub teacher_weights: TeacherWeights,
    /// Mean teacher: decay of the running mean of weights, in [0, 1); 0.99.
    pub ema_decay: f64,
    /// Memory: decay of older predictions, in (0, 1]; 1 is the plain mean; 0.6.
    pub memory_decay: f64,
    /// Memory: most examples that it holds, ≥ 1; more are an error; 1000000.
    pub memory_examples: usize,
}

impl Default for Mutual {
    fn default() -> Self {
        Self {
            teacher: Teacher::default(),
            weight: 1.0,
            temperature: 1.0,
            ramp_up_steps: 0,
            confidence_threshold: 0.0,
            label_agreement: false,
            teacher_weights: TeacherWeights::default(),
            ema_decay: 0.99,
            memory_decay: 0.6,
            memory_examples: 1_000_000,
        }
    }
}

impl Mutual {
    /// Name and range of the first option out of range.
    pub(in crate::optim) fn out_of_range(&self) -> Option<(&'static str, &'static str)> {
        let natural = |x: f64| x.is_finite() && x >= 0.0;
        let checks = [
            (natural(self.weight), "mutual.weight", "finite and >= 0"),
            (
                self.temperature.is_finite() && self.temperature > 0.0,
                "mutual.temperature",
                "finite and > 0",
            ),
            (
                (0.0..=1.0).contains(&self.confidence_threshold),
                "mutual.confidence_threshold",
                "in [0, 1]",
            ),
            ((0.0..1.0).contains(&self.ema_decay), "mutual.ema_decay", "in [0, 1)"),
            (
                self.memory_decay > 0.0 && self.memory_decay <= 1.0,
                "mutual.memory_decay",
                "in (0, 1]",
            ),
            (self.memory_examples >= 1, "mutual.memory_examples", ">= 1"),
        ];
        checks.iter().find(|(ok, ..)| !ok).map(|&(_, name, range)| (name, range))
    }
}
