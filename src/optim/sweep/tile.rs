//! Tiles: the rectangles of a group's logical shape in which its members are read and written.
//!
//! A tile of a view is a number of *runs* of contiguous elements in storage; where the view is a
//! transpose, they are the tile's columns. A *strip* is as many of a transposed member's runs as
//! are transposed at once.

use crate::optim::plan::view::View;

/// A rectangle of logical rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    pub row: usize,
    pub rows: usize,
    pub col: usize,
    pub cols: usize,
}

/// Longest run handed to a kernel at once: small enough for the first-level cache.
pub(crate) const BLOCK: usize = 4096;
/// Elements of a cache line.
const LINE: usize = 16;
/// Most that [`pitch`] adds to a row.
pub(crate) const PITCH_GAP: usize = 2 * LINE - 1;
/// Most rows of a tile.
pub(crate) const MAX_ROWS: usize = 1024;
/// Rows of a tile with transposed members, where it is wide: their runs are two cache lines long.
/// Both shorter and longer ones were measured to be slower, probably because memory gives two
/// lines together, and because after a third the processor fetches more by itself, in vain.
pub(crate) const TRANSPOSED_ROWS: usize = 2 * LINE;
/// Elements of a tile with transposed members, where it has more rows than that.
pub(crate) const TRANSPOSED_FLOATS: usize = 24_576;
/// Elements of a strip: the runs of a transposed member that are transposed at once.
const STRIP_FLOATS: usize = 4096;
/// Elements that hold any strip, its runs a [`pitch`] apart.
pub(crate) const STRIP_BUFFER: usize = LINE * (MAX_ROWS + PITCH_GAP);

/// Elements from one row to the next in a worker's own memory: an odd number of cache lines, so
/// that the rows of a block that is transposed lie in different sets of the cache.
#[inline]
pub(crate) fn pitch(len: usize) -> usize {
    (len.div_ceil(LINE) | 1) * LINE
}

impl View {
    /// Number and length of a tile's runs.
    #[inline]
    pub(crate) fn runs_of(&self, tile: &Tile) -> (usize, usize) {
        if self.transposed { (tile.cols, tile.rows) } else { (tile.rows, tile.cols) }
    }

    /// Where a tile begins.
    #[inline]
    pub(crate) fn first(&self, tile: &Tile) -> usize {
        let (run, start) =
            if self.transposed { (tile.col, tile.row) } else { (tile.row, tile.col) };
        self.run_start(run) + start
    }

    /// Calls `f(offset, at, len)` for each stretch of a tile, in storage order: `offset` counts
    /// from the parameter's start, `at` from the start of a buffer in storage orientation, whose
    /// runs are `buffer_ld` elements apart.
    #[inline]
    pub(crate) fn for_runs_at(
        &self,
        tile: &Tile,
        buffer_ld: usize,
        mut f: impl FnMut(usize, usize, usize),
    ) {
        let (run, runs, start, len) = if self.transposed {
            (tile.col, tile.cols, tile.row, tile.rows)
        } else {
            (tile.row, tile.rows, tile.col, tile.cols)
        };
        for r in 0..runs {
            let offset = self.run_start(run + r) + start;
            let mut done = 0;
            while done < len {
                let n = (len - done).min(BLOCK);
                f(offset + done, r * buffer_ld + done, n);
                done += n;
            }
        }
    }
}

impl Tile {
    /// Cuts the tile into parts of at most `rows` × `cols`, row by row.
    pub(crate) fn cut(self, rows: usize, cols: usize) -> impl Iterator<Item = Self> {
        let (rows, cols) = (rows.max(1), cols.max(1));
        (0..self.rows).step_by(rows).flat_map(move |r| {
            (0..self.cols).step_by(cols).map(move |c| Self {
                row: self.row + r,
                rows: rows.min(self.rows - r),
                col: self.col + c,
                cols: cols.min(self.cols - c),
            })
        })
    }
}

/// `n` rounded down to a multiple of `unit`, unless it is smaller.
pub(crate) fn whole(n: usize, unit: usize) -> usize {
    if n > unit { n - n % unit } else { n }
}

