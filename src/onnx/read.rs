//! Reading ONNX files: memory-mapped, external data resolved below the file's folder.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use super::graph::{Attribute, Attributes, Dim, Graph, Node, ValueId, ValueType};
use super::names::NodeNames;
use super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, dimension,
    type_proto,
};
use super::tensor_data::TensorData;
use crate::error::{Context, Error, Result};
use crate::file::map_file;
use crate::memory::check_room;
use crate::tensor::DType;

impl Graph {
    /// Reads `path`. Weights stay in the mapped file until they are copied; the file must not
    /// be changed while the graph lives.
    ///
    /// Errors: `NotFound`/`Io`; `InvalidData` for anything that is not a well-formed model
    /// (truncated, cyclic, undefined values, sizes that do not fit).
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = map_file(path)?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        decode(bytes, Some(folder)).context(|| path.display().to_string())
    }

    /// Reads a model from memory. External data is an error: there is no folder to look in.
    pub fn from_bytes(bytes: Bytes) -> Result<Self> {
        decode(bytes, None)
    }
}

fn decode(bytes: Bytes, folder: Option<PathBuf>) -> Result<Graph> {
    if bytes.is_empty() {
        return Err(Error::data("the file is empty"));
    }
    // Data that lies in typed fields is copied by the decoder.
    check_room(bytes.len())?;
    let model = ModelProto::decode(bytes)
        .map_err(|e| Error::data(format!("not an ONNX model, or a damaged one ({e})")))?;
    let proto = model.graph.ok_or_else(|| Error::data("not an ONNX model: it has no graph"))?;
    let mut graph = Graph::new(&proto.name, 1);
    graph.ir_version = model.ir_version;
    graph.opsets =
        model.opset_import.iter().map(|o| (domain_key(&o.domain).to_owned(), o.version)).collect();
    graph.functions = model.functions;
    graph.metadata = model.metadata_props.into_iter().map(|p| (p.key, p.value)).collect();
    if !graph.opsets.contains_key("") {
        return Err(Error::data("the model imports no version of ONNX's operators"));
    }
    let files = External { folder, maps: HashMap::new().into() };
    Reader { graph: &mut graph, external: &|t| files.resolve(t) }.graph(proto)?;
    graph.sort()?;
    Ok(graph)
}

/// `ai.onnx` is another spelling of the empty domain.
pub(super) fn domain_key(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

struct External {
    folder: Option<PathBuf>,
    maps: std::cell::RefCell<HashMap<PathBuf, Bytes>>,
}

impl External {
    fn resolve(&self, tensor: &TensorProto) -> Result<Bytes> {
        let entry = |key: &str| {
            tensor.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str())
        };
        let number = |key: &str| {
            entry(key)
                .map(|v| v.parse::<usize>().map_err(|_| Error::data(format!("{key} '{v}'"))))
                .transpose()
        };
        let location = entry("location").ok_or_else(|| Error::data("no location"))?;
        let relative = Path::new(location);
        if !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
            return Err(Error::data(format!("'{location}' leads out of the model's folder")));
        }
        let folder = self.folder.as_ref().ok_or_else(|| {
            Error::unsupported("external data in a model given as bytes; give its path instead")
        })?;
        let path = folder.join(relative);
        let known = self.maps.borrow().get(&path).cloned();
        let bytes = match known {
            Some(bytes) => bytes,
            None => {
                let bytes = map_file(&path)?;
                self.maps.borrow_mut().insert(path.clone(), bytes.clone());
                bytes
            }
        };
        let offset = number("offset")?.unwrap_or(0);
        let length = number("length")?.unwrap_or(bytes.len().saturating_sub(offset));
        let end =
            offset.checked_add(length).filter(|&end| end <= bytes.len()).ok_or_else(|| {
                Error::data(format!(
                    "bytes {offset}..+{length} of {}, which has {}",
                    path.display(),
                    bytes.len()
                ))
            })?;
        Ok(bytes.slice(offset..end))
    }
}

/// Appends constants and nodes to a graph. A value that a node produces may exist already, as long
/// as it has no other producer.
pub(super) fn append(
    graph: &mut Graph,
    initializers: &[TensorProto],
    nodes: Vec<NodeProto>,
) -> Result<()> {
    let external = |_: &TensorProto| Err(Error::unsupported("external data in a body"));
    for tensor in initializers {
        let data = TensorData::from_proto(tensor, &external)
            .context(|| format!("initializer '{}'", tensor.name))?;
        named(&tensor.name, "an initializer")?;
        graph.add_initializer(&tensor.name, data)?;
    }
    let mut made = HashSet::new();
    for name in nodes.iter().flat_map(|n| &n.output).filter(|n| !n.is_empty()) {
        let id = graph.find(name).map_or_else(|| graph.add_value(name), Ok)?;
        let given = graph.initializer(id).is_some() || graph.inputs().contains(&id);
        if given || !made.insert(id) {
            return Err(Error::data(format!("value '{name}' is defined twice")));
        }
    }
    let mut names = NodeNames::of(graph);
    let mut reader = Reader { graph, external: &external };
    nodes.into_iter().try_for_each(|mut node| {
        if !node.name.is_empty() {
            node.name = names.free(&node.name);
        }
        reader.node(node)
    })
}

