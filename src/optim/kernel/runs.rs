//! Rectangles of runs in raw memory: AdamW, weighted sums and averages. Nearly every tile takes
//! this path.

use crate::optim::kernel::adamw::adamw_one;
use crate::optim::kernel::coefficient::Coefficients;
use crate::optim::kernel::prefetch::{LANES, MAX_STREAMS, Streams, Stretch, stretches};
use crate::optim::kernel::simd::{Build, multiversion};

/// Runs of `len` elements; gradients may lie at other strides than the parameter.
#[derive(Clone, Copy)]
pub(crate) struct Runs {
    pub p: *mut f32,
    pub m: *mut f32,
    pub v: *mut f32,
    /// Elements between runs of p, m and v.
    pub ld: usize,
    pub g: *const f32,
    pub g_ld: usize,
    /// The group's gradient, or null.
    pub group: *const f32,
    pub group_ld: usize,
    pub runs: usize,
    pub len: usize,
}

impl Runs {
    /// All that is read, for the stretches of these runs and of those before them.
    pub fn streams(&self) -> Streams {
        let ld = [self.ld, self.ld, self.ld, self.g_ld];
        Streams { from: [self.p, self.m, self.v, self.g], ld, runs: self.runs, len: self.len }
    }
}

#[inline(always)]
unsafe fn load(x: *const f32, i: usize) -> [f32; LANES] {
    // SAFETY: the caller's promise.
    unsafe { x.add(i).cast::<[f32; LANES]>().read_unaligned() }
}

#[inline(always)]
unsafe fn store(x: *mut f32, i: usize, values: [f32; LANES]) {
    // SAFETY: the caller's promise.
    unsafe { x.add(i).cast::<[f32; LANES]>().write_unaligned(values) };
}

/// # Safety
/// All memory of the runs must be valid and, where written, used by nobody else.
#[inline(always)]
unsafe fn adamw_runs_body<const MIXED: bool>(
    c: &Coefficients,
    [own, alpha]: [f32; 2],
    r: &Runs,
    then: &Streams,
) {
    let (c, r) = (*c, *r);
    for Stretch { run, start, end, prefetch } in stretches(&r.streams(), then) {
        let at = run * r.ld;
        // SAFETY: the caller's promise; every element lies in the run.
        unsafe {
            let (p, m, v) = (r.p.add(at), r.m.add(at), r.v.add(at));
            let g = r.g.add(run * r.g_ld);
            let group = if MIXED { r.group.add(run * r.group_ld) } else { g };
            let mut i = start;
            while i + LANES <= end {
                prefetch.line::<MAX_STREAMS>(i);
                let (gs, ts) = (load(g, i), load(group, i));
                let (mut ps, mut ms, mut vs) = (load(p, i), load(m, i), load(v, i));
                for l in 0..LANES {
                    let x = if MIXED { own * gs[l] + alpha * ts[l] } else { own * gs[l] };
                    (ps[l], ms[l], vs[l]) = adamw_one(&c, x, ps[l], ms[l], vs[l]);
                }
                store(p, i, ps);
                store(m, i, ms);
                store(v, i, vs);
                i += LANES;
            }
            while i < end {
                let own = own * *g.add(i);
                let x = if MIXED { own + alpha * *group.add(i) } else { own };
                let one = adamw_one(&c, x, *p.add(i), *m.add(i), *v.add(i));
                (*p.add(i), *m.add(i), *v.add(i)) = one;
                i += 1;
            }
        }
    }
}

#[inline(always)]
fn adamw_checked(c: &Coefficients, factors: [f32; 2], r: &Runs, then: &Streams) {
    // SAFETY: `adamw_runs` is unsafe and passes its caller's promise on.
    unsafe {
        if r.group.is_null() {
            adamw_runs_body::<false>(c, factors, r, then);
        } else {
            adamw_runs_body::<true>(c, factors, r, then);
        }
    }
}

multiversion!(adamw_built = adamw_checked,
    (c: &Coefficients, factors: [f32; 2], r: &Runs, then: &Streams));

/// AdamW with the gradient own·g, or own·g + alpha·group; `then` is what is read next.
///
/// # Safety
/// All memory of the runs must be valid and, where written, used by nobody else.
pub(crate) unsafe fn adamw_runs(
    build: Build,
    c: &Coefficients,
    factors: [f32; 2],
    r: &Runs,
    then: &Streams,
) {
    adamw_built(build, c, factors, r, then);
}

/// A weighted sum over the first `n` streams, into `out`.
#[derive(Clone, Copy)]
pub(crate) struct Sum {
    pub streams: Streams,
    pub n: usize,
    pub weights: [f32; MAX_STREAMS],
    pub out: *mut f32,
    pub out_ld: usize,
    /// Whether `out` holds a sum already, to which this one is added.
    pub begun: bool,
}

