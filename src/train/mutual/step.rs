//! A micro-batch of all models with mutual learning: who teaches whom, and in which order.

use std::collections::BTreeSet;
use std::path::Path;

use super::examples::{Examples, ignored_labels};
use super::memory::{Limits, Memory, Visitor};
use super::prediction::Prediction;
use super::target::{Target, Teaching};
use crate::autodiff::LossKind;
use crate::error::{Error, Kind, Result};
use crate::optim::{self, Optimizer, SharePolicy, Teacher, TeacherWeights};
use crate::runtime::Device;
use crate::tensor::Tensor;
use crate::threads::at_most;
use crate::train::batch::labels;
use crate::train::batch::{Batch, TensorView};
use crate::train::ema::Ema;
use crate::train::model::{Model, Run};
use crate::train::ranks::{Ended, Ranks};
use crate::train::session::Forward;
use crate::train::trainer::in_model;

/// What passes of all models go by, beside the models.
pub(in crate::train) struct Setting<'a> {
    /// Steps so far.
    pub step: u64,
    /// At most so many models run at the same time.
    pub n: usize,
    pub ema: Option<&'a mut Ema>,
    /// The other ranks, where models run there.
    pub ranks: Option<&'a mut Ranks>,
}

/// What mutual learning keeps from step to step.
pub(in crate::train) struct Mutual {
    pub(super) options: optim::Mutual,
    /// Steps over which the weight rises.
    ramp_up: u64,
    /// Of each model in this step; empty while there is none.
    pub(super) predictions: Vec<Prediction>,
    /// Of each model in this step.
    pub(super) targets: Vec<Target>,
    /// How much each model teaches.
    teacher_weights: Vec<f32>,
    /// Whether training graphs ask for their targets, so that passes that run side by side can
    /// teach each other.
    pub can_meet: bool,
    /// Whether each model runs in this process.
    here: Vec<bool>,
    /// What each model's prediction stands for in this step; 0 where the model waits for its turn.
    shares: Vec<f32>,
    /// The teacher `memory`.
    pub(super) memory: Option<Memory>,
    /// Why one model does not learn from another, where it need not; the first time that it was
    /// found.
    pub misfit: Option<String>,
    /// What may not be as intended.
    pub doubts: Vec<String>,
}

impl Mutual {
    /// Checks that the models can learn from each other. When the option is off, or they cannot and
    /// need not, it is the reason.
    ///
    /// # Errors
    /// Without mutual learning, any model without a trained parameter.
    pub fn new(
        options: &optim::Options,
        device: Device,
        models: &[Model],
    ) -> Result<std::result::Result<Self, String>> {
        let off = |why: String| {
            models.iter().try_for_each(Model::check_trained)?;
            Ok(Err(why))
        };
        let Some(own) = options.mutual.clone() else {
            return off("the option mutual is null".into());
        };
        if !own.required {
            if models.len() == 1 {
                return off("there is one model".into());
            }
            if let Err(e) = own.check_models(options, models) {
                return off(e.message().to_owned());
            }
        }
        own.check_models(options, models)?;
        let Labels { misfit, doubts } = own.check_labels(models)?;
        let n = models.len();
        let memory = match own.teacher {
            Teacher::Memory => {
                let file = own.memory_file.as_deref().map(Path::new);
                Some(Memory::new(&models[0].sessions.spec.kind, file)?)
            }
            _ => None,
        };
        let can_meet = own.teacher.is_in_training_passes() && device == Device::Cpu;
        Ok(Ok(Self {
            ramp_up: own.ramp_up(options.total_steps),
            options: own,
            can_meet,
            misfit,
            doubts,
            predictions: vec![Prediction::default(); n],
            targets: vec![Target::default(); n],
            teacher_weights: vec![0.0; n],
            here: vec![true; n],
            shares: vec![1.0; n],
            memory,
        }))
    }

    /// The options.
    pub fn options(&self) -> &optim::Mutual {
        &self.options
    }

    /// How often the predictions of a pass are exchanged, where models run on different ranks.
    pub fn n_exchanges(&self) -> usize {
        match self.options.teacher {
            Teacher::PeersBefore => 0,
            Teacher::Memory => 2,
            _ => 1,
        }
    }

