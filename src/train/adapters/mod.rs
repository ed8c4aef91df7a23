//! Low-rank adapters (LoRA; Hu et al. 2021, arXiv 2106.09685): beside the frozen matrix of a linear
//! layer, the product of two small ones is trained.
//!
//! ```text
//! y = x W + b + α/r · dropout(x) Aᵀ Bᵀ      A [r, in], B [out, r]
//! ```
//!
//! As in the published implementation (`peft`), A is uniform in ±1/√in, which is Kaiming's bound
//! with a = √5, and B is zero: the model begins as what it was. *whole module*: one that is
//! trained as it is, such as a new head (`modules_to_save`).

mod choice;
mod files;
mod merge;
mod options;
mod rewrite;
mod saved;
mod targets;

pub(in crate::train) use choice::Base;
pub(in crate::train) use files::Home;
pub use options::{AdapterOptions, AdapterSource};

use std::collections::HashMap;
use std::fmt;

use self::choice::{Choice, Pair};
use self::rewrite::{Rewrite, Site, take_out};
use self::targets::{Target, find_targets, shortest_names};
use crate::error::{Context, Error, Result};
use crate::models;
use crate::onnx::{Graph, TensorData, compat};
use crate::optim::{Usage, WeightLayout, WeightOrBias};
use crate::tensor::{DType, Tensor};
use crate::train::graphs::find_parameters;
use crate::train::parameter::Parameter;

/// One adapter: the names of its parameters and of the matrix beside it.
pub(in crate::train) struct Adapter {
    pub weight: String,
    pub a: String,
    pub b: String,
    layout: WeightLayout,
    sites: Vec<Site>,
}

/// A model's adapters; without any the model is trained as usual.
#[derive(Default)]
pub(in crate::train) struct Adapters {
    pub list: Vec<Adapter>,
    pub rank: usize,
    pub alpha: f64,
    pub dropout: f32,
    /// Names that tell the modules with an adapter from other linear layers.
    pub target_modules: Vec<String>,
    /// Modules that are trained whole, and their parameters.
    pub whole: Vec<String>,
    pub whole_parameters: Vec<String>,
    /// Those of the parameters that were read with the adapters.
    pub read: Vec<String>,
}

impl Adapters {
    /// Whether the model has any.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// α / r.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank.max(1) as f64
    }

    /// Whether a parameter is one of an adapter.
    pub fn owns(&self, name: &str) -> bool {
        self.list.iter().any(|a| a.a == name || a.b == name)
    }

    /// Whether a parameter is trained, as far as the adapters decide.
    pub fn trains(&self, name: &str) -> bool {
        self.is_empty() || self.owns(name) || self.is_whole(name)
    }

    /// Whether a parameter is of a module that is trained whole.
    pub fn is_whole(&self, name: &str) -> bool {
        self.whole_parameters.iter().any(|w| w == name)
    }

    /// The graph as it was without adapters; values keep their ids.
    pub fn taken_out(&self, graph: &Graph) -> Result<Graph> {
        let mut graph = graph.clone();
        if self.is_empty() {
            return Ok(graph);
        }
        take_out(&mut graph, self.list.iter().flat_map(|a| &a.sites))?;
        Ok(graph)
    }

    /// Gives adapters the use of the matrix beside them.
    pub fn add_usages(&self, parameters: &[Parameter], uses: &mut [Option<Usage>]) {
        let index: HashMap<&str, usize> =
            parameters.iter().enumerate().map(|(i, p)| (p.name.as_str(), i)).collect();
        let at = |name: &str| index.get(name).copied();
        for adapter in &self.list {
            let Some(usage) = at(&adapter.weight).and_then(|i| uses[i]) else { continue };
            let parts = [(&adapter.a, WeightOrBias::LoraA), (&adapter.b, WeightOrBias::LoraB)];
            for (name, part) in parts {
                if let Some(i) = at(name) {
                    let layout = Some(WeightLayout::OutIn);
                    uses[i] = Some(Usage { part, layout, ..usage });
                }
            }
        }
    }

    /// The matrices beside adapters with these added to them, `W + α/r · B A`, by name.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn merged(&self, parameters: &[Parameter]) -> Result<HashMap<String, Tensor>> {
        let value = |name: &str| {
            let found = parameters.iter().find(|p| p.name == name).map(|p| &p.value);
            found.ok_or_else(|| Error::internal(format!("no parameter '{name}'")))
        };
        let merged = self.list.iter().map(|adapter| {
            let (a, b) = (value(&adapter.a)?, value(&adapter.b)?);
            let weight = value(&adapter.weight)?;
            let merged = merge::merged(weight, a, b, self.scale(), adapter.layout)?;
            Ok((adapter.weight.clone(), merged))
        });
        merged.collect()
    }
}

