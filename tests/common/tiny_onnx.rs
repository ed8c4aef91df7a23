//! Small ONNX models for tests, encoded by hand: just enough protobuf to write a graph, so that
//! tests of the runtime depend on nothing but the runtime.

#![allow(dead_code)]

/// A protobuf message in the making.
#[derive(Clone, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// An integer field.
    pub fn int(mut self, field: u32, value: i64) -> Self {
        self.varint(u64::from(field) << 3);
        self.varint(value as u64);
        self
    }

    /// A 32-bit float field.
    pub fn float(mut self, field: u32, value: f32) -> Self {
        self.varint(u64::from(field) << 3 | 5);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A string, bytes or message field.
    pub fn bytes(mut self, field: u32, value: impl AsRef<[u8]>) -> Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.as_ref().len() as u64);
        self.0.extend(value.as_ref());
        self
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Element types by ONNX's numbers.
pub const F32: i64 = 1;
pub const I32: i64 = 6;
pub const I64: i64 = 7;
pub const F64: i64 = 11;

/// A dimension: fixed, or free with a name.
#[derive(Clone, Copy)]
pub enum Dim {
    Fixed(i64),
    Free(&'static str),
}

/// `ValueInfoProto` of a dense tensor.
pub fn value(name: &str, dtype: i64, dims: &[Dim]) -> Message {
    let mut shape = Message::default();
    for dim in dims {
        let dim = match dim {
            Dim::Fixed(n) => Message::default().int(1, *n),
            Dim::Free(name) => Message::default().bytes(2, name),
        };
        shape = shape.bytes(1, dim);
    }
    let tensor = Message::default().int(1, dtype).bytes(2, shape);
    Message::default().bytes(1, name).bytes(2, Message::default().bytes(1, tensor))
}

/// `ValueInfoProto` without dtype or shape: the runtime infers both.
pub fn untyped(name: &str) -> Message {
    Message::default().bytes(1, name)
}

/// `AttributeProto` holding an integer.
pub fn attr_int(name: &str, value: i64) -> Message {
    Message::default().bytes(1, name).int(3, value).int(20, 2)
}

/// `AttributeProto` holding a float.
pub fn attr_float(name: &str, value: f32) -> Message {
    Message::default().bytes(1, name).float(2, value).int(20, 1)
}

/// `NodeProto`.
pub fn node(
    op: &str,
    domain: &str,
    inputs: &[&str],
    outputs: &[&str],
    attrs: &[Message],
) -> Message {
    let mut node = Message::default();
    for name in inputs {
        node = node.bytes(1, name);
    }
    for name in outputs {
        node = node.bytes(2, name);
    }
    node = node.bytes(4, op).bytes(7, domain);
    attrs.iter().fold(node, |node, attr| node.bytes(5, attr))
}

/// `ModelProto` bytes at an opset, with the domain `mmopt` imported where `functions` has some.
pub fn model(
    opset: i64,
    nodes: &[Message],
    inputs: &[Message],
    outputs: &[Message],
    functions: &[Vec<u8>],
) -> Vec<u8> {
    let mut graph = nodes.iter().fold(Message::default(), |graph, node| graph.bytes(1, node));
    graph = graph.bytes(2, "graph");
    graph = inputs.iter().fold(graph, |graph, value| graph.bytes(11, value));
    graph = outputs.iter().fold(graph, |graph, value| graph.bytes(12, value));
    let import = |domain: &str, version| Message::default().bytes(1, domain).int(2, version);
    let mut model = Message::default().int(1, 8).bytes(7, graph).bytes(8, import("", opset));
    if !functions.is_empty() {
        model = model.bytes(8, import("mmopt", 1));
    }
    functions.iter().fold(model, |model, function| model.bytes(25, function)).0
}
