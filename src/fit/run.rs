//! The loop.
//!
//! After each step the fit *settles*: it evaluates if that is due, begins the next epoch, and
//! writes a checkpoint if that is due. A checkpoint may also lie between a step and its settling,
//! where the host cancelled; a resumed fit settles first, so that both ways are one.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use super::best::BestWeights;
use super::histograms::BeforeStep;
use super::logs::Logs;
use super::options::FitOptions;
use super::passes::{check_loader, is_at_end, pass};
use super::progress::{FitEvent, FitProgress, Phase, Proceed};
use super::records::{End, EndModel, Evaluation, EvaluationModel, Record, Run, Step, now};
use super::state::{Best, FitState, StopReason};
use crate::checkpoint::reader::Checkpoint;
use crate::checkpoint::writer::Keep;
use crate::error::{Error, Kind, Result, count};
use crate::tasks::{Scores, evaluate_dataset};
use crate::text::Loader;
use crate::train::Trainer;

/// Checkpoints of a run that stay.
const KEEP: usize = 2;

/// What a fit came to.
#[derive(Clone, Debug, PartialEq)]
pub struct FitResult {
    /// Steps of the fit, those before a resume included.
    pub steps: u64,
    /// Epochs of the fit that are done.
    pub epochs: u64,
    /// Why it ended.
    pub reason: StopReason,
    /// The best of what early stopping looks at.
    pub monitored: Best,
    /// Each model's best.
    pub models: Vec<Best>,
    /// Whether the best weights were put in place.
    pub restored_best: bool,
}

/// Trains until the options end it: for each step so many micro-batches of the loader as
/// `gradient_accumulation_steps` says, or those that the epoch has left, then one step. Evaluations
/// give their scores to [`Optimizer::report_validation`](crate::optim::Optimizer), so that plateau
/// schedules and validation weights follow them.
///
/// `evaluation`: no loader, one for all models, or one for each; one of a single dataset counts for
/// any model. `progress` is called after each step and evaluation, and may end the fit there.
///
/// Interrupted anywhere and resumed from its last checkpoint, a fit goes on with the same bits, in
/// weights and in logs (but for times, speeds and memory).
///
/// Errors: `InvalidArgument` for options that contradict each other or loaders that do not fit;
/// those of passes, steps, evaluations and files. The trainer then stands after its last step, the
/// loader where it was read to.
pub fn fit(
    trainer: &mut Trainer,
    loader: &mut Loader,
    evaluation: &[&Loader],
    options: &FitOptions,
    progress: &mut dyn FnMut(&FitProgress) -> ControlFlow<()>,
) -> Result<FitResult> {
    fit_with(trainer, loader, evaluation, options, progress, &|_, _, _| Ok(()))
}

/// [`fit`], which asks `proceed` before each pass, step and batch of an evaluation.
pub fn fit_with(
    trainer: &mut Trainer,
    loader: &mut Loader,
    evaluation: &[&Loader],
    options: &FitOptions,
    progress: &mut dyn FnMut(&FitProgress) -> ControlFlow<()>,
    proceed: Proceed,
) -> Result<FitResult> {
    options.check(!evaluation.is_empty())?;
    trainer.check_alone("fit")?;
    let n = trainer.n_models();
    check_loader(trainer, loader)?;
    check_evaluation(evaluation, n)?;
    let monitor = options.monitor.as_ref().map(|name| trainer.model_index(name)).transpose()?;
    if trainer.n_pending() > 0 {
        return Err(Error::state("a step is under way; call step or zero_grad before fit"));
    }
    let dir = options.checkpoint_dir.as_deref().filter(|_| options.resume);
    let resumed = match dir.map(|dir| resume(trainer, loader, options, dir)) {
        // There never was a checkpoint.
        Some(Err(e)) if e.kind() == Kind::NotFound => None,
        other => other.transpose()?,
    };
    if resumed.is_none() && is_at_end(loader) {
        loader.next_batches()?;
    }
    let (state, best) =
        resumed.unwrap_or_else(|| (FitState::new(options, n, loader.state()), BestWeights::new(n)));
    let first = || {
        let (seed, n_batches) = (loader.options().seed, loader.n_batches());
        Ok(Record::Run(Run::new(trainer, seed, n_batches, options.to_json())?))
    };
    let logs = Logs::open(options, state.logs, first)?;
    let fit = Fit {
        trainer,
        loader,
        evaluation,
        options,
        monitor,
        state,
        best,
        logs,
        progress,
        proceed,
        written: None,
        last_checkpoint: Instant::now(),
    };
    fit.run()
}

