//! One model: its forward graph, its parameters, and a session per shape.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::accuracy::{Accuracy, accuracy, loss_weight};
use super::adapters::{Adapters, Home};
use super::batch::{Batch, Signature, TensorView, check_classes, copy_into, labels};
use super::graphs::{
    NonFiniteOrigin, PassMemory, Products, SEED_INPUT, find_non_finite, precomputed_labels,
    switch_to_inference,
};
use super::import::{HalfTypes, Loaded, ModelReport, Published, load, rounded, usages};
use super::log::Level;
use super::mutual::prediction::{Prediction, row_shape};
use super::mutual::target::Teaching;
use super::options::{ModelOptions, Source};
use super::parameter::Parameter;
use super::session::{BoundSession, Forward, Planned, SessionBuilder};
use super::start::tokens::Tokens;
use crate::autodiff::{
    EXCHANGE_INPUT, LossKind, LossSpec, TARGET_WEIGHTS_INPUT, check_loss, check_operators,
};
use crate::error::{Error, Result};
use crate::models::{Architecture, Task};
use crate::onnx::{Graph, TensorData, ValueId};
use crate::optim::{AttentionForm, ModelSpec, ParamSpec, Usage};
use crate::runtime::kernels::ReadyAnswer;
use crate::runtime::{Meter, SessionOptions, ShapeCache};
use crate::tensor::{DType, Tensor};

/// Shapes of inputs and labels: what a session is made for.
pub(super) type ShapeKey = Vec<Vec<usize>>;

/// A model in training.
pub(super) struct Model {
    pub name: String,
    weight: f64,
    pub vocabulary: Option<String>,
    /// What the token ids stand for, where that is known.
    pub tokens: Option<Arc<Tokens>>,
    /// The tokens whose rows it has in common with other fresh models, by row.
    pub common_tokens: Option<Arc<[String]>>,
    task: Option<String>,
    // Sessions refer to the parameters' memory and are dropped first.
    training: ShapeCache<ShapeKey, BoundSession>,
    evaluation: ShapeCache<ShapeKey, BoundSession>,
    /// Evaluation beside other models, for mutual learning; of mean teachers by the means.
    teaching: ShapeCache<ShapeKey, BoundSession>,
    /// The graph of the training session that is opened next, made to foresee its memory.
    planned: Option<(ShapeKey, Planned)>,
    /// The working memory of the last batch's pass, foreseen; 0 before the first.
    pass_bytes: usize,
    /// Counts the working memory of all runs.
    pub meter: Meter,
    pub parameters: Vec<Parameter>,
    /// Where the parameter of each name stands.
    positions: HashMap<String, usize>,
    pub sessions: SessionBuilder,
    pub published: Option<Published>,
    pub adapters: Adapters,
    /// The half types that an ONNX graph had; it is written with them.
    half: HalfTypes,
    /// Where it came from, if from a directory.
    directory: Option<PathBuf>,
    pub report: ModelReport,
    /// Messages of the last run, for the trainer's log.
    pub notes: Vec<(Level, String)>,
    /// The thread of the last training pass.
    #[cfg(test)]
    pub ran_on: Option<std::thread::ThreadId>,
    /// Whether it was told that a mask holds other numbers than 0 and 1.
    mask_told: bool,
    pub train_session: SessionOptions,
    pub eval_session: SessionOptions,
    seed: u64,
    /// Of several replicas, which draw other dropout each.
    pub rank: u64,
    /// Shapes of the last training batch; empty before the first.
    last: ShapeKey,
    /// Training passes so far: with the seed it decides what dropout draws.
    pub n_runs: u64,
}

/// What a pass overwrites of the pass before, which the next step still needs.
pub(super) struct Earlier {
    gradients: Vec<Option<Tensor>>,
    /// What the session of these shapes was fed.
    inputs: Option<(ShapeKey, Vec<Option<Tensor>>)>,
}

