//! Steps of each rank alone, and their meetings.

use super::Ranks;
use super::gradients::{Part, sum_in_buckets};
use super::options::LocalSteps;
use super::outer::{Outer, outer_step};
use crate::error::{Error, Result};
use crate::optim::StepReport;
use crate::train::trainer::Trainer;

impl Trainer {
    /// Sets up for local steps from the weights as they are, where they are asked for.
    pub(super) fn begin_local_steps(&mut self) -> Result<()> {
        let wanted = self.ranks.as_ref().is_some_and(|r| !r.is_joint());
        let outer = wanted.then(|| Outer::new(self.models(), self.optimizer())).transpose()?;
        if let Some(ranks) = &mut self.ranks {
            ranks.outer = outer;
        }
        Ok(())
    }

    /// A step of this rank alone; every `sync_every` steps all meet. The meeting is a part of the
    /// step: if it fails, the step is done and replicas differ.
    pub(super) fn local_step(&mut self, ranks: &mut Ranks) -> Result<StepReport> {
        let report = self.optimizer_mut().step()?;
        let Some(local) = ranks.options.local else { return Ok(report) };
        if report.step.is_multiple_of(local.sync_every) {
            self.meet(ranks, local)?;
        }
        Ok(report)
    }

    fn meet(&mut self, ranks: &mut Ranks, local: LocalSteps) -> Result<()> {
        let factor = 1.0 / ranks.size() as f32;
        let Ranks { comm, bucket, outer, .. } = &mut *ranks;
        let outer = outer.as_mut().ok_or_else(|| Error::internal("no outer step"))?;
        for (m, model) in self.models_mut().iter_mut().enumerate() {
            let statistics = model.running_statistics();
            let weights = &outer.weights[m];
            let mut parts = Vec::new();
            for (i, parameter) in model.parameters.iter_mut().enumerate() {
                if weights[i].is_some() || statistics.contains(&i) {
                    let values = parameter.value.as_mut_slice()?;
                    parts.push(Part { values, factor });
                }
            }
            comm.with(|comm| sum_in_buckets(comm, &mut parts, bucket, &mut None))?;
            let kept = outer.weights[m].iter_mut().zip(&mut outer.momentum[m]);
            for (parameter, (weights, momentum)) in model.parameters.iter_mut().zip(kept) {
                if let (Some(weights), Some(momentum)) = (weights, momentum) {
                    let mean = parameter.value.as_mut_slice()?;
                    outer_step(mean, weights.as_mut_slice()?, momentum.as_mut_slice()?, local);
                }
            }
        }
        let step = self.optimizer().step_count();
        let every = ranks.options.check_every;
        // A meeting lies among so many steps.
        if every > 0 && step / every > (step - local.sync_every) / every {
            self.check_replicas(&ranks.comm, |_| true)?;
        }
        Ok(())
    }
}
