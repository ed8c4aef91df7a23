//! How replicas keep together.

use super::wire::GradientDtype;
use crate::error::{Error, Result};

/// Steps that replicas take by themselves before they meet (local SGD; DiLoCo, Douillard et al.
/// 2023).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LocalSteps {
    /// Replicas meet after so many steps of their own, at least 1.
    pub sync_every: u64,
    /// Learning rate of the outer step, above 0.
    pub outer_lr: f64,
    /// Nesterov momentum of the outer step, in [0, 1).
    pub outer_momentum: f64,
}

impl Default for LocalSteps {
    fn default() -> Self {
        Self { sync_every: 500, outer_lr: 0.7, outer_momentum: 0.9 }
    }
}

/// How replicas keep together.
#[derive(Clone, Debug, PartialEq)]
pub struct RankOptions {
    /// Gradients are summed in buckets of so many bytes, at least 4; the last one is smaller. They
    /// are filled model by model, parameter by parameter, in order. Default 25 MiB.
    pub bucket_bytes: usize,
    /// Before each step whose number is a multiple of this, checksums of all parameters are
    /// compared; with local steps, before each meeting's end. 0: never. Default 100.
    pub check_every: u64,
    /// Replicas step by themselves and meet now and then, in place of summing gradients at every
    /// step. Default none.
    pub local: Option<LocalSteps>,
    /// Each rank has the moments of some parameters and updates these; then all get their values
    /// (ZeRO stage 1, Rajbhandari et al. 2020). Default false.
    pub shard_state: bool,
    /// Element type of gradients on the wire. Default f32.
    pub gradient_dtype: GradientDtype,
    /// In a pass of all models the gradients of each are summed as soon as its own pass has ended,
    /// in the order of models, while the others still run; else in the step. The results have the
    /// same bits. Needs `gradient_accumulation_steps` 1. Default false.
    pub overlap: bool,
}

impl Default for RankOptions {
    fn default() -> Self {
        Self {
            bucket_bytes: 25 << 20,
            check_every: 100,
            local: None,
            shard_state: false,
            gradient_dtype: GradientDtype::F32,
            overlap: false,
        }
    }
}

impl RankOptions {
    /// Refuses what is out of range.
    pub(super) fn check(&self) -> Result<()> {
        if self.bucket_bytes < 4 {
            let n = self.bucket_bytes;
            return Err(Error::invalid(format!("bucket_bytes is {n}; it must be at least 4")));
        }
        if self.local.is_some() && self.shard_state {
            return Err(Error::unsupported(
                "shard_state with local steps, for which each rank needs all moments; leave one of \
                 them out",
            ));
        }
        if self.local.is_some() && self.gradient_dtype != GradientDtype::F32 {
            return Err(Error::unsupported(
                "gradient_dtype bf16 with local steps, which send no gradients; leave one of them \
                 out",
            ));
        }
        if self.local.is_some() && self.overlap {
            return Err(Error::unsupported(
                "overlap with local steps, which sum no gradients; leave one of them out",
            ));
        }
        self.local.map_or(Ok(()), |local| local.check())
    }

    /// Refuses what does not go together with how micro-batches are accumulated.
    pub(super) fn check_accumulation(&self, steps: u32) -> Result<()> {
        if !self.overlap || steps == 1 {
            return Ok(());
        }
        Err(Error::unsupported(format!(
            "overlap with gradient_accumulation_steps {steps}: sums would be sent for each \
             micro-batch, in place of once in the step; leave overlap out, or accumulate 1"
        )))
    }
}

impl LocalSteps {
    /// Refuses what is out of range.
    pub(crate) fn check(&self) -> Result<()> {
        let &Self { sync_every, outer_lr, outer_momentum } = self;
        if sync_every == 0 {
            return Err(Error::invalid("local steps need a sync_every of at least 1"));
        }
        if !(outer_lr.is_finite() && outer_lr > 0.0) {
            return Err(Error::invalid(format!("outer_lr is {outer_lr}; it must be above 0")));
        }
        if !(0.0..1.0).contains(&outer_momentum) {
            return Err(Error::invalid(format!(
                "outer_momentum is {outer_momentum}; it must be at least 0 and below 1"
            )));
        }
        Ok(())
    }
}
