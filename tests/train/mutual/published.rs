//! Mutual learning of small published models with dropout, and from text files to steps.

use std::path::Path;
use std::sync::{Arc, Mutex};

use mmopt::Kind;
use mmopt::models::{Config, Sizes, Task};
use mmopt::optim::{self, Mutual, Teacher};
use mmopt::text::{
    Answer, Corpus, Dataset, EncodeOptions, Example, LabelMap, Loader, LoaderOptions, TextTask,
    Tokenizer, TokenizerStyle, TokenizerTrainOptions,
};
use mmopt::train::{Level, ModelOptions, Source, TensorView, TrainResult, Trainer, TrainerOptions};

const STYLES: [TokenizerStyle; 2] = [TokenizerStyle::Bert, TokenizerStyle::Gpt2];

fn model(style: TokenizerStyle, vocab: usize, task: Task) -> ModelOptions {
    let sizes = Sizes {
        vocab,
        hidden: 16,
        layers: 1,
        heads: 2,
        intermediate: 16,
        positions: 64,
        dropout: 0.1,
    };
    let (name, config) = match style {
        TokenizerStyle::Bert => ("bert", Config::bert(&sizes)),
        _ => ("gpt2", Config::gpt2(&sizes)),
    };
    let source = Source::Config(Box::new(config));
    ModelOptions { task: Some(task), seed: 7, ..ModelOptions::new(name, source) }
}

/// Two models of different tokenizers and a loader over one corpus.
fn pair(corpus: &Corpus, task: Task, mutual: Mutual) -> (Trainer, Loader) {
    pair_with(corpus, task, mutual, None)
}

/// The first of them loaded from a directory.
fn pair_with(
    corpus: &Corpus,
    task: Task,
    mutual: Mutual,
    loaded: Option<&Path>,
) -> (Trainer, Loader) {
    let mut models = Vec::new();
    let mut datasets = Vec::new();
    for style in STYLES {
        let vocab_size = 300;
        let options =
            TokenizerTrainOptions { style, vocab_size, min_frequency: 1, ..Default::default() };
        let tokenizer = Tokenizer::train(&options, &corpus.texts().unwrap()).unwrap();
        models.push(model(style, tokenizer.vocab_size(), task));
        let options = EncodeOptions { max_length: Some(48), ..Default::default() };
        datasets.push(Arc::new(Dataset::encode(corpus, &tokenizer, &options).unwrap()));
    }
    if let Some(dir) = loaded {
        models[0] = ModelOptions::new("bert", Source::Directory(dir.to_owned()));
    }
    let optimizer = optim::Options {
        learning_rate: 3e-3,
        mutual: Some(mutual),
        n_threads: 1,
        ..optim::Options::adamw()
    };
    let options = TrainerOptions { optimizer, ..TrainerOptions::default() };
    let walk = LoaderOptions { batch_size: 8, pad_to_multiple_of: 16, ..LoaderOptions::default() };
    (Trainer::new(options, models).unwrap(), Loader::new(datasets, walk).unwrap())
}

/// A trainer of models with these names and classes, and what it warned of.
fn with_labels(
    mutual: Mutual,
    models: &[(&str, &[&str])],
    change: impl Fn(&mut ModelOptions),
) -> mmopt::Result<(Trainer, Vec<String>)> {
    let model = |(i, (name, labels)): (usize, &(&str, &[&str]))| {
        let task = Task::SequenceClassification { num_labels: labels.len() };
        let mut model = model(TokenizerStyle::Bert, 20, task);
        model.name = (*name).to_owned();
        model.seed = i as u64;
        model.label_names = labels.iter().map(|l| (*l).to_owned()).collect();
        change(&mut model);
        model
    };
    let optimizer =
        optim::Options { mutual: Some(mutual), n_threads: 1, ..optim::Options::adamw() };
    let options = TrainerOptions { optimizer, ..TrainerOptions::default() };
    let mut trainer = Trainer::new(options, models.iter().enumerate().map(model).collect())?;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let into = heard.clone();
    let sink = move |_: Level, text: &str| into.lock().unwrap().push(text.to_owned());
    trainer.set_log(Some((Level::Warning, Box::new(sink))));
    trainer.set_log(None);
    let heard = heard.lock().unwrap().clone();
    Ok((trainer, heard))
}

