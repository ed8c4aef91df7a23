//! The gradient rules, one file per family of operators; `table.rs` collects their rows.

pub(super) mod activation;
pub(super) mod arithmetic;
pub(super) mod conv;
pub(super) mod einsum;
pub(super) mod fourier;
pub(super) mod fused;
pub(super) mod index;
pub(super) mod matrix;
pub(super) mod norm;
pub(super) mod pool;
pub(super) mod pool_norm;
pub(super) mod reduce;
pub(super) mod resize;
pub(super) mod shape;
pub(super) mod stops;

pub(crate) use einsum::einsum_shape;
