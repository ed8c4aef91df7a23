//! What the trained models say of each example of the evaluation split: for intervals over examples,
//! and for the score of several models' mean prediction.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mmopt::tasks::{PredictOptions, Prediction, Predictor, PredictorOptions};
use mmopt::text::metrics::{answer_f1, entities};
use serde_json::{Map, Value, json};

use crate::data;
use crate::grid::{self, Cell, Kind};
use crate::run::MODELS;
use crate::{Result, Settings, lines};

/// Where joint_train puts a cell's models.
pub fn models_of(settings: &Settings, cell: &str) -> PathBuf {
    settings.work.join(format!("{}.models", cell.replace('/', ".")))
}

/// The file beside the runs.
pub fn file_of(settings: &Settings) -> PathBuf {
    settings.runs.with_file_name("examples.jsonl")
}

/// One model's results: of each example how many of what it predicted are right, how many it
/// predicted, and how many there are. Of classes each is one.
type Counts = Vec<[u32; 3]>;

/// Sentences and their classes.
fn classified(text: &str) -> Result<(Vec<&str>, Vec<&str>)> {
    let lines = text.lines().filter(|l| !l.is_empty());
    let pair = |l| str::rsplit_once(l, '\t').ok_or_else(|| format!("no label: {l}"));
    Ok(lines.map(pair).collect::<Result<Vec<_>>>()?.into_iter().unzip())
}

/// Sentences as words with a space between, and their tags.
fn tagged(text: &str) -> (Vec<String>, Vec<Vec<&str>>) {
    let blocks = text.split("\n\n").filter(|b| !b.trim().is_empty());
    let sentence = |block| {
        let fields = |l| str::split(l, [' ', '\t']);
        let words: Vec<&str> = str::lines(block).filter_map(|l| fields(l).next()).collect();
        (words.join(" "), str::lines(block).filter_map(|l| fields(l).next_back()).collect())
    };
    blocks.map(sentence).unzip()
}

/// Each model's results on classes, and how many of the models' mean predictions are right.
fn classes(models: &[Predictor], text: &str, max_length: usize) -> Result<(Vec<Counts>, f64)> {
    let (texts, labels) = classified(text)?;
    let options =
        PredictOptions { max_length: Some(max_length), batch_size: 32, ..Default::default() };
    let mut sums: Vec<BTreeMap<String, f64>> = vec![BTreeMap::new(); texts.len()];
    let mut all = Vec::new();
    for model in models {
        let predictions = model.predict(&texts, None, &options).map_err(|e| e.to_string())?;
        let mut counts = Counts::new();
        for ((predicted, label), sum) in predictions.iter().zip(&labels).zip(&mut sums) {
            let best = predicted.first().and_then(|p| p.label.as_deref());
            counts.push([u32::from(best == Some(*label)), 1, 1]);
            for p in predicted {
                *sum.entry(p.label.clone().unwrap_or_default()).or_default() += p.probability;
            }
        }
        all.push(counts);
    }
    let best = |sum: &BTreeMap<String, f64>| {
        let best = sum.iter().max_by(|a, b| a.1.total_cmp(b.1));
        best.map(|(label, _)| label.clone()).unwrap_or_default()
    };
    let n_right = sums.iter().zip(&labels).filter(|(sum, label)| best(sum) == **label).count();
    Ok((all, n_right as f64 / labels.len().max(1) as f64))
}

/// Each model's results on entities.
fn spans(models: &[Predictor], text: &str) -> Result<Vec<Counts>> {
    let (texts, tags) = tagged(text);
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let options = PredictOptions { split_punctuation: false, ..Default::default() };
    let mut all = Vec::new();
    for model in models {
        let predictions = model.predict(&texts, None, &options).map_err(|e| e.to_string())?;
        let count = |((predicted, tags), text): ((&Vec<_>, &Vec<&str>), &&str)| {
            let starts: Vec<usize> =
                std::iter::once(0).chain(text.match_indices(' ').map(|(i, _)| i + 1)).collect();
            let own = entities(tags);
            let is_right = |p: &&Prediction| {
                own.iter().any(|e| {
                    let end = starts.get(e.end).map_or(text.len(), |s| s - 1);
                    Some(e.entity_type.as_str()) == p.label.as_deref()
                        && p.span == (starts[e.start]..end)
                })
            };
            let n_right = predicted.iter().filter(is_right).count();
            [n_right as u32, predicted.len() as u32, own.len() as u32]
        };
        all.push(predictions.iter().zip(&tags).zip(&texts).map(count).collect());
    }
    Ok(all)
}

