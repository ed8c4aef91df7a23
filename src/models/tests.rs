//! Graphs of small configurations: names, shapes, errors, directories.

use std::path::Path;

use super::*;
use crate::checkpoint::weights::{self, FILE_NAME, View};
use crate::error::{Error, Kind};
use crate::tensor::{DType, Tensor};

fn sizes() -> Sizes {
    Sizes {
        layers: 2,
        hidden: 8,
        heads: 2,
        intermediate: 12,
        vocab: 20,
        positions: 10,
        dropout: 0.0,
    }
}

const TWO: Task = Task::SequenceClassification { num_labels: 2 };

fn all_configs() -> [Config; 6] {
    [
        Config::bert(&sizes()),
        Config::roberta(&sizes()),
        Config::gpt2(&sizes()),
        Config::distilbert(&sizes()),
        Config { embedding: 6, groups: 2, ..Config::albert(&sizes()) },
        Config::mpnet(&sizes()),
    ]
}

/// The model's parameters as named tensors.
fn tensors(model: &BuiltModel) -> Vec<(String, Tensor)> {
    let data = |name: &str| model.graph.initializer(model.graph.find(name).unwrap()).unwrap();
    model.parameters.iter().map(|n| (n.clone(), data(n).to_tensor().unwrap())).collect()
}

fn write_weights(dir: &Path, tensors: &[(String, Tensor)]) {
    let path = dir.join(FILE_NAME);
    weights::write(&path, tensors.iter().map(|(n, t)| (n.as_str(), t)), &[]).unwrap();
}

/// A directory with a fresh model of `config`, its weights changed by `change`.
fn directory(
    config: &Config,
    task: Task,
    change: impl FnOnce(&mut Vec<(String, Tensor)>),
) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let model = build(config, task, None, 5).unwrap();
    let mut tensors = tensors(&model);
    change(&mut tensors);
    write_weights(dir.path(), &tensors);
    std::fs::write(dir.path().join("config.json"), model.config.to_json()).unwrap();
    dir
}

fn load_plain(dir: &Path) -> crate::Result<BuiltModel> {
    load(dir, None, &LoadOptions::default())
}

/// The error is of that kind, and its message names every part.
fn check_error(error: &Error, kind: Kind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.message().contains(part), "no {part:?} in: {error}");
    }
}

#[test]
fn every_head_builds_and_every_other_is_refused() {
    let tasks = [
        TWO,
        Task::TokenClassification { num_labels: 5 },
        Task::QuestionAnswering,
        Task::MaskedLm,
        Task::CausalLm,
    ];
    for config in all_configs() {
        let decodes = config.architecture == Architecture::Gpt2;
        for task in tasks {
            let fits = match task {
                Task::MaskedLm => !decodes,
                Task::CausalLm => decodes,
                _ => true,
            };
            match build(&config, task, None, 1) {
                Ok(model) => {
                    assert!(fits);
                    assert_eq!(model.config.default_task().unwrap(), task);
                    let floats = model.graph.initializers().values();
                    assert!(floats.clone().all(|t| t.dtype() == DType::F32));
                    assert_eq!(floats.count(), model.parameters.len());
                    assert_eq!(model.missing, model.parameters);
                    let copy =
                        crate::onnx::Graph::from_bytes(model.graph.to_bytes().unwrap().into());
                    copy.unwrap();
                }
                Err(e) => {
                    assert!(!fits);
                    check_error(&e, Kind::Unsupported, &[&config.model_type, "language"]);
                }
            }
        }
    }
    let none = Task::TokenClassification { num_labels: 0 };
    let e = build(&Config::bert(&sizes()), none, None, 1).unwrap_err();
    check_error(&e, Kind::InvalidArgument, &["0 labels"]);
}

#[test]
fn configurations_survive_a_round_trip() {
    for mut config in all_configs() {
        config.set_task(Task::TokenClassification { num_labels: 3 });
        config.other.insert("transformers_version".into(), "5.0".into());
        config.other.insert("torch_dtype".into(), "float16".into());
        let again = Config::from_json(&config.to_json()).unwrap();
        assert_eq!(again.to_json(), config.to_json());
        assert_eq!(again.other["transformers_version"], "5.0");
        assert_eq!(again.other["torch_dtype"], "float32");
        assert!(!again.other.contains_key("dtype"));
        assert_eq!(again.labels.len(), 3);
        assert_eq!(again.default_task().unwrap(), Task::TokenClassification { num_labels: 3 });
        assert_eq!(again.max_sequence(), 10);
    }
}

