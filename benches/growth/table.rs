//! How cost grows with the number of models and their width: one process for each measurement, a
//! table, and the exponents of the power laws that fit best (least squares of the logarithms).

use std::process::Command;

use serde_json::Value;

/// Widths, and the numbers of models measured at each.
const POINTS: [(usize, &[usize]); 4] =
    [(128, &[1, 2, 4, 8]), (256, &[1, 2, 4, 8]), (512, &[1, 2, 4]), (768, &[1, 2])];
const KEYS: [&str; 4] = ["step", "passes", "optimizer", "peak"];

struct Point {
    width: usize,
    n: usize,
    /// By [`KEYS`]: milliseconds, and MB.
    values: [f64; 4],
}

fn measure(width: usize, n: usize, steps: usize) -> Option<Point> {
    let kinds = ["bert", "gpt2", "roberta"];
    let names: Vec<String> = (0..n).map(|i| format!("{}_{i}", kinds[i % 3])).collect();
    let mut command = Command::new(std::env::current_exe().ok()?);
    let settings = [
        ("BENCH_MODELS", names.join(",")),
        ("BENCH_HIDDEN", width.to_string()),
        ("BENCH_HEADS", (width / 64).to_string()),
        ("BENCH_STEPS", steps.to_string()),
    ];
    let sizes =
        [("LAYERS", "4"), ("VOCAB", "8000"), ("BATCH", "8"), ("LENGTH", "64")].map(|(k, v)| {
            let key = format!("BENCH_{k}");
            let value = std::env::var(&key).unwrap_or_else(|_| v.to_owned());
            (key, value)
        });
    command.env_remove("BENCH_GROWTH").envs(settings).envs(sizes);
    let output = command.output().ok().filter(|o| o.status.success())?;
    let line: Value =
        serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last()?).ok()?;
    Some(Point { width, n, values: KEYS.map(|key| line[key].as_f64().unwrap_or(f64::NAN)) })
}

/// b of y = a xᵇ.
fn exponent(points: &[(f64, f64)]) -> f64 {
    let logs = points.iter().map(|(x, y)| (x.ln(), y.ln()));
    let n = points.len() as f64;
    let (x, y) = logs.clone().fold((0.0, 0.0), |sum, (x, y)| (sum.0 + x / n, sum.1 + y / n));
    let (xy, xx) =
        logs.fold((0.0, 0.0), |sum, (a, b)| (sum.0 + (a - x) * (b - y), sum.1 + (a - x) * (a - x)));
    xy / xx
}

fn row(name: &str, values: impl IntoIterator<Item = f64>, digits: usize) {
    let cells: Vec<String> = values.into_iter().map(|v| format!("{v:>10.digits$}")).collect();
    println!("{name:<24}{}", cells.join(""));
}

/// Prints the table; `steps` are measured at each point.
pub fn run(steps: usize) {
    let all = POINTS.iter().flat_map(|&(width, ns)| ns.iter().map(move |&n| (width, n)));
    println!(
        "{:<24}{:>10}{:>10}{:>10}{:>10}",
        "width, models", "step", "passes", "optimizer", "MB"
    );
    let mut points: Vec<Point> = Vec::new();
    for (width, n) in all {
        match measure(width, n, steps) {
            Some(point) => {
                row(&format!("{width}, {n}"), point.values, 1);
                points.push(point);
            }
            None => println!("{width}, {n}: failed"),
        }
    }
    println!("exponents");
    for (width, _) in POINTS {
        let of = |key: usize| {
            let chosen = points.iter().filter(|p| p.width == width);
            exponent(&chosen.map(|p| (p.n as f64, p.values[key])).collect::<Vec<_>>())
        };
        row(&format!("of models, width {width}"), (0..KEYS.len()).map(of), 2);
    }
    for n in [1, 2] {
        let of = |key: usize| {
            let chosen = points.iter().filter(|p| p.n == n);
            exponent(&chosen.map(|p| (p.width as f64, p.values[key])).collect::<Vec<_>>())
        };
        row(&format!("of width, {n} model(s)"), (0..KEYS.len()).map(of), 2);
    }
}
