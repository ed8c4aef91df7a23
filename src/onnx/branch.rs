//! Converts a body (a branch of an `If`, a step of a loop) to a separate graph and back.
//!
//! *captured*: a value of the outer graph that the body reads by name. It is an input of the
//! body's graph, or an initializer where the outer graph has one.

use std::collections::{HashMap, HashSet};

use super::graph::{Graph, Node, ValueId, ValueType};
use super::inline::rename_body;
use super::proto::{GraphProto, NodeProto, TensorProto};
use super::tensor_data::TensorData;
use super::{Attribute, read};
use crate::error::{Context, Error, Result};
use crate::tensor::DType;

impl Graph {
    /// The branches of an `If`: the one for true, then the one for false.
    pub fn branches<'n>(&self, node: &'n Node) -> Result<[&'n GraphProto; 2]> {
        let branch = |name: &str| match node.attributes.get(name) {
            Some(Attribute::Graph(body)) => Ok(&**body),
            _ => Err(Error::data(format!("attribute {name} is missing"))),
        };
        Ok([branch("then_branch")?, branch("else_branch")?])
    }

    /// A branch of this graph as a graph: captured values come with the types and the data that
    /// they have here.
    pub fn branch(&self, body: &GraphProto) -> Result<Self> {
        if !body.input.is_empty() {
            return Err(Error::unsupported("a branch with inputs"));
        }
        self.body(body, &[])
    }

    /// The body of a loop as a graph, whose first inputs are the body's own, of the given types;
    /// the rest is as for [`Graph::branch`]. What the body puts out twice, or hands on as it is, it
    /// puts out by way of an Identity.
    pub fn body(&self, body: &GraphProto, inputs: &[ValueType]) -> Result<Self> {
        if !body.sparse_initializer.is_empty() {
            return Err(Error::unsupported("a body with sparse constants"));
        }
        if body.input.len() != inputs.len() {
            let (n, given) = (body.input.len(), inputs.len());
            return Err(Error::data(format!("a body with {n} inputs, which is given {given}")));
        }
        let mut graph = Self::new(&self.name, self.opset());
        graph.ir_version = self.ir_version;
        graph.opsets.clone_from(&self.opsets);
        graph.functions.clone_from(&self.functions);
        for (info, ty) in body.input.iter().zip(inputs) {
            graph.add_input(&info.name, ty.clone())?;
        }
        for name in captures(body) {
            let outer = self.find(&name);
            let outer = outer.ok_or_else(|| Error::data(format!("nothing defines '{name}'")))?;
            if let Some(data) = self.initializer(outer) {
                graph.add_initializer(&name, data.clone())?;
            } else {
                graph.add_input(&name, self.value(outer).ty.clone())?;
            }
        }
        read::append(&mut graph, &body.initializer, body.node.clone())?;
        for info in body.value_info.iter().chain(&body.output) {
            let Some(v) = graph.find(&info.name) else { continue };
            let ty = read::value_type(info).context(|| format!("value '{}'", info.name))?;
            if graph.initializer(v).is_none() && !graph.inputs().contains(&v) {
                graph.set_type(v, ty);
            }
        }
        for info in &body.output {
            let v = graph.find(&info.name);
            let v = v.ok_or_else(|| Error::data(format!("nothing defines '{}'", info.name)))?;
            let handed_on = graph.inputs()[..inputs.len()].contains(&v);
            let v = if handed_on || graph.outputs().contains(&v) { graph.copy(v) } else { v };
            graph.add_output(v);
        }
        graph.sort()?;
        Ok(graph)
    }

    /// Makes float tensors that the bodies of each `If`, `Loop` and `Scan` hold initializers of
    /// this graph, which the bodies capture: initializers of one dimension or more, `Constant`
    /// nodes of two. Those that some node reads in a place for which `moves` (operator, input) is
    /// false stay, and those that a body puts out as they are. They keep their names where these
    /// are free.
    ///
    /// # Errors
    /// `InvalidData` for damaged tensors; `Unsupported` for external data in a branch.
    pub fn move_weights_out(&mut self, moves: fn(&str, usize) -> bool) -> Result<()> {
        for id in self.node_ids() {
            let node = self.node(id).clone();
            if !holds_weights(&node.op, &node.domain) {
                continue;
            }
            let label = if node.name.is_empty() { &node.op } else { &node.name };
            for (name, attribute) in &node.attributes {
                let Attribute::Graph(body) = attribute else { continue };
                let mut body = (**body).clone();
                if self.take_weights(&mut body, label, moves).context(|| self.describe(id))? {
                    self.set_body(id, name, body);
                }
            }
        }
        Ok(())
    }

    fn take_weights(
        &mut self,
        body: &mut GraphProto,
        label: &str,
        moves: fn(&str, usize) -> bool,
    ) -> Result<bool> {
        let mut moved = false;
        for node in body.node.iter_mut().filter(|n| holds_weights(&n.op_type, &n.domain)) {
            for inner in node.attribute.iter_mut().filter_map(|a| a.g.as_mut()) {
                moved |= self.take_weights(inner, label, moves)?;
            }
        }
        let put_out: HashSet<String> = body.output.iter().map(|o| o.name.clone()).collect();
        let mut renamed = HashMap::new();
        for (name, tensor) in weights_of(body) {
            let mut uses = Vec::new();
            uses_of(body, &name, &mut uses);
            let fits = uses.iter().all(|(op, slot)| moves(op, *slot));
            if put_out.contains(&name) || uses.is_empty() || !fits {
                continue;
            }
            let external = |_: &TensorProto| Err(Error::unsupported("external data in a branch"));
            let data = TensorData::from_proto(&tensor, &external)
                .context(|| format!("'{name}' in a branch"))?;
            // The name itself is known as one of a body: only another value can have taken it.
            let free = self.find(&name).is_none();
            let outer =
                if free { name.clone() } else { self.free_name(&format!("{label}/{name}")) };
            self.add_initializer(&outer, data)?;
            body.initializer.retain(|t| t.name != name);
            body.node.retain(|n| n.op_type != "Constant" || n.output.first() != Some(&name));
            if outer != name {
                renamed.insert(name, outer);
            }
            moved = true;
        }
        rename_body(body, &renamed);
        Ok(moved)
    }

    /// Float tensors with dimensions that lie in bodies and in model-local functions: what might be
    /// a weight of the model.
    pub fn inner_weights(&self) -> Vec<InnerWeight> {
        let mut found = Vec::new();
        for node in self.nodes() {
            for attribute in node.attributes.values() {
                if let Attribute::Graph(body) = attribute {
                    let label = if node.name.is_empty() { &node.op } else { &node.name };
                    list_weights(body, label, &node.op, &mut found);
                }
            }
        }
        for function in &self.functions {
            let constants = function.node.iter().filter_map(constant_of);
            for (name, tensor) in constants.filter(|(_, t)| is_weight(t, 2)) {
                let name = format!("{}/{name}", function.name);
                found.extend(InnerWeight::of(name, "function", &tensor));
            }
        }
        found
    }

    /// An Identity of a value.
    pub(crate) fn copy(&mut self, v: ValueId) -> ValueId {
        let ty = self.value(v).ty.clone();
        let copy = self.op("Identity", &[v], []);
        self.set_type(copy, ty);
        copy
    }

    /// `v`, or a copy of it where it is given or one of `others`, which are outputs already: an
    /// output of its own. (Runtimes lose values that others read too when they remove an Identity
    /// before an output.)
    pub(crate) fn own_output(&mut self, v: ValueId, others: &[ValueId]) -> ValueId {
        let given = self.inputs().contains(&v) || self.initializer(v).is_some();
        if given || others.contains(&v) { self.copy(v) } else { v }
    }

    /// Renames the values that a branch defines to names that are free in this graph.
    pub(crate) fn rename_apart(&mut self, branch: &mut Self, captured: &[String]) -> Result<()> {
        let captured: HashSet<&str> = captured.iter().map(String::as_str).collect();
        let values: Vec<ValueId> = branch.value_ids().collect();
        for v in values {
            let old = branch.value_name(v).to_owned();
            if !captured.contains(old.as_str()) {
                let mut new = self.fresh_name(&old);
                while branch.find(&new).is_some() {
                    new = self.fresh_name(&old);
                }
                branch.rename(v, &new)?;
            }
        }
        Ok(())
    }

    /// Makes bodies that read `old` read `new`.
    pub(super) fn rename_in_bodies(&mut self, old: &str, new: &str) {
        let names = [(old.to_owned(), new.to_owned())].into();
        for node in self.nodes_mut() {
            for attribute in node.attributes.values_mut() {
                if let Attribute::Graph(body) = attribute {
                    rename_body(body, &names);
                }
            }
        }
    }
}