/// Rows and columns of the tiles of a group whose view has several rows: rows as long as a block
/// may be, because they are where untransposed members are contiguous, and as many of them as
/// `elements` allow, or, with transposed members, as few as these can be read with.
pub(crate) fn tile_shape(
    [rows, cols]: [usize; 2],
    transposed: bool,
    elements: usize,
) -> [usize; 2] {
    let n = cols.div_ceil(BLOCK).max(1);
    let tile_cols = cols.div_ceil(n).next_multiple_of(4 * LINE).clamp(1, cols.clamp(1, BLOCK));
    let most = if transposed {
        whole(TRANSPOSED_FLOATS / tile_cols, TRANSPOSED_ROWS).clamp(TRANSPOSED_ROWS, MAX_ROWS)
    } else {
        whole((elements / tile_cols).clamp(1, MAX_ROWS), LINE)
    };
    let n = rows.div_ceil(most).max(1);
    let unit = if transposed { TRANSPOSED_ROWS } else { LINE };
    [rows.div_ceil(n).next_multiple_of(unit).min(most), tile_cols]
}

/// The strips of a tile in which transposed members are read; none where there is no such member.
pub(crate) fn strips(tile: Tile, any: bool) -> impl Iterator<Item = Tile> {
    let runs = whole(STRIP_FLOATS / tile.rows.max(1), LINE).clamp(LINE, STRIP_FLOATS / LINE);
    let cols = if any { tile.cols } else { 0 };
    Tile { cols, ..tile }.cut(tile.rows, runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_visit_every_element_once_in_any_orientation() {
        let check = |view: View, size: usize, transposed: bool, elements: usize| {
            let [rows, cols] = view.shape();
            let all = Tile { row: 0, rows, col: 0, cols };
            let [tile_rows, tile_cols] = tile_shape(view.shape(), transposed, elements);
            let mut seen = vec![0; size];
            for tile in all.cut(tile_rows, tile_cols) {
                let most = if transposed { TRANSPOSED_ROWS * BLOCK } else { elements };
                assert!(tile.rows * tile.cols <= most && tile.rows <= MAX_ROWS);
                view.for_runs_at(&tile, 0, |offset, _, n| {
                    seen[offset..offset + n].iter_mut().for_each(|s| *s += 1);
                });
                let strips: Vec<_> = strips(tile, true).collect();
                assert_eq!(strips.iter().map(|s| s.cols).sum::<usize>(), tile.cols);
                assert!(strips.iter().all(|s| s.cols * pitch(s.rows) <= STRIP_BUFFER));
            }
            assert_eq!(seen.iter().sum::<usize>(), view.len());
            assert!(seen.iter().all(|&s| s <= 1));
        };
        for transposed in [false, true] {
            check(View::whole(&[37, 53]), 37 * 53, transposed, 5000);
            check(View::whole(&[37, 530]).transpose(), 37 * 530, transposed, 5000);
            check(View::slice(&[20, 60], 1, 20, 20).unwrap().transpose(), 1200, transposed, 5000);
            check(View::whole(&[5000, 70]), 5000 * 70, transposed, 30_000);
            check(View::whole(&[17, 5000]), 17 * 5000, transposed, 30_000);
            check(View::whole(&[9, 2]), 18, transposed, 30_000);
        }
    }

    #[test]
    fn strips_of_any_height_fit_their_buffer() {
        for rows in 1..=MAX_ROWS {
            let tile = Tile { row: 0, rows, col: 0, cols: 10_000 };
            assert!(strips(tile, true).all(|s| s.cols * pitch(s.rows) <= STRIP_BUFFER), "{rows}");
            assert_eq!(strips(tile, false).count(), 0);
        }
    }

    #[test]
    fn tiles_are_as_wide_as_may_be() {
        let n = 196_608;
        assert_eq!(tile_shape([768, 768], true, n), [32, 768]);
        assert_eq!(tile_shape([768, 3072], true, n), [32, 3072]);
        assert_eq!(tile_shape([3072, 64], true, n), [384, 64]);
        assert_eq!(tile_shape([4096, 11_008], true, n), [32, 3712]);
        assert_eq!(tile_shape([3072, 768], false, n), [256, 768]);
    }
}
