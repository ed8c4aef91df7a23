//! The trainer: models side by side, one coordinated optimizer.

use std::path::Path;
use std::sync::Arc;

use super::batch::Batch;
use super::ema::Ema;
use super::graphs::Products;
use super::log::{Level, Log};
use super::model::{Earlier, Model, Run};
use super::mutual::step::{Mutual, Student, with_labels};
use super::options::{ModelOptions, TrainerOptions};
use super::parallel::{Parallel, cores};
use super::parameter::Parameter;
use super::ranks::{Agreed, Call, Ranks};
use super::shared_tensor::SharedTensor;
use super::start::apply::apply;
use super::start::report::StartReport;
use super::start::shared::share_rows;
#[cfg(feature = "text")]
use super::start::tokens::Tokens;
use crate::autodiff::{LossKind, MutualTerm};
use crate::checkpoint::beside::Beside;
use crate::checkpoint::writer::RunWriter;
use crate::error::{Context, Error, Result, count};
use crate::memory::give_back_freed;
use crate::optim::{AttentionForm, Buffers, Optimizer, Plan, Precision, StepReport};
use crate::runtime::kernels::{has_bf16_products, has_f32_products};
use crate::runtime::{CancelToken, Device, SessionOptions};
use crate::tensor::{DType, Tensor};

/// Result of one forward and backward pass; on several ranks of the whole batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainResult {
    /// Loss of the batch; 0 when every label is ignored.
    pub loss: f64,
    /// What mutual learning added to it, weighted; 0 without it.
    pub mutual_loss: f64,
    /// Right predictions; 0 for regression.
    pub n_correct: u64,
    /// Labels that count (not ignored); 0 for regression.
    pub n_labels: u64,
}

/// Result of an evaluation.
#[derive(Debug)]
pub struct Evaluation {
    /// Loss, if the batch had labels.
    pub loss: Option<f64>,
    /// Right predictions; 0 without labels.
    pub n_correct: u64,
    /// Labels that count; 0 without labels.
    pub n_labels: u64,
    /// Output tensors by name, as the model has them (`logits`, or `start_logits` and
    /// `end_logits`), f32.
    pub logits: Vec<(String, Tensor)>,
}

/// Facts about a parameter.
#[derive(Clone, Copy, Debug)]
pub struct ParameterInfo<'a> {
    /// Name in the graph and in the published state dict.
    pub name: &'a str,
    /// Shape.
    pub shape: &'a [usize],
    /// Element type.
    pub dtype: DType,
    /// Whether the optimizer changes it.
    pub trainable: bool,
}

/// Several models trained together. `Send`; calls that take `&mut self` need exclusive use.
pub struct Trainer {
    // The optimizer holds addresses inside the models: it is dropped first.
    pub(super) optimizer: Optimizer,
    pub(super) models: Vec<Model>,
    /// Which models' gradients the optimizer knows: they are made by the first pass.
    bound: Vec<bool>,
    /// Micro-batches since the last step, over all models.
    n_pending: usize,
    cancel_token: CancelToken,
    pub(super) mutual: Option<Mutual>,
    /// Why there is no mutual learning.
    pub(super) no_mutual: Option<String>,
    pub(super) ema: Option<Ema>,
    /// The other ranks.
    pub(super) ranks: Option<Ranks>,
    pub(super) parallel: Parallel,
    start: StartReport,
    pub(super) run: Arc<RunWriter>,
    pub(super) writing: Beside,
    pub(super) log: Log,
}

