//! Checkpoint directories: many files that appear together or not at all.
//!
//! `ROOT/step-00000100/` holds one checkpoint: its files and `manifest.json` with their sizes and
//! CRC-32 checksums. It is written as `ROOT/.partial/` and renamed; `ROOT/latest` names the one to
//! restore and is replaced by rename too. A crash at any point leaves the last checkpoint whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Kind, Result};
use crate::file::{map_file, write_atomically};

/// Version of the layout; newer ones are errors.
const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const LATEST: &str = "latest";
const PARTIAL: &str = ".partial";
const ASIDE: &str = "replaced";

#[derive(Serialize, Deserialize)]
struct Manifest {
    format: u32,
    step: u64,
    files: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, Debug)]
struct Entry {
    bytes: u64,
    crc32: u32,
}

/// A verified checkpoint on disk.
#[derive(Debug)]
pub struct Checkpoint {
    /// The directory that holds its files.
    pub path: PathBuf,
    /// Optimizer step at which it was taken.
    pub step: u64,
}

/// Writes one checkpoint: `fill` writes the files into the directory that it gets; afterwards
/// they are flushed, listed and renamed into place. Of the older checkpoints in `root` the newest
/// `keep - 1` stay. On failure `root` is as before.
pub fn write(
    root: &Path,
    step: u64,
    keep: usize,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    fs::create_dir_all(root).map_err(|e| Error::io(root, e))?;
    let partial = root.join(PARTIAL);
    remove_dir(&partial)?;
    fs::create_dir(&partial).map_err(|e| Error::io(&partial, e))?;
    let place = root.join(format!("step-{step:08}"));
    let attempt = || -> Result<()> {
        fill(&partial)?;
        write_manifest(&partial, step)?;
        replace_dir(&partial, &place)?;
        let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        write_text(&root.join(LATEST), &name)?;
        sync_dir(root)
    };
    attempt().inspect_err(|_| {
        let _ = fs::remove_dir_all(&partial);
    })?;
    remove_old(root, &place, keep)?;
    Ok(place)
}

/// Finds the latest checkpoint below `root` (or `root` itself, when it is one) and verifies every
/// file's size and checksum.
pub fn open(root: &Path) -> Result<Checkpoint> {
    let path = if root.join(MANIFEST).is_file() { root.to_owned() } else { latest(root)? };
    let manifest = read_manifest(&path)?;
    for (name, expected) in &manifest.files {
        let found = entry(&path.join(name))?;
        if found != *expected {
            return Err(Error::data(format!(
                "{}: damaged: {} bytes with checksum {:08x}, but {} with {:08x} were written; \
                 restore from an earlier step-* directory",
                path.join(name).display(),
                found.bytes,
                found.crc32,
                expected.bytes,
                expected.crc32
            )));
        }
    }
    Ok(Checkpoint { path, step: manifest.step })
}

/// Replaces the text file `path` atomically.
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    write_atomically(path, |file| {
        std::io::Write::write_all(file, text.as_bytes()).map_err(|e| Error::io(path, e))
    })
}

/// Reads a UTF-8 text file.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| Error::io(path, e))
}

fn latest(root: &Path) -> Result<PathBuf> {
    let pointer = root.join(LATEST);
    let name = read_text(&pointer).map_err(|e| match e.kind() {
        Kind::NotFound => Error::not_found(format!(
            "{} holds no checkpoint: neither '{LATEST}' nor '{MANIFEST}' is there",
            root.display()
        )),
        _ => e,
    })?;
    let name = name.trim();
    if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
        return Err(Error::data(format!("{}: '{name}' is no checkpoint", pointer.display())));
    }
    let place = root.join(name);
    // A crash while the same step was written again can leave only the copy moved aside.
    let aside = place.with_extension(ASIDE);
    Ok(if !place.exists() && aside.exists() { aside } else { place })
}

fn read_manifest(dir: &Path) -> Result<Manifest> {
    let path = dir.join(MANIFEST);
    let manifest: Manifest = serde_json::from_str(&read_text(&path)?)
        .map_err(|e| Error::data(format!("{}: {e}", path.display())))?;
    if manifest.format > FORMAT {
        return Err(Error::unsupported(format!(
            "{}: format {} is newer than this library's {FORMAT}",
            path.display(),
            manifest.format
        )));
    }
    Ok(manifest)
}

fn write_manifest(dir: &Path, step: u64) -> Result<()> {
    let mut files = BTreeMap::new();
    for item in fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
        let path = item.map_err(|e| Error::io(dir, e))?.path();
        let file = File::open(&path).map_err(|e| Error::io(&path, e))?;
        file.sync_all().map_err(|e| Error::io(&path, e))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.insert(name, entry(&path)?);
    }
    let manifest = serde_json::to_string_pretty(&Manifest { format: FORMAT, step, files })
        .map_err(|e| Error::internal(e.to_string()))?;
    write_text(&dir.join(MANIFEST), &manifest)?;
    sync_dir(dir)
}

