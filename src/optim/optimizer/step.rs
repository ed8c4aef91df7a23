//! One step: look at the gradients, decide who takes part, compute all coefficients, sweep.

use crate::error::{Error, Kind, Result};
use crate::optim::kernel::coefficient::coefficient;
use crate::optim::kernel::reduce;
use crate::optim::optimizer::{Optimizer, Rates, StepReport};
use crate::optim::options::{Accumulate, Clip, MomentType, NonFinite, Policy, RateScale, Rule};
use crate::optim::plan::view::BLOCK;
use crate::optim::rates::paper::paper_multiplier;
use crate::optim::rates::schedule;
use crate::optim::sweep::mixing_matrix::{self, Members};
use crate::optim::sweep::pointers::{Lane, Scratch, gradient, is_direct};
use crate::optim::sweep::{Bundle, Item, Mix, Sweep};
use crate::tensor::{DType, Tensor};

/// Memory for one group's matrices, reused.
#[derive(Default)]
pub(in crate::optim) struct Work {
    weights: Vec<f64>,
    scales: Vec<f64>,
    models: Vec<usize>,
    gram: Vec<f64>,
    work: Vec<f64>,
    matrix: Vec<f64>,
}

impl Work {
    pub fn new(largest: usize) -> Self {
        let k = largest.min(crate::optim::kernel::weighted_sum::MAX_DENSE);
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

/// A pointer that workers write through, each to its own elements.
#[derive(Clone, Copy)]
pub(in crate::optim) struct Slots<T>(*mut T);
// SAFETY: see `Slots::at`.
unsafe impl<T: Send> Sync for Slots<T> {}

impl<T> Slots<T> {
    pub fn new(slots: &mut [T]) -> Self {
        Self(slots.as_mut_ptr())
    }

    /// # Safety
    /// `at + n` must not exceed the slice, and nobody else may use these elements meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn at(&self, at: usize, n: usize) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(at), n) }
    }
}

/// Σ g² of a stretch of a lane.
///
/// # Safety
/// The lane's gradient must be readable there.
unsafe fn square(
    build: crate::optim::kernel::Build,
    lane: &Lane,
    start: usize,
    len: usize,
    s: &mut [f32],
) -> f64 {
    let block = if is_direct(lane, f32::INFINITY) { len } else { BLOCK };
    let mut total = 0.0;
    let mut at = start;
    while at < start + len {
        let n = block.min(start + len - at);
        // SAFETY: the caller's promise.
        let g = unsafe { gradient(build, lane, f32::INFINITY, at, n, s) };
        total += reduce::dot(build, g, g);
        at += n;
    }
    total
}

impl Optimizer {
    /// Takes one step with the gradients at hand: clips, shares, updates, synchronises, in one
    /// sweep. Models with a non-finite loss or gradient are skipped, or fail the step before
    /// anything changes, as `non_finite` says. Allocates nothing after the first call.
    pub fn step(&mut self) -> Result<StepReport> {
        let step = self.step + 1;
        let calls = self.begin()?;
        self.gather_values()?;
        if self.options.accumulation == 1 {
            self.collect_gradients(None)?;
        }
        self.ask_gradients(step)?;
        let due = |every: u64| every > 0 && step.is_multiple_of(every);
        let groups = !self.plan.groups().is_empty();
        let share = groups && due(self.options.share_every) && self.options.rule != Rule::None;
        let sync_due = groups && due(self.options.sync_every);
        let sync = sync_due && self.options.barrier.is_none();
        let measure = groups && due(self.options.metrics_every);
        let products = share && mixing_matrix::needs_products(&self.options.rule);
        self.inspect(products || measure)?;
        self.judge()?;
        self.compute_rates(step, calls);
        self.ask_callback(step)?;
        self.step = step;
        self.calls = calls;
        if measure {
            self.measure_gradients(step);
        }
        self.scale_gradients();
        self.coefficients();
        self.prepare_groups(share, sync);
        self.sweep(share || sync, true)?;
        self.move_matrices()?;
        self.scatter_values(true, sync)?;
        let report = StepReport {
            step,
            updated: self.models.iter().filter(|m| m.bound && !m.bad).count(),
            skipped: self.models.iter().filter(|m| m.bad).count(),
            shared: share,
            synced: sync,
            sync_due: sync_due && !sync,
        };
        self.finish();
        if measure {
            self.measure_values()?;
        }
        Ok(report)
    }

