//! Names of classes and their ids, kept in the form that published `config.json` files use.

use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

/// The classes of a task: id -> name and back. Ids are 0 to `len() - 1`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelMap {
    names: Vec<String>,
    ids: HashMap<String, u32>,
}

impl LabelMap {
    /// From names in the order of their ids. Error: a name occurs twice.
    pub fn from_names<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Result<Self> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let mut ids = HashMap::with_capacity(names.len());
        for (id, name) in names.iter().enumerate() {
            if ids.insert(name.clone(), id as u32).is_some() {
                return Err(Error::invalid(format!("label '{name}' occurs twice")));
            }
        }
        Ok(Self { names, ids })
    }

    /// From the labels seen in data: integers sort by value, anything else by bytes, so that
    /// the ids do not depend on the order of the examples.
    pub fn from_seen<'a>(seen: impl IntoIterator<Item = &'a str>) -> Self {
        let mut names: Vec<String> = seen.into_iter().map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        if names.iter().all(|n| n.parse::<i64>().is_ok()) {
            names.sort_by_key(|n| n.parse::<i64>().unwrap_or_default());
        }
        let ids = names.iter().enumerate().map(|(i, n)| (n.clone(), i as u32)).collect();
        Self { names, ids }
    }

    /// Number of classes.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// True without any class.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The names in the order of their ids.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The id of a name.
    pub fn id(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied()
    }

    /// The name of an id.
    pub fn name(&self, id: u32) -> Option<&str> {
        self.names.get(id as usize).map(String::as_str)
    }

    /// `{"id2label": {"0": ...}, "label2id": {...}}`, as `config.json` carries it.
    pub fn to_json(&self) -> Value {
        let pairs = || self.names.iter().enumerate();
        let id2label: Map<_, _> = pairs().map(|(i, n)| (i.to_string(), json!(n))).collect();
        let label2id: Map<_, _> = pairs().map(|(i, n)| (n.clone(), json!(i))).collect();
        json!({ "id2label": id2label, "label2id": label2id })
    }

    /// From an object with `id2label`; other keys are ignored, so a whole `config.json` will do.
    ///
    /// Errors: `InvalidData` when `id2label` is missing or its ids are not 0, 1, 2, ...
    pub fn from_json(value: &Value) -> Result<Self> {
        let map = value
            .get("id2label")
            .and_then(Value::as_object)
            .ok_or_else(|| Error::data("no object 'id2label'"))?;
        let name = |i: usize| map.get(&i.to_string()).and_then(Value::as_str).map(str::to_owned);
        let names: Option<Vec<String>> = (0..map.len()).map(name).collect();
        let names = names.ok_or_else(|| {
            Error::data(format!("'id2label' needs names for the ids 0 to {}", map.len() - 1))
        })?;
        Self::from_names(names)
    }

    /// Writes [`LabelMap::to_json`] to a file.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = format!("{:#}\n", self.to_json());
        crate::file::write_atomically(path, |file| {
            file.write_all(text.as_bytes()).map_err(|e| Error::io(path, e))
        })
    }

    /// Reads what [`LabelMap::save`] wrote, or a `config.json`.
    pub fn load(path: &Path) -> Result<Self> {
        let text = crate::text::text_file::read_text(path)?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|e| Error::data(format!("{}: {e}", path.display())).with_source(e))?;
        Self::from_json(&value).map_err(|e| e.context(path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_do_not_depend_on_order() {
        let a = LabelMap::from_seen(["pos", "neg", "pos"]);
        assert_eq!(a.names(), ["neg", "pos"]);
        let b = LabelMap::from_seen(["10", "-1", "2"]);
        assert_eq!(b.names(), ["-1", "2", "10"]);
        assert_eq!(b.id("10"), Some(2));
        assert_eq!(b.name(3), None);
    }

    #[test]
    fn json_round_trip() {
        let names: Vec<String> = (0..12).map(|i| format!("class {i}")).collect();
        let map = LabelMap::from_names(names).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.json");
        map.save(&path).unwrap();
        assert_eq!(LabelMap::load(&path).unwrap(), map);
        assert!(LabelMap::from_json(&json!({"id2label": {"1": "a"}})).is_err());
        assert!(LabelMap::from_names(["a", "a"]).is_err());
    }
}
