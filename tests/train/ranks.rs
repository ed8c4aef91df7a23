//! Replicas on several ranks, which are threads here: they train as one process alone.

use std::time::Duration;

use mmopt::autodiff::{LossKind, LossSpec};
use mmopt::checkpoint::writer::Keep;
use mmopt::comm::SharedCommunicator;
use mmopt::comm::local::{self, on_ranks};
use mmopt::onnx::{Attribute, Dim, Graph, TensorData, ValueType};
use mmopt::optim::{GradientAccumulation, NonFinite};
use mmopt::tensor::{DType, Tensor};
use mmopt::train::{
    LocalSteps, ModelOptions, RankOptions, Source, TensorView, TrainResult, Trainer,
};
use mmopt::{Kind, Result, optim};

use crate::trainer::{Example, model, trainer_options, weights};

pub const NAMES: [&str; 2] = ["bert", "gpt2"];

/// Rows rank, rank + n, … of a batch, of which some have no label.
pub struct Part {
    pub tensors: Vec<(&'static str, Tensor)>,
}

impl Part {
    pub fn new(seed: u64, types: bool, ignores: bool, (rank, n): (usize, usize)) -> Self {
        let whole = Example::new(seed, types);
        let part = |(name, tensor): &(&'static str, Tensor)| {
            let all = tensor.as_slice::<i64>().unwrap();
            let width = all.len() / tensor.shape()[0];
            let mut rows: Vec<&[i64]> = all.chunks(width).skip(rank).step_by(n).collect::<Vec<_>>();
            // Only of the first ranks, so that they hold different numbers of labels.
            let ignored = [[-100i64; 1]];
            for (i, row) in rows.iter_mut().enumerate() {
                let place = rank + i * n;
                if ignores && *name == "labels" && place % 4 == 0 && place > 0 {
                    *row = &ignored[0];
                }
            }
            let mut shape = tensor.shape().to_vec();
            shape[0] = rows.len();
            (*name, Tensor::from_slice(&shape, &rows.concat()).unwrap())
        };
        Self { tensors: whole.tensors.iter().map(part).collect() }
    }

    pub fn views(&self) -> Vec<TensorView<'_>> {
        self.tensors.iter().map(|(name, t)| TensorView::of(name, t)).collect()
    }
}

pub fn options() -> optim::Options {
    let mut options = trainer_options().optimizer;
    options.learning_rate = 1e-3;
    // Predictions are averaged over each rank's rows by themselves.
    options.mutual = None;
    options.n_threads = 1;
    options
}

pub fn trainer(options: &optim::Options) -> Trainer {
    let all = mmopt::train::TrainerOptions { optimizer: options.clone(), ..trainer_options() };
    Trainer::new(all, NAMES.iter().map(|n| model(n, 0.0)).collect()).unwrap()
}

/// One pass of all models over this rank's part of a batch.
pub fn pass(trainer: &mut Trainer, seed: u64, place: (usize, usize)) -> Result<Vec<TrainResult>> {
    // With mutual learning ranks must have equally many labels to be as one.
    let ignores = trainer.optimizer().options().mutual.is_none();
    let parts = NAMES.map(|name| Part::new(seed, name == "bert", ignores, place));
    let views: Vec<_> = parts.iter().map(Part::views).collect();
    trainer.forward_backward_all(&views.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// Takes steps, each of as many passes as gradients are accumulated over, and gives what these gave.
pub fn steps_of<T>(
    trainer: &mut Trainer,
    range: std::ops::Range<u64>,
    mut pass: impl FnMut(&mut Trainer, u64) -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let n = u64::from(trainer.optimizer().options().gradient_accumulation_steps);
    let mut all = Vec::new();
    for step in range {
        for k in 0..n {
            all.extend(pass(trainer, step * n + k)?);
        }
        trainer.step()?;
    }
    Ok(all)
}

/// Takes steps and gives the losses, numbers of right predictions and of labels.
pub fn steps(
    trainer: &mut Trainer,
    range: std::ops::Range<u64>,
    place: (usize, usize),
) -> Result<Vec<TrainResult>> {
    steps_of(trainer, range, |trainer, seed| pass(trainer, seed, place))
}

/// Communicators of `n` ranks.
pub fn group(n: usize) -> Vec<SharedCommunicator> {
    local::group(n, Duration::from_secs(60)).into_iter().map(SharedCommunicator::new).collect()
}

/// Runs a trainer on each of `n` ranks.
fn replicas<R: Send>(
    n: usize,
    options: &optim::Options,
    ranks: &RankOptions,
    work: impl Fn(Trainer, (usize, usize)) -> Result<R> + Sync,
) -> Vec<Result<R>> {
    on_ranks(group(n), |comm| {
        let place = (comm.rank(), comm.size());
        let mut trainer = trainer(options);
        trainer.set_ranks(Some(comm), ranks.clone())?;
        assert_eq!(trainer.place(), Some(place));
        work(trainer, place)
    })
}

pub fn small_buckets() -> RankOptions {
    RankOptions { bucket_bytes: 1000, check_every: 1, ..RankOptions::default() }
}

fn close(a: &[TrainResult], b: &[TrainResult], what: &str) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a.loss - b.loss).abs() < 1e-5, "{what}: {} and {}", a.loss, b.loss);
        assert_eq!((a.n_correct, a.n_labels), (b.n_correct, b.n_labels), "{what}");
    }
}

