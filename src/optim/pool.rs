//! Threads of the step. A job is a number of items and a function of (worker, item). Each worker
//! has a range of neighbouring items and claims them one by one; when it has none left, it takes
//! the farther half of what another one has left. So what a core prefetches is its own next
//! item, not the one that another core writes to, which may be far away. Starting a job allocates
//! nothing, which is why this is not a general purpose pool: the step must not allocate after its
//! first run.

use crate::error::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// The function of a job, borrowed for as long as `Pool::run` waits.
#[derive(Clone, Copy)]
struct Job {
    work: *const (dyn Fn(usize, usize) + Sync),
}
// SAFETY: the pointee is Sync and outlives the job, because `run` returns only after all workers
// have reported that they left it.
unsafe impl Send for Job {}

struct State {
    epoch: u64,
    job: Option<Job>,
    running: usize,
    failed: bool,
    stop: bool,
}

struct Shared {
    state: Mutex<State>,
    start: Condvar,
    done: Condvar,
    /// What each worker has left.
    left: Vec<Range>,
}

/// The items from one number to below another, in one word; on a cache line of its own.
#[repr(align(128))]
struct Range(AtomicU64);

impl Range {
    fn pack(start: u32, end: u32) -> u64 {
        u64::from(start) << 32 | u64::from(end)
    }

    fn unpack(word: u64) -> [u32; 2] {
        [(word >> 32) as u32, word as u32]
    }

    fn set(&self, [start, end]: [u32; 2]) {
        self.0.store(Self::pack(start, end), Ordering::Relaxed);
    }

    /// Takes the first item.
    fn first(&self) -> Option<usize> {
        let take = |word| {
            let [start, end] = Self::unpack(word);
            (start < end).then(|| Self::pack(start + 1, end))
        };
        let word = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Self::unpack(word)[0] as usize)
    }

    /// Takes the second half, or the only item.
    fn half(&self) -> Option<[u32; 2]> {
        let middle = |[start, end]: [u32; 2]| start + (end - start) / 2;
        let take = |word| {
            let [start, end] = Self::unpack(word);
            (start < end).then(|| Self::pack(start, middle([start, end])))
        };
        let word = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        let [start, end] = Self::unpack(word);
        Some([middle([start, end]), end])
    }
}

/// A slice that workers write to, each to elements of its own.
#[derive(Clone, Copy)]
pub(crate) struct DisjointSlice<T>(*mut T);
// SAFETY: see `DisjointSlice::at`.
unsafe impl<T: Send> Sync for DisjointSlice<T> {}

impl<T> DisjointSlice<T> {
    pub fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// A slice that begins at `pointer`; null for none.
    pub fn from_pointer(pointer: *mut T) -> Self {
        Self(pointer)
    }

    /// Whether there is no slice.
    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// Elements `at..at + n`.
    ///
    /// # Safety
    /// `at + n` must not exceed the slice, and nobody else may use these elements meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn at(&self, at: usize, n: usize) -> &mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(at), n) }
    }
}

/// A fixed number of threads; the caller of [`Pool::run`] is one of them.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Claims and runs items until none is left; false when one panicked.
fn drain(shared: &Shared, worker: usize, job: Job) -> bool {
    // SAFETY: see `Job`.
    let work = unsafe { &*job.work };
    let (own, n) = (&shared.left[worker], shared.left.len());
    catch_unwind(AssertUnwindSafe(|| {
        loop {
            while let Some(item) = own.first() {
                work(worker, item);
            }
            let mut others = (worker + 1..n).chain(0..worker);
            // What is on its way from one to another is found by neither; its new owner runs it.
            let Some(range) = others.find_map(|i| shared.left[i].half()) else { break };
            own.set(range);
        }
    }))
    .is_ok()
}

