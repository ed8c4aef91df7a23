//! From a source to a graph that can be trained: read, fixed, its parameters moved out.
//!
//! *alias*: another name of a parameter, under which patterns find it too: its name in the file,
//! or that of a copy that was tied to it.

use std::collections::HashMap;

use super::fixes::{
    DuplicateWeightPair, find_duplicate_weights, find_shared_initializers,
    split_running_statistics, split_shared_initializers, tie_duplicate_weights,
};
use super::half::HalfTypes;
use super::names::{Renamed, restore_names};
use super::report::{
    ModelReport, ReportedDuplicates, ReportedNonTrainable, ReportedParameter,
    ReportedSharedInitializer,
};
use crate::checkpoint::weights::Weights;
use crate::error::{Context, Error, Result};
use crate::models::{self, BuiltModel, Config, LoadOptions, PaddingRow, Task};
use crate::onnx::{Graph, ValueId};
use crate::optim::matches as matches_glob;
use crate::tensor::{DType, Tensor};
use crate::train::adapters::{self, Adapters, Base};
use crate::train::graphs::{
    GraphParameter, NonTrainableTensor, Origin, PrecomputedGradients, find_non_trainable,
    find_parameters, hold_in_f32, make_inputs, may_be_trained, outputs_in_f32, parameter_data,
};
use crate::train::options::{
    DuplicateWeights, GradientGraph, ImportFixes, ModelOptions, SharedInitializers, Source,
};
use crate::train::parameter::Parameter;

/// What a model in published form has besides its graph.
pub(in crate::train) struct Published {
    pub config: Config,
    pub task: Task,
    /// Whether all parameters were drawn, and none was read.
    pub fresh: bool,
    padding: Vec<PaddingRow>,
    /// Second names in the published state dict: alias, parameter.
    pub tied: Vec<(String, String)>,
    /// The parameters of the head.
    head: Vec<String>,
    /// Newly initialised parameters.
    missing: Vec<String>,
    /// Weights in the file that are not read.
    unused: Vec<String>,
    /// Parameters that are stored in f16 or bf16.
    stored: HashMap<String, DType>,
}

impl Published {
    /// The padding row of a table that is the head's matrix, too: there it gets the head's
    /// gradient.
    fn tied_padding_row(&self, name: &str) -> Option<usize> {
        let is_head = self.tied.iter().any(|(_, source)| source == name);
        let row = self.padding.iter().find(|row| row.parameter == name).map(|row| row.row);
        row.filter(|_| is_head)
    }

    /// The modules of the head that are newly initialised: the outermost ones that hold nothing
    /// else.
    fn fresh_head(&self, body: &[&str]) -> Vec<String> {
        let fresh = self.head.iter().filter(|name| self.missing.contains(name));
        let module = |name: &String| {
            let outer = name.split('.').next().unwrap_or(name);
            let in_body = |n: &&str| n.split('.').next() == Some(outer) && !self.has_head(n);
            match body.iter().any(in_body) {
                true => {
                    name.rsplit_once('.').map_or(name.as_str(), |(module, _)| module).to_owned()
                }
                false => outer.to_owned(),
            }
        };
        let mut modules: Vec<String> = fresh.map(module).collect();
        modules.dedup();
        modules
    }

    fn has_head(&self, name: &str) -> bool {
        self.head.iter().any(|h| h == name)
    }
}

/// A model that was read.
pub(in crate::train) struct Loaded {
    /// The forward graph; its parameters are inputs without data.
    pub graph: Graph,
    pub published: Option<Published>,
    /// The parameters' values in the graph.
    pub ids: Vec<ValueId>,
    pub parameters: Vec<Parameter>,
    pub adapters: Adapters,
    pub report: ModelReport,
    /// The half types that an ONNX graph had.
    pub half: HalfTypes,
}

