//! Models on different ranks: each rank runs the passes of its own models and updates them alone.
//!
//! All ranks read the same batches and make the same calls. In a pass ranks tell each other the
//! predictions of their models that are teachers, and then losses and counts. In a step they
//! exchange the gradients of the views that models of several ranks share, and the sums that
//! clipping and skipping depend on; every rank then makes the same decisions, and updates its own
//! models. Where a synchronisation is due, they exchange the updated values of those views.

use std::collections::BTreeMap;

use super::Ranks;
use super::exchange::{Call, Numbers};
use super::peers::StepPeers;
use crate::error::{Error, Result};
use crate::optim::{Distribution, StepReport, Teacher};
use crate::train::model::Model;
use crate::train::trainer::Trainer;

impl Trainer {
    /// The rank of each model, where the options place them and there are several ranks.
    pub(super) fn owners(&self, ranks: &Ranks) -> Result<Option<Vec<usize>>> {
        let Some(placement) = &self.optimizer().options().placement else { return Ok(None) };
        let owners = resolve(placement, self.models(), ranks.size())?;
        if ranks.size() == 1 {
            return Ok(None);
        }
        let other = match &ranks.options {
            o if o.local.is_some() => "local steps (sync_every of the rank options)",
            o if o.shard_state => {
                "shard_state, as each rank has the moments of its own models only"
            }
            o if o.overlap => "overlap, as ranks have gradients of their own models only",
            _ => "",
        };
        if !other.is_empty() {
            return Err(Error::unsupported(format!(
                "placement with {other}; leave one of them out"
            )));
        }
        let teacher = self.mutual.as_ref().map(|m| m.options().teacher);
        if teacher == Some(Teacher::PeersBefore) && owners.iter().any(|&r| r != owners[0]) {
            return Err(Error::unsupported(
                "placement with the teacher 'peers_before', for which a model waits for those \
                 before it, wherever they are; set mutual.teacher to online, peers, mean_teacher \
                 or memory",
            ));
        }
        Ok(Some(owners))
    }

    /// Whether a model's passes run in this process.
    pub(in crate::train) fn runs_here(&self, model: usize) -> bool {
        self.ranks.as_ref().is_none_or(|ranks| ranks.runs(model))
    }

    /// Refuses what only the rank of a model can do.
    pub(in crate::train) fn check_runs_here(&self, model: usize) -> Result<()> {
        if self.runs_here(model) {
            return Ok(());
        }
        let owner = self.ranks.as_ref().and_then(|r| r.owners.as_ref()?.get(model).copied());
        let (name, owner) = (self.model_name(model)?, owner.unwrap_or_default());
        Err(Error::state(format!("model '{name}' runs on rank {owner}: do this there")))
    }

    /// Refuses what needs the newest weights of a model that another rank trains.
    pub(in crate::train) fn check_newest_here(&self, model: usize) -> Result<()> {
        let Some(ranks) = self.ranks.as_ref().filter(|r| r.is_stale) else { return Ok(()) };
        let Some(owner) = ranks.owners.as_ref().and_then(|o| o.get(model)) else { return Ok(()) };
        if ranks.runs(model) {
            return Ok(());
        }
        let name = self.model_name(model)?;
        Err(Error::state(format!(
            "model '{name}' is trained on rank {owner}, which has its weights: do this there, or \
             call gather_models on all ranks before"
        )))
    }

    /// Sets this rank up for its part of the models or of their state. Moments of the rest are
    /// freed.
    pub(super) fn distribute(&mut self) -> Result<()> {
        self.optimizer_mut().distribute_nothing();
        let Some(ranks) = &self.ranks else { return self.bind_bound() };
        let (rank, size, sharded) = (ranks.rank(), ranks.size(), ranks.options.shard_state);
        if let Some(owners) = ranks.owners.clone() {
            self.optimizer_mut().distribute_models(&owners, rank)?;
            self.share_cores(&owners, rank);
            self.remember_shared_gradients()?;
        } else if sharded && size > 1 {
            self.optimizer_mut().distribute_state(rank, size);
        }
        self.note_spread();
        self.bind_bound()
    }

