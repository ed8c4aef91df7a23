//! Readers of labelled texts: tab-separated, comma-separated and JSON lines.
//!
//! Tab-separated files have no quoting: everything between two tabs is the field. Comma-separated
//! files follow RFC 4180. Blank lines are skipped.

use crate::error::{Error, Result};
use crate::text::corpus::examples::{Corpus, Example, TextTask, unknown_label};
use crate::text::corpus::labels::LabelMap;
use crate::text::text_file::{at, lines, read_text};
use serde_json::Value;
use std::path::Path;

/// The format of a file of labelled texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum CorpusFormat {
    /// By the file's ending: `.csv`, `.jsonl` or `.json` (one object a line), else tabs.
    #[default]
    Auto = 0,
    /// Fields between tabs, no quoting.
    Tsv = 1,
    /// Fields between commas, quoted by `"`.
    Csv = 2,
    /// One JSON object a line.
    Jsonl = 3,
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
    /// 0 is the first. Not for JSON.
    Index(usize),
    /// By its name in the header, or the key in JSON.
    Name(String),
}

/// How labelled texts are read. The default reads `text TAB label`, and in JSON the keys `text`
/// (or `sentence`) and `label`.
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
    line: usize,
    text: String,
    pair: Option<String>,
    label: Option<String>,
}

impl Corpus {
    /// Reads labelled texts.
    ///
    /// Without `labels` the classes are those seen in the file ([`LabelMap::from_seen`]); with
    /// `labels`, those of the training data, a class outside them is an error.
    ///
    /// Errors name file and line: missing columns, bad JSON, text that is not UTF-8, unknown
    /// labels, a file without examples.
    pub fn read_classification(
        path: &Path,
        options: &CorpusOptions,
        labels: Option<&LabelMap>,
    ) -> Result<Self> {
        let text = read_text(path)?;
        let rows = match resolve(options.format, path) {
            CorpusFormat::Jsonl => json_rows(path, &text, options)?,
            CorpusFormat::Csv => table_rows(path, csv_records(path, &text)?, options)?,
            _ => table_rows(path, tsv_records(&text), options)?,
        };
        if rows.is_empty() {
            return Err(at(path, 1, "the file holds no examples"));
        }
        let seen = || LabelMap::from_seen(rows.iter().filter_map(|r| r.label.as_deref()));
        let labels = labels.cloned().unwrap_or_else(seen);
        let mut examples = Vec::with_capacity(rows.len());
        for row in rows {
            let label = row.label.as_deref().map(|name| {
                labels.id(name).ok_or_else(|| at(path, row.line, unknown_label(name, &labels)))
            });
            let label = label.transpose()?;
            examples.push(Example::Text { text: row.text, pair: row.pair, label });
        }
        Corpus::new(TextTask::Classification, labels, examples)
    }
}

fn resolve(format: CorpusFormat, path: &Path) -> CorpusFormat {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    match (format, ending.as_str()) {
        (CorpusFormat::Auto, "csv") => CorpusFormat::Csv,
        (CorpusFormat::Auto, "jsonl" | "json" | "ndjson") => CorpusFormat::Jsonl,
        (CorpusFormat::Auto, _) => CorpusFormat::Tsv,
        (chosen, _) => chosen,
    }
}

type Record = (usize, Vec<String>);

fn tsv_records(text: &str) -> Vec<Record> {
    lines(text)
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(n, line)| (n, line.split('\t').map(str::to_owned).collect()))
        .collect()
}

fn csv_records(path: &Path, text: &str) -> Result<Vec<Record>> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut records = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| {
            let line = e.position().map_or(1, |p| p.line() as usize);
            at(path, line, &e).with_source(e)
        })?;
        let line = record.position().map_or(1, |p| p.line() as usize);
        records.push((line, record.iter().map(str::to_owned).collect()));
    }
    Ok(records)
}

/// Positions of the columns in a table, once the header is known.
struct Positions {
    text: usize,
    pair: Option<usize>,
    label: Option<usize>,
}

fn table_rows(path: &Path, records: Vec<Record>, options: &CorpusOptions) -> Result<Vec<Row>> {
    let Some((first_line, first)) = records.first() else { return Ok(Vec::new()) };
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
    let at_columns = Positions { text, pair, label };
    let skip = usize::from(has_header);
    let rows = records.into_iter().skip(skip);
    rows.map(|(line, fields)| row(path, line, &fields, &at_columns)).collect()
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
        (Column::Name(name), Some(header)) => header
            .iter()
            .position(|h| h.trim() == name)
            .ok_or_else(|| format!("no column '{name}'; the header has {}", header.join(", "))),
        (Column::Name(name), None) => {
            Err(format!("column '{name}' is given by name, but the file is read without header"))
        }
    }
}

