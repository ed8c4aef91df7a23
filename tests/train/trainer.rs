//! Training end to end through the Rust API: small fresh models, sessions, optimizer, disk.

use std::sync::{Arc, Mutex};

use mmopt::models::{Config, Sizes, Task};
use mmopt::onnx::{Graph, TensorData, ValueId};
use mmopt::runtime::Device;
use mmopt::tensor::Tensor;
use mmopt::train::{Level, ModelOptions, Source, TensorView, Trainer, TrainerOptions};
use mmopt::{Kind, optim};

const BATCH: usize = 8;
const LENGTH: usize = 12;
const VOCABULARY: usize = 40;

pub(crate) fn sizes(dropout: f64) -> Sizes {
    Sizes {
        vocab: VOCABULARY,
        hidden: 16,
        layers: 2,
        heads: 2,
        intermediate: 32,
        positions: 24,
        dropout,
    }
}

fn config(name: &str, sizes: &Sizes) -> Config {
    match name {
        "bert" => Config::bert(sizes),
        "gpt2" => Config::gpt2(sizes),
        _ => Config::roberta(sizes),
    }
}

pub(crate) fn model(name: &str, dropout: f64) -> ModelOptions {
    model_of(name, &sizes(dropout))
}

pub(crate) fn model_of(name: &str, sizes: &Sizes) -> ModelOptions {
    let source = Source::Config(Box::new(config(name, sizes)));
    let task = Some(Task::SequenceClassification { num_labels: 2 });
    ModelOptions { task, seed: 7, ..ModelOptions::new(name, source) }
}

/// Defaults, on the device that `MMOPT_TEST_DEVICE` names.
pub(crate) fn trainer_options() -> TrainerOptions {
    let device = std::env::var("MMOPT_TEST_DEVICE").map(|d| d.parse().unwrap());
    let mut options =
        TrainerOptions { device: device.unwrap_or_default(), ..TrainerOptions::default() };
    // So that steps need the gradients of all models.
    options.optimizer.share_rule = mmopt::optim::ShareRule::Gated;
    options
}

/// Before models are built, which takes a while, and not at the first pass.
#[test]
fn a_device_that_the_runtime_lacks_is_refused_at_once() {
    let providers = mmopt::runtime::load(None).unwrap().providers();
    if providers.iter().any(|name| name == "CUDAExecutionProvider") {
        println!("not run: this runtime is built for CUDA");
        return;
    }
    let options = TrainerOptions { device: Device::Cuda { id: 0 }, ..TrainerOptions::default() };
    let error = Trainer::new(options, vec![model("bert", 0.0)]).unwrap_err();
    assert_eq!(error.kind(), Kind::RuntimeUnavailable, "{error}");
    assert!(error.message().contains("CUDAExecutionProvider"), "{error}");
}

pub(crate) fn trainer(names: &[&str], dropout: f64) -> Trainer {
    let mut options = trainer_options();
    options.optimizer.learning_rate = 3e-3;
    options.optimizer.n_threads = 2;
    Trainer::new(options, names.iter().map(|n| model(n, dropout)).collect()).unwrap()
}

/// A batch whose label says whether token 5 stands more often in it than token 6.
pub(crate) struct Example {
    pub(crate) tensors: Vec<(&'static str, Tensor)>,
}

impl Example {
    pub(crate) fn new(seed: u64, types: bool) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((state >> 33) % n) as i64
        };
        let mut ids = vec![0i64; BATCH * LENGTH];
        let mut labels = vec![0i64; BATCH];
        for (row, label) in ids.chunks_mut(LENGTH).zip(&mut labels) {
            *label = next(2);
            row.iter_mut().for_each(|id| *id = 7 + next(VOCABULARY as u64 - 7));
            for _ in 0..4 {
                row[next(LENGTH as u64) as usize] = 6 - *label;
            }
        }
        let shape = [BATCH, LENGTH];
        let ones = Tensor::from_slice(&shape, &[1i64; BATCH * LENGTH]).unwrap();
        let mut tensors = vec![
            ("input_ids", Tensor::from_slice(&shape, &ids).unwrap()),
            ("attention_mask", ones),
            ("labels", Tensor::from_slice(&[BATCH], &labels).unwrap()),
        ];
        if types {
            let zeros = Tensor::from_slice(&shape, &[0i64; BATCH * LENGTH]).unwrap();
            tensors.push(("token_type_ids", zeros));
        }
        Self { tensors }
    }

    pub(crate) fn views(&self) -> Vec<TensorView<'_>> {
        self.tensors.iter().map(|(name, t)| TensorView::of(name, t)).collect()
    }
}

