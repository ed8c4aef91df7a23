//! One step: inspect the gradients, decide who takes part, compute all coefficients, sweep.

use crate::error::{Error, Kind, Result};
use crate::optim::kernel::coefficient::coefficients;
use crate::optim::memory::param::ParamState;
use crate::optim::optimizer::callback::GradientCallback;
use crate::optim::optimizer::models::ModelState;
use crate::optim::optimizer::peers::{Alone, Distribution, Peers, Stage, settled};
use crate::optim::optimizer::{Optimizer, StepReport};
use crate::optim::options::{MomentDtype, NonFinite, SharePolicy, ShareRule};
use crate::optim::plan::view::matrix_shape;
use crate::optim::sweep::mixing_matrix;
use crate::optim::sweep::sharing::Prepared;
use crate::tensor::DType;

/// What falls due in a step.
struct Due {
    share: bool,
    /// Gradients of groups by token mix.
    tokens: bool,
    sync: bool,
    /// A synchronisation that waits for `propose_sync`.
    proposal: bool,
    metrics: bool,
}

impl Optimizer {
    /// Lets a callback see every gradient of the coming steps, model by model in the caller's
    /// order, parameter by parameter; `None` removes it. Models that are known to be skipped for
    /// a non-finite loss are passed over.
    pub fn set_gradient_callback(&mut self, callback: Option<GradientCallback>) {
        self.callbacks.gradient = callback;
    }

    /// Takes one step with the gradients at hand: clips, shares, updates, synchronises, in one
    /// sweep. Models with a non-finite loss or gradient are skipped, or fail the step before
    /// anything changes, as `non_finite` says. Allocates nothing after the first call.
    pub fn step(&mut self) -> Result<StepReport> {
        self.step_with(&mut Alone)
    }

    /// As [`Optimizer::step`], as one of several processes, all of which call it. What fails before
    /// all have decided changes nothing anywhere; afterwards only the exchange itself can fail, and
    /// the step is done then but for what it would have brought.
    pub(crate) fn step_with(&mut self, peers: &mut dyn Peers) -> Result<StepReport> {
        let step = self.step + 1;
        let due = self.due(step);
        self.models.states.iter_mut().for_each(ModelState::keep_decision);
        let micro_batches = self.decide(step, &due, peers).inspect_err(|_| {
            self.models.states.iter_mut().for_each(ModelState::restore_decision);
        })?;
        self.count_skipped();
        self.step = step;
        self.rates.micro_batches = micro_batches;
        if due.metrics {
            self.sharing.measure_gradients(step);
        }
        self.compute_coefficients();
        // Values of other processes are known after their updates.
        let later = due.sync && self.distribution != Distribution::None;
        let Due { share, tokens, sync, .. } = due;
        self.prepare_sharing(Prepared { share, tokens, sync: sync && !later });
        let rounding_seed = (self.options.moment_dtype == MomentDtype::BF16)
            .then_some((step as u32).wrapping_mul(0x9e37_79b1));
        self.executor.update(&self.sharing, share || tokens || sync, rounding_seed)?;
        // As in one process, matrices of Muon are synchronised before their update.
        let exchanged = self.exchange_after_sweep(later, peers);
        self.update_matrices()?;
        let exchanged = exchanged.and_then(|()| self.exchange_matrices(peers));
        let (steps, handled) = (&self.executor.param_steps, &self.callbacks.handled);
        self.params.scatter_values(&mut self.executor.pool, |i| {
            steps[i].active || handled[i] || (due.sync && steps[i].synced)
        })?;
        let report = self.report(&due);
        self.finish();
        exchanged?;
        if due.metrics && self.sharing.metrics.is_some() {
            self.measure_values(peers)?;
        }
        Ok(report)
    }

