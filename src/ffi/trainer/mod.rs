//! Trainers: options, the training loop, state, files, callbacks, evaluation.

pub(super) mod callback;
pub(super) mod cancel;
pub(super) mod checkpoints;
pub(super) mod create;
pub(super) mod dlpack;
pub(super) mod evaluation;
pub(super) mod files;
pub(super) mod gradient_callback;
pub(super) mod inspect;
pub(super) mod memory;
pub(super) mod options;
pub(super) mod parameters;
pub(super) mod prepare;
pub(super) mod state;
pub(super) mod steps;

pub use {
    callback::*, cancel::*, checkpoints::*, create::*, dlpack::*, evaluation::*, files::*,
    gradient_callback::*, inspect::*, memory::*, options::*, parameters::*, prepare::*, state::*,
    steps::*,
};