/// Loss and accuracy of one batch; of a pass on another rank nothing.
#[derive(Default)]
pub(super) struct Run {
    pub loss: f64,
    /// Mutual learning's part of what was differentiated, weighted; 0 without it.
    pub mutual_loss: f64,
    /// Whether the batch had labels, so that the loss is meaningful.
    pub labelled: bool,
    pub accuracy: Accuracy,
    /// What the loss divides by.
    pub weight: f64,
}

impl Model {
    pub fn new(options: &ModelOptions, max_sessions: usize) -> Result<Self> {
        let Loaded { graph, published, ids, parameters, adapters, report, half } = load(options)?;
        let precomputed = options.gradients.as_ref().map(|g| g.outputs.clone());
        let spec = loss_spec(options, published.as_ref())?;
        if precomputed.is_none() {
            check_loss(&graph, &spec)?;
            let trained = ids.iter().zip(&parameters).filter(|(_, p)| p.trainable);
            check_graph(&graph, &trained.map(|(&v, _)| v).collect::<Vec<_>>())?;
        }
        let max_positions = published.as_ref().map(|p| p.config.max_sequence());
        let mut signature = Signature::new(&graph, &ids, &spec.kind, max_positions);
        if let Some(precomputed) = &precomputed {
            signature.mark_labels(&precomputed_labels(&graph, precomputed)?);
        }
        Ok(Self {
            name: options.name.clone(),
            weight: options.weight,
            vocabulary: options.vocabulary.clone(),
            tokens: options.tokens.clone(),
            common_tokens: None,
            task: options.task_name.clone(),
            training: ShapeCache::new(max_sessions),
            evaluation: ShapeCache::new(max_sessions),
            teaching: ShapeCache::new(max_sessions),
            planned: None,
            pass_bytes: 0,
            meter: Meter::default(),
            positions: parameters.iter().enumerate().map(|(i, p)| (p.name.clone(), i)).collect(),
            parameters,
            sessions: SessionBuilder {
                graph,
                ids,
                spec,
                signature,
                precomputed,
                mutual: None,
                products: Products::Runtime,
                activation_checkpointing: false,
                attention: AttentionForm::Auto,
                cancel_token: None,
            },
            published,
            adapters,
            half,
            directory: match &options.source {
                Source::Directory(dir) => Some(dir.clone()),
                _ => None,
            },
            report,
            notes: Vec::new(),
            #[cfg(test)]
            ran_on: None,
            mask_told: false,
            train_session: SessionOptions::default(),
            eval_session: SessionOptions::default(),
            seed: options.seed,
            rank: 0,
            last: ShapeKey::new(),
            n_runs: 0,
        })
    }

    /// The optimizer's description of the model.
    pub fn spec(&self) -> ModelSpec {
        let uses = self.usages();
        let params = self.parameters.iter().zip(uses).map(|(p, usage)| ParamSpec {
            name: p.name.clone(),
            shape: p.value.shape().to_vec(),
            dtype: p.value.dtype(),
            trainable: p.trainable,
            usage,
            role: None,
        });
        ModelSpec {
            name: self.name.clone(),
            weight: self.weight,
            architecture: self.published.as_ref().map(|p| p.config.model_type.clone()),
            params: params.collect(),
            vocabulary: self.vocabulary.clone(),
            tokens: self.common_tokens.clone(),
            task: self.task.clone(),
        }
    }

    /// What the graph shows of each parameter's use.
    fn usages(&self) -> Vec<Option<Usage>> {
        let (graph, ids) = (&self.sessions.graph, &self.sessions.ids);
        if self.adapters.is_empty() {
            return usages(graph, ids);
        }
        // A layer with an adapter has two products, and shows no more what it does.
        let plain = self.adapters.taken_out(graph);
        let mut uses = plain.map_or_else(|_| vec![None; ids.len()], |graph| usages(&graph, ids));
        self.adapters.add_usages(&self.parameters, &mut uses);
        uses
    }

