//! Several processes: communicators on the host's functions.

pub(super) mod callbacks;
pub(super) mod communicator;

pub use {callbacks::*, communicator::*};
