//! The small exchange that each call of all ranks has: one sum of f64 of a fixed length.
//!
//! It begins with a count for each kind of call, which is the number of ranks for one kind if all
//! make the same call. Then how many ranks have failed in it, and the sum of (rank + 1) of those,
//! which names the rank if it is one. Then [`PER_MODEL`] numbers for each model.

use std::sync::atomic::Ordering;

use super::Ranks;
use super::state::gathered;
use crate::comm::Values;
use crate::error::{Error, Kind, Result};

/// Numbers of each model.
pub(super) const PER_MODEL: usize = 6;

/// One model's numbers; their sums over the ranks after the exchange.
pub(super) type Numbers = [f64; PER_MODEL];

/// Sums of the numbers of each model.
pub(super) struct Sums {
    /// Over the ranks of this group, where there are several.
    pub group: Vec<Numbers>,
    pub all: Vec<Numbers>,
}

/// What all ranks do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::train) enum Call {
    /// A pass of one model.
    Pass(usize),
    /// A pass of all models.
    PassOfAll,
    /// The beginning of a step.
    Step,
    /// A part of a step.
    Part,
    /// What a step has decided, before anything changes.
    Decide,
    /// A part of a pass of all models.
    PassPart,
    /// Losses that a synchronisation is judged by.
    Losses,
    /// A checkpoint was written.
    Checkpoint,
    /// A checkpoint was read.
    Resume,
    /// All models' weights are wanted on all ranks.
    Gather,
}

/// Kinds of calls beside the passes of single models.
pub(super) const N_KINDS: usize = 9;

impl Call {
    fn place(self) -> usize {
        match self {
            Self::PassOfAll => 0,
            Self::Step => 1,
            Self::Decide => 2,
            Self::Losses => 3,
            Self::Checkpoint => 4,
            Self::Resume => 5,
            Self::Part => 6,
            Self::PassPart => 7,
            Self::Gather => 8,
            Self::Pass(model) => N_KINDS + model,
        }
    }

    /// Whether more exchanges of the call follow.
    fn goes_on(self) -> bool {
        matches!(self, Self::Step | Self::Part | Self::PassPart)
    }

    fn name(place: usize) -> String {
        let names = [
            "a pass of all models",
            "a step",
            "a step",
            "a step",
            "a checkpoint",
            "resume",
            "a step",
            "a pass of all models",
            "gather_models",
        ];
        names.get(place).map_or_else(
            || format!("a pass of model {}", place - N_KINDS),
            |name| (*name).to_owned(),
        )
    }
}

impl Ranks {
    /// Tells the others that this rank takes part in a call with its numbers, and takes the sums.
    ///
    /// # Errors
    /// `State` where ranks make different calls; `Cancelled` where another rank failed; those of
    /// the communicator.
    pub(super) fn exchange(&self, call: Call, numbers: &[Numbers]) -> Result<Vec<Numbers>> {
        self.settle(call, numbers, false).map(|sums| sums.all)
    }

    /// As [`Ranks::exchange`], with the sums over the ranks of this group beside those over all.
    pub(super) fn exchange_in_group(&self, call: Call, numbers: &[Numbers]) -> Result<Sums> {
        self.settle(call, numbers, false)
    }

    /// Tells the others that this rank fails in a call. What they say does not matter then.
    pub(super) fn tell_failure(&self, call: Call) {
        let none = vec![[0.0; PER_MODEL]; self.n_models];
        // This rank has an error already.
        let _ = self.settle(call, &none, true);
    }

    fn settle(&self, call: Call, numbers: &[Numbers], failed: bool) -> Result<Sums> {
        self.agreed.store(true, Ordering::Relaxed);
        let n_calls = N_KINDS + self.n_models;
        let mut all = vec![0.0; n_calls + 2];
        all[call.place()] = 1.0;
        if failed {
            let place = self.group() * self.size() + self.rank() + 1;
            (all[n_calls], all[n_calls + 1]) = (1.0, place as f64);
        }
        all.extend(numbers.iter().flatten());
        self.comm.with(|c| c.all_reduce(Values::F64(&mut all)))?;
        let of_models = |all: &[f64]| all[n_calls + 2..].as_chunks::<PER_MODEL>().0.to_vec();
        let group = of_models(&all);
        if let Some(replicas) = &self.replicas {
            // In one order, so that all ranks have the same bits.
            let groups = gathered(replicas, &all)?;
            all.fill(0.0);
            for one in groups.chunks_exact(all.len()) {
                all.iter_mut().zip(one).for_each(|(sum, x)| *sum += x);
            }
        }
        let (n_failed, which) = (all[n_calls], all[n_calls + 1]);
        // A rank that fails may be in an earlier or a later exchange of the call.
        if n_failed == 0.0 {
            self.check_calls(&all[..n_calls])?;
        } else if !failed {
            let who = match n_failed {
                1.0 => format!("{} failed", self.rank_text(which as usize - 1)),
                n => format!("{n} ranks failed"),
            };
            let text = format!("{who} in this call, which therefore has no effect on any rank");
            return Err(Error::new(Kind::Cancelled, text));
        }
        self.agreed.store(failed || !call.goes_on(), Ordering::Relaxed);
        Ok(Sums { group, all: of_models(&all) })
    }

    /// A rank in words, counted over all groups.
    fn rank_text(&self, place: usize) -> String {
        match self.replicas {
            None => format!("rank {place}"),
            Some(_) => format!("rank {} of group {}", place % self.size(), place / self.size()),
        }
    }

    fn check_calls(&self, counts: &[f64]) -> Result<()> {
        let made = || (0..counts.len()).filter(|&i| counts[i] > 0.0);
        if made().count() == 1 {
            return Ok(());
        }
        let size = self.size() * self.n_groups();
        let texts: Vec<String> =
            made().map(|i| format!("{} of {size} call {}", counts[i], Call::name(i))).collect();
        let all = texts.join(", ");
        Err(Error::state(format!("ranks make different calls: {all}; each must make the same")))
    }
}
