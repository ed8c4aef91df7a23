//! The result depends on neither threads, kernel build, nor the order of adding models; a
//! resumed training continues with the same bits; a bad gradient stays where it is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::small_optimizer::{bits, give_gradients, models, optimizer};
use mmopt::Kind;
use mmopt::optim::{
    GradientAccumulation, InstructionSet, LrSchedule, MomentDtype, NonFinite, Optimizer, Options,
    SharePolicy, ShareRule, TokenEmbeddings,
};
use mmopt::tensor::DType;

/// Configurations that between them take every path through the sweep.
fn configurations() -> Vec<Options> {
    let base = Options {
        learning_rate: 1e-2,
        lr_schedule: LrSchedule::Cosine,
        warmup_steps: 2,
        total_steps: 9,
        min_lr_ratio: 0.1,
        share_rule: ShareRule::Gated,
        ..Options::default()
    };
    vec![
        Options { sync_every: 2, ..base.clone() },
        Options { share_rule: ShareRule::Mean, sync_every: 3, ..base.clone() },
        Options {
            share_rule: ShareRule::Project,
            max_grad_norm: 0.0,
            max_grad_value: 5e-3,
            ..base.clone()
        },
        Options { amsgrad: true, sync_every: 2, max_grad_norm: 0.1, ..Options::paper() },
        Options { moment_dtype: MomentDtype::BF16, share_rule: ShareRule::Mean, ..base.clone() },
        Options {
            gradient_accumulation_steps: 2,
            gradient_accumulation: GradientAccumulation::Mean,
            ..base.clone()
        },
        Options {
            token_embeddings: TokenEmbeddings::Shared,
            token_alpha: 0.75,
            gradient_accumulation_steps: 2,
            max_grad_norm: 0.0,
            max_grad_value: 5e-3,
            sync_every: 2,
            ..base.clone()
        },
        Options {
            token_embeddings: TokenEmbeddings::Shared,
            share_rule: ShareRule::None,
            moment_dtype: MomentDtype::BF16,
            ..base
        },
    ]
}

/// Runs `steps` and gives every model's bits, by name.
fn run(options: Options, turn: usize, steps: u64) -> Vec<(String, Vec<u32>)> {
    let mut specs = models();
    specs.rotate_left(turn);
    let weights = [("bert", 1.0), ("gpt2", 0.8), ("roberta", 1.2)];
    for spec in &mut specs {
        spec.weight = weights.iter().find(|w| w.0 == spec.name).unwrap().1;
    }
    let mut o = optimizer(options, &specs);
    for step in 1..=steps {
        micro_batches(&mut o, &specs, step);
        o.step().unwrap();
    }
    let mut all: Vec<_> =
        specs.iter().enumerate().map(|(m, s)| (s.name.clone(), bits(&o, m, s))).collect();
    all.sort();
    all
}

fn checksum(models: &[(String, Vec<u32>)]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    models.iter().flat_map(|m| &m.1).for_each(|x| sum.update(&x.to_le_bytes()));
    sum.finalize()
}

fn micro_batches(o: &mut Optimizer, specs: &[mmopt::optim::ModelSpec], step: u64) {
    for micro in 0..u64::from(o.options().gradient_accumulation_steps) {
        give_gradients(o, specs, 100 * step + micro);
        for m in 0..specs.len() {
            o.accumulate(m, 1.0 / step as f64).unwrap();
        }
    }
}

#[test]
fn same_bits_for_any_threads_builds_and_orders() {
    for (i, options) in configurations().into_iter().enumerate() {
        let base = run(Options { n_threads: 1, ..options.clone() }, 0, 6);
        // To be compared between machines.
        println!("bits of configuration {i}: {:08x}", checksum(&base));
        for threads in [2, 3, 8] {
            assert!(
                run(Options { n_threads: threads, ..options.clone() }, 0, 6) == base,
                "{threads} threads"
            );
        }
        for turn in [1, 2] {
            assert!(
                run(Options { n_threads: 2, ..options.clone() }, turn, 6) == base,
                "order {turn}"
            );
        }
        for isa in [InstructionSet::Portable, InstructionSet::Avx2, InstructionSet::Avx512] {
            let options = Options { instruction_set: isa, n_threads: 2, ..options.clone() };
            match Optimizer::new(options.clone(), Vec::new()) {
                Ok(_) => assert!(run(options, 0, 6) == base, "{isa:?}"),
                Err(e) => println!("not run: {e}"),
            }
        }
    }
}

