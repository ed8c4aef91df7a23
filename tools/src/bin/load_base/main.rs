//! What it takes to get from an exported BERT-base to a training session: seconds and memory.
//!
//! `load_base [ROUNDS]` writes the model (438 MB, random weights) to a temporary folder, loads it
//! ROUNDS times (default 5), each in a process of its own, and prints medians; the last line is
//! one JSON object. `load_base --load FILE` is one such process.
//!
//! *seconds*: from the path of the file, which is in the system's file cache, to a session for
//! batch 8, sequence 128, with parameters and gradients bound.
//! *peak*: the process's largest resident size until then (`VmHWM`: its own memory, the pages of
//! the model's mapped file and of libraries), or its resident size after every gradient has been
//! written once, whichever is more; less the resident size when ONNX Runtime had been loaded and
//! nothing else done (*baseline*). Moments are not among it: the first step makes them.
//! *ratio*: peak over the bytes of all weights and gradients.

mod export;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use mmopt::autodiff::{LossKind, LossSpec};
use mmopt::error::{Error, Result};
use mmopt::tensor::DType;
use mmopt::train::{ModelOptions, Source, TensorView, Trainer, TrainerOptions};
use serde_json::{Value, json};

const BATCH: usize = 8;
const SEQUENCE: usize = 128;
/// Numbers of one process.
const MEASURED: [&str; 6] =
    ["seconds", "peak_mb", "anonymous_mb", "weights_mb", "gradients_mb", "baseline_mb"];
const MAX_SECONDS: f64 = 5.0;
const MAX_RATIO: f64 = 1.2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match &arguments[..] {
        [flag, file] if flag == "--load" => load(Path::new(file)).map(|line| {
            println!("{line}");
            true
        }),
        [flag, file] if flag == "--write" => write(Path::new(file)).map(|()| true),
        [] => compare(5),
        [rounds] => compare(rounds.parse().unwrap_or(5)),
        _ => Err(Error::invalid("usage: load_base [ROUNDS]")),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("load_base: {e}");
            ExitCode::from(2)
        }
    }
}

fn write(path: &Path) -> Result<()> {
    export::bert_base()?.write(path, false)
}

/// Medians over processes; whether they keep to the bars.
fn compare(rounds: usize) -> Result<bool> {
    let folder = tempfile::tempdir().map_err(|e| Error::io(&std::env::temp_dir(), e))?;
    let file = folder.path().join("bert-base.onnx");
    // In a process of its own: what it held must not count anywhere.
    child("--write", &file)?;
    let file_mb = std::fs::metadata(&file).map_err(|e| Error::io(&file, e))?.len() as f64 / 1e6;
    println!("BERT-base, opset 17, {file_mb:.0} MB; batch {BATCH}, sequence {SEQUENCE}");
    let mut runs = Vec::new();
    for round in 0..rounds.max(1) {
        let text = child("--load", &file)?;
        let line = text.lines().last().unwrap_or_default();
        let run: Value = serde_json::from_str(line).map_err(|e| Error::data(e.to_string()))?;
        println!("round {round}: {run}");
        runs.push(run);
    }
    let median = |key: &str| {
        let mut all: Vec<f64> = runs.iter().filter_map(|r| r[key].as_f64()).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let mut line = json!({"file_mb": rounded(file_mb), "rounds": runs.len()});
    MEASURED.iter().for_each(|key| line[*key] = json!(median(key)));
    let ratio = median("peak_mb") / (median("weights_mb") + median("gradients_mb"));
    line["ratio"] = json!((ratio * 1e3).round() / 1e3);
    let seconds = median("seconds");
    println!("{seconds:.2} s (bar {MAX_SECONDS}), ratio {ratio:.3} (bar {MAX_RATIO})");
    println!("{line}");
    Ok(seconds <= MAX_SECONDS && ratio <= MAX_RATIO)
}

fn child(flag: &str, file: &Path) -> Result<String> {
    let program = std::env::current_exe().map_err(|e| Error::invalid(e.to_string()))?;
    let output = Command::new(&program).arg(flag).arg(file).output();
    let output = output.map_err(|e| Error::io(&program, e))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::invalid(format!("{flag} failed: {text}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// One measured way from the file to a session.
fn load(path: &Path) -> Result<Value> {
    mmopt::runtime::load(None)?;
    let baseline = status("VmRSS");
    let start = Instant::now();
    let spec = LossSpec::new(LossKind::SequenceClassification);
    let source = Source::Onnx(path.to_owned());
    let model = ModelOptions { loss: Some(spec), ..ModelOptions::new("bert", source) };
    let mut trainer = Trainer::new(TrainerOptions::default(), vec![model])?;
    let created = start.elapsed().as_secs_f64();
    let (ids, ones) = (vec![0u8; BATCH * SEQUENCE * 8], vec![1i64; BATCH * SEQUENCE]);
    let shape = [BATCH, SEQUENCE];
    let view = |name, data| TensorView { name, dtype: DType::I64, shape: &shape, data };
    let batch = [
        view("input_ids", &ids),
        view("attention_mask", bytemuck::cast_slice(&ones)),
        view("token_type_ids", &ids),
        TensorView { shape: &shape[..1], ..view("labels", &ids[..BATCH * 8]) },
    ];
    trainer.prepare(0, &batch)?;
    let seconds = start.elapsed().as_secs_f64();
    let (ready, anonymous) = (status("VmHWM"), status("RssAnon"));
    let sizes: Vec<(String, usize)> = trainer
        .parameters(0)?
        .map(|p| (p.name.to_owned(), p.shape.iter().product::<usize>() * p.dtype.size()))
        .collect();
    let mut gradients = 0;
    for (name, size) in &sizes {
        if trainer.gradient(0, name)?.is_some() {
            trainer.set_gradient(0, name, &vec![0xff; *size])?;
            gradients += size;
        }
    }
    let weights: usize = sizes.iter().map(|s| s.1).sum();
    let peak = ready.max(status("VmRSS")) - baseline;
    // What was measured can train.
    let loss = trainer.forward_backward(0, &batch)?.loss;
    Ok(json!({
        "seconds": rounded(seconds),
        "created_seconds": rounded(created),
        "peak_mb": rounded(peak),
        "anonymous_mb": rounded(anonymous),
        "baseline_mb": rounded(baseline),
        "loss": loss,
        "weights_mb": rounded(weights as f64 / 1e6),
        "gradients_mb": rounded(gradients as f64 / 1e6),
    }))
}

fn rounded(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}

/// A line of `/proc/self/status` in megabytes; NaN where the system does not tell.
fn status(key: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|l| l.strip_prefix(key).is_some_and(|l| l.starts_with(':')));
    let kilobytes = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<f64>().ok());
    kilobytes.map_or(f64::NAN, |k| k * 1024.0 / 1e6)
}
