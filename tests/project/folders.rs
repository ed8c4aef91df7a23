//! The maps of docs/architecture.md and tests/README.md name every folder of the code, and no other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const ROOTS: [&str; 5] = ["src", "tests", "bindings", "tools", "scripts"];
const PAGES: [&str; 2] = ["docs/architecture.md", "tests/README.md"];
/// What lies below one of these is told where it lies.
const DATA: &str = "tests/data/";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Folders below `path` that hold files themselves, as `a/b/`.
fn folders(path: &str, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(root().join(path)).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{path}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            // One level of data.
            if !path.starts_with(DATA) {
                folders(&name, into);
            }
        } else {
            into.insert(format!("{path}/"));
        }
    }
}

/// What a page puts between backticks and ends with a slash, below one of the roots.
fn named(page: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let words = text.split('`').skip(1).step_by(2);
    let below = |word: &&str| ROOTS.iter().any(|r| word.starts_with(&format!("{r}/")));
    words.filter(|w| w.ends_with('/')).filter(below).map(str::to_owned).collect()
}

#[test]
fn maps_name_every_folder_and_no_other() {
    let mut there = BTreeSet::new();
    ROOTS.iter().for_each(|path| folders(path, &mut there));
    // The roots of `src` and `tests` hold no part of their own.
    there.retain(|f| f != "src/" && f != "tests/");
    let named: BTreeSet<String> = PAGES.iter().flat_map(|page| named(page)).collect();
    let unnamed: Vec<_> = there.difference(&named).collect();
    assert!(unnamed.is_empty(), "in neither of {PAGES:?}: {unnamed:?}");
    let gone: Vec<_> = named.iter().filter(|f| !root().join(f).is_dir()).collect();
    assert!(gone.is_empty(), "named in {PAGES:?}, but not there: {gone:?}");
}
