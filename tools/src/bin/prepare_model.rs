//! Times the way from a forward model to a training session that has run: read, specialise and
//! differentiate, open the session, run steps; and the peak of memory.
//!
//! `prepare_model [FILE.onnx [BATCH [SEQUENCE [STEPS]]]]`: without a file, a BERT-base for
//! sequence classification is built and written first. Free dimensions called anything with
//! `batch` take BATCH (default 8), others SEQUENCE (default 128). The training graph is left in
//! `target/training.onnx`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use mmopt::autodiff::{LossKind, LossSpec};
use mmopt::error::Result;
use mmopt::models::{self, Task};
use mmopt::onnx::{Dim, Graph};
use mmopt::runtime::{Session, SessionOptions};
use mmopt::tensor::{DType, Tensor};
use mmopt::train::graphs::{GraphParameter, find_parameters, parameter_data, training_graph};

const BERT_BASE: &str = r#"{"model_type": "bert", "vocab_size": 30522, "hidden_size": 768,
    "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12}"#;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default| {
        arguments.get(i).and_then(|a| a.parse::<usize>().ok()).unwrap_or(default)
    };
    let (batch, sequence, steps) = (number(1, 8), number(2, 128), number(3, 3));
    let path = match arguments.first() {
        Some(path) => PathBuf::from(path),
        None => bert_base()?,
    };
    mmopt::runtime::load(None)?;
    let start = Instant::now();
    let mut lap = start;
    let mut tell = |what: &str| {
        println!("{what:<28} {:8.0} ms   peak {:5} MB", ms(lap), peak_megabytes());
        lap = Instant::now();
    };
    let graph = Graph::read(&path)?;
    tell("read");
    let mut params = find_parameters(&graph);
    params.retain(GraphParameter::trainable);
    let values: Vec<_> = params.iter().map(|p| p.value).collect();
    let spec = LossSpec::new(LossKind::SequenceClassification);
    let training = training_graph(&graph, &values, &spec, &shapes(&graph, batch, sequence))?;
    tell("training graph");
    let options = SessionOptions { threads: 2, ..SessionOptions::default() };
    let session = Session::from_bytes(&training.bytes, &options)?;
    tell("session");
    let mut feeds = Vec::new();
    for (p, name) in params.iter().zip(&training.params) {
        feeds.push((name.as_str(), parameter_data(&graph, p.value)?.to_tensor()?));
    }
    for (name, dtype, shape) in &training.data_inputs {
        let mut tensor = Tensor::zeros(*dtype, shape)?;
        if *dtype == DType::I64 && name.contains("mask") {
            tensor.as_mut_slice::<i64>()?.fill(1);
        }
        feeds.push((name, tensor));
    }
    tell("weights");
    let weights: usize = params.iter().map(|p| p.shape.iter().product::<usize>() * 4).sum();
    std::fs::write("target/training.onnx", &training.bytes)
        .map_err(|e| mmopt::Error::io(Path::new("target/training.onnx"), e))?;
    let (n, size) = (params.len(), training.bytes.len() >> 20);
    println!("{n} parameters, {} MB; graph {size} MB", weights >> 20);
    let inputs: Vec<(&str, &Tensor)> = feeds.iter().map(|(n, t)| (*n, t)).collect();
    let mut outputs = vec![training.loss.as_str()];
    outputs.extend(training.grads.iter().flatten().map(String::as_str));
    for step in 0..steps {
        let results = session.run(&inputs, &outputs)?;
        let loss = results[0].as_slice::<f32>()?[0];
        drop(results);
        tell(&format!("step {step}, loss {loss:.4}"));
    }
    println!("in all {:.0} ms", ms(start));
    Ok(())
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// The process's largest resident size so far; 0 where the system does not tell.
fn peak_megabytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM"));
    let kilobytes = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<usize>().ok());
    kilobytes.unwrap_or(0) / 1024
}

fn bert_base() -> Result<PathBuf> {
    let config = models::Config::from_json(BERT_BASE)?;
    let task = Task::SequenceClassification { num_labels: 2 };
    let model = models::build(&config, task, None, 1)?;
    let path = Path::new("target").join("bert-base.onnx");
    model.graph.write(&path, false)?;
    Ok(path)
}

fn shapes(graph: &Graph, batch: usize, sequence: usize) -> BTreeMap<String, Vec<usize>> {
    let size = |d: &Dim| match d {
        Dim::Known(n) => *n,
        Dim::Symbol(s) if s.contains("batch") => batch,
        _ => sequence,
    };
    let inputs = graph.inputs().iter().map(|&v| graph.value(v));
    inputs.map(|v| (v.name.clone(), v.ty.shape.iter().flatten().map(size).collect())).collect()
}
