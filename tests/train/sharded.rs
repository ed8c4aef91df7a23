//! Replicas that share the optimizer's state among them, gradients in bfloat16 on the wire, and
//! what local steps send.

use mmopt::comm::SharedCommunicator;
use mmopt::comm::local::on_ranks;
use mmopt::optim::{GradientAccumulation, Method, MomentDtype};
use mmopt::train::{GradientDtype, LocalSteps, RankOptions, Trainer};
use mmopt::{Kind, Result, optim};

use crate::placed::options;
use crate::ranks::{group, steps_of};
use crate::trainer::{Example, model, trainer_options, weights};

const NAMES: [&str; 2] = ["bert", "gpt2"];

fn trainer(options: &optim::Options) -> Trainer {
    let all = mmopt::train::TrainerOptions { optimizer: options.clone(), ..trainer_options() };
    Trainer::new(all, NAMES.iter().map(|n| model(n, 0.0)).collect()).unwrap()
}

/// Rank r has examples of its own.
fn pass(trainer: &mut Trainer, seed: u64, rank: usize) -> Result<Vec<f64>> {
    let seed = 16 * seed + rank as u64;
    let examples = NAMES.map(|name| Example::new(seed, name == "bert"));
    let views: Vec<_> = examples.iter().map(Example::views).collect();
    let batches: Vec<_> = views.iter().map(Vec::as_slice).collect();
    Ok(trainer.forward_backward_all(&batches)?.iter().map(|r| r.loss).collect())
}

fn steps(trainer: &mut Trainer, range: std::ops::Range<u64>, rank: usize) -> Result<Vec<f64>> {
    steps_of(trainer, range, |trainer, seed| pass(trainer, seed, rank))
}

/// Runs a replica on each of `n` ranks.
fn replicas<R: Send>(
    n: usize,
    options: &optim::Options,
    ranks: &RankOptions,
    work: impl Fn(Trainer, SharedCommunicator) -> Result<R> + Sync,
) -> Vec<R> {
    let ends = on_ranks(group(n), |comm: SharedCommunicator| {
        let mut trainer = trainer(options);
        trainer.set_ranks(Some(comm.clone()), ranks.clone())?;
        work(trainer, comm)
    });
    ends.into_iter().map(Result::unwrap).collect()
}

fn sharded(shard_state: bool) -> RankOptions {
    RankOptions { shard_state, bucket_bytes: 1000, check_every: 1, ..RankOptions::default() }
}

fn check_equal(options: &optim::Options, what: &str) {
    for n in [2, 3] {
        let run = |shard: bool| {
            replicas(n, options, &sharded(shard), |mut trainer, comm| {
                let losses = steps(&mut trainer, 0..8, comm.rank())?;
                Ok((losses, weights(&trainer)))
            })
        };
        assert!(run(true) == run(false), "{what}, {n} ranks");
    }
}

#[test]
fn a_shard_of_the_state_gives_the_bits_of_the_whole() {
    check_equal(&options(), "the defaults");
    let accumulated = optim::Options {
        gradient_accumulation_steps: 2,
        gradient_accumulation: GradientAccumulation::WeightedMean,
        max_grad_norm: 0.05,
        metrics_every: 2,
        ..options()
    };
    check_equal(&accumulated, "accumulation");
}

#[test]
fn every_method_gives_the_bits_of_the_whole() {
    check_equal(&optim::Options { method: Method::Muon, ..options() }, "muon");
    check_equal(&optim::Options { amsgrad: true, ..options() }, "amsgrad");
    check_equal(&optim::Options { moment_dtype: MomentDtype::BF16, ..options() }, "bf16");
    let checked = optim::Options { max_loss_increase: Some(0.001), sync_beta: 0.5, ..options() };
    check_equal(&checked, "checked synchronisation");
}

