//! Tokenizers: text to ids and back, in the form that published models use.

pub(crate) mod files;
pub(crate) mod style;
pub(crate) mod tokenize;
pub(crate) mod train;
