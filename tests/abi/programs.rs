//! The C tests: each program of `tests/c` is compiled against the shared library and run. It gets
//! an empty folder as its argument, prints what failed, and ends with 0 when nothing did.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::c_program::{compile, runtime};
use std::path::Path;
use std::process::Command;

fn check(name: &str) {
    run_under(&[], name, |_| {});
}

/// As [`check`], with files in the folder.
fn check_with(name: &str, prepare: impl Fn(&Path)) {
    run_under(&[], name, prepare);
}

/// Under valgrind: no error, and nothing lost.
#[cfg(feature = "text")]
fn check_memory(name: &str) {
    let lost = "definite,indirect";
    let leaks = [&format!("--show-leak-kinds={lost}"), &format!("--errors-for-leak-kinds={lost}")];
    run_under(
        &["valgrind", "-q", "--error-exitcode=9", "--leak-check=full", leaks[0], leaks[1]],
        name,
        |_| {},
    );
}

fn run_under(tool: &[&str], name: &str, prepare: impl Fn(&Path)) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    let dir = tempfile::tempdir().unwrap();
    let program = compile(&source, dir.path());
    let scratch = dir.path().join("scratch");
    std::fs::create_dir(&scratch).unwrap();
    prepare(&scratch);
    let program = program.to_str().unwrap();
    let words = [tool, &[program]].concat();
    let mut command = Command::new(words[0]);
    // Cargo names folders here that may hold an older library.
    command.args(&words[1..]).arg(&scratch).env("LD_LIBRARY_PATH", dir.path());
    if let Some(runtime) = runtime() {
        command.env("MMOPT_ORT_LIB", runtime);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}\n{text}", output.status);
    assert!(!text.contains("panicked at"), "{name} prints:\n{text}");
    print!("{text}");
}

#[test]
fn errors_and_versions() {
    check("c/errors.c");
}

#[test]
#[cfg(feature = "text")]
fn documented_errors() {
    check("c/documented_errors.c");
}

#[test]
#[cfg(feature = "text")]
fn text() {
    check("c/text.c");
}

#[test]
#[cfg(feature = "text")]
fn trainer() {
    check("c/trainer.c");
}

#[test]
#[cfg(feature = "text")]
fn evaluate() {
    check("c/evaluate.c");
}

#[test]
#[cfg(feature = "text")]
fn fit() {
    check("c/fit.c");
}

#[test]
#[cfg(feature = "text")]
fn predict() {
    check("c/predict.c");
}

#[test]
#[cfg(feature = "text")]
fn generate() {
    check("c/generate.c");
}

#[test]
#[cfg(feature = "text")]
fn metrics() {
    check("c/metrics.c");
}

#[test]
#[cfg(feature = "text")]
fn adapters() {
    check("c/adapters.c");
}

#[test]
fn reports() {
    check("c/report.c");
}

#[test]
fn optimizer() {
    check("c/optimizer.c");
}

#[test]
fn communicator() {
    check("c/communicator.c");
}

#[test]
#[cfg(feature = "text")]
fn ranks() {
    check("c/ranks.c");
}

#[test]
fn optimizer_callbacks() {
    check("c/optimizer_callbacks.c");
}

#[test]
fn gradient_mode() {
    check("c/gradient_mode.c");
}

#[test]
#[cfg(feature = "text")]
fn trainer_gradients() {
    check("c/trainer_gradients.c");
}

#[test]
#[cfg(feature = "text")]
fn short_lives_leave_nothing() {
    check("c/lives.c");
}

#[test]
#[cfg(feature = "text")]
fn bad_input_and_files() {
    check("c/bad_input.c");
}

#[test]
#[cfg(feature = "text")]
fn forked_children_are_refused() {
    check("c/fork.c");
}

/// A training run with checkpoints opens no socket, looks up no host, prints nothing of its own, and
/// writes nothing outside of the folder that it was given.
#[test]
#[cfg(all(feature = "text", target_os = "linux"))]
fn training_touches_nothing_outside_its_folders() {
    let Some(runtime) = runtime() else {
        println!("not run: no ONNX Runtime");
        return;
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(root.join("crash/train.c"), dir.path().join("train.c")).unwrap();
    for name in ["tiny.h", "check.h"] {
        std::fs::copy(root.join("c").join(name), dir.path().join(name)).unwrap();
    }
    let program = compile(&dir.path().join("train.c"), dir.path());
    let watch = dir.path().join("watch.so");
    let compiled = Command::new("cc")
        .args(["-std=c99", "-O1", "-shared", "-fPIC", "-o"])
        .args([&watch, &root.join("crash/watch.c")])
        .arg("-ldl")
        .status();
    assert!(compiled.unwrap().success());
    let [home, run, noted] = ["home", "run", "noted"].map(|name| dir.path().join(name));
    std::fs::create_dir(&home).unwrap();
    for way in ["at-once", "beside"] {
        let output = Command::new(&program)
            .args([run.to_str().unwrap(), "3", way])
            .current_dir(&home)
            .env("LD_LIBRARY_PATH", dir.path())
            .env("MMOPT_ORT_LIB", &runtime)
            .env_remove("ORT_DISABLE_TELEMETRY")
            .envs(["HOME", "XDG_CACHE_HOME", "TMPDIR"].map(|name| (name, &home)))
            .env("LD_PRELOAD", &watch)
            .env("WATCH", &noted)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.lines().count() == 2, "{text}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let all = std::fs::read_to_string(&noted).unwrap();
        let is_inside = |line: &&str| {
            let (what, path) = line.split_once(' ').unwrap();
            what != "socket" && what != "host" && Path::new(path).starts_with(&run)
        };
        assert!(all.lines().filter(is_inside).count() > 20, "its own files are seen");
        let outside: Vec<&str> = all.lines().filter(|line| !is_inside(line)).collect();
        assert_eq!(outside, [""; 0]);
        assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0);
        std::fs::remove_dir_all(&run).unwrap();
    }
}

#[test]
fn dlpack() {
    check("c/dlpack.c");
}

/// Scripts get the graphs, too, in the folder that `MMOPT_GENERATED` names.
#[test]
fn import_fixes() {
    use crate::exported_graphs::{exported, fragile, linear, linear_with_gradients};
    use mmopt::tensor::DType;
    let graphs = [
        ("exported", exported()),
        ("linear", linear(DType::F32)),
        ("gradients", linear_with_gradients(DType::F32)),
        ("log", fragile("Log")),
        ("sqrt", fragile("Sqrt")),
    ];
    let write = |folder: &Path| {
        for (name, graph) in &graphs {
            graph.write(&folder.join(format!("{name}.onnx")), false).unwrap();
        }
    };
    if let Some(folder) = std::env::var_os("MMOPT_GENERATED") {
        let folder = Path::new(&folder).join("graphs");
        std::fs::create_dir_all(&folder).unwrap();
        write(&folder);
    }
    check_with("c/import_fixes.c", write);
}

/// The programs that do not load ONNX Runtime: `make test-sanitizers` has the others.
#[test]
#[cfg(feature = "text")]
fn memory_is_clean() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("not run: no valgrind");
        return;
    }
    for name in ["c/dlpack.c", "c/optimizer.c", "c/optimizer_callbacks.c", "c/text.c"] {
        check_memory(name);
    }
}
