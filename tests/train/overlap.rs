//! Replicas that sum gradients while passes still run: the bits of those that do not, and nothing of
//! a call that failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ThreadId};
use std::time::Duration;

use mmopt::comm::local::{self, on_ranks};
use mmopt::comm::{Communicator, SharedCommunicator, Transport, Values};
use mmopt::optim::{self, Teacher};
use mmopt::tensor::Tensor;
use mmopt::train::{
    GradientDtype, LocalSteps, RankOptions, TensorView, TrainResult, Trainer, TrainerOptions,
};
use mmopt::{Kind, Result};

use crate::ranks::{NAMES, Part, group, normalising, options, pass, small_buckets, steps, trainer};
use crate::trainer::{trainer_options, weights};

fn overlapped() -> RankOptions {
    RankOptions { overlap: true, ..small_buckets() }
}

/// Runs a trainer on each of `n` ranks, with its communicator.
fn on<R: Send>(
    n: usize,
    options: &optim::Options,
    ranks: &RankOptions,
    work: impl Fn(Trainer, (usize, usize), SharedCommunicator) -> Result<R> + Sync,
) -> Vec<Result<R>> {
    on_ranks(group(n), |comm| {
        let place = (comm.rank(), comm.size());
        let mut trainer = trainer(options);
        trainer.set_ranks(Some(comm.clone()), ranks.clone())?;
        work(trainer, place, comm)
    })
}

type End = (Vec<TrainResult>, Vec<u8>, u64);

/// Steps over batches that say which examples they have, as the teacher `memory` needs.
fn known_steps(trainer: &mut Trainer, place: (usize, usize)) -> Result<Vec<TrainResult>> {
    let mut results = Vec::new();
    for seed in 0..4 {
        let mut parts = NAMES.map(|name| Part::new(seed, name == "bert", false, place));
        for part in &mut parts {
            let rows = part.tensors[0].1.shape()[0];
            let ids: Vec<i64> = (0..rows).map(|row| (place.0 + row * place.1) as i64).collect();
            part.tensors.push(("example_ids", Tensor::from_slice(&[rows], &ids)?));
        }
        let views: Vec<_> = parts.iter().map(Part::views).collect();
        let batches: Vec<_> = views.iter().map(Vec::as_slice).collect();
        results.extend(trainer.forward_backward_all(&batches)?);
        trainer.step()?;
    }
    Ok(results)
}

/// Results, weights and bytes of some steps.
fn run(n: usize, options: &optim::Options, ranks: &RankOptions) -> Vec<End> {
    let remembers = options.mutual.as_ref().is_some_and(|m| m.teacher == Teacher::Memory);
    let ends = on(n, options, ranks, |mut trainer, place, comm| {
        let results = match remembers {
            true => known_steps(&mut trainer, place)?,
            false => steps(&mut trainer, 0..4, place)?,
        };
        Ok((results, weights(&trainer), comm.with(|c| Ok(c.traffic()))?.wire_bytes))
    });
    ends.into_iter().map(Result::unwrap).collect()
}

fn check_equal(ns: &[usize], options: &optim::Options, ranks: &RankOptions, what: &str) {
    for &n in ns {
        for max_parallel_models in [1, 2] {
            let options = optim::Options { max_parallel_models, ..options.clone() };
            let plain = run(n, &options, &RankOptions { overlap: false, ..ranks.clone() });
            let found = run(n, &options, ranks);
            for (plain, found) in plain.iter().zip(&found) {
                assert_eq!(plain.0, found.0, "{what}, {n} ranks");
                assert!(plain.1 == found.1, "{what}, {n} ranks: other weights");
                // An all_reduce of 200 bytes for each of 2 models in each of 4 passes.
                let more = 8 * (2 * 200 * (n as u64 - 1)).div_ceil(n as u64);
                assert_eq!(found.2 - plain.2, more, "{what}, {n} ranks");
            }
        }
    }
}

#[test]
fn bits_are_those_without_it() {
    check_equal(&[1, 2, 4], &options(), &overlapped(), "the defaults");
    let clipped = optim::Options { max_grad_norm: 0.1, sync_every: 2, ..options() };
    let sharded = RankOptions { shard_state: true, ..overlapped() };
    check_equal(&[2, 4], &clipped, &sharded, "clipping, synchronisation, shards");
    let narrow = RankOptions { gradient_dtype: GradientDtype::Bf16, ..overlapped() };
    check_equal(&[2, 4], &options(), &narrow, "bf16");
}

