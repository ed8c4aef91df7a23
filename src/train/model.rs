//! One model: its forward graph, its parameters, and a session per shape.

use super::batch::{Batch, Signature, TensorView, check_classes};
use super::bound::{Bound, Program};
use super::graphs::{
    SEED_INPUT, evaluation_graph, find_parameters, make_inputs, mutual_training_graph,
    parameter_data, switch_to_inference,
};
use super::mutual::{self, Peers, Prediction};
use super::options::{ModelOptions, Source};
use super::parameter::Parameter;
use super::score::{Score, score};
use super::usage::usages;
use crate::autodiff::{LossKind, LossSpec, check_operators};
use crate::error::{Context, Error, Result};
use crate::models::{self, BuiltModel, Config, LoadOptions, PaddingRow, Task};
use crate::onnx::{Graph, TensorData, ValueId};
use crate::optim::{ModelSpec, ParamSpec, matches};
use crate::runtime::{Canceller, SessionOptions, ShapeCache};
use crate::tensor::{DType, Tensor};

/// Shapes of inputs and labels: what a session is made for.
type Key = Vec<Vec<usize>>;

/// What a published directory needs besides the weights.
pub(super) struct Published {
    pub config: Config,
    pub task: Task,
    padding: Vec<PaddingRow>,
}

/// A model in training.
pub(super) struct Model {
    pub name: String,
    weight: f64,
    vocabulary: Option<String>,
    task: Option<String>,
    // Sessions refer to the parameters' memory and are dropped first.
    training: ShapeCache<Key, Bound>,
    evaluation: ShapeCache<Key, Bound>,
    pub parameters: Vec<Parameter>,
    ids: Vec<ValueId>,
    /// The forward graph; its parameters are inputs without data.
    graph: Graph,
    pub spec: LossSpec,
    signature: Signature,
    pub published: Option<Published>,
    pub train_session: SessionOptions,
    pub eval_session: SessionOptions,
    /// Ends this model's runs; given to every session.
    pub canceller: Option<Canceller>,
    /// Temperature of mutual learning, when it is on.
    pub mutual: Option<f64>,
    seed: u64,
    /// Shapes of the last training batch; empty before the first.
    last: Key,
    /// Training passes so far: with the seed it decides what dropout draws.
    pub n_runs: u64,
}

/// Loss and score of one batch.
pub(super) struct Run {
    pub loss: f64,
    /// Whether the batch had labels, so that the loss says something.
    pub labelled: bool,
    pub score: Score,
}

impl Model {
    pub fn new(options: &ModelOptions, max_sessions: usize) -> Result<Self> {
        let (mut graph, published) = read(options)?;
        graph.name.clone_from(&options.name);
        let spec = loss_spec(options, published.as_ref())?;
        let (ids, mut parameters) = take_parameters(&mut graph, options)?;
        for row in published.iter().flat_map(|p| &p.padding) {
            let found = parameters.iter_mut().find(|p| p.name == row.parameter);
            found.into_iter().for_each(|p| p.still_rows.push(row.row));
        }
        let trained: Vec<ValueId> =
            ids.iter().zip(&parameters).filter(|(_, p)| p.trainable).map(|(&v, _)| v).collect();
        check_graph(&graph, &trained)?;
        let max_positions = published.as_ref().map(|p| p.config.max_sequence());
        let signature = Signature::new(&graph, &ids, &labels(&spec), max_positions);
        Ok(Self {
            name: options.name.clone(),
            weight: options.weight,
            vocabulary: options.vocabulary.clone(),
            task: options.task_name.clone(),
            training: ShapeCache::new(max_sessions),
            evaluation: ShapeCache::new(max_sessions),
            parameters,
            ids,
            graph,
            spec,
            signature,
            published,
            train_session: SessionOptions::default(),
            eval_session: SessionOptions::default(),
            canceller: None,
            mutual: None,
            seed: options.seed,
            last: Key::new(),
            n_runs: 0,
        })
    }