#[test]
fn a_resumed_training_continues_with_the_same_bits() {
    let specs = models();
    for options in configurations() {
        let whole = run(options.clone(), 0, 7);
        let weights = [1.0, 0.8, 1.2];
        let start = || {
            let mut specs = specs.clone();
            specs.iter_mut().zip(weights).for_each(|(s, w)| s.weight = w);
            optimizer(options.clone(), &specs)
        };
        let mut first = start();
        for step in 1..=4 {
            micro_batches(&mut first, &specs, step);
            first.step().unwrap();
        }
        let json = serde_json::to_string(&first.state_json().unwrap()).unwrap();
        let saved: Vec<_> = first
            .state_tensors()
            .into_iter()
            .map(|t| (t.name, t.dtype, t.shape.to_vec(), t.bytes.to_vec()))
            .collect();
        let mut second = start();
        for (m, spec) in specs.iter().enumerate() {
            for p in 0..spec.params.len() {
                let values = first.values(m, p).unwrap().to_vec();
                second.values_mut(m, p).unwrap().copy_from_slice(&values);
            }
        }
        let find = |name: &str| {
            let found = saved.iter().find(|t| t.0 == name)?;
            Some((found.1, found.2.as_slice(), found.3.as_slice()))
        };
        second.load_state(&serde_json::from_str(&json).unwrap(), &find).unwrap();
        for step in 5..=7 {
            micro_batches(&mut second, &specs, step);
            second.step().unwrap();
        }
        for (m, spec) in specs.iter().enumerate() {
            let want = &whole.iter().find(|w| w.0 == spec.name).unwrap().1;
            assert!(bits(&second, m, spec) == *want, "{}: {options:?}", spec.name);
        }
        let none = |_: &str| None;
        let error = second.load_state(&serde_json::from_str(&json).unwrap(), &none).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidData);
    }
}

#[test]
fn a_bad_gradient_skips_its_model_only() {
    let specs = models();
    for rule in [ShareRule::Mean, ShareRule::Gated, ShareRule::Project, ShareRule::None] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let options = Options { share_rule: rule, sync_every: 1, ..Options::default() };
            let mut o = optimizer(options, &specs);
            give_gradients(&mut o, &specs, 1);
            o.step().unwrap();
            let before: Vec<_> = (0..3).map(|m| bits(&o, m, &specs[m])).collect();
            give_gradients(&mut o, &specs, 2);
            let query = specs[1].params.iter().position(|p| p.name.ends_with("c_attn.weight"));
            let gradient = o.gradient_mut(1, query.unwrap()).unwrap();
            gradient.as_mut_slice::<f32>().unwrap()[77] = bad;
            let report = o.step().unwrap();
            assert_eq!((report.updated, report.skipped), (2, 1));
            assert_eq!(o.skipped(1).unwrap(), (true, 1));
            assert_eq!(o.skipped(0).unwrap(), (false, 0));
            for m in 0..3 {
                let after = bits(&o, m, &specs[m]);
                assert_eq!(after == before[m], m == 1, "model {m}");
                assert!(after.iter().all(|&b| f32::from_bits(b).is_finite()));
            }
            give_gradients(&mut o, &specs, 3);
            assert_eq!(o.step().unwrap().skipped, 0);
        }
    }
}

