//! ONNX graphs: read, edit, prune, write, and typed builders of nodes. Runs nothing.

mod branch;
pub mod build;
mod build_data;
mod calls;
pub mod compat;
mod detach;
mod edit;
mod graph;
mod inline;
mod names;
pub mod proto;
mod read;
mod scan;
mod size_limit;
mod tensor_data;
mod unroll;
mod write;

pub use branch::InnerWeight;
pub(crate) use branch::captures;
pub use build::Build;
pub use edit::show_dims;
pub use graph::{Attribute, Attributes, Dim, Graph, Node, NodeId, Value, ValueId, ValueType};
pub use scan::{Scan, Slices};
pub use tensor_data::TensorData;

/// The operator domain of this library's fused kernels, version 1. A graph that imports it may
/// hold nodes of it: those of [`crate::runtime::kernels`].
pub const MMOPT_DOMAIN: &str = "mmopt";

#[cfg(test)]
mod tests;