/// A question, what it is asked of, and the answers that are right.
struct Question {
    question: String,
    context: String,
    answers: Vec<String>,
}

/// The questions of a file in SQuAD's nested form.
fn questions(text: &str) -> Result<Vec<Question>> {
    let file: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let own = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all = Vec::new();
    for paragraph in list(&file["data"]).iter().flat_map(|a| list(&a["paragraphs"])) {
        for asked in list(&paragraph["qas"]) {
            all.push(Question {
                question: own(&asked["question"]),
                context: own(&paragraph["context"]),
                answers: list(&asked["answers"]).iter().map(|a| own(&a["text"])).collect(),
            });
        }
    }
    Ok(all)
}

/// Each model's F1 on each answer, in thousandths.
fn answers(models: &[Predictor], text: &str, max_length: usize) -> Result<Vec<Counts>> {
    let asked = questions(text)?;
    let texts: Vec<&str> = asked.iter().map(|q| q.question.as_str()).collect();
    let contexts: Vec<&str> = asked.iter().map(|q| q.context.as_str()).collect();
    let options = PredictOptions { max_length: Some(max_length), ..Default::default() };
    let mut all = Vec::new();
    for model in models {
        let predictions =
            model.predict(&texts, Some(&contexts), &options).map_err(|e| e.to_string())?;
        let count = |(predicted, asked): (&Vec<Prediction>, &Question)| {
            let own = predicted.first().map_or("", |p| &asked.context[p.span.clone()]);
            let f1 = asked.answers.iter().map(|a| answer_f1(own, a)).fold(0.0, f64::max);
            [(WHOLE * f1).round() as u32, WHOLE as u32, WHOLE as u32]
        };
        all.push(predictions.iter().zip(&asked).map(count).collect());
    }
    Ok(all)
}

/// F1 of an answer that is right.
const WHOLE: f64 = 1000.0;

/// Counts as text: of classes a digit each, of entities three numbers each, of answers one.
fn written(kind: Kind, counts: &Counts) -> String {
    let each = |one: fn(&[u32; 3]) -> String| counts.iter().map(one).collect::<Vec<_>>();
    match kind {
        Kind::Classification => counts.iter().map(|c| if c[0] == 1 { '1' } else { '0' }).collect(),
        Kind::Entities => each(|c| format!("{} {} {}", c[0], c[1], c[2])).join(","),
        Kind::Questions => each(|c| c[0].to_string()).join(","),
    }
}

/// What [`written`] wrote.
pub fn read(text: &str) -> Option<Counts> {
    if !text.contains([' ', ',']) {
        return Some(text.bytes().map(|b| [u32::from(b == b'1'), 1, 1]).collect());
    }
    if !text.contains(' ') {
        let one = |n: &str| Some([n.parse().ok()?, WHOLE as u32, WHOLE as u32]);
        return text.split(',').map(one).collect();
    }
    let one = |part: &str| {
        let mut numbers = part.split(' ').map(|n| n.parse::<u32>().ok());
        Some([numbers.next()??, numbers.next()??, numbers.next()??])
    };
    text.split(',').map(one).collect()
}

/// Accuracy, F1 of entities, or mean F1 of answers, of the chosen examples.
pub fn score(counts: &Counts, chosen: impl Iterator<Item = usize>) -> f64 {
    let (mut n_right, mut n) = (0u64, 0u64);
    for i in chosen {
        n_right += u64::from(counts[i][0]);
        n += u64::from(counts[i][1]) + u64::from(counts[i][2]);
    }
    if n == 0 { 0.0 } else { 2.0 * n_right as f64 / n as f64 }
}

