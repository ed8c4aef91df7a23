//! Models on different ranks, which are threads here: they train as in one process.

use std::sync::Arc;

use mmopt::comm::SharedCommunicator;
use mmopt::comm::local::on_ranks;
use mmopt::optim::{
    GradientAccumulation, MomentDtype, NonFinite, SharePolicy, ShareRule, Teacher, TokenEmbeddings,
    Weighting,
};
use mmopt::train::{
    GradientDtype, LocalSteps, ModelOptions, RankOptions, Tokens, TrainResult, Trainer,
};
use mmopt::{Kind, Result, optim};

use crate::ranks::{group, steps_of};
use crate::trainer::{Example, model, sizes, trainer_options, weights};

pub const NAMES: [&str; 3] = ["bert", "gpt2", "roberta"];

/// The default preset with gated sharing, synchronisation and running means; predictions of peers.
pub fn options() -> optim::Options {
    let mut options = trainer_options().optimizer;
    (options.learning_rate, options.n_threads, options.sync_every) = (1e-3, 1, 3);
    options.ema_decay = Some(0.99);
    options
}

/// Dropout is that of one process, too.
pub fn trainer(options: &optim::Options) -> Trainer {
    let all = mmopt::train::TrainerOptions { optimizer: options.clone(), ..trainer_options() };
    let models = NAMES.iter().zip([1, 3, 5]).map(|(name, stride)| {
        // Each has the tokens in an order of its own.
        let rows = sizes(0.1).vocab;
        let pieces = (0..rows).map(|row| format!("▁t{}", row * stride % rows)).collect();
        let tokens = Tokens { pieces, ..Tokens::default() };
        ModelOptions { tokens: Some(Arc::new(tokens)), ..model(name, 0.1) }
    });
    Trainer::new(all, models.collect()).unwrap()
}