fn check_equal(options: &optim::Options, what: &str) {
    let mut alone = trainer(options);
    let expected = steps(&mut alone, 0..12, (0, 1)).unwrap();
    for n in [1, 2, 4] {
        let ends = replicas(n, options, &small_buckets(), |mut trainer, place| {
            let results = steps(&mut trainer, 0..12, place)?;
            Ok((results, weights(&trainer)))
        });
        let ends: Vec<_> = ends.into_iter().map(Result::unwrap).collect();
        for (results, bits) in &ends {
            close(results, &expected, &format!("{what}, {n} ranks"));
            assert!(*bits == ends[0].1, "{what}: replicas of {n} ranks differ");
        }
        if n == 1 {
            assert!(ends[0].1 == weights(&alone), "{what}: one rank is not one process");
        }
    }
}

#[test]
fn losses_are_those_of_one_process() {
    check_equal(&options(), "the defaults");
}

#[test]
fn mutual_learning_is_that_of_one_process_where_all_rows_have_labels() {
    let mut options = options();
    options.mutual = Some(optim::Mutual::default());
    check_equal(&options, "mutual learning");
}

#[test]
fn accumulation_averages_over_ranks_and_micro_batches() {
    let all =
        [GradientAccumulation::Mean, GradientAccumulation::Sum, GradientAccumulation::WeightedMean];
    for kind in all {
        let mut options = options();
        options.gradient_accumulation_steps = 2;
        options.gradient_accumulation = kind;
        check_equal(&options, &format!("{kind:?}"));
    }
}

#[test]
fn clipping_and_synchronisation_are_decided_together() {
    let mut options = options();
    options.max_grad_norm = 0.1;
    options.sync_every = 3;
    options.max_loss_increase = Some(0.05);
    check_equal(&options, "clipping and synchronisation");
}

#[test]
fn a_gradient_that_is_not_finite_on_one_rank_skips_on_all() {
    let ends = replicas(2, &options(), &small_buckets(), |mut trainer, place| {
        pass(&mut trainer, 0, place)?;
        if place.0 == 1 {
            let name = "classifier.bias";
            trainer.set_gradient(0, name, bytemuck::bytes_of(&[f32::NAN; 2]))?;
        }
        let report = trainer.step()?;
        Ok((report.skipped, report.updated, weights(&trainer)))
    });
    let ends: Vec<_> = ends.into_iter().map(Result::unwrap).collect();
    assert_eq!((ends[0].0, ends[0].1), (1, 1));
    assert!(ends[0] == ends[1]);
}