#[test]
fn bits_are_those_without_it_whoever_teaches() {
    let all = [Teacher::Peers, Teacher::MeanTeacher, Teacher::Memory, Teacher::PeersBefore];
    for teacher in all.into_iter().chain([Teacher::Online]) {
        let mutual = Some(optim::Mutual { teacher, ..optim::Mutual::default() });
        let options = optim::Options { mutual, ..options() };
        check_equal(&[2], &options, &overlapped(), &format!("{teacher:?}"));
    }
}

#[test]
fn the_plan_says_what_passes_and_steps_send() {
    let ranks = RankOptions { check_every: 0, ..overlapped() };
    for n in [2, 4] {
        let ends = on(n, &options(), &ranks, |mut trainer, place, comm| {
            let sent = || comm.with(|c| Ok(c.traffic().wire_bytes as f64));
            let before = sent()?;
            pass(&mut trainer, 0, place)?;
            let between = sent()?;
            trainer.step()?;
            assert!(trainer.plan_text().contains("sums overlap with passes"));
            let plan = trainer.plan_json();
            Ok([(between - before, "pass_bytes"), (sent()? - between, "step_bytes")]
                .map(|(found, name)| (found, plan["ranks"][name].as_f64().unwrap_or(0.0))))
        });
        for (found, planned) in ends.into_iter().flat_map(Result::unwrap) {
            assert!((found - planned).abs() <= 0.01 * planned, "{n} ranks: {found} {planned}");
        }
    }
}

/// A pass in which the last rank has a class in its labels that the model does not have.
fn bad_pass(trainer: &mut Trainer, bad: usize, (rank, n): (usize, usize)) -> Result<()> {
    let mut parts = NAMES.map(|name| Part::new(9, name == "bert", true, (rank, n)));
    if rank + 1 == n {
        for (name, tensor) in &mut parts[bad].tensors {
            if *name == "labels" {
                tensor.as_mut_slice::<i64>()?[0] = 77;
            }
        }
    }
    let views: Vec<_> = parts.iter().map(Part::views).collect();
    let batches: Vec<_> = views.iter().map(Vec::as_slice).collect();
    trainer.forward_backward_all(&batches).map(drop)
}

#[test]
fn a_pass_that_fails_on_one_rank_leaves_nothing_and_sums_had_begun() {
    for (n, bad) in [(2, 0), (2, 1), (4, 1)] {
        for max_parallel_models in [1, 2] {
            let options = optim::Options { max_parallel_models, ..options() };
            let ends = on(n, &options, &overlapped(), |mut trainer, place, comm| {
                steps(&mut trainer, 0..1, place)?;
                let before = comm.with(|c| Ok(c.traffic()))?.all_reduce_bytes;
                let e = bad_pass(&mut trainer, bad, place).unwrap_err();
                let sent = comm.with(|c| Ok(c.traffic()))?.all_reduce_bytes - before;
                let e2 = trainer.step().unwrap_err();
                assert!(e2.message().contains("step without gradients"), "{e2}");
                steps(&mut trainer, 1..3, place)?;
                // In the place of a pass that counts it takes nothing from that.
                pass(&mut trainer, 3, place)?;
                bad_pass(&mut trainer, bad, place).unwrap_err();
                trainer.step()?;
                Ok((e, sent, weights(&trainer)))
            });
            let ends: Vec<_> = ends.into_iter().map(Result::unwrap).collect();
            let expected = run(n, &options, &small_buckets());
            let first = 4 * n_trained(&trainer(&options), 0) as u64;
            for (rank, (e, sent, bits)) in ends.iter().enumerate() {
                let what = format!("{n} ranks, {bad} fails");
                if rank + 1 == n {
                    assert!(e.message().contains("77"), "{what}: {e}");
                } else {
                    let text = format!("rank {} failed in this call", n - 1);
                    assert!(e.kind() == Kind::Cancelled && e.message().contains(&text), "{e}");
                }
                // The sums of the first model do not wait for the pass of the second.
                let sums = if bad == 1 { first..first + 1000 } else { 0..1000 };
                assert!(sums.contains(sent), "{what}: {sent} bytes of {first}");
                assert!(*bits == expected[rank].1, "{what}: something stayed");
            }
        }
    }
}

