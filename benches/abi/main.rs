//! What a step of a tiny model costs through C, C++ and Go more than in Rust.
//!
//! Four programs do the same: two models in gradient mode, each with a 16 × 16 matrix and a vector,
//! default options, one thread. They run in turn, several rounds, so that a drift of the machine
//! hits all; each prints the median of its chunks and a checksum of the weights, which must be the
//! same for all. The last line is one JSON object: medians over the rounds, in microseconds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mmopt::optim::{Buffers, ModelSpec, Optimizer, Options, ParamSpec};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const ROUNDS: usize = 9;
const WIDTH: usize = 16;
const ELEMENTS: usize = WIDTH * WIDTH + WIDTH;
const WARM_UP: usize = 2000;
const CHUNKS: usize = 41;
const CHUNK: usize = 500;

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// The Rust program: the median of its chunks and the checksum.
fn measure() -> (f64, f64) {
    let mut values = vec![vec![0f32; ELEMENTS]; 2];
    let mut gradients = vec![vec![0f32; ELEMENTS]; 2];
    for (i, model) in gradients.iter_mut().enumerate() {
        for (j, g) in model.iter_mut().enumerate() {
            *g = ((i + j) % 7) as f32 / 64.0 - 3.0 / 64.0;
        }
    }
    let spec = |name: &str| {
        let weight = "encoder.layer.0.attention.self.query.weight";
        let bias = "encoder.layer.0.attention.self.query.bias";
        let params = vec![ParamSpec::new(weight, &[WIDTH, WIDTH]), ParamSpec::new(bias, &[WIDTH])];
        ModelSpec::new(name, params)
    };
    let options = Options { learning_rate: 1e-4, n_threads: 1, ..Options::default() };
    let mut optimizer = Optimizer::new(options, vec![spec("one"), spec("two")]).unwrap();
    for i in 0..2 {
        let (value, vector) = values[i].split_at_mut(WIDTH * WIDTH);
        let (slope, slopes) = gradients[i].split_at_mut(WIDTH * WIDTH);
        let buffers = vec![
            Buffers::new(value.as_mut_ptr(), slope.as_mut_ptr()),
            Buffers::new(vector.as_mut_ptr(), slopes.as_mut_ptr()),
        ];
        // SAFETY: the vectors outlive the optimizer and are looked at after its last step.
        unsafe { optimizer.bind(i, buffers) }.unwrap();
    }
    let mut run = |n_steps: usize| {
        let start = Instant::now();
        for _ in 0..n_steps {
            for i in 0..2 {
                optimizer.accumulate(i, 1.0).unwrap();
            }
            optimizer.step().unwrap();
        }
        start.elapsed().as_secs_f64() * 1e6 / n_steps as f64
    };
    run(WARM_UP);
    let time = median((0..CHUNKS).map(|_| run(CHUNK)).collect());
    drop(optimizer);
    let weighted = |v: &Vec<f32>| -> Vec<f64> {
        v.iter().enumerate().map(|(j, &x)| f64::from(x) * (j + 1) as f64).collect()
    };
    // One sum in the order of the other programs.
    let sum = values.iter().flat_map(weighted).fold(0.0, |sum, x| sum + x);
    (time, sum)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}:\n{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Builds the programs in other languages against the library beside this one.
fn build(dir: &Path) -> Vec<(&'static str, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let libraries = std::env::current_exe().unwrap();
    let libraries = libraries.parent().unwrap().parent().unwrap().to_owned();
    let here = root.join("benches/abi");
    let link = [
        format!("-L{}", libraries.display()),
        "-lmmopt".to_owned(),
        format!("-Wl,-rpath,{}", libraries.display()),
    ];
    let mut programs = vec![("rust", std::env::current_exe().unwrap())];
    for (name, compiler, standard, source) in
        [("c", "cc", "-std=c99", "step.c"), ("cpp", "c++", "-std=c++17", "step.cpp")]
    {
        let program = dir.join(name);
        run(Command::new(compiler)
            .args([standard, "-O2", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra"])
            .arg(format!("-I{}", root.join("include").display()))
            .arg(format!("-I{}", root.join("bindings/cpp").display()))
            .arg(here.join(source))
            .arg("-o")
            .arg(&program)
            .args(&link));
        programs.push((name, program));
    }
    if Command::new("go").arg("version").output().is_err() {
        println!("not run: no go");
        return programs;
    }
    let program = dir.join("go");
    run(Command::new("go")
        .args(["build", "-tags", "mmopt_manual", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(here.join("go"))
        .env("GOFLAGS", "-buildvcs=false -mod=mod")
        .env("GOWORK", "off")
        .env("CGO_CFLAGS", format!("-O2 -I{}", root.join("include").display()))
        .env("CGO_LDFLAGS", link.join(" ")));
    programs.push(("go", program));
    programs
}

fn main() {
    if std::env::args().any(|a| a == "--measure") {
        let (time, sum) = measure();
        println!("{time:.4} {sum:.9e}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let programs = build(dir.path());
    let mut times = vec![Vec::new(); programs.len()];
    let mut sums = Vec::new();
    for _ in 0..ROUNDS {
        for ((_, program), times) in programs.iter().zip(&mut times) {
            let text = run(Command::new(program).arg("--measure"));
            let mut words = text.split_whitespace().map(|w| w.parse::<f64>().unwrap());
            times.push(words.next().unwrap());
            sums.push(words.next().unwrap());
        }
    }
    // Rust and C print exponents differently; the numbers must agree to the digits that they show.
    assert!(sums.iter().all(|s| (s - sums[0]).abs() <= 1e-8 * sums[0].abs()), "{sums:?}");
    println!("a step of two tiny models, median of {ROUNDS} rounds in turn, {CHUNKS} chunks each");
    println!("{:>6} {:>9} {:>9} {:>9} {:>9}", "", "us", "over", "least", "most");
    let rust = median(times[0].clone());
    let mut json = serde_json::Map::new();
    for ((name, _), times) in programs.iter().zip(&times) {
        let time = median(times.clone());
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        let most = times.iter().copied().fold(0.0, f64::max);
        println!("{name:>6} {time:>9.3} {:>9.3} {least:>9.3} {most:>9.3}", time - rust);
        let rounded = |x: f64| serde_json::json!((x * 1e3).round() / 1e3);
        json.insert(format!("{name}_us"), rounded(time));
        if *name != "rust" {
            json.insert(format!("{name}_over"), rounded(time - rust));
        }
    }
    println!("{}", serde_json::Value::Object(json));
}
