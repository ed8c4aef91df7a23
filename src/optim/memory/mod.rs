//! The memory of parameters: where the host has it, dense copies of what the step cannot work on in
//! place, and memory that the optimizer owns itself.

pub(in crate::optim) mod dense_copies;
pub(in crate::optim) mod host_buffers;
pub(in crate::optim) mod owned;
pub(in crate::optim) mod param;
pub(in crate::optim) mod params;
pub(crate) mod pieces;
pub(in crate::optim) mod strided;
