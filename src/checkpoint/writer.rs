//! The one writer of a directory of checkpoints.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use super::manifest::{self, Entry, FORMAT, Manifest};
use super::reader::{Candidate, LOCK, PREFIX, candidates};
use crate::error::{Error, Result};
use crate::file::{map_file, sync_dir};

/// What is being written or removed begins with this.
const PARTIAL: &str = ".partial-";

/// Which of a run's checkpoints stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keep {
    /// So many of the newest, at least 1.
    pub last: usize,
    /// So many of those with the best scores beside them.
    pub best: usize,
    /// The score of this one; `None` where there is none.
    pub score: Option<f64>,
    /// Whether a greater score is better.
    pub greater_is_better: bool,
}

impl Keep {
    /// The newest alone.
    pub fn last(n: usize) -> Self {
        Self { last: n, best: 0, score: None, greater_is_better: true }
    }
}

/// A name for a run that no other has.
fn new_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let text = format!("{time} {} {count} {:p}", std::process::id(), &raw const COUNT);
    blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
}

/// The right to write into a directory, which ends with this object.
#[derive(Debug)]
pub struct Writer {
    root: PathBuf,
    /// `None` on file systems without locks.
    lock: Option<File>,
}

impl Writer {
    /// Makes the directory, and takes the right to write there. What dead writers left behind is
    /// removed.
    ///
    /// # Errors
    /// `State` while another writer has the directory, `Io`.
    pub fn open(root: &Path) -> Result<Self> {
        create_dirs(root)?;
        let path = root.join(LOCK);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(|e| Error::io(&path, e))?;
        let lock = match file.try_lock() {
            Ok(()) => Some(file),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::state(format!(
                    "another trainer or optimizer writes checkpoints into {}; choose another \
                     directory, or free that one first",
                    root.display()
                )));
            }
            Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => None,
            Err(TryLockError::Error(e)) => return Err(Error::io(&path, e)),
        };
        let writer = Self { root: root.to_owned(), lock };
        if writer.lock.is_some() {
            writer.clean()?;
        }
        Ok(writer)
    }

    /// Where it writes.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether others are kept from writing; not on file systems without locks.
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// Whether its lock is still that of the directory: somebody may have removed it.
    fn is_in_place(&self) -> bool {
        #[cfg(unix)]
        if let Some(lock) = &self.lock {
            use std::os::unix::fs::MetadataExt;
            let place = |m: fs::Metadata| (m.dev(), m.ino());
            let own = lock.metadata().ok().map(place);
            return own.is_some() && own == fs::metadata(self.root.join(LOCK)).ok().map(place);
        }
        self.root.is_dir()
    }

    /// Removes what a process that died was writing or removing.
    fn clean(&self) -> Result<()> {
        for item in fs::read_dir(&self.root).map_err(|e| Error::io(&self.root, e))? {
            let path = item.map_err(|e| Error::io(&self.root, e))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // Version 1 had no number there.
            if name.starts_with(PARTIAL) || name == ".partial" {
                fs::remove_dir_all(&path).map_err(|e| Error::io(&path, e))?;
            }
        }
        Ok(())
    }

    /// Writes one checkpoint: `fill` writes the files into the directory that it gets; they are
    /// flushed, listed, and renamed into place. Then those of the same run go that `keep` does not
    /// want, and older ones of the same step. Those of other runs stay.
    ///
    /// # Errors
    /// Whatever `fill` returns, and `Io`. The directory is as before, unless the text says that the
    /// checkpoint is in place.
    pub fn write(
        &self,
        step: u64,
        run: &str,
        keep: Keep,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let partial = self.unique();
        fs::create_dir(&partial).map_err(|e| Error::io(&partial, e))?;
        let attempt = || -> Result<PathBuf> {
            fill(&partial)?;
            let sequence = self.next_sequence()?;
            let files = flush(&partial)?;
            let score = keep.score.filter(|s| s.is_finite());
            let run = run.to_owned();
            let hash = String::new();
            let manifest = Manifest { format: FORMAT, step, sequence, run, score, files, hash };
            write_durably(&partial.join(manifest::NAME), &manifest.text()?)?;
            sync_dir(&partial)?;
            let place = self.place(step);
            fs::rename(&partial, &place).map_err(|e| Error::io(&place, e))?;
            Ok(place)
        };
        let place = attempt().inspect_err(|_| {
            let _ = fs::remove_dir_all(&partial);
        })?;
        sync_dir(&self.root).and_then(|()| self.remove_old(&place, step, run, keep)).map_err(
            |e| e.context(format!("the checkpoint {} is in place and whole, but", place.display())),
        )?;
        Ok(place)
    }

    fn unique(&self) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        self.root.join(format!("{PARTIAL}{}-{count}", std::process::id()))
    }

    fn next_sequence(&self) -> Result<u64> {
        let numbers = candidates(&self.root)?.into_iter().filter_map(|c| c.manifest.ok());
        Ok(numbers.map(|m| m.sequence).max().unwrap_or(0).saturating_add(1))
    }

    /// A name that nothing has: the same step may have been written before.
    fn place(&self, step: u64) -> PathBuf {
        let first = self.root.join(format!("{PREFIX}{step:08}"));
        if fs::symlink_metadata(&first).is_err() {
            return first;
        }
        let others = (1u32..).map(|n| self.root.join(format!("{PREFIX}{step:08}.{n}")));
        others.into_iter().find(|p| fs::symlink_metadata(p).is_err()).unwrap_or(first)
    }

    fn remove_old(&self, newest: &Path, step: u64, run: &str, keep: Keep) -> Result<()> {
        let own = |c: &Candidate| c.manifest.as_ref().is_ok_and(|m| m.run == run);
        let mut old: Vec<(PathBuf, Manifest)> = candidates(&self.root)?
            .into_iter()
            .filter(|c| c.path != newest && own(c))
            .filter_map(|c| Some((c.path, c.manifest.ok()?)))
            .collect();
        let mut gone: Vec<PathBuf> = Vec::new();
        let mut drop = |old: &mut Vec<(PathBuf, Manifest)>, at: usize| {
            gone.push(old.remove(at).0);
        };
        while let Some(at) = old.iter().position(|(_, m)| m.step == step) {
            drop(&mut old, at);
        }
        // The newest come first; those after the last that is kept stay if they are among the best.
        let n_last = keep.last.max(1) - 1;
        let sign = if keep.greater_is_better { 1.0 } else { -1.0 };
        let mut scores: Vec<f64> = old.iter().filter_map(|(_, m)| m.score).collect();
        scores.extend(keep.score.filter(|s| s.is_finite()));
        scores.sort_by(|a, b| (sign * b).total_cmp(&(sign * a)));
        let worst = keep.best.checked_sub(1).map(|n| scores.get(n).or(scores.last()).copied());
        let is_best = |m: &Manifest| match (m.score, worst.flatten()) {
            (Some(score), Some(worst)) => sign * score >= sign * worst,
            _ => false,
        };
        while let Some(at) = (n_last..old.len()).find(|&i| !is_best(&old[i].1)) {
            drop(&mut old, at);
        }
        gone.iter().try_for_each(|path| self.remove(path))
    }

    /// Removes a checkpoint: at once for readers, as what is half gone looks damaged.
    pub(super) fn remove(&self, path: &Path) -> Result<()> {
        let aside = self.unique();
        fs::rename(path, &aside).map_err(|e| Error::io(path, e))?;
        fs::remove_dir_all(&aside).map_err(|e| Error::io(&aside, e))
    }
}