/// Reads a model and moves its parameters out of the graph.
pub(in crate::train) fn load(options: &ModelOptions) -> Result<Loaded> {
    let (mut graph, published) = read(options)?;
    let found = analyse(&mut graph, published.as_ref(), options)?;
    let (ids, mut parameters) = take_parameters(&mut graph, &found.candidates, options)?;
    let consumers = graph.consumers();
    for (id, parameter) in ids.iter().zip(&mut parameters) {
        let uses = &consumers[id.index()];
        let looks_up = |&(node, slot): &_| slot == 0 && graph.node(node).op == "Gather";
        parameter.looked_up = uses.iter().all(looks_up);
    }
    let Analysis { adapters, report, half, .. } = found;
    Ok(Loaded { graph, published, ids, parameters, adapters, report, half })
}

impl ModelOptions {
    /// What a trainer would find in this model and do about it. Needs no ONNX Runtime and does not
    /// copy the weights of an ONNX source.
    ///
    /// # Errors
    /// What reading the model gives; `NotFound` for patterns that match nothing.
    pub fn inspect(&self) -> Result<ModelReport> {
        let inspect = || {
            let (mut graph, published) = read(self)?;
            Ok(analyse(&mut graph, published.as_ref(), self)?.report)
        };
        inspect().context(|| format!("model '{}'", self.name))
    }
}

fn read(options: &ModelOptions) -> Result<(Graph, Option<Published>)> {
    let dropout = options.dropout.map(f64::from);
    let load = LoadOptions {
        seed: options.seed,
        dropout,
        fresh_head: options.fresh_head,
        fresh_weights: options.fresh_weights,
        labels: options.label_names.clone(),
        ..LoadOptions::default()
    };
    let of = |built: BuiltModel| {
        let fresh = built.missing.len() == built.parameters.len();
        let BuiltModel { graph, config, task, padding_rows: padding, tied, head, .. } = built;
        let (missing, unused, stored) = (built.missing, built.unexpected, built.stored);
        let own = Published { config, task, fresh, padding, tied, head, missing, unused, stored };
        (graph, Some(own))
    };
    let (mut graph, published) = match &options.source {
        Source::Directory(dir) => of(models::load(dir, options.task, &load)?),
        Source::Config(config) => {
            let task = options
                .task
                .map_or_else(|| config.default_task(), Ok)
                .context(|| "a fresh model needs a task")?;
            of(models::build_with(config, task, None, &load)?)
        }
        Source::Onnx(path) => (Graph::read(path)?, None),
        Source::OnnxBytes(bytes) => (Graph::from_bytes(bytes.clone())?, None),
    };
    graph.name.clone_from(&options.name);
    let of_directory = options.fresh_head || options.fresh_weights;
    if published.is_none() && (of_directory || !options.label_names.is_empty()) {
        return Err(Error::invalid(
            "fresh_head, fresh_weights and label_names are for models from a directory or a \
             configuration; an ONNX graph keeps its head and has no place for names",
        ));
    }
    if published.is_some() && options.gradients.is_some() {
        return Err(Error::invalid("only an ONNX source can bring its own gradients"));
    }
    Ok((graph, published))
}

/// A parameter of the graph, and whether it is trained.
struct Candidate {
    value: ValueId,
    name: String,
    shape: Vec<usize>,
    dtype: DType,
    trained: bool,
    frozen_rows: Vec<usize>,
    padding_row: Option<usize>,
    /// The half type that it is stored in.
    stored: Option<DType>,
}

struct Analysis {
    candidates: Vec<Candidate>,
    adapters: Adapters,
    report: ModelReport,
    half: HalfTypes,
}

