//! Names and shapes of parameters as C texts and arrays, which live as long as their object.

use std::collections::HashMap;
use std::ffi::{CStr, CString};

use super::args::c_string;
use super::tensor::mmopt_tensor;
use crate::error::{Error, Result};
use crate::optim::ModelSpec;
use crate::tensor::Tensor;
use crate::train::Trainer;

/// Names and shapes of one model's parameters in C's form.
#[derive(Clone, Default)]
pub(crate) struct Names {
    names: Vec<CString>,
    shapes: Vec<Vec<i64>>,
    /// Where the parameter of each name stands.
    positions: HashMap<String, usize>,
}

impl Names {
    pub fn of_trainer(trainer: &Trainer, model: usize) -> Result<Self> {
        Self::of(trainer.parameters(model)?.map(|p| (p.name, p.shape)))
    }

    pub fn of_host(model: &ModelSpec) -> Result<Self> {
        Self::of(model.params.iter().map(|p| (&*p.name, &*p.shape)))
    }

    fn of<'a>(parameters: impl Iterator<Item = (&'a str, &'a [usize])>) -> Result<Self> {
        let mut all = Self::default();
        for (name, shape) in parameters {
            all.positions.insert(name.to_owned(), all.names.len());
            all.names.push(c_string(name, "a parameter's name")?);
            all.shapes.push(shape.iter().map(|&d| d as i64).collect());
        }
        Ok(all)
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// A parameter's name and dimensions.
    pub fn described(&self, parameter: usize) -> Option<(&CStr, &[i64])> {
        Some((self.names.get(parameter)?, self.shapes.get(parameter)?))
    }

    pub fn name(&self, parameter: usize) -> Result<&str> {
        let n = self.names.len();
        let found = self.names.get(parameter).and_then(|name| name.to_str().ok());
        found.ok_or_else(|| Error::invalid(format!("parameter {parameter} of {n}")))
    }

    pub fn position(&self, name: &str) -> Result<usize> {
        let at = self.positions.get(name).copied();
        at.ok_or_else(|| Error::not_found(format!("no parameter '{name}'")))
    }

    pub fn view(&self, parameter: usize, tensor: &Tensor) -> mmopt_tensor {
        mmopt_tensor {
            name: self.names[parameter].as_ptr(),
            dtype: tensor.dtype() as u32,
            reserved: 0,
            shape: self.shapes[parameter].as_ptr(),
            n_dims: self.shapes[parameter].len(),
            data: tensor.bytes().as_ptr().cast(),
            n_bytes: tensor.bytes().len(),
        }
    }
}
