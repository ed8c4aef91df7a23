//! The fuzz targets without a fuzzer: what fuzzing has found, and a few thousand mutations that
//! are the same in every run. `make fuzz` goes further.
//!
//! What was found lies below `tests/data/fuzz`, in a folder for each target.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod mutate;
mod seeds;
mod targets;

use crate::rules::{case, data, elementwise, image, layers, lowered, microsoft};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use mmopt::checkpoint::weights::{self, View};
use mmopt::onnx::proto::ModelProto;
use mutate::{Choices, mutate};
use prost::Message;

/// No input may take longer; fuzzing allows ten seconds on a slower build.
const LIMIT: Duration = Duration::from_secs(10);

fn cases() -> Vec<case::Case> {
    let rules = [data::cases(), elementwise::cases(), layers::cases(), image::cases()].concat();
    [rules, image::rewritten(), lowered::cases(), microsoft::cases()].concat()
}

/// A weights file, and an optimizer's state with one behind it.
fn files() -> [Vec<u8>; 2] {
    let optimizer = targets::optimizer().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("moments");
    let tensors = optimizer.state_tensors();
    let views = tensors
        .iter()
        .map(|t| (t.name.as_str(), View { dtype: t.dtype, shape: t.shape, bytes: t.bytes }));
    weights::write(&path, views, &[("format", "pt")]).unwrap();
    let moments = fs::read(path).unwrap();
    let mut state = optimizer.state_json().unwrap().to_string().into_bytes();
    state.push(b'\n');
    state.extend(&moments);
    [moments, state]
}

/// What a fuzzer calls.
type Target = fn(&[u8]);

/// Runs every input; panics and long runs are failures, told by name.
fn survive(inputs: impl Iterator<Item = (String, Vec<u8>)>, target: Target) -> usize {
    let mut failed = Vec::new();
    let mut n = 0;
    for (name, data) in inputs {
        n += 1;
        let start = Instant::now();
        let sound = catch_unwind(AssertUnwindSafe(|| target(&data))).is_ok();
        if !sound || start.elapsed() > LIMIT {
            failed.push(format!("{name} ({:.1} s)", start.elapsed().as_secs_f64()));
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
    n
}

fn differentiate(data: &[u8]) {
    targets::differentiate(data);
}

/// Mutations of the committed seeds, `rounds` of each.
fn mutations(rounds: u64) -> impl Iterator<Item = (String, Vec<u8>)> {
    seeds::committed().into_iter().enumerate().flat_map(move |(i, seed)| {
        (0..rounds).map(move |round| {
            let mut model = ModelProto::decode(&seed[..]).unwrap();
            mutate(&mut model, &mut Choices::new((i as u64) << 32 | round));
            (format!("seed {i}, round {round}"), model.encode_to_vec())
        })
    })
}

#[test]
fn nothing_found_comes_back() {
    let targets: [(&str, Target); 4] = [
        ("reader", targets::reader),
        ("differentiate", differentiate),
        ("weights", targets::weights),
        ("checkpoint", targets::checkpoint),
    ];
    for (name, target) in targets {
        let Ok(folder) = fs::read_dir(Path::new("tests/data/fuzz").join(name)) else { continue };
        let files = folder.flatten().map(|f| f.path());
        let inputs = files.map(|f| (f.display().to_string(), fs::read(&f).unwrap()));
        eprintln!("{name}: {} inputs", survive(inputs, target));
    }
}

/// The seeds are what they claim to be, so that their mutations reach the rules.
#[test]
fn seeds_are_differentiable() {
    let seeds = seeds::committed();
    let good = seeds.iter().filter(|s| targets::differentiate(s)).count();
    eprintln!("{good} of {}", seeds.len());
    assert!(good * 10 > seeds.len() * 6, "{good} of {} seeds", seeds.len());
}

#[test]
fn mutated_models_are_read_or_refused() {
    let n = survive(mutations(rounds(100)), targets::reader);
    assert!(n > 1000);
}

#[test]
fn mutated_models_are_differentiated_or_refused() {
    let n = survive(mutations(rounds(200)), differentiate);
    assert!(n > 1000);
    let good = mutations(10).filter(|(_, data)| targets::differentiate(data)).count();
    assert!(good > 100, "{good} mutated models were differentiated");
}

/// Bytes exchanged, dropped and repeated.
#[test]
fn damaged_files_are_read_or_refused() {
    let [moments, state] = files();
    for (seed, target) in [(moments, targets::weights as Target), (state, targets::checkpoint)] {
        target(&seed);
        let damaged = (0..rounds(10_000)).map(|round| {
            let (mut data, mut c) = (seed.clone(), Choices::new(round));
            for _ in 0..=c.below(4) {
                let at = c.below(data.len());
                match c.below(4) {
                    0 => data.truncate(at),
                    1 => data.insert(at, c.below(256) as u8),
                    2 => data[at] = b"0123456789-.,:\"[]{}\n"[c.below(20)],
                    _ => data[at] ^= 1 << c.below(8),
                }
                if data.is_empty() {
                    break;
                }
            }
            (format!("round {round}"), data)
        });
        survive(damaged, target);
    }
}

/// `MMOPT_FUZZ` multiplies the usual number.
fn rounds(usual: u64) -> u64 {
    let factor = std::env::var("MMOPT_FUZZ").ok().and_then(|n| n.parse().ok());
    usual * factor.unwrap_or(1u64)
}

/// Fills the folder that `MMOPT_CORPUS` names for the fuzzers; renews the committed seeds when
/// `MMOPT_SEEDS` is set. Needs ONNX Runtime.
#[test]
fn corpus() {
    if std::env::var_os("MMOPT_SEEDS").is_some() {
        seeds::commit(&cases());
    }
    let Some(dir) = std::env::var_os("MMOPT_CORPUS") else { return };
    let dir = Path::new(&dir);
    for target in ["reader", "differentiate"] {
        seeds::fill(&dir.join(target), &cases());
    }
    let [moments, state] = files();
    for (target, data) in [("weights", moments), ("checkpoint", state)] {
        fs::create_dir_all(dir.join(target)).unwrap();
        fs::write(dir.join(target).join("seed-file"), data).unwrap();
    }
    let config = r#"{"model_type": "bert", "vocab_size": 100, "hidden_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": 40, "type_vocab_size": 2, "id2label": {"0": "a", "1": "b"}}"#;
    fs::write(dir.join("weights/seed-config"), config).unwrap();
}
