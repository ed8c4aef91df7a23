//! Low-rank adapters: equal bits at the start, gradients by the chain rule from those of the merged
//! matrix, what is frozen, what models share, checkpoints, files, memory.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;

use mmopt::autodiff::{LossKind, LossSpec};
use mmopt::checkpoint::weights::Weights;
use mmopt::models::{Sizes, Task};
use mmopt::onnx::{Attribute, Graph, ValueId, ValueType};
use mmopt::tensor::{DType, Tensor};
use mmopt::train::{
    AdapterOptions, AdapterSource, ModelOptions, Source, TensorView, Trainer, TrainerOptions,
};
use mmopt::{Kind, optim};

use crate::exported_graphs::{floats, noise};
use crate::trainer::{Example, model, model_of, step_all, trainer_options, warnings, weights};

const EXPORTED: &str = "tests/data/oracle/bert-seqcls/tstrain-op17-eager.onnx";

fn with(model: ModelOptions, options: AdapterOptions) -> ModelOptions {
    ModelOptions { adapters: Some(AdapterSource::New(options)), ..model }
}

fn options(targets: &[&str]) -> AdapterOptions {
    let target_modules = targets.iter().map(|t| (*t).to_owned()).collect();
    AdapterOptions { target_modules, rank: 2, alpha: 6.0, ..AdapterOptions::default() }
}

fn targets(model: &str) -> &'static [&'static str] {
    match model {
        "gpt2" => &["c_attn", "mlp.c_proj"],
        "distilbert" => &["q_lin", "v_lin"],
        _ => &["query", "value", "intermediate.dense"],
    }
}

fn exported() -> ModelOptions {
    ModelOptions {
        loss: Some(LossSpec::new(LossKind::SequenceClassification)),
        ..ModelOptions::new("bert", Source::Onnx(EXPORTED.into()))
    }
}

/// On the CPU, whose bits are compared.
fn trainer_of(models: Vec<ModelOptions>) -> Trainer {
    let mut options = TrainerOptions::default();
    options.optimizer.learning_rate = 3e-3;
    options.optimizer.n_threads = 2;
    Trainer::new(options, models).unwrap()
}

fn names(trainer: &Trainer, trained: bool) -> Vec<String> {
    let all = trainer.parameters(0).unwrap().filter(|p| p.trainable == trained);
    all.map(|p| p.name.to_owned()).collect()
}

fn modules(trainer: &Trainer) -> Vec<String> {
    let names = names(trainer, true);
    names.iter().filter_map(|n| n.strip_suffix(".lora_A.weight")).map(str::to_owned).collect()
}

fn example(name: &str) -> Example {
    Example::new(3, name == "bert")
}

#[test]
fn the_start_has_the_bits_of_the_model_without() {
    for name in ["bert", "gpt2", "roberta", "exported"] {
        let (plain, batch) = match name {
            "exported" => (exported(), example("bert")),
            name => (model(name, 0.0), example(name)),
        };
        let dropped = AdapterOptions { dropout: 0.3, ..options(targets(name)) };
        let adapted = with(plain.clone(), dropped);
        let [mut plain, mut adapted] = [plain, adapted].map(|m| trainer_of(vec![m]));
        let n = modules(&adapted).len();
        assert!(n >= 4 && n.is_multiple_of(2), "{name}: {n}");
        let [a, b] = [&mut plain, &mut adapted].map(|t| t.evaluate(0, &batch.views()).unwrap());
        assert_eq!(a.logits[0].1.bytes(), b.logits[0].1.bytes(), "{name}");
        assert_eq!(a.loss, b.loss, "{name}");
        // And the loss of a training pass, without other dropout.
        let [a, b] =
            [&mut plain, &mut adapted].map(|t| t.forward_backward(0, &batch.views()).unwrap());
        assert_eq!(a.loss, b.loss, "{name}");
    }
}

#[test]
fn a_is_drawn_as_published_and_b_is_zero() {
    let trainer = trainer_of(vec![with(model("gpt2", 0.0), options(&["c_attn", "c_proj"]))]);
    for module in modules(&trainer) {
        let value = |part: &str| {
            let tensor = trainer.parameter(0, &format!("{module}.{part}.weight")).unwrap();
            (tensor.shape().to_vec(), tensor.as_slice::<f32>().unwrap().to_vec())
        };
        let ((shape, a), (_, b)) = (value("lora_A"), value("lora_B"));
        let bound = 1.0 / (shape[1] as f32).sqrt();
        assert!(a.iter().all(|v| v.abs() <= bound) && a.iter().any(|v| v.abs() > 0.8 * bound));
        assert!(b.iter().all(|&v| v == 0.0), "{module}");
    }
}

