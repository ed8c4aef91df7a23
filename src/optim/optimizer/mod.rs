//! The optimizer: its parts, how they are made from the options and the declared models, and what
//! can be read of it.

pub(in crate::optim) mod accumulate;
pub(in crate::optim) mod bind;
pub(in crate::optim) mod callback;
pub(in crate::optim) mod memory;
pub(in crate::optim) mod models;
pub(in crate::optim) mod overflow;
pub(in crate::optim) mod owned;
pub(crate) mod peers;
pub(in crate::optim) mod rates;
pub(in crate::optim) mod saved_state;
pub(in crate::optim) mod snapshot;
pub(in crate::optim) mod step;
pub(in crate::optim) mod sync;

use crate::error::{Error, Result};
use crate::optim::memory::params::Params;
use crate::optim::optimizer::callback::Callbacks;
use crate::optim::optimizer::models::Models;
use crate::optim::optimizer::peers::Distribution;
use crate::optim::options::{InstructionSet, Options, ParamGroup};
use crate::optim::plan::Plan;
use crate::optim::plan::pattern::matches;
use crate::optim::plan::spec::ModelSpec;
use crate::optim::rates::state::RateState;
use crate::optim::sweep::executor::{Executor, Tables};
use crate::optim::sweep::metrics::Metrics;
use crate::optim::sweep::proposed_sync::ProposedSync;
use crate::optim::sweep::sharing::Sharing;
use crate::tensor::DType;

/// Which moment of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Mean of gradients, or momentum.
    First,
    /// Mean of squared gradients.
    Second,
    /// Maximum of the second (AMSGrad).
    Maximum,
}

/// What a step did. Details per model: [`Optimizer::grad_norm`], [`Optimizer::skipped`],
/// [`Optimizer::rates`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepReport {
    /// The step's number, from 1.
    pub step: u64,
    /// Models of which the step, or the host's gradient callback, updated a parameter.
    pub updated: usize,
    /// Models that were skipped: a loss or gradient was not finite, or a moment would have
    /// overflowed.
    pub skipped: usize,
    /// Whether gradients were shared.
    pub shared: bool,
    /// Whether parameters were synchronised.
    pub synced: bool,
    /// Whether a synchronisation is due that waits for `propose_sync` (option `max_loss_increase`).
    pub sync_due: bool,
}

/// Updates several models together. Not for use by two threads at once; may move between them.
///
/// Model indices are those of the list given to [`Optimizer::new`], parameter indices those of
/// the model's list.
pub struct Optimizer {
    options: Options,
    /// The options as they were given.
    given: Options,
    /// Where they differ from those of the restored state.
    changed_options: Vec<String>,
    /// Steps taken.
    step: u64,
    models: Models,
    params: Params,
    sharing: Sharing,
    sync: ProposedSync,
    rates: RateState,
    executor: Executor,
    callbacks: Callbacks,
    /// Which of several processes does what, and the number of this one.
    distribution: Distribution,
    process: usize,
}

impl Optimizer {
    /// Plans the sharing and sets up for `models`; memory is bound later. Fails when an option
    /// is out of range, names are not unique, weights are negative, or a trainable parameter is
    /// not f32.
    pub fn new(options: Options, models: Vec<ModelSpec>) -> Result<Self> {
        options.validate()?;
        let mut models = Models::new(models)?;
        models.check_named(&options.param_groups)?;
        let mut params = Params::default();
        for (i, model) in models.states.iter_mut().enumerate() {
            params.add(&options, i, &mut model.spec)?;
        }
        let rates = RateState::new(models.states.len(), &options);
        models.compute_rates(&options, &rates, 1, 1);
        let mut executor = Executor::new(&options)?;
        let sharing = Sharing::new(&options, &models.specs_in_f32(), &models.first_param)?;
        executor.resize(executor.tables(&params.buffers, &sharing)?);
        let handled = vec![false; params.states.len()];
        let callbacks = Callbacks { handled, ..Callbacks::default() };
        let sync = ProposedSync::default();
        Ok(Self {
            given: options.clone(),
            options,
            changed_options: Vec::new(),
            step: 0,
            models,
            params,
            sharing,
            sync,
            rates,
            executor,
            callbacks,
            distribution: Distribution::default(),
            process: 0,
        })
    }

