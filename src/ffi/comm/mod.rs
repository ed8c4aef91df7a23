//! Several processes: communicators on the host's functions.

pub(super) mod callbacks;
pub(super) mod communicator;
pub(super) mod trainer;

pub use {callbacks::*, communicator::*, trainer::*};
