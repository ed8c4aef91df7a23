//! Text files as they come: UTF-8 with or without a byte order mark, lines that end with LF, CRLF,
//! or, in files without any LF, CR.

use crate::error::{Error, Result};
use crate::file::{check_readable, foreign_kind};
use crate::memory::check_room;
use std::path::Path;

/// The whole file as text, without a byte order mark.
///
/// Errors: `NotFound`/`Io` when it cannot be read, `InvalidArgument` for a folder or a device,
/// `InvalidData` for a known kind of file that is no text, and with the line when it is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    check_readable(path)?;
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    // For the parts that are made of it: examples, words, values of JSON.
    check_room(bytes.len().saturating_mul(4)).map_err(|e| e.context(path.display()))?;
    decode(path, bytes)
}

fn decode(path: &Path, bytes: Vec<u8>) -> Result<String> {
    let utf16 = bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]);
    if utf16 {
        return Err(at(path, 1, "the file is UTF-16; convert it to UTF-8"));
    }
    if let Some(kind) = foreign_kind(&bytes) {
        return Err(at(path, 1, format!("the file is {kind}")));
    }
    let mut text = String::from_utf8(bytes).map_err(|e| {
        let good = e.utf8_error().valid_up_to();
        let line = 1 + e.as_bytes()[..good].iter().filter(|&&b| b == b'\n').count();
        let byte = e.as_bytes().get(good).copied().unwrap_or_default();
        at(path, line, format!("byte 0x{byte:02X} is not UTF-8; convert the file to UTF-8"))
    })?;
    if text.starts_with('\u{FEFF}') {
        text.drain(..'\u{FEFF}'.len_utf8());
    }
    if text.contains('\r') && !text.contains('\n') {
        text = replaced(&text, "\r")?;
    }
    Ok(text)
}

/// A text with line feeds in the place of other line ends.
pub(crate) fn replaced(text: &str, line_end: &str) -> Result<String> {
    let mut plain = String::new();
    plain.try_reserve_exact(text.len())?;
    for (i, line) in text.split(line_end).enumerate() {
        if i > 0 {
            plain.push('\n');
        }
        plain.push_str(line);
    }
    Ok(plain)
}

/// Lines with their 1-based numbers, without LF or CRLF.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, line)| (i + 1, line))
}

/// An `InvalidData` error at a line of a file: `path:line: what`.
pub(crate) fn at(path: &Path, line: usize, what: impl std::fmt::Display) -> Error {
    Error::data(format!("{}:{line}: {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_line_ends_and_encodings() {
        let path = Path::new("f.txt");
        let text = decode(path, b"\xEF\xBB\xBFa\r\nb\n\nc".to_vec()).unwrap();
        let all: Vec<_> = lines(&text).collect();
        assert_eq!(all, [(1, "a"), (2, "b"), (3, ""), (4, "c")]);
        let e = decode(path, b"ok\nfine\nna\xEFve\n".to_vec()).unwrap_err();
        assert_eq!(e.message(), "f.txt:3: byte 0xEF is not UTF-8; convert the file to UTF-8");
        assert!(decode(path, b"\xFF\xFEa\0".to_vec()).unwrap_err().message().contains("UTF-16"));
        let old = decode(path, b"a\rb\r\rc".to_vec()).unwrap();
        assert_eq!(lines(&old).collect::<Vec<_>>(), [(1, "a"), (2, "b"), (3, ""), (4, "c")]);
        assert_eq!(decode(path, b"a\rb\nc".to_vec()).unwrap(), "a\rb\nc");
        let e = decode(path, b"\x1F\x8B\x08\0".to_vec()).unwrap_err();
        assert!(e.message().starts_with("f.txt:1: the file is compressed by gzip"), "{e}");
        assert!(read_text(Path::new("/")).unwrap_err().message().contains("is a folder"));
        #[cfg(unix)]
        assert!(read_text(Path::new("/dev/zero")).unwrap_err().message().contains("a device"));
    }
}
