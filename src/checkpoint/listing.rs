//! All checkpoints of a directory.

use std::path::{Path, PathBuf};

use super::manifest::{self, Manifest};
use super::reader::{candidates, is_damage};
use super::writer::Writer;
use crate::error::{Error, Kind, Result};

/// A checkpoint of a directory.
#[derive(Debug)]
pub struct Listed {
    /// Its directory.
    pub path: PathBuf,
    /// `None` where the manifest cannot be read.
    pub step: Option<u64>,
    /// The run that wrote it; empty where that is not known.
    pub run: String,
    /// The score that it was written with.
    pub score: Option<f64>,
    /// Of all files.
    pub bytes: u64,
    /// Why it cannot be used; `None` for a whole one.
    pub damage: Option<String>,
    /// Whether a later library wrote it, which this one cannot check.
    pub is_later: bool,
}

/// Checks every file of every checkpoint below `root`, the newest first.
///
/// # Errors
/// `NotFound` without the directory; `Io` and `OutOfMemory`, also where a file cannot be opened for
/// a reason that says nothing about its content.
pub fn list(root: &Path) -> Result<Vec<Listed>> {
    if root.join(manifest::NAME).is_file() {
        let manifest = Manifest::read(root);
        return Ok(vec![listed(root.to_owned(), manifest)?]);
    }
    let all = candidates(root)?.into_iter();
    all.map(|c| listed(c.path, c.manifest)).collect()
}

fn listed(path: PathBuf, manifest: Result<Manifest>) -> Result<Listed> {
    let manifest = match manifest {
        Ok(manifest) => manifest,
        Err(e) if is_damage(&e) || e.kind() == Kind::Unsupported => {
            let is_later = e.kind() == Kind::Unsupported;
            let (run, damage) = (String::new(), Some(e.to_string()));
            return Ok(Listed { path, step: None, run, score: None, bytes: 0, damage, is_later });
        }
        Err(e) => return Err(e),
    };
    let damage = match manifest.open_files(&path) {
        Ok(_) => None,
        Err(e) if is_damage(&e) => Some(e.to_string()),
        Err(e) => return Err(e),
    };
    let bytes = manifest.files.values().fold(0u64, |sum, f| sum.saturating_add(f.bytes));
    let Manifest { step, run, score, .. } = manifest;
    Ok(Listed { path, step: Some(step), run, score, bytes, damage, is_later: false })
}

/// Removes damaged checkpoints, and of the whole ones all but the newest `keep_last`, whichever run
/// wrote them; returns those that are gone. Those of a later library stay.
///
/// # Errors
/// `InvalidArgument` for `keep_last` 0; `State` while a trainer or optimizer writes there;
/// those of [`list`], before anything is removed.
pub fn prune(root: &Path, keep_last: usize) -> Result<Vec<PathBuf>> {
    if keep_last == 0 {
        return Err(Error::invalid("keep_last is 0; at least 1 checkpoint must stay"));
    }
    let all = list(root)?;
    if all.iter().any(|c| c.path == root) {
        let text = format!("{} is one checkpoint, not a directory of them", root.display());
        return Err(Error::invalid(text));
    }
    let writer = Writer::open(root)?;
    let mut n_whole = 0;
    let mut gone = Vec::new();
    for checkpoint in all.into_iter().filter(|c| !c.is_later) {
        if checkpoint.damage.is_none() {
            n_whole += 1;
            if n_whole <= keep_last {
                continue;
            }
        }
        writer.remove(&checkpoint.path)?;
        gone.push(checkpoint.path);
    }
    Ok(gone)
}