#[test]
fn general_names_and_defaults_are_understood() {
    let text = r#"{"model_type": "gpt2", "vocab_size": 9, "hidden_size": 8, "n_layer": 1,
        "num_attention_heads": 2, "n_positions": 4, "n_inner": null}"#;
    let config = Config::from_json(text).unwrap();
    assert_eq!((config.hidden, config.heads, config.intermediate), (8, 2, 32));
    assert_eq!((config.activation, config.pad_token_id), (Activation::GeluTanh, None));
    let again = Config::from_json(&config.to_json()).unwrap();
    assert_eq!((again.hidden, again.pad_token_id), (8, None));
    let camembert = text
        .replace("gpt2", "camembert")
        .replace("n_inner\": null", "pad_token_id\": 1")
        .replace("n_layer", "num_hidden_layers")
        .replace("n_positions", "max_position_embeddings")
        .replace("}", r#", "intermediate_size": 3}"#);
    let mut config = Config::from_json(&camembert).unwrap();
    config.set_task(Task::MaskedLm);
    assert_eq!(config.architectures, ["CamembertForMaskedLM"]);
    assert_eq!((config.architecture, config.max_sequence()), (Architecture::Roberta, 2));
}

#[test]
fn wrong_configurations_name_their_key() {
    let good = Config::bert(&sizes()).to_json();
    let with = |key: &str, value: serde_json::Value| {
        let mut map: serde_json::Value = serde_json::from_str(&good).unwrap();
        match value.is_null() {
            true => drop(map.as_object_mut().unwrap().remove(key)),
            false => map[key] = value,
        }
        Config::from_json(&map.to_string()).unwrap_err()
    };
    let null = || serde_json::Value::Null;
    for key in [
        "model_type",
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
    ] {
        check_error(&with(key, null()), Kind::InvalidData, &[key, "missing"]);
    }
    check_error(&with("hidden_size", 9.into()), Kind::InvalidData, &["hidden_size", "9", "2"]);
    check_error(&with("hidden_size", (-8).into()), Kind::InvalidData, &["hidden_size", "-8"]);
    check_error(&with("vocab_size", 0.into()), Kind::InvalidData, &["vocab_size"]);
    check_error(&with("vocab_size", "x".into()), Kind::InvalidData, &["vocab_size"]);
    let huge = with("num_hidden_layers", u64::MAX.into());
    check_error(&huge, Kind::InvalidData, &["num_hidden_layers"]);
    let config = Config { hidden: 1 << 20, embedding: 1 << 20, ..Config::bert(&sizes()) };
    let e = build(&config, TWO, None, 1).unwrap_err();
    check_error(&e, Kind::InvalidData, &["parameters, more than"]);
    let narrow = Config { embedding: 4, ..Config::bert(&sizes()) };
    check_error(&narrow.check().unwrap_err(), Kind::InvalidData, &["width 4"]);
    check_error(&with("hidden_dropout_prob", 1.0.into()), Kind::InvalidData, &["hidden_dropout"]);
    check_error(&with("layer_norm_eps", (-1).into()), Kind::InvalidData, &["layer_norm_eps"]);
    check_error(&with("pad_token_id", 20.into()), Kind::InvalidData, &["pad_token_id", "20"]);
    check_error(&with("id2label", serde_json::json!({"1": "a"})), Kind::InvalidData, &["id2label"]);
    check_error(&with("architectures", "Bert".into()), Kind::InvalidData, &["architectures"]);
    check_error(&with("model_type", "mamba".into()), Kind::Unsupported, &["mamba", "roberta"]);
    check_error(&with("hidden_act", "glu".into()), Kind::Unsupported, &["hidden_act", "glu"]);
    check_error(&with("is_decoder", true.into()), Kind::Unsupported, &["is_decoder"]);
    let relative = with("position_embedding_type", "relative_key".into());
    check_error(&relative, Kind::Unsupported, &["relative_key"]);
    check_error(&Config::from_json("[]").unwrap_err(), Kind::InvalidData, &["object"]);
    check_error(&Config::from_json("{").unwrap_err(), Kind::InvalidData, &["JSON"]);
    let e = Config::read(Path::new("/nonexistent")).unwrap_err();
    check_error(&e, Kind::NotFound, &["/nonexistent"]);
    let e = Config::bert(&sizes()).default_task().unwrap_err();
    check_error(&e, Kind::InvalidArgument, &["architectures"]);
}

