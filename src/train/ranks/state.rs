//! What a trainer knows of the other ranks.

use std::sync::atomic::AtomicBool;

use super::options::RankOptions;
use super::outer::Outer;
use super::parts::PartScratch;
use super::wire::{GradientDtype, SumScratch};
use crate::comm::SharedCommunicator;
use crate::error::Result;

/// What a trainer knows of the other ranks.
#[derive(Debug)]
pub(in crate::train) struct Ranks {
    pub(super) comm: SharedCommunicator,
    /// With models on different ranks: those that run the same models in other groups of ranks.
    pub(super) replicas: Option<SharedCommunicator>,
    pub(super) options: RankOptions,
    pub(super) n_models: usize,
    /// Whether no failure of the call that runs can be told any more: its last exchange is over, or
    /// all know of a failure.
    pub(super) agreed: AtomicBool,
    /// What part of the last pass of each model this rank had, by its weight.
    pub(super) shares: Vec<f32>,
    /// Models whose gradients are sums over the ranks already, since a step that failed or since
    /// their pass.
    pub(super) summed: Vec<bool>,
    /// Those whose running statistics are still each rank's own.
    pub(super) summed_early: Vec<bool>,
    /// Room for one bucket.
    pub(super) bucket: Vec<f32>,
    /// What sums in bfloat16 need.
    pub(super) sums: Option<SumScratch>,
    /// What local steps need.
    pub(super) outer: Option<Outer>,
    /// The rank of each model, where each rank runs models of its own.
    pub(super) owners: Option<Vec<usize>>,
    /// Room for an exchange of parts, where state is not the same on all ranks.
    pub(super) parts: Option<PartScratch>,
    /// Whether weights of other ranks' models have changed since this rank got them.
    pub(super) is_stale: bool,
    /// Whether a step was taken since all ranks had all weights and moments.
    pub(super) is_spread: bool,
}

impl Ranks {
    /// With all memory that exchanges need; nothing is exchanged.
    pub(super) fn new(
        comm: SharedCommunicator,
        replicas: Option<SharedCommunicator>,
        options: RankOptions,
        n_models: usize,
        owners: Option<Vec<usize>>,
    ) -> Result<Self> {
        let n = options.bucket_bytes / size_of::<f32>();
        let (size, distributed) = (comm.size(), owners.is_some() || options.shard_state);
        let sums = owners.is_none() || replicas.is_some();
        let narrow = options.gradient_dtype == GradientDtype::Bf16 && sums;
        let summed_over = replicas.as_ref().map_or(size, SharedCommunicator::size);
        Ok(Self {
            comm,
            replicas,
            n_models,
            agreed: AtomicBool::new(false),
            shares: vec![0.0; n_models],
            summed: vec![false; n_models],
            summed_early: vec![false; n_models],
            bucket: crate::memory::zeros(if sums { n } else { 0 })?,
            sums: narrow.then(|| SumScratch::new(n, summed_over)).transpose()?,
            outer: None,
            parts: distributed.then(|| PartScratch::new(n, size)).transpose()?,
            owners,
            is_stale: false,
            is_spread: false,
            options,
        })
    }

    pub fn rank(&self) -> usize {
        self.comm.rank()
    }

    pub fn size(&self) -> usize {
        self.comm.size()
    }

    /// The group of this rank, of groups that each have all models.
    pub fn group(&self) -> usize {
        self.replicas.as_ref().map_or(0, SharedCommunicator::rank)
    }

    pub fn n_groups(&self) -> usize {
        self.replicas.as_ref().map_or(1, SharedCommunicator::size)
    }

    /// Whether this rank is the one that writes.
    pub fn is_first(&self) -> bool {
        self.rank() == 0 && self.group() == 0
    }

    /// The ranks that train the same models on other parts of a batch; none where the models of
    /// each rank are there once.
    pub(super) fn data_parallel(&self) -> Option<&SharedCommunicator> {
        if self.is_placed() { self.replicas.as_ref() } else { Some(&self.comm) }
    }

    /// This rank among those that train the same models, and how many they are.
    pub(super) fn data_parallel_place(&self) -> (usize, usize) {
        self.data_parallel().map_or((0, 1), |comm| (comm.rank(), comm.size()))
    }

    /// Whether a model's passes run on this rank.
    pub fn runs(&self, model: usize) -> bool {
        self.owners.as_ref().is_none_or(|owners| owners.get(model) == Some(&self.rank()))
    }

    /// Whether each rank runs models of its own.
    pub fn is_placed(&self) -> bool {
        self.owners.is_some()
    }

    /// Whether passes and steps are exchanged.
    pub(super) fn is_joint(&self) -> bool {
        self.options.local.is_none()
    }
}

/// The numbers of all ranks, in order of rank.
pub(super) fn gathered<T: bytemuck::Pod>(comm: &SharedCommunicator, own: &[T]) -> Result<Vec<T>> {
    let mut all = vec![T::zeroed(); own.len() * comm.size()];
    let (own, into) = (bytemuck::cast_slice(own), bytemuck::cast_slice_mut(&mut all));
    comm.with(|comm| comm.all_gather(own, into))?;
    Ok(all)
}