/// A matrix, seen as `[out, in]`.
fn out_in(values: &[f32], (n_out, n_in): (usize, usize), stored_in_out: bool) -> Vec<f32> {
    let at = |o: usize, i: usize| if stored_in_out { i * n_out + o } else { o * n_in + i };
    (0..n_out * n_in).map(|k| values[at(k / n_in, k % n_in)]).collect()
}

/// With `W' = W + s B A`, of which another model without adapters has the gradient dW':
/// `dA = s Bᵀ dW'` and `dB = s dW' Aᵀ`.
fn check_gradients(
    what: &str,
    plain: ModelOptions,
    adapted: AdapterOptions,
    batch: &[TensorView],
    in_out: impl Fn(&str) -> bool,
) {
    let scale = (adapted.alpha / adapted.rank as f64) as f32;
    let with = with(plain.clone(), adapted);
    let [mut plain, mut adapted] = [plain, with].map(|m| trainer_of(vec![m]));
    let found = modules(&adapted);
    assert!(!found.is_empty());
    let mut parts = BTreeMap::new();
    for (k, module) in found.iter().enumerate() {
        let name = |part: &str| format!("{module}.{part}");
        let mut draw = |part: &str, seed: u64| {
            let shape = adapted.parameter(0, &name(part)).unwrap().shape().to_vec();
            let values = noise(seed, shape.iter().product());
            adapted.set_parameter(0, &name(part), bytemuck::cast_slice(&values)).unwrap();
            (shape, values)
        };
        let (a_shape, a) = draw("lora_A.weight", 2 * k as u64);
        let (b_shape, b) = draw("lora_B.weight", 2 * k as u64 + 1);
        let (rank, n_in, n_out) = (a_shape[0], a_shape[1], b_shape[0]);
        let stored = plain.parameter(0, &name("weight")).unwrap();
        let mut merged = stored.as_slice::<f32>().unwrap().to_vec();
        for o in 0..n_out {
            for i in 0..n_in {
                let at = if in_out(module) { i * n_out + o } else { o * n_in + i };
                let product: f32 = (0..rank).map(|r| b[o * rank + r] * a[r * n_in + i]).sum();
                merged[at] += scale * product;
            }
        }
        plain.set_parameter(0, &name("weight"), bytemuck::cast_slice(&merged)).unwrap();
        parts.insert(module.clone(), (a, b, rank, n_in, n_out));
    }
    let losses = [&mut plain, &mut adapted].map(|t| t.forward_backward(0, batch).unwrap().loss);
    assert!((losses[0] - losses[1]).abs() < 1e-5, "{what}: {losses:?}");
    for (module, (a, b, rank, n_in, n_out)) in &parts {
        let gradient = |t: &Trainer, part: &str| {
            let found = t.gradient(0, &format!("{module}.{part}")).unwrap();
            let found = found.unwrap_or_else(|| panic!("{what}: {module}.{part}: no gradient"));
            found.as_slice::<f32>().unwrap().to_vec()
        };
        let dw = out_in(&gradient(&plain, "weight"), (*n_out, *n_in), in_out(module));
        let da = (0..rank * n_in).map(|k| {
            let (r, i) = (k / n_in, k % n_in);
            scale * (0..*n_out).map(|o| b[o * rank + r] * dw[o * n_in + i]).sum::<f32>()
        });
        let db = (0..n_out * rank).map(|k| {
            let (o, r) = (k / rank, k % rank);
            scale * (0..*n_in).map(|i| dw[o * n_in + i] * a[r * n_in + i]).sum::<f32>()
        });
        let close = |part: &str, expected: Vec<f32>| {
            let got = gradient(&adapted, part);
            let size = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
            assert!(size > 1e-7, "{what}: {module}.{part} has no gradient");
            let apart = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(apart < 2e-4 * size, "{what}: {module}.{part}: {apart} of {size}");
        };
        close("lora_A.weight", da.collect());
        close("lora_B.weight", db.collect());
        // What is frozen has none.
        assert!(adapted.gradient(0, &format!("{module}.weight")).unwrap().is_none());
    }
}

