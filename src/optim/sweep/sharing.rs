//! Sharing: the plan, the tiles of its groups, and how each group mixes and synchronises in a step.

use crate::error::{Error, Result};
use crate::memory::filled;
use crate::optim::kernel::weighted_sum::MAX_MATRIX_MEMBERS;
use crate::optim::options::{Influence, Options, ShareRule};
use crate::optim::plan::Plan;
use crate::optim::plan::spec::ModelSpec;
use crate::optim::sweep::buffers::ParamStep;
use crate::optim::sweep::metrics::Metrics;
use crate::optim::sweep::mixing_matrix::{self, Members};
use crate::optim::sweep::tiling::Tiling;
use crate::optim::sweep::work::{Mixing, SweepGroup, SweepMember};

/// Memory for one group's matrices, reused.
#[derive(Default)]
struct MatrixScratch {
    weights: Vec<f64>,
    scales: Vec<f64>,
    models: Vec<usize>,
    gram: Vec<f64>,
    work: Vec<f64>,
    matrix: Vec<f64>,
}

impl MatrixScratch {
    fn new(largest: usize) -> Self {
        let k = largest.min(MAX_MATRIX_MEMBERS);
        Self {
            weights: Vec::with_capacity(k),
            scales: Vec::with_capacity(k),
            models: Vec::with_capacity(k),
            gram: vec![0.0; k * k],
            work: vec![0.0; k * k],
            matrix: vec![0.0; k * k],
        }
    }
}

/// What [`Sharing::prepare`] prepares.
#[derive(Clone, Copy, Default)]
pub(in crate::optim) struct Prepared {
    /// Gradients of groups mix by the rule…
    pub share: bool,
    /// …and those of groups by token by their mean.
    pub tokens: bool,
    /// Values are synchronised.
    pub sync: bool,
}

/// Who shares with whom, and what a step computes for it.
pub(in crate::optim) struct Sharing {
    pub plan: Plan,
    pub tiling: Tiling,
    /// The influence matrix by model, row = influenced; empty under other rules.
    influence: Vec<f64>,
    n_models: usize,
    /// Inner products of each group's members, n × n numbers a group.
    pub gram: Vec<f64>,
    /// Mixing matrices of the groups in this step, where the rule needs them.
    pub matrices: Vec<f32>,
    scratch: MatrixScratch,
    pub metrics: Option<Metrics>,
}

impl Sharing {
    /// Plans for models in order of name; `first_param` is the index of each one's first parameter.
    pub fn new(options: &Options, specs: &[ModelSpec], first_param: &[usize]) -> Result<Self> {
        let plan = Plan::new(options, specs)?;
        let tiling = Tiling::new(&plan, specs, first_param)?;
        let needs_matrix = mixing_matrix::needs_matrix(options.share_rule);
        if needs_matrix && tiling.largest > MAX_MATRIX_MEMBERS {
            return Err(Error::unsupported(format!(
                "share_rule {:?} mixes at most {MAX_MATRIX_MEMBERS} views in a group, the plan \
                 has one of {}; use mean or sum",
                options.share_rule, tiling.largest
            )));
        }
        let measured = options.metrics_every > 0;
        let products = mixing_matrix::needs_products(options.share_rule) || measured;
        Ok(Self {
            influence: influence(&options.share_influence, specs)?,
            n_models: specs.len(),
            gram: filled(if products { tiling.gram_len() } else { 0 }, 0.0)?,
            matrices: filled(if needs_matrix { tiling.gram_len() } else { 0 }, 0.0)?,
            scratch: MatrixScratch::new(tiling.largest),
            metrics: measured.then(|| Metrics::blank(&plan)),
            plan,
            tiling,
        })
    }

    /// Number of partial sums of the inspection.
    pub fn n_partials(&self) -> usize {
        let products = if self.gram.is_empty() { 0 } else { self.tiling.n_partials };
        products.max(self.tiling.chunks.len())
    }

    /// Whether groups by token mix: they do so in every step.
    pub fn mixes_tokens(&self, options: &Options) -> bool {
        options.token_alpha > 0.0 && self.plan.groups().iter().any(|g| g.by_token)
    }

    /// How each group mixes and synchronises in this step; `weight` is a model's normalised weight.
    pub fn prepare(
        &mut self,
        options: &Options,
        weight: impl Fn(usize) -> f64,
        steps: &[ParamStep],
        due: Prepared,
    ) {
        let beta = options.sync_beta as f32;
        for g in 0..self.tiling.groups.len() {
            let group = self.tiling.groups[g];
            let mixing = match group.by_token {
                _ if group.n < 2 => Mixing::Separate,
                true if due.tokens => {
                    self.mixing_by_mean(options.token_alpha, &weight, steps, group)
                }
                false if due.share => self.mixing(options, &weight, steps, g),
                _ => Mixing::Separate,
            };
            let sync = due.sync;
            let averaged = sync && group.n > 1 && self.weigh_average(&weight, steps, group);
            let group = &mut self.tiling.groups[g];
            group.mixing = mixing;
            group.beta = if averaged { beta } else { 0.0 };
        }
    }

    fn mixing(
        &mut self,
        options: &Options,
        weight: &impl Fn(usize) -> f64,
        steps: &[ParamStep],
        g: usize,
    ) -> Mixing {
        let group = self.tiling.groups[g];
        let members = &mut self.tiling.members[group.first..group.first + group.n];
        let (k, total) = taking_part(members, weight, |m| steps[m.param].active);
        // The undivided sum of weightless members is 0 and still takes α of the own gradient.
        if k < 2 || (total <= 0.0 && options.share_rule != ShareRule::Sum) {
            return Mixing::Separate;
        }
        if mixing_matrix::needs_matrix(options.share_rule) {
            return self.mixing_by_matrix(options, weight, steps, g, k);
        }
        let divisor = if options.share_rule == ShareRule::Sum { 1.0 } else { total };
        mix_by_sum(members, steps, weight, [options.share_alpha, divisor])
    }