#[test]
fn a_call_that_fails_on_one_rank_has_no_effect_on_any() {
    for accumulation in [1, 2] {
        let mut options = options();
        options.gradient_accumulation_steps = accumulation;
        options.non_finite = NonFinite::Fail;
        let ends = replicas(2, &options, &small_buckets(), |mut trainer, place| {
            let mut told = Vec::new();
            // A batch that does not fit, and a callback that stops a step, on rank 1 alone.
            if place.0 == 1 {
                told.push(trainer.forward_backward_all(&[&[], &[]]).unwrap_err());
            } else {
                told.push(pass(&mut trainer, 0, place).unwrap_err());
            }
            pass(&mut trainer, 0, place)?;
            if place.0 == 1 {
                let stop = |_: mmopt::optim::GradientView<'_>| {
                    Err(mmopt::Error::new(Kind::Cancelled, "no"))
                };
                trainer.optimizer_mut().set_gradient_callback(Some(Box::new(stop)));
            }
            told.push(trainer.step().unwrap_err());
            trainer.optimizer_mut().set_gradient_callback(None);
            if accumulation == 2 {
                pass(&mut trainer, 1, place)?;
            }
            trainer.step()?;
            told.push(trainer.step().unwrap_err());
            let texts: Vec<String> = told.iter().map(|e| e.message().to_owned()).collect();
            Ok((texts, told[0].kind(), weights(&trainer)))
        });
        let ends: Vec<_> = ends.into_iter().map(Result::unwrap).collect();
        let (texts, kind, bits) = &ends[0];
        assert_eq!(*kind, Kind::Cancelled);
        assert!(texts[0].contains("rank 1 failed in this call"), "{texts:?}");
        assert!(texts[1].contains("rank 1 failed in this call"), "{texts:?}");
        assert!(ends[1].0[1].contains("no"), "{:?}", ends[1].0);
        assert!(texts[2].contains("step without gradients"), "{texts:?}");
        assert!(*bits == ends[1].2);
        let mut alone = trainer(&options);
        for seed in 0..u64::from(accumulation) {
            pass(&mut alone, seed, (0, 1)).unwrap();
        }
        alone.step().unwrap();
        let (a, b) = (floats(bits), floats(&weights(&alone)));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5), "{accumulation}");
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect()
}

#[test]
fn replicas_that_differ_are_told_with_rank_and_parameter() {
    let ends = replicas(3, &options(), &small_buckets(), |mut trainer, place| {
        steps(&mut trainer, 0..1, place)?;
        if place.0 == 2 {
            trainer.set_parameter(1, "score.weight", &[1; 128])?;
        }
        pass(&mut trainer, 1, place)?;
        trainer.step().map(drop)
    });
    for end in ends {
        let e = end.unwrap_err();
        assert_eq!(e.kind(), Kind::State);
        let text =
            "model 'gpt2', parameter 'score.weight': rank 2 differs from rank 0 after step 1";
        assert!(e.message().contains(text), "{e}");
    }
}

#[test]
fn ranks_join_with_the_weights_of_rank_0_and_must_be_alike() {
    let ends = on_ranks(group(2), |comm| {
        let mut trainer = trainer(&options());
        let rank = comm.rank();
        if rank == 1 {
            trainer.set_parameter(1, "score.weight", &[1; 128])?;
        }
        trainer.set_ranks(Some(comm), RankOptions::default())?;
        Ok(weights(&trainer))
    });
    let ends: Vec<_> = ends.into_iter().map(Result::unwrap).collect();
    assert!(ends[0] == ends[1] && ends[0] == weights(&trainer(&options())));
    let check = |change: fn(&mut optim::Options), step: bool, part: &str| {
        let ends = on_ranks(group(2), |comm| {
            let mut options = options();
            if comm.rank() == 1 {
                change(&mut options);
            }
            let mut trainer = trainer(&options);
            if step && comm.rank() == 1 {
                steps(&mut trainer, 0..1, (0, 1))?;
            }
            trainer.set_ranks(Some(comm), RankOptions::default())
        });
        for end in ends {
            let text = end.unwrap_err().message().to_owned();
            assert!(text.contains(part), "{text}");
        }
    };
    check(|o| o.learning_rate = 1.0, false, "rank 1 has other models or options");
    check(|o| o.n_threads = 2, true, "rank 1 is at step 1, rank 0 at step 0");
}

#[test]
fn different_calls_are_told_on_every_rank() {
    let ends = replicas(2, &options(), &small_buckets(), |mut trainer, place| {
        pass(&mut trainer, 0, place)?;
        if place.0 == 0 { trainer.step().map(drop) } else { pass(&mut trainer, 1, place).map(drop) }
    });
    for end in ends {
        let e = end.unwrap_err();
        assert_eq!(e.kind(), Kind::State);
        assert!(
            e.message().contains("1 of 2 call a pass of all models, 1 of 2 call a step"),
            "{e}"
        );
    }
}

#[test]
fn after_a_rank_has_ended_the_last_step_can_be_saved_and_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let ends = replicas(2, &options(), &small_buckets(), |mut trainer, place| {
        steps(&mut trainer, 0..3, place)?;
        if place.0 == 1 {
            return Ok(weights(&trainer));
        }
        let before = weights(&trainer);
        let e = pass(&mut trainer, 3, place).unwrap_err();
        assert_eq!(e.kind(), Kind::Communication);
        assert!(e.message().contains("rank 1 is gone"), "{e}");
        assert!(weights(&trainer) == before);
        trainer.set_ranks(None, RankOptions::default())?;
        trainer.checkpoint(dir.path(), "after")?;
        let mut other = crate::ranks::trainer(&options());
        assert_eq!(other.resume(dir.path())?, "after");
        assert!(weights(&other) == before);
        Ok(before)
    });
    let ends: Vec<_> = ends.into_iter().map(Result::unwrap).collect();
    assert!(ends[0] == ends[1]);
}

