//! The wrappers: each function of the C library is within reach from C++ and Go, the C++ wrapper
//! compiles in every mode that it promises, its tests pass, and so do the programs in the guides.
//! The Go package is tested where it is installed, in `install.rs`.

#![cfg(feature = "text")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::c_program;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Functions that a wrapper leaves out, with the reason.
const NOT_IN_CPP: &[(&str, &str)] = &[];
const NOT_IN_GO: &[(&str, &str)] = &[];

/// A text of C, C++ or Go without its comments.
fn without_comments(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(|l| l.split("//").next().unwrap_or("")).collect();
    let parts = lines.join("\n");
    let outside = parts.split("/*").map(|p| p.split_once("*/").map_or(p, |(_, rest)| rest));
    outside.collect()
}

/// The words of a text that begin with `mmopt_`.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(|w| w.starts_with("mmopt_")).map(str::to_owned).collect()
}

/// The functions that the header declares: names right before a parenthesis.
fn functions() -> BTreeSet<String> {
    let header = without_comments(&read("include/mmopt.h"));
    let pieces: Vec<&str> = header.split('(').collect();
    let before = pieces[..pieces.len() - 1].iter().map(|piece| {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        piece[piece.trim_end_matches(is_part).len()..].to_owned()
    });
    before.filter(|name| name.starts_with("mmopt_")).collect()
}

fn check_complete(what: &str, used: &BTreeSet<String>, left_out: &[(&str, &str)]) {
    let functions = functions();
    assert!(functions.len() >= 120, "only {} functions found", functions.len());
    let excused: BTreeSet<String> = left_out.iter().map(|(name, _)| (*name).to_owned()).collect();
    let missing: Vec<_> = functions.difference(used).filter(|n| !excused.contains(*n)).collect();
    assert!(missing.is_empty(), "{what} does not wrap {missing:?}");
    let stale: Vec<_> =
        excused.iter().filter(|n| used.contains(*n) || !functions.contains(*n)).collect();
    assert!(stale.is_empty(), "the list of what {what} leaves out is out of date: {stale:?}");
}

/// The parts that `mmopt.hpp` is made of; it includes each of them.
fn cpp_headers() -> Vec<String> {
    let umbrella = read("bindings/cpp/mmopt.hpp");
    let files = std::fs::read_dir(root().join("bindings/cpp/mmopt")).unwrap();
    let name = |f: std::fs::DirEntry| format!("mmopt/{}", f.file_name().to_string_lossy());
    let all: Vec<_> = files.map(|f| name(f.unwrap())).collect();
    for header in &all {
        let line = format!("#include \"{header}\"\n");
        assert!(umbrella.contains(&line), "mmopt.hpp lacks {line}");
    }
    all
}

#[test]
fn cpp_wraps_every_function() {
    let mut used = BTreeSet::new();
    for header in cpp_headers() {
        used.extend(names(&without_comments(&read(&format!("bindings/cpp/{header}")))));
    }
    check_complete("mmopt.hpp", &used, NOT_IN_CPP);
}

#[test]
fn go_wraps_every_function() {
    let mut used = BTreeSet::new();
    for entry in std::fs::read_dir(root().join("bindings/go")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if (name.ends_with(".go") && !name.ends_with("_test.go")) || name.ends_with(".c") {
            used.extend(names(&without_comments(&std::fs::read_to_string(&path).unwrap())));
        }
    }
    check_complete("bindings/go", &used, NOT_IN_GO);
}

/// Runs a command; what it printed, if it succeeded.
fn run(command: &mut Command) -> String {
    if let Some(runtime) = c_program::runtime() {
        command.env("MMOPT_ORT_LIB", runtime);
    }
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// A C++ compiler that is there, told to be strict.
fn compiler(name: &str, standard: &str) -> Command {
    let mut compiler = Command::new(name);
    compiler
        .arg(format!("-std={standard}"))
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"])
        .arg("-I")
        .arg(root().join("include"))
        .arg("-I")
        .arg(root().join("bindings/cpp"));
    compiler
}

#[test]
fn cpp_wrapper_compiles_in_every_mode() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("twice.cpp");
    std::fs::write(&source, "#include <mmopt.hpp>\n#include <mmopt.hpp>\nint main() {}\n").unwrap();
    // Each part also stands alone.
    for header in cpp_headers() {
        let alone = dir.path().join("alone.cpp");
        std::fs::write(&alone, format!("#include <{header}>\n")).unwrap();
        run(compiler("c++", "c++17").arg("-fsyntax-only").arg(&alone));
    }
    let mut n_run = 0;
    for name in ["g++", "clang++"] {
        if Command::new(name).arg("--version").output().is_err() {
            println!("not run: no {name}");
            continue;
        }
        for standard in ["c++17", "c++20", "c++23"] {
            // Older compilers call the newest standard by its working title.
            let probe = compiler(name, standard).args(["-E", "-xc++", "/dev/null"]).output();
            let known = probe.is_ok_and(|o| o.status.success());
            let standard = if known { standard } else { "c++2b" };
            run(compiler(name, standard).arg("-fsyntax-only").arg(&source));
            n_run += 1;
        }
    }
    assert!(n_run > 0, "no C++ compiler found");
}

