//! The path from the parameters to the loss.
//!
//! *reached*: a value that depends on a parameter through floats. *needed*: a value that the loss
//! is computed from. The path is the values that are both.

use std::collections::HashSet;

use super::alternatives::alternative;
use super::branch;
use super::row::{Entry, Row};
use super::table;
use crate::error::{Context, Error, Result};
use crate::onnx::compat::unknown_attribute;
use crate::onnx::{Attribute, Graph, Node, NodeId, Scan, ValueId, ValueType};
use crate::tensor::DType;

/// The path within the body of a `Scan`.
pub(super) struct Inner {
    pub path: Path,
    /// States whose cotangents each step hands on to the one before.
    pub states: Vec<bool>,
    /// Slices that are on the path.
    pub scanned: Vec<bool>,
    /// Outer values on the path that the body reads, there and here.
    pub captured: Vec<(ValueId, ValueId)>,
}

/// Which values lie between the parameters and the loss.
pub(super) struct Path {
    reached: Vec<bool>,
    needed: HashSet<ValueId>,
}

impl Path {
    pub fn find(graph: &Graph, ends: &[ValueId], wrt: &[ValueId]) -> Result<Self> {
        let path = Self::trace(graph, ends, wrt);
        path.check(graph, |_| false)?;
        Ok(path)
    }

    pub fn trace(graph: &Graph, ends: &[ValueId], wrt: &[ValueId]) -> Self {
        let mut reached = vec![false; graph.values().len()];
        wrt.iter().for_each(|v| reached[v.index()] = true);
        for node in graph.nodes() {
            let captured = node.captures();
            let mut reads = read_inputs(graph, node);
            let depends = reads.any(|v| reached[v.index()])
                || captured.iter().filter_map(|n| graph.find(n)).any(|v| reached[v.index()]);
            let stops = matches!(entry(graph, node), Some(Entry::Stop));
            if depends && !stops {
                for v in node.outputs.iter().flatten() {
                    let dtype = graph.value(*v).ty.dtype;
                    reached[v.index()] |= dtype.is_none_or(DType::is_float);
                }
            }
        }
        let mut path = Self { reached, needed: ends.iter().copied().collect() };
        for node in graph.nodes().iter().rev() {
            if node.outputs.iter().flatten().any(|v| path.needed.contains(v)) {
                path.needed.extend(read_inputs(graph, node));
                path.needed.extend(node.captures().iter().filter_map(|n| graph.find(n)));
            }
        }
        path
    }

    pub fn contains(&self, v: ValueId) -> bool {
        self.reached.get(v.index()).copied().unwrap_or(false) && self.needed.contains(&v)
    }

    fn reads(&self, graph: &Graph, node: &Node) -> bool {
        let captured = node.captures();
        let captured = captured.iter().filter_map(|n| graph.find(n));
        read_inputs(graph, node).chain(captured).any(|v| self.contains(v))
    }

    pub fn nodes(&self, graph: &Graph) -> Vec<NodeId> {
        let on_path = |id: &NodeId| {
            let node = graph.node(*id);
            node.outputs.iter().flatten().any(|&v| self.contains(v)) && self.reads(graph, node)
        };
        graph.node_ids().filter(on_path).collect()
    }

    /// Outer values on the path that the bodies of a node read, each once.
    pub fn captured(&self, graph: &Graph, node: &Node) -> Vec<ValueId> {
        let mut values: Vec<ValueId> =
            node.captures().iter().filter_map(|n| graph.find(n)).collect();
        values.sort_unstable();
        values.dedup();
        values.retain(|&v| self.contains(v));
        values
    }

    /// The same as [`Path::check`] within the branches of an `If`.
    fn check_branches(&self, graph: &Graph, node: &Node, lowered: fn(&Node) -> bool) -> Result<()> {
        let captured = self.captured(graph, node);
        for body in graph.branches(node)? {
            let mut inner = graph.branch(body)?;
            inner.inline_functions()?;
            let names = captured.iter().map(|&v| graph.value_name(v));
            let wrt: Vec<ValueId> = names.filter_map(|n| inner.find(n)).collect();
            Self::trace(&inner, inner.outputs(), &wrt).check(&inner, lowered)?;
        }
        Ok(())
    }

