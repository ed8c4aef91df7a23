//! What a checkpoint says of itself: `manifest.json`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::file::open_file;

/// Version of the layout that is written. Version 1, which is still read, had CRC-32 checksums, no
/// hash of the manifest, and a file `latest` beside the checkpoints in place of `sequence`.
pub const FORMAT: u32 = 2;
pub const NAME: &str = "manifest.json";
/// Longer manifests are not read.
const MAX_BYTES: u64 = 16 << 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    pub step: u64,
    /// Grows with each checkpoint that is written into one directory.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sequence: u64,
    /// The run that wrote it; resuming goes on with it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub run: String,
    /// The score that best checkpoints are kept by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    pub files: BTreeMap<String, Entry>,
    /// BLAKE3 of the manifest with an empty hash.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<String>,
    /// Version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32: Option<u32>,
}

/// The version alone, of manifests that this library may not know.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl Entry {
    pub fn of(bytes: &[u8]) -> Self {
        let hash = blake3::hash(bytes).to_hex().to_string();
        Self { bytes: bytes.len() as u64, blake3: Some(hash), crc32: None }
    }

    /// Whether the bytes are those that were written.
    fn check(&self, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 != self.bytes {
            let text = format!("damaged: {} bytes, {} were written", bytes.len(), self.bytes);
            return Err(Error::data(text));
        }
        let same = match (&self.blake3, self.crc32) {
            (Some(hash), _) => *hash == blake3::hash(bytes).to_hex().as_str(),
            (None, Some(sum)) => sum == crc32fast::hash(bytes),
            (None, None) => false,
        };
        if same { Ok(()) } else { Err(Error::data("damaged: its hash is not the written one")) }
    }
}

impl Manifest {
    /// The text of the file.
    pub fn text(mut self) -> Result<String> {
        self.hash = self.own_hash()?;
        to_text(&self)
    }

    fn own_hash(&self) -> Result<String> {
        let bare = Self { hash: String::new(), ..self.clone() };
        Ok(blake3::hash(to_text(&bare)?.as_bytes()).to_hex().to_string())
    }

    /// Reads the manifest of a checkpoint.
    ///
    /// # Errors
    /// `NotFound` without one; `InvalidData` for one that is damaged; `Unsupported` for a layout
    /// of a later library.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(NAME);
        let mut text = String::new();
        let file = open_file(&path).map_err(|e| match e.kind() {
            Kind::InvalidArgument => Error::data(e.message()),
            _ => e,
        })?;
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|e| match e.kind() {
            std::io::ErrorKind::InvalidData => {
                Error::data(format!("{} is no UTF-8 text", path.display()))
            }
            _ => Error::io(&path, e),
        })?;
        if text.len() as u64 > MAX_BYTES {
            return Err(Error::data(format!("{} is too long", path.display())));
        }
        Self::parse(&text).map_err(|e| e.context(path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let data = |e: serde_json::Error| Error::json(e).context("damaged");
        let version: Version = serde_json::from_str(text).map_err(data)?;
        if version.format > FORMAT {
            return Err(Error::unsupported(format!(
                "format {} is newer than this library's {FORMAT}; a newer libmmopt reads it",
                version.format
            )));
        }
        let manifest: Self = serde_json::from_str(text).map_err(data)?;
        if !(manifest.format < 2 && manifest.hash.is_empty())
            && manifest.hash != manifest.own_hash()?
        {
            return Err(Error::data("damaged: the hash of the manifest is not the written one"));
        }
        if let Some(name) = manifest.files.keys().find(|n| !is_plain(n)) {
            return Err(Error::data(format!("'{name}' is no name of a file in the checkpoint")));
        }
        Ok(manifest)
    }

    /// Opens all files, and checks what was opened.
    pub fn open_files(&self, dir: &Path) -> Result<BTreeMap<String, Bytes>> {
        let open = |(name, entry): (&String, &Entry)| {
            let path = dir.join(name);
            // Links lead out of the checkpoint.
            let is_file = std::fs::symlink_metadata(&path).map(|m| m.is_file());
            if !is_file.map_err(|e| missing(Error::io(&path, e)))? {
                return Err(Error::data(format!("{} is no plain file", path.display())));
            }
            let bytes = crate::file::map_file(&path).map_err(missing)?;
            entry.check(&bytes).map_err(|e| e.context(path.display()))?;
            Ok((name.clone(), bytes))
        };
        self.files.iter().map(open).collect()
    }
}

/// A file that the manifest lists and that is not there is damage.
fn missing(e: Error) -> Error {
    match e.kind() {
        Kind::NotFound => Error::data(format!("damaged: {}", e.message())),
        _ => e,
    }
}

/// One component of a path, on every system.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0'])
}

fn to_text(manifest: &Manifest) -> Result<String> {
    serde_json::to_string_pretty(manifest).map_err(|e| Error::internal(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            step: 7,
            sequence: 3,
            run: "ab".into(),
            score: Some(0.1 + 0.2),
            files: BTreeMap::from([("a.txt".into(), Entry::of(b"a"))]),
            hash: String::new(),
        }
    }

    #[test]
    fn any_change_of_a_manifest_is_seen() {
        let text = manifest().text().unwrap();
        assert_eq!(Manifest::parse(&text).unwrap().score, Some(0.1 + 0.2));
        let mut n_refused = 0;
        for (i, byte) in text.bytes().enumerate().filter(|(_, b)| !b.is_ascii_whitespace()) {
            let mut changed = text.clone().into_bytes();
            changed[i] = if byte == b'1' { b'2' } else { b'1' };
            let changed = String::from_utf8(changed).unwrap();
            // The same number can be written in several ways.
            if let Ok(read) = Manifest::parse(&changed) {
                assert_eq!(read.text().unwrap(), text, "at {i}: {changed}");
            } else {
                n_refused += 1;
            }
        }
        assert!(n_refused > 200, "{n_refused}");
        assert!(Manifest::parse(&text[..text.len() - 1]).is_err());
    }

    #[test]
    fn names_stay_in_the_checkpoint() {
        for name in ["../a", "/a", "a/b", "a\\b", "c:a", ".a", ""] {
            let mut bad = manifest();
            bad.files = BTreeMap::from([(name.into(), Entry::of(b"a"))]);
            let error = Manifest::parse(&bad.text().unwrap()).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidData, "{name}: {error}");
        }
        let newer = Manifest { format: FORMAT + 1, ..manifest() };
        assert_eq!(Manifest::parse(&newer.text().unwrap()).unwrap_err().kind(), Kind::Unsupported);
    }
}
