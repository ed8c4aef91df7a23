//! Updates of chunks and tiles: the gradient is read where it lies or converted, scaled, mixed with
//! the group's, and used at once.

use crate::optim::kernel::coefficient::{Coefficients, Formula};
use crate::optim::kernel::convert;
use crate::optim::kernel::prefetch::{MAX_STREAMS, Streams};
use crate::optim::kernel::runs::{Runs, adamw_runs};
use crate::optim::kernel::simd::Build;
use crate::optim::kernel::update::{Gradient, Slices, update};
use crate::optim::sweep::buffers::{ParamBuffers, ParamStep, gradient, is_direct, wide};
use crate::optim::sweep::scratch::Scratch;
use crate::optim::sweep::tile::{BLOCK, Tile, pitch};
use crate::optim::sweep::work::{SweepGroup, SweepMember};

/// Everything a worker needs, read-only but for the buffers' memory.
pub(crate) struct Sweep<'a> {
    pub build: Build,
    pub buffers: &'a [ParamBuffers],
    pub param_steps: &'a [ParamStep],
    pub coefficients: &'a [Coefficients],
    pub members: &'a [SweepMember],
    pub groups: &'a [SweepGroup],
    pub matrices: &'a [f32],
    /// Seed of the rounding when moments are bfloat16.
    pub rounding_seed: Option<u32>,
    /// False synchronises without updating.
    pub updates: bool,
}

