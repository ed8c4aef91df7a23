//! Each large block of memory that a call asks for is refused once: the call fails with
//! `OutOfMemory`, nothing ends the process, and the same call then gives what it would have given.
//! At the end a trainer whose every call failed so has the bits of one that always had memory.
//!
//! *Large* are `LARGE` bytes and more: the sizes here are such that tensors, batches, tokens, files
//! and texts are, and what a graph or a plan consists of is not (see docs/lifecycle.md).
//!
//! Threads that cannot be started are no error where the caller's thread can do the work, else
//! `OutOfMemory` as well.
//!
//! `MMOPT_ALLOCATIONS=full` refuses every block; without it, of a call with many a part. `=list`
//! refuses none, and fails with a list of where the process would end. That takes minutes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mmopt::checkpoint::writer::Keep;
use mmopt::models::{Config, Sizes, Task};
use mmopt::optim::{Mutual, Options, Precision, Teacher};
use mmopt::text::{
    Batch, Corpus, CorpusOptions, Dataset, EncodeOptions, Loader, LoaderOptions, SplitOptions,
    SyntheticOptions, Tokenizer, TokenizerStyle, TokenizerTrainOptions,
};
use mmopt::train::{ModelOptions, Source, TensorView, Trainer, TrainerOptions};
use mmopt::{Kind, Result};

const LARGE: usize = 64 << 10;
/// Blocks that are refused of one call.
const SOME: usize = 6;

struct Refusing;

/// Blocks from so many bytes on are counted.
static FROM: AtomicUsize = AtomicUsize::new(usize::MAX);
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// The block that is refused; 0 for none.
static REFUSED: AtomicUsize = AtomicUsize::new(0);
/// Whether the callers of blocks are looked at.
static EVERY: AtomicBool = AtomicBool::new(false);
static FATAL: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

thread_local! {
    static LISTING: Cell<bool> = const { Cell::new(false) };
}

fn refuses(size: usize) -> bool {
    if size < FROM.load(Ordering::Relaxed) || LISTING.get() {
        return false;
    }
    let refused = COUNT.fetch_add(1, Ordering::Relaxed) + 1 == REFUSED.load(Ordering::Relaxed);
    if EVERY.load(Ordering::Relaxed) {
        LISTING.set(true);
        note_fatal(size);
        LISTING.set(false);
    }
    refused
}

/// Notes the callers of a function that ends the process where there is no memory.
fn note_fatal(size: usize) {
    let trace = Backtrace::force_capture().to_string();
    if ["try_reserve", "try_zeroed_vec", "std::fs::read"].iter().any(|name| trace.contains(name)) {
        return;
    }
    let names = trace.lines().filter_map(|l| l.trim().split_once(": ").map(|(_, name)| name));
    let ours = names.filter(|name| name.contains("mmopt::") || name.contains("out_of_memory::"));
    let ours: Vec<&str> = ours.take(4).collect();
    let text = format!("{size} bytes in {}", ours.join(" < "));
    FATAL.lock().unwrap().insert(text);
}

// SAFETY: forwards to the system's allocator, or gives nothing.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if refuses(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if refuses(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > layout.size() && refuses(size) {
            return std::ptr::null_mut();
        }
        // SAFETY: as the caller promises.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

/// Calls, and returns the number of large blocks; block `refused` is refused.
fn counted<T>(refused: usize, call: impl FnOnce() -> T) -> (T, usize) {
    COUNT.store(0, Ordering::Relaxed);
    REFUSED.store(refused, Ordering::Relaxed);
    FROM.store(LARGE, Ordering::Relaxed);
    let done = catch_unwind(AssertUnwindSafe(call));
    FROM.store(usize::MAX, Ordering::Relaxed);
    (done.expect("a call without memory panicked"), COUNT.load(Ordering::Relaxed))
}

/// Calls again and again, each time with another block refused, until it gets all.
fn check<T>(name: &str, mut call: impl FnMut() -> Result<T>) -> T {
    let mode = std::env::var("MMOPT_ALLOCATIONS").unwrap_or_default();
    if mode == "list" {
        EVERY.store(true, Ordering::Relaxed);
        let (done, n) = counted(0, call);
        EVERY.store(false, Ordering::Relaxed);
        println!("{name}: {n} large blocks");
        return done.unwrap();
    }
    let (mut next, mut n_failed, mut step) = (1, 0, 1);
    loop {
        let (done, n) = counted(next, &mut call);
        match done {
            Err(error) => {
                assert_eq!(error.kind(), Kind::OutOfMemory, "{name}, block {next}: {error}");
                assert!(n >= next, "{name}: out of memory, but no block was refused: {error}");
                n_failed += 1;
            }
            Ok(done) if n < next => {
                println!("{name}: {n_failed} calls failed, the last asked for {n} large blocks");
                return done;
            }
            Ok(_) => panic!("{name}: block {next} was refused, and the call succeeded"),
        }
        if mode != "full" && next >= SOME {
            step = step * 3 / 2 + 1;
        }
        next += step;
    }
}

