//! The gradient rules, one file per family of operators.

mod activation;
mod arithmetic;
mod conv;
mod einsum;
mod index;
mod matrix;
mod norm;
mod own;
mod pool;
mod pool_norm;
mod reduce;
mod resize;
mod shape;
mod stops;

pub(crate) use einsum::einsum_shape;

use super::table::Row;

/// The families: a title for the documentation, and their rows.
pub const FAMILIES: &[(&str, &[Row])] = &[
    ("Arithmetic", arithmetic::ROWS),
    ("Activations", activation::ROWS),
    ("Reductions", reduce::ROWS),
    ("Matrix products", matrix::ROWS),
    ("Sums of products", einsum::ROWS),
    ("Shapes", shape::ROWS),
    ("Indexing", index::ROWS),
    ("Normalisation and dropout", norm::ROWS),
    ("Of this library (domain mmopt)", own::ROWS),
    ("Convolution", conv::ROWS),
    ("Pooling", pool::ROWS),
    ("Pooling by a norm", pool_norm::ROWS),
    ("Resizing", resize::ROWS),
    ("Without gradient", stops::ROWS),
];