    /// Finds this step's gradients; returns the number of micro-batches seen.
    fn begin(&mut self) -> Result<u64> {
        if self.proposed {
            return Err(Error::state("a synchronisation is proposed; keep or undo it first"));
        }
        if let Some(m) = self.models.iter().find(|m| !m.bound) {
            let name = &m.spec.name;
            return Err(Error::state(format!("model '{name}' has no memory; call bind first")));
        }
        let counted = self.models.iter().any(|m| m.window > 0);
        let summing = self.options.accumulation > 1;
        if summing && !counted {
            return Err(Error::state("no micro-batch since the last step; call accumulate"));
        }
        let paper = self.options.policy == Policy::Paper;
        for (i, p) in self.params.iter_mut().enumerate() {
            let model = &self.models[p.model];
            let lane = &mut self.lanes[i];
            *lane = self.bound[i];
            if summing {
                lane.g_type = DType::F32;
                lane.g = match &p.sum {
                    Some(sum) if p.summed => sum.bytes().as_ptr(),
                    _ => std::ptr::null(),
                };
            }
            let takes_part = !counted || model.window > 0;
            // The gradients are looked at as they are; `scale_gradients` sets the bound.
            self.own[i].bound = f32::INFINITY;
            self.own[i].active = takes_part && p.trainable && !lane.g.is_null();
            self.own[i].synced = !lane.p.is_null() && (paper || (takes_part && p.trainable));
        }
        Ok(if counted { self.calls } else { self.calls + 1 })
    }

    /// One read of the gradients, where something needs it: norms, non-finite values, products.
    fn inspect(&mut self, products: bool) -> Result<()> {
        let clips = matches!(self.options.clip, Clip::Norm(_));
        self.squares.fill(0.0);
        if !products && !clips && self.options.non_finite == NonFinite::Ignore {
            return Ok(());
        }
        if products {
            self.run_products()?;
        } else {
            self.look_at(false)?;
        }
        self.add_partials(products);
        Ok(())
    }

    /// Inner products of the active lanes' gradients into the partial sums.
    pub(in crate::optim) fn run_products(&mut self) -> Result<()> {
        self.look_at(true)
    }

    fn look_at(&mut self, products: bool) -> Result<()> {
        let items = if products { &self.layout.grouped } else { &self.layout.flat };
        let starts = products.then_some(&self.layout.partials);
        let out = Slots::new(&mut self.partials);
        let sweep = Sweep {
            build: self.build,
            lanes: &self.lanes,
            own: &self.own,
            coefs: &self.coefs,
            parts: &self.layout.parts,
            bundles: &self.layout.bundles,
            dense: &self.dense,
            narrow: None,
            updates: false,
        };
        let scratch = &self.scratch;
        self.pool.run(items.len(), &|worker, i| {
            // SAFETY: the pool runs one item per worker at a time.
            let s = unsafe { scratch.of(worker) };
            let at = starts.map_or(i, |s| s[i]);
            // SAFETY: items have their own partial sums; `bind` vouches for the lanes.
            unsafe { look(&sweep, s, &items[i], at, &out) };
        })
    }

    /// Adds the items' partial sums in their order.
    fn add_partials(&mut self, products: bool) {
        if !products {
            for (item, sum) in self.layout.flat.iter().zip(&self.partials) {
                if let Item::Flat { param, .. } = item {
                    self.squares[*param] += sum;
                }
            }
            return;
        }
        self.gram.fill(0.0);
        for (item, &at) in self.layout.grouped.iter().zip(&self.layout.partials) {
            match *item {
                Item::Flat { param, .. } => self.squares[param] += self.partials[at],
                Item::Tile { bundle, .. } => {
                    let (b, to) = (self.layout.bundles[bundle], self.layout.squares[bundle]);
                    for i in 0..b.n * b.n {
                        self.gram[to + i] += self.partials[at + i];
                    }
                }
            }
        }
        for (b, &at) in self.layout.bundles.iter().zip(&self.layout.squares) {
            for i in 0..b.n {
                let param = self.layout.parts[b.first + i].param;
                self.squares[param] += self.gram[at + i * b.n + i];
            }
        }
    }

