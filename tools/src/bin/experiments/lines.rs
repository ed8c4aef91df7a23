//! Files with a JSON value in each line: read, added to, and one line put in another's place.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde_json::Value;

use crate::Result;

fn failed(path: &Path) -> impl Fn(std::io::Error) -> String {
    let path = path.display().to_string();
    move |e| format!("{path}: {e}")
}

/// The lines of a file that are values, as they are written (numbers keep their digits).
fn texts(path: &Path) -> Result<Vec<(String, Value)>> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let line = |l: &str| Some((l.to_owned(), serde_json::from_str(l).ok()?));
            Ok(text.lines().filter_map(line).collect())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(failed(path)(e)),
    }
}

/// The values of a file; a torn last line, as a kill leaves it, is none, and a missing file has none.
pub fn read(path: &Path) -> Result<Vec<Value>> {
    Ok(texts(path)?.into_iter().map(|(_, value)| value).collect())
}

/// Appends a line; what a kill tore ends before it.
pub fn append(path: &Path, line: &str) -> Result<()> {
    let failed = failed(path);
    let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(&failed)?;
    let torn = fs::read(path).map_err(&failed)?.last().is_some_and(|&b| b != b'\n');
    let text = format!("{}{line}\n", if torn { "\n" } else { "" });
    file.write_all(text.as_bytes()).map_err(&failed)?;
    file.sync_all().map_err(&failed)
}

/// Writes a file anew, whole or not at all.
fn replace(path: &Path, lines: impl Iterator<Item = String>) -> Result<()> {
    let failed = failed(path);
    let beside = path.with_extension("new");
    let mut file = File::create(&beside).map_err(&failed)?;
    let text: String = lines.map(|l| l + "\n").collect();
    file.write_all(text.as_bytes()).map_err(&failed)?;
    file.sync_all().map_err(&failed)?;
    fs::rename(&beside, path).map_err(&failed)
}

/// Adds the line of a cell. One that is there already moves to the end of `earlier`, and what
/// `examples` says of it is dropped.
pub fn put(path: &Path, line: &Value, earlier: &Path, examples: &Path) -> Result<()> {
    let parts = |path| -> Result<[Vec<(String, Value)>; 2]> {
        let (own, others) = texts(path)?.into_iter().partition(|(_, l)| l["cell"] == line["cell"]);
        Ok([own, others])
    };
    let text = |(text, _)| text;
    let [old, others] = parts(path)?;
    if old.is_empty() {
        return append(path, &line.to_string());
    }
    // A kill may have come after this and before the rest.
    let moved = texts(earlier)?;
    for (old, _) in old.iter().filter(|l| !moved.contains(l)) {
        append(earlier, old)?;
    }
    let [told, kept] = parts(examples)?;
    if !told.is_empty() {
        replace(examples, kept.into_iter().map(text))?;
    }
    replace(path, others.into_iter().map(text).chain([line.to_string()]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cell_that_is_run_again_leaves_its_old_line_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let [runs, earlier, examples] =
            ["runs", "earlier", "examples"].map(|n| folder.path().join(n));
        let line = |cell: &str, value: u32| json!({"cell": cell, "value": value});
        let put = |l: &Value| put(&runs, l, &earlier, &examples).unwrap();
        put(&line("a", 1));
        put(&line("b", 1));
        fs::write(&examples, "{\"cell\":\"a\"}\n{\"cell\":\"b\"}\n").unwrap();
        assert!(read(&earlier).unwrap().is_empty());
        // As a kill leaves them: the old line has moved, a further one is torn.
        append(&earlier, &line("a", 1).to_string()).unwrap();
        fs::write(&runs, format!("{}{{\"cell\":", fs::read_to_string(&runs).unwrap())).unwrap();
        put(&line("a", 2));
        assert_eq!(read(&runs).unwrap(), [line("b", 1), line("a", 2)]);
        assert_eq!(read(&earlier).unwrap(), [line("a", 1)]);
        assert_eq!(read(&examples).unwrap(), [json!({"cell": "b"})]);
        put(&line("a", 3));
        assert_eq!(read(&earlier).unwrap(), [line("a", 1), line("a", 2)]);
    }
}
