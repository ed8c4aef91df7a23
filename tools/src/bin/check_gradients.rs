//! Compares this library's gradients of exported models with reference gradients.
//!
//! `check_gradients [--device DEVICE] [--dump FILE] DIR...`: each DIR is a folder with `oracle.json`, or the parent
//! of several. For every .onnx file it attaches the stated loss, runs one batch, and prints the
//! error of the loss and the parameter with the largest relative L2 error. Files under `invalid/`
//! must be refused. A file of an opset that the loaded ONNX Runtime lacks counts as refused when
//! the error says so. `--dump` writes the gradients to FILE; DEVICE is
//! `cpu` (the default), `cuda` or `cuda:N`.
//! Exit status 1 when an error exceeds 1e-4 or a file behaves otherwise than it should.
//!
//! `check_gradients --compare NAME=DIR...` compares what several runtimes dumped; exit status 1
//! when two of them differ by more than 1e-5.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use mmopt::error::{Error, Kind};
use mmopt::runtime::Device;
use mmopt::tensor::Tensor;
use mmopt_tools::compare;
use mmopt_tools::dump::Dump;
use mmopt_tools::oracle::{Oracle, TrainResult};

const BOUND: f64 = 1e-4;

/// What became of the files.
#[derive(Default)]
struct Tally {
    files: usize,
    refused: usize,
    failed: usize,
    worst: f64,
    dump: Dump,
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|a| a == "--compare") {
        return match compare::compare(&arguments[1..]) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(e) => fail(&e),
        };
    }
    let mut device = Device::Cpu;
    if arguments.first().is_some_and(|a| a == "--device") && arguments.len() > 1 {
        device = match arguments.remove(1).parse() {
            Ok(device) => device,
            Err(e) => return fail(&e),
        };
        arguments.remove(0);
    }
    let mut dump = None;
    if arguments.first().is_some_and(|a| a == "--dump") && arguments.len() > 1 {
        dump = Some(PathBuf::from(arguments.remove(1)));
        arguments.remove(0);
    }
    if arguments.is_empty() {
        eprintln!(
            "usage: check_gradients [--device DEVICE] [--dump FILE] DIR... | --compare NAME=DIR..."
        );
        return ExitCode::from(2);
    }
    let mut folders = Vec::new();
    for dir in &arguments {
        let found = self::folders(Path::new(dir));
        if found.is_empty() {
            eprintln!("{dir}: no oracle.json here or one level below");
            return ExitCode::from(2);
        }
        folders.extend(found);
    }
    let mut tally = Tally::default();
    folders.iter().for_each(|folder| check_folder(folder, device, &mut tally));
    if let Some(path) = dump
        && let Err(e) = tally.dump.write(&path)
    {
        return fail(&e);
    }
    let Tally { files, refused, failed, worst, .. } = tally;
    println!(
        "{files} files in {} folders, {} passed, {refused} refused by a runtime that is too old, \
         {failed} failed, worst {worst:.1e}",
        folders.len(),
        files - refused - failed
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fail(e: &Error) -> ExitCode {
    eprintln!("check_gradients: {e}");
    ExitCode::FAILURE
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

fn check_folder(folder: &Path, device: Device, tally: &mut Tally) {
    let oracle = match Oracle::read(folder, device) {
        Ok(oracle) => oracle,
        Err(e) => {
            println!("FAIL {}: {e}", folder.display());
            tally.files += 1;
            tally.failed += 1;
            return;
        }
    };
    for file in oracle.files("") {
        tally.files += 1;
        check_file(&oracle, &file, tally);
    }
    for file in oracle.files("invalid") {
        tally.files += 1;
        match oracle.training_graph(&file) {
            Err(e) => println!("ok   {}: refused: {}", file.display(), first_line(e.message())),
            Ok(_) => {
                tally.failed += 1;
                println!("FAIL {}: accepted", file.display());
            }
        }
    }
}

fn check_file(oracle: &Oracle, file: &Path, tally: &mut Tally) {
    let label = file.display().to_string();
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
            tally.failed += usize::from(!ok);
            tally.worst = tally.worst.max(o.worst_error);
            add(&mut tally.dump, &label, o);
        }
        Err(e) if is_too_new(&e, file) => {
            println!("old  {label}: refused: {}", first_line(e.message()));
            tally.refused += 1;
        }
        Err(e) => {
            println!("FAIL {label}: {}", first_line(e.message()));
            tally.failed += 1;
        }
    }
}

/// Whether the error says that the runtime is too old for the opset of `file`, and with it the
/// model, the opset, the runtime's version and what to do.
fn is_too_new(e: &Error, file: &Path) -> bool {
    let Ok(graph) = mmopt::onnx::Graph::read(file) else { return false };
    let Some(library) = mmopt::runtime::loaded() else { return false };
    let (major, minor, patch) = library.version();
    let parts = [
        format!("model '{}'", file.file_stem().unwrap_or_default().to_string_lossy()),
        format!("opset {} of ai.onnx is newer", graph.opset()),
        format!("ONNX Runtime {major}.{minor}.{patch}"),
        "load a newer ONNX Runtime".to_owned(),
    ];
    e.kind() == Kind::Unsupported && parts.iter().all(|part| e.message().contains(part))
}

fn add(dump: &mut Dump, label: &str, result: TrainResult) {
    if let Ok(loss) = Tensor::scalar(result.loss) {
        dump.add(format!("{label} loss"), loss, None);
    }
    for (name, gradient) in result.gradients {
        let floor = result.near_zero.get(&name).copied();
        dump.add(format!("{label} {name}"), gradient, floor);
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("")
}
