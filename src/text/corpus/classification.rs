//! Readers of labelled texts: tab-separated, comma-separated, JSON, Parquet, folders of text files.
//!
//! Tab-separated files have no quoting: everything between two tabs is the field. Comma-separated
//! files follow RFC 4180. Blank lines are skipped.

use crate::error::{Error, Result};
use crate::memory::{Gather, push, room};
use crate::text::corpus::csv::{self, Record};
use crate::text::corpus::examples::{Corpus, Example, TextTask, unknown_label};
use crate::text::corpus::json::{for_each_object, scalar, string};
use crate::text::corpus::labels::LabelMap;
use crate::text::corpus::paths::{entries, find, is_hidden};
use crate::text::text_file::{at, lines, read_text};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The format of a file of labelled texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum CorpusFormat {
    /// By the file's ending: `.csv`, `.jsonl` or `.json`, `.parquet`, else tabs; a folder for a
    /// folder.
    #[default]
    Auto = 0,
    /// Fields between tabs, no quoting.
    Tsv = 1,
    /// Fields between commas, quoted by `"`.
    Csv = 2,
    /// One JSON object a line, or one array of objects.
    Jsonl = 3,
    /// A folder with a folder for each class, which has a text in each of its files, e.g.
    /// `pos/1.txt`; without labels, a folder with a text in each file.
    Folder = 4,
    /// Apache Parquet, compressed by Snappy or not; needs the cargo feature `parquet`.
    Parquet = 5,
}

/// Whether the first line names the columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum CorpusHeader {
    /// Yes when a column is chosen by name, or when the label's field of the first line reads
    /// `label`, `labels`, `class`, `category` or `sentiment`.
    #[default]
    Auto = 0,
    /// The first line names the columns.
    Yes = 1,
    /// The first line is an example.
    No = 2,
}

/// A column by position or name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// 0 is the first. Not for JSON and Parquet.
    Index(usize),
    /// By its name in the header, or the key in JSON and Parquet. There a path with dots between
    /// keys and positions goes on inside: `data.text`, `answers.0.text`.
    Name(String),
}

/// How labelled texts are read. The default reads `text TAB label`, and in JSON and Parquet the
/// keys `text` (or `sentence`) and `label`. A folder needs none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorpusOptions {
    /// The file's format.
    pub format: CorpusFormat,
    /// Whether there is a header; ignored for JSON.
    pub header: CorpusHeader,
    /// The column of the text; default: the first column, or `text`/`sentence`.
    pub text_column: Option<Column>,
    /// The column of the second text of a pair; default: none.
    pub pair_column: Option<Column>,
    /// The column of the class, an integer or a name; default: the second column, or `label`.
    pub label_column: Option<Column>,
    /// True when the file has no labels; `label_column` is then ignored.
    pub unlabelled: bool,
}

/// One example whose label has no id yet.
struct Row {
    /// Which of the files it is from.
    file: usize,
    line: usize,
    text: String,
    pair: Option<String>,
    label: Option<String>,
}

/// The files that were read, and their rows.
#[derive(Default)]
struct Rows {
    files: Vec<PathBuf>,
    rows: Vec<Row>,
}

impl Rows {
    fn push(
        &mut self,
        line: usize,
        text: String,
        pair: Option<String>,
        label: Option<String>,
    ) -> Result<()> {
        let file = self.files.len().saturating_sub(1);
        push(&mut self.rows, Row { file, line, text, pair, label })
    }
}

impl Corpus {
    /// Reads labelled texts. `path` is a file, a pattern of several files (`data/*.csv`), or a
    /// folder ([`CorpusFormat::Folder`]).
    ///
    /// Without `labels` the classes are those seen in the files ([`LabelMap::from_seen`]); with
    /// `labels`, those of the training data, a class outside them is an error.
    ///
    /// Errors name file and line (in Parquet the row): missing columns, an open quote, bad JSON,
    /// text that is not UTF-8, unknown labels, a file without examples. `Unsupported` for Parquet
    /// without its feature.
    pub fn read_classification(
        path: &Path,
        options: &CorpusOptions,
        labels: Option<&LabelMap>,
    ) -> Result<Self> {
        let mut all = Rows::default();
        for path in find(path)? {
            read(path, options, &mut all)?;
        }
        let Rows { files, rows } = all;
        let seen = || LabelMap::from_seen(rows.iter().filter_map(|r| r.label.as_deref()));
        let labels = labels.cloned().unwrap_or_else(seen);
        let mut examples = room(rows.len())?;
        for row in rows {
            let label = row.label.as_deref().map(|name| {
                let place = |e| at(&files[row.file], row.line, e);
                labels.id(name).ok_or_else(|| place(unknown_label(name, &labels)))
            });
            let label = label.transpose()?;
            examples.push(Example::Text { text: row.text, pair: row.pair, label });
        }
        Corpus::new(TextTask::Classification, labels, examples)
    }
}

