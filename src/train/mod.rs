//! (see docs/architecture.md)
pub mod graphs;
