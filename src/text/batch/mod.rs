//! From a corpus and a tokenizer to batches of tensors.

pub(crate) mod blocks;
pub(crate) mod collate;
pub(crate) mod dataset;
pub(crate) mod encode;
pub(crate) mod loader;
pub(crate) mod loader_options;
pub(crate) mod parallel;
pub(crate) mod sampling;
pub(crate) mod token_file;
