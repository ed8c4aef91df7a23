//! The parameters of all models: their states, and the buffers that the sweep works on.

use crate::error::Result;
use crate::optim::memory::dense_copies::DenseCopies;
use crate::optim::memory::host_buffers::{StridedBuffers, check_gradient, check_value};
use crate::optim::memory::owned::OwnedTensors;
use crate::optim::memory::param::{Missing, ParamState};
use crate::optim::memory::strided::{MemoryUse, StridedArray, check_overlap};
use crate::optim::options::{Options, SharePolicy};
use crate::optim::plan::spec::ModelSpec;
use crate::optim::pool::Pool;
use crate::optim::sweep::buffers::ParamBuffers;

/// The parameters of all models, model after model.
#[derive(Default)]
pub(in crate::optim) struct Params {
    pub states: Vec<ParamState>,
    /// What the sweep works on, as bound.
    pub buffers: Vec<ParamBuffers>,
    copies: DenseCopies,
    /// Tensors of models that are bound to memory of the optimizer's own.
    pub owned: Vec<OwnedTensors>,
}

impl Params {
    /// Adds a model's parameters.
    pub fn add(&mut self, options: &Options, model: usize, spec: &mut ModelSpec) -> Result<()> {
        for index in 0..spec.params.len() {
            let state = ParamState::new(options, model, index, spec)?;
            self.buffers.push(ParamBuffers::none(state.len));
            self.states.push(state);
        }
        Ok(())
    }

    /// Binds a model's memory, from parameter `first` on. Everything is checked before anything
    /// changes.
    pub fn bind(
        &mut self,
        options: &Options,
        spec: &ModelSpec,
        first: usize,
        buffers: &[StridedBuffers],
    ) -> Result<()> {
        let check =
            |(i, buffers): (usize, &StridedBuffers)| -> Result<(StridedArray, StridedArray)> {
                let (p, trainable) = (&spec.params[i], self.states[first + i].trainable);
                check_value(&buffers.value, p, trainable)
                    .and_then(|value| Ok((value, check_gradient(&buffers.gradient, p)?)))
                    .map_err(|e| {
                        e.context(format!("model '{}', parameter '{}'", spec.name, p.name))
                    })
            };
        let arrays = buffers.iter().enumerate().map(check).collect::<Result<Vec<_>>>()?;
        let missing = arrays.iter().enumerate().map(|(i, (value, gradient))| {
            let state = &self.states[first + i];
            let shape = &spec.params[i].shape;
            let own = state.missing(options, shape, value, state.trainable, state.present())?;
            Ok((own, state.missing_gradient(gradient)?))
        });
        let missing = missing.collect::<Result<Vec<_>>>()?;
        let all = self.states[first..].iter_mut().zip(&mut self.buffers[first..]);
        for ((state, buffers), (arrays, (own, copy))) in all.zip(arrays.into_iter().zip(missing)) {
            (state.value, state.gradient) = arrays;
            state.fresh = true;
            state.take(own, buffers);
            state.bind_gradient(copy, buffers);
        }
        self.list_copies();
        Ok(())
    }

    /// Gives a parameter other memory for its values; returns the old.
    pub fn set_value(
        &mut self,
        options: &Options,
        spec: &ModelSpec,
        i: usize,
        value: StridedArray,
    ) -> Result<StridedArray> {
        let state = &mut self.states[i];
        let shape = &spec.params[state.index].shape;
        let missing = state.missing(options, shape, &value, state.trainable, state.present())?;
        let old = std::mem::replace(&mut state.value, value);
        state.take(missing, &mut self.buffers[i]);
        self.list_copies();
        Ok(old)
    }

    /// Gives a parameter another gradient.
    pub fn set_gradient(&mut self, i: usize, gradient: StridedArray) -> Result<()> {
        let state = &mut self.states[i];
        let missing = state.missing_gradient(&gradient)?;
        (state.gradient, state.fresh) = (gradient, true);
        let had = state.dense_gradient.is_some();
        state.bind_gradient(missing, &mut self.buffers[i]);
        if had != state.dense_gradient.is_some() {
            self.list_copies();
        }
        Ok(())
    }

    /// What a parameter lacks to be trained or not.
    pub fn missing(
        &self,
        options: &Options,
        spec: &ModelSpec,
        i: usize,
        trainable: bool,
    ) -> Result<Missing> {
        let state = &self.states[i];
        let shape = &spec.params[state.index].shape;
        state.missing(options, shape, &state.value, trainable, state.present())
    }

    /// Gives a parameter what was missing.
    pub fn take(&mut self, i: usize, missing: Missing) {
        self.states[i].take(missing, &mut self.buffers[i]);
    }

    /// Lists the dense copies anew, after parameters were bound or frozen.
    pub fn list_copies(&mut self) {
        self.copies = DenseCopies::new(&self.states);
    }

    /// Brings the dense values up to the host's.
    pub fn gather_values(&self, pool: &mut Pool) -> Result<()> {
        self.copies.gather_values(pool, &self.states, &self.buffers)
    }

    /// Writes the dense values of the parameters that changed to the host's memory.
    pub fn scatter_values(
        &self,
        pool: &mut Pool,
        changed: impl Fn(usize) -> bool + Sync,
    ) -> Result<()> {
        self.copies.scatter_values(pool, &self.states, &self.buffers, changed)
    }

    /// Copies the strided gradients of one model, or of all.
    pub fn gather_gradients(&self, pool: &mut Pool, model: Option<usize>) -> Result<()> {
        self.copies.gather_gradients(pool, &self.states, &self.buffers, model)
    }

    /// Fails when memory that a step writes is also another parameter's.
    pub fn check_memory<'a>(
        &self,
        options: &Options,
        spec_of: impl Fn(&ParamState) -> &'a ModelSpec,
        may_be_freed: impl Fn(&ParamState) -> bool,
    ) -> Result<()> {
        let paper = options.share_policy == SharePolicy::Paper;
        let uses = self.states.iter().flat_map(|p| {
            let spec = spec_of(p);
            let name =
                |what| format!("model '{}', {what}'{}'", spec.name, spec.params[p.index].name);
            let value = MemoryUse {
                array: &p.value,
                name: name("parameter "),
                written: p.trainable || paper,
            };
            let gradient =
                MemoryUse { array: &p.gradient, name: name("gradient of "), written: false };
            let gradient = (p.trainable && !may_be_freed(p)).then_some(gradient);
            [Some(value), gradient].into_iter().flatten()
        });
        check_overlap(uses.collect())
    }
}