#[test]
fn a_checkpoint_resumes_with_any_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let run = |mut trainer: Trainer, place| {
        steps(&mut trainer, 0..4, place)?;
        let path = trainer.checkpoint(dir.path(), "place 4")?;
        let rest = steps(&mut trainer, 4..8, place)?;
        Ok((path, rest, weights(&trainer)))
    };
    let whole = replicas(2, &options(), &small_buckets(), run);
    let whole: Vec<_> = whole.into_iter().map(Result::unwrap).collect();
    assert_eq!(whole[0].0, whole[1].0);
    assert!(whole[0].0.starts_with(dir.path()));
    for n in [1, 2, 4] {
        let again = replicas(n, &options(), &small_buckets(), |mut trainer, place| {
            assert_eq!(trainer.resume(dir.path())?, "place 4");
            Ok((steps(&mut trainer, 4..8, place)?, weights(&trainer)))
        });
        for end in again {
            let (rest, bits) = end.unwrap();
            close(&rest, &whole[0].1, &format!("resumed on {n}"));
            assert!(n != 2 || bits == whole[0].2, "not exact");
        }
    }
    // Where rank 0 cannot write, no rank goes on as if it had.
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let ends = replicas(2, &options(), &small_buckets(), |trainer, _| {
        trainer.checkpoint(&file, "").map(drop)
    });
    let kinds: Vec<Kind> = ends.into_iter().map(|e| e.unwrap_err().kind()).collect();
    assert_ne!(kinds[0], Kind::Cancelled);
    assert_eq!(kinds[1], Kind::Cancelled);
}

#[test]
fn a_checkpoint_beside_training_is_written_by_rank_0() {
    let dir = tempfile::tempdir().unwrap();
    let ends = replicas(2, &options(), &small_buckets(), |mut trainer, place| {
        steps(&mut trainer, 0..2, place)?;
        trainer.checkpoint_beside(dir.path(), "two", Keep::last(1))?;
        let bits = weights(&trainer);
        steps(&mut trainer, 2..4, place)?;
        let written = trainer.wait_for_checkpoint()?;
        assert_eq!(written.is_some(), place.0 == 0);
        // Rank 0 has waited for it.
        let _ = trainer.checkpoint(&dir.path().join("other"), "")?;
        assert_eq!(trainer.resume(dir.path())?, "two");
        assert!(weights(&trainer) == bits);
        Ok(())
    });
    ends.into_iter().for_each(Result::unwrap);
}

#[test]
fn a_filler_counts_for_nothing() {
    let ends = replicas(2, &options(), &small_buckets(), |mut trainer, (rank, _)| {
        let mut parts = NAMES.map(|name| Part::new(5, name == "bert", true, (0, 1)));
        if rank == 1 {
            let ones = Tensor::from_slice(&[8], &[1i64; 8]).unwrap();
            parts.iter_mut().for_each(|p| p.tensors.push(("filler", ones.copy().unwrap())));
        }
        let views: Vec<_> = parts.iter().map(Part::views).collect();
        let batches: Vec<_> = views.iter().map(Vec::as_slice).collect();
        let results = trainer.forward_backward_all(&batches)?;
        trainer.step()?;
        Ok((results, weights(&trainer)))
    });
    let mut alone = trainer(&options());
    let expected = steps(&mut alone, 5..6, (0, 1)).unwrap();
    for end in ends {
        let (results, bits) = end.unwrap();
        close(&results, &expected, "filler");
        assert!(bits == weights(&alone));
    }
}

