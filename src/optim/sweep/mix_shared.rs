//! One gradient, or one average, for a whole group: its members' tiles are summed, and the sum
//! is used on each of them, while they are in the cache.
//!
//! A tile is worked off in *passes*, each over some members at once or over one. Each pass knows
//! the next one, and prefetches its memory towards its own end.

use crate::optim::kernel::prefetch::{MAX_STREAMS, Streams};
use crate::optim::kernel::runs::{Sum, lerp_runs, sum_runs};
use crate::optim::kernel::transpose::Rectangle;
use crate::optim::kernel::{transpose, weighted_sum};
use crate::optim::sweep::buffers::{gradient, is_direct};
use crate::optim::sweep::scratch::Scratch;
use crate::optim::sweep::tile::{Tile, pitch, strips};
use crate::optim::sweep::update::Sweep;
use crate::optim::sweep::work::SweepMember;

/// What of the members is summed.
#[derive(Clone, Copy, PartialEq)]
enum Summed {
    /// Gradients of those that are updated.
    Gradients,
    /// Values of those that are synchronised.
    Values,
}

/// Some members whose tiles are read side by side.
#[derive(Clone, Copy)]
struct MemberBatch<'p> {
    members: [&'p SweepMember; MAX_STREAMS],
    n: usize,
    tile: Tile,
    /// Whether it is the first of its tile or strip.
    first: bool,
    /// Whether it is the last of its strip.
    last: bool,
}

impl<'p> MemberBatch<'p> {
    fn transposed(&self) -> bool {
        self.members[0].view.transposed
    }

    fn members(&self) -> &[&'p SweepMember] {
        &self.members[..self.n]
    }
}

/// Up to `MAX_STREAMS` of the members at a time, in their order.
fn batches<'p>(
    members: impl Iterator<Item = &'p SweepMember> + Clone,
    tile: Tile,
) -> impl Iterator<Item = MemberBatch<'p>> {
    let mut left = members.peekable();
    let mut first = true;
    std::iter::from_fn(move || {
        let one = left.next()?;
        let mut batch = MemberBatch { members: [one; MAX_STREAMS], n: 1, tile, first, last: false };
        while batch.n < MAX_STREAMS {
            let Some(member) = left.next() else { break };
            batch.members[batch.n] = member;
            batch.n += 1;
        }
        (first, batch.last) = (false, left.peek().is_none());
        Some(batch)
    })
}

/// The tile after this one in the same group; exact but for the width where a row begins.
fn after(tile: &Tile, [rows, cols]: [usize; 2]) -> Option<Tile> {
    let col = tile.col + tile.cols;
    if col < cols {
        return Some(Tile { col, cols: tile.cols.min(cols - col), ..*tile });
    }
    let row = tile.row + tile.rows;
    (row < rows).then(|| Tile { row, rows: tile.rows.min(rows - row), col: 0, ..*tile })
}