    /// The names of classes or tags by id, as in the configuration; empty without any.
    pub fn label_names(&self) -> &[String] {
        self.published.as_ref().map_or(&[], |p| &p.config.labels)
    }

    /// Its longest sequence in tokens, where the configuration is known.
    pub fn max_sequence(&self) -> Option<usize> {
        self.published.as_ref().map(|p| p.config.max_sequence())
    }

    /// Whether all of its parameters were drawn, and none was read.
    pub fn is_fresh(&self) -> bool {
        self.published.as_ref().is_some_and(|p| p.fresh)
    }

    /// Whether both are fresh, with the same parameters and the same seed.
    pub fn is_twin_of(&self, other: &Self) -> bool {
        let shape = |p: &Parameter| (p.name.clone(), p.value.shape().to_vec());
        let same = |(a, b): (&Parameter, &Parameter)| shape(a) == shape(b);
        self.is_fresh()
            && other.is_fresh()
            && self.seed == other.seed
            && self.parameters.len() == other.parameters.len()
            && self.parameters.iter().zip(&other.parameters).all(same)
    }

    /// The row of the position table that the first token looks up.
    pub fn first_position(&self) -> usize {
        let config = self.published.as_ref().map(|p| &p.config);
        config.map_or(0, |c| c.positions - c.max_sequence())
    }

    /// Width, attention heads and width inside the mlp, where the configuration is known.
    pub fn body_sizes(&self) -> Option<[usize; 3]> {
        self.published.as_ref().map(|p| [p.config.hidden, p.config.heads, p.config.intermediate])
    }

    /// Of fresh weights and dropout.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Checks a training batch; nothing is changed.
    pub fn check_training(&self, batch: Batch) -> Result<()> {
        self.sessions.signature.check(batch, true).map(|_| ())
    }

    /// Whether no parameter is trained: with mutual learning such a model still teaches.
    pub fn only_teaches(&self) -> bool {
        !self.parameters.iter().any(|p| p.trainable)
    }

    /// Refuses a model without a trained parameter.
    pub fn check_trained(&self) -> Result<()> {
        if !self.only_teaches() {
            return Ok(());
        }
        let why = self.report.why_untrained();
        Err(Error::invalid(format!("model '{}': it has no trainable parameter: {why}", self.name)))
    }

    /// Opens the session that training on batches of these shapes needs, if it is not open.
    pub fn prepare(&mut self, batch: Batch) -> Result<()> {
        self.check_trained()?;
        let (key, options) = (self.sessions.signature.key(batch), &self.train_session);
        let (sessions, parameters) = (&self.sessions, &mut self.parameters);
        let (planned, meter) = (&mut self.planned, &self.meter);
        let make = |key: &ShapeKey| {
            let planned = take_planned(planned, key, sessions, parameters, batch)?;
            sessions.training(parameters, planned, options, meter)
        };
        self.training.get_or_make(key, make).map(|_| ())
    }

    /// Whether the session that training on batches of these shapes needs is open.
    pub fn has_session(&mut self, batch: Batch) -> bool {
        self.training.get_mut(&self.sessions.signature.key(batch)).is_some()
    }

    /// Finds out what a training pass over a batch takes, for [`Model::pass_bytes`]. The graph that
    /// it makes is kept for the session.
    pub fn foresee(&mut self, batch: Batch) -> Result<()> {
        if self.only_teaches() {
            return Ok(());
        }
        let key = self.sessions.signature.key(batch);
        let open = self.training.get_mut(&key).map(|bound| bound.memory);
        let memory = match (open, &self.planned) {
            (Some(memory), _) => memory,
            (None, Some((of, (graph, _)))) if *of == key => graph.memory,
            _ => {
                let planned = self.sessions.training_graph(&self.parameters, batch)?;
                self.planned.insert((key, planned)).1.0.memory
            }
        };
        self.pass_bytes = memory.peak;
        Ok(())
    }

