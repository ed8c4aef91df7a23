//! Low-rank adapters (LoRA; Hu et al. 2021, arXiv 2106.09685): beside the frozen matrix of a linear
//! layer, the product of two small ones is trained.
//!
//! ```text
//! y = x W + b + α/r · dropout(x) Aᵀ Bᵀ      A [r, in], B [out, r]
//! ```
//!
//! As in the published implementation (`peft`), A is uniform in ±1/√in, which is Kaiming's bound
//! with a = √5, and B is zero: at the start the model gives what it gave. *whole module*: one that
//! is trained as it is, such as a new head (`modules_to_save`).

mod merge;
mod options;
mod rewrite;
mod targets;

pub use options::{AdapterOptions, AdapterSource};
pub(in crate::train) use targets::NameMatch;

use std::collections::HashMap;

use self::rewrite::{Rewrite, Site, take_out};
use self::targets::{Target, choose, find_targets, whole_modules};
use crate::error::{Context, Error, Result};
use crate::models;
use crate::onnx::{Graph, TensorData, ValueId, compat};
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
    /// Parameters of modules that are trained whole.
    pub whole_parameters: Vec<String>,
}

/// What is known of the model that gets adapters.
pub(in crate::train) struct Base<'a> {
    /// Whether a pattern matches a parameter under one of its names.
    pub matches: NameMatch<'a>,
    /// Modules that are newly initialised parts of a head.
    pub fresh_head: Vec<String>,
    pub seed: u64,
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
        self.is_empty() || self.owns(name) || self.whole_parameters.iter().any(|w| w == name)
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

/// Rewrites a graph so that the options' matrices have adapters.
///
/// # Errors
/// `NotFound` for a pattern that matches nothing, with what could match; `Unsupported` for a
/// parameter that cannot have an adapter; `InvalidArgument`; `OutOfMemory`.
pub(in crate::train) fn attach(
    graph: &mut Graph,
    options: &AdapterOptions,
    base: &Base,
) -> Result<Adapters> {
    options.check()?;
    prepare(graph)?;
    let found = find_parameters(graph);
    let patterns = options.modules_to_save.as_ref().unwrap_or(&base.fresh_head);
    let (_, whole_parameters) = whole_modules(patterns, &found, base.matches)?;
    let targets = find_targets(graph, &found);
    let patterns = &options.target_modules;
    let chosen = choose(targets, patterns, &found, base.matches, &whole_parameters)?;
    let mut adapters =
        Adapters { list: Vec::new(), rank: options.rank, alpha: options.alpha, whole_parameters };
    let mut rewrite = Rewrite::new(graph, options.dropout)?;
    for target in &chosen {
        let [a, b] = fresh(graph, target, options.rank, base.seed)
            .context(|| format!("adapter of '{}', rank {}", target.name, options.rank))?;
        let sites = rewrite.add(graph, target, (a, b), adapters.scale())?;
        let name = |v: ValueId| graph.value_name(v).to_owned();
        adapters.list.push(Adapter {
            weight: target.name.clone(),
            a: name(a),
            b: name(b),
            layout: target.layout,
            sites,
        });
    }
    graph.sort()?;
    Ok(adapters)
}

/// Forms that a rewrite can rely on: no calls of functions around products, and an operator set in
/// which a dropout's ratio is an input.
fn prepare(graph: &mut Graph) -> Result<()> {
    if !graph.functions.is_empty() {
        graph.inline_functions()?;
    }
    compat::raise_opset(graph)
}

/// A and B as initializers.
fn fresh(graph: &mut Graph, target: &Target, rank: usize, seed: u64) -> Result<[ValueId; 2]> {
    let name = |part: &str| format!("{}.{part}.weight", target.module);
    let (a, b) = (name("lora_A"), name("lora_B"));
    let bound = 1.0 / (target.n_in.max(1) as f64).sqrt();
    let drawn = models::uniform(seed, &a, &[rank, target.n_in], bound)?;
    let zeros = models::uniform(seed, &b, &[target.n_out, rank], 0.0)?;
    Ok([
        graph.add_initializer(&a, in_dtype(drawn, target.dtype)?)?,
        graph.add_initializer(&b, in_dtype(zeros, target.dtype)?)?,
    ])
}

/// f32 values in the element type of the graph.
fn in_dtype(data: TensorData, dtype: DType) -> Result<TensorData> {
    match dtype {
        DType::F64 => TensorData::from_slice(data.shape(), &data.to_f64s()?),
        _ => Ok(data),
    }
}
