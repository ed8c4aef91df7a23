//! A log file that grows, and that a resumed fit cuts to where its checkpoint was.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// An open log file.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
}

impl LogFile {
    /// A new file; one that exists is replaced.
    pub fn create(path: &Path) -> Result<Self> {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(|e| Error::create_folder(parent, e))?;
        }
        let file = File::create(path).map_err(|e| Error::io(path, e))?;
        Ok(Self { path: path.to_owned(), file, length: 0 })
    }

    /// Checks that a file can go on from `length`, and changes nothing.
    pub fn check(path: &Path, length: u64) -> Result<()> {
        let found = fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
        if found < length {
            return Err(Error::data(format!(
                "{}: {found} bytes, but it had {length} when the checkpoint was written; put the \
                 log back, or leave it out",
                path.display()
            )));
        }
        Ok(())
    }

    /// Opens a file that exists, and cuts it to `length`.
    pub fn reopen(path: &Path, length: u64) -> Result<Self> {
        Self::check(path, length)?;
        let open = || -> std::io::Result<File> {
            let mut file = OpenOptions::new().write(true).open(path)?;
            file.set_len(length)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let file = open().map_err(|e| Error::io(path, e))?;
        Ok(Self { path: path.to_owned(), file, length })
    }

    /// Adds bytes, which are in the file when this returns.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::io(&self.path, e))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// The length, which is on the disk when this returns.
    pub fn sync(&mut self) -> Result<u64> {
        self.file.sync_data().map_err(|e| Error::io(&self.path, e))?;
        Ok(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reopened_file_ends_where_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").join("log");
        let mut log = LogFile::create(&path).unwrap();
        log.append(b"one\n").unwrap();
        let length = log.sync().unwrap();
        log.append(b"lost\n").unwrap();
        drop(log);
        LogFile::reopen(&path, length).unwrap().append(b"two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        let e = LogFile::reopen(&path, 99).unwrap_err();
        assert!(e.message().contains("had 99 when"), "{e}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }
}
