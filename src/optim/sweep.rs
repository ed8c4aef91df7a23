//! The one walk over memory: gradients are read, mixed, and used, and parameters are updated and
//! synchronised, tile by tile, so that nothing leaves the cache in between.
//!
//! A *lane* is the memory of one parameter. An *item* is a piece of work whose edges depend on
//! the parameters alone; items touch disjoint elements, so any thread may take any item.

use super::kernel::runs::{AHEAD, Runs, adamw_runs, distance};
use super::kernel::turn::Place;
use super::kernel::update::Formula;
use super::kernel::update::{Coef, Gradient, Stretch, update};
use super::kernel::{Build, convert, mix, prefetch, reduce, turn};
use super::lane::{Lane, Scratch, gradient, is_direct, wide};
use super::layout::close_elements;
use super::view::{BLOCK, STRIP, Tile, View, whole};
use crate::tensor::DType;

/// What one parameter does in this step.
#[derive(Clone, Copy)]
pub(crate) struct Own {
    /// Whether it is updated.
    pub active: bool,
    /// Whether it is synchronised.
    pub synced: bool,
    /// Factor on its gradient: accumulation and clipping.
    pub scale: f32,
    /// Elements are clamped to ± this before the factor; infinity does nothing.
    pub bound: f32,
}

/// A member of a group, with its factors in this step.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    /// Index among all parameters of all models.
    pub param: usize,
    pub model: usize,
    pub view: View,
    /// Factor of its gradient in the group's.
    pub weight: f32,
    /// Factor of its own gradient in its mixed one.
    pub own: f32,
    /// Factor of its value in the group's average.
    pub anchor: f32,
}

/// How a group mixes in this step.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Mix {
    /// Everyone for himself.
    Apart,
    /// own·g + pull·G with one G for all.
    Common { pull: f32 },
    /// A matrix over the active members, `k`² numbers from `at` in [`Sweep::dense`].
    Dense { at: usize, k: usize },
}

/// Members `first..first + n` share tiles of one logical shape.
#[derive(Clone, Copy)]
pub(crate) struct Bundle {
    pub first: usize,
    pub n: usize,
    pub mix: Mix,
    /// Pull towards the average; 0 does not synchronise.
    pub beta: f32,
}

/// A piece of work.
#[derive(Clone, Copy)]
pub(crate) enum Item {
    Flat { param: usize, start: usize, len: usize },
    Tile { bundle: usize, tile: Tile },
}

/// Everything a worker needs, read-only but for the lanes' memory.
pub(crate) struct Sweep<'a> {
    pub build: Build,
    pub lanes: &'a [Lane],
    pub own: &'a [Own],
    pub coefs: &'a [Coef],
    pub parts: &'a [Part],
    pub bundles: &'a [Bundle],
    pub dense: &'a [f32],
    /// Seed of the rounding when moments are bfloat16.
    pub narrow: Option<u32>,
    /// False walks without updating: synchronisation alone.
    pub updates: bool,
}

