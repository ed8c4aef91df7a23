//! Corpora: the examples of one task, their labels, and the readers of each file format.

pub(crate) mod classification;
mod csv;
pub(crate) mod examples;
mod json;
pub(crate) mod labels;
#[cfg(feature = "parquet")]
mod parquet;
pub(crate) mod paths;
pub(crate) mod plain_text;
pub(crate) mod question_answering;
pub(crate) mod split;
pub(crate) mod synthetic;
pub(crate) mod synthetic_tasks;
pub(crate) mod token_classification;
