//! Build script: the C header from `src/ffi`, and the shared library's link arguments.
//!
//! The header goes to `OUT_DIR/mmopt.h`; a test compares it with the committed
//! `include/mmopt.h`. A failure to generate it is a warning: users build from the committed one.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "src/ffi/header.rs"]
mod header;

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
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml"))?;
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in header::GROUPS.iter().flat_map(|group| group.files) {
        builder = builder.with_src(folder.join(file));
    }
    let mut generated = Vec::new();
    builder.generate()?.write(&mut generated);
    let mut top = fs::read_to_string(folder.join("header_top.h"))?;
    for part in ["MAJOR", "MINOR", "PATCH"] {
        top = top.replace(&format!("@{part}@"), &var(&format!("CARGO_PKG_VERSION_{part}")));
    }
    let source =
        |file: &str| -> Result<_, Box<dyn Error>> { Ok(fs::read_to_string(folder.join(file))?) };
    let text = header::header(&top, &String::from_utf8(generated)?, source)?;
    fs::write(out, text)?;
    Ok(())
}
