//! The gradients of a step, summed over the ranks in buckets.

use super::Ranks;
use super::exchange::{Call, Numbers};
use super::peers::StepPeers;
use super::wire::{SumScratch, sum_bucket};
use crate::comm::Communicator;
use crate::error::{Error, Result};
use crate::optim::{Distribution, StepReport};
use crate::train::trainer::Trainer;

/// Numbers that are summed over the ranks, each rank's times a factor.
pub(super) struct Part<'a> {
    pub values: &'a mut [f32],
    pub factor: f32,
}

/// Replaces the parts by their sums over the ranks, a bucket after the other. A factor of 0 counts
/// as zeros, whatever the numbers are. With `narrow` they are bfloat16 on the wire.
pub(super) fn sum_in_buckets(
    comm: &mut Communicator,
    parts: &mut [Part<'_>],
    bucket: &mut [f32],
    narrow: &mut Option<SumScratch>,
) -> Result<()> {
    let total: usize = parts.iter().map(|p| p.values.len()).sum();
    let mut done = 0;
    while done < total {
        let n = bucket.len().min(total - done);
        let bucket = &mut bucket[..n];
        each_in(parts, done, bucket, |values, factor, bucket| {
            if factor == 0.0 {
                bucket.fill(0.0);
                return;
            }
            bucket.iter_mut().zip(values).for_each(|(b, v)| *b = factor * *v);
        });
        sum_bucket(comm, narrow, bucket)?;
        each_in(parts, done, bucket, |values, _, bucket| values.copy_from_slice(bucket));
        done += n;
    }
    Ok(())
}

/// Calls `f` with each piece of the parts that lies in a bucket which begins at element `first` of
/// all, and with the piece's place in the bucket.
fn each_in(
    parts: &mut [Part<'_>],
    first: usize,
    bucket: &mut [f32],
    f: impl Fn(&mut [f32], f32, &mut [f32]),
) {
    let (mut start, end) = (0, first + bucket.len());
    for part in parts {
        let n = part.values.len();
        let (from, to) = (first.max(start), end.min(start + n));
        if from < to {
            let values = &mut part.values[from - start..to - start];
            f(values, part.factor, &mut bucket[from - first..to - first]);
        }
        start += n;
    }
}

impl Trainer {
    /// One step of the optimizer: of all ranks together, or of this one alone.
    pub(in crate::train) fn step_of_ranks(&mut self) -> Result<StepReport> {
        let Some(mut ranks) = self.ranks.take() else { return self.optimizer_mut().step() };
        let done = if ranks.is_placed() {
            self.placed_step(&mut ranks)
        } else if ranks.is_joint() {
            self.joint_step(&mut ranks)
        } else {
            self.local_step(&mut ranks)
        };
        self.ranks = Some(ranks);
        done
    }

    fn joint_step(&mut self, ranks: &mut Ranks) -> Result<StepReport> {
        self.check_sets(ranks)?;
        self.sum_gradients(ranks)?;
        // After it, as passes move running statistics on each rank.
        self.check_before_step(ranks)?;
        let distribution = self.optimizer().distribution();
        ranks.is_spread |= distribution != Distribution::None;
        self.optimizer_mut().step_with(&mut StepPeers { ranks, distribution })
    }

    /// Where it is due, compares the weights of ranks that train the same models.
    pub(super) fn check_before_step(&self, ranks: &Ranks) -> Result<()> {
        let (next, every) = (self.optimizer().step_count() + 1, ranks.options.check_every);
        match ranks.data_parallel() {
            Some(comm) if every > 0 && next.is_multiple_of(every) => {
                self.check_replicas(comm, |model| ranks.runs(model))
            }
            _ => Ok(()),
        }
    }

    /// All ranks that train a model must have gradients of the same parameters. Sums of x and x²
    /// over n ranks with n Σ x² = (Σ x)² say that x is the same on all.
    pub(super) fn check_sets(&self, ranks: &Ranks) -> Result<()> {
        let one = |model: usize| -> Result<Numbers> {
            if !ranks.runs(model) {
                return Ok(Numbers::default());
            }
            let set = self.gradient_set(model)?;
            let x = f64::from(crc32fast::hash(&set) >> 8);
            Ok([x, x * x, 0.0, 0.0, 0.0, 0.0])
        };
        let own = (0..ranks.n_models).map(one).collect::<Result<Vec<_>>>()?;
        let sums = ranks.exchange(Call::Step, &own)?;
        let n = ranks.data_parallel_place().1 as f64;
        match sums.iter().position(|[x, squares, ..]| n * squares != x * x) {
            None => Ok(()),
            Some(model) => Err(Error::state(format!(
                "model '{}': ranks have gradients of different parameters",
                self.model_name(model)?
            ))),
        }
    }

    /// One byte for each parameter: whether the step reads a gradient of it. Empty for a model
    /// without a pass, and for one whose gradients are summed already.
    fn gradient_set(&self, model: usize) -> Result<Vec<u8>> {
        if self.optimizer().n_accumulated(model)? == 0 {
            return Ok(Vec::new());
        }
        let parameters = self.model(model)?.parameters.iter().enumerate();
        parameters
            .map(|(i, p)| {
                let trained = self.optimizer().param_spec(model, i)?.trainable;
                Ok(u8::from(trained && p.gradient().is_some()))
            })
            .collect()
    }

    /// Replaces gradients by those of the whole batch, and running statistics by their means.
    pub(super) fn sum_gradients(&mut self, ranks: &mut Ranks) -> Result<()> {
        let Some(comm) = ranks.data_parallel().cloned() else { return Ok(()) };
        let in_place = self.optimizer().options().gradient_accumulation_steps == 1;
        for model in (0..ranks.n_models).filter(|&model| ranks.runs(model)).collect::<Vec<_>>() {
            let set = self.gradient_set(model)?;
            let only_statistics = std::mem::take(&mut ranks.summed_early[model]);
            if set.is_empty() || (ranks.summed[model] && !only_statistics) {
                continue;
            }
            let mean = 1.0 / comm.size() as f32;
            let (optimizer, one) = self.optimizer_and_model(model)?;
            let statistics = one.running_statistics();
            let mut parts = Vec::new();
            let mut sums = match in_place {
                true => Vec::new(),
                false => optimizer.gradient_sums_mut(model)?,
            };
            for (i, parameter) in one.parameters.iter_mut().enumerate() {
                if statistics.contains(&i) {
                    let values = parameter.value.as_mut_slice()?;
                    parts.push(Part { values, factor: mean });
                } else if only_statistics {
                    continue;
                } else if set[i] != 0 && in_place {
                    let values = parameter.gradient_mut()?.as_mut_slice()?;
                    parts.push(Part { values, factor: ranks.shares[model] });
                } else if set[i] != 0
                    && let Some(values) = sums[i].take()
                {
                    parts.push(Part { values, factor: 1.0 });
                }
            }
            let Ranks { bucket, summed, sums: narrow, .. } = &mut *ranks;
            comm.with(|comm| sum_in_buckets(comm, &mut parts, bucket, narrow))?;
            summed[model] = true;
        }
        Ok(())
    }

    /// Losses of each model on the last batches of all ranks, weighted as their passes were, where
    /// there was a batch; `own` are this rank's, or why it has none.
    pub(in crate::train) fn losses_of_ranks(
        &self,
        own: Result<Vec<Option<f64>>>,
    ) -> Result<Vec<f64>> {
        let Some(ranks) = self.ranks.as_ref().filter(|r| r.is_joint()) else {
            return own.map(|own| own.into_iter().flatten().collect());
        };
        let own = own.inspect_err(|_| ranks.tell_failure(Call::Losses))?;
        let mut numbers = vec![Numbers::default(); ranks.n_models];
        for ((numbers, loss), share) in numbers.iter_mut().zip(&own).zip(&ranks.shares) {
            let Some(loss) = loss else { continue };
            let share = if ranks.data_parallel().is_none() { 1.0 } else { *share };
            (numbers[0], numbers[1]) =
                (if share > 0.0 { f64::from(share) * loss } else { 0.0 }, 1.0);
        }
        let sums = ranks.exchange(Call::Losses, &numbers)?;
        Ok(sums.iter().filter(|n| n[1] > 0.0).map(|n| n[0]).collect())
    }

    /// As [`Optimizer::propose_sync`], together with the other ranks.
    ///
    /// [`Optimizer::propose_sync`]: crate::optim::Optimizer::propose_sync
    pub(in crate::train) fn propose_sync_of_ranks(&mut self) -> Result<bool> {
        let Some(mut ranks) = self.ranks.take() else { return self.optimizer_mut().propose_sync() };
        let distribution = self.optimizer().distribution();
        let proposed = if distribution == Distribution::None {
            self.optimizer_mut().propose_sync()
        } else {
            let mut peers = StepPeers { ranks: &mut ranks, distribution };
            self.optimizer_mut().propose_sync_with(&mut peers)
        };
        self.ranks = Some(ranks);
        proposed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::local::{self, on_ranks};
    use std::time::Duration;

    #[test]
    fn buckets_cut_parts_anywhere() {
        for bucket in [1, 2, 3, 5, 7, 100] {
            let group = local::group(2, Duration::from_secs(30));
            let ends = on_ranks(group, |mut comm| {
                let rank = comm.rank() as f32;
                let mut a: Vec<f32> = (0..5).map(|i| i as f32 + rank).collect();
                let (mut b, mut c) = ([f32::NAN; 3], [1.0; 4]);
                let factor = if comm.rank() == 0 { 0.0 } else { 2.0 };
                if comm.rank() == 1 {
                    b = [1.0, 2.0, 3.0];
                }
                let mut parts = [
                    Part { values: &mut a, factor: 0.5 },
                    Part { values: &mut [], factor: 1.0 },
                    Part { values: &mut b, factor },
                    Part { values: &mut c, factor: 1.0 },
                ];
                sum_in_buckets(&mut comm, &mut parts, &mut vec![0.0; bucket], &mut None)?;
                Ok((a, b, c, comm.traffic().n_calls))
            });
            for end in ends {
                let (a, b, c, n_calls) = end.unwrap();
                assert_eq!(a, [0.5, 1.5, 2.5, 3.5, 4.5]);
                assert_eq!((b, c), ([2.0, 4.0, 6.0], [2.0; 4]));
                assert_eq!(n_calls, 12u64.div_ceil(bucket as u64));
            }
        }
    }
}