pub(crate) fn step_all(trainer: &mut Trainer, seed: u64) -> Vec<f64> {
    let losses = pass_all(trainer, seed);
    trainer.step().unwrap();
    losses
}

pub(crate) fn pass_all(trainer: &mut Trainer, seed: u64) -> Vec<f64> {
    try_pass_all(trainer, seed).unwrap()
}

fn try_pass_all(trainer: &mut Trainer, seed: u64) -> mmopt::Result<Vec<f64>> {
    let examples: Vec<Example> = (0..trainer.n_models())
        .map(|i| Example::new(seed, trainer.model_name(i).unwrap() == "bert"))
        .collect();
    let views: Vec<_> = examples.iter().map(Example::views).collect();
    let batches: Vec<_> = views.iter().map(Vec::as_slice).collect();
    Ok(trainer.forward_backward_all(&batches)?.iter().map(|o| o.loss).collect())
}

fn accuracy(trainer: &mut Trainer, model: usize) -> f64 {
    let types = trainer.model_name(model).unwrap() == "bert";
    let (mut right, mut all) = (0, 0);
    for seed in 900..920 {
        let example = Example::new(seed, types);
        let found = trainer.evaluate(model, &example.views()).unwrap();
        (right, all) = (right + found.n_correct, all + found.n_labels);
    }
    right as f64 / all as f64
}

/// Some steps of two trainers, which have the same losses and end with the same bits.
pub(crate) fn learn_the_same(one: &mut Trainer, other: &mut Trainer) {
    for seed in 0..3 {
        assert_eq!(step_all(one, seed), step_all(other, seed));
    }
    assert!(weights(one) == weights(other), "other weights");
}

/// The gradients of a model, with the names of their parameters.
pub(crate) fn gradients(trainer: &Trainer, i: usize) -> Vec<(String, Vec<f32>)> {
    let names: Vec<_> = trainer.parameters(i).unwrap().map(|p| p.name.to_owned()).collect();
    let of = |name: &String| {
        let gradient = trainer.gradient(i, name).unwrap();
        gradient.map(|g| (name.clone(), g.as_slice::<f32>().unwrap().to_vec()))
    };
    names.iter().filter_map(of).collect()
}

pub(crate) fn weights(trainer: &Trainer) -> Vec<u8> {
    (0..trainer.n_models())
        .flat_map(|m| {
            let names: Vec<String> =
                trainer.parameters(m).unwrap().map(|p| p.name.to_owned()).collect();
            names
                .iter()
                .flat_map(|n| trainer.parameter(m, n).unwrap().bytes().to_vec())
                .collect::<Vec<u8>>()
        })
        .collect()
}

/// The same bits; on a GPU, whose sums into rows have no fixed order, the same to rounding.
fn assert_same(one: &[u8], two: &[u8]) {
    if trainer_options().device == Device::Cpu {
        assert!(one == two, "other bits");
        return;
    }
    let floats = |bytes: &[u8]| -> Vec<f64> {
        let four = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        bytes.chunks_exact(4).map(|b| f64::from(four(b))).collect()
    };
    let (one, two) = (floats(one), floats(two));
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let gap = norm(&mut one.iter().zip(&two).map(|(a, b)| a - b));
    let size = norm(&mut one.iter().copied());
    println!("relative difference of the weights {:.1e}", gap / size);
    assert!(gap <= 1e-3 * size, "{gap} of {size}");
}

#[test]
fn three_architectures_learn_together() {
    let mut trainer = trainer(&["bert", "gpt2", "roberta"], 0.1);
    let first = step_all(&mut trainer, 0);
    let mut last = Vec::new();
    for seed in 1..120 {
        last = step_all(&mut trainer, seed);
    }
    for model in 0..3 {
        assert!(last[model] < 0.6 * first[model], "model {model}: {first:?} to {last:?}");
        let accuracy = accuracy(&mut trainer, model);
        assert!(accuracy > 0.9, "model {model}: accuracy {accuracy}");
    }
    let plan = trainer.plan().to_string();
    assert!(plan.contains("attention query"), "{plan}");
}

#[test]
fn resume_continues_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = trainer(&["bert", "gpt2"], 0.1);
    (0..5).for_each(|seed| drop(step_all(&mut one, seed)));
    one.checkpoint(dir.path(), "{\"position\": 5}").unwrap();
    let tail: Vec<_> = (5..9).map(|seed| step_all(&mut one, seed)).collect();

    let mut two = trainer(&["bert", "gpt2"], 0.1);
    step_all(&mut two, 77); // whatever happened before is overwritten
    assert_eq!(two.resume(dir.path()).unwrap(), "{\"position\": 5}");
    assert_eq!(two.optimizer().step_count(), 5);
    let again: Vec<_> = (5..9).map(|seed| step_all(&mut two, seed)).collect();
    let pairs = tail.iter().flatten().zip(again.iter().flatten());
    let bound = if trainer_options().device == Device::Cpu { 0.0 } else { 1e-4 };
    pairs.for_each(|(a, b)| assert!((a - b).abs() <= bound, "{tail:?} {again:?}"));
    assert_same(&weights(&one), &weights(&two));
}

