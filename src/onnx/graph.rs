//! The graph: values and nodes by index; names only at the interface.
//!
//! *value*: one tensor of the graph, made by a node, fed as an input, or held as an
//! initializer. *node*: one operator application. *producer*: the node slot that makes a value.
//! Nodes are kept in the order they were added; [`Graph::sort`] makes that order topological.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::proto::{FunctionProto, GraphProto};
use super::tensor_data::TensorData;
use crate::error::{Error, Result};
use crate::tensor::DType;

/// Index of a value in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub(super) u32);

/// Index of a node in its graph; invalidated by [`Graph::prune`], [`Graph::sort`] and
/// [`Graph::retain_nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(super) u32);

impl ValueId {
    /// Position in [`Graph::values`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl NodeId {
    /// Position in [`Graph::nodes`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One dimension of a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Known size.
    Known(usize),
    /// A named free dimension, e.g. `batch`.
    Symbol(String),
    /// Unknown.
    Unknown,
}

/// What is known of a value's type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValueType {
    /// Element type; `None` when unknown or not a tensor.
    pub dtype: Option<DType>,
    /// Dimensions; `None` when the rank is unknown.
    pub shape: Option<Vec<Dim>>,
}

impl ValueType {
    /// A fully known type.
    pub fn known(dtype: DType, shape: &[usize]) -> Self {
        let shape = shape.iter().map(|&d| Dim::Known(d)).collect();
        Self { dtype: Some(dtype), shape: Some(shape) }
    }

    /// The shape, if every dimension is known.
    pub fn static_shape(&self) -> Option<Vec<usize>> {
        let dims = self.shape.as_ref()?;
        dims.iter().map(|d| if let Dim::Known(n) = d { Some(*n) } else { None }).collect()
    }
}

/// One tensor of the graph.
#[derive(Clone, Debug)]
pub struct Value {
    /// Unique name.
    pub name: String,
    /// What is known of its type.
    pub ty: ValueType,
}

/// A node's attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// 64-bit integer.
    Int(i64),
    /// 32-bit float.
    Float(f32),
    /// UTF-8 text.
    String(String),
    /// Constant tensor.
    Tensor(TensorData),
    /// List of integers.
    Ints(Vec<i64>),
    /// List of floats.
    Floats(Vec<f32>),
    /// List of texts.
    Strings(Vec<String>),
    /// A body (`If`, `Loop`, `Scan`); refers to outer values by name.
    Graph(Box<GraphProto>),
    /// Any other kind, kept unchanged.
    Opaque(Box<super::proto::AttributeProto>),
}

/// Attributes by name.
pub type Attributes = BTreeMap<String, Attribute>;

/// One operator application.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name for messages; may be empty.
    pub name: String,
    /// Operator, e.g. `MatMul`.
    pub op: String,
    /// Operator domain; empty for ONNX's own.
    pub domain: String,
    /// Inputs; `None` for an omitted optional one.
    pub inputs: Vec<Option<ValueId>>,
    /// Outputs; `None` for an omitted optional one.
    pub outputs: Vec<Option<ValueId>>,
    /// Attributes.
    pub attributes: Attributes,
}