    /// Whether models must learn from each other.
    pub fn is_required(&self) -> bool {
        self.options.required
    }

    /// Labels for the batches that have none, all ignored, so that models learn from each other
    /// alone; empty when no batch needs any.
    pub fn labels_for_unlabelled(
        models: &[Model],
        batches: &[Batch],
    ) -> Result<Vec<Vec<(String, Tensor)>>> {
        let each = models.iter().zip(batches);
        let labels = each.map(|(m, batch)| {
            let spec = &m.sessions.spec;
            ignored_labels(labels(&spec.kind), spec.ignore_index, batch)
        });
        let labels = labels.collect::<Result<Vec<_>>>()?;
        Ok(if labels.iter().all(Vec::is_empty) { Vec::new() } else { labels })
    }

    /// One micro-batch of every model: loss and gradients, drawn towards the teachers. The batches
    /// are checked. Models without a trained parameter are evaluated. Models that run on other
    /// ranks give their predictions. Models are handed to `ended` where training passes do not need
    /// each other.
    pub fn run<'m>(
        &mut self,
        models: &'m mut [Model],
        batches: &[Batch],
        setting: Setting<'_>,
        ended: &Ended<'m>,
    ) -> Result<Vec<Run>> {
        let Setting { step, n, ema, mut ranks } = setting;
        self.predictions.iter_mut().for_each(Prediction::clear);
        let here = |i: usize| ranks.as_ref().is_none_or(|ranks| ranks.runs(i));
        self.here = (0..models.len()).map(here).collect();
        let mut runs: Vec<Option<Run>> = (0..models.len()).map(|_| None).collect();
        let n_trained = models.iter().filter(|m| !m.only_teaches()).count();
        let all_here = self.here.iter().all(|&here| here);
        // Else they run in turn or, with the teacher `online`, each predicts by a forward pass of
        // its own, with the dropout of its training pass.
        let together = self.can_meet && n >= n_trained && all_here;
        self.take_turns(models, step);
        self.predict(n, !together, models, batches, ema, &mut runs)?;
        if self.options.teacher != Teacher::PeersBefore {
            self.exchange_predictions(ranks.as_deref_mut())?;
        }
        match self.options.teacher {
            _ if together => self.run_meeting(models, batches, step, &mut runs)?,
            Teacher::PeersBefore => self.run_in_turn(models, batches, step, &mut runs)?,
            _ => {
                for i in 0..models.len() {
                    if self.here[i] && !models[i].only_teaches() {
                        let shape = shape_of(&mut models[i], batches[i])?;
                        self.set_target(&members(models, batches), i, shape, step)?;
                    }
                }
                self.run_side_by_side(n, models, batches, &mut runs, ended)?;
            }
        }
        if self.options.teacher == Teacher::Memory {
            self.exchange_predictions(ranks)?;
        }
        Ok(runs.into_iter().map(Option::unwrap_or_default).collect())
    }

    fn exchange_predictions(&mut self, ranks: Option<&mut Ranks>) -> Result<()> {
        ranks.map_or(Ok(()), |ranks| ranks.exchange_predictions(&mut self.predictions))
    }

    /// How much each model teaches in the passes that come, before [`Mutual::run`].
    pub fn set_teacher_weights(&mut self, optimizer: &Optimizer) -> Result<()> {
        for (i, weight) in self.teacher_weights.iter_mut().enumerate() {
            *weight = match self.options.teacher_weights {
                TeacherWeights::Equal => 1.0,
                TeacherWeights::Model => optimizer.normalised_weight(i)? as f32,
            };
        }
        Ok(())
    }

    /// Which trained models predict in this step, and for how many each of them stands.
    fn take_turns(&mut self, models: &[Model], step: u64) {
        let teaches = |&j: &usize| {
            let mut students = models.iter().enumerate().filter(|(_, m)| !m.only_teaches());
            students.any(|(i, m)| self.is_taught((i, m.is_fresh()), (j, models[j].is_fresh())))
        };
        let trained = (0..models.len()).filter(|&j| !models[j].only_teaches());
        let teachers: Vec<usize> = trained.clone().filter(teaches).collect();
        let n_at_once = self.options.teachers_per_step.filter(|_| self.takes_turns());
        let shares = shares(teachers.len(), n_at_once, step);
        trained.for_each(|j| self.shares[j] = 0.0);
        teachers.into_iter().zip(shares).for_each(|(j, share)| self.shares[j] = share);
    }

    /// Of each trained model its weight, after the ramp-up, and the models that teach it.
    pub fn students<'m>(&self, models: &'m [Model]) -> Vec<Student<'m>> {
        let names = |m: &Model| m.label_names().len();
        let student = |(i, model): (usize, &'m Model)| {
            let teaches = |&(j, other): &(usize, &'m Model)| match self.options.teacher {
                _ if names(model) != names(other) && names(model) * names(other) > 0 => false,
                Teacher::Frozen if !other.only_teaches() => false,
                Teacher::Memory => true,
                _ => self.is_taught((i, model.is_fresh()), (j, other.is_fresh())),
            };
            let kind = &model.sessions.spec.kind;
            let teachers = models.iter().enumerate().filter(teaches);
            Student {
                name: &model.name,
                weight: self.options.weight_for(*kind == LossKind::TokenClassification),
                teachers: teachers.map(|(_, m)| m.name.as_str()).collect(),
            }
        };
        models.iter().enumerate().filter(|(_, m)| !m.only_teaches()).map(student).collect()
    }

    fn takes_turns(&self) -> bool {
        matches!(self.options.teacher, Teacher::Peers | Teacher::MeanTeacher)
    }

    /// Whether the second model teaches the first; of each its number, and whether it is fresh.
    fn is_taught(&self, student: (usize, bool), teacher: (usize, bool)) -> bool {
        if student.0 == teacher.0 {
            return self.options.include_self || self.predictions.len() == 1;
        }
        self.options.fresh_teach_loaded || student.1 || !teacher.1
    }

    /// The models that are trained here in the order in which they learn from those before them;
    /// another one begins each time.
    pub(super) fn order(&self, models: &[Model]) -> Vec<usize> {
        let n = models.len();
        let mut trained = models.iter().filter(|m| !m.only_teaches());
        let first = trained.next().map_or(0, |m| m.n_runs as usize);
        let order = (0..n).map(|k| (first + k) % n);
        order.filter(|&i| self.here[i] && !models[i].only_teaches()).collect()
    }

    /// Each model learns from those before it.
    fn run_in_turn(
        &mut self,
        models: &mut [Model],
        batches: &[Batch],
        step: u64,
        runs: &mut [Option<Run>],
    ) -> Result<()> {
        for i in self.order(models) {
            let shape = shape_of(&mut models[i], batches[i])?;
            self.set_target(&members(models, batches), i, shape, step)?;
            let (target, prediction) = (&self.targets[i], &mut self.predictions[i]);
            let run = models[i].learn(batches[i], Teaching::Target(target), Some(prediction));
            runs[i] = Some(run.map_err(|e| in_model(e, &models[i].name))?);
        }
        Ok(())
    }

    /// The training passes, none of which waits for another.
    fn run_side_by_side<'m>(
        &mut self,
        n: usize,
        models: &'m mut [Model],
        batches: &[Batch],
        runs: &mut [Option<Run>],
        ended: &Ended<'m>,
    ) -> Result<()> {
        let keep = self.options.teacher == Teacher::Memory;
        let parts = models.iter_mut().enumerate().zip(batches).zip(&self.targets);
        let parts = parts.zip(&mut self.predictions).zip(runs).zip(&self.here);
        let parts =
            parts.filter(|((((((_, model), _), _), _), _), here)| **here && !model.only_teaches());
        let work = parts.map(|((((((i, model), batch), target), prediction), run), _)| {
            let (prediction, ended) = (keep.then_some(prediction), ended.for_thread());
            move || {
                let student = model;
                let done = student.learn(batch, Teaching::Target(target), prediction);
                let done = run.insert(done.map_err(|e| in_model(e, &student.name))?);
                ended.tell(i, student, done);
                Ok(())
            }
        });
        at_most(n, work).into_iter().collect()
    }

    /// The predictions, without dropout and side by side, of the models that only teach, and of
    /// those that are trained where the teacher asks for them and somebody learns from them.
    /// `before` is whether the teacher `online` asks, whose training passes do not meet.
    fn predict(
        &mut self,
        n: usize,
        before: bool,
        models: &mut [Model],
        batches: &[Batch],
        ema: Option<&mut Ema>,
        runs: &mut [Option<Run>],
    ) -> Result<()> {
        let n_trained = models.iter().filter(|m| !m.only_teaches()).count();
        let by_means = self.options.teacher == Teacher::MeanTeacher;
        let forward = match self.options.teacher {
            Teacher::MeanTeacher => Forward::Means,
            Teacher::Online => Forward::Training,
            _ => Forward::Weights,
        };
        let all = match self.options.teacher {
            Teacher::Online => n_trained > 1 && before,
            Teacher::Peers => n_trained > 1,
            Teacher::MeanTeacher => n_trained > 1 || models.len() == 1,
            _ => false,
        };
        let here = &self.here;
        if let Some(ema) = ema.filter(|_| by_means) {
            ema.begin(models, |i| here[i])?;
        }
        let asked = here.iter().zip(&self.shares).map(|(&here, &share)| here && share > 0.0);
        let parts = models.iter_mut().zip(batches).zip(&mut self.predictions).zip(runs).zip(asked);
        let parts =
            parts.filter(|((((model, _), _), _), asked)| *asked && (all || model.only_teaches()));
        let work = parts.map(|((((model, batch), prediction), run), _)| {
            move || {
                let forward = if model.only_teaches() { Forward::Weights } else { forward };
                let done = model.predict(batch, forward, prediction);
                let done = done.map_err(|e| in_model(e, &model.name))?;
                *run = model.only_teaches().then_some(done);
                Ok(())
            }
        });
        at_most(n, work).into_iter().collect()
    }

    /// Makes a model's target from the predictions there are; `shape` is rows and classes of its
    /// logits.
    pub(super) fn set_target(
        &mut self,
        members: &[Member],
        i: usize,
        shape: (usize, usize),
        step: u64,
    ) -> Result<()> {
        let student = &members[i].examples;
        self.targets[i].begin(shape)?;
        let part = if self.memory.is_some() {
            self.recall(student, i, shape)?;
            1.0
        } else {
            self.add_predictions(members, i)?
        };
        let weight = self.options.weight_for(student.spec.kind == LossKind::TokenClassification);
        let scale = weight * part * ramp(step, self.ramp_up);
        self.targets[i].finish(&self.options, student, scale);
        Ok(())
    }

    /// Adds what the memory holds of a model's examples.
    fn recall(&mut self, student: &Examples, i: usize, shape: (usize, usize)) -> Result<()> {
        let (Some(memory), target) = (&mut self.memory, &mut self.targets[i]) else {
            return Ok(());
        };
        match memory.recall(student, target) {
            Err(e) if !self.options.required && e.kind() == Kind::Shape => {
                self.misfit.get_or_insert_with(|| e.message().to_owned());
                target.begin(shape)
            }
            done => done,
        }
    }

    /// Adds the teachers' predictions. Returns how much they stand for, as a part of all teachers,
    /// those among them that wait for their turn: over a round of turns its mean is 1.
    fn add_predictions(&mut self, members: &[Member], i: usize) -> Result<f64> {
        let takes_turns = self.takes_turns();
        let (mut given, mut of_all) = (0.0, 0.0);
        for j in 0..members.len() {
            if !self.is_taught((i, members[i].is_fresh), (j, members[j].is_fresh)) {
                continue;
            }
            let (prediction, weight) = (&self.predictions[j], self.teacher_weights[j]);
            let share = self.shares[j];
            if takes_turns && share == 0.0 {
                of_all += f64::from(weight);
            }
            // What is not finite would spread to all models.
            if prediction.is_empty() || !prediction.is_finite() {
                continue;
            }
            let [student, teacher] = [i, j].map(|k| &members[k].examples);
            match self.targets[i].add(student, teacher, prediction, weight * share) {
                Err(e) if !self.options.required && e.kind() == Kind::Shape => {
                    self.misfit.get_or_insert_with(|| e.message().to_owned());
                }
                done => {
                    done?;
                    given += f64::from(weight * share);
                    of_all += f64::from(weight);
                }
            }
        }
        Ok(if of_all > 0.0 { given / of_all } else { 1.0 })
    }

    /// Adds the predictions of [`Mutual::run`] to the memory, if there is one. What fails changes
    /// nothing.
    pub fn remember(&mut self, models: &[Model], batches: &[Batch]) -> Result<()> {
        let of = |j: usize| Examples::new(&models[j].name, &models[j].sessions.spec, batches[j]);
        let Some(memory) = &mut self.memory else { return Ok(()) };
        // What is not finite would stay in the means.
        let finite = |j: &usize| self.predictions[*j].probabilities.iter().all(|p| p.is_finite());
        let taking_part: Vec<usize> = (0..models.len()).filter(finite).collect();
        let total: f32 = taking_part.iter().map(|&j| self.teacher_weights[j]).sum();
        let visitor = |&j: &usize| (self.teacher_weights[j] / total, of(j), &self.predictions[j]);
        let visitors: Vec<Visitor> = taking_part.iter().map(visitor).collect();
        let limits = Limits {
            decay: self.options.memory_decay,
            examples: self.options.memory_examples,
            bytes: self.options.memory_bytes,
        };
        match memory.visit(&visitors, limits) {
            Err(e) if !self.options.required && e.kind() == Kind::Shape => {
                self.misfit.get_or_insert_with(|| e.message().to_owned());
                Ok(())
            }
            done => done,
        }
    }
}

