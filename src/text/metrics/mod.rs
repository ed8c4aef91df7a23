//! Metrics of text tasks, and the way from a model's outputs to what they compare.

mod answers;
mod classification;
pub(crate) mod counts;
mod entities;
pub(crate) mod postprocess;
mod python_words;
mod regression;

pub use answers::{AnswerScores, answer_f1, answer_scores, normalize_answer};
pub use classification::{ClassScores, accuracy, class_scores, macro_f1};
pub use counts::Score;
pub use entities::{
    Entity, EntityMode, EntityScores, entities, entity_scores, entity_scores_in,
    entity_scores_of_ids, entity_scores_of_ids_in, strict_entities,
};
pub use regression::{RegressionScores, perplexity, regression_scores};
