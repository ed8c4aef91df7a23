//! Trains a BERT and a GPT-2 together on the labelled sentences of a file, and saves both. The
//! counterpart of examples/c/two_models.c.
//!
//! `two_models [FILE]`: one sentence a line, text TAB label; default train.tsv.

use std::path::Path;
use std::sync::Arc;

use mmopt::models::{Config, Sizes, Task};
use mmopt::optim::LrSchedule;
use mmopt::text::{
    Corpus, CorpusOptions, Dataset, EncodeOptions, Loader, LoaderOptions, SpecialToken, Tokenizer,
    TokenizerStyle, TokenizerTrainOptions,
};
use mmopt::train::{ModelOptions, Source, TensorView, Trainer, TrainerOptions};

/// A small fresh model that fits a tokenizer and a corpus.
fn model(name: &str, tokenizer: &Tokenizer, corpus: &Corpus) -> ModelOptions {
    let sizes = Sizes {
        layers: 2,
        hidden: 128,
        heads: 2,
        intermediate: 512,
        vocab: tokenizer.vocab_size(),
        positions: tokenizer.model_max_length(),
        dropout: 0.1,
    };
    let mut config = if name == "bert" { Config::bert(&sizes) } else { Config::gpt2(&sizes) };
    let pad = tokenizer
        .special_token_id(SpecialToken::Pad)
        .or(tokenizer.special_token_id(SpecialToken::Eos));
    config.pad_token_id = pad.map(|id| id as usize);
    config.labels = corpus.labels().names().to_vec();
    let task = Task::SequenceClassification { num_labels: corpus.labels().len() };
    config.set_task(task);
    let source = Source::Config(Box::new(config));
    ModelOptions { task: Some(task), ..ModelOptions::new(name, source) }
}

fn main() -> mmopt::Result<()> {
    let file = std::env::args().nth(1).unwrap_or("train.tsv".to_owned());
    let corpus = Corpus::read_classification(Path::new(&file), &CorpusOptions::default(), None)?;
    let (mut models, mut datasets) = (Vec::new(), Vec::new());
    for (name, style) in [("bert", TokenizerStyle::Bert), ("gpt2", TokenizerStyle::Gpt2)] {
        let options = TokenizerTrainOptions { style, model_max_length: 128, ..Default::default() };
        let tokenizer = Tokenizer::train(&options, &corpus.texts().unwrap())?;
        models.push(model(name, &tokenizer, &corpus));
        let dataset = Dataset::encode(&corpus, &tokenizer, &EncodeOptions::default())?;
        datasets.push(Arc::new(dataset));
    }
    // Both models see the same sentences at the same step.
    let mut loader = Loader::new(datasets, LoaderOptions::default())?;
    let mut options = TrainerOptions::default();
    options.optimizer.learning_rate = 5e-4;
    // Mutual learning sets in over half of the steps.
    options.optimizer.total_steps = loader.n_batches() as u64;
    options.optimizer.lr_schedule = LrSchedule::Linear;
    let mut trainer = Trainer::new(options, models)?;
    let mut step = 0;
    while let Some(batches) = loader.next_batches()? {
        let views: Vec<Vec<TensorView>> = batches
            .iter()
            .map(|batch| batch.tensors.iter().map(|(name, t)| TensorView::of(name, t)).collect())
            .collect();
        let batches: Vec<&[TensorView]> = views.iter().map(Vec::as_slice).collect();
        let results = trainer.forward_backward_all(&batches)?;
        trainer.step()?;
        step += 1;
        println!("step {step}: bert {:.3} gpt2 {:.3}", results[0].loss, results[1].loss);
    }
    trainer.save_model(0, Path::new("bert"))?;
    trainer.save_model(1, Path::new("gpt2"))
}