/// One line: the teachers and the weight, and the first pair of models that does not fit.
impl std::fmt::Display for Mutual {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let teacher = serde_json::to_value(self.options.teacher).unwrap_or_default();
        let teacher = teacher.as_str().unwrap_or_default();
        write!(f, "mutual learning: {teacher}, weight ")?;
        match self.options.weight {
            Some(weight) => write!(f, "{weight}")?,
            None => {
                let [tags, others] = [true, false].map(|tags| self.options.weight_for(tags));
                write!(f, "{tags} for token classification and {others} for other tasks")?;
            }
        }
        match self.ramp_up {
            0 if self.options.ramp_up_fraction > 0.0 => {
                write!(f, " from the first step, as total_steps is 0")?;
            }
            0 => {}
            steps => write!(f, ", which rises over the first {steps} steps")?,
        }
        if let Some(k) = self.options.teachers_per_step.filter(|_| self.takes_turns()) {
            write!(f, ", {k} in each step, in turn")?;
        }
        match &self.misfit {
            Some(why) => write!(f, "; {why}"),
            None => Ok(()),
        }
    }
}

/// A trained model, and who teaches it.
pub(in crate::train) struct Student<'a> {
    pub name: &'a str,
    /// Of what it learns from its teachers, beside its loss.
    pub weight: f64,
    pub teachers: Vec<&'a str>,
}