impl Sweep<'_> {
    fn takes_part(&self, member: &SweepMember, what: Summed) -> bool {
        match what {
            Summed::Gradients => self.param_steps[member.param].active,
            Summed::Values => self.param_steps[member.param].synced,
        }
    }

    /// The passes that sum a tile: strip by strip over the transposed members, then over the
    /// others.
    fn sums<'p>(
        &'p self,
        members: &'p [SweepMember],
        tile: &Tile,
        what: Summed,
    ) -> impl Iterator<Item = MemberBatch<'p>> + 'p {
        let tile = *tile;
        let members = members.iter().filter(move |p| self.takes_part(p, what));
        let transposed = members.clone().filter(|p| p.view.transposed);
        let untransposed = members.filter(|p| !p.view.transposed);
        let strips = strips(tile, transposed.clone().next().is_some());
        strips
            .flat_map(move |strip| batches(transposed.clone(), strip))
            .chain(batches(untransposed, tile))
    }

    /// What of a member is read; `None` where it has to be converted first.
    fn source(&self, member: &SweepMember, what: Summed) -> Option<*const f32> {
        let buffers = &self.buffers[member.param];
        match what {
            Summed::Values => Some(buffers.p),
            Summed::Gradients => is_direct(buffers, self.param_steps[member.param].clip_value)
                .then(|| buffers.g.cast()),
        }
    }

    /// The memory of a pass; `None` where a member's has to be converted first.
    fn streams(&self, batch: &MemberBatch<'_>, what: Summed) -> Option<Streams> {
        let (runs, len) = batch.members[0].view.runs_of(&batch.tile);
        let mut streams = Streams { runs, len, ..Streams::NONE };
        for k in 0..MAX_STREAMS {
            let member = batch.members[k];
            let at = member.view.first(&batch.tile);
            streams.from[k] = self.source(member, what)?.wrapping_add(at);
            streams.ld[k] = member.view.ld;
        }
        Some(streams)
    }

    fn ahead(&self, batch: Option<&MemberBatch<'_>>, what: Summed) -> Option<Streams> {
        self.streams(batch?, what)
    }

    /// One pass of a sum into `out`, which lies as the members' storage does, its runs a
    /// [`pitch`] apart.
    ///
    /// # Safety
    /// As `Sweep::run`.
    unsafe fn add(
        &self,
        batch: &MemberBatch<'_>,
        what: Summed,
        begun: bool,
        load: &mut [f32],
        out: &mut [f32],
        then: &Streams,
    ) {
        let weight = |member: &SweepMember| {
            if what == Summed::Values { member.average_weight } else { member.share_weight }
        };
        if let Some(streams) = self.streams(batch, what) {
            let out_ld = pitch(streams.len);
            debug_assert!(out.len() + out_ld >= streams.runs * out_ld + streams.len);
            let weights = batch.members.map(weight);
            let sum = Sum { streams, n: batch.n, weights, out: out.as_mut_ptr(), out_ld, begun };
            // SAFETY: the caller's promise; `out` is as large as the tile.
            unsafe { sum_runs(self.build, &sum, then) };
            return;
        }
        for (i, member) in batch.members().iter().enumerate() {
            let (buffers, clip_value) =
                (&self.buffers[member.param], self.param_steps[member.param].clip_value);
            member.view.for_runs_at(
                &batch.tile,
                pitch(member.view.runs_of(&batch.tile).1),
                |offset, at, n| {
                    // SAFETY: the caller's promise.
                    let g = unsafe { gradient(self.build, buffers, clip_value, offset, n, load) };
                    let out = &mut out[at..at + n];
                    if i == 0 && !begun {
                        weighted_sum::scaled_copy(self.build, out, member.share_weight, g);
                    } else {
                        weighted_sum::axpy(self.build, out, member.share_weight, g);
                    }
                },
            );
        }
    }

    /// Sums something over the members into the worker's tile.
    ///
    /// # Safety
    /// As `Sweep::run`.
    unsafe fn gather(
        &self,
        s: &mut Scratch,
        members: &[SweepMember],
        tile: &Tile,
        what: Summed,
        then: &Streams,
    ) {
        let Scratch { tiles, strip, load, .. } = s;
        let mut passes = self.sums(members, tile, what).peekable();
        let mut begun = false;
        while let Some(batch) = passes.next() {
            let next = self.ahead(passes.peek(), what).unwrap_or(*then);
            if !batch.transposed() {
                // SAFETY: the caller's promise.
                unsafe { self.add(&batch, what, begun, load, tiles, &next) };
                begun = true;
                continue;
            }
            // SAFETY: the caller's promise.
            unsafe { self.add(&batch, what, !batch.first, load, strip, &next) };
            if batch.last {
                let rectangle =
                    Rectangle { rows: batch.tile.cols, cols: tile.rows, ld: pitch(tile.rows) };
                let into = &mut tiles[batch.tile.col - tile.col..];
                transpose::transpose(self.build, strip, rectangle, into, pitch(tile.cols));
                begun = true;
            }
        }
    }

    /// A strip of the group's tile in a transposed member's storage order.
    fn transpose_strip<'s>(
        &self,
        tiles: &[f32],
        tile: &Tile,
        sub: &Tile,
        strip: &'s mut [f32],
    ) -> &'s [f32] {
        let rectangle = Rectangle { rows: tile.rows, cols: sub.cols, ld: pitch(tile.cols) };
        let from = &tiles[sub.col - tile.col..];
        transpose::transpose(self.build, from, rectangle, strip, pitch(tile.rows));
        strip
    }

    /// The passes that use a sum on its members: backwards, because what was read last is still
    /// in the cache; then strip by strip on the transposed ones.
    fn uses<'p>(
        &'p self,
        members: &'p [SweepMember],
        tile: &Tile,
        what: Summed,
    ) -> impl Iterator<Item = (&'p SweepMember, Tile)> + 'p {
        let tile = *tile;
        // What another process updates gives its gradient to the sum and takes nothing.
        let here =
            move |p: &&SweepMember| what == Summed::Values || self.param_steps[p.param].state_here;
        let members = members.iter().rev().filter(move |p| self.takes_part(p, what)).filter(here);
        let transposed = members.clone().filter(|p| p.view.transposed);
        let untransposed = members.filter(|p| !p.view.transposed).map(move |p| (p, tile));
        let strips = strips(tile, transposed.clone().next().is_some());
        untransposed
            .chain(strips.flat_map(move |strip| transposed.clone().map(move |p| (p, strip))))
    }

    /// Calls `f(member, tile, sum, scratch, next)` for each use of the sum in the worker's tile.
    fn spread(
        &self,
        s: &mut Scratch,
        members: &[SweepMember],
        tile: &Tile,
        what: Summed,
        mut f: impl FnMut(
            &SweepMember,
            &Tile,
            &[f32],
            &mut [&mut [f32]; 4],
            Option<(&SweepMember, Tile)>,
        ),
    ) {
        let Scratch { tiles, strip, load, m, v, x } = s;
        let mut blocks = [&mut load[..], &mut m[..], &mut v[..], &mut x[..]];
        let mut passes = self.uses(members, tile, what).peekable();
        let mut in_strip = None;
        while let Some((member, sub)) = passes.next() {
            let next = passes.peek().copied();
            if !member.view.transposed {
                f(member, &sub, tiles, &mut blocks, next);
                continue;
            }
            if in_strip != Some(sub) {
                self.transpose_strip(tiles, tile, &sub, strip);
                in_strip = Some(sub);
            }
            f(member, &sub, strip, &mut blocks, next);
        }
    }

    /// Mixes and updates a tile with one gradient for the whole group.
    ///
    /// # Safety
    /// As `Sweep::run`.
    pub(in crate::optim) unsafe fn update_shared(
        &self,
        s: &mut Scratch,
        members: &[SweepMember],
        tile: &Tile,
        alpha: f32,
    ) {
        let none = Streams::NONE;
        let first = self.uses(members, tile, Summed::Gradients).next();
        let then = first.map_or(none, |(member, tile)| self.update_streams(member, &tile));
        // SAFETY: the caller's promise.
        unsafe { self.gather(s, members, tile, Summed::Gradients, &then) };
        let following = after(tile, members[0].view.shape())
            .and_then(|t| {
                self.ahead(
                    self.sums(members, &t, Summed::Gradients).next().as_ref(),
                    Summed::Gradients,
                )
            })
            .unwrap_or(none);
        self.spread(s, members, tile, Summed::Gradients, |member, sub, sum, blocks, next| {
            let then = next.map_or(following, |(member, tile)| self.update_streams(member, &tile));
            // SAFETY: the caller's promise.
            unsafe { self.update_tile(blocks, member, sub, Some((sum, alpha)), &then) };
        });
    }

    /// p ← (1−β) p + β Σ weight·p over the members that are synchronised.
    ///
    /// # Safety
    /// As `Sweep::run`.
    pub(in crate::optim) unsafe fn synchronise(
        &self,
        s: &mut Scratch,
        members: &[SweepMember],
        tile: &Tile,
        beta: f32,
    ) {
        let values = |member: &SweepMember, tile: &Tile| {
            let (runs, len) = member.view.runs_of(tile);
            let p = self.buffers[member.param].p.wrapping_add(member.view.first(tile));
            Streams { from: [p; MAX_STREAMS], ld: [member.view.ld; MAX_STREAMS], runs, len }
        };
        let first = self.uses(members, tile, Summed::Values).next();
        let then = first.map_or(Streams::NONE, |(member, tile)| values(member, &tile));
        // SAFETY: the caller's promise.
        unsafe { self.gather(s, members, tile, Summed::Values, &then) };
        let factors = [(1.0 - f64::from(beta)) as f32, beta];
        self.spread(s, members, tile, Summed::Values, |member, sub, average, _, next| {
            let then = next.map_or(Streams::NONE, |(member, tile)| values(member, &tile));
            // SAFETY: the caller's promise.
            unsafe {
                let values = values(member, sub);
                let average = (average, pitch(values.len));
                lerp_runs(self.build, &values, factors, average, &then);
            }
        });
    }
}
