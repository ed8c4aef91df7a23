//! Reverse-mode differentiation of ONNX graphs: gradients are appended as ordinary nodes of
//! ONNX's own operators. Nothing is executed here.
//!
//! *cotangent* (`dy`): the derivative of the loss with respect to a value. *VJP*: what turns the
//! cotangents of a node's outputs into those of its inputs. *rule*: a function that writes the
//! VJP of one operator. *path*: the nodes through which the loss depends on a parameter.

mod alternatives;
mod branch;
mod engine;
mod fused;
mod loss;
mod mutual;
mod page;
mod path;
mod row;
mod rule;
mod rules;
mod scan;
mod table;

pub use engine::{check_differentiable, check_operators, differentiate};
pub use loss::{AttachedLoss, LABELS, LossKind, LossSpec, attach_loss, attach_loss_to, check_loss};
pub use mutual::{EXCHANGE_INPUT, MutualTerm, TARGET_WEIGHTS_INPUT, TARGETS_INPUT, attach_mutual};
pub use page::operators_markdown;
pub use path::passes_gradient;
pub use row::{Entry, Row};
pub use rule::RuleCx;
pub(crate) use rules::einsum_shape;
pub use table::rows;
