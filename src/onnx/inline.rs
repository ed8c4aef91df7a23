//! Inlines bodies: model-local functions where they are called, and the branch of an `If` whose
//! condition is known.
//!
//! Names inside a body are local. In the graph its values get fresh names, except for the body's
//! inputs and outputs, which become the values of the call.

use std::collections::{HashMap, HashSet};

use super::calls::Calls;
use super::graph::{Attribute, Graph, Node, NodeId};
use super::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto};
use super::size_limit::GraphSize;
use super::{read, write};
use crate::error::{Context, Error, Result};

/// From opset 13 to this one no operator that a function may contain changed its meaning.
const SAME_MEANING: std::ops::RangeInclusive<i64> = 13..=17;

/// Nodes and constants under their final names.
struct Body {
    initializers: Vec<TensorProto>,
    nodes: Vec<NodeProto>,
    outputs: Vec<String>,
}

impl Graph {
    /// Replaces calls of model-local functions by the functions' nodes, recursively. Values keep
    /// their ids. Calls inside bodies of `If`, `Loop` and `Scan` stay.
    ///
    /// # Errors
    /// `Unsupported` when a function imports another opset than the model and operators may differ
    /// between the two; `InvalidData` for functions that call themselves, expand to more nodes than
    /// any real model has, or are not well formed.
    pub fn inline_functions(&mut self) -> Result<()> {
        if self.functions.is_empty() {
            return Ok(());
        }
        let calls = Calls::new(&self.functions);
        calls.check(self)?;
        let mut size = GraphSize::of_records(self.nodes().len());
        loop {
            let of_nodes: Vec<NodeId> =
                self.node_ids().filter(|&id| calls.callee(self.node(id)).is_some()).collect();
            if of_nodes.is_empty() {
                break;
            }
            self.inline(&of_nodes, &mut size, |graph, node| {
                let function = calls.callee(node).map(|i| graph.functions[i].clone());
                let function = function.ok_or_else(|| Error::internal("a call of nothing"))?;
                graph.import(&function)?;
                graph.function_body(node, function)
            })?;
        }
        // Bodies may still call some.
        let body = |a: &Attribute| matches!(a, Attribute::Graph(_));
        if !self.nodes().iter().any(|n| n.attributes.values().any(body)) {
            self.functions.clear();
        }
        Ok(())
    }

    /// Replaces each `If` whose condition is an initializer by the branch that is taken. Values
    /// keep their ids. Returns whether there was any.
    pub fn inline_branches(&mut self) -> Result<bool> {
        let known: Vec<NodeId> =
            self.node_ids().filter(|&id| self.taken(self.node(id)).is_some()).collect();
        let mut size = GraphSize::of_records(self.nodes().len());
        self.inline(&known, &mut size, |graph, node| {
            let branch = graph.taken(node).cloned();
            let branch = branch.ok_or_else(|| Error::internal("an If without a branch"))?;
            graph.branch_body(node, branch)
        })?;
        Ok(!known.is_empty())
    }

