//! The training loop as one call: equal to the loop by hand, the same bits after interruptions,
//! logs, early stopping, the rate finder.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mmopt::fit::tensorboard::{self, Event};
use mmopt::fit::{
    FindLearningRateOptions, FitEvent, FitOptions, FitProgress, FitResult, Metric, Phase,
    StopReason, find_learning_rate, fit, fit_with,
};
use mmopt::models::{Config, Sizes, Task};
use mmopt::optim::{self, LrSchedule, Mutual, Plateau, Teacher, Weighting};
use mmopt::text::{
    Corpus, Dataset, EncodeOptions, Loader, LoaderOptions, SyntheticOptions, Tokenizer,
    TokenizerStyle, TokenizerTrainOptions,
};
use mmopt::train::{ModelOptions, Source, TensorView, Trainer, TrainerOptions};
use mmopt::{Error, Kind};
use prost::Message as _;
use serde_json::Value;

struct World {
    models: Vec<ModelOptions>,
    datasets: Vec<Arc<Dataset>>,
    held_out: Vec<Arc<Dataset>>,
}

/// A BERT and a GPT-2 with dropout, their corpus, and one to evaluate on.
fn world() -> World {
    world_of(&corpus(18, 1))
}

fn corpus(n_sentences: usize, seed: u64) -> Corpus {
    Corpus::synthetic(&SyntheticOptions { n_sentences, seed, ..Default::default() }).unwrap()
}

fn world_of(train: &Corpus) -> World {
    let held_out = corpus(8, 2);
    let mut world = World { models: vec![], datasets: vec![], held_out: vec![] };
    let task = Task::SequenceClassification { num_labels: 2 };
    for (name, style) in [("bert", TokenizerStyle::Bert), ("gpt2", TokenizerStyle::Gpt2)] {
        let options = TokenizerTrainOptions {
            style,
            vocab_size: 300,
            min_frequency: 1,
            model_max_length: 32,
            ..Default::default()
        };
        let tokenizer = Tokenizer::train(&options, &train.texts().unwrap()).unwrap();
        let encode = EncodeOptions { max_length: Some(32), ..Default::default() };
        let dataset = |c: &Corpus| Arc::new(Dataset::encode(c, &tokenizer, &encode).unwrap());
        world.datasets.push(dataset(train));
        world.held_out.push(dataset(&held_out));
        let sizes = Sizes {
            vocab: tokenizer.vocab_size(),
            hidden: 16,
            layers: 1,
            heads: 2,
            intermediate: 16,
            positions: 32,
            dropout: 0.1,
        };
        let mut config = if name == "bert" { Config::bert(&sizes) } else { Config::gpt2(&sizes) };
        config.pad_token_id = Some(0);
        let source = Source::Config(Box::new(config));
        let options = ModelOptions { task: Some(task), ..ModelOptions::new(name, source) };
        world.models.push(ModelOptions { seed: 7, ..options });
    }
    world
}

impl World {
    /// The default preset with gated sharing, which teaches too, and running means, over two
    /// micro-batches a step.
    fn options() -> optim::Options {
        optim::Options {
            learning_rate: 3e-3,
            gradient_accumulation_steps: 2,
            metrics_every: 2,
            share_rule: optim::ShareRule::Gated,
            lr_schedule: LrSchedule::Plateau,
            plateau: Plateau { factor: 0.5, patience: 0, threshold: 0.5 },
            weighting: Weighting::Validation,
            ema_decay: Some(0.99),
            n_threads: 1,
            ..optim::Options::default()
        }
    }

    fn trainer(&self, optimizer: optim::Options) -> Trainer {
        let options = TrainerOptions { optimizer, ..TrainerOptions::default() };
        Trainer::new(options, self.models.clone()).unwrap()
    }

    fn loader(&self) -> Loader {
        let walk = LoaderOptions { batch_size: 4, pad_to_multiple_of: 32, ..Default::default() };
        Loader::new(self.datasets.clone(), walk).unwrap()
    }

    fn evaluation(&self) -> Loader {
        let walk = LoaderOptions { pad_to_multiple_of: 32, ..LoaderOptions::evaluation(4) };
        Loader::new(self.held_out.clone(), walk).unwrap()
    }
}

