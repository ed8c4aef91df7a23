//! The optimizer's state and everything around a step: binding memory, micro-batches, weights,
//! rates. The step itself is in `step.rs`.
//!
//! Models are kept in order of name, whatever order they were given in; `order` maps the
//! caller's indices.

pub(in crate::optim) mod callback;
pub(in crate::optim) mod metrics;
pub(in crate::optim) mod rates;
pub(in crate::optim) mod saved_state;
pub(in crate::optim) mod step;
pub(in crate::optim) mod sync;
pub(in crate::optim) mod validation;

use crate::error::{Error, Result};
use crate::optim::kernel::Build;
use crate::optim::kernel::update::Coef;
use crate::optim::memory::bind::no_memory;
use crate::optim::memory::dense_copies::Piece;
use crate::optim::memory::owned::Owned;
use crate::optim::memory::params::{
    admit_param, as_lanes, check_names, influence, is_trainable, not_trainable,
};
use crate::optim::memory::strided::Array;
use crate::optim::optimizer::callback::GradientCallback;
use crate::optim::optimizer::metrics::Metrics;
use crate::optim::options::{Isa, Options, ParamGroup, Policy};
use crate::optim::plan::Plan;
use crate::optim::plan::pattern::matches;
use crate::optim::plan::spec::ModelSpec;
use crate::optim::pool::Pool;
use crate::optim::rates::adaptive::Tracker;
use crate::optim::rates::schedule::PlateauState;
use crate::optim::sweep::Own;
use crate::optim::sweep::mixing_matrix;
use crate::optim::sweep::pointers::{Lane, Scratches};
use crate::optim::sweep::tiling::{Layout, TILE_FLOATS, close_elements};
use crate::tensor::{DType, Tensor};

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

/// A model's learning rate and the factors that it is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The base rate.
    pub base: f64,
    /// Warm-up and decay.
    pub schedule: f64,
    /// From the model's losses.
    pub convergence: f64,
    /// From the model's weight.
    pub scale: f64,
    /// The published second multiplier; 1 elsewhere.
    pub multiplier: f64,
    /// The product, or what the host's callback made of it.
    pub effective: f64,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            base: 0.0,
            schedule: 1.0,
            convergence: 1.0,
            scale: 1.0,
            multiplier: 1.0,
            effective: 0.0,
        }
    }
}

/// What a step did. Details per model: [`Optimizer::grad_norm`], [`Optimizer::skipped`],
/// [`Optimizer::rates`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepReport {
    /// The step's number, from 1.
    pub step: u64,
    /// Models that were updated.
    pub updated: usize,
    /// Models that were skipped for a non-finite loss or gradient.
    pub skipped: usize,
    /// Whether gradients were shared.
    pub shared: bool,
    /// Whether parameters were synchronised.
    pub synced: bool,
    /// Whether a synchronisation is due that waits for `propose_sync` (option `barrier`).
    pub sync_due: bool,
}

/// One model's numbers.
pub(in crate::optim) struct ModelState {
    pub spec: ModelSpec,
    /// The weight as given; `weight` may follow validations.
    pub base_weight: f64,
    pub weight: f64,
    /// Normalised weight.
    pub share: f64,
    pub rates: Rates,
    /// Micro-batches ever, and in this window.
    pub calls: u64,
    pub window: u32,
    /// A loss of this window was not finite.
    pub bad_loss: bool,
    /// The last step skipped it.
    pub bad: bool,
    pub skipped: u64,
    /// L2 norm of the last step's gradient, before clipping.
    pub grad_norm: f64,
    pub clip: f64,
    pub bound: bool,
    pub score: Option<f64>,
}

/// One parameter's numbers and memory.
pub(in crate::optim) struct ParamState {
    pub model: usize,
    pub index: usize,
    pub len: usize,
    pub trainable: bool,
    pub lr_scale: f64,
    pub weight_decay: f64,
    /// Muon's orthogonalised update applies.
    pub muon: bool,
    /// Steps that changed it.
    pub steps: u64,
    pub m: Option<Tensor>,
    pub v: Option<Tensor>,
    pub x: Option<Tensor>,
    /// Sum of micro-batches, and whether this window has one.
    pub sum: Option<Tensor>,
    pub summed: bool,
    /// Where the host has it.
    pub value: Array,
    pub gradient: Array,
    /// The dense f32 copy of values that are not: the master of narrow ones.
    pub packed: Option<Tensor>,
    /// The dense copy of a gradient with strides, of its type.
    pub collected: Option<Tensor>,
}