    /// What the optimizer is told of the model.
    pub fn spec(&self) -> ModelSpec {
        let uses = usages(&self.graph, &self.ids);
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
            task: self.task.clone(),
        }
    }

    /// Checks a training batch; nothing is changed.
    pub fn check_training(&self, batch: Batch) -> Result<()> {
        self.signature.check(batch, true).map(|_| ())
    }

    /// Opens the session that training on batches of these shapes needs, if it is not open.
    pub fn prepare(&mut self, batch: Batch) -> Result<()> {
        let context = &mut Sources {
            graph: &self.graph,
            ids: &self.ids,
            parameters: &mut self.parameters,
            spec: &self.spec,
            signature: &self.signature,
            mutual: self.mutual,
            canceller: self.canceller.as_ref(),
        };
        let (key, options) = (self.signature.key(batch), &self.train_session);
        self.training.get_or_make(key, |_| context.training(batch, options)).map(|_| ())
    }

    /// Loss and gradients of a batch that passed [`Model::check_training`].
    pub fn forward_backward(&mut self, batch: Batch) -> Result<Run> {
        self.learn(batch, None).map(|(run, _)| run)
    }

    /// As [`Model::forward_backward`], drawn towards `peers` if there are any; also returns what
    /// the model itself predicts, when mutual learning is on.
    pub fn learn(
        &mut self,
        batch: Batch,
        peers: Option<&Peers>,
    ) -> Result<(Run, Option<Prediction>)> {
        let key = self.signature.key(batch);
        let context = &mut Sources {
            graph: &self.graph,
            ids: &self.ids,
            parameters: &mut self.parameters,
            spec: &self.spec,
            signature: &self.signature,
            mutual: self.mutual,
            canceller: self.canceller.as_ref(),
        };
        let options = &self.train_session;
        self.last.clone_from(&key);
        let bound = self.training.get_or_make(key, |_| context.training(batch, options))?;
        check_labels(&self.spec, bound, batch)?;
        bound.set_input(SEED_INPUT, &dropout_seed(self.seed, self.n_runs).to_ne_bytes())?;
        if self.mutual.is_some() {
            mutual::feed(bound, peers)?;
        }
        bound.run(batch)?;
        self.n_runs += 1;
        let prediction = self.mutual.map(|t| Prediction::of(bound.output(0)?, t)).transpose()?;
        let score = score(&self.spec, &outputs(bound)?, batch)?;
        let run = Run { loss: bound.loss()?, labelled: true, score };
        self.parameters.iter_mut().for_each(Parameter::clear_still_rows);
        Ok((run, prediction))
    }

    /// The loss on the last training batch with the parameters as they are now: one forward pass
    /// with the same dropout. `None` before the first batch.
    pub fn loss_again(&mut self) -> Result<Option<f64>> {
        let parameters = &self.parameters;
        self.training.get_mut(&self.last).map(|bound| bound.loss_again(parameters)).transpose()
    }

    /// Loss (when the batch has labels), score and logits, without dropout and gradients.
    pub fn evaluate(&mut self, batch: Batch) -> Result<(Run, Vec<(String, Tensor)>)> {
        let labelled = self.signature.check(batch, false)?;
        let key = self.signature.key(batch);
        let context = &mut Sources {
            graph: &self.graph,
            ids: &self.ids,
            parameters: &mut self.parameters,
            spec: &self.spec,
            signature: &self.signature,
            mutual: None,
            canceller: self.canceller.as_ref(),
        };
        let options = &self.eval_session;
        let bound =
            self.evaluation.get_or_make(key, |_| context.evaluation(batch, labelled, options))?;
        check_labels(&self.spec, bound, batch)?;
        bound.run(batch)?;
        let score = score(&self.spec, &outputs(bound)?, batch)?;
        let logits = (0..bound.n_outputs())
            .map(|i| Ok((bound.output_name(i).to_owned(), bound.output(i)?.clone())))
            .collect::<Result<_>>()?;
        Ok((Run { loss: bound.loss()?, labelled, score }, logits))
    }

    /// The parameter of that name.
    pub fn parameter(&self, name: &str) -> Result<&Parameter> {
        self.parameters
            .iter()
            .find(|p| p.name == name)
            .ok_or_else(|| Error::not_found(format!("no parameter '{name}'")))
    }

    /// The parameter of that name, for change between runs.
    pub fn parameter_mut(&mut self, name: &str) -> Result<&mut Parameter> {
        self.parameters
            .iter_mut()
            .find(|p| p.name == name)
            .ok_or_else(|| Error::not_found(format!("no parameter '{name}'")))
    }

    /// The forward graph with the present weights inside, ready for inference.
    pub fn inference_graph(&self) -> Result<Graph> {
        let mut graph = self.graph.clone();
        for (&id, parameter) in self.ids.iter().zip(&self.parameters) {
            graph.set_initializer(id, TensorData::from_tensor(&parameter.value));
        }
        switch_to_inference(&mut graph)?;
        Ok(graph)
    }
}

