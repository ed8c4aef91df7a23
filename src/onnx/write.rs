//! Writing graphs: to bytes for a session, or to a file with its data inside or beside it.

use std::io::Write;
use std::path::Path;

use bytes::Bytes;
use prost::Message;

use super::graph::{Attribute, Dim, Graph, Node, ValueId};
use super::proto::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, dimension,
    type_proto,
};
use crate::error::{Error, Result};
use crate::file::{with_suffix, write_atomically};
use crate::memory::room;

/// Protobuf's limit for one message.
const MAX_MESSAGE: usize = i32::MAX as usize;
/// Alignment of tensors in a data file, so that readers can map them.
const ALIGNMENT: usize = 4096;

impl Graph {
    /// Encodes the model with all data inside. Over 2 GB is an error: protobuf cannot hold it.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let model = self.to_model(|_, _| None);
        let n = model.encoded_len();
        if n > MAX_MESSAGE {
            return Err(Error::unsupported(format!(
                "a model of {n} bytes cannot be held in one protobuf message; \
                 write it with external data"
            )));
        }
        encoded(&model)
    }

    /// Writes the model to `path`. Data goes inside, or, when the model exceeds 2 GB or
    /// `external` is set, to `<path>.data` beside it. Both files are written under temporary
    /// names and renamed, the model last.
    pub fn write(&self, path: &Path, external: bool) -> Result<()> {
        let n_bytes: usize = self.initializers().values().map(|t| t.bytes().len()).sum();
        if external || n_bytes > MAX_MESSAGE - (64 << 20) {
            return self.write_external(path);
        }
        write_atomically(path, |file| {
            file.write_all(&self.to_bytes()?).map_err(|e| Error::io(path, e))
        })
    }

    fn write_external(&self, path: &Path) -> Result<()> {
        let data_path = with_suffix(path, ".data");
        let location = data_path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut offset = 0usize;
        let mut parts: Vec<(usize, Bytes)> = Vec::new();
        let model = self.to_model(|_, data| {
            if data.bytes().len() < 1024 {
                return None;
            }
            let at = offset.next_multiple_of(ALIGNMENT);
            offset = at + data.bytes().len();
            parts.push((at, data.bytes().clone()));
            let entry = |k: &str, v: String| StringStringEntryProto { key: k.into(), value: v };
            Some(vec![
                entry("location", location.clone()),
                entry("offset", at.to_string()),
                entry("length", data.bytes().len().to_string()),
            ])
        });
        write_atomically(&data_path, |file| {
            let mut at = 0;
            for (start, bytes) in &parts {
                let pad = vec![0u8; start - at];
                file.write_all(&pad).map_err(|e| Error::io(&data_path, e))?;
                file.write_all(bytes).map_err(|e| Error::io(&data_path, e))?;
                at = start + bytes.len();
            }
            Ok(())
        })?;
        write_atomically(path, |file| {
            file.write_all(&encoded(&model)?).map_err(|e| Error::io(path, e))
        })
    }

    fn to_model(
        &self,
        mut place: impl FnMut(ValueId, &super::TensorData) -> Option<Vec<StringStringEntryProto>>,
    ) -> ModelProto {
        let initializer = self
            .initializers()
            .iter()
            .map(|(&id, data)| match place(id, data) {
                None => data.to_proto(self.value_name(id)),
                Some(external_data) => TensorProto {
                    external_data,
                    data_location: 1,
                    raw_data: None,
                    ..data.to_proto(self.value_name(id))
                },
            })
            .collect();
        let info = |&id: &ValueId| self.value_info(id);
        let graph = GraphProto {
            name: if self.name.is_empty() { "graph".into() } else { self.name.clone() },
            node: self.nodes().iter().map(|n| self.node_proto(n)).collect(),
            initializer,
            input: self.inputs().iter().map(info).collect(),
            output: self.outputs().iter().map(info).collect(),
            ..GraphProto::default()
        };
        ModelProto {
            ir_version: self.ir_version,
            producer_name: "libmmopt".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(graph),
            opset_import: self
                .opsets
                .iter()
                .map(|(d, &version)| OperatorSetIdProto { domain: d.clone(), version })
                .collect(),
            metadata_props: self
                .metadata
                .iter()
                .map(|(k, v)| StringStringEntryProto { key: k.clone(), value: v.clone() })
                .collect(),
            functions: self.functions.clone(),
            ..ModelProto::default()
        }
    }

    /// The graph as a branch of a graph that has the values named `captured`; with the types of
    /// all values.
    pub(crate) fn to_branch(&self, captured: &[String]) -> GraphProto {
        self.to_body(&[], captured)
    }

    /// The same with inputs of its own.
    pub(crate) fn to_body(&self, inputs: &[ValueId], captured: &[String]) -> GraphProto {
        let own = |id: &ValueId| !captured.iter().any(|n| n == self.value_name(*id));
        let initializers = self.initializers().iter().filter(|(id, _)| own(id));
        let made = self.nodes().iter().flat_map(|n| n.outputs.iter().flatten());
        GraphProto {
            name: "branch".into(),
            node: self.nodes().iter().map(|n| self.node_proto(n)).collect(),
            initializer: initializers.map(|(&id, d)| d.to_proto(self.value_name(id))).collect(),
            input: inputs.iter().map(|&v| self.value_info(v)).collect(),
            output: self.outputs().iter().map(|&v| self.value_info(v)).collect(),
            value_info: made
                .filter(|v| !self.outputs().contains(v))
                .map(|&v| self.value_info(v))
                .filter(|info| info.r#type.is_some())
                .collect(),
            ..GraphProto::default()
        }
    }

    fn name_or_empty(&self, id: Option<ValueId>) -> String {
        id.map(|v| self.value_name(v).to_owned()).unwrap_or_default()
    }

    fn node_proto(&self, node: &Node) -> NodeProto {
        NodeProto {
            input: node.inputs.iter().map(|&v| self.name_or_empty(v)).collect(),
            output: node.outputs.iter().map(|&v| self.name_or_empty(v)).collect(),
            name: node.name.clone(),
            op_type: node.op.clone(),
            domain: node.domain.clone(),
            attribute: node.attributes.iter().map(|(k, v)| attribute_proto(k, v)).collect(),
            ..NodeProto::default()
        }
    }

    fn value_info(&self, id: ValueId) -> ValueInfoProto {
        let value = self.value(id);
        let r#type = value.ty.dtype.map(|dtype| {
            let dim = |d: &Dim| Dimension {
                value: match d {
                    Dim::Known(n) => Some(dimension::Value::DimValue(*n as i64)),
                    Dim::Symbol(s) => Some(dimension::Value::DimParam(s.clone())),
                    Dim::Unknown => None,
                },
            };
            let shape = value
                .ty
                .shape
                .as_ref()
                .map(|s| TensorShapeProto { dim: s.iter().map(dim).collect() });
            let tensor = type_proto::Tensor { elem_type: dtype.onnx(), shape };
            TypeProto { value: Some(type_proto::Value::Tensor(tensor)) }
        });
        ValueInfoProto { name: value.name.clone(), r#type }
    }
}