#[test]
fn gradients_follow_from_those_of_the_merged_matrix() {
    for name in ["bert", "gpt2", "roberta"] {
        let batch = example(name);
        let in_out = |_: &str| name == "gpt2";
        check_gradients(name, model(name, 0.0), options(targets(name)), &batch.views(), in_out);
    }
    let batch = example("bert");
    check_gradients("exported", exported(), options(targets("")), &batch.views(), |_| false);
}

/// Products in each form that exporters write, on x `[2, 3, 4]`.
fn forms(dtype: DType) -> Graph {
    let mut g = Graph::new("forms", 17);
    let x = g.add_input("x", ValueType::known(dtype, &[2, 3, 4])).unwrap();
    let mut hold = |name: &str, shape: &[usize], seed: u64| {
        let values = noise(seed, shape.iter().product());
        let data = match dtype {
            DType::F64 => {
                let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
                mmopt::onnx::TensorData::from_slice(shape, &wide).unwrap()
            }
            _ => floats(shape, &values),
        };
        g.add_initializer(name, data).unwrap()
    };
    let (matmul, row) = (hold("matmul.weight", &[4, 5], 1), hold("matmul.bias", &[5], 2));
    let turned = hold("turned.weight", &[4, 5], 3);
    let twice = hold("twice.weight", &[4, 4], 4);
    let (gemm, c) = (hold("gemm.weight", &[4, 3], 5), hold("gemm.bias", &[3], 6));
    let half = hold("half.weight", &[2, 3], 7);
    let flat = g.add_initializer("flat", mmopt::onnx::TensorData::ints(&[6, 4])).unwrap();
    let perm = [("perm", Attribute::Ints(vec![1, 0]))];
    // A bias in front, read by the sum alone.
    let y = g.op("MatMul", &[x, matmul], []);
    let y = g.op("Add", &[row, y], []);
    let y = g.op("Tanh", &[y], []);
    let w = g.op("Transpose", &[turned], perm);
    let y = g.op("MatMul", &[y, w], []);
    let y = g.op("MatMul", &[y, twice], []);
    let y = g.op("Tanh", &[y], []);
    let y = g.op("MatMul", &[y, twice], []);
    let y = g.op("Reshape", &[y, flat], []);
    let y = g.op("Gemm", &[y, gemm, c], [("beta", Attribute::Float(2.0))]);
    let scaled = [("alpha", Attribute::Float(0.5)), ("transB", Attribute::Int(1))];
    let y: ValueId = g.op("Gemm", &[y, half], scaled);
    g.rename(y, "y").unwrap();
    g.set_type(y, ValueType::known(dtype, &[6, 2]));
    g.add_output(y);
    g
}

#[test]
fn every_form_of_a_product_can_have_an_adapter() {
    for dtype in [DType::F32, DType::F64] {
        let bytes = forms(dtype).to_bytes().unwrap();
        let loss = Some(LossSpec::new(LossKind::MeanSquaredError));
        let plain =
            ModelOptions { loss, ..ModelOptions::new("forms", Source::OnnxBytes(bytes.into())) };
        let values = noise(9, 24);
        let x = match dtype {
            DType::F64 => {
                let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
                Tensor::from_slice(&[2, 3, 4], &wide).unwrap()
            }
            _ => Tensor::from_slice(&[2, 3, 4], &values).unwrap(),
        };
        let labels = Tensor::from_slice(&[6, 2], &noise(10, 12)).unwrap();
        let batch = [TensorView::of("x", &x), TensorView::of("labels", &labels)];
        let all = options(&["*"]);
        check_gradients("forms", plain, all, &batch, |module| {
            matches!(module, "matmul" | "twice" | "gemm")
        });
    }
}

