//! ONNX Runtime: found and loaded at run time, sessions over model bytes, and bindings that let
//! the runtime read and write this library's own memory.
//!
//! Terms: the *library* is the loaded `libonnxruntime`, at most one per process; a *session* is a
//! model made ready on a *device*; a *binding* connects a session's inputs and outputs with memory,
//! so that a run copies nothing; an *execution provider* is the runtime's back end for a device.

mod api;
mod arena;
mod binding;
mod cache;
mod cancel;
pub mod kernels;
mod library;
mod options;
mod probe;
mod session;
#[cfg(test)]
mod tests;
mod threads;
mod value;
mod version_errors;

pub use arena::Meter;
pub use binding::Binding;
pub(crate) use cache::ShapeCache;
pub use cancel::CancelToken;
pub use library::{Library, load, loaded};
pub use options::{Device, Optimize, SessionOptions};
pub use session::{Session, ValueInfo};
pub use threads::plan_threads;