fn pass(trainer: &mut Trainer, seed: u64) -> Result<Vec<TrainResult>> {
    let mut examples = NAMES.map(|name| Example::new(seed, name == "bert"));
    for example in &mut examples {
        let ids: Vec<i64> = (0..8).map(|i| (seed % 4 * 8) as i64 + i).collect();
        let ids = mmopt::tensor::Tensor::from_slice(&[8], &ids).unwrap();
        example.tensors.push(("example_ids", ids));
    }
    let views: Vec<_> = examples.iter().map(Example::views).collect();
    trainer.forward_backward_all(&views.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn steps(trainer: &mut Trainer, range: std::ops::Range<u64>) -> Result<Vec<TrainResult>> {
    steps_of(trainer, range, pass)
}

pub fn placed(options: &optim::Options, ranks: [usize; 3]) -> optim::Options {
    let placement = NAMES.iter().map(|n| (*n).to_owned()).zip(ranks).collect();
    optim::Options { placement: Some(placement), ..options.clone() }
}

/// Runs a trainer on each of `n` ranks, with the models on `ranks`.
fn on<R: Send>(
    n: usize,
    ranks: [usize; 3],
    options: &optim::Options,
    rank_options: &RankOptions,
    work: impl Fn(Trainer, SharedCommunicator) -> Result<R> + Sync,
) -> Vec<R> {
    let options = placed(options, ranks);
    let ends = on_ranks(group(n), |comm| {
        let mut trainer = trainer(&options);
        trainer.set_ranks(Some(comm.clone()), rank_options.clone())?;
        work(trainer, comm)
    });
    ends.into_iter().map(Result::unwrap).collect()
}

fn small() -> RankOptions {
    RankOptions { bucket_bytes: 1000, ..RankOptions::default() }
}

fn check_equal(options: &optim::Options, what: &str) {
    let mut alone = trainer(options);
    let expected = steps(&mut alone, 0..8).unwrap();
    let expected = (expected, weights(&alone), alone.optimizer().learning_rates());
    let metrics = |trainer: &Trainer| trainer.optimizer().metrics_json().ok();
    for (n, ranks) in [(2, [0, 1, 0]), (3, [2, 0, 1]), (4, [1, 1, 3])] {
        let ends = on(n, ranks, options, &small(), |mut trainer, _| {
            let results = steps(&mut trainer, 0..8)?;
            trainer.gather_models()?;
            let rates = trainer.optimizer().learning_rates();
            Ok(((results, weights(&trainer), rates), metrics(&trainer)))
        });
        for (rank, (end, measured)) in ends.iter().enumerate() {
            let place = format!("{what}, rank {rank} of {n}");
            assert!(end.0 == expected.0, "{place}: {:?}\n{:?}", end.0, expected.0);
            assert!(end.2 == expected.2, "{place}: {:?}, {:?}", end.2, expected.2);
            assert!(end.1 == expected.1, "{place}: weights differ");
            assert_eq!(*measured, metrics(&alone), "{place}");
        }
    }
}

#[test]
fn the_default_preset_is_that_of_one_process() {
    check_equal(&options(), "the defaults");
}

#[test]
fn teachers_of_other_ranks_are_those_of_one_process() {
    for teacher in [Teacher::Peers, Teacher::Memory, Teacher::MeanTeacher] {
        let mutual = optim::Mutual { teacher, ..optim::Mutual::default() };
        check_equal(&optim::Options { mutual: Some(mutual), ..options() }, &format!("{teacher:?}"));
    }
    let frozen = optim::ParamGroup {
        model: "gpt2".into(),
        trainable: Some(false),
        ..optim::ParamGroup::default()
    };
    let mutual = optim::Mutual { teacher: Teacher::Peers, ..optim::Mutual::default() };
    let options = optim::Options { mutual: Some(mutual), ..options() };
    let mut all = options.clone();
    all.param_groups.push(frozen);
    check_equal(&all, "a frozen model");
    check_equal(&optim::Options { mutual: None, ..options }, "no teacher");
}

#[test]
fn every_way_to_share_is_that_of_one_process() {
    for share_rule in [ShareRule::Mean, ShareRule::Sum, ShareRule::Project, ShareRule::None] {
        check_equal(&optim::Options { share_rule, ..options() }, &format!("{share_rule:?}"));
    }
    for share_rule in [ShareRule::Gated, ShareRule::None] {
        let token_embeddings = TokenEmbeddings::Shared;
        let options = optim::Options { share_rule, token_embeddings, sync_every: 0, ..options() };
        check_equal(&options, &format!("rows of tokens and {share_rule:?}"));
    }
    let paper = optim::Options {
        share_policy: SharePolicy::Paper,
        share_every: 2,
        metrics_every: 2,
        non_finite: NonFinite::Ignore,
        max_grad_norm: 0.0,
        ..options()
    };
    check_equal(&paper, "paper");
}

#[test]
fn accumulation_clipping_and_metrics_are_those_of_one_process() {
    let accumulated = optim::Options {
        gradient_accumulation_steps: 2,
        gradient_accumulation: GradientAccumulation::WeightedMean,
        max_grad_norm: 0.05,
        metrics_every: 2,
        ..options()
    };
    check_equal(&accumulated, "accumulation");
    let values = optim::Options { max_grad_norm: 0.0, max_grad_value: 0.01, ..options() };
    check_equal(&values, "clipped values");
}

#[test]
fn other_methods_are_those_of_one_process() {
    check_equal(&optim::Options { method: optim::Method::Muon, ..options() }, "muon");
    check_equal(&optim::Options { moment_dtype: MomentDtype::BF16, ..options() }, "bf16 moments");
    let lion = optim::Options { method: optim::Method::Lion, ema_decay: Some(0.5), ..options() };
    check_equal(&lion, "lion");
}

#[test]
fn a_synchronisation_that_is_checked_is_that_of_one_process() {
    for limit in [0.0, 0.001, 10.0] {
        let options =
            optim::Options { max_loss_increase: Some(limit), sync_beta: 0.5, ..options() };
        check_equal(&options, &format!("at most {limit}"));
    }
}

/// What is done on the rank of gpt2 alone, and what one process makes of the same.
fn same_with(options: &optim::Options, disturb: impl Fn(&mut Trainer) + Sync) {
    let run = |trainer: &mut Trainer, own: bool| -> Result<_> {
        let mut told = Vec::new();
        for seed in 0..5 {
            pass(trainer, seed)?;
            if own && seed == 1 {
                disturb(trainer);
            }
            let step = trainer.step();
            let known = trainer.optimizer().skipped(1)?;
            told.push((step.map_err(|e| e.kind()).ok(), known));
            trainer.zero_grad();
        }
        Ok(told)
    };
    let mut alone = trainer(options);
    let expected = run(&mut alone, true).unwrap();
    let ends = on(2, [0, 1, 0], options, &small(), |mut trainer, comm| {
        let told = run(&mut trainer, comm.rank() == 1)?;
        trainer.gather_models()?;
        Ok((told, weights(&trainer)))
    });
    for (told, bits) in ends {
        assert_eq!(told, expected);
        assert!(bits == weights(&alone));
    }
}

fn set_gradient(trainer: &mut Trainer, value: f32) {
    trainer.set_gradient(1, "score.weight", bytemuck::bytes_of(&[value; 32])).unwrap();
}

#[test]
fn gradients_that_are_not_finite_or_too_large_skip_alike() {
    for value in [f32::NAN, f32::INFINITY, 1e17, 1e30] {
        for non_finite in [NonFinite::Skip, NonFinite::Fail] {
            let options = optim::Options { non_finite, max_grad_norm: 0.0, ..options() };
            same_with(&options, |trainer| set_gradient(trainer, value));
        }
    }
}

#[test]
fn what_a_callback_handles_takes_no_part_on_any_rank() {
    let handles = |trainer: &mut Trainer| {
        let handle = |g: optim::GradientView<'_>| match (g.model, g.name.contains("c_proj")) {
            (1, true) => Ok(optim::GradientAction::Handled),
            (1, false) => {
                let scaled = bytemuck::cast_slice_mut::<u8, f32>(g.gradient);
                scaled.iter_mut().for_each(|g| *g *= 2.0);
                Ok(optim::GradientAction::Use)
            }
            _ => Ok(optim::GradientAction::Use),
        };
        trainer.optimizer_mut().set_gradient_callback(Some(Box::new(handle)));
    };
    same_with(&options(), handles);
}

#[test]
fn weights_that_follow_validation_and_freezing_are_those_of_one_process() {
    let options = optim::Options { weighting: Weighting::Validation, ..options() };
    let run = |trainer: &mut Trainer| {
        steps(trainer, 0..2)?;
        trainer.optimizer_mut().report_validation(&[0.5, 0.9, 0.4])?;
        steps(trainer, 2..4)?;
        trainer.optimizer_mut().set_trainable("*", "*attn*", false)?;
        trainer.optimizer_mut().set_trainable("*", "*attention*", false)?;
        steps(trainer, 4..6)?;
        trainer.optimizer_mut().set_trainable("*", "*", true)?;
        steps(trainer, 6..8)
    };
    let mut alone = trainer(&options);
    let expected = run(&mut alone).unwrap();
    let ends = on(2, [1, 0, 1], &options, &small(), |mut trainer, _| {
        let results = run(&mut trainer)?;
        trainer.gather_models()?;
        Ok((results, weights(&trainer)))
    });
    for (results, bits) in ends {
        assert!(results == expected && bits == weights(&alone));
    }
}

#[test]
fn one_model_by_itself_passes_on_its_rank() {
    let options = optim::Options { mutual: None, ..options() };
    let run = |trainer: &mut Trainer| -> Result<_> {
        let mut losses = Vec::new();
        for seed in 0..6 {
            for model in 0..3 {
                if model == 2 && seed % 2 == 1 {
                    continue;
                }
                let example = Example::new(seed, model == 0);
                losses.push(trainer.forward_backward(model, &example.views())?.loss);
            }
            trainer.step()?;
        }
        Ok(losses)
    };
    let mut alone = trainer(&options);
    let expected = run(&mut alone).unwrap();
    let ends = on(2, [0, 1, 1], &options, &small(), |mut trainer, _| {
        let losses = run(&mut trainer)?;
        trainer.gather_models()?;
        Ok((losses, weights(&trainer)))
    });
    for (losses, bits) in ends {
        assert_eq!(losses, expected);
        assert!(bits == weights(&alone));
    }
}

/// Only what ranks need goes over the wire, and the plan tells how much.
#[test]
fn the_bytes_of_a_step_are_those_of_the_plan() {
    for (n, ranks, dtype) in [
        (2, [0, 1, 0], GradientDtype::F32),
        (2, [0, 1, 0], GradientDtype::Bf16),
        (3, [0, 1, 2], GradientDtype::F32),
    ] {
        let rank_options = RankOptions { gradient_dtype: dtype, ..RankOptions::default() };
        let options = optim::Options { sync_every: 4, ..options() };
        let ends = on(n, ranks, &options, &rank_options, |mut trainer, comm| {
            steps(&mut trainer, 0..1)?;
            let sent = || comm.with(|c| Ok(c.traffic().wire_bytes as f64));
            let before = sent()?;
            pass(&mut trainer, 1)?;
            let pass_bytes = sent()? - before;
            trainer.step()?;
            let step_bytes = sent()? - before - pass_bytes;
            steps(&mut trainer, 2..3)?;
            pass(&mut trainer, 3)?;
            let before_sync = sent()?;
            trainer.step()?;
            Ok((
                pass_bytes,
                step_bytes,
                sent()? - before_sync,
                trainer.plan_json(),
                trainer.plan_text(),
            ))
        });
        for (pass, step, with_sync, plan, text) in ends {
            let told = |name: &str| plan["ranks"][name].as_f64().unwrap();
            // 8 rows of 2 classes of each model.
            let predicted = told("pass_bytes") + 48.0 * told("probability_bytes");
            println!("{text}: {pass} {step} {with_sync}");
            let near = |found: f64, told: f64| found <= 1.01 * told && found >= 0.99 * told;
            assert!(near(pass, predicted), "{pass} {predicted}");
            assert!(near(step, told("step_bytes")), "{step} {}", told("step_bytes"));
            let both = told("step_bytes") + told("sync_bytes");
            assert!(near(with_sync, both), "{with_sync} {both}");
            assert_eq!(plan["ranks"]["placement"]["gpt2"], 1);
            assert!(text.contains("models on different ranks (bert 0, gpt2 1, roberta"), "{text}");
        }
    }
}

/// Rounding shared gradients changes little, and what is not shared not at all.
#[test]
fn gradients_in_bf16_come_close() {
    let mut alone = trainer(&options());
    let expected = steps(&mut alone, 0..8).unwrap();
    let rank_options = RankOptions { gradient_dtype: GradientDtype::Bf16, ..small() };
    let ends = on(2, [0, 1, 0], &options(), &rank_options, |mut trainer, _| {
        let results = steps(&mut trainer, 0..8)?;
        trainer.gather_models()?;
        Ok((results, weights(&trainer)))
    });
    for (results, bits) in &ends {
        assert!(*bits == ends[0].1 && *bits != weights(&alone));
        for (a, b) in results.iter().zip(&expected) {
            assert!((a.loss - b.loss).abs() < 1e-3, "{} {}", a.loss, b.loss);
        }
    }
}

#[test]
fn checkpoints_go_between_ranks_and_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let options = optim::Options { ema_decay: Some(0.9), ..options() };
    let mut alone = trainer(&options);
    steps(&mut alone, 0..4).unwrap();
    alone.checkpoint(&dir.path().join("alone"), "from one").unwrap();
    let rest = steps(&mut alone, 4..8).unwrap();
    let go_on = |trainer: &mut Trainer, from: &str| {
        let text = trainer.resume(&dir.path().join(from))?;
        let results = steps(trainer, 4..8)?;
        trainer.gather_models()?;
        Ok((text, results, weights(trainer)))
    };
    for (n, ranks) in [(2, [0, 1, 0]), (3, [1, 2, 1])] {
        for beside in [false, true] {
            let name = format!("ranks-{n}-{beside}");
            let ends = on(n, ranks, &options, &small(), |mut trainer, _| {
                steps(&mut trainer, 0..4)?;
                let root = dir.path().join(&name);
                if beside {
                    let keep = mmopt::checkpoint::writer::Keep::last(1);
                    trainer.checkpoint_beside(&root, "from ranks", keep)?;
                    steps(&mut trainer, 4..5)?;
                    trainer.wait_for_checkpoint()?;
                } else {
                    trainer.checkpoint(&root, "from ranks")?;
                }
                Ok(())
            });
            assert_eq!(ends.len(), n);
            let mut one = trainer(&options);
            let (text, results, bits) = go_on(&mut one, &name).unwrap();
            assert_eq!(text, "from ranks");
            assert!(results == rest && bits == weights(&alone), "{name}: to one process");
        }
        for from in ["alone", "ranks-2-false"] {
            let ends = on(n, ranks, &options, &small(), |mut trainer, _| go_on(&mut trainer, from));
            for (_, results, bits) in ends {
                assert!(results == rest && bits == weights(&alone), "from {from} to {n} ranks");
            }
        }
    }
}

