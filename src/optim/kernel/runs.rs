//! AdamW over rectangles of runs: the path that nearly every tile takes.
//! While one run is worked on, the same place of a run further on is asked for.

use super::update::{Coef, adamw_one};
use super::{builds, prefetch};

const LANES: usize = 16;

/// Runs of `len` elements in raw memory; gradients may lie at other strides than the parameter.
#[derive(Clone, Copy)]
pub(crate) struct Runs {
    pub p: *mut f32,
    pub m: *mut f32,
    pub v: *mut f32,
    /// Elements between runs of p, m and v.
    pub ld: usize,
    pub g: *const f32,
    pub g_ld: usize,
    /// The group's gradient, dense, or null.
    pub group: *const f32,
    pub runs: usize,
    pub len: usize,
    /// Runs after these that are worked on next.
    pub more: usize,
}

/// Runs from this length on ask for their own elements instead of another run's.
const LONG: usize = 2048;
/// How many elements ahead they ask.
pub(crate) const AHEAD: usize = 1024;

/// How many runs ahead to ask for: about a memory access's time, doubled for slow memory.
#[inline(always)]
pub(crate) fn distance(len: usize) -> usize {
    (1536 / len.max(1)).clamp(1, 16)
}

/// # Safety
/// All memory of the runs must be valid and, where written, used by nobody else.
#[inline(always)]
unsafe fn adamw_runs_body(c: &Coef, own: f32, pull: f32, r: &Runs) {
    let (c, r) = (*c, *r);
    let far = distance(r.len);
    for run in 0..r.runs {
        let at = run * r.ld;
        let (next, g_next) = if r.len >= LONG {
            (AHEAD, AHEAD)
        } else if run + far < r.runs + r.more {
            (far * r.ld, far * r.g_ld)
        } else {
            (0, 0)
        };
        // SAFETY: the caller's promise.
        unsafe {
            let (p, m, v) = (r.p.add(at), r.m.add(at), r.v.add(at));
            let g = r.g.add(run * r.g_ld);
            if r.group.is_null() {
                adamw_run::<false>(&c, own, pull, [p, m, v], g, g, r.len, [next, g_next]);
            } else {
                let group = r.group.add(run * r.len);
                adamw_run::<true>(&c, own, pull, [p, m, v], g, group, r.len, [next, g_next]);
            }
        }
    }
}

/// # Safety
/// As [`adamw_runs_body`]; `next` and `g_next` are the offsets to ask for, 0 for none.
#[allow(clippy::too_many_arguments)]
#[inline(always)]
unsafe fn adamw_run<const MIXED: bool>(
    c: &Coef,
    own: f32,
    pull: f32,
    [p, m, v]: [*mut f32; 3],
    g: *const f32,
    group: *const f32,
    len: usize,
    [next, g_next]: [usize; 2],
) {
    let mut i = 0;
    while i + LANES <= len {
        if next > 0 {
            prefetch(p.wrapping_add(next + i), 1);
            prefetch(m.wrapping_add(next + i), 1);
            prefetch(v.wrapping_add(next + i), 1);
            prefetch(g.wrapping_add(g_next + i), 1);
        }
        // SAFETY: `i + LANES` elements lie in the run.
        unsafe {
            let load = |x: *const f32| x.add(i).cast::<[f32; LANES]>().read_unaligned();
            let (gs, ts) = (load(g), load(group));
            let (mut ps, mut ms, mut vs) = (load(p), load(m), load(v));
            for l in 0..LANES {
                let x = if MIXED { own * gs[l] + pull * ts[l] } else { own * gs[l] };
                (ps[l], ms[l], vs[l]) = adamw_one(c, x, ps[l], ms[l], vs[l]);
            }
            p.add(i).cast::<[f32; LANES]>().write_unaligned(ps);
            m.add(i).cast::<[f32; LANES]>().write_unaligned(ms);
            v.add(i).cast::<[f32; LANES]>().write_unaligned(vs);
        }
        i += LANES;
    }
    while i < len {
        // SAFETY: element `i` lies in the run.
        unsafe {
            let own = own * *g.add(i);
            let x = if MIXED { own + pull * *group.add(i) } else { own };
            let one = adamw_one(c, x, *p.add(i), *m.add(i), *v.add(i));
            (*p.add(i), *m.add(i), *v.add(i)) = one;
        }
        i += 1;
    }
}

#[inline(always)]
fn adamw_checked(c: &Coef, own: f32, pull: f32, r: &Runs) {
    // SAFETY: `adamw_runs` is unsafe and passes its caller's promise on.
    unsafe { adamw_runs_body(c, own, pull, r) }
}

builds!(adamw_built = adamw_checked, (c: &Coef, own: f32, pull: f32, r: &Runs));

/// AdamW with the gradient own·g, or own·g + pull·group.
///
/// # Safety
/// All memory of the runs must be valid and, where written, used by nobody else.
pub(crate) unsafe fn adamw_runs(build: super::Build, c: &Coef, own: f32, pull: f32, r: &Runs) {
    adamw_built(build, c, own, pull, r);
}
