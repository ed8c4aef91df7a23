//! Corpora: the examples of one task, their labels, and the readers of each file format.

pub(crate) mod classification;
pub(crate) mod examples;
pub(crate) mod labels;
pub(crate) mod plain_text;
pub(crate) mod question_answering;
pub(crate) mod split;
pub(crate) mod synthetic;
pub(crate) mod synthetic_tasks;
pub(crate) mod token_classification;
