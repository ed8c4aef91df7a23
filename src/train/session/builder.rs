//! Makes a model's sessions from its graph, its parameters and its loss, for each shape of batch.

use super::bound::{BoundSession, GraphSpec};
use crate::autodiff::{LossSpec, MutualTerm};
use crate::error::Result;
use crate::onnx::{Graph, ValueId};
use crate::optim::AttentionForm;
use crate::runtime::{CancelToken, Meter, SessionOptions};
use crate::tensor::DType;
use crate::train::batch::{Batch, Signature};
use crate::train::graphs::{
    EvaluationGraph, GraphOptions, PassMemory, PrecomputedGradients, Products, TrainingGraph,
    evaluation_graph, precomputed_evaluation_graph, precomputed_graph, training_graph_with,
};
use crate::train::parameter::Parameter;

/// What a forward pass without gradients gives the prediction of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::train) enum Forward {
    /// The weights, without dropout.
    Weights,
    /// Their running means, without dropout.
    Means,
    /// The training pass, with its dropout.
    Training,
}

/// A training graph, and which parameters it has gradients for.
pub(in crate::train) type Planned = (TrainingGraph, Vec<usize>);

/// Makes sessions.
pub(in crate::train) struct SessionBuilder {
    /// The forward graph; its parameters are inputs without data.
    pub graph: Graph,
    /// The parameters' values in the graph.
    pub ids: Vec<ValueId>,
    pub spec: LossSpec,
    pub signature: Signature,
    /// The outputs that are the model's gradients, where it computes them itself.
    pub precomputed: Option<PrecomputedGradients>,
    /// Mutual learning, when it is on.
    pub mutual: Option<MutualTerm>,
    /// What products of matrices are computed in.
    pub products: Products,
    /// Whether backward parts compute activations again.
    pub activation_checkpointing: bool,
    /// How attention is computed.
    pub attention: AttentionForm,
    /// Ends this model's runs; every session gets it.
    pub cancel_token: Option<CancelToken>,
}

impl SessionBuilder {
    /// The training graph for a batch, and which parameters it has gradients for.
    pub fn training_graph(&self, parameters: &[Parameter], batch: Batch) -> Result<Planned> {
        let trained = (0..self.ids.len()).filter(|&i| parameters[i].trainable).collect();
        self.training_graph_of(trained, parameters, batch, self.mutual)
    }

    fn training_graph_of(
        &self,
        trained: Vec<usize>,
        parameters: &[Parameter],
        batch: Batch,
        mutual: Option<MutualTerm>,
    ) -> Result<Planned> {
        let mut shapes = self.signature.shapes(batch);
        let graph = match &self.precomputed {
            Some(precomputed) => {
                let name = |i: &usize| &parameters[*i].name;
                let of = |i| precomputed.gradients.iter().find(|(p, _)| p == name(i)).cloned();
                let gradients = trained.iter().filter_map(of).collect();
                precomputed_graph(
                    &self.graph,
                    &PrecomputedGradients { gradients, ..precomputed.clone() },
                    &shapes,
                )?
            }
            None => {
                shapes.extend(self.signature.label_shapes(batch));
                let ids: Vec<ValueId> = trained.iter().map(|&i| self.ids[i]).collect();
                let padding = |&i: &usize| parameters[i].padding_row.map(|row| (self.ids[i], row));
                let padding: Vec<(ValueId, usize)> = trained.iter().filter_map(padding).collect();
                let options = GraphOptions {
                    mutual,
                    padding: &padding,
                    products: self.products,
                    activation_checkpointing: self.activation_checkpointing,
                    attention: self.attention,
                };
                training_graph_with(&self.graph, &ids, &self.spec, &shapes, &options)?
            }
        };
        Ok((graph, trained))
    }

    pub fn evaluation_graph(&self, batch: Batch, labelled: bool) -> Result<EvaluationGraph> {
        let mut shapes = self.signature.shapes(batch);
        match &self.precomputed {
            Some(precomputed) => {
                let with_loss = labelled || precomputed.logits.is_empty();
                precomputed_evaluation_graph(&self.graph, precomputed, with_loss, &shapes)
            }
            None => {
                shapes.extend(self.signature.label_shapes(batch));
                let spec = labelled.then_some(&self.spec);
                evaluation_graph(&self.graph, &[], spec, &shapes, self.products)
            }
        }
    }

    /// A training session of a graph, bound to the parameters and gradients. Its threads spin only
    /// if its passes are long.
    pub fn training(
        &self,
        parameters: &mut [Parameter],
        (graph, trained): Planned,
        options: &SessionOptions,
        meter: &Meter,
    ) -> Result<BoundSession> {
        let gradients: Vec<(usize, String)> = trained
            .iter()
            .zip(&graph.grads)
            .filter_map(|(&i, name)| Some((i, name.clone()?)))
            .collect();
        let index = |name: &String| parameters.iter().position(|p| p.name == *name);
        let buffers = graph.buffers.iter().filter_map(|(p, y)| Some((index(p)?, y.clone())));
        let buffers: Vec<(usize, String)> = buffers.collect();
        let outputs = typed(&graph.logits);
        let spinning = options.spinning && graph.memory.peak >= PassMemory::LARGE;
        let options = SessionOptions { spinning, ..options.clone() };
        let spec = GraphSpec {
            bytes: &graph.bytes,
            inputs: &graph.data_inputs,
            gradients: &gradients,
            loss: Some(&graph.loss),
            mutual: graph.mutual.as_deref(),
            buffers: &buffers,
            outputs: &outputs,
            memory: graph.memory,
        };
        let shared = (self.cancel_token.as_ref(), meter);
        BoundSession::new(&spec, parameters, false, &options, shared)
    }

    /// A session for evaluation, or for the prediction that a training pass will make.
    pub fn evaluation(
        &self,
        parameters: &mut [Parameter],
        batch: Batch,
        labelled: bool,
        forward: Forward,
        options: &SessionOptions,
        meter: &Meter,
    ) -> Result<BoundSession> {
        let (bytes, inputs, loss, logits, memory) = if forward == Forward::Training {
            let (graph, _) = self.training_graph_of(Vec::new(), parameters, batch, None)?;
            (graph.bytes, graph.data_inputs, Some(graph.loss), graph.logits, graph.memory)
        } else {
            let graph = self.evaluation_graph(batch, labelled)?;
            (graph.bytes, graph.data_inputs, graph.loss, graph.logits, graph.memory)
        };
        let outputs = typed(&logits);
        let spec = GraphSpec {
            bytes: &bytes,
            inputs: &inputs,
            gradients: &[],
            loss: loss.as_deref(),
            mutual: None,
            buffers: &[],
            outputs: &outputs,
            memory,
        };
        let by_means = forward == Forward::Means;
        let shared = (self.cancel_token.as_ref(), meter);
        BoundSession::new(&spec, parameters, by_means, options, shared)
    }
}

fn typed(logits: &[(String, Vec<usize>)]) -> Vec<(String, DType, Vec<usize>)> {
    logits.iter().map(|(name, shape)| (name.clone(), DType::F32, shape.clone())).collect()
}