    /// Marks models with a non-finite loss or gradient and takes them out of the step.
    fn judge(&mut self) -> Result<()> {
        let ignore = self.options.non_finite == NonFinite::Ignore;
        for m in &mut self.models {
            m.bad = m.bad_loss && !ignore;
            m.grad_norm = 0.0;
        }
        for (i, p) in self.params.iter().enumerate() {
            if self.own[i].active {
                let m = &mut self.models[p.model];
                m.bad |= !ignore && !self.squares[i].is_finite();
                m.grad_norm += self.squares[i];
            }
        }
        let fails = self.options.non_finite == NonFinite::Fail;
        if let Some(m) = self.models.iter().find(|m| fails && m.bad) {
            let name = &m.spec.name;
            let text = format!(
                "model '{name}': a loss or gradient is NaN or infinite; nothing was changed"
            );
            return Err(Error::new(Kind::NonFinite, text));
        }
        for (i, p) in self.params.iter().enumerate() {
            let good = !self.models[p.model].bad;
            self.own[i].active &= good;
            self.own[i].synced &= good;
        }
        let mean = self.options.accumulate == Accumulate::Mean && self.options.accumulation > 1;
        for m in &mut self.models {
            m.skipped += u64::from(m.bad);
            let scale = if mean { 1.0 / f64::from(m.window.max(1)) } else { 1.0 };
            m.grad_norm = m.grad_norm.sqrt() * scale;
        }
        Ok(())
    }

    /// Every model's rate at `step` ≥ 1 with `calls` ≥ 1 micro-batches seen.
    pub(in crate::optim) fn compute_rates(&mut self, step: u64, calls: u64) {
        let o = &self.options;
        let factor = schedule::factor(&o.schedule, &self.plateau, step, calls);
        let multiplier = o.multiplier.map_or(1.0, |m| paper_multiplier(&m, step, o.accumulation));
        let n = self.models.len() as f64;
        for (i, m) in self.models.iter_mut().enumerate() {
            let scale = match o.rate_scale {
                RateScale::None => 1.0,
                RateScale::Published => 0.5 + 0.5 * m.share,
                RateScale::Relative => 0.5 + 0.5 * n * m.share,
            };
            let convergence = self.tracker.factor(i);
            m.rates = Rates {
                base: o.learning_rate,
                schedule: factor,
                convergence,
                scale,
                multiplier,
                effective: o.learning_rate * factor * convergence * scale * multiplier,
            };
        }
    }

    fn ask_callback(&mut self, step: u64) -> Result<()> {
        let Some(callback) = &mut self.callback else { return Ok(()) };
        for m in &mut self.models {
            let rate = callback(&m.spec.name, step, m.rates.effective);
            if !(rate.is_finite() && rate >= 0.0) {
                return Err(Error::invalid(format!(
                    "model '{}': the learning-rate callback returned {rate} at step {step}",
                    m.spec.name
                )));
            }
            m.rates.effective = rate;
        }
        Ok(())
    }

    /// Factors and bounds on the own gradients: accumulation and clipping.
    fn scale_gradients(&mut self) {
        let mean = self.options.accumulate == Accumulate::Mean && self.options.accumulation > 1;
        for m in &mut self.models {
            m.clip = match self.options.clip {
                Clip::Norm(c) => (c / (m.grad_norm + 1e-6)).min(1.0),
                _ => 1.0,
            };
        }
        for (own, p) in self.own.iter_mut().zip(&self.params) {
            let m = &self.models[p.model];
            let share = if mean { 1.0 / f64::from(m.window.max(1)) } else { 1.0 };
            own.scale = (m.clip * share) as f32;
            own.bound = match self.options.clip {
                Clip::Value(c) => (c / share) as f32,
                _ => f32::INFINITY,
            };
        }
    }

    /// Every active parameter's coefficients; counts its step.
    fn coefficients(&mut self) {
        for (i, p) in self.params.iter_mut().enumerate() {
            if !self.own[i].active {
                continue;
            }
            p.steps += 1;
            let rate = self.models[p.model].rates.effective * p.lr_scale;
            self.coefs[i] = coefficient(&self.options, rate, p.weight_decay, p.steps, p.muon);
        }
    }