/// What a trainer or optimizer is to its checkpoints: a run, and the writer of the directory that
/// it wrote into last, which it stays.
#[derive(Debug)]
pub struct RunWriter(Mutex<Run>);

#[derive(Debug)]
struct Run {
    name: String,
    writer: Option<Writer>,
}

impl Default for RunWriter {
    fn default() -> Self {
        Self(Mutex::new(Run { name: new_name(), writer: None }))
    }
}

impl RunWriter {
    fn run(&self) -> MutexGuard<'_, Run> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Goes on with the run of a checkpoint; version 1 has none.
    pub fn go_on(&self, name: &str) {
        if !name.is_empty() {
            name.clone_into(&mut self.run().name);
        }
    }

    /// Takes the right to write into `root`.
    pub fn open(&self, root: &Path) -> Result<()> {
        self.run().open(root).map(|_| ())
    }

    /// As [`Writer::write`], with the writer of `root`.
    pub fn write(
        &self,
        root: &Path,
        step: u64,
        keep: Keep,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let run = &mut *self.run();
        let name = run.name.clone();
        run.open(root)?.write(step, &name, keep, fill)
    }
}

impl Run {
    /// The writer of `root`. On failure the one before stays.
    fn open(&mut self, root: &Path) -> Result<&Writer> {
        // Another spelling of the same directory would meet its own lock.
        let is_same = |w: &Writer| {
            let absolute = |p: &Path| p.canonicalize().ok();
            w.root() == root || absolute(w.root()).is_some_and(|r| Some(r) == absolute(root))
        };
        if !self.writer.as_ref().is_some_and(|w| is_same(w) && w.is_in_place()) {
            self.writer = Some(Writer::open(root)?);
        }
        self.writer.as_ref().ok_or_else(|| Error::internal("no writer"))
    }
}

/// Makes a directory and those above it, durably.
fn create_dirs(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    parent.map_or(Ok(()), create_dirs)?;
    match fs::create_dir(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::io(path, std::io::ErrorKind::NotADirectory.into()));
        }
        made => made.map_err(|e| Error::create_folder(path, e))?,
    }
    sync_dir(parent.unwrap_or(Path::new(".")))
}

/// Makes all files of a directory durable, and lists them. A file is hashed while the disk is busy
/// with it.
fn flush(dir: &Path) -> Result<BTreeMap<String, Entry>> {
    let mut files = BTreeMap::new();
    for item in fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
        let path = item.map_err(|e| Error::io(dir, e))?.path();
        let file = File::open(&path).map_err(|e| Error::io(&path, e))?;
        let entry = std::thread::scope(|scope| {
            let flushed = std::thread::Builder::new().spawn_scoped(scope, || file.sync_all());
            let entry = map_file(&path).map(|bytes| Entry::of(&bytes));
            match flushed {
                Ok(thread) => thread.join().unwrap_or_else(|_| Err(std::io::Error::other("panic"))),
                // No thread could be started.
                Err(_) => file.sync_all(),
            }
            .map_err(|e| Error::io(&path, e))?;
            entry
        })?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.insert(name, entry);
    }
    Ok(files)
}

fn write_durably(path: &Path, text: &str) -> Result<()> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|e| Error::io(path, e))
}
