//! Reader of plain text for language modelling.

use crate::error::Result;
use crate::memory::{Gather, push};
use crate::text::corpus::examples::{Corpus, Example, TextTask};
use crate::text::corpus::labels::LabelMap;
use crate::text::corpus::paths::find;
use crate::text::text_file::{at, read_text, replaced};
use std::path::Path;

/// What becomes one example of a file of plain text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum SampleBy {
    /// A paragraph: lines up to a blank line.
    #[default]
    Paragraph = 0,
    /// Each line that is not blank.
    Line = 1,
    /// The whole file.
    Document = 2,
}

impl Corpus {
    /// Reads plain text. `path` may be a pattern of several files, e.g. `books/*.txt`.
    ///
    /// Errors: text that is not UTF-8 (with its line), a file of white space alone.
    pub fn read_plain_text(path: &Path, sample_by: SampleBy) -> Result<Self> {
        let mut examples = Vec::new();
        for path in find(path)? {
            let text = replaced(&read_text(&path)?, "\r\n")?;
            let parts: Vec<String> = match sample_by {
                SampleBy::Document => vec![text],
                SampleBy::Line => text.lines().map(str::to_owned).gathered()?,
                SampleBy::Paragraph => paragraphs(&text)?,
            };
            let before = examples.len();
            examples.try_reserve(parts.len())?;
            let parts = parts.into_iter().filter(|p| !p.trim().is_empty());
            examples.extend(parts.map(Example::Document));
            if examples.len() == before {
                return Err(at(&path, 1, "the file holds no text"));
            }
        }
        Corpus::new(TextTask::LanguageModeling, LabelMap::default(), examples)
    }
}

fn paragraphs(text: &str) -> Result<Vec<String>> {
    let mut all = vec![String::new()];
    for line in text.lines() {
        let Some(last) = all.last_mut() else { break };
        if !line.trim().is_empty() {
            if !last.is_empty() {
                last.push('\n');
            }
            last.push_str(line);
        } else if !last.is_empty() {
            push(&mut all, String::new())?;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_lines_or_the_document() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.txt");
        std::fs::write(&path, "\u{FEFF}\r\na\r\nb\r\n \r\n\r\nc\r\n").unwrap();
        let read = |sample_by| Corpus::read_plain_text(&path, sample_by).unwrap().texts().unwrap();
        assert_eq!(read(SampleBy::Paragraph), ["a\nb", "c"]);
        assert_eq!(read(SampleBy::Line), ["a", "b", "c"]);
        assert_eq!(read(SampleBy::Document), ["\na\nb\n \n\nc\n"]);
        std::fs::write(&path, "a\rb\r\rc").unwrap();
        assert_eq!(read(SampleBy::Paragraph), ["a\nb", "c"]);
        std::fs::write(dir.path().join("s.txt"), "first").unwrap();
        let both = Corpus::read_plain_text(&dir.path().join("?.txt"), SampleBy::Line).unwrap();
        assert_eq!(both.texts().unwrap(), ["first", "a", "b", "c"]);
        std::fs::write(&path, " \n\n").unwrap();
        let e = Corpus::read_plain_text(&path, SampleBy::Document).unwrap_err();
        assert!(e.message().ends_with("t.txt:1: the file holds no text"));
    }
}
