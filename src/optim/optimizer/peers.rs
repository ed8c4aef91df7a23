//! What the steps of several processes exchange, and which of them does what.
//!
//! Either each process runs models of its own ([`Distribution::Models`]): it has their gradients
//! and moments, and gets of the others what the sharing plan joins. Or all have the gradients of
//! all models, and each has the moments of some parameters and updates these
//! ([`Distribution::State`]; ZeRO stage 1, Rajbhandari et al. 2020).

use crate::error::{Error, Result};
use crate::optim::memory::pieces::Pieces;
use crate::optim::optimizer::Optimizer;
use crate::optim::options::ShareRule;
use crate::optim::plan::view::View;
use crate::optim::sweep::mixing_matrix;
use crate::optim::sweep::tiling::Tiling;
use crate::optim::sweep::work::SweepGroup;

/// Which process does what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Distribution {
    /// This one does everything.
    #[default]
    None,
    /// Each runs models of its own.
    Models,
    /// Each updates some parameters of all models.
    State,
}

/// What a step of several processes has done when all say whether they can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its gradients are there.
    Gradients,
    /// They are inspected.
    Inspected,
    /// Rates are known, and what might overflow is inspected.
    Rated,
    /// It is decided; nothing has changed yet.
    Decided,
    /// A synchronisation can be undone.
    Proposed,
}

/// The other processes of a step. All of them make the same calls in the same order; after an error
/// none makes another.
pub(crate) trait Peers {
    /// Tells the others whether this process can go on. An error where one of them cannot.
    fn settle(&mut self, stage: Stage, ready: bool) -> Result<()>;
    /// Replaces each number by its sum over all.
    fn add(&mut self, sums: &mut [f64]) -> Result<()>;
    /// As [`Peers::add`], for sets of bits of which each is set in one process at most.
    fn join(&mut self, bits: &mut [u64]) -> Result<()>;
    /// Gives each piece the numbers that its owner has; `gradients` may come rounded.
    fn exchange(&mut self, pieces: &mut Pieces, gradients: bool) -> Result<()>;
}

/// No others.
pub(crate) struct Alone;

impl Peers for Alone {
    fn settle(&mut self, _: Stage, _: bool) -> Result<()> {
        Ok(())
    }

    fn add(&mut self, _: &mut [f64]) -> Result<()> {
        Ok(())
    }

    fn join(&mut self, _: &mut [u64]) -> Result<()> {
        Ok(())
    }

    fn exchange(&mut self, _: &mut Pieces, _: bool) -> Result<()> {
        Ok(())
    }
}

/// What was done here, once all have done it.
pub(crate) fn settled<T>(peers: &mut dyn Peers, stage: Stage, done: Result<T>) -> Result<T> {
    let agreed = peers.settle(stage, done.is_ok());
    done.and_then(|done| agreed.map(|()| done))
}

/// Bits of a parameter that its process tells the others.
const N_BITS: usize = 3;

impl Optimizer {
    /// Lets each of several processes run models of its own: `owners` are their numbers by the
    /// caller's index of the model, `own` is this one. Moments of other models are freed.
    pub(crate) fn distribute_models(&mut self, owners: &[usize], own: usize) -> Result<()> {
        if owners.len() != self.models.order.len() {
            return Err(Error::internal("an owner for each model is needed"));
        }
        let mut of_ours = vec![0; owners.len()];
        for (caller, &ours) in self.models.order.iter().enumerate() {
            of_ours[ours] = owners[caller];
        }
        for (p, buffers) in self.params.states.iter_mut().zip(&mut self.params.buffers) {
            let owner = of_ours[p.model];
            p.place(owner, [owner == own; 2], buffers);
        }
        self.distribution = Distribution::Models;
        self.process = own;
        Ok(())
    }

