//! The optimizer's numbers set aside in memory, to be put back after steps that only try something.

use crate::error::{Error, Result};
use crate::optim::optimizer::Optimizer;
use crate::optim::optimizer::callback::RateCallback;
use crate::optim::optimizer::models::ModelState;
use crate::optim::rates::state::RateState;
use crate::optim::sweep::metrics::Metrics;
use crate::tensor::Tensor;

/// What [`Optimizer::snapshot`] sets aside: counters, rates, weights, moments, metrics.
pub(crate) struct OptimizerSnapshot {
    step: u64,
    learning_rate: f64,
    models: Vec<ModelState>,
    rates: RateState,
    params: Vec<ParamSnapshot>,
    undone_syncs: u64,
    metrics: Option<Metrics>,
}

struct ParamSnapshot {
    steps: u64,
    trainable: bool,
    /// Both moments, the maximum of the second, the values behind narrow ones.
    tensors: [Option<Tensor>; 4],
}

impl Optimizer {
    /// Sets everything aside that a step changes beside the host's memory. Between micro-batches
    /// of a step it is a `State` error.
    pub(crate) fn snapshot(&self) -> Result<OptimizerSnapshot> {
        if self.models.states.iter().any(|m| m.accumulated > 0) || self.sync.is_proposed() {
            return Err(Error::state("a step is under way; call step or zero_grad first"));
        }
        let copy = |tensor: &Option<Tensor>| tensor.as_ref().map(Tensor::copy).transpose();
        let params = self.params.states.iter().map(|p| {
            Ok(ParamSnapshot {
                steps: p.steps,
                trainable: p.trainable,
                tensors: [copy(&p.m)?, copy(&p.v)?, copy(&p.x)?, copy(&p.dense_value)?],
            })
        });
        Ok(OptimizerSnapshot {
            step: self.step,
            learning_rate: self.options.learning_rate,
            models: self.models.states.clone(),
            rates: self.rates.clone(),
            params: params.collect::<Result<_>>()?,
            undone_syncs: self.sync.undone,
            metrics: self.sharing.metrics.clone(),
        })
    }

    /// Puts back what was set aside. Memory that is bound stays bound.
    pub(crate) fn restore_snapshot(&mut self, saved: OptimizerSnapshot) {
        self.zero_grad();
        self.step = saved.step;
        self.options.learning_rate = saved.learning_rate;
        for (own, old) in self.models.states.iter_mut().zip(saved.models) {
            let (bound, stable_gradients) = (own.bound, own.stable_gradients);
            *own = ModelState { bound, stable_gradients, ..old };
        }
        self.rates = saved.rates;
        for (p, old) in self.params.states.iter_mut().zip(saved.params) {
            (p.steps, p.trainable) = (old.steps, old.trainable);
            let own = [&mut p.m, &mut p.v, &mut p.x, &mut p.dense_value];
            // The sweep knows their addresses, so their bytes change and they stay. What did not
            // exist is as it is made: zeros.
            for (own, old) in own.into_iter().zip(old.tensors) {
                match (own, old) {
                    (Some(own), Some(old)) => own.bytes_mut().copy_from_slice(old.bytes()),
                    (Some(own), None) => own.bytes_mut().fill(0),
                    (None, _) => {}
                }
            }
        }
        self.sync.undone = saved.undone_syncs;
        self.sharing.metrics = saved.metrics;
    }

    /// Sets the callback for rates and returns the one before.
    pub fn replace_rate_callback(
        &mut self,
        callback: Option<RateCallback>,
    ) -> Option<RateCallback> {
        std::mem::replace(&mut self.callbacks.rate, callback)
    }
}