fn go_on(_: &FitProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn bits(trainer: &Trainer) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for model in 0..trainer.n_models() {
        let names: Vec<String> =
            trainer.parameters(model).unwrap().map(|p| p.name.to_owned()).collect();
        for name in names {
            all.push(trainer.parameter(model, &name).unwrap().bytes().to_vec());
            let mean = trainer.ema_parameter(model, &name).unwrap();
            all.push(mean.map_or(vec![], |mean| mean.bytes().to_vec()));
        }
    }
    all.extend(trainer.optimizer().state_tensors().iter().map(|t| t.bytes.to_vec()));
    all.push(trainer.optimizer().state_json().unwrap().to_string().into_bytes());
    all
}

fn full_options(dir: &Path) -> FitOptions {
    FitOptions {
        epochs: 2,
        evaluate_every: 2,
        keep_best: true,
        checkpoint_dir: Some(dir.join("checkpoints")),
        checkpoint_every: 2,
        resume: true,
        jsonl_path: Some(dir.join("log.jsonl")),
        csv_path: Some(dir.join("log.csv")),
        tensorboard_dir: Some(dir.join("events")),
        histogram_every: 3,
        sharing_images: true,
        ..FitOptions::default()
    }
}

/// Keys and columns that differ from run to run.
const CLOCK: [&str; 6] = [
    "time",
    "seconds",
    "examples_per_second",
    "tokens_per_second",
    "peak_memory_bytes",
    "wall_time",
];

fn json_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn without_clock(mut value: Value) -> Value {
    CLOCK.iter().for_each(|key| {
        value.as_object_mut().unwrap().remove(*key);
    });
    value
}

fn csv_rows(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut rows = text.lines().map(|l| l.split(',').map(str::to_owned).collect::<Vec<_>>());
    let header = rows.next().unwrap();
    let kept: Vec<usize> =
        (0..header.len()).filter(|&i| !CLOCK.contains(&header[i].as_str())).collect();
    std::iter::once(header.clone())
        .chain(rows)
        .map(|row| kept.iter().map(|&i| row[i].clone()).collect())
        .collect()
}

fn events(dir: &Path) -> Vec<Event> {
    let file = std::fs::read(dir.join("events").join(tensorboard::FILE_NAME)).unwrap();
    let records = tensorboard::read_records(&file).unwrap();
    let event = |record: &&[u8]| {
        let mut event = Event::decode(*record).unwrap();
        event.wall_time = 0.0;
        if let Some(summary) = &mut event.summary {
            summary.value.retain(|v| !CLOCK.contains(&v.tag.as_str()));
        }
        event
    };
    records.iter().map(event).collect()
}

/// The files of the last checkpoint, without the lengths of logs.
fn checkpoint(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let root = dir.join("checkpoints");
    let all = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let is_one = |path: &PathBuf| path.join("manifest.json").exists();
    let files = std::fs::read_dir(all.filter(is_one).max().unwrap()).unwrap();
    let mut all: BTreeMap<String, Vec<u8>> = files
        .map(|f| f.unwrap())
        .map(|f| (f.file_name().into_string().unwrap(), std::fs::read(f.path()).unwrap()))
        .collect();
    all.remove("manifest.json");
    let mut header: Value = serde_json::from_slice(&all["trainer.json"]).unwrap();
    let mut fit: Value = serde_json::from_str(header["user"].as_str().unwrap()).unwrap();
    fit["logs"].take();
    header["user"] = fit;
    all.insert("trainer.json".into(), header.to_string().into_bytes());
    all
}