/// Reads one file or folder.
fn read(path: PathBuf, options: &CorpusOptions, all: &mut Rows) -> Result<()> {
    let before = all.rows.len();
    let format = resolve(options.format, &path);
    if format == CorpusFormat::Folder {
        return read_folder(&path, options, all);
    }
    if path.is_dir() {
        return Err(Error::invalid(format!(
            "{} is a folder; give a file or a pattern such as {}",
            path.display(),
            path.join("*.csv").display()
        )));
    }
    all.files.push(path.clone());
    let mut taken = "";
    match format {
        CorpusFormat::Parquet => read_parquet(&path, options, all)?,
        CorpusFormat::Jsonl => {
            let text = read_text(&path)?;
            for_each_object(&path, &text, |line, value| json_row(value, line, options, all))?;
        }
        _ => {
            let text = read_text(&path)?;
            let records = match format {
                CorpusFormat::Csv => csv::records(&path, &text)?,
                _ => tsv_records(&text)?,
            };
            if table_rows(&path, records, options, all)? {
                taken = "; the first line was taken as a header";
            }
        }
    }
    if all.rows.len() == before {
        return Err(at(&path, 1, format!("the file holds no examples{taken}")));
    }
    Ok(())
}

fn resolve(format: CorpusFormat, path: &Path) -> CorpusFormat {
    if format != CorpusFormat::Auto {
        return format;
    }
    if path.is_dir() {
        return CorpusFormat::Folder;
    }
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    match ending.as_str() {
        "csv" => CorpusFormat::Csv,
        "jsonl" | "json" | "ndjson" => CorpusFormat::Jsonl,
        "parquet" => CorpusFormat::Parquet,
        _ => CorpusFormat::Tsv,
    }
}

/// The folders of classes, or without labels the files, of a folder.
fn read_folder(folder: &Path, options: &CorpusOptions, all: &mut Rows) -> Result<()> {
    let chosen = [&options.text_column, &options.pair_column, &options.label_column];
    if chosen.into_iter().any(Option::is_some) {
        return Err(Error::invalid(format!(
            "{} is a folder of text files, which have no columns; leave text_column, pair_column \
             and label_column out",
            folder.display()
        )));
    }
    let before = all.rows.len();
    let visible = |folder: &Path| -> Result<Vec<PathBuf>> {
        Ok(entries(folder)?.into_iter().filter(|p| !is_hidden(p)).collect())
    };
    let mut file = |path: PathBuf, class: Option<&str>| -> Result<()> {
        let text = read_text(&path)?.trim().to_owned();
        if text.is_empty() {
            return Err(at(&path, 1, "the file holds no text"));
        }
        all.files.push(path);
        all.push(1, text, None, class.map(str::to_owned))
    };
    for entry in visible(folder)? {
        if options.unlabelled && entry.is_file() {
            file(entry, None)?;
        } else if !options.unlabelled && entry.is_dir() {
            let class = entry.file_name().unwrap_or_default().to_str().ok_or_else(|| {
                Error::data(format!("{}: the folder's name is not UTF-8", entry.display()))
            })?;
            visible(&entry)?.into_iter().try_for_each(|path| file(path, Some(class)))?;
        }
    }
    if all.rows.len() > before {
        return Ok(());
    }
    let wanted = match options.unlabelled {
        true => "no text files",
        false => "no folders with text files, one for each class, e.g. pos/1.txt",
    };
    Err(Error::data(format!("{}: the folder has {wanted}", folder.display())))
}

