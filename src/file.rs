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

/// Refuses what cannot be read to its end as a file: folders and devices.
pub fn check_readable(path: &Path) -> Result<()> {
    let kind = fs::metadata(path).map_err(|e| Error::io(path, e))?.file_type();
    if kind.is_dir() {
        return Err(Error::invalid(format!("{} is a folder, not a file", path.display())));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_char_device() || kind.is_block_device() {
            return Err(Error::invalid(format!("{} is a device, not a file", path.display())));
        }
    }
    Ok(())
}

/// What a file with this content is and what to do with it, where its first bytes tell that it is
/// neither text nor anything else that the library reads.
pub fn foreign_kind(bytes: &[u8]) -> Option<&'static str> {
    let begins = |with: &[u8]| bytes.starts_with(with);
    let early = |part: &[u8]| {
        let head = &bytes[..bytes.len().min(4096)];
        head.windows(part.len()).any(|w| w == part)
    };
    if begins(b"PK\x03\x04") {
        return Some(match () {
            () if early(b"/data.pkl") || early(b"/version") => {
                "a PyTorch checkpoint (a zip archive); convert it to safetensors"
            }
            () if early(b"[Content_Types].xml") || early(b"xl/") => {
                "an Excel workbook (a zip archive); export it as CSV"
            }
            () if early(b".npy") => "a NumPy archive (.npz), which is not read",
            () => "a zip archive; unpack it first",
        });
    }
    let known: [(&[u8], &str); 17] = [
        (b"\x1F\x8B", "compressed by gzip; decompress it first (gunzip)"),
        (b"BZh", "compressed by bzip2; decompress it first (bunzip2)"),
        (b"\xFD7zXZ\0", "compressed by xz; decompress it first (unxz)"),
        (b"\x28\xB5\x2F\xFD", "compressed by zstd; decompress it first (unzstd)"),
        (b"7z\xBC\xAF\x27\x1C", "a 7z archive; unpack it first"),
        (b"PAR1", "a Parquet file, which is no text"),
        (b"ARROW1", "an Arrow file; export it as Parquet or JSON lines"),
        (b"\x89HDF\r\n", "an HDF5 file, e.g. TensorFlow's or Keras's weights; convert it"),
        (b"\x93NUMPY", "a NumPy array (.npy), which is not read"),
        (b"GGUF", "a GGUF file of llama.cpp, which is not read"),
        (b"SQLite format 3\0", "an SQLite database; export its table as CSV"),
        (b"%PDF-", "a PDF document; extract its text first"),
        (b"\x80\x02", "a Python pickle, e.g. a checkpoint of PyTorch; convert it to safetensors"),
        (b"\x80\x03", "a Python pickle; convert it"),
        (b"\x80\x04\x95", "a Python pickle; convert it"),
        (b"\x80\x05\x95", "a Python pickle; convert it"),
        (
            b"version https://git-lfs.github.com/",
            "a pointer of Git LFS, not the file itself; fetch it (git lfs pull)",
        ),
    ];
    if bytes.get(257..262) == Some(b"ustar") {
        return Some("a tar archive; unpack it first");
    }
    known.iter().find(|(magic, _)| begins(magic)).map(|(_, what)| *what)
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
        let mut file = File::create(&temporary).map_err(|e| Error::write(path, e))?;
        // Held while it is written, so that it is not taken for a dead writer's.
        let _ = file.try_lock();
        remove_leftovers(path);
        write(&mut file)?;
        file.sync_all().map_err(|e| Error::write(path, e))?;
        fs::rename(&temporary, path).map_err(|e| Error::write(path, e))?;
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
    fn files_of_other_kinds_are_told() {
        let check = |bytes: &[u8], part: &str| {
            let kind = foreign_kind(bytes).unwrap_or_default();
            assert!(kind.contains(part), "{kind} for {part}");
        };
        check(b"\x1F\x8B\x08\0", "gzip");
        check(b"PK\x03\x04....archive/data.pkl..", "a PyTorch checkpoint");
        check(b"PK\x03\x04....[Content_Types].xml", "Excel");
        check(b"PK\x03\x04", "a zip archive");
        check(b"\x80\x02}q", "pickle");
        check(b"PAR1\x15", "Parquet");
        check(b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS");
        let mut tar = vec![b'a'; 300];
        tar[257..262].copy_from_slice(b"ustar");
        check(&tar, "tar");
        for text in ["", "text\t1", "{\"a\": 1}", "PK", "\u{e9}"] {
            assert_eq!(foreign_kind(text.as_bytes()), None);
        }
    }

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