    /// Lets each of `n` processes have the moments of some parameters: the largest first, each goes
    /// to the process with the fewest elements so far. Moments of the others are freed.
    pub(crate) fn distribute_state(&mut self, own: usize, n: usize) {
        let trained = |i: &usize| self.params.states[*i].trainable;
        let mut order: Vec<usize> = (0..self.params.states.len()).filter(trained).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(self.params.states[i].len));
        let mut owners = vec![0; self.params.states.len()];
        let mut loads = vec![0; n];
        for i in order {
            let least = (0..n).min_by_key(|&r| loads[r]).unwrap_or(0);
            owners[i] = least;
            loads[least] += self.params.states[i].len;
        }
        let all = self.params.states.iter_mut().zip(&mut self.params.buffers).zip(owners);
        for ((p, buffers), owner) in all {
            p.place(owner, [true, owner == own], buffers);
        }
        self.distribution = Distribution::State;
        self.process = own;
    }

    /// Lets this process do everything again. Moments that were elsewhere begin with zeros, unless
    /// a state is loaded.
    pub(crate) fn distribute_nothing(&mut self) {
        for (p, buffers) in self.params.states.iter_mut().zip(&mut self.params.buffers) {
            p.place(0, [true; 2], buffers);
        }
        self.distribution = Distribution::None;
        self.process = 0;
    }

    /// Which process does what.
    pub(crate) fn distribution(&self) -> Distribution {
        self.distribution
    }

    /// The parameters of models of other processes that share views with models of this one, by the
    /// caller's model and the parameter's index: their gradients need memory here.
    pub(crate) fn shared_elsewhere(&self) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for members in spanning(&self.sharing.tiling, |_| true, |i| self.params.states[i].owner) {
            if !members.clone().any(|(i, _)| self.params.states[i].local) {
                continue;
            }
            for (i, _) in members.filter(|(i, _)| !self.params.states[*i].local) {
                let p = &self.params.states[i];
                let caller = self.models.order.iter().position(|&ours| ours == p.model);
                found.extend(caller.map(|caller| (caller, p.index)));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Elements of the views that models of different processes share, by process; without `all` of
    /// groups by token alone.
    pub(crate) fn n_shared_elements(&self, n: usize, all: bool) -> Vec<usize> {
        let mut elements = vec![0; n];
        let which = |group: &SweepGroup| all || group.by_token;
        for members in spanning(&self.sharing.tiling, which, |i| self.params.states[i].owner) {
            for (i, view) in members {
                elements[self.params.states[i].owner] += view.len();
            }
        }
        elements
    }

    /// Elements of trained parameters, by process that updates them.
    pub(crate) fn n_owned_elements(&self, n: usize) -> Vec<usize> {
        let mut elements = vec![0; n];
        for p in self.params.states.iter().filter(|p| p.trainable) {
            elements[p.owner] += p.len;
        }
        elements
    }

    /// Whether a step that is due to share mixes gradients of a group.
    pub(crate) fn shares(&self) -> bool {
        let o = &self.options;
        !self.plan().groups().is_empty() && o.share_every > 0 && o.share_rule != ShareRule::None
    }

    /// Whether every step mixes gradients of groups by token.
    pub(crate) fn shares_tokens(&self) -> bool {
        self.sharing.mixes_tokens(&self.options)
    }

    /// Whether such a step computes inner products.
    pub(crate) fn inspects_products(&self) -> bool {
        self.shares() && mixing_matrix::needs_products(self.options.share_rule)
    }

    /// How many f64 the sums of a step are, and how many u64 its bits, with inner products or not.
    pub(crate) fn n_exchanged_numbers(&self, products: bool) -> (usize, usize) {
        let n = self.params.states.len();
        (n + if products { self.sharing.gram.len() } else { 0 }, N_BITS * n.div_ceil(64))
    }

    /// Takes the others' word on which of their parameters take part in the step.
    pub(super) fn join_marks(&mut self, peers: &mut dyn Peers) -> Result<()> {
        let n_words = self.params.states.len().div_ceil(64);
        let mut bits = crate::memory::filled(N_BITS * n_words, 0u64)?;
        let steps = &mut self.executor.param_steps;
        for (i, p) in self.params.states.iter().enumerate().filter(|(_, p)| p.local) {
            debug_assert!(p.owner == self.process);
            let own = [steps[i].active, steps[i].synced, self.callbacks.handled[i]];
            for (words, set) in bits.chunks_mut(n_words.max(1)).zip(own) {
                words[i / 64] |= u64::from(set) << (i % 64);
            }
        }
        peers.join(&mut bits)?;
        for i in 0..self.params.states.len() {
            let set = |kind: usize| bits[kind * n_words + i / 64] >> (i % 64) & 1 == 1;
            steps[i].active = set(0);
            steps[i].synced = set(1);
            self.callbacks.handled[i] = set(2);
        }
        Ok(())
    }

    /// Takes the gradients of the views that are shared with models of other processes; without
    /// `all` of groups by token alone.
    pub(super) fn exchange_gradients(&mut self, all: bool, peers: &mut dyn Peers) -> Result<()> {
        let (steps, buffers) = (&self.executor.param_steps, &self.executor.buffers);
        let mut pieces = Pieces::default();
        let which = |group: &SweepGroup| all || group.by_token;
        for members in spanning(&self.sharing.tiling, which, |i| self.params.states[i].owner) {
            for (i, view) in members.filter(|(i, _)| steps[*i].active) {
                // SAFETY: null, where the group has no model here, or the bound gradient, which
                // nobody else uses during the step, by the contract of `bind`.
                unsafe { pieces.add(self.params.states[i].owner, buffers[i].g.cast_mut(), view) };
            }
        }
        peers.exchange(&mut pieces, true)
    }

    /// Takes the values of the views that are shared with models of other processes; with `synced`
    /// of those that are synchronised.
    pub(super) fn exchange_shared_values(
        &mut self,
        synced: bool,
        peers: &mut dyn Peers,
    ) -> Result<()> {
        let (steps, buffers) = (&self.executor.param_steps, &self.params.buffers);
        let mut pieces = Pieces::default();
        for members in spanning(&self.sharing.tiling, |_| true, |i| self.params.states[i].owner) {
            for (i, view) in members.filter(|(i, _)| !synced || steps[*i].synced) {
                // SAFETY: the bound values, as above.
                unsafe { pieces.add(self.params.states[i].owner, buffers[i].p.cast(), view) };
            }
        }
        peers.exchange(&mut pieces, false)
    }

    /// Takes the values that other processes have updated in this step: Muon's matrices, or the
    /// others.
    pub(super) fn exchange_updated_values(
        &mut self,
        muon: bool,
        peers: &mut dyn Peers,
    ) -> Result<()> {
        let (steps, buffers) = (&self.executor.param_steps, &self.params.buffers);
        let mut pieces = Pieces::default();
        let all = self.params.states.iter().enumerate();
        for (i, p) in all.filter(|(i, p)| steps[*i].active && p.muon == muon) {
            let whole = View::whole(&[p.len]);
            // SAFETY: the bound values, as above.
            unsafe { pieces.add(p.owner, buffers[i].p.cast(), whole) };
        }
        peers.exchange(&mut pieces, false)
    }

    /// Makes the sums of squares, and with `products` the inner products, known to all.
    pub(super) fn add_sums(&mut self, products: bool, peers: &mut dyn Peers) -> Result<()> {
        let n = self.params.states.len();
        let mut sums = crate::memory::filled(self.n_exchanged_numbers(products).0, 0.0)?;
        for (i, p) in self.params.states.iter().enumerate().filter(|(_, p)| p.local) {
            sums[i] = self.executor.grad_squares[i];
            debug_assert!(p.owner == self.process);
        }
        if products {
            self.own_products(&mut sums[n..]);
        }
        peers.add(&mut sums)?;
        self.executor.grad_squares.copy_from_slice(&sums[..n]);
        if products {
            self.sharing.gram.copy_from_slice(&sums[n..]);
        }
        Ok(())
    }

    /// Makes the inner products known to all.
    pub(super) fn add_products(&mut self, peers: &mut dyn Peers) -> Result<()> {
        let mut sums = crate::memory::filled(self.sharing.gram.len(), 0.0)?;
        self.own_products(&mut sums);
        peers.add(&mut sums)?;
        self.sharing.gram.copy_from_slice(&sums);
        Ok(())
    }

    /// The inner products of the groups that this process answers for: the first that has a member.
    fn own_products(&self, into: &mut [f64]) {
        let tiling = &self.sharing.tiling;
        for (group, &at) in tiling.groups.iter().zip(&tiling.gram_offsets) {
            let members = &tiling.members[group.first..group.first + group.n];
            let owners = members.iter().map(|m| self.params.states[m.param].owner);
            if owners.min() == Some(self.process) {
                let range = at..at + group.n * group.n;
                into[range.clone()].copy_from_slice(&self.sharing.gram[range]);
            }
        }
    }
}

/// Of some groups those with members of several processes: of each member the parameter and the
/// view.
fn spanning(
    tiling: &Tiling,
    which: impl Fn(&SweepGroup) -> bool,
    owner: impl Fn(usize) -> usize,
) -> impl Iterator<Item = impl Iterator<Item = (usize, View)> + Clone> {
    tiling.groups.iter().filter(move |group| which(group)).filter_map(move |group| {
        let members = &tiling.members[group.first..group.first + group.n];
        let first = owner(members.first()?.param);
        let spans = members.iter().any(|m| owner(m.param) != first);
        spans.then(|| members.iter().map(|m| (m.param, m.view.clone())))
    })
}
