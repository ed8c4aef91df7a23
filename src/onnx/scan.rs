//! What a `Scan` node reads and puts out.
//!
//! *state*: a value that each step hands on to the next one. *scanned*: an input of which each step
//! reads a slice. *collected*: an output that is made of a slice of each step.

use super::build::positive_axis;
use super::graph::{Attribute, Graph, Node, ValueType};
use super::proto::GraphProto;
use crate::error::{Error, Result};
use crate::tensor::DType;

/// How slices lie in a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slices {
    /// The axis of the steps.
    pub axis: usize,
    /// Whether the first step has the last slice.
    pub backward: bool,
}

impl Slices {
    /// The shape of all slices of `shape`, for `steps` steps.
    pub fn stacked(self, shape: &[usize], steps: usize) -> Vec<usize> {
        let mut shape = shape.to_vec();
        shape.insert(self.axis.min(shape.len()), steps);
        shape
    }

    /// The same slices from the other end.
    pub fn turned(self) -> Self {
        Self { backward: !self.backward, ..self }
    }
}

/// A `Scan` node.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Number of states, which are the first inputs and outputs.
    pub n_states: usize,
    /// The inputs after the states.
    pub scanned: Vec<Slices>,
    /// The outputs after the states.
    pub collected: Vec<Slices>,
    /// Number of steps.
    pub steps: usize,
    /// What the body's inputs are.
    pub types: Vec<ValueType>,
}

impl Scan {
    /// Whether a node is a `Scan`.
    pub fn is(node: &Node) -> bool {
        node.op == "Scan" && node.domain.is_empty()
    }

    /// The body of a `Scan`.
    pub fn body(node: &Node) -> Result<&GraphProto> {
        match node.attributes.get("body") {
            Some(Attribute::Graph(body)) => Ok(body),
            _ => Err(Error::data("attribute body is missing")),
        }
    }

    /// Reads a node whose inputs have known types.
    ///
    /// # Errors
    /// `InvalidData` where the node is not well formed; `Unsupported` for a shape that is not
    /// known.
    pub fn of(graph: &Graph, node: &Node) -> Result<Self> {
        let body = Self::body(node)?;
        let n_scanned = node.int("num_scan_inputs").and_then(|n| usize::try_from(n).ok());
        let n_states = n_scanned.and_then(|n| node.inputs.len().checked_sub(n));
        let (Some(1..), Some(n_states)) = (n_scanned, n_states) else {
            return Err(Error::data("num_scan_inputs does not fit its inputs"));
        };
        let Some(n_collected) = body.output.len().checked_sub(n_states) else {
            return Err(Error::data("its body has fewer outputs than the node has states"));
        };
        let mut types = Vec::new();
        for slot in 0..node.inputs.len() {
            types.push(input_type(graph, node, slot)?);
        }
        let mut scanned = Vec::new();
        let mut steps = None;
        for (i, (_, shape)) in types[n_states..].iter_mut().enumerate() {
            let slices = slices(node, "scan_input", i, Some(shape.len()))?;
            let n = shape.remove(slices.axis);
            if *steps.get_or_insert(n) != n {
                return Err(Error::shape("its inputs have different numbers of steps"));
            }
            scanned.push(slices);
        }
        let rank = |i: usize| {
            let outer = node.output(n_states + i).and_then(|v| graph.value(v).ty.shape.clone());
            outer.map(|shape| shape.len())
        };
        let collected = (0..n_collected)
            .map(|i| slices(node, "scan_output", i, rank(i)))
            .collect::<Result<_>>()?;
        let types = types.iter().map(|(dtype, shape)| ValueType::known(*dtype, shape)).collect();
        Ok(Self { n_states, scanned, collected, steps: steps.unwrap_or(0), types })
    }
}

fn input_type(graph: &Graph, node: &Node, slot: usize) -> Result<(DType, Vec<usize>)> {
    let v = node.input(slot).ok_or_else(|| Error::data(format!("input {slot} is missing")))?;
    let ty = &graph.value(v).ty;
    ty.dtype.zip(ty.static_shape()).ok_or_else(|| {
        let name = graph.value_name(v);
        Error::unsupported(format!("the type of its input '{name}' is not known before running"))
    })
}

/// Axis and direction of scanned input or collected output `i`, a tensor of `rank` dimensions.
fn slices(node: &Node, kind: &str, i: usize, rank: Option<usize>) -> Result<Slices> {
    let at = |what: &str| node.ints(&format!("{kind}_{what}")).and_then(|v| v.get(i).copied());
    let axis = at("axes").unwrap_or(0);
    let axis = match (rank, usize::try_from(axis)) {
        (Some(rank), _) => positive_axis(axis, rank)?,
        (None, Ok(axis)) => axis,
        _ => return Err(Error::unsupported(format!("{kind} {i} along axis {axis} of any rank"))),
    };
    Ok(Slices { axis, backward: at("directions").unwrap_or(0) != 0 })
}
