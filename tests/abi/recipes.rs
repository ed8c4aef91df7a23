//! `recipes.txt`: good values, and what may be NULL or any number.

use super::header::{Function, Variable};

/// The lines of the file that are about one function, and those about all of them.
pub struct Recipe<'a> {
    own: Vec<(&'a str, &'a str)>,
    common: Vec<(&'a str, &'a str)>,
}

/// One line: the function, the key, the value.
fn parsed(line: &str) -> Option<(&str, &str, &str)> {
    let (left, value) = line.split_once(" = ")?;
    let (function, key) = left.split_once(' ')?;
    Some((function, key.trim(), value.trim()))
}

/// All lines but comments.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty())
}

/// Lines about nothing that the header has, and lines that are none.
pub fn strays<'a>(text: &'a str, functions: &[Function]) -> Vec<&'a str> {
    let known = |name: &str, key: &str| {
        let Some(f) = functions.iter().find(|f| f.name == name) else { return name == "*" };
        let words = ["before", "after", "null", "must", "any", "fails"];
        words.contains(&key) || f.parameters.iter().any(|p| p.name == key)
    };
    lines(text).filter(|l| !parsed(l).is_some_and(|(f, key, _)| known(f, key))).collect()
}

impl<'a> Recipe<'a> {
    pub fn of(text: &'a str, function: &str) -> Self {
        let about = |wanted: &str| {
            let all = lines(text).filter_map(parsed).filter(move |l| l.0 == wanted);
            all.map(|(_, key, value)| (key, value)).collect::<Vec<_>>()
        };
        Self { own: about(function), common: about("*") }
    }

    /// What a line of this function's says.
    pub fn value(&self, key: &str) -> Option<&'a str> {
        self.own.iter().find(|l| l.0 == key).map(|l| l.1)
    }

    /// The good value of a parameter. Lines about all functions are about inputs.
    pub fn good(&self, p: &Variable) -> Option<&'a str> {
        let input = !p.is_pointer() || p.is_const() && !p.ctype.ends_with("**");
        let common = || self.common.iter().find(|l| l.0 == p.name && input).map(|l| l.1);
        self.value(&p.name).or_else(common)
    }

    fn lists(&self, key: &str, word: &str) -> bool {
        let mut lists = self.own.iter().chain(&self.common).filter(|l| l.0 == key);
        lists.any(|l| l.1.split_whitespace().any(|w| w == word))
    }

    /// Whether a pointer may be NULL.
    pub fn may_be_null(&self, f: &Function, p: &Variable) -> bool {
        // Without a way to fail, NULL is documented: harmless, or nothing.
        let must = self.value("must").is_some_and(|names| names.contains(&p.name));
        !f.can_fail() || self.lists("null", &p.name) && !must
    }

    /// Whether a number has no illegal value.
    pub fn takes_any(&self, number: &str) -> bool {
        self.lists("any", number)
    }
}
