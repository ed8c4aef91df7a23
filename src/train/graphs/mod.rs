//! From a forward graph to the graphs that sessions run: specialised to one shape, with a loss,
//! with parameters as inputs and gradients as outputs.
//!
//! *specialised*: every free dimension is fixed, every value's type is known, and what depends on
//! shapes alone is a constant. Each shape of batch has its own training graph.

mod attention;
mod buffers;
mod checkpointing;
mod dropout;
mod non_finite;
mod padding;
mod parameters;
mod pass_memory;
mod precision;
mod precomputed;
mod products;
mod specialise;

use std::collections::{BTreeMap, HashSet};

pub use dropout::SEED_INPUT;
pub use non_finite::{NonFiniteOrigin, Operand, Pass, find_non_finite};
pub use parameters::{
    GraphParameter, NonTrainableTensor, Origin, find_non_trainable, find_parameters, make_inputs,
    parameter_data,
};
pub(super) use parameters::{all_equal, is_statistic, may_be_trained};
pub use pass_memory::PassMemory;
pub use precision::{hold_in_f32, outputs_in_f32};
pub use precomputed::{
    PrecomputedGradients, precomputed_evaluation_graph, precomputed_graph, precomputed_labels,
};
pub use products::Products;
pub use specialise::fix_shapes_and_types;

use crate::autodiff::{self, AttachedLoss, LossSpec, MutualTerm};
use crate::error::{Context, Error, Result};
use crate::onnx::{Attributes, Build, Graph, MMOPT_DOMAIN, Node, NodeId, ValueId, compat};
use crate::optim::AttentionForm;
use crate::runtime::kernels;
use crate::tensor::DType;

/// A graph that computes loss, logits and gradients in one run.
#[derive(Clone, Debug)]
pub struct TrainingGraph {
    /// The encoded model, without the parameters' data.
    pub bytes: Vec<u8>,
    /// What a batch feeds: the model's own inputs, [`SEED_INPUT`] where there is dropout, then the
    /// labels; name, dtype, shape.
    pub data_inputs: Vec<(String, DType, Vec<usize>)>,
    /// Input names of the parameters, in the requested order.
    pub params: Vec<String>,
    /// Output names of the gradients, as long as `params`, each of its parameter's shape and
    /// dtype; `None` where the loss does not depend on the parameter.
    pub grads: Vec<Option<String>>,
    /// Output name of the loss, a scalar.
    pub loss: String,
    /// Output names and shapes of the logits.
    pub logits: Vec<(String, Vec<usize>)>,
    /// Output name of mutual learning's term, a scalar, if it is on.
    pub mutual: Option<String>,
    /// Input names of buffers, which are running statistics of batch normalisations in training
    /// mode, and the outputs with what the run moves them to, f32.
    pub buffers: Vec<(String, String)>,
    /// The working memory that a run takes, foreseen.
    pub memory: PassMemory,
}

/// A forward graph for evaluation: dropout off, parameters as inputs.
#[derive(Clone, Debug)]
pub struct EvaluationGraph {
    /// The encoded model, without the parameters' data.
    pub bytes: Vec<u8>,
    /// What a batch feeds; labels come last, if there is a loss.
    pub data_inputs: Vec<(String, DType, Vec<usize>)>,
    /// Input names of the parameters, in the requested order.
    pub params: Vec<String>,
    /// Output name of the loss, if requested.
    pub loss: Option<String>,
    /// Output names and shapes of the logits, or of all outputs when no loss was requested.
    pub logits: Vec<(String, Vec<usize>)>,
    /// The working memory that a run takes, foreseen.
    pub memory: PassMemory,
}

/// Writes the training graph of `forward` for one shape of batch.
///
/// `params` are values of `forward` (see [`find_parameters`]); `shapes` gives each graph input its
/// shape. Inputs without free dimensions may be left out. It may give labels theirs, by which the
/// logits are told from other outputs.
///
/// # Errors
/// `Unsupported` names model, node, operator and opset of what cannot be differentiated;
/// `Shape` and `NotFound` tell which input or output does not fit.
pub fn training_graph(
    forward: &Graph,
    params: &[ValueId],
    spec: &LossSpec,
    shapes: &BTreeMap<String, Vec<usize>>,
) -> Result<TrainingGraph> {
    training_graph_with(forward, params, spec, shapes, &GraphOptions::default())
}

