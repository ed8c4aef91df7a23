//! From text files to batches of tensors: tokenizers, corpus readers, splits, loaders, metrics.
//!
//! Terms:
//! - *corpus*: the examples of one task as read from files, independent of any model;
//! - *tokenizer*: turns text into ids; loaded from published files or trained on a corpus;
//! - *dataset*: a corpus encoded by one tokenizer. Each of its *sequences* holds the index of
//!   its example, so that several models can see the same examples in the same order;
//! - *loader*: iterates over one or several datasets in seeded order and yields a [`Batch`] of
//!   each.
//!
//! ```no_run
//! use std::sync::Arc;
//! use mmopt::text::*;
//! # fn main() -> mmopt::Result<()> {
//! let train = Corpus::read_classification("train.tsv".as_ref(), &CorpusOptions::default(), None)?;
//! let options = TokenizerTrainOptions { style: TokenizerStyle::Bert, ..Default::default() };
//! let tokenizer = Tokenizer::train(&options, &train.texts()?)?;
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
mod corpus;
pub mod metrics;
mod rng;
mod text_file;
mod tokenizer;

pub use batch::collate::Batch;
pub use batch::dataset::{
    AnswerContext, Dataset, EncodingStats, IdNames, Reference, Sequence, Target,
};
pub use batch::encode::{EncodeOptions, Objective};
pub use batch::loader::{Loader, LoaderState};
pub use batch::loader_options::LoaderOptions;
pub use batch::sampling::Sampling;
pub use batch::token_file::TokenFile;
pub use corpus::classification::{Column, CorpusFormat, CorpusHeader, CorpusOptions};
pub use corpus::examples::{Answer, Corpus, Example, TextTask};
pub use corpus::labels::LabelMap;
pub use corpus::plain_text::SampleBy;
pub use corpus::split::SplitOptions;
pub use corpus::synthetic::SyntheticOptions;
pub use metrics::postprocess::PredictedAnswer;
pub use tokenizer::encoding::{Encoding, Truncation};
pub use tokenizer::style::{SpecialToken, TokenizerAlgorithm, TokenizerStyle};
pub use tokenizer::tokenize::Tokenizer;
pub use tokenizer::train::TokenizerTrainOptions;

/// Numbers from 0 to below 1 to draw the tokens of one text by.
pub(crate) fn sampling_stream(seed: u64, text: u64) -> impl FnMut() -> f64 + 'static {
    let mut stream = rng::Stream::new(seed, rng::Purpose::Generate, text, 0);
    move || stream.unit()
}

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
        check::<crate::text::LabelMap>();
    }
}