/// What sessions are made from.
struct Sources<'a> {
    graph: &'a Graph,
    ids: &'a [ValueId],
    parameters: &'a mut [Parameter],
    spec: &'a LossSpec,
    signature: &'a Signature,
    mutual: Option<f64>,
    canceller: Option<&'a Canceller>,
}

impl Sources<'_> {
    fn training(&mut self, batch: Batch, options: &SessionOptions) -> Result<Bound> {
        let shapes = self.signature.shapes(batch);
        let trained: Vec<usize> =
            (0..self.ids.len()).filter(|&i| self.parameters[i].trainable).collect();
        let ids: Vec<ValueId> = trained.iter().map(|&i| self.ids[i]).collect();
        let graph = mutual_training_graph(self.graph, &ids, self.spec, &shapes, self.mutual)?;
        let gradients: Vec<(usize, String)> = trained
            .iter()
            .zip(&graph.grads)
            .filter_map(|(&i, name)| Some((i, name.clone()?)))
            .collect();
        let outputs = typed(&graph.logits);
        let program = Program {
            bytes: &graph.bytes,
            inputs: &graph.data_inputs,
            gradients: &gradients,
            loss: Some(&graph.loss),
            outputs: &outputs,
        };
        Bound::new(&program, self.parameters, options, self.canceller)
    }

    fn evaluation(
        &mut self,
        batch: Batch,
        labelled: bool,
        options: &SessionOptions,
    ) -> Result<Bound> {
        let shapes = self.signature.shapes(batch);
        let spec = labelled.then_some(self.spec);
        let graph = evaluation_graph(self.graph, &[], spec, &shapes)?;
        let outputs = typed(&graph.logits);
        let program = Program {
            bytes: &graph.bytes,
            inputs: &graph.data_inputs,
            gradients: &[],
            loss: graph.loss.as_deref(),
            outputs: &outputs,
        };
        Bound::new(&program, self.parameters, options, self.canceller)
    }
}

fn typed(logits: &[(String, Vec<usize>)]) -> Vec<(String, DType, Vec<usize>)> {
    logits.iter().map(|(name, shape)| (name.clone(), DType::F32, shape.clone())).collect()
}

fn outputs(bound: &Bound) -> Result<Vec<&Tensor>> {
    (0..bound.n_outputs()).map(|i| bound.output(i)).collect()
}

fn read(options: &ModelOptions) -> Result<(Graph, Option<Published>)> {
    let dropout = options.dropout.map(f64::from);
    let load = LoadOptions { seed: options.seed, dropout, ..LoadOptions::default() };
    let of = |built: BuiltModel| {
        let BuiltModel { graph, config, task, padding_rows: padding, .. } = built;
        (graph, Some(Published { config, task, padding }))
    };
    Ok(match &options.source {
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
    })
}