/// What decides about the results besides the parameters.
impl fmt::Display for Adapters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list.len() {
            0 => f.write_str("none"),
            _ => {
                let Self { rank, alpha, dropout, .. } = self;
                write!(f, "rank {rank}, alpha {alpha}, dropout {dropout}")
            }
        }
    }
}

/// Rewrites a graph so that the matrices that a source names have adapters.
///
/// # Errors
/// `NotFound` for a pattern that matches nothing, with what could match; `Unsupported` for a
/// parameter that cannot have an adapter; `InvalidArgument`; `OutOfMemory`; those of reading files.
pub(in crate::train) fn attach(
    graph: &mut Graph,
    source: &AdapterSource,
    base: &Base,
) -> Result<Adapters> {
    prepare(graph)?;
    let found = find_parameters(graph);
    let targets = find_targets(graph, &found);
    let modules: Vec<String> = targets.iter().map(|t| t.module.clone()).collect();
    let Choice { rank, alpha, dropout, targets, whole, whole_parameters, read } = match source {
        AdapterSource::New(options) => choice::of_options(options, base, &found, targets)?,
        AdapterSource::Saved(dir) => saved::of_directory(dir, graph, base, &found, targets)?,
    };
    let chosen: Vec<&str> = targets.iter().map(|(t, _)| t.module.as_str()).collect();
    let target_modules = shortest_names(&chosen, &modules);
    let mut adapters = Adapters { rank, alpha, dropout, target_modules, ..Adapters::default() };
    let mut rewrite = Rewrite::new(graph, dropout)?;
    for (target, pair) in targets {
        let place = || format!("adapter of '{}', rank {rank}", target.name);
        let values = pair.map_or_else(|| fresh(&target, rank, base.seed), Ok).context(place)?;
        let scale = adapters.scale();
        adapters.list.push(add(graph, &mut rewrite, &target, values, scale).context(place)?);
    }
    graph.sort()?;
    for (value, data) in read {
        adapters.read.push(graph.value_name(value).to_owned());
        let dtype = graph.value(value).ty.dtype.unwrap_or(DType::F32);
        graph.set_initializer(value, in_dtype(data, dtype)?);
    }
    Ok(Adapters { whole, whole_parameters, ..adapters })
}

/// Forms that a rewrite can rely on: no calls of functions around products, and an operator set in
/// which a dropout's ratio is an input.
fn prepare(graph: &mut Graph) -> Result<()> {
    if !graph.functions.is_empty() {
        graph.inline_functions()?;
    }
    compat::raise_opset(graph)
}

/// A as published, and B of zeros.
fn fresh(target: &Target, rank: usize, seed: u64) -> Result<Pair> {
    let [a, b] = names(target);
    let bound = 1.0 / (target.n_in.max(1) as f64).sqrt();
    Ok(Pair {
        a: models::uniform(seed, &a, &[rank, target.n_in], bound)?,
        b: models::uniform(seed, &b, &[target.n_out, rank], 0.0)?,
    })
}

fn names(target: &Target) -> [String; 2] {
    ["lora_A", "lora_B"].map(|part| format!("{}.{part}.weight", target.module))
}

/// Puts A and B into the graph as initializers, and adds their product.
fn add(
    graph: &mut Graph,
    rewrite: &mut Rewrite,
    target: &Target,
    values: Pair,
    scale: f64,
) -> Result<Adapter> {
    let [a, b] = names(target);
    let values = (
        graph.add_initializer(&a, in_dtype(values.a, target.dtype)?)?,
        graph.add_initializer(&b, in_dtype(values.b, target.dtype)?)?,
    );
    let sites = rewrite.add(graph, target, values, scale)?;
    Ok(Adapter { weight: target.name.clone(), a, b, layout: target.layout, sites })
}

/// f32 values in the element type of the graph.
fn in_dtype(data: TensorData, dtype: DType) -> Result<TensorData> {
    match dtype {
        DType::F64 => TensorData::from_slice(data.shape(), &data.to_f64s()?),
        _ => Ok(data),
    }
}
