//! Size of nodes including all their attributes, to limit what a small file can expand to:
//! functions that call each other multiply, and so do bodies that a call passes as attributes.

use super::proto::{AttributeProto, GraphProto, NodeProto};
use crate::error::{Error, Result};

/// More than any real model has.
const MAX_SIZE: usize = 1 << 22;
/// More nested bodies than a file can have (readers of the format stop at a hundred nested
/// messages, and a body takes three).
const MAX_DEPTH: usize = 33;
/// Size of a node, an attribute or a tensor, in list entries.
const RECORD: usize = 4;

/// Size of some nodes. Their depth is at most twice [`MAX_DEPTH`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct GraphSize {
    /// Entries of lists, and [`RECORD`] for each record.
    pub size: usize,
    /// Depth of nested bodies.
    pub depth: usize,
}

impl GraphSize {
    pub fn of_records(n: usize) -> Self {
        Self { size: RECORD * n, depth: 0 }
    }

    pub fn of_nodes(nodes: &[NodeProto]) -> Self {
        nodes.iter().fold(Self::default(), |sum, node| {
            let names = node.input.len() + node.output.len();
            let own = Self { size: RECORD + names, depth: 0 };
            sum.with(node.attribute.iter().map(Self::of_attribute).fold(own, Self::with))
        })
    }

    pub fn of_attribute(a: &AttributeProto) -> Self {
        let lists = a.ints.len() + a.floats.len() + a.strings.len();
        let own = Self { size: RECORD * (1 + a.tensors.len()) + lists, depth: 0 };
        a.g.iter().chain(&a.graphs).map(Self::of_body).fold(own, Self::with)
    }

    fn of_body(body: &GraphProto) -> Self {
        let nodes = Self::of_nodes(&body.node);
        let values = body.initializer.len() + body.value_info.len() + body.output.len();
        Self { size: nodes.size + RECORD * values, depth: nodes.depth + 1 }
    }

    fn with(self, other: Self) -> Self {
        Self { size: self.size.saturating_add(other.size), depth: self.depth.max(other.depth) }
    }

    /// Adds `other`.
    ///
    /// # Errors
    /// `InvalidData` where the sum is more than any real model has.
    pub fn add(&mut self, other: Self) -> Result<()> {
        *self = self.with(other);
        if self.size > MAX_SIZE {
            return Err(Error::data("its functions make more nodes than any real model has"));
        }
        if self.depth > MAX_DEPTH {
            return Err(Error::data(format!("it holds over {MAX_DEPTH} bodies within bodies")));
        }
        Ok(())
    }
}