/// What a training graph is besides differentiated.
#[derive(Clone, Copy, Debug, Default)]
pub struct GraphOptions<'a> {
    /// Mutual learning, where it is on.
    pub mutual: Option<MutualTerm>,
    /// Tables, and a row of each that gets no gradient where it is looked up.
    pub padding: &'a [(ValueId, usize)],
    /// What products of matrices are computed in.
    pub products: Products,
    /// Whether the backward part computes activations again.
    pub activation_checkpointing: bool,
    /// How attention is computed.
    pub attention: AttentionForm,
}

/// [`training_graph`] with options. With mutual learning the gradients are those of the loss plus
/// the term of [`autodiff::attach_mutual`], whose inputs are then among `data_inputs`; the loss
/// output is the loss without that term.
///
/// # Errors
/// As [`training_graph`]; `InvalidArgument` for mutual learning of a loss without logits.
pub fn training_graph_with(
    forward: &Graph,
    params: &[ValueId],
    spec: &LossSpec,
    shapes: &BTreeMap<String, Vec<usize>>,
    options: &GraphOptions,
) -> Result<TrainingGraph> {
    let (shapes, labels) = of_labels(forward, shapes);
    let mut graph = specialise::without_loops(forward, &shapes)?;
    precision::refuse_narrow(&graph, params)?;
    // From here on the graph may hold fused operators; they run anywhere, see `attach`.
    graph.opsets.insert(MMOPT_DOMAIN.into(), 1);
    compat::lower(&mut graph)?;
    dropout::seed_dropout(&mut graph)?;
    attention::fuse(&mut graph, params, options.attention)?;
    let inputs = graph.inputs().to_vec();
    let attached = autodiff::attach_loss_to(&mut graph, spec, &labels)?;
    parameters::make_inputs(&mut graph, params)?;
    let statistics = buffers::running_statistics(&mut graph, params)?;
    let mut total = attached.loss;
    let mut term = None;
    if let Some(own) = options.mutual {
        let logits = &attached.logits;
        let own = autodiff::attach_mutual(&mut graph, &spec.kind, logits, own)?;
        (total, term) = (Build::new(&mut graph).add(total, own)?, Some(own));
    }
    let targets =
        [autodiff::TARGETS_INPUT, autodiff::TARGET_WEIGHTS_INPUT, autodiff::EXCHANGE_INPUT];
    let targets: Vec<ValueId> = targets.iter().filter_map(|name| graph.find(name)).collect();
    let stopped = padding::stop_lookups(&mut graph, options.padding)?;
    graph.sort()?;
    let n_forward = graph.nodes().len();
    let forward = made(&graph);
    let gradients = autodiff::differentiate(&mut graph, total, params)?;
    padding::resume_lookups(&mut graph, &stopped);
    if options.activation_checkpointing {
        checkpointing::recompute(&mut graph, n_forward, params)?;
    }
    let mut writer = Writer::new(&mut graph);
    let loss = writer.output(attached.loss, "loss")?;
    let logits = writer.logits(&attached)?;
    let mutual = term.map(|v| writer.output(v, "mutual_loss")).transpose()?;
    let grads = gradients
        .iter()
        .zip(params)
        .map(|(&gradient, &p)| {
            let name = format!("grad/{}", writer.graph().value_name(p));
            gradient.map(|v| writer.output(v, &name)).transpose()
        })
        .collect::<Result<Vec<_>>>()?;
    let mut buffers = Vec::new();
    for (held, moved) in statistics {
        let name = writer.graph().value_name(held).to_owned();
        let output = writer.output(moved, &format!("buffer/{name}"))?;
        buffers.push((name, output));
    }
    let data = [&inputs[..], &attached.labels[..], &targets[..]].concat();
    let (bytes, data_inputs, memory) = writer.finish(&data, params, options.products, &forward)?;
    let params = params.iter().map(|&p| graph.value_name(p).to_owned()).collect();
    Ok(TrainingGraph { bytes, data_inputs, params, grads, loss, logits, mutual, buffers, memory })
}