#[test]
fn the_same_bits_at_any_thread_count() {
    let run = |threads| {
        let mut options = trainer_options();
        options.optimizer.n_threads = threads;
        options.optimizer.learning_rate = 3e-3;
        let models = ["bert", "roberta"].map(|n| model(n, 0.1)).to_vec();
        let mut trainer = Trainer::new(options, models).unwrap();
        (0..4).for_each(|seed| drop(step_all(&mut trainer, seed)));
        weights(&trainer)
    };
    let one = run(1);
    assert_same(&one, &run(2));
    assert_same(&one, &run(5));
}

#[test]
fn published_directories_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["bert", "gpt2", "roberta"] {
        let mut one = trainer(&[name], 0.0);
        step_all(&mut one, 1);
        let at = dir.path().join(name);
        one.save_model(0, &at).unwrap();
        let source = Source::Directory(at.clone());
        let read = vec![ModelOptions::new(name, source)];
        let mut two = Trainer::new(trainer_options(), read).unwrap();
        assert_eq!(weights(&one), weights(&two), "{name}");

        // The ONNX file computes the same.
        let path = dir.path().join(format!("{name}.onnx"));
        one.save_onnx(0, &path).unwrap();
        let mut options = ModelOptions::new(name, Source::Onnx(path));
        options.loss =
            Some(mmopt::autodiff::LossSpec::new(mmopt::autodiff::LossKind::SequenceClassification));
        let mut three = Trainer::new(trainer_options(), vec![options]).unwrap();
        let example = Example::new(3, name == "bert");
        let [a, b] = [&mut two, &mut three].map(|t| t.evaluate(0, &example.views()).unwrap());
        assert_eq!(a.loss, b.loss, "{name}");
        assert_eq!(a.logits[0].1.bytes(), b.logits[0].1.bytes());
    }
}

/// Runtimes warn of initializers that nothing reads, such as a pooler's in a file of a tagger.
#[test]
fn saved_graphs_have_no_idle_initializers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    trainer(&["bert"], 0.1).save_onnx(0, &path).unwrap();
    check_no_idle(&path);
    let mut graph = Graph::read(&path).unwrap();
    graph
        .add_initializer("idle.weight", TensorData::from_slice(&[2], &[1f32, 2.0]).unwrap())
        .unwrap();
    graph.write(&path, false).unwrap();
    let mut options = ModelOptions::new("bert", Source::Onnx(path.clone()));
    options.loss =
        Some(mmopt::autodiff::LossSpec::new(mmopt::autodiff::LossKind::SequenceClassification));
    let trainer = Trainer::new(trainer_options(), vec![options]).unwrap();
    trainer.save_onnx(0, &path).unwrap();
    check_no_idle(&path);
}

fn check_no_idle(path: &std::path::Path) {
    let graph = Graph::read(path).unwrap();
    let consumers = graph.consumers();
    let idle = graph.initializers().keys().filter(|v| consumers[v.index()].is_empty());
    let idle: Vec<&str> = idle.map(|&v| graph.value_name(v)).collect();
    assert!(idle.is_empty(), "nothing reads {idle:?}");
    // Of constants runtimes make initializers.
    let outputs = graph.outputs();
    let read = |v: &ValueId| outputs.contains(v) || !consumers[v.index()].is_empty();
    let idle = graph.nodes().iter().filter(|n| !n.outputs.iter().flatten().any(read));
    let idle: Vec<&str> = idle.map(|n| n.op.as_str()).collect();
    assert!(idle.is_empty(), "nothing reads the results of {idle:?}");
}

#[test]
fn without_labels_there_are_logits_and_no_loss() {
    let mut trainer = trainer(&["gpt2"], 0.0);
    let mut example = Example::new(1, false);
    example.tensors.retain(|(name, _)| *name != "labels");
    let found = trainer.evaluate(0, &example.views()).unwrap();
    assert_eq!((found.loss, found.n_labels), (None, 0));
    assert_eq!(found.logits[0].1.shape(), [BATCH, 2]);
}

