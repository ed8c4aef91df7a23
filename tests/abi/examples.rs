//! The C, C++ and Rust examples do what they say: they learn, what they write can be read, and an
//! interrupted training goes on bit by bit.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::c_program::{compile, runtime};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A compiled example in a folder of its own.
pub struct Example {
    program: PathBuf,
    pub dir: tempfile::TempDir,
}

impl Example {
    pub fn new(name: &str) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        let dir = tempfile::tempdir().unwrap();
        Self { program: compile(&source, dir.path()), dir }
    }

    /// The program in the example's folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(self.dir.path());
        // Nothing is written there, by ONNX Runtime either.
        std::fs::create_dir_all(self.home()).unwrap();
        command.env("HOME", self.home()).env_remove("XDG_CACHE_HOME");
        command.env_remove("ORT_DISABLE_TELEMETRY");
        if let Some(runtime) = runtime() {
            command.env("MMOPT_ORT_LIB", runtime);
        }
        command
    }

    /// Where the programs are at home.
    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// Runs in the example's folder; what it printed, and whether it succeeded.
    fn run(&self, arguments: &[&str]) -> (String, bool) {
        let output = self.command(arguments).output().unwrap();
        let written: Vec<_> = std::fs::read_dir(self.home()).unwrap().collect();
        assert!(written.is_empty(), "{written:?}");
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        (String::from_utf8_lossy(&text).into_owned(), output.status.success())
    }

    pub fn succeeds(&self, arguments: &[&str]) -> String {
        let (text, success) = self.run(arguments);
        assert!(success, "{arguments:?}: {text}");
        text
    }

    fn fails(&self, arguments: &[&str], part: &str) {
        let (text, success) = self.run(arguments);
        assert!(!success && text.contains(part), "{arguments:?}: {text}");
    }

    pub fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join(path)).unwrap()
    }
}