    /// Moments that others have are not here, once there are any.
    pub(super) fn note_spread(&mut self) {
        let spread = self.optimizer().distribution() != Distribution::None
            && self.optimizer().step_count() > 0;
        if let Some(ranks) = &mut self.ranks {
            ranks.is_spread = spread;
        }
    }

    /// The threads of this rank are for its own models.
    fn share_cores(&mut self, owners: &[usize], rank: usize) {
        let own = |(owner, model): &(&usize, &Model)| **owner == rank && !model.only_teaches();
        let n = owners.iter().zip(self.models()).filter(own).count();
        // Those that run one after another have all cores anyway.
        if owners.iter().all(|&owner| owner == rank) {
            return;
        }
        self.share_cores_among(n);
    }

    /// Memory for the gradients of other ranks' models that are shared with models of this one.
    fn remember_shared_gradients(&mut self) -> Result<()> {
        let mut rebound = Vec::new();
        for (model, parameter) in self.optimizer().shared_elsewhere() {
            let Some(p) = self.models_mut()[model].parameters.get_mut(parameter) else { continue };
            if p.gradient().is_none() {
                p.gradient_mut()?;
                rebound.push(model);
            }
        }
        rebound.dedup();
        rebound.into_iter().try_for_each(|model| self.bind(model))
    }

    /// A step of models on several ranks.
    pub(super) fn placed_step(&mut self, ranks: &mut Ranks) -> Result<StepReport> {
        // What is trained may have changed since the last one.
        self.remember_shared_gradients()?;
        self.check_sets(ranks)?;
        self.sum_gradients(ranks)?;
        self.check_before_step(ranks)?;
        (ranks.is_stale, ranks.is_spread) = (true, true);
        let mut peers = StepPeers { ranks, distribution: Distribution::Models };
        self.optimizer_mut().step_with(&mut peers)
    }

    /// Gives every rank the weights of the models that other ranks train, so that they can be
    /// evaluated, read and saved on any; until the next step. All ranks call it. Without models on
    /// different ranks it does nothing. Running means of weights stay where their models are.
    ///
    /// # Errors
    /// `State` with the running means in the place of the weights; `Cancelled` where a rank fails;
    /// those of the communicator.
    pub fn gather_models(&mut self) -> Result<()> {
        if !self.ranks.as_ref().is_some_and(Ranks::is_placed) {
            return Ok(());
        }
        self.in_call(Call::Gather, |trainer| {
            trainer.check_weights_in_place()?;
            let Some(mut ranks) = trainer.ranks.take() else { return Ok(()) };
            let gathered = trainer.gather_from_owners(&ranks);
            ranks.is_stale &= gathered.is_err();
            trainer.ranks = Some(ranks);
            gathered
        })
    }

    fn gather_from_owners(&mut self, ranks: &Ranks) -> Result<()> {
        ranks.exchange(Call::Gather, &vec![Numbers::default(); ranks.n_models])?;
        let Some(owners) = &ranks.owners else { return Ok(()) };
        let models = self.models_mut().iter_mut().zip(owners);
        for (parameter, &owner) in
            models.flat_map(|(m, owner)| m.parameters.iter_mut().map(move |p| (p, owner)))
        {
            ranks.comm.with(|comm| comm.broadcast(parameter.value.bytes_mut(), owner))?;
        }
        Ok(())
    }
}

/// The rank of each model, in their order.
fn resolve(
    placement: &BTreeMap<String, usize>,
    models: &[Model],
    size: usize,
) -> Result<Vec<usize>> {
    let names: Vec<&str> = models.iter().map(|m| m.name.as_str()).collect();
    if let Some(name) = placement.keys().find(|name| !names.contains(&name.as_str())) {
        let known = names.join(", ");
        return Err(Error::not_found(format!("placement: no model '{name}'; there are {known}")));
    }
    let of = |name: &&str| match placement.get(*name) {
        None => Err(Error::invalid(format!(
            "placement does not name the model '{name}'; it needs the rank of every model"
        ))),
        Some(&rank) if rank >= size => Err(Error::invalid(format!(
            "placement.{name} is rank {rank} of {size}; ranks count from 0"
        ))),
        Some(&rank) => Ok(rank),
    };
    names.iter().map(of).collect()
}
