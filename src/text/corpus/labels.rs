//! Names of classes and their ids.

use crate::error::{Error, Result};
use std::collections::{BTreeSet, HashMap};

/// The classes of a task: id -> name and back. Ids are 0 to `len() - 1`. Whole numbers are one
/// class however they are written: `1` and `1.0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelMap {
    names: Vec<String>,
    ids: HashMap<String, u32>,
}

impl LabelMap {
    /// From names in the order of their ids. Error: a name occurs twice, also as `1` and `1.0`.
    pub fn from_names<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Result<Self> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let mut ids = HashMap::with_capacity(names.len());
        for (id, name) in names.iter().enumerate() {
            if let Some(first) = ids.insert(plain(name).to_owned(), id as u32) {
                let first = names.get(first as usize).filter(|first| *first != name);
                let as_first = first.map_or(String::new(), |first| format!(", first as '{first}'"));
                return Err(Error::invalid(format!("label '{name}' occurs twice{as_first}")));
            }
        }
        Ok(Self { names, ids })
    }

    /// From the labels seen in data: integers sort by value, anything else by bytes, so that
    /// the ids do not depend on the order of the examples. `1.0` is named `1`.
    pub fn from_seen<'a>(seen: impl IntoIterator<Item = &'a str>) -> Self {
        // One by one: `collect` would take room for all that were seen.
        let mut names = BTreeSet::new();
        for name in seen {
            names.insert(plain(name));
        }
        let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
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
        self.ids.get(plain(name)).copied()
    }

    /// The name of an id.
    pub fn name(&self, id: u32) -> Option<&str> {
        self.names.get(id as usize).map(String::as_str)
    }
}

/// A whole number without the zeros behind its point, as other programs write it; any other name
/// as it is.
fn plain(name: &str) -> &str {
    let Some((whole, zeros)) = name.split_once('.') else { return name };
    let digits = whole.strip_prefix(['-', '+']).unwrap_or(whole);
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if is_number && zeros.bytes().all(|b| b == b'0') { whole } else { name }
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
        let e = LabelMap::from_names(["1", "0", "1.0"]).unwrap_err();
        assert_eq!(e.message(), "label '1.0' occurs twice, first as '1'");
    }

    #[test]
    fn one_and_one_point_nought_are_one_class() {
        let seen = LabelMap::from_seen(["1.0", "0", "1", "-2.00", "0."]);
        assert_eq!(seen.names(), ["-2", "0", "1"]);
        assert_eq!((seen.id("1.0"), seen.id("1"), seen.id("1.5")), (Some(2), Some(2), None));
        let named = LabelMap::from_names(["0.0", "1.0"]).unwrap();
        assert_eq!((named.id("1"), named.name(1)), (Some(1), Some("1.0")));
        let other = LabelMap::from_seen(["1.5", "v1.0", ".0", "1.0.0", "a"]);
        assert_eq!(other.names(), [".0", "1.0.0", "1.5", "a", "v1.0"]);
    }
}
