//! Loaders: iterate over one or several datasets in seeded order, in batches of similar length.
//!
//! The order of an epoch depends on seed and epoch alone: the sequences are shuffled and cut into
//! buckets of `bucket_batches` batches; each bucket is sorted by length, so that a batch has
//! sequences of similar length and little padding; then the batches are shuffled. *Aligned*
//! datasets have one order, sorted by the longest of an example's encodings, so that every model
//! sees the same examples at the same step.

use crate::error::{Error, Result};
use crate::text::batch::collate::{Batch, CollateOptions};
use crate::text::batch::dataset::Dataset;
use crate::text::rng::{Purpose, Stream};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How a loader orders and pads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Rows of a batch, at least 1. Default: 16.
    pub batch_size: usize,
    /// A new order in each epoch (default), else the order of the dataset.
    pub shuffle: bool,
    /// Decides every order and every masked token. Default: 0.
    pub seed: u64,
    /// Batches whose sequences are sorted by length together; 0: no sorting. Without shuffling
    /// there is no sorting either. Default: 32.
    pub bucket_batches: usize,
    /// Padded lengths are multiples of this, so that there are few shapes. Default: 8.
    pub pad_to_multiple_of: usize,
    /// Leave out a last batch that is not full. Default: false.
    pub drop_last: bool,
    /// All datasets yield the same examples at the same step (default; mutual learning needs it).
    /// Otherwise each has its own order and the epoch ends with the shortest.
    pub aligned: bool,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self {
            batch_size: 16,
            shuffle: true,
            seed: 0,
            bucket_batches: 32,
            pad_to_multiple_of: 8,
            drop_last: false,
            aligned: true,
        }
    }
}

impl LoaderOptions {
    /// For evaluation: every sequence once, in order, in batches of `batch_size`.
    pub fn evaluation(batch_size: usize) -> Self {
        Self { batch_size, shuffle: false, ..Default::default() }
    }
}

/// The position of a loader; one with the same data and options continues from it bit by bit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderState {
    /// Version of this record: 1.
    pub version: u32,
    /// The seed.
    pub seed: u64,
    /// Epochs done.
    pub epoch: u64,
    /// Batches of the current epoch done.
    pub position: usize,
    /// Checksum of the sequences' lengths and of the options.
    pub fingerprint: u32,
}

/// Yields batches of one or several datasets.
#[derive(Clone, Debug)]
pub struct Loader {
    datasets: Vec<Arc<Dataset>>,
    options: LoaderOptions,
    epoch: u64,
    position: usize,
    /// The batches of the current epoch, as indices of sequences: for each dataset, or once for
    /// all when aligned.
    batches: Vec<Vec<Vec<usize>>>,
}

impl Loader {
    /// A loader at the start of epoch 0.
    ///
    /// Errors: `InvalidArgument` for no dataset, a batch size of 0, an empty dataset, fewer
    /// sequences than one batch with `drop_last`, or datasets that cannot be aligned because they
    /// do not hold the same examples in the same order.
    pub fn new(datasets: Vec<Arc<Dataset>>, options: LoaderOptions) -> Result<Self> {
        check(&datasets, &options)?;
        let mut loader = Self { datasets, options, epoch: 0, position: 0, batches: Vec::new() };
        loader.arrange();
        if loader.n_batches() == 0 {
            let size = loader.options.batch_size;
            return Err(Error::invalid(format!(
                "not one batch of {size} can be filled; lower batch_size or unset drop_last"
            )));
        }
        Ok(loader)
    }

    /// The next batch of each dataset, in their order; `None` at the end of an epoch. The call
    /// after that begins the following epoch.
    pub fn next_batches(&mut self) -> Result<Option<Vec<Batch>>> {
        if self.position >= self.n_batches() {
            self.set_epoch(self.epoch + 1);
            return Ok(None);
        }
        let batches = self.peek()?;
        self.position += 1;
        Ok(Some(batches))
    }

    fn peek(&self) -> Result<Vec<Batch>> {
        let LoaderOptions { pad_to_multiple_of, seed, .. } = self.options;
        let options = CollateOptions { pad_to_multiple_of, seed, epoch: self.epoch };
        let one = |(i, dataset): (usize, &Arc<Dataset>)| {
            let batches = &self.batches[if self.options.aligned { 0 } else { i }];
            dataset.batch_for(&batches[self.position], options)
        };
        self.datasets.iter().enumerate().map(one).collect()
    }