impl Trainer {
    /// Reads every model, checks that all can be trained, and plans what they share.
    ///
    /// Errors name the model: no models, a name taken twice, unreadable or non-finite weights, an
    /// operator without a gradient rule (before any session is opened).
    pub fn new(options: TrainerOptions, models: Vec<ModelOptions>) -> Result<Self> {
        if models.is_empty() {
            return Err(Error::invalid("a trainer needs at least one model"));
        }
        let library = crate::runtime::load(options.runtime.as_deref())?;
        if options.optimizer.precision == Precision::Bf16 && options.device != Device::Cpu {
            return Err(Error::unsupported(
                "precision bf16 is for the CPU; on a GPU the option tf32 makes products faster",
            ));
        }
        if options.optimizer.activation_checkpointing && options.device != Device::Cpu {
            return Err(Error::unsupported(
                "activation_checkpointing is for the CPU; on a GPU take smaller batches and \
                 gradient_accumulation_steps",
            ));
        }
        if options.optimizer.attention == AttentionForm::Fused && options.device != Device::Cpu {
            return Err(Error::unsupported(
                "attention fused is for the CPU; leave it at auto on a GPU",
            ));
        }
        for (i, model) in models.iter().enumerate() {
            if model.name.is_empty() {
                return Err(Error::invalid(format!("model {i} has no name")));
            }
            if models[..i].iter().any(|m| m.name == model.name) {
                return Err(Error::invalid(format!("two models are named '{}'", model.name)));
            }
        }
        options.device.check(library)?;
        let max_sessions = if options.max_sessions == 0 { 16 } else { options.max_sessions };
        let mut built = models
            .iter()
            .map(|m| Model::new(m, max_sessions).map_err(|e| in_model(e, &m.name)))
            .collect::<Result<Vec<_>>>()?;
        let start = apply(&options.optimizer, &mut built)?;
        share_rows(&options.optimizer, &mut built)?;
        give_back_freed();
        let (mutual, no_mutual) = match Mutual::new(&options.optimizer, options.device, &built)? {
            Ok(mutual) => (Some(mutual), None),
            Err(why) => (None, Some(why)),
        };
        let ema = Ema::new(&options.optimizer, mutual.as_ref().map(Mutual::options));
        let cancel_token = CancelToken::new()?;
        let parallel = Parallel::new(&options, &built, mutual.as_ref().map(Mutual::options));
        plan_sessions(&mut built, &options, mutual.as_ref(), &parallel);
        built.iter_mut().for_each(|model| model.sessions.cancel_token = Some(cancel_token.clone()));
        let mut optimizer_options = options.optimizer.clone();
        optimizer_options.n_threads = cores(options.optimizer.n_threads);
        let optimizer = Optimizer::new(optimizer_options, built.iter().map(Model::spec).collect())?;
        let bound = vec![false; built.len()];
        let log = Log::default();
        let models = built;
        let mut trainer = Self {
            optimizer,
            models,
            bound,
            n_pending: 0,
            cancel_token,
            mutual,
            no_mutual,
            ema,
            ranks: None,
            parallel,
            start,
            run: Arc::default(),
            writing: Beside::default(),
            log,
        };
        trainer.log_creation();
        Ok(trainer)
    }

    /// Number of models.
    pub fn n_models(&self) -> usize {
        self.models.len()
    }

    /// Name of a model.
    pub fn model_name(&self, model: usize) -> Result<&str> {
        Ok(&self.model(model)?.name)
    }

