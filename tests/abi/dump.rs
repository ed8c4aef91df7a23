//! The ABI against what was committed: the list of exported symbols, and a dump of every type and
//! signature (`tests/data/abi`). `MMOPT_UPDATE_ABI=1` writes them anew after a deliberate change.
//!
//! The dump is taken from a stub library that is generated from the header, as the header is what
//! programs are compiled with; that the real library exports the same names is the first test.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use crate::header::Header;
use crate::{c_program, header, recipes, stub};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn committed(name: &str) -> PathBuf {
    root().join("tests/data/abi").join(name)
}

fn updating() -> bool {
    std::env::var_os("MMOPT_UPDATE_ABI").is_some()
}

fn header_text() -> String {
    fs::read_to_string(root().join("include/mmopt.h")).unwrap()
}

fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    if !found {
        println!("not run: no {tool}");
    }
    found
}

fn text_of(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = text_of(&output);
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// What differs between two lists of lines, as `+ line` and `- line`.
fn difference(old: &str, new: &str) -> Vec<String> {
    let lacks = |text: &str, line: &str| !text.lines().any(|l| l == line);
    let gone = old.lines().filter(|l| lacks(new, l)).map(|l| format!("- {l}"));
    let come = new.lines().filter(|l| lacks(old, l)).map(|l| format!("+ {l}"));
    gone.chain(come).collect()
}

#[test]
#[cfg(feature = "text")]
fn symbols_are_the_committed_ones() {
    if !has("nm") {
        return;
    }
    let mut nm = Command::new("nm");
    let listed = run(nm.args(["-D", "--defined-only", "-f", "posix"]).arg(c_program::library()));
    let mut names: Vec<_> = listed.lines().filter_map(|l| l.split_whitespace().next()).collect();
    names.sort_unstable();
    let foreign: Vec<_> = names.iter().filter(|n| !n.starts_with("mmopt_")).collect();
    assert!(foreign.is_empty(), "visible, but not of this library: {foreign:?}");
    let found = names.join("\n") + "\n";
    if updating() {
        fs::create_dir_all(committed("")).unwrap();
        fs::write(committed("symbols.txt"), &found).unwrap();
    }
    let known = fs::read_to_string(committed("symbols.txt")).unwrap_or_default();
    let changes = difference(&known, &found);
    assert!(
        changes.is_empty(),
        "the exported symbols changed; after a deliberate change `make abi-dump`:\n{}",
        changes.join("\n")
    );
    assert_eq!(known, found);
}

/// Compiles the stub of a header under the library's SONAME into `dir`.
fn build_stub(dir: &Path, text: &str) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("mmopt.h"), text).unwrap();
    fs::write(dir.join("stub.c"), stub::source(&Header::parse(text))).unwrap();
    let name = format!("libmmopt.so.{}", env!("CARGO_PKG_VERSION_MAJOR"));
    // By name: another compiler describes the same types in other words.
    let compiler = if Command::new("gcc").arg("--version").output().is_ok() { "gcc" } else { "cc" };
    let map = format!("-fdebug-prefix-map={}=.", dir.display());
    let flags = ["-std=c99", "-g", "-O0", "-shared", "-fPIC", "-I.", &map];
    let soname = format!("-Wl,-soname,{name}");
    run(Command::new(compiler).args(flags).args(["stub.c", "-o", &name, &soname]).current_dir(dir));
    dir.join(name)
}