fn entry(path: &Path) -> Result<Entry> {
    let bytes = map_file(path).context(|| "checkpoint file")?;
    Ok(Entry { bytes: bytes.len() as u64, crc32: crc32fast::hash(&bytes) })
}

/// Renames `from` to `to`. An existing `to` is the same step written before: it is moved aside
/// first and removed last, so that one of the two is always whole.
fn replace_dir(from: &Path, to: &Path) -> Result<()> {
    let aside = to.with_extension(ASIDE);
    remove_dir(&aside)?;
    if to.exists() {
        fs::rename(to, &aside).map_err(|e| Error::io(to, e))?;
    }
    if let Err(e) = fs::rename(from, to) {
        let _ = fs::rename(&aside, to);
        return Err(Error::io(to, e));
    }
    remove_dir(&aside)
}

fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, e)),
        _ => Ok(()),
    }
}

fn sync_dir(path: &Path) -> Result<()> {
    // Directories cannot be opened everywhere; where they can, the rename is made durable.
    match File::open(path) {
        Ok(dir) => dir.sync_all().map_err(|e| Error::io(path, e)),
        Err(_) => Ok(()),
    }
}

fn remove_old(root: &Path, newest: &Path, keep: usize) -> Result<()> {
    let mut old: Vec<PathBuf> = fs::read_dir(root)
        .map_err(|e| Error::io(root, e))?
        .filter_map(|item| Some(item.ok()?.path()))
        .filter(|p| p != newest && p.join(MANIFEST).is_file())
        .collect();
    old.sort();
    let n_keep = keep.saturating_sub(1);
    let n_drop = old.len().saturating_sub(n_keep);
    old[..n_drop].iter().try_for_each(|p| remove_dir(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(root: &Path, step: u64, text: &str) -> Result<PathBuf> {
        write(root, step, 2, |dir| {
            write_text(&dir.join("a.txt"), text)?;
            write_text(&dir.join("b.txt"), "b")
        })
    }

    #[test]
    fn keeps_the_newest_and_verifies() {
        let root = tempfile::tempdir().unwrap();
        for step in [1, 2, 30] {
            save(root.path(), step, &format!("text {step}")).unwrap();
        }
        let found = open(root.path()).unwrap();
        assert_eq!(found.step, 30);
        assert_eq!(read_text(&found.path.join("a.txt")).unwrap(), "text 30");
        assert!(!root.path().join("step-00000001").exists());
        assert!(open(&root.path().join("step-00000002")).is_ok());

        fs::write(found.path.join("a.txt"), "text 3x").unwrap();
        let e = open(root.path()).unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidData);
        assert!(e.message().contains("a.txt"), "{e}");
    }

    #[test]
    fn a_failed_write_leaves_the_last_one_whole() {
        let root = tempfile::tempdir().unwrap();
        save(root.path(), 5, "good").unwrap();
        for n_files in 0..3 {
            let failed = write(root.path(), 6, 2, |dir| {
                for i in 0..n_files {
                    write_text(&dir.join(i.to_string()), "x")?;
                }
                Err(Error::new(Kind::Io, "disk full"))
            });
            assert_eq!(failed.unwrap_err().kind(), Kind::Io);
            assert_eq!(open(root.path()).unwrap().step, 5);
            assert!(!root.path().join(PARTIAL).exists());
        }
        // A process that died while writing leaves a partial directory; the next write clears it.
        fs::create_dir(root.path().join(PARTIAL)).unwrap();
        fs::write(root.path().join(PARTIAL).join("junk"), "x").unwrap();
        assert_eq!(open(root.path()).unwrap().step, 5);
        save(root.path(), 6, "next").unwrap();
        let found = open(root.path()).unwrap();
        assert_eq!((found.step, found.path.join("junk").exists()), (6, false));
    }

    #[test]
    fn the_same_step_can_be_written_again() {
        let root = tempfile::tempdir().unwrap();
        save(root.path(), 5, "first").unwrap();
        save(root.path(), 5, "second").unwrap();
        let found = open(root.path()).unwrap();
        assert_eq!(read_text(&found.path.join("a.txt")).unwrap(), "second");
        fs::rename(&found.path, found.path.with_extension(ASIDE)).unwrap();
        assert_eq!(open(root.path()).unwrap().step, 5);
    }

    #[test]
    fn missing_and_foreign_directories_are_told() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(open(root.path()).unwrap_err().kind(), Kind::NotFound);
        fs::write(root.path().join(LATEST), "../../etc").unwrap();
        assert_eq!(open(root.path()).unwrap_err().kind(), Kind::InvalidData);
    }
}