/// A GPT-2 on a BERT's vocabulary gets the BERT's batches.
#[test]
fn token_types_are_ignored_by_models_without_them() {
    let mut trainer = trainer(&["gpt2"], 0.0);
    let mut example = Example::new(1, false);
    let plain = trainer.evaluate(0, &example.views()).unwrap();
    let types = Tensor::from_slice(&[BATCH, LENGTH], &[1i64; BATCH * LENGTH]).unwrap();
    example.tensors.push(("token_type_ids", types));
    let typed = trainer.evaluate(0, &example.views()).unwrap();
    assert_eq!(plain.loss, typed.loss);
    trainer.forward_backward(0, &example.views()).unwrap();
    trainer.step().unwrap();
}

/// Bad batches: each a clear error, and the trainer works on as if nothing had happened.
/// A group of a model that is not there is an error; one that hits no parameter is told.
#[test]
fn parameter_groups_that_hit_nothing_are_told() {
    let made = |model: &str, pattern: &str| {
        let (model, pattern) = (model.to_owned(), pattern.to_owned());
        let group = optim::ParamGroup { pattern, model, ..Default::default() };
        let optimizer = optim::Options { param_groups: vec![group], ..optim::Options::adamw() };
        let task = Some(Task::SequenceClassification { num_labels: 2 });
        let source = Source::Config(Box::new(config("bert", &sizes(0.0))));
        let model = ModelOptions { task, ..ModelOptions::new("bert", source) };
        let options = TrainerOptions { optimizer, ..TrainerOptions::default() };
        let mut trainer = Trainer::new(options, vec![model])?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = heard.clone();
        let sink = move |_: Level, text: &str| into.lock().unwrap().push(text.to_owned());
        trainer.set_log(Some((Level::Warning, Box::new(sink))));
        let heard = heard.lock().unwrap().clone();
        Ok::<_, mmopt::Error>(heard)
    };
    let error = made("brt", "*").unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert_eq!(error.message(), "param_groups[0]: no model 'brt'; there are 'bert'");
    let told = "param_groups[0]: no parameter is named like '*biass' in models named like 'b*'";
    assert_eq!(made("b*", "*biass").unwrap(), [told]);
    assert_eq!(made("bert", "*bias").unwrap(), [""; 0]);
}

#[test]
fn bad_batches_are_refused_and_nothing_changes() {
    let mut trainer = trainer(&["bert"], 0.0);
    let before = weights(&trainer);
    let good = Example::new(1, true);
    let shape = [BATCH, LENGTH];
    let mut check = |name: &str, tensor: Option<Tensor>, kind: Kind, text: &str| {
        let mut bad = Example::new(1, true);
        match tensor {
            Some(t) if bad.tensors.iter().any(|(n, _)| *n == name) => {
                bad.tensors.iter_mut().find(|(n, _)| *n == name).unwrap().1 = t;
            }
            Some(t) => bad.tensors.push(("wrong_name", t)),
            None => bad.tensors.retain(|(n, _)| *n != name),
        }
        let error = trainer.forward_backward(0, &bad.views()).unwrap_err();
        let message = error.to_string();
        assert_eq!(error.kind(), kind, "{message}");
        assert!(message.contains("model 'bert'") && message.contains(text), "{message}");
        assert_eq!(trainer.step().unwrap_err().kind(), Kind::State);
    };
    let ids = |v: i64| Tensor::from_slice(&shape, &[v; BATCH * LENGTH]).unwrap();
    check("wrong_name", Some(ids(1)), Kind::NotFound, "no input or label 'wrong_name'");
    check("labels", None, Kind::NotFound, "label 'labels'");
    check("attention_mask", None, Kind::NotFound, "input 'attention_mask'");
    let labels = |v: i64| Tensor::from_slice(&[BATCH], &[v; BATCH]).unwrap();
    check("labels", Some(labels(2)), Kind::InvalidArgument, "class 2");
    check("labels", Some(labels(-1)), Kind::InvalidArgument, "class -1");
    let floats = Tensor::from_slice(&shape, &[1f32; BATCH * LENGTH]).unwrap();
    check("input_ids", Some(floats), Kind::InvalidArgument, "must be i64, but is f32");
    check("input_ids", Some(ids(40)), Kind::InvalidArgument, "id 40");
    check("input_ids", Some(ids(-3)), Kind::InvalidArgument, "id -3");
    let empty = Tensor::from_slice(&[0, LENGTH], &[0i64; 0]).unwrap();
    check("input_ids", Some(empty), Kind::Shape, "empty");
    let long = Tensor::from_slice(&[BATCH, 25], &[9i64; BATCH * 25]).unwrap();
    check("input_ids", Some(long), Kind::Shape, "24 positions");

    assert_eq!(weights(&trainer), before);
    trainer.forward_backward(0, &good.views()).unwrap();
    trainer.step().unwrap();
    assert_ne!(weights(&trainer), before);
}