/// A learning-rate callback: (model's name, step, rate) to rate.
pub type RateCallback = Box<dyn FnMut(&str, u64, f64) -> f64 + Send + Sync>;

/// Updates several models together. Not for use by two threads at once; may move between them.
///
/// Model indices are those of the list given to [`Optimizer::new`], parameter indices those of
/// the model's list.
pub struct Optimizer {
    pub(in crate::optim) options: Options,
    pub(in crate::optim) models: Vec<ModelState>,
    pub(in crate::optim) params: Vec<ParamState>,
    /// First parameter of each model.
    pub(in crate::optim) base: Vec<usize>,
    /// The caller's model index to ours.
    pub(in crate::optim) order: Vec<usize>,
    pub(in crate::optim) plan: Plan,
    pub(in crate::optim) layout: Layout,
    pub(in crate::optim) influence: Vec<f64>,
    pub(in crate::optim) pool: Pool,
    pub(in crate::optim) build: Build,
    pub(in crate::optim) scratch: Scratches,
    pub(in crate::optim) tracker: Tracker,
    pub(in crate::optim) plateau: PlateauState,
    pub(in crate::optim) callback: Option<RateCallback>,
    pub(in crate::optim) step: u64,
    /// Micro-batches seen, and those whose schedule has been moved on.
    pub(in crate::optim) calls: u64,
    pub(in crate::optim) ended: u64,
    /// As bound, and as this step reads them.
    pub(in crate::optim) bound: Vec<Lane>,
    pub(in crate::optim) lanes: Vec<Lane>,
    pub(in crate::optim) own: Vec<Own>,
    pub(in crate::optim) coefs: Vec<Coef>,
    pub(in crate::optim) squares: Vec<f64>,
    pub(in crate::optim) partials: Vec<f64>,
    pub(in crate::optim) gram: Vec<f64>,
    pub(in crate::optim) dense: Vec<f32>,
    pub(in crate::optim) work: crate::optim::optimizer::step::Work,
    pub(in crate::optim) owned: Vec<Owned>,
    /// Values before a proposed synchronisation.
    pub(in crate::optim) saved: Vec<Option<Tensor>>,
    pub(in crate::optim) proposed: bool,
    pub(in crate::optim) refused: u64,
    pub(in crate::optim) matrices: crate::optim::sweep::orthogonalise::Matrices,
    pub(in crate::optim) metrics: Option<Metrics>,
    pub(in crate::optim) pieces: Vec<Piece>,
    pub(in crate::optim) gradient_callback: Option<GradientCallback>,
    /// Parameters that the host has updated itself in this step.
    pub(in crate::optim) taken: Vec<bool>,
}

impl Optimizer {
    /// Plans the sharing and sets up for `models`; memory is bound later. Fails when an option
    /// is out of range, names are not unique, weights are negative, or a trainable parameter is
    /// not f32.
    pub fn new(options: Options, models: Vec<ModelSpec>) -> Result<Self> {
        options.validate()?;
        let n = models.len();
        let mut ranked: Vec<(usize, ModelSpec)> = models.into_iter().enumerate().collect();
        ranked.sort_by(|a, b| a.1.name.cmp(&b.1.name));
        let mut order = vec![0; n];
        ranked.iter().enumerate().for_each(|(ours, (theirs, _))| order[*theirs] = ours);
        let specs: Vec<ModelSpec> = ranked.into_iter().map(|(_, s)| s).collect();
        check_names(&specs)?;
        let build = Build::choose(options.isa)?;
        let pool = Pool::new(options.threads)?;
        let rule = options.convergence;
        let blank = Plan::new(&Options { policy: Policy::None, ..Options::default() }, &[])?;
        let mut optimizer = Self {
            models: Vec::new(),
            params: Vec::new(),
            base: Vec::new(),
            order,
            layout: Layout::new(&blank, &[], &[])?,
            plan: blank,
            influence: Vec::new(),
            scratch: Scratches::new(pool.threads(), TILE_FLOATS),
            pool,
            build,
            tracker: Tracker::new(n, rule),
            plateau: PlateauState::default(),
            callback: None,
            step: 0,
            calls: 0,
            ended: 0,
            bound: Vec::new(),
            lanes: Vec::new(),
            own: Vec::new(),
            coefs: Vec::new(),
            squares: Vec::new(),
            partials: Vec::new(),
            gram: Vec::new(),
            dense: Vec::new(),
            work: crate::optim::optimizer::step::Work::default(),
            owned: Vec::new(),
            saved: Vec::new(),
            proposed: false,
            refused: 0,
            matrices: crate::optim::sweep::orthogonalise::Matrices::default(),
            metrics: None,
            pieces: Vec::new(),
            gradient_callback: None,
            taken: Vec::new(),
            options,
        };
        optimizer.admit(specs)?;
        optimizer.replan()?;
        Ok(optimizer)
    }