    /// The working memory of the last training pass that was foreseen; 0 before the first.
    pub fn pass_bytes(&self) -> usize {
        self.pass_bytes
    }

    /// The working memory that a pass over a batch takes, foreseen: a training pass where the model
    /// is trained.
    pub fn pass_memory(&self, batch: Batch) -> Result<PassMemory> {
        if self.only_teaches() {
            let labelled = self.sessions.signature.check(batch, false)?;
            return Ok(self.sessions.evaluation_graph(batch, labelled)?.memory);
        }
        self.check_training(batch)?;
        Ok(self.sessions.training_graph(&self.parameters, batch)?.0.memory)
    }

    /// Sets aside what a pass over a batch overwrites: the gradients if the step reads them where
    /// they lie, and the last batch if the step may look at it again.
    pub fn set_aside(&mut self, batch: Batch, gradients: bool, inputs: bool) -> Result<Earlier> {
        let all = self.parameters.iter().filter(|_| gradients);
        let gradients = all.map(|p| p.gradient().map(Tensor::copy).transpose());
        let gradients = gradients.collect::<Result<_>>()?;
        let key = self.sessions.signature.key(batch);
        let inputs = inputs.then(|| self.training.get_mut(&key)).flatten();
        let inputs = inputs.map(|bound| bound.copy_inputs().map(|copies| (key, copies)));
        let inputs = inputs.transpose()?;
        Ok(Earlier { gradients, inputs })
    }

    /// Puts back what [`Model::set_aside`] gave.
    pub fn put_back(&mut self, earlier: Earlier) {
        for (parameter, gradient) in self.parameters.iter_mut().zip(earlier.gradients) {
            if let (Some(gradient), Ok(own)) = (gradient, parameter.gradient_mut()) {
                own.bytes_mut().copy_from_slice(gradient.bytes());
            }
        }
        if let Some((key, inputs)) = earlier.inputs
            && let Some(bound) = self.training.get_mut(&key)
        {
            bound.put_back_inputs(&inputs);
        }
    }

    /// Counts the pass over a batch that [`Model::learn`] made, once it is known that the passes of
    /// all models are good: until then nothing that later passes depend on has changed.
    pub fn count_pass(&mut self, batch: Batch) -> Result<()> {
        let key = self.sessions.signature.key(batch);
        let bound = self.training.get_mut(&key).ok_or_else(|| Error::internal("no session"))?;
        bound.copy_buffers(&mut self.parameters)?;
        self.last = key;
        self.n_runs += 1;
        Ok(())
    }

    /// Loss and gradients of a batch that passed [`Model::check_training`].
    pub fn forward_backward(&mut self, batch: Batch) -> Result<Run> {
        self.check_trained()?;
        self.learn(batch, Teaching::None, None)
    }

    /// Rows and classes of the logits that training on a batch gives. Opens the session for it.
    pub fn row_shape(&mut self, batch: Batch) -> Result<(usize, usize)> {
        self.prepare(batch)?;
        let bound = self.training.get_mut(&self.sessions.signature.key(batch));
        let bound = bound.ok_or_else(|| Error::internal("no session"))?;
        row_shape(&self.sessions.spec.kind, &outputs(bound)?)
    }

