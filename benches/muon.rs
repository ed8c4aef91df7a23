//! What Muon's step costs for the matrices of one base-size block: milliseconds, and billions of
//! operations a second of the products. `cargo bench --bench muon [-- THREADS]`, two threads unless
//! told.

use std::time::Instant;

use mmopt::Result;
use mmopt::optim::{Method, ModelSpec, Optimizer, Options, ParamSpec};
use mmopt::tensor::DType;

const ROUNDS: usize = 7;
/// Newton-Schulz rounds of a step.
const NEWTON_SCHULZ: usize = 5;

fn main() -> Result<()> {
    let threads = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(2);
    println!("{:<12} {:>8} {:>8}", "matrix", "ms", "Gflop/s");
    for (name, shape) in [
        ("attention.self.query", [768, 768]),
        ("intermediate.dense", [3072, 768]),
        ("output.dense", [768, 3072]),
    ] {
        let name = format!("encoder.layer.0.{name}.weight");
        let spec = ModelSpec::new("base", vec![ParamSpec::new(&name, &shape)]);
        let options = Options { method: Method::Muon, n_threads: threads, ..Options::adamw() };
        let mut optimizer = Optimizer::new(options, vec![spec])?;
        optimizer.bind_owned(0, DType::F32)?;
        let gradient = optimizer.gradient_mut(0, 0)?.as_mut_slice::<f32>()?;
        for (i, g) in gradient.iter_mut().enumerate() {
            *g = ((i * 7919) % 1013) as f32 / 509.0 - 1.0;
        }
        let mut times = Vec::new();
        for _ in 0..=ROUNDS {
            let start = Instant::now();
            optimizer.step()?;
            times.push(start.elapsed().as_secs_f64());
        }
        // The first step makes room.
        let times = &mut times[1..];
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        let (m, n) = (shape[0].min(shape[1]) as f64, shape[0].max(shape[1]) as f64);
        // As three full products; halves of symmetric ones are saved, not counted.
        let operations = NEWTON_SCHULZ as f64 * 2.0 * m * m * (2.0 * n + m);
        let size = format!("{} x {}", shape[0], shape[1]);
        println!("{size:<12} {:>8.1} {:>8.1}", median * 1e3, operations / median * 1e-9);
    }
    Ok(())
}
