//! DLPack: tensors exchanged with other libraries without a copy.

pub(super) mod convert;
pub(super) mod managed;

pub use convert::*;
