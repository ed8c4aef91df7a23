//! What a disk may hold when the power goes: a model of files and folders, of which only what was
//! flushed is certain.
//!
//! A file's written bytes are certain after `sync` of the file, and an entry of a folder after
//! `sync` of the folder. Until then the disk may have any of it: nothing, all, the entries but not
//! the bytes, or a part of either.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Up to so many changes that are not certain every choice of those that arrived is tried.
const EVERY_CHOICE: usize = 4;

#[derive(Clone, Default)]
struct File {
    certain: Arc<Vec<u8>>,
    now: Arc<Vec<u8>>,
}

/// A change of a folder that is not certain yet.
#[derive(Clone)]
enum Change {
    Add(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Clone, Copy, PartialEq)]
enum Node {
    Folder,
    File(usize),
}

#[derive(Clone, Default)]
pub struct Disk {
    files: Vec<File>,
    /// Entries that are certain, and that programs see.
    certain: BTreeMap<PathBuf, Node>,
    now: BTreeMap<PathBuf, Node>,
    pending: Vec<Change>,
}

fn apply(tree: &mut BTreeMap<PathBuf, Node>, change: &Change) {
    match change {
        Change::Add(path, node) => {
            tree.insert(path.clone(), *node);
        }
        Change::Remove(path) => {
            tree.retain(|p, _| !p.starts_with(path));
        }
        Change::Rename(from, to) => {
            let moved: Vec<(PathBuf, Node)> = tree
                .iter()
                .filter_map(|(p, node)| Some((p.strip_prefix(from).ok()?.to_owned(), *node)))
                .collect();
            tree.retain(|p, _| !p.starts_with(from) && !p.starts_with(to));
            for (rest, node) in moved {
                let place = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                tree.insert(place, node);
            }
        }
    }
}

impl Change {
    fn folder(&self) -> &Path {
        let (Self::Add(path, _) | Self::Remove(path) | Self::Rename(path, _)) = self;
        path.parent().unwrap_or(path)
    }
}

impl Disk {
    fn change(&mut self, change: Change) {
        apply(&mut self.now, &change);
        self.pending.push(change);
    }

    fn file(&mut self, path: &Path) -> Option<&mut File> {
        match self.now.get(path) {
            Some(Node::File(at)) => self.files.get_mut(*at),
            _ => None,
        }
    }

    fn sync(&mut self, path: &Path) {
        if let Some(file) = self.file(path) {
            file.certain.clone_from(&file.now);
            return;
        }
        // Changes are flushed in their order: of other folders they may stay behind.
        let (flushed, rest): (Vec<Change>, Vec<Change>) =
            self.pending.drain(..).partition(|c| c.folder() == path);
        flushed.iter().for_each(|c| apply(&mut self.certain, c));
        self.pending = rest;
    }

