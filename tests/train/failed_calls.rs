//! A call that fails or is cancelled changes nothing: random sequences of calls, some of which fail,
//! against a twin that never saw those. Both end with equal bits: weights, moments, running means,
//! counters of dropout, rates, metrics.
//!
//! `MMOPT_SEQUENCES` sets the number of sequences for each set of options.

use std::time::Duration;

use mmopt::models::{Config, Sizes, Task};
use mmopt::optim::{self, Mutual, NonFinite, SharePolicy, Teacher};
use mmopt::tensor::Tensor;
use mmopt::train::{ModelOptions, Source, TensorView, Trainer};
use mmopt::{Kind, Result};

use crate::damage::state;
use crate::trainer::{Example, trainer_options, weights};

const CALLS: usize = 8;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % n
    }
}

fn model(name: &str) -> ModelOptions {
    let sizes = Sizes {
        vocab: 40,
        hidden: 8,
        layers: 1,
        heads: 2,
        intermediate: 16,
        positions: 24,
        dropout: 0.2,
    };
    let config = if name == "gpt2" { Config::gpt2(&sizes) } else { Config::bert(&sizes) };
    let task = Some(Task::SequenceClassification { num_labels: 2 });
    let source = Source::Config(Box::new(config));
    ModelOptions { task, seed: 7, ..ModelOptions::new(name, source) }
}

fn trainer(change: impl Fn(&mut optim::Options)) -> Trainer {
    let mut options = trainer_options();
    options.optimizer.n_threads = 2;
    options.optimizer.learning_rate = 3e-3;
    change(&mut options.optimizer);
    Trainer::new(options, vec![model("bert"), model("gpt2")]).unwrap()
}

/// The batches of both models: one of two lengths, with ids by which they learn from each other.
fn examples(seed: u64) -> [Example; 2] {
    [true, false].map(|types| {
        let mut example = Example::new(seed, types);
        if seed.is_multiple_of(3) {
            for (_, tensor) in &mut example.tensors {
                *tensor = half(tensor);
            }
        }
        let rows = example.tensors[0].1.shape()[0];
        let ids: Vec<i64> = (0..rows as i64).map(|i| i + 10 * (seed as i64 % 4)).collect();
        example.tensors.push(("example_ids", Tensor::from_slice(&[rows], &ids).unwrap()));
        example
    })
}

/// The first half of the rows.
fn half(tensor: &Tensor) -> Tensor {
    let mut shape = tensor.shape().to_vec();
    shape[0] /= 2;
    let n = shape.iter().product();
    Tensor::from_slice(&shape, &tensor.as_slice::<i64>().unwrap()[..n]).unwrap()
}

fn pass(trainer: &mut Trainer, examples: &[Example; 2]) -> Result<Vec<f64>> {
    let views = examples.each_ref().map(Example::views);
    let results = trainer.forward_backward_all(&[&views[0], &views[1]])?;
    Ok(results.iter().map(|r| r.loss).collect())
}

/// A trainer that sees failing calls, and its twin.
struct Pair {
    one: Trainer,
    twin: Trainer,
    dir: tempfile::TempDir,
    random: Random,
    /// Micro-batches since the last step.
    n_pending: u64,
    together: bool,
    n_failed: usize,
}

impl Pair {
    fn both<T: PartialEq + std::fmt::Debug>(&mut self, call: impl Fn(&mut Trainer) -> T) -> T {
        let (one, two) = (call(&mut self.one), call(&mut self.twin));
        assert_eq!(one, two, "the twin has another result");
        one
    }

    /// A call that changes both.
    fn call(&mut self) {
        let seed = self.random.below(1000);
        match self.random.below(8) {
            0..3 => {
                let batch = examples(seed);
                self.both(|t| pass(t, &batch).unwrap());
                self.n_pending += 1;
            }
            3 if !self.together => {
                let (batch, model) = (examples(seed), (seed % 2) as usize);
                self.both(|t| {
                    let views = batch[model].views();
                    t.forward_backward(model, &views).unwrap().loss
                });
                self.n_pending += 1;
            }
            4 => {
                self.both(Trainer::zero_grad);
                self.n_pending = 0;
            }
            5 => {
                let batch = examples(seed);
                self.both(|t| t.evaluate(0, &batch[0].views()).unwrap().loss);
            }
            _ if self.n_pending > 0 => {
                self.both(|t| t.step().unwrap());
                self.n_pending = 0;
                self.compare();
            }
            6 if self.random.below(4) == 0 => {
                let root = self.dir.path().join("good");
                self.one.checkpoint(&root, "").unwrap();
                self.both(|t| t.resume(&root).unwrap());
            }
            _ => {
                let rate = 1e-3 * (1 + seed % 5) as f64;
                self.both(|t| t.optimizer_mut().set_learning_rate(rate).unwrap());
            }
        }
    }

