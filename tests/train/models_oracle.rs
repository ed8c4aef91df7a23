//! Graphs built from configuration and weights against the outputs of the published
//! implementations: the folders in `tests/data/models`, and all of `../shared/oracle` where
//! that exists.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use mmopt::autodiff::{LossKind, LossSpec};
use mmopt::checkpoint::weights::Weights;
use mmopt::models::{BuiltModel, Config, Task, build};
use mmopt::runtime::{self, Optimize, Session, SessionOptions};
use mmopt::tensor::Tensor;
use mmopt::train::graphs::{GraphOptions, training_graph_with};

struct Oracle {
    name: String,
    model: BuiltModel,
    weights: Weights,
    numbers: Weights,
    json: serde_json::Value,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn load_runtime() {
    let fetched = root().join(".runtime/lib/libonnxruntime.so");
    let path = std::env::var_os("MMOPT_ORT_LIB").map_or(fetched, PathBuf::from);
    assert!(path.exists(), "{}: no such file; run `make runtime`", path.display());
    runtime::load(Some(&path)).unwrap();
}

fn read(dir: &Path) -> Oracle {
    let name = dir.file_name().unwrap().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(dir.join("oracle.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut config = json["config"].clone();
    config["architectures"] = serde_json::json!([json["model"]]);
    let config = Config::from_json(&config.to_string()).unwrap();
    let weights = Weights::read(&dir.join("params.safetensors")).unwrap();
    let mut model = build(&config, config.default_task().unwrap(), Some(&weights), 1)
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    // Where the configuration says nothing, a head has dropout; the numbers were made without.
    BuiltModel::remove_dropout(&mut model.graph);
    let numbers = Weights::read(&dir.join("oracle.safetensors")).unwrap();
    Oracle { name, model, weights, numbers, json }
}

/// The committed folders, then those of `../shared/oracle` that are of a known architecture.
fn all() -> Vec<Oracle> {
    let mut folders = Vec::new();
    for dir in [root().join("tests/data/models"), root().join("../shared/oracle")] {
        let Ok(entries) = std::fs::read_dir(&dir) else {
            println!("not run: no {}", dir.display());
            continue;
        };
        let mut found: Vec<_> = entries
            .map(|e| e.unwrap().path())
            .filter(|p| {
                let name = p.file_name().unwrap().to_string_lossy();
                ["bert-", "roberta-", "gpt2-", "distilbert-", "albert-", "mpnet-"]
                    .iter()
                    .any(|k| name.starts_with(k))
            })
            .collect();
        found.sort();
        folders.extend(found);
    }
    assert!(folders.len() >= 4, "{folders:?}");
    folders.iter().map(|p| read(p)).collect()
}

fn inputs(oracle: &Oracle) -> Vec<(String, Tensor)> {
    let names = oracle.model.inputs.iter();
    names.map(|n| (n.clone(), oracle.numbers.tensor(&format!("input:{n}")).unwrap())).collect()
}

/// Largest |a - b| / (1 + |b|).
fn distance(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.shape(), b.shape());
    let (a, b) = (a.as_slice::<f32>().unwrap(), b.as_slice::<f32>().unwrap());
    let relative = a.iter().zip(b).map(|(a, b)| (a - b).abs() / (1.0 + b.abs()));
    relative.fold(0.0, |max, d| if d.is_nan() { f32::NAN } else { max.max(d) })
}

#[test]
fn outputs_are_those_of_the_published_models() {
    load_runtime();
    for oracle in all() {
        let bytes = oracle.model.graph.to_bytes().unwrap();
        let outputs: Vec<&str> = oracle.model.outputs.iter().map(String::as_str).collect();
        for optimize in [Optimize::Disabled, Optimize::All] {
            let options = SessionOptions { optimize, threads: 2, ..SessionOptions::default() };
            let session = Session::from_bytes(&bytes, &options)
                .unwrap_or_else(|e| panic!("{}: {e}", oracle.name));
            let inputs = inputs(&oracle);
            let inputs: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
            let results = session.run(&inputs, &outputs).unwrap();
            for (name, found) in outputs.iter().zip(&results) {
                let expected = oracle.numbers.tensor(&format!("output:{name}")).unwrap();
                let error = distance(found, &expected);
                println!("{} {name} {optimize:?}: {error:.1e}", oracle.name);
                assert!(error <= 1e-5, "{} {name} {optimize:?}: {error}", oracle.name);
            }
        }
    }
}

#[test]
fn names_and_ties_are_those_of_the_state_dict() {
    for oracle in all() {
        let ours: BTreeSet<&str> = oracle.model.parameters.iter().map(String::as_str).collect();
        let theirs: BTreeSet<&str> = oracle.weights.names().collect();
        assert_eq!(ours, theirs, "{}", oracle.name);
        assert_eq!(oracle.model.missing, [""; 0], "{}", oracle.name);
        assert_eq!(oracle.model.unexpected, [""; 0], "{}", oracle.name);
        let ties: serde_json::Map<_, _> =
            oracle.model.tied.iter().map(|(a, s)| (a.clone(), s.clone().into())).collect();
        assert_eq!(serde_json::Value::from(ties), oracle.json["tied"], "{}", oracle.name);
        let padded: BTreeSet<_> = oracle
            .model
            .padding_rows
            .iter()
            .map(|p| (p.parameter.trim_end_matches(".weight").to_owned(), p.row as u64))
            .collect();
        let expected: BTreeSet<_> = oracle.json["padding_idx"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, row)| (name.clone(), row.as_u64().unwrap()))
            .collect();
        assert_eq!(padded, expected, "{}", oracle.name);
    }
}

/// ‖a - b‖ / ‖b‖, or / 0.01 where that is larger: some gradients are zero in truth.
fn relative(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.shape(), b.shape());
    let (a, b) = (a.as_slice::<f32>().unwrap(), b.as_slice::<f32>().unwrap());
    let norm = |x: &mut dyn Iterator<Item = f32>| {
        x.map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
    };
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| a - b));
    difference / norm(&mut b.iter().copied()).max(1e-2)
}