    fn admit(&mut self, specs: Vec<ModelSpec>) -> Result<()> {
        for (model, mut spec) in specs.into_iter().enumerate() {
            if !(spec.weight.is_finite() && spec.weight >= 0.0) {
                return Err(Error::invalid(format!(
                    "model '{}': weight {} must be finite and >= 0",
                    spec.name, spec.weight
                )));
            }
            self.base.push(self.params.len());
            for index in 0..spec.params.len() {
                let param = admit_param(&self.options, model, index, &mut spec)?;
                self.params.push(param);
            }
            self.models.push(ModelState {
                base_weight: spec.weight,
                weight: spec.weight,
                share: 0.0,
                rates: Rates::default(),
                calls: 0,
                window: 0,
                bad_loss: false,
                bad: false,
                skipped: 0,
                grad_norm: 0.0,
                clip: 1.0,
                bound: false,
                score: None,
                spec,
            });
        }
        self.normalise()?;
        self.compute_rates(1, 1);
        Ok(())
    }

    /// Makes plan, layout and all tables anew, keeping every number that training produced.
    pub(in crate::optim) fn replan(&mut self) -> Result<()> {
        let specs: Vec<ModelSpec> = self.models.iter().map(|m| as_lanes(&m.spec)).collect();
        let plan = Plan::new(&self.options, &specs)?;
        let layout = Layout::new(&plan, &specs, &self.base)?;
        let dense = mixing_matrix::is_dense(&self.options.rule);
        if dense && layout.largest > crate::optim::kernel::weighted_sum::MAX_DENSE {
            return Err(Error::unsupported(format!(
                "rule {:?} mixes at most {} views in a group, the plan has one of {}; \
                 use rule mean or sum",
                self.options.rule,
                crate::optim::kernel::weighted_sum::MAX_DENSE,
                layout.largest
            )));
        }
        self.influence = influence(&self.options.rule, &specs)?;
        let n = self.params.len();
        let tile_floats = TILE_FLOATS.max(close_elements(layout.largest) * layout.largest);
        self.scratch = Scratches::new(self.pool.threads(), tile_floats);
        self.squares = vec![0.0; n];
        let products =
            mixing_matrix::needs_products(&self.options.rule) || self.options.metrics_every > 0;
        let n_partials = if products { layout.n_partials } else { 0 };
        self.partials = vec![0.0; n_partials.max(layout.flat.len())];
        self.gram = vec![0.0; if products { layout.n_squares() } else { 0 }];
        self.dense = vec![0.0; if dense { layout.n_squares() } else { 0 }];
        self.work = crate::optim::optimizer::step::Work::new(layout.largest);
        self.own = vec![Own { active: false, synced: false, scale: 1.0, bound: f32::INFINITY }; n];
        self.coefs = vec![crate::optim::kernel::coefficient::idle(); n];
        self.taken = vec![false; n];
        if self.bound.len() != n {
            self.bound = self.params.iter().map(|p| no_memory(p.len)).collect();
        }
        self.lanes = self.bound.clone();
        (self.plan, self.layout) = (plan, layout);
        self.metrics = self.blank_metrics();
        Ok(())
    }

