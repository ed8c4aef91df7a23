//! Replicas of a trainer on several ranks, which train as one: each rank runs its part of every
//! batch, and gradients, losses and decisions are those of the whole batch.
//!
//! A *call* is a pass, a step, a checkpoint or a resume: all ranks make the same calls in the same
//! order, and each begins or ends with one small exchange ([`exchange`]), by which they learn that
//! all have made it and that none has failed. With local steps ([`local`]) passes and steps are not
//! exchanged; replicas meet every so many steps. With models on different ranks ([`placement`]) a
//! call has more exchanges, and ranks are no replicas.

mod agreed;
mod cost;
mod ended;
mod exchange;
mod files;
mod gather;
mod gathered;
mod gradients;
mod local;
mod options;
mod outer;
mod overlap;
mod parts;
mod passes;
mod peers;
mod placement;
mod predictions;
mod replicas;
mod state;
mod wire;

pub(in crate::train) use agreed::Agreed;
pub(in crate::train) use ended::Ended;
pub(in crate::train) use exchange::Call;
pub(in crate::train) use gathered::Gathered;
pub(in crate::train) use state::Ranks;

pub use options::{LocalSteps, RankOptions};
pub use wire::GradientDtype;
