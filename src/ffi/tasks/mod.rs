//! The tasks from end to end: scores of a model on a corpus, and what it says about texts.

pub(super) mod evaluate;
pub(super) mod generate;
pub(super) mod predict;

pub use {evaluate::*, generate::*, predict::*};