    /// Who shares with whom.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The options in force.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Threads of the step.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The kernel build in use.
    pub fn isa(&self) -> Isa {
        self.build.isa()
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

    /// Takes in a finished backward pass: its loss, which is logged, and, with accumulation, the
    /// gradients that lie in the bound buffers. A non-finite loss marks the model for skipping.
    /// Without accumulation the gradients are read in place by [`Optimizer::step`].
    pub fn accumulate(&mut self, model: usize, loss: f64) -> Result<()> {
        let model = self.index(model)?;
        if !self.models[model].bound {
            let name = &self.models[model].spec.name;
            return Err(Error::state(format!("model '{name}' has no memory; call bind first")));
        }
        let next = self.models[model].calls.max(self.ended) + 1;
        if next > self.calls {
            self.end_calls(self.calls);
            self.calls = next;
        }
        self.models[model].calls = next;
        self.note_loss(model, loss);
        if self.options.accumulation > 1 {
            self.collect_gradients(Some(model))?;
            self.add_gradients(model)?;
        }
        self.models[model].window += 1;
        Ok(())
    }

    /// Takes in a loss for the convergence-aware rates, for hosts that step without
    /// [`Optimizer::accumulate`]. Use one of the two for a micro-batch, not both.
    pub fn log_loss(&mut self, model: usize, loss: f64) -> Result<()> {
        let model = self.index(model)?;
        self.note_loss(model, loss);
        Ok(())
    }

    fn note_loss(&mut self, model: usize, loss: f64) {
        if loss.is_finite() {
            self.tracker.log(self.options.convergence, model, loss);
        } else {
            self.models[model].bad_loss = true;
        }
    }

    /// Moves the schedules on to the end of micro-batch `call`.
    pub(in crate::optim) fn end_calls(&mut self, call: u64) {
        while self.ended < call {
            self.ended += 1;
            self.tracker.end_call(self.options.convergence, self.ended);
        }
    }

    /// Forgets the micro-batches since the last step. The bound gradients stay as they are.
    pub fn zero_grad(&mut self) {
        for p in &mut self.params {
            p.summed = false;
        }
        for m in &mut self.models {
            m.window = 0;
            m.bad_loss = false;
        }
    }

    /// Freezes or trains all parameters whose name matches `pattern` in models whose name
    /// matches `model`; returns how many changed. Moments of frozen parameters are kept.
    pub fn set_trainable(&mut self, model: &str, pattern: &str, trainable: bool) -> Result<usize> {
        let mut changed = Vec::new();
        for (i, p) in self.params.iter().enumerate() {
            let spec = &self.models[p.model].spec;
            let q = &spec.params[p.index];
            let hit = matches(model, &spec.name) && matches(pattern, &q.name);
            if hit && p.trainable != trainable {
                if trainable && !is_trainable(q.dtype) {
                    return Err(not_trainable(&spec.name, &q.name, q.dtype));
                }
                let bound = self.models[p.model].bound;
                if trainable && bound && p.len > 0 && p.value.is_null() {
                    return Err(Error::state(format!(
                        "model '{}', parameter '{}' has no memory to train in",
                        spec.name, q.name
                    )));
                }
                changed.push(i);
            }
        }
        if changed.is_empty() {
            return Ok(0);
        }
        for &i in &changed {
            let (model, index) = (self.params[i].model, self.params[i].index);
            self.params[i].trainable = trainable;
            self.models[model].spec.params[index].trainable = trainable;
            if self.models[model].bound {
                self.allocate(i)?;
            }
        }
        let group = ParamGroup {
            pattern: pattern.into(),
            model: model.into(),
            trainable: Some(trainable),
            ..ParamGroup::default()
        };
        self.options.groups.push(group);
        self.list_pieces();
        self.replan()?;
        Ok(changed.len())
    }

    /// Whether the last step skipped a model, and how many steps have skipped it so far.
    pub fn skipped(&self, model: usize) -> Result<(bool, u64)> {
        let m = &self.models[self.index(model)?];
        Ok((m.bad, m.skipped))
    }

    /// L2 norm of a model's gradient in the last step, after accumulation and before clipping;
    /// 0 when neither clipping nor the check for non-finite values needed it.
    pub fn grad_norm(&self, model: usize) -> Result<f64> {
        Ok(self.models[self.index(model)?].grad_norm)
    }

    /// A moment of a parameter as f32; `None` when it has none or moments are bfloat16.
    pub fn moment(&self, model: usize, param: usize, which: Moment) -> Result<Option<&[f32]>> {
        let p = &self.params[self.param_index(model, param)?];
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

    /// Our index of the caller's model.
    pub(in crate::optim) fn index(&self, model: usize) -> Result<usize> {
        self.order.get(model).copied().ok_or_else(|| {
            Error::invalid(format!("model index {model} of {} models", self.order.len()))
        })
    }

    pub(in crate::optim) fn param_index(&self, model: usize, param: usize) -> Result<usize> {
        let model = self.index(model)?;
        let spec = &self.models[model].spec;
        if param >= spec.params.len() {
            return Err(Error::invalid(format!(
                "model '{}': parameter index {param} of {}",
                spec.name,
                spec.params.len()
            )));
        }
        Ok(self.base[model] + param)
    }

    pub(in crate::optim) fn moment_type(&self) -> DType {
        crate::optim::memory::bind::dtype_of(self.options.moments)
    }
}