impl Student<'_> {
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "model": self.name, "weight": self.weight, "teachers": self.teachers,
        })
    }
}

impl std::fmt::Display for Student<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.teachers[..] {
            [] => write!(f, "  '{}' has no teacher", self.name),
            _ => write!(
                f,
                "  '{}' learns from '{}', weight {}",
                self.name,
                self.teachers.join("', '"),
                self.weight
            ),
        }
    }
}

/// What teaching knows of a model in a step.
pub(super) struct Member<'a> {
    pub examples: Examples<'a>,
    pub is_fresh: bool,
}

fn members<'a>(models: &'a [Model], batches: &[Batch<'a>]) -> Vec<Member<'a>> {
    let member = |(model, batch): (&'a Model, &Batch<'a>)| Member {
        examples: Examples::new(&model.name, &model.sessions.spec, batch),
        is_fresh: model.is_fresh(),
    };
    models.iter().zip(batches).map(member).collect()
}

/// Rows and classes of a model's logits for a batch.
pub(super) fn shape_of(model: &mut Model, batch: Batch) -> Result<(usize, usize)> {
    model.row_shape(batch).map_err(|e| in_model(e, &model.name))
}

/// Views of batches with the labels that were made for them.
pub(in crate::train) fn with_labels<'a>(
    batches: &[Batch<'a>],
    labels: &'a [Vec<(String, Tensor)>],
) -> Vec<Vec<TensorView<'a>>> {
    let join = |(batch, labels): (&Batch<'a>, &'a Vec<(String, Tensor)>)| {
        let labels = labels.iter().map(|(name, tensor)| TensorView::of(name, tensor));
        batch.iter().copied().chain(labels).collect()
    };
    batches.iter().zip(labels).map(join).collect()
}