/// Applies the import fixes, finds the parameters, and decides what is trained.
fn analyse(
    graph: &mut Graph,
    published: Option<&Published>,
    options: &ModelOptions,
) -> Result<Analysis> {
    let mut report = ModelReport { model: options.name.clone(), ..ModelReport::default() };
    let mut aliases = Aliases::default();
    let mut half = HalfTypes::default();
    if let Some(published) = published {
        let tied = published.tied.iter().cloned();
        tied.for_each(|(second, first)| aliases.add(&first, &second, true));
        report.newly_initialised.clone_from(&published.missing);
        report.unused.clone_from(&published.unused);
        report.fresh_weights =
            options.fresh_weights && matches!(options.source, Source::Directory(_));
    } else {
        if options.gradients.is_none() {
            half = HalfTypes::widen(graph)?;
        }
        outputs_in_f32(graph)?;
        if options.gradients.is_none() {
            graph.move_weights_out(may_be_trained)?;
            split_running_statistics(graph)?;
            apply_import_fixes(graph, options.import_fixes, &mut report, &mut aliases)?;
        }
    }
    let adapters = add_adapters(graph, published, options, &aliases)?;
    let found = match &options.gradients {
        Some(precomputed) => precomputed_parameters(graph, &precomputed.outputs)?,
        None => find_parameters(graph),
    };
    let non_trainable = find_non_trainable(graph);
    let choice = Choice { options, aliases: &aliases, found: &found, adapters: &adapters };
    choice.check_patterns(&non_trainable)?;
    let mut candidates = Vec::new();
    for p in &found {
        let held = p.is_buffer() || choice.requested(&p.name);
        if let (Some(reason), false) = (p.fixed, held) {
            report.non_trainable.push(reported(&p.name, &p.shape, p.dtype, reason, true));
            continue;
        }
        let reason = choice.why_frozen(p);
        let frozen_rows = choice.frozen_rows(p, published)?;
        let (dtype, trained) = (p.dtype, reason.is_none());
        let (value, name, shape) = (p.value, p.name.clone(), p.shape.clone());
        let stored = match published {
            Some(published) => published.stored.get(&p.name).copied(),
            None => half.stored(p.value, parameter_data(graph, p.value).ok().as_ref()),
        };
        let mut own = aliases.report(p, reason, &frozen_rows, graph);
        own.dtype = stored.unwrap_or(p.dtype).name();
        report.parameters.push(own);
        let padding_row = published.and_then(|m| m.tied_padding_row(&p.name));
        let plain =
            Candidate { value, name, shape, dtype, trained, frozen_rows, padding_row, stored };
        candidates.push(plain);
    }
    let tensors = non_trainable.iter();
    report.newly_initialised.retain(|name| !adapters.read.contains(name));
    report.adapters = adapters.list.iter().map(|a| a.weight.clone()).collect();
    report
        .non_trainable
        .extend(tensors.map(|u| reported(&u.name, &u.shape, u.dtype, u.reason, false)));
    if options.gradients.is_some() {
        let named = |n: &ReportedNonTrainable| report.parameters.iter().any(|p| p.name == n.name);
        let rest = find_parameters(graph).into_iter().filter(GraphParameter::trainable).map(|p| {
            let reason = "no output is named as its gradient";
            reported(&p.name, &p.shape, p.dtype, reason, false)
        });
        let rest: Vec<ReportedNonTrainable> = rest.filter(|n| !named(n)).collect();
        report.non_trainable.extend(rest);
    }
    Ok(Analysis { candidates, adapters, report, half })
}

/// Adds the adapters that the options ask for.
fn add_adapters(
    graph: &mut Graph,
    published: Option<&Published>,
    options: &ModelOptions,
    aliases: &Aliases,
) -> Result<Adapters> {
    let Some(source) = &options.adapters else { return Ok(Adapters::default()) };
    if options.gradients.is_some() {
        return Err(Error::unsupported(
            "a graph that brings its own gradients has none for adapters; leave the adapters out",
        ));
    }
    let body: Vec<&str> = graph.initializers().keys().map(|&v| graph.value_name(v)).collect();
    let base = Base {
        matches: &|pattern, name| aliases.matches(pattern, name),
        fresh_head: published.map(|p| p.fresh_head(&body)).unwrap_or_default(),
        tied: published.map_or(&[], |p| &p.tied),
        seed: options.seed,
    };
    adapters::attach(graph, source, &base).context(|| "adapters")
}

fn reported(
    name: &str,
    shape: &[usize],
    dtype: DType,
    reason: &str,
    on_request: bool,
) -> ReportedNonTrainable {
    let (name, shape, reason) = (name.to_owned(), shape.to_vec(), reason.to_owned());
    ReportedNonTrainable { name, shape, dtype: dtype.name(), reason, on_request }
}

