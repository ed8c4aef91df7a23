//! Walks over rectangles of runs in main memory.
//!
//! A processor fetches ahead by itself only inside a page, and only once it has seen a run go
//! on for some lines. The rectangles here are too short for that: so each step of a walk asks
//! for what lies a memory access's time further along the walk, be it in the same run, in a run
//! further on, or in the rectangle that is walked next.

use super::prefetch;

/// Elements that are worked on at once; one cache line.
pub(crate) const LANES: usize = 16;
/// Most places that are read side by side.
pub(crate) const FAN: usize = 4;
/// Runs from this length on are left to the processor until their last `TAIL` elements.
const LONG: usize = 8193;
/// How many elements of what follows a long run asks for at its end.
const TAIL: usize = 4096;
/// Elements between what is asked for and what is worked on, where whole runs are shorter.
const AHEAD_IN_RUNS: usize = 1536;
/// Most runs between them.
const MOST_RUNS: usize = 48;

/// Up to `FAN` rectangles of one shape, walked side by side. A place that is not in use repeats
/// one that is.
#[derive(Clone, Copy)]
pub(crate) struct Streams {
    pub from: [*const f32; FAN],
    /// Elements between runs.
    pub ld: [usize; FAN],
    pub runs: usize,
    pub len: usize,
}

impl Streams {
    /// Nothing to walk.
    pub const NONE: Self = Self { from: [std::ptr::null(); FAN], ld: [0; FAN], runs: 0, len: 0 };

    /// Where a run begins.
    #[inline(always)]
    fn at(&self, run: usize) -> [*const f32; FAN] {
        std::array::from_fn(|k| self.from[k].wrapping_add(run * self.ld[k]))
    }

    /// Where a run begins that may lie in what is walked `then`.
    #[inline(always)]
    fn later(&self, run: usize, then: &Self) -> Option<[*const f32; FAN]> {
        if run < self.runs {
            Some(self.at(run))
        } else if run - self.runs < then.runs {
            Some(then.at(run - self.runs))
        } else {
            None
        }
    }
}

/// What a stretch asks for: element `i` of it asks for element `i` of each place.
#[derive(Clone, Copy)]
pub(crate) struct Ask(Option<[*const f32; FAN]>);

impl Ask {
    /// Asks for the line at `i` of the first `N` places.
    #[inline(always)]
    pub fn line<const N: usize>(self, i: usize) {
        if let Some(places) = self.0 {
            for place in &places[..N] {
                prefetch(place.wrapping_add(i), 1);
            }
        }
    }
}

/// A part of a run, and what it asks for.
#[derive(Clone, Copy)]
pub(crate) struct Stretch {
    pub run: usize,
    pub start: usize,
    pub end: usize,
    pub ask: Ask,
}

/// The stretches of a rectangle in order. (An iterator, not a function of a closure: a closure's
/// body would be compiled without the instruction set of the kernel that it is in.)
#[derive(Clone, Copy)]
pub(crate) struct Walk {
    streams: Streams,
    then: Streams,
    run: usize,
    /// Where a run's second stretch begins, which asks for the next run; 0 when there is none.
    turn: usize,
    second: bool,
    far: usize,
}

/// Walks over a rectangle before another one.
#[inline(always)]
pub(crate) fn walk(streams: &Streams, then: &Streams) -> Walk {
    let long = streams.len >= LONG;
    let turn = if long { (streams.len - TAIL) / LANES * LANES } else { 0 };
    let far = (AHEAD_IN_RUNS / streams.len.max(1)).clamp(1, MOST_RUNS);
    Walk { streams: *streams, then: *then, run: 0, turn, second: turn == 0, far }
}

impl Iterator for Walk {
    type Item = Stretch;

    #[inline(always)]
    fn next(&mut self) -> Option<Stretch> {
        let Self { streams, run, turn, .. } = *self;
        if run == streams.runs {
            return None;
        }
        if !self.second {
            self.second = true;
            return Some(Stretch { run, start: 0, end: turn, ask: Ask(None) });
        }
        self.second = turn == 0;
        self.run += 1;
        let ahead = if turn == 0 { self.far } else { 1 };
        let later = streams.later(run + ahead, &self.then);
        let ask = Ask(later.map(|p| p.map(|p| p.wrapping_sub(turn))));
        Some(Stretch { run, start: turn, end: streams.len, ask })
    }
}
