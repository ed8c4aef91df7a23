//! Weights of one task that train for another: what is kept, what is new, and who is told.

use std::path::Path;
use std::sync::{Arc, Mutex};

use mmopt::Kind;
use mmopt::models::{Config, Sizes, Task};
use mmopt::tensor::Tensor;
use mmopt::train::{Level, ModelOptions, Source, TensorView, Trainer, TrainerOptions};

const CLASSES: Task = Task::SequenceClassification { num_labels: 3 };

fn gpt2() -> Config {
    Config::gpt2(&Sizes {
        vocab: 30,
        hidden: 16,
        layers: 1,
        heads: 2,
        intermediate: 32,
        positions: 12,
        dropout: 0.0,
    })
}

/// A language model after one step, in `dir`, and its embedding.
fn language_model(dir: &Path) -> Vec<u8> {
    let source = Source::Config(Box::new(gpt2()));
    let task = Some(Task::CausalLm);
    let model = ModelOptions { task, ..ModelOptions::new("lm", source) };
    let mut trainer = Trainer::new(TrainerOptions::default(), vec![model]).unwrap();
    let ids: Vec<i64> = (0..16).map(|i| i * 7 % 30).collect();
    let ids = Tensor::from_slice(&[2, 8], &ids).unwrap();
    let mask = Tensor::from_slice(&[2, 8], &[1i64; 16]).unwrap();
    let views = [("input_ids", &ids), ("attention_mask", &mask), ("labels", &ids)];
    let views = views.map(|(name, tensor)| TensorView::of(name, tensor));
    trainer.forward_backward_all(&[views.as_slice()]).unwrap();
    trainer.step().unwrap();
    trainer.save_model(0, dir).unwrap();
    embedding(&trainer)
}

fn embedding(trainer: &Trainer) -> Vec<u8> {
    trainer.parameter(0, "transformer.wte.weight").unwrap().bytes().to_vec()
}

fn of_directory(dir: &Path) -> ModelOptions {
    ModelOptions::new("classifier", Source::Directory(dir.to_owned()))
}

/// What a trainer tells when it is made.
fn told(trainer: &mut Trainer) -> Vec<(Level, String)> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let sink = move |level, text: &str| sink.lock().unwrap().push((level, text.to_owned()));
    trainer.set_log(Some((Level::Info, Box::new(sink))));
    trainer.set_log(None);
    let told = told.lock().unwrap();
    told.clone()
}

#[test]
fn a_language_model_becomes_a_classifier_with_named_classes() {
    let dir = tempfile::tempdir().unwrap();
    let words = language_model(dir.path());
    let names = ["bad", "so-so", "good"].map(str::to_owned).to_vec();
    let options =
        ModelOptions { task: Some(CLASSES), label_names: names, ..of_directory(dir.path()) };
    let mut trainer = Trainer::new(TrainerOptions::default(), vec![options.clone()]).unwrap();
    assert_eq!(embedding(&trainer), words, "the body is kept");
    let report = trainer.report(0).unwrap();
    assert_eq!(report.newly_initialised, ["score.weight"]);
    assert!(report.to_json()["newly_initialised"][0] == "score.weight");
    let line = "model 'classifier': newly initialised: score.weight";
    assert!(told(&mut trainer).contains(&(Level::Info, line.to_owned())));
    assert_eq!(options.class_names().unwrap()[2], "good");

    // Saved and read again, the head and the names are those that were trained.
    let saved = dir.path().join("classifier");
    trainer.save_model(0, &saved).unwrap();
    let config = std::fs::read_to_string(saved.join("config.json")).unwrap();
    assert!(config.contains("\"2\": \"good\"") && config.contains("\"good\": 2"), "{config}");
    let again = Trainer::new(TrainerOptions::default(), vec![of_directory(&saved)]).unwrap();
    assert!(again.report(0).unwrap().newly_initialised.is_empty());

    // Another number of classes needs a new head, which must be asked for.
    let five = Some(Task::SequenceClassification { num_labels: 5 });
    let options = ModelOptions { task: five, ..of_directory(&saved) };
    let e = Trainer::new(TrainerOptions::default(), vec![options.clone()]).unwrap_err();
    assert_eq!(e.kind(), Kind::Shape);
    for part in ["model 'classifier'", "score.weight", "[3, 16]", "[5, 16]", "set fresh_head"] {
        assert!(e.message().contains(part), "no {part} in: {e}");
    }
    let options = ModelOptions { fresh_head: true, ..options };
    let again = Trainer::new(TrainerOptions::default(), vec![options]).unwrap();
    assert_eq!(again.report(0).unwrap().newly_initialised, ["score.weight"]);
    assert_eq!(again.report(0).unwrap().unused, ["score.weight"]);
}

#[test]
fn a_configuration_alone_trains_only_when_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    language_model(dir.path());
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let e = Trainer::new(TrainerOptions::default(), vec![of_directory(dir.path())]).unwrap_err();
    assert_eq!(e.kind(), Kind::NotFound);
    assert!(e.message().contains("set fresh_weights"), "{e}");
    let options = ModelOptions { fresh_weights: true, ..of_directory(dir.path()) };
    let mut trainer = Trainer::new(TrainerOptions::default(), vec![options]).unwrap();
    let told = told(&mut trainer);
    let warns = |(level, text): &&(Level, String)| {
        *level == Level::Warning && text.contains("no weights are read")
    };
    assert_eq!(told.iter().filter(warns).count(), 1, "{told:?}");
    let all = (Level::Info, "model 'classifier': newly initialised: all parameters".to_owned());
    assert!(told.contains(&all), "{told:?}");
}
