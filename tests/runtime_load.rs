//! Loading ONNX Runtime: each wrong library gives an error that says why, and a good one can
//! still be loaded afterwards. A process holds one runtime, so each case has a process of its own.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use mmopt::runtime::{Session, SessionOptions, load, loaded};
use mmopt::{Error, Kind};

#[path = "common/tiny_onnx.rs"]
mod tiny_onnx;

const CHILD: &str = "MMOPT_TEST_CHILD";

/// The runtime that the tests run on: what `MMOPT_ORT_LIB` names, else what `make` fetches.
fn good() -> PathBuf {
    let path = std::env::var_os("MMOPT_TEST_GOOD")
        .or_else(|| std::env::var_os("MMOPT_ORT_LIB"))
        .map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join(".runtime/lib/libonnxruntime.so"),
            PathBuf::from,
        );
    assert!(path.exists(), "{}: no such file; run `make runtime`", path.display());
    path
}

/// Runs `body` in a process of its own, with `vars` as the only variables that name a runtime.
/// `name` is the calling test's.
fn alone(name: &str, vars: &[(&str, &Path)], body: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    run_child(&std::env::current_exe().unwrap(), name, vars);
}

fn run_child(program: &Path, name: &str, vars: &[(&str, &Path)]) {
    let output = Command::new(program)
        .args(["--exact", name, "--nocapture"])
        .env_remove("MMOPT_ORT_LIB")
        .env_remove("ORT_DYLIB_PATH")
        .env(CHILD, "1")
        .env("MMOPT_TEST_GOOD", good())
        .envs(vars.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}", output.status);
    assert!(text.contains("1 passed"), "the case did not run:\n{text}");
}

/// `path` is refused for a reason that contains `part`; then the good one loads and works.
fn refused(path: &Path, part: &str) {
    let error = load(Some(path)).unwrap_err();
    assert_unavailable(&error, path, part);
    assert!(loaded().is_none());
    works(Some(&good()));
}

fn assert_unavailable(error: &Error, path: &Path, part: &str) {
    assert_eq!(error.kind(), Kind::RuntimeUnavailable, "{error}");
    assert!(error.message().contains(&path.display().to_string()), "{error}");
    assert!(error.message().contains(part), "no '{part}' in: {error}");
}

fn works(path: Option<&Path>) {
    let library = load(path).unwrap();
    assert!(library.version() >= (1, 17, 0), "{library:?}");
    assert!(library.path().is_file());
    assert!(library.providers().iter().any(|p| p == "CPUExecutionProvider"), "{library:?}");
    use tiny_onnx::{F32, model, node, value};
    let nodes = [node("Neg", "", &["x"], &["y"], &[])];
    let bytes = model(17, &nodes, &[value("x", F32, &[])], &[value("y", F32, &[])], &[]);
    let session = Session::from_bytes(&bytes, &SessionOptions::default()).unwrap();
    let x = mmopt::tensor::Tensor::scalar(3f32).unwrap();
    let y = session.run(&[("x", &x)], &["y"]).unwrap();
    assert_eq!(y[0].as_slice::<f32>().unwrap(), [-3.]);
}

/// A shared library made from C, or `None` without a compiler.
fn compiled(dir: &Path, source: &str) -> Option<PathBuf> {
    let (c, so) = (dir.join("fake.c"), dir.join("libfake.so"));
    std::fs::write(&c, source).unwrap();
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&so).arg(&c).status();
    match made {
        Ok(status) => {
            assert!(status.success(), "cc failed");
            Some(so)
        }
        Err(error) => {
            println!("not run: no C compiler ({error})");
            None
        }
    }
}

/// A library that looks like ONNX Runtime with this version and no API.
fn fake(version: &str) -> String {
    format!(
        "static const void *api(unsigned v) {{ (void)v; return 0; }}
         static const char *version(void) {{ return {version}; }}
         static const void *base[2] = {{ (void *)api, (void *)version }};
         const void *OrtGetApiBase(void) {{ return base; }}"
    )
}

fn fake_is_refused(source: &str, part: &str) {
    let dir = tempfile::tempdir().unwrap();
    if let Some(path) = compiled(dir.path(), source) {
        refused(&path, part);
    }
}

#[test]
fn missing_file() {
    alone("missing_file", &[], || refused(Path::new("/no/such/runtime.so"), "no such file"));
}