impl Sweep<'_> {
    /// # Safety
    /// As `Sweep::run`.
    pub(in crate::optim) unsafe fn update_chunk(
        &self,
        s: &mut Scratch,
        param: usize,
        start: usize,
        len: usize,
    ) {
        let step = self.param_steps[param];
        if !step.is_updated_here() || !self.updates {
            return;
        }
        let buffers = &self.buffers[param];
        let direct = is_direct(buffers, step.clip_value) && self.rounding_seed.is_none();
        let block = if direct { len } else { BLOCK };
        let mut at = start;
        while at < start + len {
            let n = block.min(start + len - at);
            // SAFETY: the caller's promise.
            unsafe {
                let g = gradient(self.build, buffers, step.clip_value, at, n, &mut s.load);
                let g = Gradient { g, own: step.grad_scale, group: None };
                self.apply(param, at, n, g, &mut s.m, &mut s.v, &mut s.x);
            }
            at += n;
        }
    }

    /// Updates `n` elements from `at` with a gradient that is already in hand.
    ///
    /// # Safety
    /// As `Sweep::run`.
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
        let (buffers, coefficients) = (&self.buffers[param], &self.coefficients[param]);
        // SAFETY: the element range lies in the buffers, and no other item has it.
        let p = unsafe { std::slice::from_raw_parts_mut(buffers.p.add(at), n) };
        let Some(seed) = self.rounding_seed else {
            // SAFETY: as above; the moments are f32.
            let (m, v, x) =
                unsafe { (wide(buffers.m, at, n), wide(buffers.v, at, n), wide(buffers.x, at, n)) };
            update(self.build, coefficients, g, Slices { p, m, v, x });
            return;
        };
        let seed = seed ^ (param as u32).wrapping_mul(0x85eb_ca6b);
        let mut moments = [(buffers.m, m, 0), (buffers.v, v, 1), (buffers.x, x, 2)];
        for (from, to, _) in &mut moments {
            if !from.is_null() {
                // SAFETY: as above; the moments are bfloat16.
                let raw = unsafe { std::slice::from_raw_parts(from.cast::<u16>().add(at), n) };
                convert::from_bf16(self.build, raw, &mut to[..n]);
            }
        }
        let used = |buffers: *mut u8| if buffers.is_null() { 0 } else { n };
        let (nm, nv, nx) = (used(buffers.m), used(buffers.v), used(buffers.x));
        {
            let [(_, m, _), (_, v, _), (_, x, _)] = &mut moments;
            let s = Slices { p, m: &mut m[..nm], v: &mut v[..nv], x: &mut x[..nx] };
            update(self.build, coefficients, g, s);
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

    /// Updates a tile of every active member with its own gradient.
    ///
    /// # Safety
    /// As `Sweep::run`.
    pub(in crate::optim) unsafe fn update_separate(
        &self,
        s: &mut Scratch,
        members: &[SweepMember],
        tile: &Tile,
    ) {
        let mut blocks = [&mut s.load[..], &mut s.m[..], &mut s.v[..], &mut s.x[..]];
        for member in members.iter().filter(|p| self.param_steps[p.param].is_updated_here()) {
            // SAFETY: the caller's promise.
            unsafe { self.update_tile(&mut blocks, member, tile, None, &Streams::NONE) };
        }
    }

    /// Updates a tile of one member; `group` is in the storage's orientation, its runs a
    /// [`pitch`] apart.
    ///
    /// # Safety
    /// As `Sweep::run`.
    pub(in crate::optim) unsafe fn update_tile(
        &self,
        [load, m, v, x]: &mut [&mut [f32]; 4],
        member: &SweepMember,
        tile: &Tile,
        group: Option<(&[f32], f32)>,
        then: &Streams,
    ) {
        let (step, buffers) = (self.param_steps[member.param], &self.buffers[member.param]);
        let factor = if group.is_some() { member.own_factor } else { step.grad_scale };
        if self.updates_in_runs(member.param) {
            // SAFETY: the caller's promise.
            unsafe { self.update_runs(member, tile, factor, group, then) };
            return;
        }
        let buffer_ld = pitch(member.view.runs_of(tile).1);
        member.view.for_runs_at(tile, buffer_ld, |offset, at, n| {
            // SAFETY: the caller's promise.
            unsafe {
                let g = gradient(self.build, buffers, step.clip_value, offset, n, load);
                let group = group.map(|(group, alpha)| (&group[at..at + n], alpha));
                self.apply(member.param, offset, n, Gradient { g, own: factor, group }, m, v, x);
            }
        });
    }

    /// Whether the runs kernel updates this parameter once its gradient is f32 in memory.
    pub(in crate::optim) fn is_f32_adamw(&self, param: usize) -> bool {
        self.rounding_seed.is_none() && self.coefficients[param].formula == Formula::AdamW
    }

    /// As [`Sweep::is_f32_adamw`], with a gradient that is f32 in the buffers.
    fn updates_in_runs(&self, param: usize) -> bool {
        self.is_f32_adamw(param)
            && is_direct(&self.buffers[param], self.param_steps[param].clip_value)
    }

    /// What updating a tile reads, where the runs kernel does it.
    pub(in crate::optim) fn update_streams(&self, member: &SweepMember, tile: &Tile) -> Streams {
        let here = self.param_steps[member.param].state_here;
        let fast = here && self.updates_in_runs(member.param);
        if fast { self.runs(member, tile).streams() } else { Streams::NONE }
    }

    /// A tile's runs of a buffers.
    fn runs(&self, member: &SweepMember, tile: &Tile) -> Runs {
        let buffers = &self.buffers[member.param];
        let first = member.view.first(tile);
        let (runs, len) = member.view.runs_of(tile);
        Runs {
            p: buffers.p.wrapping_add(first),
            m: buffers.m.cast::<f32>().wrapping_add(first),
            v: buffers.v.cast::<f32>().wrapping_add(first),
            ld: member.view.ld,
            g: buffers.g.cast::<f32>().wrapping_add(first),
            g_ld: member.view.ld,
            group: std::ptr::null(),
            group_ld: pitch(len),
            runs,
            len,
        }
    }

    /// AdamW over a tile with the parameter's gradient and perhaps the group's.
    ///
    /// # Safety
    /// As `Sweep::run`.
    unsafe fn update_runs(
        &self,
        member: &SweepMember,
        tile: &Tile,
        own: f32,
        group: Option<(&[f32], f32)>,
        then: &Streams,
    ) {
        let mut runs = self.runs(member, tile);
        let mut alpha = 0.0;
        if let Some((group, p)) = group {
            debug_assert!(group.len() + runs.group_ld >= runs.runs * runs.group_ld + runs.len);
            (runs.group, alpha) = (group.as_ptr(), p);
        }
        // SAFETY: the caller's promise.
        unsafe {
            adamw_runs(self.build, &self.coefficients[member.param], [own, alpha], &runs, then)
        };
    }

    /// What updating a tile reads besides the gradient, where the runs kernel does it.
    pub(in crate::optim) fn state_streams(&self, member: &SweepMember, tile: &Tile) -> Streams {
        if !self.is_f32_adamw(member.param) || !self.param_steps[member.param].state_here {
            return Streams::NONE;
        }
        let r = self.runs(member, tile);
        Streams {
            from: [r.p, r.m, r.v, r.v].map(<*mut f32>::cast_const),
            ld: [r.ld; MAX_STREAMS],
            ..r.streams()
        }
    }

    /// AdamW over a tile with a gradient in hand, in the storage's orientation, and how far its
    /// runs are apart.
    ///
    /// # Safety
    /// As `Sweep::run`.
    pub(in crate::optim) unsafe fn update_from(
        &self,
        member: &SweepMember,
        tile: &Tile,
        (mixed, mixed_ld): (&[f32], usize),
        then: &Streams,
    ) {
        let mut runs = self.runs(member, tile);
        debug_assert!(mixed.len() + mixed_ld >= runs.runs * mixed_ld + runs.len);
        (runs.g, runs.g_ld) = (mixed.as_ptr(), mixed_ld);
        let factors = [1.0, 0.0];
        // SAFETY: the caller's promise.
        unsafe { adamw_runs(self.build, &self.coefficients[member.param], factors, &runs, then) };
    }
}