#[test]
fn bad_models_are_refused() {
    let fail = |models: Vec<ModelOptions>| Trainer::new(trainer_options(), models).unwrap_err();
    assert_eq!(fail(vec![]).kind(), Kind::InvalidArgument);
    let twice = fail(vec![model("bert", 0.0), model("bert", 0.0)]);
    assert!(twice.to_string().contains("two models are named 'bert'"), "{twice}");
    let mut frozen = model("bert", 0.0);
    frozen.frozen = vec!["*".into()];
    assert!(fail(vec![frozen]).to_string().contains("no trainable parameter"));
    let mut unmatched = model("bert", 0.0);
    unmatched.trainable = vec!["nothing.like.this".into()];
    assert_eq!(fail(vec![unmatched]).kind(), Kind::NotFound);
    let missing = ModelOptions::new("x", Source::Onnx("/nonexistent.onnx".into()));
    assert_eq!(fail(vec![missing]).kind(), Kind::NotFound);
}

#[test]
fn frozen_parameters_stay_and_the_rest_moves() {
    let mut options = model("roberta", 0.0);
    options.frozen = vec!["roberta.embeddings.*".into()];
    let mut trainer = Trainer::new(trainer_options(), vec![options]).unwrap();
    let value = |t: &Trainer, n: &str| t.parameter(0, n).unwrap().bytes().to_vec();
    let names = ["roberta.embeddings.word_embeddings.weight", "classifier.out_proj.weight"];
    let before = names.map(|n| value(&trainer, n));
    step_all(&mut trainer, 1);
    assert_eq!(before[0], value(&trainer, names[0]));
    assert_ne!(before[1], value(&trainer, names[1]));
    assert!(trainer.gradient(0, names[0]).unwrap().is_none());
}

#[test]
fn accumulation_equals_one_large_batch() {
    let run = |micro: bool| {
        let accumulation = if micro { 2 } else { 1 };
        let optimizer = optim::Options {
            learning_rate: 1e-3,
            gradient_accumulation_steps: accumulation,
            ..optim::Options::adamw()
        };
        let options = TrainerOptions { optimizer, ..trainer_options() };
        let mut trainer = Trainer::new(options, vec![model("gpt2", 0.0)]).unwrap();
        let parts = [Example::new(1, false), Example::new(2, false)];
        if micro {
            for part in &parts {
                trainer.forward_backward(0, &part.views()).unwrap();
            }
        } else {
            let joined: Vec<(&str, Tensor)> = (0..3)
                .map(|i| {
                    let [a, b] = [&parts[0].tensors[i], &parts[1].tensors[i]];
                    let mut shape = a.1.shape().to_vec();
                    shape[0] *= 2;
                    let data = [a.1.as_slice::<i64>().unwrap(), b.1.as_slice().unwrap()].concat();
                    (a.0, Tensor::from_slice(&shape, &data).unwrap())
                })
                .collect();
            let views: Vec<_> = joined.iter().map(|(n, t)| TensorView::of(n, t)).collect();
            trainer.forward_backward(0, &views).unwrap();
        }
        trainer.step().unwrap();
        let name = "transformer.h.0.mlp.c_fc.weight";
        trainer.parameter(0, name).unwrap().as_slice::<f32>().unwrap().to_vec()
    };
    for (a, b) in run(true).iter().zip(run(false)) {
        assert!((a - b).abs() < 2e-4, "{a} against {b}");
    }
}

fn pair(change: impl Fn(&mut optim::Options)) -> Trainer {
    let mut options = trainer_options();
    options.optimizer =
        optim::Options { learning_rate: 3e-3, n_threads: 2, ..optim::Options::adamw() };
    change(&mut options.optimizer);
    Trainer::new(options, vec![model("bert", 0.0), model("roberta", 0.0)]).unwrap()
}

fn probabilities(trainer: &mut Trainer, model: usize, seed: u64) -> Vec<f64> {
    let example = Example::new(seed, trainer.model_name(model).unwrap() == "bert");
    let logits = trainer.evaluate(model, &example.views()).unwrap().logits;
    let logits = logits[0].1.as_slice::<f32>().unwrap();
    logits.chunks(2).map(|z| 1.0 / (1.0 + f64::from(z[0] - z[1]).exp())).collect()
}

