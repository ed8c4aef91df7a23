//! Models as exporters leave them, through the public API: what is found, reported, fixed and
//! switched; gradient graphs of the user; element types; where a pass goes non-finite; the log.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::exported_graphs::{
    VOCABULARY, WIDTH, exported, floats, fragile, linear, linear_with_gradients, noise,
};
use bytes::Bytes;
use mmopt::autodiff::{LossKind, LossSpec};
use mmopt::onnx::Graph;
use mmopt::tensor::{DType, Tensor};
use mmopt::train::graphs::{Pass, PrecomputedGradients};
use mmopt::train::{
    DuplicateWeights, GradientGraph, Level, ModelOptions, SharedInitializers, Source, TensorView,
    Trainer, TrainerOptions,
};
use mmopt::{Kind, optim};

const BATCH: usize = 4;
const LENGTH: usize = 5;

fn onnx(graph: &Graph, kind: LossKind) -> ModelOptions {
    let bytes = Bytes::from(graph.to_bytes().unwrap());
    let mut options = ModelOptions::new("model", Source::OnnxBytes(bytes));
    options.loss = Some(LossSpec::new(kind));
    options
}

fn tagger() -> ModelOptions {
    onnx(&exported(), LossKind::TokenClassification)
}

fn trainer_with(options: ModelOptions, weight_decay: f64) -> mmopt::Result<Trainer> {
    let optimizer = optim::Options { learning_rate: 3e-2, weight_decay, ..optim::Options::adamw() };
    let optimizer = optim::Options { n_threads: 1, ..optimizer };
    let all = TrainerOptions { optimizer, ..TrainerOptions::default() };
    Trainer::new(all, vec![options])
}

fn trainer(options: ModelOptions) -> Trainer {
    trainer_with(options, 0.0).unwrap()
}

