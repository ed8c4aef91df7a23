//! Replicas: how they begin with the same weights, and how it is checked that they still have them.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::Ranks;
use super::exchange::Call;
use super::options::RankOptions;
use super::state::gathered;
use crate::comm::SharedCommunicator;
use crate::error::{Context, Error, Kind, Result};
use crate::train::model::Model;
use crate::train::trainer::Trainer;

impl Trainer {
    /// Makes this trainer one of several replicas, one on each rank, which train as one from here
    /// on; `None` lets it train by itself again. All ranks call it, with the same models and
    /// options, and at the same step; they get the weights of rank 0, and each draws other dropout.
    ///
    /// With the option `placement` the ranks are no replicas: each runs the passes of its own
    /// models over the whole batches, which all ranks read alike, and updates them alone. Dropout
    /// is then that of one process.
    ///
    /// From then on all ranks make the same passes, steps, checkpoints and resumes in the same
    /// order. Losses and counts that they return are those of all ranks together, each weighted by
    /// its labels that count. A call that fails on one rank fails on all, with `Cancelled` on the
    /// others. After a failure of the communicator (`Communication`) the gradients since the last
    /// step are lost; weights and moments are those of the last step.
    ///
    /// # Errors
    /// `InvalidArgument` for an option out of range, and, with its number, a rank with other models
    /// or options, and a placement that does not name every model or names a rank that there is
    /// not; `NotFound` for a placement of a model that there is not; `State` for a rank at another
    /// step, between a backward pass and its step, and where models or moments are spread over the
    /// ranks that it would leave; `Unsupported` for local steps with running means, placement or
    /// `shard_state`, for `shard_state` with placement, for `overlap` with any of local steps,
    /// placement and accumulation, and for placement with the teacher `peers_before`; those of the
    /// communicator.
    pub fn set_ranks(
        &mut self,
        communicator: Option<SharedCommunicator>,
        options: RankOptions,
    ) -> Result<()> {
        self.set_groups(communicator, None, options)
    }

    /// As [`Trainer::set_ranks`], for models on different ranks (option `placement`) of which there
    /// are several groups: `communicator` joins the ranks of one group, which together have all
    /// models, and `replicas` this rank with those of its number in the other groups, in the order
    /// of groups. A group is to the others what a replica is: each runs its part of every batch,
    /// and the gradients of a model are summed over the ranks that run it.
    ///
    /// # Errors
    /// Those of [`Trainer::set_ranks`]; `InvalidArgument` for `replicas` without a communicator or
    /// a placement on several ranks, and where ranks of one group are of different groups, or those
    /// of `replicas` have different numbers in theirs; `Cancelled` where a rank of another group
    /// cannot join.
    pub fn set_groups(
        &mut self,
        communicator: Option<SharedCommunicator>,
        replicas: Option<SharedCommunicator>,
        options: RankOptions,
    ) -> Result<()> {
        self.check_weights_in_place()?;
        if replicas.is_some() && communicator.is_none() {
            return Err(Error::invalid("replicas without a communicator of the ranks of a group"));
        }
        if self.n_pending() > 0 {
            return Err(Error::state(
                "ranks join at a finished step; call step or zero_grad first",
            ));
        }
        options.check()?;
        options.check_accumulation(self.optimizer().options().gradient_accumulation_steps)?;
        self.check_can_leave()?;
        if options.local.is_some() && self.ema.is_some() {
            return Err(Error::unsupported(
                "local steps with running means of weights (ema_decay, mean teachers): replicas \
                 would have different means; leave one of them out",
            ));
        }
        let before = self.ranks.take();
        if let Err(error) = self.join(communicator, replicas, options) {
            self.ranks = before;
            self.distribute()?;
            return Err(error);
        }
        Ok(())
    }

