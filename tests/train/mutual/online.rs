//! Training passes that meet half-way: what fails in one ends all, and nothing is left behind.

use std::time::Duration;

use super::linear::{Linear, classification};
use super::*;

fn online() -> Mutual {
    Mutual { teacher: Teacher::Online, ..Mutual::default() }
}

#[test]
fn all_models_must_run_at_the_same_time() {
    let models = classification();
    let with = |max_parallel_models: usize| {
        let mutual = Some(online());
        let optimizer = optim::Options { mutual, max_parallel_models, ..optim::Options::adamw() };
        let options = TrainerOptions { optimizer, ..TrainerOptions::default() };
        Trainer::new(options, models.iter().map(Linear::options).collect())
    };
    let e = with(2).err().unwrap();
    assert_eq!(e.kind(), Kind::InvalidArgument);
    for part in ["online", "all 3 models", "max_parallel_models is 2", "peers"] {
        assert!(e.message().contains(part), "'{part}' is not in {e}");
    }
    assert!(with(0).is_ok() && with(3).is_ok());
}

/// A pass that ends before its logits are there, in any of the models.
#[test]
fn a_pass_that_fails_ends_the_others() {
    let good = classification();
    for bad in 0..3 {
        let [mut trained, mut twin] = [0; 2].map(|_| trainer(&good, &online(), 0.1).unwrap());
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
    let models = classification();
    let [mut trained, mut twin] = [0; 2].map(|_| trainer(&models, &online(), 0.1).unwrap());
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
    let run = || {
        let mut trainer = trainer(&models, &online(), 0.1).unwrap();
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