/// Elements of the trained parameters of a model.
fn n_trained(trainer: &Trainer, model: usize) -> usize {
    let all = trainer.parameters(model).unwrap().filter(|p| p.trainable);
    all.map(|p| p.shape.iter().product::<usize>()).sum()
}

/// A rank that stalls at one of its calls, and must always be called by the thread that made it.
struct Watched {
    inner: local::Rank,
    thread: ThreadId,
    n_calls: Arc<AtomicUsize>,
    /// Calls by other threads.
    n_strays: Arc<AtomicUsize>,
    stalls_at: Option<usize>,
}

/// How long ranks wait for each other, and longer than that.
const LIMIT: Duration = Duration::from_millis(1500);
const STALL: Duration = Duration::from_millis(5000);

impl Watched {
    fn called(&mut self) {
        if thread::current().id() != self.thread {
            self.n_strays.fetch_add(1, Ordering::Relaxed);
        }
        let call = self.n_calls.fetch_add(1, Ordering::Relaxed) + 1;
        if self.stalls_at == Some(call) {
            thread::sleep(STALL);
        }
    }
}

impl Transport for Watched {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn all_reduce(&mut self, values: Values<'_>) -> Result<()> {
        self.called();
        self.inner.all_reduce(values)
    }

    fn broadcast(&mut self, bytes: &mut [u8], root: usize) -> Result<()> {
        self.inner.broadcast(bytes, root)
    }

    fn all_gather(&mut self, from: &[u8], into: &mut [u8]) -> Result<()> {
        self.inner.all_gather(from, into)
    }

    fn reduce_scatter(&mut self, from: Values<'_>, into: Values<'_>) -> Result<()> {
        self.inner.reduce_scatter(from, into)
    }

    fn send(&mut self, bytes: &[u8], to: usize) -> Result<()> {
        self.inner.send(bytes, to)
    }

    fn receive(&mut self, bytes: &mut [u8], from: usize) -> Result<()> {
        self.inner.receive(bytes, from)
    }

    fn barrier(&mut self) -> Result<()> {
        self.inner.barrier()
    }

    fn abort(&mut self, why: &str) {
        self.inner.abort(why);
    }
}

/// The all_reduce calls of rank 1 in one pass, counted, or the errors where it stalls in one.
fn watched(stalls_at: Option<usize>) -> (usize, Vec<Result<()>>) {
    let (counted, n_strays) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let limit = if stalls_at.is_some() { LIMIT } else { 40 * LIMIT };
    let ranks = local::ranks(2, limit);
    let large = RankOptions { bucket_bytes: 20_000, check_every: 0, ..overlapped() };
    let ends = on_ranks(ranks, |inner| {
        let rank = inner.rank();
        let stalls_at = stalls_at.filter(|_| rank == 1);
        let thread = thread::current().id();
        let n_calls = if rank == 1 { counted.clone() } else { Arc::default() };
        let transport = Watched { inner, thread, n_calls, n_strays: n_strays.clone(), stalls_at };
        let comm = SharedCommunicator::new(Communicator::new(Box::new(transport))?);
        let mut trainer = trainer(&options());
        // Sessions first, so that ranks are not late for another reason.
        pass(&mut trainer, 0, (rank, 2))?;
        trainer.zero_grad();
        trainer.set_ranks(Some(comm), large.clone())?;
        let before = weights(&trainer);
        let done = pass(&mut trainer, 0, (rank, 2));
        if done.is_err() {
            assert!(weights(&trainer) == before);
            let e = trainer.step().unwrap_err();
            assert!(e.kind() != Kind::Cancelled, "{e}");
        }
        done.map(drop)
    });
    assert_eq!(n_strays.load(Ordering::Relaxed), 0, "called by another thread");
    (counted.load(Ordering::Relaxed), ends)
}

#[test]
fn a_rank_that_stalls_in_a_sum_is_named() {
    let (n_calls, ends) = watched(None);
    ends.into_iter().for_each(Result::unwrap);
    // One before the sums of each model, two sums at least, and one at the end.
    assert!(n_calls >= 5, "{n_calls}");
    for call in [1, 2, n_calls - 1, n_calls] {
        let (_, ends) = watched(Some(call));
        let e = ends[0].as_ref().unwrap_err();
        assert_eq!(e.kind(), Kind::Communication, "{call}: {e}");
        assert!(e.message().contains("rank 1 did not answer within 1.5 s"), "{call}: {e}");
        // What it gave last, others may be gone.
        assert!(call == n_calls || ends[1].is_err(), "{call}");
    }
}