    /// How each group mixes and synchronises in this step.
    pub(in crate::optim) fn prepare_groups(&mut self, share: bool, sync: bool) {
        let beta = self.options.beta as f32;
        for b in 0..self.layout.bundles.len() {
            let bundle = self.layout.bundles[b];
            let mix = if share && bundle.n > 1 { self.mix(b, bundle) } else { Mix::Apart };
            let anchored = sync && bundle.n > 1 && self.anchor(bundle);
            let bundle = &mut self.layout.bundles[b];
            bundle.mix = mix;
            bundle.beta = if anchored { beta } else { 0.0 };
        }
    }

    fn mix(&mut self, b: usize, bundle: Bundle) -> Mix {
        let parts = &mut self.layout.parts[bundle.first..bundle.first + bundle.n];
        let active = parts.iter().filter(|p| self.own[p.param].active);
        let (k, total) = active.fold((0, 0.0), |(k, t), p| (k + 1, t + self.models[p.model].share));
        // The undivided sum of weightless members is 0 and still takes α of the own gradient.
        if k < 2 || (total <= 0.0 && self.options.rule != Rule::Sum) {
            return Mix::Apart;
        }
        if mixing_matrix::is_dense(&self.options.rule) {
            return self.mix_dense(b, bundle, k);
        }
        let divisor = if self.options.rule == Rule::Sum { 1.0 } else { total };
        let alpha = self.options.alpha;
        for part in parts {
            let scale = f64::from(self.own[part.param].scale);
            part.weight = (self.models[part.model].share * scale / divisor) as f32;
            part.own = ((1.0 - alpha) * scale) as f32;
        }
        Mix::Common { pull: alpha as f32 }
    }

    fn mix_dense(&mut self, b: usize, bundle: Bundle, k: usize) -> Mix {
        let w = &mut self.work;
        let parts = &self.layout.parts[bundle.first..bundle.first + bundle.n];
        let at = self.layout.squares[b];
        w.weights.clear();
        w.scales.clear();
        w.models.clear();
        let active = |i: &usize| self.own[parts[*i].param].active;
        for part in (0..bundle.n).filter(active).map(|i| &parts[i]) {
            w.weights.push(self.models[part.model].share);
            w.scales.push(f64::from(self.own[part.param].scale));
            w.models.push(part.model);
        }
        if mixing_matrix::needs_products(&self.options.rule) {
            for (a, i) in (0..bundle.n).filter(active).enumerate() {
                for (c, j) in (0..bundle.n).filter(active).enumerate() {
                    let product = self.gram[at + i.min(j) * bundle.n + i.max(j)];
                    w.gram[a * k + c] = product * w.scales[a] * w.scales[c];
                }
            }
        }
        let members = Members {
            weights: &w.weights,
            models: &w.models,
            gram: &w.gram[..k * k],
            influence: &self.influence,
            n_models: self.models.len(),
        };
        let (rule, alpha) = (&self.options.rule, self.options.alpha);
        mixing_matrix::matrix(rule, alpha, &members, &mut w.work[..k * k], &mut w.matrix[..k * k]);
        for i in 0..k * k {
            self.dense[at + i] = (w.matrix[i] * w.scales[i % k]) as f32;
        }
        Mix::Dense { at, k }
    }

    /// Sets the members' factors in the group's average; false when there is none.
    fn anchor(&mut self, bundle: Bundle) -> bool {
        let parts = &mut self.layout.parts[bundle.first..bundle.first + bundle.n];
        let synced = parts.iter().filter(|p| self.own[p.param].synced);
        let (k, total) = synced.fold((0, 0.0), |(k, t), p| (k + 1, t + self.models[p.model].share));
        if k < 2 || total <= 0.0 {
            return false;
        }
        for part in parts {
            part.anchor = (self.models[part.model].share / total) as f32;
        }
        true
    }

