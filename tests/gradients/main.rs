//! Differentiation: every gradient rule, graphs of exported models, files of other tools and of old
//! opsets, damaged graphs.

mod files;
mod fuzz;
mod graphs;
mod hostile;
mod operators;
mod opsets;
mod oracle;
mod rules;

/// Whether a runtime is there; says so where it is not.
fn runtime() -> bool {
    match mmopt::runtime::load(None) {
        Ok(_) => true,
        Err(e) => {
            eprintln!("not run: no ONNX Runtime ({e})");
            false
        }
    }
}
