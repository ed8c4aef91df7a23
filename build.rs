//! Build script: link arguments of the shared library.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}