struct Reader<'a> {
    graph: &'a mut Graph,
    external: &'a dyn Fn(&TensorProto) -> Result<Bytes>,
}

impl Reader<'_> {
    fn graph(&mut self, proto: GraphProto) -> Result<()> {
        if !proto.sparse_initializer.is_empty() {
            return Err(Error::unsupported("sparse initializers"));
        }
        for tensor in &proto.initializer {
            let data = TensorData::from_proto(tensor, self.external)
                .context(|| format!("initializer '{}'", tensor.name))?;
            named(&tensor.name, "an initializer")?;
            self.graph.add_initializer(&tensor.name, data)?;
        }
        for info in &proto.input {
            // IR 3 lists initializers among the inputs too.
            if self.graph.find(&info.name).is_none() {
                named(&info.name, "an input")?;
                let ty = value_type(info).context(|| format!("input '{}'", info.name))?;
                self.graph.add_input(&info.name, ty)?;
            }
        }
        for node in &proto.node {
            for name in node.output.iter().filter(|n| !n.is_empty()) {
                self.graph.add_value(name)?;
            }
        }
        for (index, node) in proto.node.into_iter().enumerate() {
            let label = format!("node {index} '{}' ({})", node.name, node.op_type);
            self.node(node).context(|| label)?;
        }
        for info in &proto.value_info {
            if let (Some(id), Ok(ty)) = (self.graph.find(&info.name), value_type(info))
                && self.graph.initializer(id).is_none()
            {
                self.graph.set_type(id, ty);
            }
        }
        for info in &proto.output {
            let id = self.value(&info.name).context(|| "graph output")?;
            if self.graph.initializer(id).is_none() && !self.graph.inputs().contains(&id) {
                self.graph.set_type(id, value_type(info)?);
            }
            self.graph.add_output(id);
        }
        Ok(())
    }

    fn value(&self, name: &str) -> Result<ValueId> {
        self.graph
            .find(name)
            .ok_or_else(|| Error::data(format!("value '{name}' is used but nothing defines it")))
    }

    fn node(&mut self, proto: NodeProto) -> Result<()> {
        let find = |name: &String| {
            if name.is_empty() { Ok(None) } else { self.value(name).map(Some) }
        };
        let inputs = proto.input.iter().map(find).collect::<Result<_>>()?;
        let outputs = proto.output.iter().map(find).collect::<Result<_>>()?;
        let mut attributes = Attributes::new();
        for attribute in proto.attribute {
            let name = attribute.name.clone();
            let value = self.attribute(attribute).context(|| format!("attribute '{name}'"))?;
            attributes.insert(name, value);
        }
        let domain = domain_key(&proto.domain).to_owned();
        let (name, op) = (proto.name, proto.op_type);
        self.graph.push_node(Node { name, op, domain, inputs, outputs, attributes });
        Ok(())
    }

    fn attribute(&self, proto: AttributeProto) -> Result<Attribute> {
        let text =
            |b: &Bytes| String::from_utf8(b.to_vec()).map_err(|_| Error::data("text is not UTF-8"));
        Ok(match proto.r#type {
            1 => Attribute::Float(proto.f.unwrap_or_default()),
            2 => Attribute::Int(proto.i.unwrap_or_default()),
            3 => Attribute::String(text(&proto.s.unwrap_or_default())?),
            4 => match &proto.t {
                Some(t) if t.data_type == DType::String.onnx() => {
                    Attribute::Opaque(Box::new(proto))
                }
                Some(t) => Attribute::Tensor(TensorData::from_proto(t, self.external)?),
                None => return Err(Error::data("a tensor attribute without a tensor")),
            },
            5 => match proto.g {
                Some(g) => Attribute::Graph(Box::new(g)),
                None => return Err(Error::data("a graph attribute without a graph")),
            },
            6 => Attribute::Floats(proto.floats),
            7 => Attribute::Ints(proto.ints),
            8 => Attribute::Strings(proto.strings.iter().map(text).collect::<Result<_>>()?),
            _ => Attribute::Opaque(Box::new(proto)),
        })
    }
}

fn named(name: &str, what: &str) -> Result<()> {
    if name.is_empty() { Err(Error::data(format!("{what} without a name"))) } else { Ok(()) }
}

pub(super) fn value_type(info: &ValueInfoProto) -> Result<ValueType> {
    let Some(type_proto::Value::Tensor(tensor)) =
        info.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return Ok(ValueType::default());
    };
    let dtype = match tensor.elem_type {
        0 => None,
        code => Some(DType::from_onnx(code)?),
    };
    let dim = |d: &super::proto::Dimension| match &d.value {
        // How some exporters write a free dimension.
        Some(dimension::Value::DimValue(-1)) => Ok(Dim::Unknown),
        Some(dimension::Value::DimValue(n)) => usize::try_from(*n)
            .map(Dim::Known)
            .map_err(|_| Error::data(format!("dimension {n} is negative"))),
        Some(dimension::Value::DimParam(s)) if !s.is_empty() => Ok(Dim::Symbol(s.clone())),
        _ => Ok(Dim::Unknown),
    };
    let shape = tensor.shape.as_ref().map(|s| s.dim.iter().map(dim).collect::<Result<_>>());
    Ok(ValueType { dtype, shape: shape.transpose()? })
}
