//! Mutual learning of small published models with dropout, and from text files to steps.

use std::path::Path;
use std::sync::Arc;

use mmopt::models::{Config, Sizes, Task};
use mmopt::optim::{self, Mutual, Teacher};
use mmopt::text::{
    Answer, Corpus, Dataset, EncodeOptions, Example, LabelMap, Loader, LoaderOptions, TextTask,
    Tokenizer, TokenizerStyle, TokenizerTrainOptions,
};
use mmopt::train::{ModelOptions, Source, TensorView, TrainResult, Trainer, TrainerOptions};

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
