//! The C tests: each program of `tests/c` is compiled against the shared library and run. It gets
//! an empty folder as its argument, prints what failed, and ends with 0 when nothing did.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The shared library that belongs to this test run.
fn library() -> PathBuf {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let name = if cfg!(target_os = "macos") { "libmmopt.dylib" } else { "libmmopt.so" };
    let candidates = [deps.join(name), deps.parent().unwrap().join(name)];
    let age = |p: &PathBuf| p.metadata().and_then(|m| m.modified()).ok();
    let newest = candidates.into_iter().filter(|p| p.exists()).max_by_key(age);
    newest.expect("the shared library was not built")
}

/// Compiles `source` into `dir`, which also gets the library under its SONAME.
fn compile(source: &Path, dir: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = dir.join(source.file_stem().unwrap());
    let major = env!("CARGO_PKG_VERSION_MAJOR");
    for name in ["libmmopt.so".to_owned(), format!("libmmopt.so.{major}")] {
        let _ = std::os::unix::fs::symlink(library(), dir.join(name));
    }
    let output = Command::new("cc")
        .args(["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-g", "-O1"])
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror"])
        .arg("-I")
        .arg(root.join("include"))
        .arg(source)
        .arg("-o")
        .arg(&program)
        .arg(format!("-L{}", dir.display()))
        .arg("-lmmopt")
        .arg(format!("-Wl,-rpath,{}", dir.display()))
        .args(["-lm", "-lpthread"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}:\n{errors}", source.display());
    program
}

/// Whether ONNX Runtime is where tests look for it.
fn runtime() -> Option<PathBuf> {
    let named = std::env::var_os("MMOPT_ORT_LIB").map(PathBuf::from);
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join(".runtime/lib/libonnxruntime.so");
    named.or(Some(fetched)).filter(|p| p.exists())
}

fn check(name: &str) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/c/{name}.c"));
    let dir = tempfile::tempdir().unwrap();
    let program = compile(&source, dir.path());
    let scratch = dir.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let mut command = Command::new(&program);
    command.arg(&scratch);
    if let Some(runtime) = runtime() {
        command.env("MMOPT_ORT_LIB", runtime);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{text}", output.status);
    print!("{text}");
}

#[test]
fn errors_and_versions() {
    check("errors");
}

#[test]
#[cfg(feature = "text")]
fn text() {
    check("text");
}

#[test]
#[cfg(feature = "text")]
fn trainer() {
    check("trainer");
}

#[test]
fn optimizer() {
    check("optimizer");
}
