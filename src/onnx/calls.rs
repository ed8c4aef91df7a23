//! Which model-local function a node calls, and a check that no function calls itself.

use std::collections::HashMap;

use super::graph::{Attribute, Graph, Node};
use super::proto::{FunctionProto, NodeProto};
use super::read::domain_key;
use super::size_limit::GraphSize;
use crate::error::{Error, Result};

/// The functions of a model by domain and name, without overloads.
pub(super) struct Calls {
    functions: HashMap<String, HashMap<String, usize>>,
}

impl Calls {
    pub fn new(functions: &[FunctionProto]) -> Self {
        let mut by_domain: HashMap<String, HashMap<String, usize>> = HashMap::new();
        for (i, f) in functions.iter().enumerate().filter(|(_, f)| f.overload.is_empty()) {
            let of_domain = by_domain.entry(domain_key(&f.domain).to_owned()).or_default();
            of_domain.entry(f.name.clone()).or_insert(i);
        }
        Self { functions: by_domain }
    }

    /// Index of the function that `node` calls.
    pub fn callee(&self, node: &Node) -> Option<usize> {
        self.find(&node.domain, &node.op)
    }

    fn find(&self, domain: &str, op: &str) -> Option<usize> {
        self.functions.get(domain_key(domain))?.get(op).copied()
    }

    /// Checks all calls, those in bodies too.
    ///
    /// # Errors
    /// `InvalidData` for a function that calls itself, which is named, or for calls that expand to
    /// more nodes than any real model has.
    pub fn check(&self, graph: &Graph) -> Result<()> {
        let functions = &graph.functions;
        let mut calls = vec![Vec::new(); functions.len()];
        let mut callers = vec![Vec::new(); functions.len()];
        for (i, function) in functions.iter().enumerate() {
            self.of_nodes(&function.node, &mut calls[i]);
            calls[i].iter().for_each(|&callee: &usize| callers[callee].push(i));
        }
        // Topological order, from functions without calls up (Kahn 1962).
        let mut open: Vec<usize> = calls.iter().map(Vec::len).collect();
        let mut ready: Vec<usize> = (0..functions.len()).filter(|&i| open[i] == 0).collect();
        let mut size: Vec<usize> =
            functions.iter().map(|f| GraphSize::of_nodes(&f.node).size).collect();
        while let Some(i) = ready.pop() {
            for &caller in &callers[i] {
                size[caller] = size[caller].saturating_add(size[i]);
                open[caller] -= 1;
                if open[caller] == 0 {
                    ready.push(caller);
                }
            }
        }
        if let Some(start) = open.iter().position(|&n| n > 0) {
            return Err(calls_itself(functions, &calls, &open, start));
        }
        let mut used = Vec::new();
        for node in graph.nodes() {
            used.extend(self.callee(node));
            for attribute in node.attributes.values() {
                if let Attribute::Graph(body) = attribute {
                    self.of_nodes(&body.node, &mut used);
                }
            }
        }
        let size = used.iter().fold(0, |sum: usize, &i| sum.saturating_add(size[i]));
        GraphSize::default().add(GraphSize { size, depth: 0 })
    }

    fn of_nodes(&self, nodes: &[NodeProto], into: &mut Vec<usize>) {
        for node in nodes {
            into.extend(self.find(&node.domain, &node.op_type));
            for attribute in &node.attribute {
                let bodies = attribute.g.iter().chain(&attribute.graphs);
                bodies.for_each(|body| self.of_nodes(&body.node, into));
            }
        }
    }
}

/// The error for a cycle that `start` runs into.
fn calls_itself(
    functions: &[FunctionProto],
    calls: &[Vec<usize>],
    open: &[usize],
    start: usize,
) -> Error {
    let next = |i: usize| calls[i].iter().copied().find(|&c| open[c] > 0);
    let on_cycle = (0..functions.len()).try_fold(start, |i, _| next(i)).unwrap_or(start);
    let FunctionProto { domain, name, .. } = &functions[on_cycle];
    Error::data(format!("its function '{domain}.{name}' calls itself"))
}