#[test]
fn only_adapters_and_the_fresh_head_are_trained() {
    for (name, head) in
        [("bert", "bert.pooler.dense|classifier"), ("gpt2", "score"), ("roberta", "classifier")]
    {
        let mut trainer = trainer_of(vec![with(model(name, 0.1), options(targets(name)))]);
        let of_head = |n: &str| head.split('|').any(|h| n.starts_with(&format!("{h}.")));
        let trained = names(&trainer, true);
        assert!(trained.iter().all(|n| n.contains(".lora_") || of_head(n)), "{trained:?}");
        assert!(trained.iter().any(|n| of_head(n)), "{trained:?}");
        let frozen = names(&trainer, false);
        let values = |t: &Trainer, names: &[String]| -> Vec<Vec<u8>> {
            names.iter().map(|n| t.parameter(0, n).unwrap().bytes().to_vec()).collect()
        };
        let (base, before) = (values(&trainer, &frozen), values(&trainer, &trained));
        let losses: Vec<f64> = (0..60).map(|seed| step_all(&mut trainer, seed % 4)[0]).collect();
        assert!(values(&trainer, &frozen) == base, "{name}: a frozen parameter moved");
        let after = values(&trainer, &trained);
        assert!(before.iter().zip(&after).all(|(a, b)| a != b), "{name}: one stayed");
        let mean = |l: &[f64]| l.iter().sum::<f64>() / l.len() as f64;
        assert!(mean(&losses[50..]) < 0.8 * mean(&losses[..10]), "{name}: {losses:?}");
    }
}

#[test]
fn modules_to_save_are_trained_and_none_are_without() {
    let trained = |modules_to_save: Option<&[&str]>, frozen: &[&str]| {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let options =
            AdapterOptions { modules_to_save: modules_to_save.map(own), ..options(&["query"]) };
        let mut model = with(model("roberta", 0.0), options);
        model.frozen = own(frozen);
        let all = names(&trainer_of(vec![model]), true);
        all.into_iter().filter(|n| !n.contains("lora")).collect::<Vec<_>>()
    };
    assert_eq!(trained(Some(&[]), &[]), [""; 0]);
    assert_eq!(trained(None, &[]).len(), 4);
    assert_eq!(trained(Some(&["out_proj"]), &[]).len(), 2);
    assert_eq!(trained(Some(&["classifier", "embeddings.LayerNorm"]), &[]).len(), 6);
    // Patterns to freeze choose among what adapters leave.
    assert_eq!(trained(None, &["*.bias"]).len(), 2);
}

#[test]
fn what_matches_nothing_is_told_with_what_could() {
    let refused = |name: &str, options: AdapterOptions, kind: Kind, parts: &[&str]| {
        let error =
            Trainer::new(trainer_options(), vec![with(model(name, 0.0), options)]).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("model '{name}'")), "{text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    };
    let kind = Kind::NotFound;
    refused("bert", options(&["c_attn"]), kind, &["'c_attn'", "'query' (2)", "'dense' (7)"]);
    refused(
        "gpt2",
        options(&["c_attn", "query"]),
        kind,
        &["'query'", "'c_attn' (2)", "'score' (1)"],
    );
    let table = &["word_embeddings.weight", "linear layer"];
    refused("bert", options(&["word_embeddings"]), Kind::Unsupported, table);
    let saved = |modules: &[&str], targets: &[&str]| AdapterOptions {
        modules_to_save: Some(modules.iter().map(|m| (*m).to_owned()).collect()),
        ..options(targets)
    };
    refused("bert", saved(&["tail"], &["query"]), kind, &["'tail'", "classifier"]);
    let all = &["modules_to_save", "trained whole"];
    refused("gpt2", saved(&["score"], &["score"]), Kind::InvalidArgument, all);
    for (bad, text) in [
        (AdapterOptions { rank: 0, ..options(&["query"]) }, "rank"),
        (AdapterOptions { rank: 65_537, ..options(&["query"]) }, "rank"),
        (AdapterOptions { alpha: f64::NAN, ..options(&["query"]) }, "alpha"),
        (AdapterOptions { alpha: 0.0, ..options(&["query"]) }, "alpha"),
        (AdapterOptions { alpha: 1e300, ..options(&["query"]) }, "alpha"),
        (AdapterOptions { dropout: 1.0, ..options(&["query"]) }, "dropout"),
        (options(&[]), "target_modules"),
    ] {
        refused("bert", bad, Kind::InvalidArgument, &[text]);
    }
}

