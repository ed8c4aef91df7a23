//! An installed copy serves programs outside of this tree: through pkg-config, CMake and Go; and it
//! can be removed without a trace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::c_program;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

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
    assert!(flags.contains("-lmmopt"), "{flags}");
    let project = dir.path().join("project");
    std::fs::create_dir(&project).unwrap();
    for file in ["grad_mode.c", "example.h"] {
        std::fs::copy(root().join("examples/c").join(file), project.join(file)).unwrap();
    }
    std::fs::write(project.join("Makefile"), MAKEFILE).unwrap();
    run(Command::new("make").current_dir(&project).env("PKG_CONFIG_PATH", &packages));
    let program = project.join("grad_mode");
    let text = run(Command::new(&program).env("LD_LIBRARY_PATH", prefix.join("lib")));
    assert!(text.contains("grad_mode: shallow 0.9"), "{text}");

    script(&["--uninstall"], &prefix);
    assert_eq!(files(&prefix), Vec::<PathBuf>::new());
}

/// Libraries in a folder of their own, and the whole moved afterwards; linked statically into a
/// shared library, which exports nothing of it.
#[test]
fn moved_and_inside_a_shared_library() {
    if !has("pkg-config") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (first, moved) = (dir.path().join("first"), dir.path().join("moved"));
    let libraries = c_program::library().parent().unwrap().to_owned();
    let install = || {
        let mut command = Command::new(root().join("scripts/install.sh"));
        command.arg(&libraries).env("LIBDIR", "lib/some/where");
        command
    };
    run(install().arg(&first));
    std::fs::rename(&first, &moved).unwrap();
    let source = dir.path().join("plugin.c");
    std::fs::write(
        &source,
        "#include <mmopt.h>\nconst char *plugin_version(void) { return mmopt_version(); }\n",
    )
    .unwrap();
    let flags = run(Command::new("pkg-config")
        .args(["--cflags", "--libs", "mmopt-static"])
        .env("PKG_CONFIG_PATH", moved.join("lib/some/where/pkgconfig")));
    let plugin = dir.path().join("libplugin.so");
    run(Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&plugin)
        .arg(&source)
        .args(flags.split_whitespace()));
    let exported = run(Command::new("nm").args(["-D", "--defined-only"]).arg(&plugin));
    assert!(exported.contains("plugin_version"), "{exported}");
    assert!(!exported.contains("mmopt_"), "{exported}");
    if has("cmake") {
        cmake_versions(&moved);
    }

    for (prefix, lib, expected) in [
        ("relative", "lib", "PREFIX is 'relative'; it must be an absolute path"),
        ("/x", "../lib", "LIBDIR is '../lib'; it must be a folder below PREFIX"),
        ("/x", "/usr/lib", "LIBDIR is '/usr/lib'"),
    ] {
        let output = install().arg(prefix).env("LIBDIR", lib).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(expected), "{prefix} {lib}: {text}");
    }
}

/// Which versions and ranges the installed package satisfies.
fn cmake_versions(prefix: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let list = "cmake_minimum_required(VERSION 3.19)\nproject(versions NONE)\n\
        foreach(wanted 0.1 0.1...0.3 0.1...<0.3 0.0...<0.1 0.2...0.3 0.2 1.0)\n\
        set(mmopt_DIR ${PLACE})\n\
        find_package(mmopt ${wanted} CONFIG QUIET)\n\
        message(STATUS \"wanted ${wanted}: ${mmopt_FOUND}\")\n\
        endforeach()\n";
    std::fs::write(dir.path().join("CMakeLists.txt"), list).unwrap();
    let text = run(Command::new("cmake")
        .arg("-S")
        .arg(dir.path())
        .arg("-B")
        .arg(dir.path().join("build"))
        .arg(format!("-DPLACE={}/lib/some/where/cmake/mmopt", prefix.display())));
    for (wanted, found) in [
        ("0.1", 1),
        ("0.1...0.3", 1),
        ("0.1...<0.3", 1),
        ("0.0...<0.1", 0),
        ("0.2...0.3", 0),
        ("0.2", 0),
        ("1.0", 0),
    ] {
        assert!(text.contains(&format!("wanted {wanted}: {found}\n")), "{wanted} {found}: {text}");
    }
}

