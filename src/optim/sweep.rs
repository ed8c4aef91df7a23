//! The one walk over memory: gradients are read, mixed, and used, and parameters are updated and
//! synchronised, tile by tile, so that nothing leaves the cache in between.
//!
//! A *lane* is the memory of one parameter. An *item* is a piece of work whose edges depend on
//! the parameters alone; items touch disjoint elements, so any thread may take any item.

use super::kernel::runs::{Runs, adamw_runs, sum_runs};
use super::kernel::update::Formula;
use super::kernel::update::{Coef, Gradient, Stretch, update};
use super::kernel::{Build, convert, mix, prefetch, reduce};
use super::lane::{Lane, Scratch, gradient, is_direct, wide};
use super::view::{BLOCK, Tile, View};

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
                    Mix::Apart => self.update_parts(s, parts, tile, None),
                    Mix::Common { pull } => {
                        self.group_gradient(s, parts, tile);
                        self.update_parts(s, parts, tile, Some(pull));
                    }
                    Mix::Dense { at, k } => self.update_dense(s, parts, tile, at, k),
                }
            }
            if bundle.beta != 0.0 {
                self.synchronise(s, parts, tile, bundle.beta);
            }
        }
    }

    /// Leaves Σ weight·g in tile 0, and its transpose in tile 1 where a member needs it.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn group_gradient(&self, s: &mut Scratch, parts: &[Part], tile: &Tile) {
        let read = |part: &Part, at: usize, n: usize, load: &mut [f32], out: &mut [f32], first| {
            let bound = self.own[part.param].bound;
            // SAFETY: the caller's promise.
            let g = unsafe { gradient(self.build, &self.lanes[part.param], bound, at, n, load) };
            if first {
                mix::set_scaled(self.build, out, part.weight, g);
            } else {
                mix::add_scaled(self.build, out, part.weight, g);
            }
        };
        let active = |p: &Part| self.own[p.param].active;
        let direct = |p: &Part| {
            let lane = &self.lanes[p.param];
            let f32s = is_direct(lane, self.own[p.param].bound);
            f32s.then_some((lane.g.cast::<f32>(), p.weight))
        };
        self.sum(&mut s.tiles, &mut s.load, parts, tile, active, direct, read);
    }

    /// Sums something over the members into tile 0 (and 1, transposed): straight members first,
    /// then transposed ones, each in the members' order.
    #[allow(clippy::too_many_arguments)]
    fn sum(
        &self,
        tiles: &mut [f32],
        load: &mut [f32],
        parts: &[Part],
        tile: &Tile,
        takes_part: impl Fn(&Part) -> bool,
        direct: impl Fn(&Part) -> Option<(*const f32, f32)>,
        read: impl Fn(&Part, usize, usize, &mut [f32], &mut [f32], bool),
    ) {
        let n = tile.rows * tile.cols;
        let (straight, turned) = tiles.split_at_mut(n);
        let mut any = [false; 2];
        for (i, part) in parts.iter().enumerate().filter(|(_, p)| takes_part(p)) {
            let next = parts.get(i + 1).map(|p| (p, p.view.first(tile)));
            if let Some((p, offset)) = next {
                glance(&self.lanes[p.param], offset);
            }
            let side = usize::from(part.view.transposed);
            let out: &mut [f32] = if side == 0 { straight } else { &mut turned[..n] };
            if let Some((from, w)) = direct(part) {
                let from = from.wrapping_add(part.view.first(tile));
                let (_, len) = part.view.runs_of(tile);
                let set = !any[side];
                // SAFETY: `direct` gives memory that the lane's owner vouches for.
                unsafe { sum_runs(self.build, &mut out[..n], w, from, part.view.ld, len, set) };
            } else {
                part.view.for_runs(tile, |offset, at, len| {
                    read(part, offset, len, load, &mut out[at..at + len], !any[side]);
                });
            }
            any[side] = true;
        }
        if any[1] {
            let turned = &mut turned[..n];
            mix::transpose(self.build, turned, tile.cols, tile.rows, straight, any[0]);
            mix::transpose(self.build, straight, tile.rows, tile.cols, turned, false);
        }
    }

    /// Updates all active members, with the group's gradient from the tiles if there is a pull.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn update_parts(&self, s: &mut Scratch, parts: &[Part], tile: &Tile, pull: Option<f32>) {
        let n_tile = tile.rows * tile.cols;
        let Scratch { tiles, load, m, v, x } = s;
        // Backwards: the gradients that were read last are still in the cache.
        for (i, part) in parts.iter().enumerate().rev() {
            let own = self.own[part.param];
            if !own.active {
                continue;
            }
            if let Some(next) = i.checked_sub(1).map(|i| &parts[i]) {
                ahead(&self.lanes[next.param], next.view.first(tile), HEAD);
            }
            let start = if part.view.transposed { n_tile } else { 0 };
            let lane = &self.lanes[part.param];
            if self.is_fast(part.param) {
                let group = pull.map(|pull| (&tiles[start..start + n_tile], pull));
                let own = if pull.is_some() { part.own } else { own.scale };
                // SAFETY: the caller's promise.
                unsafe { self.update_runs(part, tile, lane.g.cast(), own, group) };
                continue;
            }
            part.view.for_runs(tile, |offset, at, n| {
                // SAFETY: the caller's promise.
                unsafe {
                    let g = gradient(self.build, lane, own.bound, offset, n, load);
                    let g = match pull {
                        None => Gradient { g, own: own.scale, group: None },
                        Some(pull) => {
                            let group = &tiles[start + at..start + at + n];
                            Gradient { g, own: part.own, group: Some((group, pull)) }
                        }
                    };
                    self.apply(part.param, offset, n, g, m, v, x);
                }
            });
        }
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
            debug_assert_eq!(group.len(), runs.runs * runs.len);
            (runs.group, pull) = (group.as_ptr(), p);
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
                mix::transpose(self.build, spare, tile.cols, tile.rows, slot, false);
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
                mix::transpose(self.build, slot, tile.rows, tile.cols, spare, false);
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
        let direct = |p: &Part| Some((self.lanes[p.param].p.cast_const(), p.anchor));
        self.sum(&mut s.tiles, &mut s.load, parts, tile, takes_part, direct, read);
        let n_tile = tile.rows * tile.cols;
        let keep = (1.0 - f64::from(beta)) as f32;
        for part in parts.iter().filter(|p| takes_part(p)) {
            let start = if part.view.transposed { n_tile } else { 0 };
            part.view.for_runs(tile, |offset, at, n| {
                let average = &s.tiles[start + at..start + at + n];
                // SAFETY: the caller's promise.
                let p = unsafe {
                    std::slice::from_raw_parts_mut(self.lanes[part.param].p.add(offset), n)
                };
                mix::pull(self.build, p, keep, beta, average);
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
        // SAFETY: the caller's promise.
        let n_tile = unsafe { self.load_tiles(s, parts, tile, k) };
        let tile_of = |i: usize| &s.tiles[i * n_tile..(i + 1) * n_tile];
        out.fill(0.0);
        let active = |i: &usize| self.own[parts[*i].param].active;
        for (a, i) in (0..bundle.n).filter(active).enumerate() {
            for (b, j) in (0..bundle.n).filter(active).enumerate().skip(a) {
                out[i * bundle.n + j] = reduce::dot(self.build, tile_of(a), tile_of(b));
            }
        }
    }
}

/// Elements at a run's start that are asked for early; the processor finds the rest itself.
const HEAD: usize = 256;

/// Asks for the memory of the next update while this one is worked on.
#[inline(always)]
fn ahead(lane: &Lane, offset: usize, n: usize) {
    let n = n.min(HEAD);
    prefetch(lane.p.wrapping_add(offset), n);
    prefetch(lane.m.cast::<f32>().wrapping_add(offset), n);
    prefetch(lane.v.cast::<f32>().wrapping_add(offset), n);
}

/// Asks for the start of a gradient run.
#[inline(always)]
fn glance(lane: &Lane, offset: usize) {
    prefetch(lane.g.cast::<f32>().wrapping_add(offset), 128);
}
