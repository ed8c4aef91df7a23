//! The ONNX standard's own test of each operator, as a model that is trained through the C ABI:
//! the smallest of those that `make test-backend` runs. `tests/backend/cases.py` wrote them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::c_program::{compile, runtime};
use std::path::Path;
use std::process::Command;

#[test]
fn operators_of_the_standard() {
    let Some(runtime) = runtime() else {
        eprintln!("not run: no ONNX Runtime");
        return;
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    let program = compile(&root.join("tests/backend/gradients.c"), dir.path());
    let folder = root.join("tests/data/backend");
    let list = std::fs::read_to_string(folder.join("list")).unwrap();
    let mut failures = Vec::new();
    for line in list.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = Command::new(&program);
        command.arg(folder.join(format!("{}.onnx", words[0]))).args(&words[1..]);
        command.env("LD_LIBRARY_PATH", dir.path()).env("MMOPT_ORT_LIB", &runtime);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.trim() != "passed" {
            failures.push(format!("{}: {} {text}", words[0], output.status));
        }
    }
    eprintln!("{} models of the standard, {} failed", list.lines().count(), failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(list.lines().count() > 100);
}
