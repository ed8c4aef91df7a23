//! Attention of one head over some of its queries, forward and backward, in blocks of queries: no
//! more than a block's rows of scores are there at a time (after Dao et al., 2022,
//! "FlashAttention", arXiv:2205.14135, whose blocks are of keys too).

use std::ops::Range;

use super::super::tiles::{Isa, LANES, Left, ROWS, Right, STRIP, multiply};
use super::super::{math, stream};
use super::rows::{Known, Rows};

/// Queries of a block, for few keys; a whole number of tiles.
const BLOCK: usize = 8 * ROWS;
/// Most scores of a block.
const SCORES: usize = 1 << 18;
/// Keys whose rows are multiplied at a time: they stay in the first cache.
const KEYS: usize = 2 * STRIP;
/// A mask below it makes a probability zero, whatever the score.
const HIDDEN: f32 = -1e30;

/// Sizes of one attention: batch, heads, queries, keys, and widths of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) queries: usize,
    pub(super) keys: usize,
    /// Of queries and keys.
    pub(super) width: usize,
    /// Of values and results.
    pub(super) value_width: usize,
}

impl Sizes {
    /// Queries of a block.
    pub(super) fn block(&self) -> usize {
        (SCORES / self.keys.max(1) / ROWS * ROWS).clamp(ROWS, BLOCK)
    }

    /// Elements between two rows of scores: not a power of two, whose rows would share few lines of
    /// a cache.
    fn score_row(&self) -> usize {
        self.keys.next_multiple_of(STRIP) + LANES
    }

    fn padded(&self) -> (usize, usize) {
        (self.width.next_multiple_of(LANES), self.value_width.next_multiple_of(LANES))
    }

    /// Elements of keys or values as strips of `width` rows.
    fn strips(&self, width: usize) -> usize {
        self.keys.next_multiple_of(STRIP) * width
    }

    /// Elements of working memory for [`forward`].
    pub(super) fn forward_room(&self) -> usize {
        let (d, e) = self.padded();
        self.strips(self.width) + self.keys * e + self.block() * (d + e + self.score_row())
    }

    /// Elements of one head's gradients of keys and values, in rows of padded width.
    pub(super) fn sums(&self) -> usize {
        let (d, e) = self.padded();
        self.keys * (d + e)
    }

    /// Elements of working memory for [`backward`].
    pub(super) fn backward_room(&self) -> usize {
        let (d, e) = self.padded();
        let keys = self.strips(self.width) + self.strips(self.value_width) + self.keys * d;
        keys + self.block() * (2 * d + e + 2 * self.score_row())
    }
}

/// What is added to scores; broadcast to [batch, heads, queries, keys].
#[derive(Clone, Copy)]
pub(super) struct Mask<'a> {
    pub(super) data: &'a [f32],
    /// From element to element along each axis, 0 where it is broadcast.
    pub(super) steps: [usize; 4],
}

impl<'a> Mask<'a> {
    /// Where the numbers of a query begin.
    fn start(&self, [b, h, s]: [usize; 3]) -> usize {
        b * self.steps[0] + h * self.steps[1] + s * self.steps[2]
    }

    /// The keys that some query sees: all but those at either end that are hidden from all of them.
    /// A query that sees none has equal probabilities for all.
    fn visible(&self, b: usize, h: usize, queries: Range<usize>, n_keys: usize) -> Range<usize> {
        if self.steps[3] == 0 {
            return 0..n_keys;
        }
        let (mut from, mut to) = (n_keys, 0);
        let queries = if self.steps[2] == 0 { queries.start..queries.start + 1 } else { queries };
        for s in queries {
            let row = &self.data[self.start([b, h, s])..][..n_keys];
            let sees = |x: &f32| *x > HIDDEN;
            let (Some(first), Some(last)) = (row.iter().position(sees), row.iter().rposition(sees))
            else {
                return 0..n_keys;
            };
            (from, to) = (from.min(first), to.max(last + 1));
        }
        from / STRIP * STRIP..to
    }
}

/// Dropout of probabilities: the position of the first one, the least hash that is kept, and the
/// scale of what is.
#[derive(Clone, Copy)]
pub(super) struct Dropout {
    pub(super) first: u64,
    pub(super) least: u32,
    pub(super) scale: f32,
}