    /// The same as [`Path::check`] within the body of a `Scan` or a `Loop`.
    fn check_scan(&self, graph: &Graph, node: &Node, lowered: fn(&Node) -> bool) -> Result<()> {
        let body = Scan::body(node)?;
        if body.input.len() != node.inputs.len() {
            return Err(Error::data("its inputs do not fit its body"));
        }
        let mut inner = graph.body(body, &vec![ValueType::default(); body.input.len()])?;
        inner.inline_functions()?;
        let ends = vec![true; inner.outputs().len()];
        self.scan(graph, node, &inner, &ends)?.path.check(&inner, lowered)
    }

    /// What lies on the path within the body of a `Scan` or a `Loop`, given the body's outputs
    /// whose cotangents come from outside.
    pub fn scan(&self, graph: &Graph, node: &Node, body: &Graph, ends: &[bool]) -> Result<Inner> {
        let (n_states, first_in, first_out) = states_of(node, body)?;
        let own = body.inputs()[..node.inputs.len()].to_vec();
        let outputs = body.outputs();
        let mut reached: Vec<bool> =
            node.inputs.iter().map(|v| v.is_some_and(|v| self.contains(v))).collect();
        let captured = self.captured(graph, node);
        let captured: Vec<(ValueId, ValueId)> = captured
            .into_iter()
            .filter_map(|v| Some((v, body.find(graph.value_name(v))?)))
            .collect();
        // What a step reaches, the next one has as a state.
        let wrt = loop {
            let reached_own = own.iter().zip(&reached).filter(|(_, on)| **on).map(|(v, _)| *v);
            let wrt: Vec<ValueId> = reached_own.chain(captured.iter().map(|c| c.1)).collect();
            let path = Self::trace(body, outputs, &wrt);
            let next = |i: &usize| path.reached[outputs[first_out + i].index()];
            let more = |i: &usize| !reached[first_in + i] && next(i);
            let more: Vec<usize> = (0..n_states).filter(more).collect();
            if more.is_empty() {
                break wrt;
            }
            more.into_iter().for_each(|i| reached[first_in + i] = true);
        };
        let mut ends = ends.to_vec();
        let path = loop {
            let from = outputs.iter().zip(&ends).filter(|(_, end)| **end).map(|(v, _)| *v);
            let path = Self::trace(body, &from.collect::<Vec<_>>(), &wrt);
            let read = |i: &usize| path.needed.contains(&own[first_in + i]);
            let more = |i: &usize| !ends[first_out + i] && read(i);
            let more: Vec<usize> = (0..n_states).filter(more).collect();
            if more.is_empty() {
                break path;
            }
            more.into_iter().for_each(|i| ends[first_out + i] = true);
        };
        let states = (0..n_states).map(|i| reached[first_in + i] && ends[first_out + i]).collect();
        let scanned = own[first_in + n_states..].iter().map(|&v| path.contains(v)).collect();
        let captured = captured.into_iter().filter(|c| path.contains(c.1)).collect();
        Ok(Inner { path, states, scanned, captured })
    }