#[test]
fn adapters_of_one_role_share_across_models() {
    let sizes = crate::trainer::sizes(0.0);
    let of = |name: &str, targets: &[&str]| with(model_of(name, &sizes), options(targets));
    let plan = |models: Vec<ModelOptions>| {
        let trainer = trainer_of(models);
        let groups = trainer.plan().groups().iter();
        groups.map(|g| (g.name.clone(), g.members.len())).collect::<Vec<_>>()
    };
    let two = plan(vec![of("bert", &["query", "dense"]), of("roberta", &["query"])]);
    let shared = |name: &str| two.iter().filter(|(n, m)| n == name && *m == 2).count();
    assert_eq!(shared("attention query lora A"), 2, "{two:?}");
    assert_eq!(shared("attention query lora B"), 2, "{two:?}");
    assert!(!two.iter().any(|(n, _)| n.contains("mlp")), "{two:?}");
    // A graph whose names say nothing shows the roles.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blind.onnx");
    trainer_of(vec![model_of("bert", &sizes)]).save_onnx(0, &path).unwrap();
    let mut graph = Graph::read(&path).unwrap();
    let query = graph.find("bert.encoder.layer.1.attention.self.query.weight").unwrap();
    let all: Vec<ValueId> = graph.initializers().keys().copied().collect();
    for (i, &v) in all.iter().enumerate() {
        graph.rename(v, &if v == query { "q".to_owned() } else { format!("p{i}") }).unwrap();
    }
    graph.write(&path, false).unwrap();
    let blind = with(onnx(&path), options(&["q"]));
    let groups = plan(vec![of("bert", &["query"]), blind]);
    assert_eq!(groups.iter().filter(|(n, _)| n.starts_with("attention query lora")).count(), 2);
}

fn dropped(name: &str) -> ModelOptions {
    let adapters = AdapterOptions { dropout: 0.2, ..options(targets(name)) };
    with(model(name, 0.1), adapters)
}

#[test]
fn resumed_training_has_the_same_bits() {
    let models = || ["bert", "gpt2"].map(dropped).to_vec();
    let dir = tempfile::tempdir().unwrap();
    let mut one = trainer_of(models());
    (0..3).for_each(|seed| drop(step_all(&mut one, seed)));
    one.checkpoint(dir.path(), "").unwrap();
    let losses: Vec<_> = (3..6).map(|seed| step_all(&mut one, seed)).collect();
    let mut two = trainer_of(models());
    two.resume(dir.path()).unwrap();
    let again: Vec<_> = (3..6).map(|seed| step_all(&mut two, seed)).collect();
    assert_eq!(losses, again);
    assert!(weights(&one) == weights(&two));
    // The dropout of adapters is part of it.
    let mut other = models();
    for model in &mut other {
        if let Some(AdapterSource::New(adapters)) = &mut model.adapters {
            adapters.dropout = 0.0;
        }
    }
    let mut three = trainer_of(other);
    let heard = warnings(&mut three);
    three.resume(dir.path()).unwrap();
    let told = "adapters: rank 2, alpha 6, dropout 0; were: rank 2, alpha 6, dropout 0.2";
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard.iter().filter(|h| h.contains(told)).count(), 2, "{heard:?}");
    assert_ne!(step_all(&mut three, 3), losses[0]);
    // A trainer without adapters says what it lacks.
    let plain = ["bert", "gpt2"].map(|n| model(n, 0.1)).to_vec();
    let mut with_plain = trainer_of(plain);
    let path = tempfile::tempdir().unwrap();
    with_plain.checkpoint(path.path(), "").unwrap();
    let error = two.resume(path.path()).unwrap_err();
    assert!(error.message().contains("lora_A"), "{error}");
    with_plain.resume(path.path()).unwrap();
}

fn logits(trainer: &mut Trainer, name: &str) -> Vec<f32> {
    let found = trainer.evaluate(0, &example(name).views()).unwrap();
    found.logits[0].1.as_slice::<f32>().unwrap().to_vec()
}

fn assert_close(a: &[f32], b: &[f32], what: &str) {
    let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(a.len() == b.len() && apart < 1e-5, "{what}: {apart}");
}

fn onnx(path: &Path) -> ModelOptions {
    ModelOptions {
        loss: Some(LossSpec::new(LossKind::SequenceClassification)),
        ..ModelOptions::new("read", Source::Onnx(path.to_owned()))
    }
}

