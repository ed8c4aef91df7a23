//! C programs against the shared library that belongs to this test run.

// Each test file uses its part of this.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The shared library that belongs to this test run.
pub fn library() -> PathBuf {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let name = format!("{}mmopt{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let candidates = [deps.join(&name), deps.parent().unwrap().join(&name)];
    let age = |p: &PathBuf| p.metadata().and_then(|m| m.modified()).ok();
    let newest = candidates.into_iter().filter(|p| p.exists()).max_by_key(age);
    newest.expect("the shared library was not built")
}

/// Compiles a C or C++ `source` into `dir`, which also gets the library under its SONAME.
pub fn compile(source: &Path, dir: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = dir.join(source.file_stem().unwrap());
    let major = env!("CARGO_PKG_VERSION_MAJOR");
    for name in ["libmmopt.so".to_owned(), format!("libmmopt.so.{major}")] {
        let _ = std::os::unix::fs::symlink(library(), dir.join(name));
    }
    let is_cpp = source.extension().is_some_and(|e| e == "cpp");
    let (compiler, standard) = if is_cpp { ("c++", "-std=c++17") } else { ("cc", "-std=c99") };
    let output = Command::new(compiler)
        .args([standard, "-D_POSIX_C_SOURCE=200809L", "-g", "-O1"])
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror"])
        .arg("-I")
        .arg(root.join("include"))
        .arg("-I")
        .arg(root.join("bindings/cpp"))
        .arg(source)
        .arg("-o")
        .arg(&program)
        .arg(format!("-L{}", dir.display()))
        .arg("-lmmopt")
        // Looked at before LD_LIBRARY_PATH, where Cargo puts folders with older copies.
        .arg(format!("-Wl,--disable-new-dtags,-rpath,{}", dir.display()))
        .args(["-lm", "-lpthread"])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}:\n{errors}", source.display());
    program
}

/// Whether ONNX Runtime is where tests look for it.
pub fn runtime() -> Option<PathBuf> {
    let named = std::env::var_os("MMOPT_ORT_LIB").map(PathBuf::from);
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join(".runtime/lib/libonnxruntime.so");
    named.or(Some(fetched)).filter(|p| p.exists())
}
