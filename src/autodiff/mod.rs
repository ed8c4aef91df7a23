//! Reverse-mode differentiation of ONNX graphs: gradients are appended as ordinary nodes of
//! ONNX's own operators. Nothing is executed here.
//!
//! *cotangent* (`dy`): the derivative of the loss with respect to a value. *VJP*: what turns the
//! cotangents of a node's outputs into those of its inputs. *rule*: a function that writes the
//! VJP of one operator. *path*: the nodes through which the loss depends on a parameter.

mod advice;
mod branch;
mod engine;
mod fused;
mod loss;
mod lower;
mod mutual;
mod opset;
mod page;
mod portable;
mod rule;
mod rules;
mod table;

pub use engine::{check_differentiable, check_operators, differentiate};
pub use loss::{AttachedLoss, LossKind, LossSpec, attach_loss};
pub use lower::{lower, lower_sequences};
pub use mutual::{TARGET_WEIGHTS_INPUT, TARGETS_INPUT, attach_mutual};
pub use opset::{OLDEST_OPSET, raise_opset};
pub use page::operators_markdown;
pub use portable::{fold_empty, make_portable, must_wait};
pub use rule::RuleCx;
pub(crate) use rules::einsum_shape;
pub use table::{Entry, Row, rows};
