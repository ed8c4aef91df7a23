//! Loaders: iterate over one or several datasets in seeded order, in batches of similar length.
//!
//! The order of an epoch depends on seed and epoch alone: the sequences are shuffled and cut into
//! buckets of `bucket_batches` batches; each bucket is sorted by length, so that a batch has
//! sequences of similar length and little padding; then the batches are shuffled. *Aligned*
//! datasets have one order, sorted by the longest of an example's encodings, so that every model
//! sees the same examples at the same step.
//!
//! With `unlabelled_ratio` every batch has labelled and unlabelled examples in that ratio. An epoch
//! is one walk over the unlabelled ones. The labelled ones are walked over again and again, each
//! time in a new order, and this walk goes on from one epoch to the next: where there are many
//! labelled examples, an epoch has some of them, and the next epoch others.
//!
//! With a sampling the examples of an epoch are drawn by class or weight, in place of each once.
//! With several ranks each gets its rows of every batch: the order is that of one rank alone.
//!
//! With `max_tokens` a batch has as many rows as its tokens allow, with padding.

use crate::error::{Error, Result};
use crate::memory::{Gather, check_room, copied, push, room};
use crate::text::batch::collate::{Batch, CollateOptions};
use crate::text::batch::dataset::{Dataset, Target};
use crate::text::batch::loader_options::{LoaderOptions, check};
use crate::text::batch::sampling::Sampling;
use crate::text::rng::{Purpose, Stream};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

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
    /// do not hold the same examples in the same order; with `unlabelled_ratio` a batch size below
    /// 2, or a dataset without labelled or without unlabelled examples; a sampling without a class
    /// or weight for each example, or without `shuffle`; an example of more than `max_tokens`;
    /// options that exclude each other.
    pub fn new(datasets: Vec<Arc<Dataset>>, options: LoaderOptions) -> Result<Self> {
        check(&datasets, &options)?;
        let mut loader = Self { datasets, options, epoch: 0, position: 0, batches: Vec::new() };
        loader.batches = loader.arrange(0)?;
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
            self.set_epoch(self.epoch.wrapping_add(1))?;
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
            let (rows, fills) = self.rows_of_rank(&batches[self.position]);
            let mut batch = dataset.batch_for(&rows.gathered()?, options)?;
            if fills {
                batch.mark_filler()?;
            }
            Ok(batch)
        };
        self.datasets.iter().enumerate().map(one).collect()
    }

    /// The rows of a batch that are this rank's, and whether they only fill up: the first row where
    /// there is none.
    fn rows_of_rank<'a>(&self, all: &'a [usize]) -> (impl Iterator<Item = usize> + 'a, bool) {
        let LoaderOptions { rank, n_ranks, .. } = self.options;
        let fills = rank >= all.len();
        let rows = all.iter().copied().skip(if fills { 0 } else { rank });
        // Without rows of its own every other row is skipped, too.
        (rows.step_by(if fills { all.len().max(1) } else { n_ranks }), fills)
    }

    /// The datasets, one for each model.
    pub fn datasets(&self) -> &[Arc<Dataset>] {
        &self.datasets
    }

    /// How it orders and pads.
    pub fn options(&self) -> &LoaderOptions {
        &self.options
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
            data.batch_for(&(start..end).gathered()?, options)
        }))
    }

    /// Moves to the start of an epoch.
    ///
    /// Error: `OutOfMemory`; the loader is unchanged then.
    pub fn set_epoch(&mut self, epoch: u64) -> Result<()> {
        self.batches = self.arrange(epoch)?;
        (self.epoch, self.position) = (epoch, 0);
        Ok(())
    }

    /// Epochs done.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Batches of the current epoch done.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Number of batches of the current epoch; the same for all, except with `max_tokens`.
    pub fn n_batches(&self) -> usize {
        n_batches(&self.batches)
    }

    /// The padded shapes \[B, S\] of one dataset's batches in the current epoch, each once, sorted.
    /// Empty for an index out of range.
    pub fn shapes(&self, dataset: usize) -> Vec<[usize; 2]> {
        let Some(data) = self.datasets.get(dataset) else { return Vec::new() };
        let batches = &self.batches[if self.options.aligned { 0 } else { dataset }];
        let shape = |batch: &Vec<usize>| {
            let longest = self.rows_of_rank(batch).0.map(|i| data.n_tokens(i)).max().unwrap_or(0);
            [
                self.rows_of_rank(batch).0.count(),
                data.padded_length(longest, self.options.pad_to_multiple_of),
            ]
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
        let batches = self.arrange(state.epoch)?;
        if state.position > n_batches(&batches) {
            return Err(Error::data(format!("the loader's state is at batch {}", state.position)));
        }
        (self.batches, self.epoch, self.position) = (batches, state.epoch, state.position);
        Ok(())
    }

    /// [`Loader::state`] as JSON.
    pub fn state_json(&self) -> Result<String> {
        serde_json::to_string(&self.state()).map_err(|e| Error::internal(e.to_string()))
    }

    /// [`Loader::restore`] from JSON.
    pub fn restore_json(&mut self, json: &str) -> Result<()> {
        let state: LoaderState =
            serde_json::from_str(json).map_err(|e| Error::json(e).context("the loader's state"))?;
        self.restore(&state)
    }

    fn fingerprint(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        let o = &self.options;
        let flags = [o.shuffle, o.drop_last, o.aligned].map(u64::from);
        let sizes = [o.batch_size, o.bucket_batches, o.pad_to_multiple_of].map(|n| n as u64);
        let rest = [o.seed, o.unlabelled_ratio.to_bits()];
        for n in flags.into_iter().chain(sizes).chain(rest) {
            hasher.update(&n.to_le_bytes());
        }
        for (data, i) in self.datasets.iter().flat_map(|d| (0..d.len()).map(move |i| (d, i))) {
            hasher.update(&(data.example(i) as u64).to_le_bytes());
            hasher.update(&(data.n_tokens(i) as u64).to_le_bytes());
            hasher.update(&[u8::from(data.is_labelled(i))]);
            let target = data.sequences().get(i).map(|s| &s.target);
            if let (Sampling::ClassBalanced, Some(Target::Class(class))) = (&o.sampling, target) {
                hasher.update(&class.to_le_bytes());
            }
        }
        // Without them states are those that loaders without these options saved.
        if o.sampling.draws() || o.max_tokens > 0 {
            o.sampling.update(&mut hasher);
            let drawn = [o.n_samples, o.max_tokens].map(|n| n as u64);
            drawn.iter().for_each(|n| hasher.update(&n.to_le_bytes()));
        }
        hasher.finalize()
    }

    /// Decides the batches of an epoch.
    fn arrange(&self, epoch: u64) -> Result<Vec<Vec<Vec<usize>>>> {
        let multiple = self.options.pad_to_multiple_of;
        let all = &self.datasets;
        if self.options.aligned {
            return Ok(vec![self.epoch_batches(epoch, 0, Lengths { datasets: all, multiple })?]);
        }
        let own = |k: usize| Lengths { datasets: &all[k..=k], multiple };
        (0..all.len()).map(|k| self.epoch_batches(epoch, k, own(k))).collect()
    }

    fn epoch_batches(
        &self,
        epoch: u64,
        dataset: usize,
        lengths: Lengths,
    ) -> Result<Vec<Vec<usize>>> {
        let LoaderOptions { batch_size, shuffle, seed, unlabelled_ratio, .. } = self.options;
        let data = &self.datasets[dataset];
        // For the vectors of batches, which are small.
        check_room(data.len().saturating_mul(size_of::<usize>()))?;
        let of = Walk { epoch, dataset: dataset as u64, lengths };
        let mut batches = if unlabelled_ratio > 0.0 {
            self.mixed_batches(data, of)?
        } else {
            self.walk(self.chosen(data, of)?, batch_size, of)?
        };
        if shuffle {
            Stream::new(seed, Purpose::Batches, epoch, of.dataset).shuffle(&mut batches);
        }
        Ok(batches)
    }

    /// The sequences of an epoch.
    fn chosen(&self, data: &Dataset, of: Walk) -> Result<Vec<usize>> {
        let LoaderOptions { sampling, n_samples, seed, .. } = &self.options;
        if !sampling.draws() {
            return (0..data.len()).gathered();
        }
        let n = if *n_samples == 0 { data.len() } else { *n_samples };
        sampling.draw(data, n, (*seed, of.epoch, of.dataset))
    }

    /// One walk over sequences in parts of `size`, or of `max_tokens`, those of similar length
    /// together.
    fn walk(&self, mut order: Vec<usize>, size: usize, of: Walk) -> Result<Vec<Vec<usize>>> {
        let lengths = of.lengths;
        let LoaderOptions { shuffle, seed, drop_last, max_tokens, .. } = self.options;
        if shuffle {
            Stream::new(seed, Purpose::Order, of.epoch, of.dataset).shuffle(&mut order);
        }
        if drop_last {
            order.truncate(order.len() / size * size);
        }
        if max_tokens > 0 {
            let total: usize = order.iter().map(|&i| lengths.padded(i)).sum();
            let mean = total.div_ceil(order.len().max(1)).max(1);
            self.sort_buckets(&mut order, (max_tokens / mean).max(1), lengths)?;
            return by_tokens(&order, max_tokens, lengths);
        }
        self.sort_buckets(&mut order, size, lengths)?;
        order.chunks(size).map(copied).gathered_or_error()
    }

    fn sort_buckets(&self, order: &mut [usize], size: usize, lengths: Lengths) -> Result<()> {
        let LoaderOptions { shuffle, bucket_batches, .. } = self.options;
        if !shuffle || bucket_batches == 0 {
            return Ok(());
        }
        for bucket in order.chunks_mut(size.saturating_mul(bucket_batches)) {
            // Those of one length stay in their order.
            let keys = bucket.iter().enumerate().map(|(at, &i)| (lengths.longest(i), at, i));
            let mut keys = keys.gathered()?;
            keys.sort_unstable();
            bucket.iter_mut().zip(keys).for_each(|(to, (.., i))| *to = i);
        }
        Ok(())
    }

    /// Batches of labelled examples, which come first, and unlabelled ones.
    fn mixed_batches(&self, data: &Dataset, of: Walk) -> Result<Vec<Vec<usize>>> {
        let labelled = (0..data.len()).filter(|&i| data.is_labelled(i)).gathered()?;
        let unlabelled = (0..data.len()).filter(|&i| !data.is_labelled(i)).gathered()?;
        let (n_labelled, n_unlabelled) = self.options.shares();
        let mut batches = self.walk(unlabelled, n_unlabelled, of)?;
        let n_beside = |n: usize| match n {
            n if n == n_unlabelled => n_labelled,
            n => (n as f64 * n_labelled as f64 / n_unlabelled as f64).round().max(1.0) as usize,
        };
        let n_wanted: usize = batches.iter().map(|b| n_beside(b.len())).sum();
        let mut order = self.labelled_order(&labelled, n_wanted, of)?;
        self.sort_buckets(&mut order, n_labelled, of.lengths)?;
        let mut rest = order.as_slice();
        for batch in &mut batches {
            let (beside, later) = rest.split_at(n_beside(batch.len()));
            batch.try_reserve(beside.len())?;
            batch.splice(..0, beside.iter().copied());
            rest = later;
        }
        Ok(batches)
    }

    /// The part of the walk over labelled examples that belongs to an epoch: it has `n` of them, as
    /// every epoch has.
    fn labelled_order(&self, labelled: &[usize], n: usize, of: Walk) -> Result<Vec<usize>> {
        let LoaderOptions { shuffle, seed, .. } = self.options;
        let (all, start) = (labelled.len() as u128, u128::from(of.epoch) * n as u128);
        let mut order = room(n + 2 * labelled.len())?;
        let mut pass = start / all;
        while order.len() < n + (start % all) as usize {
            let begin = order.len();
            order.extend(labelled);
            if shuffle {
                let mut stream = Stream::new(seed, Purpose::Labelled, pass as u64, of.dataset);
                stream.shuffle(&mut order[begin..]);
            }
            pass += 1;
        }
        order.drain(..(start % all) as usize);
        order.truncate(n);
        Ok(order)
    }
}

