//! How many models run at the same time, and with how many threads each: as the option
//! `max_parallel_models` says or, where it says 0, as the sizes of the passes, the memory that is
//! left and the cores decide. The results do not depend on it.

use super::batch::Batch;
use super::model::Model;
use super::mutual::step::Mutual;
use super::options::TrainerOptions;
use super::trainer::{Trainer, cores, in_model};
use crate::error::Result;
use crate::memory::available;
use crate::optim::Teacher;
use crate::runtime::{Device, plan_threads};

/// Passes that take this much working memory or more run in turn, and their threads spin: measured,
/// see docs/performance.md.
pub(super) const LARGE: usize = 64 << 20;

/// How many models run at the same time.
#[derive(Clone, Debug)]
pub(super) struct Parallel {
    /// At least 1.
    pub n: usize,
    /// Why.
    pub reason: String,
    /// Whether it is still to be decided, and may be lowered.
    is_open: bool,
    /// Bytes that training may take in all; 0 asks the system.
    limit: usize,
    cores: usize,
    n_trained: usize,
}

impl Parallel {
    /// What the options say before any batch is known.
    pub fn new(options: &TrainerOptions, models: &[Model], mutual: Option<&Mutual>) -> Self {
        let own = &options.optimizer;
        let n_trained = models.iter().filter(|m| !m.only_teaches()).count().max(1);
        let in_turn = mutual.is_some_and(|m| m.options().teacher == Teacher::PeersBefore);
        let (n, reason) = match own.max_parallel_models {
            _ if in_turn => (1, "each learns from those before it"),
            _ if models.len() == 1 => (1, "there is one model"),
            0 if options.device != Device::Cpu => (models.len(), "they are on a GPU"),
            0 => (models.len(), "no batch is known yet"),
            n => (n, "the option max_parallel_models says so"),
        };
        Self {
            n,
            reason: reason.to_owned(),
            is_open: own.max_parallel_models == 0
                && !in_turn
                && models.len() > 1
                && options.device == Device::Cpu,
            limit: usize::try_from(own.memory_limit).unwrap_or(usize::MAX),
            cores: cores(own.n_threads),
            n_trained,
        }
    }

    /// Threads of each training session.
    pub fn threads(&self) -> usize {
        plan_threads(self.cores, self.n_trained.min(self.n)).1
    }

    /// Bytes that passes may take: what the limit leaves beside `kept`, or the system beside
    /// `untouched`, the part of that which has no memory yet. `arena` can be used again.
    fn left(&self, kept: usize, untouched: usize, arena: usize) -> Option<usize> {
        match self.limit {
            0 => Some((available()?).saturating_sub(untouched).saturating_add(arena)),
            limit => Some(limit.saturating_sub(kept)),
        }
    }

    /// Decides by what the passes of all models take. `left` is what they may take together; later
    /// calls only lower the number, for sessions have been opened.
    fn decide(&mut self, passes: &[usize], left: Option<usize>) {
        let (mut n, mut reason) = by_size(passes, self.cores);
        if let Some(left) = left {
            let mut largest = passes.to_vec();
            largest.sort_unstable_by(|a, b| b.cmp(a));
            let taken = |n: usize| largest[..n.min(largest.len())].iter().sum::<usize>();
            let fits = (1..=n).rev().find(|&n| taken(n) <= left).unwrap_or(1);
            if fits < n {
                reason = format!(
                    "side by side their passes would take {}, and {} are left",
                    megabytes(taken(n)),
                    megabytes(left)
                );
                n = fits;
            }
        }
        if n < self.n || self.reason.starts_with("no batch") {
            (self.n, self.reason) = (n.min(self.n), reason);
        }
    }
}

/// Large models run in turn, small ones side by side.
fn by_size(passes: &[usize], cores: usize) -> (usize, String) {
    let largest = passes.iter().copied().max().unwrap_or(0);
    if largest >= LARGE {
        let text = format!(
            "the largest pass takes {}, and in turn with all threads large models are about as fast",
            megabytes(largest)
        );
        return (1, text);
    }
    let text = match cores {
        1 => "there is one core".to_owned(),
        _ => {
            format!("the largest pass takes {}, and small models are faster so", megabytes(largest))
        }
    };
    (if cores == 1 { 1 } else { passes.len() }, text)
}

/// Bytes as text.
pub(super) fn megabytes(bytes: usize) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

/// In words, e.g. `models run in turn with 2 threads: …`.
impl std::fmt::Display for Parallel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let threads = self.threads();
        let unit = if threads == 1 { "thread" } else { "threads" };
        match self.n {
            1 => write!(f, "models run in turn with {threads} {unit}: {}", self.reason),
            n if n >= self.n_trained => {
                write!(f, "models run side by side with {threads} {unit} each: {}", self.reason)
            }
            n => write!(f, "{n} models run at a time with {threads} {unit} each: {}", self.reason),
        }
    }
}

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
        for &(i, batch) in batches {
            let one = &mut self.models[i];
            is_new |= !one.has_session(batch);
            one.foresee(batch).map_err(|e| in_model(e, &one.name))?;
        }
        if !is_new {
            return Ok(());
        }
        // A model whose batch is not known may take as much as the largest of the others.
        let mut passes: Vec<usize> = self.models.iter().map(|m| m.pass_bytes()).collect();
        let largest = passes.iter().copied().max().unwrap_or(0);
        let unknown = self.models.iter().zip(&mut passes).filter(|(m, _)| !m.only_teaches());
        unknown.filter(|(_, p)| **p == 0).for_each(|(_, p)| *p = largest);
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

    /// Gives training sessions that are opened from now on their threads.
    fn set_threads(&mut self) {
        let (threads, spinning) = (self.parallel.threads(), self.parallel.n == 1);
        for model in &mut self.models {
            (model.train_session.threads, model.train_session.spinning) = (threads, spinning);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(n: usize, cores: usize) -> Parallel {
        let reason = "no batch is known yet".to_owned();
        Parallel { n, reason, is_open: true, limit: 0, cores, n_trained: n }
    }

    #[test]
    fn what_fits_and_is_fast_is_chosen() {
        let check =
            |passes: &[usize], cores: usize, available: Option<usize>, n: usize, text: &str| {
                let mut parallel = open(passes.len(), cores);
                parallel.decide(passes, available);
                assert_eq!(parallel.n, n, "{parallel}");
                assert!(parallel.to_string().contains(text), "{parallel}");
            };
        check(&[10 << 20; 3], 2, None, 3, "side by side with 1 thread each");
        check(&[10 << 20; 3], 1, None, 1, "there is one core");
        check(&[LARGE, 1, 1], 2, None, 1, "in turn with 2 threads: the largest pass takes 67 MB");
        check(&[100, 200, 300], 4, Some(600), 3, "side by side");
        check(&[100, 200, 300], 4, Some(599), 2, "2 models run at a time with 2 threads each");
        check(&[100, 200, 300], 4, Some(499), 1, "and 0 MB are left");
        check(&[100, 200, 300], 4, Some(1), 1, "in turn with 4 threads");
    }

    #[test]
    fn later_batches_only_lower_it() {
        let mut parallel = open(2, 2);
        parallel.decide(&[100, 100], Some(200));
        assert_eq!(parallel.n, 2);
        parallel.decide(&[100, 150], Some(200));
        assert_eq!(parallel.n, 1);
        parallel.decide(&[10, 10], Some(200));
        assert_eq!(parallel.n, 1);
    }
}