#[test]
fn a_rank_has_moments_of_its_own_models_alone() {
    let ends = on(2, [0, 1, 0], &options(), &small(), |mut trainer, _| {
        steps(&mut trainer, 0..2)?;
        Ok(trainer.optimizer().state_tensors().iter().map(|t| t.name.clone()).collect::<Vec<_>>())
    });
    assert!(!ends[0].is_empty() && !ends[1].is_empty());
    assert!(ends[0].iter().all(|name| !name.starts_with("gpt2/")));
    assert!(ends[1].iter().all(|name| name.starts_with("gpt2/")));
}

#[test]
fn a_failure_on_one_rank_is_told_on_all_and_changes_nothing() {
    let mut alone = trainer(&options());
    let expected = steps(&mut alone, 0..3).unwrap();
    let ends = on(2, [0, 1, 0], &options(), &small(), |mut trainer, comm| {
        let mut results = steps(&mut trainer, 0..1)?;
        // Before the predictions, between these and the passes' end, in a step, in a checkpoint.
        let one = comm.rank() == 1;
        let bad = if one {
            trainer.forward_backward_all(&[&[], &[], &[]])
        } else {
            pass(&mut trainer, 1)
        };
        let mut told = vec![bad.map(drop).unwrap_err()];
        let token = trainer.cancel_token();
        if one {
            token.cancel();
        }
        told.push(pass(&mut trainer, 1).map(drop).unwrap_err());
        token.reset()?;
        results.extend(pass(&mut trainer, 1)?);
        if one {
            let stop = |_: optim::GradientView<'_>| Err(mmopt::Error::new(Kind::Cancelled, "no"));
            trainer.optimizer_mut().set_gradient_callback(Some(Box::new(stop)));
        }
        told.push(trainer.step().map(drop).unwrap_err());
        trainer.optimizer_mut().set_gradient_callback(None);
        trainer
            .optimizer_mut()
            .set_rate_callback(Some(Box::new(move |_, _, rate| if one { f64::NAN } else { rate })));
        told.push(trainer.step().map(drop).unwrap_err());
        trainer.optimizer_mut().set_rate_callback(None);
        if one {
            trainer.use_ema_weights(true)?;
        }
        told.push(trainer.gather_models().unwrap_err());
        told.push(trainer.checkpoint(std::path::Path::new("/nowhere"), "").map(drop).unwrap_err());
        trainer.use_ema_weights(false)?;
        trainer.step()?;
        told.push(trainer.checkpoint(std::path::Path::new("/proc/no"), "").map(drop).unwrap_err());
        results.extend(steps(&mut trainer, 2..3)?);
        trainer.gather_models()?;
        let kinds: Vec<Kind> = told.iter().map(mmopt::Error::kind).collect();
        let texts: Vec<String> = told.iter().map(|e| e.message().to_owned()).collect();
        Ok((results, weights(&trainer), kinds, texts))
    });
    for (results, bits, ..) in &ends {
        assert!(*results == expected && *bits == weights(&alone));
    }
    let (zero, one) = (&ends[0], &ends[1]);
    for i in 0..6 {
        assert_eq!(
            zero.2[i],
            if i == 5 { zero.2[5] } else { Kind::Cancelled },
            "{i}: {:?}",
            zero.3
        );
        assert!(i == 5 || zero.3[i].contains("rank 1 failed in this call"), "{i}: {:?}", zero.3);
    }
    assert_ne!(one.2[0], Kind::Cancelled);
    assert!(one.3[2].contains("no"), "{:?}", one.3);
    assert_eq!(one.2[6], Kind::Cancelled, "{:?}", one.3);
}

