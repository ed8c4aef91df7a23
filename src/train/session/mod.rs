//! Sessions of one model: which graph each shape of batch needs, and the memory it is bound to.

mod bound;
mod builder;

pub(super) use bound::BoundSession;
pub(super) use builder::{Forward, Planned, SessionBuilder};