/// What each of `n` teachers stands for where `n_at_once` predict in a step, in turn: n / n_at_once
/// or, where it waits, 0. The mean over the steps is 1. Without a number all predict.
fn shares(n: usize, n_at_once: Option<usize>, step: u64) -> Vec<f32> {
    let k = n_at_once.unwrap_or(n).min(n);
    let first = (step as u128 * k as u128 % n.max(1) as u128) as usize;
    let share = |j: usize| if (j + n - first) % n < k { n as f32 / k as f32 } else { 0.0 };
    (0..n).map(share).collect()
}

/// exp(−5 (1 − x)²) with x the done share of the steps, from the paper on temporal ensembling.
fn ramp(step: u64, steps: u64) -> f64 {
    if step >= steps {
        return 1.0;
    }
    let rest = 1.0 - step as f64 / steps as f64;
    (-5.0 * rest * rest).exp()
}

impl optim::Mutual {
    /// Steps over which the weight rises, with so many steps in all; 0 is an unknown number.
    fn ramp_up(&self, total_steps: u64) -> u64 {
        match self.ramp_up_steps {
            0 => (self.ramp_up_fraction * total_steps as f64).round() as u64,
            steps => steps,
        }
    }

    fn check_models(&self, options: &optim::Options, models: &[Model]) -> Result<()> {
        if let Some(given) = models.iter().find(|m| m.is_precomputed()) {
            return Err(Error::unsupported(format!(
                "model '{}' brings its own gradients; mutual learning cannot change them",
                given.name
            )));
        }
        if let ([only], Teacher::Peers | Teacher::PeersBefore | Teacher::Online) =
            (models, self.teacher)
        {
            return Err(Error::invalid(format!(
                "model '{}' is the only one, and mutual is required: with this teacher models \
                 learn from others; choose mean_teacher or memory, or set required to false",
                only.name
            )));
        }
        let kind = |m: &Model| m.sessions.spec.kind.clone();
        for model in models {
            if matches!(kind(model), LossKind::MeanSquaredError | LossKind::Output(_)) {
                return Err(Error::unsupported(format!(
                    "model '{}': mutual learning needs a loss over classes, not {:?}",
                    model.name,
                    kind(model)
                )));
            }
            if kind(model) != kind(&models[0]) {
                return Err(Error::unsupported(format!(
                    "models '{}' and '{}' cannot learn from each other: {:?} and {:?}",
                    models[0].name,
                    model.name,
                    kind(&models[0]),
                    kind(model)
                )));
            }
            let language_model = matches!(kind(model), LossKind::CausalLm | LossKind::MaskedLm);
            if self.teacher == Teacher::Memory && language_model {
                return Err(Error::unsupported(format!(
                    "model '{}': the teacher 'memory' is not for language models, whose \
                     predictions are over a vocabulary at every token; choose another teacher",
                    model.name
                )));
            }
        }
        let frozen = models.iter().find(|m| m.only_teaches());
        match frozen {
            _ if models.iter().all(Model::only_teaches) => models[0].check_trained(),
            None if self.teacher == Teacher::Frozen => Err(Error::invalid(
                "the teacher 'frozen' needs a model without a trained parameter; freeze '*' in one",
            )),
            Some(m) if options.share_policy == SharePolicy::Paper && options.sync_every > 0 => {
                Err(Error::unsupported(format!(
                    "model '{}' is frozen and only teaches, but share_policy 'paper' synchronises \
                     frozen parameters; set sync_every to 0",
                    m.name
                )))
            }
            _ => Ok(()),
        }
    }
}

