//! What the architectures promise whatever the weights: padding changes nothing, a causal model
//! sees no later token, options mean what they say.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use mmopt::autodiff::{LossKind, LossSpec};
use mmopt::checkpoint::weights::{View, Weights, write};
use mmopt::models::{Activation, BuiltModel, Config, LoadOptions, Sizes, Task, build, build_with};
use mmopt::onnx::Graph;
use mmopt::runtime::{self, Optimize, Session, SessionOptions};
use mmopt::tensor::Tensor;
use mmopt::train::graphs::{SEED_INPUT, training_graph};

const TWO: Task = Task::SequenceClassification { num_labels: 2 };

fn load_runtime() {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join(".runtime/lib/libonnxruntime.so");
    let path = std::env::var_os("MMOPT_ORT_LIB").map_or(fetched, PathBuf::from);
    assert!(path.exists(), "{}: no such file; run `make runtime`", path.display());
    runtime::load(Some(&path)).unwrap();
}

fn sizes() -> Sizes {
    Sizes {
        layers: 2,
        hidden: 32,
        heads: 4,
        intermediate: 48,
        vocab: 50,
        positions: 16,
        dropout: 0.0,
    }
}

/// Weights wide enough that every part of the model shows in the logits.
fn wide(config: Config) -> Config {
    Config { initializer_range: 0.3, ..config }
}

fn session(model: &BuiltModel) -> Session {
    Session::from_bytes(&model.graph.to_bytes().unwrap(), &SessionOptions::default()).unwrap()
}