    fn report(&self, due: &Due) -> StepReport {
        StepReport {
            step: self.step,
            updated: self.n_updated(),
            skipped: self.models.states.iter().filter(|m| m.skipped_last).count(),
            shared: due.share,
            synced: due.sync,
            sync_due: due.proposal,
        }
    }

    pub(super) fn prepare_sharing(&mut self, due: Prepared) {
        let models = &self.models.states;
        let weight = |model: usize| models[model].normalised_weight;
        self.sharing.prepare(&self.options, weight, &self.executor.param_steps, due);
    }

    /// Takes the values that other processes have updated, and synchronises where it is due.
    fn exchange_after_sweep(&mut self, sync: bool, peers: &mut dyn Peers) -> Result<()> {
        match self.distribution {
            Distribution::None => return Ok(()),
            Distribution::State => self.exchange_updated_values(false, peers)?,
            Distribution::Models if sync => self.exchange_shared_values(true, peers)?,
            Distribution::Models => {}
        }
        if sync {
            self.prepare_sharing(Prepared { sync, ..Prepared::default() });
            self.executor.synchronise(&self.sharing)?;
        }
        Ok(())
    }

    fn exchange_matrices(&mut self, peers: &mut dyn Peers) -> Result<()> {
        match self.distribution {
            Distribution::State => self.exchange_updated_values(true, peers),
            _ => Ok(()),
        }
    }

    fn measure_values(&mut self, peers: &mut dyn Peers) -> Result<()> {
        let exchanged = self.distribution == Distribution::Models;
        if exchanged {
            self.exchange_shared_values(false, peers)?;
        }
        self.executor.inspect_values(&mut self.sharing)?;
        if exchanged {
            self.add_products(peers)?;
        }
        self.sharing.measure_values();
        Ok(())
    }

    /// Looks at the gradients, asks the host, and decides who takes part and with which rates. What
    /// fails here can be repeated. Returns the number of micro-batches seen.
    fn decide(&mut self, step: u64, due: &Due, peers: &mut dyn Peers) -> Result<u64> {
        let exchanged = self.distribution == Distribution::Models;
        let products = due.share && mixing_matrix::needs_products(self.options.share_rule);
        let products = products || due.metrics;
        let found = self.find_gradients(step);
        let micro_batches = settled(peers, Stage::Gradients, found)?;
        if exchanged {
            self.join_marks(peers)?;
            let all = due.share || due.metrics;
            if all || due.tokens {
                self.exchange_gradients(all, peers)?;
            }
        }
        let inspected = self.inspect(products);
        settled(peers, Stage::Inspected, inspected)?;
        if exchanged {
            self.add_sums(products, peers)?;
        }
        let rated = self.rate_models(step, micro_batches).and_then(|()| self.find_large());
        let mut large = settled(peers, Stage::Rated, rated)?;
        if let Some(large) = large.as_mut().filter(|_| self.distribution != Distribution::None) {
            self.add_largest(large, peers)?;
        }
        let skipped =
            large.map_or(Ok(()), |large| self.skip_overflow(due.share || due.tokens, &large));
        let decided = skipped.and_then(|()| self.reserve_matrices());
        settled(peers, Stage::Decided, decided)?;
        Ok(micro_batches)
    }

    /// Finds the gradients and lets the host see them.
    fn find_gradients(&mut self, step: u64) -> Result<u64> {
        let micro_batches = self.begin()?;
        self.params.gather_values(&mut self.executor.pool)?;
        if self.options.gradient_accumulation_steps == 1 {
            self.params.gather_gradients(&mut self.executor.pool, None)?;
        }
        self.callbacks.call_gradient(step, &self.options, &self.models, &mut self.executor)?;
        Ok(micro_batches)
    }

    /// Skips models whose gradients are not finite, and computes rates and factors of the others.
    fn rate_models(&mut self, step: u64, micro_batches: u64) -> Result<()> {
        self.skip_non_finite()?;
        self.models.compute_rates(&self.options, &self.rates, step, micro_batches);
        self.callbacks.call_rate(&mut self.models.states, step)?;
        self.scale_gradients();
        Ok(())
    }

