//! Damaged checkpoints of real training. Each truncation, flipped bit, lost, swapped or edited file
//! must give an older checkpoint or the documented error, and leave the trainer as it was.
//!
//! `MMOPT_DAMAGE=full` flips 10,000 bits and cuts at every byte of every header; without it a part
//! of that is done.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mmopt::Kind;
use mmopt::checkpoint::reader;
use mmopt::train::Trainer;
use serde_json::Value;

use crate::trainer::{model, pass_all, step_all, trainer_options};

const NAMES: [&str; 2] = ["bert", "gpt2"];

fn is_full() -> bool {
    std::env::var("MMOPT_DAMAGE").is_ok_and(|v| v == "full")
}

/// With dropout, running means and the memory teacher, so that a checkpoint has every kind of file.
fn small() -> Trainer {
    let mut options = trainer_options();
    options.optimizer.n_threads = 1;
    options.optimizer.ema_decay = Some(0.9);
    Trainer::new(options, NAMES.iter().map(|n| model(n, 0.1)).collect()).unwrap()
}

/// All files of a directory by name.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let name = |p: &Path| p.file_name().unwrap().to_str().unwrap().to_owned();
    let all = fs::read_dir(dir).unwrap().map(|f| f.unwrap().path());
    all.map(|p| (name(&p), fs::read(&p).unwrap())).collect()
}

/// Everything that a trainer's future depends on: the files of a checkpoint.
pub(crate) fn state(trainer: &Trainer) -> BTreeMap<String, Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let mut all = files(&trainer.checkpoint(dir.path(), "").unwrap());
    all.remove("manifest.json");
    all
}

/// Two checkpoints, the files of the newer, and its directory.
struct Newest {
    root: tempfile::TempDir,
    dir: PathBuf,
    files: BTreeMap<String, Vec<u8>>,
}

impl Newest {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut trainer = small();
        step_all(&mut trainer, 1);
        trainer.checkpoint(root.path(), "the host's").unwrap();
        step_all(&mut trainer, 2);
        let dir = trainer.checkpoint(root.path(), "the host's").unwrap();
        let files = files(&dir);
        assert!(files.len() >= 8, "{:?}", files.keys());
        Self { root, dir, files }
    }

    fn put_back(&self) {
        for (name, bytes) in &self.files {
            fs::write(self.dir.join(name), bytes).unwrap();
        }
    }

    /// What is there now falls back to the older one, or is what was written; alone, it is an error
    /// of the documented code.
    fn check(&self, what: &str, slowest: &mut Duration) {
        let started = Instant::now();
        let found = reader::open(self.root.path());
        *slowest = (*slowest).max(started.elapsed());
        // A flip may turn the version of the layout into a later one.
        let is_later =
            |e: &mmopt::Error| e.kind() == Kind::Unsupported && what.contains("manifest");
        let found = match found {
            Err(e) if is_later(&e) => return,
            found => found.unwrap_or_else(|e| panic!("{what}: {e}")),
        };
        if found.step == 2 {
            // Only another spelling of the same would be right.
            let same = |(name, bytes): (&String, &Vec<u8>)| {
                name == "manifest.json" || found.file(name).unwrap() == bytes.as_slice()
            };
            assert!(self.files.iter().all(same), "{what}: a wrong checkpoint was loaded");
            return;
        }
        assert_eq!((found.step, found.skipped.len()), (1, 1), "{what}");
        let started = Instant::now();
        let error = reader::open(&self.dir).unwrap_err();
        *slowest = (*slowest).max(started.elapsed());
        assert_eq!(error.kind(), Kind::InvalidData, "{what}: {error}");
    }
}

/// Bytes of a file's header: all of a text.
fn header_len(name: &str, bytes: &[u8]) -> usize {
    if !name.ends_with(".safetensors") {
        return bytes.len();
    }
    8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}

#[test]
fn every_truncation_and_flip_is_seen() {
    let newest = Newest::new();
    let (stride, n_flips) = if is_full() { (1, 10_000) } else { (199, 300) };
    let mut slowest = Duration::ZERO;
    let mut n_cuts = 0;
    for (name, bytes) in &newest.files {
        let header = header_len(name, bytes);
        let cuts = (0..header).step_by(stride).chain((header..bytes.len()).step_by(4096));
        for cut in cuts.filter(|&cut| cut < bytes.len()) {
            fs::write(newest.dir.join(name), &bytes[..cut]).unwrap();
            newest.check(&format!("{name} cut to {cut}"), &mut slowest);
            n_cuts += 1;
        }
        newest.put_back();
    }
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % n
    };
    for (name, bytes) in &newest.files {
        for _ in 0..n_flips / newest.files.len() + 1 {
            let (at, bit) = (random(bytes.len()), random(8));
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            fs::write(newest.dir.join(name), flipped).unwrap();
            newest.check(&format!("bit {bit} of byte {at} of {name}"), &mut slowest);
        }
        newest.put_back();
    }
    println!("{n_cuts} cuts, {n_flips} flips; the slowest took {slowest:?}");
    assert!(!is_full() || slowest < Duration::from_secs(1), "{slowest:?}");
}