const MAKEFILE: &str = "\
CFLAGS += -std=c99 -D_POSIX_C_SOURCE=200809L $(shell pkg-config --cflags mmopt)
LDLIBS += $(shell pkg-config --libs mmopt) -lm
grad_mode: grad_mode.c
";

const PROJECT: &str = "cmake_minimum_required(VERSION 3.12)
project(outside C CXX)
find_package(mmopt 0.1 CONFIG REQUIRED)
add_executable(shared main.c)
target_link_libraries(shared mmopt::mmopt)
add_executable(static main.cpp)
target_link_libraries(static mmopt::static)
add_executable(two_models two_models.cpp)
target_link_libraries(two_models mmopt::mmopt)
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
    let example = root().join("examples/cpp/two_models.cpp");
    std::fs::copy(example, project.join("two_models.cpp")).unwrap();
    let build = dir.path().join("build");
    run(Command::new("cmake")
        .arg("-S")
        .arg(&project)
        .arg("-B")
        .arg(&build)
        .arg("-DCMAKE_CXX_STANDARD=17")
        .arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display())));
    run(Command::new("cmake").arg("--build").arg(&build));
    // Without the folders with older copies that Cargo puts into LD_LIBRARY_PATH.
    let version = run(Command::new(build.join("shared")).env_remove("LD_LIBRARY_PATH"));
    assert_eq!(version.trim(), env!("CARGO_PKG_VERSION"));
    assert_eq!(run(&mut Command::new(build.join("static"))).trim(), "7");
    if let Some(runtime) = c_program::runtime() {
        let mut program = Command::new(build.join("two_models"));
        let text = run(program.env_remove("LD_LIBRARY_PATH").env("MMOPT_ORT_LIB", runtime));
        assert!(text.contains("two_models: bert 0."), "{text}");
    }
}

/// Go commands that see an installed copy; nothing where Go is not there.
struct Go {
    prefix: PathBuf,
}

impl Go {
    /// Always installs to the same place, so that Go's build cache serves. The cache does not see
    /// what pkg-config says, but it does see CGO_LDFLAGS: naming the place there keeps copies apart.
    fn new() -> Option<Self> {
        if Command::new("go").arg("version").output().is_err() || !has("pkg-config") {
            println!("not run: no go");
            return None;
        }
        static PREFIX: OnceLock<PathBuf> = OnceLock::new();
        let prefix = PREFIX.get_or_init(|| install(Path::new(env!("CARGO_TARGET_TMPDIR"))));
        Some(Self { prefix: prefix.clone() })
    }

    fn command(&self, dir: &Path, arguments: &[&str]) -> Command {
        let libraries = self.prefix.join("lib");
        let mut go = Command::new("go");
        go.current_dir(dir)
            .args(arguments)
            .env("GOFLAGS", "-buildvcs=false -mod=mod")
            .env("GOWORK", "off")
            .env("PKG_CONFIG_PATH", libraries.join("pkgconfig"))
            .env("CGO_LDFLAGS", format!("-Wl,-rpath,{}", libraries.display()))
            // Cargo puts folders with older copies there.
            .env_remove("LD_LIBRARY_PATH");
        if let Some(runtime) = c_program::runtime() {
            go.env("MMOPT_ORT_LIB", runtime);
        }
        go
    }

    /// Where `go install` puts programs.
    fn programs(&self) -> PathBuf {
        let path = run(&mut self.command(root(), &["env", "GOPATH"]));
        Path::new(path.trim()).join("bin")
    }
}

