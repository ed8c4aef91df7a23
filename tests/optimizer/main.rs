//! The optimizer: against recorded numbers, against an independent model, bit by bit.

mod bits;
mod golden;
mod host;
mod large_gradients;
mod micro_batches;
mod options;
mod places;
mod plan;
mod reference;
mod resume_options;
mod schedules;
#[path = "../common/small_optimizer.rs"]
mod small_optimizer;
mod tokens;
