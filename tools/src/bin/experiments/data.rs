//! The files of a cell: the published splits parted by a hash of each example's text, so that equal
//! texts stay on one side, whatever the seed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::grid::{Cell, Kind, Regime, Task};
use crate::{Result, Settings};

/// Labelled examples in the regime of few labels, and at most this part of all.
const FEW: usize = 1000;
const FEW_PART: usize = 3;
/// The share of labels that are wrong in the regime of noisy labels.
const NOISE: f64 = 0.2;
/// Of 1000 hashes those below are the validation split; of a task without an evaluation file those
/// next to them are for evaluation.
const HELD_IN: u64 = 120;
const EVAL: u64 = 150;

/// Files for `joint_train`.
pub struct Files {
    pub train: PathBuf,
    pub unlabelled: Option<PathBuf>,
    /// What vocabularies are made from, the same for every arm; `None`: `train`.
    pub texts: Option<PathBuf>,
    pub held_in: PathBuf,
    pub eval: PathBuf,
}

/// One example: what it is known by, and its lines in the file.
#[derive(Clone)]
struct Example {
    key: String,
    lines: String,
}

/// FNV-1a of 64 bits, finished as in MurmurHash3, for an order that lasts.
pub fn hash(text: &str, seed: u64) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let step = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3);
    let mut h = text.bytes().fold(start, step);
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        h = (h ^ (h >> 33)).wrapping_mul(factor);
    }
    h ^ (h >> 33)
}

fn normal(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The text of a file, unpacked where its name ends in gz; bytes that are not UTF-8 are Latin-1.
pub fn read(path: &Path) -> Result<String> {
    let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let bytes = if path.extension().is_some_and(|e| e == "gz") {
        let done = Command::new("gzip").arg("-dc").arg(path).output().map_err(|e| failed(&e))?;
        if !done.status.success() {
            return Err(failed(&String::from_utf8_lossy(&done.stderr)));
        }
        done.stdout
    } else {
        fs::read(path).map_err(|e| failed(&e))?
    };
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|e| e.as_bytes().iter().map(|&b| char::from(b)).collect()))
}

fn examples(task: &Task, text: &str) -> Result<Vec<Example>> {
    let bad = |line: &str| format!("{}: no example of the task: {line}", task.name);
    match task.kind {
        Kind::Classification => text
            .lines()
            .filter(|l| !l.trim().is_empty())
            .map(|line| {
                // TREC's files have the label first.
                let (text, label) = if task.name == "trec" {
                    line.split_once(' ').map(|(label, text)| (text, label))
                } else {
                    line.rsplit_once('\t')
                }
                .ok_or_else(|| bad(line))?;
                let text = text.replace('\t', " ");
                let lines = format!("{text}\t{}\n", label.split(':').next().unwrap_or(label));
                Ok(Example { key: normal(&text), lines })
            })
            .collect(),
        Kind::Entities => Ok(text
            .replace("\r\n", "\n")
            .split("\n\n")
            .filter(|block| !block.trim().is_empty())
            .map(|block| {
                let words = block.lines().filter_map(|l| l.split_whitespace().next());
                let key = normal(&words.collect::<Vec<_>>().join(" "));
                Example { key, lines: format!("{}\n\n", block.trim_matches('\n')) }
            })
            .collect()),
        Kind::Questions => text
            .lines()
            .filter(|l| !l.trim().is_empty())
            .map(|line| {
                let value: Value = serde_json::from_str(line).map_err(|e| e.to_string())?;
                let context = value["context"].as_str().ok_or_else(|| bad(line))?;
                Ok(Example { key: normal(context), lines: format!("{line}\n") })
            })
            .collect(),
    }
}

/// Every label, for wrong ones to be chosen from.
fn labels(kind: Kind, all: &[Example]) -> Vec<String> {
    let mut labels = BTreeSet::new();
    for example in all {
        for line in example.lines.lines().filter(|l| !l.is_empty()) {
            let last = line.rsplit([' ', '\t']).next().unwrap_or_default();
            match kind {
                Kind::Classification => labels.insert(last.to_owned()),
                Kind::Entities => match last.split_once('-') {
                    Some((_, entity)) => labels.insert(entity.to_owned()),
                    None => false,
                },
                Kind::Questions => false,
            };
        }
    }
    labels.into_iter().collect()
}

