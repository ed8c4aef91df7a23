//! Groups of ranks, each with all models on different ranks, which are threads here: they train as
//! replicas do that have all models each.

use mmopt::comm::SharedCommunicator;
use mmopt::comm::local::on_ranks;
use mmopt::optim::{GradientAccumulation, Method, Teacher};
use mmopt::tensor::Tensor;
use mmopt::train::{GradientDtype, RankOptions, TensorView, TrainResult, Trainer};
use mmopt::{Kind, Result, optim};

use crate::placed::{NAMES, options, placed, trainer};
use crate::ranks::{Part, group, steps_of};
use crate::trainer::{Example, weights};

/// This rank: its communicator, and that of the ranks with the same models.
#[derive(Clone)]
struct Place {
    group: SharedCommunicator,
    replicas: SharedCommunicator,
}

/// A pass over a group's part of a batch, of which some rows have no label where no model teaches.
fn pass(trainer: &mut Trainer, seed: u64, part: (usize, usize)) -> Result<Vec<TrainResult>> {
    let ignores = trainer.optimizer().options().mutual.is_none();
    let mut parts = NAMES.map(|name| Part::new(seed, name == "bert", ignores, part));
    for one in &mut parts {
        let n = one.tensors[0].1.shape()[0];
        let ids: Vec<i64> = (0..n).map(|i| (seed % 4 * 8) as i64 + i as i64).collect();
        one.tensors.push(("example_ids", Tensor::from_slice(&[n], &ids).unwrap()));
    }
    let views: Vec<Vec<TensorView<'_>>> = parts.iter().map(Part::views).collect();
    trainer.forward_backward_all(&views.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn steps(
    trainer: &mut Trainer,
    range: std::ops::Range<u64>,
    part: (usize, usize),
) -> Result<Vec<TrainResult>> {
    steps_of(trainer, range, |trainer, seed| pass(trainer, seed, part))
}

/// The places of `groups` groups of `n` ranks, group by group.
fn places(groups: usize, n: usize) -> Vec<Place> {
    let columns: Vec<Vec<SharedCommunicator>> = (0..n).map(|_| group(groups)).collect();
    let of_group = |g: usize| {
        let ranks = group(n).into_iter().zip(&columns);
        ranks.map(move |(group, column)| Place { group, replicas: column[g].clone() })
    };
    (0..groups).flat_map(|g| of_group(g).collect::<Vec<_>>()).collect()
}

fn join(trainer: &mut Trainer, place: &Place, options: &RankOptions) -> Result<()> {
    let Place { group, replicas } = place.clone();
    trainer.set_groups(Some(group), Some(replicas), options.clone())
}

/// Runs a trainer on each rank of two groups, with the models on `ranks`.
fn on<R: Send>(
    ranks: [usize; 3],
    options: &optim::Options,
    rank_options: &RankOptions,
    work: impl Fn(Trainer, &Place) -> Result<R> + Sync,
) -> Vec<R> {
    on_groups(2, ranks, options, rank_options, work)
}

fn on_groups<R: Send>(
    groups: usize,
    ranks: [usize; 3],
    options: &optim::Options,
    rank_options: &RankOptions,
    work: impl Fn(Trainer, &Place) -> Result<R> + Sync,
) -> Vec<R> {
    let n = ranks.iter().max().unwrap() + 1;
    let options = placed(options, ranks);
    let ends = on_ranks(places(groups, n), |place| {
        let mut trainer = trainer(&options);
        join(&mut trainer, &place, rank_options)?;
        work(trainer, &place)
    });
    ends.into_iter().map(Result::unwrap).collect()
}

/// The same on replicas that have all models.
fn on_replicas<R: Send>(
    n: usize,
    options: &optim::Options,
    rank_options: &RankOptions,
    work: impl Fn(Trainer, (usize, usize)) -> Result<R> + Sync,
) -> Vec<R> {
    let ends = on_ranks(group(n), |comm| {
        let part = (comm.rank(), n);
        let mut trainer = trainer(options);
        trainer.set_ranks(Some(comm), rank_options.clone())?;
        work(trainer, part)
    });
    ends.into_iter().map(Result::unwrap).collect()
}

fn part_of(place: &Place) -> (usize, usize) {
    (place.replicas.rank(), place.replicas.size())
}

/// Small buckets, and weights that are compared before every step.
fn small() -> RankOptions {
    RankOptions { bucket_bytes: 1000, check_every: 1, ..RankOptions::default() }
}

fn check_equal(options: &optim::Options, what: &str) {
    let metrics = |trainer: &Trainer| trainer.optimizer().metrics_json().ok();
    for (groups, ranks) in [(2, [0, 1, 0]), (2, [2, 0, 1]), (3, [1, 0, 0])] {
        let expected = on_replicas(groups, options, &small(), |mut trainer, part| {
            let results = steps(&mut trainer, 0..6, part)?;
            let rates = trainer.optimizer().learning_rates();
            Ok((results, rates, weights(&trainer), metrics(&trainer)))
        });
        let ends = on_groups(groups, ranks, options, &small(), |mut trainer, place| {
            let results = steps(&mut trainer, 0..6, part_of(place))?;
            trainer.gather_models()?;
            let rates = trainer.optimizer().learning_rates();
            Ok((results, rates, weights(&trainer), metrics(&trainer)))
        });
        for (i, end) in ends.iter().enumerate() {
            let place = format!("{what}, rank {i} of {}", ends.len());
            assert!(end.0 == expected[0].0, "{place}: {:?}\n{:?}", end.0, expected[0].0);
            assert!(end.1 == expected[0].1, "{place}: rates");
            assert!(end.2 == expected[0].2, "{place}: weights");
            assert_eq!(end.3, expected[0].3, "{place}");
        }
    }
}

#[test]
fn groups_train_as_replicas_do() {
    check_equal(&options(), "the defaults");
    check_equal(&optim::Options { mutual: None, ..options() }, "labels that are missing");
}

#[test]
fn teachers_accumulation_and_checked_synchronisation_are_those_of_replicas() {
    for teacher in [Teacher::Peers, Teacher::Memory, Teacher::MeanTeacher] {
        let mutual = optim::Mutual { teacher, ..optim::Mutual::default() };
        check_equal(&optim::Options { mutual: Some(mutual), ..options() }, &format!("{teacher:?}"));
    }
    let accumulated = optim::Options {
        gradient_accumulation_steps: 2,
        gradient_accumulation: GradientAccumulation::WeightedMean,
        max_grad_norm: 0.05,
        metrics_every: 2,
        mutual: None,
        ..options()
    };
    check_equal(&accumulated, "accumulation");
    let checked = optim::Options { max_loss_increase: Some(0.001), sync_beta: 0.5, ..options() };
    check_equal(&checked, "a checked synchronisation");
    check_equal(&optim::Options { method: Method::Muon, ..options() }, "muon");
}

#[test]
fn a_model_by_itself_passes_in_each_group() {
    let options = optim::Options { mutual: None, ..options() };
    let run = |trainer: &mut Trainer, part: (usize, usize)| -> Result<_> {
        let mut losses = Vec::new();
        for seed in 0..4 {
            for (model, name) in NAMES.iter().enumerate() {
                if model == 2 && seed % 2 == 1 {
                    continue;
                }
                let one = Part::new(seed, *name == "bert", true, part);
                losses.push(trainer.forward_backward(model, &one.views())?);
            }
            trainer.step()?;
        }
        Ok(losses)
    };
    let expected = on_replicas(2, &options, &small(), |mut trainer, part| {
        Ok((run(&mut trainer, part)?, weights(&trainer)))
    });
    let ends = on([0, 1, 1], &options, &small(), |mut trainer, place| {
        let losses = run(&mut trainer, part_of(place))?;
        trainer.gather_models()?;
        Ok((losses, weights(&trainer)))
    });
    assert!(ends.iter().all(|end| *end == expected[0]));
}

/// Ranks begin with the weights of the first, whatever they had.
#[test]
fn all_begin_with_the_weights_of_the_first_rank() {
    let options = placed(&options(), [0, 1, 0]);
    let first = weights(&trainer(&options));
    let ends = on_ranks(places(2, 2), |place| {
        let mut trainer = trainer(&options);
        let (group, rank) = (place.replicas.rank(), place.group.rank());
        if group + rank > 0 {
            let value = vec![(group * 2 + rank) as f32; 32];
            trainer.set_parameter(1, "score.weight", bytemuck::cast_slice(&value))?;
        }
        join(&mut trainer, &place, &small())?;
        Ok(weights(&trainer))
    });
    assert!(ends.into_iter().all(|end| end.unwrap() == first));
}

#[test]
fn checkpoints_go_between_groups_replicas_and_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let options = optim::Options { ema_decay: Some(0.9), ..options() };
    let path = dir.path().join("groups");
    let whole = on([0, 1, 0], &options, &small(), |mut trainer, place| {
        steps(&mut trainer, 0..3, part_of(place))?;
        trainer.checkpoint(&path, "from groups")?;
        let rest = steps(&mut trainer, 3..6, part_of(place))?;
        trainer.gather_models()?;
        Ok((rest, weights(&trainer)))
    });
    let again = on([1, 0, 1], &options, &small(), |mut trainer, place| {
        assert_eq!(trainer.resume(&path)?, "from groups");
        let rest = steps(&mut trainer, 3..6, part_of(place))?;
        trainer.gather_models()?;
        Ok((rest, weights(&trainer)))
    });
    let replicas = on_replicas(2, &options, &small(), |mut trainer, part| {
        trainer.resume(&path)?;
        Ok((steps(&mut trainer, 3..6, part)?, weights(&trainer)))
    });
    for end in whole.iter().chain(&again).chain(&replicas) {
        assert!(*end == whole[0]);
    }
    let mut alone = trainer(&options);
    assert_eq!(alone.resume(&path).unwrap(), "from groups");
    assert_eq!(alone.optimizer().step_count(), 3);
}

#[test]
fn a_failure_in_one_group_is_told_in_all() {
    let expected = on([0, 1, 0], &options(), &small(), |mut trainer, place| {
        steps(&mut trainer, 0..2, part_of(place))?;
        trainer.gather_models()?;
        Ok(weights(&trainer))
    });
    let ends = on([0, 1, 0], &options(), &small(), |mut trainer, place| {
        let one = (place.replicas.rank(), place.group.rank()) == (1, 1);
        steps(&mut trainer, 0..1, part_of(place))?;
        let mut told = Vec::new();
        let bad = match one {
            true => trainer.forward_backward_all(&[&[], &[], &[]]),
            false => pass(&mut trainer, 1, part_of(place)),
        };
        told.push(bad.map(drop).unwrap_err());
        pass(&mut trainer, 1, part_of(place))?;
        if one {
            let stop = |_: optim::GradientView<'_>| Err(mmopt::Error::new(Kind::Cancelled, "no"));
            trainer.optimizer_mut().set_gradient_callback(Some(Box::new(stop)));
        }
        told.push(trainer.step().map(drop).unwrap_err());
        trainer.optimizer_mut().set_gradient_callback(None);
        // Gradients are sums already.
        trainer.step()?;
        trainer.gather_models()?;
        let texts: Vec<String> = told.iter().map(|e| e.message().to_owned()).collect();
        Ok((one, texts, weights(&trainer)))
    });
    for (i, (one, texts, bits)) in ends.iter().enumerate() {
        assert!(*bits == expected[0], "rank {i}");
        let says = |text: &String| text.contains("rank 1 of group 1 failed in this call");
        assert!(texts.iter().all(|text| says(text) != *one), "{texts:?}");
    }
}

#[test]
fn groups_that_differ_are_found() {
    let ends = on([0, 1, 0], &options(), &small(), |mut trainer, place| {
        steps(&mut trainer, 0..1, part_of(place))?;
        if (place.replicas.rank(), place.group.rank()) == (1, 1) {
            trainer.set_parameter(1, "score.weight", bytemuck::cast_slice(&[0.5f32; 32]))?;
        }
        pass(&mut trainer, 1, part_of(place))?;
        let e = trainer.step().unwrap_err();
        Ok((e.kind(), e.message().to_owned()))
    });
    for (i, (kind, text)) in ends.iter().enumerate() {
        let found = i % 2 == 1;
        assert_eq!(*kind, if found { Kind::State } else { Kind::Cancelled }, "{text}");
        assert_eq!(
            text.contains("model 'gpt2', parameter 'score.weight': rank 1"),
            found,
            "{text}"
        );
    }
    let ends = on([0, 1, 0], &options(), &small(), |mut trainer, place| {
        let seed = u64::from((place.replicas.rank(), place.group.rank()) == (1, 1));
        let e = pass(&mut trainer, seed, part_of(place)).unwrap_err();
        Ok((e.kind(), e.message().to_owned()))
    });
    assert!(ends.iter().all(|(_, text)| text.contains("ranks have different batches")));
}

/// The plan tells what both communicators send.
#[test]
fn the_bytes_of_a_step_are_those_of_the_plan() {
    for (dtype, ranks) in [(GradientDtype::F32, [0, 1, 0]), (GradientDtype::Bf16, [0, 1, 2])] {
        let rank_options = RankOptions { gradient_dtype: dtype, ..RankOptions::default() };
        let options = optim::Options { sync_every: 4, ..options() };
        let ends = on(ranks, &options, &rank_options, |mut trainer, place| {
            let part = part_of(place);
            steps(&mut trainer, 0..1, part)?;
            let one = |c: &SharedCommunicator| c.with(|c| Ok(c.traffic().wire_bytes as f64));
            let sent = || Ok::<f64, mmopt::Error>(one(&place.group)? + one(&place.replicas)?);
            let before = sent()?;
            pass(&mut trainer, 1, part)?;
            let pass_bytes = sent()? - before;
            trainer.step()?;
            let step_bytes = sent()? - before - pass_bytes;
            Ok((pass_bytes, step_bytes, trainer.plan_json(), trainer.plan_text()))
        });
        let told = |name: &str| ends[0].2["ranks"][name].as_f64().unwrap();
        // 4 rows of 2 classes of each model.
        let predicted = told("pass_bytes") + 24.0 * told("probability_bytes");
        let n = ends.len() as f64;
        let pass = ends.iter().map(|end| end.0).sum::<f64>() / n;
        let step = ends.iter().map(|end| end.1).sum::<f64>() / n;
        let near = |found: f64, told: f64| (found / told - 1.0).abs() <= 0.01;
        assert!(near(pass, predicted), "{pass} {predicted}");
        assert!(near(step, told("step_bytes")), "{step} {}", told("step_bytes"));
        let size = ranks.iter().max().unwrap() + 1;
        let text = format!("of {size}, group 1 of 2, models on different ranks");
        assert!(ends[size].3.contains(&text), "{}", ends[size].3);
        assert_eq!(ends[size].2["ranks"]["n_groups"], 2);
    }
}

#[test]
fn gradients_in_bf16_come_close() {
    let rank_options = RankOptions { gradient_dtype: GradientDtype::Bf16, ..small() };
    let run = |rank_options: &RankOptions| {
        on([0, 1, 0], &options(), rank_options, |mut trainer, place| {
            let results = steps(&mut trainer, 0..6, part_of(place))?;
            trainer.gather_models()?;
            Ok((results, weights(&trainer)))
        })
    };
    let (exact, rounded) = (run(&small()), run(&rank_options));
    for (results, bits) in &rounded {
        assert!(*bits == rounded[0].1 && *bits != exact[0].1);
        for (a, b) in results.iter().zip(&exact[0].0) {
            assert!((a.loss - b.loss).abs() < 1e-3, "{} {}", a.loss, b.loss);
        }
    }
}

#[test]
fn groups_that_do_not_fit_are_refused() {
    let good = placed(&options(), [0, 1, 0]);
    let refused = |places: Vec<Place>, options: &optim::Options, part: &str| {
        let ends = on_ranks(places, |place| {
            let mut trainer = trainer(options);
            let e = join(&mut trainer, &place, &small()).unwrap_err();
            // It trains on by itself.
            pass(&mut trainer, 0, (0, 1))?;
            trainer.step()?;
            Ok(e)
        });
        let errors: Vec<_> = ends.into_iter().map(Result::unwrap).collect();
        let says =
            |e: &mmopt::Error| e.kind() == Kind::InvalidArgument && e.message().contains(part);
        assert!(errors.iter().any(says), "{errors:?}");
        assert!(errors.iter().all(|e| says(e) || e.kind() == Kind::Cancelled), "{errors:?}");
    };
    refused(places(2, 2), &options(), "without a placement");
    // Ranks of one group are of two.
    let mut crossed = places(2, 2);
    let other = crossed[3].replicas.clone();
    crossed[3].replicas = std::mem::replace(&mut crossed[1].replicas, other);
    refused(crossed, &good, "different numbers there");
    // Rank 0 of one group beside rank 1 of the other.
    let mut crossed = places(2, 2);
    let other = crossed[3].replicas.clone();
    crossed[3].replicas = std::mem::replace(&mut crossed[2].replicas, other);
    refused(crossed, &good, "different numbers in their groups");
    // Another model on one rank.
    let ends = on_ranks(places(2, 2), |place| {
        let differs = (place.replicas.rank(), place.group.rank()) == (1, 0);
        let learning_rate = if differs { 1e-4 } else { 1e-3 };
        let mut trainer = trainer(&optim::Options { learning_rate, ..good.clone() });
        Ok(join(&mut trainer, &place, &small()).unwrap_err().kind())
    });
    let kinds: Vec<Kind> = ends.into_iter().map(Result::unwrap).collect();
    let other = Kind::InvalidArgument;
    assert_eq!(kinds, [other, Kind::Cancelled, other, other]);
    let alone = trainer(&good).set_groups(None, Some(group(1).remove(0)), small()).unwrap_err();
    assert!(alone.message().contains("replicas without a communicator"), "{alone}");
    // Nothing of it is left over.
    let example = Example::new(9, true);
    trainer(&good).evaluate(0, &example.views()).unwrap();
}
