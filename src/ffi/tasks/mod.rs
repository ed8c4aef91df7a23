//! The tasks from end to end: scores of a model on a corpus.

pub(super) mod evaluate;

pub use evaluate::*;