fn models(vocab: usize) -> Vec<ModelOptions> {
    let sizes = Sizes {
        vocab,
        hidden: 128,
        layers: 1,
        heads: 4,
        intermediate: 256,
        positions: 128,
        dropout: 0.1,
    };
    let task = Some(Task::SequenceClassification { num_labels: 2 });
    let make = |name: &str, config: Config| {
        let source = Source::Config(Box::new(config));
        ModelOptions { task, seed: 7, ..ModelOptions::new(name, source) }
    };
    vec![make("bert", Config::bert(&sizes)), make("gpt2", Config::gpt2(&sizes))]
}

fn options(change: impl FnOnce(&mut Options)) -> TrainerOptions {
    let mut options = TrainerOptions::default();
    options.optimizer.n_threads = 2;
    options.optimizer.ema_decay = Some(0.9);
    change(&mut options.optimizer);
    options
}

fn views(batch: &Batch) -> Vec<TensorView<'_>> {
    batch.tensors.iter().map(|(name, tensor)| TensorView::of(name, tensor)).collect()
}

/// The files of a checkpoint: everything that training depends on.
fn state(trainer: &Trainer) -> Vec<(String, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    let path = trainer.checkpoint(dir.path(), "").unwrap();
    let mut all: Vec<(String, Vec<u8>)> = fs::read_dir(path)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| !path.ends_with("manifest.json"))
        .map(|path| {
            (path.to_string_lossy().rsplit('/').next().unwrap().into(), fs::read(&path).unwrap())
        })
        .collect();
    all.sort();
    all
}

/// From text files to batches.
fn text(dir: &Path) -> (usize, Vec<Vec<Batch>>) {
    let plain = Corpus::synthetic(&SyntheticOptions { n_sentences: 3000, ..Default::default() });
    let (mut tsv, mut csv, mut json) = ("text\tlabel\n".to_owned(), String::new(), String::new());
    let (mut conll, mut lines, mut squad) = (String::new(), String::new(), String::new());
    for (i, text) in plain.unwrap().texts().unwrap().iter().enumerate() {
        tsv += &format!("{text} {text} {text}\t{}\n", i % 2);
        csv += &format!("\"{text}\",{}\n", i % 2);
        json += &format!("{{\"text\": \"{text}\", \"label\": {}}}\n", i % 2);
        text.split(' ').for_each(|word| conll += &format!("{word}\tO\n"));
        conll += "\n";
        lines += &format!("{text}\n\n");
        squad += &format!(
            "{{\"context\": \"{text}\", \"question\": \"which?\", \"answers\": {{\"text\": [], \
             \"answer_start\": []}}}}\n"
        );
    }
    let file = |name: &str, content: &str| {
        fs::write(dir.join(name), content).unwrap();
        dir.join(name)
    };
    let d = CorpusOptions::default();
    let path = file("a.tsv", &tsv);
    let corpus = check("TSV", || Corpus::read_classification(&path, &d, None));
    let path = file("a.csv", &csv);
    check("CSV", || Corpus::read_classification(&path, &d, None));
    let path = file("a.jsonl", &json);
    check("JSON lines", || Corpus::read_classification(&path, &d, None));
    let array = format!("[{}]", json.trim_end().replace('\n', ","));
    let path = file("a.json", &array);
    check("JSON", || Corpus::read_classification(&path, &d, None));
    let path = file("a.conll", &conll);
    let tagged = check("CoNLL", || Corpus::read_token_classification(&path, None));
    check("words", || Corpus::read_words(&path));
    let path = file("a.txt", &lines);
    let by_line = mmopt::text::SampleBy::Line;
    check("lines", || Corpus::read_plain_text(&path, by_line));
    let paragraphs = mmopt::text::SampleBy::Paragraph;
    let plain = check("paragraphs", || Corpus::read_plain_text(&path, paragraphs));
    let path = file("q.jsonl", &squad);
    let asked = check("questions", || Corpus::read_question_answering(&path));

    check("split", || corpus.split(&SplitOptions::default()));
    check("sample", || corpus.sample(2000, 1));
    check("without labels", || corpus.without_labels());
    check("plain text", || corpus.plain_text());
    check("both", || corpus.concatenate(&corpus));
    let texts = check("texts", || corpus.texts());

    let options = TokenizerTrainOptions {
        style: TokenizerStyle::Bert,
        vocab_size: 1000,
        min_frequency: 1,
        model_max_length: 128,
        ..Default::default()
    };
    let tokenizer = check("tokenizer", || Tokenizer::train(&options, &texts));
    let encode = EncodeOptions { max_length: Some(128), ..Default::default() };
    let data = check("encode", || Dataset::encode(&corpus, &tokenizer, &encode));
    check("encode words", || Dataset::encode(&tagged, &tokenizer, &encode));
    check("encode text", || Dataset::encode(&plain, &tokenizer, &encode));
    check("encode questions", || Dataset::encode(&asked, &tokenizer, &encode));
    let data = Arc::new(data);
    let options = LoaderOptions { batch_size: 256, ..Default::default() };
    let all = vec![data.clone(), data.clone()];
    let mut loader = check("loader", || Loader::new(all.clone(), options.clone()));
    let saved = loader.state();
    let batches = (0..4).map(|_| check("batches", || loader.next_batches()).unwrap()).collect();
    check("epoch", || loader.set_epoch(3));
    check("restore", || loader.restore(&saved));
    (tokenizer.vocab_size(), batches)
}