/// Whatever stands in the file, reading and drawing end with a graph or an error.
#[test]
fn hostile_values_do_no_harm() {
    let values = [
        "0",
        "1",
        "-1",
        "7",
        "300",
        "4194304",
        "268435456",
        "1e30",
        "0.5",
        "null",
        "true",
        "[]",
        "{}",
        "\"x\"",
        "18446744073709551615",
    ];
    let mut drawn = 0;
    for mut config in all_configs() {
        config.set_task(TWO);
        let good: serde_json::Value = serde_json::from_str(&config.to_json()).unwrap();
        for key in good.as_object().unwrap().keys() {
            for value in values {
                let mut map = good.clone();
                map[key] = serde_json::from_str(value).unwrap();
                let Ok(config) = Config::from_json(&map.to_string()) else { continue };
                let Ok(task) = config.default_task() else { continue };
                drawn += usize::from(heads::forward_graph(&config, task, 1).is_ok());
            }
        }
        let text = config.to_json();
        for end in 0..text.trim_end().len() {
            assert!(Config::from_json(&text[..end]).is_err(), "{end}");
        }
    }
    assert!(drawn > 100, "{drawn}");
}

#[test]
fn directories_round_trip() {
    for config in all_configs() {
        let dir = tempfile::tempdir().unwrap();
        let model = build(&config, TWO, None, 3).unwrap();
        let tensors = tensors(&model);
        let named = || tensors.iter().map(|(n, t)| (n.as_str(), t));
        save(dir.path(), &model.config, named()).unwrap();
        let again = load_plain(dir.path()).unwrap();
        assert_eq!((again.task, &again.parameters), (TWO, &model.parameters));
        assert!(again.missing.is_empty() && again.unexpected.is_empty());
        for ((name, a), (_, b)) in tensors.iter().zip(self::tensors(&again)) {
            assert_eq!(a.bytes(), b.bytes(), "{name}");
        }
        let file = Weights::read(&dir.path().join(FILE_NAME)).unwrap();
        assert_eq!((file.len(), file.metadata()["format"].as_str()), (tensors.len(), "pt"));

        let other = tempfile::tempdir().unwrap();
        let e = save(other.path(), &model.config, named().skip(1)).unwrap_err();
        check_error(&e, Kind::InvalidArgument, &[&tensors[0].0, "not given"]);
        let e = save(other.path(), &model.config, named().chain(named().take(1))).unwrap_err();
        check_error(&e, Kind::InvalidArgument, &[&tensors[0].0, "twice"]);
        let e = save(other.path(), &model.config, named().chain([("x", &tensors[0].1)]));
        check_error(&e.unwrap_err(), Kind::InvalidArgument, &["'x'"]);
        let swapped = named().map(|(n, t)| (n, if n == tensors[0].0 { &tensors[3].1 } else { t }));
        let e = save(other.path(), &model.config, swapped).unwrap_err();
        check_error(&e, Kind::Shape, &[&tensors[0].0]);
        assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0);
    }
}

