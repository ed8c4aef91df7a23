//! Training passes that meet half-way: what fails in one ends all, and nothing is left behind.

use std::time::Duration;

use super::linear::classification;
use super::*;
use mmopt::models::{Config, Sizes, Task};
use mmopt::train::{ModelOptions, Source, TensorView};

fn online() -> Mutual {
    Mutual { teacher: Teacher::Online, ..Mutual::default() }
}

/// All teachers whose passes meet.
fn meeting() -> [Mutual; 2] {
    [Teacher::Online, Teacher::PeersBefore].map(|teacher| Mutual { teacher, ..online() })
}

/// Where the passes cannot meet, models run in turn or predict before; dropout is the same. Nor do
/// activations that are computed again change anything.
#[test]
fn models_in_turn_learn_the_same() {
    meeting().into_iter().for_each(in_turn_is_the_same);
}

fn in_turn_is_the_same(teaching: Mutual) {
    let sizes = Sizes {
        vocab: 16,
        hidden: 16,
        layers: 2,
        heads: 2,
        intermediate: 32,
        positions: 8,
        dropout: 0.2,
    };
    let run = |max_parallel_models: usize, activation_checkpointing: bool| {
        let mutual = Some(teaching.clone());
        let own = optim::Options {
            mutual,
            max_parallel_models,
            activation_checkpointing,
            ..optim::Options::adamw()
        };
        let options = TrainerOptions { optimizer: own, ..TrainerOptions::default() };
        let task = Some(Task::SequenceClassification { num_labels: 2 });
        let model = |(name, config)| {
            let source = Source::Config(Box::new(config));
            ModelOptions { task, seed: 3, ..ModelOptions::new(name, source) }
        };
        let configs = [("gpt2", Config::gpt2(&sizes)), ("roberta", Config::roberta(&sizes))];
        let models = configs.into_iter().map(model).collect();
        let mut trainer = Trainer::new(options, models).unwrap();
        let ids: Vec<i64> = (0..24).map(|i| 2 + i * 7 % 11).collect();
        let ids = Tensor::from_slice(&[4, 6], &ids).unwrap();
        let mask = Tensor::from_slice(&[4, 6], &[1i64; 24]).unwrap();
        let labels = Tensor::from_slice(&[4], &[0i64, 1, 1, 0]).unwrap();
        let batch = [("input_ids", &ids), ("attention_mask", &mask), ("labels", &labels)]
            .map(|(name, tensor)| TensorView::of(name, tensor));
        let mut losses = Vec::new();
        for _ in 0..5 {
            let found = trainer.forward_backward_all(&[&batch, &batch]).unwrap();
            losses.extend(found.iter().flat_map(|r| [r.loss, r.mutual_loss]));
            trainer.step().unwrap();
        }
        losses
    };
    let together = run(0, false);
    // One of the two learns from the other in each step at least.
    let taught = |step: &[f64]| step[1].max(step[3]) > 1e-7;
    assert!(together.chunks(4).all(taught), "{together:?}");
    close(&run(1, false), &together, 1e-5, "in turn");
    // What is computed again asks no second time.
    close(&run(0, true), &together, 1e-5, "activations computed again");
}

/// A pass that ends before its logits are there, in any of the models.
#[test]
fn a_pass_that_fails_ends_the_others() {
    let good = classification();
    for (bad, teaching) in (0..3).flat_map(|bad| meeting().map(|teaching| (bad, teaching))) {
        let [mut trained, mut twin] = [0; 2].map(|_| trainer(&good, &teaching, 0.1).unwrap());
        let mut models = good.clone();
        models[bad].set("labels", Some(Tensor::from_slice(&[6], &[99i64; 6]).unwrap()));
        for _ in 0..2 {
            let e = pass(&mut trained, &models).unwrap_err();
            let name = ["'a'", "'b'", "'c'"][bad];
            assert!(e.message().contains(name) && e.message().contains("99"), "{e}");
            let [found, expected] =
                [&mut trained, &mut twin].map(|trainer| pass(trainer, &good).unwrap());
            assert_eq!(found, expected);
            trained.step().unwrap();
            twin.step().unwrap();
        }
        (0..3).for_each(|i| assert_eq!(weights(&trained, i), weights(&twin, i)));
    }
}

/// The others learn from those whose predictions are finite.
#[test]
fn what_is_not_finite_teaches_nobody() {
    let models = classification();
    let mut trainer = trainer(&models, &online(), 0.1).unwrap();
    let bad = vec![f32::NAN; models[1].w.len()];
    trainer.set_parameter(1, "w", bytemuck::cast_slice(&bad)).unwrap();
    let found = pass(&mut trainer, &models).unwrap();
    assert!(!found[1].loss.is_finite());
    for (i, teacher) in [(0, 2), (2, 0)] {
        let targets = mean_of(&[(&models[teacher], 1.0)], &online(), 1.0, &models[i]);
        check(&trainer, i, &found[i], &models[i], &targets, 1.0);
    }
}

/// Cancelled at any time, a pass ends, and the next one is as if it had not been.
#[test]
fn a_cancel_ends_passes_that_wait() {
    meeting().iter().for_each(a_cancel_ends_passes);
}

fn a_cancel_ends_passes(teaching: &Mutual) {
    let models = classification();
    let [mut trained, mut twin] = [0; 2].map(|_| trainer(&models, teaching, 0.1).unwrap());
    let token = trained.cancel_token();
    for n in 0..40 {
        token.reset().unwrap();
        let done = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_micros(40 * n));
                token.cancel();
            });
            pass(&mut trained, &models)
        });
        token.reset().unwrap();
        match done {
            Ok(_) => {
                pass(&mut twin, &models).unwrap();
                trained.step().unwrap();
                twin.step().unwrap();
            }
            Err(e) => assert_eq!(e.kind(), Kind::Cancelled, "{e}"),
        }
    }
    assert_eq!(pass(&mut trained, &models).unwrap(), pass(&mut twin, &models).unwrap());
}

/// Trainers of one process do not meet each other's passes.
#[test]
fn trainers_do_not_mix() {
    let models = classification();
    for teaching in meeting() {
        let run = || {
            let mut trainer = trainer(&models, &teaching, 0.1).unwrap();
            for _ in 0..20 {
                pass(&mut trainer, &models).unwrap();
                trainer.step().unwrap();
            }
            weights(&trainer, 0)
        };
        let expected = run();
        std::thread::scope(|scope| {
            let threads = [0; 3].map(|_| scope.spawn(run));
            threads.into_iter().for_each(|t| assert_eq!(t.join().unwrap(), expected));
        });
    }
}
