//! A trained model and its tokenizer, read from a directory, for predictions alone.

use std::path::Path;

use super::generate::{GenerateOptions, generate_by};
use super::predict::{PredictOptions, Prediction, predict_by};
use crate::error::Result;
use crate::runtime::Device;
use crate::text::Tokenizer;
use crate::train::{Evaluation, Evaluator, ModelOptions, Source, TensorView, TrainerOptions};

/// How a [`Predictor`] runs.
#[derive(Clone, Debug, Default)]
pub struct PredictorOptions {
    /// Threads of a call; 0 (default): one for each core.
    pub n_threads: usize,
    /// Where it computes. Default the CPU.
    pub device: Device,
    /// Sessions that it keeps open, one for each shape of batch; 0 (default): 16.
    pub max_sessions: usize,
}

/// A model and its tokenizer. Threads may share it: their calls run side by side, with the results
/// that they have alone.
#[derive(Debug)]
pub struct Predictor {
    model: Evaluator,
    tokenizer: Tokenizer,
}

impl Predictor {
    /// Reads `config.json`, the weights in safetensors and the tokenizer's files, as
    /// [`crate::train::Trainer::save_model`] and [`Tokenizer::save`], or Hugging Face's libraries,
    /// write them.
    ///
    /// Errors: those of [`Evaluator::new`] and [`Tokenizer::load`]; `NotFound` without weights.
    pub fn load(directory: &Path, options: &PredictorOptions) -> Result<Self> {
        let source = Source::Directory(directory.to_owned());
        let mut how = TrainerOptions {
            device: options.device,
            max_sessions: options.max_sessions,
            ..Default::default()
        };
        how.optimizer.n_threads = options.n_threads;
        let model = Evaluator::new(how, ModelOptions::new("model", source))?;
        let tokenizer = Tokenizer::load(directory)?;
        Ok(Self { model, tokenizer })
    }

    /// As [`super::predict`], of its model.
    pub fn predict(
        &self,
        texts: &[&str],
        pairs: Option<&[&str]>,
        options: &PredictOptions,
    ) -> Result<Vec<Vec<Prediction>>> {
        self.predict_with(texts, pairs, options, || Ok(()))
    }

    /// [`Predictor::predict`], which asks `proceed` before each batch whether to go on.
    pub fn predict_with(
        &self,
        texts: &[&str],
        pairs: Option<&[&str]>,
        options: &PredictOptions,
        proceed: impl Fn() -> Result<()>,
    ) -> Result<Vec<Vec<Prediction>>> {
        let run = |batch: &[TensorView]| {
            proceed()?;
            let logits = self.model.outputs(batch)?;
            Ok(Evaluation { loss: None, n_correct: 0, n_labels: 0, logits })
        };
        let (kind, labels) = (self.model.loss_kind(), self.model.label_names());
        predict_by(run, "model", kind, labels, &self.tokenizer, texts, pairs, options)
    }

    /// As [`super::generate`], of its model.
    pub fn generate(
        &self,
        prompts: &[&str],
        options: &GenerateOptions,
    ) -> Result<Vec<Vec<Prediction>>> {
        let run = |batch: &[TensorView]| self.model.outputs(batch);
        let (kind, longest) = (self.model.loss_kind(), self.model.max_sequence());
        generate_by(run, "model", kind, longest, &self.tokenizer, prompts, options)
    }
}
