//! From texts to batches: corpora, tokenizers, loaders.

pub(super) mod corpus;

pub(super) mod tokenizer;

pub(super) mod loader;

pub(super) mod batch;

pub use {batch::*, corpus::*, loader::*, tokenizer::*};