    /// Every node of the path has a rule or is `lowered` later; its values are f32 or f64.
    pub fn check(&self, graph: &Graph, lowered: fn(&Node) -> bool) -> Result<()> {
        for id in self.nodes(graph) {
            let node = graph.node(id);
            if lowered(node) {
                if let Some(name) = unknown_attribute(node) {
                    let text = format!("{}: {}", graph.describe(id), unknown(name));
                    return Err(Error::unsupported(text));
                }
                if is_loop(node) {
                    self.check_scan(graph, node, lowered).context(|| graph.describe(id))?;
                }
                continue;
            }
            if branch::is_if(node) {
                self.check_branches(graph, node, lowered).context(|| graph.describe(id))?;
                continue;
            }
            if Scan::is(node) {
                self.check_scan(graph, node, lowered).context(|| graph.describe(id))?;
                continue;
            }
            let problem = match entry(graph, node) {
                Some(Entry::Rule(_)) if has_bodies(node) => {
                    Some("gradients through a body are not supported".to_owned())
                }
                Some(Entry::Rule(_)) => row(graph, node)
                    .and_then(|row| unlisted(row, node))
                    .or(half_precision(graph, node)),
                Some(Entry::Stop) => None,
                None => Some(no_rule(node)),
            };
            if let Some(problem) = problem {
                return Err(Error::unsupported(format!("{}: {problem}", graph.describe(id))));
            }
        }
        Ok(())
    }
}

fn is_loop(node: &Node) -> bool {
    node.op == "Loop" && node.domain.is_empty()
}

/// Number of states of a `Scan` or a `Loop`, and the first one among inputs and outputs of its
/// body.
fn states_of(node: &Node, body: &Graph) -> Result<(usize, usize, usize)> {
    let (n_inputs, n_outputs) = (node.inputs.len(), body.outputs().len());
    let n_scanned = node.int("num_scan_inputs").and_then(|n| usize::try_from(n).ok());
    let (n_states, first_in, first_out) = if is_loop(node) {
        (n_inputs.checked_sub(2), 2, 1)
    } else {
        (n_scanned.and_then(|n| n_inputs.checked_sub(n)), 0, 0)
    };
    let n_states = n_states.filter(|&n| n + first_out <= n_outputs);
    let n_states = n_states.ok_or_else(|| Error::data("its states do not fit its body"))?;
    Ok((n_states, first_in, first_out))
}

fn no_rule(node: &Node) -> String {
    let text = format!("no gradient rule for the operator {}", node.op);
    alternative(node).map_or_else(|| text.clone(), |instead| format!("{text}; {instead}"))
}

fn unknown(attribute: &str) -> String {
    format!("no gradient rule with the attribute '{attribute}'")
}

/// An attribute of the node that the rule does not understand.
fn unlisted(row: &Row, node: &Node) -> Option<String> {
    node.attributes.keys().find(|name| !row.attributes.contains(&name.as_str())).map(|n| unknown(n))
}

fn has_bodies(node: &Node) -> bool {
    node.attributes.values().any(|a| matches!(a, Attribute::Graph(_)))
}

fn half_precision(graph: &Graph, node: &Node) -> Option<String> {
    let all = node.inputs.iter().chain(&node.outputs).flatten();
    let narrow = |d: &DType| matches!(d, DType::F16 | DType::BF16);
    let dtype = all.filter_map(|v| graph.value(*v).ty.dtype).find(narrow)?;
    Some(format!("works on {dtype}; mixed precision is not supported yet, export in f32"))
}

pub(super) fn row(graph: &Graph, node: &Node) -> Option<&'static Row> {
    let opset = graph.opsets.get(&node.domain).copied().unwrap_or(1);
    table::find(&node.op, &node.domain, opset)
}

fn entry(graph: &Graph, node: &Node) -> Option<Entry> {
    row(graph, node).map(|row| row.entry)
}

/// Inputs on whose elements the result depends.
fn read_inputs<'n>(graph: &Graph, node: &'n Node) -> impl Iterator<Item = ValueId> + use<'n> {
    let types_only = row(graph, node).map_or(&[][..], |row| row.types_only);
    let inputs = node.inputs.iter().enumerate().filter(|(i, _)| !types_only.contains(i));
    inputs.filter_map(|(_, v)| *v)
}

/// Whether a gradient can reach input `slot` of a node, as far as the rule table tells.
pub fn passes_gradient(graph: &Graph, id: NodeId, slot: usize) -> bool {
    row(graph, graph.node(id))
        .is_none_or(|row| matches!(row.entry, Entry::Rule(_)) && !row.types_only.contains(&slot))
}