/// The values that nodes make.
fn made(graph: &Graph) -> HashSet<ValueId> {
    graph.nodes().iter().flat_map(|n| n.outputs.iter().flatten().copied()).collect()
}

/// Shapes of the graph's inputs, and those of labels that the loss adds.
fn of_labels(
    forward: &Graph,
    shapes: &BTreeMap<String, Vec<usize>>,
) -> (BTreeMap<String, Vec<usize>>, BTreeMap<String, Vec<usize>>) {
    let given = |name: &str| forward.find(name).is_some_and(|v| forward.inputs().contains(&v));
    let is_label = |name: &str| autodiff::LABELS.contains(&name) && !given(name);
    shapes.clone().into_iter().partition(|(name, _)| !is_label(name))
}

/// Writes the evaluation graph of `forward` for one shape of batch: like [`training_graph`], with
/// dropout off and without gradients; the loss is optional, for data without labels.
pub fn evaluation_graph(
    forward: &Graph,
    params: &[ValueId],
    spec: Option<&LossSpec>,
    shapes: &BTreeMap<String, Vec<usize>>,
    products: Products,
) -> Result<EvaluationGraph> {
    let mut graph = forward.clone();
    compat::raise_opset(&mut graph)?;
    graph.inline_functions().context(|| format!("model '{}'", forward.name))?;
    switch_to_inference(&mut graph)?;
    let (shapes, labels) = of_labels(forward, shapes);
    let mut graph = fix_shapes_and_types(&graph, &shapes)?;
    // Again, for nodes from inlined branches.
    switch_to_inference(&mut graph)?;
    let inputs = graph.inputs().to_vec();
    let attached = match spec {
        Some(spec) => Some(autodiff::attach_loss_to(&mut graph, spec, &labels)?),
        None => None,
    };
    parameters::make_inputs(&mut graph, params)?;
    let own_outputs = graph.outputs().to_vec();
    let mut writer = Writer::new(&mut graph);
    // A model that computes its loss itself has no logits: its outputs stand beside the loss.
    let logits = match &attached {
        Some(a) if !a.logits.is_empty() => writer.logits(a)?,
        _ => writer.values(&own_outputs)?,
    };
    let loss = attached.as_ref().map(|a| writer.output(a.loss, "loss")).transpose()?;
    let labels = attached.map(|a| a.labels).unwrap_or_default();
    let data = [inputs, labels].concat();
    let forward = made(writer.graph());
    let (bytes, data_inputs, memory) = writer.finish(&data, params, products, &forward)?;
    let params = params.iter().map(|&p| graph.value_name(p).to_owned()).collect();
    Ok(EvaluationGraph { bytes, data_inputs, params, loss, logits, memory })
}

/// Dropout and batch normalisation as in inference: running statistics stay what they are.
pub fn switch_to_inference(graph: &mut Graph) -> Result<()> {
    let mut kept = Vec::new();
    let uses = graph.consumers();
    for id in graph.node_ids() {
        let node = graph.node(id);
        match (node.domain.as_str(), node.op.as_str()) {
            ("", "Dropout") => graph.node_mut(id).inputs.truncate(1),
            ("", "BatchNormalization") if in_training(graph, node) => {
                for (y, value) in node.outputs.iter().enumerate().skip(1) {
                    let Some(value) = *value else { continue };
                    // The outputs 1 and 2 are the inputs 3 and 4 after the step. Statistics
                    // that old opsets save besides have no such input.
                    let used =
                        || graph.outputs().contains(&value) || !uses[value.index()].is_empty();
                    if y > 2 && !used() {
                        continue;
                    }
                    let x = if y < 3 { node.input(y + 2) } else { None };
                    kept.push((x.ok_or_else(|| no_statistic(graph, id, y))?, value));
                }
                let node = graph.node_mut(id);
                node.attributes.remove("training_mode");
                node.outputs.truncate(1);
            }
            _ => {}
        }
    }
    for (x, y) in kept {
        graph.push_node(Node {
            name: String::new(),
            op: "Identity".into(),
            domain: String::new(),
            inputs: vec![Some(x)],
            outputs: vec![Some(y)],
            attributes: Attributes::new(),
        });
    }
    graph.sort()
}

