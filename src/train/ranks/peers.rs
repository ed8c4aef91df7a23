//! What a step exchanges with the other ranks.

use super::Ranks;
use super::exchange::{Call, Numbers};
use super::wire::GradientDtype;
use crate::comm::Values;
use crate::error::{Error, Result};
use crate::optim::{Distribution, Peers, Pieces, Stage};

/// The other ranks of a step. Where each rank has all gradients, nothing needs to be told before it
/// is decided.
pub(super) struct StepPeers<'a> {
    pub ranks: &'a mut Ranks,
    pub distribution: Distribution,
}

impl Peers for StepPeers<'_> {
    fn settle(&mut self, stage: Stage, ready: bool) -> Result<()> {
        let asked = match stage {
            Stage::Decided | Stage::Proposed => true,
            Stage::Rated => self.distribution != Distribution::None,
            Stage::Gradients | Stage::Inspected => self.distribution == Distribution::Models,
        };
        let call = match stage {
            Stage::Gradients | Stage::Inspected | Stage::Rated => Call::Part,
            Stage::Decided | Stage::Proposed => Call::Decide,
        };
        if !ready {
            self.ranks.tell_failure(call);
            return Ok(());
        }
        if !asked {
            return Ok(());
        }
        let none = vec![Numbers::default(); self.ranks.n_models];
        self.ranks.exchange(call, &none).map(drop)
    }

    fn add(&mut self, sums: &mut [f64]) -> Result<()> {
        self.ranks.comm.with(|comm| comm.all_reduce(Values::F64(sums)))
    }

    fn join(&mut self, bits: &mut [u64]) -> Result<()> {
        self.ranks.comm.with(|comm| comm.all_reduce(Values::U64(bits)))
    }

    fn exchange(&mut self, pieces: &mut Pieces, gradients: bool) -> Result<()> {
        let Ranks { comm, parts, options, .. } = &mut *self.ranks;
        let parts = parts.as_mut().ok_or_else(|| Error::internal("no room for an exchange"))?;
        let dtype = if gradients { options.gradient_dtype } else { GradientDtype::F32 };
        comm.with(|comm| parts.exchange(comm, pieces, dtype))
    }
}
