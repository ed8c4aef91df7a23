//! Binding the host's memory: the sweep works in place on what lies as dense f32; the rest gets a
//! dense copy in between.

use crate::error::{Error, Result, count};
use crate::optim::memory::host_buffers::{Buffers, StridedBuffers, check_gradient, check_value};
use crate::optim::memory::param::{ParamState, not_trainable};
use crate::optim::memory::strided::StridedBuffer;
use crate::optim::optimizer::Optimizer;
use crate::optim::options::ParamGroup;
use crate::optim::plan::pattern::matches;
use crate::optim::plan::spec::{ParamSpec, is_trainable};
use crate::tensor::DType;

impl Optimizer {
    /// As [`Optimizer::bind_strided`], for dense, row-major memory.
    ///
    /// # Safety
    /// As [`Optimizer::bind_strided`].
    pub unsafe fn bind(&mut self, model: usize, buffers: Vec<Buffers>) -> Result<()> {
        let spec = &self.models.of_caller(model)?.spec;
        self.check_count(model, buffers.len())?;
        let strided = |(b, p): (Buffers, &ParamSpec)| StridedBuffers {
            value: StridedBuffer::dense(b.param, p.dtype),
            gradient: StridedBuffer::dense(b.grad, b.grad_dtype),
        };
        let buffers = buffers.into_iter().zip(&spec.params).map(strided).collect();
        // SAFETY: the caller's promise.
        unsafe { self.bind_strided(model, buffers) }
    }

    /// How a parameter was declared.
    pub fn param_spec(&self, model: usize, param: usize) -> Result<&ParamSpec> {
        let p = &self.params.states[self.models.param_index(model, param)?];
        Ok(&self.models.states[p.model].spec.params[p.index])
    }

    fn check_count(&self, model: usize, n: usize) -> Result<()> {
        let spec = &self.models.of_caller(model)?.spec;
        if n == spec.params.len() {
            return Ok(());
        }
        let (name, wanted) = (&spec.name, spec.params.len());
        Err(Error::invalid(format!(
            "model '{name}': {} for {}",
            count(n, "buffer"),
            count(wanted, "parameter")
        )))
    }

    /// Binds a model's memory, one entry per parameter, in the order of its spec. A frozen
    /// parameter may have null values if no policy synchronises it. Allocates the moments, 4
    /// bytes an element for values that are not dense f32, and a copy of gradients that are not
    /// dense. Nothing is read or written yet.
    ///
    /// # Safety
    /// Until the optimizer is dropped or the model bound again, every non-null pointer must be
    /// valid for the parameter's elements, nobody else may use the values or gradients while a
    /// method of the optimizer runs, and no memory of one parameter may be part of another's.
    pub unsafe fn bind_strided(
        &mut self,
        model: usize,
        buffers: Vec<StridedBuffers>,
    ) -> Result<()> {
        self.check_count(model, buffers.len())?;
        let model = self.models.index(model)?;
        let (state, first) = (&mut self.models.states[model], self.models.first_param[model]);
        self.params.bind(&self.options, &state.spec, first, &buffers)?;
        state.bound = true;
        self.executor.buffers.clone_from(&self.params.buffers);
        Ok(())
    }

