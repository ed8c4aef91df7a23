//! Micro-batches: losses are logged, gradients accumulated until the step.

use crate::error::{Error, Result};
use crate::optim::memory::param::ParamState;
use crate::optim::optimizer::Optimizer;
use crate::optim::options::GradientAccumulation;
use crate::optim::sweep::executor::grad_sum_slice;
use crate::tensor::{DType, Tensor};

/// What a backward pass weighs in the step's mean.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PassWeight {
    /// Its weight, such as its number of labels.
    pub total: f64,
    /// The part of it that the gradients at hand are of: less than all where other processes have
    /// the rest, whose gradients are added before the step.
    pub own: f64,
}

impl PassWeight {
    /// All of it is here.
    pub fn whole(weight: f64) -> Self {
        Self { total: weight, own: weight }
    }

    /// The part that is here; 1 where there is no weight at all.
    pub fn share(self) -> f32 {
        if self.own == self.total { 1.0 } else { (self.own / self.total) as f32 }
    }
}

impl Optimizer {
    /// Accumulates a finished backward pass: its loss, which is logged, and, with accumulation, the
    /// gradients that lie in the bound buffers. A non-finite loss marks the model for skipping.
    /// Without accumulation the gradients are read in place by [`Optimizer::step`], and a second
    /// micro-batch of a model before it is a `State` error.
    pub fn accumulate(&mut self, model: usize, loss: f64) -> Result<()> {
        self.accumulate_weighted(model, loss, 1.0)
    }