#[cfg(feature = "parquet")]
fn read_parquet(path: &Path, options: &CorpusOptions, all: &mut Rows) -> Result<()> {
    let columns = [&options.text_column, &options.pair_column, &options.label_column];
    let name = |column: &Option<Column>| match column {
        Some(Column::Name(name)) => Some(name.clone()),
        _ => None,
    };
    let mut wanted: Vec<String> = columns.into_iter().filter_map(name).collect();
    wanted.extend(["text", "sentence", "label"].map(str::to_owned));
    super::parquet::for_each_row(path, &wanted, |row, value| json_row(value, row, options, all))
}

#[cfg(not(feature = "parquet"))]
fn read_parquet(path: &Path, _: &CorpusOptions, _: &mut Rows) -> Result<()> {
    crate::file::check_readable(path)?;
    Err(Error::unsupported(format!(
        "{}: this build of the library does not read Parquet; build it with the cargo feature \
         'parquet', or convert the file to JSON lines",
        path.display()
    )))
}

fn tsv_records(text: &str) -> Result<Vec<Record>> {
    lines(text)
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(n, line)| (n, line.split('\t').map(str::to_owned).collect()))
        .gathered()
}

/// Positions of the columns in a table, once the header is known.
struct Positions {
    text: usize,
    pair: Option<usize>,
    label: Option<usize>,
    /// Whether the first line was taken as a header without being told so.
    guessed: bool,
}

/// Whether the first line is a header; the other lines become rows.
fn table_rows(
    path: &Path,
    records: Vec<Record>,
    options: &CorpusOptions,
    all: &mut Rows,
) -> Result<bool> {
    let Some((first_line, first)) = records.first() else { return Ok(false) };
    let has_header = has_header(first, options);
    let header = has_header.then_some(first.as_slice());
    let find = |column: &Column| position(column, header).map_err(|e| at(path, *first_line, e));
    let text = options.text_column.as_ref().map_or(Ok(0), &find)?;
    let pair = options.pair_column.as_ref().map(&find).transpose()?;
    let label = if options.unlabelled {
        None
    } else {
        let default = options.pair_column.as_ref().map_or(1, |_| 2);
        Some(options.label_column.as_ref().map_or(Ok(default), &find)?)
    };
    let guessed = has_header && options.header == CorpusHeader::Auto;
    let at_columns = Positions { text, pair, label, guessed };
    for (line, fields) in records.into_iter().skip(usize::from(has_header)) {
        row(path, line, &fields, &at_columns, all)?;
    }
    Ok(has_header)
}

fn has_header(first: &[String], options: &CorpusOptions) -> bool {
    let named = |c: &Option<Column>| matches!(c, Some(Column::Name(_)));
    match options.header {
        CorpusHeader::Yes => true,
        CorpusHeader::No => false,
        CorpusHeader::Auto => {
            let default = if options.pair_column.is_some() { 2 } else { 1 };
            let index = match options.label_column {
                Some(Column::Index(i)) => i,
                _ => default,
            };
            let field = first.get(index).map(|f| f.trim().to_ascii_lowercase());
            let usual = ["label", "labels", "class", "category", "sentiment"];
            named(&options.text_column)
                || named(&options.pair_column)
                || named(&options.label_column)
                || field.is_some_and(|f| usual.contains(&f.as_str()))
        }
    }
}

fn position(column: &Column, header: Option<&[String]>) -> Result<usize, String> {
    match (column, header) {
        (Column::Index(i), _) => Ok(*i),
        (Column::Name(name), Some(header)) => {
            header.iter().position(|h| h.trim() == name).ok_or_else(|| {
                let names: Vec<String> = header.iter().map(|h| format!("'{}'", h.trim())).collect();
                let names = names.join(", ");
                format!("no column '{name}'; the first line was taken as a header and has {names}")
            })
        }
        (Column::Name(name), None) => {
            Err(format!("column '{name}' is given by name, but the file is read without header"))
        }
    }
}