#[test]
fn a_saved_model_has_its_adapters_merged() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["bert", "gpt2", "exported"] {
        let plain = if name == "exported" { exported() } else { model(name, 0.0) };
        let key = if name == "gpt2" { "gpt2" } else { "bert" };
        let mut trainer = trainer_of(vec![with(plain.clone(), options(targets(name)))]);
        let start = logits(&mut trainer, key);
        for seed in 0..5 {
            trainer.forward_backward(0, &Example::new(seed, key == "bert").views()).unwrap();
            trainer.step().unwrap();
        }
        let trained = logits(&mut trainer, key);
        assert!(start.iter().zip(&trained).any(|(a, b)| (a - b).abs() > 1e-3), "{name}");
        let at = dir.path().join(name);
        trainer.save_model(0, &at).unwrap();
        let path = at.join("as.onnx");
        trainer.save_onnx(0, &path).unwrap();
        let graph = Graph::read(&path).unwrap();
        assert!(!graph.values().iter().any(|v| v.name.contains("lora")), "{name}");
        let source = match name {
            "exported" => Source::Onnx(at.join("model.onnx")),
            _ => Source::Directory(at),
        };
        let read = ModelOptions { source, adapters: None, ..plain };
        let mut read = trainer_of(vec![read]);
        assert!(!names(&read, true).iter().any(|n| n.contains("lora")));
        assert_close(&logits(&mut read, key), &trained, name);
        assert_close(&logits(&mut trainer_of(vec![onnx(&path)]), key), &trained, name);
    }
}

/// The sizes of all-MiniLM-L6-v2, with adapters on its attention: gradients and moments against
/// those of training it whole, from the report and from the memory that there is.
#[test]
fn state_and_gradients_are_a_fiftieth() {
    let sizes = Sizes {
        vocab: 30_522,
        hidden: 384,
        layers: 6,
        heads: 12,
        intermediate: 1536,
        positions: 512,
        dropout: 0.1,
    };
    let mut plain = model_of("bert", &sizes);
    plain.task = Some(Task::SequenceClassification { num_labels: 2 });
    let rank_8 = AdapterOptions {
        rank: 8,
        modules_to_save: Some(vec!["classifier".into()]),
        ..options(&["query", "key", "value", "attention.output.dense"])
    };
    let bytes = |model: ModelOptions| {
        let mut trainer = trainer_of(vec![model]);
        trainer.forward_backward(0, &example("bert").views()).unwrap();
        trainer.step().unwrap();
        let all: Vec<String> = trainer.parameters(0).unwrap().map(|p| p.name.to_owned()).collect();
        let gradient = |n: &String| trainer.gradient(0, n).unwrap().map_or(0, |g| g.bytes().len());
        let gradients: usize = all.iter().map(gradient).sum();
        let state = trainer.optimizer().state_tensors();
        let state: usize = state.iter().map(|t| t.bytes.len()).sum();
        let report = trainer.report(0).unwrap();
        let trained = report.parameters.iter().filter(|p| p.trained);
        let trained: usize = trained.map(|p| p.shape.iter().product::<usize>()).sum();
        assert_eq!(4 * trained, gradients);
        (gradients, state)
    };
    let report = with(plain.clone(), rank_8.clone()).inspect().unwrap();
    assert_eq!(report.adapters.len(), 24);
    assert!(report.to_string().contains("low-rank adapters beside 24 matrices"), "{report}");
    let (whole, adapted) = (bytes(plain.clone()), bytes(with(plain, rank_8)));
    let parts = [adapted.0 as f64 / whole.0 as f64, adapted.1 as f64 / whole.1 as f64];
    println!(
        "gradients {} of {} bytes ({:.2}%), moments {} of {} bytes ({:.2}%)",
        adapted.0,
        whole.0,
        100.0 * parts[0],
        adapted.1,
        whole.1,
        100.0 * parts[1]
    );
    assert!(parts.iter().all(|&part| part > 0.0 && part <= 0.02), "{parts:?}");
}

/// Muon is for whole matrices.
#[test]
fn adapters_are_trained_by_adamw_with_muon() {
    let mut options = trainer_options();
    options.optimizer.method = optim::Method::Muon;
    let model = with(model("bert", 0.0), self::options(&["query"]));
    let mut trainer = Trainer::new(options, vec![model]).unwrap();
    step_all(&mut trainer, 1);
    let state = trainer.optimizer().state_tensors();
    let of = |end: &str| state.iter().filter(|t| t.name.contains(end)).count();
    // Two moments each, where Muon has one.
    assert_eq!(of("lora_A"), 4, "{:?}", state.iter().map(|t| &t.name).collect::<Vec<_>>());
}