    fn due(&self, step: u64) -> Due {
        let o = &self.options;
        let due = |every: u64| every > 0 && step.is_multiple_of(every);
        let groups = !self.sharing.plan.groups().is_empty();
        let sync = groups && due(o.sync_every);
        Due {
            share: groups && due(o.share_every) && o.share_rule != ShareRule::None,
            tokens: self.shares_tokens(),
            sync: sync && o.max_loss_increase.is_none(),
            proposal: sync && o.max_loss_increase.is_some(),
            metrics: groups && due(o.metrics_every),
        }
    }

    /// Finds this step's gradients; returns the number of micro-batches seen.
    fn begin(&mut self) -> Result<u64> {
        if self.sync.is_proposed() {
            return Err(Error::state("a synchronisation is proposed; keep or undo it first"));
        }
        let models = &self.models.states;
        models.iter().try_for_each(|m| m.check_bound())?;
        let counted = models.iter().any(|m| m.accumulated > 0);
        let summing = self.options.gradient_accumulation_steps > 1;
        if summing && !counted {
            return Err(Error::state("no micro-batch since the last step; call accumulate"));
        }
        let paper = self.options.share_policy == SharePolicy::Paper;
        for (i, p) in self.params.states.iter().enumerate() {
            let buffers = &mut self.executor.buffers[i];
            *buffers = self.params.buffers[i];
            if summing && p.local {
                buffers.g_type = DType::F32;
                buffers.g = match &p.grad_sum {
                    Some(sum) if p.has_grad_sum => sum.bytes().as_ptr(),
                    _ => std::ptr::null(),
                };
            }
            let takes_part = !counted || models[p.model].accumulated > 0;
            let step = &mut self.executor.param_steps[i];
            // The gradients are inspected as they are; `scale_gradients` sets the clip value.
            step.clip_value = f32::INFINITY;
            (step.local, step.state_here) = (p.local, p.state_here);
            // Of others' models their processes tell.
            step.active = p.local && takes_part && p.trainable && !buffers.g.is_null();
            let synced = paper || (takes_part && p.trainable);
            step.synced = p.local && !buffers.p.is_null() && synced;
        }
        Ok(self.rates.micro_batches + u64::from(!counted))
    }

    /// One read of the gradients, where something needs it: norms, non-finite values, products.
    fn inspect(&mut self, products: bool) -> Result<()> {
        let clips = self.options.max_grad_norm > 0.0;
        self.executor.grad_squares.fill(0.0);
        if !products && !clips && self.options.non_finite == NonFinite::Ignore {
            return Ok(());
        }
        self.executor.inspect(&mut self.sharing, products)
    }

    /// Marks models with a non-finite loss or gradient and takes them out of the step.
    fn skip_non_finite(&mut self) -> Result<()> {
        let ignore = self.options.non_finite == NonFinite::Ignore;
        let (models, executor) = (&mut self.models.states, &mut self.executor);
        for m in models.iter_mut() {
            m.skipped_last = m.is_skipped_early(&self.options);
            m.grad_norm = 0.0;
        }
        for (i, p) in self.params.states.iter().enumerate() {
            if executor.param_steps[i].active {
                let m = &mut models[p.model];
                m.skipped_last |= !ignore && !executor.grad_squares[i].is_finite();
                m.grad_norm += executor.grad_squares[i];
            }
        }
        let fails = self.options.non_finite == NonFinite::Fail;
        if let Some(m) = models.iter().find(|m| fails && m.skipped_last) {
            let name = &m.spec.name;
            let text = format!(
                "model '{name}': a loss or gradient is NaN or infinite; nothing was changed"
            );
            return Err(Error::new(Kind::NonFinite, text));
        }
        for m in models.iter_mut() {
            m.grad_norm = m.grad_norm.sqrt() * m.accumulation_factor(&self.options);
        }
        self.take_out_skipped();
        Ok(())
    }

