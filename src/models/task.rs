//! What a model is trained for.

/// What a model is trained for: decides the head and the outputs.
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

    /// Whether the heads of both have one form, apart from the number of labels.
    pub fn is_kind_of(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }

    pub(super) fn class_suffix(self) -> &'static str {
        match self {
            Self::SequenceClassification { .. } => "ForSequenceClassification",
            Self::TokenClassification { .. } => "ForTokenClassification",
            Self::QuestionAnswering => "ForQuestionAnswering",
            Self::MaskedLm => "ForMaskedLM",
            Self::CausalLm => "ForCausalLM",
        }
    }

    pub(super) fn from_class(class: &str, num_labels: usize) -> Option<Self> {
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
