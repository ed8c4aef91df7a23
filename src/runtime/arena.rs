//! The working memory of sessions: one range of addresses for all, so that sessions that run in
//! turn need the memory of the largest, and what each holds is counted.
//!
//! A block is cut from the smallest free range that holds it, and joined with its free neighbours
//! when it comes back (best fit; Knuth, The Art of Computer Programming 1, 2.5). The addresses are
//! reserved at once: the system gives pages when they are first written, large ones where it does
//! so on request (Linux), and they are kept.
//!
//! *meter*: counts the bytes that the runs of one model hold; runs are metered by thread, for the
//! runtime asks for memory on the thread that calls it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::c_void;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::MmapMut;
use ort::environment::Environment;
use ort::{AsPointer, sys};

use super::api::{Owned, api, check};
use crate::error::{Error, Result};

/// Blocks begin at multiples of so many bytes.
const ALIGNMENT: usize = 256;
/// Less address space than this is not worth an arena of our own.
const LEAST: usize = 1 << 30;

/// Counts bytes of working memory; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    now: AtomicUsize,
    peak: AtomicUsize,
}

impl Meter {
    /// The most bytes that were held at the same time; 0 before the first run, and where the
    /// runtime's own arena is used.
    pub fn peak(&self) -> usize {
        self.0.peak.load(Ordering::Relaxed)
    }

    /// Runs `work`; what ONNX Runtime allocates for it on this thread counts.
    pub(super) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        /// Puts the meter before back, also when `work` panics.
        struct Before(Option<Meter>);
        impl Drop for Before {
            fn drop(&mut self) {
                METER.with_borrow_mut(|meter| *meter = self.0.take());
            }
        }
        let before = METER.with_borrow_mut(|meter| meter.replace(self.clone()));
        let _before = Before(before);
        work()
    }

    fn add(&self, bytes: usize) {
        let now = self.0.now.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.0.peak.fetch_max(now, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) {
        self.0.now.fetch_sub(bytes, Ordering::Relaxed);
    }
}

thread_local! {
    static METER: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

/// Which parts of a range of bytes are free. Offsets count from its start.
#[derive(Debug, Default)]
struct Blocks {
    /// Start and length of the free parts, none of which touch.
    free: BTreeMap<usize, usize>,
    /// The same by length.
    by_length: BTreeSet<(usize, usize)>,
    /// Length of the blocks that are in use, and who holds them.
    used: HashMap<usize, (usize, Option<Meter>)>,
}

impl Blocks {
    fn new(len: usize) -> Self {
        let mut blocks = Self::default();
        blocks.give(0, len);
        blocks
    }

    fn give(&mut self, start: usize, len: usize) {
        self.free.insert(start, len);
        self.by_length.insert((len, start));
    }

    fn remove(&mut self, start: usize, len: usize) {
        self.free.remove(&start);
        self.by_length.remove(&(len, start));
    }

    fn allocate(&mut self, size: usize) -> Option<usize> {
        let len = size.max(1).checked_next_multiple_of(ALIGNMENT)?;
        let &(found, start) = self.by_length.range((len, 0)..).next()?;
        self.remove(start, found);
        if found > len {
            self.give(start + len, found - len);
        }
        let meter = METER.try_with(|meter| meter.try_borrow().ok()?.clone()).ok().flatten();
        if let Some(meter) = &meter {
            meter.add(len);
        }
        self.used.insert(start, (len, meter));
        Some(start)
    }

    fn free(&mut self, start: usize) {
        let Some((len, meter)) = self.used.remove(&start) else { return };
        if let Some(meter) = meter {
            meter.take(len);
        }
        let (mut first, mut end) = (start, start + len);
        let before = self.free.range(..start).next_back().map(|(&s, &l)| (s, l));
        if let Some((s, l)) = before.filter(|(s, l)| s + l == start) {
            self.remove(s, l);
            first = s;
        }
        if let Some(l) = self.free.get(&end).copied() {
            self.remove(end, l);
            end += l;
        }
        self.give(first, end - first);
    }
}

/// The arena in the runtime's form: it is called with the address of `head`.
#[repr(C)]
struct Arena {
    head: sys::OrtAllocator,
    info: Owned<sys::OrtMemoryInfo>,
    // Written through by the runtime alone; kept for good.
    _map: MmapMut,
    start: usize,
    blocks: Mutex<Blocks>,
}

/// Registers the arena with the environment, for the rest of the process.
///
/// # Errors
/// `Unsupported` where addresses are counted or limited; `OutOfMemory` where so many cannot be
/// reserved; what the runtime says.
pub(super) fn register(environment: &Environment) -> Result<()> {
    let mut map = reserve()?;
    let start = map.as_mut_ptr() as usize;
    let (api, env) = (api(), environment.ptr().cast_mut());
    // SAFETY: the release function belongs to what is made.
    let info = unsafe {
        Owned::make(api.ReleaseMemoryInfo, |out| {
            let kind = sys::OrtAllocatorType::OrtDeviceAllocator;
            (api.CreateCpuMemoryInfo)(kind, sys::OrtMemType::OrtMemTypeDefault, out)
        })
    }?;
    let head = sys::OrtAllocator {
        Alloc: Some(allocate),
        Free: Some(free),
        Info: Some(info_of),
        // SAFETY: it only fills the struct.
        ..unsafe { sys::OrtAllocator::default() }
    };
    let blocks = Mutex::new(Blocks::new(map.len()));
    // Sessions, and what they made, may refer to it until the process ends.
    let arena = Box::leak(Box::new(Arena { head, info, _map: map, start, blocks }));
    // SAFETY: the allocator begins with the runtime's struct and is never released.
    check(unsafe { (api.RegisterAllocator)(env, (&raw mut *arena).cast()) })
}

/// Whether addresses cost nothing: neither does the system count them as memory that is promised
/// (`vm.overcommit_memory` 2), nor has the process a limit of them (`ulimit -v`).
fn addresses_are_free() -> bool {
    let mode = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap_or_default();
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the place for the result.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) } == 0;
    mode.trim() != "2" && known && limit.rlim_cur == libc::RLIM_INFINITY
}

