//! Mixing by a full matrix: the members' tiles lie side by side in the second-level cache.
//!
//! A tile is worked off in *passes*, as in `mix_shared.rs`: over an untransposed member at once,
//! over a transposed one strip by strip.

use crate::optim::kernel::prefetch::{MAX_STREAMS, Streams};
use crate::optim::kernel::runs::{Sum, sum_runs};
use crate::optim::kernel::transpose::Rectangle;
use crate::optim::kernel::update::Gradient;
use crate::optim::kernel::{reduce, transpose, weighted_sum};
use crate::optim::sweep::buffers::{gradient, is_direct};
use crate::optim::sweep::scratch::Scratch;
use crate::optim::sweep::tile::{Tile, pitch, strips, whole};
use crate::optim::sweep::tiling::cached_elements;
use crate::optim::sweep::update::Sweep;
use crate::optim::sweep::work::SweepMember;

/// Rows of a cached tile that is not as wide as the tile it is cut from.
const CACHED_ROWS: usize = 32;

impl Sweep<'_> {
    /// The passes over the active members' tiles, each with the number of its slot.
    fn passes<'p>(
        &'p self,
        members: &'p [SweepMember],
        tile: &Tile,
    ) -> impl Iterator<Item = (usize, &'p SweepMember, Tile)> + 'p {
        let tile = *tile;
        let active = members.iter().filter(|p| self.param_steps[p.param].active);
        active.enumerate().flat_map(move |(i, member)| {
            let transposed = member.view.transposed;
            let at_once = (!transposed).then_some(tile);
            at_once.into_iter().chain(strips(tile, transposed)).map(move |sub| (i, member, sub))
        })
    }

    /// A tile of the gradient in memory; `None` where it has to be converted first.
    fn direct_gradient(&self, member: &SweepMember, tile: &Tile) -> Option<Streams> {
        let buffers = &self.buffers[member.param];
        if !is_direct(buffers, self.param_steps[member.param].clip_value) {
            return None;
        }
        let (runs, len) = member.view.runs_of(tile);
        let g = buffers.g.cast::<f32>().wrapping_add(member.view.first(tile));
        Some(Streams { from: [g; MAX_STREAMS], ld: [member.view.ld; MAX_STREAMS], runs, len })
    }

    /// What is read first of a tile, if anything in place.
    fn first_read(&self, members: &[SweepMember], tile: Option<&Tile>) -> Streams {
        let first = tile.and_then(|tile| self.passes(members, tile).next());
        first
            .and_then(|(_, member, sub)| self.direct_gradient(member, &sub))
            .unwrap_or(Streams::NONE)
    }

    /// Copies a tile of the gradient, its runs `out_ld` elements apart.
    ///
    /// # Safety
    /// As `Sweep::run`.
    unsafe fn copy_gradient(
        &self,
        member: &SweepMember,
        tile: &Tile,
        load: &mut [f32],
        (out, out_ld): (&mut [f32], usize),
        then: &Streams,
    ) {
        if let Some(streams) = self.direct_gradient(member, tile) {
            debug_assert!(out.len() + out_ld >= streams.runs * out_ld + streams.len);
            let weights = [1.0; MAX_STREAMS];
            let sum = Sum { streams, n: 1, weights, out: out.as_mut_ptr(), out_ld, begun: false };
            // SAFETY: the caller's promise; `out` is as large as the tile.
            return unsafe { sum_runs(self.build, &sum, then) };
        }
        let (buffers, clip_value) =
            (&self.buffers[member.param], self.param_steps[member.param].clip_value);
        member.view.for_runs_at(tile, out_ld, |offset, at, n| {
            // SAFETY: the caller's promise.
            let g = unsafe { gradient(self.build, buffers, clip_value, offset, n, load) };
            out[at..at + n].copy_from_slice(g);
        });
    }

    /// Loads the gradients of the active members, in logical orientation, one slot each.
    ///
    /// # Safety
    /// As `Sweep::run`.
    unsafe fn load_tiles(
        &self,
        s: &mut Scratch,
        members: &[SweepMember],
        tile: &Tile,
        then: &Streams,
    ) {
        let n_tile = tile.rows * tile.cols;
        let Scratch { tiles, strip, load, .. } = s;
        let mut passes = self.passes(members, tile).peekable();
        while let Some((i, member, sub)) = passes.next() {
            let next = passes.peek().and_then(|(_, member, sub)| self.direct_gradient(member, sub));
            let next = next.unwrap_or(*then);
            let slot = &mut tiles[i * n_tile..(i + 1) * n_tile];
            if !member.view.transposed {
                // SAFETY: the caller's promise.
                unsafe { self.copy_gradient(member, &sub, load, (slot, sub.cols), &next) };
                continue;
            }
            let ld = pitch(tile.rows);
            // SAFETY: the caller's promise.
            unsafe { self.copy_gradient(member, &sub, load, (strip, ld), &next) };
            let rectangle = Rectangle { rows: sub.cols, cols: sub.rows, ld };
            let into = &mut slot[sub.col - tile.col..];
            transpose::transpose(self.build, strip, rectangle, into, tile.cols);
        }
    }

    /// Mixes and updates a tile by the `k` × `k` matrix that begins at `at`.
    ///
    /// # Safety
    /// As `Sweep::run`.
    pub(in crate::optim) unsafe fn update_by_matrix(
        &self,
        s: &mut Scratch,
        members: &[SweepMember],
        tile: &Tile,
        at: usize,
        k: usize,
    ) {
        let matrix = &self.matrices[at..at + k * k];
        let mut cached = cached_tiles(tile, k).peekable();
        while let Some(tile) = cached.next() {
            let n_tile = tile.rows * tile.cols;
            let first = self.passes(members, &tile).next();
            let then =
                first.map_or(Streams::NONE, |(_, member, sub)| self.state_streams(member, &sub));
            // SAFETY: the caller's promise.
            unsafe { self.load_tiles(s, members, &tile, &then) };
            weighted_sum::mix_by_matrix(self.build, &mut s.tiles, k, n_tile, n_tile, matrix);
            let following = self.first_read(members, cached.peek());
            // SAFETY: the caller's promise.
            unsafe { self.update_members(s, members, &tile, &following) };
        }
    }

    /// Updates the active members with the mixed gradients in the slots.
    ///
    /// # Safety
    /// As `Sweep::run`.
    unsafe fn update_members(
        &self,
        s: &mut Scratch,
        members: &[SweepMember],
        tile: &Tile,
        then: &Streams,
    ) {
        let n_tile = tile.rows * tile.cols;
        let Scratch { tiles, strip, m, v, x, .. } = s;
        let mut passes = self.passes(members, tile).peekable();
        while let Some((i, member, sub)) = passes.next() {
            let next =
                passes.peek().map_or(*then, |(_, member, sub)| self.state_streams(member, sub));
            if !self.param_steps[member.param].state_here {
                continue;
            }
            let slot = &tiles[i * n_tile..(i + 1) * n_tile];
            let (mixed, ld) = if member.view.transposed {
                let rectangle = Rectangle { rows: sub.rows, cols: sub.cols, ld: tile.cols };
                let ld = pitch(sub.rows);
                transpose::transpose(self.build, &slot[sub.col - tile.col..], rectangle, strip, ld);
                (&strip[..], ld)
            } else {
                (slot, sub.cols)
            };
            if self.is_f32_adamw(member.param) {
                // SAFETY: the caller's promise; `mixed` holds the gradient.
                unsafe { self.update_from(member, &sub, (mixed, ld), &next) };
                continue;
            }
            member.view.for_runs_at(&sub, ld, |offset, at, n| {
                let g = Gradient { g: &mixed[at..at + n], own: 1.0, group: None };
                // SAFETY: the caller's promise.
                unsafe { self.apply(member.param, offset, n, g, m, v, x) };
            });
        }
    }

    /// Inner products of the active members' raw gradients over a tile: `out[i·n + j]` for
    /// members i ≤ j of the group; 0 where one is not active.
    ///
    /// # Safety
    /// As `Sweep::run`, with shared reading allowed.
    pub unsafe fn products(&self, s: &mut Scratch, group: usize, tile: &Tile, out: &mut [f64]) {
        let group = self.groups[group];
        let members = &self.members[group.first..group.first + group.n];
        let k = members.iter().filter(|p| self.param_steps[p.param].active).count();
        out.fill(0.0);
        if !self.is_local(members) {
            return;
        }
        let active = |i: &usize| self.param_steps[members[*i].param].active;
        let mut cached = cached_tiles(tile, k).peekable();
        while let Some(tile) = cached.next() {
            let n_tile = tile.rows * tile.cols;
            let then = self.first_read(members, cached.peek());
            // SAFETY: the caller's promise.
            unsafe { self.load_tiles(s, members, &tile, &then) };
            let tile_of = |i: usize| &s.tiles[i * n_tile..(i + 1) * n_tile];
            for (a, i) in (0..group.n).filter(active).enumerate() {
                for (b, j) in (0..group.n).filter(active).enumerate().skip(a) {
                    out[i * group.n + j] += reduce::dot(self.build, tile_of(a), tile_of(b));
                }
            }
        }
    }
}

/// Parts of a tile of which `k` + 1 stay in the second-level cache.
fn cached_tiles(tile: &Tile, k: usize) -> impl Iterator<Item = Tile> {
    let elements = cached_elements(k);
    let rows = tile.rows.min(CACHED_ROWS);
    let cols = whole(elements / rows.max(1), 16);
    if cols < tile.cols {
        return tile.cut(rows, cols);
    }
    tile.cut(whole(elements / tile.cols.max(1), CACHED_ROWS), tile.cols)
}