#[test]
fn a_bad_loss_skips_and_fail_changes_nothing() {
    let specs = models();
    let mut o = optimizer(Options::default(), &specs);
    give_gradients(&mut o, &specs, 1);
    o.log_loss(2, f64::NAN).unwrap();
    assert_eq!(o.step().unwrap().skipped, 1);
    assert_eq!(o.skipped(2).unwrap(), (true, 1));

    let mut o = optimizer(Options { non_finite: NonFinite::Fail, ..Options::default() }, &specs);
    give_gradients(&mut o, &specs, 1);
    o.gradient_mut(0, 0).unwrap().as_mut_slice::<f32>().unwrap()[0] = f32::NAN;
    let before: Vec<_> = (0..3).map(|m| bits(&o, m, &specs[m])).collect();
    let error = o.step().unwrap_err();
    assert_eq!(error.kind(), Kind::NonFinite);
    assert!(error.to_string().contains("'bert'"), "{error}");
    assert!((0..3).all(|m| bits(&o, m, &specs[m]) == before[m]));
    assert_eq!(o.step_count(), 0);
}

#[test]
fn narrow_gradients_equal_their_f32_values() {
    let specs = models();
    for dtype in [DType::BF16, DType::F16] {
        let options =
            Options { max_grad_norm: 0.05, share_rule: ShareRule::Mean, ..Options::default() };
        let mut narrow = optimizer(options.clone(), &specs);
        let mut wide = optimizer(options, &specs);
        #[allow(clippy::needless_range_loop)] // m names the model too
        for m in 0..3 {
            let values: Vec<Vec<f32>> =
                (0..specs[m].params.len()).map(|p| wide.values(m, p).unwrap().to_vec()).collect();
            narrow.bind_owned(m, dtype).unwrap();
            for (p, v) in values.iter().enumerate() {
                narrow.values_mut(m, p).unwrap().copy_from_slice(v);
            }
        }
        give_gradients(&mut wide, &specs, 1);
        for (m, spec) in specs.iter().enumerate() {
            for p in 0..spec.params.len() {
                let wide = wide.gradient_mut(m, p).unwrap().as_mut_slice::<f32>().unwrap();
                let narrow = narrow.gradient_mut(m, p).unwrap();
                if dtype == DType::BF16 {
                    let narrow = narrow.as_mut_slice::<half::bf16>().unwrap();
                    for (n, w) in narrow.iter_mut().zip(wide) {
                        *n = half::bf16::from_f32(*w);
                        *w = n.to_f32();
                    }
                } else {
                    let narrow = narrow.as_mut_slice::<half::f16>().unwrap();
                    for (n, w) in narrow.iter_mut().zip(wide) {
                        *n = half::f16::from_f32(*w);
                        *w = n.to_f32();
                    }
                }
            }
        }
        narrow.step().unwrap();
        wide.step().unwrap();
        // The sums behind the norm are blocked differently, so the last bit may differ.
        for (m, spec) in specs.iter().enumerate() {
            for p in 0..spec.params.len() {
                let (a, b) = (narrow.values(m, p).unwrap(), wide.values(m, p).unwrap());
                assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-8), "{dtype}");
            }
        }
    }
}

#[test]
fn a_refused_synchronisation_leaves_no_trace() {
    let specs = models();
    let options = Options { max_loss_increase: Some(0.01), sync_every: 1, ..Options::default() };
    let mut o = optimizer(options, &specs);
    give_gradients(&mut o, &specs, 1);
    let report = o.step().unwrap();
    assert!(report.sync_due && !report.synced);
    let all = |o: &Optimizer| (0..3).map(|m| bits(o, m, &specs[m])).collect::<Vec<_>>();
    let before = all(&o);
    assert!(o.propose_sync().unwrap());
    let proposed = all(&o);
    assert!(proposed != before);
    assert_eq!(o.step().unwrap_err().kind(), Kind::State);
    o.undo_sync().unwrap();
    assert!(all(&o) == before);
    assert_eq!(o.undone_syncs(), 1);
    assert_eq!(o.undo_sync().unwrap_err().kind(), Kind::State);
    assert!(o.propose_sync().unwrap());
    o.keep_sync().unwrap();
    assert!(all(&o) == proposed);
}

#[test]
fn policies_without_groups_step_too() {
    let specs = models();
    let mut o =
        optimizer(Options { share_policy: SharePolicy::None, ..Options::default() }, &specs);
    give_gradients(&mut o, &specs, 1);
    let report = o.step().unwrap();
    assert!(!report.shared && report.updated == 3);
}
