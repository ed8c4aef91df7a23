//! What the architecture forbids: imports that the code map in docs/architecture.md does not have,
//! and entries of the map that the code does not have; circles of modules and of files; unsafe code
//! outside its places; output on stdout; unfinished code; long lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &[
    "src/ffi/",
    "src/runtime/",
    "src/optim/",
    "src/file.rs",
    "src/memory.rs",
    "src/pin.rs",
    "src/train/session/bound.rs",
    "src/train/trainer.rs",
];

/// The most files that may import each other in a circle.
const LARGEST_CIRCLE: usize = 3;

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for item in fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// Path and text of every file below src.
fn all() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    files
        .into_iter()
        .map(|p| {
            let name = p.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            (name, fs::read_to_string(p).unwrap())
        })
        .collect()
}

/// Code without comments and without `#[cfg(test)]` modules at the end of a file.
fn code(text: &str) -> String {
    let body = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    body.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn check(broken: &[String]) {
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// A module's path below the crate: `["onnx", "graph"]`.
type Module = Vec<String>;

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// One import of a file: the path as written, and the name that it gets.
struct Import {
    path: Vec<String>,
    name: String,
    is_public: bool,
}

/// The paths of a use tree such as `a::{b, c::{d as e, self}}`.
fn use_tree(tree: &str, prefix: &[String], into: &mut Vec<(Vec<String>, String)>) {
    let tree = tree.trim();
    if let Some(at) = tree.find('{') {
        let mut path = prefix.to_vec();
        path.extend(
            tree[..at].split("::").map(str::trim).filter(|s| !s.is_empty()).map(String::from),
        );
        let inner = &tree[at + 1..tree.rfind('}').unwrap()];
        let (mut depth, mut start) = (0, 0);
        for (i, c) in inner.char_indices().chain([(inner.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    if !inner[start..i].trim().is_empty() {
                        use_tree(&inner[start..i], &path, into);
                    }
                    start = i + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let (path, name) = tree.split_once(" as ").unwrap_or((tree, ""));
    let mut full = prefix.to_vec();
    full.extend(
        path.split("::").map(|s| s.trim().to_owned()).filter(|s| s != "self" && !s.is_empty()),
    );
    let name = if name.is_empty() {
        full.last().cloned().unwrap_or_default()
    } else {
        name.trim().to_owned()
    };
    into.push((full, name));
}

/// The imports of some code, and the rest of it.
fn split_imports(code: &str) -> (Vec<Import>, String) {
    let (mut imports, mut rest) = (Vec::new(), String::new());
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let trimmed = line.trim_start();
        let bare = match trimmed.strip_prefix("pub") {
            Some(after) if after.starts_with('(') => {
                after.split_once(')').map_or(after, |p| p.1).trim_start()
            }
            Some(after) => after.trim_start(),
            None => trimmed,
        };
        let Some(start) = bare.strip_prefix("use ") else {
            rest.push_str(line);
            rest.push('\n');
            continue;
        };
        let mut statement = start.to_owned();
        while !statement.contains(';') {
            statement.push(' ');
            statement.push_str(lines.next().unwrap().trim());
        }
        let mut found = Vec::new();
        use_tree(statement.split(';').next().unwrap(), &[], &mut found);
        let is_public = trimmed.starts_with("pub");
        imports.extend(found.into_iter().map(|(path, name)| Import { path, name, is_public }));
    }
    (imports, rest)
}

/// Paths with at least one `::` in some code.
fn paths(code: &str) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    let mut rest = code;
    while let Some(start) = rest.find(is_word) {
        rest = &rest[start..];
        let mut path = Vec::new();
        loop {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            path.push(rest[..end].to_owned());
            rest = &rest[end..];
            match rest.strip_prefix("::") {
                Some(after) if after.starts_with(is_word) => rest = after,
                _ => break,
            }
        }
        if path.len() > 1 {
            found.insert(path);
        }
    }
    found
}

/// The crate's modules with their imports.
struct Crate {
    files: BTreeMap<Module, String>,
    imports: BTreeMap<Module, Vec<Import>>,
    /// Code without its imports.
    code: BTreeMap<Module, String>,
}

impl Crate {
    fn read() -> Self {
        let mut this =
            Self { files: BTreeMap::new(), imports: BTreeMap::new(), code: BTreeMap::new() };
        for (path, text) in all() {
            let name = path.strip_prefix("src/").unwrap().strip_suffix(".rs").unwrap();
            let mut module: Module = name.split('/').map(String::from).collect();
            if module.last().is_some_and(|m| m == "mod" || m == "lib") {
                module.pop();
            }
            let (imports, code) = split_imports(&code(&text));
            this.files.insert(module.clone(), path);
            this.imports.insert(module.clone(), imports);
            this.code.insert(module, code);
        }
        this
    }

    /// The module that defines what `path` names in `module`; re-exports are followed. `None` for
    /// other crates and for what is no path to an item.
    fn resolve(&self, module: &Module, path: &[String], depth: usize) -> Option<Module> {
        let (mut at, mut rest) = match path[0].as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (module.clone(), &path[1..]),
            "super" => (module[..module.len().checked_sub(1)?].to_vec(), &path[1..]),
            first => {
                let child: Module = module.iter().cloned().chain([first.to_owned()]).collect();
                if !self.files.contains_key(&child) {
                    let import = self.imports[module].iter().find(|i| i.name == first)?;
                    if import.path[0] == first || depth == 0 {
                        return None;
                    }
                    let whole: Vec<String> =
                        import.path.iter().chain(&path[1..]).cloned().collect();
                    return self.resolve(module, &whole, depth - 1);
                }
                (module.clone(), path)
            }
        };
        while let Some((first, after)) = rest.split_first() {
            if first == "super" {
                at.pop()?;
                rest = after;
                continue;
            }
            let child: Module = at.iter().cloned().chain([first.clone()]).collect();
            if self.files.contains_key(&child) {
                (at, rest) = (child, after);
                continue;
            }
            let import = self.imports[&at].iter().find(|i| i.name == *first);
            return match import {
                Some(import) if depth > 0 => self.resolve(&at, &import.path, depth - 1),
                _ => Some(at),
            };
        }
        Some(at)
    }

    /// Each module with those whose items it uses.
    fn edges(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let edges = |module: &Module| {
            let code = &self.code[module];
            let words: BTreeSet<&str> = code.split(|c| !is_word(c)).collect();
            let imports = self.imports[module].iter();
            // What a module only hands on it does not use.
            let used = imports.filter(|i| !i.is_public || words.contains(i.name.as_str()));
            let mut found: BTreeSet<Module> =
                used.filter_map(|i| self.resolve(module, &i.path, 8)).collect();
            found.extend(paths(code).iter().filter_map(|p| self.resolve(module, p, 8)));
            found.remove(module);
            found.remove(&Module::new());
            found
        };
        self.files.keys().map(|m| (m.clone(), edges(m))).collect()
    }
}

/// Sets of two and more modules that all reach each other.
fn circles(edges: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<BTreeSet<Module>> {
    let reach = |from: &Module| {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from]);
        while let Some(m) = todo.pop() {
            todo.extend(edges[m].iter().filter(|&next| seen.insert(next.clone())));
        }
        seen
    };
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        edges.keys().map(|m| (m, reach(m))).collect();
    let mut found = BTreeSet::new();
    for (m, others) in &reached {
        let circle: BTreeSet<Module> =
            others.iter().filter(|o| reached[o].contains(*m)).cloned().collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

/// The code map of docs/architecture.md: each module and what it may import.
fn code_map() -> BTreeMap<String, BTreeSet<String>> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let page = fs::read_to_string(page).unwrap();
    let map = page.split("\n## Code map\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let names = |cell: &str| -> BTreeSet<String> {
        cell.split('`').skip(1).step_by(2).map(String::from).collect()
    };
    let mut found = BTreeMap::new();
    for row in map.lines().filter(|l| l.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        for module in names(cells[0]) {
            let imports = names(cells.last().unwrap());
            assert!(found.insert(module.clone(), imports).is_none(), "two rows for {module}");
        }
    }
    found
}

/// Modules of the crate with the other modules that they import, each with a file that does so.
fn layers(this: &Crate) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for (module, imports) in this.edges() {
        let Some(layer) = module.first() else { continue };
        let into = found.entry(layer.clone()).or_default();
        for other in imports.iter().map(|i| &i[0]).filter(|o| *o != layer) {
            into.entry(other.clone()).or_insert_with(|| this.files[&module].clone());
        }
    }
    found
}

#[test]
fn imports_and_the_code_map_agree() {
    let (layers, map) = (layers(&Crate::read()), code_map());
    let mut broken = Vec::new();
    for (layer, imports) in &layers {
        let Some(drawn) = map.get(layer) else {
            broken.push(format!("docs/architecture.md: the code map has no row for `{layer}`"));
            continue;
        };
        let is_common = |other: &str| ["error", "memory", "threads"].contains(&other);
        for (other, file) in imports.iter().filter(|(o, _)| !drawn.contains(*o) && !is_common(o)) {
            broken.push(format!("{file}: {layer} must not import {other}, by the code map"));
        }
        for other in drawn.iter().filter(|o| !imports.contains_key(*o)) {
            broken.push(format!("docs/architecture.md: {layer} does not import `{other}`"));
        }
    }
    for layer in map.keys().filter(|m| !layers.contains_key(*m)) {
        broken.push(format!("docs/architecture.md: there is no module `{layer}`"));
    }
    check(&broken);
}

#[test]
fn modules_import_each_other_in_no_circle() {
    let layers = layers(&Crate::read());
    let edges: BTreeMap<Module, BTreeSet<Module>> = layers
        .into_iter()
        .map(|(m, to)| (vec![m], to.into_keys().map(|to| vec![to]).collect()))
        .collect();
    check(
        &circles(&edges).iter().map(|c| format!("a circle of modules: {c:?}")).collect::<Vec<_>>(),
    );
}

#[test]
fn circles_of_files_are_small_and_rules_have_none() {
    let this = Crate::read();
    let edges = this.edges();
    let mut broken = Vec::new();
    for circle in circles(&edges) {
        let files: Vec<&str> = circle.iter().map(|m| this.files[m].as_str()).collect();
        let strict = files.iter().any(|f| f.starts_with("src/autodiff/"));
        if files.len() <= LARGEST_CIRCLE && !strict {
            continue;
        }
        broken.push(format!("a circle of {} files:", files.len()));
        for m in &circle {
            let next: Vec<&str> =
                edges[m].intersection(&circle).map(|n| this.files[n].as_str()).collect();
            broken.push(format!("  {} imports {}", this.files[m], next.join(", ")));
        }
    }
    check(&broken);
}

#[test]
fn imports_are_read_as_the_compiler_reads_them() {
    let (imports, rest) =
        split_imports("pub(crate) use super::{a::{self, B as C},\n    d::*};\nfn f() {}\n");
    let read: Vec<(String, &str, bool)> =
        imports.iter().map(|i| (i.path.join("::"), i.name.as_str(), i.is_public)).collect();
    assert_eq!(
        read,
        [
            ("super::a".to_owned(), "a", true),
            ("super::a::B".to_owned(), "C", true),
            ("super::d::*".to_owned(), "*", true)
        ]
    );
    assert_eq!(rest, "fn f() {}\n");
    let this = Crate::read();
    let resolve = |module: &str, path: &str| {
        let split = |text: &str| -> Vec<String> { text.split("::").map(String::from).collect() };
        this.resolve(&split(module), &split(path), 8).map(|m| m.join("::"))
    };
    // Through a re-export, by a name that was imported, and of another crate.
    assert_eq!(resolve("train", "crate::onnx::Graph::read").as_deref(), Some("onnx::graph"));
    assert_eq!(resolve("onnx::inline", "read::append").as_deref(), Some("onnx::read"));
    assert_eq!(resolve("onnx::read", "std::path::Path"), None);
}

#[test]
fn unsafe_code_stays_in_its_places() {
    let files = all();
    let broken: Vec<String> = files
        .iter()
        .filter(|(path, _)| !UNSAFE.iter().any(|place| path.starts_with(place)))
        .filter(|(_, text)| code(text).contains("unsafe "))
        .map(|(path, _)| format!("{path}: unsafe code"))
        .collect();
    check(&broken);
}

#[test]
fn library_code_is_quiet_finished_and_readable() {
    let mut broken = Vec::new();
    for (path, text) in all() {
        for (n, line) in text.lines().enumerate() {
            let place = format!("{path}:{}", n + 1);
            if line.chars().count() > 100 {
                broken.push(format!("{place}: longer than 100 columns"));
            }
            for word in ["println!", "eprintln!", "dbg!", "todo!(", "unimplemented!("] {
                let test = path.contains("test");
                if line.contains(word) && !test && !line.trim_start().starts_with("//") {
                    broken.push(format!("{place}: {word}"));
                }
            }
        }
        if !text.starts_with("//!") {
            broken.push(format!("{path}: opens without saying what it is"));
        }
    }
    check(&broken);
}
