//! The passes of all models in one call.

use super::batch::Batch;
use super::model::{Model, Run};
use super::mutual::step::{Mutual, Setting};
use super::ranks::{Ended, Ranks};
use super::trainer::{Trainer, in_model};
use crate::error::Result;
use crate::threads::at_most;

impl Trainer {
    /// The passes of all models, and, where ranks sum gradients as passes end, these sums.
    pub(super) fn run_passes(&mut self, batches: &[Batch]) -> Result<Vec<Run>> {
        if let Some(mutual) = &mut self.mutual {
            mutual.set_teacher_weights(&self.optimizer)?;
        }
        let sums_early = self.ranks.as_ref().is_some_and(Ranks::sums_early);
        let trained = if sums_early { self.trained_parameters()? } else { Vec::new() };
        let (step, n) = (self.optimizer.step_count(), self.parallel.n);
        let Self { models, mutual, ema, ranks, .. } = self;
        let (mutual, ema) = (mutual.as_mut(), ema.as_mut());
        match ranks {
            Some(ranks) if sums_early => {
                let setting = Setting { step, n, ema, ranks: None };
                let what = (batches, mutual.is_some());
                ranks.sum_beside(models, trained, what, |models, ended| {
                    passes(models, batches, mutual, setting, ended)
                })
            }
            ranks => {
                let setting = Setting { step, n, ema, ranks: ranks.as_mut() };
                passes(models, batches, mutual, setting, Ended::untold())
            }
        }
    }

    /// Which parameters of each model are trained; none of a model that only teaches.
    fn trained_parameters(&self) -> Result<Vec<Vec<bool>>> {
        let of = |(i, model): (usize, &Model)| {
            let n = if model.only_teaches() { 0 } else { model.parameters.len() };
            (0..n).map(|p| Ok(self.optimizer.param_spec(i, p)?.trainable)).collect()
        };
        self.models.iter().enumerate().map(of).collect()
    }
}

fn passes<'m>(
    models: &'m mut [Model],
    batches: &[Batch],
    mutual: Option<&mut Mutual>,
    setting: Setting<'_>,
    ended: Ended<'m>,
) -> Result<Vec<Run>> {
    match mutual {
        Some(mutual) => mutual.run(models, batches, setting, &ended),
        None => side_by_side(models, batches, &setting, &ended),
    }
}

fn side_by_side<'m>(
    models: &'m mut [Model],
    batches: &[Batch],
    setting: &Setting<'_>,
    ended: &Ended<'m>,
) -> Result<Vec<Run>> {
    let here = |i: usize| setting.ranks.as_ref().is_none_or(|ranks| ranks.runs(i));
    let names: Vec<String> = models.iter().map(|m| m.name.clone()).collect();
    let runs = models.iter_mut().zip(batches).enumerate().map(|(i, (model, batch))| {
        let (here, ended) = (here(i), ended.for_thread());
        move || {
            if !here {
                return Ok(Run::default());
            }
            let done = model;
            let run = done.forward_backward(batch)?;
            ended.tell(i, done, &run);
            Ok(run)
        }
    });
    let named = at_most(setting.n, runs).into_iter().zip(&names);
    named.map(|(run, name)| run.map_err(|e| in_model(e, name))).collect()
}
