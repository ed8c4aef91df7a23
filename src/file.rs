//! Files: mapped for reading; written under a temporary name, flushed, then renamed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::error::{Error, Result};

/// Maps a file; empty files give empty bytes.
pub fn map_file(path: &Path) -> Result<Bytes> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let metadata = file.metadata().map_err(|e| Error::io(path, e))?;
    if metadata.is_dir() {
        return Err(Error::invalid(format!("{} is a folder, not a file", path.display())));
    }
    if metadata.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the mapping is read-only and owned by the returned bytes. As with every mapped
    // file, another process that truncates it meanwhile ends this one; the docs say so.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
    Ok(Bytes::from_owner(map))
}

/// `path` with `suffix` appended to its last component.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Writes under a temporary name beside `path`, flushes to disk, renames; on failure the temporary
/// file is removed.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let temporary = with_suffix(path, ".partial");
    let attempt = || -> Result<()> {
        let mut file = File::create(&temporary).map_err(|e| Error::io(&temporary, e))?;
        write(&mut file)?;
        file.sync_all().map_err(|e| Error::io(&temporary, e))?;
        fs::rename(&temporary, path).map_err(|e| Error::io(path, e))
    };
    attempt().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}
