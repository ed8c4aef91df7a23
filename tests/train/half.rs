//! Models stored in f16 or bf16: trained with f32 masters, and written back in their types.

use std::path::Path;

use bytes::Bytes;
use mmopt::Kind;
use mmopt::autodiff::{LossKind, LossSpec};
use mmopt::checkpoint::weights::{self, Weights};
use mmopt::onnx::{Attribute, Graph, TensorData, ValueType};
use mmopt::optim::Options;
use mmopt::tensor::DType;
use mmopt::train::{ModelOptions, Source, Trainer, TrainerOptions};

use crate::exported_graphs::linear;
use crate::trainer::{model, step_all, trainer_options};

const HALVES: [DType; 2] = [DType::F16, DType::BF16];

fn bits(x: f32, dtype: DType) -> u16 {
    match dtype {
        DType::F16 => half::f16::from_f32(x).to_bits(),
        _ => half::bf16::from_f32(x).to_bits(),
    }
}

/// Masks hold the largest f32; converters make them the largest number of the type.
fn narrow(data: &TensorData, dtype: DType) -> TensorData {
    let values = data.to_f64s().unwrap();
    let most = match dtype {
        DType::F16 => half::f16::MAX.to_f64(),
        _ => half::bf16::MAX.to_f64(),
    };
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|&x| bits(x.clamp(-most, most) as f32, dtype).to_le_bytes())
        .collect();
    TensorData::new(dtype, data.shape(), bytes.into()).unwrap()
}

/// An f32 graph with every f32 made `dtype`, as converters write it.
fn narrow_graph(mut g: Graph, dtype: DType) -> Graph {
    let f32s: Vec<_> = g.value_ids().filter(|&v| g.value(v).ty.dtype == Some(DType::F32)).collect();
    for v in f32s {
        let ty = g.value(v).ty.clone();
        g.set_type(v, ValueType { dtype: Some(dtype), ..ty });
    }
    let wide = |d: &TensorData| d.dtype() == DType::F32;
    let data: Vec<_> = g.initializers().iter().map(|(&v, d)| (v, d.clone())).collect();
    for (v, d) in data.iter().filter(|(_, d)| wide(d)) {
        g.set_initializer(*v, narrow(d, dtype));
    }
    for id in g.node_ids() {
        let node = g.node_mut(id);
        for (name, attribute) in &mut node.attributes {
            match attribute {
                Attribute::Tensor(d) if wide(d) => *d = narrow(d, dtype),
                Attribute::Int(code) if name == "to" && *code == 1 => *code = dtype.onnx().into(),
                _ => {}
            }
        }
    }
    g
}

/// The graph of a small published model, in `dtype`.
fn exported(dtype: DType) -> Graph {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    Trainer::new(trainer_options(), vec![model("bert", 0.0)]).unwrap().save_onnx(0, &path).unwrap();
    narrow_graph(Graph::read(&path).unwrap(), dtype)
}

fn trainer(options: ModelOptions) -> mmopt::Result<Trainer> {
    let optimizer = Options { learning_rate: 1e-2, n_threads: 2, ..Options::independent() };
    Trainer::new(TrainerOptions { optimizer, ..trainer_options() }, vec![options])
}

fn of_graph(bytes: Vec<u8>) -> ModelOptions {
    let mut options = ModelOptions::new("bert", Source::OnnxBytes(Bytes::from(bytes)));
    options.loss = Some(LossSpec::new(LossKind::SequenceClassification));
    options
}

/// The bits of each parameter, rounded.
fn rounded(trainer: &Trainer, dtype: DType) -> Vec<(String, Vec<u16>)> {
    let names: Vec<String> = trainer.parameters(0).unwrap().map(|p| p.name.to_owned()).collect();
    let of = |name: String| {
        let value = trainer.parameter(0, &name).unwrap();
        assert_eq!(value.dtype(), DType::F32, "{name}");
        let values = value.as_slice::<f32>().unwrap().iter().map(|&x| bits(x, dtype)).collect();
        (name, values)
    };
    names.into_iter().map(of).collect()
}

fn as_bits(bytes: &[u8]) -> Vec<u16> {
    bytes.as_chunks::<2>().0.iter().map(|b| u16::from_le_bytes(*b)).collect()
}

#[test]
fn graphs_are_trained_and_written_in_their_type() {
    for dtype in HALVES {
        let graph = exported(dtype);
        let mut one = trainer(of_graph(graph.to_bytes().unwrap())).unwrap();
        assert!(one.report(0).unwrap().parameters.iter().all(|p| p.dtype == dtype.name()));
        let losses: Vec<f64> = (0..8).map(|_| step_all(&mut one, 3)[0]).collect();
        assert!(losses[7] < 0.8 * losses[0], "{losses:?}");
        let dir = tempfile::tempdir().unwrap();
        one.save_model(0, dir.path()).unwrap();
        let path = dir.path().join("model.onnx");
        let written = Graph::read(&path).unwrap();
        let types =
            |g: &Graph| -> Vec<_> { g.outputs().iter().map(|&v| g.value(v).ty.clone()).collect() };
        assert_eq!(types(&written), types(&graph));
        let expected = rounded(&one, dtype);
        for (name, bits) in &expected {
            let data = written.initializer(written.find(name).unwrap()).unwrap();
            assert_eq!(data.dtype(), dtype, "{name}");
            assert_eq!(&as_bits(data.bytes()), bits, "{name}");
        }
        let wide = |d: &&TensorData| d.dtype() == DType::F32;
        assert_eq!(written.initializers().values().filter(wide).count(), 0);
        let casts = |g: &Graph| -> Vec<_> {
            let casts = g.nodes().iter().filter(|n| n.op == "Cast");
            casts.filter_map(|n| n.int("to")).collect()
        };
        assert_eq!(casts(&written), casts(&graph));
        let again = trainer(of_graph(std::fs::read(&path).unwrap())).unwrap();
        assert_eq!(rounded(&again, dtype), expected);
    }
}