    /// Walks the memory once.
    pub(in crate::optim) fn sweep(&mut self, grouped: bool, updates: bool) -> Result<()> {
        let items = if grouped { &self.layout.grouped } else { &self.layout.flat };
        let narrow = (self.options.moments == MomentType::BF16)
            .then_some((self.step as u32).wrapping_mul(0x9e37_79b1));
        let sweep = Sweep {
            build: self.build,
            lanes: &self.lanes,
            own: &self.own,
            coefs: &self.coefs,
            parts: &self.layout.parts,
            bundles: &self.layout.bundles,
            dense: &self.dense,
            narrow,
            updates,
        };
        let scratch = &self.scratch;
        self.pool.run(items.len(), &|worker, i| {
            // SAFETY: the pool runs one item per worker at a time; items are disjoint; `bind`
            // vouches for the lanes.
            unsafe { sweep.run(scratch.of(worker), &items[i]) };
        })
    }

    /// Closes the window and moves the schedules on.
    fn finish(&mut self) {
        self.zero_grad();
        self.end_calls(self.calls);
        let calls = self.calls;
        self.models.iter_mut().for_each(|m| m.calls = calls);
    }

    /// Adds a model's bound gradients to its sums.
    pub(in crate::optim) fn add_gradients(&mut self, model: usize) -> Result<()> {
        let first = self.base[model];
        let n = self.models[model].spec.params.len();
        for (p, lane) in self.params[first..first + n].iter_mut().zip(&self.bound[first..]) {
            if p.trainable && !lane.g.is_null() && p.sum.is_none() {
                let shape = &self.models[model].spec.params[p.index].shape;
                p.sum = Some(Tensor::zeros(DType::F32, shape)?);
            }
        }
        let (bound, params, build) = (&self.bound, &mut self.params, self.build);
        let sums: Vec<(Slots<f32>, bool)> = params[first..first + n]
            .iter_mut()
            .map(|p| match &mut p.sum {
                Some(t) => (Slots(t.bytes_mut().as_mut_ptr().cast()), p.summed),
                None => (Slots(std::ptr::null_mut()), false),
            })
            .collect();
        let (items, scratch) = (&self.layout.flat, &self.scratch);
        self.pool.run(items.len(), &|worker, i| {
            let Item::Flat { param, start, len } = items[i] else { return };
            let Some((sum, more)) = param.checked_sub(first).and_then(|p| sums.get(p)) else {
                return;
            };
            let lane = &bound[param];
            if sum.0.is_null() || lane.g.is_null() {
                return;
            }
            // SAFETY: one item per worker; items are disjoint; `bind` vouches for the lanes.
            unsafe {
                let s = scratch.of(worker);
                add_stretch(build, lane, start, sum.at(start, len), *more, s);
            }
        })?;
        for (p, lane) in self.params[first..first + n].iter_mut().zip(&self.bound[first..]) {
            p.summed |= p.sum.is_some() && !lane.g.is_null();
        }
        Ok(())
    }
}

/// # Safety
/// The lane's gradient must be readable for the stretch.
unsafe fn add_stretch(
    build: crate::optim::kernel::Build,
    lane: &Lane,
    start: usize,
    sum: &mut [f32],
    more: bool,
    s: &mut Scratch,
) {
    for (i, sum) in sum.chunks_mut(BLOCK).enumerate() {
        let at = start + i * BLOCK;
        // SAFETY: the caller's promise.
        let g = unsafe { gradient(build, lane, f32::INFINITY, at, sum.len(), s.load()) };
        if more {
            crate::optim::kernel::weighted_sum::add_scaled(build, sum, 1.0, g);
        } else {
            sum.copy_from_slice(g);
        }
    }
}

/// Σ g² of a flat item, or all inner products of a tile.
///
/// # Safety
/// The item's partial sums must be its own; the lanes must be readable.
unsafe fn look(sweep: &Sweep<'_>, s: &mut Scratch, item: &Item, at: usize, out: &Slots<f64>) {
    match *item {
        Item::Flat { param, start, len } => {
            let active = sweep.own[param].active;
            // SAFETY: the caller's promise.
            unsafe {
                let lane = &sweep.lanes[param];
                let sum =
                    if active { square(sweep.build, lane, start, len, s.load()) } else { 0.0 };
                out.at(at, 1)[0] = sum;
            }
        }
        Item::Tile { bundle, tile } => {
            let n = sweep.bundles[bundle].n;
            // SAFETY: the caller's promise.
            unsafe { sweep.products(s, bundle, &tile, out.at(at, n * n)) };
        }
    }
}
