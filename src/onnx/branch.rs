//! Converts a branch of an `If` to a separate graph and back.
//!
//! *captured*: a value of the outer graph that the branch reads by name. It is an input of the
//! branch's graph, or an initializer where the outer graph has one.

use std::collections::HashSet;

use super::graph::{Graph, Node, ValueId};
use super::inline::rename_body;
use super::proto::GraphProto;
use super::{Attribute, read};
use crate::error::{Context, Error, Result};

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
        if !body.input.is_empty() || !body.sparse_initializer.is_empty() {
            return Err(Error::unsupported("a branch with inputs or sparse constants"));
        }
        let mut graph = Self::new(&self.name, self.opset());
        graph.ir_version = self.ir_version;
        graph.opsets.clone_from(&self.opsets);
        graph.functions.clone_from(&self.functions);
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
            graph.add_output(v);
        }
        if graph.outputs().len() != body.output.len() {
            return Err(Error::unsupported("a branch that outputs one value twice"));
        }
        graph.sort()?;
        Ok(graph)
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

/// Names that a body reads and does not define, each once.
pub(crate) fn captures(body: &GraphProto) -> Vec<String> {
    let mut names = Vec::new();
    super::graph::free_names(body, &mut names);
    let mut seen = HashSet::new();
    names.retain(|n| seen.insert(n.clone()));
    names
}
