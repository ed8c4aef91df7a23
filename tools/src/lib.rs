//! What the programs in `src/bin` share with the library's tests and benchmarks.

pub mod base_models;
pub mod compare;
pub mod dump;
pub mod golden;
pub mod oracle;