fn json(dir: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(dir.join("adapter_config.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A directory with the model as it is before it gets adapters.
fn base(name: &str, dir: &Path) -> ModelOptions {
    let at = dir.join(format!("{name}-base"));
    trainer_of(vec![model(name, 0.0)]).save_model(0, &at).unwrap();
    let fresh_head = true;
    ModelOptions { fresh_head, seed: 11, ..ModelOptions::new(name, Source::Directory(at)) }
}

fn train(trainer: &mut Trainer, name: &str) {
    for seed in 0..5 {
        trainer.forward_backward(0, &Example::new(seed, name == "bert").views()).unwrap();
        trainer.step().unwrap();
    }
}

#[test]
fn adapters_are_saved_alone_in_the_published_layout_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["bert", "gpt2"] {
        let plain = base(name, dir.path());
        let dropped = AdapterOptions { dropout: 0.1, ..options(targets(name)) };
        let mut one = trainer_of(vec![with(plain.clone(), dropped)]);
        train(&mut one, name);
        let at = dir.path().join(name);
        one.save_adapters(0, &at).unwrap();

        let config = json(&at);
        let is_gpt2 = name == "gpt2";
        let modules: &[&str] = match is_gpt2 {
            true => &["attn.c_attn", "mlp.c_proj"],
            false => &["intermediate.dense", "self.query", "self.value"],
        };
        assert_eq!(config["target_modules"], serde_json::json!(modules));
        let head = if is_gpt2 { "score" } else { "classifier" };
        assert_eq!(config["modules_to_save"], serde_json::json!([head]));
        assert_eq!(config["fan_in_fan_out"], is_gpt2);
        for (key, value) in
            [("r", 2.into()), ("lora_alpha", 6.into()), ("lora_dropout", 0.1.into())]
        {
            let value: serde_json::Value = value;
            assert_eq!(config[key], value);
        }
        assert_eq!(
            (&config["peft_type"], &config["task_type"]),
            (&"LORA".into(), &"SEQ_CLS".into())
        );
        let weights = Weights::read(&at.join("adapter_model.safetensors")).unwrap();
        assert_eq!(weights.len(), if is_gpt2 { 9 } else { 14 });
        let (module, n_in, n_out) = match is_gpt2 {
            true => ("transformer.h.1.attn.c_attn", 16, 48),
            false => ("bert.encoder.layer.1.intermediate.dense", 16, 32),
        };
        let shape = |part: &str| {
            let key = format!("base_model.model.{module}.{part}.weight");
            weights.find(&key).unwrap_or_else(|| panic!("no {key}")).shape.to_vec()
        };
        assert_eq!((shape("lora_A"), shape("lora_B")), (vec![2, n_in], vec![n_out, 2]));
        assert!(weights.find(&format!("base_model.model.{head}.weight")).is_some());

        let saved = Some(AdapterSource::Saved(at.clone()));
        let mut two = trainer_of(vec![ModelOptions { adapters: saved, seed: 5, ..plain }]);
        assert_eq!(names(&one, true), names(&two, true));
        assert_eq!(two.report(0).unwrap().newly_initialised, [""; 0]);
        assert_eq!(logits(&mut one, name), logits(&mut two, name));
        let again = dir.path().join("again");
        two.save_adapters(0, &again).unwrap();
        assert_eq!(json(&at), json(&again));
        let bytes = |dir: &Path| std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
        assert_eq!(bytes(&at), bytes(&again));
        train(&mut two, name);
        assert_ne!(logits(&mut one, name), logits(&mut two, name));
    }
}

#[test]
fn adapters_of_another_model_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let [bert, gpt2] = ["bert", "gpt2"].map(|name| base(name, dir.path()));
    let at = dir.path().join("saved");
    let mut trainer = trainer_of(vec![with(bert.clone(), options(&["query"]))]);
    trainer.save_adapters(0, &at).unwrap();
    let refused = |model: &ModelOptions, from: &Path, kind: Kind, parts: &[&str]| {
        let adapters = Some(AdapterSource::Saved(from.to_owned()));
        let model = ModelOptions { adapters, ..model.clone() };
        let error = Trainer::new(trainer_options(), vec![model]).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(parts.iter().all(|part| error.to_string().contains(part)), "{error}");
    };
    refused(&gpt2, &at, Kind::NotFound, &["'gpt2'", "adapter_model", "classifier"]);
    let three = Some(Task::SequenceClassification { num_labels: 3 });
    let other = ModelOptions { task: three, ..bert.clone() };
    refused(&other, &at, Kind::Shape, &["classifier.bias", "[2]", "[3]"]);
    refused(&bert, &dir.path().join("none"), Kind::NotFound, &["adapter_config.json"]);
    let config = at.join("adapter_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"r\": 2", "\"r\": 3")).unwrap();
    refused(&bert, &at, Kind::Shape, &["lora_A", "[2, 16]", "[3, 16]"]);
    std::fs::write(&config, text.replace("LORA", "LOHA")).unwrap();
    refused(&bert, &at, Kind::Unsupported, &["LOHA"]);
    std::fs::write(&config, &text).unwrap();
    std::fs::write(at.join("adapter_model.safetensors"), b"{}").unwrap();
    refused(&bert, &at, Kind::InvalidData, &["adapter_model.safetensors"]);
    // A model without adapters has none to write.
    trainer = trainer_of(vec![bert]);
    let error = trainer.save_adapters(0, &dir.path().join("new")).unwrap_err();
    assert_eq!(error.kind(), Kind::State, "{error}");
    assert!(!dir.path().join("new").exists());
}