#[test]
fn lost_swapped_and_foreign_files_are_seen() {
    let newest = Newest::new();
    let mut slowest = Duration::ZERO;
    let names: Vec<&String> = newest.files.keys().collect();
    let older = newest.root.path().join("step-00000001");
    for (i, name) in names.iter().enumerate() {
        let path = newest.dir.join(name);
        fs::remove_file(&path).unwrap();
        newest.check(&format!("{name} lost"), &mut slowest);
        fs::create_dir(&path).unwrap();
        newest.check(&format!("{name} a folder"), &mut slowest);
        fs::remove_dir(&path).unwrap();
        // Of the older checkpoint, or of another name.
        if fs::read(older.join(name)).unwrap() != newest.files[*name] {
            fs::copy(older.join(name), &path).unwrap();
            if *name != "manifest.json" {
                newest.check(&format!("{name} of the older checkpoint"), &mut slowest);
            }
        }
        let other = names[(i + 1) % names.len()];
        fs::write(&path, &newest.files[other]).unwrap();
        fs::write(newest.dir.join(other), &newest.files[*name]).unwrap();
        newest.check(&format!("{name} and {other} swapped"), &mut slowest);
        newest.put_back();
    }
    // A file that is not listed is not looked at.
    fs::write(newest.dir.join("foreign.json"), "x").unwrap();
    assert_eq!(reader::open(newest.root.path()).unwrap().step, 2);
}

