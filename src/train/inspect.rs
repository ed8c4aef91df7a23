//! Reports on models, the search for non-finite values, and what goes to the log.

use super::batch::Batch;
use super::graphs::NonFiniteOrigin;
use super::import::ModelReport;
use super::log::{Level, Sink};
use super::model::Model;
use super::trainer::{Trainer, in_model};
use crate::error::{Result, count};
use crate::optim::{Precision, Start, StepReport};
use crate::runtime::kernels::has_bf16_products;

impl Trainer {
    /// What was found in a model's graph, and what was done about it.
    pub fn report(&self, model: usize) -> Result<&ModelReport> {
        Ok(&self.model(model)?.report)
    }

    /// Where a training pass over a batch first goes non-finite, forward or backward: with the
    /// parameters as they are now, and the dropout of the model's last pass. `None` when its loss
    /// and gradients are finite. Nothing changes. It runs without the runtime's optimisation and
    /// needs the memory of all values at once.
    ///
    /// # Errors
    /// Those of [`Trainer::forward_backward`] for a batch that does not fit.
    pub fn find_non_finite(&self, model: usize, batch: Batch) -> Result<Option<NonFiniteOrigin>> {
        let one = self.model(model)?;
        one.find_non_finite(batch).map_err(|e| in_model(e, &one.name))
    }

    /// Sends messages up to a level to a sink; `None` ends that. The messages of the trainer's
    /// creation come first, once.
    pub fn set_log(&mut self, sink: Option<(Level, Sink)>) {
        self.log.set(sink);
    }