/// The first output for rows of equal length.
fn run(model: &BuiltModel, session: &mut Session, ids: &[&[i64]], mask: &[&[i64]]) -> Vec<f32> {
    let shape = [ids.len(), ids[0].len()];
    let ids = Tensor::from_slice(&shape, &ids.concat()).unwrap();
    let mask = Tensor::from_slice(&shape, &mask.concat()).unwrap();
    let types = Tensor::from_slice(&shape, &vec![0i64; shape[0] * shape[1]]).unwrap();
    let all = [("input_ids", &ids), ("attention_mask", &mask), ("token_type_ids", &types)];
    let fed: Vec<_> =
        all.into_iter().filter(|(n, _)| model.inputs.iter().any(|i| i == n)).collect();
    let found = session.run(&fed, &[model.outputs[0].as_str()]).unwrap();
    found[0].as_slice::<f32>().unwrap().to_vec()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn padding_changes_nothing() {
    load_runtime();
    let gpt2 = Config { pad_token_id: Some(3), ..Config::gpt2(&sizes()) };
    let configs = [
        (Config::bert(&sizes()), 0),
        (Config::roberta(&sizes()), 1),
        (Config::distilbert(&sizes()), 0),
        (Config::albert(&sizes()), 0),
        (Config::mpnet(&sizes()), 1),
        (gpt2, 3),
        // Without a padding token the mask alone tells where a sequence ends.
        (Config::gpt2(&sizes()), 9),
    ];
    for (config, pad) in configs {
        let model = build(&wide(config), TWO, None, 4).unwrap();
        let mut session = session(&model);
        let alone = run(&model, &mut session, &[&[7, 9, 11, 9, 13]], &[&[1; 5]]);
        let padded = run(
            &model,
            &mut session,
            &[&[20, 21, 22, 23, 24, 25, 26, 27], &[7, 9, 11, 9, 13, pad, pad, pad]],
            &[&[1; 8], &[1, 1, 1, 1, 1, 0, 0, 0]],
        );
        let name = &model.config.model_type;
        assert!(distance(&alone, &padded[2..]) < 1e-5, "{name}: {alone:?} {padded:?}");
        assert!(distance(&alone, &padded[..2]) > 1e-3, "{name}: {alone:?} {padded:?}");
    }
}

#[test]
fn a_causal_model_sees_no_later_token() {
    load_runtime();
    let model = build(&wide(Config::gpt2(&sizes())), Task::CausalLm, None, 4).unwrap();
    let mut session = session(&model);
    let one = run(&model, &mut session, &[&[7, 9, 11, 9, 13, 2]], &[&[1; 6]]);
    let other = run(&model, &mut session, &[&[7, 9, 11, 30, 31, 2]], &[&[1; 6]]);
    let (before, after) = (..3 * 50, 3 * 50..);
    assert!(distance(&one[before], &other[before]) < 1e-5);
    assert!(distance(&one[after.clone()], &other[after]) > 1e-2);
}

/// Scores of block i divided by i + 1 are those of a query that is divided by i + 1.
#[test]
fn inverse_layer_scale_divides_the_query() {
    load_runtime();
    let plain = wide(Config::gpt2(&sizes()));
    let scaled = Config { scale_by_inverse_layer: true, ..plain.clone() };
    let model = build(&plain, TWO, None, 4).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    for name in &model.parameters {
        let data = model.graph.initializer(model.graph.find(name).unwrap()).unwrap();
        let mut tensor = data.to_tensor().unwrap();
        if name.contains("h.1.attn.c_attn") {
            let rows = tensor.as_mut_slice::<f32>().unwrap().chunks_mut(96);
            rows.for_each(|row| row[..32].iter_mut().for_each(|q| *q *= 2.0));
        }
        tensors.push((name.clone(), tensor));
    }
    write(&path, tensors.iter().map(|(n, t)| (n.as_str(), View::from(t))), &[]).unwrap();
    let doubled = build(&scaled, TWO, Some(&Weights::read(&path).unwrap()), 4).unwrap();
    let same = build(&scaled, TWO, None, 4).unwrap();
    let logits = |m: &BuiltModel| run(m, &mut session(m), &[&[7, 9, 11, 9]], &[&[1; 4]]);
    assert!(distance(&logits(&model), &logits(&doubled)) < 1e-5);
    assert!(distance(&logits(&model), &logits(&same)) > 1e-3);
}

#[test]
fn every_activation_runs_and_is_another() {
    load_runtime();
    let logits: Vec<_> = [
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::Relu,
        Activation::Tanh,
    ]
    .into_iter()
    .map(|activation| {
        let config = Config { activation, ..wide(Config::bert(&sizes())) };
        let model = build(&config, TWO, None, 4).unwrap();
        run(&model, &mut session(&model), &[&[7, 9, 11, 9]], &[&[1; 4]])
    })
    .collect();
    let near = distance(&logits[0], &logits[1]);
    assert!(near > 1e-7 && near < 0.02, "{near}");
    for pair in logits[1..].windows(2) {
        assert!(distance(&pair[0], &pair[1]) > near, "{logits:?}");
    }
}

#[test]
fn dropout_is_seeded_and_can_be_removed() {
    load_runtime();
    for config in [Config::bert(&sizes()), Config::roberta(&sizes()), Config::gpt2(&sizes())] {
        let with = |seed, dropout| {
            let options = LoadOptions { seed, dropout: Some(dropout), ..LoadOptions::default() };
            build_with(&wide(config.clone()), TWO, None, &options).unwrap()
        };
        let model = with(4, 0.3);
        let ids: &[&[i64]] = &[&[7, 9, 11, 9]];
        // Stock runtimes drop the nodes when they optimise, training mode or not.
        let options = SessionOptions { optimize: Optimize::Disabled, ..SessionOptions::default() };
        let logits = |m: &BuiltModel| {
            let bytes = m.graph.to_bytes().unwrap();
            let mut session = Session::from_bytes(&bytes, &options).unwrap();
            run(m, &mut session, ids, &[&[1; 4]])
        };
        let plain = logits(&with(4, 0.0));
        assert_eq!(logits(&model), logits(&model));
        assert!(distance(&logits(&model), &plain) > 1e-3);
        let mut still = model.clone();
        BuiltModel::remove_dropout(&mut still.graph);
        assert!(distance(&logits(&still), &plain) < 1e-6);
    }
}

/// The standard operator would be dropped by the runtime, so none of it may be left.
#[test]
fn training_graphs_seed_every_dropout() {
    load_runtime();
    let config = Config::roberta(&Sizes { dropout: 0.1, ..sizes() });
    let model = build(&config, TWO, None, 4).unwrap();
    let params: Vec<_> = model.parameters.iter().map(|n| model.graph.find(n).unwrap()).collect();
    let shapes = model.inputs.iter().map(|name| (name.clone(), vec![2, 6])).collect();
    let spec = LossSpec::new(LossKind::SequenceClassification);
    let training = training_graph(&model.graph, &params, &spec, &shapes).unwrap();
    assert!(training.data_inputs.iter().any(|(name, _, _)| name == SEED_INPUT));
    let graph = Graph::from_bytes(training.bytes.into()).unwrap();
    let count = |domain: &str| {
        graph.nodes().iter().filter(|n| n.op == "Dropout" && n.domain == domain).count()
    };
    // Nine forward, as many backward.
    assert_eq!((count(""), count("mmopt")), (0, 18));
}

/// Too long a sequence is an error, not a silent cut.
#[test]
fn a_sequence_beyond_the_positions_is_refused() {
    load_runtime();
    for config in [Config::bert(&sizes()), Config::roberta(&sizes()), Config::gpt2(&sizes())] {
        let longest = config.max_sequence();
        let model = build(&config, TWO, None, 4).unwrap();
        let session = session(&model);
        let fits = |n: usize| {
            let ids = Tensor::from_slice(&[1, n], &vec![5i64; n]).unwrap();
            let ones = Tensor::from_slice(&[1, n], &vec![1i64; n]).unwrap();
            let types = Tensor::from_slice(&[1, n], &vec![0i64; n]).unwrap();
            let mut fed = vec![("input_ids", &ids), ("attention_mask", &ones)];
            if model.inputs.len() == 3 {
                fed.push(("token_type_ids", &types));
            }
            session.run(&fed, &["logits"]).is_ok()
        };
        assert!(fits(longest), "{}", config.model_type);
        assert!(!fits(longest + 1), "{}", config.model_type);
    }
}