/// Rank 1 fails after the predictions were exchanged, when it compares examples.
#[test]
fn a_failure_within_a_pass_is_told_on_all() {
    let mutual = optim::Mutual { teacher: Teacher::Peers, ..optim::Mutual::default() };
    let options = optim::Options { mutual: Some(mutual), ..options() };
    let ends = on(2, [0, 1, 0], &options, &small(), |mut trainer, comm| {
        let mut examples = NAMES.map(|name| Example::new(1, name == "bert"));
        for (i, example) in examples.iter_mut().enumerate() {
            let first = if i == 1 && comm.rank() == 1 { 100 } else { 0 };
            let ids: Vec<i64> = (first..first + 8).collect();
            let ids = mmopt::tensor::Tensor::from_slice(&[8], &ids).unwrap();
            example.tensors.push(("example_ids", ids));
        }
        let views: Vec<_> = examples.iter().map(Example::views).collect();
        let batches: Vec<_> = views.iter().map(Vec::as_slice).collect();
        let kind = trainer.forward_backward_all(&batches).unwrap_err().kind();
        steps(&mut trainer, 0..1)?;
        Ok(kind)
    });
    assert_eq!(ends, [Kind::Cancelled, Kind::Shape]);
}

#[test]
fn ranks_must_read_the_same_batches() {
    let ends = on(2, [0, 1, 0], &options(), &small(), |mut trainer, comm| {
        let before = weights(&trainer);
        let e = pass(&mut trainer, 4 * comm.rank() as u64).unwrap_err();
        assert!(weights(&trainer) == before);
        pass(&mut trainer, 1)?;
        trainer.step()?;
        Ok((e.kind(), e.message().to_owned()))
    });
    for (kind, text) in ends {
        assert!(
            kind == Kind::State && text.contains("model 'bert': ranks have different"),
            "{text}"
        );
    }
}