fn row(path: &Path, line: usize, fields: &[String], at_columns: &Positions) -> Result<Row> {
    let field = |i: usize, what: &str| {
        fields.get(i).cloned().ok_or_else(|| {
            let n = fields.len();
            let s = if n == 1 { "" } else { "s" };
            at(path, line, format!("{n} column{s}, but the {what} is read from column {}", i + 1))
        })
    };
    let label = at_columns.label.map(|i| field(i, "label")).transpose()?;
    let label = label.map(|l| l.trim().to_owned());
    if label.as_deref() == Some("") {
        return Err(at(path, line, "the label is empty"));
    }
    let pair = at_columns.pair.map(|i| field(i, "second text")).transpose()?;
    Ok(Row { line, text: field(at_columns.text, "text")?, pair, label })
}

fn json_rows(path: &Path, text: &str, options: &CorpusOptions) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (line, content) in lines(text).filter(|(_, l)| !l.trim().is_empty()) {
        let value: Value = serde_json::from_str(content).map_err(|e| at(path, line, e))?;
        rows.push(json_row(&value, line, options).map_err(|e| at(path, line, e.message()))?);
    }
    Ok(rows)
}

fn json_row(value: &Value, line: usize, options: &CorpusOptions) -> Result<Row> {
    let text = match key(&options.text_column)? {
        Some(name) => string(value, name)?,
        None => string(value, "text").or_else(|e| string(value, "sentence").map_err(|_| e))?,
    };
    let pair = key(&options.pair_column)?.map(|name| string(value, name)).transpose()?;
    let name = key(&options.label_column)?.unwrap_or("label");
    let label = if options.unlabelled { None } else { Some(scalar(value, name)?) };
    Ok(Row { line, text, pair, label })
}

fn key(column: &Option<Column>) -> Result<Option<&str>> {
    match column {
        None => Ok(None),
        Some(Column::Name(name)) => Ok(Some(name)),
        Some(Column::Index(i)) => {
            Err(Error::invalid(format!("column {i}: JSON lines need keys, not positions")))
        }
    }
}

fn string(value: &Value, name: &str) -> Result<String> {
    match value.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(Error::data(format!("'{name}' is not a string"))),
        None => Err(Error::data(format!("no key '{name}'"))),
    }
}

fn scalar(value: &Value, name: &str) -> Result<String> {
    match value.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(Value::Number(n)) => match n.as_f64() {
            Some(f) if n.as_i64().is_none() && f.fract() == 0.0 => Ok(format!("{f:.0}")),
            _ => Ok(n.to_string()),
        },
        Some(Value::Bool(b)) => Ok(b.to_string()),
        Some(_) => Err(Error::data(format!("'{name}' is neither a number nor a name"))),
        None => Err(Error::data(format!("no key '{name}'"))),
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
    fn json_lines() {
        let d = CorpusOptions::default();
        let content = "{\"text\":\"a\",\"label\":1}\n{\"sentence\":\"b\",\"label\":0.0}\n";
        check("a.jsonl", content, &d, &[("a", "", "1"), ("b", "", "0")]);
        let c = CorpusOptions { text_column: named("s"), label_column: named("y"), ..d };
        check("a.jsonl", "{\"s\":\"a\",\"y\":true}", &c, &[("a", "", "true")]);
    }

    #[test]
    fn errors_say_where() {
        let d = CorpusOptions::default();
        let fails = |name: &str, content: &str, options: &CorpusOptions| {
            read(name, content, options).unwrap_err().message().to_owned()
        };
        let e = fails("a.tsv", "x\t1\nno label\n", &d);
        assert_eq!(e, "a.tsv:2: 1 column, but the label is read from column 2");
        assert_eq!(fails("a.tsv", "\n", &d), "a.tsv:1: the file holds no examples");
        assert_eq!(fails("a.tsv", "x\t \n", &d), "a.tsv:1: the label is empty");
        let c = CorpusOptions { label_column: named("y"), ..d.clone() };
        assert_eq!(
            fails("a.tsv", "a\tb\nx\t1\n", &c),
            "a.tsv:1: no column 'y'; the header has a, b"
        );
        assert!(fails("a.jsonl", "{\"text\":\"a\",\"label\":1}\n{", &d).starts_with("a.jsonl:2: "));
        assert_eq!(fails("a.jsonl", "{\"x\":1}", &d), "a.jsonl:1: no key 'text'");
        assert_eq!(fails("a.jsonl", "{\"text\":\"a\"}", &d), "a.jsonl:1: no key 'label'");
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