/// Draws from a hash: a number below `n`.
fn draw(key: &str, seed: u64, n: usize) -> usize {
    (hash(key, seed) % n.max(1) as u64) as usize
}

fn is_wrong(key: &str, seed: u64) -> bool {
    (hash(key, seed ^ 0x5eed) as f64) < NOISE * u64::MAX as f64
}

/// A classification gets another class; an entity another type, or none; an answer moves to as many
/// words elsewhere in its context.
fn with_noise(kind: Kind, labels: &[String], example: &Example, seed: u64) -> Result<String> {
    let other = |own: &str, key: &str| {
        let others: Vec<&String> = labels.iter().filter(|l| *l != own).collect();
        others.get(draw(key, seed ^ 0x0717, others.len())).map_or(own.to_owned(), |l| (*l).clone())
    };
    match kind {
        Kind::Classification if is_wrong(&example.key, seed) => {
            let (text, label) = example.lines.trim_end().rsplit_once('\t').ok_or("no label")?;
            Ok(format!("{text}\t{}\n", other(label, &example.key)))
        }
        Kind::Classification => Ok(example.lines.clone()),
        Kind::Entities => {
            let (mut text, mut before, mut key) = (String::new(), String::new(), String::new());
            for (i, line) in example.lines.trim_end().lines().enumerate() {
                let at = line.rfind([' ', '\t']).ok_or("no tag")? + 1;
                let (word, tag) = line.split_at(at);
                let Some((mark, entity)) = tag.split_once('-') else {
                    before.clear();
                    text += &format!("{line}\n");
                    continue;
                };
                if mark == "B" || before != entity {
                    key = format!("{}:{i}", example.key);
                }
                before = entity.to_owned();
                let tag = match is_wrong(&key, seed) {
                    false => tag.to_owned(),
                    true if hash(&key, seed ^ 0xd309).is_multiple_of(2) => "O".to_owned(),
                    true => format!("{mark}-{}", other(entity, &key)),
                };
                text += &format!("{word}{tag}\n");
            }
            Ok(text + "\n")
        }
        Kind::Questions => {
            let mut value: Value =
                serde_json::from_str(&example.lines).map_err(|e| e.to_string())?;
            let question = value["question"].as_str().unwrap_or_default().to_owned();
            if !is_wrong(&question, seed) {
                return Ok(example.lines.clone());
            }
            let context = value["context"].as_str().unwrap_or_default().to_owned();
            let answer = value["answers"][0]["text"].as_str().unwrap_or_default();
            let n_words = answer.split_whitespace().count().max(1);
            let starts: Vec<usize> = (0..context.len())
                .filter(|&i| context.is_char_boundary(i))
                .filter(|&i| i == 0 || context[..i].ends_with(' '))
                .collect();
            let first = draw(&question, seed ^ 0x0717, starts.len().saturating_sub(n_words));
            let start = starts.get(first).copied().unwrap_or(0);
            let end = starts.get(first + n_words).map_or(context.len(), |&e| e);
            let text = context[start..end].trim_end();
            let position = context[..start].chars().count();
            value["answers"] = json!([{"text": text, "answer_start": position}]);
            Ok(format!("{value}\n"))
        }
    }
}

