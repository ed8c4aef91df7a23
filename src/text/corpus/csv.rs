//! Comma-separated values as RFC 4180 has them. A quote that is not closed, or is closed within a
//! field, is an error: a lenient reader would take the following lines for part of the field.

use crate::error::Result;
use crate::memory::push;
use crate::text::text_file::at;
use std::path::Path;

/// A record: the line where it begins, and its fields.
pub(super) type Record = (usize, Vec<String>);

/// All records; blank lines are none.
pub(super) fn records(path: &Path, text: &str) -> Result<Vec<Record>> {
    let mut reader = Reader { path, text, next: 0, line: 1 };
    let mut records = Vec::new();
    while reader.next < text.len() {
        let (first_line, start) = (reader.line, reader.next);
        let fields = reader.record()?;
        if !text[start..reader.next].trim().is_empty() {
            push(&mut records, (first_line, fields))?;
        }
    }
    Ok(records)
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    /// The byte that is read next, and its line.
    next: usize,
    line: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.next).copied()
    }

    /// The fields up to the end of the line, which is passed over.
    fn record(&mut self) -> Result<Vec<String>> {
        let mut fields = Vec::new();
        loop {
            let field = match self.peek() {
                Some(b'"') => self.quoted()?,
                _ => self.plain(),
            };
            fields.push(field);
            match self.peek() {
                Some(b',') => self.next += 1,
                Some(end) => {
                    self.next += 1;
                    if end == b'\r' && self.peek() == Some(b'\n') {
                        self.next += 1;
                    }
                    self.line += 1;
                    return Ok(fields);
                }
                None => return Ok(fields),
            }
        }
    }

    fn plain(&mut self) -> String {
        let rest = &self.text[self.next..];
        let field = &rest[..rest.find([',', '\n', '\r']).unwrap_or(rest.len())];
        self.next += field.len();
        field.to_owned()
    }

    fn quoted(&mut self) -> Result<String> {
        let first_line = self.line;
        let mut field = String::new();
        loop {
            self.next += 1;
            let rest = &self.text[self.next..];
            let Some(end) = rest.find('"') else {
                return Err(at(self.path, first_line, "the quote that opens here is not closed"));
            };
            field.push_str(&rest[..end]);
            self.line += rest[..end].matches('\n').count();
            self.next += end + 1;
            if self.peek() != Some(b'"') {
                break;
            }
            field.push('"');
        }
        match self.text[self.next..].chars().next() {
            None | Some(',' | '\n' | '\r') => Ok(field),
            Some(other) => {
                let begins = match first_line == self.line {
                    true => String::new(),
                    false => {
                        format!("; the field begins in line {first_line}, is it closed there?")
                    }
                };
                Err(at(
                    self.path,
                    self.line,
                    format!(
                        "'{other}' follows the quote that closes a field; a quote inside a field \
                         is written twice{begins}"
                    ),
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Record>> {
        records(Path::new("a.csv"), text)
    }

    fn check(text: &str, expect: &[(usize, &[&str])]) {
        let got = read(text).unwrap();
        let got: Vec<(usize, Vec<&str>)> =
            got.iter().map(|(n, f)| (*n, f.iter().map(String::as_str).collect())).collect();
        let expect: Vec<(usize, Vec<&str>)> =
            expect.iter().map(|(n, f)| (*n, f.to_vec())).collect();
        assert_eq!(got, expect, "{text:?}");
    }

    #[test]
    fn fields_quotes_and_lines() {
        check("a,b\r\n\n \nc,\n", &[(1, &["a", "b"]), (4, &["c", ""])]);
        check("\"a, \"\"b\"\"\n\nc\",x\nd,e", &[(1, &["a, \"b\"\n\nc", "x"]), (4, &["d", "e"])]);
        check("a\rb,\u{e9}\r", &[(1, &["a"]), (2, &["b", "\u{e9}"])]);
        check("\"\",\"\"\"\"", &[(1, &["", "\""])]);
        check("say \"hi\",1\n, \"x\"", &[(1, &["say \"hi\"", "1"]), (2, &["", " \"x\""])]);
        check("", &[]);
    }

    #[test]
    fn an_open_quote_is_an_error_with_its_line() {
        let e = |text: &str| read(text).unwrap_err().message().to_owned();
        assert_eq!(e("a,1\n\"b,2\nc,3\n"), "a.csv:2: the quote that opens here is not closed");
        assert_eq!(e("\""), "a.csv:1: the quote that opens here is not closed");
        let next = e("a,1\n\"b,2\n\"c\",3\n");
        assert!(next.starts_with("a.csv:3: 'c' follows the quote that closes a field"), "{next}");
        assert!(next.contains("begins in line 2"), "{next}");
        assert!(e("\"a\"b,1").starts_with("a.csv:1: 'b' follows"));
    }
}
