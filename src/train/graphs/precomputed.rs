//! Gradient graphs that come from elsewhere: the model already has its gradients as outputs, and
//! nothing is differentiated.

use std::collections::BTreeMap;

use super::Products;
use super::{EvaluationGraph, TrainingGraph, Writer, fix_shapes_and_types, parameters};
use crate::error::{Context, Error, Result};
use crate::onnx::{Graph, ValueId};

/// Which outputs of a model are its loss and gradients.
#[derive(Clone, Debug, Default)]
pub struct PrecomputedGradients {
    /// Output that holds the loss: a float with one element.
    pub loss: String,
    /// GraphParameter (an initializer, or a float input of the model) and the output that holds its
    /// gradient, of the same shape and element type.
    pub gradients: Vec<(String, String)>,
    /// Outputs that hold logits; may be empty.
    pub logits: Vec<String>,
}

/// The training graph of a model that computes its own gradients, for one shape of batch.
///
/// # Errors
/// `NotFound` for unknown names; `Shape` when a gradient is not of its parameter's type, or the
/// loss no scalar.
pub fn precomputed_graph(
    model: &Graph,
    precomputed: &PrecomputedGradients,
    shapes: &BTreeMap<String, Vec<usize>>,
) -> Result<TrainingGraph> {
    let graph = fix_shapes_and_types(model, shapes)?;
    write(graph, precomputed).context(|| format!("model '{}'", model.name))
}

fn write(mut graph: Graph, precomputed: &PrecomputedGradients) -> Result<TrainingGraph> {
    let loss = output(&graph, &precomputed.loss)?;
    check_loss(&graph, loss)?;
    let mut params = Vec::new();
    for (name, _) in &precomputed.gradients {
        let missing = || Error::not_found(format!("no parameter '{name}'"));
        params.push(graph.find(name).ok_or_else(missing)?);
    }
    let inside: Vec<ValueId> =
        params.iter().copied().filter(|v| !graph.inputs().contains(v)).collect();
    parameters::make_inputs(&mut graph, &inside)?;
    let data: Vec<ValueId> =
        graph.inputs().iter().copied().filter(|v| !params.contains(v)).collect();
    let mut gradients = Vec::new();
    for ((name, output_name), &p) in precomputed.gradients.iter().zip(&params) {
        let v = output(&graph, output_name)?;
        if graph.value(v).ty != graph.value(p).ty {
            return Err(Error::shape(format!(
                "gradient '{output_name}' is {:?}, its parameter '{name}' is {:?}",
                graph.value(v).ty,
                graph.value(p).ty
            )));
        }
        gradients.push(v);
    }
    let logits: Vec<ValueId> =
        precomputed.logits.iter().map(|name| output(&graph, name)).collect::<Result<_>>()?;
    let mut writer = Writer::new(&mut graph);
    let loss = writer.output(loss, "loss")?;
    let logits = writer.values(&logits)?;
    let mut grads = Vec::new();
    for (v, (name, _)) in gradients.into_iter().zip(&precomputed.gradients) {
        grads.push(Some(writer.output(v, &format!("grad/{name}"))?));
    }
    let forward = super::made(writer.graph());
    let (bytes, data_inputs, memory) =
        writer.finish(&data, &params, Products::Runtime, &forward)?;
    let params = precomputed.gradients.iter().map(|(name, _)| name.clone()).collect();
    let (mutual, buffers) = (None, Vec::new());
    Ok(TrainingGraph { bytes, data_inputs, params, grads, loss, logits, mutual, buffers, memory })
}

/// The part of a model with its own gradients that evaluation runs: logits, and the loss where
/// `with_loss` asks for it.
///
/// # Errors
/// As [`precomputed_graph`].
pub fn precomputed_evaluation_graph(
    model: &Graph,
    precomputed: &PrecomputedGradients,
    with_loss: bool,
    shapes: &BTreeMap<String, Vec<usize>>,
) -> Result<EvaluationGraph> {
    let mut part = model.clone();
    let wanted = precomputed.logits.iter().chain(with_loss.then_some(&precomputed.loss));
    let outputs = wanted.map(|name| output(model, name)).collect::<Result<Vec<_>>>()?;
    part.set_outputs(outputs);
    part.prune();
    part.prune_inputs(&[]);
    let mut graph = fix_shapes_and_types(&part, shapes)?;
    let data = graph.inputs().to_vec();
    let logits: Vec<ValueId> =
        precomputed.logits.iter().map(|name| output(&graph, name)).collect::<Result<_>>()?;
    let loss = with_loss.then(|| output(&graph, &precomputed.loss)).transpose()?;
    let mut writer = Writer::new(&mut graph);
    let loss = loss.map(|v| writer.output(v, "loss")).transpose()?;
    let logits = writer.values(&logits)?;
    let forward = super::made(writer.graph());
    let (bytes, data_inputs, memory) = writer.finish(&data, &[], Products::Runtime, &forward)?;
    Ok(EvaluationGraph { bytes, data_inputs, params: Vec::new(), loss, logits, memory })
}

/// The inputs that the loss needs and the logits do not: labels. None without logits.
pub fn precomputed_labels(
    model: &Graph,
    precomputed: &PrecomputedGradients,
) -> Result<Vec<String>> {
    if precomputed.logits.is_empty() {
        return Ok(Vec::new());
    }
    let mut forward = model.clone();
    let logits =
        precomputed.logits.iter().map(|name| output(model, name)).collect::<Result<Vec<_>>>()?;
    forward.set_outputs(logits);
    forward.prune();
    forward.prune_inputs(&[]);
    let kept = |v: &&ValueId| forward.inputs().contains(v);
    let labels = model.inputs().iter().filter(|v| !kept(v));
    Ok(labels.map(|&v| model.value_name(v).to_owned()).collect())
}

fn output(graph: &Graph, name: &str) -> Result<ValueId> {
    let found = graph.find(name).filter(|v| graph.outputs().contains(v));
    found.ok_or_else(|| {
        let names: Vec<&str> = graph.outputs().iter().map(|&v| graph.value_name(v)).collect();
        Error::not_found(format!("no output '{name}'; the outputs are {}", names.join(", ")))
    })
}

fn check_loss(graph: &Graph, loss: ValueId) -> Result<()> {
    let value = graph.value(loss);
    let one = value.ty.static_shape().is_some_and(|s| s.iter().product::<usize>() == 1);
    let float = value.ty.dtype.is_some_and(|d| d.is_float());
    if one && float {
        return Ok(());
    }
    Err(Error::shape(format!("the loss '{}' is {:?}, not a float scalar", value.name, value.ty)))
}