    fn join(
        &mut self,
        communicator: Option<SharedCommunicator>,
        replicas: Option<SharedCommunicator>,
        options: RankOptions,
    ) -> Result<()> {
        let Some(comm) = communicator else {
            self.models_mut().iter_mut().for_each(|m| m.rank = 0);
            return self.distribute();
        };
        let mut ranks = Ranks::new(comm, None, options, self.n_models(), None)?;
        let same = self.check_same(&ranks.options, &ranks.comm);
        match &replicas {
            None => same?,
            Some(replicas) => {
                // All exchanges first, on every rank.
                let of_replicas = self.check_same(&ranks.options, replicas);
                let groups = check_groups(&ranks.comm, replicas);
                agree(&ranks.comm, replicas, same.and(of_replicas).and(groups))?;
            }
        }
        let owners = self.owners(&ranks)?;
        if replicas.is_some() && owners.is_none() {
            return Err(Error::invalid(
                "replicas of groups of ranks without a placement on several ranks; set the option \
                 placement, or pass one communicator of all ranks",
            ));
        }
        if owners.is_some() {
            let n = self.n_models();
            ranks = Ranks::new(ranks.comm, replicas, ranks.options, n, owners)?;
        }
        // The ranks of the first group have those of rank 0, and then those of their number.
        for comm in std::iter::once(&ranks.comm).chain(&ranks.replicas) {
            self.take_weights(comm).context(|| "the weights of rank 0")?;
        }
        let drawn = ranks.data_parallel_place().0 as u64;
        self.models_mut().iter_mut().for_each(|m| m.rank = drawn);
        self.log_info(|| {
            let group = match &ranks.replicas {
                Some(_) => format!(", group {} of {}", ranks.group(), ranks.n_groups()),
                None => String::new(),
            };
            format!("rank {} of {}{group}", ranks.rank(), ranks.size())
        });
        self.ranks = Some(ranks);
        self.distribute()?;
        self.begin_local_steps()
    }

    /// Refuses to leave ranks among which the state is spread.
    fn check_can_leave(&self) -> Result<()> {
        if !self.ranks.as_ref().is_some_and(|r| r.is_spread) {
            return Ok(());
        }
        Err(Error::state(
            "this rank has a part of the models or of their moments; write a checkpoint on all \
             ranks and resume it in another trainer",
        ))
    }

    /// The rank of this replica, and how many there are; `None` without a communicator.
    pub fn place(&self) -> Option<(usize, usize)> {
        self.ranks.as_ref().map(|r| (r.rank(), r.size()))
    }

    /// Refuses what only works for a trainer by itself.
    #[cfg(feature = "text")]
    pub(crate) fn check_alone(&self, what: &str) -> Result<()> {
        match self.place() {
            Some((_, n)) if n > 1 => Err(Error::unsupported(format!(
                "{what} on {n} ranks; call the passes and steps of the loop yourself"
            ))),
            _ => Ok(()),
        }
    }

    /// Compares what must be the same on all ranks.
    fn check_same(&self, options: &RankOptions, comm: &SharedCommunicator) -> Result<()> {
        let models: Vec<_> = self.models().iter().map(described).collect();
        let optimizer = serde_json::to_value(self.optimizer().options());
        let mut optimizer = optimizer.map_err(|e| Error::internal(e.to_string()))?;
        // Hosts may have different processors.
        optimizer["n_threads"] = 0.into();
        let text = json!([models, optimizer, format!("{options:?}")]).to_string();
        let own = [u64::from(crc32fast::hash(text.as_bytes())), self.optimizer().step_count()];
        let all = gathered(comm, &own)?;
        for (rank, other) in all.as_chunks::<2>().0.iter().enumerate() {
            if other[0] != all[0] {
                return Err(Error::invalid(format!(
                    "rank {rank} has other models or options than rank 0; all must have the same"
                )));
            }
            if other[1] != all[1] {
                return Err(Error::state(format!(
                    "rank {rank} is at step {}, rank 0 at step {}; join first, then resume on \
                     every rank",
                    other[1], all[1]
                )));
            }
        }
        Ok(())
    }

    fn take_weights(&mut self, comm: &SharedCommunicator) -> Result<()> {
        let all = self.models_mut().iter_mut().flat_map(|m| &mut m.parameters);
        comm.with(|comm| {
            for parameter in all {
                comm.broadcast(parameter.value.bytes_mut(), 0)?;
            }
            Ok(())
        })
    }

