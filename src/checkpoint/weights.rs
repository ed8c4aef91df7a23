//! Weight files in the safetensors format: read from a memory map, written in one pass.
//!
//! *shard*: one of several files that together hold a model's weights, listed by an index file
//! (`model.safetensors.index.json`). The format: <https://github.com/huggingface/safetensors>.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use bytes::Bytes;
use safetensors::tensor::Dtype;
use safetensors::{SafeTensorError, SafeTensors};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::error::{Context, Error, Result};
use crate::file::{foreign_kind, map_file, write_atomically};
use crate::tensor::{DType, Tensor, element_count};

/// File name of a model's weights in a published directory.
pub const FILE_NAME: &str = "model.safetensors";
/// File name of the list of shards.
pub const INDEX_NAME: &str = "model.safetensors.index.json";

/// A borrowed tensor.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Element type.
    pub dtype: DType,
    /// Shape; empty for a scalar.
    pub shape: &'a [usize],
    /// Little-endian bytes, row-major; not necessarily aligned.
    pub bytes: &'a [u8],
}

impl<'a> From<&'a Tensor> for View<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        Self { dtype: tensor.dtype(), shape: tensor.shape(), bytes: tensor.bytes() }
    }
}

struct Entry {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
}

/// Named tensors of one or more files. The files stay mapped while any of their bytes live;
/// they must not be truncated meanwhile.
#[derive(Default)]
pub struct Weights {
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

impl Weights {
    /// Maps one safetensors file. The header is checked against the file's length; the data is
    /// not touched.
    ///
    /// # Errors
    /// `NotFound`/`Io` when the file cannot be opened; `InvalidData` when it is truncated or no
    /// safetensors file; `Unsupported` for element types that this library has no name for.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = map_file(path)?;
        if let Some(kind) = foreign_kind(&bytes) {
            return Err(Error::data(format!("{}: the file is {kind}", path.display())));
        }
        Self::from_bytes(bytes).context(|| path.display().to_string())
    }

    /// Reads the weights of a published directory: `model.safetensors`, else the shards that
    /// `model.safetensors.index.json` lists. `None` when there is neither.
    pub fn read_dir(dir: &Path) -> Result<Option<Self>> {
        let single = dir.join(FILE_NAME);
        if single.is_file() {
            return Self::read(&single).map(Some);
        }
        let index = dir.join(INDEX_NAME);
        if !index.is_file() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&index).map_err(|e| Error::io(&index, e))?;
        Self::read_shards(dir, &text).context(|| index.display().to_string()).map(Some)
    }

    fn read_shards(dir: &Path, index: &str) -> Result<Self> {
        let index: Value = serde_json::from_str(index).map_err(Error::json)?;
        let map = index.get("weight_map").and_then(Value::as_object);
        let map = map.ok_or_else(|| Error::data("'weight_map' is missing"))?;
        let mut shards: BTreeMap<&str, Self> = BTreeMap::new();
        let mut all = Self::default();
        for (name, file) in map {
            let file = file.as_str().filter(|f| is_plain(f));
            let file = file.ok_or_else(|| {
                Error::data(format!("the file of '{name}' must be a name in the same folder"))
            })?;
            if !shards.contains_key(file) {
                shards.insert(file, Self::read(&dir.join(file))?);
            }
            let shard = shards.get_mut(file);
            let entry = shard.and_then(|s| s.entries.remove(name)).ok_or_else(|| {
                Error::data(format!("'{name}' is not in {file}, where the index has it"))
            })?;
            all.entries.insert(name.clone(), entry);
        }
        for (_, shard) in shards {
            all.metadata.extend(shard.metadata);
        }
        Ok(all)
    }

    /// Parses a whole safetensors file in memory.
    pub fn from_bytes(bytes: Bytes) -> Result<Self> {
        check_names(&bytes)?;
        SafeTensors::deserialize(&bytes).map_err(|e| invalid_file(e, bytes.len()))?;
        let (n, header) =
            SafeTensors::read_metadata(&bytes).map_err(|e| invalid_file(e, bytes.len()))?;
        let mut entries = BTreeMap::new();
        for (name, info) in header.tensors() {
            let dtype = dtype_of(info.dtype).context(|| format!("tensor '{name}'"))?;
            let (from, to) = info.data_offsets;
            let data = bytes.slice(8 + n + from..8 + n + to);
            if element_count(&info.shape)? * dtype.size() != data.len() {
                return Err(Error::data(format!("tensor '{name}': offsets contradict the shape")));
            }
            entries.insert(name, Entry { dtype, shape: info.shape.clone(), bytes: data });
        }
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { entries, metadata })
    }

    /// Names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The file's free-form metadata.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// One tensor, or `None`.
    pub fn find(&self, name: &str) -> Option<View<'_>> {
        let e = self.entries.get(name)?;
        Some(View { dtype: e.dtype, shape: &e.shape, bytes: &e.bytes })
    }

    /// One tensor copied into aligned memory of its own.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let e = self.entry(name)?;
        Tensor::from_bytes(e.dtype, &e.shape, &e.bytes)
    }

    /// A floating-point tensor's elements as little-endian f32. F32 data is shared with the
    /// file's mapping; f16, bf16 and f64 are converted (f64 rounds to nearest).
    pub fn f32_bytes(&self, name: &str) -> Result<Bytes> {
        let e = self.entry(name)?;
        let half = |f: fn([u8; 2]) -> f32| floats(e.bytes.as_chunks::<2>().0, f);
        Ok(match e.dtype {
            DType::F32 => e.bytes.clone(),
            DType::F16 => half(|b| half::f16::from_le_bytes(b).to_f32()),
            DType::BF16 => half(|b| half::bf16::from_le_bytes(b).to_f32()),
            DType::F64 => floats(e.bytes.as_chunks::<8>().0, |b| f64::from_le_bytes(b) as f32),
            other => {
                let message = format!("'{name}' holds {other}, where floats are expected");
                return Err(Error::data(message));
            }
        })
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        let entry = self.entries.get(name);
        entry.ok_or_else(|| Error::not_found(format!("no tensor '{name}' in the weights")))
    }
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weights({} tensors)", self.len())
    }
}

