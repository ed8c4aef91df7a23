//! All checkpoints of a directory.

use std::path::{Path, PathBuf};

use super::manifest::{self, Manifest};
use super::reader::candidates;
use super::writer::Writer;
use crate::error::{Error, Result};

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
}

/// Checks every file of every checkpoint below `root`, the newest first.
///
/// # Errors
/// `NotFound` without the directory, `Io`.
pub fn list(root: &Path) -> Result<Vec<Listed>> {
    if root.join(manifest::NAME).is_file() {
        let manifest = Manifest::read(root);
        return Ok(vec![listed(root.to_owned(), manifest)]);
    }
    let all = candidates(root)?.into_iter();
    Ok(all.map(|c| listed(c.path, c.manifest)).collect())
}

fn listed(path: PathBuf, manifest: Result<Manifest>) -> Listed {
    let manifest = match manifest {
        Ok(manifest) => manifest,
        Err(e) => {
            let (run, damage) = (String::new(), Some(e.to_string()));
            return Listed { path, step: None, run, score: None, bytes: 0, damage };
        }
    };
    let damage = manifest.open_files(&path).err().map(|e| e.to_string());
    let bytes = manifest.files.values().fold(0u64, |sum, f| sum.saturating_add(f.bytes));
    let Manifest { step, run, score, .. } = manifest;
    Listed { path, step: Some(step), run, score, bytes, damage }
}

/// Removes damaged checkpoints, and of the whole ones all but the newest `keep_last`, whichever run
/// wrote them; returns those that are gone.
///
/// # Errors
/// `InvalidArgument` for `keep_last` 0; `State` while a trainer or optimizer writes there;
/// `NotFound`, `Io`.
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
    for checkpoint in all {
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