    /// The datasets, one for each model.
    pub fn datasets(&self) -> &[Arc<Dataset>] {
        &self.datasets
    }

    /// Every sequence of one dataset once, in order, in batches of `batch_size`: for evaluation.
    /// Neither the loader's order nor its position matters, and both stay. Masked language models
    /// get the same masks each time, those of epoch 0.
    ///
    /// Error: `dataset` out of range.
    pub fn batches_in_order(
        &self,
        dataset: usize,
    ) -> Result<impl Iterator<Item = Result<Batch>> + '_> {
        let n = self.datasets.len();
        let data = self.datasets.get(dataset).ok_or_else(|| {
            Error::invalid(format!("model {dataset} of a loader for {n}; counted from 0"))
        })?;
        let LoaderOptions { batch_size, pad_to_multiple_of, seed, .. } = self.options;
        let options = CollateOptions { pad_to_multiple_of, seed, epoch: 0 };
        Ok((0..data.len()).step_by(batch_size).map(move |start| {
            let end = data.len().min(start.saturating_add(batch_size));
            data.batch_for(&(start..end).collect::<Vec<_>>(), options)
        }))
    }

    /// Moves to the start of an epoch.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.position = 0;
        self.arrange();
    }

    /// Epochs done.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Batches of the current epoch done.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Number of batches of an epoch.
    pub fn n_batches(&self) -> usize {
        self.batches.iter().map(Vec::len).min().unwrap_or(0)
    }

    /// The padded shapes \[B, S\] of one dataset's batches in the current epoch, each once, sorted.
    /// Empty for an index out of range.
    pub fn shapes(&self, dataset: usize) -> Vec<[usize; 2]> {
        let Some(data) = self.datasets.get(dataset) else { return Vec::new() };
        let batches = &self.batches[if self.options.aligned { 0 } else { dataset }];
        let shape = |batch: &Vec<usize>| {
            let longest = batch.iter().map(|&i| data.sequences()[i].ids.len()).max().unwrap_or(0);
            [batch.len(), data.padded_length(longest, self.options.pad_to_multiple_of)]
        };
        let mut shapes: Vec<[usize; 2]> = batches.iter().map(shape).collect();
        shapes.sort_unstable();
        shapes.dedup();
        shapes
    }

    /// The position, to be restored later.
    pub fn state(&self) -> LoaderState {
        LoaderState {
            version: 1,
            seed: self.options.seed,
            epoch: self.epoch,
            position: self.position,
            fingerprint: self.fingerprint(),
        }
    }

    /// Moves to the position where `state` was taken.
    ///
    /// Error: `InvalidData` when the state is of another version, or of a loader with other
    /// data, options or seed; the loader is unchanged then.
    pub fn restore(&mut self, state: &LoaderState) -> Result<()> {
        if state.version != 1 {
            return Err(Error::data(format!("loader state of version {}", state.version)));
        }
        if state.fingerprint != self.fingerprint() || state.seed != self.options.seed {
            return Err(Error::data("the loader's state belongs to other data, options or seed"));
        }
        if state.position > self.n_batches() {
            return Err(Error::data(format!("the loader's state is at batch {}", state.position)));
        }
        self.set_epoch(state.epoch);
        self.position = state.position;
        Ok(())
    }

    /// [`Loader::state`] as JSON.
    pub fn state_json(&self) -> Result<String> {
        serde_json::to_string(&self.state()).map_err(|e| Error::internal(e.to_string()))
    }

    /// [`Loader::restore`] from JSON.
    pub fn restore_json(&mut self, json: &str) -> Result<()> {
        let state: LoaderState = serde_json::from_str(json)
            .map_err(|e| Error::data(format!("loader state: {e}")).with_source(e))?;
        self.restore(&state)
    }

    fn fingerprint(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        let o = &self.options;
        let flags = [o.shuffle, o.drop_last, o.aligned].map(u64::from);
        let sizes = [o.batch_size, o.bucket_batches, o.pad_to_multiple_of].map(|n| n as u64);
        for n in flags.into_iter().chain(sizes).chain([o.seed]) {
            hasher.update(&n.to_le_bytes());
        }
        for sequence in self.datasets.iter().flat_map(|d| d.sequences()) {
            hasher.update(&(sequence.example as u64).to_le_bytes());
            hasher.update(&(sequence.ids.len() as u64).to_le_bytes());
        }
        hasher.finalize()
    }

    /// Decides the batches of the current epoch.
    fn arrange(&mut self) {
        let length = |data: &Dataset, i: usize| data.sequences()[i].ids.len();
        let all = &self.datasets;
        self.batches = if self.options.aligned {
            let longest = |i: usize| all.iter().map(|d| length(d, i)).max().unwrap_or(0);
            vec![self.epoch_batches(all[0].len(), 0, longest)]
        } else {
            let own = |(k, d): (usize, &Arc<Dataset>)| {
                self.epoch_batches(d.len(), k as u64, |i| length(d, i))
            };
            all.iter().enumerate().map(own).collect()
        };
    }

    fn epoch_batches(
        &self,
        n: usize,
        dataset: u64,
        length: impl Fn(usize) -> usize,
    ) -> Vec<Vec<usize>> {
        let LoaderOptions { batch_size, shuffle, seed, bucket_batches, drop_last, .. } =
            self.options;
        let mut order: Vec<usize> = (0..n).collect();
        if shuffle {
            Stream::new(seed, Purpose::Order, self.epoch, dataset).shuffle(&mut order);
        }
        if drop_last {
            order.truncate(n / batch_size * batch_size);
        }
        if shuffle && bucket_batches > 0 {
            for bucket in order.chunks_mut(batch_size.saturating_mul(bucket_batches)) {
                bucket.sort_by_key(|&i| length(i));
            }
        }
        let mut batches: Vec<Vec<usize>> = order.chunks(batch_size).map(<[_]>::to_vec).collect();
        if shuffle {
            Stream::new(seed, Purpose::Batches, self.epoch, dataset).shuffle(&mut batches);
        }
        batches
    }
}

