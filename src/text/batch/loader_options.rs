//! How a loader orders and pads, and what it refuses.

use crate::error::{Error, Result};
use crate::text::batch::dataset::Dataset;
use crate::text::batch::sampling::{MAX_SAMPLES, Sampling};
use std::sync::Arc;

/// How a loader orders and pads.
#[derive(Clone, Debug, PartialEq)]
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
    /// Unlabelled examples for each labelled one in every batch, of which the epoch then is one
    /// walk over the unlabelled ones: of B = `batch_size` rows B / (1 + ratio), rounded, are
    /// labelled, at least 1 and at most B − 1. A last batch that is not full has the same shares,
    /// rounded. 0 (default): examples come as they are.
    pub unlabelled_ratio: f64,
    /// How the examples of an epoch are chosen. Default: each once.
    pub sampling: Sampling,
    /// Examples that are drawn for an epoch, up to 2^28; 0 (default): as many as there are. Only
    /// with a [`Sampling`] that draws.
    pub n_samples: usize,
    /// Most tokens of a batch, padding included: rows times padded length, for each model. Then
    /// batches have different numbers of rows, and `batch_size` counts only for evaluation; the
    /// number of batches may differ between epochs. 0 (default): batches of `batch_size` rows.
    pub max_tokens: usize,
    /// This rank, below `n_ranks`. Default 0.
    pub rank: usize,
    /// Ranks that train together: every batch is dealt out to them, row i to rank i mod `n_ranks`,
    /// so that all of them together see what one alone would see. A rank for which a short batch
    /// has no row gets its first row with a tensor `filler`, which says that it counts for nothing.
    /// At most `batch_size`. Evaluation is not dealt out. Default 1.
    pub n_ranks: usize,
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
            unlabelled_ratio: 0.0,
            sampling: Sampling::EachOnce,
            n_samples: 0,
            max_tokens: 0,
            rank: 0,
            n_ranks: 1,
        }
    }
}

impl LoaderOptions {
    /// Labelled rows of a batch of `rows`, at least 1.
    pub(super) fn n_labelled(&self, rows: usize) -> usize {
        ((rows as f64 / (1.0 + self.unlabelled_ratio)).round() as usize).max(1)
    }

    /// Labelled and unlabelled rows of a full batch.
    pub(super) fn shares(&self) -> (usize, usize) {
        let labelled = self.n_labelled(self.batch_size).min(self.batch_size - 1);
        (labelled, self.batch_size - labelled)
    }

    /// For evaluation: every sequence once, in order, in batches of `batch_size`.
    pub fn evaluation(batch_size: usize) -> Self {
        Self { batch_size, shuffle: false, ..Default::default() }
    }
}

/// Refuses options that contradict each other or the datasets.
pub(super) fn check(datasets: &[Arc<Dataset>], options: &LoaderOptions) -> Result<()> {
    if options.batch_size == 0 {
        return Err(Error::invalid("batch_size must be at least 1"));
    }
    let Some(first) = datasets.first() else {
        return Err(Error::invalid("a loader needs a dataset"));
    };
    if let Some(empty) = datasets.iter().position(|d| d.is_empty()) {
        return Err(Error::invalid(format!("dataset {empty} is empty")));
    }
    check_ranks(options)?;
    check_ratio(datasets, options)?;
    check_sampling(datasets, options)?;
    if !options.aligned {
        return Ok(());
    }
    let mixed = options.unlabelled_ratio > 0.0;
    let examples = |d: &Arc<Dataset>| {
        let data = d.clone();
        (0..d.len()).map(move |i| (data.example(i), mixed && data.is_labelled(i)))
    };
    match datasets.iter().position(|d| !examples(d).eq(examples(first))) {
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

fn check_ranks(options: &LoaderOptions) -> Result<()> {
    let LoaderOptions { rank, n_ranks, batch_size, max_tokens, .. } = *options;
    if rank >= n_ranks {
        return Err(Error::invalid(format!("rank {rank} of {n_ranks} ranks; counted from 0")));
    }
    if n_ranks > batch_size && max_tokens == 0 {
        return Err(Error::invalid(format!(
            "{n_ranks} ranks, but a batch_size of {batch_size}, which is that of all ranks \
             together; raise it to one row for each"
        )));
    }
    Ok(())
}

fn check_sampling(datasets: &[Arc<Dataset>], options: &LoaderOptions) -> Result<()> {
    let LoaderOptions { sampling, n_samples, max_tokens, shuffle, drop_last, .. } = options;
    let mixed = options.unlabelled_ratio > 0.0;
    let excluded = [
        (sampling.draws() && !shuffle, "a sampling that draws examples needs shuffle"),
        (sampling.draws() && mixed, "a sampling that draws examples excludes unlabelled_ratio"),
        (!sampling.draws() && *n_samples > 0, "n_samples is for a sampling that draws examples"),
        (*n_samples > MAX_SAMPLES, "n_samples is above 2^28"),
        (*max_tokens > 0 && mixed, "max_tokens excludes unlabelled_ratio"),
        (*max_tokens > 0 && *drop_last, "max_tokens excludes drop_last: no batch has a full size"),
    ];
    if let Some((_, what)) = excluded.iter().find(|(is, _)| *is) {
        return Err(Error::invalid(*what));
    }
    for (k, data) in datasets.iter().enumerate() {
        sampling.check(data).map_err(|e| e.context(format!("dataset {k}")))?;
        let padded = |i| data.padded_length(data.n_tokens(i), options.pad_to_multiple_of);
        let over = |&i: &usize| *max_tokens > 0 && padded(i) > *max_tokens;
        if let Some(i) = (0..data.len()).find(over) {
            return Err(Error::invalid(format!(
                "dataset {k}: example {} has {} tokens, {} with padding, but max_tokens is \
                 {max_tokens}; raise it, or lower max_length",
                data.example(i),
                data.n_tokens(i),
                padded(i)
            )));
        }
    }
    Ok(())
}

fn check_ratio(datasets: &[Arc<Dataset>], options: &LoaderOptions) -> Result<()> {
    let LoaderOptions { batch_size, unlabelled_ratio: ratio, .. } = *options;
    if !(ratio.is_finite() && ratio >= 0.0) {
        return Err(Error::invalid(format!(
            "unlabelled_ratio is {ratio}; it must be a number of at least 0"
        )));
    }
    if ratio == 0.0 {
        return Ok(());
    }
    if batch_size < 2 {
        return Err(Error::invalid(format!(
            "batch_size is {batch_size}; with unlabelled_ratio it must be at least 2"
        )));
    }
    for (i, data) in datasets.iter().enumerate() {
        let n = (0..data.len()).filter(|&i| data.is_labelled(i)).count();
        if n == 0 || n == data.len() {
            let has = if n == 0 { "no labelled" } else { "no unlabelled" };
            return Err(Error::invalid(format!(
                "unlabelled_ratio is {ratio}, but dataset {i} has {has} examples; concatenate a \
                 labelled and an unlabelled corpus, or set it to 0"
            )));
        }
        let wanted = options.shares().0;
        if wanted > n {
            return Err(Error::invalid(format!(
                "batches of batch_size {batch_size} with unlabelled_ratio {ratio} have {wanted} \
                 labelled examples, but dataset {i} has {n}"
            )));
        }
    }
    Ok(())
}