#[test]
fn bare_and_early_files_load() {
    let body = |tensors: &mut Vec<(String, Tensor)>| {
        tensors.retain(|(n, _)| n.starts_with("bert.") && !n.contains("pooler"));
        for (name, _) in tensors.iter_mut() {
            *name = name.trim_start_matches("bert.").replace("LayerNorm.weight", "LayerNorm.gamma");
        }
        let ids = Tensor::from_slice(&[1, 3], &[0i64, 1, 2]).unwrap();
        tensors.push(("embeddings.position_ids".into(), ids));
        tensors.push(("cls.seq_relationship.bias".into(), Tensor::scalar(0f32).unwrap()));
    };
    let dir = directory(&Config::bert(&sizes()), TWO, body);
    let model = load_plain(dir.path()).unwrap();
    let fresh = [
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    ];
    assert_eq!(model.missing, fresh);
    assert_eq!(model.unexpected, ["cls.seq_relationship.bias"]);

    let dir = directory(&Config::gpt2(&sizes()), Task::CausalLm, |tensors| {
        for (name, _) in tensors.iter_mut() {
            *name = name.trim_start_matches("transformer.").to_owned();
        }
        tensors.push(("h.0.attn.bias".into(), Tensor::zeros(DType::F32, &[1, 1, 4, 4]).unwrap()));
    });
    let model = load_plain(dir.path()).unwrap();
    assert!(model.missing.is_empty() && model.unexpected.is_empty());
    assert!(model.parameters.iter().any(|n| n == "transformer.h.0.attn.c_attn.bias"));
}

#[test]
fn tied_tensors_load_under_either_name() {
    let table = "bert.embeddings.word_embeddings.weight";
    let dir = directory(&Config::bert(&sizes()), Task::MaskedLm, |tensors| {
        for (name, _) in tensors.iter_mut() {
            *name = name.replace(table, "cls.predictions.decoder.weight");
        }
    });
    let model = load_plain(dir.path()).unwrap();
    assert!(model.missing.is_empty() && model.unexpected.is_empty());
    assert!(model.tied.contains(&("cls.predictions.decoder.weight".into(), table.into())));

    let untied = Config { tie_word_embeddings: false, ..Config::bert(&sizes()) };
    let model = build(&untied, Task::MaskedLm, None, 1).unwrap();
    assert!(model.parameters.iter().any(|n| n == "cls.predictions.decoder.weight"));
    assert_eq!(model.tied.len(), 1);
    let (bias, alias) = ("cls.predictions.bias", "cls.predictions.decoder.bias");
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = tensors(&model);
    let named = || tensors.iter().map(|(n, t)| (n.as_str(), t));
    save(dir.path(), &model.config, named()).unwrap();
    let file = Weights::read(&dir.path().join(FILE_NAME)).unwrap();
    assert_eq!(file.find(bias).unwrap().bytes, file.find(alias).unwrap().bytes);
    // The published head reads the alias.
    tensors.push((alias.into(), Tensor::from_slice(&[20], &[3f32; 20]).unwrap()));
    write_weights(dir.path(), &tensors);
    let model = load_plain(dir.path()).unwrap();
    let found = self::tensors(&model).into_iter().find(|(n, _)| n == bias).unwrap().1;
    assert_eq!(found.as_slice::<f32>().unwrap(), [3.0; 20]);
}

fn copies(all: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    all.iter().map(|(name, tensor)| (name.clone(), tensor.copy().unwrap())).collect()
}

