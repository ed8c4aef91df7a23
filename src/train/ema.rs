//! Running means (EMA) of weights: θ′ ← d θ′ + (1 − d) θ after step t = 1, 2, …, with
//! d = min(decay, (1 + t) / (10 + t)), so that the first weights do not stay for long. Models are
//! evaluated by them, and they are the mean teachers of mutual learning (Tarvainen and Valpola
//! 2017).

use std::path::Path;

use super::model::Model;
use super::parameter::Parameter;
use super::trainer::{Trainer, join};
use crate::checkpoint::weights::{self, Weights};
use crate::error::{Context, Error, Result};
use crate::optim::{self, Teacher};
use crate::tensor::Tensor;

fn file_name(model: usize) -> String {
    format!("ema-{model:02}.safetensors")
}

/// The running means of all models' weights.
#[derive(Debug)]
pub(in crate::train) struct Ema {
    decay: f64,
    /// Of each model, from the first step on.
    means: Vec<MeanWeights>,
    /// Whether means and weights have changed places.
    in_use: bool,
}

impl Ema {
    /// `None` where no option asks for means. `teacher` is the mutual learning that takes place.
    pub fn new(options: &optim::Options, teacher: Option<&optim::Mutual>) -> Option<Self> {
        let teacher = teacher.filter(|m| m.teacher == Teacher::MeanTeacher);
        let decay = options.ema_decay.or(teacher.map(|m| m.ema_decay))?;
        Some(Self { decay, means: Vec::new(), in_use: false })
    }

    /// The means begin with the weights as they are when the first step is under way.
    pub fn begin(&mut self, models: &[Model]) {
        if self.means.is_empty() {
            self.means = models.iter().map(|m| MeanWeights::of(&m.parameters)).collect();
        }
    }

    /// Moves towards the weights after step `t`, from 1.
    pub fn follow(&mut self, models: &[Model], t: u64) -> Result<()> {
        let decay = self.decay;
        std::thread::scope(|scope| {
            let pairs = self.means.iter_mut().zip(models);
            let threads: Vec<_> = pairs
                .map(|(mean, m)| scope.spawn(move || mean.follow(&m.parameters, decay, t)))
                .collect();
            threads.into_iter().try_for_each(join)
        })
    }

    /// The means, one for each model once they have begun.
    pub fn means_mut(&mut self) -> impl Iterator<Item = &mut MeanWeights> {
        self.means.iter_mut()
    }

    fn set_in_use(&mut self, on: bool, models: &mut [Model]) {
        if std::mem::replace(&mut self.in_use, on) != on {
            let pairs = self.means.iter_mut().zip(models);
            pairs.for_each(|(mean, model)| mean.swap(&mut model.parameters));
        }
    }

    /// Writes what there is.
    pub fn write(&self, dir: &Path, models: &[Model]) -> Result<()> {
        let mut all = self.means.iter().zip(models).enumerate();
        all.try_for_each(|(i, (mean, m))| mean.write(&dir.join(file_name(i)), &m.parameters))
    }

    /// Reads what [`Ema::write`] wrote; a checkpoint that was written without it gives a fresh
    /// start.
    pub fn read(dir: &Path, models: &[Model]) -> Result<Vec<MeanWeights>> {
        if !dir.join(file_name(0)).exists() {
            return Ok(Vec::new());
        }
        let read = |(i, model): (usize, &Model)| {
            MeanWeights::read(&dir.join(file_name(i)), &model.parameters)
                .context(|| format!("model '{}'", model.name))
        };
        models.iter().enumerate().map(read).collect()
    }