    /// The plan with other trained parameters, and the tables for it.
    fn plan_for(&self, trainable: impl Fn(usize) -> bool) -> Result<(Sharing, Tables)> {
        let mut specs = self.models.specs_in_f32();
        for (i, p) in self.params.states.iter().enumerate() {
            specs[p.model].params[p.index].trainable = trainable(i);
        }
        let sharing = Sharing::new(&self.options, &specs, &self.models.first_param)?;
        let tables = self.executor.tables(&self.params.buffers, &sharing)?;
        Ok((sharing, tables))
    }

    /// Goes over to a plan, keeping every number that training produced.
    fn take_plan(&mut self, (sharing, tables): (Sharing, Tables)) {
        self.sharing = sharing;
        self.executor.resize(tables);
        self.executor.buffers.clone_from(&self.params.buffers);
        self.callbacks.handled.fill(false);
    }

    /// Who shares with whom.
    pub fn plan(&self) -> &Plan {
        &self.sharing.plan
    }

    /// The positions in `param_groups` of those that no parameter matches.
    pub fn unused_param_groups(&self) -> Vec<usize> {
        let hits = |g: &ParamGroup| {
            let mut models = self.models.states.iter().filter(|m| matches(&g.model, &m.spec.name));
            models.any(|m| m.spec.params.iter().any(|p| matches(&g.pattern, &p.name)))
        };
        let groups = self.options.param_groups.iter().enumerate();
        groups.filter(|(_, g)| !hits(g)).map(|(i, _)| i).collect()
    }

    /// The options in force.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Threads of the step.
    pub fn threads(&self) -> usize {
        self.executor.pool.threads()
    }

    /// The kernel build in use.
    pub fn isa(&self) -> InstructionSet {
        self.executor.isa()
    }

    /// Steps taken.
    pub fn step_count(&self) -> u64 {
        self.step
    }

    /// Continues the step counter from elsewhere (schedules, sharing and synchronisation count
    /// from it).
    pub fn set_step_count(&mut self, step: u64) {
        self.step = step;
    }

    /// Whether the last step skipped a model, and how many steps have skipped it so far.
    pub fn skipped(&self, model: usize) -> Result<(bool, u64)> {
        let m = self.models.of_caller(model)?;
        Ok((m.skipped_last, m.skipped))
    }

    /// L2 norm of a model's gradient in the last step, after accumulation and before clipping;
    /// 0 when neither clipping nor the check for non-finite values needed it.
    pub fn grad_norm(&self, model: usize) -> Result<f64> {
        Ok(self.models.of_caller(model)?.grad_norm)
    }

    /// What `max_grad_norm` multiplied a model's gradient by in the last step; 1 when it was not
    /// clipped.
    pub fn clip_factor(&self, model: usize) -> Result<f64> {
        Ok(self.models.of_caller(model)?.clip_factor)
    }

    /// A moment of a parameter as f32; `None` when it has none or moments are bfloat16.
    pub fn moment(&self, model: usize, param: usize, which: Moment) -> Result<Option<&[f32]>> {
        let p = &self.params.states[self.models.param_index(model, param)?];
        let tensor = match which {
            Moment::First => &p.m,
            Moment::Second => &p.v,
            Moment::Maximum => &p.x,
        };
        match tensor {
            Some(t) if t.dtype() == DType::F32 => Ok(Some(t.as_slice()?)),
            _ => Ok(None),
        }
    }

    /// The newest metrics as one JSON object, with the plan's names: `step`, `models`, `cosine` and
    /// `distance` by pair of models, and `groups` (`name`, `members`, `cosine`, `distance` by pair
    /// of members). Matrices are lists of rows; a number that is not finite is null. Fails before
    /// the first step that was measured.
    pub fn metrics_json(&self) -> Result<serde_json::Value> {
        let Some(metrics) = self.metrics() else {
            return Err(Error::state("no metrics: the option metrics_every is 0"));
        };
        if self.plan().groups().is_empty() {
            return Err(Error::state("no metrics: the plan has no group"));
        }
        if metrics.step == 0 {
            return Err(Error::state("no metrics yet: no step that metrics_every names was taken"));
        }
        Ok(metrics.to_json(self.plan()))
    }

    /// The newest metrics; `None` unless `metrics_every` is set.
    pub fn metrics(&self) -> Option<&Metrics> {
        self.sharing.metrics.as_ref()
    }
}