/// What the classes of the models say of mutual learning.
#[derive(Default)]
struct Labels {
    /// Why a model cannot learn from another.
    misfit: Option<String>,
    doubts: Vec<String>,
}

impl optim::Mutual {
    /// Whether models of different numbers or names of classes are to teach each other. By position
    /// a probability would be of another class.
    ///
    /// # Errors
    /// `InvalidArgument` for equal names in another order, and for a model that only teaches and
    /// has a head that nobody trained; `Shape` for other numbers of classes where learning is
    /// required.
    fn check_labels(&self, models: &[Model]) -> Result<Labels> {
        let mut found = Labels::default();
        let kind = models.first().map(|m| &m.sessions.spec.kind);
        let classes = [LossKind::SequenceClassification, LossKind::TokenClassification];
        if !kind.is_some_and(|kind| classes.contains(kind)) {
            return Ok(found);
        }
        for (i, model) in models.iter().enumerate() {
            let drawn = model.report.newly_initialised.first();
            let is_teacher = model.only_teaches() && !model.is_fresh();
            if let (true, Some(drawn)) = (is_teacher, drawn) {
                return Err(Error::invalid(format!(
                    "model '{}' only teaches, but nobody trained its head: '{drawn}' is newly \
                     initialised; load a model that was trained for these classes, with its head",
                    model.name
                )));
            }
            for other in &models[..i] {
                self.check_pair(other, model, &mut found)?;
            }
        }
        Ok(found)
    }

