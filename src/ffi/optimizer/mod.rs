//! Gradient mode: the optimizer over parameters and gradients that the host owns.

pub(super) mod parameter;

pub(super) mod create;

pub(super) mod callbacks;

pub use {callbacks::*, create::*, parameter::*};
