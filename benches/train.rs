//! What a joint step of whole models costs: forward and backward passes of base-size models on
//! one batch, then the optimizer. `BENCH_DEVICE` is `cpu` (default) or `cuda:N`, `BENCH_MODELS` a
//! list of `bert`, `gpt2`, `roberta`, which may be followed by a number; `BENCH_BATCH`, `BENCH_LENGTH`, `BENCH_STEPS` and
//! `BENCH_THREADS` are numbers, and so are `BENCH_LAYERS`, `BENCH_HIDDEN`, `BENCH_HEADS` and
//! `BENCH_VOCAB` for other sizes; `BENCH_PRESET` is `default`, `paper`, `aligned` or `none` (nothing
//! shared, no teachers), `BENCH_PRECISION` is `f32` or `bf16`;
//! `BENCH_CHECKPOINTING=1` computes activations again; `BENCH_ATTENTION` is `auto`, `fused` or
//! `unfused`; `BENCH_MOMENTS=bf16` keeps moments in bf16; `BENCH_PARALLEL` is `max_parallel_models`;
//! `BENCH_TF32=1` multiplies in TF32 on CUDA. Tokens
//! and labels are random, weights fresh.
//!
//! With `BENCH_GROWTH=1` it measures itself with more and with larger models. With `BENCH_TORCH`, a Python that has torch, it measures the library and PyTorch in turn, in
//! `BENCH_ROUNDS` rounds.

#[path = "torch/compare.rs"]
mod compare;
#[path = "growth/table.rs"]
mod growth;

use std::time::Instant;

use mmopt::models::{Config, Sizes, Task};
use mmopt::optim::{AttentionForm, MomentDtype, Options, Precision, ShareRule};
use mmopt::runtime::Device;
use mmopt::tensor::Tensor;
use mmopt::train::{ModelOptions, Source, TensorView, Trainer, TrainerOptions};

fn text(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.into())
}

fn number(name: &str, default: usize) -> usize {
    text(name, "").parse().unwrap_or(default)
}

fn model(name: &str) -> ModelOptions {
    let kind = kind(name);
    let (vocab, positions) = match kind {
        "bert" => (30_522, 512),
        "gpt2" => (50_257, 1024),
        _ => (50_265, 514),
    };
    let hidden = number("BENCH_HIDDEN", 768);
    let sizes = Sizes {
        vocab: number("BENCH_VOCAB", vocab),
        hidden,
        layers: number("BENCH_LAYERS", 12),
        heads: number("BENCH_HEADS", 12),
        intermediate: 4 * hidden,
        // RoBERTa has two rows of its own.
        positions: positions.max(number("BENCH_LENGTH", 128) + 2),
        dropout: 0.1,
    };
    let config = match kind {
        "bert" => Config::bert(&sizes),
        "gpt2" => Config::gpt2(&sizes),
        "roberta" => Config::roberta(&sizes),
        other => panic!("BENCH_MODELS: '{other}' is not bert, gpt2 or roberta"),
    };
    let task = Some(Task::SequenceClassification { num_labels: 2 });
    ModelOptions { task, ..ModelOptions::new(name, Source::Config(Box::new(config))) }
}

/// `bert2` is another model of the kind `bert`; `gpt2` is a kind.
fn kind(name: &str) -> &str {
    ["bert", "gpt2", "roberta"].into_iter().find(|k| name.starts_with(k)).unwrap_or(name)
}

/// A batch of random tokens, all of them real, with random labels.
fn batch(name: &str, batch: usize, length: usize) -> Vec<(&'static str, Tensor)> {
    let mut state = 1u64;
    let mut next = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 33) % n) as i64
    };
    let shape = [batch, length];
    let vocab = number("BENCH_VOCAB", 30_000) as u64 - 5;
    let ids: Vec<i64> = (0..batch * length).map(|_| 5 + next(vocab)).collect();
    let labels: Vec<i64> = (0..batch).map(|_| next(2)).collect();
    let full = |x: i64| Tensor::from_slice(&shape, &vec![x; batch * length]).expect("tensor");
    let mut tensors = vec![
        ("input_ids", Tensor::from_slice(&shape, &ids).expect("tensor")),
        ("attention_mask", full(1)),
        ("labels", Tensor::from_slice(&[batch], &labels).expect("tensor")),
    ];
    if kind(name) == "bert" {
        tensors.push(("token_type_ids", full(0)));
    }
    tensors
}

fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}

/// Peak of the resident memory in MB.
fn peak() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kb = line.and_then(|l| l.split_whitespace().next()?.parse::<f64>().ok());
    kb.unwrap_or(f64::NAN) / 1024.0
}

fn main() {
    let torch = text("BENCH_TORCH", "");
    if !torch.is_empty() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (threads, rounds) = (number("BENCH_THREADS", cores), number("BENCH_ROUNDS", 3));
        return compare::run(&torch, threads, number("BENCH_STEPS", 5), rounds);
    }
    if number("BENCH_GROWTH", 0) == 1 {
        return growth::run(number("BENCH_STEPS", 3));
    }
    let names = text("BENCH_MODELS", "bert,gpt2,roberta");
    let names: Vec<&str> = names.split(',').collect();
    let device: Device = text("BENCH_DEVICE", "cpu").parse().expect("BENCH_DEVICE");
    let (size, length) = (number("BENCH_BATCH", 8), number("BENCH_LENGTH", 128));
    let steps = number("BENCH_STEPS", 5);
    let optimizer = match text("BENCH_PRESET", "default").as_str() {
        "none" => Options::independent(),
        "paper" => Options::paper(),
        "aligned" => Options { share_rule: ShareRule::Mean, ..Options::default() },
        _ => Options::default(),
    };
    let (threads, tf32) = (number("BENCH_THREADS", 0), number("BENCH_TF32", 0) == 1);
    let precision = match text("BENCH_PRECISION", "f32").as_str() {
        "bf16" => Precision::Bf16,
        _ => Precision::F32,
    };
    let activation_checkpointing = number("BENCH_CHECKPOINTING", 0) == 1;
    let attention = match text("BENCH_ATTENTION", "auto").as_str() {
        "fused" => AttentionForm::Fused,
        "unfused" => AttentionForm::Unfused,
        _ => AttentionForm::Auto,
    };
    let moment_dtype = match text("BENCH_MOMENTS", "f32").as_str() {
        "bf16" => MomentDtype::BF16,
        _ => MomentDtype::F32,
    };
    let max_parallel_models = number("BENCH_PARALLEL", 0);
    let own = Options { n_threads: threads, precision, max_parallel_models, ..optimizer };
    let optimizer = Options { activation_checkpointing, attention, moment_dtype, ..own };
    let options = TrainerOptions { optimizer, device, tf32, ..TrainerOptions::default() };
    let models = names.iter().map(|n| model(n)).collect();
    let mut trainer = Trainer::new(options, models).expect("trainer");
    let batches: Vec<_> = names.iter().map(|n| batch(n, size, length)).collect();
    let views: Vec<Vec<TensorView>> = batches
        .iter()
        .map(|b| b.iter().map(|(name, t)| TensorView::of(name, t)).collect())
        .collect();
    let views: Vec<_> = views.iter().map(Vec::as_slice).collect();
    let (mut passes, mut updates, mut totals, mut first) = (vec![], vec![], vec![], vec![]);
    for step in 0..steps + 2 {
        let start = Instant::now();
        let results = trainer.forward_backward_all(&views).expect("passes");
        let passed = start.elapsed().as_secs_f64() * 1e3;
        trainer.step().expect("step");
        let total = start.elapsed().as_secs_f64() * 1e3;
        if step == 0 {
            first = results.iter().map(|o| o.loss).collect();
        } else if step > 1 {
            passes.push(passed);
            updates.push(total - passed);
            totals.push(total);
        }
    }
    println!("{}", trainer.memory_report(&views).expect("report"));
    let tokens = (names.len() * size * length) as f64;
    let [passes, updates, total] = [passes, updates, totals].map(median);
    println!("{} on {device}, batch {size} x {length}, medians of {steps}", names.join(", "));
    println!("first losses    {first:.6?}");
    println!("passes          {passes:9.1} ms");
    println!("optimizer       {updates:9.1} ms");
    println!("step            {total:9.1} ms, {:.0} tokens a second", tokens / total * 1e3);
    println!("peak memory     {:9.0} MB", peak());
    println!(
        "{}",
        serde_json::json!({"device": device.to_string(), "models": names, "batch": size,
            "length": length, "passes": passes, "optimizer": updates, "step": total, "peak": peak()})
    );
}
