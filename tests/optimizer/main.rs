//! The optimizer: against recorded numbers, against an independent model, bit by bit.

mod bits;
mod golden;
mod options;
mod places;
mod plan;
mod reference;
#[path = "../common/small_optimizer.rs"]
mod small_optimizer;
