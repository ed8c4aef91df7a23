//! The paper preset against recorded numbers, element by element.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use mmopt_tools::golden;

fn check(folder: &Path) -> usize {
    let files = golden::files(folder).expect("folder");
    for file in &files {
        let worst = golden::check(file);
        assert!(worst.max() <= 1.0, "{}: of tolerance {:?}", file.display(), worst.kinds);
    }
    files.len()
}

#[test]
fn recordings_replay_within_tolerance() {
    assert_eq!(check(Path::new("tests/data/golden")), 13);
}

#[test]
fn further_recordings_replay_too() {
    let shared = Path::new("../shared/golden");
    if !shared.is_dir() {
        println!("not run: no folder ../shared/golden");
        return;
    }
    assert!(check(shared) >= 15);
}