impl Node {
    /// Input `i`, if present.
    pub fn input(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    /// Output `i`, if present.
    pub fn output(&self, i: usize) -> Option<ValueId> {
        self.outputs.get(i).copied().flatten()
    }

    /// Integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attributes.get(name) {
            Some(Attribute::Int(v)) => Some(*v),
            _ => None,
        }
    }

    /// Float attribute.
    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attributes.get(name) {
            Some(Attribute::Float(v)) => Some(*v),
            _ => None,
        }
    }

    /// Integer-list attribute.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name) {
            Some(Attribute::Ints(v)) => Some(v),
            _ => None,
        }
    }

    /// Text attribute.
    pub fn string(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name) {
            Some(Attribute::String(v)) => Some(v),
            _ => None,
        }
    }

    /// Tensor attribute.
    pub fn tensor(&self, name: &str) -> Option<&TensorData> {
        match self.attributes.get(name) {
            Some(Attribute::Tensor(v)) => Some(v),
            _ => None,
        }
    }

    /// Whether the operator draws other numbers in each run. `Dropout`, which does so in training
    /// alone, is not among them.
    pub fn draws_numbers(&self) -> bool {
        const RANDOM: [&str; 6] = [
            "Bernoulli",
            "Multinomial",
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
        ];
        self.domain.is_empty() && RANDOM.contains(&self.op.as_str())
    }

    /// Names of outer values that the node's bodies read.
    pub fn captures(&self) -> Vec<String> {
        let mut names = Vec::new();
        for attribute in self.attributes.values() {
            if let Attribute::Graph(body) = attribute {
                free_names(body, &mut names);
            }
        }
        names
    }

    /// The constant that a `Constant` node holds, in any of its attribute forms.
    pub fn constant(&self) -> Option<TensorData> {
        if self.op != "Constant" || !self.domain.is_empty() {
            return None;
        }
        match self.attributes.iter().next()? {
            (_, Attribute::Tensor(t)) => Some(t.clone()),
            (_, Attribute::Int(v)) => TensorData::from_slice(&[], &[*v]).ok(),
            (_, Attribute::Float(v)) => TensorData::from_slice(&[], &[*v]).ok(),
            (_, Attribute::Ints(v)) => Some(TensorData::ints(v)),
            (_, Attribute::Floats(v)) => TensorData::from_slice(&[v.len()], v).ok(),
            _ => None,
        }
    }
}

pub(super) fn free_names(body: &GraphProto, into: &mut Vec<String>) {
    let mut known: HashSet<&str> = body.initializer.iter().map(|t| t.name.as_str()).collect();
    known.extend(body.input.iter().map(|v| v.name.as_str()));
    let mut inner = Vec::new();
    for node in &body.node {
        for attribute in &node.attribute {
            attribute.g.iter().chain(&attribute.graphs).for_each(|g| free_names(g, &mut inner));
        }
        known.extend(node.output.iter().map(String::as_str));
    }
    let used = body.node.iter().flat_map(|n| n.input.iter());
    let used = used.chain(body.output.iter().map(|v| &v.name)).chain(&inner);
    into.extend(used.filter(|n| !n.is_empty() && !known.contains(n.as_str())).cloned());
}

/// A computation graph with its opset imports, functions and metadata.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Name for messages.
    pub name: String,
    /// ONNX IR version.
    pub ir_version: i64,
    /// Opset version by domain; ONNX's own domain is the empty string.
    pub opsets: BTreeMap<String, i64>,
    /// Model-local functions.
    pub functions: Vec<FunctionProto>,
    /// Free-form metadata.
    pub metadata: BTreeMap<String, String>,
    values: Vec<Value>,
    pub(super) by_name: HashMap<String, ValueId>,
    /// What the bodies of nodes define; may hold names of bodies that are gone.
    pub(super) inner_names: HashSet<String>,
    nodes: Vec<Node>,
    inputs: Vec<ValueId>,
    outputs: Vec<ValueId>,
    initializers: BTreeMap<ValueId, TensorData>,
    pub(super) next_name: u32,
}

impl Graph {
    /// An empty graph that imports ONNX's own domain at `opset`.
    pub fn new(name: &str, opset: i64) -> Self {
        Self {
            name: name.to_owned(),
            ir_version: 8,
            opsets: BTreeMap::from([(String::new(), opset)]),
            ..Self::default()
        }
    }

    /// Version of ONNX's own operator set.
    pub fn opset(&self) -> i64 {
        self.opsets.get("").copied().unwrap_or(1)
    }

    /// All values by index.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// One value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// A value's name.
    pub fn value_name(&self, id: ValueId) -> &str {
        &self.value(id).name
    }

    /// Sets what is known of a value's type.
    pub fn set_type(&mut self, id: ValueId, ty: ValueType) {
        self.values[id.index()].ty = ty;
    }

