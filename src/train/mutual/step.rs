//! A micro-batch of all models with mutual learning: who teaches whom, and in which order.

use super::examples::{Examples, ignored_labels};
use super::mean_weights::MeanWeights;
use super::memory::Memory;
use super::prediction::Prediction;
use super::target::Target;
use crate::autodiff::LossKind;
use crate::error::{Error, Kind, Result};
use crate::optim::{self, Optimizer, SharePolicy, Teacher, TeacherWeights};
use crate::tensor::Tensor;
use crate::train::batch::{Batch, TensorView};
use crate::train::model::{Model, Run, labels};
use crate::train::trainer::{in_model, join};

/// What mutual learning keeps from step to step.
pub(in crate::train) struct Mutual {
    pub(super) options: optim::Mutual,
    /// Of each model in this step; empty while there is none.
    predictions: Vec<Prediction>,
    /// Of each model in this step.
    targets: Vec<Target>,
    /// How much each model teaches.
    teacher_weights: Vec<f32>,
    /// The teacher `mean_teacher`: of each model, from the first step on.
    pub(super) means: Vec<MeanWeights>,
    pub(super) memory: Memory,
    /// Why one model does not learn from another, where it need not; the first time that it was
    /// found.
    pub misfit: Option<String>,
}

impl Mutual {
    /// Checks that the models can learn from each other. When the option is off, or they cannot and
    /// need not, it is the reason.
    ///
    /// # Errors
    /// Without mutual learning, any model without a trained parameter.
    pub fn new(
        options: &optim::Options,
        models: &[Model],
    ) -> Result<std::result::Result<Self, String>> {
        let off = |why: String| {
            models.iter().try_for_each(Model::check_trained)?;
            Ok(Err(why))
        };
        let Some(own) = options.mutual else {
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
        let n = models.len();
        Ok(Ok(Self {
            options: own,
            misfit: None,
            predictions: vec![Prediction::default(); n],
            targets: vec![Target::default(); n],
            teacher_weights: vec![0.0; n],
            means: Vec::new(),
            memory: Memory::default(),
        }))
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
            ignored_labels(labels(spec), spec.ignore_index, batch)
        });
        let labels = labels.collect::<Result<Vec<_>>>()?;
        Ok(if labels.iter().all(Vec::is_empty) { Vec::new() } else { labels })
    }

    /// One micro-batch of every model: loss and gradients, drawn towards the teachers. The batches
    /// are checked. Models without a trained parameter are evaluated.
    pub fn run(
        &mut self,
        models: &mut [Model],
        batches: &[Batch],
        optimizer: &Optimizer,
    ) -> Result<Vec<Run>> {
        self.set_teacher_weights(optimizer)?;
        self.begin(models);
        self.predictions.iter_mut().for_each(Prediction::clear);
        let mut runs: Vec<Option<Run>> = (0..models.len()).map(|_| None).collect();
        for i in 0..models.len() {
            if models[i].only_teaches() {
                runs[i] = Some(self.predict(models, i, batches[i])?);
            }
        }
        let step = optimizer.step_count();
        match self.options.teacher {
            Teacher::PeersBefore => self.run_in_turn(models, batches, step, &mut runs)?,
            teacher => {
                if matches!(teacher, Teacher::Peers | Teacher::MeanTeacher) {
                    self.predict_all(models, batches)?;
                }
                for i in 0..models.len() {
                    if !models[i].only_teaches() {
                        self.set_target(models, batches, i, step)?;
                    }
                }
                self.run_side_by_side(models, batches, &mut runs)?;
            }
        }
        if self.options.teacher == Teacher::Memory {
            self.remember(models, batches)?;
        }
        Ok(runs.into_iter().flatten().collect())
    }

    fn set_teacher_weights(&mut self, optimizer: &Optimizer) -> Result<()> {
        for (i, weight) in self.teacher_weights.iter_mut().enumerate() {
            *weight = match self.options.teacher_weights {
                TeacherWeights::Equal => 1.0,
                TeacherWeights::Model => optimizer.normalised_weight(i)? as f32,
            };
        }
        Ok(())
    }

    /// Each model learns from those before it; another one begins each time.
    fn run_in_turn(
        &mut self,
        models: &mut [Model],
        batches: &[Batch],
        step: u64,
        runs: &mut [Option<Run>],
    ) -> Result<()> {
        let n = models.len();
        let trained = models.iter().filter(|m| !m.only_teaches());
        let first = trained.map(|m| m.n_runs as usize).next().unwrap_or(0);
        for i in (0..n).map(|k| (first + k) % n) {
            if models[i].only_teaches() {
                continue;
            }
            self.set_target(models, batches, i, step)?;
            let (target, prediction) = (&self.targets[i], &mut self.predictions[i]);
            let run = models[i].learn(batches[i], Some(target), Some(prediction));
            runs[i] = Some(run.map_err(|e| in_model(e, &models[i].name))?);
        }
        Ok(())
    }

    /// The training passes, none of which waits for another.
    fn run_side_by_side(
        &mut self,
        models: &mut [Model],
        batches: &[Batch],
        runs: &mut [Option<Run>],
    ) -> Result<()> {
        let keep = self.options.teacher == Teacher::Memory;
        let results: Vec<Option<Result<Run>>> = std::thread::scope(|scope| {
            let parts = models.iter_mut().zip(batches).zip(&self.targets);
            let parts = parts.zip(&mut self.predictions);
            let threads: Vec<_> = parts
                .map(|(((model, batch), target), prediction)| {
                    (!model.only_teaches()).then(|| {
                        let prediction = keep.then_some(prediction);
                        scope.spawn(move || model.learn(batch, Some(target), prediction))
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.map(join)).collect()
        });
        for ((run, result), model) in runs.iter_mut().zip(results).zip(models) {
            if let Some(result) = result {
                *run = Some(result.map_err(|e| in_model(e, &model.name))?);
            }
        }
        Ok(())
    }

    /// A model's prediction without dropout, by its weights as they are.
    fn predict(&mut self, models: &mut [Model], i: usize, batch: Batch) -> Result<Run> {
        let prediction = &mut self.predictions[i];
        models[i].predict(batch, prediction).map_err(|e| in_model(e, &models[i].name))
    }

    /// The predictions of all models that are trained and somebody learns from.
    fn predict_all(&mut self, models: &mut [Model], batches: &[Batch]) -> Result<()> {
        let n_trained = models.iter().filter(|m| !m.only_teaches()).count();
        let means = self.options.teacher == Teacher::MeanTeacher;
        if n_trained == 1 && !(means && models.len() == 1) {
            return Ok(());
        }
        for i in 0..models.len() {
            if models[i].only_teaches() {
                continue;
            }
            if means {
                self.means[i].swap(&mut models[i].parameters);
            }
            let done = self.predict(models, i, batches[i]);
            if means {
                self.means[i].swap(&mut models[i].parameters);
            }
            done?;
        }
        Ok(())
    }

    /// Makes a model's target from the predictions there are.
    fn set_target(
        &mut self,
        models: &mut [Model],
        batches: &[Batch],
        i: usize,
        step: u64,
    ) -> Result<()> {
        let shape = models[i].row_shape(batches[i]).map_err(|e| in_model(e, &models[i].name))?;
        let of = |j: usize| Examples::new(&models[j].name, &models[j].sessions.spec, batches[j]);
        let (student, target) = (of(i), &mut self.targets[i]);
        target.begin(shape);
        if self.options.teacher == Teacher::Memory {
            let ids = student.wanted_ids()?;
            if ids.shape != [shape.0] {
                return Err(Error::shape(format!(
                    "model '{}': {:?} example ids for {} examples",
                    student.model, ids.shape, shape.0
                )));
            }
            match self.memory.n_classes() {
                0 => {}
                n if n == shape.1 => self.memory.recall(ids.ints(), target),
                n => {
                    return Err(Error::shape(format!(
                        "model '{}' has {} classes, the memory {n}",
                        student.model, shape.1
                    )));
                }
            }
        } else {
            let alone = models.len() == 1;
            for (j, prediction) in self.predictions.iter().enumerate() {
                if (j == i && !alone) || prediction.is_empty() {
                    continue;
                }
                match target.add(&student, &of(j), prediction, self.teacher_weights[j]) {
                    Err(e) if !self.options.required && e.kind() == Kind::Shape => {
                        self.misfit.get_or_insert_with(|| e.message().to_owned());
                    }
                    done => done?,
                }
            }
        }
        let scale = self.options.weight * ramp(step, self.options.ramp_up_steps);
        target.finish(&self.options, &student, scale);
        Ok(())
    }

    /// Adds the step's predictions to the memory.
    fn remember(&mut self, models: &[Model], batches: &[Batch]) -> Result<()> {
        let of = |j: usize| Examples::new(&models[j].name, &models[j].sessions.spec, batches[j]);
        let ids = of(0).wanted_ids()?;
        for j in 1..models.len() {
            let same = of(j).wanted_ids()?.data == ids.data;
            if !same || self.predictions[j].shape() != self.predictions[0].shape() {
                return Err(Error::shape(format!(
                    "models '{}' and '{}' cannot share a memory: they predict {:?} and {:?} \
                     probabilities, and their example ids are {}",
                    models[0].name,
                    models[j].name,
                    self.predictions[0].shape(),
                    self.predictions[j].shape(),
                    if same { "the same" } else { "others" }
                )));
            }
        }
        let total: f32 = self.teacher_weights.iter().sum();
        let weights = self.teacher_weights.iter().map(|s| s / total);
        let limits = (self.options.memory_decay, self.options.memory_examples);
        self.memory.visit(ids.ints(), weights.zip(&self.predictions), limits)
    }

    /// Mean teachers begin with the weights as they are when the first step is under way.
    pub fn begin(&mut self, models: &[Model]) {
        if self.options.teacher == Teacher::MeanTeacher && self.means.is_empty() {
            self.means = models.iter().map(|m| MeanWeights::of(&m.parameters)).collect();
        }
    }

    /// Moves the mean teachers towards the weights after step `t`, from 1.
    pub fn follow(&mut self, models: &[Model], t: u64) -> Result<()> {
        let decay = self.options.ema_decay;
        std::thread::scope(|scope| {
            let pairs = self.means.iter_mut().zip(models);
            let threads: Vec<_> = pairs
                .map(|(mean, m)| scope.spawn(move || mean.follow(&m.parameters, decay, t)))
                .collect();
            threads.into_iter().try_for_each(join)
        })
    }

    /// The mean teacher's value of a trained parameter; `None` before the first step, without mean
    /// teachers, and for other parameters.
    pub fn mean_weights(&self, model: usize, of: &Model, name: &str) -> Option<&Tensor> {
        self.means.get(model).and_then(|mean| mean.of_parameter(&of.parameters, name))
    }
}

/// One line: the teachers and the weight, and the first pair of models that does not fit.
impl std::fmt::Display for Mutual {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let teacher = serde_json::to_value(self.options.teacher).unwrap_or_default();
        let teacher = teacher.as_str().unwrap_or_default();
        write!(f, "mutual learning: {teacher}, weight {}", self.options.weight)?;
        match &self.misfit {
            Some(why) => write!(f, "; {why}"),
            None => Ok(()),
        }
    }
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

/// exp(−5 (1 − x)²) with x the done share of the steps, from the paper on temporal ensembling.
fn ramp(step: u64, steps: u64) -> f64 {
    if step >= steps {
        return 1.0;
    }
    let rest = 1.0 - step as f64 / steps as f64;
    (-5.0 * rest * rest).exp()
}

impl optim::Mutual {
    fn check_models(&self, options: &optim::Options, models: &[Model]) -> Result<()> {
        if let Some(given) = models.iter().find(|m| m.is_precomputed()) {
            return Err(Error::unsupported(format!(
                "model '{}' brings its own gradients; mutual learning cannot change them",
                given.name
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
            if self.teacher == Teacher::Memory && kind(model) != LossKind::SequenceClassification {
                return Err(Error::unsupported(format!(
                    "model '{}': the teacher 'memory' is for sequence classification only",
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

#[cfg(test)]
mod tests {
    use super::ramp;

    #[test]
    fn the_weight_rises() {
        let found = [(0, 0), (0, 10), (5, 10), (10, 10), (99, 10)].map(|(t, n)| ramp(t, n));
        let expected = [1.0, (-5f64).exp(), (-1.25f64).exp(), 1.0, 1.0];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
    }
}
