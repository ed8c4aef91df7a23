//! Mixing by a full matrix: the members' tiles lie side by side in the second-level cache.

use super::kernel::turn::Place;
use super::kernel::update::Gradient;
use super::kernel::{mix, reduce, turn};
use super::lane::{Scratch, gradient};
use super::layout::close_elements;
use super::sweep::{Part, Sweep};
use super::view::{Tile, whole};

impl Sweep<'_> {
    /// Loads the gradients of the active members, in logical orientation, one tile each.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn load_tiles(&self, s: &mut Scratch, parts: &[Part], tile: &Tile, k: usize) -> usize {
        let n_tile = tile.rows * tile.cols;
        let (slots, spare) = s.tiles.split_at_mut(k * n_tile);
        for (i, part) in parts.iter().filter(|p| self.own[p.param].active).enumerate() {
            let lane = &self.lanes[part.param];
            let slot = &mut slots[i * n_tile..(i + 1) * n_tile];
            let turned = part.view.transposed;
            let into = if turned { &mut spare[..n_tile] } else { &mut *slot };
            part.view.for_runs(tile, |offset, at, n| {
                let bound = self.own[part.param].bound;
                // SAFETY: the caller's promise.
                let g = unsafe { gradient(self.build, lane, bound, offset, n, &mut s.load) };
                into[at..at + n].copy_from_slice(g);
            });
            if turned {
                let spare = &spare[..n_tile];
                let place = Place::dense(tile.cols, tile.rows);
                turn::transpose(self.build, spare, place, slot, tile.cols, false);
            }
        }
        n_tile
    }

    /// # Safety
    /// As [`Sweep::run`].
    pub(super) unsafe fn update_dense(
        &self,
        s: &mut Scratch,
        parts: &[Part],
        tile: &Tile,
        at: usize,
        k: usize,
    ) {
        // SAFETY: the caller's promise.
        let n_tile = unsafe { self.load_tiles(s, parts, tile, k) };
        let matrix = &self.dense[at..at + k * k];
        mix::mix_dense(self.build, &mut s.tiles, k, n_tile, n_tile, matrix);
        let Scratch { tiles, m, v, x, .. } = s;
        let (slots, spare) = tiles.split_at_mut(k * n_tile);
        for (i, part) in parts.iter().filter(|p| self.own[p.param].active).enumerate() {
            let slot = &slots[i * n_tile..(i + 1) * n_tile];
            let mixed = if part.view.transposed {
                let spare = &mut spare[..n_tile];
                let place = Place::dense(tile.rows, tile.cols);
                turn::transpose(self.build, slot, place, spare, tile.rows, false);
                &*spare
            } else {
                slot
            };
            if self.is_plain(part.param) {
                // SAFETY: the caller's promise; the tile holds the gradient.
                unsafe { self.update_from(part, tile, mixed) };
                continue;
            }
            part.view.for_runs(tile, |offset, at, n| {
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
        for sub in close_tiles(tile, k) {
            // SAFETY: the caller's promise.
            let n_tile = unsafe { self.load_tiles(s, parts, &sub, k) };
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
pub(super) fn close_tiles(tile: &Tile, k: usize) -> impl Iterator<Item = Tile> {
    let elements = close_elements(k);
    let cols = if tile.rows == 1 {
        elements
    } else {
        (if elements >= 8192 { 128 } else { 16 }).min(tile.cols)
    };
    tile.cut(whole((elements / cols).max(1), 64), cols)
}
