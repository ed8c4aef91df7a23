//! Reading the log of a run: one JSON object a line, each with a type.
//!
//! Records and keys that are not known are passed over, for a later version may write more. What a
//! log does not hold is simply not there. A last line that was torn when a run was killed is told.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};

/// Records on more models are left out: their matrices could be much larger than the log.
const MOST_MODELS: usize = 64;

/// Steps and values.
pub(super) type Series = Vec<(f64, f64)>;

/// What is measured of each model: by its name here, for every model of the run a series.
pub(super) type PerModel = BTreeMap<String, Vec<Series>>;

/// How the shared views of two models stand to each other at one step.
#[derive(Clone, Debug, Default)]
pub(super) struct Sharing {
    pub step: f64,
    /// Names, in the order of the rows of `cosine` and `distance`.
    pub models: Vec<String>,
    pub cosine: Vec<Vec<f64>>,
    pub distance: Vec<Vec<f64>>,
    pub groups: Vec<SharingGroup>,
}

/// The same of one group of views.
#[derive(Clone, Debug, Default)]
pub(super) struct SharingGroup {
    pub name: String,
    /// Slot, from 0, and number of slots.
    pub depth: Option<(usize, usize)>,
    /// For each member its model, as a position in [`Sharing::models`].
    pub members: Vec<usize>,
    pub cosine: Vec<Vec<f64>>,
    pub distance: Vec<Vec<f64>>,
}

/// A run, as its log tells it.
#[derive(Clone, Debug, Default)]
pub(super) struct Run {
    /// From the file's name, see `super::runs`.
    pub name: String,
    pub path: String,
    /// The record `run`; null without one.
    pub header: Value,
    /// The record `end`; null without one.
    pub end: Value,
    pub models: Vec<String>,
    pub of_models: PerModel,
    /// What is measured of the run as a whole.
    pub of_run: BTreeMap<String, Series>,
    pub sharing: Vec<Sharing>,
    /// Time of the first and the last record.
    pub times: Option<(f64, f64)>,
    pub last_step: f64,
    /// Steps in the log.
    pub n_steps: usize,
    /// What a reader of the page should know of the file.
    pub notes: Vec<String>,
}