/// The first name that a header has twice, where a map keeps the last.
struct Duplicate(Option<String>);

impl<'de> Deserialize<'de> for Duplicate {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Duplicate;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Duplicate, A::Error> {
                let (mut names, mut twice) = (BTreeSet::new(), None);
                while let Some((name, _)) = map.next_entry::<String, IgnoredAny>()? {
                    if twice.is_none() && names.contains(&name) {
                        twice = Some(name);
                    } else {
                        names.insert(name);
                    }
                }
                Ok(Duplicate(twice))
            }
        }
        d.deserialize_map(Keys)
    }
}

/// Refuses a name that is there twice. What else may be wrong with the header, its reader says.
fn check_names(bytes: &[u8]) -> Result<()> {
    let n = bytes.first_chunk::<8>().map(|n| u64::from_le_bytes(*n));
    let end = n.and_then(|n| usize::try_from(n).ok()).and_then(|n| n.checked_add(8));
    let header = end.and_then(|end| bytes.get(8..end)).unwrap_or_default();
    match serde_json::from_slice(header) {
        Ok(Duplicate(Some(name))) => {
            Err(Error::data(format!("the header names the tensor '{name}' twice")))
        }
        _ => Ok(()),
    }
}

fn floats<const N: usize>(chunks: &[[u8; N]], to_f32: impl Fn([u8; N]) -> f32) -> Bytes {
    chunks.iter().flat_map(|&c| to_f32(c).to_le_bytes()).collect::<Vec<u8>>().into()
}

fn is_plain(file: &str) -> bool {
    let mut parts = Path::new(file).components();
    matches!(parts.next(), Some(std::path::Component::Normal(_))) && parts.next().is_none()
}

fn invalid_file(error: SafeTensorError, n_bytes: usize) -> Error {
    Error::data(format!(
        "not a whole safetensors file ({error}; {n_bytes} bytes); it may be truncated"
    ))
    .with_source(error)
}

const DTYPES: [(Dtype, DType, &str); 13] = [
    (Dtype::BOOL, DType::Bool, "BOOL"),
    (Dtype::U8, DType::U8, "U8"),
    (Dtype::I8, DType::I8, "I8"),
    (Dtype::U16, DType::U16, "U16"),
    (Dtype::I16, DType::I16, "I16"),
    (Dtype::F16, DType::F16, "F16"),
    (Dtype::BF16, DType::BF16, "BF16"),
    (Dtype::U32, DType::U32, "U32"),
    (Dtype::I32, DType::I32, "I32"),
    (Dtype::F32, DType::F32, "F32"),
    (Dtype::U64, DType::U64, "U64"),
    (Dtype::I64, DType::I64, "I64"),
    (Dtype::F64, DType::F64, "F64"),
];

fn dtype_of(dtype: Dtype) -> Result<DType> {
    let row = DTYPES.iter().find(|row| row.0 == dtype);
    row.map(|row| row.1).ok_or_else(|| Error::unsupported(format!("element type {dtype}")))
}

