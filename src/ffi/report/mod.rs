//! Pages on training runs.

pub mod write;

pub use write::*;