/// Two models whose labels contradict each other: alone they part, with each other they meet.
#[test]
fn mutual_learning_draws_predictions_together() {
    let distance = |lambda: f64| {
        let mut trainer = pair(|o| {
            o.mutual = Some(optim::Mutual {
                weight: Some(lambda),
                temperature: 2.0,
                ..optim::Mutual::default()
            })
        });
        for seed in 0..60 {
            let mut examples = [Example::new(seed, true), Example::new(seed, false)];
            for (name, tensor) in &mut examples[1].tensors {
                if *name == "labels" {
                    tensor.as_mut_slice::<i64>().unwrap().iter_mut().for_each(|l| *l = 1 - *l);
                }
            }
            let views = examples.each_ref().map(Example::views);
            trainer.forward_backward_all(&[&views[0], &views[1]]).unwrap();
            trainer.step().unwrap();
        }
        let [a, b] = [0, 1].map(|m| probabilities(&mut trainer, m, 500));
        a.iter().zip(&b).map(|(a, b)| (a - b).abs()).sum::<f64>() / a.len() as f64
    };
    let (apart, together) = (distance(0.0), distance(10.0));
    assert!(apart > 0.8 && together < 0.3, "{together} with, {apart} without");
}

#[test]
fn mutual_learning_without_weight_is_plain_training() {
    let run = |mutual: Option<optim::Mutual>| {
        let mut trainer = pair(|o| o.mutual.clone_from(&mutual));
        (0..4).for_each(|seed| drop(step_all(&mut trainer, seed)));
        weights(&trainer)
    };
    let zero = optim::Mutual { weight: Some(0.0), ..optim::Mutual::default() };
    let [a, b] = [run(None), run(Some(zero))];
    let floats = |w: &[u8]| -> Vec<f32> {
        w.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
    };
    for (a, b) in floats(&a).iter().zip(floats(&b)) {
        assert!((a - b).abs() < 1e-4, "{a} against {b}");
    }
}

#[test]
fn a_harmful_synchronisation_is_taken_back() {
    let run = |barrier: f64| {
        let mut trainer = pair(|o| {
            o.share_policy = optim::SharePolicy::Aligned;
            (o.sync_beta, o.sync_every, o.max_loss_increase) = (0.9, 10, Some(barrier));
        });
        let mut synced = 0;
        for seed in 0..60 {
            let examples = [Example::new(seed, true), Example::new(seed, false)];
            let views = examples.each_ref().map(Example::views);
            trainer.forward_backward_all(&[&views[0], &views[1]]).unwrap();
            synced += usize::from(trainer.step().unwrap().synced);
        }
        (synced, trainer.optimizer().undone_syncs())
    };
    assert_eq!(run(1e9), (6, 0));
    let (synced, refused) = run(0.0);
    assert!(refused >= 3 && synced + refused as usize == 6, "{synced} kept, {refused} refused");
}

/// A cancel token that is set in the rate callback leaves the update and ends the check of the
/// synchronisation after it: the step succeeds, with the values of a step without synchronisation.
#[test]
fn a_cancel_within_a_step_leaves_nothing_half_done() {
    let prepared = |sync_every: u64| {
        let mut trainer = pair(|o| {
            o.share_policy = optim::SharePolicy::Aligned;
            (o.sync_beta, o.sync_every, o.max_loss_increase) = (0.9, sync_every, Some(1e9));
        });
        pass_all(&mut trainer, 1);
        trainer
    };
    let mut cancelled = prepared(1);
    let cancel_token = cancelled.cancel_token();
    let throw = move |_: &str, _: u64, rate: f64| {
        cancel_token.cancel();
        rate
    };
    cancelled.optimizer_mut().set_rate_callback(Some(Box::new(throw)));
    let report = cancelled.step().unwrap();
    assert_eq!((report.step, report.updated, report.synced), (1, 2, false));
    let kind = |result: mmopt::Result<optim::StepReport>| result.unwrap_err().kind();
    assert_eq!(kind(cancelled.step()), Kind::State, "its gradients are used up");
    let mut alone = prepared(0);
    alone.step().unwrap();
    assert_same(&weights(&cancelled), &weights(&alone));
    let mut kept = prepared(1);
    assert!(kept.step().unwrap().synced && weights(&kept) != weights(&alone));

    cancelled.optimizer_mut().set_rate_callback(None);
    cancelled.cancel_token().reset().unwrap();
    pass_all(&mut cancelled, 2);
    assert!(cancelled.step().unwrap().synced);
}