/// Everything that a trainer does; the twin never lacks memory.
fn train(name: &str, dir: &Path, vocab: usize, batches: &[Vec<Batch>], change: fn(&mut Options)) {
    let mut one =
        check(&format!("{name}: create"), || Trainer::new(options(change), models(vocab)));
    let mut twin = Trainer::new(options(change), models(vocab)).unwrap();
    let root = dir.join(name);
    for (i, batch) in batches.iter().enumerate() {
        let views: Vec<_> = batch.iter().map(views).collect();
        let both = [views[0].as_slice(), views[1].as_slice()];
        let losses = |trainer: &mut Trainer| -> Result<Vec<f64>> {
            Ok(trainer.forward_backward_all(&both)?.iter().map(|r| r.loss).collect())
        };
        let found = check(&format!("{name}: pass"), || losses(&mut one));
        assert_eq!(found, losses(&mut twin).unwrap());
        check(&format!("{name}: evaluate"), || one.evaluate(0, both[0]).map(|e| e.loss));
        if i % 2 == 0 {
            continue;
        }
        check(&format!("{name}: step"), || one.step());
        twin.step().unwrap();
        check(&format!("{name}: checkpoint"), || one.checkpoint(&root, ""));
        check(&format!("{name}: checkpoint beside"), || {
            one.checkpoint_beside(&root, "", Keep::last(2))?;
            one.wait_for_checkpoint()
        });
        let mut fresh = Trainer::new(options(change), models(vocab)).unwrap();
        check(&format!("{name}: resume"), || fresh.resume(&root));
        assert!(state(&fresh) == state(&twin), "{name}: resumed to other bits");
        one = fresh;
    }
    check(&format!("{name}: snapshot"), || one.snapshot());
    check(&format!("{name}: frozen"), || one.optimizer_mut().set_trainable("*", "*", false));
    check(&format!("{name}: trained"), || one.optimizer_mut().set_trainable("*", "*", true));
    assert!(state(&one) == state(&twin), "{name}: other bits");
    let (folder, file) = (dir.join("model"), dir.join("model.onnx"));
    check(&format!("{name}: save"), || one.save_model(0, &folder));
    check(&format!("{name}: save as ONNX"), || one.save_onnx(0, &file));
    let load = |source: Source| Trainer::new(options(|_| {}), vec![ModelOptions::new("b", source)]);
    check(&format!("{name}: load"), || load(Source::Directory(folder.clone())));
}

/// For the allocator is the process's.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn every_large_block_may_be_refused() {
    let _alone = ALONE.lock();
    let dir = tempfile::tempdir().unwrap();
    let (vocab, batches) = text(dir.path());
    train("default", dir.path(), vocab, &batches, |_| {});
    train("accumulation", dir.path(), vocab, &batches, |o| {
        (o.mutual, o.gradient_accumulation_steps) = (None, 2);
    });
    train("memory", dir.path(), vocab, &batches[..2], |o| {
        o.mutual = Some(Mutual { teacher: Teacher::Memory, required: true, ..Mutual::default() });
    });
    train("Muon", dir.path(), vocab, &batches[..2], |o| {
        o.method = mmopt::optim::Method::Muon;
        o.ema_decay = None;
    });
    train("bf16", dir.path(), vocab, &batches[..2], |o| o.precision = Precision::Bf16);
    let fatal = std::mem::take(&mut *FATAL.lock().unwrap());
    assert!(fatal.is_empty(), "\n{}", fatal.into_iter().collect::<Vec<_>>().join("\n"));
}

/// Threads that this thread may still start before one is refused; `i64::MAX` for no end.
#[cfg(target_os = "linux")]
mod threads {
    use super::*;

    thread_local! {
        static LEFT: Cell<i64> = const { Cell::new(i64::MAX) };
    }

