//! The training loop as one call, and the range test for learning rates.

pub(super) mod find_learning_rate;
pub(super) mod run;

pub use {find_learning_rate::*, run::*};
