//! libmmopt: joint training of several transformers, on stock ONNX Runtime.

pub mod autodiff;
pub mod checkpoint;
pub mod error;
pub mod file;
pub mod metrics;
pub mod models;
pub mod onnx;
pub mod optim;
pub mod runtime;
pub mod tensor;
#[cfg(feature = "text")]
pub mod text;
pub mod train;

pub mod ffi;

pub use error::{Error, Kind, Result};