/// One attention: q `[batch, queries, heads, width]`, k `[batch, keys, heads, width]`, v `[batch,
/// keys, heads, value_width]`.
#[derive(Clone, Copy)]
pub(super) struct Attention<'a> {
    pub(super) sizes: Sizes,
    pub(super) q: &'a [f32],
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    pub(super) mask: Mask<'a>,
    /// Factor of q kᵀ.
    pub(super) scale: f32,
    pub(super) dropout: Option<Dropout>,
    /// Whether a row that is not a number counts as zeros.
    pub(super) empty_is_zero: bool,
    pub(super) isa: Isa,
}

/// A head of one sample, and some of its queries.
#[derive(Clone)]
pub(super) struct Task {
    pub(super) b: usize,
    pub(super) h: usize,
    pub(super) queries: Range<usize>,
}

/// Rows of one head in a tensor [batch, length, heads, width].
#[derive(Clone, Copy)]
struct HeadRows {
    first: usize,
    step: usize,
    width: usize,
}

impl HeadRows {
    fn new(heads: usize, length: usize, width: usize, b: usize, h: usize) -> Self {
        Self { first: (b * length * heads + h) * width, step: heads * width, width }
    }

    fn range(&self, row: usize) -> Range<usize> {
        let from = self.first + row * self.step;
        from..from + self.width
    }
}

/// A tensor of which tasks on several threads write rows of their own.
#[derive(Clone, Copy)]
pub(super) struct Shared {
    data: *mut f32,
    len: usize,
}

// SAFETY: tasks write rows of their own, see `row`.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    pub(super) fn new(data: &mut [f32]) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len() }
    }

    /// # Safety
    /// The tensor lives, and nobody else uses these elements meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn row(&self, range: Range<usize>) -> &mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: within the tensor; by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }
}

/// Rows that begin `row` elements apart.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    data: &'a [f32],
    row: usize,
}

impl<'a> Matrix<'a> {
    /// The rows from `first` on as a second factor.
    fn right(self, first: usize) -> Right<'a> {
        Right::rows(&self.data[first * self.row..], self.row)
    }
}