fn loss_of(task: Task) -> LossSpec {
    LossSpec::new(match task {
        Task::SequenceClassification { .. } => LossKind::SequenceClassification,
        Task::TokenClassification { .. } => LossKind::TokenClassification,
        Task::QuestionAnswering => LossKind::QuestionAnswering,
        Task::MaskedLm => LossKind::MaskedLm,
        Task::CausalLm => LossKind::CausalLm,
    })
}

/// Loss and gradients by state-dict name, from one run of the oracle's batch.
fn gradients(oracle: &Oracle) -> (f32, Vec<(String, Tensor)>) {
    let graph = &oracle.model.graph;
    let names = &oracle.model.parameters;
    let params: Vec<_> = names.iter().map(|n| graph.find(n).unwrap()).collect();
    let mut fed = inputs(oracle);
    let shapes: BTreeMap<_, _> = fed.iter().map(|(n, t)| (n.clone(), t.shape().to_vec())).collect();
    // Tables that are a head, too, keep the head's gradient of their padding row.
    let tied = |name: &str| oracle.model.tied.iter().any(|(_, source)| source == name);
    let padding = oracle.model.padding_rows.iter().filter(|p| tied(&p.parameter));
    let padding: Vec<_> = padding.map(|p| (graph.find(&p.parameter).unwrap(), p.row)).collect();
    let loss = loss_of(oracle.model.task);
    let options = GraphOptions { padding: &padding, ..GraphOptions::default() };
    let training = training_graph_with(graph, &params, &loss, &shapes, &options).unwrap();
    for (name, _, _) in &training.data_inputs {
        if let Ok(label) = oracle.numbers.tensor(&format!("label:{name}")) {
            fed.push((name.clone(), label));
        }
    }
    for (name, fed_as) in names.iter().zip(&training.params) {
        fed.push((fed_as.clone(), oracle.weights.tensor(name).unwrap()));
    }
    fed.retain(|(n, _)| {
        training.params.contains(n) || training.data_inputs.iter().any(|(d, _, _)| d == n)
    });
    let session = Session::from_bytes(&training.bytes, &SessionOptions::default()).unwrap();
    let fed: Vec<_> = fed.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let mut outputs = vec![training.loss.as_str()];
    outputs.extend(training.grads.iter().map(|g| g.as_deref().unwrap()));
    let mut results = session.run(&fed, &outputs).unwrap().into_iter();
    let loss = results.next().unwrap().as_slice::<f32>().unwrap()[0];
    (loss, names.iter().cloned().zip(results).collect())
}

#[test]
fn gradients_are_those_of_the_published_models() {
    load_runtime();
    for oracle in all() {
        let (loss, gradients) = gradients(&oracle);
        let expected = oracle.json["loss"].as_f64().unwrap();
        assert!((f64::from(loss) / expected - 1.0).abs() < 1e-5, "{}: {loss}", oracle.name);
        let mut worst = (0.0, String::new());
        for (name, mut found) in gradients {
            let mut expected = oracle.numbers.tensor(&name).unwrap();
            // The trainer drops the padding row's gradient of other tables after the fact.
            let tied = oracle.model.tied.iter().any(|(_, source)| *source == name);
            for padding in oracle.model.padding_rows.iter().filter(|p| p.parameter == name && !tied)
            {
                let width = expected.shape()[1];
                for tensor in [&mut found, &mut expected] {
                    let values = tensor.as_mut_slice::<f32>().unwrap();
                    values[padding.row * width..][..width].fill(0.0);
                }
            }
            let error = relative(&found, &expected);
            assert!(error <= 1e-4, "{} {name}: {error}", oracle.name);
            if error >= worst.0 {
                worst = (error, name);
            }
        }
        println!("{}: worst gradient {:.1e} ({})", oracle.name, worst.0, worst.1);
    }
}

/// Without the attention mask's zeros the outputs differ, so the comparison above sees masks.
#[test]
fn padding_changes_outputs() {
    load_runtime();
    let oracle = read(&root().join("tests/data/models/bert-seqcls"));
    let bytes = oracle.model.graph.to_bytes().unwrap();
    let session = Session::from_bytes(&bytes, &SessionOptions::default()).unwrap();
    let mut inputs = inputs(&oracle);
    let mask = inputs.iter_mut().find(|(n, _)| n == "attention_mask").unwrap();
    let mask = mask.1.as_mut_slice::<i64>().unwrap();
    assert!(mask.contains(&0));
    mask.fill(1);
    let inputs: Vec<_> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let found = session.run(&inputs, &["logits"]).unwrap();
    assert!(distance(&found[0], &oracle.numbers.tensor("output:logits").unwrap()) > 1e-3);
}
