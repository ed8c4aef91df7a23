//! Models to be trained: where each comes from, what is trained, what is repaired on import.

pub(super) mod adapters;
pub(super) mod config;
pub(super) mod create;
#[cfg(feature = "text")]
pub(super) mod for_corpus;
pub(super) mod import_fixes;
pub(super) mod precomputed_gradients;
pub(super) mod pretrained;
pub(super) mod settings;

#[cfg(feature = "text")]
pub use for_corpus::*;
pub use {
    adapters::*, config::*, create::*, import_fixes::*, precomputed_gradients::*, pretrained::*,
    settings::*,
};
