//! The table: which operator has which gradient rule, at which opsets.

use super::row::Row;
use super::rules::{
    activation, arithmetic, conv, einsum, fourier, fused, index, matrix, norm, pool, pool_norm,
    reduce, resize, shape, stops,
};

/// The families: a title for the documentation, and their rows.
pub(super) const FAMILIES: &[(&str, &[Row])] = &[
    ("Arithmetic", arithmetic::ROWS),
    ("Activations", activation::ROWS),
    ("Reductions", reduce::ROWS),
    ("Matrix products", matrix::ROWS),
    ("Sums of products", einsum::ROWS),
    ("Fourier transforms", fourier::ROWS),
    ("Shapes", shape::ROWS),
    ("Indexing", index::ROWS),
    ("Normalisation and dropout", norm::ROWS),
    ("Of this library (domain mmopt)", fused::ROWS),
    ("Convolution", conv::ROWS),
    ("Pooling", pool::ROWS),
    ("Pooling by a norm", pool_norm::ROWS),
    ("Resizing", resize::ROWS),
    ("Without gradient", stops::ROWS),
];

/// All rows, family by family.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    FAMILIES.iter().flat_map(|(_, rows)| rows.iter())
}

/// The row for an operator at an opset version of its domain.
pub(super) fn find(op: &str, domain: &str, opset: i64) -> Option<&'static Row> {
    rows().find(|row| row.op == op && row.domain == domain && row.since <= opset)
}