    /// One call of the trace.
    fn call(&mut self, line: &str) {
        let mut words = line.split(' ');
        let (what, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = PathBuf::from(path);
        match what {
            "create" | "truncate" => match self.file(&path) {
                Some(file) if what == "truncate" => file.now = Arc::default(),
                Some(_) => {}
                None => {
                    self.files.push(File::default());
                    let node = Node::File(self.files.len() - 1);
                    self.change(Change::Add(path, node));
                }
            },
            "write" => {
                let hex = words.next().unwrap_or_default().as_bytes();
                let digit = |b: u8| (b as char).to_digit(16).unwrap_or(0) as u8;
                let bytes: Vec<u8> =
                    hex.chunks(2).map(|c| 16 * digit(c[0]) + digit(c[1])).collect();
                if let Some(file) = self.file(&path) {
                    Arc::make_mut(&mut file.now).extend(bytes);
                }
            }
            "sync" => self.sync(&path),
            "mkdir" => self.change(Change::Add(path, Node::Folder)),
            "remove" => self.change(Change::Remove(path)),
            "rename" => {
                let to = PathBuf::from(words.next().unwrap_or_default());
                self.change(Change::Rename(path, to));
            }
            _ => {}
        }
    }

    /// A disk of which so many of the changes of folders arrived, as `arrived` says for each, and
    /// of each file's bytes that are not certain so large a part as `part` says.
    fn image(&self, arrived: &dyn Fn(usize) -> bool, part: &dyn Fn(usize) -> f64) -> Self {
        let mut image = self.clone();
        image.now = self.certain.clone();
        let arrived = self.pending.iter().enumerate().filter(|(i, _)| arrived(*i));
        arrived.for_each(|(_, change)| apply(&mut image.now, change));
        for (at, file) in image.files.iter_mut().enumerate() {
            if file.now != file.certain {
                let part = part(at);
                let n = (file.now.len() as f64 * part) as usize;
                if part == 0.0 {
                    file.now.clone_from(&file.certain);
                } else if n.max(file.certain.len()) < file.now.len() {
                    Arc::make_mut(&mut file.now).truncate(n.max(file.certain.len()));
                }
            }
        }
        image
    }

    /// The same for the same entries with the same bytes.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, node) in &self.now {
            path.hash(&mut hasher);
            match node {
                Node::Folder => 0u8.hash(&mut hasher),
                Node::File(at) => self.files[*at].now.hash(&mut hasher),
            }
        }
        hasher.finish()
    }

    /// Writes what the disk holds below `root` to `place`.
    pub fn write(&self, root: &Path, place: &Path) {
        fs::create_dir_all(place).expect("a folder");
        for (path, node) in &self.now {
            let Ok(rest) = path.strip_prefix(root) else { continue };
            let to = place.join(rest);
            // An entry whose folder did not arrive did not either.
            if rest.as_os_str().is_empty() || to.parent().is_none_or(|p| !p.is_dir()) {
                continue;
            }
            match node {
                Node::Folder => fs::create_dir_all(&to).expect("a folder"),
                Node::File(at) => fs::write(&to, &*self.files[*at].now).expect("a file"),
            }
        }
    }
}

/// Calls `check` with every disk that a power cut may leave, and the step of the last checkpoint
/// that was finished by then: its folder was renamed into place, and the folder above flushed.
pub fn replay(trace: &str, root: &Path, check: &mut dyn FnMut(Disk, u64)) {
    let mut disk = Disk::default();
    disk.certain.insert(root.to_owned(), Node::Folder);
    disk.now.clone_from(&disk.certain);
    let (mut renamed, mut finished) = (None, 0);
    for (i, line) in trace.lines().enumerate() {
        disk.call(line);
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["rename", _, to] if to.contains("/step-") => {
                let name = Path::new(to).file_name().and_then(|n| n.to_str()).unwrap_or_default();
                let step = name.trim_start_matches("step-").split('.').next();
                renamed = step.and_then(|s| s.parse().ok()).zip(Path::new(to).parent());
            }
            ["sync", path] => {
                if let Some((step, _)) = renamed.filter(|(_, above)| *above == Path::new(path)) {
                    finished = step;
                    renamed = None;
                }
            }
            _ => {}
        }
        // Reading changes nothing.
        if words[0] == "read" || words[0] == "calls" {
            continue;
        }
        let n = disk.pending.len();
        // Every choice of what arrived where there are few; else the ends, each without the last
        // or with it alone, and some of all.
        let choices: Vec<Box<dyn Fn(usize) -> bool>> = if n <= EVERY_CHOICE {
            (0..1usize << n).map(|set| Box::new(move |at: usize| set >> at & 1 == 1) as _).collect()
        } else {
            vec![
                Box::new(|_| false),
                Box::new(|_| true),
                Box::new(move |at| at + 1 == n),
                Box::new(move |at| at + 1 < n),
                Box::new(move |at| (at * 7 + i * 3) % 5 < 2),
                Box::new(move |at| (at * 3 + i * 7) % 4 > 0),
            ]
        };
        for arrived in &choices {
            for part in [0.0, 0.5, 1.0] {
                check(disk.image(arrived, &|_| part), finished);
            }
            check(disk.image(arrived, &|at| ((at * 7 + i * 3) % 3) as f64 / 2.0), finished);
        }
    }
}
