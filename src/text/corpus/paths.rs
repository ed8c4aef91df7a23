//! The files that a path stands for: itself, or those that match a pattern.
//!
//! *pattern*: `*` stands for any characters of one name, `?` for one, in any part of the path. The
//! matching files are in the order of their paths, byte by byte. Names that begin with a dot match
//! only a pattern that does. A file that really has such a name is taken as it is.

use crate::error::{Error, Result};
use std::path::{Component, Path, PathBuf};

/// Most files that one corpus is read from.
const MAX_FILES: usize = 1_000_000;

/// The files of `path`, at least one.
///
/// Errors: `NotFound` for a pattern that no file matches, `Io` for a folder that cannot be read.
pub(crate) fn find(path: &Path) -> Result<Vec<PathBuf>> {
    let is_pattern = path.to_str().is_some_and(|p| p.contains(['*', '?']));
    if !is_pattern || path.exists() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = vec![PathBuf::new()];
    for part in path.components() {
        let name = part.as_os_str().to_string_lossy();
        if !matches!(part, Component::Normal(_)) || !name.contains(['*', '?']) {
            found.iter_mut().for_each(|p| p.push(part));
            continue;
        }
        let mut next = Vec::new();
        for folder in found.iter().filter(|f| f.as_os_str().is_empty() || f.is_dir()) {
            next.extend(entries(folder)?.into_iter().filter(|p| matches(&name, p)));
            check_number(next.len(), path)?;
        }
        found = next;
    }
    found.retain(|p| p.is_file());
    found.sort_unstable();
    if found.is_empty() {
        return Err(Error::not_found(format!("{}: no file matches the pattern", path.display())));
    }
    Ok(found)
}

/// The entries of a folder that do not begin with a dot, or do, in the order of their names.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let place = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let io = |e| Error::io(place, e);
    let mut all = Vec::new();
    for entry in std::fs::read_dir(place).map_err(io)? {
        all.push(folder.join(entry.map_err(io)?.file_name()));
        check_number(all.len(), folder)?;
    }
    all.sort_unstable();
    Ok(all)
}

fn check_number(n: usize, path: &Path) -> Result<()> {
    if n <= MAX_FILES {
        return Ok(());
    }
    Err(Error::invalid(format!("{}: more than {MAX_FILES} files", path.display())))
}

/// Whether an entry is hidden, as names that begin with a dot are.
pub(super) fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn matches(pattern: &str, path: &Path) -> bool {
    if is_hidden(path) && !pattern.starts_with('.') {
        return false;
    }
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else { return false };
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    // Where to go on when what follows the last star does not match.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (p, n) = (at + 1, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let fits = |pattern, name: &str| matches(pattern, Path::new(name));
        assert!(fits("*.tsv", "a.tsv") && fits("*", "a") && fits("a*b*c", "aXbbYc"));
        assert!(fits("?.txt", "\u{e9}.txt") && fits(".*", ".x"));
        assert!(!fits("*.tsv", "a.tsv.gz") && !fits("?", "ab") && !fits("*", ".x"));
        assert!(!fits("a*b", "a") && !fits("ab", "a"));
    }

    #[test]
    fn files_by_pattern_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b/2.txt", "a/2.txt", "a/1.txt", "a/.3.txt", "a/x.csv", "b/what?.txt"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let found = |pattern: &str| {
            let all = find(&dir.path().join(pattern))?;
            let name = |p: &PathBuf| p.strip_prefix(dir.path()).unwrap().display().to_string();
            Ok::<_, Error>(all.iter().map(name).collect::<Vec<_>>())
        };
        assert_eq!(found("*/?.txt").unwrap(), ["a/1.txt", "a/2.txt", "b/2.txt"]);
        assert_eq!(found("a/x.csv").unwrap(), ["a/x.csv"]);
        assert_eq!(found("b/what?.txt").unwrap(), ["b/what?.txt"]);
        assert_eq!(found("missing.csv").unwrap(), ["missing.csv"], "the reader says so");
        let e = found("*/*.json").unwrap_err();
        assert_eq!(e.kind(), crate::error::Kind::NotFound);
        assert!(e.message().ends_with("*/*.json: no file matches the pattern"), "{e}");
    }
}
