//! Directories of checkpoints: what is written, found, skipped, kept and removed.

use std::fs;
use std::path::{Path, PathBuf};

use super::listing::{list, prune};
use super::reader::{Checkpoint, open};
use super::writer::{Keep, Writer};
use crate::error::{Error, Kind, Result};

fn fill(dir: &Path, text: &str) -> Result<()> {
    let put = |name: &str, text: &str| {
        fs::write(dir.join(name), text).map_err(|e| Error::io(&dir.join(name), e))
    };
    put("a.txt", text)?;
    put("b.txt", "b")
}

fn save(root: &Path, step: u64, text: &str) -> PathBuf {
    save_as(root, step, text, "run", Keep::last(2))
}

fn save_as(root: &Path, step: u64, text: &str, run: &str, keep: Keep) -> PathBuf {
    Writer::open(root).unwrap().write(step, run, keep, |dir| fill(dir, text)).unwrap()
}

fn steps(root: &Path) -> Vec<u64> {
    list(root).unwrap().iter().map(|c| c.step.unwrap()).collect()
}

fn text(found: &Checkpoint) -> &str {
    found.text("a.txt").unwrap()
}

#[test]
fn the_newest_of_a_run_stay() {
    let root = tempfile::tempdir().unwrap();
    let root = &root.path().join("made/with/parents");
    for step in [1, 2, 30] {
        save(root, step, &format!("text {step}"));
    }
    let found = open(root).unwrap();
    assert_eq!((found.step, text(&found), found.skipped.len()), (30, "text 30", 0));
    assert_eq!(steps(root), [30, 2]);
    assert_eq!(open(&root.join("step-00000002")).unwrap().step, 2);
    // A run that begins anew is newer though its step is smaller, and leaves the others alone.
    save_as(root, 5, "other", "other run", Keep::last(1));
    assert_eq!(open(root).unwrap().step, 5);
    assert_eq!(steps(root), [5, 30, 2]);
}

#[test]
fn damage_falls_back_and_is_told() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    save(root, 1, "text 1");
    let newest = save(root, 2, "text 2");
    let whole: Vec<(PathBuf, Vec<u8>)> = ["a.txt", "b.txt", "manifest.json"]
        .map(|name| (newest.join(name), fs::read(newest.join(name)).unwrap()))
        .to_vec();
    for (path, bytes) in &whole {
        let changes: [&dyn Fn(); 4] = [
            &|| fs::write(path, &bytes[..bytes.len() - 1]).unwrap(),
            &|| fs::write(path, [&bytes[1..], &bytes[..1]].concat()).unwrap(),
            &|| fs::remove_file(path).unwrap(),
            &|| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            },
        ];
        for (i, change) in changes.iter().enumerate() {
            // A text of one byte is the same turned.
            if i == 1 && bytes.len() == 1 {
                continue;
            }
            change();
            let found = open(root).unwrap();
            assert_eq!((found.step, text(&found)), (1, "text 1"), "{i} of {}", path.display());
            assert_eq!(found.skipped.len(), 1);
            assert_eq!(found.skipped[0].path, newest);
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(found.skipped[0].why.contains(name), "{}", found.skipped[0].why);
            assert!(list(root).unwrap().iter().any(|c| c.damage.is_some()));
            if path.is_dir() {
                fs::remove_dir(path).unwrap();
            }
            fs::write(path, bytes).unwrap();
            assert_eq!(open(root).unwrap().step, 2);
        }
    }
    // Without a whole one it is damage, not absence.
    for step in [1, 2] {
        fs::write(root.join(format!("step-0000000{step}/b.txt")), "x").unwrap();
    }
    let error = open(root).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidData);
    assert!(error.message().contains("step-00000001"), "{error}");
    assert_eq!(prune(root, 1).unwrap().len(), 2);
    assert_eq!(open(root).unwrap_err().kind(), Kind::NotFound);
}

#[cfg(unix)]
#[test]
fn links_out_of_a_checkpoint_and_pipes_are_damage() {
    let root = tempfile::tempdir().unwrap();
    let newest = save(root.path(), 1, "text");
    fs::rename(newest.join("a.txt"), root.path().join("a.txt")).unwrap();
    std::os::unix::fs::symlink(root.path().join("a.txt"), newest.join("a.txt")).unwrap();
    let error = open(root.path()).unwrap_err();
    assert!(error.message().contains("a.txt is no plain file"), "{error}");
    fs::remove_file(newest.join("a.txt")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(newest.join("a.txt")).status();
    assert!(made.unwrap().success());
    assert_eq!(open(root.path()).unwrap_err().kind(), Kind::InvalidData);
}

#[test]
fn a_failed_write_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    save(root, 5, "good");
    let before: Vec<_> = fs::read_dir(root).unwrap().map(|f| f.unwrap().path()).collect();
    for n_files in 0..3 {
        let writer = Writer::open(root).unwrap();
        let failed = writer.write(6, "run", Keep::last(2), |dir| {
            for i in 0..n_files {
                fs::write(dir.join(i.to_string()), "x").unwrap();
            }
            Err(Error::new(Kind::Io, "disk full"))
        });
        assert_eq!(failed.unwrap_err().kind(), Kind::Io);
        assert_eq!(open(root).unwrap().step, 5);
        let after: Vec<_> = fs::read_dir(root).unwrap().map(|f| f.unwrap().path()).collect();
        assert_eq!(after, before);
    }
    // What a process that died left behind goes with the next writer.
    fs::create_dir(root.join(".partial-1-2")).unwrap();
    fs::write(root.join(".partial-1-2/junk"), "x").unwrap();
    assert_eq!(open(root).unwrap().step, 5);
    save(root, 6, "next");
    assert!(!root.join(".partial-1-2").exists());
    assert_eq!(open(root).unwrap().step, 6);
}

