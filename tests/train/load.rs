//! What loading a model leaves behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use mmopt::autodiff::{LossKind, LossSpec};
use mmopt::tensor::DType;
use mmopt::train::{ModelOptions, Source, TensorView, Trainer, TrainerOptions};

const MODEL: &str = "tests/data/oracle/bert-seqcls/tstrain-op17-eager.onnx";

fn trainer(path: &std::path::Path) -> Option<Trainer> {
    if mmopt::runtime::load(None).is_err() {
        eprintln!("not run: ONNX Runtime was not found (make runtime)");
        return None;
    }
    let spec = LossSpec::new(LossKind::SequenceClassification);
    let model = ModelOptions {
        loss: Some(spec),
        ..ModelOptions::new("bert", Source::Onnx(path.to_owned()))
    };
    Some(Trainer::new(TrainerOptions::default(), vec![model]).unwrap())
}

/// Weights are copied once; a mapping that stays would hold them a second time.
#[cfg(target_os = "linux")]
#[test]
fn the_model_file_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("closed-after-loading.onnx");
    std::fs::copy(MODEL, &path).unwrap();
    let graph = mmopt::onnx::Graph::read(&path).unwrap();
    let mapped = || std::fs::read_to_string("/proc/self/maps").unwrap().contains("closed-after");
    assert!(mapped(), "a graph that was read refers to its file");
    drop(graph);
    let Some(trainer) = trainer(&path) else { return };
    assert!(!mapped());
    drop(trainer);
}

/// A prepared session is the one that the first pass uses, and preparing runs nothing.
#[test]
fn a_prepared_trainer_trains() {
    let Some(mut trainer) = trainer(MODEL.as_ref()) else { return };
    let bytes = |v: &[i64]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let (ids, ones, labels) = (bytes(&[5; 12]), bytes(&[1; 12]), bytes(&[1, 0]));
    let view = |name, shape, data| TensorView { name, dtype: DType::I64, shape, data };
    let batch = [
        view("input_ids", &[2, 6][..], &ids[..]),
        view("attention_mask", &[2, 6], &ones),
        view("token_type_ids", &[2, 6], &ids[..0]),
        view("labels", &[2], &labels),
    ];
    // The signature is checked as for a pass.
    assert!(trainer.prepare(0, &batch).is_err());
    let types = bytes(&[0; 12]);
    let batch = [batch[0], batch[1], view("token_type_ids", &[2, 6], &types), batch[3]];
    trainer.prepare(0, &batch).unwrap();
    assert!(trainer.step().is_err(), "nothing ran");
    let name = trainer.parameters(0).unwrap().next().unwrap().name.to_owned();
    let address = |t: &Trainer| t.gradient(0, &name).unwrap().unwrap().bytes().as_ptr();
    let prepared = address(&trainer);
    assert!(trainer.forward_backward(0, &batch).unwrap().loss > 0.0);
    assert_eq!(address(&trainer), prepared);
    trainer.step().unwrap();
}

/// A pattern for everything means everything that can be trained: not a dropout's ratio, which is
/// told as what it is when it is named.
#[test]
fn everything_to_train_leaves_out_settings() {
    let Some(all) = trainer(MODEL.as_ref()) else { return };
    let with = |pattern: &str| {
        let model = ModelOptions {
            loss: Some(LossSpec::new(LossKind::SequenceClassification)),
            trainable: vec![pattern.to_owned()],
            ..ModelOptions::new("bert", Source::Onnx(MODEL.into()))
        };
        let ratio = model.inspect().map(|report| {
            let found = report.non_trainable.iter().find(|n| n.reason.contains("ratio"));
            found.expect("a ratio").name.clone()
        });
        (ratio, Trainer::new(TrainerOptions::default(), vec![model]))
    };
    let (ratio, trainer) = with("*");
    let trainer = trainer.unwrap();
    let trained = |t: &Trainer, name: &str| t.parameters(0).unwrap().any(|p| p.name == name);
    for p in all.parameters(0).unwrap() {
        assert!(trained(&trainer, p.name), "{}", p.name);
    }
    let error = with(&ratio.unwrap()).1.expect_err("a ratio is not trained");
    assert_eq!(error.kind(), mmopt::error::Kind::Unsupported);
    assert!(error.message().contains("no gradient"), "{}", error.message());
}