impl Run {
    /// Reads a log.
    ///
    /// # Errors
    /// `InvalidData` for a line that is no JSON object, unless it is the last and has no end, and
    /// for a file without any record of a run; those of reading a file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        // Not mapped: a run that goes on may cut its log meanwhile.
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        Self::parse(&bytes, &path.display().to_string())
    }

    /// The run in the bytes of a log; errors call it `path`.
    pub(super) fn parse(bytes: &[u8], path: &str) -> Result<Self> {
        let mut this = Self { path: path.to_owned(), ..Self::default() };
        let mut n_known = 0;
        let lines: Vec<&[u8]> = bytes.split_inclusive(|&b| b == b'\n').collect();
        for (i, line) in lines.iter().enumerate() {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let is_torn = i + 1 == lines.len() && !line.ends_with(b"\n");
            match serde_json::from_slice::<Value>(line) {
                Ok(record) if record.is_object() => n_known += usize::from(this.add(&record)),
                _ if is_torn => this.notes.push(format!(
                    "Line {} is torn and left out: the run ended while it was written.",
                    i + 1
                )),
                other => {
                    let why = match other {
                        Ok(_) => "not a JSON object".to_owned(),
                        Err(e) => format!("not JSON (column {})", e.column()),
                    };
                    let text =
                        format!("{path}, line {}: {why}; a log has one object a line", i + 1);
                    return Err(Error::data(text));
                }
            }
        }
        if n_known == 0 {
            return Err(Error::data(format!(
                "{path}, line {}: no record of a run up to here, where the file ends; a log has \
                 records of the types run, step, evaluation",
                lines.len().max(1)
            )));
        }
        this.end_reading();
        Ok(this)
    }

    /// Adds a record; whether its type is known.
    fn add(&mut self, record: &Value) -> bool {
        let step = number(&record["step"]);
        match record["type"].as_str().unwrap_or_default() {
            "run" => {
                if !self.header.is_null() {
                    self.notes.push(
                        "The log holds a second record of type run; the first counts.".to_owned(),
                    );
                } else {
                    self.header = record.clone();
                }
                names(&record["models"]).for_each(|name| _ = self.model(name));
            }
            "step" => self.add_step(step, record),
            "evaluation" => self.add_evaluation(step, record),
            "sharing" => self.sharing.extend(Sharing::new(step, record)),
            "end" => self.end = record.clone(),
            _ => return false,
        }
        if step.is_finite() {
            self.last_step = self.last_step.max(step);
        }
        let time = number(&record["time"]);
        if time.is_finite() {
            let (first, last) = self.times.unwrap_or((time, time));
            self.times = Some((first.min(time), last.max(time)));
        }
        true
    }

    fn add_step(&mut self, step: f64, record: &Value) {
        self.n_steps += 1;
        const OF_RUN: [&str; 4] =
            ["seconds", "examples_per_second", "tokens_per_second", "peak_memory_bytes"];
        for name in OF_RUN {
            self.put_run(name, step, number(&record[name]));
        }
        self.put_run("shared", step, truth(&record["shared"]));
        self.put_run("synced", step, truth(&record["synced"]));
        for model in record["models"].as_array().into_iter().flatten() {
            let Some(i) = model["name"].as_str().map(|name| self.model(name)) else { continue };
            const NUMBERS: [&str; 7] = [
                "loss",
                "mutual_loss",
                "learning_rate",
                "weight",
                "gradient_norm",
                "clip_factor",
                "n_skipped",
            ];
            for name in NUMBERS {
                self.put(name, i, step, number(&model[name]));
            }
            // 0 is the norm of a gradient that nobody needed to measure.
            if let Some(norms) = self.of_models.get_mut("gradient_norm").and_then(|a| a.get_mut(i))
            {
                norms.pop_if(|p| p.1 == 0.0);
            }
            for name in ["clipped", "skipped"] {
                self.put(name, i, step, truth(&model[name]));
            }
            let labels = number(&model["n_labels"]);
            if labels > 0.0 {
                self.put("accuracy", i, step, number(&model["n_correct"]) / labels);
            }
            for part in ["rates", "convergence"] {
                for (name, value) in model[part].as_object().into_iter().flatten() {
                    self.put(&format!("{part}.{name}"), i, step, number(value));
                }
            }
        }
    }

    fn add_evaluation(&mut self, step: f64, record: &Value) {
        for name in ["mean_score", "monitored"] {
            self.put_run(name, step, number(&record[name]));
        }
        for model in record["models"].as_array().into_iter().flatten() {
            let Some(i) = model["name"].as_str().map(|name| self.model(name)) else { continue };
            self.put("evaluation.score", i, step, number(&model["score"]));
            self.put("evaluation.loss", i, step, number(&model["loss"]));
            for (name, value) in model["scores"].as_object().into_iter().flatten() {
                let is_count = name.starts_with("n_") || name == "loss" || name == "score";
                if value.is_number() && !is_count {
                    self.put(&format!("scores.{name}"), i, step, number(value));
                }
                for part in ["precision", "recall", "f1"].iter().filter(|_| name == "entities") {
                    self.put(&format!("scores.entity_{part}"), i, step, number(&value[*part]));
                }
            }
        }
    }

    /// The position of a model, which is added if it is new.
    fn model(&mut self, name: &str) -> usize {
        if let Some(i) = self.models.iter().position(|m| m == name) {
            return i;
        }
        self.models.push(name.to_owned());
        self.models.len() - 1
    }

    fn put(&mut self, what: &str, model: usize, step: f64, value: f64) {
        if !step.is_finite() {
            return;
        }
        if !self.of_models.contains_key(what) {
            self.of_models.insert(what.to_owned(), Vec::new());
        }
        let Some(all) = self.of_models.get_mut(what) else { return };
        if all.len() <= model {
            all.resize_with(model + 1, Series::new);
        }
        all[model].push((step, value));
    }

    fn put_run(&mut self, what: &str, step: f64, value: f64) {
        if !step.is_finite() || value.is_nan() {
            return;
        }
        match self.of_run.get_mut(what) {
            Some(series) => series.push((step, value)),
            None => _ = self.of_run.insert(what.to_owned(), vec![(step, value)]),
        }
    }

    fn end_reading(&mut self) {
        let format = number(&self.header["format"]);
        if format > 1.0 {
            self.notes.push(format!(
                "The log has format {format}, which is newer than this library; parts of it may be \
                 missing here."
            ));
        }
        if self.header.is_null() {
            self.notes.push("The log has no record of type run.".to_owned());
        }
        if self.end.is_null() {
            self.notes.push(
                "The log has no record of type end: the run goes on, or broke off.".to_owned(),
            );
        }
        // A quantity whose every value is missing is none.
        self.of_models.retain(|_, all| all.iter().flatten().any(|p| !p.1.is_nan()));
    }

    /// The series of a model; empty for what the log does not hold.
    pub(super) fn of_model(&self, what: &str, model: &str) -> &[(f64, f64)] {
        let i = self.models.iter().position(|m| m == model);
        let all = self.of_models.get(what);
        all.zip(i).and_then(|(all, i)| all.get(i)).map_or(&[], Vec::as_slice)
    }

    /// The series of the run; empty for what the log does not hold.
    pub(super) fn of_run(&self, what: &str) -> &[(f64, f64)] {
        self.of_run.get(what).map_or(&[], Vec::as_slice)
    }

    /// Seconds from the first record to the last.
    pub(super) fn seconds(&self) -> Option<f64> {
        self.times.map(|(first, last)| last - first)
    }
}