/// The same for a cancel_token from another thread at any time: each step is taken, and says so.
#[test]
fn a_cancel_at_any_time_ends_a_pass_or_leaves_out_a_trial() {
    let mut trainer = pair(|o| {
        o.share_policy = optim::SharePolicy::Aligned;
        (o.sync_beta, o.sync_every, o.max_loss_increase) = (0.9, 1, Some(1e9));
    });
    let cancel_token = trainer.cancel_token();
    let thrower = std::thread::spawn(move || {
        for i in 0..400 {
            std::thread::sleep(std::time::Duration::from_micros(200 + i * 37 % 3000));
            cancel_token.cancel();
        }
    });
    let mut n_left_out = 0;
    for seed in 0.. {
        let is_last = thrower.is_finished();
        trainer.cancel_token().reset().unwrap();
        if try_pass_all(&mut trainer, seed).is_ok() {
            let (before, n) = (weights(&trainer), trainer.optimizer().step_count());
            let report = trainer.step().unwrap();
            assert!(report.step == n + 1 && weights(&trainer) != before);
            n_left_out += usize::from(!report.synced);
        }
        if is_last {
            break;
        }
    }
    thrower.join().unwrap();
    println!("{n_left_out} trials were cancelled");
}

#[test]
fn padding_rows_get_no_gradient() {
    let mut trainer = trainer(&["bert"], 0.0);
    let mut example = Example::new(1, true);
    // Padding that the mask does not hide: its embedding takes part in the loss.
    example.tensors[0].1.as_mut_slice::<i64>().unwrap()[3] = 0;
    trainer.forward_backward(0, &example.views()).unwrap();
    let name = "bert.embeddings.word_embeddings.weight";
    let gradient = trainer.gradient(0, name).unwrap().unwrap().as_slice::<f32>().unwrap();
    assert!(gradient[..16].iter().all(|&g| g == 0.0));
    assert!(gradient[5 * 16..7 * 16].iter().any(|&g| g != 0.0));
}

/// A table that is the head's matrix, too, keeps the head's gradient of its padding row, as in the
/// published class; models_oracle compares the numbers.
#[test]
fn the_padding_row_of_a_tied_head_keeps_the_heads_gradient() {
    let source = Source::Config(Box::new(config("bert", &sizes(0.0))));
    let task = Some(Task::MaskedLm);
    let options = ModelOptions { task, seed: 7, ..ModelOptions::new("bert", source) };
    let mut trainer = Trainer::new(trainer_options(), vec![options]).unwrap();
    let mut example = Example::new(1, true);
    let labels: Vec<i64> = (0..BATCH * LENGTH).map(|i| 1 + i as i64 % 9).collect();
    let labels = Tensor::from_slice(&[BATCH, LENGTH], &labels).unwrap();
    example.tensors.iter_mut().find(|(name, _)| *name == "labels").unwrap().1 = labels;
    trainer.forward_backward(0, &example.views()).unwrap();
    let name = "bert.embeddings.word_embeddings.weight";
    let row = |t: &Tensor| t.as_slice::<f32>().unwrap()[..16].to_vec();
    let gradient = row(trainer.gradient(0, name).unwrap().unwrap());
    assert!(gradient.iter().all(|g| *g != 0.0), "{gradient:?}");
    let before = row(trainer.parameter(0, name).unwrap());
    trainer.step().unwrap();
    assert_ne!(row(trainer.parameter(0, name).unwrap()), before);
}

/// Warnings of a trainer from now on.
pub(crate) fn warnings(trainer: &mut Trainer) -> std::sync::Arc<std::sync::Mutex<Vec<String>>> {
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
    let into = heard.clone();
    let sink = move |_: Level, text: &str| into.lock().unwrap().push(text.to_owned());
    trainer.set_log(Some((Level::Warning, Box::new(sink))));
    heard
}

/// Micro-batches with eight labels, with one, and with none.
fn unequal_labels() -> Vec<Example> {
    let mut parts: Vec<_> = (1..4).map(|seed| Example::new(seed, true)).collect();
    for (part, n_kept) in parts.iter_mut().zip([BATCH, 1, 0]) {
        let labels = part.tensors.iter_mut().find(|(name, _)| *name == "labels").unwrap();
        labels.1.as_mut_slice::<i64>().unwrap()[n_kept..].fill(-100);
    }
    parts
}

fn joined(parts: &[Example]) -> Vec<(&'static str, Tensor)> {
    let join = |i: usize| {
        let tensors: Vec<&Tensor> = parts.iter().map(|p| &p.tensors[i].1).collect();
        let mut shape = tensors[0].shape().to_vec();
        shape[0] *= parts.len();
        let data: Vec<i64> =
            tensors.iter().flat_map(|t| t.as_slice::<i64>().unwrap()).copied().collect();
        (parts[0].tensors[i].0, Tensor::from_slice(&shape, &data).unwrap())
    };
    (0..parts[0].tensors.len()).map(join).collect()
}

