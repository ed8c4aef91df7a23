//! The committed header: the same as the generated one, and accepted by C and C++ compilers in
//! every mode that it promises. `MMOPT_UPDATE_HEADER=1` writes it instead of comparing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

#[path = "../../src/ffi/header.rs"]
#[allow(dead_code)]
mod order;

const GENERATED: &str = include_str!(concat!(env!("OUT_DIR"), "/mmopt.h"));

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn is_fresh() {
    let generated = GENERATED;
    let path = root().join("include/mmopt.h");
    assert!(generated.contains("mmopt_error_free"), "the header was not generated");
    if std::env::var_os("MMOPT_UPDATE_HEADER").is_some() {
        std::fs::write(&path, generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(committed == generated, "include/mmopt.h is stale; `make header` writes it");
}

/// Groups stand in the order of use, and in each file's group its items in the file's order.
#[test]
fn items_stand_in_the_order_of_use() {
    let mut last = 0;
    let mut place = |text: &str| {
        let at = GENERATED[last..].find(text);
        last += at.unwrap_or_else(|| panic!("'{text}' is missing or too early"));
    };
    for group in order::GROUPS {
        place(&format!("@defgroup {} ", group.id));
        for file in group.files {
            let source = std::fs::read_to_string(root().join("src/ffi").join(file)).unwrap();
            order::names(&source).iter().for_each(|name| place(name));
        }
    }
}

/// What is in no group, what is not there, and what has no comment is an error.
#[test]
fn items_that_are_lost_are_an_error() {
    let header = |generated: &str, source: &str| {
        let first = order::GROUPS[0].files[0];
        let read = |file: &str| Ok(if file == first { source.to_owned() } else { String::new() });
        order::header::<String>("", generated, read)
    };
    let (generated, source) =
        ("/**\n * A b.\n */\nMMOPT_API void mmopt_a(void);\n", "pub extern \"C\" fn mmopt_a()");
    assert!(
        header(generated, source).unwrap().contains("/** A b. */\nMMOPT_API void mmopt_a(void);\n")
    );
    assert!(header(generated, "").unwrap_err().contains("mmopt_a"));
    assert!(header("", source).unwrap_err().contains("mmopt_a"));
    assert!(header("MMOPT_API void mmopt_a(void);\n", source).is_err());
    assert!(header("/** . */\nunion mmopt_u {\n};\n", "").is_err());
}

/// Every function that the shared library exports is declared, and every declared one exported.
#[test]
fn declares_what_is_exported() {
    let mut declared = names_before_parenthesis(GENERATED);
    let mut exported: Vec<String> = sources()
        .iter()
        .flat_map(|text| {
            let mut parts = text.split("#[unsafe(no_mangle)]");
            parts.next();
            parts
                .map(|p| p.split_once("fn ").unwrap().1.split('(').next().unwrap().to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    declared.sort();
    exported.sort();
    assert!(declared.len() > 50, "{declared:?}");
    assert_eq!(declared, exported);
}

/// Each exported function is called by a C test, with NULL or for real.
#[test]
fn each_function_has_a_test() {
    let tests = std::fs::read_dir(root().join("tests/c")).unwrap();
    let text: String = tests.map(|f| std::fs::read_to_string(f.unwrap().path()).unwrap()).collect();
    let declared = names_before_parenthesis(GENERATED);
    let missing: Vec<_> =
        declared.iter().filter(|name| !text.contains(&format!("{name}("))).collect();
    assert!(missing.is_empty(), "without a test: {missing:?}");
}

/// Names that stand right before an opening parenthesis outside of comments.
fn names_before_parenthesis(header: &str) -> Vec<String> {
    let outside: String = header
        .split("/*")
        .map(|part| part.split_once("*/").map_or(part, |(_, rest)| rest))
        .collect();
    let last_word = |text: &str| {
        let start = text.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |i| i + 1);
        text[start..].to_owned()
    };
    let before = outside.split('(').map(last_word);
    before.filter(|name| name.starts_with("mmopt_")).collect()
}

fn sources() -> Vec<String> {
    fn visit(dir: &Path, into: &mut Vec<String>) {
        for path in std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()) {
            if path.is_dir() {
                visit(&path, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                into.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut all = Vec::new();
    visit(&root().join("src/ffi"), &mut all);
    all
}

/// C89 has no integers of a fixed size (stdint.h), so C99 is the oldest. The last C mode pretends
/// to be C23, where enumerations get their type, for compilers that only know its drafts.
#[test]
fn compiles_in_every_mode() {
    let c = ["c99", "c11", "c17", "c2x"];
    let cpp = ["c++11", "c++14", "c++17", "c++20", "c++2b"];
    let c23 = ["-U__STDC_VERSION__", "-D__STDC_VERSION__=202311L", "-Wno-builtin-macro-redefined"];
    let typed = [&c23[..], &["-Wno-fixed-enum-extension"]].concat();
    let mut n_run = 0;
    for (compiler, language, standards) in
        [("gcc", "c", &c[..]), ("clang", "c", &c), ("g++", "c++", &cpp), ("clang++", "c++", &cpp)]
    {
        if Command::new(compiler).arg("--version").output().is_err() {
            println!("not run: no {compiler}");
            continue;
        }
        for standard in standards {
            compile(compiler, language, standard, &[]);
            n_run += 1;
        }
        if compiler == "clang" {
            compile(compiler, language, "c2x", &typed);
            n_run += 1;
        }
    }
    println!("{n_run} modes");
    assert!(n_run > 0, "no C compiler found");
}

fn compile(compiler: &str, language: &str, standard: &str, flags: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("twice.txt");
    let text = "#include <mmopt.h>\n#include <mmopt.h>\n\
        int main(void) { return mmopt_version_number() != MMOPT_VERSION_NUMBER; }\n";
    std::fs::write(&source, text).unwrap();
    let output = Command::new(compiler)
        .args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wshadow", "-fsyntax-only"])
        .arg(format!("-std={standard}"))
        .args(flags)
        .args(["-x", language, "-I"])
        .arg(root().join("include"))
        .arg(&source)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler} -std={standard}:\n{errors}");
}
