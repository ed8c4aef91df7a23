//! How many models run at the same time, and with how many threads each: as the option
//! `max_parallel_models` says or, where it says 0, as the sizes of the passes, the memory that is
//! left and the cores decide. The results do not depend on it.

use super::graphs::PassMemory;
use super::model::Model;
use super::options::TrainerOptions;
use crate::memory::available;
use crate::optim::{self, Teacher};
use crate::runtime::{Device, plan_threads};

/// Whether passes teach each other while they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meets {
    /// They do not, and any number may run at the same time.
    No,
    /// Each learns from those before it: all at the same time, or in turn, which costs no pass.
    AllOrInTurn,
    /// All at the same time, which saves a forward pass of each.
    All,
}

/// Why models run one after another where they cannot all run at the same time.
const IN_TURN: &str = "each learns from those before it";

/// How many models run at the same time.
#[derive(Clone, Debug)]
pub(super) struct Parallel {
    /// At least 1.
    pub n: usize,
    /// Why.
    pub reason: String,
    /// Whether it is still to be decided, and may be lowered.
    pub is_open: bool,
    /// Bytes that training may take in all; 0 asks the system.
    limit: usize,
    cores: usize,
    /// Models that are trained in this process.
    pub n_trained: usize,
    /// Whether passes teach each other while they run.
    meets: Meets,
}

impl Parallel {
    /// What the options say before any batch is known; `mutual` is the mutual learning that takes
    /// place.
    pub fn new(options: &TrainerOptions, models: &[Model], mutual: Option<&optim::Mutual>) -> Self {
        let own = &options.optimizer;
        let teacher = mutual.map(|m| m.teacher);
        let meets = match teacher {
            Some(Teacher::PeersBefore) => Meets::AllOrInTurn,
            Some(Teacher::Online) => Meets::All,
            _ => Meets::No,
        };
        let n_trained = models.iter().filter(|m| !m.only_teaches()).count().max(1);
        let in_turn = meets == Meets::AllOrInTurn
            && (options.device != Device::Cpu || (1..n_trained).contains(&own.max_parallel_models));
        let (n, reason) = match own.max_parallel_models {
            _ if models.len() == 1 => (1, "there is one model"),
            _ if in_turn => (1, IN_TURN),
            0 if options.device != Device::Cpu => (models.len(), "they are on a GPU"),
            0 => (models.len(), "until the first batch shows how large passes are"),
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
            meets,
        }
    }

    /// Threads of each training session.
    pub fn threads(&self) -> usize {
        plan_threads(self.cores, self.n_trained.min(self.n)).1
    }

    /// Bytes that passes may take: what the limit leaves beside `kept`, or the system beside
    /// `untouched`, the part of that which has no memory yet. `arena` can be used again.
    pub fn left(&self, kept: usize, untouched: usize, arena: usize) -> Option<usize> {
        match self.limit {
            0 => Some((available()?).saturating_sub(untouched).saturating_add(arena)),
            limit => Some(limit.saturating_sub(kept)),
        }
    }

    /// Decides by what the passes of all models take. `left` is what they may take together; later
    /// calls only lower the number, for sessions have been opened.
    pub fn decide(&mut self, passes: &[usize], left: Option<usize>) {
        let (mut n, mut reason) = match self.meets {
            Meets::All => (passes.len(), "their passes teach each other while they run".to_owned()),
            _ => by_size(passes, self.cores),
        };
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
        if self.meets == Meets::AllOrInTurn && (2..self.n_trained).contains(&n) {
            (n, reason) = (1, format!("{IN_TURN}, and {reason}"));
        }
        if n < self.n || self.reason.starts_with("no batch") {
            (self.n, self.reason) = (n.min(self.n), reason);
        }
    }
}

/// Large models run in turn, small ones side by side.
fn by_size(passes: &[usize], cores: usize) -> (usize, String) {
    let largest = passes.iter().copied().max().unwrap_or(0);
    if largest >= PassMemory::LARGE {
        let text = format!(
            "the largest pass takes {}, and large models are about as fast so",
            megabytes(largest)
        );
        return (1, text);
    }
    let text = match cores {
        1 => "there is one thread (n_threads, or the cores)".to_owned(),
        _ => {
            format!("the largest pass takes {}, and small models are faster so", megabytes(largest))
        }
    };
    (if cores == 1 { 1 } else { passes.len() }, text)
}

/// Threads in all: as many as asked for, or one per core.
pub(super) fn cores(threads: usize) -> usize {
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    if threads == 0 { all() } else { threads }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn open(n: usize, cores: usize) -> Parallel {
        let reason = "until the first batch shows how large passes are".to_owned();
        Parallel { n, reason, is_open: true, limit: 0, cores, n_trained: n, meets: Meets::No }
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
        check(&[10 << 20; 3], 1, None, 1, "there is one thread (n_threads");
        let large = PassMemory::LARGE;
        check(&[large, 1, 1], 2, None, 1, "in turn with 2 threads: the largest pass takes 67 MB");
        check(&[100, 200, 300], 4, Some(600), 3, "side by side");
        check(&[100, 200, 300], 4, Some(599), 2, "2 models run at a time with 2 threads each");
        check(&[100, 200, 300], 4, Some(499), 1, "and 0 MB are left");
        check(&[100, 200, 300], 4, Some(1), 1, "in turn with 4 threads");
    }

    #[test]
    fn passes_that_teach_each_other_run_together_where_they_fit() {
        for (left, n) in [(None, 2), (Some(2 * PassMemory::LARGE - 1), 1)] {
            let mut parallel = Parallel { meets: Meets::All, ..open(2, 1) };
            parallel.decide(&[PassMemory::LARGE; 2], left);
            assert_eq!(parallel.n, n, "{parallel}");
        }
    }

    #[test]
    fn models_that_learn_from_those_before_run_all_together_or_in_turn() {
        for (pass, left, n) in
            [(200, None, 3), (200, Some(599), 1), (PassMemory::LARGE, None, 1), (200, Some(1), 1)]
        {
            let mut parallel = Parallel { meets: Meets::AllOrInTurn, ..open(3, 2) };
            parallel.decide(&[pass; 3], left);
            assert_eq!(parallel.n, n, "{parallel}");
        }
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