/// Ties, splits and renames as the options say, and reports what there was.
fn apply_import_fixes(
    graph: &mut Graph,
    import_fixes: ImportFixes,
    report: &mut ModelReport,
    aliases: &mut Aliases,
) -> Result<()> {
    let duplicates = find_duplicate_weights(graph);
    let tied = |t: &DuplicateWeightPair| match import_fixes.duplicate_weights {
        DuplicateWeights::Report => false,
        DuplicateWeights::Embeddings => t.table,
        DuplicateWeights::All => true,
    };
    for t in &duplicates {
        let name = |v| graph.value_name(v).to_owned();
        let (first, second) = (name(t.first), name(t.second));
        if tied(t) {
            aliases.add(&first, &second, true);
        }
        let (transposed, table, tied) = (t.transposed, t.table, tied(t));
        report.duplicate_weights.push(ReportedDuplicates {
            first,
            second,
            transposed,
            table,
            tied,
        });
    }
    let chosen: Vec<DuplicateWeightPair> = duplicates.into_iter().filter(tied).collect();
    if !chosen.is_empty() {
        tie_duplicate_weights(graph, &chosen)?;
    }
    for m in find_shared_initializers(graph) {
        let uses = m.uses.into_iter().map(|(node, slot)| format!("{node} input {slot}"));
        report.shared_initializers.push(ReportedSharedInitializer {
            name: m.name,
            uses: uses.collect(),
            split: Vec::new(),
        });
    }
    if import_fixes.shared_initializers == SharedInitializers::Split {
        for (new, old) in split_shared_initializers(graph)? {
            let shared = report.shared_initializers.iter_mut().filter(|m| m.name == old);
            shared.for_each(|m| m.split.push(new.clone()));
        }
    }
    if import_fixes.restore_names {
        for renamed in restore_names(graph)? {
            aliases.rename(&renamed);
            for t in &mut report.duplicate_weights {
                let names = [&mut t.first, &mut t.second].into_iter();
                names.filter(|n| **n == renamed.old).for_each(|n| n.clone_from(&renamed.new));
            }
        }
    }
    Ok(())
}

/// Other names of parameters.
#[derive(Default)]
struct Aliases {
    /// By the parameter's present name: the other name, and whether it is that of a tied copy.
    of: HashMap<String, Vec<(String, bool)>>,
    transposed: Vec<String>,
}

impl Aliases {
    fn add(&mut self, name: &str, alias: &str, tied: bool) {
        self.of.entry(name.to_owned()).or_default().push((alias.to_owned(), tied));
    }

    fn rename(&mut self, renamed: &Renamed) {
        let others = self.of.remove(&renamed.old).unwrap_or_default();
        self.of.insert(renamed.new.clone(), others);
        self.add(&renamed.new, &renamed.old, false);
        if renamed.transposed {
            self.transposed.push(renamed.new.clone());
        }
    }

    fn others(&self, name: &str) -> impl Iterator<Item = &(String, bool)> {
        self.of.get(name).into_iter().flatten()
    }

    /// Whether a pattern matches the parameter under one of its names.
    fn matches(&self, pattern: &str, name: &str) -> bool {
        matches_glob(pattern, name)
            || self.others(name).any(|(other, _)| matches_glob(pattern, other))
    }

    fn report(
        &self,
        p: &GraphParameter,
        reason: Option<String>,
        frozen_rows: &[usize],
        graph: &Graph,
    ) -> ReportedParameter {
        let fed = graph.inputs().contains(&p.value);
        let origin = match p.origin {
            _ if fed => "input",
            Origin::Initializer => "initializer",
            Origin::Constant => "constant",
            Origin::Identity => "identity",
        };
        let others =
            |tied: bool| self.others(&p.name).filter(move |o| o.1 == tied).map(|o| o.0.clone());
        ReportedParameter {
            name: p.name.clone(),
            shape: p.shape.clone(),
            dtype: p.dtype.name(),
            origin,
            trained: reason.is_none(),
            reason,
            name_in_file: others(false).next(),
            transposed: self.transposed.contains(&p.name),
            tied: others(true).collect(),
            frozen_rows: frozen_rows.to_vec(),
        }
    }
}

