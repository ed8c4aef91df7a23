//! Metrics of text tasks, and what turns a model's outputs into what they compare.

pub(crate) mod postprocess;
mod scores;

pub use scores::*;
