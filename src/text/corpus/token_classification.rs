//! Reader for token classification: one word a line, its tag in the last column, a blank line
//! between sentences, as in the CoNLL shared tasks.
//!
//! Columns are separated by a tab when the line has one, else by white space. Columns between the
//! two (part of speech, ...) are ignored. Lines that begin with `-DOCSTART-` are skipped, and so
//! are comments before the first word of a sentence: `# text = ...`, `# newdoc`, `# newpar`,
//! `#begin document`, and in files with tabs any line that begins with `# ` and has none.

use crate::error::Result;
use crate::memory::{push, room};
use crate::text::corpus::examples::{Corpus, Example, TextTask, unknown_label};
use crate::text::corpus::labels::LabelMap;
use crate::text::corpus::paths::find;
use crate::text::text_file::{at, lines, read_text};
use std::path::Path;

/// One sentence: the line and the text of each word.
type Sentence<'a> = Vec<(usize, &'a str)>;

/// A word and its line, with the name of its tag.
type Tagged<'a> = (usize, &'a str, &'a str);

impl Corpus {
    /// Reads words with a tag each. Tags stay as written (BIO, IOB, BIOES, or plain classes).
    /// `path` may be a pattern of several files, e.g. `data/*.conll`.
    ///
    /// Without `labels` the tags are those of the file: `O` first, the others by bytes; with
    /// `labels`, those of the training data, a tag outside them is an error.
    ///
    /// Errors name file and line: a line without a tag, an unknown tag, a file without words.
    pub fn read_token_classification(path: &Path, labels: Option<&LabelMap>) -> Result<Self> {
        let paths = find(path)?;
        let texts = paths.iter().map(|path| read_text(path)).collect::<Result<Vec<_>>>()?;
        let mut sentences = Vec::new();
        for (path, text) in paths.iter().zip(&texts) {
            for sentence in self::sentences(path, text)? {
                let tagged = sentence.into_iter().map(|line| tagged(path, line));
                push(&mut sentences, (path, tagged.collect::<Result<Vec<_>>>()?))?;
            }
        }
        let labels = match labels {
            Some(labels) => labels.clone(),
            None => seen(sentences.iter().flat_map(|(_, sentence)| sentence))?,
        };
        let mut examples = room(sentences.len())?;
        for (path, sentence) in sentences {
            let mut words = Vec::with_capacity(sentence.len());
            let mut tags = Vec::with_capacity(sentence.len());
            for (line, word, tag) in sentence {
                tags.push(
                    labels.id(tag).ok_or_else(|| at(path, line, unknown_label(tag, &labels)))?,
                );
                words.push(word.to_owned());
            }
            examples.push(Example::Words { words, tags });
        }
        Corpus::new(TextTask::TokenClassification, labels, examples)
    }

    /// Reads words without tags, e.g. to learn from them beside tagged ones
    /// ([`Corpus::concatenate`]): the first column of each line, as in
    /// [`Corpus::read_token_classification`]. Other columns are ignored, a line may have just one.
    /// The corpus has no classes.
    ///
    /// Errors name the file: text that is not UTF-8, a file without words.
    pub fn read_words(path: &Path) -> Result<Self> {
        let untagged = |sentence: Sentence| Example::Words {
            words: sentence.into_iter().map(|(_, line)| columns(line).0.to_owned()).collect(),
            tags: Vec::new(),
        };
        let mut examples = Vec::new();
        for path in find(path)? {
            let text = read_text(&path)?;
            let found = sentences(&path, &text)?;
            examples.try_reserve(found.len())?;
            examples.extend(found.into_iter().map(untagged));
        }
        Corpus::new(TextTask::TokenClassification, LabelMap::default(), examples)
    }
}

/// The lines of each sentence; a file without any is an error.
fn sentences<'a>(path: &Path, text: &'a str) -> Result<Vec<Sentence<'a>>> {
    let mut all = Vec::new();
    let mut current = Sentence::new();
    let tabs = text.contains('\t');
    for (number, line) in lines(text) {
        if line.trim().is_empty() {
            if !current.is_empty() {
                push(&mut all, std::mem::take(&mut current))?;
            }
            continue;
        }
        let is_comment = current.is_empty() && is_comment(line, tabs);
        if !line.starts_with("-DOCSTART-") && !is_comment {
            push(&mut current, (number, line))?;
        }
    }
    if !current.is_empty() {
        push(&mut all, current)?;
    }
    if all.is_empty() {
        return Err(at(path, 1, "the file holds no words"));
    }
    Ok(all)
}

