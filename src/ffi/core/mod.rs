//! What every part of the C ABI stands on: errors, the guard, arguments, versions, the runtime,
//! tensors.

pub(super) mod error;
pub(super) mod guard;

pub(super) mod args;
pub(super) mod structs;

pub(super) mod version;

pub(super) mod runtime;

pub(super) mod names;
pub(super) mod tensor;
pub(super) mod tensors;

#[cfg(feature = "text")]
pub(super) mod architecture;

#[cfg(feature = "text")]
pub use architecture::*;
pub use args::mmopt_string_free;
pub use {error::*, runtime::*, tensor::*, version::*};
