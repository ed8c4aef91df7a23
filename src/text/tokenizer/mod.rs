//! Tokenizers: text to ids and back, in the form of published models.

mod check;
mod config;
pub(crate) mod encoding;
mod files;
mod long;
pub(crate) mod pieces;
mod pipeline;
pub(crate) mod style;
pub(crate) mod tokenize;
pub(crate) mod train;
