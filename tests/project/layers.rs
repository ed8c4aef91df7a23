//! What the architecture forbids: imports that go the wrong way, unsafe code outside its places,
//! output on stdout, unfinished places, lines and files that are too long.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module and what it may import from the crate. `error` and `file` are open to all.
const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("file", &[]),
    ("tensor", &[]),
    ("onnx", &["tensor"]),
    ("autodiff", &["tensor", "onnx"]),
    ("models", &["tensor", "onnx", "checkpoint"]),
    ("runtime", &["tensor", "onnx"]),
    ("optim", &["tensor"]),
    ("checkpoint", &["tensor", "optim"]),
    ("text", &["tensor"]),
    ("train", &["tensor", "onnx", "autodiff", "models", "runtime", "optim", "checkpoint"]),
];

/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &[
    "src/ffi/",
    "src/runtime/",
    "src/optim/",
    "src/file.rs",
    "src/memory.rs",
    "src/pin.rs",
    "src/train/bound.rs",
    "src/train/trainer.rs",
];

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for item in fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

fn all() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    files
        .into_iter()
        .map(|p| {
            let name = p.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            (name, fs::read_to_string(p).unwrap())
        })
        .collect()
}

/// Code without comments and without `#[cfg(test)]` modules at the end of a file.
fn code(text: &str) -> String {
    let body = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    body.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn module(path: &str) -> &str {
    let rest = path.strip_prefix("src/").unwrap();
    rest.split('/').next().unwrap().trim_end_matches(".rs")
}

fn check(broken: &[String]) {
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn imports_go_one_way() {
    let mut broken = Vec::new();
    for (path, text) in all() {
        let Some((_, allowed)) = LAYERS.iter().find(|(m, _)| *m == module(&path)) else { continue };
        for (n, line) in code(&text).lines().enumerate() {
            for part in line.split("crate::").skip(1) {
                let to: String =
                    part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let layered = LAYERS.iter().any(|(m, _)| *m == to);
                let open = ["error", "file", module(&path)].contains(&to.as_str());
                if layered && !open && !allowed.contains(&to.as_str()) {
                    broken.push(format!(
                        "{path}:{}: {} must not import {to}",
                        n + 1,
                        module(&path)
                    ));
                }
            }
        }
    }
    check(&broken);
}

#[test]
fn unsafe_code_stays_in_its_places() {
    let files = all();
    let broken: Vec<String> = files
        .iter()
        .filter(|(path, _)| !UNSAFE.iter().any(|place| path.starts_with(place)))
        .filter(|(_, text)| code(text).contains("unsafe "))
        .map(|(path, _)| format!("{path}: unsafe code"))
        .collect();
    check(&broken);
}

#[test]
fn library_code_is_quiet_finished_and_readable() {
    let mut broken = Vec::new();
    for (path, text) in all() {
        let n_lines = text.lines().count();
        if n_lines > 600 {
            broken.push(format!("{path}: {n_lines} lines"));
        }
        for (n, line) in text.lines().enumerate() {
            let place = format!("{path}:{}", n + 1);
            if line.chars().count() > 100 {
                broken.push(format!("{place}: longer than 100 columns"));
            }
            for word in ["println!", "eprintln!", "dbg!", "todo!(", "unimplemented!("] {
                let test = path.contains("test");
                if line.contains(word) && !test && !line.trim_start().starts_with("//") {
                    broken.push(format!("{place}: {word}"));
                }
            }
        }
        if !text.starts_with("//!") {
            broken.push(format!("{path}: opens without saying what it is"));
        }
    }
    check(&broken);
}