/// A fresh model's directory with its weights in `dtype`.
fn directory(dir: &Path, dtype: DType) {
    trainer(model("bert", 0.0)).unwrap().save_model(0, dir).unwrap();
    let path = dir.join(weights::FILE_NAME);
    let wide = Weights::read(&path).unwrap();
    let narrow: Vec<(String, Vec<usize>, Vec<u8>)> = wide
        .names()
        .map(|name| {
            let tensor = wide.tensor(name).unwrap();
            let values = tensor.as_slice::<f32>().unwrap();
            let bytes = values.iter().flat_map(|&x| bits(x, dtype).to_le_bytes()).collect();
            (name.to_owned(), tensor.shape().to_vec(), bytes)
        })
        .collect();
    drop(wide);
    let views = narrow
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), weights::View { dtype, shape, bytes }));
    weights::write(&path, views, &[("format", "pt")]).unwrap();
}

fn of_directory(dir: &Path) -> ModelOptions {
    ModelOptions::new("bert", Source::Directory(dir.into()))
}

#[test]
fn directories_are_trained_and_written_in_their_type() {
    for dtype in HALVES {
        let dir = tempfile::tempdir().unwrap();
        directory(dir.path(), dtype);
        let mut one = trainer(of_directory(dir.path())).unwrap();
        assert!(one.report(0).unwrap().parameters.iter().all(|p| p.dtype == dtype.name()));
        let before = rounded(&one, dtype);
        (0..3).for_each(|seed| drop(step_all(&mut one, seed)));
        let out = tempfile::tempdir().unwrap();
        one.save_model(0, out.path()).unwrap();
        let written = Weights::read(&out.path().join(weights::FILE_NAME)).unwrap();
        let expected = rounded(&one, dtype);
        assert!(expected != before);
        for (name, bits) in &expected {
            let view = written.find(name).unwrap();
            assert_eq!(view.dtype, dtype, "{name}");
            assert_eq!(&as_bits(view.bytes), bits, "{name}");
        }
        let again = trainer(of_directory(out.path())).unwrap();
        assert_eq!(rounded(&again, dtype), expected);
        // A new head is stored as the rest is.
        let fresh = ModelOptions { fresh_head: true, ..of_directory(dir.path()) };
        let fresh = trainer(fresh).unwrap();
        assert!(fresh.report(0).unwrap().parameters.iter().all(|p| p.dtype == dtype.name()));
    }
}

#[test]
fn what_becomes_infinite_is_named() {
    let graph = exported(DType::F16);
    let mut one = trainer(of_graph(graph.to_bytes().unwrap())).unwrap();
    let name = "classifier.bias";
    one.set_parameter(0, name, bytemuck_bytes(&[1.0, 70_000.0])).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for error in [one.save_model(0, dir.path()), one.save_onnx(0, &dir.path().join("m.onnx"))] {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), Kind::NonFinite);
        let text = error.message();
        assert!(text.contains("'classifier.bias'") && text.contains("f16"), "{text}");
        assert!(text.contains("model 'bert'"), "{text}");
    }
    assert!(!dir.path().join("m.onnx").exists() && !dir.path().join("model.onnx").exists());
}

/// Two f32 as bytes.
fn bytemuck_bytes(values: &[f32; 2]) -> &'static [u8] {
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_ne_bytes()).collect();
    bytes.leak()
}

/// A graph that rounds a weight between its operators computes in f32, and is written as it was.
#[test]
fn casts_within_a_graph_come_back() {
    let mut g = linear(DType::F32);
    let w = g.find("w").unwrap();
    let narrow = g.op("Cast", &[w], [("to", Attribute::Int(16))]);
    g.rename(narrow, "w_narrow").unwrap();
    let wide = g.op("Cast", &[narrow], [("to", Attribute::Int(1))]);
    let product = g.node_ids().next().unwrap();
    g.node_mut(product).inputs[1] = Some(wide);
    g.sort().unwrap();
    let mut options = of_graph(g.to_bytes().unwrap());
    options.loss = Some(LossSpec::new(LossKind::MeanSquaredError));
    let one = trainer(options).unwrap();
    let dir = tempfile::tempdir().unwrap();
    one.save_model(0, dir.path()).unwrap();
    let written = Graph::read(&dir.path().join("model.onnx")).unwrap();
    let casts: Vec<_> = written.nodes().iter().filter_map(|n| n.int("to")).collect();
    assert_eq!(casts, [16, 1]);
    let w = written.initializer(written.find("w").unwrap()).unwrap();
    assert_eq!(w.dtype(), DType::F32);
}
