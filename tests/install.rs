//! An installed copy serves programs outside of this tree: through pkg-config, CMake and Go; and it
//! can be removed without a trace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/c_program.rs"]
#[allow(dead_code)] // each test program uses a part
mod c_program;

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command; what it printed, if it succeeded.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?}:\n{text}");
    text
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("not run: no {program}");
    }
    found
}

fn script(arguments: &[&str], prefix: &Path) -> String {
    let libraries = c_program::library().parent().unwrap().to_owned();
    run(Command::new(root().join("scripts/install.sh")).args(arguments).arg(libraries).arg(prefix))
}

fn install(dir: &Path) -> PathBuf {
    let prefix = dir.join("prefix");
    script(&[], &prefix);
    prefix
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|e| e.unwrap().path());
    paths.flat_map(|p| if p.is_dir() { files(&p) } else { vec![p] }).collect()
}

#[test]
fn through_pkg_config() {
    if !has("pkg-config") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let prefix = install(dir.path());
    let packages = prefix.join("lib/pkgconfig");
    let flags = run(Command::new("pkg-config")
        .args(["--cflags", "--libs", "mmopt"])
        .env("PKG_CONFIG_PATH", &packages));
    let program = dir.path().join("grad_mode");
    run(Command::new("cc")
        .args(["-std=c99", "-D_POSIX_C_SOURCE=200809L"])
        .arg(root().join("examples/c/grad_mode.c"))
        .arg("-o")
        .arg(&program)
        .args(flags.split_whitespace())
        .arg("-lm"));
    let text = run(Command::new(&program).env("LD_LIBRARY_PATH", prefix.join("lib")));
    assert!(text.contains("grad_mode: shallow 0.9"), "{text}");

    script(&["--uninstall"], &prefix);
    assert_eq!(files(&prefix), Vec::<PathBuf>::new());
}

const PROJECT: &str = "cmake_minimum_required(VERSION 3.12)
project(outside C CXX)
find_package(mmopt 0.1 CONFIG REQUIRED)
add_executable(shared main.c)
target_link_libraries(shared mmopt::mmopt)
add_executable(static main.cpp)
target_link_libraries(static mmopt::static)
";

#[test]
fn through_cmake_shared_and_static() {
    if !has("cmake") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let prefix = install(dir.path());
    let project = dir.path().join("project");
    std::fs::create_dir(&project).unwrap();
    std::fs::write(project.join("CMakeLists.txt"), PROJECT).unwrap();
    let c = "#include <mmopt.h>\n#include <stdio.h>\nint main(void) { puts(mmopt_version()); }\n";
    let cpp = "#include <mmopt.hpp>\n#include <cstdio>\n\
        int main() { std::printf(\"%zu\\n\", mmopt::corpus::synthetic(7).size()); }\n";
    std::fs::write(project.join("main.c"), c).unwrap();
    std::fs::write(project.join("main.cpp"), cpp).unwrap();
    let build = dir.path().join("build");
    run(Command::new("cmake")
        .arg("-S")
        .arg(&project)
        .arg("-B")
        .arg(&build)
        .arg("-DCMAKE_CXX_STANDARD=17")
        .arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display())));
    run(Command::new("cmake").arg("--build").arg(&build));
    let version = run(&mut Command::new(build.join("shared")));
    assert_eq!(version.trim(), env!("CARGO_PKG_VERSION"));
    assert_eq!(run(&mut Command::new(build.join("static"))).trim(), "7");
}

#[test]
fn through_go() {
    let with = |dir: &Path| {
        let mut go = Command::new("go");
        go.current_dir(dir).env("GOFLAGS", "-buildvcs=false -mod=mod").env("GOWORK", "off");
        go
    };
    if with(root()).arg("version").output().is_err() || !has("pkg-config") {
        println!("not run: no go");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let prefix = install(dir.path());
    let libraries = prefix.join("lib");
    let go = |folder: &str, arguments: &[&str]| {
        let mut go = with(&root().join(folder));
        go.args(arguments)
            .env("PKG_CONFIG_PATH", libraries.join("pkgconfig"))
            .env("LD_LIBRARY_PATH", &libraries);
        if let Some(runtime) = c_program::runtime() {
            go.env("MMOPT_ORT_LIB", runtime);
        }
        run(&mut go)
    };
    go("bindings/go", &["vet", "./..."]);
    println!("{}", go("bindings/go", &["test", "-count=1", "./..."]));
    if c_program::runtime().is_some() {
        let text = go("examples/go", &["run", "./two_models"]);
        assert!(text.contains("two_models: bert 0."), "{text}");
    }
}