    /// A call that fails, of the one alone.
    fn fail(&mut self) {
        let seed = self.random.below(1000);
        let mut batch = examples(seed);
        let one = &mut self.one;
        self.n_failed += 1;
        let kind = |result: Result<()>| result.expect_err("a call that fails").kind();
        match self.random.below(12) {
            // One model's labels are not among its classes, which only its own pass finds.
            0 | 1 => {
                let bad = &mut batch[(seed % 2) as usize];
                let labels = bad.tensors.iter_mut().find(|(name, _)| *name == "labels").unwrap();
                labels.1.as_mut_slice::<i64>().unwrap()[0] = 9;
                kind(pass(one, &batch).map(drop));
            }
            2 => {
                batch[(seed % 2) as usize].tensors.remove(0);
                assert_eq!(kind(pass(one, &batch).map(drop)), Kind::NotFound);
            }
            3 => {
                one.cancel_token().cancel();
                assert_eq!(kind(pass(one, &batch).map(drop)), Kind::Cancelled);
                one.cancel_token().reset().unwrap();
            }
            // At any time, and reset at once: the pass may be faster, and counts then.
            4 | 5 => {
                let token = one.cancel_token();
                let wait = Duration::from_micros(self.random.below(1500));
                let cancel = std::thread::spawn(move || {
                    std::thread::sleep(wait);
                    token.cancel();
                    token.reset().unwrap();
                });
                let done = pass(one, &batch);
                cancel.join().unwrap();
                match done {
                    Ok(losses) => {
                        assert_eq!(losses, pass(&mut self.twin, &batch).unwrap());
                        self.n_pending += 1;
                        self.n_failed -= 1;
                    }
                    Err(e) => assert_eq!(e.kind(), Kind::Cancelled, "{e}"),
                }
            }
            6 => {
                let nan = |_: &str, _: u64, _: f64| f64::NAN;
                one.optimizer_mut().set_rate_callback(Some(Box::new(nan)));
                kind(one.step().map(drop));
                one.optimizer_mut().set_rate_callback(None);
            }
            7 => {
                let stop = |_: optim::GradientView<'_>| {
                    Err(mmopt::Error::new(Kind::Cancelled, "the host asked to stop"))
                };
                one.optimizer_mut().set_gradient_callback(Some(Box::new(stop)));
                kind(one.step().map(drop));
                one.optimizer_mut().set_gradient_callback(None);
            }
            // A loss that is no number: both hear of it, and one tries to step.
            8 => {
                self.both(|t| t.log_loss(0, f64::NAN).unwrap());
                let expected = if self.n_pending > 0 { Kind::NonFinite } else { Kind::State };
                assert_eq!(kind(self.one.step().map(drop)), expected);
                self.both(Trainer::zero_grad);
                self.n_pending = 0;
            }
            9 => {
                let file = self.dir.path().join("file");
                std::fs::write(&file, "x").unwrap();
                kind(one.checkpoint(&file.join("below"), "").map(drop));
            }
            10 => {
                let error = one.resume(&self.dir.path().join("none")).unwrap_err();
                assert_eq!(error.kind(), Kind::NotFound);
                std::fs::create_dir_all(self.dir.path().join("bad/step-00000009")).unwrap();
                let error = one.resume(&self.dir.path().join("bad")).unwrap_err();
                assert_eq!(error.kind(), Kind::InvalidData);
            }
            _ => {
                kind(one.forward_backward(7, &batch[0].views()).map(drop));
                kind(one.evaluate(0, &[]).map(drop));
                kind(one.set_parameter(0, "none", &[]));
                kind(one.forward_backward_all(&[]).map(drop));
                let view = TensorView::of("input_ids", &batch[0].tensors[0].1);
                kind(one.evaluate(1, &[TensorView { shape: &[1], ..view }]).map(drop));
                if self.n_pending == 0 {
                    assert_eq!(kind(one.step().map(drop)), Kind::State);
                } else {
                    let elsewhere = self.dir.path().join("elsewhere");
                    assert_eq!(kind(one.checkpoint(&elsewhere, "").map(drop)), Kind::State);
                }
            }
        }
        if self.random.below(4) == 0 {
            self.compare();
        }
    }

    /// What hosts can see between steps.
    fn compare(&mut self) {
        assert!(weights(&self.one) == weights(&self.twin), "other weights");
        self.both(|t| {
            let optimizer = t.optimizer();
            let of = |m| {
                let rates = format!("{:?}", optimizer.rates(m).unwrap());
                let norm = optimizer.grad_norm(m).unwrap().to_bits();
                (rates, norm, optimizer.skipped(m).unwrap())
            };
            let metrics = format!("{:?}", optimizer.metrics());
            (of(0), of(1), metrics, optimizer.step_count(), t.mutual_text())
        });
    }
}