pub(super) fn attribute_proto(name: &str, attribute: &Attribute) -> AttributeProto {
    let mut proto = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    let text = |s: &String| Bytes::copy_from_slice(s.as_bytes());
    match attribute {
        Attribute::Float(v) => (proto.r#type, proto.f) = (1, Some(*v)),
        Attribute::Int(v) => (proto.r#type, proto.i) = (2, Some(*v)),
        Attribute::String(v) => (proto.r#type, proto.s) = (3, Some(text(v))),
        Attribute::Tensor(v) => (proto.r#type, proto.t) = (4, Some(v.to_proto(""))),
        Attribute::Graph(v) => (proto.r#type, proto.g) = (5, Some((**v).clone())),
        Attribute::Floats(v) => (proto.r#type, proto.floats) = (6, v.clone()),
        Attribute::Ints(v) => (proto.r#type, proto.ints) = (7, v.clone()),
        Attribute::Strings(v) => (proto.r#type, proto.strings) = (8, v.iter().map(text).collect()),
        Attribute::Opaque(v) => return (**v).clone(),
    }
    proto
}

fn encoded(model: &ModelProto) -> Result<Vec<u8>> {
    let mut bytes = room(model.encoded_len())?;
    model.encode(&mut bytes).map_err(|e| Error::internal(e.to_string()))?;
    Ok(bytes)
}
