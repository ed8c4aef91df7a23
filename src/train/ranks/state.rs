//! What a trainer knows of the other ranks.

use std::sync::atomic::AtomicBool;

use super::options::RankOptions;
use super::outer::Outer;
use crate::comm::SharedCommunicator;
use crate::error::Result;

/// What a trainer knows of the other ranks.
#[derive(Debug)]
pub(in crate::train) struct Ranks {
    pub(super) comm: SharedCommunicator,
    pub(super) options: RankOptions,
    pub(super) n_models: usize,
    /// Whether the call that runs had its exchange, after which no failure can be told any more.
    pub(super) agreed: AtomicBool,
    /// What part of the last pass of each model this rank had, by its weight.
    pub(super) shares: Vec<f32>,
    /// Models whose gradients are sums over the ranks already, since a step that failed.
    pub(super) summed: Vec<bool>,
    /// Room for one bucket.
    pub(super) bucket: Vec<f32>,
    /// What local steps need.
    pub(super) outer: Option<Outer>,
}

impl Ranks {
    pub fn rank(&self) -> usize {
        self.comm.rank()
    }

    pub fn size(&self) -> usize {
        self.comm.size()
    }

    /// The numbers of all ranks, in order of rank.
    pub(super) fn gathered(&self, own: &[u64]) -> Result<Vec<u64>> {
        let mut all = vec![0u64; own.len() * self.size()];
        let (own, into) = (bytemuck::cast_slice(own), bytemuck::cast_slice_mut(&mut all));
        self.comm.with(|comm| comm.all_gather(own, into))?;
        Ok(all)
    }

    /// Whether passes and steps are exchanged.
    pub(super) fn is_joint(&self) -> bool {
        self.options.local.is_none()
    }
}