/// By default a label counts the same in whichever micro-batch it is.
#[test]
fn micro_batches_count_by_their_labels() {
    let name = "classifier.weight";
    let run = |micro: bool, combine: Option<optim::GradientAccumulation>| -> Vec<f32> {
        let mut optimizer = optim::Options {
            method: optim::Method::Sgd,
            momentum: 0.0,
            weight_decay: 0.0,
            learning_rate: 1.0,
            gradient_accumulation_steps: if micro { 3 } else { 1 },
            ..optim::Options::adamw()
        };
        optimizer.gradient_accumulation = combine.unwrap_or(optimizer.gradient_accumulation);
        let options = TrainerOptions { optimizer, ..trainer_options() };
        let mut trainer = Trainer::new(options, vec![model("bert", 0.0)]).unwrap();
        let value = |t: &Trainer| t.parameter(0, name).unwrap().as_slice::<f32>().unwrap().to_vec();
        let before = value(&trainer);
        let parts = unequal_labels();
        if micro {
            for part in &parts {
                trainer.forward_backward(0, &part.views()).unwrap();
            }
        } else {
            let joined = joined(&parts);
            let views: Vec<_> = joined.iter().map(|(n, t)| TensorView::of(n, t)).collect();
            trainer.forward_backward(0, &views).unwrap();
        }
        trainer.step().unwrap();
        before.iter().zip(value(&trainer)).map(|(a, b)| a - b).collect()
    };
    let whole = run(false, None);
    let size = whole.iter().fold(0.0f32, |a, g| a.max(g.abs()));
    let off = |got: Vec<f32>| {
        let worst = got.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        worst / size
    };
    let weighted = off(run(true, None));
    assert!(weighted < 1e-4, "{weighted}");
    let mean = off(run(true, Some(optim::GradientAccumulation::Mean)));
    assert!(mean > 0.3, "the mean of means is {mean} off");
}

#[test]
fn what_is_probably_not_intended_is_told_once() {
    let mut trainer = trainer(&["bert"], 0.0);
    let heard = warnings(&mut trainer);
    let mut example = Example::new(1, true);
    trainer.forward_backward(0, &example.views()).unwrap();
    assert!(heard.lock().unwrap().is_empty(), "{heard:?}");
    trainer.forward_backward(0, &example.views()).unwrap();
    {
        let mut heard = heard.lock().unwrap();
        assert!(heard.len() == 1 && heard[0].contains("gradient_accumulation_steps"), "{heard:?}");
        heard.clear();
    }
    trainer.step().unwrap();
    let mask = example.tensors.iter_mut().find(|(name, _)| *name == "attention_mask").unwrap();
    mask.1.as_mut_slice::<i64>().unwrap()[3] = 2;
    for _ in 0..2 {
        trainer.forward_backward(0, &example.views()).unwrap();
        trainer.step().unwrap();
    }
    let heard = heard.lock().unwrap();
    let told = heard.len() == 1 && heard[0].contains("'bert'") && heard[0].contains("holds 2");
    assert!(told, "{heard:?}");
}

/// Options that differ from the checkpoint's are told when it is resumed.
#[test]
fn changed_options_are_told_at_resume() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = trainer(&["bert"], 0.0);
    step_all(&mut first, 1);
    first.checkpoint(folder.path(), "").unwrap();
    let mut options = trainer_options();
    options.optimizer.learning_rate = 7e-4;
    options.optimizer.n_threads = 2;
    let mut second = Trainer::new(options, vec![model("bert", 0.0)]).unwrap();
    let heard = warnings(&mut second);
    second.resume(folder.path()).unwrap();
    let heard = heard.lock().unwrap();
    assert!(
        heard.len() == 1 && heard[0].contains("learning_rate was 0.003 and is 0.0007"),
        "{heard:?}"
    );
    assert_eq!(second.optimizer().rates(0).unwrap().base, 7e-4);
}

#[test]
fn the_end_of_a_schedule_is_told() {
    let mut options = trainer_options();
    options.optimizer.lr_schedule = optim::LrSchedule::Linear;
    options.optimizer.total_steps = 2;
    let mut trainer = Trainer::new(options, vec![model("bert", 0.0)]).unwrap();
    let heard = warnings(&mut trainer);
    let mut told = Vec::new();
    for seed in 0..4 {
        step_all(&mut trainer, seed);
        told.push(heard.lock().unwrap().len());
    }
    assert_eq!(told, [0, 0, 1, 1]);
    assert!(heard.lock().unwrap()[0].contains("total_steps (2)"), "{heard:?}");
}
