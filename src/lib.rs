//! The Rust API of libmmopt. How the parts fit:
//!
#![doc = include_str!("../docs/architecture.md")]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::todo,
        clippy::unimplemented
    )
)]

pub mod autodiff;
pub mod checkpoint;
pub mod comm;
pub mod error;
pub mod file;
#[cfg(feature = "text")]
pub mod fit;
mod memory;
pub mod models;
pub mod onnx;
pub mod optim;
mod pin;
pub mod report;
pub mod runtime;
#[cfg(feature = "text")]
pub mod tasks;
pub mod tensor;
#[cfg(feature = "text")]
pub mod text;
mod threads;
pub mod train;

pub mod ffi;

pub use error::{Error, Kind, Result};
