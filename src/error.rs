//! The one error type. Callers branch on [`Kind`]; people read the text.
//! Context is added where a name is known: `model 'gpt2': node 12 (Erf): no gradient rule`.

use std::fmt;

/// What went wrong, as far as a program can act on it. The numbers are part of the C ABI
/// and never change; 0 is reserved for success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Kind {
    /// An argument is out of range, NULL, of the wrong length or dtype, or contradicts another.
    InvalidArgument = 1,
    /// A named thing (model, parameter, input, file) does not exist.
    NotFound = 2,
    /// Reading or writing a file failed.
    Io = 3,
    /// A file is not what it claims to be: truncated, cyclic, malformed, checksum mismatch.
    InvalidData = 4,
    /// Well-formed, but this library has no way to do it (an op without a gradient rule, a dtype).
    Unsupported = 5,
    /// Shapes do not fit together.
    Shape = 6,
    /// ONNX Runtime could not be found, loaded, or is too old.
    RuntimeUnavailable = 7,
    /// ONNX Runtime refused a model or failed while running it.
    Runtime = 8,
    /// A loss, gradient or weight is NaN or infinite.
    NonFinite = 9,
    /// The call is not possible in the object's present state.
    State = 10,
    /// A callback asked to stop.
    Cancelled = 11,
    /// The handle was poisoned by an earlier internal failure; it can only be freed.
    Poisoned = 12,
    /// A defect in this library.
    Internal = 13,
    /// The system has no memory, or no thread, for the call.
    OutOfMemory = 14,
    /// Another rank failed, ended, or did not answer in time, or the host's communicator failed.
    Communication = 15,
}

/// An error: its [`Kind`], a message for people, and what caused it.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of every fallible operation of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A new error without a cause.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Attaches the underlying cause.
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Prefixes the message with where it happened: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// What a program branches on.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What a person reads, without the chain of causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Shorthand for [`Kind::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, message)
    }

    /// Shorthand for [`Kind::InvalidData`].
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidData, message)
    }

    /// Shorthand for [`Kind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, message)
    }

    /// Shorthand for [`Kind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// Shorthand for [`Kind::Shape`].
    pub fn shape(message: impl Into<String>) -> Self {
        Self::new(Kind::Shape, message)
    }

    /// Shorthand for [`Kind::State`].
    pub fn state(message: impl Into<String>) -> Self {
        Self::new(Kind::State, message)
    }

    /// Shorthand for [`Kind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    /// So many bytes that the system does not give.
    pub fn out_of_memory(n_bytes: usize) -> Self {
        Self::new(Kind::OutOfMemory, format!("the system has no memory for {n_bytes} bytes"))
    }

    /// A thread that cannot be started.
    pub fn no_thread(source: std::io::Error) -> Self {
        let text = format!("the system starts no thread: {source}");
        Self::new(Kind::OutOfMemory, text).with_source(source)
    }

    /// JSON that cannot be read: where, and in words for people. The caller adds the file.
    pub fn json(source: serde_json::Error) -> Self {
        use serde_json::error::Category;
        let at = match (source.line(), source.column()) {
            (0, _) => String::new(),
            (line, column) => format!(" at line {line}, column {column}"),
        };
        let text = source.to_string();
        // The parser's messages about values of a wrong kind name keys, which help.
        let quoted = || text.split('`').nth(1).unwrap_or_default();
        let what = match source.classify() {
            Category::Eof => format!("the JSON ends too early{at}; is the file cut off?"),
            Category::Data if text.starts_with("missing field") => {
                format!("the key '{}' is missing", quoted())
            }
            Category::Data if text.starts_with("unknown field") => {
                format!("the key '{}' is not known", quoted())
            }
            Category::Data if text.starts_with("duplicate field") => {
                format!("the key '{}' is there twice", quoted())
            }
            Category::Data => format!("a value does not have the type that it must have{at}"),
            Category::Syntax | Category::Io => format!("not JSON{at}"),
        };
        Self::data(what).with_source(source)
    }

    /// A folder that cannot be made: never [`Kind::NotFound`], as nothing was looked for.
    pub fn create_folder(path: &std::path::Path, source: std::io::Error) -> Self {
        let text = format!("the folder {} cannot be created: {source}", path.display());
        Self::new(io_kind(&source), text).with_source(source)
    }

    /// A file that cannot be written: never [`Kind::NotFound`], likewise.
    pub fn write(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::new(io_kind(&source), format!("{} cannot be written: {source}", path.display()))
            .with_source(source)
    }

    /// An I/O failure on `path`.
    pub fn io(path: &std::path::Path, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            _ => io_kind(&source),
        };
        Self::new(kind, format!("{}: {source}", path.display())).with_source(source)
    }
}

/// What failed where a file was there: the disk, or memory for its content.
fn io_kind(error: &std::io::Error) -> Kind {
    match error.kind() {
        std::io::ErrorKind::OutOfMemory => Kind::OutOfMemory,
        _ => Kind::Io,
    }
}

impl From<std::collections::TryReserveError> for Error {
    fn from(source: std::collections::TryReserveError) -> Self {
        Self::new(Kind::OutOfMemory, "the system has no memory for this").with_source(source)
    }
}

/// A number of things in words: `1 model`, `2 models`, `1 class`, `2 classes`, `2 entries`.
pub fn count(n: usize, one: &str) -> String {
    if n == 1 {
        return format!("1 {one}");
    }
    match one.strip_suffix('y') {
        _ if one.ends_with('s') || one.ends_with('x') || one.ends_with("ch") => {
            format!("{n} {one}es")
        }
        Some(stem) if !stem.ends_with(['a', 'e', 'i', 'o', 'u']) => format!("{n} {stem}ies"),
        _ => format!("{n} {one}s"),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

/// Adds context to the error of a [`Result`].
pub trait Context<T> {
    /// Prefixes the error's message; `f` runs only on failure.
    fn context<D: fmt::Display>(self, f: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context<D: fmt::Display>(self, f: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| e.context(f()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_is_prefixed_and_kind_kept() {
        let e: Result<()> = Err(Error::unsupported("no gradient rule"));
        let e = e.context(|| "node 12 (Erf)").context(|| "model 'gpt2'").unwrap_err();
        assert_eq!(e.to_string(), "model 'gpt2': node 12 (Erf): no gradient rule");
        assert_eq!(e.kind(), Kind::Unsupported);
    }

    #[test]
    fn things_are_counted() {
        let all =
            [(1, "class"), (2, "class"), (0, "entry"), (1, "entry"), (3, "key"), (2, "batch")];
        let text = all.map(|(n, one)| count(n, one)).join(", ");
        assert_eq!(text, "1 class, 2 classes, 0 entries, 1 entry, 3 keys, 2 batches");
    }

    #[test]
    fn json_errors_have_places_and_no_words_of_the_parser() {
        #[derive(Debug, serde::Deserialize)]
        struct One {
            #[serde(rename = "count")]
            _count: usize,
        }
        let check = |text: &str, expect: &str| {
            let e = Error::json(serde_json::from_str::<One>(text).unwrap_err());
            assert_eq!((e.kind(), e.message()), (Kind::InvalidData, expect));
        };
        check(
            "{\"count\": 1",
            "the JSON ends too early at line 1, column 11; is the file cut off?",
        );
        check("{\n\"count\": x}", "not JSON at line 2, column 10");
        check("{}", "the key 'count' is missing");
        check(
            "{\"count\": \"a\"}",
            "a value does not have the type that it must have at line 1, column 13",
        );
    }
}
