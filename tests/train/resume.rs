//! What may differ when training is resumed (the table of docs/checkpoints.md), and checkpoints that
//! are written beside the training.

use std::path::Path;
use std::sync::{Arc, Mutex};

use mmopt::Kind;
use mmopt::checkpoint::reader;
use mmopt::checkpoint::writer::Keep;
use mmopt::optim::{self, NonFinite};
use mmopt::train::{Level, ModelOptions, Trainer, TrainerOptions};

use crate::damage::{edit, mend, state};
use crate::trainer::{model, pass_all, step_all, trainer, trainer_options, warnings, weights};

const NAMES: [&str; 2] = ["bert", "gpt2"];

fn models(names: &[&str]) -> Vec<ModelOptions> {
    names.iter().map(|n| model(n, 0.1)).collect()
}

fn options() -> TrainerOptions {
    let mut options = trainer_options();
    options.optimizer.learning_rate = 3e-3;
    options.optimizer.n_threads = 2;
    options
}

fn with_labels(labels: &[&str]) -> Vec<ModelOptions> {
    let label_names = labels.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    models(&NAMES)
        .into_iter()
        .map(|m| ModelOptions { label_names: label_names.clone(), ..m })
        .collect()
}

/// A checkpoint of two steps.
fn checkpoint(models: Vec<ModelOptions>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut trainer = Trainer::new(options(), models).unwrap();
    (0..2).for_each(|seed| drop(step_all(&mut trainer, seed)));
    trainer.checkpoint(dir.path(), "mine").unwrap();
    dir
}

/// Resumes with other models or options: an error with all of `parts` that changes nothing.
fn refused(dir: &Path, options: TrainerOptions, models: Vec<ModelOptions>, parts: &[&str]) {
    let mut trainer = Trainer::new(options, models).unwrap();
    step_all(&mut trainer, 5);
    let before = state(&trainer);
    let error = trainer.resume(dir).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidData, "{error}");
    assert!(parts.iter().all(|part| error.message().contains(part)), "{error}");
    assert!(state(&trainer) == before, "a refused resume changed the trainer");
}

/// Resumes; the warnings.
fn told(dir: &Path, options: TrainerOptions, models: Vec<ModelOptions>) -> Vec<String> {
    let mut trainer = Trainer::new(options, models).unwrap();
    let heard = warnings(&mut trainer);
    assert_eq!(trainer.resume(dir).unwrap(), "mine");
    assert_eq!(trainer.optimizer().step_count(), 2);
    step_all(&mut trainer, 2);
    heard.lock().unwrap().clone()
}

#[test]
fn other_models_are_refused_by_name() {
    let dir = checkpoint(models(&NAMES));
    let path = dir.path();
    refused(path, options(), models(&["bert"]), &["\"bert\"", "\"gpt2\""]);
    refused(path, options(), models(&["bert", "gpt2", "roberta"]), &["\"gpt2\"", "\"roberta\""]);
    refused(path, options(), models(&["gpt2", "bert"]), &["[\"gpt2\", \"bert\"]"]);
    let mut renamed = models(&NAMES);
    renamed[1].name = "second".into();
    refused(path, options(), renamed, &["\"second\"", "\"gpt2\""]);
    let mut swapped = models(&["gpt2", "bert"]);
    (swapped[0].name, swapped[1].name) = ("bert".into(), "gpt2".into());
    let error = Trainer::new(options(), swapped).unwrap().resume(path).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidData);
    assert!(error.message().contains("model 'bert': it has no parameter"), "{error}");
}

#[test]
fn labels_in_another_order_are_refused_and_other_labels_told() {
    let dir = checkpoint(with_labels(&["bad", "good"]));
    assert_eq!(told(dir.path(), options(), with_labels(&["bad", "good"])), [""; 0]);
    refused(dir.path(), options(), with_labels(&["good", "bad"]), &["'bert'", "another order"]);
    let heard = told(dir.path(), options(), with_labels(&["bad", "fine"]));
    assert!(heard.len() == 2 && heard[0].contains("'bert'") && heard[0].contains("fine"));
    let mut three = models(&NAMES);
    for model in &mut three {
        model.task = Some(mmopt::models::Task::SequenceClassification { num_labels: 3 });
    }
    let mut trainer = Trainer::new(options(), three).unwrap();
    let error = trainer.resume(dir.path()).unwrap_err();
    assert!(error.message().contains("parameter '") && error.message().contains("[3"), "{error}");
    assert_eq!((error.kind(), trainer.optimizer().step_count()), (Kind::InvalidData, 0));
}

