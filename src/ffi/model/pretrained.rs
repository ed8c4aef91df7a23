//! What a model takes from a directory with weights: head, weights, names of classes.

use std::ffi::c_char;

use super::create::mmopt_model;
use crate::error::{Error, Result};
use crate::ffi::core::args::{flag, slice, text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard};
use crate::train::{ModelOptions, Source};

fn check_source(model: &ModelOptions, what: &str) -> Result<()> {
    match model.source {
        Source::Directory(_) | Source::Config(_) => Ok(()),
        _ => Err(Error::invalid(format!("model '{}': an ONNX graph has no {what}", model.name))),
    }
}

/// Sets whether the head is newly initialised although the directory has one of this task: for
/// another number of classes, or for other classes. Default 0: a head of another number of classes
/// fails the trainer's creation with SHAPE. The body keeps its weights, BERT's pooler included;
/// class names of the directory are dropped.
///
/// Errors: INVALID_ARGUMENT for any other number, and for ONNX graphs.
///
/// @param[in,out] model exclusive access.
/// @param fresh 0 or 1.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_set_fresh_head(
    model: *mut mmopt_model,
    fresh: u32,
) -> *mut mmopt_error {
    // SAFETY: a model of the caller, by the header's contract.
    guard(|| unsafe {
        let mut model = exclusive(model)?;
        let fresh = flag(fresh, "fresh")?;
        check_source(&model, "head that could be replaced")?;
        model.fresh_head = fresh;
        Ok(())
    })
}

/// Sets whether all weights of a model from a directory are newly initialised, by the seed of
/// mmopt_model_set_seed, and none are read. Default 0: a directory with config.json alone fails
/// the trainer's creation with NOT_FOUND. The trainer's log tells it as a warning.
///
/// Errors: INVALID_ARGUMENT for any other number, and for ONNX graphs.
///
/// @param[in,out] model exclusive access.
/// @param fresh 0 or 1.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_set_fresh_weights(
    model: *mut mmopt_model,
    fresh: u32,
) -> *mut mmopt_error {
    // SAFETY: a model of the caller, by the header's contract.
    guard(|| unsafe {
        let mut model = exclusive(model)?;
        let fresh = flag(fresh, "fresh")?;
        check_source(&model, "weights that could be left out")?;
        model.fresh_weights = fresh;
        Ok(())
    })
}

/// Names the classes or tags, in the order of their ids, e.g. those of a corpus. Saved models have
/// the names in config.json (id2label, label2id), where predictions take them from. Default: the
/// configuration's names, where it is of the same task and number of classes, else LABEL_0,
/// LABEL_1, ....
///
/// Errors: INVALID_ARGUMENT for a name that is empty, not UTF-8 or occurs twice, for n 0, and for
/// ONNX graphs. The trainer's creation fails for another number of names than of classes, and for
/// the names of a trained head in another order.
///
/// @param[in,out] model exclusive access.
/// @param[in] names n names, UTF-8; copied.
/// @param n how many names.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_model_set_label_names(
    model: *mut mmopt_model,
    names: *const *const c_char,
    n: usize,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut model = exclusive(model)?;
        let pointers = slice(names, n, "names")?.iter().enumerate();
        let one = |(i, &p): (usize, &*const c_char)| text(p, &format!("names[{i}]"));
        let names: Vec<&str> = pointers.map(one).collect::<Result<_>>()?;
        check_source(&model, "place for the names of classes")?;
        check_names(&names)?;
        model.label_names = names.into_iter().map(str::to_owned).collect();
        Ok(())
    })
}

fn check_names(names: &[&str]) -> Result<()> {
    if names.is_empty() {
        return Err(Error::invalid("n is 0; give a name for each class"));
    }
    let mut seen = std::collections::HashSet::new();
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(Error::invalid(format!("names[{i}] is empty")));
        }
        if !seen.insert(name) {
            return Err(Error::invalid(format!("names[{i}], '{name}', occurs twice")));
        }
    }
    Ok(())
}