/// Normalises x [batch, 3] over the batch.
pub fn normalising() -> mmopt::train::ModelOptions {
    let mut g = Graph::new("normalising", 17);
    let free = [Dim::Symbol("batch".into()), Dim::Known(3)].to_vec();
    let x = ValueType { dtype: Some(DType::F32), shape: Some(free) };
    let x = g.add_input("x", x).unwrap();
    let mut hold = |name: &str, v: f32| {
        g.add_initializer(name, TensorData::from_slice(&[3], &[v; 3]).unwrap()).unwrap()
    };
    let (scale, shift) = (hold("scale", 1.0), hold("shift", 0.0));
    let (mean, var) = (hold("mean", 0.0), hold("var", 1.0));
    let how = [("training_mode", Attribute::Int(1)), ("momentum", Attribute::Float(0.5))];
    let y = g.op("BatchNormalization", &[x, scale, shift, mean, var], how);
    let moved = ["moved_mean", "moved_var"].map(|name| Some(g.add_value(name).unwrap()));
    let node = g.node_ids().next_back().unwrap();
    g.node_mut(node).outputs.extend(moved);
    g.add_output(y);
    let bytes = g.to_bytes().unwrap();
    let mut options = ModelOptions::new("model", Source::OnnxBytes(bytes.into()));
    options.loss = Some(LossSpec::new(LossKind::SequenceClassification));
    options
}

#[test]
fn running_statistics_become_their_means() {
    let new = || {
        let all = mmopt::train::TrainerOptions { optimizer: options(), ..trainer_options() };
        Trainer::new(all, vec![normalising()]).unwrap()
    };
    let step = |trainer: &mut Trainer, rank: usize| {
        let x: Vec<f32> = (0..12).map(|i| (i * i % 7 + 5 * rank) as f32).collect();
        let x = Tensor::from_slice(&[4, 3], &x).unwrap();
        let labels = Tensor::from_slice(&[4], &[0i64, 1, 2, 0]).unwrap();
        let batch = [TensorView::of("x", &x), TensorView::of("labels", &labels)];
        trainer.forward_backward(0, &batch)?;
        trainer.step()?;
        let read = |name| -> Result<Vec<f32>> {
            Ok(trainer.parameter(0, name)?.as_slice::<f32>()?.to_vec())
        };
        Ok([read("mean")?, read("var")?].concat())
    };
    let alone: Vec<Vec<f32>> = (0..2).map(|rank| step(&mut new(), rank).unwrap()).collect();
    assert!(alone[0] != alone[1] && alone[0][0] != 0.0);
    let ends = on_ranks(group(2), |comm| {
        let (mut trainer, rank) = (new(), comm.rank());
        trainer.set_ranks(Some(comm), small_buckets())?;
        step(&mut trainer, rank)
    });
    let means: Vec<f32> = alone[0].iter().zip(&alone[1]).map(|(a, b)| (a + b) / 2.0).collect();
    for end in ends {
        assert_eq!(end.unwrap(), means);
    }
}

/// 2 × gradients × (n − 1) / n and 1%.
#[test]
fn a_step_sends_little_more_than_its_gradients() {
    for n in [2, 4] {
        let ranks = RankOptions { check_every: 10, ..RankOptions::default() };
        let ends = on_ranks(group(n), |comm| {
            let place = (comm.rank(), comm.size());
            let mut trainer = trainer(&options());
            trainer.set_ranks(Some(comm.clone()), ranks.clone())?;
            steps(&mut trainer, 0..1, place)?;
            let before = comm.with(|c| Ok(c.traffic()))?.wire_bytes;
            steps(&mut trainer, 1..11, place)?;
            let sent = comm.with(|c| Ok(c.traffic()))?.wire_bytes - before;
            Ok((sent as f64 / 10.0, weights(&trainer).len() as f64))
        });
        for end in ends {
            let (sent, gradients) = end.unwrap();
            let least = 2.0 * gradients * (n as f64 - 1.0) / n as f64;
            println!("{n} ranks: {sent} bytes a step, gradients {gradients}, {:.4}", sent / least);
            assert!(sent >= least && sent <= 1.03 * least, "{sent} {least}");
        }
    }
}

