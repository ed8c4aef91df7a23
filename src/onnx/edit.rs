//! Whole-graph edits: topological order, pruning, fixing free dimensions.

use std::collections::{BTreeMap, HashSet};

use super::graph::{Dim, Graph, NodeId, ValueId};
use crate::error::{Error, Result};

impl Graph {
    /// Puts the nodes into topological order; an order that is topological already stays.
    /// A cycle, or a value that no node produces, is an error that names it.
    pub fn sort(&mut self) -> Result<()> {
        let order = self.topological_order()?;
        let mut nodes: Vec<Option<_>> =
            std::mem::take(self.nodes_mut()).into_iter().map(Some).collect();
        let sorted = order.iter().filter_map(|id| nodes[id.index()].take()).collect();
        *self.nodes_mut() = sorted;
        Ok(())
    }

    fn dependencies(&self, id: NodeId) -> impl Iterator<Item = ValueId> {
        let node = self.node(id);
        let captured = node.captures().into_iter().filter_map(|n| self.find(&n));
        node.inputs.iter().flatten().copied().chain(captured)
    }

    fn topological_order(&self) -> Result<Vec<NodeId>> {
        let producers = self.producers();
        let given: HashSet<ValueId> =
            self.inputs().iter().chain(self.initializers().keys()).copied().collect();
        let mut state = vec![0u8; self.nodes().len()]; // 0 new, 1 open, 2 done
        let mut order = Vec::with_capacity(self.nodes().len());
        for root in self.node_ids() {
            let mut stack = vec![(root, false)];
            while let Some((id, leaving)) = stack.pop() {
                if leaving {
                    state[id.index()] = 2;
                    order.push(id);
                    continue;
                }
                if state[id.index()] != 0 {
                    continue;
                }
                state[id.index()] = 1;
                stack.push((id, true));
                let mut needs: Vec<NodeId> = Vec::new();
                for v in self.dependencies(id) {
                    match producers[v.index()] {
                        Some((p, _)) if state[p.index()] == 1 => {
                            return Err(Error::data(format!(
                                "the graph has a cycle through {}",
                                self.describe(id)
                            )));
                        }
                        Some((p, _)) if state[p.index()] == 0 => needs.push(p),
                        None if !given.contains(&v) => {
                            return Err(Error::data(format!(
                                "{}: its input '{}' is neither a graph input, an initializer nor \
                                 the output of a node",
                                self.describe(id),
                                self.value_name(v)
                            )));
                        }
                        _ => {}
                    }
                }
                stack.extend(needs.into_iter().rev().map(|p| (p, false)));
            }
        }
        Ok(order)
    }

    /// Removes nodes and initializers that no output needs. Inputs stay.
    pub fn prune(&mut self) {
        let producers = self.producers();
        let mut live = vec![false; self.nodes().len()];
        let mut used: HashSet<ValueId> = HashSet::new();
        let mut todo: Vec<ValueId> = self.outputs().to_vec();
        while let Some(v) = todo.pop() {
            if !used.insert(v) {
                continue;
            }
            if let Some((id, _)) = producers[v.index()]
                && !std::mem::replace(&mut live[id.index()], true)
            {
                todo.extend(self.dependencies(id));
            }
        }
        self.retain_nodes(|id, _| live[id.index()]);
        self.initializers_mut().retain(|v, _| used.contains(v));
    }

    /// Drops graph inputs that no node reads and that `keep` does not name.
    pub fn prune_inputs(&mut self, keep: &[ValueId]) {
        let consumers = self.consumers();
        let outputs = self.outputs().to_vec();
        self.inputs_mut().retain(|v| {
            !consumers[v.index()].is_empty() || keep.contains(v) || outputs.contains(v)
        });
    }

    /// Sets the concrete shape of each named input; types of all inner values are cleared, since
    /// they may depend on it. Known dimensions must agree.
    pub fn fix_input_shapes(&mut self, shapes: &BTreeMap<String, Vec<usize>>) -> Result<()> {
        for (name, shape) in shapes {
            let id = self.find(name).filter(|id| self.inputs().contains(id));
            let id = id.ok_or_else(|| {
                let known: Vec<_> = self.inputs().iter().map(|&v| self.value_name(v)).collect();
                Error::not_found(format!("no input '{name}'; the inputs are {}", known.join(", ")))
            })?;
            let mut ty = self.value(id).ty.clone();
            if let Some(dims) = &ty.shape {
                let fits = dims.len() == shape.len()
                    && dims.iter().zip(shape).all(|(d, n)| !matches!(d, Dim::Known(k) if k != n));
                if !fits {
                    return Err(Error::shape(format!(
                        "input '{name}' takes shape {}, not {shape:?}",
                        show_dims(dims)
                    )));
                }
            }
            ty.shape = Some(shape.iter().map(|&d| Dim::Known(d)).collect());
            self.set_type(id, ty);
        }
        let fixed: HashSet<ValueId> =
            self.inputs().iter().chain(self.initializers().keys()).copied().collect();
        for id in self.value_ids() {
            if !fixed.contains(&id) {
                self.set_type(id, Default::default());
            }
        }
        Ok(())
    }
}

/// `[batch, 12, ?]`
pub fn show_dims(dims: &[Dim]) -> String {
    let dims: Vec<String> = dims
        .iter()
        .map(|d| match d {
            Dim::Known(n) => n.to_string(),
            Dim::Symbol(s) => s.clone(),
            Dim::Unknown => "?".to_owned(),
        })
        .collect();
    format!("[{}]", dims.join(", "))
}