/// Runs the sequences; every second call fails. Returns what both have learned.
fn check(name: &str, change: impl Fn(&mut optim::Options)) {
    let n_sequences = std::env::var("MMOPT_SEQUENCES").ok().and_then(|n| n.parse().ok());
    let all = |o: &mut optim::Options| {
        (o.non_finite, o.metrics_every, o.max_grad_norm) = (NonFinite::Fail, 2, 1.0);
        change(o);
    };
    let (one, twin) = (trainer(all), trainer(all));
    let mut pair = Pair {
        together: one.optimizer().options().mutual.as_ref().is_some_and(|m| m.required),
        one,
        twin,
        dir: tempfile::tempdir().unwrap(),
        random: Random(name.len() as u64),
        n_pending: 0,
        n_failed: 0,
    };
    let n_sequences: usize = n_sequences.unwrap_or(6);
    for _ in 0..n_sequences {
        for _ in 0..CALLS {
            if pair.random.below(2) == 0 { pair.fail() } else { pair.call() }
        }
        // A step that looks at everything, and the whole state.
        let batch = examples(pair.random.below(1000));
        pair.both(|t| pass(t, &batch).unwrap());
        pair.both(|t| t.step().unwrap());
        pair.n_pending = 0;
        pair.compare();
        assert!(state(&pair.one) == state(&pair.twin), "{name}: other states");
    }
    assert!(pair.n_failed > n_sequences, "{name}: {} failed calls", pair.n_failed);
    println!("{name}: {n_sequences} sequences with {} failed calls", pair.n_failed);
}

/// Running means begin with the weights that the first step finds, not with those of a pass that
/// failed before the host set others.
#[test]
fn of_a_first_pass() {
    let (mut one, mut twin) = (trainer(|_| {}), trainer(|_| {}));
    let mut bad = examples(1);
    bad[1].tensors[2].1.as_mut_slice::<i64>().unwrap()[0] = 9;
    pass(&mut one, &bad).unwrap_err();
    for t in [&mut one, &mut twin] {
        let name = t.parameters(0).unwrap().next().unwrap().name.to_owned();
        let zeros = vec![0u8; t.parameter(0, &name).unwrap().bytes().len()];
        t.set_parameter(0, &name, &zeros).unwrap();
        pass(t, &examples(2)).unwrap();
        t.step().unwrap();
    }
    assert!(state(&one) == state(&twin));
}

/// Passes that wait for each other.
#[test]
fn of_passes_that_meet() {
    let teacher = optim::Teacher::Online;
    check("online", |o| o.mutual = Some(optim::Mutual { teacher, ..optim::Mutual::default() }));
}

#[test]
fn of_the_default_preset() {
    check("default", |_| {});
}

#[test]
fn of_plain_models() {
    check("plain", |o| o.mutual = None);
}

#[test]
fn with_accumulation_and_running_means() {
    check("accumulation", |o| {
        o.mutual = None;
        (o.gradient_accumulation_steps, o.ema_decay) = (3, Some(0.9));
    });
}

#[test]
fn with_synchronisation_that_is_tried() {
    check("synchronisation", |o| {
        (o.mutual, o.share_policy) = (None, SharePolicy::Aligned);
        (o.sync_beta, o.sync_every, o.max_loss_increase) = (0.9, 1, Some(0.0));
    });
}

#[test]
fn of_models_that_learn_in_turn() {
    let own = Mutual { required: true, teacher: Teacher::PeersBefore, ..Mutual::default() };
    check("in turn", |o| o.mutual = Some(own.clone()));
}

#[test]
fn with_a_memory_that_gets_full() {
    let own = Mutual { required: true, teacher: Teacher::Memory, ..Mutual::default() };
    check("memory", |o| o.mutual = Some(own.clone()));
}
