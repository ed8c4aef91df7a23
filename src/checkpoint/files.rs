//! The files of a checkpoint before they are written: borrowed from what trains, or copied so that
//! it can go on meanwhile.

use std::borrow::Cow;
use std::path::Path;

use super::weights::{self, View};
use crate::error::{Context, Error, Result};
use crate::memory::copied;
use crate::tensor::DType;

/// A tensor of a file.
struct Named<'a> {
    name: String,
    dtype: DType,
    shape: Cow<'a, [usize]>,
    bytes: Bytes<'a>,
}

enum Bytes<'a> {
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
    Ints(Vec<i64>),
}

enum Content<'a> {
    Tensors(Vec<Named<'a>>),
    Text(String),
}

/// Files by name.
#[derive(Default)]
pub struct Files<'a>(Vec<(String, Content<'a>)>);

impl<'a> Files<'a> {
    /// Adds a text.
    pub fn add_text(&mut self, name: impl Into<String>, text: String) {
        self.0.push((name.into(), Content::Text(text)));
    }

    /// Adds a file of tensors.
    pub fn add_tensors<N: Into<String>, V: Into<View<'a>>>(
        &mut self,
        name: impl Into<String>,
        tensors: impl IntoIterator<Item = (N, V)>,
    ) {
        let named = |(name, view): (N, V)| {
            let View { dtype, shape, bytes } = view.into();
            let bytes = Bytes::Borrowed(bytes);
            Named { name: name.into(), dtype, shape: shape.into(), bytes }
        };
        let all = tensors.into_iter().map(named).collect();
        self.0.push((name.into(), Content::Tensors(all)));
    }

    /// Adds a file with one row of floats.
    pub fn add_floats(&mut self, file: &str, name: &str, all: &'a [f32]) {
        let one = Named {
            name: name.to_owned(),
            dtype: DType::F32,
            shape: vec![all.len()].into(),
            bytes: Bytes::Borrowed(bytemuck::cast_slice(all)),
        };
        self.0.push((file.to_owned(), Content::Tensors(vec![one])));
    }

    /// Adds integers to the last file, of tensors, that was added.
    pub fn add_ints(&mut self, name: &str, shape: &[usize], all: Vec<i64>) {
        if let Some((_, Content::Tensors(tensors))) = self.0.last_mut() {
            tensors.push(Named {
                name: name.to_owned(),
                dtype: DType::I64,
                shape: shape.to_owned().into(),
                bytes: Bytes::Ints(all),
            });
        }
    }

    /// Copies what is borrowed.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn into_owned(self) -> Result<Files<'static>> {
        let file = |(name, content): (String, Content)| {
            let content = match content {
                Content::Text(text) => Content::Text(text),
                Content::Tensors(all) => {
                    Content::Tensors(all.into_iter().map(Named::into_owned).collect::<Result<_>>()?)
                }
            };
            Ok((name, content))
        };
        self.0.into_iter().map(file).collect::<Result<_>>().map(Files)
    }

    /// Writes them into a directory that is no checkpoint yet; they are not flushed to the disk.
    pub fn write(&self, dir: &Path) -> Result<()> {
        self.0.iter().try_for_each(|(name, content)| {
            let path = dir.join(name);
            match content {
                Content::Text(text) => std::fs::write(&path, text).map_err(|e| Error::io(&path, e)),
                Content::Tensors(all) => {
                    weights::write_unflushed(&path, all.iter().map(|t| (t.name.as_str(), t.view())))
                }
            }
        })
    }
}

impl Named<'_> {
    fn view(&self) -> View<'_> {
        let bytes = match &self.bytes {
            Bytes::Borrowed(bytes) => bytes,
            Bytes::Owned(bytes) => bytes.as_slice(),
            Bytes::Ints(all) => bytemuck::cast_slice(all),
        };
        View { dtype: self.dtype, shape: &self.shape, bytes }
    }

    fn into_owned(self) -> Result<Named<'static>> {
        let bytes = match self.bytes {
            Bytes::Owned(bytes) => Bytes::Owned(bytes),
            Bytes::Ints(all) => Bytes::Ints(all),
            Bytes::Borrowed(bytes) => {
                Bytes::Owned(copied(bytes).context(|| format!("a copy of '{}'", self.name))?)
            }
        };
        let Self { name, dtype, shape, .. } = self;
        Ok(Named { name, dtype, shape: shape.into_owned().into(), bytes })
    }
}