    /// Leaves the parameters of skipped models as they are.
    pub(super) fn take_out_skipped(&mut self) {
        let models = &self.models.states;
        for (step, p) in self.executor.param_steps.iter_mut().zip(&self.params.states) {
            let good = !models[p.model].skipped_last;
            step.active &= good;
            step.synced &= good;
        }
    }

    fn count_skipped(&mut self) {
        for m in &mut self.models.states {
            m.skipped += u64::from(m.skipped_last);
        }
    }

    /// Models of which a parameter is updated, by the step or by the host's callback.
    fn n_updated(&self) -> usize {
        let (steps, handled) = (&self.executor.param_steps, &self.callbacks.handled);
        let mut n = 0;
        for (m, &first) in self.models.states.iter().zip(&self.models.first_param) {
            let mut params = first..first + m.spec.params.len();
            n += usize::from(params.any(|i| steps[i].active || handled[i]));
        }
        n
    }

    /// Factors and clip values of the gradients: accumulation and clipping.
    fn scale_gradients(&mut self) {
        let models = &mut self.models.states;
        for m in models.iter_mut() {
            m.clip_factor = match self.options.max_grad_norm {
                0.0 => 1.0,
                c => (c / (m.grad_norm + 1e-6)).min(1.0),
            };
        }
        for (step, p) in self.executor.param_steps.iter_mut().zip(&self.params.states) {
            let m = &models[p.model];
            let mean = m.accumulation_factor(&self.options);
            step.grad_scale = (m.clip_factor * mean) as f32;
            step.clip_value = match self.options.max_grad_value {
                0.0 => f32::INFINITY,
                c => (c / mean) as f32,
            };
        }
    }

    /// Every active parameter's coefficients; counts its step.
    fn compute_coefficients(&mut self) {
        let executor = &mut self.executor;
        for (i, p) in self.params.states.iter_mut().enumerate() {
            if !executor.param_steps[i].active {
                continue;
            }
            p.steps += 1;
            let rate = self.models.states[p.model].rates.effective * p.lr_scale;
            executor.coefficients[i] =
                coefficients(&self.options, rate, p.weight_decay, p.steps, p.muon);
        }
    }

    /// Updates Muon's matrices, after the sweep has put their momentum into v.
    /// Memory for [`Optimizer::update_matrices`], as large as the largest matrix.
    fn reserve_matrices(&mut self) -> Result<()> {
        let here = |p: &&ParamState| p.muon && p.trainable && p.len > 0 && p.state_here;
        for p in self.params.states.iter().filter(here) {
            let spec = &self.models.states[p.model].spec;
            self.executor.reserve_matrix(matrix_shape(&spec.params[p.index].shape))?;
        }
        Ok(())
    }

    fn update_matrices(&mut self) -> Result<()> {
        for (i, p) in self.params.states.iter().enumerate() {
            if p.muon && self.executor.param_steps[i].is_updated_here() && p.len > 0 {
                let model = &self.models.states[p.model];
                let shape = matrix_shape(&model.spec.params[p.index].shape);
                let rate = model.rates.effective * p.lr_scale;
                let factors = [rate, p.weight_decay, self.options.muon_scale];
                self.executor.update_matrix(i, shape, factors)?;
            }
        }
        Ok(())
    }

    /// Forgets the step's micro-batches and updates the adaptive rates.
    fn finish(&mut self) {
        for model in 0..self.models.states.len() {
            if self.models.states[model].accumulated > 0 {
                self.consume_gradients(model);
            }
        }
        self.zero_grad();
        let micro_batches = self.rates.micro_batches;
        self.rates.end_micro_batches(&self.options, micro_batches);
        self.models.states.iter_mut().for_each(|m| m.micro_batches = micro_batches);
    }
}