/// A float tensor that lies in a body or a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InnerWeight {
    /// Name of the node or function that holds it, and its own.
    pub name: String,
    /// The operator of that node, or `function`.
    pub holder: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its element type.
    pub dtype: DType,
}

impl InnerWeight {
    fn of(name: String, holder: &str, tensor: &TensorProto) -> Option<Self> {
        let dims = tensor.dims.iter().map(|&d| usize::try_from(d).ok());
        let (shape, dtype) =
            (dims.collect::<Option<_>>()?, DType::from_onnx(tensor.data_type).ok()?);
        Some(Self { name, holder: holder.to_owned(), shape, dtype })
    }
}

/// Whether bodies of an operator may hold weights that are trained.
fn holds_weights(op: &str, domain: &str) -> bool {
    domain.is_empty() && ["If", "Loop", "Scan"].contains(&op)
}

/// Whether a tensor has floats in at least `rank` dimensions.
fn is_weight(tensor: &TensorProto, rank: usize) -> bool {
    let float = DType::from_onnx(tensor.data_type).is_ok_and(DType::is_float);
    float && tensor.dims.len() >= rank && !tensor.dims.contains(&0)
}

/// Name and data of a `Constant` node with a tensor.
pub(super) fn constant_of(node: &NodeProto) -> Option<(String, TensorProto)> {
    let own = node.op_type == "Constant" && read::domain_key(&node.domain).is_empty();
    let tensor = node.attribute.first().filter(|_| own)?.t.clone()?;
    Some((node.output.first()?.clone(), tensor))
}