#[test]
fn moments_that_would_overflow_are_seen_on_every_rank() {
    let options = optim::Options { max_grad_norm: 0.0, ..options() };
    let run = |shard: bool| {
        replicas(2, &options, &sharded(shard), |mut trainer, comm| {
            let mut told = Vec::new();
            // The fourth is too much for what the second moment holds by then, on its rank.
            for (seed, value) in [(0, 0.0), (1, 4e20), (2, 4e20), (3, 4e20), (4, 0.0)] {
                pass(&mut trainer, seed, comm.rank())?;
                if value > 0.0 {
                    let name = "classifier.weight";
                    let values = [value as f32; 32];
                    trainer.set_gradient(0, name, bytemuck::bytes_of(&values))?;
                }
                trainer.step()?;
                told.push(trainer.optimizer().skipped(0)?);
            }
            Ok((told, weights(&trainer)))
        })
    };
    let (one, other) = (run(true), run(false));
    assert!(one == other && one[0].0 == one[1].0, "{:?} {:?}", one[0].0, other[0].0);
    assert!(one[0].0[3].0, "{:?}", one[0].0);
}

fn bytes_of_state(trainer: &Trainer) -> usize {
    trainer.optimizer().state_tensors().iter().map(|t| t.bytes.len()).sum()
}

#[test]
fn each_rank_has_its_share_of_the_state() {
    let mut alone = trainer(&options());
    steps(&mut alone, 0..1, 0).unwrap();
    let whole = bytes_of_state(&alone);
    for n in [2, 4] {
        let parts = replicas(n, &options(), &sharded(true), |mut trainer, comm| {
            steps(&mut trainer, 0..2, comm.rank())?;
            Ok(bytes_of_state(&trainer))
        });
        println!("{n} ranks: {parts:?} of {whole}");
        assert_eq!(parts.iter().sum::<usize>(), whole);
        assert!(parts.iter().all(|&part| part as f64 <= 1.05 * whole as f64 / n as f64));
    }
}

#[test]
fn a_checkpoint_of_shards_resumes_with_any_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let run = |shard: bool| {
        let root = dir.path().join(format!("{shard}"));
        replicas(2, &options(), &sharded(shard), |mut trainer, comm| {
            steps(&mut trainer, 0..4, comm.rank())?;
            trainer.checkpoint(&root, "place")?;
            let losses = steps(&mut trainer, 4..8, comm.rank())?;
            Ok((losses, weights(&trainer)))
        })
    };
    let (expected, plain) = (run(true), run(false));
    assert!(expected == plain);
    for from in ["true", "false"] {
        for (n, shard) in [(2, true), (2, false), (1, true), (3, true), (3, false)] {
            let ends = replicas(n, &options(), &sharded(shard), |mut trainer, comm| {
                trainer.resume(&dir.path().join(from))?;
                let start = weights(&trainer);
                let moments = bytes_of_state(&trainer);
                let losses = steps(&mut trainer, 4..8, comm.rank())?;
                Ok((losses, weights(&trainer), start, moments))
            });
            assert!(n != 2 || ends[0].1 == expected[0].1, "from {from} to {n}, {shard}");
            assert!(ends.iter().all(|end| end.1 == ends[0].1 && end.2 == ends[0].2));
            let moments: usize = ends.iter().map(|end| end.3).sum();
            let copies = if shard { 1 } else { n };
            let mut one = trainer(&options());
            one.resume(&dir.path().join(from)).unwrap();
            assert_eq!(moments, copies * bytes_of_state(&one));
            assert!(ends[0].2 == weights(&one));
        }
    }
}

#[test]
fn ranks_with_shards_cannot_leave_and_shards_need_steps_together() {
    replicas(2, &options(), &sharded(true), |mut trainer, comm| {
        trainer.set_ranks(Some(comm.clone()), sharded(true))?;
        steps(&mut trainer, 0..1, comm.rank())?;
        let e = trainer.set_ranks(None, RankOptions::default()).unwrap_err();
        assert!(e.kind() == Kind::State && e.message().contains("write a checkpoint"), "{e}");
        steps(&mut trainer, 1..2, comm.rank()).map(drop)
    });
    let local = RankOptions { local: Some(LocalSteps::default()), ..sharded(true) };
    let comm = group(1).remove(0);
    let mut one = trainer(&optim::Options { mutual: None, ..options() });
    let e = one.set_ranks(Some(comm.clone()), local.clone()).unwrap_err();
    assert!(e.kind() == Kind::Unsupported && e.message().contains("shard_state"), "{e}");
    let narrow = RankOptions { shard_state: false, gradient_dtype: GradientDtype::Bf16, ..local };
    let e = one.set_ranks(Some(comm), narrow).unwrap_err();
    assert!(e.kind() == Kind::Unsupported && e.message().contains("gradient_dtype"), "{e}");
}