fn row(
    path: &Path,
    line: usize,
    fields: &[String],
    at_columns: &Positions,
    all: &mut Rows,
) -> Result<()> {
    let field = |i: usize, what: &str, option: &str| {
        fields.get(i).cloned().ok_or_else(|| {
            let n = fields.len();
            let s = if n == 1 { "" } else { "s" };
            let mut text = format!(
                "{n} column{s}, but the {what} is read from column {} ({option} sets it)",
                i + 1
            );
            if at_columns.guessed {
                text += "; the first line was taken as a header";
            }
            if fields.first().is_some_and(|f| f.trim_start().starts_with('{')) {
                text += "; the line looks like JSON, for which format is JSONL";
            }
            at(path, line, text)
        })
    };
    let label = at_columns.label.map(|i| field(i, "label", "label_column")).transpose()?;
    let label = label.map(|l| l.trim().to_owned());
    if label.as_deref() == Some("") {
        return Err(at(path, line, "the label is empty"));
    }
    let pair = at_columns.pair.map(|i| field(i, "second text", "pair_column")).transpose()?;
    all.push(line, field(at_columns.text, "text", "text_column")?, pair, label)
}

fn json_row(value: &Value, line: usize, options: &CorpusOptions, all: &mut Rows) -> Result<()> {
    let text = match key(&options.text_column)? {
        Some(name) => string(value, name, "text_column")?,
        None => match value.get("sentence") {
            Some(Value::String(text)) if value.get("text").is_none() => text,
            _ => string(value, "text", "text_column")?,
        },
    };
    let pair = key(&options.pair_column)?;
    let pair =
        pair.map(|name| string(value, name, "pair_column").map(str::to_owned)).transpose()?;
    let label = match options.unlabelled {
        true => None,
        false => {
            let name = key(&options.label_column)?.unwrap_or("label");
            Some(scalar(value, name, "label_column")?)
        }
    };
    all.push(line, text.to_owned(), pair, label)
}