/// out ← (out +) w₀x₀ + w₁x₁ + …, one after the other.
///
/// # Safety
/// As [`sum_runs`].
#[inline(always)]
unsafe fn sum_body<const N: usize, const BEGUN: bool>(s: &Sum, then: &Streams) {
    let s = *s;
    let (from, ld, w) = (s.streams.from, s.streams.ld, s.weights);
    for Stretch { run, start, end, prefetch } in stretches(&s.streams, then) {
        // SAFETY: the caller's promise; every element lies in the run.
        unsafe {
            let mut x = [from[0]; N];
            for k in 0..N {
                x[k] = from[k].add(run * ld[k]);
            }
            let out = s.out.add(run * s.out_ld);
            let mut i = start;
            while i + LANES <= end {
                prefetch.line::<N>(i);
                let mut sum = if BEGUN { load(out, i) } else { load(x[0], i) };
                if !BEGUN {
                    for x in &mut sum {
                        *x *= w[0];
                    }
                }
                for k in usize::from(!BEGUN)..N {
                    let x = load(x[k], i);
                    for l in 0..LANES {
                        sum[l] += w[k] * x[l];
                    }
                }
                store(out, i, sum);
                i += LANES;
            }
            while i < end {
                let mut sum = if BEGUN { *out.add(i) } else { w[0] * *x[0].add(i) };
                for k in usize::from(!BEGUN)..N {
                    sum += w[k] * *x[k].add(i);
                }
                *out.add(i) = sum;
                i += 1;
            }
        }
    }
}

#[inline(always)]
fn sum_checked(s: &Sum, then: &Streams) {
    // SAFETY: `sum_runs` is unsafe and passes its caller's promise on.
    unsafe {
        match (s.n, s.begun) {
            (1, false) => sum_body::<1, false>(s, then),
            (1, true) => sum_body::<1, true>(s, then),
            (2, false) => sum_body::<2, false>(s, then),
            (2, true) => sum_body::<2, true>(s, then),
            (3, false) => sum_body::<3, false>(s, then),
            (3, true) => sum_body::<3, true>(s, then),
            (_, false) => sum_body::<MAX_STREAMS, false>(s, then),
            (_, true) => sum_body::<MAX_STREAMS, true>(s, then),
        }
    }
}

multiversion!(sum_built = sum_checked, (s: &Sum, then: &Streams));

/// out ← (out +) w₀x₀ + w₁x₁ + …, one after the other; `then` is what is read next.
///
/// # Safety
/// All memory of the sum must be valid and, where written, used by nobody else;
/// 1 ≤ `n` ≤ `MAX_STREAMS`.
pub(crate) unsafe fn sum_runs(build: Build, s: &Sum, then: &Streams) {
    debug_assert!((1..=MAX_STREAMS).contains(&s.n));
    sum_built(build, s, then);
}

/// # Safety
/// As [`lerp_runs`].
#[inline(always)]
unsafe fn lerp_body(
    s: &Streams,
    [keep, beta]: [f32; 2],
    (average, average_ld): (&[f32], usize),
    then: &Streams,
) {
    let s = *s;
    for Stretch { run, start, end, prefetch } in stretches(&s, then) {
        // SAFETY: the caller's promise; every element lies in the run.
        unsafe {
            let p = s.from[0].cast_mut().add(run * s.ld[0]);
            let average = average.as_ptr().add(run * average_ld);
            let mut i = start;
            while i + LANES <= end {
                prefetch.line::<1>(i);
                let (mut ps, a) = (load(p, i), load(average, i));
                for l in 0..LANES {
                    ps[l] = keep * ps[l] + beta * a[l];
                }
                store(p, i, ps);
                i += LANES;
            }
            while i < end {
                *p.add(i) = keep * *p.add(i) + beta * *average.add(i);
                i += 1;
            }
        }
    }
}

#[inline(always)]
fn lerp_checked(s: &Streams, factors: [f32; 2], average: (&[f32], usize), then: &Streams) {
    // SAFETY: `lerp_runs` is unsafe and passes its caller's promise on.
    unsafe { lerp_body(s, factors, average, then) }
}

multiversion!(lerp_built = lerp_checked,
    (s: &Streams, factors: [f32; 2], average: (&[f32], usize), then: &Streams));

/// p ← keep·p + beta·average over the first stream, which is written.
///
/// # Safety
/// The stream's memory must be valid and used by nobody else; `average` has as many runs of the
/// same length, as far apart as the number beside it says.
pub(crate) unsafe fn lerp_runs(
    build: Build,
    s: &Streams,
    factors: [f32; 2],
    average: (&[f32], usize),
    then: &Streams,
) {
    debug_assert!(average.0.len() + average.1 >= s.runs * average.1 + s.len);
    lerp_built(build, s, factors, average, then);
}