/// Counted bytes of a pass with its step, and those of the plan.
fn bytes_of_step(n: usize, ranks: &RankOptions) -> (f64, f64) {
    let options = optim::Options { sync_every: 0, ..options() };
    let ends = replicas(n, &options, ranks, |mut trainer, comm| {
        steps(&mut trainer, 0..1, comm.rank())?;
        let before = comm.with(|c| Ok(c.traffic()))?.wire_bytes;
        steps(&mut trainer, 1..6, comm.rank())?;
        let sent = comm.with(|c| Ok(c.traffic()))?.wire_bytes - before;
        let plan = trainer.plan_json();
        let told = |name: &str| plan["ranks"][name].as_f64().unwrap();
        Ok((sent as f64 / 5.0, told("pass_bytes") + told("step_bytes")))
    });
    let (sent, told) = ends[0];
    assert!(sent <= 1.01 * told && sent >= 0.99 * told, "{n} ranks: {sent}, {told} by the plan");
    ends[0]
}

#[test]
fn the_bytes_of_a_step_are_those_of_the_plan() {
    for n in [2, 3] {
        let plain = RankOptions { check_every: 0, ..RankOptions::default() };
        let (whole, _) = bytes_of_step(n, &plain);
        let (sharded, _) = bytes_of_step(n, &RankOptions { shard_state: true, ..plain.clone() });
        let bf16 = RankOptions { gradient_dtype: GradientDtype::Bf16, ..plain.clone() };
        let (narrow, _) = bytes_of_step(n, &bf16);
        println!("{n} ranks: {whole}, sharded {sharded}, bf16 {narrow}");
        assert!((sharded / whole - 1.5).abs() < 0.02 && (narrow / whole - 0.5).abs() < 0.02);
        // With buckets that do not divide the gradients.
        bytes_of_step(n, &RankOptions { bucket_bytes: 1000, ..bf16 });
    }
}

#[test]
fn gradients_in_bf16_keep_replicas_the_same() {
    for (n, shard_state) in [(2, false), (3, false), (3, true)] {
        let ranks = RankOptions { gradient_dtype: GradientDtype::Bf16, ..sharded(shard_state) };
        let run = |ranks: &RankOptions| {
            replicas(n, &options(), ranks, |mut trainer, comm| {
                let losses = steps(&mut trainer, 0..8, comm.rank())?;
                Ok((losses, weights(&trainer)))
            })
        };
        let (narrow, wide) = (run(&ranks), run(&sharded(shard_state)));
        assert!(narrow.iter().all(|end| *end == narrow[0]));
        assert!(narrow[0].1 != wide[0].1);
        for (a, b) in narrow[0].0.iter().zip(&wide[0].0) {
            assert!((a - b).abs() < 3e-3, "{a} {b}");
        }
    }
}

#[test]
fn local_steps_send_a_fiftieth() {
    let options = optim::Options { ema_decay: None, ..options() };
    let bytes = |ranks: RankOptions, n_steps: u64| {
        let ends = replicas(2, &options, &ranks, |mut trainer, comm| {
            let before = comm.with(|c| Ok(c.traffic()))?.wire_bytes;
            steps(&mut trainer, 0..n_steps, comm.rank())?;
            Ok(comm.with(|c| Ok(c.traffic()))?.wire_bytes - before)
        });
        ends[0] as f64
    };
    let local = LocalSteps { sync_every: 100, ..LocalSteps::default() };
    let local = bytes(RankOptions { local: Some(local), ..RankOptions::default() }, 100);
    let joint = 10.0 * bytes(RankOptions::default(), 10);
    println!("100 steps: {local} bytes with H = 100, {joint} with sums, {:.4}", local / joint);
    assert!(local <= 0.02 * joint);
}
