//! ONNX graphs: read, edit, prune, write. Knows no operator's meaning and runs nothing.

mod edit;
mod graph;
pub mod proto;
mod read;
mod tensor_data;
mod write;

pub use edit::show_dims;
pub use graph::{Attribute, Attributes, Dim, Graph, Node, NodeId, Value, ValueId, ValueType};
pub use tensor_data::TensorData;

#[cfg(test)]
mod tests;