impl Sweep<'_> {
    /// # Safety
    /// Every lane in use must be valid for its length, and nobody else may touch it meanwhile.
    pub unsafe fn run(&self, s: &mut Scratch, item: &Item) {
        match *item {
            // SAFETY: the caller's promise.
            Item::Flat { param, start, len } => unsafe { self.flat(s, param, start, len) },
            // SAFETY: the caller's promise.
            Item::Tile { bundle, tile } => unsafe { self.tile(s, bundle, &tile) },
        }
    }

    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn flat(&self, s: &mut Scratch, param: usize, start: usize, len: usize) {
        let own = self.own[param];
        if !own.active || !self.updates {
            return;
        }
        let lane = &self.lanes[param];
        let direct = is_direct(lane, own.bound) && self.narrow.is_none();
        let block = if direct { len } else { BLOCK };
        let mut at = start;
        while at < start + len {
            let n = block.min(start + len - at);
            // SAFETY: the caller's promise.
            unsafe {
                let g = gradient(self.build, lane, own.bound, at, n, &mut s.load);
                let g = Gradient { g, own: own.scale, group: None };
                self.apply(param, at, n, g, &mut s.m, &mut s.v, &mut s.x);
            }
            at += n;
        }
    }

    /// Updates `n` elements from `at` with a gradient that is already in hand.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    #[allow(clippy::too_many_arguments)]
    unsafe fn apply(
        &self,
        param: usize,
        at: usize,
        n: usize,
        g: Gradient<'_>,
        m: &mut [f32],
        v: &mut [f32],
        x: &mut [f32],
    ) {
        let (lane, coef) = (&self.lanes[param], &self.coefs[param]);
        // SAFETY: the element range lies in the lane, and no other item has it.
        let p = unsafe { std::slice::from_raw_parts_mut(lane.p.add(at), n) };
        let Some(seed) = self.narrow else {
            // SAFETY: as above; the moments are f32.
            let (m, v, x) =
                unsafe { (wide(lane.m, at, n), wide(lane.v, at, n), wide(lane.x, at, n)) };
            update(self.build, coef, g, Stretch { p, m, v, x });
            return;
        };
        let seed = seed ^ (param as u32).wrapping_mul(0x85eb_ca6b);
        let mut moments = [(lane.m, m, 0), (lane.v, v, 1), (lane.x, x, 2)];
        for (from, to, _) in &mut moments {
            if !from.is_null() {
                // SAFETY: as above; the moments are bfloat16.
                let raw = unsafe { std::slice::from_raw_parts(from.cast::<u16>().add(at), n) };
                convert::from_bf16(self.build, raw, &mut to[..n]);
            }
        }
        let used = |lane: *mut u8| if lane.is_null() { 0 } else { n };
        let (nm, nv, nx) = (used(lane.m), used(lane.v), used(lane.x));
        {
            let [(_, m, _), (_, v, _), (_, x, _)] = &mut moments;
            let s = Stretch { p, m: &mut m[..nm], v: &mut v[..nv], x: &mut x[..nx] };
            update(self.build, coef, g, s);
        }
        for (to, from, salt) in &moments {
            if !to.is_null() {
                // SAFETY: as above.
                let raw = unsafe { std::slice::from_raw_parts_mut(to.cast::<u16>().add(at), n) };
                let seed = seed.wrapping_add(*salt);
                convert::to_bf16(self.build, &from[..n], at as u32, seed, raw);
            }
        }
    }

    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn tile(&self, s: &mut Scratch, bundle: usize, tile: &Tile) {
        let bundle = self.bundles[bundle];
        let parts = &self.parts[bundle.first..bundle.first + bundle.n];
        // SAFETY: the caller's promise.
        unsafe {
            if self.updates {
                match bundle.mix {
                    Mix::Apart => self.update_apart(s, parts, tile),
                    Mix::Common { pull } => self.update_common(s, parts, tile, pull),
                    Mix::Dense { at, k } => {
                        for sub in close_tiles(tile, k) {
                            self.update_dense(s, parts, &sub, at, k);
                        }
                    }
                }
            }
            if bundle.beta != 0.0 {
                self.synchronise(s, parts, tile, bundle.beta);
            }
        }
    }

    /// Adds one member's share of the group's gradient: `n` elements from `at`.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn add_gradient(
        &self,
        part: &Part,
        at: usize,
        n: usize,
        load: &mut [f32],
        out: &mut [f32],
        first: bool,
    ) {
        let (lane, bound) = (&self.lanes[part.param], self.own[part.param].bound);
        // SAFETY: the caller's promise.
        let g = unsafe { gradient(self.build, lane, bound, at, n, load) };
        if first {
            mix::set_scaled(self.build, out, part.weight, g);
        } else {
            mix::add_scaled(self.build, out, part.weight, g);
        }
        glance(lane, at + distance(n) * part.view.ld, n);
    }

    /// Sums something over the turned members into the tile, in the members' order; false when
    /// there are none. `add(member, offset, n, block, out, first)` writes or adds `n` elements
    /// from `offset`.
    fn sum_turned<'p>(
        &self,
        s: &mut Scratch,
        parts: impl Iterator<Item = &'p Part> + Clone,
        tile: &Tile,
        add: impl Fn(&Part, usize, usize, &mut [f32], &mut [f32], bool),
    ) -> bool {
        let Scratch { tiles, strip, load, .. } = s;
        let turned = parts.filter(|p| p.view.transposed);
        if turned.clone().next().is_none() {
            return false;
        }
        for sub in tile.cut(tile.rows, STRIP) {
            for (i, part) in turned.clone().enumerate() {
                part.view.for_runs(&sub, |offset, at, n| {
                    add(part, offset, n, load, &mut strip[at..at + n], i == 0);
                });
            }
            let strip = &strip[..sub.cols * tile.rows];
            let (place, into) =
                (Place::dense(sub.cols, tile.rows), &mut tiles[sub.col - tile.col..]);
            turn::transpose(self.build, strip, place, into, tile.cols, false);
        }
        true
    }

    /// Adds something over the straight members to the tile, in the members' order; `begun` when
    /// it holds a sum already. `add` is as in [`Sweep::sum_turned`]; `ask` may
    /// ask for the memory of the member after.
    fn sum_straight<'p>(
        s: &mut Scratch,
        parts: impl Iterator<Item = &'p Part>,
        tile: &Tile,
        begun: bool,
        ask: impl Fn(&Part),
        add: impl Fn(&Part, usize, usize, &mut [f32], &mut [f32], bool),
    ) {
        let mut members = parts.filter(|p| !p.view.transposed).enumerate().peekable();
        while let Some((i, part)) = members.next() {
            if let Some((_, next)) = members.peek() {
                ask(next);
            }
            part.view.for_runs(tile, |offset, at, n| {
                add(part, offset, n, &mut s.load, &mut s.tiles[at..at + n], i == 0 && !begun);
            });
        }
    }

    /// Mixes and updates a tile with one gradient for the whole group.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn update_common(&self, s: &mut Scratch, parts: &[Part], tile: &Tile, pull: f32) {
        let active = parts.iter().filter(|p| self.own[p.param].active);
        let add = |part: &Part, at: usize, n: usize, load: &mut [f32], out: &mut [f32], first| {
            // SAFETY: the caller's promise.
            unsafe { self.add_gradient(part, at, n, load, out, first) };
        };
        let begun = self.sum_turned(s, active.clone(), tile, add);
        let ask = |p: &Part| {
            glance(&self.lanes[p.param], p.view.first(tile), p.view.runs_of(tile).1.min(AHEAD));
        };
        Self::sum_straight(s, active.clone(), tile, begun, ask, add);
        let Scratch { tiles, strip, load, m, v, x } = s;
        let mut buffers = [load, m, v, x];
        // Backwards: the gradients that were read last are still in the cache.
        let mut straight = active.clone().rev().filter(|p| !p.view.transposed).peekable();
        while let Some(part) = straight.next() {
            if let Some(next) = straight.peek() {
                self.ahead(next, tile);
            }
            // SAFETY: the caller's promise.
            unsafe { self.update_tile(&mut buffers, part, tile, Some((tiles, pull))) };
        }
        for part in active.rev().filter(|p| p.view.transposed) {
            for sub in tile.cut(tile.rows, STRIP) {
                let group = self.turn(tiles, tile, &sub, strip);
                // SAFETY: the caller's promise.
                unsafe { self.update_tile(&mut buffers, part, &sub, Some((group, pull))) };
            }
        }
    }

    /// Asks for the start of a member's tile while another's is worked on.
    fn ahead(&self, part: &Part, tile: &Tile) {
        let (lane, first) = (&self.lanes[part.param], part.view.first(tile));
        let n = AHEAD.min(part.view.runs_of(tile).1);
        prefetch(lane.p.wrapping_add(first), n);
        if self.narrow.is_none() {
            prefetch(lane.m.cast::<f32>().wrapping_add(first), n);
            prefetch(lane.v.cast::<f32>().wrapping_add(first), n);
        }
    }

    /// A strip of the group's tile in a turned member's storage order.
    fn turn<'s>(&self, tiles: &[f32], tile: &Tile, sub: &Tile, strip: &'s mut [f32]) -> &'s [f32] {
        let strip = &mut strip[..sub.cols * tile.rows];
        let place = Place { rows: tile.rows, cols: sub.cols, ld: tile.cols };
        let from = &tiles[sub.col - tile.col..];
        turn::transpose(self.build, from, place, strip, tile.rows, false);
        strip
    }

    /// Updates a tile of every active member with its own gradient.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn update_apart(&self, s: &mut Scratch, parts: &[Part], tile: &Tile) {
        let mut buffers = [&mut s.load, &mut s.m, &mut s.v, &mut s.x];
        for part in parts.iter().filter(|p| self.own[p.param].active) {
            // SAFETY: the caller's promise.
            unsafe { self.update_tile(&mut buffers, part, tile, None) };
        }
    }

    /// Updates a tile of one member; `group` is in the storage's orientation, dense.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn update_tile(
        &self,
        [load, m, v, x]: &mut [&mut Vec<f32>; 4],
        part: &Part,
        tile: &Tile,
        group: Option<(&[f32], f32)>,
    ) {
        let (own, lane) = (self.own[part.param], &self.lanes[part.param]);
        let factor = if group.is_some() { part.own } else { own.scale };
        if self.is_fast(part.param) {
            // SAFETY: the caller's promise.
            unsafe { self.update_runs(part, tile, lane.g.cast(), factor, group) };
            return;
        }
        part.view.for_runs(tile, |offset, at, n| {
            // SAFETY: the caller's promise.
            unsafe {
                let g = gradient(self.build, lane, own.bound, offset, n, load);
                let group = group.map(|(group, pull)| (&group[at..at + n], pull));
                self.apply(part.param, offset, n, Gradient { g, own: factor, group }, m, v, x);
            }
        });
    }

    /// Whether the runs kernel updates this parameter once its gradient is f32 in memory.
    fn is_plain(&self, param: usize) -> bool {
        self.narrow.is_none() && self.coefs[param].formula == Formula::AdamW
    }

    /// As [`Sweep::is_plain`], with a gradient that is f32 in the lane.
    fn is_fast(&self, param: usize) -> bool {
        self.is_plain(param) && is_direct(&self.lanes[param], self.own[param].bound)
    }

    /// A tile's runs of a lane; `g` is the lane's gradient.
    fn runs(&self, part: &Part, tile: &Tile, g: *const f32) -> Runs {
        let lane = &self.lanes[part.param];
        let first = part.view.first(tile);
        let (runs, len) = part.view.runs_of(tile);
        Runs {
            p: lane.p.wrapping_add(first),
            m: lane.m.cast::<f32>().wrapping_add(first),
            v: lane.v.cast::<f32>().wrapping_add(first),
            ld: part.view.ld,
            g: g.wrapping_add(first),
            g_ld: part.view.ld,
            group: std::ptr::null(),
            runs,
            len,
            more: 0,
        }
    }

    /// AdamW over a tile with the lane's own gradient and perhaps the group's.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn update_runs(
        &self,
        part: &Part,
        tile: &Tile,
        g: *const f32,
        own: f32,
        group: Option<(&[f32], f32)>,
    ) {
        let mut runs = self.runs(part, tile, g);
        let mut pull = 0.0;
        if let Some((group, p)) = group {
            debug_assert!(group.len() >= runs.runs * runs.len);
            (runs.group, pull) = (group.as_ptr(), p);
            runs.more = if part.view.runs > 1 { STRIP } else { 0 };
        }
        // SAFETY: the caller's promise.
        unsafe { adamw_runs(self.build, &self.coefs[part.param], own, pull, &runs) };
    }

    /// AdamW over a tile with a gradient in hand, in the storage's orientation.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn update_from(&self, part: &Part, tile: &Tile, mixed: &[f32]) {
        let mut runs = self.runs(part, tile, mixed.as_ptr());
        (runs.g, runs.g_ld) = (mixed.as_ptr(), runs.len);
        // SAFETY: the caller's promise.
        unsafe { adamw_runs(self.build, &self.coefs[part.param], 1.0, 0.0, &runs) };
    }

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
    unsafe fn update_dense(
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

    /// p ← (1−β) p + β Σ anchor·p over the members that are synchronised.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn synchronise(&self, s: &mut Scratch, parts: &[Part], tile: &Tile, beta: f32) {
        let takes_part = |p: &Part| self.own[p.param].synced;
        let read = |part: &Part, at: usize, n: usize, _: &mut [f32], out: &mut [f32], first| {
            // SAFETY: the caller's promise.
            let p = unsafe { std::slice::from_raw_parts(self.lanes[part.param].p.add(at), n) };
            if first {
                mix::set_scaled(self.build, out, part.anchor, p);
            } else {
                mix::add_scaled(self.build, out, part.anchor, p);
            }
        };
        let taking = parts.iter().filter(|p| takes_part(p));
        let begun = self.sum_turned(s, taking.clone(), tile, read);
        Self::sum_straight(s, taking, tile, begun, |_| (), read);
        let keep = (1.0 - f64::from(beta)) as f32;
        let pull = |part: &Part, tile: &Tile, average: &[f32]| {
            part.view.for_runs(tile, |offset, at, n| {
                let p = self.lanes[part.param].p.wrapping_add(offset);
                // SAFETY: the caller's promise.
                let p = unsafe { std::slice::from_raw_parts_mut(p, n) };
                mix::pull(self.build, p, keep, beta, &average[at..at + n]);
            });
        };
        for part in parts.iter().filter(|p| takes_part(p)) {
            if !part.view.transposed {
                pull(part, tile, &s.tiles);
                continue;
            }
            for sub in tile.cut(tile.rows, STRIP) {
                pull(part, &sub, self.turn(&s.tiles, tile, &sub, &mut s.strip));
            }
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
fn close_tiles(tile: &Tile, k: usize) -> impl Iterator<Item = Tile> {
    let elements = close_elements(k);
    let cols = if tile.rows == 1 {
        elements
    } else {
        (if elements >= 8192 { 128 } else { 16 }).min(tile.cols)
    };
    tile.cut(whole((elements / cols).max(1), 64), cols)
}

/// Asks for a gradient run.
#[inline(always)]
fn glance(lane: &Lane, offset: usize, n: usize) {
    if lane.g_type == DType::F32 && n < BLOCK {
        prefetch(lane.g.cast::<f32>().wrapping_add(offset), n);
    }
}
