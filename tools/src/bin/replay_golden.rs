//! Replays every recording of a folder through the optimizer and prints the worst error of each,
//! as a multiple of the tolerance; ends with status 1 when one exceeds it.
//! `cargo run --release -p mmopt-tools --bin replay_golden -- tests/data/golden`

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use mmopt_tools::golden;

fn main() {
    let Some(folder) = std::env::args().nth(1) else {
        eprintln!("usage: replay_golden FOLDER");
        std::process::exit(2);
    };
    let files = match golden::files(Path::new(&folder)) {
        Ok(files) => files,
        Err(e) => {
            eprintln!("{folder}: {e}");
            std::process::exit(2);
        }
    };
    let mut failed = files.is_empty();
    for file in &files {
        let worst = golden::check(file);
        let name = file.file_stem().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let kinds: Vec<String> =
            worst.kinds.iter().map(|(kind, x)| format!("{kind} {x:.3}")).collect();
        let verdict = if worst.max() <= 1.0 { "ok" } else { "FAIL" };
        failed |= worst.max() > 1.0;
        let kinds = kinds.join(", ");
        println!("{name:28} {verdict:4} {:>6} values; of tolerance: {kinds}", worst.compared);
    }
    println!("{} files, {}", files.len(), if failed { "FAIL" } else { "all within tolerance" });
    std::process::exit(i32::from(failed));
}
