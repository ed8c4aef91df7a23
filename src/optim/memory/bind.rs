//! Binding the host's memory: what lies as dense f32 becomes a lane of the sweep in place, the rest
//! gets a dense copy in between (`pack.rs`).

use crate::error::{Error, Result};
use crate::optim::memory::params::{check_gradient, check_value, is_trainable};
use crate::optim::memory::strided::{Array, Claim, Place, check_apart};
use crate::optim::optimizer::{Optimizer, ParamState};
use crate::optim::options::{Method, MomentType, Policy};
use crate::optim::plan::spec::ParamSpec;
use crate::optim::sweep::pointers::Lane;
use crate::tensor::{DType, Tensor};

/// Where one parameter lies in the host's memory, dense and row-major.
#[derive(Clone, Copy, Debug)]
pub struct Buffers {
    /// The values, of the type in the parameter's spec and aligned to it; updated in place.
    pub param: *mut u8,
    /// The gradient, of the same shape; null when there is none.
    pub grad: *mut u8,
    /// Element type of the gradient: f32, bf16 or f16.
    pub grad_dtype: DType,
}

impl Buffers {
    /// An f32 parameter with an f32 gradient.
    pub fn new(param: *mut f32, grad: *mut f32) -> Self {
        Self { param: param.cast(), grad: grad.cast(), grad_dtype: DType::F32 }
    }
}

/// Where one parameter lies in the host's memory, in any layout without overlap.
#[derive(Clone, Debug)]
pub struct Places {
    /// The values, of the type in the parameter's spec: f32, or bf16 or f16, for which the
    /// optimizer keeps f32 masters.
    pub value: Place,
    /// The gradient, of the same shape: f32, bf16 or f16; null when there is none.
    pub gradient: Place,
}

impl Optimizer {
    /// As [`Optimizer::bind_places`], for dense, row-major memory.
    ///
    /// # Safety
    /// As [`Optimizer::bind_places`].
    pub unsafe fn bind(&mut self, model: usize, buffers: Vec<Buffers>) -> Result<()> {
        let spec = &self.models[self.index(model)?].spec;
        self.check_count(model, buffers.len())?;
        let place = |(b, p): (Buffers, &ParamSpec)| Places {
            value: Place::dense(b.param, p.dtype),
            gradient: Place::dense(b.grad, b.grad_dtype),
        };
        let places = buffers.into_iter().zip(&spec.params).map(place).collect();
        // SAFETY: the caller's promise.
        unsafe { self.bind_places(model, places) }
    }

    /// What the optimizer was told of a parameter.
    pub fn param_spec(&self, model: usize, param: usize) -> Result<&ParamSpec> {
        let p = &self.params[self.param_index(model, param)?];
        Ok(&self.models[p.model].spec.params[p.index])
    }

