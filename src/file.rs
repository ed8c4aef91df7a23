//! Files: mapped for reading; written under a temporary name, flushed, then renamed; memory in a
//! file.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::error::{Error, Result};

/// Opens a file to read; what is no file, such as a pipe, is an error and never waited for.
pub fn open_file(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(path).map_err(|e| Error::io(path, e))?;
    let metadata = file.metadata().map_err(|e| Error::io(path, e))?;
    if metadata.is_file() {
        return Ok(file);
    }
    let what = if metadata.is_dir() { "a folder" } else { "a pipe or device" };
    Err(Error::invalid(format!("{} is {what}, not a file", path.display())))
}

/// Makes the entries of a directory durable.
pub fn sync_dir(path: &Path) -> Result<()> {
    // Elsewhere directories cannot be opened.
    if cfg!(unix) {
        let dir = File::open(path).map_err(|e| Error::io(path, e))?;
        dir.sync_all().map_err(|e| Error::io(path, e))?;
    }
    Ok(())
}

/// Maps a file; empty files give empty bytes.
pub fn map_file(path: &Path) -> Result<Bytes> {
    let file = open_file(path)?;
    if file.metadata().map_err(|e| Error::io(path, e))?.len() == 0 {
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

/// Writes under a temporary name beside `path`, flushes to disk, renames, and makes the new name
/// durable; on failure the temporary file is removed.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // Two that write the same file at once must not write one temporary file.
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = with_suffix(path, &format!(".{}-{count}.partial", std::process::id()));
    let attempt = || -> Result<()> {
        let mut file = File::create(&temporary).map_err(|e| Error::io(&temporary, e))?;
        // Held while it is written, so that it is not taken for a dead writer's.
        let _ = file.try_lock();
        remove_leftovers(path);
        write(&mut file)?;
        file.sync_all().map_err(|e| Error::io(&temporary, e))?;
        fs::rename(&temporary, path).map_err(|e| Error::io(path, e))?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        sync_dir(parent.unwrap_or(Path::new(".")))
    };
    attempt().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// Removes the temporary files of `path` that nobody has written to for a while and nobody holds: a
/// process that was killed leaves them behind.
fn remove_leftovers(path: &Path) {
    const LONG: std::time::Duration = std::time::Duration::from_secs(60);
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else { return };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let begin = format!("{}.", name.to_string_lossy());
    for item in fs::read_dir(parent).into_iter().flatten().flatten() {
        let found = item.file_name();
        let found = found.to_string_lossy();
        let is_ours = found.strip_prefix(&begin).and_then(|s| s.strip_suffix(".partial"));
        let is_ours = is_ours.is_some_and(|s| s.chars().all(|c| c.is_ascii_digit() || c == '-'));
        let age = |m: fs::Metadata| m.modified().ok()?.elapsed().ok();
        if !is_ours || item.metadata().ok().and_then(age).is_none_or(|age| age < LONG) {
            continue;
        }
        if File::open(item.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(item.path());
        }
    }
}

/// What a scratch file begins with, so that no other file is overwritten by mistake.
const SCRATCH: &[u8; 64] =
    b"libmmopt scratch file, removed when its trainer is freed\n\0\0\0\0\0\0\0";
/// A scratch file grows by this many bytes at least.
const SCRATCH_STEP: usize = 1 << 20;

/// Memory in a file, which grows and is removed when dropped. Its bytes are aligned to 64.
#[derive(Debug)]
pub struct Scratch {
    file: File,
    map: Option<memmap2::MmapMut>,
    path: PathBuf,
}

impl Scratch {
    /// Makes the file. One that a process left behind is overwritten.
    ///
    /// # Errors
    /// `InvalidArgument` where another file is; `State` while another process, or this one, uses
    /// it; `Io`.
    pub fn create(path: &Path) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let mut open = OpenOptions::new();
        let mut file =
            open.read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = format!("{} is in use; choose another file", path.display());
                return Err(Error::state(text));
            }
            Err(TryLockError::Error(e)) => return Err(io(e)),
        }
        let mut head = Vec::with_capacity(SCRATCH.len());
        (&file).take(SCRATCH.len() as u64).read_to_end(&mut head).map_err(io)?;
        if !head.is_empty() && head != SCRATCH {
            return Err(Error::invalid(format!(
                "{} exists and is no scratch file; choose another name",
                path.display()
            )));
        }
        file.set_len(0).map_err(io)?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        file.write_all(SCRATCH).map_err(io)?;
        Ok(Self { file, map: None, path: path.to_owned() })
    }

    /// The bytes there are; those that were never written are 0.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_ref().map_or(&[], |map| &map[SCRATCH.len()..])
    }

    /// As [`Scratch::bytes`], for writing.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.map.as_mut().map_or(&mut [], |map| &mut map[SCRATCH.len()..])
    }

    /// Makes room for `n` bytes at least. They are written at once, so that a full disk is an error
    /// here, not later.
    pub fn grow(&mut self, n: usize) -> Result<()> {
        let old = self.bytes().len();
        if n <= old {
            return Ok(());
        }
        let io = |e| Error::io(&self.path, e);
        let wanted = n.max(old.saturating_add((old / 2).max(SCRATCH_STEP)));
        let zeroes = vec![0u8; SCRATCH_STEP];
        let mut rest = wanted - old;
        self.file.seek(SeekFrom::End(0)).map_err(io)?;
        while rest > 0 {
            let part = rest.min(zeroes.len());
            self.file.write_all(&zeroes[..part]).map_err(io)?;
            rest -= part;
        }
        // SAFETY: the file is locked and belongs to this object alone; as with every mapped file,
        // a process that truncates it all the same ends this one.
        self.map = Some(unsafe { memmap2::MmapMut::map_mut(&self.file) }.map_err(io)?);
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.map = None;
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn scratch_files_grow_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scratch");
        let mut file = Scratch::create(&path).unwrap();
        assert!(file.bytes().is_empty());
        file.grow(10).unwrap();
        file.bytes_mut()[9] = 7;
        let n = file.bytes().len();
        file.grow(n + 1).unwrap();
        assert!(file.bytes().len() > n && file.bytes()[9] == 7 && file.bytes()[n] == 0);
        assert_eq!(file.bytes().as_ptr() as usize % 64, 0);
        assert_eq!(Scratch::create(&path).unwrap_err().kind(), Kind::State);
        // What a process that was killed leaves behind is overwritten.
        let left = fs::read(&path).unwrap();
        drop(file);
        assert!(!path.exists());
        fs::write(&path, left).unwrap();
        assert!(Scratch::create(&path).unwrap().bytes().is_empty());
        fs::write(&path, "something else").unwrap();
        assert_eq!(Scratch::create(&path).unwrap_err().kind(), Kind::InvalidArgument);
        assert_eq!(fs::read_to_string(&path).unwrap(), "something else");
    }
}