    /// [`Self::check_labels`] of two models.
    fn check_pair(&self, first: &Model, second: &Model, found: &mut Labels) -> Result<()> {
        let (theirs, own) = (first.label_names(), second.label_names());
        if theirs.is_empty() || own.is_empty() || theirs == own {
            return Ok(());
        }
        let pair = format!("models '{}' and '{}'", first.name, second.name);
        if theirs.len() != own.len() {
            let (a, b) = (theirs.len(), own.len());
            let why = format!("{pair} cannot learn from each other: {a} and {b} classes");
            if self.required {
                return Err(Error::shape(why));
            }
            found.doubts.push(why.clone());
            found.misfit.get_or_insert(why);
            return Ok(());
        }
        let at = own.iter().zip(theirs).position(|(a, b)| a != b).unwrap_or_default();
        let (a, b) = (&theirs[at], &own[at]);
        let of = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
        if of(own) == of(theirs) {
            return Err(Error::invalid(format!(
                "{pair} have the same classes in another order (class {at} is '{a}' and '{b}'), \
                 so predictions would teach wrong classes: load all with the order of the corpus, \
                 or set mutual to null"
            )));
        }
        let generic = |name: &String| name.starts_with("LABEL_");
        if !own.iter().all(generic) && !theirs.iter().all(generic) {
            found.doubts.push(format!(
                "{pair} name class {at} '{a}' and '{b}'; they learn from each other by position"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{ramp, shares};

    #[test]
    fn teachers_take_turns_and_stand_for_those_that_wait() {
        for (n, k) in [(1, 1), (2, 1), (3, 1), (3, 2), (5, 3)] {
            let mut sums = vec![0.0; n];
            for step in 7..7 + n as u64 {
                let shares = shares(n, Some(k), step);
                assert_eq!(shares.iter().filter(|&&s| s > 0.0).count(), k);
                sums.iter_mut().zip(shares).for_each(|(sum, share)| *sum += share);
            }
            assert!(sums.iter().all(|sum| (sum - n as f32).abs() < 1e-5), "{n} {k}: {sums:?}");
        }
        assert_eq!(shares(3, None, 5), [1.0; 3]);
        assert_eq!(shares(3, Some(9), 5), [1.0; 3]);
        assert!(shares(0, Some(1), 5).is_empty());
    }

    #[test]
    fn the_weight_rises() {
        let found = [(0, 0), (0, 10), (5, 10), (10, 10), (99, 10)].map(|(t, n)| ramp(t, n));
        let expected = [1.0, (-5f64).exp(), (-1.25f64).exp(), 1.0, 1.0];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
    }
}
