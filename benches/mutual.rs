//! What each teacher of mutual learning costs: a step of three small models with it against a step
//! without. Every round takes one step of every trainer, in another order each time, so that all
//! see the same machine; ratios are of steps in one round. `BENCH_TEACHERS` names some of them, with
//! commas, for large models do not fit in memory for all at once. `BENCH_ROUNDS`, `BENCH_LAYERS`,
//! `BENCH_HIDDEN`, `BENCH_BATCH`, `BENCH_LENGTH`, `BENCH_THREADS` and `BENCH_PARALLEL` (`max_parallel_models`) are numbers. Tokens and labels
//! are random, weights fresh.

use std::time::Instant;

use mmopt::models::{Config, Sizes, Task};
use mmopt::optim::{Mutual, Options, Teacher};
use mmopt::tensor::Tensor;
use mmopt::train::{ModelOptions, Source, TensorView, Trainer, TrainerOptions};

const VOCABULARY: usize = 8_000;
/// Different batches, so that the memory sees examples again as in training.
const N_BATCHES: usize = 8;
/// The name of an arm, its teacher, and how many times the step without it may take.
const ARMS: [(&str, Option<Teacher>, f64); 6] = [
    ("none", None, 1.0),
    ("peers_before", Some(Teacher::PeersBefore), 1.05),
    ("peers", Some(Teacher::Peers), 1.4),
    ("online", Some(Teacher::Online), 1.05),
    ("mean_teacher", Some(Teacher::MeanTeacher), 1.4),
    ("memory", Some(Teacher::Memory), 1.05),
];

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn models() -> Vec<ModelOptions> {
    let hidden = number("BENCH_HIDDEN", 128);
    let sizes = Sizes {
        vocab: VOCABULARY,
        hidden,
        layers: number("BENCH_LAYERS", 2),
        heads: (hidden / 32).max(1),
        intermediate: 4 * hidden,
        positions: number("BENCH_LENGTH", 64) + 2,
        dropout: 0.1,
    };
    let config = [
        ("bert", Config::bert(&sizes)),
        ("gpt2", Config::gpt2(&sizes)),
        ("roberta", Config::roberta(&sizes)),
    ];
    let task = Some(Task::SequenceClassification { num_labels: 2 });
    let model = |(name, config)| {
        let source = Source::Config(Box::new(config));
        ModelOptions { task, ..ModelOptions::new(name, source) }
    };
    config.into_iter().map(model).collect()
}

fn trainer(teacher: Option<Teacher>) -> Trainer {
    let mutual = teacher.map(|teacher| Mutual { teacher, ..Mutual::default() });
    let n_threads = number("BENCH_THREADS", 0);
    let max_parallel_models = number("BENCH_PARALLEL", 0);
    let own = Options { mutual, n_threads, ..Options::independent() };
    let optimizer = Options { max_parallel_models, ..own };
    let options = TrainerOptions { optimizer, ..TrainerOptions::default() };
    Trainer::new(options, models()).expect("trainer")
}

/// Random tokens of examples that no other batch has; BERT's types last.
fn batch(index: usize) -> Vec<(&'static str, Tensor)> {
    let (size, length) = (number("BENCH_BATCH", 32), number("BENCH_LENGTH", 64));
    let mut state = index as u64 + 1;
    let mut next = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 33) % n) as i64
    };
    let ids: Vec<i64> = (0..size * length).map(|_| 5 + next(VOCABULARY as u64 - 5)).collect();
    let labels: Vec<i64> = (0..size).map(|_| next(2)).collect();
    let examples: Vec<i64> = (0..size).map(|row| (index * size + row) as i64).collect();
    let shape = [size, length];
    let full = |x: i64| Tensor::from_slice(&shape, &vec![x; size * length]).expect("tensor");
    vec![
        ("input_ids", Tensor::from_slice(&shape, &ids).expect("tensor")),
        ("attention_mask", full(1)),
        ("labels", Tensor::from_slice(&[size], &labels).expect("tensor")),
        ("example_ids", Tensor::from_slice(&[size], &examples).expect("tensor")),
        ("token_type_ids", full(0)),
    ]
}

/// Milliseconds of a step.
fn step(trainer: &mut Trainer, batch: &[(&'static str, Tensor)]) -> f64 {
    let bert: Vec<TensorView> = batch.iter().map(|(n, t)| TensorView::of(n, t)).collect();
    let others = &bert[..bert.len() - 1];
    let start = Instant::now();
    trainer.forward_backward_all(&[&bert, others, others]).expect("passes");
    trainer.step().expect("step");
    start.elapsed().as_secs_f64() * 1e3
}

/// The lower quartile, the median and the upper quartile.
fn quartiles(mut x: Vec<f64>) -> [f64; 3] {
    x.sort_by(f64::total_cmp);
    [1, 2, 3].map(|q| x[(x.len() - 1) * q / 4])
}

/// The arm without a teacher, and those that `BENCH_TEACHERS` names: all without it.
fn chosen() -> Vec<(&'static str, Option<Teacher>, f64)> {
    let wanted = std::env::var("BENCH_TEACHERS").ok();
    let is_wanted = |name: &str| match &wanted {
        Some(names) => names.split(',').any(|n| n.trim() == name),
        None => true,
    };
    ARMS.into_iter().filter(|arm| arm.1.is_none() || is_wanted(arm.0)).collect()
}

fn main() {
    let rounds = number("BENCH_ROUNDS", 40).max(1);
    let arms = chosen();
    let mut trainers: Vec<Trainer> = arms.iter().map(|arm| trainer(arm.1)).collect();
    let batches: Vec<_> = (0..N_BATCHES).map(batch).collect();
    let mut times = vec![Vec::with_capacity(rounds); arms.len()];
    // Two rounds are for opening sessions, and for the first visit of a batch.
    for round in 0..rounds + 2 {
        for place in 0..arms.len() {
            let arm = (round + place) % arms.len();
            let ms = step(&mut trainers[arm], &batches[round % N_BATCHES]);
            if round > 1 {
                times[arm].push(ms);
            }
        }
    }
    println!("three models, medians of {rounds} rounds (quartiles of the ratio)");
    println!("{:14} {:>9} {:>7} {:>15} {:>7}", "teacher", "step, ms", "ratio", "", "target");
    let none = times[0].clone();
    for ((name, _, target), times) in arms.iter().zip(times) {
        let ratios = times.iter().zip(&none).map(|(a, b)| a / b).collect();
        let ([_, ms, _], [low, ratio, high]) = (quartiles(times), quartiles(ratios));
        let verdict = if ratio <= *target { "" } else { " missed" };
        println!("{name:14} {ms:9.2} {ratio:7.3} ({low:.3} to {high:.3}) {target:7.2}{verdict}");
        println!(
            "{}",
            serde_json::json!({"teacher": name, "step_ms": ms, "ratio": ratio, "low": low,
                "high": high, "target": target})
        );
    }
}