/// Compiles and links a C++ program with more arguments.
fn link(source: &Path, standard: &str, dir: &Path, more: &[&str]) -> PathBuf {
    let major = env!("CARGO_PKG_VERSION_MAJOR");
    for name in ["libmmopt.so".to_owned(), format!("libmmopt.so.{major}")] {
        let _ = std::os::unix::fs::symlink(c_program::library(), dir.join(name));
    }
    let program = dir.join("program");
    run(compiler("c++", standard)
        .arg("-g")
        .arg(source)
        .arg("-o")
        .arg(&program)
        .arg(format!("-L{}", dir.display()))
        // Looked at before LD_LIBRARY_PATH, where Cargo puts folders with older copies.
        .arg(format!("-Wl,--disable-new-dtags,-rpath,{}", dir.display()))
        .arg("-lmmopt")
        .args(more)
        .arg("-lpthread"));
    program
}

#[test]
fn cpp_wrapper_passes_its_tests() {
    let probe = compiler("c++", "c++17")
        .args(["-E", "-xc++", "-include", "gtest/gtest.h", "/dev/null"])
        .output();
    if !probe.is_ok_and(|o| o.status.success()) {
        println!("not run: no GoogleTest (on Debian: libgtest-dev)");
        return;
    }
    let source = root().join("tests/cpp/wrapper_test.cpp");
    // The static assertions about ranges and std::span hold from C++20 on.
    run(compiler("c++", "c++20").arg("-fsyntax-only").arg(&source));
    let dir = tempfile::tempdir().unwrap();
    let program = link(&source, "c++17", dir.path(), &["-lgtest", "-lgtest_main"]);
    let text = run(Command::new(&program).env("TEST_TMPDIR", dir.path()));
    assert!(text.contains("[  PASSED  ]"), "{text}");
    let skipped = text.lines().find(|l| l.contains("not run")).unwrap_or("");
    println!("{}\n{skipped}", text.lines().last().unwrap_or(""));
}

/// The blocks of a language on a page, one after another.
fn blocks(page: &str, language: &str) -> String {
    let (text, fence) = (read(page), format!("```{language}\n"));
    let parts = text.split(&fence).skip(1);
    let blocks: Vec<&str> = parts.map(|p| p.split("```").next().unwrap_or_default()).collect();
    assert!(blocks.len() > 3, "{page} has only {} blocks of {language}", blocks.len());
    blocks.join("\n")
}

/// Runs a guide's program twice, the second time from the first one's checkpoint.
fn check_guide(program: &Path, dir: &Path) -> String {
    if c_program::runtime().is_none() {
        println!("not run: no ONNX Runtime");
        return String::new();
    }
    let first = run(Command::new(program).current_dir(dir));
    assert!(first.contains("epoch 1: bert 0.") && first.contains("epoch 2: bert 0."), "{first}");
    for file in ["bert/model.safetensors", "gpt2/tokenizer.json", "checkpoint/.lock"] {
        assert!(dir.join(file).exists(), "{file} was not written");
    }
    let second = run(Command::new(program).current_dir(dir));
    assert!(first.lines().next() != second.lines().next(), "it did not go on:\n{second}");
    check_stops(|| Command::new(program));
    first
}

/// Sentences enough that training takes a while.
fn sentences() -> String {
    let words = ["calm", "bright", "old", "dull", "long", "film", "song", "tale", "it", "was"];
    let mut text = String::new();
    for i in 0..3000usize {
        let picked = (0..6).map(|k| words[(i * 7 + i / 10 * (k + 3) + k * k) % words.len()]);
        text += &format!("{}\t{}\n", picked.collect::<Vec<_>>().join(" "), i / 3 % 2);
    }
    text
}

/// A guide's program that Ctrl-C ends, once in its loop and once in its fit, says so; started
/// again it comes to the bits of one that was left alone.
pub(crate) fn check_stops(program: impl Fn() -> Command) {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("train.tsv");
    std::fs::write(&data, sentences()).unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| home.path().join(name));
    [&whole, &parts].into_iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
    let start = |dir: &Path| {
        let mut command = program();
        command.arg(&data).current_dir(dir);
        command
    };
    run(&mut start(&whole));
    for begun in ["checkpoint", "log.jsonl"] {
        let mut child = start(&parts).stdout(Stdio::piped()).spawn().unwrap();
        while !parts.join(begun).exists() {
            assert_eq!(child.try_wait().unwrap(), None, "it ended before there was {begun}");
            std::thread::sleep(Duration::from_millis(2));
        }
        let sent = Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(130), "after {begun}: {text}");
        assert!(text.ends_with("stopped; the next start goes on from here\n"), "{text}");
        assert!(!parts.join("bert").exists(), "it went on to its end");
    }
    run(&mut start(&parts));
    for model in ["bert", "gpt2"] {
        let weights = |dir: &Path| std::fs::read(dir.join(model).join("model.safetensors"));
        assert!(weights(&whole).unwrap() == weights(&parts).unwrap(), "{model}");
    }
}

#[test]
fn the_program_of_the_c_guide_runs() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("guide.c");
    std::fs::write(&source, blocks("docs/guide_c.md", "c")).unwrap();
    check_guide(&c_program::compile(&source, dir.path()), dir.path());
}

#[test]
fn the_program_of_the_cpp_guide_runs() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("guide.cpp");
    std::fs::write(&source, blocks("docs/guide_cpp.md", "cpp")).unwrap();
    let text = check_guide(&link(&source, "c++17", dir.path(), &[]), dir.path());
    assert!(text.is_empty() || text.contains("gradient mode: 3.0"), "{text}");
}
