//! What a trainer tells of itself: reports on models, where a pass goes non-finite, messages.

use super::batch::Batch;
use super::graphs::NonFinite;
use super::import::ModelReport;
use super::log::{Level, Sink};
use super::trainer::{Trainer, in_model};
use crate::error::Result;
use crate::optim::{Policy, StepReport};

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
    pub fn find_non_finite(&self, model: usize, batch: Batch) -> Result<Option<NonFinite>> {
        let one = self.model(model)?;
        one.find_non_finite(batch).map_err(|e| in_model(e, &one.name))
    }

    /// Sends messages up to a level to a sink; `None` ends that. What the trainer had to say when
    /// it was created comes first, once.
    pub fn set_log(&mut self, sink: Option<(Level, Sink)>) {
        self.log.set(sink);
    }

    /// Tells the log of a failure, and passes it on.
    pub(crate) fn told<T>(&self, what: &str, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.log.send(Level::Error, || format!("{what}: {error}"));
        }
        result
    }

    /// Tells the log of something that was done.
    pub(super) fn tell(&self, text: impl FnOnce() -> String) {
        self.log.send(Level::Info, text);
    }

    /// What there is to say of a trainer that was just made.
    pub(super) fn tell_of_creation(&mut self) {
        let mut said: Vec<(Level, String)> = Vec::new();
        for model in self.models() {
            let report = model.report.to_string();
            let mut lines = report.lines();
            said.extend(lines.next().map(|line| (Level::Info, line.to_owned())));
            let name = &model.name;
            let warnings = model.report.warnings();
            said.extend(warnings.iter().map(|w| (Level::Warning, format!("model '{name}': {w}"))));
            let details = lines.map(|line| format!("model '{name}': {}", line.trim_start()));
            said.extend(details.map(|line| (Level::Info, line)));
            let (training, evaluation) = (model.train_session.threads, model.eval_session.threads);
            said.push((
                Level::Info,
                format!("model '{name}': {training} threads to train, {evaluation} to evaluate"),
            ));
        }
        said.extend(self.plan_in_words());
        said.into_iter().for_each(|(level, text)| self.log.keep(level, text));
    }

    fn plan_in_words(&self) -> Vec<(Level, String)> {
        let plan = self.plan();
        let (n_groups, n_left) = (plan.groups().len(), plan.left_out().len());
        let mut said = vec![(
            Level::Info,
            format!(
                "plan for {} models: {n_groups} groups share, {n_left} views are left out",
                plan.models().len()
            ),
        )];
        let sharing = self.optimizer().options().policy != Policy::None && plan.models().len() > 1;
        for (i, name) in plan.models().iter().enumerate().filter(|_| sharing) {
            let shares = |g: &crate::optim::Group| g.members.iter().any(|m| m.model == i);
            if !plan.groups().iter().any(shares) {
                said.push((Level::Warning, format!("model '{name}' shares nothing")));
            }
        }
        let lines = plan.to_string();
        said.extend(lines.lines().map(|line| (Level::Debug, line.to_owned())));
        said
    }

    /// Messages that models left behind while they ran on other threads.
    pub(super) fn tell_of_runs(&mut self) {
        for (name, notes) in self.take_notes() {
            for (level, text) in notes {
                self.log.send(level, || format!("model '{name}': {text}"));
            }
        }
    }

    /// What there is to say of a step.
    pub(super) fn tell_of_step(&self, report: &StepReport) {
        let step = report.step;
        for (i, model) in self.models().iter().enumerate() {
            let name = &model.name;
            if let Ok((true, n)) = self.optimizer().skipped(i) {
                self.log.send(Level::Warning, || {
                    format!(
                        "step {step}: model '{name}' skipped, its loss or gradient is not finite \
                         ({n} times so far)"
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
        if report.sync_due && !report.synced {
            self.log.send(Level::Warning, || {
                format!(
                    "step {step}: synchronisation taken back, a model's loss would have risen by \
                     more than the barrier ({} times so far)",
                    self.optimizer().refused_syncs()
                )
            });
        }
    }
}