fn one(settings: &Settings, cell: &Cell, run: &Value) -> Result<Value> {
    let folder = data::folder(settings, cell.task).ok_or("no data")?;
    let files = data::prepare(settings, cell, &folder)?;
    let text = data::read(&files.eval)?;
    let models = models_of(settings, &cell.name());
    let load = |m: &&str| {
        Predictor::load(&models.join(m), &PredictorOptions::default()).map_err(|e| e.to_string())
    };
    let models: Vec<Predictor> = MODELS.iter().map(load).collect::<Result<_>>()?;
    let (counts, together) = match cell.task.kind {
        Kind::Classification => {
            let (counts, together) = classes(&models, &text, cell.task.max_length)?;
            (counts, Some(together))
        }
        Kind::Entities => (spans(&models, &text)?, None),
        Kind::Questions => (answers(&models, &text, cell.task.max_length)?, None),
    };
    let mut line = Map::new();
    line.insert("cell".into(), cell.name().into());
    line.insert("mean_prediction".into(), json!(together));
    for (name, counts) in MODELS.iter().zip(&counts) {
        let last = run["records"].as_array().and_then(|r| r.last());
        let reported = last.and_then(|r| r[*name]["test_score"].as_f64()).unwrap_or(f64::NAN);
        let own = score(counts, 0..counts.len());
        if (own - reported).abs() > 5e-4 && cell.task.kind != Kind::Entities {
            return Err(format!("{name} scores {own} here and scored {reported} in the run"));
        }
        line.insert((*name).into(), written(cell.task.kind, counts).into());
    }
    Ok(line.into())
}

/// The cell of a name, which says the rate as well.
fn find(name: &str) -> Option<Cell> {
    let settings = Settings { seeds: Some(1), ..Settings::default() };
    let (kind, seed) = name.rsplit_once('/')?;
    let seed = seed.parse().ok()?;
    let is = |c: &Cell| c.name().rsplit_once('/').is_some_and(|(own, _)| own == kind);
    grid::cells(&settings).into_iter().find(is).map(|cell| Cell { seed, ..cell })
}

/// Appends a line for each finished run whose models are still there.
pub fn run(settings: &Settings) -> Result<()> {
    mmopt::runtime::load(None).map_err(|e| e.to_string())?;
    let path = file_of(settings);
    let done: Vec<Value> = lines::read(&path)?;
    for run in lines::read(&settings.runs)? {
        let name = run["cell"].as_str().unwrap_or_default().to_owned();
        let is_done = done.iter().any(|d| d["cell"] == run["cell"]);
        let models = models_of(settings, &name);
        let Some(cell) = find(&name) else { continue };
        if is_done || !is_whole(&models) {
            continue;
        }
        match one(settings, &cell, &run) {
            Ok(line) => lines::append(&path, &line.to_string())?,
            Err(e) => println!("{name}: {e}"),
        }
    }
    Ok(())
}

fn is_whole(models: &Path) -> bool {
    MODELS.iter().all(|m| fs::metadata(models.join(m).join("tokenizer_config.json")).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_both_rates_are_found() {
        for name in ["fresh/trec/default/3", "fresh/trec/default@1e-3/4", "few_labels/sst2/paper/5"]
        {
            assert_eq!(find(name).unwrap().name(), name);
        }
        assert!(find("fresh/trec/none/1").is_none() && find("fresh/trec/paper@1e-3/1").is_none());
    }

    #[test]
    fn counts_are_read_as_they_were_written() {
        let classes = vec![[1, 1, 1], [0, 1, 1], [1, 1, 1]];
        assert_eq!(read(&written(Kind::Classification, &classes)).unwrap(), classes);
        assert!((score(&classes, 0..3) - 2.0 / 3.0).abs() < 1e-12);
        assert!((score(&classes, [0, 0, 1].into_iter()) - 2.0 / 3.0).abs() < 1e-12);
        let entities = vec![[1, 2, 1], [0, 0, 3]];
        assert_eq!(read(&written(Kind::Entities, &entities)).unwrap(), entities);
        assert!((score(&entities, 0..2) - 2.0 / 6.0).abs() < 1e-12);
        let answers = vec![[667, 1000, 1000], [0, 1000, 1000]];
        assert_eq!(read(&written(Kind::Questions, &answers)).unwrap(), answers);
        assert!((score(&answers, 0..2) - 0.3335).abs() < 1e-12);
    }
}
