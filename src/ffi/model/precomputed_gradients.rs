//! Models that compute their own gradients.

use std::ffi::c_char;
use std::path::PathBuf;

use super::create::mmopt_model;
use crate::error::{Context, Error, Result};
use crate::ffi::core::args::{optional_text, slice, text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard};
use crate::ffi::core::structs::{Options, init, options};
use crate::train::graphs::PrecomputedGradients;
use crate::train::{GradientGraph, Source};

/// A parameter and the output of the graph that holds its gradient.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_gradient_output {
    /// An initializer of the graph, or a float input whose dimensions are all fixed.
    pub parameter: *const c_char,
    /// An output of the same shape and element type.
    pub output: *const c_char,
}

/// The outputs of a graph that computes its own gradients. mmopt_precomputed_gradient_options_init
/// fills in the defaults. All of it is copied.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_precomputed_gradient_options {
    /// sizeof(mmopt_precomputed_gradient_options).
    pub struct_size: usize,
    /// The output that holds the loss, a float with one element. Required.
    pub loss: *const c_char,
    /// The parameters to train and their gradients, at least one. All other tensors are frozen.
    pub gradients: *const mmopt_gradient_output,
    /// How many.
    pub n_gradients: usize,
    /// Outputs that mmopt_trainer_evaluate returns. Inputs that they do not depend on are labels,
    /// which evaluation does not need. NULL (default): none.
    pub logits: *const *const c_char,
    /// How many.
    pub n_logits: usize,
    /// A safetensors file with the values of parameters that are inputs of the graph, under their
    /// names; NULL (default): all are initializers.
    pub weights: *const c_char,
}

impl Default for mmopt_precomputed_gradient_options {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            loss: std::ptr::null(),
            gradients: std::ptr::null(),
            n_gradients: 0,
            logits: std::ptr::null(),
            n_logits: 0,
            weights: std::ptr::null(),
        }
    }
}

// SAFETY: repr(C), begins with its size, numbers and raw pointers only.
unsafe impl Options for mmopt_precomputed_gradient_options {
    const NAME: &'static str = "mmopt_precomputed_gradient_options";
}

/// Fills in the defaults. NULL is harmless.
///
/// @param[out] options filled with the defaults; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_precomputed_gradient_options_init(
    options: *mut mmopt_precomputed_gradient_options,
) {
    // SAFETY: the caller's struct, by the header's contract.
    unsafe { init(options) };
}

unsafe fn gradient_graph(o: &mmopt_precomputed_gradient_options) -> Result<GradientGraph> {
    // SAFETY: the caller's texts and arrays, by the header's contract.
    unsafe {
        let pairs = slice(o.gradients, o.n_gradients, "gradients")?;
        let gradients = pairs.iter().enumerate().map(|(i, pair)| {
            let place = || format!("gradients[{i}]");
            let parameter = text(pair.parameter, "parameter").context(place)?;
            let output = text(pair.output, "output").context(place)?;
            Ok((parameter.to_owned(), output.to_owned()))
        });
        let logits = slice(o.logits, o.n_logits, "logits")?.iter().enumerate();
        let logits = logits.map(|(i, &p)| Ok(text(p, &format!("logits[{i}]"))?.to_owned()));
        Ok(GradientGraph {
            outputs: PrecomputedGradients {
                loss: text(o.loss, "loss")?.to_owned(),
                gradients: gradients.collect::<Result<_>>()?,
                logits: logits.collect::<Result<_>>()?,
            },
            weights: optional_text(o.weights, "weights")?.map(PathBuf::from),
        })
    }
}

/// Says that the model's ONNX graph computes its own gradients: the library reads the named outputs
/// and differentiates nothing. All inputs but the parameters are inputs of a batch. Such a model
/// needs no loss, is not repaired on import, and cannot take part in mutual learning.
///
/// Errors: INVALID_ARGUMENT for a model that is no ONNX graph, and when loss or a name is NULL. The
/// trainer's creation checks the names: NOT_FOUND for a name that the graph does not have,
/// INVALID_ARGUMENT for a parameter without a value. The first batch checks the shapes: SHAPE for a
/// gradient that does not fit its parameter.
///
/// @param[in,out] model exclusive access.
/// @param[in] options required.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_set_precomputed_gradients(
    model: *mut mmopt_model,
    options: *const mmopt_precomputed_gradient_options,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut model = exclusive(model)?;
        let given = gradient_graph(&self::options(options)?)?;
        if !matches!(model.source, Source::Onnx(_) | Source::OnnxBytes(_)) {
            return Err(Error::invalid("only an ONNX graph can bring its own gradients"));
        }
        model.gradients = Some(given);
        Ok(())
    })
}