/// Initializers of a body, and its `Constant` nodes of two dimensions or more, that hold floats.
fn weights_of(body: &GraphProto) -> Vec<(String, TensorProto)> {
    let held = body.initializer.iter().map(|t| (t.name.clone(), t.clone()));
    let held = held.filter(|(_, t)| is_weight(t, 1));
    let constants = body.node.iter().filter_map(constant_of).filter(|(_, t)| is_weight(t, 2));
    held.chain(constants).collect()
}

fn list_weights(body: &GraphProto, label: &str, holder: &str, found: &mut Vec<InnerWeight>) {
    for (name, tensor) in weights_of(body) {
        found.extend(InnerWeight::of(format!("{label}/{name}"), holder, &tensor));
    }
    for attribute in body.node.iter().flat_map(|n| &n.attribute) {
        let bodies = attribute.g.iter().chain(&attribute.graphs);
        bodies.for_each(|inner| list_weights(inner, label, holder, found));
    }
}

/// Operators and inputs that read a value of a body, in bodies within it too.
fn uses_of(body: &GraphProto, name: &str, uses: &mut Vec<(String, usize)>) {
    for node in &body.node {
        let reads = node.input.iter().enumerate().filter(|(_, n)| *n == name);
        uses.extend(reads.map(|(slot, _)| (node.op_type.clone(), slot)));
        for attribute in &node.attribute {
            let bodies = attribute.g.iter().chain(&attribute.graphs);
            bodies.for_each(|inner| uses_of(inner, name, uses));
        }
    }
}

/// Names that a body reads and does not define, each once.
pub(crate) fn captures(body: &GraphProto) -> Vec<String> {
    let mut names = Vec::new();
    super::graph::free_names(body, &mut names);
    let mut seen = HashSet::new();
    names.retain(|n| seen.insert(n.clone()));
    names
}