/// Whether a line before the first word of a sentence is a comment. `#` may be a word, too.
fn is_comment(line: &str, tabs: bool) -> bool {
    if line.starts_with("#begin document") || line.starts_with("#end document") {
        return true;
    }
    let Some(rest) = line.strip_prefix("# ") else { return false };
    let first = rest.split_whitespace().next().unwrap_or("");
    (tabs && !line.contains('\t')) || rest.contains('=') || ["newdoc", "newpar"].contains(&first)
}

fn tagged<'a>(path: &Path, (number, line): (usize, &'a str)) -> Result<Tagged<'a>> {
    let (word, tag) = columns(line);
    let tag = tag.ok_or_else(|| {
        at(path, number, format!("'{line}' has one column; a word and its tag are needed"))
    })?;
    Ok((number, word, tag))
}

/// The first and, of several, the last column.
fn columns(line: &str) -> (&str, Option<&str>) {
    if let Some((word, rest)) = line.split_once('\t') {
        let tag = rest.rsplit('\t').next().unwrap_or(rest).trim();
        return (word, Some(tag).filter(|tag| !tag.is_empty()));
    }
    let line = line.trim();
    match line.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.rsplit(char::is_whitespace).next()),
        None => (line, None),
    }
}

fn seen<'a>(words: impl Iterator<Item = &'a Tagged<'a>>) -> Result<LabelMap> {
    let all = LabelMap::from_seen(words.map(|(_, _, tag)| *tag));
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
    fn comments_are_no_words() {
        let check = |content: &str, expect: &[&str]| {
            assert_eq!(read(content, None).unwrap().texts().unwrap(), expect, "{content}");
        };
        check("# text = EU rejects\n# id 3 domain=en\nEU B-ORG\nrejects O\n", &["EU rejects"]);
        check("# newdoc\n# newpar id\nEU O\n\n# sent_id = 2\nyes O\n", &["EU", "yes"]);
        check("#begin document (a); part 0\nEU O\n\n#end document\n", &["EU"]);
        check("# a free remark\nEU\tB-ORG\n", &["EU"]);
        // A word may be a # or begin with one.
        check("# SYM O\n1 CD O\n\n#fun O\n", &["# 1", "#fun"]);
        check("#\tO\n1\tO\n", &["# 1"]);
        check("room O\n# = SYM O\n", &["room #"]);
    }

    #[test]
    fn several_files_have_one_set_of_tags() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b.conll"), "Rome B-LOC\n").unwrap();
        std::fs::write(dir.path().join("a.conll"), "EU B-ORG\nsays O\n").unwrap();
        let pattern = dir.path().join("*.conll");
        let corpus = Corpus::read_token_classification(&pattern, None).unwrap();
        assert_eq!(corpus.labels().names(), ["O", "B-LOC", "B-ORG"]);
        assert_eq!(corpus.texts().unwrap(), ["EU says", "Rome"]);
        assert_eq!(Corpus::read_words(&pattern).unwrap().texts().unwrap(), ["EU says", "Rome"]);
        let tags = LabelMap::from_names(["O", "B-ORG"]).unwrap();
        let e = Corpus::read_token_classification(&pattern, Some(&tags)).unwrap_err();
        assert!(e.message().contains("b.conll:1: label 'B-LOC'"), "{e}");
    }

    #[test]
    fn words_without_tags() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.txt");
        let read = |content: &str| {
            std::fs::write(&path, content).unwrap();
            Corpus::read_words(&path)
        };
        let corpus = read("EU\nrejects VBZ O\n\na b\t\n").unwrap();
        let words = |w: &[&str]| Example::Words {
            words: w.iter().map(|s| s.to_string()).collect(),
            tags: Vec::new(),
        };
        assert_eq!(corpus.examples(), [words(&["EU", "rejects"]), words(&["a b"])]);
        assert!(corpus.labels().is_empty());
        assert!(read(" \n").unwrap_err().message().ends_with("x.txt:1: the file holds no words"));
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
