//! Running means (EMA) of weights: θ′ ← d θ′ + (1 − d) θ after step t = 1, 2, …, with
//! d = min(decay, (1 + t) / (10 + t)), so that the first weights do not stay for long. Models are
//! evaluated by them, and they are the mean teachers of mutual learning (Tarvainen and Valpola
//! 2017). Each trained parameter holds its mean.

use super::model::Model;
use super::parameter::Parameter;
use super::ranks::Gathered;
use super::trainer::{Trainer, in_model};
use crate::checkpoint::files::Files;
use crate::checkpoint::reader::Checkpoint;
use crate::error::{Context, Error, Result};
use crate::optim::{self, Teacher};
use crate::tensor::{Tensor, first_non_finite};
use crate::threads::side_by_side;

fn file_name(model: usize) -> String {
    format!("ema-{model:02}.safetensors")
}

/// The running means of all models' weights.
#[derive(Debug)]
pub(super) struct Ema {
    decay: f64,
    /// Whether the parameters' means are of this run; from the first step on.
    pub(super) begun: bool,
    /// Whether means and weights have changed places.
    in_use: bool,
}

/// The means of each model's trained parameters, in their order; empty where a checkpoint has none.
pub(super) type SavedMeans = Vec<Vec<Tensor>>;

impl Ema {
    /// `None` where no option asks for means. `teacher` is the mutual learning that takes place.
    pub fn new(options: &optim::Options, teacher: Option<&optim::Mutual>) -> Option<Self> {
        let teacher = teacher.filter(|m| m.teacher == Teacher::MeanTeacher);
        let decay = options.ema_decay.or(teacher.map(|m| m.ema_decay))?;
        Some(Self { decay, begun: false, in_use: false })
    }

    /// The means begin with the weights as they are when the first step is under way.
    /// Only those of the models that `here` says are kept.
    pub fn begin(&mut self, models: &mut [Model], here: impl Fn(usize) -> bool) -> Result<()> {
        if self.begun {
            return Ok(());
        }
        let kept = models.iter_mut().enumerate().filter(|(i, _)| here(*i));
        for parameter in kept.flat_map(|(_, m)| trained_mut(&mut m.parameters)) {
            match &mut parameter.mean {
                Some(mean) => mean.bytes_mut().copy_from_slice(parameter.value.bytes()),
                none => *none = Some(parameter.value.copy()?),
            }
        }
        self.begun = true;
        Ok(())
    }

    /// Moves towards the weights after step `t`, from 1.
    pub fn follow(&self, models: &mut [Model], t: u64, here: impl Fn(usize) -> bool) -> Result<()> {
        let rate = (1.0 - decay_at(self.decay, t)) as f32;
        let kept = models.iter_mut().enumerate().filter(|(i, _)| here(*i));
        let each = kept.map(|(_, m)| move || follow(&mut m.parameters, rate));
        side_by_side(each).into_iter().collect()
    }

    fn set_in_use(&mut self, on: bool, models: &mut [Model]) {
        if std::mem::replace(&mut self.in_use, on) != on {
            models.iter_mut().for_each(|model| swap(&mut model.parameters));
        }
    }

    /// Adds the means under the parameters' names, if they have begun; those of other ranks are in
    /// `gathered`.
    pub fn add_to<'a>(&self, files: &mut Files<'a>, models: &'a [Model], gathered: &'a Gathered) {
        for (i, model) in models.iter().enumerate().filter(|_| self.begun) {
            let trained = model.parameters.iter().enumerate().filter(|(_, p)| p.trainable);
            let means = trained.filter_map(|(j, p)| {
                let mean = gathered.mean((i, j), p.mean.as_ref());
                mean.map(|mean| (p.name.as_str(), mean))
            });
            files.add_tensors(file_name(i), means);
        }
    }

    /// Reads what [`Ema::add_to`] added; a checkpoint that was written without it gives a fresh
    /// start. `finite` says whether NaN and infinity are refused.
    pub fn read(found: &Checkpoint, models: &[Model], finite: bool) -> Result<SavedMeans> {
        if found.find(&file_name(0)).is_none() {
            return Ok(Vec::new());
        }
        let read = |(i, model): (usize, &Model)| {
            read(found, &file_name(i), &model.parameters, finite)
                .map_err(|e| in_model(e, &model.name))
        };
        models.iter().enumerate().map(read).collect()
    }

    /// Goes on from what was read, for the models whose means are kept here.
    pub fn restore(
        &mut self,
        models: &mut [Model],
        saved: SavedMeans,
        here: impl Fn(usize) -> bool,
    ) {
        self.begun = false;
        if saved.is_empty() {
            return;
        }
        self.begun = true;
        let kept = models.iter_mut().zip(saved).enumerate().filter(|(i, _)| here(*i));
        for (_, (model, means)) in kept {
            for (parameter, saved) in trained_mut(&mut model.parameters).zip(means) {
                match &mut parameter.mean {
                    // Sessions know its address.
                    Some(mean) => mean.bytes_mut().copy_from_slice(saved.bytes()),
                    none => *none = Some(saved),
                }
            }
        }
    }
}