#[test]
fn wrong_weights_name_the_parameter() {
    let config = Config::bert(&sizes());
    let query = "bert.encoder.layer.1.attention.self.query.weight";
    let replaced = |name: &str, tensor: Tensor| {
        directory(&config, TWO, |tensors| {
            tensors
                .iter_mut()
                .filter(|(n, _)| n == name)
                .for_each(|(_, t)| *t = tensor.copy().unwrap());
        })
    };
    let wide = Tensor::zeros(DType::F32, &[8, 9]).unwrap();
    let e = load_plain(replaced(query, wide).path()).unwrap_err();
    check_error(&e, Kind::Shape, &[query, "[8, 9]", "[8, 8]"]);

    let whole = Tensor::zeros(DType::I64, &[8, 8]).unwrap();
    let e = load_plain(replaced(query, whole).path()).unwrap_err();
    check_error(&e, Kind::InvalidData, &[query, "i64"]);

    let mut values = [0f32; 64];
    values[9] = f32::NAN;
    let dir = replaced(query, Tensor::from_slice(&[8, 8], &values).unwrap());
    let e = load_plain(dir.path()).unwrap_err();
    check_error(&e, Kind::NonFinite, &[query, "element 9"]);
    let anyhow = LoadOptions { allow_non_finite: true, ..LoadOptions::default() };
    assert!(load(dir.path(), None, &anyhow).is_ok());

    let dir = directory(&config, TWO, |tensors| tensors.retain(|(n, _)| n != query));
    let e = load_plain(dir.path()).unwrap_err();
    check_error(&e, Kind::InvalidData, &[query, "lack 1 "]);
    let anyhow = LoadOptions { allow_missing: true, ..LoadOptions::default() };
    assert_eq!(load(dir.path(), None, &anyhow).unwrap().missing, [query]);

    let three = Task::SequenceClassification { num_labels: 3 };
    let dir = directory(&config, TWO, |_| {});
    let e = load(dir.path(), Some(three), &LoadOptions::default()).unwrap_err();
    check_error(&e, Kind::Shape, &["classifier", "set fresh_head"]);
    let fresh = LoadOptions { fresh_head: true, ..LoadOptions::default() };
    let model = load(dir.path(), Some(three), &fresh).unwrap();
    // The pooler belongs to the body.
    assert_eq!(model.missing, ["classifier.weight", "classifier.bias"]);
    assert_eq!(model.config.labels, ["LABEL_0", "LABEL_1", "LABEL_2"]);
}

/// Parameters of `model` whose values are those of `from`.
fn kept(model: &BuiltModel, from: &[(String, Tensor)]) -> Vec<String> {
    let same = |(name, tensor): &(String, Tensor)| {
        from.iter().any(|(n, t)| n == name && t.bytes() == tensor.bytes())
    };
    tensors(model).iter().filter(|one| same(one)).map(|(name, _)| name.clone()).collect()
}

#[test]
fn another_task_keeps_the_body_and_gets_a_fresh_head() {
    let tasks = [
        Task::SequenceClassification { num_labels: 13 },
        Task::TokenClassification { num_labels: 13 },
        Task::QuestionAnswering,
    ];
    for config in all_configs() {
        let lm = match config.architecture {
            Architecture::Gpt2 => Task::CausalLm,
            _ => Task::MaskedLm,
        };
        for saved in tasks.into_iter().chain([lm]) {
            let mut weights = Vec::new();
            let dir = directory(&config, saved, |all| {
                // Nothing is 0 or 1, as fresh biases and norms are.
                for (_, tensor) in all.iter_mut() {
                    let values = vec![0.25f32; tensor.bytes().len() / 4];
                    *tensor = Tensor::from_slice(tensor.shape(), &values).unwrap();
                }
                weights = copies(all);
            });
            for task in tasks.into_iter().filter(|t| *t != saved) {
                let options = LoadOptions { seed: 3, ..LoadOptions::default() };
                let model = load(dir.path(), Some(task), &options).unwrap();
                let what = format!("{} of {saved} for {task}", config.model_type);
                let n_kept = kept(&model, &weights).len();
                assert_eq!(n_kept + model.missing.len(), model.parameters.len(), "{what}");
                let head = ["classifier", "score", "qa_outputs", "pooler"];
                let is_head = |n: &String| head.iter().any(|part| n.contains(part));
                assert!(!model.missing.is_empty() && model.missing.iter().all(is_head), "{what}");
                assert!(n_kept > 10, "{what}");
            }
        }
    }
}

#[test]
fn a_tagger_of_thirteen_tags_is_no_classifier_of_thirteen_classes() {
    let (tags, classes) = (
        Task::TokenClassification { num_labels: 13 },
        Task::SequenceClassification { num_labels: 13 },
    );
    let mut config = Config::bert(&sizes());
    config.labels = (0..13).map(|i| format!("B-{i}")).collect();
    for (saved, wanted) in [(tags, classes), (classes, tags)] {
        let mut weights = Vec::new();
        let dir = directory(&config, saved, |all| weights = copies(all));
        let again = load_plain(dir.path()).unwrap();
        assert_eq!((again.config.labels[3].as_str(), again.missing.len()), ("B-3", 0));
        let options = LoadOptions { seed: 3, ..LoadOptions::default() };
        let model = load(dir.path(), Some(wanted), &options).unwrap();
        assert!(model.missing.contains(&"classifier.weight".to_owned()), "{:?}", model.missing);
        assert!(!kept(&model, &weights).contains(&"classifier.weight".to_owned()));
        assert!(model.unexpected.contains(&"classifier.weight".to_owned()));
        assert_eq!(model.config.labels[3], "LABEL_3");
    }
}

