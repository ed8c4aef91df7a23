//! On which threads the models of a trainer run.

use std::collections::HashSet;

use super::{ModelOptions, Source, TensorView, Trainer, TrainerOptions};
use crate::models::{Config, Sizes, Task};
use crate::optim::{Mutual, Options, Teacher};
use crate::tensor::Tensor;

fn model(name: &str) -> ModelOptions {
    let sizes = Sizes {
        vocab: 20,
        hidden: 8,
        layers: 1,
        heads: 2,
        intermediate: 16,
        positions: 8,
        dropout: 0.0,
    };
    let source = Source::Config(Box::new(Config::gpt2(&sizes)));
    let task = Some(Task::SequenceClassification { num_labels: 2 });
    ModelOptions { task, seed: 7, ..ModelOptions::new(name, source) }
}

/// Threads on which three models make one pass.
fn n_threads(max_parallel_models: usize, mutual: Option<Mutual>) -> usize {
    let optimizer = Options { max_parallel_models, mutual, ..Options::default() };
    let options = TrainerOptions { optimizer, ..TrainerOptions::default() };
    let mut trainer = Trainer::new(options, ["a", "b", "c"].map(model).into()).unwrap();
    let ids = Tensor::from_slice(&[2, 4], &[1i64, 2, 3, 4, 5, 6, 7, 8]).unwrap();
    let mask = Tensor::from_slice(&[2, 4], &[1i64; 8]).unwrap();
    let labels = Tensor::from_slice(&[2], &[0i64, 1]).unwrap();
    let batch = [("input_ids", &ids), ("attention_mask", &mask), ("labels", &labels)];
    let batch = batch.map(|(name, tensor)| TensorView::of(name, tensor));
    trainer.forward_backward_all(&[&batch[..]; 3]).unwrap();
    let threads: Option<HashSet<_>> = trainer.models().iter().map(|m| m.ran_on).collect();
    threads.unwrap().len()
}

#[test]
fn models_run_in_turn_where_asked() {
    let peers = Mutual { teacher: Teacher::Peers, ..Mutual::default() };
    let means = Mutual { teacher: Teacher::MeanTeacher, ..Mutual::default() };
    for mutual in [None, Some(peers), Some(means)] {
        assert_eq!(n_threads(1, mutual.clone()), 1, "in turn with {mutual:?}");
        assert!(n_threads(2, mutual.clone()) <= 2, "two at a time with {mutual:?}");
        assert_eq!(n_threads(0, mutual.clone()), 3, "side by side with {mutual:?}");
    }
}
