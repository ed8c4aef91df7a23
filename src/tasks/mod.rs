//! The tasks from end to end: a trained model's scores on a corpus, and what it says about texts.
//!
//! What a task needs of `text` and `train` meets here: `text` knows no model, and `train` no words.

mod evaluate;
mod generate;
mod names;
mod outputs;
mod predict;
mod predictor;
mod scores;

pub(crate) use evaluate::evaluate_dataset;
pub use evaluate::{EvaluateOptions, evaluate, evaluate_with};
pub use generate::{GenerateOptions, generate, generate_with};
pub(crate) use names::check_names;
pub use predict::{PredictOptions, Prediction, predict, predict_with};
pub use predictor::{Predictor, PredictorOptions};
pub use scores::{Scores, TaskScores};