#[test]
fn classes_are_named_and_a_trained_head_keeps_their_order() {
    let three = Task::SequenceClassification { num_labels: 3 };
    let mut config = Config::bert(&sizes());
    config.labels = ["neg", "neutral", "pos"].map(str::to_owned).to_vec();
    let dir = directory(&config, three, |_| {});
    let load = |names: &[&str], fresh_head| {
        let labels = names.iter().map(|n| n.to_string()).collect();
        let options = LoadOptions { labels, fresh_head, seed: 9, ..LoadOptions::default() };
        load(dir.path(), None, &options)
    };
    assert_eq!(load(&[], false).unwrap().config.labels, ["neg", "neutral", "pos"]);
    assert_eq!(load(&[], true).unwrap().config.labels, ["LABEL_0", "LABEL_1", "LABEL_2"]);
    let model = load(&["bad", "so-so", "good"], false).unwrap();
    let json = model.config.to_json();
    assert!(json.contains("\"1\": \"so-so\"") && json.contains("\"so-so\": 1"), "{json}");
    let e = load(&["pos", "neutral", "neg"], false).unwrap_err();
    check_error(&e, Kind::InvalidArgument, &["another order", "fresh_head"]);
    let model = load(&["pos", "neutral", "neg"], true).unwrap();
    assert_eq!(model.config.labels, ["pos", "neutral", "neg"]);
    assert_eq!(model.missing, ["classifier.weight", "classifier.bias"]);
    let e = load(&["a", "b"], false).unwrap_err();
    check_error(&e, Kind::InvalidArgument, &["2 label names for 3 classes"]);
    let e = load(&["a", "b", "a"], false).unwrap_err();
    check_error(&e, Kind::InvalidArgument, &["'a' occurs twice"]);
    let e = load(&["a", "", "b"], false).unwrap_err();
    check_error(&e, Kind::InvalidArgument, &["label 1 is empty"]);
}

#[test]
fn broken_files_are_refused() {
    let dir = directory(&Config::gpt2(&sizes()), TWO, |_| {});
    let path = dir.path().join(FILE_NAME);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
    check_error(&load_plain(dir.path()).unwrap_err(), Kind::InvalidData, &[FILE_NAME, "truncated"]);
    std::fs::remove_file(&path).unwrap();
    let e = load_plain(dir.path()).unwrap_err();
    check_error(&e, Kind::NotFound, &["holds no weights", FILE_NAME, "set fresh_weights"]);
    let fresh = LoadOptions { fresh_weights: true, ..LoadOptions::default() };
    assert_eq!(load(dir.path(), None, &fresh).unwrap().missing.len(), 29);
    // Files of other kinds are told as what they are.
    for (magic, kind) in [(&b"\x1F\x8B\x08"[..], "gzip"), (b"PK\x03\x04x/data.pkl", "PyTorch")] {
        std::fs::write(&path, magic).unwrap();
        check_error(&load_plain(dir.path()).unwrap_err(), Kind::InvalidData, &[FILE_NAME, kind]);
        std::fs::remove_file(&path).unwrap();
    }
    let checkpoint = tempfile::tempdir().unwrap();
    std::fs::write(checkpoint.path().join("latest"), "step-1").unwrap();
    let e = load_plain(checkpoint.path()).unwrap_err();
    check_error(&e, Kind::NotFound, &["no config.json, but a trainer's checkpoint"]);
    std::fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    check_error(&load_plain(dir.path()).unwrap_err(), Kind::Unsupported, &["pytorch_model.bin"]);
}