#[test]
fn local_steps_meet_as_their_formula_says() {
    let local = LocalSteps { sync_every: 3, outer_lr: 0.7, outer_momentum: 0.9 };
    let ranks = RankOptions { local: Some(local), check_every: 1, ..RankOptions::default() };
    let mut plain = options();
    plain.share_rule = optim::ShareRule::None;
    let n = 2;
    let run = |mut trainer: Trainer, place| {
        let mut all = Vec::new();
        for round in 0..3 {
            steps(&mut trainer, 3 * round..3 * round + 3, place)?;
            all.push(floats(&weights(&trainer)));
        }
        Ok(all)
    };
    let found = replicas(n, &plain, &ranks, run);
    let found: Vec<_> = found.into_iter().map(Result::unwrap).collect();
    assert!(found[0] == found[1]);
    // The same by trainers alone, and the outer steps in f64.
    let mut alone: Vec<Trainer> = (0..n).map(|_| trainer(&plain)).collect();
    let mut theta: Vec<f64> = floats(&weights(&alone[0])).iter().map(|&x| x.into()).collect();
    let mut u = vec![0.0; theta.len()];
    for (round, found) in found[0].iter().enumerate() {
        let first = 3 * round as u64;
        let inner: Vec<Vec<f32>> = alone
            .iter_mut()
            .enumerate()
            .map(|(rank, trainer)| {
                steps(trainer, first..first + 3, (rank, n)).unwrap();
                floats(&weights(trainer))
            })
            .collect();
        for i in 0..theta.len() {
            let mean = inner.iter().map(|w| f64::from(w[i])).sum::<f64>() / n as f64;
            let delta = theta[i] - mean;
            u[i] = 0.9 * u[i] + delta;
            theta[i] -= 0.7 * (0.9 * u[i] + delta);
        }
        let worst = found.iter().zip(&theta).map(|(a, b)| (f64::from(*a) - b).abs());
        let worst = worst.fold(0.0, f64::max);
        assert!(worst < 1e-6, "round {round}: {worst}");
        alone.iter_mut().for_each(|trainer| set_weights(trainer, found));
    }
}

fn set_weights(trainer: &mut Trainer, values: &[f32]) {
    let mut at = 0;
    for model in 0..trainer.n_models() {
        let names: Vec<(String, usize)> = trainer
            .parameters(model)
            .unwrap()
            .map(|p| (p.name.to_owned(), p.shape.iter().product()))
            .collect();
        for (name, n) in names {
            let value = bytemuck::cast_slice(&values[at..at + n]);
            trainer.set_parameter(model, &name, value).unwrap();
            at += n;
        }
    }
}

#[test]
fn local_steps_resume_from_a_meeting_and_send_little() {
    let dir = tempfile::tempdir().unwrap();
    let local = LocalSteps { sync_every: 5, ..LocalSteps::default() };
    let ranks = RankOptions { local: Some(local), ..RankOptions::default() };
    let ends = on_ranks(group(2), |comm| {
        let place = (comm.rank(), comm.size());
        let mut one = trainer(&options());
        one.set_ranks(Some(comm.clone()), ranks.clone())?;
        let before = comm.with(|c| Ok(c.traffic()))?.wire_bytes;
        steps(&mut one, 0..5, place)?;
        let sent = comm.with(|c| Ok(c.traffic()))?.wire_bytes - before;
        assert_eq!(sent, weights(&one).len() as u64);
        one.checkpoint(dir.path(), "")?;
        let at_meeting = weights(&one);
        steps(&mut one, 5..6, place)?;
        let e = one.checkpoint(dir.path(), "").unwrap_err();
        assert!(e.kind() == if place.0 == 0 { Kind::State } else { Kind::Cancelled }, "{e}");
        one.resume(dir.path())?;
        assert!(weights(&one) == at_meeting);
        let momentum = steps(&mut one, 5..10, place).map(|_| weights(&one))?;
        one.resume(dir.path())?;
        steps(&mut one, 5..10, place)?;
        assert!(weights(&one) == momentum);
        Ok(())
    });
    ends.into_iter().for_each(Result::unwrap);
}

#[test]
fn what_ranks_cannot_do_is_refused() {
    let check = |options: optim::Options, ranks: RankOptions, part: &str| {
        let comm = group(1).remove(0);
        let e = trainer(&options).set_ranks(Some(comm), ranks).unwrap_err();
        assert!(e.message().contains(part), "{e}");
    };
    let local = |local| RankOptions { local: Some(local), ..RankOptions::default() };
    let good = LocalSteps::default();
    let bucket = RankOptions { bucket_bytes: 3, ..RankOptions::default() };
    check(options(), bucket, "bucket_bytes is 3");
    check(options(), local(LocalSteps { sync_every: 0, ..good }), "sync_every");
    check(options(), local(LocalSteps { outer_lr: 0.0, ..good }), "outer_lr is 0");
    check(options(), local(LocalSteps { outer_momentum: 1.0, ..good }), "outer_momentum is 1");
    let means = optim::Options { ema_decay: Some(0.9), ..options() };
    check(means, local(good), "running means");
    let mut pending = trainer(&options());
    pass(&mut pending, 0, (0, 1)).unwrap();
    let e = pending.set_ranks(Some(group(1).remove(0)), RankOptions::default()).unwrap_err();
    assert_eq!(e.kind(), Kind::State);
}