/// A fit that is ended after event `n` of this call.
fn cancelled_at(world: &World, trainer: &mut Trainer, dir: &Path, n: usize) -> FitResult {
    let mut seen = 0;
    let mut progress = |_: &FitProgress| {
        seen += 1;
        if seen == n { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let evaluation = world.evaluation();
    let options = full_options(dir);
    fit(trainer, &mut world.loader(), &[&evaluation], &options, &mut progress).unwrap()
}

#[test]
fn interrupted_anywhere_and_resumed_it_is_the_same_fit() {
    let world = world();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [whole, parts] = [dirs[0].path(), dirs[1].path()];
    let mut trainer = world.trainer(World::options());
    assert!(trainer.mutual_text().contains("online"), "{}", trainer.mutual_text());
    let expected = cancelled_at(&world, &mut trainer, whole, usize::MAX);
    // Five micro-batches an epoch are three steps; evaluations after steps 2, 3, 4 and 6.
    assert_eq!((expected.steps, expected.epochs), (6, 2));
    assert_eq!(expected.reason, StopReason::Epochs);
    assert!(expected.restored_best && expected.models.iter().all(|m| m.score.is_some()));

    let mut other = world.trainer(World::options());
    // After step 1; before its evaluation, after step 2; after the evaluation of step 2.
    for (n, steps) in [(1, 1), (1, 2), (1, 2)] {
        let result = cancelled_at(&world, &mut other, parts, n);
        assert_eq!((result.steps, result.reason), (steps, StopReason::Cancelled));
        assert!(!result.restored_best);
    }
    // Killed in the pass after step 4, and then in the evaluation of step 6.
    let mut killed = |phase: Phase, at_step: u64| {
        let proceed = |now: Phase, _: Option<usize>, step: u64| match now == phase {
            true if step == at_step => Err(Error::new(Kind::Cancelled, "killed")),
            _ => Ok(()),
        };
        let (mut loader, evaluation) = (world.loader(), world.evaluation());
        let options = full_options(parts);
        let evaluation = [&evaluation];
        let done = fit_with(&mut other, &mut loader, &evaluation, &options, &mut go_on, &proceed);
        assert!(done.unwrap_err().message().ends_with("killed"));
    };
    killed(Phase::Step, 4);
    killed(Phase::Evaluate, 6);
    drop(other);
    let mut last = world.trainer(World::options());
    let result = cancelled_at(&world, &mut last, parts, usize::MAX);
    assert_eq!(result, expected);
    assert!(bits(&last) == bits(&trainer), "weights, means, moments and counters");
    let (a, b) = (checkpoint(parts), checkpoint(whole));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    a.iter().for_each(|(name, bytes)| assert!(*bytes == b[name], "{name}"));
    // Nothing is logged twice, and nothing is lost.
    let lines = |dir: &Path| json_lines(&dir.join("log.jsonl"));
    let lines = |dir: &Path| lines(dir).into_iter().map(without_clock).collect::<Vec<_>>();
    assert_eq!(lines(parts), lines(whole));
    assert_eq!(csv_rows(&parts.join("log.csv")), csv_rows(&whole.join("log.csv")));
    assert_eq!(events(parts), events(whole));
    assert_eq!(lines(whole).iter().filter(|l| l["type"] == "step").count(), 6);
    // A fit that is over is over.
    let again = cancelled_at(&world, &mut last, parts, usize::MAX);
    assert_eq!(again, expected);
    assert!(bits(&last) == bits(&trainer));
    assert_eq!(lines(parts), lines(whole));
}

#[test]
fn it_is_the_loop_by_hand() {
    let world = world();
    let options = optim::Options { gradient_accumulation_steps: 1, ..World::options() };
    let (mut by_hand, mut loader) = (world.trainer(options.clone()), world.loader());
    let evaluation = world.evaluation();
    let mut losses = Vec::new();
    for _ in 0..2 {
        while let Some(batches) = loader.next_batches().unwrap() {
            let views: Vec<Vec<TensorView>> = batches
                .iter()
                .map(|b| b.tensors.iter().map(|(n, t)| TensorView::of(n, t)).collect())
                .collect();
            let views: Vec<_> = views.iter().map(Vec::as_slice).collect();
            let results = by_hand.forward_backward_all(&views).unwrap();
            by_hand.step().unwrap();
            losses.push(results.iter().map(|r| r.loss).collect::<Vec<_>>());
        }
        let scores: Vec<f64> = (0..2)
            .map(|m| {
                let options = mmopt::tasks::EvaluateOptions::default();
                mmopt::tasks::evaluate(&mut by_hand, m, &evaluation, &options).unwrap().score()
            })
            .collect();
        by_hand.optimizer_mut().report_validation(&scores).unwrap();
    }
    let mut trainer = world.trainer(options);
    let mut told = Vec::new();
    let mut progress = |p: &FitProgress| {
        if p.event == FitEvent::Step {
            told.push(p.losses.to_vec());
        }
        ControlFlow::Continue(())
    };
    let how = FitOptions { epochs: 2, ..FitOptions::default() };
    let mut loader = world.loader();
    let result = fit(&mut trainer, &mut loader, &[&evaluation], &how, &mut progress).unwrap();
    assert_eq!((result.steps, result.reason), (10, StopReason::Epochs));
    assert_eq!(told, losses);
    assert!(bits(&trainer) == bits(&by_hand));
    assert_eq!((loader.epoch(), loader.position()), (2, 0));
    // With one loader for each model it goes on from where it stands.
    let of = |m: usize| {
        let walk = LoaderOptions { pad_to_multiple_of: 32, ..LoaderOptions::evaluation(4) };
        Loader::new(vec![world.held_out[m].clone()], walk).unwrap()
    };
    let (first, second) = (of(0), of(1));
    let how = FitOptions {
        epochs: 0,
        max_steps: 7,
        metric: Metric::Loss,
        monitor: Some("gpt2".into()),
        patience: 1,
        min_delta: 100.0,
        ..FitOptions::default()
    };
    let loaders = [&first, &second];
    let result = fit(&mut trainer, &mut loader, &loaders, &how, &mut go_on).unwrap();
    // The first evaluation, after 5 steps, is the best; the second is not better by 100.
    assert_eq!((result.steps, result.reason), (7, StopReason::EarlyStopping));
    assert_eq!(result.monitored.step, 15);
    assert!(result.monitored.score.unwrap() > 0.1 && !result.restored_best);
}

/// Sentences without labels have no loss: it is left out of the logs and of a search for a rate.
#[test]
fn steps_without_labels_have_no_loss() {
    let texts = corpus(18, 1).texts().unwrap();
    let world = world_of(&Corpus::from_texts(texts, &[], None).unwrap());
    let (mut trainer, mut loader) = (world.trainer(World::options()), world.loader());
    let find = FindLearningRateOptions { n_steps: 3, ..Default::default() };
    let curve = find_learning_rate(&mut trainer, &mut loader, &find).unwrap();
    assert_eq!((curve.rates.len(), curve.suggestion), (0, None));
    let dir = tempfile::tempdir().unwrap();
    let (how, evaluation) = (full_options(dir.path()), world.evaluation());
    fit(&mut trainer, &mut loader, &[&evaluation], &how, &mut go_on).unwrap();
    let steps = trainer.optimizer().step_count() as usize;
    assert!(steps > 0);
    let lines = json_lines(&dir.path().join("log.jsonl"));
    let of_steps: Vec<&Value> = lines.iter().filter(|l| l["type"] == "step").collect();
    assert_eq!(of_steps.len(), steps);
    for model in of_steps.iter().flat_map(|l| l["models"].as_array().unwrap()) {
        assert!(model["loss"].is_null() && model["mutual_loss"].is_number(), "{model}");
    }
    let rows = csv_rows(&dir.path().join("log.csv"));
    let (header, rows) = rows.split_first().unwrap();
    let column = header.iter().position(|name| name == "loss").unwrap();
    let of_steps: Vec<_> = rows.iter().filter(|row| row[0] == "step").collect();
    assert!(of_steps.len() == 2 * steps && of_steps.iter().all(|row| row[column].is_empty()));
    let values = events(dir.path()).into_iter().filter_map(|e| e.summary).flat_map(|s| s.value);
    let tags: Vec<String> = values.map(|value| value.tag).collect();
    let has = |tag: &str| tags.iter().any(|t| t == tag);
    assert!(has("mutual_loss/bert") && !has("loss/bert"), "{tags:?}");
}

#[test]
fn the_rate_finder_puts_everything_back() {
    let world = world();
    let memory = Mutual { teacher: Teacher::Memory, ..Mutual::default() };
    let options = optim::Options {
        mutual: Some(memory),
        ema_decay: Some(0.9),
        lr_schedule: LrSchedule::Constant,
        ..World::options()
    };
    let (mut trainer, mut other) = (world.trainer(options.clone()), world.trainer(options));
    let (mut loader, mut beside) = (world.loader(), world.loader());
    let how = FitOptions { epochs: 0, max_steps: 2, ..FitOptions::default() };
    let find = FindLearningRateOptions {
        min_lr: 1e-6,
        max_lr: 10.0,
        n_steps: 9,
        smoothing: 0.0,
        divergence: 1e9,
    };
    // Before the first pass, and with moments and means.
    for round in 0..2 {
        let (before, place) = (bits(&trainer), loader.state());
        let rates = trainer.optimizer().rates(0).unwrap();
        let curve = find_learning_rate(&mut trainer, &mut loader, &find).unwrap();
        assert_eq!(curve.losses.len(), 2);
        assert!(curve.rates.len() > 4 && curve.losses[1].len() == curve.rates.len());
        assert!((curve.rates[1] / curve.rates[0] / 10f64.powf(7.0 / 8.0) - 1.0).abs() < 1e-9);
        let named = |rate: &f64| curve.rates.contains(rate);
        assert!(curve.suggestion.iter().chain(curve.suggestions.iter().flatten()).all(named));
        if round > 0 {
            assert!(bits(&trainer) == before, "round {round}");
        }
        assert_eq!(loader.state(), place);
        assert_eq!(trainer.optimizer().rates(0).unwrap(), rates);
        fit(&mut trainer, &mut loader, &[], &how, &mut go_on).unwrap();
        fit(&mut other, &mut beside, &[], &how, &mut go_on).unwrap();
        assert!(bits(&trainer) == bits(&other), "round {round}");
    }
    let bad = FindLearningRateOptions { min_lr: 2.0, max_lr: 1.0, ..find };
    let e = find_learning_rate(&mut trainer, &mut loader, &bad).unwrap_err();
    assert!(e.message().contains("min_lr 2"), "{e}");
}

#[test]
fn what_cannot_be_is_refused() {
    let world = world();
    let dir = tempfile::tempdir().unwrap();
    let mut trainer = world.trainer(World::options());
    let (mut loader, evaluation) = (world.loader(), world.evaluation());
    let one = {
        let walk = LoaderOptions::evaluation(4);
        Loader::new(vec![world.held_out[0].clone()], walk).unwrap()
    };
    let checkpoints = Some(dir.path().join("checkpoints"));
    type Set = fn(&mut FitOptions);
    let cases: [(&[&Loader], Set, &str); 9] = [
        (&[], |o| o.epochs = 0, "epochs and max_steps are both 0"),
        (&[], |o| o.patience = 1, "patience is set, but no evaluation loaders"),
        (&[], |o| o.keep_best = true, "keep_best is set, but no evaluation loaders"),
        (&[], |o| o.checkpoint_every = 1, "checkpoint_every is set, but no checkpoint_dir"),
        (&[], |o| o.histogram_every = 1, "histogram_every is set, but no tensorboard_dir"),
        (&[], |o| o.log_every = 0, "log_every is 0"),
        (&[], |o| o.min_delta = f64::NAN, "min_delta NaN"),
        (&[&evaluation], |o| o.monitor = Some("t5".into()), "no model 't5'"),
        (&[&one], |_| (), "evaluation loader 0 is for 1 model,"),
    ];
    for (loaders, set, text) in cases {
        let mut how = FitOptions::default();
        set(&mut how);
        let e = fit(&mut trainer, &mut loader, loaders, &how, &mut go_on).unwrap_err();
        assert!(e.message().contains(text), "{e}");
    }
    assert_eq!(trainer.optimizer().step_count(), 0);
    // A checkpoint that no fit wrote, and one of a fit with another metric.
    let how = FitOptions {
        epochs: 0,
        max_steps: 1,
        checkpoint_dir: checkpoints.clone(),
        jsonl_path: Some(dir.path().join("log.jsonl")),
        resume: true,
        ..FitOptions::default()
    };
    trainer.checkpoint(checkpoints.as_deref().unwrap(), "the host's").unwrap();
    let e = fit(&mut trainer, &mut loader, &[], &how, &mut go_on).unwrap_err();
    assert!(e.message().contains("was not written by a fit"), "{e}");
    fit(&mut trainer, &mut loader, &[], &FitOptions { resume: false, ..how.clone() }, &mut go_on)
        .unwrap();
    let place = loader.state();
    let other = FitOptions { metric: Metric::Loss, ..how.clone() };
    let e = fit(&mut trainer, &mut loader, &[], &other, &mut go_on).unwrap_err();
    assert!(e.message().contains("metric is loss, but the fit to be resumed"), "{e}");
    std::fs::write(dir.path().join("log.jsonl"), "").unwrap();
    let e = fit(&mut trainer, &mut loader, &[], &how, &mut go_on).unwrap_err();
    assert!(e.message().contains("log.jsonl: 0 bytes, but it had"), "{e}");
    assert_eq!((loader.state(), trainer.optimizer().step_count()), (place, 1));
}

/// What Python's tensorboard makes of an event file: scalars, histograms, images.
const READER: &str = r#"
import sys, struct, zlib
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
log = EventAccumulator(sys.argv[1], size_guidance={"images": 0, "scalars": 0, "histograms": 0})
log.Reload()
print([(e.step, e.value) for e in log.Scalars("loss/a")])
h = log.Histograms("weights/a")[0].histogram_value
print(h.num, h.min, h.max, sum(h.bucket), len(h.bucket) == len(h.bucket_limit))
image = log.Images("cosine")[0]
data, at, pixels = image.encoded_image_string, 8, b""
while at < len(data):
    n, kind = struct.unpack(">I4s", data[at:at + 8])
    body = data[at + 8:at + 8 + n]
    assert struct.unpack(">I", data[at + 8 + n:at + 12 + n])[0] == zlib.crc32(kind + body)
    pixels += body if kind == b"IDAT" else b""
    at += 12 + n
pixels = zlib.decompress(pixels)
print(image.width, image.height, len(pixels), list(pixels[1:4]), list(pixels[574:577]))
"#;

#[test]
fn tensorboard_reads_the_events() {
    let weights = tensorboard::Histogram::of([-1.0, 0.5, 0.5, 0.0]);
    let file = [
        tensorboard::header(1.0),
        tensorboard::event(2.0, 1, vec![tensorboard::scalar("loss/a", 0.5)]),
        tensorboard::event(
            3.0,
            2,
            vec![
                tensorboard::scalar("loss/a", 0.25),
                tensorboard::histogram("weights/a", &weights),
                tensorboard::matrix_image("cosine", &[1.0, -1.0, 0.0, 1.0], 2),
            ],
        ),
    ]
    .concat();
    let records = tensorboard::read_records(&file).unwrap();
    let events: Vec<Event> = records.iter().map(|r| Event::decode(*r).unwrap()).collect();
    assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
    let summary = events[2].summary.as_ref().unwrap();
    assert_eq!((events[2].step, summary.value[0].simple_value), (2, Some(0.25)));
    let image = summary.value[2].image.as_ref().unwrap();
    assert!(image.width == 192 && image.encoded_image_string.starts_with(b"\x89PNG"));

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(tensorboard::FILE_NAME), file).unwrap();
    let python = std::env::var("MMOPT_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let run =
        |arguments: &[&str]| std::process::Command::new(&python).args(arguments).output().ok();
    if !run(&["-c", "import tensorboard"]).is_some_and(|o| o.status.success()) {
        println!("not run: no Python with tensorboard (MMOPT_TEST_PYTHON names one)");
        return;
    }
    let output = run(&["-c", READER, dir.path().to_str().unwrap()]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "[(1, 0.5), (2, 0.25)]",
            "4.0 -1.0 0.5 4.0 True",
            "192 192 110784 [255, 0, 0] [0, 0, 255]",
        ],
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