    /// Position of the model of that name.
    pub fn model_index(&self, name: &str) -> Result<usize> {
        self.models.iter().position(|m| m.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.models.iter().map(|m| m.name.as_str()).collect();
            Error::not_found(format!("no model '{name}'; there are {}", known.join(", ")))
        })
    }

    /// The loss of a model, which says what its outputs are.
    pub fn loss_kind(&self, model: usize) -> Result<&LossKind> {
        Ok(&self.model(model)?.sessions.spec.kind)
    }

    /// The names of a model's classes or tags by id, as in its configuration; empty without any.
    pub fn label_names(&self, model: usize) -> Result<&[String]> {
        Ok(self.model(model)?.label_names())
    }

    /// What a model's token ids stand for, where that is known.
    #[cfg(feature = "text")]
    pub(crate) fn tokens(&self, model: usize) -> Result<Option<&Tokens>> {
        Ok(self.model(model)?.tokens.as_deref())
    }

    /// A model's longest sequence in tokens, where its configuration is known.
    pub fn max_sequence(&self, model: usize) -> Result<Option<usize>> {
        Ok(self.model(model)?.max_sequence())
    }

    /// The model of a trainer of one, without the optimizer.
    pub(super) fn into_only_model(self) -> Result<Model> {
        let Self { optimizer, models, .. } = self;
        // It holds addresses inside the model.
        drop(optimizer);
        let only: Result<[Model; 1], _> = models.try_into();
        only.map(|[model]| model).map_err(|_| Error::internal("more than one model"))
    }

    /// The `model_type` of a model's configuration, e.g. `bert`; `None` for ONNX graphs.
    pub fn model_type(&self, model: usize) -> Result<Option<&str>> {
        Ok(self.model(model)?.published.as_ref().map(|p| p.config.model_type.as_str()))
    }

    /// The sharing plan.
    pub fn plan(&self) -> &Plan {
        self.optimizer.plan()
    }

    /// What the fresh models started from.
    pub fn start(&self) -> &StartReport {
        &self.start
    }

    /// Whether models learn from each other's predictions, and from whose; or why they do not.
    pub fn mutual_text(&self) -> String {
        match (&self.mutual, &self.no_mutual) {
            (Some(mutual), _) => mutual.to_string(),
            (None, Some(why)) => format!("mutual learning: off: {why}"),
            (None, None) => "mutual learning: off".into(),
        }
    }

    /// Who learns from whom; empty without mutual learning.
    fn students(&self) -> Vec<Student<'_>> {
        self.mutual.as_ref().map_or_else(Vec::new, |m| m.students(&self.models))
    }

    /// What was decided, as text: the sharing plan, the start of fresh models, mutual learning, and
    /// how many models run at the same time.
    pub fn plan_text(&self) -> String {
        let (mutual, parallel) = (self.mutual_text(), self.parallel_text());
        let students: String = self.students().iter().map(|s| format!("{s}\n")).collect();
        let ranks = self.ranks_text();
        format!("{}{}{mutual}\n{students}{parallel}\n{ranks}", self.plan(), self.start)
    }

    /// The same as one JSON object: that of [`Plan::to_json`], `start` ([`StartReport::to_json`]),
    /// the texts `mutual` and `parallel`, `students` (of each trained model `model`, `weight` and
    /// the names `teachers`), and on several ranks `ranks`: what this rank sends.
    pub fn plan_json(&self) -> serde_json::Value {
        let mut json = self.plan().to_json();
        json["start"] = self.start.to_json();
        json["mutual"] = self.mutual_text().into();
        json["parallel"] = self.parallel_text().into();
        json["students"] = self.students().iter().map(Student::to_json).collect();
        if let Some(ranks) = self.ranks_json() {
            json["ranks"] = ranks;
        }
        json
    }

    /// The optimizer, for rates, weights and counters.
    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    /// The optimizer, to change rates and weights between steps.
    pub fn optimizer_mut(&mut self) -> &mut Optimizer {
        &mut self.optimizer
    }

    /// A token that ends runs from another thread with a `Cancelled` error.
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel_token.clone()
    }

    /// Discards gradients that were accumulated since the last step.
    pub fn zero_grad(&mut self) {
        self.optimizer.zero_grad();
        self.n_pending = 0;
    }

    /// Opens the session that training on batches of these shapes needs and runs nothing, so that
    /// the first pass takes no longer than the others. Only the shapes of `batch` count.
    pub fn prepare(&mut self, model: usize, batch: Batch) -> Result<()> {
        let one = self.model(model)?;
        one.check_training(batch).map_err(|e| in_model(e, &one.name))?;
        self.plan_parallel(&[(model, batch)])?;
        let one = self.model_mut(model)?;
        one.prepare(batch).map_err(|e| in_model(e, &one.name))
    }

    /// Loss and gradients of one micro-batch of one model. The gradients count towards the next
    /// [`Trainer::step`].
    pub fn forward_backward(&mut self, model: usize, batch: Batch) -> Result<TrainResult> {
        self.model(model)?;
        self.in_call(Call::Pass(model), |trainer| trainer.run_one(model, batch))
    }

    fn run_one(&mut self, model: usize, batch: Batch) -> Result<TrainResult> {
        self.check_weights_in_place()?;
        let together = self.mutual.as_ref().is_some_and(Mutual::is_required);
        let one = self.model_mut(model)?;
        let check = || {
            one.check_training(batch)?;
            if together {
                one.check_trained()?;
                return Err(Error::state(
                    "with the option mutual all models run in one call: \
                     forward_backward_all, or the batch of a loader",
                ));
            }
            Ok(())
        };
        check().map_err(|e| in_model(e, &one.name))?;
        self.plan_parallel(&[(model, batch)])?;
        let here = self.runs_here(model);
        let earlier = self.set_aside(model, batch)?;
        let one = &mut self.models[model];
        let run = match here {
            true => one.forward_backward(batch).map_err(|e| in_model(e, &one.name)),
            false => one.check_trained().map(|()| Run::default()),
        };
        self.log_runs();
        let agreed = run.and_then(|run| {
            self.bind_new(model)?;
            self.agree_on_passes(Call::Pass(model), &[(model, &run)], &[batch])
        });
        match agreed {
            Ok(agreed) => {
                self.count_pass(model, batch)?;
                let first = agreed.first().ok_or_else(|| Error::internal("no result"))?;
                self.account(model, first)
            }
            Err(error) => {
                self.put_back(model, earlier);
                Err(error)
            }
        }
    }

    /// What a failed pass of a model would take from the step that is to come; `None` where there
    /// is nothing.
    fn set_aside(&mut self, model: usize, batch: Batch) -> Result<Option<Earlier>> {
        if !self.runs_here(model) || self.optimizer.n_accumulated(model).is_ok_and(|n| n == 0) {
            return Ok(None);
        }
        let options = self.optimizer.options();
        let in_place = options.gradient_accumulation_steps == 1;
        let looked_at = options.max_loss_increase.is_some();
        self.models[model].set_aside(batch, in_place, looked_at).map(Some)
    }

    fn put_back(&mut self, model: usize, earlier: Option<Earlier>) {
        if let Some(earlier) = earlier {
            self.models[model].put_back(earlier);
        }
    }

    /// Loss and gradients of one micro-batch for every model, side by side on the cores there
    /// are. Every batch is checked before any model runs; when one model fails, none counts.
    ///
    /// With the optimizer's option `mutual` the models learn from each other's predictions, so
    /// every batch must hold the same examples in the same order. Batches may lack labels then, or
    /// hold rows whose label is ignored: there the models learn from each other alone. A model
    /// without a trained parameter is evaluated, and only teaches.
    ///
    /// Any batch may carry two tensors that no model reads: `example_ids`, i64 \[batch\], and
    /// `word_ids`, i64 \[batch, sequence\], by which models with different tokenizers learn from
    /// each other (docs/optimizer.md). Where predictions do not fit it is an error. It may also
    /// carry `token_type_ids`, i64 \[batch, sequence\], which models without such an input ignore.
    pub fn forward_backward_all(&mut self, batches: &[Batch]) -> Result<Vec<TrainResult>> {
        self.in_call(Call::PassOfAll, |trainer| {
            if batches.len() != trainer.models.len() {
                return Err(Error::invalid(format!(
                    "{} for {}",
                    count(batches.len(), "batch"),
                    count(trainer.models.len(), "model")
                )));
            }
            if trainer.mutual.is_some() {
                let labels = Mutual::labels_for_unlabelled(&trainer.models, batches)?;
                if !labels.is_empty() {
                    let views = with_labels(batches, &labels);
                    return trainer.run_all(&views.iter().map(Vec::as_slice).collect::<Vec<_>>());
                }
            }
            trainer.run_all(batches)
        })
    }

    fn run_all(&mut self, batches: &[Batch]) -> Result<Vec<TrainResult>> {
        self.check_weights_in_place()?;
        for (model, batch) in self.models.iter().zip(batches) {
            model.check_training(batch).map_err(|e| in_model(e, &model.name))?;
        }
        let each: Vec<(usize, Batch)> = batches.iter().copied().enumerate().collect();
        self.plan_parallel(&each)?;
        let pairs = batches.iter().enumerate();
        let earlier =
            pairs.map(|(i, batch)| self.set_aside(i, batch)).collect::<Result<Vec<_>>>()?;
        let begun = self.ema.as_ref().is_some_and(|ema| ema.begun);
        let misfit = self.mutual.as_ref().and_then(|m| m.misfit.clone());
        let runs = self.run_passes(batches);
        self.log_runs();
        // The last that can fail is what mutual learning remembers.
        let bound = |trainer: &mut Self| {
            (0..batches.len()).try_for_each(|i| trainer.bind_new(i))?;
            let Self { mutual, models, .. } = trainer;
            mutual.as_mut().map_or(Ok(()), |m| m.remember(models, batches))
        };
        let agreed = runs.and_then(|runs| {
            bound(self)?;
            let runs: Vec<(usize, &Run)> = runs.iter().enumerate().collect();
            self.agree_on_passes(Call::PassOfAll, &runs, batches)
        });
        let agreed = match agreed {
            Ok(agreed) => agreed,
            Err(error) => {
                for (i, earlier) in earlier.into_iter().enumerate() {
                    self.put_back(i, earlier);
                }
                if let Some(ema) = &mut self.ema {
                    ema.begun = begun;
                }
                if let Some(mutual) = &mut self.mutual {
                    mutual.misfit = misfit;
                }
                return Err(error);
            }
        };
        for (i, batch) in batches.iter().enumerate() {
            if !self.models[i].only_teaches() {
                self.count_pass(i, batch)?;
            }
        }
        let results = agreed.iter().enumerate().map(|(i, agreed)| self.account(i, agreed));
        let results = results.collect::<Result<Vec<_>>>()?;
        self.note_early_sums();
        Ok(results)
    }

    fn account(&mut self, model: usize, agreed: &Agreed) -> Result<TrainResult> {
        let &Agreed { loss, mutual_loss, n_correct, n_labels, .. } = agreed;
        if !self.models[model].only_teaches() {
            // A loss over no label says nothing of how far the model is.
            let counts = self.mutual.is_none() || n_labels > 0;
            let lost = self.optimizer.options().gradient_accumulation_steps == 1
                && self.optimizer.n_accumulated(model)? > 0;
            if lost {
                self.log_warning(|| {
                    format!(
                        "model '{}': a second pass before the step replaces the gradients of the \
                         first, because gradient_accumulation_steps is 1",
                        self.models[model].name
                    )
                });
            }
            self.note_share(model, agreed)?;
            self.optimizer.accumulate_pass(model, counts.then_some(loss), agreed.weight())?;
            self.n_pending += 1;
        }
        Ok(TrainResult { loss, mutual_loss, n_correct, n_labels })
    }

    /// Counts a pass, of this rank or another.
    fn count_pass(&mut self, model: usize, batch: Batch) -> Result<()> {
        if self.runs_here(model) {
            return self.models[model].count_pass(batch);
        }
        self.models[model].n_runs += 1;
        Ok(())
    }

    /// Binds a model that is trained, at its first pass, and makes what counting a pass needs.
    fn bind_new(&mut self, model: usize) -> Result<()> {
        if !self.bound[model] && !self.models[model].only_teaches() {
            self.bind(model)?;
            self.bound[model] = true;
        }
        self.optimizer.reserve_sums(model)
    }

    /// Binds every model's memory to the optimizer, e.g. to restore its moments.
    pub(super) fn bind_all(&mut self) -> Result<()> {
        (0..self.models.len()).try_for_each(|model| self.bind(model))
    }

    /// Binds again what is bound, for memory that is missing.
    pub(super) fn bind_bound(&mut self) -> Result<()> {
        let bound = |model: &usize| self.bound[*model];
        let bound: Vec<usize> = (0..self.models.len()).filter(bound).collect();
        bound.into_iter().try_for_each(|model| self.bind(model))
    }

    /// Binds a model's parameters, and the gradients that exist, to the optimizer.
    pub(super) fn bind(&mut self, model: usize) -> Result<()> {
        let buffers = self.models[model].parameters.iter_mut().map(|p| Buffers {
            grad: p.gradient_address(),
            grad_dtype: DType::F32,
            param: p.value.bytes_mut().as_mut_ptr(),
        });
        let buffers = buffers.collect();
        // SAFETY: the tensors belong to this trainer, never move, outlive the optimizer (it is
        // declared first) and are touched by nobody else while it works (`&mut self`).
        unsafe { self.optimizer.bind(model, buffers) }
    }

    /// Adds a loss that the host computed to what the adaptive learning rates follow.
    pub fn log_loss(&mut self, model: usize, loss: f64) -> Result<()> {
        self.model(model)?;
        self.optimizer.log_loss(model, loss)
    }

    /// One coordinated step over what was accumulated: check, clip, share, update, synchronise.
    /// Without a forward and backward pass since the last one it is a `State` error. A
    /// synchronisation whose check is cancelled or fails is left out (`synced` is false); the step
    /// itself is done.
    pub fn step(&mut self) -> Result<StepReport> {
        self.in_call(Call::Step, Self::take_step)
    }

    fn take_step(&mut self) -> Result<StepReport> {
        self.check_weights_in_place()?;
        if self.n_pending == 0 {
            return Err(Error::state(
                "step without gradients: call forward_backward first, at least once a step",
            ));
        }
        for model in 0..self.models.len() {
            // A model without a pass so far has memory, but no gradients yet.
            if !self.bound[model] {
                self.bind(model)?;
            }
        }
        let begun = self.ema.as_ref().is_some_and(|ema| ema.begun);
        let ranks = self.ranks.as_ref();
        let here = |i: usize| ranks.is_none_or(|ranks| ranks.runs(i));
        if let Some(ema) = &mut self.ema {
            ema.begin(&mut self.models, here)?;
        }
        self.each_parameter(Parameter::save_frozen_rows);
        let report = self.update();
        self.each_parameter(Parameter::restore_frozen_rows);
        let report = report.inspect_err(|_| {
            if let Some(ema) = &mut self.ema {
                ema.begun = begun;
            }
        })?;
        let ranks = self.ranks.as_ref();
        let here = |i: usize| ranks.is_none_or(|ranks| ranks.runs(i));
        if let Some(ema) = &self.ema {
            ema.follow(&mut self.models, report.step, here)?;
        }
        self.log_step(&report);
        Ok(report)
    }

    fn update(&mut self) -> Result<StepReport> {
        let mut report = self.step_of_ranks()?;
        self.n_pending = 0;
        if report.sync_due {
            self.sync_if_harmless(&mut report)?;
        }
        Ok(report)
    }

    fn each_parameter(&mut self, change: fn(&mut Parameter)) {
        self.models.iter_mut().flat_map(|m| &mut m.parameters).for_each(change);
    }

    /// Runs one model without dropout and gradients; labels are optional. With models on different
    /// ranks it is for the rank of the model, or after [`Trainer::gather_models`], as is what reads
    /// and saves its weights; else a `State` error.
    pub fn evaluate(&mut self, model: usize, batch: Batch) -> Result<Evaluation> {
        self.check_newest_here(model)?;
        let one = self.model_mut(model)?;
        let (run, logits) = one.evaluate(batch).map_err(|e| in_model(e, &one.name))?;
        Ok(Evaluation {
            loss: Some(run.loss).filter(|_| run.labelled),
            n_correct: run.accuracy.n_correct,
            n_labels: run.accuracy.n_labels,
            logits,
        })
    }

    /// A model's parameters in graph order.
    pub fn parameters(
        &self,
        model: usize,
    ) -> Result<impl ExactSizeIterator<Item = ParameterInfo<'_>>> {
        let parameters = self.model(model)?.parameters.iter().enumerate();
        Ok(parameters.map(move |(i, p)| ParameterInfo {
            name: &p.name,
            shape: p.value.shape(),
            dtype: p.value.dtype(),
            // The optimizer's word: what the model was loaded with may have changed since.
            trainable: self.optimizer.param_spec(model, i).is_ok_and(|spec| spec.trainable),
        }))
    }

    /// A parameter's value.
    pub fn parameter(&self, model: usize, name: &str) -> Result<&Tensor> {
        self.check_newest_here(model)?;
        let one = self.model(model)?;
        Ok(&one.parameter(name).map_err(|e| in_model(e, &one.name))?.value)
    }

    /// Replaces a parameter's value; dtype and element count must be the same.
    pub fn set_parameter(&mut self, model: usize, name: &str, value: &[u8]) -> Result<()> {
        self.check_weights_in_place()?;
        let one = self.model_mut(model)?;
        let place = format!("model '{}': parameter '{name}'", one.name);
        write_bytes(one.parameter_mut(name)?.value.bytes_mut(), value).context(|| place)
    }

    /// A parameter's gradient as the last backward pass left it; `None` before the first one, for
    /// frozen parameters, where no path leads to the loss, and for models that run on other ranks.
    pub fn gradient(&self, model: usize, name: &str) -> Result<Option<&Tensor>> {
        let one = self.model(model)?;
        let parameter = one.parameter(name).map_err(|e| in_model(e, &one.name))?;
        Ok(parameter.gradient().filter(|_| self.runs_here(model)))
    }

    /// A view of a parameter's value that stays valid after the trainer is dropped.
    pub fn share_parameter(&self, model: usize, name: &str) -> Result<SharedTensor> {
        self.check_newest_here(model)?;
        let one = self.model(model)?;
        Ok(one.parameter(name).map_err(|e| in_model(e, &one.name))?.share_value())
    }

    /// As [`Trainer::gradient`], as a view that stays valid after the trainer is dropped.
    pub fn share_gradient(&self, model: usize, name: &str) -> Result<Option<SharedTensor>> {
        let one = self.model(model)?;
        let parameter = one.parameter(name).map_err(|e| in_model(e, &one.name))?;
        Ok(parameter.share_gradient().filter(|_| self.runs_here(model)))
    }

    /// Replaces a gradient between the backward pass and the step. With accumulation over more
    /// than one micro-batch it is a `State` error: the gradient is accumulated already; and for a
    /// model that runs on another rank, and where ranks have summed it in the pass.
    pub fn set_gradient(&mut self, model: usize, name: &str, value: &[u8]) -> Result<()> {
        let accumulating = self.optimizer.options().gradient_accumulation_steps > 1;
        self.check_runs_here(model)?;
        let not_summed = self.check_not_summed(model);
        let one = self.model_mut(model)?;
        let place = format!("model '{}': gradient of '{name}'", one.name);
        not_summed.context(|| place.clone())?;
        let parameter = one.parameter_mut(name)?;
        if parameter.gradient().is_none() {
            return Err(Error::state("there is no gradient yet").context(place));
        }
        if accumulating {
            return Err(Error::state("it was accumulated already").context(place));
        }
        write_bytes(parameter.gradient_mut()?.bytes_mut(), value).context(|| place)
    }

    /// Writes one model to `dir` in published form (`config.json`, `model.safetensors`), or, for
    /// models that came as ONNX, as `model.onnx` ready for inference. Adapters are merged into the
    /// matrices beside them; [`Trainer::save_adapters`] writes them alone. Parameters that were
    /// read in f16 or bf16 are written in that type, rounded to nearest, ties to even.
    ///
    /// # Errors
    /// `NonFinite` names a parameter that is infinite in the type that it was read in.
    /// `NonFinite` for weights that are NaN or infinite, which could not be loaded; only a warning
    /// where the option `non_finite` ignores them. `Io`.
    pub fn save_model(&self, model: usize, dir: &Path) -> Result<()> {
        self.check_newest_here(model)?;
        let one = self.model(model)?;
        self.check_savable(one)?;
        let write = || {
            std::fs::create_dir_all(dir).map_err(|e| Error::create_folder(dir, e))?;
            match &one.published {
                Some(published) => {
                    let written = one.written()?;
                    crate::models::save(dir, &published.config, one.exported(&written))
                }
                None => one.inference_graph()?.write(&dir.join("model.onnx"), false),
            }
        };
        write().map_err(|e| in_model(e, &one.name))?;
        self.log_info(|| format!("model '{}' written to {}", one.name, dir.display()));
        Ok(())
    }

    /// Writes one model's adapters alone, with the modules that were trained whole, to `dir` in the
    /// layout of Python's `peft`: `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// `State` for a model without adapters; otherwise as [`Trainer::save_model`].
    pub fn save_adapters(&self, model: usize, dir: &Path) -> Result<()> {
        self.check_newest_here(model)?;
        let one = self.model(model)?;
        self.check_savable(one)?;
        one.save_adapters(dir).map_err(|e| in_model(e, &one.name))?;
        self.log_info(|| format!("adapters of '{}' written to {}", one.name, dir.display()));
        Ok(())
    }

    /// Writes one model's forward graph with its present weights, ready for inference. Errors as
    /// [`Trainer::save_model`].
    pub fn save_onnx(&self, model: usize, path: &Path) -> Result<()> {
        self.check_newest_here(model)?;
        let one = self.model(model)?;
        self.check_savable(one)?;
        one.inference_graph()
            .and_then(|graph| graph.write(path, false))
            .map_err(|e| in_model(e, &one.name))?;
        self.log_info(|| format!("model '{}' written to {}", one.name, path.display()));
        Ok(())
    }

    pub(super) fn models(&self) -> &[Model] {
        &self.models
    }

    pub(super) fn models_mut(&mut self) -> &mut [Model] {
        &mut self.models
    }

    /// Micro-batches since the last step, over all models.
    pub(crate) fn n_pending(&self) -> usize {
        self.n_pending
    }

    /// Removes and returns the models' messages, with their names.
    pub(super) fn take_notes(&mut self) -> Vec<(String, Vec<(Level, String)>)> {
        let noted = self.models.iter_mut().filter(|m| !m.notes.is_empty());
        noted.map(|m| (m.name.clone(), std::mem::take(&mut m.notes))).collect()
    }

    pub(super) fn model(&self, model: usize) -> Result<&Model> {
        let n = self.models.len();
        self.models
            .get(model)
            .ok_or_else(|| Error::invalid(format!("model {model} of {n}; counted from 0")))
    }

    /// The optimizer and one model, to change both.
    pub(super) fn optimizer_and_model(
        &mut self,
        model: usize,
    ) -> Result<(&mut Optimizer, &mut Model)> {
        let one = self.models.get_mut(model).ok_or_else(|| Error::internal("no such model"))?;
        Ok((&mut self.optimizer, one))
    }

    fn model_mut(&mut self, model: usize) -> Result<&mut Model> {
        let n = self.models.len();
        self.models
            .get_mut(model)
            .ok_or_else(|| Error::invalid(format!("model {model} of {n}; counted from 0")))
    }
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.models.iter().map(|m| &m.name)).finish()
    }
}

