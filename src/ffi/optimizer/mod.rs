//! Gradient mode: the optimizer over parameters and gradients that the host owns.

pub(super) mod callback;
pub(super) mod create;
pub(super) mod dlpack;
pub(super) mod files;
pub(super) mod parameter;
pub(super) mod state;
pub(super) mod steps;

pub use {callback::*, create::*, dlpack::*, files::*, parameter::*, state::*, steps::*};