impl Trainer {
    /// Puts the running means of all models' weights (the option `ema_decay`, or mean teachers) in
    /// the place of the weights, or the weights back. Evaluation, saving of models and reading of
    /// parameters then see the means; training, steps, checkpoints and [`Trainer::set_parameter`]
    /// are `State` errors until the weights are back. Doing it twice is once.
    ///
    /// Error: `State` where no means are kept.
    pub fn use_ema_weights(&mut self, on: bool) -> Result<()> {
        match &mut self.ema {
            None if !on => Ok(()),
            None => {
                Err(Error::state("no running mean of weights is kept; set the option ema_decay"))
            }
            Some(ema) => {
                let ranks = self.ranks.as_ref();
                ema.begin(&mut self.models, |i| ranks.is_none_or(|ranks| ranks.runs(i)))?;
                ema.set_in_use(on, &mut self.models);
                Ok(())
            }
        }
    }

    /// Does something with the running means of the weights in place, then puts the weights back,
    /// also after an error.
    pub fn with_ema_weights<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.use_ema_weights(true)?;
        let done = f(self);
        self.use_ema_weights(false)?;
        done
    }

    /// The running mean of a trained parameter; `None` before the first step, for other parameters,
    /// and where no means are kept.
    pub fn ema_parameter(&self, model: usize, name: &str) -> Result<Option<&Tensor>> {
        let one = self.model(model)?;
        let parameter = one.parameter(name).map_err(|e| in_model(e, &one.name))?;
        let Some(ema) = self.ema.as_ref().filter(|ema| ema.begun) else { return Ok(None) };
        let mean = parameter.mean.as_ref();
        Ok(mean.map(|mean| if ema.in_use { &parameter.value } else { mean }))
    }

    /// Refuses to go on with the means in the place of the weights.
    pub(super) fn check_weights_in_place(&self) -> Result<()> {
        if !self.ema.as_ref().is_some_and(|ema| ema.in_use) {
            return Ok(());
        }
        Err(Error::state(
            "the running means of weights are in the place of the weights: call \
             use_ema_weights(false) first",
        ))
    }
}

/// d after step `t`, from 1.
fn decay_at(decay: f64, t: u64) -> f64 {
    decay.min((1.0 + t as f64) / (10.0 + t as f64))
}

fn trained(parameters: &[Parameter]) -> impl Iterator<Item = &Parameter> {
    parameters.iter().filter(|p| p.trainable)
}

fn trained_mut(parameters: &mut [Parameter]) -> impl Iterator<Item = &mut Parameter> {
    parameters.iter_mut().filter(|p| p.trainable)
}

fn follow(parameters: &mut [Parameter], rate: f32) -> Result<()> {
    for parameter in trained_mut(parameters) {
        let Some(mean) = &mut parameter.mean else { continue };
        let values = parameter.value.as_slice::<f32>()?;
        let means = mean.as_mut_slice::<f32>()?;
        means.iter_mut().zip(values).for_each(|(m, p)| *m += rate * (p - *m));
    }
    Ok(())
}

/// Exchanges the means and the weights, which lie where sessions read them.
fn swap(parameters: &mut [Parameter]) {
    for parameter in parameters {
        if let Some(mean) = &mut parameter.mean {
            mean.bytes_mut().swap_with_slice(parameter.value.bytes_mut());
        }
    }
}

fn read(
    found: &Checkpoint,
    name: &str,
    parameters: &[Parameter],
    finite: bool,
) -> Result<Vec<Tensor>> {
    let file = found.weights(name)?;
    let read = |p: &Parameter| {
        let mean = file.tensor(&p.name)?;
        if mean.shape() != p.value.shape() || mean.dtype() != p.value.dtype() {
            return Err(Error::shape(format!(
                "parameter '{}' is {}{:?} there",
                p.name,
                mean.dtype(),
                mean.shape()
            )));
        }
        if let Some(at) = first_non_finite(mean.dtype(), mean.bytes()).filter(|_| finite) {
            let name = &p.name;
            return Err(Error::data(format!("'{name}' is not finite at element {at}")));
        }
        Ok(mean)
    };
    let means = trained(parameters).map(read).collect::<Result<_>>();
    means.context(|| found.path_of(name).display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_its_formula() {
        let tensor = |x: &[f32]| Tensor::from_slice(&[2], x).unwrap();
        let parameter = |name: &str, trained| {
            Parameter::new(name.into(), tensor(&[1.0, -3.0]), trained).unwrap()
        };
        let mut parameters = vec![parameter("frozen", false), parameter("w", true)];
        parameters[1].mean = Some(parameters[1].value.copy().unwrap());
        let mut expected = [1.0f64, -3.0];
        for t in 1..=200u64 {
            let values = [t as f64 / 7.0, (t as f64).sin()];
            let narrow: Vec<f32> = values.iter().map(|&v| v as f32).collect();
            parameters[1].value.as_mut_slice::<f32>().unwrap().copy_from_slice(&narrow);
            follow(&mut parameters, (1.0 - decay_at(0.9, t)) as f32).unwrap();
            let d = if t < 80 { (1.0 + t as f64) / (10.0 + t as f64) } else { 0.9 };
            let d = d.min(0.9);
            for (e, v) in expected.iter_mut().zip(values) {
                *e = d * *e + (1.0 - d) * v;
            }
        }
        swap(&mut parameters);
        let found = parameters[1].value.as_slice::<f32>().unwrap();
        for (a, b) in found.iter().zip(expected) {
            assert!((f64::from(*a) - b).abs() <= 1e-6 * b.abs().max(1.0), "{a} against {b}");
        }
        swap(&mut parameters);
        assert_eq!(parameters[1].value.as_slice::<f32>().unwrap()[1], 200f64.sin() as f32);
        assert_eq!(parameters[0].value.as_slice::<f32>().unwrap(), [1.0, -3.0]);
    }
}