/// A file that is there already, and may be read by another run, is left alone.
fn write(path: &Path, examples: impl Iterator<Item = String>) -> Result<()> {
    let text: String = examples.collect();
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Where the task's files lie; `None` when they are not there.
pub fn folder(settings: &Settings, task: &Task) -> Option<PathBuf> {
    let folder = match task.name {
        "films" => settings.work.join("films"),
        _ => settings.data.clone()?,
    };
    let is_there = |name: &str| folder.join(name).is_file();
    (is_there(task.train) && task.eval.is_none_or(is_there)).then_some(folder)
}

/// Writes the files of a cell.
pub fn prepare(settings: &Settings, cell: &Cell, folder: &Path) -> Result<Files> {
    let task = cell.task;
    let out = settings.work.join("data").join(task.name).join(cell.regime.name());
    let out = out.join(cell.seed.to_string());
    fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let extension = match task.kind {
        Kind::Classification => "tsv",
        Kind::Entities => "conll",
        Kind::Questions => "jsonl",
    };
    let file = |name: &str| out.join(format!("{name}.{extension}"));
    let all = examples(task, &read(&folder.join(task.train))?)?;
    let part = |e: &&Example| hash(&e.key, 0) % 1000;
    let eval_part = if task.eval.is_none() { EVAL } else { 0 };
    let held_in = all.iter().filter(|e| part(e) < HELD_IN);
    let mut train: Vec<&Example> = all.iter().filter(|e| part(e) >= HELD_IN + eval_part).collect();
    let files = Files {
        train: file("train"),
        unlabelled: None,
        texts: None,
        held_in: file("held_in"),
        eval: match task.eval {
            // SQuAD's nested form is read as it is.
            Some(name) if name.contains(".json.") => out.join("eval.json"),
            _ => file("eval"),
        },
    };
    write(&files.held_in, held_in.map(|e| e.lines.clone()))?;
    match task.eval {
        None => {
            let eval = all.iter().filter(|e| (HELD_IN..HELD_IN + EVAL).contains(&part(e)));
            write(&files.eval, eval.map(|e| e.lines.clone()))?;
        }
        Some(name) if name.contains(".json.") => {
            write(&files.eval, [read(&folder.join(name))?].into_iter())?;
        }
        Some(name) => {
            let eval = examples(task, &read(&folder.join(name))?)?;
            write(&files.eval, eval.into_iter().map(|e| e.lines))?;
        }
    }
    let mut files = files;
    match cell.regime {
        Regime::FewLabels => {
            train.sort_by_key(|e| hash(&e.lines, cell.seed));
            let (few, rest) = train.split_at(FEW.min(train.len() / FEW_PART));
            write(&files.train, few.iter().map(|e| e.lines.clone()))?;
            let unlabelled = file("unlabelled");
            write(&unlabelled, rest.iter().map(|e| e.lines.clone()))?;
            files.unlabelled = Some(unlabelled);
            let texts = file("texts");
            write(&texts, train.iter().map(|e| e.lines.clone()))?;
            files.texts = Some(texts);
        }
        Regime::NoisyLabels => {
            let labels = labels(task.kind, &all);
            let noisy = train.iter().map(|e| with_noise(task.kind, &labels, e, cell.seed));
            write(&files.train, noisy.collect::<Result<Vec<_>>>()?.into_iter())?;
        }
        _ => write(&files.train, train.iter().map(|e| e.lines.clone()))?,
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(lines: &str) -> Example {
        Example { key: normal(lines), lines: lines.into() }
    }

    #[test]
    fn a_fifth_of_the_labels_is_wrong() {
        let labels = ["0".to_owned(), "1".to_owned(), "2".to_owned()];
        let n_wrong = (0..2000)
            .filter(|i| {
                let example = example(&format!("text {i}\t1\n"));
                let noisy = with_noise(Kind::Classification, &labels, &example, 3).unwrap();
                assert!(noisy.starts_with(&format!("text {i}\t")) && noisy.ends_with('\n'));
                noisy != example.lines
            })
            .count();
        assert!((340..460).contains(&n_wrong), "{n_wrong}");
    }

    #[test]
    fn wrong_entities_keep_their_words_and_wrong_answers_their_place() {
        let labels = ["LOC".to_owned(), "PER".to_owned()];
        for seed in 0..50 {
            let tagged = example("Ann B-PER\nLee I-PER\nsaw O\nRome B-LOC\n\n");
            let noisy = with_noise(Kind::Entities, &labels, &tagged, seed).unwrap();
            let words = |t: &str| {
                t.lines().map(|l| l.split(' ').next().unwrap_or("").to_owned()).collect::<Vec<_>>()
            };
            assert_eq!(words(&noisy), words(&tagged.lines));
            let tags: Vec<&str> = noisy.lines().filter_map(|l| l.split(' ').nth(1)).collect();
            assert!(matches!(tags[..2], ["B-PER", "I-PER"] | ["B-LOC", "I-LOC"] | ["O", "O"]));
            let line = r#"{"context":"ä b cc d","question":"q","answers":[{"text":"b cc","answer_start":2}]}"#;
            let noisy = with_noise(Kind::Questions, &[], &example(line), seed).unwrap();
            let value: Value = serde_json::from_str(&noisy).unwrap();
            let text = value["answers"][0]["text"].as_str().unwrap();
            let start = value["answers"][0]["answer_start"].as_u64().unwrap() as usize;
            let found: String = "ä b cc d".chars().skip(start).take(text.chars().count()).collect();
            assert_eq!(found, text);
        }
    }
}