    /// As [`Model::forward_backward`], drawn towards what `teaching` gives; what the model itself
    /// predicts goes into `prediction`. Both need mutual learning. A pass that is to count is
    /// counted by [`Model::count_pass`].
    pub fn learn(
        &mut self,
        batch: Batch,
        teaching: Teaching,
        prediction: Option<&mut Prediction>,
    ) -> Result<Run> {
        #[cfg(test)]
        {
            self.ran_on = Some(std::thread::current().id());
        }
        self.tell_of_mask(batch);
        let key = self.sessions.signature.key(batch);
        let (options, notes) = (&self.train_session, &mut self.notes);
        let (sessions, parameters) = (&self.sessions, &mut self.parameters);
        let (planned, meter) = (&mut self.planned, &self.meter);
        let bound = self.training.get_or_make(key, |key| {
            let start = Instant::now();
            let planned = take_planned(planned, key, sessions, parameters, batch)?;
            let made = sessions.training(parameters, planned, options, meter)?;
            let ms = start.elapsed().as_millis();
            let text = format!("a training session for the shapes {key:?} took {ms} ms to open");
            notes.push((Level::Debug, text));
            Ok::<_, Error>(made)
        })?;
        check_labels(&sessions.spec, bound, batch)?;
        bound.set_input(
            SEED_INPUT,
            &dropout_seed(self.seed, self.rank, self.n_runs).to_ne_bytes(),
        )?;
        let mut ready = None;
        match teaching {
            Teaching::Target(target) if sessions.mutual.is_some_and(|own| own.asks) => {
                let ready = ready.insert(ReadyAnswer::new(target.to_answer()));
                bound.set_input(EXCHANGE_INPUT, bytemuck::cast_slice(&ready.input()))?;
            }
            Teaching::Target(target) => target.feed(bound)?,
            Teaching::Exchange(place) => {
                bound.set_input(EXCHANGE_INPUT, bytemuck::cast_slice(&place))?;
            }
            Teaching::None => {
                bound.clear_input(TARGET_WEIGHTS_INPUT);
                bound.clear_input(EXCHANGE_INPUT);
            }
        }
        bound.run(batch)?;
        drop(ready);
        if let (Some(prediction), Some(own)) = (prediction, sessions.mutual) {
            prediction.set(&sessions.spec.kind, &outputs(bound)?, own.temperature)?;
        }
        let accuracy = accuracy(&sessions.spec, &outputs(bound)?, batch)?;
        let mutual_loss = bound.mutual()? + teaching.entropy();
        let weight = loss_weight(&sessions.spec, batch, accuracy.n_labels);
        let run = Run { loss: bound.loss()?, mutual_loss, labelled: true, accuracy, weight };
        self.parameters.iter_mut().for_each(Parameter::clear_frozen_rows);
        Ok(run)
    }

    /// Notes, once, an attention mask that holds other numbers than 0 and 1. Published models add
    /// (1 − mask) times a very small number to the scores: a 2 would draw all attention.
    fn tell_of_mask(&mut self, batch: Batch) {
        let mask = batch.iter().find(|v| v.name == "attention_mask" && v.dtype == DType::I64);
        if let Some(bad) = mask.and_then(|v| v.ints().find(|m| !(0..=1).contains(m)))
            && !std::mem::replace(&mut self.mask_told, true)
        {
            let text = format!(
                "'attention_mask' holds {bad}; 1 for tokens to read and 0 for padding are expected"
            );
            self.notes.push((Level::Warning, text));
        }
    }

    /// Which parameters are running statistics that the last training batch has moved.
    pub fn running_statistics(&mut self) -> Vec<usize> {
        let bound = self.training.get_mut(&self.last);
        bound.map(|b| b.buffers().collect()).unwrap_or_default()
    }

    /// The loss on the last training batch with the parameters as they are now: one forward pass
    /// with the same dropout. `None` before the first batch.
    pub fn recompute_loss(&mut self) -> Result<Option<f64>> {
        let parameters = &self.parameters;
        self.training.get_mut(&self.last).map(|bound| bound.recompute_loss(parameters)).transpose()
    }

    /// Loss (when the batch has labels), accuracy and logits, without dropout and gradients.
    pub fn evaluate(&mut self, batch: Batch) -> Result<(Run, Vec<(String, Tensor)>)> {
        let (run, bound) = self.forward(batch, None)?;
        let logits = (0..bound.n_outputs())
            .map(|i| Ok((bound.output_name(i).to_owned(), bound.output(i)?.copy()?)))
            .collect::<Result<_>>()?;
        Ok((run, logits))
    }