#[test]
fn one_writer_at_a_time() {
    let root = tempfile::tempdir().unwrap();
    let first = Writer::open(root.path()).unwrap();
    let error = Writer::open(root.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::State);
    assert!(error.message().contains("another"), "{error}");
    assert_eq!(prune(root.path(), 1).unwrap_err().kind(), Kind::State);
    drop(first);
    Writer::open(root.path()).unwrap();
}

/// What cannot be checked is not damaged: it is not pruned.
#[test]
fn a_checkpoint_of_a_later_library_stays() {
    let root = tempfile::tempdir().unwrap();
    save(root.path(), 1, "a");
    save(root.path(), 2, "b");
    let manifest = root.path().join("step-00000002/manifest.json");
    let text = fs::read_to_string(&manifest).unwrap().replace("\"format\": 2", "\"format\": 99");
    fs::write(manifest, text).unwrap();
    let all = list(root.path()).unwrap();
    assert!(all[0].is_later && all[0].damage.is_some(), "{all:?}");
    assert_eq!(prune(root.path(), 1).unwrap(), Vec::<PathBuf>::new());
    assert!(root.path().join("step-00000002").is_dir());
}

#[test]
fn the_same_step_can_be_written_again() {
    let root = tempfile::tempdir().unwrap();
    for content in ["first", "second", "third"] {
        save(root.path(), 5, content);
        assert_eq!(text(&open(root.path()).unwrap()), content);
        assert_eq!(steps(root.path()), [5]);
    }
    // Another run's is not touched.
    save_as(root.path(), 5, "other", "other run", Keep::last(2));
    assert_eq!(steps(root.path()), [5, 5]);
    assert_eq!(text(&open(root.path()).unwrap()), "other");
}

#[test]
fn the_best_stay_beside_the_newest() {
    for greater_is_better in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let scores = [0.2, 0.9, 0.5, f64::NAN, 0.7, 0.1];
        for (i, score) in scores.into_iter().enumerate() {
            let score = Some(if greater_is_better { score } else { -score });
            let keep = Keep { last: 1, best: 2, score, greater_is_better };
            save_as(root.path(), i as u64, "x", "run", keep);
        }
        assert_eq!(steps(root.path()), [5, 4, 1]);
        assert_eq!(prune(root.path(), 2).unwrap().len(), 1);
        assert_eq!(steps(root.path()), [5, 4]);
    }
}

#[test]
fn version_1_is_read() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/checkpoints/format1");
    let found = open(&fixture).unwrap();
    assert_eq!((found.step, found.text("text.txt").unwrap()), (5, "the text\n"));
    assert_eq!(found.run, "");
    assert_eq!(steps(&fixture), [5, 3]);
    // A directory that both versions wrote into: what is written now is newer.
    let root = tempfile::tempdir().unwrap();
    for step in ["step-00000003", "step-00000005"] {
        fs::create_dir(root.path().join(step)).unwrap();
        for file in fs::read_dir(fixture.join(step)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), root.path().join(step).join(file.file_name())).unwrap();
        }
    }
    fs::write(root.path().join("latest"), "step-00000003\n").unwrap();
    assert_eq!(open(root.path()).unwrap().step, 3);
    save(root.path(), 4, "new");
    assert_eq!(steps(root.path()), [4, 3, 5]);
    fs::write(root.path().join("step-00000004/a.txt"), "nEw").unwrap();
    assert_eq!(open(root.path()).unwrap().step, 3);
}

#[test]
fn version_2_is_read() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/checkpoints/format2");
    let found = open(&fixture).unwrap();
    assert_eq!((found.step, text(&found), found.run.as_str()), (7, "the text\n", "a run"));
}

#[test]
fn absent_and_foreign_directories_are_told() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(open(root.path()).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(open(&root.path().join("none")).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(list(&root.path().join("none")).unwrap_err().kind(), Kind::NotFound);
    fs::create_dir(root.path().join("step-00000001")).unwrap();
    let torn = open(root.path()).unwrap_err();
    assert_eq!(torn.kind(), Kind::InvalidData, "{torn}");
    fs::write(root.path().join("file"), "x").unwrap();
    assert_eq!(Writer::open(&root.path().join("file")).unwrap_err().kind(), Kind::Io);
    let newer = root.path().join("step-00000002");
    fs::create_dir(&newer).unwrap();
    fs::write(newer.join("manifest.json"), "{\"format\": 3, \"new\": 1}").unwrap();
    save(root.path(), 1, "x");
    let error = open(root.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
}

/// Readers beside a writer always see a whole checkpoint, and never an older one than before.
#[test]
fn readers_beside_a_writer() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    save(root, 0, "text 0");
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let writer = Writer::open(root).unwrap();
            for step in 1..25 {
                let fill = |dir: &Path| fill(dir, &format!("text {step}"));
                writer.write(step, "run", Keep::last(1), fill).unwrap();
            }
            is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        for _ in 0..3 {
            scope.spawn(|| {
                let mut last = 0;
                while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                    let found = open(root).unwrap();
                    assert_eq!(text(&found), format!("text {}", found.step));
                    assert!(found.step >= last && found.skipped.is_empty());
                    last = found.step;
                }
            });
        }
    });
    assert_eq!(open(root).unwrap().step, 24);
}

/// Writes the fixture of `version_2_is_read`, which is not done again once libraries write it.
#[test]
#[ignore = "no test: writes the fixture in tests/data"]
fn write_the_fixture() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/checkpoints/format2");
    save_as(&fixture, 7, "the text\n", "a run", Keep::last(1));
}
