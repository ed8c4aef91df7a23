//! Rows of one width from rows of another.

use ndarray::{Array2, ArrayView2};

use super::directions::{mean_row, principal_directions};

/// Size of a fresh token table's new values against those that were drawn: about that of the token
/// table of a published BERT of width 384 on its first 128 directions.
const SCALE: f64 = 4.0;

/// How rows of a source table become rows of a fresh one. The token tables decide the scale, and
/// position and token-type tables have the same, for all three are added up.
#[derive(Debug)]
pub(super) enum Width {
    /// Both have the same width: rows are taken as they are.
    Same,
    /// x ↦ s (x − μ) P, with the k principal directions P of the rows that are taken, `[d, k]`.
    Narrower { k: usize, scale: f64 },
    /// x ↦ (s x, the columns that were drawn).
    Wider { scale: f64 },
}

fn rms<'a>(values: impl Iterator<Item = &'a f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0u64), |(sum, n), x| (sum + x * x, n + 1));
    if n == 0 { 0.0 } else { (sum / n as f64).sqrt() }
}

/// The rows without their mean, on their k principal directions.
fn project(rows: &ArrayView2<f64>, k: usize) -> Array2<f64> {
    (rows - &mean_row(rows)).dot(&principal_directions(rows, k))
}

impl Width {
    /// For token rows that become `width` wide, in a table whose drawn values have the root mean
    /// square `drawn`; with what the rows become, but for the columns that stay.
    pub fn of_tokens(rows: Array2<f64>, width: usize, drawn: f64) -> (Self, Array2<f64>) {
        let d = rows.ncols();
        if d == width {
            return (Self::Same, rows);
        }
        let rows = if d > width { project(&rows.view(), width) } else { rows };
        let size = rms(rows.iter());
        let scale = if size > 0.0 { SCALE * drawn / size } else { 0.0 };
        let width = match d > width {
            true => Self::Narrower { k: width, scale },
            false => Self::Wider { scale },
        };
        (width, rows * scale)
    }

    /// The same for the rows of another table.
    pub fn apply(&self, rows: Array2<f64>) -> Array2<f64> {
        match self {
            Self::Same => rows,
            Self::Narrower { k, scale } => project(&rows.view(), *k) * *scale,
            Self::Wider { scale } => rows * *scale,
        }
    }
}