/// Adds the model's name to an error, unless it is there already.
pub(super) fn in_model(error: Error, name: &str) -> Error {
    let place = format!("model '{name}'");
    if error.message().starts_with(&place) { error } else { error.context(place) }
}

fn write_bytes(into: &mut [u8], from: &[u8]) -> Result<()> {
    if into.len() != from.len() {
        return Err(Error::shape(format!("{} bytes given, {} needed", from.len(), into.len())));
    }
    into.copy_from_slice(from);
    Ok(())
}

/// Training sessions get their part of the cores; evaluation takes all.
fn plan_sessions(
    models: &mut [Model],
    options: &TrainerOptions,
    mutual: Option<&Mutual>,
    parallel: &Parallel,
) {
    let products = match options.optimizer.precision {
        _ if options.device != Device::Cpu => Products::Runtime,
        Precision::Bf16 if has_bf16_products() => Products::Bf16,
        _ if has_f32_products() => Products::F32,
        _ => Products::Runtime,
    };
    let attention = match options.device {
        Device::Cpu => options.optimizer.attention,
        _ => AttentionForm::Unfused,
    };
    let asks = mutual.is_some_and(|m| m.can_meet);
    let mutual = mutual.map(Mutual::options);
    for model in models {
        model.sessions.mutual = mutual.map(|m| MutualTerm { temperature: m.temperature, asks });
        model.sessions.products = products;
        model.sessions.activation_checkpointing = options.optimizer.activation_checkpointing;
        model.sessions.attention = attention;
        let of = |threads, spinning| SessionOptions {
            name: model.name.clone(),
            threads,
            spinning,
            device: options.device,
            tf32: options.tf32,
            ..SessionOptions::default()
        };
        let all = cores(options.optimizer.n_threads);
        let own = of(parallel.threads(), parallel.n == 1);
        (model.train_session, model.eval_session) = (own, of(all, false));
    }
}