    type Start = extern "C" fn(*mut libc::c_void) -> *mut libc::c_void;
    type Create = unsafe extern "C" fn(
        *mut libc::pthread_t,
        *const libc::pthread_attr_t,
        Start,
        *mut libc::c_void,
    ) -> libc::c_int;

    /// Stands for the system's.
    ///
    /// # Safety
    /// As that.
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn pthread_create(
        thread: *mut libc::pthread_t,
        attributes: *const libc::pthread_attr_t,
        start: Start,
        argument: *mut libc::c_void,
    ) -> libc::c_int {
        LEFT.set(LEFT.get().saturating_sub(1));
        if LEFT.get() == -1 {
            return libc::EAGAIN;
        }
        // SAFETY: the system's function has this type; the caller's promise.
        unsafe {
            let real = libc::dlsym(libc::RTLD_NEXT, c"pthread_create".as_ptr());
            let real = std::mem::transmute::<*mut libc::c_void, Create>(real);
            real(thread, attributes, start, argument)
        }
    }

    /// Calls, each time with another thread refused; the last result. Returns how often it failed.
    fn check<T>(name: &str, mut call: impl FnMut() -> Result<T>) -> (T, usize) {
        let mut n_failed = 0;
        for n in 0.. {
            LEFT.set(n);
            let done = catch_unwind(AssertUnwindSafe(&mut call));
            let left = LEFT.replace(i64::MAX);
            match done.expect("a call without threads panicked") {
                Err(error) => {
                    assert_eq!(error.kind(), Kind::OutOfMemory, "{name}: {error}");
                    n_failed += 1;
                }
                Ok(done) if left >= 0 => {
                    println!("{name}: {n} threads, {n_failed} of them needed");
                    return (done, n_failed);
                }
                Ok(_) => {}
            }
        }
        unreachable!()
    }

    #[test]
    fn every_thread_may_be_refused() {
        let _alone = ALONE.lock();
        let corpus =
            Corpus::synthetic(&SyntheticOptions { n_sentences: 200, ..Default::default() });
        let corpus = corpus.unwrap();
        let options =
            TokenizerTrainOptions { vocab_size: 400, min_frequency: 1, ..Default::default() };
        let texts = corpus.texts().unwrap();
        let (tokenizer, n) = check("tokenizer", || Tokenizer::train(&options, &texts));
        assert!(n > 0, "a tokenizer is trained by threads");
        let encode = EncodeOptions { max_length: Some(32), ..Default::default() };
        let (data, n) = check("encode", || Dataset::encode(&corpus, &tokenizer, &encode));
        assert_eq!(n, 0);
        let data = Arc::new(data);
        let loader = LoaderOptions { batch_size: 8, ..Default::default() };
        let mut loader = Loader::new(vec![data.clone(), data], loader).unwrap();
        for teacher in [Teacher::MeanTeacher, Teacher::Online] {
            check_training(teacher, &mut loader, tokenizer.vocab_size());
        }
    }

    fn check_training(teacher: Teacher, loader: &mut Loader, vocab: usize) {
        let make = || Trainer::new(options_with(teacher), models(vocab));
        // The first loads the runtime, whose threads are not meant.
        let mut twin = make().unwrap();
        let (mut one, n) = check("create", make);
        assert!(n > 0, "a trainer has threads of its own");
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let batch = loader.next_batches().unwrap().unwrap();
            let views: Vec<_> = batch.iter().map(views).collect();
            let both = [views[0].as_slice(), views[1].as_slice()];
            // A pass that lacked a thread counts, and replaces the one before.
            let pass = |trainer: &mut Trainer| {
                trainer.zero_grad();
                trainer.forward_backward_all(&both).map(|r| r[0].loss)
            };
            let mut n_passes = 0;
            let (_, n) = check("pass", || {
                n_passes += 1;
                pass(&mut one)
            });
            // Passes that meet need a thread each, and without one of them nothing has happened.
            let n_done = n_passes - n;
            let are_needed = teacher == Teacher::Online;
            assert!(n_passes > 2 && (n > 0) == are_needed, "{n_passes} passes, {n} ended");
            (0..n_done).for_each(|_| assert!(pass(&mut twin).unwrap().is_finite()));
            twin.step().unwrap();
            LEFT.set(0);
            one.step().unwrap();
            let (_, n) = check("checkpoint beside", || {
                one.checkpoint_beside(dir.path(), "", Keep::last(1))?;
                one.wait_for_checkpoint()
            });
            assert_eq!(n, 0);
        }
        assert!(state(&one) == state(&twin), "{teacher:?}: other bits");
    }

    fn options_with(teacher: Teacher) -> TrainerOptions {
        options(|o| o.mutual.iter_mut().for_each(|m| m.teacher = teacher))
    }
}
