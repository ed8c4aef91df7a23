//! A model for evaluation alone, which threads share: their passes run side by side.

use std::sync::{Arc, Mutex};

use super::batch::{Batch, copy_into};
use super::model::{Model, ShapeKey};
use super::options::ModelOptions;
use super::trainer::Trainer;
use crate::autodiff::LossKind;
use crate::error::{Context, Error, Result};
use crate::runtime::{Session, ShapeCache};
use crate::tensor::{DType, Tensor};
use crate::train::TrainerOptions;

/// One model whose parameters never change. Each pass has memory of its own for its batch and its
/// outputs; sessions, one for each shape, are shared.
pub struct Evaluator {
    // Dropped before the model, whose parameters its sessions read.
    sessions: Mutex<ShapeCache<ShapeKey, Arc<Pass>>>,
    model: Model,
}

/// A session for one shape of batch.
struct Pass {
    session: Session,
    /// Inputs that the batch feeds: name, dtype, shape.
    inputs: Vec<(String, DType, Vec<usize>)>,
    outputs: Vec<String>,
}

impl Evaluator {
    /// Reads a model. Of the trainer's options device, threads, sessions and runtime matter.
    ///
    /// Errors: those of [`Trainer::new`].
    pub fn new(options: TrainerOptions, model: ModelOptions) -> Result<Self> {
        let capacity = if options.max_sessions == 0 { 16 } else { options.max_sessions };
        let model = Trainer::new(options, vec![model])?.into_only_model()?;
        Ok(Self { sessions: Mutex::new(ShapeCache::new(capacity)), model })
    }

    /// The loss of the model, which says what its outputs are.
    pub fn loss_kind(&self) -> &LossKind {
        &self.model.sessions.spec.kind
    }

    /// The names of its classes or tags by id, as in its configuration; empty without any.
    pub fn label_names(&self) -> &[String] {
        self.model.label_names()
    }

    /// Its longest sequence in tokens, where the configuration is known.
    pub fn max_sequence(&self) -> Option<usize> {
        self.model.max_sequence()
    }

    /// The outputs for a batch without labels, without dropout. Threads may call it at once; each
    /// gets the bits that it gets alone.
    ///
    /// Errors: those of [`Trainer::evaluate`].
    pub fn outputs(&self, batch: Batch) -> Result<Vec<(String, Tensor)>> {
        self.run(batch).context(|| format!("model '{}'", self.model.name))
    }

    fn run(&self, batch: Batch) -> Result<Vec<(String, Tensor)>> {
        if self.model.sessions.signature.check(batch, false)? {
            return Err(Error::invalid("the batch has labels, which this pass does not read"));
        }
        let pass = self.pass(batch)?;
        let mut fed = Vec::with_capacity(pass.inputs.len());
        for (name, dtype, shape) in &pass.inputs {
            let mut tensor = Tensor::zeros(*dtype, shape)?;
            if let Some(view) = batch.iter().find(|v| v.name == name) {
                copy_into(view, &mut tensor)?;
            }
            fed.push((name.as_str(), tensor));
        }
        let mut feeds: Vec<(&str, &Tensor)> = fed.iter().map(|(n, t)| (*n, t)).collect();
        for parameter in &self.model.parameters {
            if pass.session.inputs().iter().any(|i| i.name == parameter.name) {
                feeds.push((&parameter.name, &parameter.value));
            }
        }
        let names: Vec<&str> = pass.outputs.iter().map(String::as_str).collect();
        let results = pass.session.run(&feeds, &names)?;
        Ok(pass.outputs.iter().cloned().zip(results).collect())
    }

    /// The session for the shapes of a batch. Opening one, others wait; running one, none does.
    fn pass(&self, batch: Batch) -> Result<Arc<Pass>> {
        let key = self.model.sessions.signature.key(batch);
        let mut sessions =
            self.sessions.lock().map_err(|_| Error::internal("an earlier pass panicked"))?;
        let make = |_: &ShapeKey| -> Result<Arc<Pass>> {
            let graph = self.model.sessions.evaluation_graph(batch, false)?;
            let session = Session::from_bytes(&graph.bytes, &self.model.eval_session)?;
            let wanted = |name: &str| session.inputs().iter().any(|i| i.name == name);
            let is_parameter = |name: &str| self.model.parameters.iter().any(|p| p.name == name);
            let mut inputs = graph.data_inputs;
            inputs.retain(|(name, ..)| wanted(name) && !is_parameter(name));
            let outputs = graph.logits.into_iter().map(|(name, _)| name).collect();
            Ok(Arc::new(Pass { session, inputs, outputs }))
        };
        sessions.get_or_make(key, make).map(|pass| Arc::clone(pass))
    }
}

impl std::fmt::Debug for Evaluator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Evaluator('{}')", self.model.name)
    }
}