#[test]
fn weights_of_other_ranks_are_refused_until_they_are_gathered() {
    let ends = on(2, [0, 1, 0], &options(), &small(), |mut trainer, comm| {
        let own = comm.rank();
        let other = 1 - own;
        let example = Example::new(9, other == 0);
        trainer.evaluate(other, &example.views())?;
        steps(&mut trainer, 0..1)?;
        let dir = tempfile::tempdir().unwrap();
        let name = trainer.parameters(other)?.next().unwrap().name.to_owned();
        let told = [
            trainer.evaluate(other, &example.views()).map(drop),
            trainer.parameter(other, &name).map(drop),
            trainer.share_parameter(other, &name).map(drop),
            trainer.save_model(other, dir.path()),
            trainer.save_onnx(other, &dir.path().join("x.onnx")),
            trainer.set_ranks(None, RankOptions::default()),
        ];
        let e = trainer.set_gradient(other, &name, &[]).unwrap_err();
        assert!(e.kind() == Kind::State && e.message().contains("runs on rank"), "{e}");
        assert!(trainer.gradient(other, &name)?.is_none());
        trainer.evaluate(own, &Example::new(9, own == 0).views())?;
        for e in told.map(Result::unwrap_err) {
            assert_eq!(e.kind(), Kind::State, "{e}");
        }
        trainer.gather_models()?;
        let one = trainer.evaluate(other, &example.views())?.loss;
        let mine = trainer.evaluate(own, &Example::new(9, own == 0).views())?.loss;
        steps(&mut trainer, 1..2)?;
        assert!(trainer.parameter(other, &name).is_err());
        Ok((one, mine))
    });
    assert_eq!((ends[0].0, ends[0].1), (ends[1].1, ends[1].0));
}

