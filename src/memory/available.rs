//! How much memory the machine has, and how much of it is left for this process: the system's own
//! figures and, in containers, the limits of control groups.

use std::path::{Path, PathBuf};

/// Bytes of memory in the machine; `None` where the system does not say (only Linux does).
pub(crate) fn installed() -> Option<usize> {
    meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

/// Bytes that this process can take beside what it holds: what the system calls available, or what
/// is left of a control group's limit, whichever is less. `None` where neither is known.
pub(crate) fn available() -> Option<usize> {
    let system = std::fs::read_to_string("/proc/meminfo").ok();
    let system = system.and_then(|text| meminfo(&text, "MemAvailable:"));
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let left = limit_left(Path::new("/sys/fs/cgroup"), &groups);
    [system, left].into_iter().flatten().min()
}

/// A line of `/proc/meminfo`, which counts in units of 1024 bytes.
fn meminfo(text: &str, key: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kilobytes: usize = line.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The least that is left of the limits of the groups, and of those that hold them. `groups` is
/// `/proc/self/cgroup`: lines `id:controllers:path`, without controllers in version 2.
fn limit_left(root: &Path, groups: &str) -> Option<usize> {
    let mut least: Option<usize> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (base, names) = match controllers {
            "" => (root.to_path_buf(), ["memory.max", "memory.current"]),
            c if c.split(',').any(|c| c == "memory") => {
                (root.join("memory"), ["memory.limit_in_bytes", "memory.usage_in_bytes"])
            }
            _ => continue,
        };
        let inside: PathBuf = base.join(path.trim_start_matches('/'));
        // A container may see its own group as the root.
        for folder in inside.ancestors().take_while(|p| p.starts_with(&base)) {
            let left = left_in(folder, names);
            least = [least, left].into_iter().flatten().min();
        }
    }
    least
}

/// Limit less use of one group; cached files count as used, which errs to the safe side.
fn left_in(folder: &Path, [limit, used]: [&str; 2]) -> Option<usize> {
    let number = |name| -> Option<usize> {
        std::fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
    };
    Some(number(limit)?.saturating_sub(number(used)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_in_bytes() {
        let text = "MemTotal:       24000 kB\nMemAvailable:    1000 kB\n";
        assert_eq!(meminfo(text, "MemAvailable:"), Some(1_024_000));
        assert_eq!(meminfo(text, "MemFree:"), None);
        assert_eq!(meminfo("MemTotal: many kB", "MemTotal:"), None);
    }

    #[test]
    fn the_tightest_group_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |folder: &str, files: [(&str, &str); 2]| {
            std::fs::create_dir_all(root.join(folder)).unwrap();
            for (name, text) in files {
                std::fs::write(root.join(folder).join(name), text).unwrap();
            }
        };
        let new = |limit, used| [("memory.max", limit), ("memory.current", used)];
        write("a/b", new("max\n", "10\n"));
        write("a", new("1000\n", "400\n"));
        assert_eq!(limit_left(root, "0::/a/b\n"), Some(600));
        write("a/b", new("100\n", "30\n"));
        assert_eq!(limit_left(root, "0::/a/b\n"), Some(70));
        assert_eq!(limit_left(root, "0::/c\n"), None);
        let old = [("memory.limit_in_bytes", "50"), ("memory.usage_in_bytes", "60")];
        write("memory/d", old);
        assert_eq!(limit_left(root, "3:cpu,memory:/d\n2:cpu:/d\n"), Some(0));
    }
}