    /// As [`Optimizer::accumulate`], with the weight of the micro-batch in the step's mean, finite
    /// and ≥ 0, such as its number of labels. A weight other than 1 needs the option
    /// `gradient_accumulation` `weighted_mean`.
    pub fn accumulate_weighted(&mut self, model: usize, loss: f64, weight: f64) -> Result<()> {
        let m = self.models.of_caller(model)?;
        let (name, steps) = (&m.spec.name, self.options.gradient_accumulation_steps);
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(Error::invalid(format!(
                "model '{name}': the weight {weight} of a micro-batch must be finite and >= 0"
            )));
        }
        let weighted = self.options.gradient_accumulation == GradientAccumulation::WeightedMean;
        if weight != 1.0 && !weighted {
            return Err(Error::invalid(format!(
                "model '{name}': a micro-batch of weight {weight}, and the option \
                 gradient_accumulation is not weighted_mean"
            )));
        }
        if steps == 1 && m.accumulated > 0 {
            return Err(Error::state(format!(
                "model '{name}': a second micro-batch, and gradient_accumulation_steps is 1, so \
                 the step would read the last gradient alone; step first, or set the option to \
                 the number of micro-batches"
            )));
        }
        self.accumulate_pass(model, Some(loss), PassWeight::whole(weight))
    }

    /// As [`Optimizer::accumulate_weighted`], for gradients that a trainer computed: without a
    /// loss, for a micro-batch without labels, the adaptive rates see none; the weight counts with
    /// `weighted_mean` alone, and without accumulation the step reads the last gradient.
    pub(crate) fn accumulate_pass(
        &mut self,
        model: usize,
        loss: Option<f64>,
        weight: PassWeight,
    ) -> Result<()> {
        self.reserve_sums(model)?;
        let model = self.models.index(model)?;
        self.models.states[model].check_bound()?;
        self.check_fresh(model)?;
        let rates = &mut self.rates;
        let next = self.models.states[model].micro_batches.max(rates.ended) + 1;
        if next > rates.micro_batches {
            rates.end_micro_batches(&self.options, rates.micro_batches);
            rates.micro_batches = next;
        }
        self.models.states[model].micro_batches = next;
        if let Some(loss) = loss {
            self.note_loss(model, loss);
        }
        if self.options.gradient_accumulation_steps > 1 {
            self.params.gather_gradients(&mut self.executor.pool, Some(model))?;
            let weighted = self.options.gradient_accumulation == GradientAccumulation::WeightedMean;
            self.add_gradients(model, if weighted { weight.own as f32 } else { weight.share() })?;
            self.consume_gradients(model);
        }
        self.models.states[model].accumulated += 1;
        self.models.states[model].weight_sum += weight.total;
        Ok(())
    }

    /// Micro-batches of a model since the last step.
    pub(crate) fn n_accumulated(&self, model: usize) -> Result<u32> {
        Ok(self.models.of_caller(model)?.accumulated)
    }

    /// Fails when a gradient of the model may have been freed since it was read.
    fn check_fresh(&self, model: usize) -> Result<()> {
        let m = &self.models.states[model];
        if m.stable_gradients {
            return Ok(());
        }
        let first = self.models.first_param[model];
        let params = &self.params.states[first..first + m.spec.params.len()];
        let stale = |p: &&ParamState| p.trainable && p.len > 0 && !p.gradient.is_null() && !p.fresh;
        match params.iter().find(stale) {
            None => Ok(()),
            Some(p) => Err(Error::state(format!(
                "model '{}', parameter '{}': no gradient was set since the last one was read; set \
                 it in each step, or say that gradients stay where they are (stable_gradients)",
                m.spec.name, m.spec.params[p.index].name
            ))),
        }
    }

    /// Notes that a model's gradients were read.
    pub(super) fn consume_gradients(&mut self, model: usize) {
        let first = self.models.first_param[model];
        let n = self.models.states[model].spec.params.len();
        self.params.states[first..first + n].iter_mut().for_each(|p| p.fresh = false);
    }

    /// Logs a loss for the adaptive rates, for hosts that step without
    /// [`Optimizer::accumulate`]. Use one of the two for a micro-batch, not both.
    pub fn log_loss(&mut self, model: usize, loss: f64) -> Result<()> {
        let model = self.models.index(model)?;
        self.note_loss(model, loss);
        Ok(())
    }

    fn note_loss(&mut self, model: usize, loss: f64) {
        if loss.is_finite() {
            self.rates.adaptive.log(&self.options, model, loss);
        } else {
            self.models.states[model].non_finite_loss = true;
        }
    }

    /// Forgets the micro-batches since the last step. The bound gradients stay as they are.
    pub fn zero_grad(&mut self) {
        for p in &mut self.params.states {
            p.has_grad_sum = false;
        }
        self.models.clear_accumulated();
    }

    /// Makes the sums that [`Optimizer::accumulate`] of a model, by the caller's index, needs.
    pub(crate) fn reserve_sums(&mut self, model: usize) -> Result<()> {
        let model = self.models.index(model)?;
        if self.options.gradient_accumulation_steps == 1 {
            return Ok(());
        }
        let first = self.models.first_param[model];
        let specs = &self.models.states[model].spec.params;
        let states = &mut self.params.states[first..first + specs.len()];
        for (p, buffers) in states.iter_mut().zip(&self.params.buffers[first..]) {
            if p.trainable && p.local && !buffers.g.is_null() && p.grad_sum.is_none() {
                p.grad_sum = Some(Tensor::zeros(DType::F32, &specs[p.index].shape)?);
            }
        }
        Ok(())
    }

    /// The sums of micro-batches of a model, by the caller's index: one for each parameter, `None`
    /// where the step reads none.
    pub(crate) fn gradient_sums_mut(&mut self, model: usize) -> Result<Vec<Option<&mut [f32]>>> {
        let model = self.models.index(model)?;
        let first = self.models.first_param[model];
        let n = self.models.states[model].spec.params.len();
        let states = self.params.states[first..first + n].iter_mut();
        states.map(summed).collect()
    }

    /// Adds `weight` times a model's bound gradients to its sums.
    fn add_gradients(&mut self, model: usize, weight: f32) -> Result<()> {
        let first = self.models.first_param[model];
        let specs = &self.models.states[model].spec.params;
        let bound = &self.params.buffers;
        let states = &mut self.params.states[first..first + specs.len()];
        let sums = states.iter_mut().map(|p| (grad_sum_slice(&mut p.grad_sum), p.has_grad_sum));
        let sums: Vec<_> = sums.collect();
        self.executor.accumulate(&self.sharing.tiling, bound, (first, weight), &sums)?;
        for (p, buffers) in states.iter_mut().zip(&bound[first..]) {
            p.has_grad_sum |= p.grad_sum.is_some() && !buffers.g.is_null();
        }
        Ok(())
    }
}

/// The sum of a parameter's gradients since the last step.
fn summed(p: &mut ParamState) -> Result<Option<&mut [f32]>> {
    let sum = p.grad_sum.as_mut().filter(|_| p.has_grad_sum);
    sum.map(Tensor::as_mut_slice).transpose()
}
