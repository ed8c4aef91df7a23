//! Reader for token classification: one word a line, its tag in the last column, a blank line
//! between sentences, as in the CoNLL shared tasks.
//!
//! Columns are separated by a tab when the line has one, else by white space. Lines that begin with
//! `-DOCSTART-` are skipped. Columns between the two (part of speech, ...) are ignored.

use crate::error::Result;
use crate::text::corpus::examples::{Corpus, Example, TextTask, unknown_label};
use crate::text::corpus::labels::LabelMap;
use crate::text::text_file::{at, lines, read_text};
use std::path::Path;

/// One sentence whose tags have no ids yet: line numbers, words, tags.
type Sentence = Vec<(usize, String, String)>;

impl Corpus {
    /// Reads words with a tag each. Tags stay as written (BIO, IOB, BIOES, or plain classes).
    ///
    /// Without `labels` the tags are those of the file: `O` first, the others by bytes; with
    /// `labels`, those of the training data, a tag outside them is an error.
    ///
    /// Errors name file and line: a line without a tag, an unknown tag, a file without words.
    pub fn read_token_classification(path: &Path, labels: Option<&LabelMap>) -> Result<Self> {
        let text = read_text(path)?;
        let sentences = sentences(path, &text)?;
        if sentences.is_empty() {
            return Err(at(path, 1, "the file holds no words"));
        }
        let labels = match labels {
            Some(labels) => labels.clone(),
            None => seen(&sentences)?,
        };
        let mut examples = Vec::with_capacity(sentences.len());
        for sentence in sentences {
            let mut words = Vec::with_capacity(sentence.len());
            let mut tags = Vec::with_capacity(sentence.len());
            for (line, word, tag) in sentence {
                tags.push(
                    labels.id(&tag).ok_or_else(|| at(path, line, unknown_label(&tag, &labels)))?,
                );
                words.push(word);
            }
            examples.push(Example::Words { words, tags });
        }
        Corpus::new(TextTask::TokenClassification, labels, examples)
    }
}

fn sentences(path: &Path, text: &str) -> Result<Vec<Sentence>> {
    let mut all = Vec::new();
    let mut current = Sentence::new();
    for (number, line) in lines(text) {
        if line.trim().is_empty() {
            if !current.is_empty() {
                all.push(std::mem::take(&mut current));
            }
            continue;
        }
        if line.starts_with("-DOCSTART-") {
            continue;
        }
        let (word, tag) = columns(line).ok_or_else(|| {
            at(path, number, format!("'{line}' has one column; a word and its tag are needed"))
        })?;
        current.push((number, word.to_owned(), tag.to_owned()));
    }
    if !current.is_empty() {
        all.push(current);
    }
    Ok(all)
}

/// The first and the last column.
fn columns(line: &str) -> Option<(&str, &str)> {
    if let Some((word, rest)) = line.split_once('\t') {
        let tag = rest.rsplit('\t').next().unwrap_or(rest).trim();
        return (!tag.is_empty()).then_some((word, tag));
    }
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace)?;
    Some((word, rest.rsplit(char::is_whitespace).next().unwrap_or(rest)))
}

fn seen(sentences: &[Sentence]) -> Result<LabelMap> {
    let all = LabelMap::from_seen(sentences.iter().flatten().map(|(_, _, tag)| tag.as_str()));
    let outside = all.id("O").map(|_| "O".to_owned());
    let others = all.names().iter().filter(|n| *n != "O").cloned();
    LabelMap::from_names(outside.into_iter().chain(others))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str, labels: Option<&LabelMap>) -> Result<Corpus> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.conll");
        std::fs::write(&path, content).unwrap();
        Corpus::read_token_classification(&path, labels)
    }

    #[test]
    fn sentences_columns_and_tags() {
        let content = "-DOCSTART- -X- O O\r\n\r\nEU NNP B-NP B-ORG\r\nrejects VBZ B-VP O\r\n\r\n\
            \r\na b\tx\tB-LOC\n";
        let corpus = read(content, None).unwrap();
        assert_eq!(corpus.labels().names(), ["O", "B-LOC", "B-ORG"]);
        let words = |w: &[&str], tags: &[u32]| Example::Words {
            words: w.iter().map(|s| s.to_string()).collect(),
            tags: tags.to_vec(),
        };
        assert_eq!(corpus.examples(), [words(&["EU", "rejects"], &[2, 0]), words(&["a b"], &[1])]);
    }

    #[test]
    fn errors_say_where() {
        let end = |r: Result<Corpus>, end: &str| {
            let e = r.unwrap_err();
            assert!(e.message().ends_with(end), "{e}");
        };
        end(
            read("EU O\nword\n", None),
            "x.conll:2: 'word' has one column; a word and its tag are needed",
        );
        end(read("\n\n", None), "x.conll:1: the file holds no words");
        let labels = LabelMap::from_names(["O"]).unwrap();
        end(read("a O\n\nb B-X\n", Some(&labels)), "x.conll:3: label 'B-X' is not one of 'O'");
    }
}
