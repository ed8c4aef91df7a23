//! A proposed synchronisation: the values before it, until it is kept or undone.

use crate::error::{Error, Result};
use crate::optim::sweep::buffers::{ParamBuffers, ParamStep};
use crate::optim::sweep::work::SweepMember;
use crate::tensor::{DType, Tensor};

/// The values before a proposed synchronisation; one buffer per grouped parameter, allocated at the
/// first call and reused.
#[derive(Default)]
pub(in crate::optim) struct ProposedSync {
    saved: Vec<Option<Tensor>>,
    proposed: bool,
    /// Synchronisations that were undone.
    pub undone: u64,
}

impl ProposedSync {
    /// Whether one is proposed and neither kept nor undone.
    pub fn is_proposed(&self) -> bool {
        self.proposed
    }

    /// Saves the values of the members that are to be synchronised.
    pub fn save(
        &mut self,
        members: &[SweepMember],
        steps: &[ParamStep],
        buffers: &[ParamBuffers],
    ) -> Result<()> {
        if self.saved.len() != buffers.len() {
            self.saved.resize_with(buffers.len(), || None);
        }
        for i in synced(members, steps) {
            let ParamBuffers { p, len, .. } = buffers[i];
            let tensor = match &mut self.saved[i] {
                Some(t) => t,
                slot => slot.insert(Tensor::zeros(DType::F32, &[len])?),
            };
            // SAFETY: `bind` vouches for the buffers.
            let values = unsafe { std::slice::from_raw_parts(p, len) };
            tensor.as_mut_slice::<f32>()?.copy_from_slice(values);
        }
        Ok(())
    }

    /// Marks the synchronisation as done, to be kept or undone.
    pub fn propose(&mut self) {
        self.proposed = true;
    }

    /// Keeps it.
    pub fn keep(&mut self) -> Result<()> {
        if !self.proposed {
            return Err(Error::state("no synchronisation is proposed"));
        }
        self.proposed = false;
        Ok(())
    }

    /// Undoes it, bit by bit.
    pub fn undo(
        &mut self,
        members: &[SweepMember],
        steps: &[ParamStep],
        buffers: &[ParamBuffers],
    ) -> Result<()> {
        self.keep()?;
        self.undone += 1;
        for i in synced(members, steps) {
            let Some(saved) = &self.saved[i] else { continue };
            // SAFETY: `bind` vouches for the buffers.
            let values = unsafe { std::slice::from_raw_parts_mut(buffers[i].p, buffers[i].len) };
            values.copy_from_slice(saved.as_slice()?);
        }
        Ok(())
    }
}

/// The parameters with members that are synchronised, each once: rows of a token table are members
/// of several groups.
fn synced<'s>(
    members: &'s [SweepMember],
    steps: &'s [ParamStep],
) -> impl Iterator<Item = usize> + 's {
    let is_member = |&i: &usize| members.iter().any(|m| m.param == i);
    (0..steps.len()).filter(|&i| steps[i].synced).filter(is_member)
}