#[test]
fn seed_device_and_options_are_told_and_threads_are_not() {
    let dir = checkpoint(models(&NAMES));
    let mut one = options();
    one.optimizer.n_threads = 1;
    assert_eq!(told(dir.path(), one, models(&NAMES)), [""; 0]);
    let mut other = models(&NAMES);
    other[1].seed = 99;
    let heard = told(dir.path(), options(), other);
    assert!(
        heard.len() == 1 && heard[0].contains("'gpt2'") && heard[0].contains("99"),
        "{heard:?}"
    );
    let mut heavier = models(&NAMES);
    heavier[0].weight = 2.5;
    let heard = told(dir.path(), options(), heavier);
    assert!(
        heard.len() == 1 && heard[0].contains("'bert': resumed with the weight 1"),
        "{heard:?}"
    );
    let mut clipped = options();
    clipped.optimizer.max_grad_norm = 0.5;
    let heard = told(dir.path(), clipped, models(&NAMES));
    assert!(heard.len() == 1 && heard[0].contains("max_grad_norm"), "{heard:?}");
    let mut narrow = options();
    narrow.optimizer.moment_dtype = optim::MomentDtype::BF16;
    refused(dir.path(), narrow, models(&NAMES), &["f32", "bf16"]);

    let newest = dir.path().join("step-00000002");
    let file = newest.join("trainer.json");
    edit(&file, "/device", "\"cuda:1 with tf32\"");
    edit(&file, "/version", "\"0.0.7\"");
    mend(&newest);
    let heard = told(dir.path(), options(), models(&NAMES));
    assert!(heard.len() == 1 && heard[0].contains("trained on cuda:1 with tf32"), "{heard:?}");
    let mut trainer = Trainer::new(options(), models(&NAMES)).unwrap();
    let heard = Arc::new(Mutex::new(Vec::<String>::new()));
    let into = heard.clone();
    let sink = move |_: Level, text: &str| into.lock().unwrap().push(text.to_owned());
    trainer.set_log(Some((Level::Info, Box::new(sink))));
    trainer.resume(dir.path()).unwrap();
    assert!(heard.lock().unwrap().iter().any(|t| t.contains("libmmopt 0.0.7 wrote")));
}

/// Resumes on fewer threads with the same bits.
#[test]
fn another_number_of_threads_goes_on_with_the_same_bits() {
    let dir = checkpoint(models(&NAMES));
    let resumed = |n_threads: usize| {
        let mut options = options();
        options.optimizer.n_threads = n_threads;
        let mut trainer = Trainer::new(options, models(&NAMES)).unwrap();
        trainer.resume(dir.path()).unwrap();
        (2..5).for_each(|seed| drop(step_all(&mut trainer, seed)));
        weights(&trainer)
    };
    assert!(resumed(1) == resumed(2));
}

#[test]
fn checkpoints_beside_the_training_resume_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = trainer(&NAMES, 0.1);
    let mut after = Vec::new();
    for seed in 0..4 {
        step_all(&mut one, seed);
        one.checkpoint_beside(dir.path(), &seed.to_string(), Keep::last(2)).unwrap();
        // What training changes while it is written is not in it.
        let _ = pass_all(&mut one, 50 + seed);
        one.zero_grad();
        after.push(weights(&one));
    }
    let written = one.wait_for_checkpoint().unwrap().unwrap();
    assert_eq!(written, dir.path().join("step-00000004"));
    assert_eq!(one.wait_for_checkpoint().unwrap(), None);
    let mut two = trainer(&NAMES, 0.1);
    assert_eq!(two.resume(dir.path()).unwrap(), "3");
    assert!(weights(&two) == after[3]);
    // The twin made no passes between, whose dropout counts.
    let mut twin = trainer(&NAMES, 0.1);
    twin.resume(&dir.path().join("step-00000003")).unwrap();
    assert!(weights(&twin) == after[2]);
    step_all(&mut two, 9);
    let beside = tempfile::tempdir().unwrap();
    two.checkpoint_beside(beside.path(), "", Keep::last(2)).unwrap();
    two.wait_for_checkpoint().unwrap();
    let at_once = tempfile::tempdir().unwrap();
    two.checkpoint(at_once.path(), "").unwrap();
    let files = |dir: &Path| {
        let found = reader::open(dir).unwrap();
        ["model-00", "model-01", "optimizer"]
            .map(|name| found.file(&format!("{name}.safetensors")).unwrap().to_vec())
    };
    assert!(files(beside.path()) == files(at_once.path()));
}