fn worker_loop(shared: &Shared, worker: usize) {
    let mut seen = 0;
    loop {
        let job = {
            let mut state = lock(shared);
            while state.epoch == seen && !state.stop {
                state = shared.start.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stop {
                return;
            }
            seen = state.epoch;
            state.job
        };
        let ok = job.is_none_or(|job| drain(shared, worker, job));
        let mut state = lock(shared);
        state.failed |= !ok;
        state.running -= 1;
        if state.running == 0 {
            shared.done.notify_all();
        }
    }
}

impl Pool {
    /// `threads` workers in all, at least one; 0 takes one per core.
    pub fn new(threads: usize) -> Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = if threads == 0 { cores() } else { threads };
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                epoch: 0,
                job: None,
                running: 0,
                failed: false,
                stop: false,
            }),
            start: Condvar::new(),
            done: Condvar::new(),
            left: (0..threads).map(|_| Range(AtomicU64::new(0))).collect(),
        });
        let mut pool = Self { shared, handles: Vec::new() };
        for worker in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let handle = std::thread::Builder::new()
                .name(format!("mmopt-step-{worker}"))
                .spawn(move || worker_loop(&shared, worker))
                .map_err(Error::no_thread)?;
            pool.handles.push(handle);
        }
        Ok(pool)
    }

    /// Number of threads, the caller included.
    pub fn threads(&self) -> usize {
        self.handles.len() + 1
    }

    /// Runs `work(worker, item)` for every item, in no particular order, and waits.
    pub fn run<'a>(
        &mut self,
        n_items: usize,
        work: &'a (dyn Fn(usize, usize) + Sync + 'a),
    ) -> Result<()> {
        let work: *const (dyn Fn(usize, usize) + Sync + 'a) = work;
        // SAFETY: only the lifetime changes; this call outlives every use of the pointer.
        let work: *const (dyn Fn(usize, usize) + Sync) = unsafe { std::mem::transmute(work) };
        let job = Job { work };
        let many = |_| Error::unsupported(format!("{n_items} work items in one step"));
        let (n_items, workers) = (u64::from(u32::try_from(n_items).map_err(many)?), self.threads());
        for (worker, left) in self.shared.left.iter().enumerate() {
            let edge = |worker: usize| (worker as u64 * n_items / workers as u64) as u32;
            left.set([edge(worker), edge(worker + 1)]);
        }
        {
            let mut state = lock(&self.shared);
            state.job = Some(job);
            state.epoch += 1;
            state.running = self.handles.len();
            state.failed = false;
        }
        self.shared.start.notify_all();
        let ok = drain(&self.shared, 0, job);
        let mut state = lock(&self.shared);
        while state.running > 0 {
            state = self.shared.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.job = None;
        if ok && !state.failed {
            return Ok(());
        }
        Err(Error::internal("a kernel of the optimizer panicked"))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared).stop = true;
        self.shared.start.notify_all();
        for handle in self.handles.drain(..) {
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::sync::atomic::AtomicUsize;
    use std::time::Instant;

    #[test]
    fn every_item_runs_once_at_any_thread_count() {
        for threads in [1, 2, 5] {
            let mut pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads);
            let counts: Vec<AtomicUsize> = (0..1000).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..20 {
                pool.run(1000, &|worker, item| {
                    assert!(worker < threads);
                    counts[item].fetch_add(1, Ordering::Relaxed);
                })
                .unwrap();
            }
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 20));
        }
    }

    /// The first item lasts until the other worker has been at its neighbours.
    #[test]
    fn the_farther_half_is_taken_from_who_is_late() {
        let mut pool = Pool::new(2).unwrap();
        let stolen = AtomicUsize::new(0);
        let start = Instant::now();
        let first = AtomicUsize::new(usize::MAX);
        pool.run(64, &|_, item| match item {
            0 => {
                while stolen.load(Ordering::Relaxed) < 31 && start.elapsed().as_secs() < 60 {
                    std::thread::yield_now();
                }
            }
            1..32 => {
                stolen.fetch_add(1, Ordering::Relaxed);
                let _ =
                    first.compare_exchange(usize::MAX, item, Ordering::Relaxed, Ordering::Relaxed);
            }
            _ => {}
        })
        .unwrap();
        assert_eq!(stolen.load(Ordering::Relaxed), 31);
        assert_eq!(first.load(Ordering::Relaxed), 16);
    }

    #[test]
    fn a_panic_is_an_error_and_the_pool_lives_on() {
        let mut pool = Pool::new(3).unwrap();
        let result = pool.run(50, &|_, item| assert!(item != 17, "deliberate"));
        assert_eq!(result.unwrap_err().kind(), Kind::Internal);
        pool.run(50, &|_, _| ()).unwrap();
    }
}
