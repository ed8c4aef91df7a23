//! One gradient, or one average, for a whole group: its members' tiles are summed, and the sum
//! is used on each of them, while they are in the cache.
//!
//! A tile is worked off in *moves*: walks over some members at once, or over one. Each move
//! knows the next one, and asks for its memory towards its own end.

use crate::optim::kernel::prefetch::{FAN, Streams};
use crate::optim::kernel::runs::{Sum, pull_runs, sum_runs};
use crate::optim::kernel::transpose::Place;
use crate::optim::kernel::{transpose, weighted_sum};
use crate::optim::plan::view::{Tile, pitch, strips};
use crate::optim::sweep::pointers::{Scratch, gradient, is_direct};
use crate::optim::sweep::{Part, Sweep};

/// What of the members is summed.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    /// Gradients of those that are updated.
    Gradients,
    /// Values of those that are synchronised.
    Values,
}

/// Some members whose tiles are walked side by side.
#[derive(Clone, Copy)]
struct Fan<'p> {
    parts: [&'p Part; FAN],
    n: usize,
    tile: Tile,
    /// Whether it is the first of its tile or strip.
    first: bool,
    /// Whether it is the last of its strip.
    last: bool,
}

impl<'p> Fan<'p> {
    fn turned(&self) -> bool {
        self.parts[0].view.transposed
    }

    fn parts(&self) -> &[&'p Part] {
        &self.parts[..self.n]
    }
}

/// Up to `FAN` of the members at a time, in their order.
fn fans<'p>(
    members: impl Iterator<Item = &'p Part> + Clone,
    tile: Tile,
) -> impl Iterator<Item = Fan<'p>> {
    let mut left = members.peekable();
    let mut first = true;
    std::iter::from_fn(move || {
        let one = left.next()?;
        let mut fan = Fan { parts: [one; FAN], n: 1, tile, first, last: false };
        while fan.n < FAN {
            let Some(part) = left.next() else { break };
            fan.parts[fan.n] = part;
            fan.n += 1;
        }
        (first, fan.last) = (false, left.peek().is_none());
        Some(fan)
    })
}

/// The tile after this one in the same bundle; exact but for the width where a row begins.
fn after(tile: &Tile, [rows, cols]: [usize; 2]) -> Option<Tile> {
    let col = tile.col + tile.cols;
    if col < cols {
        return Some(Tile { col, cols: tile.cols.min(cols - col), ..*tile });
    }
    let row = tile.row + tile.rows;
    (row < rows).then(|| Tile { row, rows: tile.rows.min(rows - row), col: 0, ..*tile })
}

