//! The models' state: their declarations, weights, rates, micro-batches and skipped steps.
//!
//! Models are kept in order of name, whatever order they were given in; `order` maps the
//! caller's indices.

use crate::error::{Error, Result};
use crate::optim::options::{GradientAccumulation, NonFinite, Options, ParamGroup};
use crate::optim::plan::spec::ModelSpec;
use crate::optim::rates::factors::Rates;
use crate::optim::rates::state::RateState;

/// What a step decides about a model before it changes anything, and hosts can read.
#[derive(Clone, Copy, Default)]
pub(in crate::optim) struct Decision {
    rates: Rates,
    skipped_last: bool,
    large: bool,
    grad_norm: f64,
    clip_factor: f64,
}

/// One model's numbers.
#[derive(Clone)]
pub(in crate::optim) struct ModelState {
    pub spec: ModelSpec,
    /// The weight as given; `weight` may follow validations.
    pub base_weight: f64,
    pub weight: f64,
    /// The weight divided by the sum of all weights.
    pub normalised_weight: f64,
    pub rates: Rates,
    /// Micro-batches ever, and since the last step.
    pub micro_batches: u64,
    pub accumulated: u32,
    /// Sum of the weights of the micro-batches since the last step.
    pub weight_sum: f64,
    /// A loss since the last step was not finite.
    pub non_finite_loss: bool,
    /// The last step skipped it for a non-finite loss or gradient, or a moment beyond f32.
    pub skipped_last: bool,
    /// A gradient or moment is so large that moments are watched.
    pub large: bool,
    /// Steps that skipped it.
    pub skipped: u64,
    /// L2 norm of the last step's gradient, before clipping.
    pub grad_norm: f64,
    /// Factor that clips the gradient by its norm.
    pub clip_factor: f64,
    /// Whether it has memory.
    pub bound: bool,
    /// Whether the host's gradients stay where they are from step to step.
    pub stable_gradients: bool,
    /// The last validation score.
    pub score: Option<f64>,
    /// The decision of the step before, while one is under way.
    pub before: Decision,
}

impl ModelState {
    fn new(spec: ModelSpec) -> Self {
        Self {
            base_weight: spec.weight,
            weight: spec.weight,
            normalised_weight: 0.0,
            rates: Rates::default(),
            micro_batches: 0,
            accumulated: 0,
            weight_sum: 0.0,
            non_finite_loss: false,
            skipped_last: false,
            large: false,
            skipped: 0,
            grad_norm: 0.0,
            clip_factor: 1.0,
            bound: false,
            stable_gradients: true,
            score: None,
            before: Decision::default(),
            spec,
        }
    }

    /// Notes the last step's decision, for a step that may fail.
    pub fn keep_decision(&mut self) {
        let &mut Self { rates, skipped_last, large, grad_norm, clip_factor, .. } = self;
        self.before = Decision { rates, skipped_last, large, grad_norm, clip_factor };
    }

    /// Goes back to what was noted.
    pub fn restore_decision(&mut self) {
        let Decision { rates, skipped_last, large, grad_norm, clip_factor } = self.before;
        (self.rates, self.skipped_last, self.large) = (rates, skipped_last, large);
        (self.grad_norm, self.clip_factor) = (grad_norm, clip_factor);
    }

    /// Factor of the accumulated gradient: 1 over the number of micro-batches, or the sum of their
    /// weights, where they are averaged. Of micro-batches without weight the sum is 0.
    pub fn accumulation_factor(&self, options: &Options) -> f64 {
        let divisor = match options.gradient_accumulation {
            _ if options.gradient_accumulation_steps == 1 => 1.0,
            GradientAccumulation::Sum => 1.0,
            GradientAccumulation::Mean => f64::from(self.accumulated),
            GradientAccumulation::WeightedMean => self.weight_sum,
        };
        if divisor > 0.0 { 1.0 / divisor } else { 1.0 }
    }

    /// Fails when the model has no memory.
    pub fn check_bound(&self) -> Result<()> {
        if self.bound {
            return Ok(());
        }
        let name = &self.spec.name;
        Err(Error::state(format!("model '{name}' has no memory; call bind first")))
    }

    /// Whether it is known before the gradients are read that the step skips the model.
    pub fn is_skipped_early(&self, options: &Options) -> bool {
        self.non_finite_loss && options.non_finite != NonFinite::Ignore
    }
}

/// All models, in order of name.
pub(in crate::optim) struct Models {
    pub states: Vec<ModelState>,
    /// The caller's model index to ours.
    pub order: Vec<usize>,
    /// Index of each model's first parameter among all parameters.
    pub first_param: Vec<usize>,
}

