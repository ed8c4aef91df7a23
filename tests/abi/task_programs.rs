//! The short programs for each task learn and stay short, and `joint_train` behaves well: it does
//! every task, and a signal ends it with a checkpoint.

#![cfg(feature = "text")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::c_program::runtime;
use crate::examples::{Example, TINY, number};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs a program on what it generates; its last line.
fn last_line(source: &str) -> Option<String> {
    if runtime().is_none() {
        println!("not run: no ONNX Runtime");
        return None;
    }
    let text = Example::new(source).succeeds(&[]);
    Some(text.lines().last().unwrap().to_owned())
}

#[test]
fn classification() {
    let Some(line) = last_line("c/classification.c") else { return };
    assert!(number(&line, "bert") > 0.3 && number(&line, "gpt2") > 0.55, "{line}");
}

#[test]
fn entities() {
    let Some(line) = last_line("c/entities.c") else { return };
    assert!(number(&line, "bert") > 0.2 && number(&line, "gpt2") > 0.5, "{line}");
}

#[test]
fn questions() {
    let Some(line) = last_line("c/questions.c") else { return };
    // A span of the context at random has an F1 below 10.
    assert!(number(&line, "f1") > 15.0, "{line}");
}

#[test]
fn language_model_then_classifier() {
    let Some(line) = last_line("c/language_model.c") else { return };
    assert!(number(&line, "perplexity") < 250.0 && number(&line, "accuracy") > 0.55, "{line}");
}

#[test]
fn entities_in_cpp() {
    let Some(line) = last_line("cpp/entities.cpp") else { return };
    assert!(number(&line, "bert") > 0.2, "{line}");
}

/// What a newcomer reads is short, and so is the way from a file to a trained model.
#[test]
fn programs_are_short() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for name in ["classification.c", "entities.c", "questions.c", "language_model.c"] {
        let text = std::fs::read_to_string(folder.join("c").join(name)).unwrap();
        let lines = text.lines().count();
        let calls = text.lines().map(str::trim).filter(|l| l.starts_with("check(")).count();
        assert!(lines < 80 && calls <= 24, "{name}: {lines} lines, {calls} calls");
    }
}

#[test]
fn joint_training_does_every_task() {
    if runtime().is_none() {
        println!("not run: no ONNX Runtime");
        return;
    }
    let train = Example::new("c/joint_train.c");
    for task in ["entities", "questions", "language"] {
        let more = ["--task", task, "--steps", "2", "--models", "bert,gpt2", "--out", task];
        let text = train.succeeds(&[TINY, &more].concat());
        let line = text.lines().last().unwrap();
        assert!(line.starts_with(&format!("{task}: bert 0.")), "{text}");
        assert!(line.contains(" after 2 steps, mode joint)"), "{text}");
        assert!(!train.read(&format!("{task}/gpt2/tokenizer.json")).is_empty());
    }
    // A published model beside a fresh one, each with its own tokenizer; nothing is trained.
    let more = ["--models", "bert,gpt2", "--pretrained", "bert=entities/bert", "--epochs", "0"];
    let text = train.succeeds(&[TINY, &["--task", "entities"], &more].concat());
    assert!(text.contains("held out: bert 0.") && text.contains("after 0 steps"), "{text}");
    assert!(train.succeeds(&["-h"]).contains("--checkpoint-every"));
    assert!(train.succeeds(&["--version"]).starts_with("joint_train with mmopt "));
}

/// A signal in the middle of training: the exit code says which, and a checkpoint is there.
#[test]
fn a_signal_ends_joint_training_with_a_checkpoint() {
    if runtime().is_none() {
        println!("not run: no ONNX Runtime");
        return;
    }
    let train = Example::new("c/joint_train.c");
    for (signal, code) in [("TERM", 143), ("HUP", 129)] {
        let more = ["--models", "bert", "--epochs", "1000", "--checkpoint", signal];
        let mut child = train
            .command(&[TINY, &more].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It says how many examples there are, and begins.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().contains("examples to train on"));
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(code));
        let written = std::fs::read_dir(train.dir.path().join(signal)).unwrap();
        let is_checkpoint = |name: std::ffi::OsString| name.to_string_lossy().starts_with("step-");
        assert!(written.flatten().any(|f| is_checkpoint(f.file_name())), "{signal}");
    }
}