/// Writes a manifest that vouches for the files as they are.
pub(crate) fn mend(dir: &Path) {
    let old: Value = serde_json::from_slice(&fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    let entry = |(name, bytes): (&String, &Vec<u8>)| {
        let (n, hash) = (bytes.len(), blake3::hash(bytes).to_hex());
        format!("    \"{name}\": {{\n      \"bytes\": {n},\n      \"blake3\": \"{hash}\"\n    }}")
    };
    let mut all = files(dir);
    all.remove("manifest.json");
    let bare = format!(
        "{{\n  \"format\": 2,\n  \"step\": {},\n  \"sequence\": {},\n  \"run\": {},\n  \"files\": \
         {{\n{}\n  }}",
        old["step"],
        old["sequence"],
        old["run"],
        all.iter().map(entry).collect::<Vec<_>>().join(",\n")
    );
    let hash = blake3::hash(format!("{bare}\n}}").as_bytes()).to_hex();
    fs::write(dir.join("manifest.json"), format!("{bare},\n  \"hash\": \"{hash}\"\n}}")).unwrap();
}

/// The value at a place of a JSON file becomes another.
pub(crate) fn edit(path: &Path, place: &str, value: &str) {
    let mut json: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let there = json.pointer_mut(place).unwrap_or_else(|| panic!("no {place}"));
    *there = serde_json::from_str(value).unwrap();
    fs::write(path, json.to_string()).unwrap();
}

/// A checkpoint that is whole by its checksums, and says what no training leaves behind.
#[test]
fn mended_edits_are_refused_and_change_nothing() {
    let newest = Newest::new();
    mend(&newest.dir);
    let mut trainer = small();
    step_all(&mut trainer, 7);
    let before = state(&trainer);
    {
        let mut fresh = small();
        fresh.resume(newest.root.path()).unwrap();
        assert_eq!(fresh.optimizer().step_count(), 2, "mending makes it whole");
    }
    let n = "9223372036854775808";
    let optimizer = [
        ("/calls", n),
        ("/calls", "100000000"),
        ("/ended", n),
        ("/ended", "3"),
        ("/step", n),
        ("/refused_syncs", n),
        ("/learning_rate", "\"NaN\""),
        ("/learning_rate", "\"-1\""),
        ("/learning_rate", "\"inf\""),
        ("/learning_rate", "1"),
        ("/plateau/0", "\"NaN\""),
        ("/plateau/0", "\"-1\""),
        ("/plateau/1", "\"inf\""),
        ("/losses", "[]"),
        ("/losses/0", "[\"NaN\"]"),
        ("/rates", "[]"),
        ("/rates/0/0", "\"NaN\""),
        ("/rates/0/1", "\"inf\""),
        ("/rates/1/1", "\"-0.5\""),
        ("/models", "[]"),
        ("/models/0/name", "\"other\""),
        ("/models/0/weight", "\"NaN\""),
        ("/models/0/weight", "\"-1\""),
        ("/models/0/base_weight", "\"inf\""),
        ("/models/1/weights", "\"NaN\""),
        ("/models/1/score", "\"NaN\""),
        ("/models/1/calls", n),
        ("/models/1/skipped", n),
        ("/models/1/params", "[]"),
        ("/models/0/params/0/steps", n),
        ("/models/0/params/0/steps", "-1"),
        ("/models/0/params/0/name", "\"other\""),
        ("/models/0/params/0/summed", "true"),
    ];
    let trainer_json = [
        ("/runs", "[]"),
        ("/runs", "[1, 2, 3]"),
        ("/runs/0", "18446744073709551615"),
        ("/runs/1", "-1"),
        ("/models", "[]"),
        ("/models/1", "\"other\""),
        ("/models", "[\"gpt2\", \"bert\"]"),
        ("/user", "7"),
    ];
    let mut check = |what: &str| {
        mend(&newest.dir);
        let error = trainer.resume(newest.root.path()).expect_err(what);
        assert_eq!(error.kind(), Kind::InvalidData, "{what}: {error}");
        assert!(state(&trainer) == before, "{what}: a failed resume changed the trainer");
        newest.put_back();
    };
    for (file, edits) in [("optimizer.json", &optimizer[..]), ("trainer.json", &trainer_json)] {
        for (place, value) in edits {
            edit(&newest.dir.join(file), place, value);
            check(&format!("{place} of {file} as {value}"));
        }
        for text in ["", "{}", "[]", "null", "{\"version\": 1"] {
            fs::write(newest.dir.join(file), text).unwrap();
            check(&format!("{file} as '{text}'"));
        }
    }
    // The weights of both models 0: no share is left to divide.
    let path = newest.dir.join("optimizer.json");
    edit(&path, "/models/0/weight", "\"0.0\"");
    edit(&path, "/models/1/weight", "\"0.0\"");
    check("all weights 0");
    // The last number of each file of tensors, which is never an integer.
    for name in newest.files.keys().filter(|n| n.ends_with(".safetensors")) {
        for value in [f32::NAN, f32::INFINITY] {
            let mut bytes = newest.files[name].clone();
            let end = bytes.len();
            bytes[end - 4..].copy_from_slice(&value.to_le_bytes());
            fs::write(newest.dir.join(name), bytes).unwrap();
            check(&format!("{value} in {name}"));
        }
        // The name of a tensor, of the same length.
        let bytes = newest.files[name].clone();
        let at = bytes.windows(6).position(|w| w == b"weight").unwrap();
        let mut other = bytes;
        other[at..at + 6].copy_from_slice(b"wEight");
        fs::write(newest.dir.join(name), other).unwrap();
        check(&format!("another name in {name}"));
    }
    // The square of a number below 0.
    let file = mmopt::checkpoint::weights::Weights::read(&newest.dir.join("optimizer.safetensors"));
    let file = file.unwrap();
    let tensors: Vec<_> = file.names().map(|name| (name, file.tensor(name).unwrap())).collect();
    let negative = tensors.iter().map(|(name, tensor)| {
        let mut tensor = tensor.copy().unwrap();
        if name.ends_with("exp_avg_sq") {
            tensor.as_mut_slice::<f32>().unwrap()[0] = -1.0;
        }
        (*name, tensor)
    });
    let negative: Vec<_> = negative.collect();
    let path = newest.dir.join("optimizer.safetensors");
    mmopt::checkpoint::weights::write(&path, negative.iter().map(|(n, t)| (*n, t)), &[]).unwrap();
    check("a negative mean square");
    // What is whole and of another version.
    edit(&newest.dir.join("optimizer.json"), "/version", "2");
    mend(&newest.dir);
    assert_eq!(trainer.resume(newest.root.path()).unwrap_err().kind(), Kind::Unsupported);
    newest.put_back();
    assert!(state(&trainer) == before);
    // And it still trains as if nothing had been.
    let mut twin = small();
    step_all(&mut twin, 7);
    assert_eq!(pass_all(&mut trainer, 8), pass_all(&mut twin, 8));
}