#[test]
fn what_cannot_be_placed_is_refused() {
    let check = |options: optim::Options, rank_options: RankOptions, kind: Kind, part: &str| {
        let ends = on_ranks(group(2), |comm| {
            trainer(&options).set_ranks(Some(comm), rank_options.clone())
        });
        for end in ends {
            let e = end.unwrap_err();
            assert!(e.kind() == kind && e.message().contains(part), "{e}");
        }
    };
    let map = |list: &[(&str, usize)]| {
        let placement = list.iter().map(|(name, rank)| ((*name).to_owned(), *rank)).collect();
        optim::Options { placement: Some(placement), ..options() }
    };
    let plain = RankOptions::default;
    let missing = map(&[("bert", 0), ("gpt2", 1)]);
    check(missing, plain(), Kind::InvalidArgument, "does not name the model 'roberta'");
    let more = map(&[("bert", 0), ("gpt2", 1), ("roberta", 0), ("t5", 0)]);
    check(more, plain(), Kind::NotFound, "no model 't5'");
    let far = map(&[("bert", 0), ("gpt2", 2), ("roberta", 0)]);
    check(far, plain(), Kind::InvalidArgument, "placement.gpt2 is rank 2 of 2");
    let good = placed(&options(), [0, 1, 0]);
    let local = RankOptions { local: Some(LocalSteps::default()), ..plain() };
    let no_means = optim::Options { mutual: None, ..good.clone() };
    check(no_means, local, Kind::Unsupported, "local steps");
    let sharded = RankOptions { shard_state: true, ..plain() };
    check(good.clone(), sharded, Kind::Unsupported, "shard_state");
    let mutual = Some(optim::Mutual::default());
    let before = optim::Options { mutual, ..good.clone() };
    check(before, plain(), Kind::Unsupported, "peers_before");
    // By itself, and on one rank, the option has no effect.
    let mut alone = trainer(&good);
    steps(&mut alone, 0..1).unwrap();
    let first = placed(&options(), [0, 0, 0]);
    let mut one = trainer(&first);
    one.set_ranks(Some(group(1).remove(0)), plain()).unwrap();
    steps(&mut one, 0..1).unwrap();
    assert!(weights(&one) == weights(&alone));
}
