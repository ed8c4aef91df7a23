//! The library beside PyTorch: one process for each measurement, in turn, so that peaks of memory
//! are those of one side. Prints each measurement when it is made, to standard error, then a table
//! and, last, one JSON object of ratios, ours over PyTorch's.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

/// One measurement: a name, the environment of our side, the arguments of PyTorch's.
struct Case {
    name: &'static str,
    ours: &'static str,
    torch: Option<&'static str>,
}

const SMALL: &str = "BENCH_LAYERS=4 BENCH_HIDDEN=128 BENCH_HEADS=4 BENCH_VOCAB=8000 BENCH_BATCH=32 \
                     BENCH_LENGTH=32 BENCH_STEPS=30 BENCH_PRESET=none";
const SMALL_TORCH: &str = "--layers 4 --hidden 128 --heads 4 --vocab 8000 --batch 32 --length 32 \
                           --steps 30";

const CASES: [Case; 12] = [
    one("bert", "BENCH_MODELS=bert BENCH_PRESET=none", "--models bert"),
    one("gpt2", "BENCH_MODELS=gpt2 BENCH_PRESET=none", "--models gpt2"),
    one("roberta", "BENCH_MODELS=roberta BENCH_PRESET=none", "--models roberta"),
    one("joint", "BENCH_PRESET=none", ""),
    one("joint bf16", "BENCH_PRESET=none BENCH_PRECISION=bf16", "--precision bf16"),
    one("joint published", "BENCH_PRESET=paper", "--sharing paper"),
    Case { name: "joint default", ours: "BENCH_PRESET=default", torch: None },
    Case {
        name: "joint default bf16",
        ours: "BENCH_PRESET=default BENCH_PRECISION=bf16",
        torch: None,
    },
    Case {
        name: "bert checkpointing",
        ours: "BENCH_MODELS=bert BENCH_PRESET=none BENCH_CHECKPOINTING=1",
        torch: None,
    },
    Case { name: "joint side by side", ours: "BENCH_PRESET=none BENCH_PARALLEL=3", torch: None },
    Case {
        name: "joint least memory",
        ours: "BENCH_PRESET=none BENCH_CHECKPOINTING=1 BENCH_MOMENTS=bf16",
        torch: None,
    },
    one("small", SMALL, SMALL_TORCH),
];

const fn one(name: &'static str, ours: &'static str, torch: &'static str) -> Case {
    Case { name, ours, torch: Some(torch) }
}

/// The last line of a program's output, as JSON; `None` where it failed.
fn last_line(command: &mut Command) -> Option<Value> {
    let output = command.output().ok().filter(|o| o.status.success())?;
    serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last()?).ok()
}

fn ours(settings: &str) -> Option<Value> {
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.env_remove("BENCH_TORCH");
    command.envs(settings.split_whitespace().filter_map(|s| s.split_once('=')));
    last_line(&mut command)
}

fn torch(python: &str, threads: usize, steps: usize, arguments: &str) -> Option<Value> {
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/torch/step.py");
    let mut command = Command::new(python);
    command.arg(program).args(["--threads", &threads.to_string(), "--steps", &steps.to_string()]);
    last_line(command.args(arguments.split_whitespace()))
}

/// Tells a measurement, for the whole takes long.
fn told(round: usize, side: &str, case: &Case, found: Option<Value>) -> Option<Value> {
    match &found {
        Some(found) => eprintln!("round {round}, {side}, {}: {found}", case.name),
        None => eprintln!("round {round}, {side}, {}: failed", case.name),
    }
    found
}

/// Medians of several runs, by key.
fn median(runs: &[Value]) -> BTreeMap<&'static str, f64> {
    ["passes", "step", "peak"]
        .into_iter()
        .map(|key| {
            let mut values: Vec<f64> = runs.iter().filter_map(|r| r[key].as_f64()).collect();
            values.sort_by(f64::total_cmp);
            (key, values.get(values.len() / 2).copied().unwrap_or(f64::NAN))
        })
        .collect()
}

/// `python` has the package torch, or only our side is measured.
pub fn run(python: &str, threads: usize, steps: usize, rounds: usize) {
    let version =
        Command::new(python).args(["-c", "import torch; print(torch.__version__)"]).output();
    let version = version.ok().filter(|o| o.status.success());
    let version = version.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    match &version {
        Some(version) => println!("PyTorch {version}, {threads} threads, {rounds} rounds"),
        None => println!("{python} has no torch (see scripts/torch_venv.sh): our side alone"),
    }
    let mut found: BTreeMap<&str, [Vec<Value>; 2]> = BTreeMap::new();
    for round in 0..rounds {
        for case in &CASES {
            let [own, other] = found.entry(case.name).or_default();
            let mut run_ours = || own.extend(told(round, "ours", case, ours(case.ours)));
            let mut run_torch = || {
                if let Some(arguments) = case.torch.filter(|_| version.is_some()) {
                    let run = torch(python, threads, steps, arguments);
                    other.extend(told(round, "PyTorch", case, run));
                }
            };
            // Each side is the first in turn.
            if round % 2 == 0 {
                run_ours();
                run_torch();
            } else {
                run_torch();
                run_ours();
            }
        }
    }
    println!("{:<20} {:>24} {:>24}", "", "ours: passes, step, peak", "PyTorch");
    let mut all = BTreeMap::new();
    for case in &CASES {
        let [own, other] = found[case.name].each_ref().map(|runs| median(runs));
        let cell = |m: &BTreeMap<_, f64>| match m["step"].is_nan() {
            true => "-".to_owned(),
            false => format!("{:.0} {:.0} ms {:.0} MB", m["passes"], m["step"], m["peak"]),
        };
        println!("{:<20} {:>24} {:>24}", case.name, cell(&own), cell(&other));
        all.insert(case.name, [own, other]);
    }
    let value = |name: &str, side: usize, key: &str| all[name][side][key];
    let ratio = |name: &str, key: &str| value(name, 0, key) / value(name, 1, key);
    let fused = value("joint", 1, "step");
    let ratios = json!({
        "fwd_bwd": {
            "bert": ratio("bert", "passes"),
            "gpt2": ratio("gpt2", "passes"),
            "roberta": ratio("roberta", "passes"),
        },
        "joint_step_vs_fused": value("joint", 0, "step") / fused,
        "default_step_vs_fused": value("joint default", 0, "step") / fused,
        "joint_step_vs_published": ratio("joint published", "step"),
        "peak_memory_vs_fused": ratio("joint", "peak"),
        "peak_memory_side_by_side_vs_fused":
            value("joint side by side", 0, "peak") / value("joint", 1, "peak"),
        "step_side_by_side_vs_chosen":
            value("joint side by side", 0, "step") / value("joint", 0, "step"),
        "peak_memory_small_vs_fused":
            value("joint least memory", 0, "peak") / value("joint", 1, "peak"),
        "peak_memory_small_models": ratio("small", "peak"),
        "small_samples_vs_torch": 1.0 / ratio("small", "step"),
        "bf16_vs_torch_bf16": ratio("joint bf16", "step"),
        "bf16_vs_own_fp32": value("joint bf16", 0, "step") / value("joint", 0, "step"),
        "recompute_time": value("bert checkpointing", 0, "step") / value("bert", 0, "step"),
        "recompute_memory": value("bert checkpointing", 0, "peak") / value("bert", 0, "peak"),
        "torch": version,
    });
    println!("{ratios}");
}