fn check_evaluation(loaders: &[&Loader], n_models: usize) -> Result<()> {
    if !loaders.is_empty() && ![1, n_models].contains(&loaders.len()) {
        return Err(Error::invalid(format!(
            "{} for {}; give one for all, or one for each",
            count(loaders.len(), "evaluation loader"),
            count(n_models, "model")
        )));
    }
    for (i, loader) in loaders.iter().enumerate() {
        let n = loader.datasets().len();
        let single = n == 1 && loaders.len() == n_models;
        if n != n_models && !single {
            return Err(Error::invalid(format!(
                "evaluation loader {i} is for {}, but the trainer has {n_models}",
                count(n, "model")
            )));
        }
    }
    Ok(())
}

/// Restores trainer and loader; on failure both are as before.
fn resume(
    trainer: &mut Trainer,
    loader: &mut Loader,
    options: &FitOptions,
    dir: &Path,
) -> Result<(FitState, BestWeights)> {
    let before = loader.state();
    let n = trainer.n_models();
    let read = |trainer: &Trainer, found: &Checkpoint, text: &str| {
        let state = FitState::read(text, options, n)?;
        Logs::check(options, state.logs)?;
        let best = BestWeights::read(found, trainer)?;
        loader.restore(&state.loader)?;
        Ok((state, best))
    };
    let resumed = trainer.resume_with(dir, read);
    if resumed.is_err() {
        loader.restore(&before)?;
    }
    resumed
}

/// A fit that runs.
struct Fit<'a> {
    trainer: &'a mut Trainer,
    loader: &'a mut Loader,
    evaluation: &'a [&'a Loader],
    options: &'a FitOptions,
    monitor: Option<usize>,
    state: FitState,
    best: BestWeights,
    logs: Logs,
    progress: &'a mut dyn FnMut(&FitProgress) -> ControlFlow<()>,
    proceed: Proceed<'a>,
    /// Steps of the last checkpoint, and whether it was settled.
    written: Option<(u64, bool)>,
    last_checkpoint: Instant,
}

