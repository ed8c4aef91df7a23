//! Trainers: options, the training loop, state, callbacks, evaluation.

pub(super) mod options;

pub(super) mod create;

pub(super) mod parameters;
pub(super) mod state;

pub(super) mod callback;
pub(super) mod gradient_view;
pub(super) mod gradients;

pub(super) mod inspect;

pub(super) mod evaluation;

pub use {
    callback::*, create::*, evaluation::*, gradient_view::*, gradients::*, inspect::*, options::*,
    parameters::*, state::*,
};