    /// The value of that name.
    pub fn find(&self, name: &str) -> Option<ValueId> {
        self.by_name.get(name).copied()
    }

    /// All nodes by index.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Ids of all nodes, in order.
    pub fn node_ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    /// Ids of all values.
    pub fn value_ids(&self) -> impl DoubleEndedIterator<Item = ValueId> + use<> {
        (0..self.values.len() as u32).map(ValueId)
    }

    /// One node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// One node, mutable. Values that it no longer produces have no producer.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// Graph inputs, in order.
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }

    /// Graph outputs, in order.
    pub fn outputs(&self) -> &[ValueId] {
        &self.outputs
    }

    /// Constants of the graph.
    pub fn initializers(&self) -> &BTreeMap<ValueId, TensorData> {
        &self.initializers
    }

    /// The initializer behind `id`, if it is one.
    pub fn initializer(&self, id: ValueId) -> Option<&TensorData> {
        self.initializers.get(&id)
    }

    /// The constant behind a value: an initializer, or what a `Constant` node holds.
    pub fn constant(&self, id: ValueId) -> Option<TensorData> {
        let made = || self.nodes.iter().find(|n| n.output(0) == Some(id))?.constant();
        self.initializer(id).cloned().or_else(made)
    }

    /// Declares a value. An empty `name` makes a fresh one; a taken name is an error.
    pub fn add_value(&mut self, name: &str) -> Result<ValueId> {
        let name = if name.is_empty() { self.fresh_name("v") } else { name.to_owned() };
        if self.by_name.contains_key(&name) {
            return Err(Error::data(format!("value '{name}' is defined twice")));
        }
        let id = ValueId(self.values.len() as u32);
        self.by_name.insert(name.clone(), id);
        self.values.push(Value { name, ty: ValueType::default() });
        Ok(id)
    }

    /// Gives a value another name; taken names are an error.
    pub fn rename(&mut self, id: ValueId, name: &str) -> Result<()> {
        if self.find(name).is_some_and(|other| other != id) {
            return Err(Error::data(format!("value '{name}' exists already")));
        }
        let old = std::mem::replace(&mut self.values[id.index()].name, name.to_owned());
        self.by_name.remove(&old);
        self.by_name.insert(name.to_owned(), id);
        self.rename_in_bodies(&old, name);
        Ok(())
    }

    /// Adds a graph input.
    pub fn add_input(&mut self, name: &str, ty: ValueType) -> Result<ValueId> {
        let id = self.add_value(name)?;
        self.set_type(id, ty);
        self.inputs.push(id);
        Ok(id)
    }

    /// Makes a value a graph output; once is enough.
    pub fn add_output(&mut self, id: ValueId) {
        if !self.outputs.contains(&id) {
            self.outputs.push(id);
        }
    }

    /// Replaces the list of outputs.
    pub fn set_outputs(&mut self, outputs: Vec<ValueId>) {
        self.outputs = outputs;
    }

    /// Makes an existing value a graph input (dropping an initializer behind it).
    pub fn make_input(&mut self, id: ValueId) -> Option<TensorData> {
        let data = self.initializers.remove(&id);
        if let Some(data) = &data {
            self.set_type(id, ValueType::known(data.dtype(), data.shape()));
        }
        if !self.inputs.contains(&id) {
            self.inputs.push(id);
        }
        data
    }

    /// Adds a constant; an empty name makes a fresh one.
    pub fn add_initializer(&mut self, name: &str, data: TensorData) -> Result<ValueId> {
        let id = self.add_value(name)?;
        self.set_initializer(id, data);
        Ok(id)
    }

    /// Puts a constant behind an existing value, which stops being an input.
    pub fn set_initializer(&mut self, id: ValueId, data: TensorData) {
        self.set_type(id, ValueType::known(data.dtype(), data.shape()));
        self.inputs.retain(|&v| v != id);
        self.initializers.insert(id, data);
    }

    /// Appends a node as it is.
    pub fn push_node(&mut self, node: Node) -> NodeId {
        self.note_bodies(&node.attributes);
        self.nodes.push(node);
        NodeId(self.nodes.len() as u32 - 1)
    }

    /// Appends `op` with one output and returns that; the output's name is fresh.
    pub fn op<const N: usize>(
        &mut self,
        op: &str,
        inputs: &[ValueId],
        attributes: [(&str, Attribute); N],
    ) -> ValueId {
        self.op_n(op, &inputs.iter().map(|&v| Some(v)).collect::<Vec<_>>(), 1, attributes)[0]
    }

    /// Appends `op` with `n_outputs` fresh outputs and returns those.
    pub fn op_n<const N: usize>(
        &mut self,
        op: &str,
        inputs: &[Option<ValueId>],
        n_outputs: usize,
        attributes: [(&str, Attribute); N],
    ) -> Vec<ValueId> {
        let outputs: Vec<ValueId> = (0..n_outputs)
            .map(|_| {
                let name = self.fresh_name(op);
                let id = ValueId(self.values.len() as u32);
                self.by_name.insert(name.clone(), id);
                self.values.push(Value { name, ty: ValueType::default() });
                id
            })
            .collect();
        self.push_node(Node {
            name: String::new(),
            op: op.to_owned(),
            domain: String::new(),
            inputs: inputs.to_vec(),
            outputs: outputs.iter().map(|&v| Some(v)).collect(),
            attributes: attributes.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        });
        outputs
    }

    /// Which node slot makes each value, by value index.
    pub fn producers(&self) -> Vec<Option<(NodeId, usize)>> {
        let mut producers = vec![None; self.values.len()];
        for id in self.node_ids() {
            for (slot, output) in self.node(id).outputs.iter().enumerate() {
                if let Some(v) = output {
                    producers[v.index()] = Some((id, slot));
                }
            }
        }
        producers
    }

    /// Which node slots read each value, by value index; captured values come with slot
    /// `usize::MAX`.
    pub fn consumers(&self) -> Vec<Vec<(NodeId, usize)>> {
        let mut consumers = vec![Vec::new(); self.values.len()];
        for id in self.node_ids() {
            for (slot, input) in self.node(id).inputs.iter().enumerate() {
                if let Some(v) = input {
                    consumers[v.index()].push((id, slot));
                }
            }
            for name in self.node(id).captures() {
                if let Some(v) = self.find(&name) {
                    consumers[v.index()].push((id, usize::MAX));
                }
            }
        }
        consumers
    }

    /// Keeps the nodes for which `keep` holds.
    pub fn retain_nodes(&mut self, mut keep: impl FnMut(NodeId, &Node) -> bool) {
        let mut index = 0;
        self.nodes.retain(|node| {
            index += 1;
            keep(NodeId(index - 1), node)
        });
    }

    /// Every reader of `old` (outputs of the graph too) reads `new` instead.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) {
        let swap = |v: &mut ValueId| {
            if *v == old {
                *v = new;
            }
        };
        self.nodes.iter_mut().flat_map(|n| n.inputs.iter_mut().flatten()).for_each(swap);
        self.outputs.iter_mut().for_each(swap);
    }

    /// How a message names a node: `node 12 'name' (Erf, opset 13)`.
    pub fn describe(&self, id: NodeId) -> String {
        let node = self.node(id);
        let domain = if node.domain.is_empty() { "" } else { &node.domain };
        let dot = if domain.is_empty() { "" } else { "." };
        let opset = self.opsets.get(domain).copied().unwrap_or(0);
        format!("node {} '{}' ({domain}{dot}{}, opset {opset})", id.0, node.name, node.op)
    }

    pub(super) fn nodes_mut(&mut self) -> &mut Vec<Node> {
        &mut self.nodes
    }

    pub(super) fn initializers_mut(&mut self) -> &mut BTreeMap<ValueId, TensorData> {
        &mut self.initializers
    }

    pub(super) fn inputs_mut(&mut self) -> &mut Vec<ValueId> {
        &mut self.inputs
    }
}
