//! Every exported function, called in every way that its declaration allows for. Programs are
//! generated from the header and `abi/recipes.txt`; a library between a program and libmmopt notes
//! what it really called, from which `docs/abi_coverage.md` is made. `MMOPT_UPDATE_ABI=1` writes
//! that page anew.

#![cfg(all(target_os = "linux", feature = "text"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use crate::header::Header;
use crate::{c_program, coverage, generate, recipes, trace};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const RECIPES: &str = include_str!("recipes.txt");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn the_header() -> Header {
    Header::parse(&fs::read_to_string(root().join("include/mmopt.h")).unwrap())
}

/// Compiles `source`; `dir` holds generated files, and gets the library under its SONAME.
fn compile(source: &Path, dir: &Path, program: &Path, flags: &[&str]) {
    let major = env!("CARGO_PKG_VERSION_MAJOR");
    for name in ["libmmopt.so".to_owned(), format!("libmmopt.so.{major}")] {
        let _ = std::os::unix::fs::symlink(c_program::library(), dir.join(name));
    }
    let output = Command::new("cc")
        .args(["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-g", "-O1", "-Wall", "-Wextra"])
        .args(["-Wpedantic", "-Werror"])
        .args(
            ["include", "tests/abi", "tests/c"].map(|d| format!("-I{}", root().join(d).display())),
        )
        .arg(format!("-I{}", dir.display()))
        .args(flags)
        .arg(source)
        .arg("-o")
        .arg(program)
        .args([format!("-L{}", dir.display()), format!("-Wl,-rpath,{}", dir.display())])
        .args(["-lmmopt", "-lm", "-lpthread", "-ldl"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}:\n{errors}", source.display());
}

/// Runs a program in an empty folder; the text that it printed.
fn run(command: &mut Command) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let program = command.get_program().to_owned();
    let mut whole = Command::new(program);
    whole.arg(scratch.path()).args(command.get_args());
    whole.envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
    whole.env("MMOPT_ORT_LIB", c_program::runtime().unwrap());
    let output = whole.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{whole:?}: {}\n{text}", output.status);
    text.into_owned()
}

fn has_runtime() -> bool {
    let found = c_program::runtime().is_some();
    if !found {
        println!("not run: no ONNX Runtime");
    }
    found
}

/// The generated calls and one of the programs that make them. Scripts get the calls, too, in the
/// folder that `MMOPT_GENERATED` names.
fn generated(dir: &Path, name: &str) -> PathBuf {
    let calls = generate::source(&the_header(), RECIPES);
    if let Some(folder) = std::env::var_os("MMOPT_GENERATED") {
        fs::create_dir_all(&folder).unwrap();
        fs::write(Path::new(&folder).join("calls.h"), &calls).unwrap();
    }
    fs::write(dir.join("calls.h"), calls).unwrap();
    let program = dir.join(name);
    compile(&root().join(format!("tests/abi/{name}.c")), dir, &program, &[]);
    program
}

#[test]
fn recipes_are_about_the_header() {
    let strays = recipes::strays(RECIPES, &the_header().functions);
    assert!(strays.is_empty(), "tests/abi/recipes.txt: {strays:#?}");
}

/// The systematic calls and all programs of `tests/c`, traced.
#[test]
fn every_function_is_called_in_every_way() {
    if !has_runtime() {
        return;
    }
    let (header, dir) = (the_header(), tempfile::tempdir().unwrap());
    let (wrappers, library) = (dir.path().join("wrappers.c"), dir.path().join("libtrace.so"));
    fs::write(&wrappers, trace::source(&header, RECIPES)).unwrap();
    compile(&wrappers, dir.path(), &library, &["-shared", "-fPIC"]);
    let mut programs = vec![generated(dir.path(), "systematic")];
    let mut sources: Vec<PathBuf> =
        fs::read_dir(root().join("tests/c")).unwrap().map(|f| f.unwrap().path()).collect();
    sources.retain(|p| p.extension().is_some_and(|e| e == "c"));
    // Many short lives say nothing new; import_fixes.c needs files that another test makes.
    sources.retain(|p| !p.ends_with("lives.c") && !p.ends_with("import_fixes.c"));
    sources.sort();
    for source in &sources {
        let program = dir.path().join(source.file_stem().unwrap());
        compile(source, dir.path(), &program, &[]);
        programs.push(program);
    }
    let notes = dir.path().join("notes");
    for program in &programs {
        let mut command = Command::new(program);
        let text = run(command.env("LD_PRELOAD", &library).env("MMOPT_TRACE", &notes));
        println!("{}: {}", program.file_name().unwrap().display(), text.trim_end());
    }
    let seen = trace::read(&fs::read_to_string(&notes).unwrap(), &header);
    let page = coverage::page(&header, RECIPES, &seen);
    let place = root().join("docs/abi_coverage.md");
    if std::env::var_os("MMOPT_UPDATE_ABI").is_some() {
        fs::write(&place, &page).unwrap();
    }
    let gaps = coverage::gaps(&header, RECIPES, &seen);
    assert!(gaps.is_empty(), "not covered:\n{}", gaps.join("\n"));
    let known = fs::read_to_string(&place).unwrap_or_default();
    assert!(known == page, "docs/abi_coverage.md is stale; `make abi-dump` writes it");
}

/// A function that nobody calls, and one that lacks a NULL, are told.
#[test]
fn gaps_are_told() {
    let header = the_header();
    let seen = vec![trace::Seen::default(); header.functions.len()];
    let gaps = coverage::gaps(&header, RECIPES, &seen);
    assert!(gaps.len() > 3 * header.functions.len(), "{gaps:?}");
    assert!(gaps.iter().any(|g| g == "mmopt_corpus_text: NULL for text"), "{gaps:?}");
}

#[test]
fn random_calls() {
    if !has_runtime() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = generated(dir.path(), "fuzz");
    for seed in ["1", "2"] {
        println!("{}", run(Command::new(&program).args(["60", seed, "6000"])).trim_end());
    }
}