/// Writes `tensors` to `path` in the safetensors format, beside it first, then renamed. The
/// data goes out straight from its views, wide element types first so that each tensor is
/// aligned to its element size; the bytes of the file depend on the content only.
///
/// `metadata` is free-form; Python's `transformers` wants `format = pt` there.
///
/// # Errors
/// `InvalidArgument` for a name given twice or `__metadata__`; `Shape` when bytes and shape
/// disagree; `Io`.
pub fn write<'a, V: Into<View<'a>>>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, V)>,
    metadata: &[(&str, &str)],
) -> Result<()> {
    let tensors = in_order(tensors);
    let header = header(&tensors, metadata)?;
    write_atomically(path, |file| stream(file, &header, &tensors).map_err(|e| Error::io(path, e)))
}

/// As [`write`], straight into the file, which is not flushed: for a directory that nobody reads
/// before all of it is.
pub fn write_unflushed<'a, V: Into<View<'a>>>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, V)>,
) -> Result<()> {
    let tensors = in_order(tensors);
    let header = header(&tensors, &[])?;
    let write = || stream(&mut File::create(path)?, &header, &tensors);
    write().map_err(|e| Error::io(path, e))
}

/// Wide element types first.
fn in_order<'a, V: Into<View<'a>>>(
    tensors: impl IntoIterator<Item = (&'a str, V)>,
) -> Vec<(&'a str, View<'a>)> {
    let mut tensors: Vec<(&str, View)> =
        tensors.into_iter().map(|(name, view)| (name, view.into())).collect();
    tensors.sort_by(|a, b| (b.1.dtype.size(), a.0).cmp(&(a.1.dtype.size(), b.0)));
    tensors
}

fn stream(file: &mut File, header: &[u8], tensors: &[(&str, View)]) -> std::io::Result<()> {
    let mut out = BufWriter::new(file);
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header)?;
    for (_, view) in tensors {
        out.write_all(view.bytes)?;
    }
    out.flush()
}