/// The tests, with the race detector and garbage that is collected all the time; and the linters.
#[test]
fn through_go() {
    let Some(go) = Go::new() else { return };
    let package = root().join("bindings/go");
    run(&mut go.command(&package, &["vet", "-tags", "mmopt_gc", "./..."]));
    let staticcheck = go.programs().join("staticcheck");
    if staticcheck.exists() {
        for dir in ["bindings/go", "examples/go", "benches/abi/go"] {
            let mut check = go.command(&root().join(dir), &[]);
            let mut command = Command::new(&staticcheck);
            command.current_dir(root().join(dir)).arg("./...");
            for (name, value) in check.env("GOTOOLCHAIN", "local").get_envs() {
                command.env(name, value.unwrap_or_default());
            }
            run(&mut command);
        }
    } else {
        println!("not run: no staticcheck (scripts/setup.sh installs it)");
    }
    println!("{}", run(&mut go.command(&package, &["test", "-count=1", "./..."])));
    let strict = ["test", "-count=1", "-race", "-tags", "mmopt_gc", "./..."];
    let mut strict = go.command(&package, &strict);
    println!("{}", run(strict.env("GOGC", "1").env("MMOPT_TEST_GC", "1")));
}

const MODULE: &str = "module outside

go 1.24

require mmopt v0.0.0

replace mmopt => ";

/// A module elsewhere, linked to the shared library and to the static one.
#[test]
fn through_a_go_module() {
    let Some(go) = Go::new() else { return };
    if c_program::runtime().is_none() {
        println!("not run: no ONNX Runtime");
        return;
    }
    let module = tempfile::tempdir().unwrap();
    let package = root().join("bindings/go");
    let text = format!("{MODULE}{}\n", package.display());
    std::fs::write(module.path().join("go.mod"), text).unwrap();
    let programs = [
        ("two_models", "", "two_models: bert 0."),
        ("two_models", "mmopt_static", "two_models: bert 0."),
        ("questions", "", "questions: exact match "),
    ];
    for (name, tags, expected) in programs {
        let program = root().join("examples/go").join(name).join("main.go");
        std::fs::copy(program, module.path().join("main.go")).unwrap();
        let text = run(&mut go.command(module.path(), &["run", "-tags", tags, "."]));
        assert!(text.contains(expected), "{text}");
    }
}

/// The pieces of Go in its guide, one after another, are a program.
#[cfg(feature = "text")]
#[test]
fn the_program_of_the_go_guide_runs() {
    let Some(go) = Go::new() else { return };
    if c_program::runtime().is_none() {
        println!("not run: no ONNX Runtime");
        return;
    }
    let module = tempfile::tempdir().unwrap();
    let text = format!("{MODULE}{}\n", root().join("bindings/go").display());
    std::fs::write(module.path().join("go.mod"), text).unwrap();
    let guide = std::fs::read_to_string(root().join("docs/guide_go.md")).unwrap();
    let parts = guide.split("```go\n").skip(1);
    let blocks: Vec<&str> = parts.map(|p| p.split("```").next().unwrap()).collect();
    std::fs::write(module.path().join("main.go"), blocks.join("\n")).unwrap();
    run(&mut go.command(module.path(), &["vet", "."]));
    let first = run(&mut go.command(module.path(), &["run", "."]));
    assert!(first.contains("epoch 2: bert 0."), "{first}");
    assert!(module.path().join("gpt2/model.safetensors").exists());
    let second = run(&mut go.command(module.path(), &["run", "."]));
    assert!(first.lines().next() != second.lines().next(), "it did not go on:\n{second}");
    // A program of its own: `go run` passes no signal on.
    let program = module.path().join("guide");
    run(go.command(module.path(), &["build", "-o"]).arg(&program).arg("."));
    crate::bindings::check_stops(|| {
        let mut command = Command::new(&program);
        command.env_remove("LD_LIBRARY_PATH");
        if let Some(runtime) = c_program::runtime() {
            command.env("MMOPT_ORT_LIB", runtime);
        }
        command
    });
}
