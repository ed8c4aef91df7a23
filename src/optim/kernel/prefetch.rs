//! Rectangles of runs in main memory, read in order with software prefetching.
//!
//! A processor prefetches by itself only inside a page, and only once it has seen a run go on for
//! some lines. The rectangles here are too short for that: so each stretch of a run prefetches what
//! is read one memory latency later, be it in the same run, in a run further on, or in the
//! rectangle that is read next.

/// Elements that are worked on at once; one cache line.
pub(crate) const LANES: usize = 16;
/// Most addresses that are read side by side.
pub(crate) const MAX_STREAMS: usize = 4;
/// Runs from this length on are left to the processor until their last `TAIL` elements.
const LONG: usize = 8193;
/// Elements of what follows that the end of a long run prefetches.
const TAIL: usize = 4096;
/// Elements between what is prefetched and what is worked on, where whole runs are shorter.
const AHEAD_IN_RUNS: usize = 1536;
/// Most runs between them.
const MOST_RUNS: usize = 48;

/// Prefetches the cache line of `p` into the second-level cache: the first has too few line fill
/// buffers for the strides of transposed views.
#[inline(always)]
fn prefetch_line(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// How many runs of `len` elements ahead is far enough.
pub(crate) fn runs_ahead(len: usize) -> usize {
    (AHEAD_IN_RUNS / len.max(1)).clamp(1, MOST_RUNS)
}

/// Prefetches `n` bytes.
pub(crate) fn prefetch_bytes(p: *const u8, n: usize) {
    for at in (0..n).step_by(LANES * size_of::<f32>()) {
        prefetch_line(p.wrapping_add(at).cast());
    }
}

/// Up to `MAX_STREAMS` rectangles of one shape, read side by side. An entry that is not in use
/// repeats one that is.
#[derive(Clone, Copy)]
pub(crate) struct Streams {
    pub from: [*const f32; MAX_STREAMS],
    /// Elements between runs.
    pub ld: [usize; MAX_STREAMS],
    pub runs: usize,
    pub len: usize,
}

impl Streams {
    /// Nothing to read.
    pub const NONE: Self =
        Self { from: [std::ptr::null(); MAX_STREAMS], ld: [0; MAX_STREAMS], runs: 0, len: 0 };

    /// Where a run begins.
    #[inline(always)]
    fn at(&self, run: usize) -> [*const f32; MAX_STREAMS] {
        std::array::from_fn(|k| self.from[k].wrapping_add(run * self.ld[k]))
    }

    /// Where a run begins that may lie in what is read `then`.
    #[inline(always)]
    fn later(&self, run: usize, then: &Self) -> Option<[*const f32; MAX_STREAMS]> {
        if run < self.runs {
            Some(self.at(run))
        } else if run - self.runs < then.runs {
            Some(then.at(run - self.runs))
        } else {
            None
        }
    }
}

/// What a stretch prefetches: its element `i` prefetches element `i` from each address on.
#[derive(Clone, Copy)]
pub(crate) struct Prefetch(Option<[*const f32; MAX_STREAMS]>);

impl Prefetch {
    /// Prefetches the line at `i` of the first `N` addresses.
    #[inline(always)]
    pub fn line<const N: usize>(self, i: usize) {
        if let Some(addresses) = self.0 {
            for address in &addresses[..N] {
                prefetch_line(address.wrapping_add(i));
            }
        }
    }
}

/// A part of a run, and what it prefetches.
#[derive(Clone, Copy)]
pub(crate) struct Stretch {
    pub run: usize,
    pub start: usize,
    pub end: usize,
    pub prefetch: Prefetch,
}

/// The stretches of a rectangle in order. (An iterator, not a function of a closure: a closure's
/// body would be compiled without the instruction set of the kernel that it is in.)
#[derive(Clone, Copy)]
pub(crate) struct Stretches {
    streams: Streams,
    then: Streams,
    run: usize,
    /// Where a run's second stretch begins, which prefetches the next run; 0 when there is none.
    tail_start: usize,
    second: bool,
    far: usize,
}

/// The stretches of a rectangle that is read before another one.
#[inline(always)]
pub(crate) fn stretches(streams: &Streams, then: &Streams) -> Stretches {
    let long = streams.len >= LONG;
    let tail_start = if long { (streams.len - TAIL) / LANES * LANES } else { 0 };
    let far = (AHEAD_IN_RUNS / streams.len.max(1)).clamp(1, MOST_RUNS);
    Stretches { streams: *streams, then: *then, run: 0, tail_start, second: tail_start == 0, far }
}

impl Iterator for Stretches {
    type Item = Stretch;

    #[inline(always)]
    fn next(&mut self) -> Option<Stretch> {
        let Self { streams, run, tail_start, .. } = *self;
        if run == streams.runs {
            return None;
        }
        if !self.second {
            self.second = true;
            return Some(Stretch { run, start: 0, end: tail_start, prefetch: Prefetch(None) });
        }
        self.second = tail_start == 0;
        self.run += 1;
        let ahead = if tail_start == 0 { self.far } else { 1 };
        let later = streams.later(run + ahead, &self.then);
        let prefetch = Prefetch(later.map(|p| p.map(|p| p.wrapping_sub(tail_start))));
        Some(Stretch { run, start: tail_start, end: streams.len, prefetch })
    }
}