impl Sweep<'_> {
    fn takes_part(&self, part: &Part, of: Of) -> bool {
        match of {
            Of::Gradients => self.own[part.param].active,
            Of::Values => self.own[part.param].synced,
        }
    }

    /// The moves that sum a tile: strip by strip over the turned members, then over the others.
    fn sums<'p>(
        &'p self,
        parts: &'p [Part],
        tile: &Tile,
        of: Of,
    ) -> impl Iterator<Item = Fan<'p>> + 'p {
        let tile = *tile;
        let taking = parts.iter().filter(move |p| self.takes_part(p, of));
        let turned = taking.clone().filter(|p| p.view.transposed);
        let straight = taking.filter(|p| !p.view.transposed);
        let strips = strips(tile, turned.clone().next().is_some());
        strips.flat_map(move |strip| fans(turned.clone(), strip)).chain(fans(straight, tile))
    }

    /// What of a member is read; `None` where it has to be converted first.
    fn source(&self, part: &Part, of: Of) -> Option<*const f32> {
        let lane = &self.lanes[part.param];
        match of {
            Of::Values => Some(lane.p),
            Of::Gradients => is_direct(lane, self.own[part.param].bound).then(|| lane.g.cast()),
        }
    }

    /// The memory of a move; `None` where a member's has to be converted first.
    fn streams(&self, fan: &Fan<'_>, of: Of) -> Option<Streams> {
        let (runs, len) = fan.parts[0].view.runs_of(&fan.tile);
        let mut streams = Streams { runs, len, ..Streams::NONE };
        for k in 0..FAN {
            let part = fan.parts[k];
            let at = part.view.first(&fan.tile);
            streams.from[k] = self.source(part, of)?.wrapping_add(at);
            streams.ld[k] = part.view.ld;
        }
        Some(streams)
    }

    fn ahead(&self, fan: Option<&Fan<'_>>, of: Of) -> Option<Streams> {
        self.streams(fan?, of)
    }

    /// One move of a sum into `out`, which lies as the members' storage does, its runs a
    /// [`pitch`] apart.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn add(
        &self,
        fan: &Fan<'_>,
        of: Of,
        begun: bool,
        load: &mut [f32],
        out: &mut [f32],
        then: &Streams,
    ) {
        let weight = |part: &Part| if of == Of::Values { part.anchor } else { part.weight };
        if let Some(streams) = self.streams(fan, of) {
            let out_ld = pitch(streams.len);
            debug_assert!(out.len() + out_ld >= streams.runs * out_ld + streams.len);
            let weights = fan.parts.map(weight);
            let sum = Sum { streams, n: fan.n, weights, out: out.as_mut_ptr(), out_ld, begun };
            // SAFETY: the caller's promise; `out` is as large as the tile.
            unsafe { sum_runs(self.build, &sum, then) };
            return;
        }
        for (i, part) in fan.parts().iter().enumerate() {
            let (lane, bound) = (&self.lanes[part.param], self.own[part.param].bound);
            part.view.for_runs_at(
                &fan.tile,
                pitch(part.view.runs_of(&fan.tile).1),
                |offset, at, n| {
                    // SAFETY: the caller's promise.
                    let g = unsafe { gradient(self.build, lane, bound, offset, n, load) };
                    let out = &mut out[at..at + n];
                    if i == 0 && !begun {
                        weighted_sum::set_scaled(self.build, out, part.weight, g);
                    } else {
                        weighted_sum::add_scaled(self.build, out, part.weight, g);
                    }
                },
            );
        }
    }

    /// Sums something over the members into the worker's tile.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn gather(&self, s: &mut Scratch, parts: &[Part], tile: &Tile, of: Of, then: &Streams) {
        let Scratch { tiles, strip, load, .. } = s;
        let mut moves = self.sums(parts, tile, of).peekable();
        let mut begun = false;
        while let Some(fan) = moves.next() {
            let next = self.ahead(moves.peek(), of).unwrap_or(*then);
            if !fan.turned() {
                // SAFETY: the caller's promise.
                unsafe { self.add(&fan, of, begun, load, tiles, &next) };
                begun = true;
                continue;
            }
            // SAFETY: the caller's promise.
            unsafe { self.add(&fan, of, !fan.first, load, strip, &next) };
            if fan.last {
                let place = Place { rows: fan.tile.cols, cols: tile.rows, ld: pitch(tile.rows) };
                let into = &mut tiles[fan.tile.col - tile.col..];
                transpose::transpose(self.build, strip, place, into, pitch(tile.cols), false);
                begun = true;
            }
        }
    }

    /// A strip of the group's tile in a turned member's storage order.
    fn turn<'s>(&self, tiles: &[f32], tile: &Tile, sub: &Tile, strip: &'s mut [f32]) -> &'s [f32] {
        let place = Place { rows: tile.rows, cols: sub.cols, ld: pitch(tile.cols) };
        let from = &tiles[sub.col - tile.col..];
        transpose::transpose(self.build, from, place, strip, pitch(tile.rows), false);
        strip
    }

    /// The moves that use a sum on its members: backwards, because what was read last is still
    /// in the cache; then strip by strip on the turned ones.
    fn uses<'p>(
        &'p self,
        parts: &'p [Part],
        tile: &Tile,
        of: Of,
    ) -> impl Iterator<Item = (&'p Part, Tile)> + 'p {
        let tile = *tile;
        let taking = parts.iter().rev().filter(move |p| self.takes_part(p, of));
        let turned = taking.clone().filter(|p| p.view.transposed);
        let straight = taking.filter(|p| !p.view.transposed).map(move |p| (p, tile));
        let strips = strips(tile, turned.clone().next().is_some());
        straight.chain(strips.flat_map(move |strip| turned.clone().map(move |p| (p, strip))))
    }

    /// Calls `f(part, tile, sum, scratch, next)` for each use of the sum in the worker's tile.
    fn spread(
        &self,
        s: &mut Scratch,
        parts: &[Part],
        tile: &Tile,
        of: Of,
        mut f: impl FnMut(&Part, &Tile, &[f32], &mut [&mut [f32]; 4], Option<(&Part, Tile)>),
    ) {
        let Scratch { tiles, strip, load, m, v, x } = s;
        let mut buffers = [&mut load[..], &mut m[..], &mut v[..], &mut x[..]];
        let mut moves = self.uses(parts, tile, of).peekable();
        let mut in_strip = None;
        while let Some((part, sub)) = moves.next() {
            let next = moves.peek().copied();
            if !part.view.transposed {
                f(part, &sub, tiles, &mut buffers, next);
                continue;
            }
            if in_strip != Some(sub) {
                self.turn(tiles, tile, &sub, strip);
                in_strip = Some(sub);
            }
            f(part, &sub, strip, &mut buffers, next);
        }
    }

    /// Mixes and updates a tile with one gradient for the whole group.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    pub(in crate::optim) unsafe fn update_common(
        &self,
        s: &mut Scratch,
        parts: &[Part],
        tile: &Tile,
        pull: f32,
    ) {
        let none = Streams::NONE;
        let first = self.uses(parts, tile, Of::Gradients).next();
        let then = first.map_or(none, |(part, tile)| self.wanted(part, &tile));
        // SAFETY: the caller's promise.
        unsafe { self.gather(s, parts, tile, Of::Gradients, &then) };
        let following = after(tile, parts[0].view.shape())
            .and_then(|t| {
                self.ahead(self.sums(parts, &t, Of::Gradients).next().as_ref(), Of::Gradients)
            })
            .unwrap_or(none);
        self.spread(s, parts, tile, Of::Gradients, |part, sub, sum, buffers, next| {
            let then = next.map_or(following, |(part, tile)| self.wanted(part, &tile));
            // SAFETY: the caller's promise.
            unsafe { self.update_tile(buffers, part, sub, Some((sum, pull)), &then) };
        });
    }

    /// p ← (1−β) p + β Σ anchor·p over the members that are synchronised.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    pub(in crate::optim) unsafe fn synchronise(
        &self,
        s: &mut Scratch,
        parts: &[Part],
        tile: &Tile,
        beta: f32,
    ) {
        let values = |part: &Part, tile: &Tile| {
            let (runs, len) = part.view.runs_of(tile);
            let p = self.lanes[part.param].p.wrapping_add(part.view.first(tile));
            Streams { from: [p; FAN], ld: [part.view.ld; FAN], runs, len }
        };
        let first = self.uses(parts, tile, Of::Values).next();
        let then = first.map_or(Streams::NONE, |(part, tile)| values(part, &tile));
        // SAFETY: the caller's promise.
        unsafe { self.gather(s, parts, tile, Of::Values, &then) };
        let factors = [(1.0 - f64::from(beta)) as f32, beta];
        self.spread(s, parts, tile, Of::Values, |part, sub, average, _, next| {
            let then = next.map_or(Streams::NONE, |(part, tile)| values(part, &tile));
            // SAFETY: the caller's promise.
            unsafe {
                let values = values(part, sub);
                let average = (average, pitch(values.len));
                pull_runs(self.build, &values, factors, average, &then);
            }
        });
    }
}
