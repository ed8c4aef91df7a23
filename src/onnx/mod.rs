//! ONNX graphs: read, edit, prune, write, and typed builders of nodes. Runs nothing.

pub mod build;
mod build_data;
mod edit;
mod graph;
pub mod proto;
mod read;
mod tensor_data;
mod write;

pub use build::Build;
pub use edit::show_dims;
pub use graph::{Attribute, Attributes, Dim, Graph, Node, NodeId, Value, ValueId, ValueType};
pub use tensor_data::TensorData;

#[cfg(test)]
mod tests;