#[test]
fn narrow_floats_become_f32() {
    let name = "score.weight";
    let half: Vec<_> = (0..16).map(|i| half::f16::from_f32(i as f32 / 4.0)).collect();
    let dir = directory(&Config::gpt2(&sizes()), TWO, |tensors| {
        let score = tensors.iter_mut().find(|(n, _)| n == name).unwrap();
        score.1 = Tensor::from_slice(&[2, 8], &half).unwrap();
    });
    let model = load_plain(dir.path()).unwrap();
    let found = tensors(&model).into_iter().find(|(n, _)| n == name).unwrap().1;
    assert_eq!(found.as_slice::<f32>().unwrap()[..3], [0.0, 0.25, 0.5]);
}

#[test]
fn dropout_nodes_exist_only_where_the_rate_is_not_zero() {
    for config in all_configs() {
        let count = |rate| {
            let options = LoadOptions { dropout: Some(rate), seed: 9, ..LoadOptions::default() };
            let model = build_with(&config, TWO, None, &options).unwrap();
            let nodes = model.graph.nodes();
            let seeds = nodes.iter().filter(|n| n.op == "Dropout").map(|n| n.int("seed").unwrap());
            (model.graph.clone(), seeds.collect::<std::collections::BTreeSet<_>>().len())
        };
        let (plain, none) = count(0.0);
        let (mut graph, some) = count(0.1);
        assert_eq!(none, 0);
        // Two blocks with three each (two in DistilBERT), the embeddings, the head.
        let expected = match config.architecture {
            Architecture::Roberta | Architecture::MpNet => 9,
            Architecture::Gpt2 => 7,
            Architecture::DistilBert | Architecture::Albert => 6,
            Architecture::Bert => 8,
        };
        assert_eq!(some, expected, "{}", config.model_type);
        BuiltModel::remove_dropout(&mut graph);
        let ops = |g: &crate::onnx::Graph| {
            let used = g.nodes().iter().filter(|n| n.op != "Constant");
            used.map(|n| n.op.clone()).collect::<Vec<_>>()
        };
        assert_eq!(ops(&graph), ops(&plain));
    }
}

#[test]
fn fresh_parameters_follow_the_architecture() {
    let data = |model: &BuiltModel, name: &str| {
        model.graph.initializer(model.graph.find(name).unwrap()).unwrap().to_f64s().unwrap()
    };
    let spread = |x: &[f64]| (x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64).sqrt();
    let wide = Sizes { hidden: 64, intermediate: 256, ..sizes() };
    let model = build(&Config::gpt2(&wide), TWO, None, 1).unwrap();
    let inner = spread(&data(&model, "transformer.h.0.mlp.c_fc.weight"));
    let residual = spread(&data(&model, "transformer.h.0.mlp.c_proj.weight"));
    assert!((inner / 0.02 - 1.0).abs() < 0.03 && (residual / 0.01 - 1.0).abs() < 0.03);
    assert!(data(&model, "transformer.ln_f.weight").iter().all(|&v| v == 1.0));
    assert!(data(&model, "transformer.h.1.attn.c_attn.bias").iter().all(|&v| v == 0.0));

    let model = build(&Config::roberta(&wide), TWO, None, 1).unwrap();
    assert_eq!(model.padding_rows.len(), 2);
    for PaddingRow { parameter, row } in &model.padding_rows {
        let table = data(&model, parameter);
        assert_eq!((*row, spread(&table[64..128])), (1, 0.0));
        assert!(spread(&table[..64]) > 0.01 && spread(&table[128..]) > 0.01);
    }
    let same = build(&Config::roberta(&wide), Task::QuestionAnswering, None, 1).unwrap();
    let name = "roberta.encoder.layer.1.output.dense.weight";
    assert_eq!(data(&model, name), data(&same, name));
}

#[test]
fn a_view_of_wrong_length_is_refused_by_save() {
    let dir = tempfile::tempdir().unwrap();
    let model = build(&Config::bert(&sizes()), TWO, None, 3).unwrap();
    let tensors = tensors(&model);
    let views = tensors.iter().map(|(n, t)| {
        let view = View::from(t);
        (n.as_str(), View { bytes: &view.bytes[4..], ..view })
    });
    let e = save(&dir.path().join("new"), &model.config, views).unwrap_err();
    assert_eq!(e.kind(), Kind::Shape);
}