/// Weights of the bare body and of an ONNX file have other beginnings of names.
#[test]
fn adapters_fit_where_names_begin_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("saved");
    let adapters =
        AdapterOptions { modules_to_save: Some(Vec::new()), ..options(&["query", "value"]) };
    let mut one = trainer_of(vec![with(exported(), adapters)]);
    train(&mut one, "bert");
    one.save_adapters(0, &at).unwrap();
    assert_eq!(json(&at)["modules_to_save"], serde_json::Value::Null);
    assert_eq!(json(&at)["fan_in_fan_out"], false);
    let file = at.join("adapter_model.safetensors");
    let weights = Weights::read(&file).unwrap();
    let names: Vec<String> =
        weights.names().map(|n| n.replace("model.m.bert.", "model.")).collect();
    assert!(names.iter().any(|n| n.starts_with("base_model.model.encoder.")), "{names:?}");
    let tensors: Vec<Tensor> = weights.names().map(|n| weights.tensor(n).unwrap()).collect();
    drop(weights);
    let renamed = names.iter().map(String::as_str).zip(&tensors);
    mmopt::checkpoint::weights::write(&file, renamed, &[]).unwrap();
    let saved = Some(AdapterSource::Saved(at));
    let mut two = trainer_of(vec![ModelOptions { adapters: saved, ..exported() }]);
    assert_eq!(logits(&mut one, "bert"), logits(&mut two, "bert"));
}

/// peft copies a head with the decoder that is tied to the embedding: it is in the file, and what is
/// read must be equal to the embedding.
#[test]
fn a_whole_head_is_saved_with_what_is_tied_to_the_body() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("saved");
    let plain = ModelOptions { task: Some(Task::MaskedLm), ..base("bert", dir.path()) };
    let one = trainer_of(vec![with(plain.clone(), options(&["query"]))]);
    one.save_adapters(0, &at).unwrap();
    assert_eq!(json(&at)["modules_to_save"], serde_json::json!(["cls"]));
    let read = || {
        let saved = Some(AdapterSource::Saved(at.clone()));
        Trainer::new(
            TrainerOptions::default(),
            vec![ModelOptions { adapters: saved, ..plain.clone() }],
        )
    };
    let two = read().unwrap();
    assert_eq!(names(&one, true), names(&two, true));
    let table = "bert.embeddings.word_embeddings.weight";
    assert!(names(&two, false).iter().any(|n| n == table));
    let file = at.join("adapter_model.safetensors");
    let weights = Weights::read(&file).unwrap();
    let names: Vec<String> = weights.names().map(str::to_owned).collect();
    let key = "base_model.model.cls.predictions.decoder.weight";
    let same = weights.find(key).unwrap().bytes == one.parameter(0, table).unwrap().bytes();
    assert!(same && !names.iter().any(|n| n.ends_with(table)), "{names:?}");
    let mut tensors: Vec<Tensor> = names.iter().map(|n| weights.tensor(n).unwrap()).collect();
    drop(weights);
    let decoder = names.iter().position(|n| n == key).unwrap();
    tensors[decoder].as_mut_slice::<f32>().unwrap()[7] += 1.0;
    let changed = names.iter().map(String::as_str).zip(&tensors);
    mmopt::checkpoint::weights::write(&file, changed, &[]).unwrap();
    let error = read().unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    assert!(error.message().contains(key) && error.message().contains(table), "{error}");
}
