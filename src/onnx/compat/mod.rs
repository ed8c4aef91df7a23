//! Rewrites for compatibility: old opsets, forms that old runtimes misread, contrib and compound
//! operators, empty tensors.
//!
//! *lowering*: rewriting an operator to simpler standard ones. *contrib operator*: a fused operator
//! of ONNX Runtime's domain `com.microsoft`, as optimised files have them.

mod batch_first;
mod empty;
mod lower;
mod nearest;
mod old_forms;
mod opset;
mod runtime_forms;

pub use empty::fold_empty;
pub use lower::{
    is_lowered, loops_to_scans, lower, lower_defects, lower_sequences, lowered_attributes,
    lowered_operators, unknown_attribute,
};
pub use nearest::resized_position;
pub use opset::{is_raised, raise_opset};
pub use runtime_forms::{ends_in_padding, needs_shape, rewrite_for_runtimes};
