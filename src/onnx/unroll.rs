//! Writes out `Loop` nodes whose number of steps is known.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::graph::{Attribute, Graph, Node, NodeId};
use super::inline::rename_nodes;
use super::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};
use super::size_limit::GraphSize;
use super::tensor_data::TensorData;
use super::write::attribute_proto;
use super::{branch, read};
use crate::error::{Context, Error, Result};
use crate::tensor::DType;

/// Loops of more nodes in all steps stay loops.
const MOST_NODES: usize = 1 << 12;

impl Graph {
    /// The body of a `Loop` and its number of steps, if that is a constant, and each step ends with
    /// the condition that it began with, which holds.
    pub fn known_steps<'n>(&self, node: &'n Node) -> Option<(&'n GraphProto, usize)> {
        let body = match node.attributes.get("body") {
            Some(Attribute::Graph(body)) if node.op == "Loop" && node.domain.is_empty() => body,
            _ => return None,
        };
        let first = |data: TensorData| data.to_i64s().ok()?.first().copied();
        let steps = first(self.constant(node.input(0)?)?)?;
        let holds = node.input(1).is_none_or(|v| self.constant(v).and_then(first) == Some(1));
        let fits = body.input.len() == node.inputs.len() && body.input.len() >= 2;
        let goes_on = fits && self.goes_on(body, &body.output.first()?.name);
        let steps = usize::try_from(steps).ok()?;
        (holds && goes_on).then_some((&**body, steps))
    }

    /// Whether a value of a loop's body is the condition that the step began with, or true.
    fn goes_on(&self, body: &GraphProto, name: &str) -> bool {
        let truth = |data: TensorData| data.to_i64s().is_ok_and(|v| v == [1]);
        let held = body.initializer.iter().find(|t| t.name == name);
        if let Some(held) = held {
            return TensorData::from_proto(held, &external).is_ok_and(truth);
        }
        if body.input.iter().any(|v| v.name == name) {
            return body.input[1].name == name;
        }
        match body.node.iter().find(|n| n.output.first().is_some_and(|y| y == name)) {
            Some(node) if ["Cast", "Identity"].contains(&node.op_type.as_str()) => {
                node.input.first().is_some_and(|x| self.goes_on(body, x))
            }
            Some(node) if node.op_type == "Constant" => {
                branch::constant_of(node).is_some_and(|(_, tensor)| {
                    TensorData::from_proto(&tensor, &external).is_ok_and(truth)
                })
            }
            Some(_) => false,
            None => self.find(name).and_then(|v| self.constant(v)).is_some_and(truth),
        }
    }

    /// Replaces each `Loop` with a known number of steps by its steps, unless these are very many.
    /// Values keep their ids. Returns whether there was any.
    pub fn unroll_loops(&mut self) -> Result<bool> {
        let known: Vec<NodeId> = self
            .node_ids()
            .filter(|&id| {
                let found = self.known_steps(self.node(id));
                found.is_some_and(|(body, steps)| {
                    steps > 0 && (body.node.len() + 1).saturating_mul(steps) <= MOST_NODES
                })
            })
            .collect();
        let mut size = GraphSize::of_records(self.nodes().len());
        let mut written = Vec::new();
        for &id in &known {
            let (place, node) = (self.describe(id), self.node(id).clone());
            written.push(self.steps(&node, &mut size).context(|| place)?);
        }
        let gone: HashSet<NodeId> = known.iter().copied().collect();
        self.retain_nodes(|id, _| !gone.contains(&id));
        for nodes in written {
            read::append(self, &[], nodes)?;
        }
        self.sort()?;
        Ok(!known.is_empty())
    }

    /// The nodes of all steps of a loop, and those that collect what they put out.
    fn steps(&mut self, node: &Node, size: &mut GraphSize) -> Result<Vec<NodeProto>> {
        let (body, steps) =
            self.known_steps(node).ok_or_else(|| Error::internal("a loop without steps"))?;
        if !body.sparse_initializer.is_empty() {
            return Err(Error::unsupported("a body with sparse constants"));
        }
        let n_states = body.input.len() - 2;
        if body.output.len() < 1 + n_states {
            return Err(Error::data("its body puts out fewer values than it has states"));
        }
        let mut constants = HashMap::new();
        for tensor in &body.initializer {
            let data = TensorData::from_proto(tensor, &external)?;
            constants.insert(tensor.name.clone(), self.hold(&tensor.name, data)?);
        }
        let truth = TensorData::new(DType::Bool, &[], vec![1u8].into())?;
        constants.insert(body.input[1].name.clone(), self.hold("condition", truth)?);
        let mut states = Vec::new();
        for slot in 2..node.inputs.len() {
            let v = node.input(slot);
            let v = v.ok_or_else(|| Error::data(format!("input {slot} is missing")))?;
            states.push(self.value_name(v).to_owned());
        }
        let mut collected: Vec<Vec<String>> = vec![Vec::new(); body.output.len() - 1 - n_states];
        let mut nodes = Vec::new();
        let label = if node.name.is_empty() { "Loop" } else { &node.name };
        for step in 0..steps {
            size.add(GraphSize::of_nodes(&body.node))?;
            let at = TensorData::ints(&[step as i64]).reshaped(&[])?;
            let mut names = constants.clone();
            names.insert(body.input[0].name.clone(), self.hold("step", at)?);
            names.extend(body.input[2..].iter().map(|v| v.name.clone()).zip(states));
            let outputs = self.step(&mut nodes, body, names, &format!("{label}/{step}"))?;
            states = outputs[1..=n_states].to_vec();
            let parts = &outputs[1 + n_states..];
            collected.iter_mut().zip(parts).for_each(|(all, y)| all.push(y.clone()));
        }
        let made = states.into_iter().map(|state| (vec![state], false));
        let made = made.chain(collected.into_iter().map(|parts| (parts, true)));
        for (slot, (parts, joined)) in made.enumerate() {
            if let Some(y) = node.output(slot) {
                let y = self.value_name(y).to_owned();
                self.put_out(&mut nodes, &parts, joined, y)?;
            }
        }
        Ok(nodes)
    }

    /// Adds a constant; its name.
    fn hold(&mut self, name: &str, data: TensorData) -> Result<String> {
        let name = self.fresh_name(name);
        self.add_initializer(&name, data)?;
        Ok(name)
    }

    /// Appends a copy of a body's nodes, given the names of what it reads, and returns the names of
    /// its outputs.
    fn step(
        &mut self,
        nodes: &mut Vec<NodeProto>,
        body: &GraphProto,
        mut names: HashMap<String, String>,
        label: &str,
    ) -> Result<Vec<String>> {
        for made in body.node.iter().flat_map(|n| &n.output).filter(|n| !n.is_empty()) {
            let fresh = self.fresh_name(made);
            if names.insert(made.clone(), fresh).is_some() {
                return Err(Error::data(format!("its body defines '{made}' twice")));
            }
        }
        let mut copy = body.node.clone();
        rename_nodes(&mut copy, &names);
        for inner in &mut copy {
            let made = inner.output.iter().find(|n| !n.is_empty());
            inner.name = format!("{label}/{}", made.unwrap_or(&inner.op_type));
        }
        nodes.extend(copy);
        let outer = |v: &ValueInfoProto| names.get(&v.name).unwrap_or(&v.name).clone();
        Ok(body.output.iter().map(outer).collect())
    }

    /// A node that makes `y`: a copy of the only one of `parts`, or all side by side along a new
    /// axis.
    fn put_out(
        &mut self,
        nodes: &mut Vec<NodeProto>,
        parts: &[String],
        joined: bool,
        y: String,
    ) -> Result<()> {
        let node = |op: &str, input: Vec<String>, output: String| NodeProto {
            op_type: op.into(),
            input,
            output: vec![output],
            ..NodeProto::default()
        };
        if !joined {
            nodes.push(node("Identity", parts.to_vec(), y));
            return Ok(());
        }
        let axis = self.hold("axis", TensorData::ints(&[0]))?;
        let mut rows = Vec::new();
        for part in parts {
            let row = self.fresh_name(part);
            nodes.push(node("Unsqueeze", vec![part.clone(), axis.clone()], row.clone()));
            rows.push(row);
        }
        let mut concat = node("Concat", rows, y);
        concat.attribute.push(attribute_proto("axis", &Attribute::Int(0)));
        nodes.push(concat);
        Ok(())
    }
}

fn external(_: &TensorProto) -> Result<Bytes> {
    Err(Error::unsupported("external data in a body"))
}
