//! The script that fetches real sentences: it fails cleanly, and converts as it says.
#![cfg(all(unix, feature = "text"))]
#![allow(clippy::unwrap_used, clippy::panic)]

use mmopt::text::{Corpus, CorpusOptions};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}

/// Runs the script with an interpreter that is a shell script of ours.
fn fetch(folder: &Path, python: &str) -> Output {
    use std::os::unix::fs::PermissionsExt;
    let fake = folder.join("python");
    std::fs::write(&fake, format!("#!/bin/sh\n{python}\n")).unwrap();
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
    Command::new(scripts().join("fetch_data.sh"))
        .arg(folder.join("data"))
        .env("PYTHON", &fake)
        .output()
        .unwrap()
}

#[test]
fn failures_leave_nothing_behind() {
    let check = |python: &str, expect: &str| {
        let folder = tempfile::tempdir().unwrap();
        let out = fetch(folder.path(), python);
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{text}");
        assert!(text.contains(expect), "{text}");
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "only the interpreter: {left:?}");
    };
    check("exit 1", "pip could not fetch");
    check("echo No matching distribution; exit 1", "No matching distribution");
    let other = "while [ \"$1\" != --dest ]; do shift; done\n\
        echo something else > \"$2/vaderSentiment-3.3.2.tar.gz\"";
    check(other, "the checksum is not");
    check("exit 0", "no such file");
}

#[test]
fn what_is_there_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("train.tsv"), "x\t1\n").unwrap();
    std::fs::write(data.join("eval.tsv"), "y\t0\n").unwrap();
    assert!(fetch(folder.path(), "exit 1").status.success());
    assert_eq!(std::fs::read_to_string(data.join("train.tsv")).unwrap(), "x\t1\n");
}

#[test]
fn ratings_become_labels_and_equal_sentences_stay_together() {
    let folder = tempfile::tempdir().unwrap();
    let mut rows = String::new();
    for i in 0..1000 {
        let mean = f64::from(i % 9 - 4) / 2.0;
        let text = format!("Sentence  number {} , it's fine", i / 2);
        let text = if i % 2 == 0 { text } else { text.to_uppercase() + "!" };
        rows.push_str(&format!("{i}\t{mean}\t{text}\r\n"));
    }
    let raw = folder.path().join("raw.txt");
    std::fs::write(&raw, rows).unwrap();
    let path = |name: &str| folder.path().join(name);
    let status = Command::new("awk")
        .env("LC_ALL", "C")
        .arg("-v")
        .arg(format!("train={}", path("train.tsv").display()))
        .arg("-v")
        .arg(format!("eval={}", path("eval.tsv").display()))
        .arg("-f")
        .arg(scripts().join("reviews.awk"))
        .arg(&raw)
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    let read =
        |name| Corpus::read_classification(&path(name), &CorpusOptions::default(), None).unwrap();
    let (train, eval) = (read("train.tsv"), read("eval.tsv"));
    // Of nine ratings three (-0.5, 0, 0.5) are left out; 1000 = 111 * 9 + 1, the first is -2.
    assert_eq!(train.len() + eval.len(), 111 * 6 + 1);
    assert_eq!(train.label_counts()[1] + eval.label_counts()[1], 111 * 3);
    assert!((40..120).contains(&eval.len()), "{}", eval.len());
    let keys = |c: &Corpus| -> BTreeSet<String> {
        c.texts().unwrap().iter().map(|t| t.to_lowercase().replace('!', "")).collect()
    };
    assert!(keys(&train).is_disjoint(&keys(&eval)));
    assert!(!keys(&train).iter().any(|k| k.contains("  ") || k.contains('\r')));
}