impl Sharing {
    fn new(step: f64, record: &Value) -> Option<Self> {
        let models: Vec<String> = texts(&record["models"]);
        if !step.is_finite() || models.is_empty() || models.len() > MOST_MODELS {
            return None;
        }
        let place = |m: &Value| models.iter().position(|name| m["model"] == name.as_str());
        let group = |g: &Value| {
            let members = g["members"].as_array()?.iter().map(place).collect::<Option<Vec<_>>>()?;
            let depth = (g["depth"][0].as_u64()).zip(g["depth"][1].as_u64());
            let n = members.len();
            // What one of them has room for in the log, the other may have in memory.
            if !is_square(&g["cosine"], n) && !is_square(&g["distance"], n) {
                return None;
            }
            Some(SharingGroup {
                name: g["name"].as_str()?.to_owned(),
                depth: depth.map(|(slot, slots)| (slot as usize, slots as usize)),
                cosine: matrix(&g["cosine"], n),
                distance: matrix(&g["distance"], n),
                members,
            })
        };
        let n = models.len();
        let groups = record["groups"].as_array().into_iter().flatten();
        let mut this = Self {
            step,
            cosine: matrix(&record["cosine"], n),
            distance: matrix(&record["distance"], n),
            groups: groups.filter_map(group).collect(),
            models,
        };
        // Of models that share nothing there is nothing to compare.
        for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).filter(|(i, j)| i != j) {
            let both = |g: &SharingGroup| g.members.contains(&i) && g.members.contains(&j);
            if !this.groups.is_empty() && !this.groups.iter().any(both) {
                (this.cosine[i][j], this.distance[i][j]) = (f64::NAN, f64::NAN);
            }
        }
        Some(this)
    }
}

/// A number; NaN for null, for whatever else is none, and for one so large that sums and ratios of
/// such numbers would not be finite. One that is as small counts as 0.
fn number(value: &Value) -> f64 {
    match value.as_f64().unwrap_or(f64::NAN) {
        v if v.abs() > 1e100 => f64::NAN,
        v if v.abs() < 1e-100 => 0.0,
        v => v,
    }
}

/// 1 for true, 0 for false, NaN for anything else.
fn truth(value: &Value) -> f64 {
    value.as_bool().map_or(f64::NAN, |b| f64::from(u8::from(b)))
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| Some(v.as_str()?.to_owned())).collect()
}

fn names(models: &Value) -> impl Iterator<Item = &str> {
    models.as_array().into_iter().flatten().filter_map(|m| m["name"].as_str())
}

/// Whether a value has `n` rows of `n` values.
fn is_square(value: &Value, n: usize) -> bool {
    let has_n = |v: &Value| v.as_array().is_some_and(|all| all.len() == n);
    has_n(value) && value.as_array().into_iter().flatten().all(has_n)
}