/// The number after `name` in the last line.
pub fn number(text: &str, name: &str) -> f64 {
    let mut words = text.lines().last().unwrap().split(' ').skip_while(|w| *w != name);
    words.nth(1).and_then(|w| w.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[test]
fn gradient_mode_learns() {
    let text = Example::new("c/grad_mode.c").succeeds(&[]);
    assert!(number(&text, "shallow") > 0.9 && number(&text, "deep") > 0.9, "{text}");
    assert!(text.contains("mlp up weight"), "{text}");
}

/// Flags for a training of seconds.
pub const TINY: &[&str] = &[
    "--data",
    "synthetic",
    "--batch",
    "16",
    "--layers",
    "1",
    "--hidden",
    "16",
    "--heads",
    "2",
    "--vocab",
    "500",
    "--max-length",
    "32",
    "--epochs",
    "1",
];

#[test]
fn joint_training_resumes_bit_by_bit_and_predicts() {
    if runtime().is_none() {
        println!("not run: no ONNX Runtime");
        return;
    }
    let train = Example::new("c/joint_train.c");
    let with = |more: &[&'static str]| [TINY, more].concat();
    let means = ["--ema", "--options", "{\"ema_decay\":0.99}"];
    let outputs = ["--steps", "9", "--out", "whole", "--json", "m.json"];
    let text = train.succeeds(&with(&[&outputs[..], &means].concat()));
    assert!(number(&text, "majority") > 0.4, "{text}");
    let metrics: serde_json::Value = serde_json::from_slice(&train.read("m.json")).unwrap();
    assert_eq!(metrics["epochs"][0]["step"], 9);
    let of_means = metrics["epochs"][0]["bert"]["ema_score"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&of_means), "{of_means}");
    assert!(metrics["score"]["gpt2"].is_number());

    let half = with(&["--steps", "9", "--checkpoint", "c", "--checkpoint-every", "4"]);
    train.succeeds(&half);
    // The last checkpoint is of step 9, the one before it of step 8: go on from there.
    let latest = train.dir.path().join("c/step-00000009");
    assert!(latest.exists());
    std::fs::remove_dir_all(&latest).unwrap();
    train.succeeds(&[&half[..], &["--resume", "--out", "resumed"]].concat());
    for name in ["bert", "gpt2", "roberta"] {
        let file = |root: &str| train.read(&format!("{root}/{name}/model.safetensors"));
        assert!(file("whole") == file("resumed"), "{name} differs");
    }

    let predict = Example::new("c/predict.c");
    let folder = train.dir.path().join("whole");
    let text = predict.succeeds(&[folder.to_str().unwrap(), "a splendid film", "dull"]);
    let models: Vec<&str> = text.lines().filter_map(|l| l.split('\t').next()).collect();
    assert_eq!(models, ["bert", "gpt2", "roberta", "bert", "gpt2", "roberta"], "{text}");
    predict.fails(&["/nonexistent"], "/nonexistent");
    predict.fails(&[predict.dir.path().to_str().unwrap()], "no trained model");
}

#[test]
fn flags_are_checked() {
    let train = Example::new("c/joint_train.c");
    train.fails(&[], "--data is missing");
    train.fails(&["--data", "x", "--models", "bert,yak"], "'yak'");
    train.fails(&["--data", "x", "--models", "bert,bert"], "twice");
    train.fails(&["--data", "x", "--epochs", "-1"], "whole number");
    train.fails(&["--data", "x", "--lr", "fast"], "a number");
    train.fails(&["--data", "x", "--mode", "alone"], "--mode");
    train.fails(&["--data", "x", "--resume"], "--checkpoint");
    train.fails(&["--what", "x"], "--what");
    if runtime().is_some() {
        train.fails(&["--data", "/nonexistent.tsv"], "/nonexistent.tsv");
    }
    assert!(train.succeeds(&["--help"]).contains("--checkpoint-every"));
}

#[test]
fn the_short_program_trains() {
    if runtime().is_none() {
        println!("not run: no ONNX Runtime");
        return;
    }
    check_two_models(&Example::new("c/two_models.c"));
}

/// Two steps on 32 sentences, and both models saved.
fn check_two_models(example: &Example) {
    let lines: Vec<String> = (0..32)
        .map(|i| format!("{} film number {i}\t{}\n", ["fine", "dull"][i % 2], i % 2))
        .collect();
    std::fs::write(example.dir.path().join("train.tsv"), lines.concat()).unwrap();
    let text = example.succeeds(&[]);
    assert!(text.lines().count() == 2 && text.contains("step 2: bert"), "{text}");
    assert!(!example.read("gpt2/model.safetensors").is_empty());
    assert!(!example.read("bert/config.json").is_empty());
}

#[test]
fn reports_are_written() {
    let report = Example::new("c/report.c");
    let step = "{\"type\":\"step\",\"step\":1,\"models\":[{\"name\":\"a\",\"loss\":1}]}\n";
    std::fs::write(report.dir.path().join("a.jsonl"), step).unwrap();
    std::fs::write(report.dir.path().join("b.jsonl"), step).unwrap();
    assert_eq!(report.succeeds(&["a.jsonl", "b.jsonl", "-o", "x.html"]), "report: x.html\n");
    assert!(String::from_utf8(report.read("x.html")).unwrap().contains("report: 2 runs</h1>"));
    report.succeeds(&["a.jsonl"]);
    assert!(!report.read("report.html").is_empty());
    report.fails(&[], "report RUN...");
    report.fails(&["a.jsonl", "-x"], "report RUN...");
    report.fails(&["none.jsonl"], "none.jsonl");
}

#[test]
#[cfg(feature = "text")]
fn the_rust_program_trains() {
    if runtime().is_none() {
        println!("not run: no ONNX Runtime");
        return;
    }
    // Built with the tests unless these were asked for by name; then it is built here.
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--locked", "--offline", "--example", "two_models"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = build.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // This program lies in target/PROFILE/deps.
    let tests = std::env::current_exe().unwrap();
    let programs = tests.parent().and_then(Path::parent).unwrap().join("examples");
    let program = programs.join("two_models").with_extension(std::env::consts::EXE_EXTENSION);
    check_two_models(&Example { program, dir: tempfile::tempdir().unwrap() });
}

#[test]
fn the_cpp_program_trains() {
    if runtime().is_none() {
        println!("not run: no ONNX Runtime");
        return;
    }
    let text = Example::new("cpp/two_models.cpp").succeeds(&[]);
    assert!(number(&text, "bert") > 0.0 && number(&text, "gpt2") > 0.0, "{text}");
}