/// A probability is of a class by its position.
#[test]
fn classes_that_are_not_the_same_are_told() {
    let mutual = |required| Mutual { required, teacher: Teacher::Peers, ..Mutual::default() };
    let made = |required, models: &[(&str, &[&str])]| with_labels(mutual(required), models, |_| ());
    for required in [false, true] {
        let models: [(&str, &[&str]); 2] = [("a", &["no", "yes"]), ("b", &["yes", "no"])];
        let error = made(required, &models).unwrap_err();
        for part in ["'a' and 'b'", "another order", "class 0 is 'no' and 'yes'"] {
            assert!(error.message().contains(part), "no {part} in {error}");
        }
        // Whichever two of several they are.
        let models: [(&str, &[&str]); 3] =
            [("z", &["LABEL_0", "LABEL_1"]), ("a", &["no", "yes"]), ("b", &["yes", "no"])];
        assert!(made(required, &models).unwrap_err().message().contains("'a' and 'b' have"));
        // Names that a file without any has say nothing.
        let models: [(&str, &[&str]); 2] = [("a", &["no", "yes"]), ("b", &["LABEL_0", "LABEL_1"])];
        assert_eq!(made(required, &models).unwrap().1, [""; 0]);
        let models: [(&str, &[&str]); 2] = [("a", &["no", "yes"]), ("b", &["false", "true"])];
        let told = "models 'a' and 'b' name class 0 'no' and 'false'; they learn from each other by \
                    position";
        assert_eq!(made(required, &models).unwrap().1, [told]);
    }
    let models: [(&str, &[&str]); 3] =
        [("a", &["no", "yes"]), ("b", &["no", "yes", "perhaps"]), ("c", &["no", "yes"])];
    let told = "models 'a' and 'b' cannot learn from each other: 2 and 3 classes";
    let error = made(true, &models).unwrap_err();
    assert!(error.kind() == Kind::Shape && error.message() == told, "{error}");
    let (trainer, heard) = made(false, &models).unwrap();
    assert!(heard[0] == told && trainer.plan_text().contains(told), "{heard:?}");
    let students = &trainer.plan_json()["students"];
    let teachers = |i: usize| students[i]["teachers"].to_string();
    assert_eq!([0, 1, 2].map(teachers), [r#"["c"]"#, "[]", r#"["a"]"#]);
    let plan = trainer.plan_text();
    assert!(plan.contains("  'a' learns from 'c', weight 1\n  'b' has no teacher\n"), "{plan}");
}

/// What learning from each other needs is looked for before the first pass.
#[test]
fn models_that_cannot_teach_are_told() {
    let one: [(&str, &[&str]); 1] = [("a", &["no", "yes"])];
    let two: [(&str, &[&str]); 2] = [("a", &["no", "yes"]), ("b", &["no", "yes"])];
    let mutual = |teacher| Mutual { teacher, ..Mutual::default() };
    let error = with_labels(mutual(Teacher::Online), &one, |_| ()).unwrap_err();
    assert!(error.message().contains("model 'a' is the only one"), "{error}");
    with_labels(mutual(Teacher::MeanTeacher), &one, |_| ()).unwrap();

    // A teacher whose head was not trained.
    let dir = tempfile::tempdir().unwrap();
    with_labels(mutual(Teacher::Peers), &two, |_| ()).unwrap().0.save_model(0, dir.path()).unwrap();
    let frozen = |fresh_head: bool| {
        let three = [two[0], two[1], ("c", two[0].1)];
        with_labels(mutual(Teacher::Frozen), &three, |model| {
            if model.name == "a" {
                model.source = Source::Directory(dir.path().to_owned());
                model.frozen = vec!["*".into()];
                model.fresh_head = fresh_head;
            }
        })
    };
    let (trainer, _) = frozen(false).unwrap();
    assert!(trainer.plan_text().contains("  'b' learns from 'a', weight 1\n"));
    let error = frozen(true).unwrap_err();
    let parts = ["model 'a' only teaches", "'classifier.weight' is newly initialised"];
    assert!(parts.iter().all(|part| error.message().contains(part)), "{error}");

    // Two that start equal have nothing to teach each other.
    let twins = |seed: Option<u64>| {
        let set = |m: &mut ModelOptions| m.seed = seed.unwrap_or(m.seed);
        with_labels(mutual(Teacher::Peers), &two, set).unwrap().1
    };
    assert!(twins(Some(5))[0].contains("models 'a' and 'b' are fresh, of equal architecture"));
    assert_eq!(twins(None), [""; 0]);
}

/// What the default preset says of a pretrained model among fresh ones.
#[test]
fn a_loaded_model_need_not_learn_from_fresh_ones() {
    let corpus = sentences(40);
    let task = Task::SequenceClassification { num_labels: 2 };
    let mutual = |fresh_teach_loaded| Mutual {
        teacher: Teacher::MeanTeacher,
        fresh_teach_loaded,
        ..Mutual::default()
    };
    let dir = tempfile::tempdir().unwrap();
    pair(&corpus, task, mutual(true)).0.save_model(0, dir.path()).unwrap();
    let losses = |fresh_teach_loaded, loaded| {
        let (mut trainer, mut loader) =
            pair_with(&corpus, task, mutual(fresh_teach_loaded), loaded);
        step(&mut trainer, &mut loader);
        step(&mut trainer, &mut loader).unwrap().iter().map(|r| r.mutual_loss).collect::<Vec<_>>()
    };
    let taught = losses(true, Some(dir.path()));
    assert!(taught[0] > 1e-6 && taught[1] > 1e-6, "{taught:?}");
    let spared = losses(false, Some(dir.path()));
    assert!(spared[0] == 0.0 && spared[1] > 1e-6, "{spared:?}");
    // Equals teach each other.
    assert_eq!(losses(false, None), losses(true, None));
}

fn step(trainer: &mut Trainer, loader: &mut Loader) -> Option<Vec<TrainResult>> {
    let batches = loader.next_batches().unwrap()?;
    let views: Vec<Vec<TensorView>> = batches
        .iter()
        .map(|b| b.tensors.iter().map(|(n, t)| TensorView::of(n, t)).collect())
        .collect();
    let views: Vec<_> = views.iter().map(Vec::as_slice).collect();
    let results = trainer.forward_backward_all(&views).unwrap();
    trainer.step().unwrap();
    Some(results)
}

/// Whether the sea is mentioned; labels for the first `labelled`.
fn sentences(labelled: usize) -> Corpus {
    let nouns = ["sea", "hill", "sea wind", "old hill"];
    let verbs = ["was calm", "lay there", "shone", "slept", "sang a song"];
    let text = |i: usize| format!("the {} {} today", nouns[i % 4], verbs[i / 4 % 5]);
    let texts: Vec<String> = (0..40).map(text).collect();
    let class = |i: usize| (if i.is_multiple_of(2) { "wet" } else { "dry" }).to_owned();
    let classes: Vec<String> = (0..labelled).map(class).collect();
    let first = Corpus::from_texts(texts[..labelled].to_vec(), &classes, None).unwrap();
    match labelled {
        40 => first,
        n => {
            first.concatenate(&Corpus::from_texts(texts[n..].to_vec(), &[], None).unwrap()).unwrap()
        }
    }
}

const SEQUENCE: Task = Task::SequenceClassification { num_labels: 2 };

#[test]
fn labelled_and_unlabelled_sentences_in_one_loader() {
    let options = Mutual { teacher: Teacher::MeanTeacher, ..Mutual::default() };
    let (mut trainer, mut loader) = pair(&sentences(12), SEQUENCE, options);
    let (mut labels, mut divergence) = (0, 0.0);
    for _ in 0..2 {
        while let Some(results) = step(&mut trainer, &mut loader) {
            labels += results[0].n_labels;
            divergence += results[0].mutual_loss;
            assert!(results.iter().all(|r| r.loss.is_finite() && r.mutual_loss > -1e-6));
        }
    }
    assert!(labels == 24 && divergence > 0.0, "{labels} labels, divergence {divergence}");
}

/// Tagged sentences and questions.
fn words_and_answers() -> [(Corpus, Task); 2] {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let labels = LabelMap::from_names(["O", "B-X"]).unwrap();
    let tagged = |i: usize| Example::Words {
        words: words(["the calm seaside", "hills sang songs today", "it slept"][i % 3]),
        tags: vec![0, 1, 0, 1][..[3, 4, 2][i % 3]].to_vec(),
    };
    let tagged = (0..16).map(tagged).collect();
    let tagged = Corpus::new(TextTask::TokenClassification, labels, tagged).unwrap();
    let context = "In 1907 the (old) town sang; the hills slept.";
    let question = |i: usize| {
        let answer = ["1907", "town", "hills"][i % 3];
        let start = context.find(answer).unwrap();
        Example::Question {
            id: String::new(),
            context: context.into(),
            question: ["when?", "who sang?", "what slept?"][i % 3].into(),
            answers: Some(vec![Answer { text: answer.into(), start }]),
        }
    };
    let questions = (0..16).map(question).collect();
    let asked = Corpus::new(TextTask::QuestionAnswering, LabelMap::default(), questions).unwrap();
    let tags = Task::TokenClassification { num_labels: 2 };
    [(tagged, tags), (asked, Task::QuestionAnswering)]
}

#[test]
fn words_align_taggers_and_readers() {
    for (corpus, task) in words_and_answers() {
        let teachers =
            [Teacher::PeersBefore, Teacher::Online, Teacher::MeanTeacher, Teacher::Memory];
        for teacher in teachers {
            let options = Mutual { teacher, ..Mutual::default() };
            let (mut trainer, mut loader) = pair(&corpus, task, options);
            let mut results = step(&mut trainer, &mut loader).unwrap();
            if teacher == Teacher::Memory {
                loader.set_epoch(0).unwrap();
                results = step(&mut trainer, &mut loader).unwrap();
            }
            let taught = results.iter().filter(|r| r.mutual_loss > 1e-6).count();
            let expected = if teacher == Teacher::PeersBefore { 1 } else { 2 };
            assert_eq!(taught, expected, "{task:?} {teacher:?} {results:?}");
        }
    }
}

fn weights(trainer: &Trainer) -> Vec<u8> {
    let of = |m: usize| {
        let parameters = trainer.parameters(m).unwrap();
        let bytes = parameters.map(|p| trainer.parameter(m, p.name).unwrap().bytes().to_vec());
        bytes.flatten().collect::<Vec<u8>>()
    };
    (0..trainer.n_models()).flat_map(of).collect()
}

/// Trains, writes a checkpoint, trains on; another trainer goes on from there.
fn check_resume(corpus: &Corpus, task: Task, options: &Mutual) {
    let dir = tempfile::tempdir().unwrap();
    let run = |steps: usize, trainer: &mut Trainer, loader: &mut Loader| {
        for _ in 0..steps {
            while step(trainer, loader).is_none() {}
        }
    };
    let of = |name: &str| Mutual {
        memory_file: options.memory_file.as_ref().map(|file| format!("{file}{name}")),
        ..options.clone()
    };
    let (mut one, mut loader) = pair(corpus, task, of("1"));
    run(7, &mut one, &mut loader);
    one.checkpoint(dir.path(), &loader.state_json().unwrap()).unwrap();
    run(6, &mut one, &mut loader);
    let (mut two, mut again) = pair(corpus, task, of("2"));
    run(2, &mut two, &mut again);
    again.restore_json(&two.resume(dir.path()).unwrap()).unwrap();
    run(6, &mut two, &mut again);
    assert!(weights(&one) == weights(&two), "{task:?} {options:?}");
}

#[test]
fn every_teacher_resumes_with_the_same_bits() {
    let of_this_step = [Teacher::PeersBefore, Teacher::Peers, Teacher::Online];
    for teacher in of_this_step.into_iter().chain([Teacher::MeanTeacher, Teacher::Memory]) {
        let options = Mutual { teacher, ramp_up_steps: 6, ..Mutual::default() };
        check_resume(&sentences(40), SEQUENCE, &options);
    }
}

#[test]
fn memories_of_words_resume_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("memory").display().to_string();
    for (corpus, task) in words_and_answers() {
        for memory_file in [None, Some(file.clone())] {
            let teacher = Teacher::Memory;
            let options = Mutual { teacher, memory_file, ..Mutual::default() };
            check_resume(&corpus, task, &options);
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "no file is left");
}