fn loss_spec(options: &ModelOptions, published: Option<&Published>) -> Result<LossSpec> {
    if let Some(spec) = &options.loss {
        return Ok(spec.clone());
    }
    let published = published.ok_or_else(|| {
        Error::invalid("an ONNX model needs a loss; say which (its kind and the output it reads)")
    })?;
    let kind = match published.task {
        Task::SequenceClassification { .. } => LossKind::SequenceClassification,
        Task::TokenClassification { .. } => LossKind::TokenClassification,
        Task::QuestionAnswering => LossKind::QuestionAnswering,
        Task::MaskedLm => LossKind::MaskedLm,
        Task::CausalLm => LossKind::CausalLm,
    };
    Ok(LossSpec::new(kind))
}

/// Moves the parameters' data out of the graph into tensors; they become graph inputs. What
/// should not be trained by default (scalars and masks of the exporter) stays in the graph unless
/// a pattern asks for it.
fn take_parameters(
    graph: &mut Graph,
    options: &ModelOptions,
) -> Result<(Vec<ValueId>, Vec<Parameter>)> {
    let any = |patterns: &[String], name: &str| patterns.iter().any(|p| matches(p, name));
    let found = find_parameters(graph);
    for pattern in options.trainable.iter().chain(&options.frozen) {
        if !found.iter().any(|p| matches(pattern, &p.name)) {
            return Err(Error::not_found(format!("no parameter matches the pattern '{pattern}'")));
        }
    }
    let mut ids = Vec::new();
    let mut parameters = Vec::new();
    for p in found {
        let asked = any(&options.trainable, &p.name);
        if p.fixed.is_some() && !asked {
            continue;
        }
        if p.dtype != DType::F32 {
            return Err(Error::unsupported(format!(
                "parameter '{}' is {}; only f32 graphs can be trained",
                p.name, p.dtype
            )));
        }
        let wanted = options.trainable.is_empty() || asked;
        let value = parameter_data(graph, p.value)?.to_tensor()?;
        parameters.push(Parameter::new(
            p.name.clone(),
            value,
            wanted && !any(&options.frozen, &p.name),
        )?);
        ids.push(p.value);
    }
    make_inputs(graph, &ids)?;
    graph.prune();
    // The weights were copied; what is left must not keep their file in memory.
    graph.detach();
    if !parameters.iter().any(|p| p.trainable) {
        return Err(Error::invalid("the model has no trainable parameter"));
    }
    Ok((ids, parameters))
}

/// Says what cannot be differentiated before anything is built.
fn check_graph(graph: &Graph, trained: &[ValueId]) -> Result<()> {
    graph.outputs().iter().try_for_each(|&output| check_operators(graph, output, trained))
}

/// Labels that a loss takes: name, dtype, rank where it is fixed.
fn labels(spec: &LossSpec) -> Vec<(String, DType, Option<usize>)> {
    let one = |rank| vec![("labels".to_owned(), DType::I64, Some(rank))];
    match spec.kind {
        LossKind::SequenceClassification => one(1),
        LossKind::TokenClassification | LossKind::MaskedLm | LossKind::CausalLm => one(2),
        LossKind::QuestionAnswering => ["start_positions", "end_positions"]
            .map(|name| (name.to_owned(), DType::I64, Some(1)))
            .to_vec(),
        LossKind::MeanSquaredError => vec![("labels".to_owned(), DType::F32, None)],
        LossKind::Output(_) => Vec::new(),
    }
}

/// A number below 2³¹ from the model's seed and the pass (splitmix64, Steele et al. 2014).
fn dropout_seed(seed: u64, run: u64) -> i64 {
    let mut z = seed.wrapping_add(run.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 33) as i64
}

/// Class labels must exist among the logits' classes.
fn check_labels(spec: &LossSpec, bound: &Bound, batch: Batch) -> Result<()> {
    if bound.n_outputs() == 0 {
        return Ok(());
    }
    let n_classes = bound.output(0)?.shape().last().copied().unwrap_or(1);
    let integer = |v: &&TensorView| {
        v.dtype == DType::I64 && labels(spec).iter().any(|(name, ..)| name == v.name)
    };
    batch.iter().filter(integer).try_for_each(|v| check_classes(v, n_classes, spec.ignore_index))
}