#[test]
fn passes_of_single_models_and_second_passes_are_as_without_it() {
    let both = |ranks: &RankOptions| {
        let ends = on(2, &options(), ranks, |mut trainer, place, _| {
            for (model, name) in NAMES.iter().enumerate() {
                let part = Part::new(1, *name == "bert", true, place);
                trainer.forward_backward(model, &part.views())?;
            }
            trainer.step()?;
            // A second pass replaces the first; what is dropped counts for nothing.
            pass(&mut trainer, 2, place)?;
            pass(&mut trainer, 3, place)?;
            trainer.step()?;
            pass(&mut trainer, 4, place)?;
            trainer.zero_grad();
            let part = Part::new(5, true, true, place);
            trainer.forward_backward(0, &part.views())?;
            trainer.step()?;
            Ok(weights(&trainer))
        });
        ends.into_iter().map(Result::unwrap).collect::<Vec<_>>()
    };
    assert!(both(&overlapped()) == both(&small_buckets()));
}

#[test]
fn running_statistics_are_averaged_in_the_step() {
    let bits = |ranks: RankOptions| {
        let ends = on_ranks(group(2), |comm| {
            let all = TrainerOptions { optimizer: options(), ..trainer_options() };
            let (mut trainer, rank) = (Trainer::new(all, vec![normalising()])?, comm.rank());
            trainer.set_ranks(Some(comm), ranks.clone())?;
            let x: Vec<f32> = (0..12).map(|i| (i * i % 7 + 5 * rank) as f32).collect();
            let x = Tensor::from_slice(&[4, 3], &x)?;
            let labels = Tensor::from_slice(&[4], &[0i64, 1, 2, 0])?;
            let batch = [TensorView::of("x", &x), TensorView::of("labels", &labels)];
            for _ in 0..2 {
                trainer.forward_backward_all(&[&batch])?;
                trainer.step()?;
            }
            Ok(weights(&trainer))
        });
        ends.into_iter().map(Result::unwrap).collect::<Vec<_>>()
    };
    let (found, plain) = (bits(overlapped()), bits(small_buckets()));
    assert!(found[0] == found[1] && found == plain);
}

#[test]
fn what_does_not_go_with_it_is_refused() {
    let check = |options: optim::Options, ranks: RankOptions, n: usize, part: &str| {
        for end in on(n, &options, &ranks, |_, _, _| Ok(())) {
            let e = end.unwrap_err();
            assert!(e.kind() == Kind::Unsupported && e.message().contains(part), "{e}");
        }
    };
    let local = RankOptions { local: Some(LocalSteps::default()), ..overlapped() };
    check(options(), local, 1, "overlap with local steps");
    let twice = optim::Options { gradient_accumulation_steps: 2, ..options() };
    check(twice, overlapped(), 1, "overlap with gradient_accumulation_steps 2");
    let mut placed = options();
    placed.placement = Some([("bert".to_owned(), 0), ("gpt2".to_owned(), 1)].into());
    check(placed, overlapped(), 2, "placement with overlap");
    let ends = on(2, &options(), &overlapped(), |mut trainer, place, _| {
        pass(&mut trainer, 0, place)?;
        let zeros = [0.0f32; 2];
        let e = trainer.set_gradient(0, "classifier.bias", bytemuck::bytes_of(&zeros)).unwrap_err();
        assert!(e.kind() == Kind::State && e.message().contains("option overlap"), "{e}");
        trainer.step()?;
        Ok(())
    });
    ends.into_iter().for_each(Result::unwrap);
}

#[test]
fn gradients_after_a_pass_are_those_of_all_ranks() {
    let read = |trainer: &Trainer| {
        let gradient = trainer.gradient(0, "classifier.bias").unwrap().unwrap();
        gradient.as_slice::<f32>().unwrap().to_vec()
    };
    let ends = on(2, &options(), &overlapped(), |mut trainer, place, _| {
        pass(&mut trainer, 0, place)?;
        Ok(read(&trainer))
    });
    let mut alone = trainer(&options());
    pass(&mut alone, 0, (0, 1)).unwrap();
    for end in ends {
        let both = end.unwrap().into_iter().zip(read(&alone));
        both.for_each(|(a, b)| assert!((a - b).abs() < 1e-5, "{a} {b}"));
    }
}
