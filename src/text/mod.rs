//! From text files to batches of tensors: tokenizers, corpus readers, splits, loaders, metrics.
//!
//! Terms:
//! - *corpus*: the examples of one task as read from files, independent of any model;
//! - *tokenizer*: turns text into ids; read from published files or learned from a corpus;
//! - *dataset*: a corpus encoded by one tokenizer. Each of its *items* remembers the index of
//!   its example, so that several models can see the same sentences in the same order;
//! - *loader*: walks one or several datasets in seeded order and yields a [`Batch`] for each.
//!
//! ```no_run
//! use std::sync::Arc;
//! use mmopt::text::*;
//! # fn main() -> mmopt::Result<()> {
//! let train = Corpus::classification("train.tsv".as_ref(), &Columns::default(), None)?;
//! let options = TrainOptions { style: TokenizerStyle::Bert, ..Default::default() };
//! let tokenizer = Tokenizer::train(&options, &train.texts())?;
//! let data = Dataset::encode(&train, &tokenizer, &EncodeOptions::default())?;
//! let mut loader = Loader::new(vec![Arc::new(data)], LoaderOptions::default())?;
//! while let Some(batches) = loader.next_batches()? {
//!     for (name, tensor) in &batches[0].tensors {
//!         // feed `tensor` under `name`
//!     }
//! }
//! # Ok(()) }
//! ```

mod batch;
mod classification;
mod conll;
mod corpus;
mod dataset;
mod encode;
mod labels;
mod learn;
mod loader;
pub mod metrics;
mod plain;
mod predict;
mod questions;
mod rng;
mod source;
mod split;
mod style;
mod synthetic;
mod tokenizer;
mod tokenizer_files;

pub use batch::Batch;
pub use classification::{Column, Columns, Format, Header};
pub use corpus::{Answer, Corpus, Example, Task};
pub use dataset::{Dataset, Item, Target};
pub use encode::{EncodeOptions, Objective};
pub use labels::LabelMap;
pub use learn::TrainOptions;
pub use loader::{Loader, LoaderOptions, LoaderState};
pub use plain::Documents;
pub use predict::FoundAnswer;
pub use split::SplitOptions;
pub use style::{Kind, Special, TokenizerStyle};
pub use synthetic::SyntheticOptions;
pub use tokenizer::{Encoding, Tokenizer, Truncation};

#[cfg(test)]
mod tests {
    /// Handles move between threads and are read from several at once.
    #[test]
    fn handles_are_send_and_sync() {
        fn check<T: Send + Sync + 'static>() {}
        check::<super::Tokenizer>();
        check::<super::Corpus>();
        check::<super::Dataset>();
        check::<super::Loader>();
        check::<super::Batch>();
        check::<super::LabelMap>();
    }
}
