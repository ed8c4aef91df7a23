//! The tasks from end to end: a trained model's scores on a corpus.
//!
//! What a task needs of `text` and `train` meets here: `text` knows no model, and `train` no words.

mod evaluate;
mod outputs;
mod scores;

pub use evaluate::{EvaluateOptions, evaluate, evaluate_with};
pub use scores::{Scores, TaskScores};