fn dump(dir: &Path, library: &Path) -> String {
    let mut abidw = Command::new("abidw");
    abidw.args(["--drop-private-types", "--no-comp-dir-path", "--no-corpus-path"]);
    abidw.args(["--no-show-locs", "--type-id-style", "hash", "--headers-dir"]).arg(dir);
    let output = abidw.arg(library).output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// What abidiff has to say; empty when it sees no difference.
fn abidiff(flags: &[&str], old: &Path, new: &Path) -> String {
    let mut abidiff = Command::new("abidiff");
    let output = abidiff.arg("--no-show-locs").args(flags).args([old, new]).output().unwrap();
    let code = output.status.code().unwrap_or(1);
    // 4: a change, 8: an incompatible one; 1 and 2: the tool failed.
    assert!(code & 3 == 0, "abidiff: {code}\n{}", text_of(&output));
    if code == 0 { String::new() } else { text_of(&output) }
}

/// What breaks programs that were compiled with an older header: not new functions, not new
/// enumerators, not fields at the end of structs that begin with their size.
fn breaks(dir: &Path, old: &Path, text: &str) -> String {
    let dump = fs::read_to_string(old).unwrap();
    let text = stub::as_long_as(text, &Header::parse(text), &dump);
    abidiff(&["--no-added-syms"], old, &build_stub(&dir.join("cut"), &text))
}

#[test]
fn types_and_signatures_are_the_committed_ones() {
    if !has("abidiff") || !has("abidw") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let text = header_text();
    let library = build_stub(dir.path(), &text);
    let known = committed("mmopt.abi");
    if known.exists() {
        let broken = breaks(dir.path(), &known, &text);
        if updating() {
            println!("{}", if broken.is_empty() { "nothing breaks" } else { broken.as_str() });
        } else {
            assert!(broken.is_empty(), "programs that exist would break:\n{broken}");
        }
    }
    if updating() {
        fs::create_dir_all(committed("")).unwrap();
        fs::write(&known, dump(dir.path(), &library)).unwrap();
    }
    let stale = abidiff(&["--harmless"], &known, &library);
    assert!(stale.is_empty(), "compatible, but not committed; `make abi-dump`:\n{stale}");
}

/// Each kind of break is seen, and what is allowed is not taken for one.
#[test]
fn breaks_are_seen_and_growth_is_not_a_break() {
    if !has("abidiff") || !has("abidw") {
        return;
    }
    let good = header_text();
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("old.abi");
    let place = dir.path().join("old");
    fs::write(&old, dump(&place, &build_stub(&place, &good))).unwrap();
    let corpus_text = "mmopt_corpus_text(const struct mmopt_corpus *corpus,";
    let padding = " ".repeat(38);
    let cases = [
        (true, "MMOPT_API uint32_t mmopt_version_number(void);", ""),
        (true, "MMOPT_TASK_CAUSAL_LM = 5", "MMOPT_TASK_CAUSAL_LM = 6"),
        (true, "    uint64_t n_correct;", "    uint64_t n_correct; uint64_t inserted;"),
        (true, "    double beta1;", "    double beta1; double inserted;"),
        (true, "    double beta2;", "    float beta2;"),
        (true, "typedef double (*mmopt_rate_fn)", "typedef float (*mmopt_rate_fn)"),
        (false, "MMOPT_TASK_CAUSAL_LM = 5,", "MMOPT_TASK_CAUSAL_LM = 5, MMOPT_TASK_NEW = 6,"),
        (false, "const char *options_json;", "const char *options_json; uint32_t more;"),
        (
            false,
            "MMOPT_API uint32_t mmopt_version_number(void);",
            "MMOPT_API uint32_t \
          mmopt_version_number(void);\nMMOPT_API void mmopt_new(void);",
        ),
    ];
    let index = format!("{corpus_text}\n{padding}size_t example");
    let narrow = format!("{corpus_text}\n{padding}uint32_t example");
    let all = cases.iter().copied().chain([(true, index.as_str(), narrow.as_str())]);
    for (i, (is_break, from, to)) in all.enumerate() {
        assert!(good.contains(from), "the header has no '{from}' any more");
        let text = good.replacen(from, to, 1);
        let place = dir.path().join(i.to_string());
        let seen = breaks(&place, &old, &text);
        assert_eq!(!seen.is_empty(), is_break, "'{from}' -> '{to}':\n{seen}");
    }
}

/// What the comment of a function says about one of its parameters.
fn said_of<'a>(doc: &'a str, parameter: &str) -> Option<&'a str> {
    let parts = doc.split("@param").skip(1);
    let mut texts =
        parts.map(|p| p.split_once(']').filter(|_| p.starts_with('[')).map_or(p, |s| s.1));
    texts.find_map(|t| t.trim_start().strip_prefix(parameter)?.strip_prefix(' '))
}

/// What is missing in the comment of a function.
fn omissions(header: &Header, f: &header::Function) -> Vec<String> {
    let recipe = recipes::Recipe::of(include_str!("recipes.txt"), &f.name);
    let mut missing = Vec::new();
    let mut want = |holds: bool, what: &str, parameter: &str| {
        if !holds {
            missing.push(format!("{}: {what} {parameter}", f.name));
        }
    };
    let prose = f.doc.split("@param").next().unwrap_or_default().trim();
    want(prose.len() > 10 && prose.ends_with('.'), "a sentence", "");
    want(!f.can_fail() || f.doc.contains("Errors"), "what fails", "");
    for p in &f.parameters {
        let said = said_of(&f.doc, &p.name);
        want(said.is_some_and(|s| s.trim().len() > 3), "@param", &p.name);
        let (said, name) = (said.unwrap_or_default(), p.name.as_str());
        let is_handle = p.noun().is_some_and(|n| header.handles.iter().any(|h| h == n));
        match (is_handle, p.depth(), p.is_const()) {
            (true, 1, _) if name == "labels_of" => want(said.contains("NULL"), "NULL for", name),
            (true, 1, true) => want(said.contains("shared access"), "threads for", name),
            (true, 1, false) if f.is_free() => want(said.contains("freed"), "the end of", name),
            (true, 1, false) => want(said.contains("exclusive access"), "threads for", name),
            (true, 2, false) => want(said.contains("_free"), "the owner of", name),
            _ => {}
        }
        if p.ctype == "char **" && !recipe.may_be_null(f, p) {
            want(said.contains("mmopt_string_free"), "the owner of", name);
        }
        let optional = f.can_fail() && p.is_pointer() && recipe.may_be_null(f, p);
        want(!optional || name == "user" || said.contains("NULL"), "NULL for", name);
    }
    missing
}

#[test]
fn comments_say_what_they_must() {
    let header = Header::parse(&header_text());
    let missing: Vec<_> = header.functions.iter().flat_map(|f| omissions(&header, f)).collect();
    assert!(missing.is_empty(), "comments in src/ffi lack:\n{}", missing.join("\n"));
}

#[test]
fn missing_comments_are_told() {
    let text = header_text();
    let line = "@param[out] text the text; free it with mmopt_string_free.";
    assert!(text.contains(line));
    for bad in [text.replace(line, ""), text.replace("Errors", "It may fail")] {
        let header = Header::parse(&bad);
        assert!(header.functions.iter().any(|f| !omissions(&header, f).is_empty()));
    }
}

/// Doxygen has nothing to complain about.
#[test]
fn documentation_builds_without_warnings() {
    if !has("doxygen") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let rules = fs::read_to_string(root().join("Doxyfile")).unwrap();
    let rules = rules.replace("build/docs", dir.path().to_str().unwrap());
    fs::write(dir.path().join("Doxyfile"), rules).unwrap();
    run(Command::new("doxygen").arg(dir.path().join("Doxyfile")).current_dir(root()));
}
