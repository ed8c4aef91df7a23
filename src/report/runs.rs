//! Names of runs, and which runs differ in nothing but their seed.

use std::path::{Component, Path};

use serde_json::{Map, Value, json};

use super::log::Run;

/// Runs with the same settings, whatever their seeds; in plots one curve with a band.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub name: String,
    /// One or more.
    pub runs: Vec<Run>,
}

impl Set {
    /// The run that stands for the set where only one can be shown.
    pub(super) fn first(&self) -> &Run {
        &self.runs[0]
    }
}

/// Gives each run the shortest end of its path that no other run's path has.
pub(super) fn name(runs: &mut [Run]) {
    let parts: Vec<Vec<String>> = runs.iter().map(|run| path_parts(&run.path)).collect();
    let end = |i: usize, n: usize| {
        let all: &[String] = &parts[i];
        all[all.len().saturating_sub(n)..].join("/")
    };
    for i in 0..runs.len() {
        let most = parts.iter().map(Vec::len).max().unwrap_or(1);
        let is_alone = |n: &usize| (0..runs.len()).all(|j| j == i || end(j, *n) != end(i, *n));
        runs[i].name = end(i, (1..=most).find(is_alone).unwrap_or(most));
    }
}

/// The folders and the name, without `.jsonl`.
fn path_parts(path: &str) -> Vec<String> {
    let normal = |c: Component| match c {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    };
    let mut parts: Vec<String> = Path::new(path).components().filter_map(normal).collect();
    if let Some(last) = parts.last_mut() {
        let short = ["jsonl", "json", "log"]
            .iter()
            .find_map(|end| last.strip_suffix(&format!(".{end}")))
            .filter(|name| !name.is_empty());
        if let Some(short) = short.map(str::to_owned) {
            *last = short;
        }
    }
    parts
}

/// Runs of the same settings together, in the order of their first.
pub(super) fn sets(runs: Vec<Run>) -> Vec<Set> {
    let mut sets: Vec<(Option<Value>, Set)> = Vec::new();
    for run in runs {
        let settings = settings(&run);
        let same = settings.as_ref().and_then(|_| sets.iter_mut().find(|s| s.0 == settings));
        match same {
            Some((_, set)) => set.runs.push(run),
            None => sets.push((settings, Set { name: run.name.clone(), runs: vec![run] })),
        }
    }
    let mut sets: Vec<Set> = sets.into_iter().map(|s| s.1).collect();
    for set in sets.iter_mut().filter(|s| s.runs.len() > 1) {
        let names: Vec<&str> = set.runs.iter().map(|r| r.name.as_str()).collect();
        set.name = format!("{} ({} seeds)", common_name(&names), names.len());
    }
    sets
}

/// What decides a run, without its seed; `None` if the log does not tell.
fn settings(run: &Run) -> Option<Value> {
    if !run.header["options"].is_object() {
        return None;
    }
    let models = run.header["models"].as_array().into_iter().flatten();
    let models: Vec<Value> = models
        .map(|m| json!([m["name"], m["architecture"], m["task"], m["n_parameters"], m["weight"]]))
        .collect();
    let mut settings = json!({
        "models": models,
        "n_batches": run.header["n_batches"],
        "options": run.header["options"],
        "fit": run.header["fit"],
    });
    without_places(&mut settings);
    Some(settings)
}

/// Removes seeds, and the texts that name files, from the keys of a value and below it.
fn without_places(value: &mut Value) {
    let is_place = |key: &str| {
        let ends = ["seed", "path", "directory", "folder", "file", "log", "resume", "threads"];
        ends.iter().any(|end| key.ends_with(end))
    };
    match value {
        Value::Object(map) => {
            let old = std::mem::take(map);
            *map = old.into_iter().filter(|(key, _)| !is_place(key)).collect::<Map<_, _>>();
            map.values_mut().for_each(without_places);
        }
        Value::Array(all) => all.iter_mut().for_each(without_places),
        _ => {}
    }
}

/// The beginning that all names share, without what leads up to a seed; the first name if that
/// says nothing.
fn common_name(names: &[&str]) -> String {
    let first = names.first().copied().unwrap_or_default();
    let shared = first
        .char_indices()
        .map(|(i, c)| i + c.len_utf8())
        .take_while(|&end| names.iter().all(|n| n.starts_with(&first[..end])))
        .last()
        .unwrap_or(0);
    let is_end = |c: char| !c.is_alphanumeric();
    let mut name = first[..shared].trim_end_matches(|c: char| c.is_ascii_digit());
    name = name.trim_end_matches(is_end);
    for word in ["seed", "run", "s"] {
        let rest = name.strip_suffix(word).filter(|r| r.ends_with(is_end));
        name = rest.map_or(name, |r| r.trim_end_matches(is_end));
    }
    if name.is_empty() { first.to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(path: &str, header: &str) -> Run {
        let header = serde_json::from_str(header).unwrap();
        Run { path: path.to_owned(), header, ..Run::default() }
    }

    #[test]
    fn names_are_short_and_differ() {
        let mut runs: Vec<Run> = ["out/a/log.jsonl", "./out/b/log.jsonl", "/x/solo.v2.jsonl"]
            .iter()
            .map(|p| run(p, "null"))
            .collect();
        name(&mut runs);
        let names: Vec<&str> = runs.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["a/log", "b/log", "solo.v2"]);
        assert_eq!(common_name(&["joint-seed1", "joint-seed2"]), "joint");
        assert_eq!(common_name(&["a/s1", "a/s2"]), "a");
        assert_eq!(common_name(&["x", "y"]), "x");
        assert_eq!(common_name(&["run1", "run12"]), "run");
    }

    #[test]
    fn runs_that_differ_in_their_seed_are_one_set() {
        let header = |seed: u32, rate: f64| {
            format!(
                r#"{{"seed":{seed},"options":{{"learning_rate":{rate}}},"models":[{{"name":"a"}}],
                    "fit":{{"epochs":3,"log_path":"{seed}","x_seed":{seed}}}}}"#
            )
        };
        let mut runs = vec![
            run("joint-1.jsonl", &header(1, 0.5)),
            run("alone.jsonl", &header(1, 0.1)),
            run("joint-2.jsonl", &header(2, 0.5)),
            run("old.jsonl", "null"),
            run("older.jsonl", "null"),
        ];
        name(&mut runs);
        let sets = sets(runs);
        let names: Vec<&str> = sets.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["joint (2 seeds)", "alone", "old", "older"]);
        assert_eq!(sets[0].runs.len(), 2);
    }
}
