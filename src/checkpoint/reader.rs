//! The newest whole checkpoint of a directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::manifest::{self, Manifest};
use super::weights::Weights;
use crate::error::{Context, Error, Kind, Result};

/// Directories of checkpoints begin with this.
pub(super) const PREFIX: &str = "step-";
/// Held by the writer while it lives; the system releases it when a process dies.
pub(super) const LOCK: &str = ".lock";
/// Version 1's pointer to the newest.
const LATEST: &str = "latest";
/// How often a directory is read again because a writer removed what was found.
const ATTEMPTS: usize = 100;

/// A whole checkpoint: every file was opened once and is what was written.
#[derive(Debug)]
pub struct Checkpoint {
    /// The directory of its files.
    pub path: PathBuf,
    /// Optimizer step at which it was taken.
    pub step: u64,
    /// The run that wrote it; empty in version 1.
    pub run: String,
    files: BTreeMap<String, Bytes>,
    /// Newer checkpoints that are not whole, and why.
    pub skipped: Vec<Skipped>,
}

/// A checkpoint that cannot be used.
#[derive(Clone, Debug)]
pub struct Skipped {
    /// Its directory.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

impl Checkpoint {
    /// The bytes of a file, as they were checked.
    pub fn file(&self, name: &str) -> Result<&Bytes> {
        self.find(name).ok_or_else(|| {
            let names: Vec<&str> = self.files.keys().map(String::as_str).collect();
            let path = self.path.display();
            Error::data(format!("{path} has no '{name}', but {}", names.join(", ")))
        })
    }

    /// As [`Checkpoint::file`]; `None` where there is none.
    pub fn find(&self, name: &str) -> Option<&Bytes> {
        self.files.get(name)
    }

    /// A file as text.
    pub fn text(&self, name: &str) -> Result<&str> {
        std::str::from_utf8(self.file(name)?).map_err(|_| {
            Error::data(format!("{} is no UTF-8 text", self.path.join(name).display()))
        })
    }

    /// A file of tensors.
    pub fn weights(&self, name: &str) -> Result<Weights> {
        Weights::from_bytes(self.file(name)?.clone())
            .context(|| self.path_of(name).display().to_string())
    }

    /// Where a file is, for messages.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// A checkpoint in a directory, not yet checked.
#[derive(Debug)]
pub(super) struct Candidate {
    pub path: PathBuf,
    pub manifest: Result<Manifest>,
}

impl Candidate {
    fn of(path: PathBuf) -> Self {
        let manifest = Manifest::read(&path);
        Self { path, manifest }
    }

    /// Checks all files.
    pub fn open(self) -> Result<Checkpoint> {
        let manifest = self.manifest?;
        let files = manifest.open_files(&self.path)?;
        let Manifest { step, run, .. } = manifest;
        Ok(Checkpoint { path: self.path, step, run, files, skipped: Vec::new() })
    }
}

/// All checkpoints of a directory, the newest first; those whose manifest cannot be read before
/// them, as nobody knows how old they are.
pub(super) fn candidates(root: &Path) -> Result<Vec<Candidate>> {
    let mut found = Vec::new();
    for item in fs::read_dir(root).map_err(|e| Error::io(root, e))? {
        let path = item.map_err(|e| Error::io(root, e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(PREFIX) && path.is_dir() {
            found.push(Candidate::of(path));
        }
    }
    let latest = fs::read_to_string(root.join(LATEST)).unwrap_or_default();
    let age = |c: &Candidate| {
        let name = c.path.file_name().unwrap_or_default().to_owned();
        let is_latest = name.to_str() == Some(latest.trim());
        match &c.manifest {
            Ok(m) => (m.sequence, is_latest, m.step, name),
            Err(_) => (u64::MAX, is_latest, 0, name),
        }
    };
    found.sort_by_cached_key(|c| std::cmp::Reverse(age(c)));
    Ok(found)
}

/// The newest whole checkpoint below `root`, or `root` itself when it is one. Newer ones that are
/// damaged are named in its `skipped`.
///
/// # Errors
/// `NotFound` where there never was a checkpoint; `InvalidData` where none is whole, with what is
/// wrong with each; `Unsupported` where the newest is of a later library; `Io` where reading fails
/// for another reason than damage, as an older one would be the wrong one then.
pub fn open(root: &Path) -> Result<Checkpoint> {
    for n in 0..ATTEMPTS {
        match attempt(root) {
            // A listing made while one is renamed and another removed may show neither.
            Err(e) if e.kind() == Kind::NotFound && n < 10 && root.join(LOCK).exists() => {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            Ok(None) => {}
            Ok(Some(found)) => return Ok(found),
            Err(e) => return Err(e),
        }
    }
    Err(Error::new(Kind::Io, format!("{} changes too fast to be read", root.display())))
}

/// `None` where a checkpoint disappeared while it was read.
fn attempt(root: &Path) -> Result<Option<Checkpoint>> {
    if root.join(manifest::NAME).is_file() {
        return Candidate::of(root.to_owned()).open().map(Some);
    }
    let none = || {
        Error::not_found(format!(
            "{} holds no checkpoint: there is neither a {PREFIX}* folder nor a {}",
            root.display(),
            manifest::NAME
        ))
    };
    let found = match candidates(root) {
        Err(e) if e.kind() == Kind::NotFound => return Err(none()),
        found => found?,
    };
    let mut skipped = Vec::new();
    for candidate in found {
        let path = candidate.path.clone();
        match candidate.open() {
            Ok(found) => return Ok(Some(Checkpoint { skipped, ..found })),
            Err(_) if !path.exists() => return Ok(None),
            Err(e) if is_damage(&e) => skipped.push(Skipped { path, why: e.to_string() }),
            Err(e) => return Err(e),
        }
    }
    if skipped.is_empty() && is_torn(root) {
        let text = format!("{} is damaged: it has no {}", root.display(), manifest::NAME);
        return Err(Error::data(text));
    }
    if skipped.is_empty() {
        return Err(none());
    }
    let all: Vec<&str> = skipped.iter().map(|s| s.why.as_str()).collect();
    Err(Error::data(format!("no checkpoint is whole: {}", all.join("; "))))
}

/// Whether it is one checkpoint whose manifest is lost: no directory of checkpoints holds files.
fn is_torn(root: &Path) -> bool {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_file = |path: PathBuf| !name(&path).starts_with('.') && path.is_file();
    let mut all = fs::read_dir(root).into_iter().flatten().flatten();
    name(root).starts_with(PREFIX) && all.any(|item| is_file(item.path()))
}

/// Whether an older checkpoint may stand in.
pub(super) fn is_damage(e: &Error) -> bool {
    let is_bad_disk = || {
        let source = std::error::Error::source(e).and_then(|s| s.downcast_ref::<std::io::Error>());
        source.and_then(std::io::Error::raw_os_error) == Some(libc::EIO)
    };
    match e.kind() {
        // A directory without a manifest.
        Kind::InvalidData | Kind::NotFound => true,
        Kind::Io => is_bad_disk(),
        _ => false,
    }
}