    /// Logs a failure, and returns the result unchanged.
    pub(crate) fn log_error<T>(&self, what: &str, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.log.send(Level::Error, || format!("{what}: {error}"));
        }
        result
    }

    /// Logs what a corpus lost when it was encoded for a model.
    #[cfg(feature = "text")]
    pub(crate) fn log_lost(&self, model: usize, lost: Option<String>) {
        if let (Ok(name), Some(lost)) = (self.model_name(model), lost) {
            self.log_warning(|| format!("model '{name}': {lost}"));
        }
    }

    /// Logs something that was done.
    pub(super) fn log_info(&self, text: impl FnOnce() -> String) {
        self.log.send(Level::Info, text);
    }

    /// Logs what is probably not as intended.
    pub(super) fn log_warning(&self, text: impl FnOnce() -> String) {
        self.log.send(Level::Warning, text);
    }

    /// Logs what a new trainer found and decided.
    pub(super) fn log_creation(&mut self) {
        let mut messages: Vec<(Level, String)> = Vec::new();
        for model in self.models() {
            let report = model.report.to_string();
            let mut lines = report.lines();
            messages.extend(lines.next().map(|line| (Level::Info, line.to_owned())));
            let name = &model.name;
            let warnings = model.report.warnings();
            messages
                .extend(warnings.iter().map(|w| (Level::Warning, format!("model '{name}': {w}"))));
            let details = lines.map(|line| format!("model '{name}': {}", line.trim_start()));
            messages.extend(details.map(|line| (Level::Info, line)));
            let (training, evaluation) = (model.train_session.threads, model.eval_session.threads);
            messages.push((
                Level::Info,
                format!(
                    "model '{name}': {} to train, {evaluation} to evaluate",
                    count(training, "thread")
                ),
            ));
        }
        let started = self.start().models.iter().flat_map(|m| m.summary());
        messages.extend(started.map(|line| (Level::Info, line)));
        let as_drawn = self.start().note.iter();
        messages.extend(as_drawn.map(|why| (Level::Warning, format!("start: as drawn: {why}"))));
        let unused = self.optimizer().unused_param_groups().into_iter().map(|i| {
            let group = &self.optimizer().options().param_groups[i];
            format!(
                "param_groups[{i}]: no parameter is named like '{}' in models named like '{}'",
                group.pattern, group.model
            )
        });
        messages.extend(unused.map(|text| (Level::Warning, text)));
        messages.extend(self.twins().map(|text| (Level::Warning, text)));
        messages.extend(self.plan_messages());
        if self.optimizer().options().precision == Precision::Bf16 {
            messages.push(match has_bf16_products() {
                true => (Level::Info, "products of matrices in bf16".to_owned()),
                false => (
                    Level::Warning,
                    "precision bf16: this processor is not faster in it (it takes AMX, or AMD's \
                     AVX512-BF16); products are computed in f32"
                        .to_owned(),
                ),
            });
        }
        if self.optimizer().options().activation_checkpointing {
            messages.push((
                Level::Info,
                "most activations are computed again in the backward part".to_owned(),
            ));
        }
        if self.models().len() > 1 {
            messages.push((Level::Info, self.mutual_text()));
            let doubts = self.mutual.iter().flat_map(|m| m.doubts.iter().cloned());
            messages.extend(doubts.map(|text| (Level::Warning, text)));
        }
        messages.into_iter().for_each(|(level, text)| self.log.keep(level, text));
    }

    /// Pairs of fresh models that start equal, have equal dropout and so learn the same.
    fn twins(&self) -> impl Iterator<Item = String> {
        let models = self.models();
        let is_meant = self.optimizer().options().start == Start::Aligned;
        let first = move |(i, model): (usize, &Model)| {
            let twin = models[..i].iter().find(|m| m.is_twin_of(model))?;
            Some(format!(
                "models '{}' and '{}' are fresh, of equal architecture, sizes and seed: they start \
                 equal; give one of them another seed (mmopt_model_set_seed)",
                twin.name, model.name
            ))
        };
        models.iter().enumerate().filter_map(first).filter(move |_| !is_meant)
    }

    fn plan_messages(&self) -> Vec<(Level, String)> {
        let plan = self.plan();
        let (n_groups, n_left) = (plan.groups().len(), plan.left_out().len());
        let mut messages = vec![(
            Level::Info,
            format!(
                "plan for {}: {}, {} left out; gradients of a group are {}, parameters {}",
                count(plan.models().len(), "model"),
                count(n_groups, "group"),
                count(n_left, "view"),
                plan.gradients(),
                plan.parameters()
            ),
        )];
        for (name, why) in plan.alone() {
            let text = format!("model '{name}' shares nothing: {why}");
            messages.push((Level::Warning, text));
        }
        let lines = plan.to_string();
        messages.extend(lines.lines().map(|line| (Level::Debug, line.to_owned())));
        messages
    }

    /// Logs the messages that models collected while they ran on other threads.
    pub(super) fn log_runs(&mut self) {
        for (name, notes) in self.take_notes() {
            for (level, text) in notes {
                self.log.send(level, || format!("model '{name}': {text}"));
            }
        }
    }

    /// Logs a step's rates and norms, skipped models, the end of a schedule, and a synchronisation
    /// that was undone.
    pub(super) fn log_step(&self, report: &StepReport) {
        let step = report.step;
        for (i, model) in self.models().iter().enumerate() {
            let name = &model.name;
            if let Ok((true, n)) = self.optimizer().skipped(i) {
                self.log.send(Level::Warning, || {
                    format!(
                        "step {step}: model '{name}' skipped, its loss or gradient is not finite, \
                         or so large that a moment would overflow ({n} times so far)"
                    )
                });
                continue;
            }
            self.log.send(Level::Debug, || {
                let rate = self.optimizer().rates(i).map_or(f64::NAN, |r| r.effective);
                let norm = self.optimizer().grad_norm(i).unwrap_or(f64::NAN);
                format!("step {step}: model '{name}': rate {rate:e}, gradient norm {norm:e}")
            });
        }
        let total = self.optimizer().options().total_steps;
        let ended = self.optimizer().rates(0).is_ok_and(|r| r.schedule == 0.0);
        if total > 0 && step == total + 1 && ended {
            self.log_warning(|| {
                format!(
                    "step {step}: the learning rate is 0 from here on, as lr_schedule ended after \
                     total_steps ({total})"
                )
            });
        }
        if report.sync_due && !report.synced {
            self.log.send(Level::Warning, || {
                format!(
                    "step {step}: synchronisation taken back, a model's loss would have risen by \
                     more than max_loss_increase ({} times so far)",
                    self.optimizer().undone_syncs()
                )
            });
        }
    }
}
