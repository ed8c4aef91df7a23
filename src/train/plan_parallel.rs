//! Where a trainer decides how many of its models run at the same time: before passes over batches
//! whose shapes are new.

use super::batch::Batch;
use super::trainer::{Trainer, in_model};
use crate::error::Result;

impl Trainer {
    /// How many models run at the same time, and why.
    pub fn parallel_text(&self) -> String {
        self.parallel.to_string()
    }

    /// Decides, before the passes over these batches, how many models run at the same time, if that
    /// is open and a batch has other shapes than those before.
    pub(super) fn plan_parallel(&mut self, batches: &[(usize, Batch)]) -> Result<()> {
        if !self.parallel.is_open {
            return Ok(());
        }
        let mut is_new = false;
        let here: Vec<bool> = (0..self.models.len()).map(|i| self.runs_here(i)).collect();
        for &(i, batch) in batches.iter().filter(|(i, _)| here[*i]) {
            let one = &mut self.models[i];
            is_new |= !one.has_session(batch);
            one.foresee(batch).map_err(|e| in_model(e, &one.name))?;
        }
        if !is_new {
            return Ok(());
        }
        // A model whose batch is not known may take as much as the largest of the others. Those of
        // other ranks take nothing here.
        let mut passes: Vec<usize> = self.models.iter().map(|m| m.pass_bytes()).collect();
        let largest = passes.iter().copied().max().unwrap_or(0);
        for ((model, pass), here) in self.models.iter().zip(&mut passes).zip(here) {
            match (here, model.only_teaches()) {
                (false, _) => *pass = 0,
                (true, false) if *pass == 0 => *pass = largest,
                _ => {}
            }
        }
        let memory = self.memory_report(&[])?;
        let parameters: usize = memory.models.iter().map(|m| m.parameters).sum();
        let has_stepped = self.optimizer().step_count() > 0;
        let untouched = if has_stepped { 0 } else { memory.kept - parameters };
        let arena = self.models.iter().map(|m| m.meter.peak()).max().unwrap_or(0);
        let left = self.parallel.left(memory.kept, untouched, arena);
        let (before, reason) = (self.parallel.n, self.parallel.reason.clone());
        self.parallel.decide(&passes, left);
        if (before, &reason) != (self.parallel.n, &self.parallel.reason) {
            self.set_threads();
            self.log_info(|| self.parallel.to_string());
        }
        Ok(())
    }

    /// Parts the cores among so many models that are trained here.
    pub(super) fn share_cores_among(&mut self, n: usize) {
        self.parallel.n_trained = n.max(1);
        self.set_threads();
    }

    /// Gives training sessions that are opened from now on their threads.
    fn set_threads(&mut self) {
        let (threads, spinning) = (self.parallel.threads(), self.parallel.n == 1);
        for model in &mut self.models {
            (model.train_session.threads, model.train_session.spinning) = (threads, spinning);
        }
    }
}
