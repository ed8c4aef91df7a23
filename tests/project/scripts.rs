//! What scripts do for systems that this machine is not.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|e| e.unwrap().path());
    paths.flat_map(|p| if p.is_dir() { files(&p) } else { vec![p] }).collect()
}

/// What is built on `system`, where it is installed, and what leads to it there.
fn check(system: &str, built: &[&str], installed: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    built.iter().for_each(|name| fs::write(dir.path().join(name), name).unwrap());
    let prefix = dir.path().join("prefix");
    let script = |arguments: &[&str]| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(root.join("scripts/install.sh"));
        command.args(arguments).arg(dir.path()).arg(&prefix).env("SYSTEM", system);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    script(&[]);
    let version = env!("CARGO_PKG_VERSION");
    for name in installed {
        let name = name.replace("VERSION", version);
        let text = fs::read_to_string(prefix.join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(text, built[0], "{name}");
    }
    let cmake = fs::read_to_string(prefix.join("lib/cmake/mmopt/mmoptConfig.cmake")).unwrap();
    let named: Vec<&str> = cmake
        .split("\"${_mmopt}/")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|place| place.starts_with("lib/") || place.starts_with("bin/"))
        .collect();
    assert_eq!(named.len(), built.len(), "{cmake}");
    named.iter().for_each(|place| assert!(prefix.join(place).is_file(), "{place}"));
    script(&["--uninstall"]);
    assert_eq!(files(&prefix), Vec::<PathBuf>::new());
}

#[test]
fn libraries_are_installed_as_their_system_has_them() {
    let linux = ["lib/libmmopt.so", "lib/libmmopt.so.0", "lib/libmmopt.so.VERSION"];
    check("Linux", &["libmmopt.so", "libmmopt.a"], &linux);
    let macos = ["lib/libmmopt.dylib", "lib/libmmopt.0.dylib", "lib/libmmopt.VERSION.dylib"];
    check("Darwin", &["libmmopt.dylib", "libmmopt.a"], &macos);
    check("MINGW64_NT", &["mmopt.dll", "libmmopt.dll.a", "libmmopt.a"], &["bin/mmopt.dll"]);
}