    fn taken<'a>(&self, node: &'a Node) -> Option<&'a GraphProto> {
        if node.op != "If" || !node.domain.is_empty() {
            return None;
        }
        let condition = self.initializer(node.input(0)?)?.to_i64s().ok()?;
        let name = if *condition.first()? != 0 { "then_branch" } else { "else_branch" };
        match node.attributes.get(name) {
            Some(Attribute::Graph(body)) => Some(body),
            _ => None,
        }
    }

    /// Replaces nodes by the bodies that `of` gives, whose size is added to `size`.
    fn inline(
        &mut self,
        ids: &[NodeId],
        size: &mut GraphSize,
        of: impl Fn(&mut Self, &Node) -> Result<Body>,
    ) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut bodies = Vec::new();
        for &id in ids {
            let place = self.describe(id);
            let node = self.node(id).clone();
            let body = of(self, &node).and_then(|body| {
                size.add(GraphSize::of_nodes(&body.nodes))?;
                Ok(body)
            });
            bodies.push(body.context(|| place)?);
        }
        let gone: HashSet<NodeId> = ids.iter().copied().collect();
        self.retain_nodes(|id, _| !gone.contains(&id));
        for body in bodies {
            read::append(self, &body.initializers, body.nodes)?;
        }
        self.sort()
    }

    /// Adds the function's opset imports to the graph's.
    fn import(&mut self, function: &FunctionProto) -> Result<()> {
        for import in &function.opset_import {
            let domain = read::domain_key(&import.domain);
            let own = *self.opsets.entry(domain.to_owned()).or_insert(import.version);
            let same = |v| domain.is_empty() && SAME_MEANING.contains(&v);
            if own != import.version && !(same(own) && same(import.version)) {
                return Err(Error::unsupported(format!(
                    "the function imports version {} of '{domain}', the model {own}; export both \
                     at the same version",
                    import.version
                )));
            }
        }
        Ok(())
    }

    fn function_body(&mut self, call: &Node, function: FunctionProto) -> Result<Body> {
        let given = call.attributes.iter().map(|(k, v)| write::attribute_proto(k, v));
        let mut attributes: HashMap<String, AttributeProto> =
            function.attribute_proto.iter().map(|a| (a.name.clone(), a.clone())).collect();
        attributes.extend(given.map(|a| (a.name.clone(), a)));
        let mut nodes = function.node;
        fill_attributes(&mut nodes, &attributes, &mut GraphSize::default())?;
        let name = |v: Option<_>| v.map_or(String::new(), |v| self.value_name(v).to_owned());
        let mut names: HashMap<String, String> = HashMap::new();
        for (slot, inner) in function.input.iter().enumerate() {
            names.insert(inner.clone(), name(call.input(slot)));
        }
        let body = Body { initializers: Vec::new(), nodes, outputs: function.output };
        self.place(call, body, names)
    }

    fn branch_body(&mut self, node: &Node, branch: GraphProto) -> Result<Body> {
        if !branch.input.is_empty() || !branch.sparse_initializer.is_empty() {
            return Err(Error::unsupported("a branch with inputs or sparse constants"));
        }
        let outputs = branch.output.into_iter().map(|o| o.name).collect();
        let body = Body { initializers: branch.initializer, nodes: branch.node, outputs };
        self.place(node, body, HashMap::new())
    }

    /// Renames the body's values to fresh names, and its outputs to the names of the call's
    /// outputs.
    fn place(
        &mut self,
        node: &Node,
        mut body: Body,
        mut names: HashMap<String, String>,
    ) -> Result<Body> {
        let mut made: HashSet<String> = HashSet::new();
        for name in body
            .initializers
            .iter()
            .map(|t| &t.name)
            .chain(body.nodes.iter().flat_map(|n| &n.output).filter(|n| !n.is_empty()))
        {
            if !made.insert(name.clone()) || names.contains_key(name) {
                return Err(Error::data(format!("its body defines '{name}' twice")));
            }
        }
        let of_nodes: HashSet<String> =
            body.nodes.iter().flat_map(|n| n.output.iter().cloned()).collect();
        let n_outputs = node.outputs.iter().rposition(Option::is_some).map_or(0, |i| i + 1);
        if n_outputs > body.outputs.len() {
            let n = body.outputs.len();
            return Err(Error::data(format!("it has {n_outputs} outputs, its body {n}")));
        }
        // A value that the body passes through, or outputs twice, goes through an Identity.
        let mut copies: Vec<(String, String)> = Vec::new();
        for (slot, inner) in body.outputs.iter().enumerate() {
            let Some(outer) = node.output(slot) else { continue };
            let outer = self.value_name(outer).to_owned();
            if of_nodes.contains(inner) && !names.contains_key(inner) {
                names.insert(inner.clone(), outer);
            } else {
                copies.push((inner.clone(), outer));
            }
        }
        for name in made {
            if let std::collections::hash_map::Entry::Vacant(entry) = names.entry(name) {
                let fresh = self.fresh_name(entry.key());
                entry.insert(fresh);
            }
        }
        body.initializers.iter_mut().for_each(|t| rename(&mut t.name, &names));
        rename_nodes(&mut body.nodes, &names);
        let label = if node.name.is_empty() { &node.op } else { &node.name };
        for inner in &mut body.nodes {
            let made = inner.output.iter().find(|n| !n.is_empty());
            inner.name = format!("{label}/{}", made.unwrap_or(&inner.op_type));
        }
        for (inner, outer) in copies {
            let mut source = inner;
            rename(&mut source, &names);
            if source.is_empty() {
                return Err(Error::data(format!("its body puts out nothing as '{outer}'")));
            }
            body.nodes.push(NodeProto {
                op_type: "Identity".into(),
                input: vec![source],
                output: vec![outer],
                ..NodeProto::default()
            });
        }
        Ok(body)
    }
}

fn rename(name: &mut String, names: &HashMap<String, String>) {
    if let Some(new) = names.get(name) {
        name.clone_from(new);
    }
}

/// Renames inputs and outputs of nodes, in their bodies too.
pub(super) fn rename_nodes(nodes: &mut [NodeProto], names: &HashMap<String, String>) {
    for node in nodes {
        node.input.iter_mut().chain(&mut node.output).for_each(|n| rename(n, names));
        for attribute in &mut node.attribute {
            let bodies = attribute.g.iter_mut().chain(&mut attribute.graphs);
            bodies.for_each(|g| rename_body(g, names));
        }
    }
}

/// Renames the outer values that a body reads; values of its own keep their names.
pub(super) fn rename_body(body: &mut GraphProto, names: &HashMap<String, String>) {
    let mut seen = names.clone();
    body.input.iter().for_each(|v| drop(seen.remove(&v.name)));
    body.initializer.iter().for_each(|t| drop(seen.remove(&t.name)));
    body.node.iter().flat_map(|n| &n.output).for_each(|n| drop(seen.remove(n)));
    if !seen.is_empty() {
        rename_nodes(&mut body.node, &seen);
        body.output.iter_mut().for_each(|v| rename(&mut v.name, &seen));
    }
}

/// Replaces references to the function's attributes by the call's values. A reference to an
/// attribute that the call lacks and that has no default is removed. `filled` adds up the size of
/// what was inserted.
fn fill_attributes(
    nodes: &mut [NodeProto],
    given: &HashMap<String, AttributeProto>,
    filled: &mut GraphSize,
) -> Result<()> {
    for node in nodes {
        node.attribute
            .retain(|a| a.ref_attr_name.is_empty() || given.contains_key(&a.ref_attr_name));
        for attribute in &mut node.attribute {
            if let Some(value) = given.get(&attribute.ref_attr_name) {
                filled.add(GraphSize::of_attribute(value))?;
                let name = std::mem::take(&mut attribute.name);
                *attribute = AttributeProto { name, ..value.clone() };
            } else {
                for body in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                    fill_attributes(&mut body.node, given, filled)?;
                }
            }
        }
    }
    Ok(())
}