/// Ids, and as labels the same ids.
fn tags() -> [(&'static str, Tensor); 2] {
    let n = BATCH * LENGTH;
    let ids: Vec<i64> = (0..n).map(|i| (i * 7 % VOCABULARY) as i64).collect();
    let ids = Tensor::from_slice(&[BATCH, LENGTH], &ids).unwrap();
    [("input_ids", ids.copy().unwrap()), ("labels", ids)]
}

fn views<'a>(tensors: &'a [(&'static str, Tensor)]) -> Vec<TensorView<'a>> {
    tensors.iter().map(|(name, t)| TensorView::of(name, t)).collect()
}

fn step(trainer: &mut Trainer, batch: &[(&'static str, Tensor)]) -> f64 {
    let loss = trainer.forward_backward(0, &views(batch)).unwrap().loss;
    trainer.step().unwrap();
    loss
}

fn names(trainer: &Trainer) -> Vec<String> {
    trainer.parameters(0).unwrap().map(|p| p.name.to_owned()).collect()
}

fn value(trainer: &Trainer, name: &str) -> Vec<f32> {
    trainer.parameter(0, name).unwrap().as_slice().unwrap().to_vec()
}

fn gradient(trainer: &Trainer, name: &str) -> Vec<f32> {
    trainer.gradient(0, name).unwrap().unwrap().as_slice().unwrap().to_vec()
}

fn close(a: &[f32], b: &[f32], bound: f32) {
    assert_eq!(a.len(), b.len());
    let size = b.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
    for (x, y) in a.iter().zip(b) {
        assert!((x - y).abs() <= bound * size, "{x} against {y} of {size}");
    }
}

#[test]
fn an_export_is_fixed_reported_and_learns() {
    let options = tagger();
    let report = options.inspect().unwrap();
    let mut trainer = trainer(options);
    assert_eq!(&report, trainer.report(0).unwrap());
    assert_eq!(
        names(&trainer),
        [
            "emb.weight",
            "ln.weight",
            "zero",
            "layer.dense.weight",
            "layer.dense.bias",
            "ln2.weight",
            "m.fc.weight"
        ]
    );
    let first = step(&mut trainer, &tags());
    let last = (0..100).map(|_| step(&mut trainer, &tags())).last().unwrap();
    assert!(last < 0.5 * first, "{first} to {last}");

    let pair = &report.duplicate_weights[0];
    assert_eq!((&*pair.first, &*pair.second), ("emb.weight", "val_9"));
    assert!(pair.transposed && pair.table && pair.tied);
    let shared = &report.shared_initializers[0];
    assert_eq!((&*shared.name, shared.uses.len(), shared.split.len()), ("zero", 2, 0));
    assert!(shared.uses[0].contains("LayerNormalization") && shared.uses[0].ends_with("input 2"));
    let parameter = |name: &str| report.parameters.iter().find(|p| p.name == name).unwrap();
    assert_eq!(parameter("emb.weight").tied, ["val_9"]);
    let dense = parameter("layer.dense.weight");
    assert_eq!(dense.name_in_file.as_deref(), Some("onnx::MatMul_12"));
    assert!(dense.transposed && dense.origin == "initializer");
    let constant = parameter("m.fc.weight");
    assert_eq!(constant.name_in_file.as_deref(), Some("/m/fc/Constant_output_0"));
    assert_eq!(constant.origin, "constant");
    assert_eq!(parameter("ln2.weight").origin, "identity");
    let never: Vec<(&str, &str, bool)> =
        report.non_trainable.iter().map(|n| (&*n.name, n.dtype, n.on_request)).collect();
    assert_eq!(never, [("w_scale", "f32", true), ("w_quantized", "i8", false)]);
    assert!(report.non_trainable[1].reason.contains("quantised"));

    let text = report.to_string();
    for part in [
        "model 'model': 7 parameters with 162 elements; 7 with 162 are trained",
        "shared initializer: 'zero', read in 2 places",
        "duplicate weights: 'emb.weight' and 'val_9', transposed; tied",
        "renamed: 'layer.dense.weight', in the file 'onnx::MatMul_12'",
        "not trained: 'w_quantized' i8[6, 6]: quantised",
    ] {
        assert!(text.contains(part), "'{part}' is not in\n{text}");
    }
    let json = report.to_json();
    assert_eq!(json["duplicate_weights"][0]["tied"], true);
    assert_eq!(json["parameters"][3]["name_in_file"], "onnx::MatMul_12");
}

/// Tied, the gradient is the sum of those of the two copies.
#[test]
fn tied_and_untied_embeddings() {
    let mut tied = trainer(tagger());
    let mut options = tagger();
    options.import_fixes.duplicate_weights = DuplicateWeights::Report;
    options.import_fixes.restore_names = false;
    let mut apart = trainer(options);
    assert!(names(&apart).contains(&"val_9".to_owned()));
    assert!(!apart.report(0).unwrap().duplicate_weights[0].tied);
    for t in [&mut tied, &mut apart] {
        t.forward_backward(0, &views(&tags())).unwrap();
    }
    let turned = gradient(&apart, "val_9");
    let at = |i: usize| turned[i % WIDTH * VOCABULARY + i / WIDTH];
    let table = gradient(&apart, "emb.weight");
    let sum: Vec<f32> = table.iter().enumerate().map(|(i, g)| g + at(i)).collect();
    close(&gradient(&tied, "emb.weight"), &sum, 1e-5);
}

/// Two equal matrices without a table are reported; tied only when all are.
#[test]
fn equal_matrices_without_a_table_stay_apart_by_default() {
    let mut g = linear(DType::F32);
    let y = g.outputs()[0];
    let weights = floats(&[2, 2], &noise(9, 4));
    let a = g.add_initializer("a", weights.clone()).unwrap();
    let b = g.add_initializer("b2", weights).unwrap();
    let z = g.op("MatMul", &[y, a], []);
    let z = g.op("MatMul", &[z, b], []);
    g.set_type(z, g.value(y).ty.clone());
    g.set_outputs(vec![z]);
    let count = |choice: DuplicateWeights| {
        let mut options = onnx(&g, LossKind::MeanSquaredError);
        options.import_fixes.duplicate_weights = choice;
        let report = options.inspect().unwrap();
        assert_eq!(report.duplicate_weights.len(), 1);
        report.parameters.len()
    };
    assert_eq!(
        [DuplicateWeights::Report, DuplicateWeights::Embeddings, DuplicateWeights::All].map(count),
        [4, 4, 3]
    );
}

#[test]
fn shared_initializers_are_split_on_request() {
    let mut options = tagger();
    options.import_fixes.shared_initializers = SharedInitializers::Split;
    let report = options.inspect().unwrap();
    assert_eq!(report.shared_initializers[0].split, ["m.ln2.bias"]);
    assert!(report.warnings().iter().all(|w| !w.contains("zero")), "{:?}", report.warnings());
    let mut split = trainer(options);
    let mut shared = trainer(tagger());
    for t in [&mut split, &mut shared] {
        t.forward_backward(0, &views(&tags())).unwrap();
    }
    let [one, other] = ["zero", "m.ln2.bias"].map(|n| gradient(&split, n));
    let sum: Vec<f32> = one.iter().zip(&other).map(|(a, b)| a + b).collect();
    close(&gradient(&shared, "zero"), &sum, 1e-5);
    split.step().unwrap();
    assert_ne!(value(&split, "zero"), value(&split, "m.ln2.bias"));
}

#[test]
fn patterns_find_parameters_under_every_name() {
    let mut options = tagger();
    options.frozen = vec!["onnx::MatMul_12".into(), "val_?".into()];
    let trainer = trainer(options);
    let frozen: Vec<&str> =
        trainer.parameters(0).unwrap().filter(|p| !p.trainable).map(|p| p.name).collect();
    assert_eq!(frozen, ["emb.weight", "layer.dense.weight"]);
    let reasons: Vec<_> =
        trainer.report(0).unwrap().parameters.iter().filter_map(|p| p.reason.clone()).collect();
    assert_eq!(reasons[0], "the pattern 'val_?' freezes it");

    let mut options = tagger();
    options.trainable = vec!["*.dense.*".into(), "w_scale".into()];
    let report = options.inspect().unwrap();
    let trained: Vec<&str> =
        report.parameters.iter().filter(|p| p.trained).map(|p| &*p.name).collect();
    assert_eq!(trained, ["layer.dense.weight", "layer.dense.bias", "w_scale"]);

    let mut options = tagger();
    options.trainable = vec!["w_quantized".into()];
    let e = trainer_with(options, 0.0).unwrap_err();
    assert_eq!(e.kind(), Kind::Unsupported, "{e}");
    assert!(e.message().contains("'w_quantized' i8[6, 6]") && e.message().contains("f32"), "{e}");

    let mut options = tagger();
    options.import_fixes.restore_names = false;
    assert!(names(&self::trainer(options)).contains(&"onnx::MatMul_12".to_owned()));
}

#[test]
fn a_model_of_quantised_weights_alone_is_refused_with_the_reason() {
    let mut g = linear(DType::F32);
    for name in ["w", "b"] {
        let id = g.find(name).unwrap();
        let shape = g.initializer(id).unwrap().shape().to_vec();
        let n: usize = shape.iter().product();
        let bytes = mmopt::onnx::TensorData::new(DType::I8, &shape, vec![3u8; n].into()).unwrap();
        let bytes = g.add_initializer(&format!("{name}_q"), bytes).unwrap();
        let scale = g.add_initializer(&format!("{name}_s"), floats(&[], &[0.5])).unwrap();
        let wide = g.op("DequantizeLinear", &[bytes, scale], []);
        g.replace_uses(id, wide);
    }
    g.prune();
    g.sort().unwrap();
    let e = trainer_with(onnx(&g, LossKind::MeanSquaredError), 0.0).unwrap_err();
    for part in ["model 'model'", "no trainable parameter", "w_q", "quantised"] {
        assert!(e.message().contains(part), "{e}");
    }
}

/// Names that were restored are those of the state dict, and what was tied is one parameter there,
/// by the maps beside real exports. Returns how many were renamed, and how many tied.
fn check_names(root: &Path) -> (usize, usize) {
    let (mut renamed, mut tied) = (0, 0);
    let entries = std::fs::read_dir(root).unwrap().flatten().map(|e| e.path());
    for folder in entries.filter(|p| p.join("oracle.json").is_file()) {
        let json = |path: &Path| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
        };
        let about = json(&folder.join("oracle.json"));
        let files = std::fs::read_dir(&folder).unwrap().flatten().map(|e| e.path());
        for file in files.filter(|p| p.extension().is_some_and(|e| e == "onnx")) {
            let map = json(&file.with_extension("map.json"));
            let published = |name: &str| -> String {
                let all = map["initializers"].as_array().unwrap();
                let entry = all.iter().find(|e| e["name"] == name);
                let name = entry.and_then(|e| e["torch_param"].as_str()).unwrap_or(name);
                about["tied"][name].as_str().unwrap_or(name).to_owned()
            };
            let report = ModelOptions::new("m", Source::Onnx(file.clone())).inspect().unwrap();
            for p in &report.parameters {
                let Some(old) = &p.name_in_file else { continue };
                let name = p.name.strip_prefix("m.").unwrap_or(&p.name);
                assert_eq!(name, published(old), "{}: {old}", file.display());
                renamed += 1;
            }
            for t in &report.duplicate_weights {
                let [a, b] = [&t.first, &t.second].map(|n| published(n));
                let place = file.display();
                assert!(t.tied && a == b, "{place}: {} is {a}, {} is {b}", t.first, t.second);
                tied += 1;
            }
            assert!(
                report.shared_initializers.is_empty(),
                "{}: {:?}",
                file.display(),
                report.shared_initializers
            );
        }
    }
    (renamed, tied)
}

#[test]
fn names_of_real_exports_are_restored() {
    let (renamed, tied) = check_names(Path::new("tests/data/oracle"));
    assert!(renamed > 20 && tied > 0, "{renamed} renamed, {tied} tied");
    let all = Path::new("../shared/oracle");
    if all.is_dir() {
        let (renamed, tied) = check_names(all);
        assert!(renamed > 500 && tied > 10, "{renamed} renamed, {tied} tied");
    } else {
        println!("not run: no {}", all.display());
    }
}

/// What is saved has the fixed parameters and computes the same.
#[test]
fn a_fixed_model_is_saved_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = trainer(tagger());
    step(&mut one, &tags());
    one.save_model(0, dir.path()).unwrap();
    let mut options = ModelOptions::new("model", Source::Onnx(dir.path().join("model.onnx")));
    options.loss = Some(LossSpec::new(LossKind::TokenClassification));
    let report = options.inspect().unwrap();
    assert!(report.duplicate_weights.is_empty(), "{report}");
    let mut two = trainer(options);
    let [a, b] = [&mut one, &mut two].map(|t| t.evaluate(0, &views(&tags())).unwrap());
    assert_eq!(a.loss, b.loss);
    close(a.logits[0].1.as_slice().unwrap(), b.logits[0].1.as_slice().unwrap(), 1e-6);
}

/// Neither gradient nor weight decay moves a frozen row; the others move.
#[test]
fn frozen_rows_stay_as_they_are() {
    let mut options = tagger();
    options.frozen_rows = vec![("val_9".into(), 0), ("emb.*".into(), 7)];
    let mut trainer = trainer_with(options, 0.5).unwrap();
    assert_eq!(trainer.report(0).unwrap().parameters[0].frozen_rows, [0, 7]);
    let before = value(&trainer, "emb.weight");
    for _ in 0..3 {
        step(&mut trainer, &tags());
    }
    let after = value(&trainer, "emb.weight");
    let rows = |v: &[f32]| v.chunks(WIDTH).map(<[f32]>::to_vec).collect::<Vec<_>>();
    for (i, (b, a)) in rows(&before).iter().zip(&rows(&after)).enumerate() {
        assert_eq!(a == b, i == 0 || i == 7, "row {i}");
    }
    let gradients = gradient(&trainer, "emb.weight");
    assert!(gradients[7 * WIDTH..8 * WIDTH].iter().all(|&g| g == 0.0));

    let refused = |pattern: &str, row| {
        let mut options = tagger();
        options.frozen_rows = vec![(pattern.into(), row)];
        trainer_with(options, 0.0).unwrap_err()
    };
    assert_eq!(refused("nothing", 0).kind(), Kind::NotFound);
    let e = refused("emb.weight", VOCABULARY);
    assert!(e.kind() == Kind::Shape && e.message().contains("row 11"), "{e}");
}

/// Features and targets.
fn pairs(dtype: DType) -> [(&'static str, Tensor); 2] {
    let x = noise(20, BATCH * 3);
    let x = match dtype {
        DType::F64 => {
            let wide: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
            Tensor::from_slice(&[BATCH, 3], &wide).unwrap()
        }
        _ => Tensor::from_slice(&[BATCH, 3], &x).unwrap(),
    };
    let target = Tensor::from_slice(&[BATCH, 2], &noise(21, BATCH * 2)).unwrap();
    [("x", x), ("labels", target)]
}

#[test]
fn f64_graphs_train_with_parameters_in_f32() {
    let mut wide = trainer(onnx(&linear(DType::F64), LossKind::MeanSquaredError));
    let mut plain = trainer(onnx(&linear(DType::F32), LossKind::MeanSquaredError));
    assert_eq!(wide.report(0).unwrap().parameters[0].dtype, "f64");
    assert!(wide.parameters(0).unwrap().all(|p| p.dtype == DType::F32));
    for _ in 0..5 {
        let a = step(&mut wide, &pairs(DType::F64));
        let b = step(&mut plain, &pairs(DType::F32));
        assert!((a - b).abs() < 1e-5 * b, "{a} against {b}");
        close(&gradient(&wide, "w"), &gradient(&plain, "w"), 1e-5);
    }
    let logits = wide.evaluate(0, &views(&pairs(DType::F64)[..1])).unwrap().logits;
    assert_eq!((logits[0].0.as_str(), logits[0].1.dtype()), ("y", DType::F32));
    let dir = tempfile::tempdir().unwrap();
    wide.save_model(0, dir.path()).unwrap();
    Graph::read(&dir.path().join("model.onnx")).unwrap();
}

fn gradient_graph(graph: &Graph) -> ModelOptions {
    let bytes = Bytes::from(graph.to_bytes().unwrap());
    let mut options = ModelOptions::new("model", Source::OnnxBytes(bytes));
    let pair = |p: &str, g: &str| (p.to_owned(), g.to_owned());
    options.gradients = Some(GradientGraph {
        outputs: PrecomputedGradients {
            loss: "mse".into(),
            gradients: vec![pair("w", "w_grad"), pair("b", "b_grad")],
            logits: vec!["y".into()],
        },
        weights: None,
    });
    options
}

/// The same pairs under the names of the gradient graph.
fn targets() -> [(&'static str, Tensor); 2] {
    let [x, (_, labels)] = pairs(DType::F32);
    [x, ("target", labels)]
}

#[test]
fn a_gradient_graph_trains_as_the_forward_graph_does() {
    let mut given = trainer(gradient_graph(&linear_with_gradients(DType::F32)));
    let mut ours = trainer(onnx(&linear(DType::F32), LossKind::MeanSquaredError));
    let mut losses = Vec::new();
    for _ in 0..6 {
        let a = step(&mut given, &targets());
        let b = step(&mut ours, &pairs(DType::F32));
        assert!((a - b).abs() <= 1e-5 * b, "{a} against {b}");
        for name in ["w", "b"] {
            close(&gradient(&given, name), &gradient(&ours, name), 1e-5);
            close(&value(&given, name), &value(&ours, name), 1e-5);
        }
        losses.push(a);
    }
    assert!(losses[5] < losses[0], "{losses:?}");

    // Targets are labels: evaluation does without them.
    let alone = given.evaluate(0, &views(&targets()[..1])).unwrap();
    let with = given.evaluate(0, &views(&targets())).unwrap();
    assert!(alone.loss.is_none() && with.loss.is_some());
    let other = ours.evaluate(0, &views(&pairs(DType::F32))).unwrap();
    close(alone.logits[0].1.as_slice().unwrap(), other.logits[0].1.as_slice().unwrap(), 1e-5);

    let dir = tempfile::tempdir().unwrap();
    given.save_model(0, dir.path()).unwrap();
    let saved = Graph::read(&dir.path().join("model.onnx")).unwrap();
    let inputs: Vec<&str> = saved.inputs().iter().map(|&v| saved.value_name(v)).collect();
    assert_eq!((inputs, saved.outputs().len()), (vec!["x"], 1));
}

#[test]
fn a_gradient_graph_of_f64_trains_with_parameters_in_f32() {
    let mut wide = trainer(gradient_graph(&linear_with_gradients(DType::F64)));
    let mut plain = trainer(gradient_graph(&linear_with_gradients(DType::F32)));
    let [x, (_, labels)] = pairs(DType::F64);
    let target: Vec<f64> = labels.as_slice::<f32>().unwrap().iter().map(|&v| v.into()).collect();
    let batch = [x, ("target", Tensor::from_slice(labels.shape(), &target).unwrap())];
    for _ in 0..3 {
        let (a, b) = (step(&mut wide, &batch), step(&mut plain, &targets()));
        assert!((a - b).abs() <= 1e-5 * b, "{a} against {b}");
        close(&gradient(&wide, "w"), &gradient(&plain, "w"), 1e-5);
    }
}

/// Parameters that are inputs take their values from a file; a frozen one stays.
#[test]
fn a_gradient_graph_with_parameters_as_inputs() {
    let dir = tempfile::tempdir().unwrap();
    let mut g = linear_with_gradients(DType::F32);
    let values: Vec<(&str, Tensor)> = ["w", "b"]
        .map(|n| (n, g.initializer(g.find(n).unwrap()).unwrap().to_tensor().unwrap()))
        .into();
    for name in ["w", "b"] {
        g.make_input(g.find(name).unwrap());
    }
    let path = dir.path().join("weights.safetensors");
    let tensors = values.iter().map(|(n, t)| (*n, t));
    mmopt::checkpoint::weights::write(&path, tensors, &[]).unwrap();
    let e = trainer_with(gradient_graph(&g), 0.0).unwrap_err();
    assert!(e.message().contains("'w' is an input"), "{e}");

    let mut options = gradient_graph(&g);
    options.gradients.as_mut().unwrap().weights = Some(path);
    options.frozen = vec!["b".into()];
    let mut one = trainer(options);
    let mut other = trainer(gradient_graph(&linear_with_gradients(DType::F32)));
    let before = value(&one, "b");
    step(&mut one, &targets());
    step(&mut other, &targets());
    close(&value(&one, "w"), &value(&other, "w"), 1e-6);
    assert_eq!(value(&one, "b"), before);
    assert!(one.gradient(0, "b").unwrap().is_none());
}

#[test]
fn bad_gradient_graphs_are_refused() {
    let refused = |change: &dyn Fn(&mut ModelOptions)| {
        let mut options = gradient_graph(&linear_with_gradients(DType::F32));
        change(&mut options);
        trainer_with(options, 0.0).unwrap_err()
    };
    let outputs = |o: &mut ModelOptions, f: &dyn Fn(&mut PrecomputedGradients)| {
        f(&mut o.gradients.as_mut().unwrap().outputs);
    };
    let check = |kind: Kind, part: &str, change: &dyn Fn(&mut PrecomputedGradients)| {
        let e = refused(&|o| outputs(o, change));
        assert!(e.kind() == kind && e.message().contains(part), "{e}");
    };
    check(Kind::NotFound, "no output 'lost'", &|g| g.loss = "lost".into());
    check(Kind::NotFound, "no output 'dw'", &|g| g.gradients[0].1 = "dw".into());
    check(Kind::NotFound, "no parameter 'weight'", &|g| g.gradients[0].0 = "weight".into());
    check(Kind::InvalidArgument, "named twice", &|g| g.gradients[1] = g.gradients[0].clone());
    check(Kind::InvalidArgument, "no parameter has", &|g| g.gradients.clear());
    let e = refused(&|o| o.loss = Some(LossSpec::new(LossKind::MeanSquaredError)));
    assert!(e.message().contains("leave the loss out"), "{e}");
    let mut options = gradient_graph(&linear_with_gradients(DType::F32));
    options.gradients.as_mut().unwrap().outputs.gradients[0].1 = "b_grad".into();
    let e = trainer(options).forward_backward(0, &views(&targets())).unwrap_err();
    assert!(e.kind() == Kind::Shape && e.message().contains("b_grad"), "{e}");

    let mutual = Some(optim::Mutual { weight: Some(0.5), ..optim::Mutual::default() });
    let optimizer = optim::Options { mutual, ..optim::Options::adamw() };
    let all = TrainerOptions { optimizer, ..TrainerOptions::default() };
    let e = Trainer::new(all, vec![gradient_graph(&linear_with_gradients(DType::F32))]);
    assert!(e.unwrap_err().message().contains("mutual learning"));
}

fn fragile_batch(first: f32) -> [(&'static str, Tensor); 2] {
    let x = Tensor::from_slice(&[2, 2], &[1.0f32, 2.0, first, 4.0]).unwrap();
    [("x", x), ("labels", Tensor::from_slice(&[2, 2], &[-0.5f32; 4]).unwrap())]
}

#[test]
fn the_first_non_finite_value_is_found_forward_and_backward() {
    for (op, pass, what) in [("Log", Pass::Forward, "-inf"), ("Sqrt", Pass::Backward, "inf")] {
        let mut trainer = trainer(onnx(&fragile(op), LossKind::MeanSquaredError));
        let good = fragile_batch(3.0);
        assert_eq!(trainer.find_non_finite(0, &views(&good)).unwrap(), None);
        let bad = fragile_batch(0.0);
        trainer.forward_backward(0, &views(&bad)).unwrap();
        assert_eq!(trainer.step().unwrap().skipped, 1);
        let found = trainer.find_non_finite(0, &views(&bad)).unwrap().unwrap();
        assert_eq!((found.pass, found.what, found.count), (pass, what, 1), "{found}");
        assert_eq!((&found.position[..], found.output), (&[1, 0][..], 0), "{found}");
        if pass == Pass::Forward {
            assert_eq!((found.op.as_str(), found.value.as_str()), ("Log", "y"));
            assert!(found.node.contains("'fragile'"), "{found}");
            assert_eq!((found.inputs[0].min, found.inputs[0].max), (0.0, 6.0));
            assert_eq!(found.reaches, ["loss", "grad/w"]);
        } else {
            assert_eq!(found.reaches, ["grad/w"]);
            assert!(found.to_string().starts_with("backward, node "), "{found}");
            assert!(found.inputs.iter().any(|i| i.min == 0.0), "{found}");
        }
        assert_eq!(found.to_json()["position"], serde_json::json!([1, 0]));
    }
    let trainer = trainer(onnx(&fragile("Sqrt"), LossKind::MeanSquaredError));
    let found = trainer.find_non_finite(0, &views(&fragile_batch(f32::NAN))).unwrap().unwrap();
    assert_eq!((found.pass, found.value.as_str(), found.what), (Pass::Input, "x", "NaN"));
}

#[test]
fn the_log_has_fixes_plan_and_skipped_models() {
    let heard = Arc::new(Mutex::new(Vec::<(Level, String)>::new()));
    let mut trainer = trainer(tagger());
    let into = heard.clone();
    let sink = move |level: Level, text: &str| into.lock().unwrap().push((level, text.into()));
    trainer.set_log(Some((Level::Debug, Box::new(sink))));
    let said = |level: Level, part: &str| {
        let heard = heard.lock().unwrap();
        assert!(
            heard.iter().any(|(l, text)| *l == level && text.contains(part)),
            "no {level:?} with '{part}' in {heard:#?}"
        );
    };
    said(Level::Info, "7 parameters");
    said(Level::Info, "'emb.weight' and 'val_9', transposed; tied");
    said(Level::Warning, "'zero' is read in 2 places and trained as one");
    said(Level::Info, "plan for 1 model:");
    said(Level::Info, " to train, ");
    step(&mut trainer, &tags());
    said(Level::Debug, "a training session for the shapes");
    said(Level::Debug, "step 1: model 'model': rate 3e-2");
    let dir = tempfile::tempdir().unwrap();
    trainer.checkpoint(dir.path(), "").unwrap();
    said(Level::Info, "checkpoint written to");
    trainer.resume(dir.path()).unwrap();
    said(Level::Info, "at step 1");
    trainer.set_parameter(0, "zero", &[0xff; WIDTH * 4]).unwrap();
    trainer.forward_backward(0, &views(&tags())).unwrap();
    trainer.step().unwrap();
    said(Level::Warning, "step 2: model 'model' skipped");
    let n = heard.lock().unwrap().len();
    trainer.set_log(None);
    trainer.forward_backward(0, &views(&tags())).unwrap();
    trainer.step().unwrap();
    assert_eq!(heard.lock().unwrap().len(), n);
}