impl Attention<'_> {
    fn rows(&self, task: &Task, length: usize, width: usize) -> HeadRows {
        HeadRows::new(self.sizes.heads, length, width, task.b, task.h)
    }

    fn q_rows(&self, task: &Task) -> HeadRows {
        self.rows(task, self.sizes.queries, self.sizes.width)
    }

    fn k_rows(&self, task: &Task) -> HeadRows {
        self.rows(task, self.sizes.keys, self.sizes.width)
    }

    fn v_rows(&self, task: &Task) -> HeadRows {
        self.rows(task, self.sizes.keys, self.sizes.value_width)
    }

    fn o_rows(&self, task: &Task) -> HeadRows {
        self.rows(task, self.sizes.queries, self.sizes.value_width)
    }

    /// Where a query is in [batch, heads, queries].
    fn place(&self, task: &Task, s: usize) -> usize {
        (task.b * self.sizes.heads + task.h) * self.sizes.queries + s
    }

    fn blocks(&self, task: &Task) -> impl Iterator<Item = Range<usize>> + use<> {
        let (block, end) = (self.sizes.block(), task.queries.end);
        task.queries.clone().step_by(block).map(move |from| from..(from + block).min(end))
    }

    /// The position of a probability in dropout's mask over [batch, heads, queries, keys].
    fn position(&self, task: &Task, s: usize, t: usize) -> u64 {
        let first = self.dropout.map_or(0, |d| d.first);
        first + self.place(task, s) as u64 * self.sizes.keys as u64 + t as u64
    }

    /// `o` like q with `value_width`, `max` and `inverse` [batch, heads, queries]: the largest
    /// score of each row and 1 / Σ e^(score − max).
    ///
    /// # Safety
    /// The outputs live, and nobody else uses the rows of this task.
    pub(super) unsafe fn forward(
        &self,
        task: &Task,
        room: &mut [f32],
        o: Shared,
        (max, inverse): (Shared, Shared),
    ) {
        let sizes = &self.sizes;
        let (d, e) = sizes.padded();
        let (kt, room) = room.split_at_mut(sizes.strips(sizes.width));
        let (values, room) = room.split_at_mut(sizes.keys * e);
        let (queries, room) = room.split_at_mut(sizes.block() * d);
        let (sums, scores) = room.split_at_mut(sizes.block() * e);
        copy_to_strips(kt, self.k, self.k_rows(task), sizes.keys, self.isa);
        let values = self.packed(values, e, self.v, self.v_rows(task), 0..sizes.keys);
        for block in self.blocks(task) {
            let n = block.len();
            let keys = self.mask.visible(task.b, task.h, block.clone(), sizes.keys);
            copy_rows(queries, d, self.q, self.q_rows(task), block.clone(), self.scale);
            self.score(Matrix { data: queries, row: d }, kt, sizes.width, (n, &keys), scores);
            let place = self.place(task, block.start);
            // SAFETY: by the caller's promise; queries are of one task alone.
            let (max, inverse) =
                unsafe { (max.row(place..place + n), inverse.row(place..place + n)) };
            math::attention_softmax(scores, self.score_rows(task, &block, &keys), max, inverse);
            self.mix(scores, (n, &keys), values, (sums, e));
            let rows = self.o_rows(task);
            for (sum, s) in sums.chunks(e).zip(block) {
                // SAFETY: as above.
                unsafe { o.row(rows.range(s)) }.copy_from_slice(&sum[..sizes.value_width]);
            }
        }
    }

    /// scores = x keysᵀ for `n` rows of `x`; `strips` has all keys.
    fn score(
        &self,
        x: Matrix,
        strips: &[f32],
        width: usize,
        (n, keys): (usize, &Range<usize>),
        scores: &mut [f32],
    ) {
        let columns = keys.len().next_multiple_of(LANES);
        let left = Left { data: x.data, row: x.row, column: 1 };
        let right = Right::strips(&strips[keys.start * width..], width);
        let step = self.sizes.score_row();
        multiply(self.isa, (n, columns, width), left, right, scores, step, false);
    }

    /// sums = scores rows, `rows` having all keys.
    fn mix(
        &self,
        scores: &[f32],
        (n, keys): (usize, &Range<usize>),
        rows: Matrix,
        (sums, width): (&mut [f32], usize),
    ) {
        for from in (0..keys.len()).step_by(KEYS) {
            let k = KEYS.min(keys.len() - from);
            let left = Left { data: &scores[from..], row: self.sizes.score_row(), column: 1 };
            let right = rows.right(keys.start + from);
            multiply(self.isa, (n, width, k), left, right, sums, width, from > 0);
        }
        if keys.is_empty() {
            sums.fill(0.0);
        }
    }

    /// Rows of a tensor, padded to `width`: of few keys where they are, else as a copy in `room`.
    fn packed<'b>(
        &self,
        room: &'b mut [f32],
        width: usize,
        from: &'b [f32],
        rows: HeadRows,
        range: Range<usize>,
    ) -> Matrix<'b> {
        if width == rows.width && self.sizes.keys <= STRIP {
            return Matrix { data: &from[rows.range(range.start).start..], row: rows.step };
        }
        copy_rows(room, width, from, rows, range, 1.0);
        Matrix { data: room, row: width }
    }

    /// A block's rows of scores.
    fn score_rows(&self, task: &Task, block: &Range<usize>, keys: &Range<usize>) -> Rows<'_> {
        let (mask, steps) = (&self.mask, self.mask.steps);
        let start = mask.start([task.b, task.h, block.start]) + keys.start * steps[3];
        Rows {
            step: self.sizes.score_row(),
            keys: keys.len(),
            mask: &mask.data[start..],
            mask_step: steps[2],
            mask_is_one: steps[3] == 0,
            first: self.position(task, block.start, keys.start),
            positions: self.sizes.keys as u64,
            dropout: self.dropout.map(|d| (d.least, d.scale)),
            empty_is_zero: self.empty_is_zero,
        }
    }
}

/// What the backward part reads of the forward part, and the result's gradient.
#[derive(Clone, Copy)]
pub(super) struct Result<'a> {
    pub(super) dy: &'a [f32],
    pub(super) o: &'a [f32],
    pub(super) max: &'a [f32],
    pub(super) inverse: &'a [f32],
}

