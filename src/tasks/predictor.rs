//! A trained model and its tokenizer, read from a directory, for predictions alone.

use std::path::Path;
use std::sync::Mutex;

use super::predict::{PredictOptions, Prediction, predict};
use crate::error::{Error, Result};
use crate::runtime::Device;
use crate::text::Tokenizer;
use crate::train::{ModelOptions, Source, Trainer, TrainerOptions};

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

/// A model and its tokenizer. Threads may share it: their calls run one after another, each on all
/// of its threads, with the results that they have alone.
#[derive(Debug)]
pub struct Predictor {
    // Its sessions are opened as shapes of batches come.
    trainer: Mutex<Trainer>,
    tokenizer: Tokenizer,
}

impl Predictor {
    /// Reads `config.json`, the weights in safetensors and the tokenizer's files, as
    /// [`Trainer::save_model`] and [`Tokenizer::save`], or Hugging Face's libraries, write them.
    ///
    /// Errors: those of [`Trainer::new`] and [`Tokenizer::load`]; `NotFound` without weights.
    pub fn load(directory: &Path, options: &PredictorOptions) -> Result<Self> {
        let source = Source::Directory(directory.to_owned());
        let mut how = TrainerOptions {
            device: options.device,
            max_sessions: options.max_sessions,
            ..Default::default()
        };
        how.optimizer.n_threads = options.n_threads;
        let trainer = Trainer::new(how, vec![ModelOptions::new("model", source)])?;
        let tokenizer = Tokenizer::load(directory)?;
        Ok(Self { trainer: Mutex::new(trainer), tokenizer })
    }

    /// [`predict`] of its model.
    pub fn predict(
        &self,
        texts: &[&str],
        pairs: Option<&[&str]>,
        options: &PredictOptions,
    ) -> Result<Vec<Vec<Prediction>>> {
        let mut trainer =
            self.trainer.lock().map_err(|_| Error::internal("an earlier prediction panicked"))?;
        predict(&mut trainer, 0, &self.tokenizer, texts, pairs, options)
    }
}