fn check(datasets: &[Arc<Dataset>], options: &LoaderOptions) -> Result<()> {
    if options.batch_size == 0 {
        return Err(Error::invalid("batch_size must be at least 1"));
    }
    let Some(first) = datasets.first() else {
        return Err(Error::invalid("a loader needs a dataset"));
    };
    if let Some(empty) = datasets.iter().position(|d| d.is_empty()) {
        return Err(Error::invalid(format!("dataset {empty} is empty")));
    }
    if !options.aligned {
        return Ok(());
    }
    let examples = |d: &Dataset| d.sequences().iter().map(|s| s.example).collect::<Vec<_>>();
    let wanted = examples(first);
    match datasets.iter().position(|d| examples(d) != wanted) {
        None => Ok(()),
        Some(other) => Err(Error::invalid(format!(
            "datasets 0 and {other} do not hold the same examples in the same order ({} and {} \
             sequences); encode them from the same corpus without packing or windows, or unset \
             'aligned'",
            first.len(),
            datasets[other].len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Corpus, EncodeOptions, Tokenizer, TokenizerStyle, TokenizerTrainOptions};
    use std::collections::BTreeSet;

    fn corpus(n: usize) -> Corpus {
        let text = |i: usize| (0..1 + i * 7 % 23).map(|k| format!("w{} ", k % 5)).collect();
        let classes: Vec<String> = (0..n).map(|i| (i % 2).to_string()).collect();
        Corpus::from_texts((0..n).map(text).collect(), &classes, None).unwrap()
    }

    fn data(corpus: &Corpus, style: TokenizerStyle) -> Arc<Dataset> {
        let options = TokenizerTrainOptions { style, vocab_size: 270, ..Default::default() };
        let tokenizer = Tokenizer::train(&options, &corpus.texts()).unwrap();
        Arc::new(Dataset::encode(corpus, &tokenizer, &EncodeOptions::default()).unwrap())
    }

    fn pair(n: usize) -> Vec<Arc<Dataset>> {
        let corpus = corpus(n);
        vec![data(&corpus, TokenizerStyle::Bert), data(&corpus, TokenizerStyle::Gpt2)]
    }

    fn options(batch_size: usize) -> LoaderOptions {
        LoaderOptions { batch_size, bucket_batches: 4, seed: 5, ..Default::default() }
    }

    type Seen = Vec<(Vec<usize>, Vec<u8>)>;

    fn drain(loader: &mut Loader) -> Seen {
        let mut all = Vec::new();
        while let Some(batches) = loader.next_batches().unwrap() {
            for batch in batches {
                let bytes = batch.tensors.iter().flat_map(|(_, t)| t.bytes().to_vec()).collect();
                all.push((batch.examples.clone(), bytes));
            }
        }
        all
    }

    #[test]
    fn every_example_once_and_both_models_see_the_same() {
        let mut loader = Loader::new(pair(103), options(8)).unwrap();
        assert_eq!(loader.n_batches(), 13);
        let mut orders = BTreeSet::new();
        for epoch in 0..3 {
            assert_eq!(loader.epoch(), epoch);
            let seen = drain(&mut loader);
            let (bert, gpt2): (Vec<_>, Vec<_>) =
                seen.chunks(2).map(|c| (c[0].0.clone(), c[1].0.clone())).unzip();
            assert_eq!(bert, gpt2);
            let flat: Vec<usize> = bert.concat();
            assert_eq!(flat.iter().collect::<BTreeSet<_>>().len(), 103);
            assert_eq!(flat.len(), 103);
            orders.insert(flat);
        }
        assert_eq!(orders.len(), 3, "each epoch has its own order");
    }

    #[test]
    fn resumes_bit_by_bit() {
        let datasets = pair(50);
        let mut whole = Loader::new(datasets.clone(), options(8)).unwrap();
        drain(&mut whole);
        whole.next_batches().unwrap();
        whole.next_batches().unwrap();
        let state = whole.state_json().unwrap();
        let rest = (drain(&mut whole), drain(&mut whole));
        let mut again = Loader::new(datasets.clone(), options(8)).unwrap();
        again.restore_json(&state).unwrap();
        assert_eq!((again.epoch(), again.position()), (1, 2));
        assert_eq!((drain(&mut again), drain(&mut again)), rest);
        let mut other = Loader::new(datasets, options(4)).unwrap();
        assert!(other.restore_json(&state).is_err());
        assert!(other.restore_json("{}").is_err());
        assert_eq!((other.epoch(), other.position()), (0, 0));
    }

    #[test]
    fn buckets_save_padding_and_shapes_are_few() {
        let datasets = pair(400);
        let padded = |bucket_batches| {
            let o = LoaderOptions { bucket_batches, ..options(8) };
            let mut loader = Loader::new(datasets.clone(), o).unwrap();
            let shapes: BTreeSet<[usize; 2]> = loader.shapes(0).into_iter().collect();
            let mut total = 0;
            while let Some(batches) = loader.next_batches().unwrap() {
                let shape = batches[0].tensor("input_ids").unwrap().shape().to_vec();
                assert_eq!(shape[1] % 8, 0);
                assert!(shapes.contains(&[shape[0], shape[1]]));
                total += shape[0] * shape[1];
            }
            assert!(shapes.len() <= 5);
            total
        };
        let (without, with) = (padded(0), padded(16));
        assert!(with * 10 < without * 8, "{with} against {without}");
    }

    #[test]
    fn last_batch_and_order_of_evaluation() {
        let o = LoaderOptions { drop_last: true, ..options(8) };
        let mut loader = Loader::new(pair(30), o).unwrap();
        let seen = drain(&mut loader);
        assert!(seen.iter().all(|(e, _)| e.len() == 8) && seen.len() == 6);
        let mut loader = Loader::new(pair(5)[..1].to_vec(), LoaderOptions::evaluation(2)).unwrap();
        let flat: Vec<usize> = drain(&mut loader).into_iter().flat_map(|(e, _)| e).collect();
        assert_eq!(flat, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn refuses_datasets_that_cannot_be_loaded() {
        let (small, large) = (pair(5), pair(6));
        let mixed = vec![small[0].clone(), large[1].clone()];
        assert!(Loader::new(mixed.clone(), options(2)).is_err());
        let free = LoaderOptions { aligned: false, ..options(2) };
        assert_eq!(Loader::new(mixed, free).unwrap().n_batches(), 3);
        assert!(Loader::new(vec![], options(2)).is_err());
        assert!(Loader::new(small.clone(), options(0)).is_err());
        assert!(Loader::new(small, LoaderOptions { drop_last: true, ..options(8) }).is_err());
    }
}