impl Fit<'_> {
    fn run(mut self) -> Result<FitResult> {
        let done = self.train();
        if done.is_err() {
            self.trainer.zero_grad();
        }
        let reason = done?;
        self.checkpoint()?;
        let restored_best = reason != StopReason::Cancelled && self.best.restore(self.trainer)?;
        let models = self.state.models.iter().enumerate();
        let models = models
            .map(|(i, best)| Ok(EndModel::new(self.trainer.model_name(i)?, best)))
            .collect::<Result<_>>()?;
        self.logs.line(&Record::End(End {
            step: self.trainer.optimizer().step_count(),
            time: now(),
            epoch: self.state.epochs,
            reason: reason.name(),
            restored_best,
            models,
        }))?;
        Ok(FitResult {
            steps: self.state.steps,
            epochs: self.state.epochs,
            reason,
            monitored: self.state.monitored,
            models: self.state.models,
            restored_best,
        })
    }

    fn train(&mut self) -> Result<StopReason> {
        loop {
            if !self.state.is_settled && self.settle()?.is_break() {
                return Ok(StopReason::Cancelled);
            }
            if let Some(reason) = self.finished() {
                return Ok(reason);
            }
            if self.step()?.is_break() {
                return Ok(StopReason::Cancelled);
            }
        }
    }

    fn finished(&self) -> Option<StopReason> {
        let FitOptions { epochs, max_steps, patience, .. } = *self.options;
        let reached = |limit: u64, n: u64| limit > 0 && n >= limit;
        if reached(patience, self.state.n_bad) {
            return Some(StopReason::EarlyStopping);
        }
        if reached(epochs, self.state.epochs) {
            return Some(StopReason::Epochs);
        }
        reached(max_steps, self.state.steps).then_some(StopReason::MaxSteps)
    }

    fn step(&mut self) -> Result<ControlFlow<()>> {
        let began = Instant::now();
        let passed = pass(self.trainer, self.loader, self.proceed)?;
        let every = |n: u64| n > 0 && (self.state.steps + 1).is_multiple_of(n);
        let before = every(self.options.histogram_every)
            .then(|| BeforeStep::new(self.trainer))
            .transpose()?;
        (self.proceed)(Phase::Step, None, self.trainer.optimizer().step_count())?;
        let report = self.trainer.step()?;
        let seconds = began.elapsed().as_secs_f64();
        self.state.steps += 1;
        self.state.is_settled = false;
        let at = (self.loader.epoch(), self.loader.position());
        if self.state.steps.is_multiple_of(self.options.log_every) {
            let record = Step::new(self.trainer, &passed, &report, at, seconds)?;
            self.logs.step(&record)?;
        }
        self.logs.sharing(self.trainer)?;
        if let Some(before) = before {
            self.logs.values(report.step, before.after(self.trainer)?)?;
        }
        let losses: Vec<f64> = passed.models.iter().map(|sums| sums.mean_loss()).collect();
        Ok(self.tell(FitEvent::Step, &losses, &[], f64::NAN, false))
    }

    /// What follows a step.
    fn settle(&mut self) -> Result<ControlFlow<()>> {
        let ends_epoch = is_at_end(self.loader);
        let FitOptions { evaluate_every, max_steps, checkpoint_every, .. } = *self.options;
        let steps = self.state.steps;
        let due = |every: u64| every > 0 && steps.is_multiple_of(every);
        let mut flow = ControlFlow::Continue(());
        if !self.evaluation.is_empty() && (ends_epoch || due(evaluate_every) || steps == max_steps)
        {
            flow = self.evaluate()?;
        }
        if ends_epoch {
            // The end of the epoch, which begins the next one.
            self.loader.next_batches()?;
            self.state.epochs += 1;
        }
        self.state.is_settled = true;
        let waited = self.last_checkpoint.elapsed().as_secs_f64() / 60.0;
        let minutes = self.options.checkpoint_minutes;
        if due(checkpoint_every) || (minutes > 0.0 && waited >= minutes) {
            self.checkpoint()?;
        }
        Ok(flow)
    }

    fn evaluate(&mut self) -> Result<ControlFlow<()>> {
        let began = Instant::now();
        if self.options.use_ema_weights {
            self.trainer.use_ema_weights(true)?;
        }
        let done = self.evaluate_models();
        if self.options.use_ema_weights {
            self.trainer.use_ema_weights(false)?;
        }
        let (scores, were_best) = done?;
        let metric = self.options.metric;
        let values: Vec<f64> = scores.iter().map(|s| metric.value(s)).collect();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let monitored = self.monitor.map_or_else(|| mean(&values), |model| values[model]);
        let step = self.trainer.optimizer().step_count();
        let best = self.state.monitored.score;
        let is_best = metric.is_better(monitored, best, self.options.min_delta);
        if is_best {
            self.state.monitored = Best { score: Some(monitored), step };
            self.state.n_bad = 0;
        } else {
            self.state.n_bad += 1;
        }
        if values.iter().all(|v| v.is_finite()) {
            let upwards: Vec<f64> = values.iter().map(|&v| metric.as_score(v)).collect();
            self.trainer.optimizer_mut().report_validation(&upwards)?;
        }
        let all: Vec<f64> = scores.iter().map(Scores::score).collect();
        let losses: Vec<f64> = scores.iter().map(|s| s.loss).collect();
        let models = scores.iter().zip(&were_best).zip(&self.state.models).enumerate();
        let model = |(i, ((scores, &is_best), best)): (usize, ((&Scores, &bool), &Best))| {
            Ok(EvaluationModel {
                name: self.trainer.model_name(i)?.to_owned(),
                score: scores.score(),
                loss: scores.loss,
                best_score: best.score,
                best_step: best.step,
                is_best,
                scores: serde_json::from_str(&scores.to_json())
                    .map_err(|e| Error::internal(e.to_string()))?,
            })
        };
        let models = models.map(model).collect::<Result<_>>()?;
        self.logs.evaluation(&Evaluation {
            step,
            time: now(),
            epoch: self.loader.epoch(),
            seconds: began.elapsed().as_secs_f64(),
            metric: metric.name(),
            mean_score: mean(&all),
            monitor: self.options.monitor.clone().unwrap_or_else(|| "mean".into()),
            monitored,
            best: self.state.monitored.score,
            best_step: self.state.monitored.step,
            is_best,
            n_bad: self.state.n_bad,
            models,
        })?;
        Ok(self.tell(FitEvent::Evaluation, &losses, &all, monitored, is_best))
    }

    /// Every model's scores, and whether they are its best; the best weights are kept.
    fn evaluate_models(&mut self) -> Result<(Vec<Scores>, Vec<bool>)> {
        let n = self.trainer.n_models();
        let mut all = Vec::with_capacity(n);
        for model in 0..n {
            let loader = self.evaluation[if self.evaluation.len() == 1 { 0 } else { model }];
            let dataset = if loader.datasets().len() == 1 { 0 } else { model };
            let ask = self.proceed;
            let proceed = |trainer: &Trainer| {
                ask(Phase::Evaluate, Some(model), trainer.optimizer().step_count())
            };
            let (trainer, options) = (&mut *self.trainer, &self.options.evaluate);
            all.push(evaluate_dataset(trainer, model, (loader, dataset), options, proceed)?);
        }
        let mut were_best = Vec::with_capacity(n);
        let step = self.trainer.optimizer().step_count();
        for (model, scores) in all.iter().enumerate() {
            let metric = self.options.metric;
            let value = metric.value(scores);
            let is_best = metric.is_better(value, self.state.models[model].score, 0.0);
            if is_best {
                self.state.models[model] = Best { score: Some(value), step };
                if self.options.keep_best {
                    self.best.keep(self.trainer, model)?;
                }
            }
            were_best.push(is_best);
        }
        Ok((all, were_best))
    }

    fn tell(
        &mut self,
        event: FitEvent,
        losses: &[f64],
        scores: &[f64],
        monitored: f64,
        is_best: bool,
    ) -> ControlFlow<()> {
        (self.progress)(&FitProgress {
            event,
            step: self.trainer.optimizer().step_count(),
            epoch: self.state.epochs,
            batches: [self.loader.position(), self.loader.n_batches()],
            losses,
            scores,
            monitored,
            is_best,
        })
    }

    /// Writes a checkpoint, unless there is a directory for none, or this state is written.
    fn checkpoint(&mut self) -> Result<()> {
        let here = (self.state.steps, self.state.is_settled);
        let Some(dir) = self.options.checkpoint_dir.as_deref() else { return Ok(()) };
        if self.written == Some(here) {
            return Ok(());
        }
        self.state.loader = self.loader.state();
        self.state.logs = self.logs.lengths()?;
        let text = self.state.to_text()?;
        self.trainer.checkpoint_with(dir, &text, Keep::last(KEEP), |path| self.best.write(path))?;
        self.written = Some(here);
        self.last_checkpoint = Instant::now();
        Ok(())
    }
}