    /// What the model predicts for a batch with labels, on a share of the cores; for mutual
    /// learning, which asks for the same kind each time.
    pub fn predict(
        &mut self,
        batch: Batch,
        forward: Forward,
        prediction: &mut Prediction,
    ) -> Result<Run> {
        let temperature = self.sessions.mutual.map_or(1.0, |own| own.temperature);
        let kind = self.sessions.spec.kind.clone();
        let (run, bound) = self.forward(batch, Some(forward))?;
        prediction.set(&kind, &outputs(bound)?, temperature)?;
        Ok(run)
    }

    /// Alone, or beside other models.
    fn forward(&mut self, batch: Batch, beside: Option<Forward>) -> Result<(Run, &BoundSession)> {
        let signature = &self.sessions.signature;
        // A loss without labels, which the model computes itself, is known for each batch.
        let labelled = signature.check(batch, false)? || !signature.has_labels();
        let key = self.sessions.signature.key(batch);
        let (sessions, parameters) = (&self.sessions, &mut self.parameters);
        let meter = &self.meter;
        let (cache, options) = match beside {
            Some(_) => (&mut self.teaching, &self.train_session),
            None => (&mut self.evaluation, &self.eval_session),
        };
        let seed = dropout_seed(self.seed, self.rank, self.n_runs);
        let forward = beside.unwrap_or(Forward::Weights);
        let make = |_: &ShapeKey| {
            sessions.evaluation(parameters, batch, labelled, forward, options, meter)
        };
        let bound = cache.get_or_make(key, make)?;
        check_labels(&sessions.spec, bound, batch)?;
        bound.set_input(SEED_INPUT, &seed.to_ne_bytes())?;
        bound.run(batch)?;
        let accuracy = accuracy(&sessions.spec, &outputs(bound)?, batch)?;
        let weight = loss_weight(&sessions.spec, batch, accuracy.n_labels);
        Ok((Run { loss: bound.loss()?, mutual_loss: 0.0, labelled, accuracy, weight }, bound))
    }

    /// Whether it computes its own gradients.
    pub fn is_precomputed(&self) -> bool {
        self.sessions.precomputed.is_some()
    }

    /// Where the training pass over a batch first goes non-finite, with the parameters as they are
    /// now and the dropout of the last pass. Peers are left out.
    pub fn find_non_finite(&self, batch: Batch) -> Result<Option<NonFiniteOrigin>> {
        self.sessions.signature.check(batch, true)?;
        let (graph, _) = self.sessions.training_graph(&self.parameters, batch)?;
        let mut fed: Vec<(String, Tensor)> = Vec::new();
        for (name, dtype, shape) in &graph.data_inputs {
            if self.parameters.iter().any(|p| p.name == *name) {
                continue;
            }
            let mut tensor = Tensor::zeros(*dtype, shape)?;
            if let Some(view) = batch.iter().find(|v| v.name == name) {
                copy_into(view, &mut tensor)?;
            } else if name == SEED_INPUT {
                let seed = dropout_seed(self.seed, self.rank, self.n_runs.saturating_sub(1));
                tensor.bytes_mut().copy_from_slice(&seed.to_ne_bytes());
            }
            fed.push((name.clone(), tensor));
        }
        let mut feeds: Vec<(&str, &Tensor)> = fed.iter().map(|(n, t)| (n.as_str(), t)).collect();
        feeds.extend(self.parameters.iter().map(|p| (p.name.as_str(), &p.value)));
        let gradients = graph.grads.iter().flatten().map(String::as_str);
        let checked: Vec<&str> = [graph.loss.as_str()].into_iter().chain(gradients).collect();
        find_non_finite(&graph.bytes, &checked, &feeds)
    }