    fn check_count(&self, model: usize, n: usize) -> Result<()> {
        let spec = &self.models[self.index(model)?].spec;
        if n == spec.params.len() {
            return Ok(());
        }
        let (name, wanted) = (&spec.name, spec.params.len());
        Err(Error::invalid(format!("model '{name}': {n} buffers for {wanted} parameters")))
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
    pub unsafe fn bind_places(&mut self, model: usize, places: Vec<Places>) -> Result<()> {
        self.check_count(model, places.len())?;
        let model = self.index(model)?;
        let (spec, base) = (&self.models[model].spec, self.base[model]);
        let check = |(i, places): (usize, &Places)| -> Result<(Array, Array)> {
            let (p, trainable) = (&spec.params[i], self.params[base + i].trainable);
            check_value(&places.value, p, trainable)
                .and_then(|value| Ok((value, check_gradient(&places.gradient, p)?)))
                .map_err(|e| e.context(format!("model '{}', parameter '{}'", spec.name, p.name)))
        };
        let arrays = places.iter().enumerate().map(check).collect::<Result<Vec<_>>>()?;
        for (i, (value, gradient)) in arrays.into_iter().enumerate() {
            self.params[base + i].value = value;
            self.params[base + i].gradient = gradient;
            self.allocate(base + i)?;
            self.place_gradient(base + i)?;
        }
        self.models[model].bound = true;
        self.lanes.clone_from(&self.bound);
        self.list_pieces();
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
        unsafe { self.set_gradient_place(model, param, &Place::dense(grad, dtype)) }
    }

    /// As [`Optimizer::set_gradient`], in any layout without overlap.
    ///
    /// # Safety
    /// As [`Optimizer::bind`].
    pub unsafe fn set_gradient_place(
        &mut self,
        model: usize,
        param: usize,
        place: &Place,
    ) -> Result<()> {
        let i = self.param_index(model, param)?;
        let p = &self.params[i];
        let spec = &self.models[p.model].spec;
        let name = &spec.params[p.index].name;
        let array = check_gradient(place, &spec.params[p.index])
            .map_err(|e| e.context(format!("model '{}', parameter '{name}'", spec.name)))?;
        self.params[i].gradient = array;
        let had = self.params[i].collected.is_some();
        self.place_gradient(i)?;
        if had != self.params[i].collected.is_some() {
            self.list_pieces();
        }
        Ok(())
    }

    /// The lane's gradient: the host's memory, or a copy of it when it is not dense.
    fn place_gradient(&mut self, i: usize) -> Result<()> {
        let p = &mut self.params[i];
        let lane = &mut self.bound[i];
        lane.g_type = p.gradient.dtype;
        if p.gradient.is_dense() || p.gradient.is_null() {
            p.collected = None;
            lane.g = p.gradient.data;
            return Ok(());
        }
        let fits = p.collected.as_ref().is_some_and(|t| t.dtype() == p.gradient.dtype);
        if !fits {
            p.collected = Some(Tensor::zeros(p.gradient.dtype, &[p.len])?);
        }
        lane.g = pointer(&mut p.collected);
        Ok(())
    }

    /// Moments, and a dense copy of values that need one, for a parameter that has none yet.
    pub(in crate::optim) fn allocate(&mut self, i: usize) -> Result<()> {
        let p = &mut self.params[i];
        let shape = &self.models[p.model].spec.params[p.index].shape;
        if p.trainable && p.m.is_none() {
            let dtype = dtype_of(self.options.moments);
            let dtype = if p.muon { DType::F32 } else { dtype };
            let zeros = |wanted: bool| wanted.then(|| Tensor::zeros(dtype, shape)).transpose();
            let adam = matches!(self.options.method, Method::AdamW | Method::Muon);
            p.m = zeros(true)?;
            p.v = zeros(adam)?;
            p.x = zeros(self.options.amsgrad && adam && !p.muon)?;
        }
        let moved = p.trainable || self.options.policy == Policy::Paper;
        if p.needs_packing() && moved && p.packed.is_none() {
            // Zero is the master of +0 and of nothing else: the first gathering takes the host's.
            p.packed = Some(Tensor::zeros(DType::F32, shape)?);
        }
        let direct = !p.needs_packing() && is_trainable(p.value.dtype);
        if direct {
            p.packed = None;
        }
        let lane = &mut self.bound[i];
        lane.p = if direct { p.value.data.cast() } else { pointer(&mut p.packed).cast() };
        lane.m = pointer(&mut p.m);
        lane.v = pointer(&mut p.v);
        lane.x = pointer(&mut p.x);
        Ok(())
    }

    /// Fails when memory that a step writes is also another parameter's. Gradients may share
    /// memory with each other, and frozen values, too.
    pub fn check_memory(&self) -> Result<()> {
        let paper = self.options.policy == Policy::Paper;
        let claims = self.params.iter().flat_map(|p| {
            let spec = &self.models[p.model].spec;
            let name =
                |what| format!("model '{}', {what}'{}'", spec.name, spec.params[p.index].name);
            let value =
                Claim { array: &p.value, name: name("parameter "), written: p.trainable || paper };
            let gradient = Claim { array: &p.gradient, name: name("gradient of "), written: false };
            [Some(value), p.trainable.then_some(gradient)].into_iter().flatten()
        });
        check_apart(claims.collect())
    }
}

impl ParamState {
    /// Whether the sweep cannot work on the host's memory itself.
    pub fn needs_packing(&self) -> bool {
        let dense = self.value.dtype == DType::F32 && self.value.is_dense();
        !self.value.is_null() && is_trainable(self.value.dtype) && !dense
    }

    /// Whether the host's values hold fewer digits than the step works with.
    pub fn is_narrow(&self) -> bool {
        matches!(self.value.dtype, DType::BF16 | DType::F16)
    }

    /// Whether the packed values are masters.
    pub fn has_master(&self) -> bool {
        self.packed.is_some() && self.is_narrow()
    }
}

fn pointer(tensor: &mut Option<Tensor>) -> *mut u8 {
    tensor.as_mut().map_or(std::ptr::null_mut(), |t| t.bytes_mut().as_mut_ptr())
}

pub(in crate::optim) fn dtype_of(moments: MomentType) -> DType {
    match moments {
        MomentType::F32 => DType::F32,
        MomentType::BF16 => DType::BF16,
    }
}

pub(in crate::optim) fn no_memory(len: usize) -> Lane {
    Lane {
        p: std::ptr::null_mut(),
        g: std::ptr::null(),
        g_type: DType::F32,
        m: std::ptr::null_mut(),
        v: std::ptr::null_mut(),
        x: std::ptr::null_mut(),
        len,
    }
}
