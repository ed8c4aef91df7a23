//! Micro-batches: losses are logged, gradients accumulated until the step.

use crate::error::Result;
use crate::optim::optimizer::Optimizer;
use crate::optim::sweep::executor::grad_sum_slice;
use crate::tensor::{DType, Tensor};

impl Optimizer {
    /// Accumulates a finished backward pass: its loss, which is logged, and, with accumulation, the
    /// gradients that lie in the bound buffers. A non-finite loss marks the model for skipping.
    /// Without accumulation the gradients are read in place by [`Optimizer::step`].
    pub fn accumulate(&mut self, model: usize, loss: f64) -> Result<()> {
        let model = self.models.index(model)?;
        self.models.states[model].check_bound()?;
        let rates = &mut self.rates;
        let next = self.models.states[model].micro_batches.max(rates.ended) + 1;
        if next > rates.micro_batches {
            rates.end_micro_batches(&self.options, rates.micro_batches);
            rates.micro_batches = next;
        }
        self.models.states[model].micro_batches = next;
        self.note_loss(model, loss);
        if self.options.gradient_accumulation_steps > 1 {
            self.params.gather_gradients(&mut self.executor.pool, Some(model))?;
            self.add_gradients(model)?;
        }
        self.models.states[model].accumulated += 1;
        Ok(())
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

    /// Adds a model's bound gradients to its sums.
    fn add_gradients(&mut self, model: usize) -> Result<()> {
        let first = self.models.first_param[model];
        let specs = &self.models.states[model].spec.params;
        let bound = &self.params.buffers;
        let states = &mut self.params.states[first..first + specs.len()];
        for (p, buffers) in states.iter_mut().zip(&bound[first..]) {
            if p.trainable && !buffers.g.is_null() && p.grad_sum.is_none() {
                p.grad_sum = Some(Tensor::zeros(DType::F32, &specs[p.index].shape)?);
            }
        }
        let sums = states.iter_mut().map(|p| (grad_sum_slice(&mut p.grad_sum), p.has_grad_sum));
        let sums: Vec<_> = sums.collect();
        self.executor.accumulate(&self.sharing.tiling, bound, first, &sums)?;
        for (p, buffers) in states.iter_mut().zip(&bound[first..]) {
            p.has_grad_sum |= p.grad_sum.is_some() && !buffers.g.is_null();
        }
        Ok(())
    }
}
