//! What training takes in memory: foreseen, measured, and what the trainer makes of it.

use mmopt::Kind;
use mmopt::models::Sizes;
use mmopt::optim::{MomentDtype, Mutual, Options, Teacher};
use mmopt::train::{Batch, MemoryReport, ModelOptions, Trainer, TrainerOptions};

use crate::trainer::{Example, learn_the_same, model_of, pass_all, sizes, step_all};

const NAMES: [&str; 3] = ["bert", "gpt2", "roberta"];

fn model(name: &str) -> ModelOptions {
    model_of(name, &Sizes { layers: 4, hidden: 64, intermediate: 256, ..sizes(0.1) })
}

fn trainer(optimizer: Options) -> Trainer {
    let optimizer = Options { n_threads: 2, ..optimizer };
    let options = TrainerOptions { optimizer, ..TrainerOptions::default() };
    Trainer::new(options, NAMES.map(model).into()).unwrap()
}

fn report(trainer: &Trainer) -> MemoryReport {
    let examples = NAMES.map(|name| Example::new(0, name == "bert"));
    let views = examples.each_ref().map(Example::views);
    let batches: Vec<Batch> = views.iter().map(Vec::as_slice).collect();
    trainer.memory_report(&batches).unwrap()
}

/// Bytes of f32 values of all parameters of a model.
fn parameters(trainer: &Trainer, model: usize) -> usize {
    let sizes = trainer.parameters(model).unwrap().map(|p| p.shape.iter().product::<usize>());
    4 * sizes.sum::<usize>()
}

#[test]
fn what_is_foreseen_is_what_is_measured() {
    for optimizer in [
        Options::independent(),
        Options::default(),
        Options { activation_checkpointing: true, ..Options::independent() },
    ] {
        let mut trainer = trainer(optimizer);
        let foreseen = report(&trainer);
        assert!(foreseen.models.iter().all(|m| m.measured_pass.is_none()));
        step_all(&mut trainer, 0);
        let measured = report(&trainer);
        println!("{measured}");
        for (m, before) in measured.models.iter().zip(&foreseen.models) {
            assert_eq!((m.pass, m.activations), (before.pass, before.activations));
            assert!(m.activations > 0 && m.activations <= m.pass, "{m:?}");
            if cfg!(target_os = "linux") {
                let ratio = m.pass as f64 / m.measured_pass.unwrap() as f64;
                assert!((0.8..1.2).contains(&ratio), "{ratio}: {m:?}");
            }
        }
    }
}

#[test]
fn what_is_kept_is_counted() {
    let check = |optimizer: Options, moments: usize, sums: usize, means: usize| {
        let trainer = trainer(optimizer);
        let found = report(&trainer);
        for (i, m) in found.models.iter().enumerate() {
            let own = parameters(&trainer, i);
            assert_eq!((m.parameters, m.gradients), (own, own));
            assert_eq!(m.moments, moments * own / 4);
            assert_eq!((m.gradient_sums, m.running_means), (sums * own, means * own));
        }
        let passes: Vec<usize> = found.models.iter().map(|m| m.pass).collect();
        assert_eq!(found.kept, found.models.iter().map(|m| m.kept()).sum::<usize>());
        assert_eq!(found.side_by_side, found.kept + passes.iter().sum::<usize>());
        assert_eq!(found.in_turn, found.kept + passes.iter().max().unwrap());
        let json = found.to_json();
        assert_eq!(json["total"], found.total());
        assert_eq!(json["models"][1]["model"], "gpt2");
    };
    let plain = Options::independent;
    check(plain(), 8, 0, 0);
    check(Options { moment_dtype: MomentDtype::BF16, ..plain() }, 4, 0, 0);
    check(Options { amsgrad: true, ..plain() }, 12, 0, 0);
    check(Options { gradient_accumulation_steps: 2, ..plain() }, 8, 1, 0);
    check(Options { ema_decay: Some(0.9), ..plain() }, 8, 0, 1);
    let means = Mutual { teacher: Teacher::MeanTeacher, ..Mutual::default() };
    check(Options { mutual: Some(means), ..plain() }, 8, 0, 1);
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let trainer = trainer(Options::independent());
    let without = trainer.memory_report(&[]).unwrap();
    assert!(without.models.iter().all(|m| m.pass == 0 && m.parameters > 0));
    let example = Example::new(0, true);
    let views = example.views();
    let error = trainer.memory_report(&[&views]).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
    let error = trainer.memory_report(&[&views[..1], &views, &views]).unwrap_err();
    assert!(error.kind() == Kind::NotFound && error.message().contains("'bert'"), "{error}");
}

/// By the memory that is left models run in turn or side by side, with the same results.
#[test]
fn models_run_in_turn_where_they_do_not_fit_side_by_side() {
    let kept = report(&trainer(Options::default())).kept as u64;
    for (memory_limit, told) in [(1, "in turn with 2 threads"), (kept + (1 << 30), "side by side")]
    {
        let mut chosen = trainer(Options { memory_limit, ..Options::default() });
        assert!(chosen.plan_text().contains("until the first batch"), "{}", chosen.plan_text());
        pass_all(&mut chosen, 9);
        chosen.zero_grad();
        let text = chosen.parallel_text();
        assert!(text.contains(told), "{text}");
        assert!(chosen.plan_json()["parallel"].as_str().unwrap().contains(told));
        let own = report(&chosen);
        assert_eq!(own.max_parallel_models, if memory_limit == 1 { 1 } else { 3 });
        assert_eq!(own.memory_limit, memory_limit);
        let mut asked = trainer(Options { max_parallel_models: 3, ..Options::default() });
        pass_all(&mut asked, 9);
        asked.zero_grad();
        assert!(asked.parallel_text().contains("max_parallel_models"));
        learn_the_same(&mut chosen, &mut asked);
    }
}