    /// The parameter of that name.
    pub fn parameter(&self, name: &str) -> Result<&Parameter> {
        let found = self.positions.get(name).and_then(|&i| self.parameters.get(i));
        found.ok_or_else(|| Error::not_found(format!("no parameter '{name}'")))
    }

    /// The parameter of that name, for change between runs.
    pub fn parameter_mut(&mut self, name: &str) -> Result<&mut Parameter> {
        let found = self.positions.get(name).and_then(|&i| self.parameters.get_mut(i));
        found.ok_or_else(|| Error::not_found(format!("no parameter '{name}'")))
    }

    /// The matrices that adapters change, with these added to them, by name.
    pub fn merged(&self) -> Result<HashMap<String, Tensor>> {
        self.adapters.merged(&self.parameters)
    }

    /// Writes the adapters alone.
    pub fn save_adapters(&self, dir: &Path) -> Result<()> {
        let published = self.published.as_ref();
        let home = Home {
            directory: self.directory.as_deref(),
            task: published.map(|p| p.task),
            tied: published.map_or(&[], |p| &p.tied),
            is_conv1d: published.is_some_and(|p| p.config.architecture == Architecture::Gpt2),
        };
        self.adapters.save(dir, &self.parameters, &home)
    }

    /// Values that are written in place of the parameters' own, by name: matrices with adapters
    /// merged into them, and what is stored in f16 or bf16, rounded.
    ///
    /// # Errors
    /// `NonFinite` names a parameter that would become infinite.
    pub fn written(&self) -> Result<HashMap<String, Tensor>> {
        let mut written = self.merged()?;
        for parameter in self.parameters.iter().filter(|p| !self.adapters.owns(&p.name)) {
            let Some(dtype) = parameter.stored else { continue };
            let value = written.get(&parameter.name).unwrap_or(&parameter.value);
            let narrow = rounded(&parameter.name, value, dtype)?;
            written.insert(parameter.name.clone(), narrow);
        }
        Ok(written)
    }

    /// The parameters of the model without adapters, those of `written` in place of its own.
    pub fn exported<'a>(
        &'a self,
        written: &'a HashMap<String, Tensor>,
    ) -> impl Iterator<Item = (&'a str, &'a Tensor)> {
        let own = self.parameters.iter().filter(|p| !self.adapters.owns(&p.name));
        own.map(|p| (p.name.as_str(), written.get(&p.name).unwrap_or(&p.value)))
    }

    /// The forward graph with the present weights inside, ready for inference; adapters are merged.
    /// An ONNX graph that had half types has them again, a published model is f32.
    /// Of a model that computes its own gradients, the part that makes the logits; all of it
    /// without logits.
    pub fn inference_graph(&self) -> Result<Graph> {
        let mut graph = self.adapters.taken_out(&self.sessions.graph)?;
        let half = self.half.any();
        let written = if half { self.written()? } else { self.merged()? };
        for (&id, parameter) in self.sessions.ids.iter().zip(&self.parameters) {
            let value = written.get(&parameter.name).unwrap_or(&parameter.value);
            graph.set_initializer(id, TensorData::from_tensor(value)?);
        }
        self.half.restore(&mut graph)?;
        if let Some(precomputed) =
            self.sessions.precomputed.as_ref().filter(|g| !g.logits.is_empty())
        {
            graph.set_outputs(
                precomputed.logits.iter().filter_map(|name| graph.find(name)).collect(),
            );
            graph.prune();
            graph.prune_inputs(&[]);
        }
        switch_to_inference(&mut graph)?;
        // Runtimes warn of initializers that nothing reads.
        graph.prune();
        Ok(graph)
    }
}

/// The graph that was made for these shapes, or a new one.
fn take_planned(
    planned: &mut Option<(ShapeKey, Planned)>,
    key: &ShapeKey,
    sessions: &SessionBuilder,
    parameters: &[Parameter],
    batch: Batch,
) -> Result<Planned> {
    match planned.take() {
        Some((of, planned)) if of == *key => Ok(planned),
        _ => sessions.training_graph(parameters, batch),
    }
}

