//! Views of parameters.
//!
//! A parameter is seen as a matrix: first dimension against the rest. A view is the whole of it,
//! a slice of its rows or columns, or the transpose of one, or some rows in an order of their own.
//! In storage a view is a number of *runs* of contiguous elements, `ld` elements apart but for
//! such rows.

use std::sync::Arc;

/// Which elements of a parameter take part, and how they are seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// First element.
    pub offset: usize,
    /// Number of contiguous runs.
    pub runs: usize,
    /// Elements of one run.
    pub run_len: usize,
    /// Elements from one run to the next.
    pub ld: usize,
    /// Whether logical rows are storage columns.
    pub transposed: bool,
    /// The parameter's row of each logical row, where they are no slice; such views are not
    /// transposed.
    pub rows: Option<Arc<[u32]>>,
}

/// Rows and columns of a shape seen as a matrix; vectors and scalars are one row.
pub fn matrix_shape(shape: &[usize]) -> [usize; 2] {
    match shape {
        [] => [1, 1],
        [n] => [1, *n],
        [first, rest @ ..] => [*first, rest.iter().product()],
    }
}

impl View {
    /// The whole of a parameter.
    pub fn whole(shape: &[usize]) -> Self {
        let [rows, cols] = matrix_shape(shape);
        Self { offset: 0, runs: rows, run_len: cols, ld: cols, transposed: false, rows: None }
    }

    /// Some rows of a parameter, in this order; all of them must be there.
    pub(crate) fn of_rows(shape: &[usize], rows: Arc<[u32]>) -> Self {
        debug_assert!(rows.iter().all(|&row| (row as usize) < matrix_shape(shape)[0]));
        Self { runs: rows.len(), rows: Some(rows), ..Self::whole(shape) }
    }

    /// Where a run begins.
    pub(crate) fn run_start(&self, run: usize) -> usize {
        let row = self.rows.as_ref().map_or(run, |rows| rows[run] as usize);
        self.offset + row * self.ld
    }

    /// `length` rows (axis 0) or columns (axis 1) from `start`; `None` outside the matrix.
    pub fn slice(shape: &[usize], axis: usize, start: usize, length: usize) -> Option<Self> {
        let [rows, cols] = matrix_shape(shape);
        let whole = Self::whole(shape);
        let fits = |n: usize| start.checked_add(length).is_some_and(|end| end <= n);
        match axis {
            0 if fits(rows) => Some(Self { offset: start * cols, runs: length, ..whole }),
            1 if fits(cols) => Some(Self { offset: start, run_len: length, ..whole }),
            _ => None,
        }
    }

    /// The transpose of this view.
    #[must_use]
    pub fn transpose(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Logical rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        if self.transposed { [self.run_len, self.runs] } else { [self.runs, self.run_len] }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.runs * self.run_len
    }

    /// True when the view has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the elements lie next to each other in logical order.
    pub(crate) fn is_contiguous(&self) -> bool {
        self.rows.is_none()
            && (!self.transposed || self.runs == 1 || self.run_len == 1)
            && (self.runs <= 1 || self.ld == self.run_len)
    }

    /// The view as one row, when it is contiguous.
    pub(crate) fn flattened(&self) -> Self {
        let n = self.len();
        Self { offset: self.offset, runs: 1, run_len: n, ld: n, transposed: false, rows: None }
    }

    /// Whether two views of one parameter have an element in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        fn spans(v: &View) -> impl Iterator<Item = (usize, usize)> + '_ {
            (0..v.runs).map(|r| (v.run_start(r), v.run_len))
        }
        let mut a: Vec<_> = spans(self).chain(spans(other)).filter(|s| s.1 > 0).collect();
        a.sort_unstable();
        a.windows(2).any(|w| w[0].0 + w[0].1 > w[1].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_have_the_shapes_of_the_fused_projection() {
        let whole = View::whole(&[4, 12]);
        let value = View::slice(&[4, 12], 1, 8, 4).unwrap().transpose();
        assert_eq!((value.shape(), value.offset, value.ld), ([4, 4], 8, 12));
        assert!(whole.overlaps(&value));
        assert!(!View::slice(&[4, 12], 1, 4, 4).unwrap().overlaps(&value));
        assert!(View::slice(&[4, 12], 1, 9, 4).is_none());
        assert!(View::slice(&[4, 12], 2, 0, 1).is_none());
        assert_eq!(View::whole(&[]).shape(), [1, 1]);
        assert_eq!(View::whole(&[3, 2, 5]).shape(), [3, 10]);
    }
}