fn key(column: &Option<Column>) -> Result<Option<&str>> {
    match column {
        None => Ok(None),
        Some(Column::Name(name)) => Ok(Some(name)),
        Some(Column::Index(i)) => {
            Err(Error::invalid(format!("column {i}: JSON and Parquet need keys, not positions")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, content: &str, options: &CorpusOptions) -> Result<Corpus> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        Corpus::read_classification(&path, options, None).map_err(|e| {
            let text = e.message().replace(&format!("{}/", dir.path().display()), "");
            Error::new(e.kind(), text)
        })
    }

    /// (text, pair, label name) of each example.
    fn flat(corpus: &Corpus) -> Vec<(String, String, String)> {
        let one = |e: &Example| match e {
            Example::Text { text, pair, label } => (
                text.clone(),
                pair.clone().unwrap_or_default(),
                label.and_then(|l| corpus.labels().name(l)).unwrap_or("").to_owned(),
            ),
            _ => unreachable!(),
        };
        corpus.examples().iter().map(one).collect()
    }

    fn check(name: &str, content: &str, options: &CorpusOptions, expect: &[(&str, &str, &str)]) {
        let got = flat(&read(name, content, options).unwrap());
        let got: Vec<_> = got.iter().map(|(a, b, c)| (&a[..], &b[..], &c[..])).collect();
        assert_eq!(got, expect);
    }

    fn named(name: &str) -> Option<Column> {
        Some(Column::Name(name.into()))
    }

    #[test]
    fn tables() {
        let d = CorpusOptions::default();
        check(
            "a.tsv",
            "good \"film\t1\r\nbad\t0\r\n\r\n",
            &d,
            &[("good \"film", "", "1"), ("bad", "", "0")],
        );
        check("a.tsv", "\u{FEFF}sentence\tlabel\nfine\tpos\n", &d, &[("fine", "", "pos")]);
        check("a.csv", "\"a, \"\"b\"\"\nc\",x\n", &d, &[("a, \"b\"\nc", "", "x")]);
        let c = CorpusOptions { text_column: named("b"), label_column: named("y"), ..d.clone() };
        check("a.csv", "y,a,b\n3,no,yes\n", &c, &[("yes", "", "3")]);
        let c = CorpusOptions { pair_column: Some(Column::Index(1)), ..d.clone() };
        check("p.tsv", "q1\tq2\tsame\n", &c, &[("q1", "q2", "same")]);
        let c = CorpusOptions { unlabelled: true, ..d };
        check("u.txt", "just text\n", &c, &[("just text", "", "")]);
    }

    #[test]
    fn one_class_for_one_and_one_point_nought() {
        let d = CorpusOptions::default();
        let mixed = [("a", "", "1"), ("b", "", "0"), ("c", "", "1")];
        check("a.csv", "a,1.0\nb,0\nc,1\n", &d, &mixed);
        check("a.tsv", "a\t1\nb\t0.0\nc\t1.0\n", &d, &mixed);
        let texts = ["a", "b", "c"].map(str::to_owned).to_vec();
        let classes = ["1.0", "0", "1"].map(str::to_owned);
        assert_eq!(Corpus::from_texts(texts, &classes, None).unwrap().label_counts(), [1, 2]);
    }

    #[test]
    fn old_line_ends() {
        let d = CorpusOptions::default();
        check("a.csv", "a,1\rb,0\r", &d, &[("a", "", "1"), ("b", "", "0")]);
        check("a.tsv", "a\t1\rb\t0", &d, &[("a", "", "1"), ("b", "", "0")]);
    }

    #[test]
    fn folders_of_text_files() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let read = |options: &CorpusOptions, labels: Option<&LabelMap>| {
            Corpus::read_classification(dir.path(), options, labels)
        };
        let d = CorpusOptions::default();
        let e = read(&d, None).unwrap_err();
        assert!(e.message().ends_with("one for each class, e.g. pos/1.txt"), "{e}");
        write("pos/1.txt", "good\n\n very good\n");
        write("pos/2.txt", "fine");
        write("neg/1.txt", "bad\n");
        write("neg/.hidden", "no");
        write("readme.txt", "what it is");
        let corpus = read(&d, None).unwrap();
        let expect = [("bad", "neg"), ("good\n\n very good", "pos"), ("fine", "pos")];
        let got = flat(&corpus);
        let got: Vec<_> = got.iter().map(|(text, _, label)| (&text[..], &label[..])).collect();
        assert_eq!(got, expect);
        let bare = read(&CorpusOptions { unlabelled: true, ..d.clone() }, None).unwrap();
        assert_eq!(bare.texts().unwrap(), ["what it is"]);
        let two = LabelMap::from_names(["bad", "pos"]).unwrap();
        let e = read(&d, Some(&two)).unwrap_err();
        assert!(e.message().contains("neg/1.txt:1: label 'neg' is not one of 'bad', 'pos'"), "{e}");
        let e = read(&CorpusOptions { text_column: named("t"), ..d.clone() }, None).unwrap_err();
        assert!(e.message().contains("leave text_column"), "{e}");
        let e = read(&CorpusOptions { format: CorpusFormat::Csv, ..d.clone() }, None).unwrap_err();
        assert!(e.message().contains("is a folder; give a file or a pattern"), "{e}");
        write("pos/3.txt", " \n");
        let e = read(&d, None).unwrap_err();
        assert!(e.message().ends_with("pos/3.txt:1: the file holds no text"), "{e}");
        write("pos/3.txt", "\u{1}");
        std::fs::write(dir.path().join("pos/3.txt"), b"\x1F\x8B\x08").unwrap();
        let e = read(&d, None).unwrap_err();
        assert!(e.message().contains("pos/3.txt:1: the file is compressed by gzip"), "{e}");
    }

    #[test]
    fn several_files_have_one_set_of_classes() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("2.tsv"), "b\tpos\n").unwrap();
        std::fs::write(dir.path().join("1.csv"), "a,neg\n").unwrap();
        let d = CorpusOptions::default();
        let read = |labels| Corpus::read_classification(&dir.path().join("*"), &d, labels);
        let corpus = read(None).unwrap();
        assert_eq!(flat(&corpus).iter().map(|f| &f.2[..]).collect::<Vec<_>>(), ["neg", "pos"]);
        let labels = LabelMap::from_names(["neg"]).unwrap();
        let e = read(Some(&labels)).unwrap_err();
        assert!(e.message().contains("2.tsv:1: label 'pos'"), "{e}");
        std::fs::write(dir.path().join("3.tsv"), "\n").unwrap();
        let e = read(None).unwrap_err();
        assert!(e.message().ends_with("3.tsv:1: the file holds no examples"), "{e}");
    }

    #[cfg(not(feature = "parquet"))]
    #[test]
    fn parquet_needs_its_feature() {
        let e = read("a.parquet", "PAR1", &CorpusOptions::default()).unwrap_err();
        assert_eq!(e.kind(), crate::Kind::Unsupported);
        assert!(e.message().contains("the cargo feature 'parquet'"), "{e}");
    }

    #[test]
    fn json_lines() {
        let d = CorpusOptions::default();
        let content = "{\"text\":\"a\",\"label\":1}\n{\"sentence\":\"b\",\"label\":0.0}\n";
        check("a.jsonl", content, &d, &[("a", "", "1"), ("b", "", "0")]);
        let c = CorpusOptions { text_column: named("s"), label_column: named("y"), ..d };
        check("a.jsonl", "{\"s\":\"a\",\"y\":true}", &c, &[("a", "", "true")]);
        let c =
            CorpusOptions { text_column: named("data.text"), pair_column: named("to.0.s"), ..c };
        let nested = "[{\"data\":{\"text\":\"a\"},\n\"to\":[{\"s\":\"b\"}],\"y\":2.0}]\n";
        check("a.json", nested, &c, &[("a", "b", "2")]);
    }

    #[test]
    fn errors_say_where() {
        let d = CorpusOptions::default();
        let fails = |name: &str, content: &str, options: &CorpusOptions| {
            read(name, content, options).unwrap_err().message().to_owned()
        };
        let e = fails("a.tsv", "x\t1\nno label\n", &d);
        assert_eq!(
            e,
            "a.tsv:2: 1 column, but the label is read from column 2 (label_column sets it)"
        );
        assert_eq!(fails("a.tsv", "\n", &d), "a.tsv:1: the file holds no examples");
        assert_eq!(fails("a.tsv", "x\t \n", &d), "a.tsv:1: the label is empty");
        let c = CorpusOptions { label_column: named("y"), ..d.clone() };
        assert_eq!(
            fails("a.tsv", "a\tb\nx\t1\n", &c),
            "a.tsv:1: no column 'y'; the first line was taken as a header and has 'a', 'b'"
        );
        assert!(fails("a.jsonl", "{\"text\":\"a\",\"label\":1}\n{", &d).starts_with("a.jsonl:2: "));
        assert_eq!(
            fails("a.jsonl", "{\"x\":1,\"y\":2}", &d),
            "a.jsonl:1: no key 'text'; the keys are 'x', 'y'; set text_column"
        );
        assert_eq!(
            fails("a.jsonl", "{\"text\":\"a\"}", &d),
            "a.jsonl:1: no key 'label'; the keys are 'text'; set label_column"
        );
        let null = fails("a.jsonl", "{\"text\":\"a\",\"label\":null}", &d);
        assert_eq!(null, "a.jsonl:1: 'label' is null, neither a number nor a name");
        assert_eq!(
            fails("a.tsv", "text\tlabel\nx\n", &d),
            "a.tsv:2: 1 column, but the label is read from column 2 (label_column sets it); the \
             first line was taken as a header"
        );
        assert_eq!(
            fails("a.csv", "text,label\n", &d),
            "a.csv:1: the file holds no examples; the first line was taken as a header"
        );
        assert!(fails("a.txt", "{\"text\": 1}\n", &d).ends_with("for which format is JSONL"));
        assert_eq!(
            fails("a.csv", "a,1\n\"b,2\nc,3\n", &d),
            "a.csv:2: the quote that opens here is not closed"
        );
        let other = CorpusOptions { format: CorpusFormat::Jsonl, ..d.clone() };
        assert!(fails("a.tsv", "x\t1\n", &other).contains("a.tsv:1: 'x\t1' is no JSON object"));
    }

    #[test]
    fn unknown_label_in_evaluation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("eval.tsv");
        std::fs::write(&path, "a\tpos\nb\tneutral\n").unwrap();
        let labels = LabelMap::from_names(["neg", "pos"]).unwrap();
        let e = Corpus::read_classification(&path, &CorpusOptions::default(), Some(&labels))
            .unwrap_err();
        let end = "eval.tsv:2: label 'neutral' is not one of 'neg', 'pos'";
        assert!(e.message().ends_with(end), "{e}");
    }
}