    /// The rule mean, for a group by token.
    fn mixing_by_mean(
        &mut self,
        alpha: f64,
        weight: &impl Fn(usize) -> f64,
        steps: &[ParamStep],
        group: SweepGroup,
    ) -> Mixing {
        let members = &mut self.tiling.members[group.first..group.first + group.n];
        let (k, total) = taking_part(members, weight, |m| steps[m.param].active);
        if k < 2 || total <= 0.0 {
            return Mixing::Separate;
        }
        mix_by_sum(members, steps, weight, [alpha, total])
    }

    fn mixing_by_matrix(
        &mut self,
        options: &Options,
        weight: &impl Fn(usize) -> f64,
        steps: &[ParamStep],
        g: usize,
        k: usize,
    ) -> Mixing {
        let (group, at) = (self.tiling.groups[g], self.tiling.gram_offsets[g]);
        let members = &self.tiling.members[group.first..group.first + group.n];
        let w = &mut self.scratch;
        w.weights.clear();
        w.scales.clear();
        w.models.clear();
        let active = |i: &usize| steps[members[*i].param].active;
        for member in (0..group.n).filter(active).map(|i| &members[i]) {
            w.weights.push(weight(member.model));
            w.scales.push(f64::from(steps[member.param].grad_scale));
            w.models.push(member.model);
        }
        if mixing_matrix::needs_products(options.share_rule) {
            for (a, i) in (0..group.n).filter(active).enumerate() {
                for (c, j) in (0..group.n).filter(active).enumerate() {
                    let product = self.gram[at + i.min(j) * group.n + i.max(j)];
                    w.gram[a * k + c] = product * w.scales[a] * w.scales[c];
                }
            }
        }
        let active_members = Members {
            weights: &w.weights,
            models: &w.models,
            gram: &w.gram[..k * k],
            influence: &self.influence,
            n_models: self.n_models,
        };
        let (work, matrix) = (&mut w.work[..k * k], &mut w.matrix[..k * k]);
        mixing_matrix::matrix(
            options.share_rule,
            options.share_alpha,
            &active_members,
            work,
            matrix,
        );
        for i in 0..k * k {
            self.matrices[at + i] = (w.matrix[i] * w.scales[i % k]) as f32;
        }
        Mixing::Matrix { at, k }
    }

    /// Sets the members' factors in the group's average; false when there is none.
    fn weigh_average(
        &mut self,
        weight: &impl Fn(usize) -> f64,
        steps: &[ParamStep],
        group: SweepGroup,
    ) -> bool {
        let members = &mut self.tiling.members[group.first..group.first + group.n];
        let (k, total) = taking_part(members, weight, |m| steps[m.param].synced);
        if k < 2 || total <= 0.0 {
            return false;
        }
        for member in members {
            member.average_weight = (weight(member.model) / total) as f32;
        }
        true
    }

    /// Takes the cosines of the gradients, whose inner products were just inspected.
    pub fn measure_gradients(&mut self, step: u64) {
        if let Some(metrics) = &mut self.metrics {
            metrics.measure_gradients(step, self.n_models, &self.tiling, &self.gram);
        }
    }

    /// Takes the distances of the values, whose inner products were just inspected.
    pub fn measure_values(&mut self) {
        if let Some(metrics) = &mut self.metrics {
            metrics.measure_values(self.n_models, &self.tiling, &self.gram);
        }
    }
}

/// How many members take part, and the sum of their weights.
fn taking_part(
    members: &[SweepMember],
    weight: &impl Fn(usize) -> f64,
    takes_part: impl Fn(&SweepMember) -> bool,
) -> (usize, f64) {
    let members = members.iter().filter(|m| takes_part(m));
    members.fold((0, 0.0), |(k, total), m| (k + 1, total + weight(m.model)))
}

/// own·(1 − α) + α·(Σ weight·g) / divisor, with each gradient's own scale.
fn mix_by_sum(
    members: &mut [SweepMember],
    steps: &[ParamStep],
    weight: &impl Fn(usize) -> f64,
    [alpha, divisor]: [f64; 2],
) -> Mixing {
    for member in members {
        let scale = f64::from(steps[member.param].grad_scale);
        member.share_weight = (weight(member.model) * scale / divisor) as f32;
        member.own_factor = ((1.0 - alpha) * scale) as f32;
    }
    Mixing::Shared { alpha: alpha as f32 }
}

/// The influence matrix by model, row = influenced.
fn influence(entries: &[Influence], specs: &[ModelSpec]) -> Result<Vec<f64>> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let n = specs.len();
    let mut matrix = vec![0.0; n * n];
    let find = |name: &str| {
        specs
            .iter()
            .position(|s| s.name == name)
            .ok_or_else(|| Error::not_found(format!("share_influence: no model is named '{name}'")))
    };
    for e in entries {
        let (to, from) = (find(&e.to)?, find(&e.from)?);
        if to == from || !(0.0..=1.0).contains(&e.amount) {
            return Err(Error::invalid(format!(
                "share_influence: '{}' from '{}' by {}: two models and an amount in [0, 1] needed",
                e.to, e.from, e.amount
            )));
        }
        matrix[to * n + from] = e.amount;
    }
    for (row, spec) in matrix.chunks(n.max(1)).zip(specs) {
        let total: f64 = row.iter().sum();
        if total > 1.0 + 1e-12 {
            return Err(Error::invalid(format!(
                "share_influence: the amounts for '{}' sum to {total}, more than 1",
                spec.name
            )));
        }
    }
    Ok(matrix)
}