/// Which parameters the options' patterns name.
struct Choice<'a> {
    options: &'a ModelOptions,
    aliases: &'a Aliases,
    found: &'a [GraphParameter],
    adapters: &'a Adapters,
}

impl Choice<'_> {
    fn requested(&self, name: &str) -> bool {
        self.options.trainable.iter().any(|pattern| self.aliases.matches(pattern, name))
    }

    fn check_patterns(&self, non_trainable: &[NonTrainableTensor]) -> Result<()> {
        let rows = self.options.frozen_rows.iter().map(|(pattern, _)| pattern);
        let frozen = self.options.frozen.iter();
        for pattern in self.options.trainable.iter().chain(frozen).chain(rows) {
            if self.found.iter().any(|p| self.aliases.matches(pattern, &p.name)) {
                continue;
            }
            if let Some(u) = non_trainable.iter().find(|u| matches_glob(pattern, &u.name)) {
                return Err(Error::unsupported(format!(
                    "'{}' {}{:?}, which the pattern '{pattern}' names, is no parameter: {}",
                    u.name, u.dtype, u.shape, u.reason
                )));
            }
            return Err(Error::not_found(format!("no parameter matches the pattern '{pattern}'")));
        }
        Ok(())
    }

    fn why_frozen(&self, p: &GraphParameter) -> Option<String> {
        if !matches!(p.dtype, DType::F32 | DType::F64) {
            return Some(format!("{} cannot be trained yet; export the model in f32", p.dtype));
        }
        if !self.adapters.trains(&p.name) {
            return Some("the model trains adapters".to_owned());
        }
        let frozen = self.options.frozen.iter().find(|f| self.aliases.matches(f, &p.name));
        if let Some(pattern) = frozen {
            return Some(format!("the pattern '{pattern}' freezes it"));
        }
        // A pattern that matches everything does not mean buffers.
        let named = || self.options.trainable.contains(&p.name);
        if let (Some(reason), false) = (p.fixed.filter(|_| p.is_buffer()), named()) {
            return Some(reason.to_owned());
        }
        let wanted = self.options.trainable.is_empty() || self.requested(&p.name);
        (!wanted).then(|| "none of the patterns to train matches it".to_owned())
    }

    fn frozen_rows(&self, p: &GraphParameter, published: Option<&Published>) -> Result<Vec<usize>> {
        let padding = published.iter().flat_map(|m| &m.padding);
        let untied = |p: &str| published.is_none_or(|m| m.tied_padding_row(p).is_none());
        let padding = padding.filter(|row| row.parameter == p.name && untied(&p.name));
        let padding = padding.map(|row| row.row);
        let asked = self.options.frozen_rows.iter();
        let asked = asked.filter(|(pattern, _)| self.aliases.matches(pattern, &p.name));
        let mut rows: Vec<usize> = padding.chain(asked.map(|&(_, row)| row)).collect();
        rows.sort_unstable();
        rows.dedup();
        let n = p.shape.first().copied().unwrap_or(0);
        match rows.iter().find(|&&row| row >= n) {
            None => Ok(rows),
            Some(row) => Err(Error::shape(format!(
                "row {row} of parameter '{}' cannot be frozen: its shape is {:?}",
                p.name, p.shape
            ))),
        }
    }
}