/// Which walk over sequences: of an epoch, of a dataset.
#[derive(Clone, Copy)]
struct Walk<'a> {
    epoch: u64,
    dataset: u64,
    lengths: Lengths<'a>,
}

fn n_batches(batches: &[Vec<Vec<usize>>]) -> usize {
    batches.iter().map(Vec::len).min().unwrap_or(0)
}

/// Lengths of the sequences at one index of datasets that are batched together.
#[derive(Clone, Copy)]
struct Lengths<'a> {
    datasets: &'a [Arc<Dataset>],
    multiple: usize,
}

impl Lengths<'_> {
    fn longest(self, i: usize) -> usize {
        self.datasets.iter().map(|d| d.n_tokens(i)).max().unwrap_or(0)
    }

    /// What a batch is padded to whose longest sequence this is.
    fn padded(self, i: usize) -> usize {
        let one = |d: &Arc<Dataset>| d.padded_length(d.n_tokens(i), self.multiple);
        self.datasets.iter().map(one).max().unwrap_or(0)
    }
}

/// Neighbours together, as many as have `max_tokens` with padding.
fn by_tokens(order: &[usize], max_tokens: usize, lengths: Lengths) -> Result<Vec<Vec<usize>>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut width = 0;
    for &i in order {
        let wider = lengths.padded(i).max(width);
        match batches.last_mut().filter(|b| (b.len() + 1).saturating_mul(wider) <= max_tokens) {
            Some(batch) => {
                push(batch, i)?;
                width = wider;
            }
            None => {
                push(&mut batches, vec![i])?;
                width = lengths.padded(i);
            }
        }
    }
    Ok(batches)
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
        let tokenizer = Tokenizer::train(&options, &corpus.texts().unwrap()).unwrap();
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

    /// Labelled examples, then unlabelled ones.
    fn mixed(labelled: usize, unlabelled: usize) -> Vec<Arc<Dataset>> {
        let (first, second) = (corpus(labelled), corpus(unlabelled).without_labels().unwrap());
        let both = first.concatenate(&second).unwrap();
        vec![data(&both, TokenizerStyle::Bert), data(&both, TokenizerStyle::Gpt2)]
    }

    #[test]
    fn batches_mix_labelled_and_unlabelled_examples() {
        // Of 8 rows 2 are labelled: 6 batches of 6 unlabelled ones, and one of 4 with 1 labelled.
        let o = LoaderOptions { unlabelled_ratio: 3.0, ..options(8) };
        let datasets = mixed(9, 40);
        let mut loader = Loader::new(datasets.clone(), o.clone()).unwrap();
        assert_eq!(loader.n_batches(), 7);
        let (mut walked, mut orders) = (Vec::<usize>::new(), BTreeSet::new());
        for _ in 0..9 {
            let seen = drain(&mut loader);
            let mut unlabelled = Vec::<usize>::new();
            let mut rows = Vec::new();
            for pair in seen.chunks(2) {
                let examples = &pair[0].0;
                assert_eq!(*examples, pair[1].0);
                let n = examples.iter().filter(|&&e| e < 9).count();
                assert!(examples[..n].iter().all(|&e| e < 9), "labelled ones come first");
                rows.push((n, examples.len() - n));
                walked.extend(&examples[..n]);
                unlabelled.extend(&examples[n..]);
            }
            rows.sort_unstable();
            assert_eq!(rows, [[(1, 4)].as_slice(), &[(2, 6); 6]].concat());
            assert_eq!(unlabelled.iter().collect::<BTreeSet<_>>().len(), 40);
            orders.insert(unlabelled);
        }
        assert_eq!(orders.len(), 9);
        // 9 epochs of 13 labelled rows are 13 passes over 9 examples.
        let count = |e: usize| walked.iter().filter(|&&w| w == e).count();
        assert!((0..9).all(|e| count(e) == 13), "{walked:?}");
        let plain = LoaderOptions { shuffle: false, drop_last: true, ..o };
        let mut loader = Loader::new(datasets, plain).unwrap();
        let batches: Vec<_> = drain(&mut loader).into_iter().step_by(2).map(|b| b.0).collect();
        assert_eq!(batches.len(), 6);
        assert_eq!(batches[0], [0, 1, 9, 10, 11, 12, 13, 14]);
        assert_eq!(batches[4][..3], [8, 0, 33]);
        assert_eq!(drain(&mut loader)[0].0[..3], [3, 4, 9]);
    }

    #[test]
    fn mixed_batches_resume_bit_by_bit() {
        let o = LoaderOptions { unlabelled_ratio: 1.0, ..options(6) };
        let datasets = mixed(70, 20);
        let mut whole = Loader::new(datasets.clone(), o.clone()).unwrap();
        drain(&mut whole);
        whole.next_batches().unwrap();
        let state = whole.state_json().unwrap();
        let rest = (drain(&mut whole), drain(&mut whole));
        let mut again = Loader::new(datasets.clone(), o.clone()).unwrap();
        again.restore_json(&state).unwrap();
        assert_eq!((drain(&mut again), drain(&mut again)), rest);
        again.set_epoch(u64::MAX).unwrap();
        assert_eq!(drain(&mut again).len(), 14);
        let other = LoaderOptions { unlabelled_ratio: 0.5, ..o };
        assert!(Loader::new(datasets, other).unwrap().restore_json(&state).is_err());
    }

    /// 90 examples of class 0 and 10 of class 1, for two models.
    fn skewed() -> Vec<Arc<Dataset>> {
        let texts = (0..100).map(|i| format!("w{} ", i % 7).repeat(1 + i % 9)).collect();
        let classes: Vec<String> = (0..100).map(|i| u8::from(i >= 90).to_string()).collect();
        let corpus = Corpus::from_texts(texts, &classes, None).unwrap();
        vec![data(&corpus, TokenizerStyle::Bert), data(&corpus, TokenizerStyle::Gpt2)]
    }

    fn examples(loader: &mut Loader) -> Vec<usize> {
        let mut all = Vec::new();
        while let Some(batches) = loader.next_batches().unwrap() {
            assert_eq!(batches[0].examples, batches[1].examples);
            for batch in &batches {
                let ids = batch.tensor("example_ids").unwrap().as_slice::<i64>().unwrap();
                assert!(ids.iter().zip(&batch.examples).all(|(a, b)| *a == *b as i64));
                let rows = batch.examples.iter().zip(&batch.sequences);
                assert!(rows.into_iter().all(|(example, sequence)| example == sequence));
            }
            all.extend(&batches[0].examples);
        }
        all
    }

    #[test]
    fn classes_are_drawn_equally_often() {
        let o = LoaderOptions { sampling: Sampling::ClassBalanced, n_samples: 2000, ..options(16) };
        let mut loader = Loader::new(skewed(), o.clone()).unwrap();
        assert_eq!(loader.n_batches(), 125);
        let (first, second) = (examples(&mut loader), examples(&mut loader));
        assert_ne!(first, second);
        let rare = first.iter().filter(|&&e| e >= 90).count();
        assert!((900..1100).contains(&rare), "{rare} of 2000");
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 100);
        assert_eq!(examples(&mut Loader::new(skewed(), o).unwrap()), first);
    }

    #[test]
    fn examples_are_drawn_by_weight_and_resume() {
        let weights = (0..100).map(|i| [0.0, 1.0, 3.0][i % 3]).collect();
        let sampling = Sampling::Weighted(weights);
        let o = LoaderOptions { sampling, n_samples: 3000, max_tokens: 96, ..options(8) };
        let datasets = skewed();
        let mut loader = Loader::new(datasets.clone(), o.clone()).unwrap();
        let all = examples(&mut loader);
        let of = |k: usize| all.iter().filter(|&&e| e % 3 == k).count();
        assert_eq!((all.len(), of(0)), (3000, 0));
        assert!((2150..2350).contains(&of(2)), "{} of 3000", of(2));
        loader.next_batches().unwrap();
        let state = loader.state_json().unwrap();
        let rest = drain(&mut loader);
        let mut again = Loader::new(datasets.clone(), o.clone()).unwrap();
        again.restore_json(&state).unwrap();
        assert_eq!(drain(&mut again), rest);
        let other = LoaderOptions { n_samples: 2999, ..o };
        assert!(Loader::new(datasets, other).unwrap().restore_json(&state).is_err());
    }

    #[test]
    fn batches_have_as_many_rows_as_their_tokens_allow() {
        let datasets = pair(200);
        for shuffle in [true, false] {
            let o = LoaderOptions { max_tokens: 512, shuffle, ..options(3) };
            let mut loader = Loader::new(datasets.clone(), o).unwrap();
            let mut rows = BTreeSet::new();
            let mut seen = Vec::new();
            while let Some(batches) = loader.next_batches().unwrap() {
                for batch in &batches {
                    assert!(batch.len() * batch.sequence_length() <= 512);
                }
                rows.insert(batches[0].len());
                seen.extend(batches[0].examples.clone());
            }
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(0..200), "each example once");
            assert!(rows.iter().max() > Some(&3), "{rows:?}");
            // Neighbours of the corpus, whose lengths are mixed, fill each batch alike.
            assert!(!shuffle || rows.len() > 2, "{rows:?}");
        }
    }

    #[test]
    fn a_state_of_an_epoch_with_more_batches_is_restored() {
        let o = LoaderOptions { max_tokens: 96, bucket_batches: 1, ..options(3) };
        let datasets = pair(60);
        let mut loader = Loader::new(datasets.clone(), o.clone()).unwrap();
        let first = loader.n_batches();
        let epoch = (1..50).find(|&epoch| {
            loader.set_epoch(epoch).unwrap();
            loader.n_batches() > first
        });
        let state = LoaderState { position: loader.n_batches(), ..loader.state() };
        let mut again = Loader::new(datasets, o).unwrap();
        again.restore(&state).unwrap();
        assert_eq!(Some(again.epoch()), epoch);
        let beyond = LoaderState { position: state.position + 1, ..state };
        assert!(again.restore(&beyond).is_err());
    }

    #[test]
    fn refuses_a_sampling_that_cannot_be() {
        let e = |datasets, o| Loader::new(datasets, o).unwrap_err().message().to_owned();
        let weighted = |weights: Vec<f64>| LoaderOptions {
            sampling: Sampling::Weighted(weights),
            ..options(4)
        };
        assert!(e(pair(3), weighted(vec![1.0])).contains("1 example_weights for 3 examples"));
        assert!(e(pair(2), weighted(vec![1.0, -1.0])).contains("example_weights[1] is -1"));
        assert!(e(pair(2), weighted(vec![f64::NAN, 1.0])).contains("example_weights[0] is NaN"));
        assert!(e(pair(2), weighted(vec![0.0, 0.0])).contains("a sum of 0"));
        assert!(e(pair(2), weighted(vec![f64::MAX, f64::MAX])).contains("a sum of inf"));
        let balanced = LoaderOptions { sampling: Sampling::ClassBalanced, ..options(4) };
        let bare = data(&corpus(5).without_labels().unwrap(), TokenizerStyle::Bert);
        assert!(e(vec![bare], balanced.clone()).contains("dataset 0: class-balanced sampling"));
        let ordered = LoaderOptions { shuffle: false, ..balanced.clone() };
        assert!(e(pair(5), ordered).contains("needs shuffle"));
        let mixed_too = LoaderOptions { unlabelled_ratio: 1.0, ..balanced.clone() };
        assert!(e(mixed(4, 4), mixed_too).contains("excludes unlabelled_ratio"));
        let more = LoaderOptions { n_samples: 3, ..options(4) };
        assert!(e(pair(5), more).contains("n_samples is for"));
        let all = LoaderOptions { n_samples: usize::MAX, ..balanced.clone() };
        assert!(e(pair(5), all).contains("n_samples is above"));
        let tokens = |max_tokens| LoaderOptions { max_tokens, ..options(4) };
        assert!(e(pair(5), tokens(7)).contains("max_tokens is 7; raise it"));
        let full = LoaderOptions { drop_last: true, ..tokens(999) };
        assert!(e(pair(5), full).contains("excludes drop_last"));
        let with_ratio = LoaderOptions { unlabelled_ratio: 1.0, ..tokens(999) };
        assert!(e(mixed(4, 4), with_ratio).contains("max_tokens excludes"));
        let most = LoaderOptions { max_tokens: usize::MAX, ..options(4) };
        assert_eq!(Loader::new(pair(30), most).unwrap().n_batches(), 1);
    }

    #[test]
    fn refuses_a_ratio_that_cannot_be() {
        let e = |datasets, batch_size, unlabelled_ratio| {
            let o = LoaderOptions { unlabelled_ratio, ..options(batch_size) };
            Loader::new(datasets, o).unwrap_err().message().to_owned()
        };
        assert!(e(mixed(4, 4), 2, f64::NAN).starts_with("unlabelled_ratio is NaN"));
        assert!(e(mixed(4, 4), 2, -1.0).starts_with("unlabelled_ratio is -1"));
        assert!(e(mixed(4, 4), 1, 1.0).contains("batch_size is 1"));
        assert!(e(pair(5), 2, 1.0).contains("dataset 0 has no unlabelled examples"));
        let bare = data(&corpus(5).without_labels().unwrap(), TokenizerStyle::Bert);
        assert!(e(vec![bare], 2, 1.0).contains("dataset 0 has no labelled examples"));
        assert!(e(mixed(4, 90), usize::MAX, 1e-300).ends_with("but dataset 0 has 4"));
        let few = LoaderOptions { unlabelled_ratio: 1e300, ..options(4) };
        assert_eq!(Loader::new(mixed(4, 9), few).unwrap().n_batches(), 3);
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
    /// The rows of all ranks together, as one rank would see them; fillers left out.
    fn dealt(n: usize, options: &LoaderOptions) -> Seen {
        let on = |rank| {
            let options = LoaderOptions { rank, n_ranks: n, ..options.clone() };
            let mut loader = Loader::new(pair(45), options).unwrap();
            let mut all = Vec::new();
            while let Some(batches) = loader.next_batches().unwrap() {
                for (i, batch) in batches.into_iter().enumerate() {
                    let shape = [batch.len(), batch.sequence_length()];
                    assert!(loader.shapes(i).contains(&shape));
                    let fills = batch.tensor("filler").is_some();
                    all.push(if fills { Vec::new() } else { batch.examples });
                }
            }
            all
        };
        let ranks: Vec<Vec<Vec<usize>>> = (0..n).map(on).collect();
        let rows = |i: usize| {
            let most = ranks[0][i].len();
            let row = |r: usize| ranks.iter().filter_map(move |all| all[i].get(r).copied());
            ((0..most).flat_map(row).collect(), Vec::new())
        };
        (0..ranks[0].len()).map(rows).collect()
    }

    #[test]
    fn ranks_see_together_what_one_sees_alone() {
        let options = options(8);
        let mut alone = Loader::new(pair(45), options.clone()).unwrap();
        let expected: Seen = drain(&mut alone).into_iter().map(|(e, _)| (e, Vec::new())).collect();
        // The last batch has 5 rows: with 7 ranks two of them fill up.
        for n in [1, 2, 3, 4, 7] {
            assert_eq!(dealt(n, &options), expected, "{n}");
        }
        let state = alone.state();
        let mut other =
            Loader::new(pair(45), LoaderOptions { rank: 1, n_ranks: 3, ..options.clone() })
                .unwrap();
        other.restore(&state).unwrap();
        let bad = |rank, n_ranks, part: &str| {
            let options = LoaderOptions { rank, n_ranks, ..options.clone() };
            let e = Loader::new(pair(45), options).unwrap_err();
            assert!(e.message().contains(part), "{e}");
        };
        bad(2, 2, "rank 2 of 2");
        bad(0, 0, "rank 0 of 0");
        bad(0, 9, "9 ranks, but a batch_size of 8");
    }
}
