//! Moments that would overflow: a large finite gradient must not turn a weight NaN for good.
//!
//! Moments are sums of gradients and of their squares, so they stay far from the end of f32 while
//! every gradient's norm is at most [`LARGE`]. Only from a larger one on, until the moments have
//! decayed again, is each parameter's largest element of gradient and moments searched for. What a
//! moment can become at most is bounded by the formula of the update in f64; a model with a bound
//! beyond f32 takes no part in the step, as if its gradient were infinite.

use crate::error::{Error, Kind, Result};
use crate::optim::kernel::coefficient::{Coefficients, Formula, coefficients};
use crate::optim::optimizer::Optimizer;
use crate::optim::optimizer::peers::Peers;
use crate::optim::options::{MomentDtype, NonFinite};
use crate::optim::sweep::inspect::Largest;

/// A norm of a gradient, and first moments, that are looked at closely; second moments from its
/// square on.
const LARGE: f64 = 1e15;
/// The greatest bfloat16, which stochastic rounding does not exceed, less some roundings.
const LIMIT: f64 = 3.38e38;

impl Optimizer {
    /// The largest elements of gradients and moments, where a model needs a closer look.
    pub(super) fn find_large(&mut self) -> Result<Option<Vec<Largest>>> {
        if self.options.non_finite == NonFinite::Ignore {
            return Ok(None);
        }
        let executor = &self.executor;
        for (i, p) in self.params.states.iter().enumerate() {
            let step = &executor.param_steps[i];
            let norm = executor.grad_squares[i].sqrt() * f64::from(step.grad_scale);
            self.models.states[p.model].large |= step.active && norm > LARGE;
        }
        if !self.models.states.iter().any(|m| m.large) {
            return Ok(None);
        }
        let is_bf16 = self.options.moment_dtype == MomentDtype::BF16;
        self.executor.largest(&self.sharing, is_bf16).map(Some)
    }

    /// Takes models out of the step whose moments it would make infinite.
    pub(super) fn skip_overflow(&mut self, share: bool, largest: &[Largest]) -> Result<()> {
        self.models.states.iter_mut().for_each(|m| m.large = false);
        // What a model's own gradient does, then what those that are left do to each other.
        self.skip_beyond(largest, false)?;
        if share { self.skip_beyond(largest, true) } else { Ok(()) }
    }

    /// Of each parameter the numbers of the process that has its moments.
    pub(super) fn add_largest(&self, largest: &mut [Largest], peers: &mut dyn Peers) -> Result<()> {
        let mut sums = crate::memory::room(4 * largest.len())?;
        for (p, l) in self.params.states.iter().zip(largest.iter()) {
            let own = [l.g, l.m, l.v, l.p].map(f64::from);
            sums.extend(if p.state_here && self.process == p.owner { own } else { [0.0; 4] });
        }
        peers.add(&mut sums)?;
        for (l, sums) in largest.iter_mut().zip(sums.as_chunks::<4>().0) {
            let [g, m, v, p] = sums.map(|sum| sum as f32);
            *l = Largest { g, m, v, p };
        }
        Ok(())
    }

    fn skip_beyond(&mut self, largest: &[Largest], shared: bool) -> Result<()> {
        let bounds = self.gradient_bounds(shared, largest);
        let mut first = None;
        for (i, p) in self.params.states.iter().enumerate() {
            let model = &mut self.models.states[p.model];
            if !self.executor.param_steps[i].active {
                // It may have large moments that wait for its next step.
                let held = f64::from(largest[i].m).max(f64::from(largest[i].v).sqrt());
                model.large |= held > LARGE;
                continue;
            }
            let rate = model.rates.effective * p.lr_scale;
            let c = coefficients(&self.options, rate, p.weight_decay, p.steps + 1, p.muon);
            let (m, v) = bound(&c, bounds[i], &largest[i]);
            model.large |= m.max(v.sqrt()) > LARGE;
            if bounds[i].max(m).max(v) >= LIMIT && !model.skipped_last {
                model.skipped_last = true;
                first.get_or_insert((p.model, p.index));
            }
        }
        let Some((model, param)) = first else { return Ok(()) };
        let spec = &self.models.states[model].spec;
        if self.options.non_finite == NonFinite::Fail {
            let text = format!(
                "model '{}', parameter '{}': the gradient is finite, but so large that a moment \
                 would overflow; nothing was changed",
                spec.name, spec.params[param].name
            );
            return Err(Error::new(Kind::NonFinite, text));
        }
        self.take_out_skipped();
        Ok(())
    }

    /// A bound on |g| of each parameter as the update sees it, after clipping and sharing. Whatever
    /// the rule, a mixed gradient is no longer than all members' together.
    fn gradient_bounds(&self, shared: bool, largest: &[Largest]) -> Vec<f64> {
        let (steps, squares) = (&self.executor.param_steps, &self.executor.grad_squares);
        let own = |i: usize| {
            let clipped = f64::from(largest[i].g).min(f64::from(steps[i].clip_value));
            clipped * f64::from(steps[i].grad_scale)
        };
        let mut bounds: Vec<f64> = (0..steps.len()).map(own).collect();
        if !shared {
            return bounds;
        }
        let tiling = &self.sharing.tiling;
        for group in &tiling.groups {
            let members = &tiling.members[group.first..group.first + group.n];
            let active = || members.iter().map(|m| m.param).filter(|&i| steps[i].active);
            let norm = |i: usize| squares[i].sqrt() * f64::from(steps[i].grad_scale);
            if active().count() > 1 {
                let total: f64 = active().map(norm).sum();
                active().for_each(|i| bounds[i] = bounds[i].max(total));
            }
        }
        bounds
    }
}

/// What both moments are at most after a step with a gradient of at most `g`.
fn bound(c: &Coefficients, g: f64, now: &Largest) -> (f64, f64) {
    let [m, v, p] = [now.m, now.v, now.p].map(f64::from);
    let [b1, r1, b2, r2] = [c.beta1, c.rest1, c.beta2, c.rest2].map(f64::from);
    match c.formula {
        Formula::AdamW | Formula::AmsGrad => (b1 * m + r1 * g, b2 * v + r2 * g * g),
        Formula::Sgd { nesterov } => {
            let g = g + f64::from(c.decay) * p;
            let m = b1 * m + g;
            (m, if nesterov { g + b1 * m } else { 0.0 })
        }
        Formula::Lion => (b2 * m + r2 * g, 0.0),
        Formula::Muon { nesterov } => {
            let m = b1 * m + g;
            (m, if nesterov { g + b1 * m } else { 0.0 })
        }
    }
}
