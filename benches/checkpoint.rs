//! What checkpoints cost: one of about a gigabyte against a plain write of as many bytes with a
//! flush to disk, and a step that begins one beside the training against a step without. Every
//! round does each once, so that all see the same machine. `BENCH_ROUNDS`, `BENCH_LAYERS`,
//! `BENCH_HIDDEN`, `BENCH_BATCH`, `BENCH_LENGTH` and `BENCH_THREADS` are numbers; `BENCH_DIR` is
//! where is written. Tokens and labels are random, weights fresh.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mmopt::checkpoint::writer::Keep;
use mmopt::models::{Config, Sizes, Task};
use mmopt::optim::Options;
use mmopt::tensor::Tensor;
use mmopt::train::{ModelOptions, Source, TensorView, Trainer, TrainerOptions};

const VOCABULARY: usize = 30_522;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn trainer() -> Trainer {
    let hidden = number("BENCH_HIDDEN", 768);
    let config = Config::bert(&Sizes {
        vocab: VOCABULARY,
        hidden,
        layers: number("BENCH_LAYERS", 12),
        heads: (hidden / 64).max(1),
        intermediate: 4 * hidden,
        positions: number("BENCH_LENGTH", 128),
        dropout: 0.1,
    });
    let task = Some(Task::SequenceClassification { num_labels: 2 });
    let model =
        ModelOptions { task, ..ModelOptions::new("bert", Source::Config(Box::new(config))) };
    let optimizer = Options { n_threads: number("BENCH_THREADS", 0), ..Options::independent() };
    let options = TrainerOptions { optimizer, ..TrainerOptions::default() };
    Trainer::new(options, vec![model]).expect("trainer")
}

fn batch() -> Vec<(&'static str, Tensor)> {
    let (size, length) = (number("BENCH_BATCH", 8), number("BENCH_LENGTH", 128));
    let ids: Vec<i64> = (0..size * length).map(|i| 5 + (i * 7919 % 30_000) as i64).collect();
    let labels: Vec<i64> = (0..size).map(|row| (row % 2) as i64).collect();
    let full = |x: i64| Tensor::from_slice(&[size, length], &vec![x; size * length]);
    vec![
        ("input_ids", Tensor::from_slice(&[size, length], &ids).expect("tensor")),
        ("attention_mask", full(1).expect("tensor")),
        ("token_type_ids", full(0).expect("tensor")),
        ("labels", Tensor::from_slice(&[size], &labels).expect("tensor")),
    ]
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn step(trainer: &mut Trainer, batch: &[TensorView]) {
    trainer.forward_backward_all(&[batch]).expect("passes");
    trainer.step().expect("step");
}

fn n_bytes(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).expect("a folder").map(|f| f.expect("an entry").metadata());
    files.map(|m| m.expect("its size").len()).sum()
}

/// So many bytes in one file, and to disk.
fn write_plainly(path: &Path, n: u64) {
    let piece = vec![0x5a; 8 << 20];
    let mut file = File::create(path).expect("a file");
    let mut left = n;
    while left > 0 {
        let part = left.min(piece.len() as u64) as usize;
        file.write_all(&piece[..part]).expect("written");
        left -= part as u64;
    }
    file.sync_all().expect("flushed");
}

fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}

fn main() {
    let rounds = number("BENCH_ROUNDS", 5).max(1);
    let dir = std::env::var_os("BENCH_DIR").map_or("target/bench-checkpoint".into(), PathBuf::from);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a folder");
    let (root, plain) = (dir.join("checkpoints"), dir.join("plain"));
    let mut trainer = trainer();
    let batch = batch();
    let views: Vec<TensorView> = batch.iter().map(|(n, t)| TensorView::of(n, t)).collect();
    step(&mut trainer, &views);
    let written = trainer.checkpoint(&root, "").expect("a checkpoint");
    let bytes = n_bytes(&written);
    let (mut speeds, mut begins, mut besides) = (Vec::new(), Vec::new(), Vec::new());
    let (mut plains, mut steps) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let alone = seconds(|| step(&mut trainer, &views));
        let own = seconds(|| write_plainly(&plain, bytes));
        fs::remove_file(&plain).expect("removed");
        let whole = seconds(|| drop(trainer.checkpoint(&root, "").expect("a checkpoint")));
        step(&mut trainer, &views);
        let begin = seconds(|| {
            step(&mut trainer, &views);
            trainer.checkpoint_beside(&root, "", Keep::last(2)).expect("begun");
        });
        let beside = seconds(|| step(&mut trainer, &views));
        trainer.wait_for_checkpoint().expect("written");
        speeds.push(own / whole);
        begins.push(begin / alone);
        besides.push(beside / alone);
        plains.push(bytes as f64 / own / 1e6);
        steps.push(alone);
    }
    let _ = fs::remove_dir_all(&dir);
    println!("{:.2} GB, medians of {rounds} rounds", bytes as f64 / 1e9);
    println!("plain write and flush {:.0} MB/s; a step {:.2} s", median(plains), median(steps));
    println!("a checkpoint's speed, of a plain write's  {:.2} (aim 0.7)", median(speeds));
    println!("a step that begins one beside, of a step  {:.2} (aim 1.2)", median(begins));
    println!("the step after that, of a step            {:.2}", median(besides));
}
