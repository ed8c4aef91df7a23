//! The one walk over memory: gradients are read, mixed, and used, and parameters are updated and
//! synchronised, tile by tile, so that nothing leaves the cache in between.
//!
//! A *lane* is the memory of one parameter. An *item* is a piece of work whose edges depend on
//! the parameters alone; items touch disjoint elements, so any thread may take any item.

pub(in crate::optim) mod matrix;
pub(in crate::optim) mod mixing_matrix;
pub(in crate::optim) mod orthogonalise;
pub(in crate::optim) mod pointers;
pub(in crate::optim) mod product;
pub(in crate::optim) mod share;
pub(in crate::optim) mod tiling;

use crate::optim::kernel::prefetch::{FAN, Streams};
use crate::optim::kernel::runs::{Runs, adamw_runs};
use crate::optim::kernel::update::Formula;
use crate::optim::kernel::update::{Coef, Gradient, Stretch, update};
use crate::optim::kernel::{Build, convert};
use crate::optim::plan::view::{BLOCK, Tile, View, pitch};
use crate::optim::sweep::pointers::{Lane, Scratch, gradient, is_direct, wide};

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
    pub(in crate::optim) unsafe fn apply(
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
                    Mix::Dense { at, k } => self.update_dense(s, parts, tile, at, k),
                }
            }
            if bundle.beta != 0.0 {
                self.synchronise(s, parts, tile, bundle.beta);
            }
        }
    }

    /// Updates a tile of every active member with its own gradient.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    unsafe fn update_apart(&self, s: &mut Scratch, parts: &[Part], tile: &Tile) {
        let mut buffers = [&mut s.load[..], &mut s.m[..], &mut s.v[..], &mut s.x[..]];
        for part in parts.iter().filter(|p| self.own[p.param].active) {
            // SAFETY: the caller's promise.
            unsafe { self.update_tile(&mut buffers, part, tile, None, &Streams::NONE) };
        }
    }

    /// Updates a tile of one member; `group` is in the storage's orientation, its runs a
    /// [`pitch`] apart.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    pub(in crate::optim) unsafe fn update_tile(
        &self,
        [load, m, v, x]: &mut [&mut [f32]; 4],
        part: &Part,
        tile: &Tile,
        group: Option<(&[f32], f32)>,
        then: &Streams,
    ) {
        let (own, lane) = (self.own[part.param], &self.lanes[part.param]);
        let factor = if group.is_some() { part.own } else { own.scale };
        if self.is_fast(part.param) {
            // SAFETY: the caller's promise.
            unsafe { self.update_runs(part, tile, factor, group, then) };
            return;
        }
        let buffer_ld = pitch(part.view.runs_of(tile).1);
        part.view.for_runs_at(tile, buffer_ld, |offset, at, n| {
            // SAFETY: the caller's promise.
            unsafe {
                let g = gradient(self.build, lane, own.bound, offset, n, load);
                let group = group.map(|(group, pull)| (&group[at..at + n], pull));
                self.apply(part.param, offset, n, Gradient { g, own: factor, group }, m, v, x);
            }
        });
    }

    /// Whether the runs kernel updates this parameter once its gradient is f32 in memory.
    pub(in crate::optim) fn is_plain(&self, param: usize) -> bool {
        self.narrow.is_none() && self.coefs[param].formula == Formula::AdamW
    }

    /// As [`Sweep::is_plain`], with a gradient that is f32 in the lane.
    fn is_fast(&self, param: usize) -> bool {
        self.is_plain(param) && is_direct(&self.lanes[param], self.own[param].bound)
    }

    /// What updating a tile reads, where the runs kernel does it.
    pub(in crate::optim) fn wanted(&self, part: &Part, tile: &Tile) -> Streams {
        let fast = self.is_fast(part.param);
        if fast { self.runs(part, tile).streams() } else { Streams::NONE }
    }

    /// A tile's runs of a lane.
    fn runs(&self, part: &Part, tile: &Tile) -> Runs {
        let lane = &self.lanes[part.param];
        let first = part.view.first(tile);
        let (runs, len) = part.view.runs_of(tile);
        Runs {
            p: lane.p.wrapping_add(first),
            m: lane.m.cast::<f32>().wrapping_add(first),
            v: lane.v.cast::<f32>().wrapping_add(first),
            ld: part.view.ld,
            g: lane.g.cast::<f32>().wrapping_add(first),
            g_ld: part.view.ld,
            group: std::ptr::null(),
            group_ld: pitch(len),
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
        own: f32,
        group: Option<(&[f32], f32)>,
        then: &Streams,
    ) {
        let mut runs = self.runs(part, tile);
        let mut pull = 0.0;
        if let Some((group, p)) = group {
            debug_assert!(group.len() + runs.group_ld >= runs.runs * runs.group_ld + runs.len);
            (runs.group, pull) = (group.as_ptr(), p);
        }
        // SAFETY: the caller's promise.
        unsafe { adamw_runs(self.build, &self.coefs[part.param], [own, pull], &runs, then) };
    }

    /// What updating a tile reads besides the gradient, where the runs kernel does it.
    pub(in crate::optim) fn state(&self, part: &Part, tile: &Tile) -> Streams {
        if !self.is_plain(part.param) {
            return Streams::NONE;
        }
        let r = self.runs(part, tile);
        Streams {
            from: [r.p, r.m, r.v, r.v].map(<*mut f32>::cast_const),
            ld: [r.ld; FAN],
            ..r.streams()
        }
    }

    /// AdamW over a tile with a gradient in hand, in the storage's orientation, and how far its
    /// runs are apart.
    ///
    /// # Safety
    /// As [`Sweep::run`].
    pub(in crate::optim) unsafe fn update_from(
        &self,
        part: &Part,
        tile: &Tile,
        (mixed, mixed_ld): (&[f32], usize),
        then: &Streams,
    ) {
        let mut runs = self.runs(part, tile);
        debug_assert!(mixed.len() + mixed_ld >= runs.runs * mixed_ld + runs.len);
        (runs.g, runs.g_ld) = (mixed.as_ptr(), mixed_ld);
        let factors = [1.0, 0.0];
        // SAFETY: the caller's promise.
        unsafe { adamw_runs(self.build, &self.coefs[part.param], factors, &runs, then) };
    }
}
