//! The gradient rules, one file per family of operators.

mod activation;
mod arithmetic;
mod conv;
mod index;
mod matrix;
mod norm;
mod own;
mod pool;
mod reduce;
mod shape;
mod stops;

use super::table::Row;

/// The families: a title for the documentation, and their rows.
pub const FAMILIES: &[(&str, &[Row])] = &[
    ("Arithmetic", arithmetic::ROWS),
    ("Activations", activation::ROWS),
    ("Reductions", reduce::ROWS),
    ("Matrix products", matrix::ROWS),
    ("Shapes", shape::ROWS),
    ("Indexing", index::ROWS),
    ("Normalisation and dropout", norm::ROWS),
    ("Of this library (domain mmopt)", own::ROWS),
    ("Convolution", conv::ROWS),
    ("Pooling", pool::ROWS),
    ("Without gradient", stops::ROWS),
];
