//! Mixing by a full matrix: the members' tiles lie side by side in the second-level cache.
//!
//! A tile is worked off in *moves*, as in [`crate::optim::sweep::share`]: over a straight member at once, over
//! a turned one strip by strip.

use crate::optim::kernel::prefetch::{FAN, Streams};
use crate::optim::kernel::runs::{Sum, sum_runs};
use crate::optim::kernel::transpose::Place;
use crate::optim::kernel::update::Gradient;
use crate::optim::kernel::{reduce, transpose, weighted_sum};
use crate::optim::plan::view::{Tile, pitch, strips, whole};
use crate::optim::sweep::pointers::{Scratch, gradient, is_direct};
use crate::optim::sweep::tiling::close_elements;
use crate::optim::sweep::{Part, Sweep};

/// Rows of a close tile that is not as wide as the tile it is cut from.
const CLOSE_ROWS: usize = 32;

impl Sweep<'_> {
    /// The moves over the active members' tiles, each with the number of its slot.
    fn close_moves<'p>(
        &'p self,
        parts: &'p [Part],
        tile: &Tile,
    ) -> impl Iterator<Item = (usize, &'p Part, Tile)> + 'p {
        let tile = *tile;
        let active = parts.iter().filter(|p| self.own[p.param].active);
        active.enumerate().flat_map(move |(i, part)| {
            let turned = part.view.transposed;
            let at_once = (!turned).then_some(tile);
            at_once.into_iter().chain(strips(tile, turned)).map(move |sub| (i, part, sub))
        })
    }

    /// A tile of the gradient in memory; `None` where it has to be converted first.
    fn close_gradient(&self, part: &Part, tile: &Tile) -> Option<Streams> {
        let lane = &self.lanes[part.param];
        if !is_direct(lane, self.own[part.param].bound) {
            return None;
        }
        let (runs, len) = part.view.runs_of(tile);
        let g = lane.g.cast::<f32>().wrapping_add(part.view.first(tile));
        Some(Streams { from: [g; FAN], ld: [part.view.ld; FAN], runs, len })
    }

    /// What is read first of a tile, if anything in place.
    fn close_begin(&self, parts: &[Part], tile: Option<&Tile>) -> Streams {
        let first = tile.and_then(|tile| self.close_moves(parts, tile).next());
        first.and_then(|(_, part, sub)| self.close_gradient(part, &sub)).unwrap_or(Streams::NONE)
    }

    /// Copies a tile of the gradient, its runs `out_ld` elements apart.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn close_copy(
        &self,
        part: &Part,
        tile: &Tile,
        load: &mut [f32],
        (out, out_ld): (&mut [f32], usize),
        then: &Streams,
    ) {
        if let Some(streams) = self.close_gradient(part, tile) {
            debug_assert!(out.len() + out_ld >= streams.runs * out_ld + streams.len);
            let weights = [1.0; FAN];
            let sum = Sum { streams, n: 1, weights, out: out.as_mut_ptr(), out_ld, begun: false };
            // SAFETY: the caller's promise; `out` is as large as the tile.
            return unsafe { sum_runs(self.build, &sum, then) };
        }
        let (lane, bound) = (&self.lanes[part.param], self.own[part.param].bound);
        part.view.for_runs_at(tile, out_ld, |offset, at, n| {
            // SAFETY: the caller's promise.
            let g = unsafe { gradient(self.build, lane, bound, offset, n, load) };
            out[at..at + n].copy_from_slice(g);
        });
    }

    /// Loads the gradients of the active members, in logical orientation, one slot each.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn load_tiles(&self, s: &mut Scratch, parts: &[Part], tile: &Tile, then: &Streams) {
        let n_tile = tile.rows * tile.cols;
        let Scratch { tiles, strip, load, .. } = s;
        let mut moves = self.close_moves(parts, tile).peekable();
        while let Some((i, part, sub)) = moves.next() {
            let next = moves.peek().and_then(|(_, part, sub)| self.close_gradient(part, sub));
            let next = next.unwrap_or(*then);
            let slot = &mut tiles[i * n_tile..(i + 1) * n_tile];
            if !part.view.transposed {
                // SAFETY: the caller's promise.
                unsafe { self.close_copy(part, &sub, load, (slot, sub.cols), &next) };
                continue;
            }
            let ld = pitch(tile.rows);
            // SAFETY: the caller's promise.
            unsafe { self.close_copy(part, &sub, load, (strip, ld), &next) };
            let place = Place { rows: sub.cols, cols: sub.rows, ld };
            let into = &mut slot[sub.col - tile.col..];
            transpose::transpose(self.build, strip, place, into, tile.cols, false);
        }
    }

    /// Mixes and updates a tile by the `k` × `k` matrix that begins at `at`.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    pub(in crate::optim) unsafe fn update_dense(
        &self,
        s: &mut Scratch,
        parts: &[Part],
        tile: &Tile,
        at: usize,
        k: usize,
    ) {
        let matrix = &self.dense[at..at + k * k];
        let mut close = close_tiles(tile, k).peekable();
        while let Some(tile) = close.next() {
            let n_tile = tile.rows * tile.cols;
            let first = self.close_moves(parts, &tile).next();
            let then = first.map_or(Streams::NONE, |(_, part, sub)| self.state(part, &sub));
            // SAFETY: the caller's promise.
            unsafe { self.load_tiles(s, parts, &tile, &then) };
            weighted_sum::mix_dense(self.build, &mut s.tiles, k, n_tile, n_tile, matrix);
            let following = self.close_begin(parts, close.peek());
            // SAFETY: the caller's promise.
            unsafe { self.update_close(s, parts, &tile, &following) };
        }
    }

    /// Updates the active members with the mixed gradients in the slots.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn update_close(&self, s: &mut Scratch, parts: &[Part], tile: &Tile, then: &Streams) {
        let n_tile = tile.rows * tile.cols;
        let Scratch { tiles, strip, m, v, x, .. } = s;
        let mut moves = self.close_moves(parts, tile).peekable();
        while let Some((i, part, sub)) = moves.next() {
            let next = moves.peek().map_or(*then, |(_, part, sub)| self.state(part, sub));
            let slot = &tiles[i * n_tile..(i + 1) * n_tile];
            let (mixed, ld) = if part.view.transposed {
                let place = Place { rows: sub.rows, cols: sub.cols, ld: tile.cols };
                let ld = pitch(sub.rows);
                transpose::transpose(
                    self.build,
                    &slot[sub.col - tile.col..],
                    place,
                    strip,
                    ld,
                    false,
                );
                (&strip[..], ld)
            } else {
                (slot, sub.cols)
            };
            if self.is_plain(part.param) {
                // SAFETY: the caller's promise; `mixed` holds the gradient.
                unsafe { self.update_from(part, &sub, (mixed, ld), &next) };
                continue;
            }
            part.view.for_runs_at(&sub, ld, |offset, at, n| {
                let g = Gradient { g: &mixed[at..at + n], own: 1.0, group: None };
                // SAFETY: the caller's promise.
                unsafe { self.apply(part.param, offset, n, g, m, v, x) };
            });
        }
    }

    /// Inner products of the active members' raw gradients over a tile: `out[i·n + j]` for
    /// members i ≤ j of the bundle; 0 where one is not active.
    ///
    /// # Safety
    /// As [`Sweep::run`], with shared reading allowed.
    pub unsafe fn products(&self, s: &mut Scratch, bundle: usize, tile: &Tile, out: &mut [f64]) {
        let bundle = self.bundles[bundle];
        let parts = &self.parts[bundle.first..bundle.first + bundle.n];
        let k = parts.iter().filter(|p| self.own[p.param].active).count();
        out.fill(0.0);
        let active = |i: &usize| self.own[parts[*i].param].active;
        let mut close = close_tiles(tile, k).peekable();
        while let Some(tile) = close.next() {
            let n_tile = tile.rows * tile.cols;
            let then = self.close_begin(parts, close.peek());
            // SAFETY: the caller's promise.
            unsafe { self.load_tiles(s, parts, &tile, &then) };
            let tile_of = |i: usize| &s.tiles[i * n_tile..(i + 1) * n_tile];
            for (a, i) in (0..bundle.n).filter(active).enumerate() {
                for (b, j) in (0..bundle.n).filter(active).enumerate().skip(a) {
                    out[i * bundle.n + j] += reduce::dot(self.build, tile_of(a), tile_of(b));
                }
            }
        }
    }
}

/// Parts of a tile of which `k` + 1 stay in the second-level cache.
fn close_tiles(tile: &Tile, k: usize) -> impl Iterator<Item = Tile> {
    let elements = close_elements(k);
    let rows = tile.rows.min(CLOSE_ROWS);
    let cols = whole(elements / rows.max(1), 16);
    if cols < tile.cols {
        return tile.cut(rows, cols);
    }
    tile.cut(whole(elements / tile.cols.max(1), CLOSE_ROWS), tile.cols)
}