/// What could not be resumed is not written, and what training leaves behind is.
#[test]
fn weights_that_are_not_finite() {
    for ignored in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options();
        options.optimizer.ema_decay = Some(0.9);
        if ignored {
            options.optimizer.non_finite = NonFinite::Ignore;
        }
        let mut trainer = Trainer::new(options.clone(), models(&NAMES)).unwrap();
        step_all(&mut trainer, 1);
        let name = trainer.parameters(1).unwrap().next().unwrap().name.to_owned();
        let mut value = trainer.parameter(1, &name).unwrap().bytes().to_vec();
        value[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
        trainer.set_parameter(1, &name, &value).unwrap();
        let (folder, file) = (dir.path().join("model"), dir.path().join("model.onnx"));
        if ignored {
            // Then moments and means are NaN, too.
            step_all(&mut trainer, 2);
            let heard = warnings(&mut trainer);
            trainer.save_model(1, &folder).unwrap();
            assert!(heard.lock().unwrap()[0].contains("cannot be loaded"), "{heard:?}");
            trainer.checkpoint(dir.path(), "").unwrap();
            let mut fresh = Trainer::new(options, models(&NAMES)).unwrap();
            fresh.resume(dir.path()).unwrap();
            assert!(state(&fresh) == state(&trainer));
            continue;
        }
        for error in [
            trainer.checkpoint(dir.path(), "").unwrap_err(),
            trainer.save_model(1, &folder).unwrap_err(),
            trainer.save_onnx(1, &file).unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::NonFinite);
            let place = format!("model 'gpt2': '{name}' is not finite at element 2");
            assert!(error.message().contains(&place), "{error}");
        }
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "something was written");
    }
}

#[test]
fn what_writing_beside_fails_with_is_told_by_the_next_call() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    let mut trainer = trainer(&NAMES, 0.0);
    step_all(&mut trainer, 1);
    let begin = |trainer: &Trainer| trainer.checkpoint_beside(&root, "", Keep::last(2));
    begin(&trainer).unwrap();
    trainer.wait_for_checkpoint().unwrap();
    // The directory is locked and in place, and nothing can be made in it: a file has the name of
    // the next folder.
    let blocked = || {
        let all = std::fs::read_dir(&root).unwrap().map(|f| f.unwrap().path());
        all.filter(|p| p.is_dir()).for_each(|p| std::fs::remove_dir_all(p).unwrap());
        std::fs::remove_file(root.join(".lock")).unwrap();
        std::fs::remove_dir(&root).unwrap();
        std::fs::write(&root, "x").unwrap();
    };
    blocked();
    // Where the right to write cannot be had the call itself says so.
    assert_eq!(begin(&trainer).unwrap_err().kind(), Kind::Io);
    assert_eq!(trainer.wait_for_checkpoint().unwrap(), None);
    std::fs::remove_file(&root).unwrap();
    begin(&trainer).unwrap();
    // Between a pass and its step there is nothing to write, as ever; the one before is whole.
    pass_all(&mut trainer, 2);
    assert_eq!(begin(&trainer).unwrap_err().kind(), Kind::State);
    trainer.zero_grad();
    assert_eq!(reader::open(&root).unwrap().step, 1);
    // Another trainer is told at once, and dropping this one waits and frees the directory.
    let other = crate::trainer::trainer(&NAMES, 0.0);
    assert_eq!(begin(&other).unwrap_err().kind(), Kind::State);
    step_all(&mut trainer, 3);
    begin(&trainer).unwrap();
    drop(trainer);
    assert_eq!(reader::open(&root).unwrap().step, 2);
    begin(&other).unwrap();
}
