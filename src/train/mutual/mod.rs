//! Mutual learning: models that see the same examples learn from each other's predictions.
//!
//! In each step every model gets a *target*: for each row of its logits a distribution and a
//! weight, made here, between passes, from the predictions of its *teachers*. The training graph
//! knows nothing of teachers ([`crate::autodiff::attach_mutual`]). A model without a trained
//! parameter only teaches. The formulas stand in docs/optimizer.md.

pub(super) mod examples;
mod memory;
mod online;
pub(super) mod prediction;
mod state;
pub(super) mod step;
pub(super) mod target;

pub(super) use memory::MemorySnapshot;
