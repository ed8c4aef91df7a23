//! Compares this library's gradients of exported models with reference gradients.
//!
//! `check_gradients DIR`: DIR is a folder with `oracle.json`, or the parent of several. For every
//! .onnx file it attaches the stated loss, runs one batch, and prints the error of the loss and
//! the parameter with the largest relative L2 error. Files under `invalid/` must be refused.
//! Exit status 1 when an error exceeds 1e-4 or a file behaves otherwise than it should.

mod oracle;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use oracle::Oracle;

const BOUND: f64 = 1e-4;

fn main() -> ExitCode {
    let Some(dir) = std::env::args().nth(1) else {
        eprintln!("usage: check_gradients DIR");
        return ExitCode::from(2);
    };
    let folders = folders(Path::new(&dir));
    if folders.is_empty() {
        eprintln!("{dir}: no oracle.json here or one level below");
        return ExitCode::from(2);
    }
    let (mut files, mut failures) = (0, 0);
    for folder in &folders {
        let (n, failed) = check_folder(folder);
        (files, failures) = (files + n, failures + failed);
    }
    println!("{files} files in {} folders, {failures} failed", folders.len());
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `dir` itself, or the folders in it that hold an oracle.
fn folders(dir: &Path) -> Vec<PathBuf> {
    let holds = |p: &PathBuf| p.join("oracle.json").is_file();
    if holds(&dir.to_owned()) {
        return vec![dir.to_owned()];
    }
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|e| e.path()).filter(holds).collect();
    folders.sort();
    folders
}

/// Number of files checked and of those that failed.
fn check_folder(folder: &Path) -> (usize, usize) {
    let oracle = match Oracle::read(folder) {
        Ok(oracle) => oracle,
        Err(e) => {
            println!("FAIL {}: {e}", folder.display());
            return (1, 1);
        }
    };
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let (good, bad) = (oracle.files(""), oracle.files("invalid"));
    let mut failed = 0;
    for file in &good {
        let ok = check_file(&oracle, &name, file);
        failed += usize::from(!ok);
    }
    for file in &bad {
        let label = format!("{name}/invalid/{}", short(file));
        match oracle.training_graph(file) {
            Err(e) => println!("ok   {label}: refused: {}", first_line(e.message())),
            Ok(_) => {
                failed += 1;
                println!("FAIL {label}: accepted");
            }
        }
    }
    (good.len() + bad.len(), failed)
}

fn check_file(oracle: &Oracle, name: &str, file: &Path) -> bool {
    let label = format!("{name}/{}", short(file));
    match oracle.check(file) {
        Ok(o) => {
            let ok = o.loss_error <= BOUND && o.worst_error <= BOUND && o.compared > 0;
            println!(
                "{} {label}: loss {:.1e}, worst of {} {:.1e} ({})",
                if ok { "ok  " } else { "FAIL" },
                o.loss_error,
                o.compared,
                o.worst_error,
                o.worst
            );
            ok
        }
        Err(e) => {
            println!("FAIL {label}: {}", first_line(e.message()));
            false
        }
    }
}

fn short(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("")
}
