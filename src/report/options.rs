//! Options, versions and machine of the runs.

use std::collections::BTreeMap;

use serde_json::Value;

use super::log::Run;
use super::markup::{count, cut, details, number, paragraph, table};
use super::runs::Set;
use crate::error::{Error, Result};
use crate::optim::Options;

/// The most runs side by side in a table of options.
const MOST_SETS: usize = 12;

/// `mutual.weight`: `0.5`, for every value of an object.
fn flat(value: &Value) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut todo = vec![(String::new(), value)];
    while let Some((key, value)) = todo.pop() {
        match value {
            Value::Object(map) if !map.is_empty() => {
                let below = |name: &String| match key.as_str() {
                    "" => name.clone(),
                    key => format!("{key}.{name}"),
                };
                todo.extend(map.iter().map(|(name, value)| (below(name), value)));
            }
            Value::String(text) => _ = out.insert(key, cut(text, 400)),
            value => _ = out.insert(key, cut(&value.to_string(), 400)),
        }
    }
    out
}

/// The preset that a run's options are nearest to, with its values.
fn preset(sets: &[Set]) -> Result<(&'static str, BTreeMap<String, String>)> {
    let value = |options: Options| {
        serde_json::to_value(options)
            .map(|v| flat(&v))
            .map_err(|e| Error::internal("options as JSON").with_source(e))
    };
    let (default, paper) = (value(Options::default())?, value(Options::paper())?);
    let distance = |preset: &BTreeMap<String, String>| -> usize {
        let own = sets.iter().map(|s| flat(&s.first().header["options"]));
        own.map(|own| own.iter().filter(|(k, v)| preset.get(*k) != Some(*v)).count()).sum()
    };
    let is_paper = distance(&paper) < distance(&default);
    Ok(if is_paper { ("paper", paper) } else { ("default", default) })
}

/// The section.
pub(super) fn html(sets: &[Set]) -> Result<String> {
    let mut out = String::new();
    let known: Vec<&Set> =
        sets.iter().filter(|s| s.first().header["options"].is_object()).take(MOST_SETS).collect();
    if known.is_empty() {
        out += &paragraph("absent", "The log has no options.");
    } else {
        let (name, preset) = preset(sets)?;
        let all: Vec<BTreeMap<String, String>> =
            known.iter().map(|s| flat(&s.first().header["options"])).collect();
        let is_other = |key: &str| {
            all.iter().any(|own| own.get(key).or_else(|| preset.get(key)) != preset.get(key))
        };
        let heads: Vec<String> = ["option".to_owned(), format!("preset {name}")]
            .into_iter()
            .chain(known.iter().map(|s| s.name.clone()))
            .collect();
        let keys: std::collections::BTreeSet<&String> =
            all.iter().flat_map(BTreeMap::keys).chain(preset.keys()).collect();
        let row = |key: &&String| {
            let cell = |own: &BTreeMap<String, String>| {
                own.get(*key).cloned().unwrap_or_else(|| "–".to_owned())
            };
            let head = [(*key).clone(), cell(&preset)];
            head.into_iter().chain(all.iter().map(cell)).collect::<Vec<_>>()
        };
        let others: Vec<Vec<String>> = keys.iter().filter(|k| is_other(k)).map(row).collect();
        if others.is_empty() {
            out += &paragraph("", &format!("All options are those of the preset {name}."));
        } else {
            out += &table(
                &format!("Options that differ from those of the preset {name}"),
                &heads,
                &others,
            );
        }
        let every: Vec<Vec<String>> = keys.iter().map(row).collect();
        out += &details("All options", &table("All options", &heads, &every));
        if sets.len() > MOST_SETS {
            out += &paragraph("note", &format!("Of the first {MOST_SETS} of {} runs.", sets.len()));
        }
    }
    out += &settings(sets);
    Ok(out + &models(sets))
}

/// Settings of the fit, versions and machine: whatever else the record of the run says, a row each.
fn settings(sets: &[Set]) -> String {
    let runs: Vec<&Run> = sets.iter().flat_map(|s| &s.runs).take(MOST_SETS).collect();
    let own = |run: &&Run| {
        let mut rest = run.header.clone();
        if let Some(map) = rest.as_object_mut() {
            for key in ["type", "step", "time", "options", "models", "plan", "format"] {
                map.remove(key);
            }
        }
        flat(&rest)
    };
    let all: Vec<BTreeMap<String, String>> = runs.iter().map(own).collect();
    let keys: std::collections::BTreeSet<&String> = all.iter().flat_map(BTreeMap::keys).collect();
    let rows: Vec<Vec<String>> = keys
        .iter()
        .filter(|key| !key.is_empty())
        .map(|key| {
            let cell = |own: &BTreeMap<String, String>| {
                own.get(*key).cloned().unwrap_or_else(|| "–".to_owned())
            };
            std::iter::once(title(key)).chain(all.iter().map(cell)).collect()
        })
        .collect();
    if rows.is_empty() {
        return paragraph("absent", "The log has no versions and settings.");
    }
    let heads: Vec<String> =
        std::iter::once("setting".to_owned()).chain(runs.iter().map(|r| r.name.clone())).collect();
    details("Versions, machine and settings of the fit", &table("Settings", &heads, &rows))
}

fn title(key: &str) -> String {
    match key {
        "version" => "libmmopt".to_owned(),
        "runtime" => "ONNX Runtime".to_owned(),
        "n_batches" => "batches in an epoch".to_owned(),
        key => key.to_owned(),
    }
}

/// The models of each set.
fn models(sets: &[Set]) -> String {
    let mut rows = Vec::new();
    for set in sets.iter().take(MOST_SETS) {
        for model in set.first().header["models"].as_array().into_iter().flatten() {
            let text = |key: &str| cut(model[key].as_str().unwrap_or("–"), 60);
            let amount =
                |key: &str| model[key].as_u64().map_or("–".to_owned(), |n| count(n as usize));
            rows.push(vec![
                text("name"),
                set.name.clone(),
                text("architecture"),
                text("task"),
                amount("n_parameters"),
                amount("n_trainable"),
                model["weight"].as_f64().map_or("–".to_owned(), |w| number(w, 3)),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let heads = ["model", "run", "architecture", "task", "parameters", "trained", "weight"];
    details("Models", &table("Models", &heads.map(str::to_owned), &rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(options: Options) -> Set {
        let options = serde_json::to_value(options).unwrap();
        let header = json!({"options": options, "version": "<0>", "fit": {"epochs": 3}});
        Set { name: "x".into(), runs: vec![Run { header, ..Run::default() }] }
    }

    #[test]
    fn only_what_the_preset_has_otherwise_is_shown() {
        let own = Options { learning_rate: 0.125, mutual: None, ..Options::default() };
        let text = html(&[set(own)]).unwrap();
        let first = text.split("<details>").next().unwrap();
        assert!(first.contains("learning_rate") && first.contains("0.125"), "{first}");
        assert!(first.contains("preset default") && !first.contains("beta1"), "{first}");
        assert!(
            text.contains("beta1") && text.contains("&lt;0&gt;") && text.contains("fit.epochs")
        );
        let text = html(&[set(Options::paper())]).unwrap();
        assert!(text.contains("All options are those of the preset paper."), "{text}");
        let none = Set { name: "x".into(), runs: vec![Run::default()] };
        assert!(html(&[none]).unwrap().contains("The log has no options."));
    }
}