fn outputs(bound: &BoundSession) -> Result<Vec<&Tensor>> {
    (0..bound.n_outputs()).map(|i| bound.output(i)).collect()
}

fn loss_spec(options: &ModelOptions, published: Option<&Published>) -> Result<LossSpec> {
    if let Some(gradients) = &options.gradients {
        if options.loss.is_some() {
            return Err(Error::invalid(
                "a model that brings its own gradients has its loss too; leave the loss out",
            ));
        }
        return Ok(LossSpec::new(LossKind::Output(gradients.outputs.loss.clone())));
    }
    if let Some(spec) = &options.loss {
        return Ok(spec.clone());
    }
    let published = published.ok_or_else(|| {
        Error::invalid("an ONNX model needs a loss; say which (its kind and the output it reads)")
    })?;
    check_problem_type(published)?;
    let kind = match published.task {
        // As published: one label is a number.
        Task::SequenceClassification { num_labels: 1 } => LossKind::MeanSquaredError,
        Task::SequenceClassification { .. } => LossKind::SequenceClassification,
        Task::TokenClassification { .. } => LossKind::TokenClassification,
        Task::QuestionAnswering => LossKind::QuestionAnswering,
        Task::MaskedLm => LossKind::MaskedLm,
        Task::CausalLm => LossKind::CausalLm,
    };
    Ok(LossSpec::new(kind))
}

/// Refuses a configuration whose classes are not exclusive: its loss is another one.
fn check_problem_type(published: &Published) -> Result<()> {
    let found = published.config.other.get("problem_type").and_then(|p| p.as_str());
    let n = match published.task {
        Task::SequenceClassification { num_labels } => num_labels,
        _ => return Ok(()),
    };
    match found {
        Some("multi_label_classification") => Err(Error::unsupported(
            "its problem_type is multi_label_classification, whose loss (binary cross-entropy) \
             there is not; take problem_type out of config.json to train one class for each text",
        )),
        Some("regression") if n > 1 => Err(Error::unsupported(format!(
            "its problem_type is regression with {n} numbers; set the loss to the mean squared \
             error, with labels f32 [batch, {n}]"
        ))),
        Some("single_label_classification") if n == 1 => Err(Error::invalid(
            "its problem_type is single_label_classification, but it has one label only",
        )),
        _ => Ok(()),
    }
}

/// Reports what cannot be differentiated before anything is built.
fn check_graph(graph: &Graph, trained: &[ValueId]) -> Result<()> {
    graph.outputs().iter().try_for_each(|&output| check_operators(graph, output, trained))
}

/// A number below 2³¹ from the model's seed, the rank and the pass (splitmix64, Steele et al.
/// 2014).
fn dropout_seed(seed: u64, rank: u64, run: u64) -> i64 {
    let seed = seed.wrapping_add(rank.wrapping_mul(0xd1b5_4a32_d192_ed03));
    let mut z = seed.wrapping_add(run.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 33) as i64
}

/// Class labels must exist among the logits' classes.
fn check_labels(spec: &LossSpec, bound: &BoundSession, batch: Batch) -> Result<()> {
    if bound.n_outputs() == 0 {
        return Ok(());
    }
    let shape = bound.output(0)?.shape();
    let n_classes = match (&spec.kind, shape) {
        (LossKind::QuestionAnswering, &[_, length, 2]) => length,
        _ => shape.last().copied().unwrap_or(1),
    };
    let integer = |v: &&TensorView| {
        v.dtype == DType::I64 && labels(&spec.kind).iter().any(|(name, ..)| name == v.name)
    };
    batch.iter().filter(integer).try_for_each(|v| check_classes(v, n_classes, spec.ignore_index))
}