/// `n` rows of `n` numbers; NaN where the log has none.
fn matrix(value: &Value, n: usize) -> Vec<Vec<f64>> {
    (0..n).map(|i| (0..n).map(|j| number(&value[i][j])).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const STEP: &str = r#"{"type":"step","step":1,"time":5,"seconds":0.5,"models":[
        {"name":"a","loss":2.5,"n_correct":3,"n_labels":4,"clipped":true,
         "rates":{"adaptive":1.5},"convergence":null,"later":7},{"name":"b","loss":null}]}"#;

    fn lines(lines: &[&str]) -> String {
        lines.iter().map(|l| l.replace('\n', "") + "\n").collect()
    }

    fn parse(text: &str) -> Result<Run> {
        Run::parse(text.as_bytes(), "dir/one.jsonl")
    }

    #[test]
    fn records_become_series() {
        let evaluation = r#"{"type":"evaluation","step":9,"time":25,"mean_score":0.5,"models":[
            {"name":"b","score":0.5,"scores":{"macro_f1":0.25,"n_labels":9,"classes":[]}}]}"#;
        let text = lines(&[
            r#"{"type":"run","step":0,"format":9,"models":[{"name":"b"}]}"#,
            STEP,
            "",
            r#"{"type":"weather","step":70,"models":3}"#,
            evaluation,
        ]);
        let run = parse(&text).unwrap();
        assert_eq!(run.models, ["b", "a"]);
        assert_eq!(run.of_model("loss", "a"), [(1.0, 2.5)]);
        assert_eq!(run.of_model("accuracy", "a"), [(1.0, 0.75)]);
        assert_eq!(run.of_model("rates.adaptive", "a"), [(1.0, 1.5)]);
        assert_eq!(run.of_model("clipped", "a"), [(1.0, 1.0)]);
        assert!(run.of_model("loss", "b")[0].1.is_nan());
        assert_eq!(run.of_model("scores.macro_f1", "b"), [(9.0, 0.25)]);
        assert!(run.of_model("scores.n_labels", "b").is_empty());
        assert_eq!(run.of_run("seconds"), [(1.0, 0.5)]);
        assert_eq!((run.last_step, run.seconds()), (9.0, Some(20.0)));
        assert_eq!(run.notes.len(), 2, "newer format, no end: {:?}", run.notes);
    }

    #[test]
    fn only_the_last_line_may_be_torn() {
        let torn = lines(&[STEP]) + r#"{"type":"step","st"#;
        let run = parse(&torn).unwrap();
        assert!(run.n_steps == 1 && run.notes[0].starts_with("Line 2 is torn"), "{:?}", run.notes);
        let check = |text: &str, part: &str| {
            let e = parse(text).unwrap_err();
            assert_eq!(e.kind(), Kind::InvalidData);
            assert!(e.message().starts_with(part), "{e}");
        };
        check(&(torn + "\n"), "dir/one.jsonl, line 2: not JSON");
        check(&lines(&[STEP, "[1]", STEP]), "dir/one.jsonl, line 2: not a JSON object");
        check(&lines(&["{}", r#"{"type":"x"}"#]), "dir/one.jsonl, line 2: no record of a run");
        check("", "dir/one.jsonl, line 1: no record");
        let binary = Run::parse(b"\xff\xfe\n{}\n", "x").unwrap_err();
        assert!(binary.message().starts_with("x, line 1: not JSON"), "{binary}");
    }

    #[test]
    fn records_of_the_wrong_form_do_no_harm() {
        let run = parse(&lines(&[
            r#"{"type":"step","step":"one","models":{"name":7}}"#,
            r#"{"type":"step","models":[7,{"name":"a","loss":"low","rates":[1]}]}"#,
            r#"{"type":"evaluation","step":2,"models":[{"name":"a","scores":7}]}"#,
            r#"{"type":"sharing","step":3,"models":["a"],
                "groups":[{"name":"g","members":[{"model":"z"}],"cosine":[[1]]},
                          {"name":"h","members":[{"model":"a"}],"cosine":[1]}]}"#,
            r#"{"type":"run","step":0,"models":7}"#,
        ]));
        let run = run.unwrap();
        assert_eq!((run.models.as_slice(), run.sharing.len()), (&["a".to_owned()][..], 1));
        assert!(run.sharing[0].groups.is_empty() && run.sharing[0].cosine[0][0].is_nan());
    }
}
