//! From texts to batches: corpora, tokenizers, loaders; metrics of predictions.

pub(super) mod batch;
pub(super) mod corpus;
pub(super) mod loader;
pub(super) mod metrics;
pub(super) mod scores;
pub(super) mod tokenizer;

pub use {batch::*, corpus::*, loader::*, metrics::*, scores::*, tokenizer::*};
