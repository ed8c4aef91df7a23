//! Names in a graph. Whoever invents one asks here, since files name things as they like: values by
//! the names of values and of what bodies define, nodes by the names of nodes.

use std::collections::HashSet;

use super::graph::{Attribute, Attributes, Graph, ValueId, ValueType};
use super::proto::GraphProto;
use crate::error::{Error, Result};

impl Graph {
    /// Whether a value has this name, in the graph or in the body of a node.
    pub fn has_name(&self, name: &str) -> bool {
        self.by_name.contains_key(name) || self.inner_names.contains(name)
    }

    /// A name that no value has: `prefix_N`.
    pub fn fresh_name(&mut self, prefix: &str) -> String {
        loop {
            let name = format!("{prefix}_{}", self.next_name);
            self.next_name += 1;
            if !self.has_name(&name) {
                return name;
            }
        }
    }

    /// `wanted`, or a fresh name like it where a value has that name.
    pub fn free_name(&mut self, wanted: &str) -> String {
        if self.has_name(wanted) { self.fresh_name(wanted) } else { wanted.to_owned() }
    }

    /// Adds an input whose name others rely on. A value inside the graph that has the name gets
    /// another one.
    ///
    /// # Errors
    /// `Unsupported` when an input or output of the model has the name.
    pub fn claim_input(&mut self, name: &str, ty: ValueType) -> Result<ValueId> {
        if let Some(v) = self.find(name) {
            let what = match (self.inputs().contains(&v), self.outputs().contains(&v)) {
                (true, _) => "input",
                (_, true) => "output",
                _ => "",
            };
            if !what.is_empty() {
                return Err(Error::unsupported(format!(
                    "the model has the {what} '{name}', and training adds an input of that name; \
                     export the model with another name"
                )));
            }
            let other = self.fresh_name(name);
            self.rename(v, &other)?;
        }
        self.add_input(name, ty)
    }

    /// Names each node that has no name, or the name of an earlier node, after its output: some
    /// runtimes derive names from those of nodes, and refuse two that are equal.
    pub fn name_nodes(&mut self) {
        let mut names = NodeNames::of(self);
        let mut seen = HashSet::new();
        for id in self.node_ids() {
            let node = self.node(id);
            if !node.name.is_empty() && seen.insert(node.name.clone()) {
                continue;
            }
            let Some(y) = node.outputs.iter().flatten().next() else { continue };
            let wanted = if node.name.is_empty() { self.value_name(*y) } else { &node.name };
            let name = names.free(wanted);
            seen.insert(name.clone());
            self.node_mut(id).name = name;
        }
    }

    /// Puts a body into a node's attribute.
    pub fn set_body(&mut self, id: super::NodeId, name: &str, body: GraphProto) {
        note_body(&body, &mut self.inner_names);
        self.node_mut(id).attributes.insert(name.to_owned(), Attribute::Graph(Box::new(body)));
    }

    /// Remembers the names that bodies among `attributes` define.
    pub(super) fn note_bodies(&mut self, attributes: &Attributes) {
        for attribute in attributes.values() {
            match attribute {
                Attribute::Graph(body) => note_body(body, &mut self.inner_names),
                Attribute::Opaque(other) => {
                    other.graphs.iter().for_each(|body| note_body(body, &mut self.inner_names));
                }
                _ => {}
            }
        }
    }
}

fn note_body(body: &GraphProto, names: &mut HashSet<String>) {
    names.extend(body.initializer.iter().map(|t| t.name.clone()));
    names.extend(body.input.iter().map(|v| v.name.clone()));
    for node in &body.node {
        names.extend(node.output.iter().cloned());
        for attribute in &node.attribute {
            let bodies = attribute.g.iter().chain(&attribute.graphs);
            bodies.for_each(|body| note_body(body, names));
        }
    }
}

/// The names of a graph's nodes.
pub(super) struct NodeNames(HashSet<String>);

impl NodeNames {
    pub fn of(graph: &Graph) -> Self {
        Self(graph.nodes().iter().map(|n| n.name.clone()).filter(|n| !n.is_empty()).collect())
    }

    /// `wanted`, or a name like it that no node has; it is taken then.
    pub fn free(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut n = 1;
        while !self.0.insert(name.clone()) {
            n += 1;
            name = format!("{wanted}_{n}");
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{Node, TensorData};

    #[test]
    fn nodes_get_names_that_no_other_has() {
        let mut g = Graph::new("g", 17);
        let x = g.add_initializer("x", TensorData::ints(&[1])).unwrap();
        let y = g.op("Neg", &[x], []);
        let taken = g.value_name(y).to_owned();
        let z = g.op("Neg", &[y], []);
        for (id, name) in g.node_ids().skip(1).zip([taken.as_str()]) {
            g.node_mut(id).name = name.to_owned();
        }
        let twice =
            Node { outputs: vec![Some(g.add_value("twice").unwrap())], ..g.nodes()[1].clone() };
        g.push_node(twice);
        g.add_output(z);
        g.name_nodes();
        let names: HashSet<&str> = g.nodes().iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!(g.nodes()[1].name, taken);
    }
}
