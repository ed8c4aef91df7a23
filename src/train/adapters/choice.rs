//! What adapters a model gets, decided but not yet in its graph.

use super::options::AdapterOptions;
use super::targets::{NameMatch, Target, choose, whole_modules};
use crate::error::Result;
use crate::onnx::{TensorData, ValueId};
use crate::train::graphs::GraphParameter;

/// What is known of the model that gets adapters.
pub(in crate::train) struct Base<'a> {
    /// Whether a pattern matches a parameter under one of its names.
    pub matches: NameMatch<'a>,
    /// Modules that are newly initialised parts of a head.
    pub fresh_head: Vec<String>,
    /// Second names of parameters in the published state dict: alias, parameter.
    pub tied: &'a [(String, String)],
    pub seed: u64,
}

/// A and B, in f32.
pub(super) struct Pair {
    pub a: TensorData,
    pub b: TensorData,
}

/// Targets with what they get, and modules that are trained whole.
pub(super) struct Choice {
    pub rank: usize,
    pub alpha: f64,
    pub dropout: f32,
    /// Without a pair it is newly initialised.
    pub targets: Vec<(Target, Option<Pair>)>,
    pub whole: Vec<String>,
    pub whole_parameters: Vec<String>,
    /// Values of whole modules that were read, in f32.
    pub read: Vec<(ValueId, TensorData)>,
}

/// What options ask for.
pub(super) fn of_options(
    options: &AdapterOptions,
    base: &Base,
    found: &[GraphParameter],
    targets: Vec<Target>,
) -> Result<Choice> {
    options.check()?;
    let patterns = options.modules_to_save.as_ref().unwrap_or(&base.fresh_head);
    let (whole, whole_parameters) = whole_modules(patterns, found, base.matches)?;
    let patterns = &options.target_modules;
    let chosen = choose(targets, patterns, found, base.matches, &whole_parameters)?;
    Ok(Choice {
        rank: options.rank,
        alpha: options.alpha,
        dropout: options.dropout,
        targets: chosen.into_iter().map(|t| (t, None)).collect(),
        whole,
        whole_parameters,
        read: Vec::new(),
    })
}