impl Models {
    /// Sorts the models by name. Fails when names are not unique or weights negative.
    pub fn new(models: Vec<ModelSpec>) -> Result<Self> {
        let mut ranked: Vec<(usize, ModelSpec)> = models.into_iter().enumerate().collect();
        ranked.sort_by(|a, b| a.1.name.cmp(&b.1.name));
        let mut order = vec![0; ranked.len()];
        ranked.iter().enumerate().for_each(|(ours, (theirs, _))| order[*theirs] = ours);
        let specs: Vec<ModelSpec> = ranked.into_iter().map(|(_, s)| s).collect();
        check_names(&specs)?;
        let (mut states, mut first_param, mut n_params) = (Vec::new(), Vec::new(), 0);
        for spec in specs {
            if !(spec.weight.is_finite() && spec.weight >= 0.0) {
                return Err(Error::invalid(format!(
                    "model '{}': weight {} must be finite and >= 0",
                    spec.name, spec.weight
                )));
            }
            first_param.push(n_params);
            n_params += spec.params.len();
            states.push(ModelState::new(spec));
        }
        let mut models = Self { states, order, first_param };
        models.normalise_weights()?;
        Ok(models)
    }

    /// Our index of the caller's model.
    pub fn index(&self, model: usize) -> Result<usize> {
        self.order.get(model).copied().ok_or_else(|| {
            Error::invalid(format!("model {model} of {}; counted from 0", self.order.len()))
        })
    }

    /// The caller's model.
    pub fn of_caller(&self, model: usize) -> Result<&ModelState> {
        Ok(&self.states[self.index(model)?])
    }

    /// Index among all parameters of the caller's parameter.
    pub fn param_index(&self, model: usize, param: usize) -> Result<usize> {
        let model = self.index(model)?;
        let spec = &self.states[model].spec;
        if param >= spec.params.len() {
            return Err(Error::invalid(format!(
                "model '{}': parameter index {param} of {}",
                spec.name,
                spec.params.len()
            )));
        }
        Ok(self.first_param[model] + param)
    }

    /// The models as plan and sweep see them: trainable parameters are f32 whatever the host's
    /// memory holds.
    pub fn specs_in_f32(&self) -> Vec<ModelSpec> {
        self.states.iter().map(|m| m.spec.in_f32()).collect()
    }

    /// Divides the weights by their sum.
    pub fn normalise_weights(&mut self) -> Result<()> {
        let total: f64 = self.states.iter().map(|m| m.weight).sum();
        if self.states.is_empty() {
            return Ok(());
        }
        if total <= 0.0 || !total.is_finite() {
            return Err(Error::invalid("the models' weights sum to 0; one must be positive"));
        }
        self.states.iter_mut().for_each(|m| m.normalised_weight = m.weight / total);
        Ok(())
    }

    /// Every model's rate at `step` ≥ 1 with `micro_batches` ≥ 1 seen.
    pub fn compute_rates(
        &mut self,
        options: &Options,
        rates: &RateState,
        step: u64,
        micro_batches: u64,
    ) {
        let shared = rates.of_step(options, step, micro_batches);
        let n = self.states.len();
        for (i, m) in self.states.iter_mut().enumerate() {
            m.rates = rates.of_model(options, shared, i, m.normalised_weight, n);
        }
    }

    /// Forgets the micro-batches since the last step.
    pub fn clear_accumulated(&mut self) {
        for m in &mut self.states {
            m.accumulated = 0;
            m.weight_sum = 0.0;
            m.non_finite_loss = false;
        }
    }
}

impl Models {
    /// Refuses a group that names a model which is not there.
    pub fn check_named(&self, groups: &[ParamGroup]) -> Result<()> {
        let is_there = |name: &str| self.states.iter().any(|m| m.spec.name == name);
        for (i, group) in groups.iter().enumerate() {
            if !group.model.contains(['*', '?']) && !is_there(&group.model) {
                let names: Vec<&str> = self.states.iter().map(|m| m.spec.name.as_str()).collect();
                return Err(Error::not_found(format!(
                    "param_groups[{i}]: no model '{}'; there are '{}'",
                    group.model,
                    names.join("', '")
                )));
            }
        }
        Ok(())
    }
}

fn check_names(specs: &[ModelSpec]) -> Result<()> {
    if let Some(pair) = specs.windows(2).find(|w| w[0].name == w[1].name) {
        return Err(Error::invalid(format!("two models are named '{}'", pair[0].name)));
    }
    for spec in specs {
        let mut names: Vec<&str> = spec.params.iter().map(|p| p.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|w| w[0] == w[1]) {
            return Err(Error::invalid(format!(
                "model '{}': two parameters are named '{}'",
                spec.name, pair[0]
            )));
        }
    }
    Ok(())
}
