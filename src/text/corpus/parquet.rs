//! Rows of a Parquet file as JSON objects, so that fields are found as in JSON lines.

use crate::error::{Error, Result};
use crate::file::check_readable;
use crate::text::text_file::at;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::Type;
use serde_json::Value;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// Calls `each` with every row and its number, from 1. Only columns that a path in `wanted` begins
/// with are read, unless there are none.
///
/// Errors name the file, and those of `each` the row: a file that is no Parquet, or damaged.
pub(super) fn for_each_row(
    path: &Path,
    wanted: &[String],
    mut each: impl FnMut(usize, &Value) -> Result<()>,
) -> Result<()> {
    check_readable(path)?;
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // The crate panics on some damaged files.
    let read = AssertUnwindSafe(|| read(path, file, wanted, &mut each));
    catch_unwind(read).unwrap_or_else(|_| Err(damaged(path, "it contradicts itself")))
}

fn damaged(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::data(format!("{}: the Parquet file is damaged: {what}", path.display()))
}

fn read(
    path: &Path,
    file: File,
    wanted: &[String],
    each: &mut impl FnMut(usize, &Value) -> Result<()>,
) -> Result<()> {
    let reader = SerializedFileReader::new(file).map_err(|e| damaged(path, e))?;
    let schema = reader.metadata().file_metadata().schema_descr().root_schema();
    let begins = |path: &String, name: &str| {
        path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let chosen = |field: &&Arc<Type>| wanted.iter().any(|path| begins(path, field.name()));
    let fields: Vec<Arc<Type>> = schema.get_fields().iter().filter(chosen).cloned().collect();
    // A key that no column has is an error of `each`, which then lists all columns.
    let complete = wanted.iter().all(|path| fields.iter().any(|f| begins(path, f.name())));
    let projection = match complete || fields.len() > 1 {
        true => Some(
            Type::group_type_builder(schema.name())
                .with_fields(fields)
                .build()
                .map_err(|e| damaged(path, e))?,
        ),
        false => None,
    };
    let rows = reader.get_row_iter(projection).map_err(|e| damaged(path, e))?;
    for (i, row) in rows.enumerate() {
        let value = row.map_err(|e| damaged(path, e))?.to_json_value();
        each(i + 1, &value).map_err(|e| e.context(format!("{}:{}", path.display(), i + 1)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::text::{Column, Corpus, CorpusOptions};
    use parquet::basic::Compression;
    use parquet::data_type::{ByteArray, ByteArrayType, DoubleType};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::path::Path;
    use std::sync::Arc;

    /// Three rows with a text in `data.text` and a class in `label`.
    fn write(path: &Path) {
        let schema = "message rows { required group data { required binary text (UTF8); } \
                      required double label; }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let snappy = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let file = std::fs::File::create(path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(snappy)).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let texts = ["one", "two", "caf\u{e9}"].map(ByteArray::from);
        column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&[1.0, 0.0, 1.0], None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn rows_and_nested_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        write(&path);
        let column = |name: &str| Some(Column::Name(name.into()));
        let read = |text_column| {
            let options = CorpusOptions { text_column, ..Default::default() };
            Corpus::read_classification(&path, &options, None)
        };
        let corpus = read(column("data.text")).unwrap();
        assert_eq!(corpus.texts(), ["one", "two", "caf\u{e9}"]);
        assert_eq!(
            (corpus.labels().names().join(" "), corpus.label_counts()),
            ("0 1".into(), vec![1, 2])
        );
        let e = read(None).unwrap_err();
        let end = "a.parquet:1: no key 'text'; the keys are 'data', 'label'; set text_column";
        assert!(e.message().ends_with(end), "{e}");
        let e = read(column("data.body")).unwrap_err();
        assert!(e.message().contains("no key 'body' in 'data'"), "{e}");
        let good = std::fs::read(&path).unwrap();
        for n in (0..good.len()).step_by(7) {
            let mut bytes = good.clone();
            bytes[n] ^= 0x55;
            std::fs::write(&path, &bytes).unwrap();
            if let Err(e) = read(column("data.text")) {
                assert!(e.message().contains("a.parquet"), "{e}");
            }
            std::fs::write(&path, &good[..n]).unwrap();
            assert!(read(column("data.text")).is_err());
        }
    }
}
