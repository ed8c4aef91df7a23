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

    /// An I/O failure on `path`.
    pub fn io(path: &std::path::Path, source: std::io::Error) -> Self {
        let kind =
            if source.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::Io };
        Self::new(kind, format!("{}: {source}", path.display())).with_source(source)
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
}