#[test]
fn garbage_file() {
    alone("garbage_file", &[], || {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("garbage.so");
        std::fs::write(&path, vec![7; 5000]).unwrap();
        refused(&path, "ELF");
    });
}

#[test]
fn directory_without_it() {
    alone("directory_without_it", &[], || {
        let dir = tempfile::tempdir().unwrap();
        refused(&dir.path().canonicalize().unwrap(), "no such file");
    });
}

#[test]
fn another_library() {
    alone("another_library", &[], || refused(Path::new("libm.so.6"), "OrtGetApiBase"));
}

#[test]
fn too_old() {
    alone("too_old", &[], || fake_is_refused(&fake("\"1.10.0\""), "1.10.0 is too old: 1.17"));
}

#[test]
fn good_version_without_api() {
    let part = "does not offer API level 17";
    alone("good_version_without_api", &[], || fake_is_refused(&fake("\"1.32.0\""), part));
}

#[test]
fn unreadable_version() {
    alone("unreadable_version", &[], || fake_is_refused(&fake("\"nightly\""), "'nightly'"));
}

#[test]
fn no_version() {
    alone("no_version", &[], || fake_is_refused(&fake("(char *)0"), "reports no version"));
}

#[test]
fn no_api_base() {
    let source = "const void *OrtGetApiBase(void) { return 0; }";
    alone("no_api_base", &[], || fake_is_refused(source, "OrtGetApiBase gave NULL"));
}

#[test]
fn named_by_the_variable_it_is_the_only_one_tried() {
    let bad = Path::new("/no/such/variable.so");
    let vars = [("MMOPT_ORT_LIB", bad)];
    alone("named_by_the_variable_it_is_the_only_one_tried", &vars, || {
        let error = load(None).unwrap_err();
        assert_unavailable(&error, bad, "MMOPT_ORT_LIB");
        assert_eq!(error.message().matches("\n  ").count(), 1, "{error}");
        works(Some(&good()));
    });
}

#[test]
fn own_variable_wins_over_the_common_one() {
    let (name, good, bad) =
        ("own_variable_wins_over_the_common_one", good(), Path::new("/no/such.so"));
    alone(name, &[("MMOPT_ORT_LIB", &good), ("ORT_DYLIB_PATH", bad)], || works(None));
}

#[test]
fn common_variable_serves() {
    let good = good();
    alone("common_variable_serves", &[("ORT_DYLIB_PATH", &good)], || works(None));
}

#[test]
fn the_second_path_must_be_the_first() {
    alone("the_second_path_must_be_the_first", &[], || {
        let first = load(Some(&good())).unwrap();
        let again = load(Some(&good().canonicalize().unwrap())).unwrap();
        assert!(std::ptr::eq(first, again));
        assert!(std::ptr::eq(first, load(None).unwrap()));
        let error = load(Some(Path::new("/no/such/second.so"))).unwrap_err();
        assert_eq!(error.kind(), Kind::State, "{error}");
        assert!(error.message().contains(&first.path().display().to_string()), "{error}");
    });
}

#[test]
fn threads_may_load_at_once() {
    alone("threads_may_load_at_once", &[], || {
        let good = good();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| works(Some(&good)));
            }
        });
    });
}

#[test]
fn first_sessions_may_open_at_once() {
    let name = "first_sessions_may_open_at_once";
    if std::env::var_os(CHILD).is_none() {
        // What goes wrong here goes wrong now and then.
        let program = std::env::current_exe().unwrap();
        return (0..12).for_each(|_| run_child(&program, name, &[]));
    }
    let good = good();
    load(Some(&good)).unwrap();
    let gate = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                gate.wait();
                works(Some(&good));
            });
        }
    });
}

#[test]
fn usual_places_are_listed() {
    let name = "usual_places_are_listed";
    if std::env::var_os(CHILD).is_none() {
        // Away from the source tree, so that nothing lies beside the program.
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("test");
        std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        return run_child(&program, name, &[]);
    }
    let here = std::env::current_exe().unwrap();
    match load(None) {
        Ok(library) => println!("not run: the system has {library:?}"),
        Err(error) => {
            assert_unavailable(&error, here.parent().unwrap(), "the usual places");
            assert_unavailable(&error, Path::new("/usr/local/lib"), "MMOPT_ORT_LIB");
            works(Some(&good()));
        }
    }
}