    /// Compares the parameters of the models that `which` names by checksums: an error names the
    /// first that differs, and a rank that has other values than rank 0.
    pub(super) fn check_replicas(
        &self,
        comm: &SharedCommunicator,
        which: impl Fn(usize) -> bool,
    ) -> Result<()> {
        let models = || self.models().iter().enumerate().filter(|(i, _)| which(*i));
        let sums: Vec<Vec<u64>> = models().map(|(_, model)| checksums(model)).collect();
        let bytes: Vec<u8> = sums.iter().flatten().flat_map(|s| s.to_le_bytes()).collect();
        let all = gathered(comm, &[u64::from(crc32fast::hash(&bytes))])?;
        if all.iter().all(|&sum| sum == all[0]) {
            return Ok(());
        }
        let step = self.optimizer().step_count();
        for ((_, model), sums) in models().zip(&sums) {
            let all = gathered(comm, sums)?;
            let n = sums.len().max(1);
            for (rank, other) in all.chunks(n).enumerate() {
                let differs = other.iter().zip(&all).position(|(a, b)| a != b);
                if let Some(i) = differs {
                    let (model, parameter) = (&model.name, &model.parameters[i].name);
                    return Err(Error::state(format!(
                        "model '{model}', parameter '{parameter}': rank {rank} differs from rank 0 \
                         after step {step}; all ranks must make the same calls with the same \
                         numbers; resume all from a checkpoint"
                    )));
                }
            }
        }
        Err(Error::internal("checksums differ, and no parameter does"))
    }

    /// Makes a call that all ranks make: one that fails before its exchange is told to the others.
    /// After a failure of the communicator the gradients are lost.
    pub(in crate::train) fn in_call<T>(
        &mut self,
        call: Call,
        make: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        if let Some(ranks) = &self.ranks {
            ranks.agreed.store(false, Ordering::Relaxed);
        }
        let done = make(self);
        if let (Some(ranks), Err(error)) = (&self.ranks, &done)
            && ranks.is_joint()
        {
            let lost = error.kind() == Kind::Communication;
            if !ranks.agreed.load(Ordering::Relaxed) {
                ranks.tell_failure(call);
            }
            if lost {
                self.zero_grad();
            }
        }
        done
    }

    /// Tells the other ranks of a pass, of one or all models, or a step that this one does not
    /// begin.
    pub(crate) fn tell_refused(&self, model: Option<usize>, is_step: bool) {
        let Some(ranks) = self.ranks.as_ref().filter(|r| r.is_joint()) else { return };
        match model {
            _ if is_step => ranks.tell_failure(Call::Step),
            Some(model) if model < ranks.n_models => ranks.tell_failure(Call::Pass(model)),
            _ => ranks.tell_failure(Call::PassOfAll),
        }
    }
}

/// What was found here, and a failure that another rank of any group has found.
fn agree(
    comm: &SharedCommunicator,
    replicas: &SharedCommunicator,
    found: Result<()>,
) -> Result<()> {
    let mut failed = u64::from(found.is_err());
    for comm in [comm, replicas] {
        failed = gathered(comm, &[failed])?.into_iter().max().unwrap_or_default();
    }
    found?;
    match failed {
        0 => Ok(()),
        _ => Err(Error::new(Kind::Cancelled, "another rank cannot join, and says why")),
    }
}

/// Ranks of one group must be of the same group, and those that have the same models must have the
/// same number in theirs.
fn check_groups(comm: &SharedCommunicator, replicas: &SharedCommunicator) -> Result<()> {
    let [place, group] = [comm, replicas].map(|c| [c.rank() as u64, c.size() as u64]);
    let of_group = gathered(comm, &group)?;
    let of_replicas = gathered(replicas, &place)?;
    let differs = |all: &[u64], own: [u64; 2]| all.as_chunks::<2>().0.iter().any(|x| *x != own);
    if differs(&of_group, group) {
        return Err(Error::invalid(
            "replicas: ranks of one communicator have different numbers there; each must have the \
             number of its group",
        ));
    }
    if differs(&of_replicas, place) {
        return Err(Error::invalid(
            "replicas join ranks with different numbers in their groups, or groups of different \
             size; each must join those of one number",
        ));
    }
    Ok(())
}

/// What must be the same of a model.
fn described(model: &Model) -> serde_json::Value {
    let one = |p: &crate::train::parameter::Parameter| {
        json!([p.name, p.value.shape(), p.value.dtype().to_string(), p.trainable])
    };
    let parameters: Vec<_> = model.parameters.iter().map(one).collect();
    json!([model.name, model.seed(), parameters])
}

/// A checksum of each parameter.
fn checksums(model: &Model) -> Vec<u64> {
    let one = |p: &crate::train::parameter::Parameter| u64::from(crc32fast::hash(p.value.bytes()));
    model.parameters.iter().map(one).collect()
}