    /// Gives a parameter another dense gradient, or none (null), for the coming steps.
    ///
    /// # Safety
    /// As [`Optimizer::bind`].
    pub unsafe fn set_gradient(
        &mut self,
        model: usize,
        param: usize,
        grad: *mut u8,
        dtype: DType,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.set_strided_gradient(model, param, &StridedBuffer::dense(grad, dtype)) }
    }

    /// As [`Optimizer::set_gradient`], with any strides that do not overlap.
    ///
    /// # Safety
    /// As [`Optimizer::bind`].
    pub unsafe fn set_strided_gradient(
        &mut self,
        model: usize,
        param: usize,
        buffer: &StridedBuffer,
    ) -> Result<()> {
        let i = self.models.param_index(model, param)?;
        let p = &self.params.states[i];
        let spec = &self.models.states[p.model].spec;
        let name = &spec.params[p.index].name;
        let array = check_gradient(buffer, &spec.params[p.index])
            .map_err(|e| e.context(format!("model '{}', parameter '{name}'", spec.name)))?;
        self.params.set_gradient(i, array)
    }

    /// Whether a model's gradients stay where they are from step to step; true at first. With false
    /// every gradient that is not null must be set again, by [`Optimizer::set_gradient`], after it
    /// was read: by the step, or with accumulation by [`Optimizer::accumulate`]. Else `accumulate`
    /// is a `State` error, as a host that frees its gradients leaves the address of the last one.
    pub fn set_stable_gradients(&mut self, model: usize, stable: bool) -> Result<()> {
        let model = self.models.index(model)?;
        self.models.states[model].stable_gradients = stable;
        Ok(())
    }

    /// Gives a parameter other memory for its values, of the same type, which holds them already;
    /// moments and counters stay. Fails, and changes nothing, when a step would write there what is
    /// another's.
    ///
    /// # Safety
    /// As [`Optimizer::bind_strided`].
    pub unsafe fn set_value(
        &mut self,
        model: usize,
        param: usize,
        buffer: &StridedBuffer,
    ) -> Result<()> {
        let i = self.models.param_index(model, param)?;
        let p = &self.params.states[i];
        let spec = &self.models.states[p.model].spec;
        let name = &spec.params[p.index].name;
        let place = || format!("model '{}', parameter '{name}'", spec.name);
        self.models.states[p.model].check_bound()?;
        let array = check_value(buffer, &spec.params[p.index], p.trainable)
            .map_err(|e| e.context(place()))?;
        let old = self.params.set_value(&self.options, spec, i, array)?;
        let checked = self.check_memory();
        if checked.is_err() {
            let spec = &self.models.states[self.params.states[i].model].spec;
            self.params.set_value(&self.options, spec, i, old)?;
        }
        self.executor.buffers.clone_from(&self.params.buffers);
        checked
    }

    /// Fails when memory that a step writes is also another parameter's. Gradients may share
    /// memory with each other, and frozen values, too.
    pub fn check_memory(&self) -> Result<()> {
        let models = &self.models.states;
        let freed = |p: &ParamState| !p.fresh && !models[p.model].stable_gradients;
        self.params.check_memory(&self.options, |p| &models[p.model].spec, freed)
    }

    /// Freezes or trains all parameters whose name matches `pattern` in models whose name
    /// matches `model`; returns how many changed. Moments of frozen parameters are kept.
    pub fn set_trainable(&mut self, model: &str, pattern: &str, trainable: bool) -> Result<usize> {
        let mut changed = Vec::new();
        for (i, p) in self.params.states.iter().enumerate() {
            let state = &self.models.states[p.model];
            let (spec, q) = (&state.spec, &state.spec.params[p.index]);
            let hit = matches(model, &spec.name) && matches(pattern, &q.name);
            if hit && p.trainable != trainable {
                if trainable && !is_trainable(q.dtype) {
                    return Err(not_trainable(&spec.name, &q.name, q.dtype));
                }
                if trainable && state.bound && p.len > 0 && p.value.is_null() {
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
        let now = |i: usize| self.params.states[i].trainable;
        let plan = self.plan_for(|i| if changed.contains(&i) { trainable } else { now(i) })?;
        let bound = |i: &&usize| self.models.states[self.params.states[**i].model].bound;
        let missing = changed.iter().filter(bound).map(|&i| {
            let spec = &self.models.states[self.params.states[i].model].spec;
            Ok((i, self.params.missing(&self.options, spec, i, trainable)?))
        });
        let missing = missing.collect::<Result<Vec<_>>>()?;
        for &i in &changed {
            let p = &mut self.params.states[i];
            p.trainable = trainable;
            self.models.states[p.model].spec.params[p.index].trainable = trainable;
        }
        missing.into_iter().for_each(|(i, missing)| self.params.take(i, missing));
        let group = ParamGroup {
            pattern: pattern.into(),
            model: model.into(),
            trainable: Some(trainable),
            ..ParamGroup::default()
        };
        self.options.param_groups.push(group);
        self.params.list_copies();
        self.take_plan(plan);
        Ok(changed.len())
    }
}
