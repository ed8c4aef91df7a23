//! Several processes that train together: *ranks*, counted from 0, and the *communicator* through
//! which they exchange numbers.
//!
//! The library opens no connection. A [`Transport`] is the host's: MPI, NCCL, or anything else that
//! has these operations. [`Communicator`] stands before it: it checks, counts bytes, and refuses
//! everything after a failure, for ranks that no longer agree must not go on. [`local`] joins
//! threads of one process.

mod check;
mod communicator;
pub mod local;
mod shared;
mod transport;

pub(crate) use communicator::check_place;
pub use communicator::{Communicator, Traffic};
pub use shared::SharedCommunicator;
pub use transport::{Transport, Values};
