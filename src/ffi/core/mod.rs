//! What every part of the C ABI stands on: errors, the guard, arguments, the runtime, tensors.

#[cfg(feature = "text")]
pub(super) mod architecture;
pub(super) mod args;
pub(super) mod error;
pub(super) mod fork;
pub(super) mod guard;
pub(super) mod names;
pub(super) mod runtime;
pub(super) mod structs;
pub(super) mod tensor;
pub(super) mod tensors;
pub(super) mod version;

pub use args::mmopt_string_free;
pub use {error::*, runtime::*, tensor::*, version::*};

#[cfg(feature = "text")]
pub use architecture::*;