    /// Goes on from what was read.
    pub fn restore(&mut self, means: Vec<MeanWeights>) {
        self.means = means;
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
                ema.begin(&self.models);
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
        let parameter = one.parameter(name).context(|| format!("model '{}'", one.name))?;
        let Some(ema) = &self.ema else { return Ok(None) };
        let mean = ema.means.get(model).and_then(|m| m.of_parameter(&one.parameters, name));
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

/// The running mean of one model's trained parameters.
#[derive(Debug)]
pub(in crate::train) struct MeanWeights {
    /// In the order of the parameters that are trained.
    means: Vec<Tensor>,
}

/// d after step `t`, from 1.
fn decay_at(decay: f64, t: u64) -> f64 {
    decay.min((1.0 + t as f64) / (10.0 + t as f64))
}

fn trained(parameters: &[Parameter]) -> impl Iterator<Item = &Parameter> {
    parameters.iter().filter(|p| p.trainable)
}

impl MeanWeights {
    /// Begins with the weights as they are.
    pub fn of(parameters: &[Parameter]) -> Self {
        Self { means: trained(parameters).map(|p| p.value.clone()).collect() }
    }

    /// Moves towards the weights after step `t`.
    pub fn follow(&mut self, parameters: &[Parameter], decay: f64, t: u64) -> Result<()> {
        let rate = (1.0 - decay_at(decay, t)) as f32;
        for (mean, parameter) in self.means.iter_mut().zip(trained(parameters)) {
            let values = parameter.value.as_slice::<f32>()?;
            let means = mean.as_mut_slice::<f32>()?;
            means.iter_mut().zip(values).for_each(|(m, p)| *m += rate * (p - *m));
        }
        Ok(())
    }

    /// Exchanges the means and the weights, which lie where sessions read them.
    pub fn swap(&mut self, parameters: &mut [Parameter]) {
        let trained = parameters.iter_mut().filter(|p| p.trainable);
        for (mean, parameter) in self.means.iter_mut().zip(trained) {
            mean.bytes_mut().swap_with_slice(parameter.value.bytes_mut());
        }
    }

    /// Writes the means under the parameters' names.
    pub fn write(&self, path: &Path, parameters: &[Parameter]) -> Result<()> {
        let names = trained(parameters).map(|p| p.name.as_str());
        weights::write(path, names.zip(&self.means), &[])
    }

    /// Reads what [`MeanWeights::write`] wrote.
    pub fn read(path: &Path, parameters: &[Parameter]) -> Result<Self> {
        let file = Weights::read(path)?;
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
            Ok(mean)
        };
        let means = trained(parameters).map(read).collect::<Result<_>>();
        Ok(Self { means: means.context(|| path.display().to_string())? })
    }

    /// A trained parameter's mean.
    pub fn of_parameter(&self, parameters: &[Parameter], name: &str) -> Option<&Tensor> {
        trained(parameters).zip(&self.means).find(|(p, _)| p.name == name).map(|(_, mean)| mean)
    }
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
        let mut mean = MeanWeights::of(&parameters);
        let mut expected = [1.0f64, -3.0];
        for t in 1..=200u64 {
            let values = [t as f64 / 7.0, (t as f64).sin()];
            let narrow: Vec<f32> = values.iter().map(|&v| v as f32).collect();
            parameters[1].value.as_mut_slice::<f32>().unwrap().copy_from_slice(&narrow);
            mean.follow(&parameters, 0.9, t).unwrap();
            let d = if t < 80 { (1.0 + t as f64) / (10.0 + t as f64) } else { 0.9 };
            let d = d.min(0.9);
            for (e, v) in expected.iter_mut().zip(values) {
                *e = d * *e + (1.0 - d) * v;
            }
        }
        mean.swap(&mut parameters);
        let found = parameters[1].value.as_slice::<f32>().unwrap();
        for (a, b) in found.iter().zip(expected) {
            assert!((f64::from(*a) - b).abs() <= 1e-6 * b.abs().max(1.0), "{a} against {b}");
        }
        mean.swap(&mut parameters);
        assert_eq!(parameters[1].value.as_slice::<f32>().unwrap()[1], 200f64.sin() as f32);
        assert_eq!(parameters[0].value.as_slice::<f32>().unwrap(), [1.0, -3.0]);
    }
}