/// The JSON header, padded with spaces to a multiple of 8 bytes.
fn header(tensors: &[(&str, View)], metadata: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut map = Map::new();
    if !metadata.is_empty() {
        let pairs: Map<String, Value> =
            metadata.iter().map(|&(k, v)| (k.to_owned(), Value::from(v))).collect();
        map.insert("__metadata__".into(), pairs.into());
    }
    let mut at = 0;
    for (name, view) in tensors {
        let row = DTYPES.iter().find(|row| row.1 == view.dtype);
        let row = row.ok_or_else(|| Error::unsupported(format!("'{name}' of {}", view.dtype)))?;
        if element_count(view.shape)? * view.dtype.size() != view.bytes.len() {
            let (shape, n) = (view.shape, view.bytes.len());
            return Err(Error::shape(format!("'{name}': {n} bytes for shape {shape:?}")));
        }
        let end = at + view.bytes.len();
        let info = json!({"dtype": row.2, "shape": view.shape, "data_offsets": [at, end]});
        if *name == "__metadata__" || map.insert((*name).to_owned(), info).is_some() {
            return Err(Error::invalid(format!("'{name}' is reserved or given twice")));
        }
        at = end;
    }
    let mut bytes = Value::from(map).to_string().into_bytes();
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn sample() -> Vec<(&'static str, Tensor)> {
        vec![
            ("b.ids", Tensor::from_slice(&[2], &[7i64, -1]).unwrap()),
            ("a.half", Tensor::from_slice(&[3], &[half::bf16::from_f32(1.5); 3]).unwrap()),
            ("c.w", Tensor::from_slice(&[2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap()),
            ("none", Tensor::zeros(DType::F32, &[0, 4]).unwrap()),
        ]
    }

    fn write_sample(dir: &Path) -> std::path::PathBuf {
        let path = dir.join(FILE_NAME);
        let tensors = sample();
        write(&path, tensors.iter().map(|(n, t)| (*n, t)), &[("format", "pt")]).unwrap();
        path
    }

    #[test]
    fn what_is_written_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let weights = Weights::read(&write_sample(dir.path())).unwrap();
        assert_eq!(weights.names().collect::<Vec<_>>(), ["a.half", "b.ids", "c.w", "none"]);
        assert_eq!(weights.metadata()["format"], "pt");
        for (name, tensor) in sample() {
            let view = weights.find(name).unwrap();
            assert_eq!((view.dtype, view.shape), (tensor.dtype(), tensor.shape()));
            assert_eq!(view.bytes, tensor.bytes(), "{name}");
            assert_eq!(weights.tensor(name).unwrap().bytes(), tensor.bytes());
        }
        assert_eq!(weights.f32_bytes("a.half").unwrap()[..4], 1.5f32.to_le_bytes());
        assert_eq!(weights.f32_bytes("b.ids").unwrap_err().kind(), Kind::InvalidData);
        assert_eq!(weights.tensor("x").unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn a_tensor_that_is_there_twice_is_an_error() {
        let info =
            |at| format!(r#"{{"dtype":"F32","shape":[1],"data_offsets":[{at},{}]}}"#, at + 4);
        let file = |second: &str, at: usize| {
            let header = format!(r#"{{"a.w":{},"{second}":{}}}"#, info(0), info(at));
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.bytes().chain(vec![0; at + 4]));
            Weights::from_bytes(bytes.into())
        };
        assert_eq!(file("b.w", 4).unwrap().len(), 2);
        // Of the same bytes, and of others.
        for at in [0, 4] {
            let e = file("a.w", at).unwrap_err();
            assert_eq!(e.kind(), Kind::InvalidData);
            assert!(e.message().contains("'a.w' twice"), "{e}");
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = std::fs::read(write_sample(dir.path())).unwrap();
        for n in 0..bytes.len() {
            let e = Weights::from_bytes(bytes[..n].to_vec().into()).unwrap_err();
            assert_eq!(e.kind(), Kind::InvalidData, "at {n}");
        }
        assert!(Weights::from_bytes(bytes.into()).is_ok());
    }

    /// A flipped bit in the header gives an error or other names, never views out of bounds.
    #[test]
    fn flipped_bits_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = std::fs::read(write_sample(dir.path())).unwrap();
        let n_header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut refused = 0;
        for bit in 0..8 * n_header {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(weights) = Weights::from_bytes(flipped.into()) else {
                refused += 1;
                continue;
            };
            for name in weights.names() {
                let view = weights.find(name).unwrap();
                let n: usize = view.shape.iter().product();
                assert_eq!(view.bytes.len(), n * view.dtype.size(), "bit {bit}");
                let _ = weights.f32_bytes(name);
            }
        }
        assert!(refused > 4 * n_header, "{refused} of {} bits", 8 * n_header);
    }

    #[test]
    fn false_headers_are_errors() {
        let read = |header: &str, n_data: usize| {
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.as_bytes());
            bytes.resize(bytes.len() + n_data, 0);
            Weights::from_bytes(bytes.into()).map(|w| w.len()).map_err(|e| e.kind())
        };
        let entry = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        assert_eq!(read(&entry("F32", "[2]", "[0,8]"), 8), Ok(1));
        assert_eq!(read(&entry("F32", "[3]", "[0,8]"), 8), Err(Kind::InvalidData));
        assert_eq!(read(&entry("F32", "[2]", "[0,8]"), 16), Err(Kind::InvalidData));
        assert_eq!(read(&entry("F32", "[2]", "[4,12]"), 12), Err(Kind::InvalidData));
        assert_eq!(read(&entry("F8_E4M3", "[8]", "[0,8]"), 8), Err(Kind::Unsupported));
        let huge = entry("F32", "[4294967296,4294967296,4294967296]", "[0,8]");
        assert_eq!(read(&huge, 8), Err(Kind::InvalidData));
    }

    #[test]
    fn refused_input_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w");
        let t = &sample()[2].1;
        let e = write(&path, [("w", t), ("w", t)], &[]).unwrap_err();
        assert_eq!(e.kind(), Kind::InvalidArgument);
        let short = View { dtype: DType::F32, shape: &[3], bytes: &[0; 8] };
        assert_eq!(write(&path, [("w", short)], &[]).unwrap_err().kind(), Kind::Shape);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn shards_are_joined_and_stay_in_their_folder() {
        let dir = tempfile::tempdir().unwrap();
        let read_with = |index: &str| {
            std::fs::write(dir.path().join(INDEX_NAME), index).unwrap();
            Weights::read_dir(dir.path()).map(|w| w.map_or(0, |w| w.len()))
        };
        assert!(Weights::read_dir(dir.path()).unwrap().is_none());
        for (file, (name, tensor)) in ["1.st", "2.st"].iter().zip(&sample()) {
            write(&dir.path().join(file), [(*name, tensor)], &[]).unwrap();
        }
        let both = r#"{"weight_map": {"b.ids": "1.st", "a.half": "2.st"}}"#;
        assert_eq!(read_with(both).unwrap(), 2);
        let swapped = r#"{"weight_map": {"b.ids": "2.st"}}"#;
        assert!(read_with(swapped).unwrap_err().message().contains("'b.ids'"));
        let outside = r#"{"weight_map": {"b.ids": "../1.st"}}"#;
        assert_eq!(read_with(outside).unwrap_err().kind(), Kind::InvalidData);
        assert_eq!(read_with("{}").unwrap_err().kind(), Kind::InvalidData);
    }
}
