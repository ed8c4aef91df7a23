//! Names of classes and their ids.

use crate::error::{Error, Result};
use std::collections::HashMap;

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
    fn a_name_occurs_once() {
        assert!(LabelMap::from_names(["a", "a"]).is_err());
    }
}
