//! Gradients of several runtimes against each other.

use std::collections::BTreeSet;
use std::path::Path;

use mmopt::error::{Error, Result};
use mmopt::onnx::TensorData;
use mmopt::tensor::Tensor;

use crate::dump::Dump;

/// Two runtimes agree when no gradient differs by more than this, relative, in L2.
const BOUND: f64 = 1e-5;
/// Ends the name of a value of the forward pass: where it differs, what is named before it is not
/// compared, for then the runtimes disagree on the operator itself.
const FORWARD: &str = " forward";

/// One runtime: its name and what it gave, file by file.
struct Given {
    name: String,
    files: Vec<(String, Dump)>,
}

/// What became of two runtimes' tensors.
#[derive(Default)]
struct Tally {
    compared: usize,
    forward: usize,
    alone: usize,
    failed: usize,
    worst: f64,
    worst_name: String,
}

/// Compares all pairs of `NAME=DIR`, prints a table, and tells whether all agree. Files that a
/// folder lacks are a disagreement.
pub fn compare(arguments: &[String]) -> Result<bool> {
    let given = arguments.iter().map(|a| read(a)).collect::<Result<Vec<_>>>()?;
    let mut lines = Vec::new();
    let mut agreed = given.len() > 1;
    for (i, a) in given.iter().enumerate() {
        for b in &given[i + 1..] {
            let tally = pair(a, b)?;
            agreed &= tally.failed == 0 && tally.compared > 0;
            lines.push(format!(
                "| {} and {} | {} | {} | {} | {} | {:.1e} ({}) |",
                a.name,
                b.name,
                tally.compared,
                tally.failed,
                tally.forward,
                tally.alone,
                tally.worst,
                tally.worst_name
            ));
        }
    }
    println!("| runtimes | gradients compared | differ | forward differs | in one only | worst |");
    println!("|---|---|---|---|---|---|");
    lines.iter().for_each(|line| println!("{line}"));
    Ok(agreed)
}

fn read(argument: &str) -> Result<Given> {
    let (name, folder) = argument
        .split_once('=')
        .ok_or_else(|| Error::invalid(format!("'{argument}' is not NAME=DIR")))?;
    let mut files = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(Path::new(folder), e))?;
    for path in entries.flatten().map(|e| e.path()) {
        if path.extension().is_some_and(|e| e == "safetensors") {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.push((file, Dump::read(&path)?));
        }
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Given { name: name.to_owned(), files })
}

fn pair(a: &Given, b: &Given) -> Result<Tally> {
    let mut tally = Tally::default();
    let names: BTreeSet<&String> = a.files.iter().chain(&b.files).map(|f| &f.0).collect();
    for name in names {
        let file = |g: &Given| g.files.iter().position(|f| f.0 == *name);
        let (Some(i), Some(j)) = (file(a), file(b)) else {
            println!("FAIL {} and {}: {name} is missing in one", a.name, b.name);
            tally.failed += 1;
            continue;
        };
        let title = format!("{} and {}: {name}", a.name, b.name);
        one_file(&title, &a.files[i].1, &b.files[j].1, &mut tally)?;
    }
    Ok(tally)
}

fn one_file(title: &str, a: &Dump, b: &Dump, tally: &mut Tally) -> Result<()> {
    let both = |name: &String| a.tensors.contains_key(name) && b.tensors.contains_key(name);
    tally.alone += a.tensors.keys().chain(b.tensors.keys()).filter(|n| !both(n)).count();
    let mut differing: Vec<&str> = Vec::new();
    for name in a.tensors.keys().filter(|n| both(n)) {
        let Some(about) = name.strip_suffix(FORWARD) else { continue };
        let error = distance(&a.tensors[name], &b.tensors[name], a.floor(name))?;
        if error > BOUND {
            println!("skip {title}: {about}: the forward value itself differs by {error:.1e}");
            differing.push(about);
            tally.forward += 1;
        }
    }
    for name in a.tensors.keys().filter(|n| both(n) && !n.ends_with(FORWARD)) {
        if differing.iter().any(|about| name.starts_with(about)) {
            continue;
        }
        tally.compared += 1;
        let error = distance(&a.tensors[name], &b.tensors[name], a.floor(name))?;
        if error > BOUND {
            println!("FAIL {title}: {name} differs by {error:.1e}");
            tally.failed += 1;
        }
        if error > tally.worst {
            (tally.worst, tally.worst_name) = (error, name.clone());
        }
    }
    Ok(())
}

/// ‖a - b‖ over the larger norm, at least `floor`; NaNs in the same places are equal, a NaN
/// against a number is infinitely far.
fn distance(a: &Tensor, b: &Tensor, floor: f64) -> Result<f64> {
    if (a.dtype(), a.shape()) != (b.dtype(), b.shape()) {
        return Ok(f64::INFINITY);
    }
    let (a, b) = (TensorData::from_tensor(a)?.to_f64s()?, TensorData::from_tensor(b)?.to_f64s()?);
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let same = |a: &f64, b: &f64| a == b || (a.is_nan() && b.is_nan());
    let different: Vec<(f64, f64)> =
        a.iter().copied().zip(b.iter().copied()).filter(|(a, b)| !same(a, b)).collect();
    if different.is_empty() {
        return Ok(0.0);
    }
    let gap = norm(&mut different.iter().map(|(a, b)| a - b));
    let size = norm(&mut a.iter().copied()).max(norm(&mut b.iter().copied()));
    let error = gap / size.max(floor);
    Ok(if error.is_nan() { f64::INFINITY } else { error })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(pairs: &[(&str, f32)]) -> Dump {
        let mut dump = Dump::default();
        for (name, x) in pairs {
            let tensor = Tensor::from_slice(&[2], &[1.0, *x]).unwrap();
            dump.add((*name).to_owned(), tensor, None);
        }
        dump
    }

    fn tally(a: &[(&str, f32)], b: &[(&str, f32)]) -> (usize, usize, usize, usize) {
        let mut tally = Tally::default();
        one_file("t", &dump(a), &dump(b), &mut tally).unwrap();
        (tally.compared, tally.failed, tally.forward, tally.alone)
    }

    #[test]
    fn differences_count() {
        assert_eq!(tally(&[("a", 2.0)], &[("a", 2.0)]), (1, 0, 0, 0));
        assert_eq!(tally(&[("a", 2.0)], &[("a", 2.001)]), (1, 1, 0, 0));
        assert_eq!(tally(&[("a", 2.0)], &[("a", f32::NAN)]), (1, 1, 0, 0));
        assert_eq!(tally(&[("a", f32::NAN)], &[("a", f32::NAN)]), (1, 0, 0, 0));
        assert_eq!(tally(&[("a", 2.0)], &[("b", 2.0)]), (0, 0, 0, 2));
        let own = [("a forward", 1.0), ("a #0", 1.0), ("b #0", 1.0)];
        let other = [("a forward", 2.0), ("a #0", 2.0), ("b #0", 1.0)];
        assert_eq!(tally(&own, &other), (1, 0, 1, 0));
    }
}