/// Addresses for twice the machine's memory, or as many as there are.
fn reserve() -> Result<MmapMut> {
    if !addresses_are_free() {
        return Err(Error::unsupported("the system counts or limits addresses"));
    }
    let mut len = crate::memory::installed().unwrap_or(1 << 36).saturating_mul(2).max(LEAST);
    loop {
        match memmap2::MmapOptions::new().len(len).no_reserve_swap().map_anon() {
            Ok(map) => {
                // Strided reads miss the TLB less. Only advice: memory is the same without it.
                #[cfg(target_os = "linux")]
                let _ = map.advise(memmap2::Advice::HugePage);
                return Ok(map);
            }
            Err(_) if len / 2 >= LEAST => len /= 2,
            Err(e) => return Err(Error::out_of_memory(len).with_source(e)),
        }
    }
}

unsafe extern "system" fn allocate(this: *mut sys::OrtAllocator, size: usize) -> *mut c_void {
    // SAFETY: the runtime calls it with the arena that was registered.
    let Some(arena) = (unsafe { this.cast::<Arena>().as_ref() }) else { return null_mut() };
    if size == 0 {
        return null_mut();
    }
    let mut blocks = arena.blocks.lock().unwrap_or_else(PoisonError::into_inner);
    blocks.allocate(size).map_or(null_mut(), |at| (arena.start + at) as *mut c_void)
}

unsafe extern "system" fn free(this: *mut sys::OrtAllocator, block: *mut c_void) {
    // SAFETY: as above.
    let Some(arena) = (unsafe { this.cast::<Arena>().as_ref() }) else { return };
    let at = (block as usize).wrapping_sub(arena.start);
    arena.blocks.lock().unwrap_or_else(PoisonError::into_inner).free(at);
}

unsafe extern "system" fn info_of(this: *const sys::OrtAllocator) -> *const sys::OrtMemoryInfo {
    // SAFETY: as above.
    unsafe { this.cast::<Arena>().as_ref() }.map_or(null(), |arena| arena.info.ptr().cast_const())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks never overlap, what is free is joined, and meters come back to nothing.
    #[test]
    fn blocks_are_cut_and_joined() {
        let len = 1 << 20;
        let mut blocks = Blocks::new(len);
        let meter = Meter::default();
        let mut held: Vec<(usize, usize)> = Vec::new();
        let mut state = 7u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let size = (state >> 33) as usize % 40_000 + 1;
            if held.len() > 30 || state >> 63 == 1 && !held.is_empty() {
                let (start, _) = held.swap_remove(size % held.len());
                blocks.free(start);
            } else if let Some(start) = meter.during(|| blocks.allocate(size)) {
                assert!(start % ALIGNMENT == 0 && start + size <= len);
                let apart = |&(s, l): &(usize, usize)| start + size <= s || s + l <= start;
                assert!(held.iter().all(apart));
                held.push((start, size));
            }
            let free: usize = blocks.free.values().sum();
            let used: usize = blocks.used.values().map(|(len, _)| len).sum();
            assert_eq!((free + used, blocks.by_length.len()), (len, blocks.free.len()));
            assert_eq!(meter.0.now.load(Ordering::Relaxed), used);
        }
        held.iter().for_each(|&(start, _)| blocks.free(start));
        assert_eq!(blocks.free, BTreeMap::from([(0, len)]));
        assert_eq!(meter.0.now.load(Ordering::Relaxed), 0);
        assert!(meter.peak() > len / 4);
        assert_eq!(blocks.allocate(len + 1), None);
        assert_eq!(blocks.allocate(usize::MAX), None);
    }

    /// The smallest range that holds a block is cut.
    #[test]
    fn blocks_fit_best() {
        let mut blocks = Blocks::new(10 * ALIGNMENT);
        let [a, _, c, _, e] = [3, 1, 2, 1, 2].map(|n| blocks.allocate(n * ALIGNMENT).unwrap());
        [a, c, e].into_iter().for_each(|start| blocks.free(start));
        assert_eq!(blocks.allocate(2 * ALIGNMENT), Some(c));
        // The last one was joined with what is behind it.
        assert_eq!(blocks.allocate(3 * ALIGNMENT), Some(a));
        assert_eq!(blocks.allocate(3 * ALIGNMENT), Some(e));
        // Freed twice is freed once.
        blocks.free(a);
        blocks.free(a);
        assert_eq!(blocks.free.len(), 1);
    }
}
