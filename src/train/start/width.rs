//! Rows of one width from rows of another.

use ndarray::{Array1, Array2, ArrayView2};

use super::directions::{mean_row, principal_directions};

/// Size of a fresh table's new values against those that were drawn. Table and body of a fresh
/// model are made for each other; a pretrained table is about twice as large as a fresh one.
const SCALE: f64 = 2.0;

/// How rows of a source table become rows of a fresh one, decided by the token tables and used for
/// position and token-type tables too, for all are added up.
#[derive(Debug)]
pub(super) enum Width {
    /// Both have the same width: rows are taken as they are.
    Same,
    /// x ↦ s (x − μ) P, with the principal directions P of the rows that are taken, `[d, k]`.
    Narrower { directions: Array2<f64>, scale: f64 },
    /// x ↦ (s x, the columns that were drawn).
    Wider { scale: f64 },
}

fn rms<'a>(values: impl Iterator<Item = &'a f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0u64), |(sum, n), x| (sum + x * x, n + 1));
    if n == 0 { 0.0 } else { (sum / n as f64).sqrt() }
}

impl Width {
    /// For token rows `rows` that become `width` wide, in a table whose drawn values have the root
    /// mean square `drawn`.
    pub fn new(rows: &ArrayView2<f64>, width: usize, drawn: f64) -> Self {
        let scale = |size: f64| if size > 0.0 { SCALE * drawn / size } else { 0.0 };
        if rows.ncols() == width {
            return Self::Same;
        }
        if rows.ncols() < width {
            return Self::Wider { scale: scale(rms(rows.iter())) };
        }
        let directions = principal_directions(rows, width);
        let narrow = (rows - &mean_row(rows)).dot(&directions);
        Self::Narrower { directions, scale: scale(rms(narrow.iter())) }
    }

    /// The rows in the new width; for [`Width::Wider`] their first columns only.
    pub fn apply(&self, rows: &ArrayView2<f64>) -> Array2<f64> {
        match self {
            Self::Same => rows.to_owned(),
            Self::Wider { scale } => rows * *scale,
            Self::Narrower { directions, scale } => {
                let mean: Array1<f64> = mean_row(rows);
                (rows - &mean).dot(directions) * *scale
            }
        }
    }
}