impl Attention<'_> {
    /// Gradients: `dq` like q; this task's part of those of keys and values is added to `of_keys`,
    /// which has [`Sizes::sums`] elements.
    ///
    /// # Safety
    /// `dq` lives, and nobody else uses the rows of this task.
    pub(super) unsafe fn backward(
        &self,
        task: &Task,
        result: &Result,
        room: &mut [f32],
        dq: Shared,
        of_keys: &mut [f32],
    ) {
        let sizes = &self.sizes;
        let (dk, dv) = of_keys.split_at_mut(sizes.keys * sizes.padded().0);
        let ((d, e), step) = (sizes.padded(), sizes.score_row());
        let (kt, room) = room.split_at_mut(sizes.strips(sizes.width));
        let (vt, room) = room.split_at_mut(sizes.strips(sizes.value_width));
        let (key_rows, room) = room.split_at_mut(sizes.keys * d);
        let (queries, room) = room.split_at_mut(sizes.block() * d);
        let (sums, room) = room.split_at_mut(sizes.block() * d);
        let (dys, room) = room.split_at_mut(sizes.block() * e);
        let (scores, slopes) = room.split_at_mut(sizes.block() * step);
        copy_to_strips(kt, self.k, self.k_rows(task), sizes.keys, self.isa);
        copy_to_strips(vt, self.v, self.v_rows(task), sizes.keys, self.isa);
        let key_rows = self.packed(key_rows, d, self.k, self.k_rows(task), 0..sizes.keys);
        for block in self.blocks(task) {
            let n = block.len();
            let keys = self.mask.visible(task.b, task.h, block.clone(), sizes.keys);
            copy_rows(queries, d, self.q, self.q_rows(task), block.clone(), self.scale);
            let dys = self.packed(dys, e, result.dy, self.o_rows(task), block.clone());
            self.score(Matrix { data: queries, row: d }, kt, sizes.width, (n, &keys), scores);
            self.score(dys, vt, sizes.value_width, (n, &keys), slopes);
            let mut delta = [0f32; BLOCK];
            let delta = &mut delta[..n];
            let rows = self.o_rows(task);
            for (delta, s) in delta.iter_mut().zip(block.clone()) {
                *delta = math::dot(&result.dy[rows.range(s)], &result.o[rows.range(s)]);
            }
            let place = self.place(task, block.start);
            let (max, inverse) = (&result.max[place..][..n], &result.inverse[place..][..n]);
            let of = self.score_rows(task, &block, &keys);
            math::attention_slopes(scores, slopes, of, Known { max, inverse, delta });
            let queries = Matrix { data: queries, row: d };
            for (x, rows, width, sum) in [(&*scores, dys, e, &mut *dv), (slopes, queries, d, dk)] {
                let left = Left { data: x, row: 1, column: step };
                let sum = &mut sum[keys.start * width..];
                let of = (keys.len(), width, n);
                multiply(self.isa, of, left, rows.right(0), sum, width, true);
            }
            self.mix(slopes, (n, &keys), key_rows, (sums, d));
            let rows = self.q_rows(task);
            for (sum, s) in sums.chunks(d).zip(block) {
                // SAFETY: by the caller's promise; queries are of one task alone.
                let dq = unsafe { dq.row(rows.range(s)) };
                dq.iter_mut().zip(sum).for_each(|(dq, sum)| *dq = sum * self.scale);
            }
        }
    }

    /// Writes the sums of one head to `dk` like k and `dv` like v.
    ///
    /// # Safety
    /// They live, and nobody else uses the rows of this head.
    pub(super) unsafe fn write_sums(&self, task: &Task, sums: &[f32], dk: Shared, dv: Shared) {
        let (d, e) = self.sizes.padded();
        let (keys, values) = sums.split_at(self.sizes.keys * d);
        let parts = [(keys, d, self.k_rows(task), dk), (values, e, self.v_rows(task), dv)];
        for (sums, width, rows, to) in parts {
            for (i, sum) in sums.chunks_exact(width).enumerate() {
                // SAFETY: by the caller's promise.
                unsafe { to.row(rows.range(i)) }.copy_from_slice(&sum[..rows.width]);
            }
        }
    }
}

/// Rows one after another, each padded to `width` with zeros.
fn copy_rows(
    to: &mut [f32],
    width: usize,
    from: &[f32],
    rows: HeadRows,
    range: Range<usize>,
    scale: f32,
) {
    for (to, i) in to.chunks_exact_mut(width).zip(range) {
        let from = &from[rows.range(i)];
        to.iter_mut().zip(from).for_each(|(to, x)| *to = x * scale);
        to[from.len()..].fill(0.0);
    }
}

/// The transpose of `n` rows, in strips of [`STRIP`] of its columns; zeros behind the last up to a
/// whole vector.
fn copy_to_strips(to: &mut [f32], from: &[f32], rows: HeadRows, n: usize, isa: Isa) {
    for (strip, to) in to.chunks_exact_mut(STRIP * rows.width).enumerate() {
        let first = strip * STRIP;
        let columns = STRIP.min(n - first);
        let end = columns.next_multiple_of(LANES);
        if columns < end {
            to.chunks_exact_mut(STRIP).for_each(|to| to[columns..end].fill(0.0));
        }
        let from = (&from[rows.range(first).start..], rows.step);
        stream::transpose((to, STRIP), from, (columns, rows.width), isa.is_wide());
    }
}