/// Whether a BatchNormalization computes its statistics: before opset 14 more outputs than one say
/// so.
fn in_training(graph: &Graph, node: &Node) -> bool {
    let old = graph.opset() < 14 && node.outputs.len() > 1;
    node.int("training_mode") == Some(1) || old
}

fn no_statistic(graph: &Graph, id: NodeId, output: usize) -> Error {
    Error::invalid(format!(
        "model '{}': {} has an output {output}, but no input with the running statistic that it \
         would be in inference",
        graph.name,
        graph.describe(id)
    ))
}

/// Collects the outputs of a graph, then encodes it.
struct Writer<'g> {
    g: Build<'g>,
    outputs: Vec<ValueId>,
}

impl<'g> Writer<'g> {
    fn new(graph: &'g mut Graph) -> Self {
        Self { g: Build::new(graph), outputs: Vec::new() }
    }

    fn graph(&self) -> &Graph {
        self.g.graph()
    }

    /// Makes `v` an output of its own, called `name` if that is free, and returns its name.
    /// Inputs, constants and values that are outputs already go through an Identity.
    fn output(&mut self, v: ValueId, name: &str) -> Result<String> {
        let taken = self.outputs.contains(&v)
            || self.graph().inputs().contains(&v)
            || self.graph().initializer(v).is_some();
        let v = if taken { self.g.unary("Identity", v)? } else { v };
        let name = self.g.graph_mut().free_name(name);
        self.g.graph_mut().rename(v, &name)?;
        self.outputs.push(v);
        Ok(name)
    }

    fn logits(&mut self, attached: &AttachedLoss) -> Result<Vec<(String, Vec<usize>)>> {
        self.values(&attached.logits)
    }

    /// Outputs that keep their names.
    fn values(&mut self, values: &[ValueId]) -> Result<Vec<(String, Vec<usize>)>> {
        let mut named = Vec::new();
        for &v in values {
            if !self.outputs.contains(&v) {
                self.outputs.push(v);
            }
            named.push((self.graph().value_name(v).to_owned(), self.g.shape(v)?));
        }
        Ok(named)
    }

    #[allow(clippy::type_complexity)]
    fn finish(
        mut self,
        data: &[ValueId],
        params: &[ValueId],
        products: Products,
        forward: &HashSet<ValueId>,
    ) -> Result<(Vec<u8>, Vec<(String, DType, Vec<usize>)>, PassMemory)> {
        let outputs = std::mem::take(&mut self.outputs);
        let graph = self.g.graph_mut();
        graph.set_outputs(outputs);
        graph.prune();
        graph.prune_inputs(params);
        products::rewrite_products(graph, products)?;
        graph.sort()?;
        compat::fold_empty(graph)?;
        graph.prune();
        graph.name_nodes();
        let memory = pass_memory::pass_memory(graph, forward);
        let kept: Vec<ValueId> = data
            .iter()
            .copied()
            .filter(|v| graph.inputs().contains(v) && !params.contains(v))
            .collect();
        kernels::attach(graph)?;
        let bytes = graph.to_bytes().context(|| format!("model '{}'", graph.name))?;
        let mut described = Vec::new();
        for v in kept {
            described.push((
                self.graph().value_name(v).to_owned(),
                self.g.dtype(v)?,
                self.g.shape(v)?,
            ));
        }
        if described.is_empty() {
            return Err(Error::invalid(format!(
                "model '{}': the loss depends on no input",
                self.graph().name
            )));
        }
        Ok((bytes, described, memory))
    }
}