/// The parameters that a gradient graph has gradients for.
fn precomputed_parameters(
    graph: &Graph,
    precomputed: &PrecomputedGradients,
) -> Result<Vec<GraphParameter>> {
    let outputs: Vec<&str> = graph.outputs().iter().map(|&v| graph.value_name(v)).collect();
    let gradients = precomputed.gradients.iter().map(|(_, output)| output);
    for name in gradients.chain([&precomputed.loss]).chain(&precomputed.logits) {
        if !outputs.contains(&name.as_str()) {
            let known = outputs.join(", ");
            return Err(Error::not_found(format!("no output '{name}'; the outputs are {known}")));
        }
    }
    if precomputed.gradients.is_empty() {
        return Err(Error::invalid("no parameter has an output that is named as its gradient"));
    }
    let mut found: Vec<GraphParameter> = Vec::new();
    for (name, _) in &precomputed.gradients {
        let value = graph.find(name);
        let value = value.ok_or_else(|| Error::not_found(format!("no parameter '{name}'")))?;
        if found.iter().any(|p| p.value == value) {
            return Err(Error::invalid(format!("parameter '{name}' is named twice")));
        }
        let (dtype, shape) = match graph.inputs().contains(&value) {
            true => (graph.value(value).ty.dtype, graph.value(value).ty.static_shape()),
            false => {
                let data = parameter_data(graph, value)?;
                (Some(data.dtype()), Some(data.shape().to_vec()))
            }
        };
        let (Some(dtype), Some(shape)) = (dtype, shape) else {
            return Err(Error::shape(format!("parameter '{name}' has free dimensions")));
        };
        if !dtype.is_float() {
            return Err(Error::unsupported(format!("parameter '{name}' is {dtype}, not a float")));
        }
        let (name, origin) = (name.clone(), Origin::Initializer);
        found.push(GraphParameter { name, value, shape, dtype, origin, fixed: None });
    }
    Ok(found)
}

/// Moves the parameters' data out of the graph into tensors; they become graph inputs of f32.
fn take_parameters(
    graph: &mut Graph,
    candidates: &[Candidate],
    options: &ModelOptions,
) -> Result<(Vec<ValueId>, Vec<Parameter>)> {
    let weights = match &options.gradients {
        Some(GradientGraph { weights: Some(path), .. }) => Some(Weights::read(path)?),
        _ => None,
    };
    let mut parameters = Vec::new();
    for c in candidates {
        let value = value_of(graph, c, weights.as_ref())?;
        let mut parameter = Parameter::new(c.name.clone(), value, c.trained)?;
        parameter.frozen_rows.clone_from(&c.frozen_rows);
        parameter.padding_row = c.padding_row;
        parameter.stored = c.stored;
        parameters.push(parameter);
    }
    let (wide, plain): (Vec<&Candidate>, Vec<&Candidate>) =
        candidates.iter().partition(|c| c.dtype == DType::F64);
    let plain: Vec<ValueId> = plain.iter().map(|c| c.value).collect();
    make_inputs(graph, &plain)?;
    let mut narrowed = HashMap::new();
    for c in wide {
        narrowed.insert(c.value, hold_in_f32(graph, c.value, &c.shape)?);
    }
    graph.prune();
    // The weights were copied; what is left must not keep their file in memory.
    graph.detach()?;
    let id = |c: &Candidate| narrowed.get(&c.value).copied().unwrap_or(c.value);
    Ok((candidates.iter().map(id).collect(), parameters))
}

/// A parameter's values in f32.
fn value_of(graph: &Graph, c: &Candidate, weights: Option<&Weights>) -> Result<Tensor> {
    let name = &c.name;
    if !matches!(c.dtype, DType::F32 | DType::F64) {
        return Err(Error::unsupported(format!(
            "parameter '{name}' is {}; only f32 and f64 graphs can be trained, export the model \
             in f32",
            c.dtype
        )));
    }
    if graph.inputs().contains(&c.value) {
        let weights = weights.ok_or_else(|| {
            Error::invalid(format!(
                "parameter '{name}' is an input of the graph and has no value; give a weights \
                 file that holds it"
            ))
        })?;
        let found = weights.find(name);
        let shape = found.map(|view| view.shape.to_vec()).ok_or_else(|| {
            Error::not_found(format!("the weights file has no parameter '{name}'"))
        })?;
        if shape != c.shape {
            return Err(Error::shape(format!(
                "parameter '{name}' is {:?}, in the weights file {shape:?}",
                c.shape
            )));
        }
        return Tensor::from_bytes(DType::F32, &shape, &weights.f32_bytes(name)?);
    }
    let data = parameter_data(graph, c.value)?;
    if c.dtype == DType::F32 {
        return data.to_tensor();
    }
    let values: Vec<f32> = data.to_f64s()?.into_iter().map(|v| v as f32).collect();
    Tensor::from_slice(&c.shape, &values)
}
