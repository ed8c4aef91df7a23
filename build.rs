//! Build script: the C header from `src/ffi`, and the shared library's link arguments.
//!
//! The header goes to `OUT_DIR/mmopt.h`; a test compares it with the committed
//! `include/mmopt.h`. A failure to generate it is a warning: users build from the committed one.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/ffi");
    link_arguments();
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("mmopt.h");
    if let Err(error) = header(&out) {
        println!("cargo:warning=the C header was not generated: {error}");
        let _ = fs::write(&out, "");
    }
}

/// The name under which programs look for the shared library. The ABI's number in it is the
/// library's major version: it changes when old programs would break. Windows has no such name;
/// what is exported, rustc says to each linker.
fn link_arguments() {
    let major = var("CARGO_PKG_VERSION_MAJOR");
    match var("CARGO_CFG_TARGET_OS").as_str() {
        "linux" | "android" | "freebsd" | "netbsd" | "openbsd" => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libmmopt.so.{major}");
        }
        "macos" => {
            let name = format!("@rpath/libmmopt.{major}.dylib");
            println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,{name}");
        }
        _ => (),
    }
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn header(out: &Path) -> Result<(), Box<dyn Error>> {
    let folder = Path::new("src/ffi");
    let mut config = cbindgen::Config::from_file(folder.join("cbindgen.toml"))?;
    config.header = Some(fs::read_to_string(folder.join("header_top.h"))?);
    config.after_includes = Some(macros());
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in sources(folder)? {
        builder = builder.with_src(file);
    }
    builder.generate()?.write_to_file(out);
    Ok(())
}

/// The files in the order of the `mod` lines of mod.rs, folder by folder: the header's order.
fn sources(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let modules = fs::read_to_string(folder.join("mod.rs"))?;
    let mut files = Vec::new();
    for line in modules.lines() {
        let line = line.strip_prefix("pub(super) ").unwrap_or(line);
        let Some(name) = line.strip_prefix("mod ").and_then(|m| m.strip_suffix(';')) else {
            continue;
        };
        match folder.join(name) {
            inner if inner.is_dir() => files.extend(sources(&inner)?),
            _ => files.push(folder.join(format!("{name}.rs"))),
        }
    }
    Ok(files)
}

fn macros() -> String {
    let [major, minor, patch] =
        ["MAJOR", "MINOR", "PATCH"].map(|part| var(&format!("CARGO_PKG_VERSION_{part}")));
    format!(
        "
/** The version of this header, first part; mmopt_version() tells that of the loaded library. */
#define MMOPT_VERSION_MAJOR {major}
/** The second part. */
#define MMOPT_VERSION_MINOR {minor}
/** The third part. */
#define MMOPT_VERSION_PATCH {patch}
/** All three as text. */
#define MMOPT_VERSION \"{major}.{minor}.{patch}\"
/** All three as one number, to be compared with mmopt_version_number(). */
#define MMOPT_VERSION_NUMBER \\
    (MMOPT_VERSION_MAJOR * 10000 + MMOPT_VERSION_MINOR * 100 + MMOPT_VERSION_PATCH)

/** Marks what the library exports. Define MMOPT_STATIC to link the static library on Windows. */
#ifndef MMOPT_API
#if defined(_WIN32) && !defined(MMOPT_STATIC)
#define MMOPT_API __declspec(dllimport)
#elif defined(__GNUC__) || defined(__clang__)
#define MMOPT_API __attribute__((visibility(\"default\")))
#else
#define MMOPT_API
#endif
#endif

/** Marks functions whose error must be looked at. */
#ifndef MMOPT_MUST_USE
#if defined(__GNUC__) || defined(__clang__)
#define MMOPT_MUST_USE __attribute__((warn_unused_result))
#else
#define MMOPT_MUST_USE
#endif
#endif"
    )
}
