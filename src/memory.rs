//! Memory whose size comes from outside, which the system may refuse: `OutOfMemory`.
//!
//! [`Memory`] is the zeroed memory of tensors. Large blocks are mapped from the system: their pages
//! cost nothing until they are written, and are large where the system offers it. The functions
//! make vectors. `available` says how much there is.

mod available;

pub(crate) use available::{available, installed};

use crate::error::{Error, Result};
use crate::pin::Pin;
use memmap2::MmapMut;

/// A large page.
const PAGE: usize = 2 << 20;
/// An ordinary page; a mapped block shares its first and last one with nothing else.
const SMALL_PAGE: usize = 4096;

/// One cache line; vectors of it give 64-byte alignment without unsafe code.
#[derive(Clone, Copy, Default, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Line([u64; 8]);

/// Floats initialised to zeros, aligned to 64 bytes: no vector register's load crosses a line.
pub(crate) struct Floats {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl Floats {
    /// Pages are taken when they are first written: an aligned allocation of zeros would write all.
    pub fn new(len: usize) -> Result<Self> {
        const PER_LINE: usize = size_of::<Line>() / size_of::<f32>();
        let values = zeros::<f32>(len + PER_LINE - 1)?;
        let start = values.as_ptr().align_offset(align_of::<Line>());
        Ok(Self { values, start, len })
    }
}

impl std::ops::Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..][..self.len]
    }
}

impl std::ops::DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..][..self.len]
    }
}

enum Store {
    Lines(Vec<Line>),
    // The pin is dropped before the memory.
    Map { pin: Option<Pin>, map: MmapMut, start: usize },
}

/// Memory initialised to zeros, aligned to 64 bytes.
pub(crate) struct Memory {
    store: Store,
    len: usize,
}

impl Memory {
    /// `len` bytes of zeros.
    ///
    /// From 2 MB on the block begins at most 62 KB after the start of a large page, and the system
    /// is asked to use large pages (Linux, with transparent huge pages on request): strided access,
    /// as transposed views need, then misses the TLB less. The offset differs from block to block,
    /// so that arrays that are read together do not compete for the same cache sets.
    pub fn zeroed(len: usize) -> Result<Self> {
        Self::with_pages(len, true)
    }

    /// The same in small pages, for what is written in few places.
    pub fn zeroed_in_small_pages(len: usize) -> Result<Self> {
        Self::with_pages(len, false)
    }

    fn with_pages(len: usize, large: bool) -> Result<Self> {
        if len < PAGE {
            return Ok(Self { store: Store::Lines(zeros(len.div_ceil(64))?), len });
        }
        let failed = |e: std::io::Error| Error::out_of_memory(len).with_source(e);
        let total = len.checked_add(2 * PAGE).ok_or_else(|| Error::shape("memory too large"))?;
        let map = MmapMut::map_anon(total).map_err(failed)?;
        let first = map.as_ptr().align_offset(PAGE);
        let number = (map.as_ptr() as usize).wrapping_add(first) / PAGE;
        // Only advice: memory is the same without it.
        #[cfg(target_os = "linux")]
        if large {
            let _ = map.advise_range(memmap2::Advice::HugePage, first, len - len % PAGE);
        } else {
            let _ = map.advise(memmap2::Advice::NoHugePage);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = large;
        Ok(Self {
            store: Store::Map { pin: None, map, start: first + number * 5 % 32 * 1984 },
            len,
        })
    }

    /// The memory.
    pub fn bytes(&self) -> &[u8] {
        match &self.store {
            Store::Lines(lines) => &bytemuck::cast_slice(lines)[..self.len],
            Store::Map { map, start, .. } => &map[*start..start + self.len],
        }
    }

    /// The memory, writable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.store {
            Store::Lines(lines) => &mut bytemuck::cast_slice_mut(lines)[..self.len],
            Store::Map { map, start, .. } => &mut map[*start..*start + self.len],
        }
    }

    /// The same bytes in memory of their own.
    pub fn copy(&self) -> Result<Self> {
        let mut copy = Self::zeroed(self.len)?;
        copy.bytes_mut().copy_from_slice(self.bytes());
        Ok(copy)
    }

    /// Pins a large block so that the device copies it directly; without effect where that is not
    /// possible.
    pub fn pin(&mut self, device: i32) {
        if let Store::Map { pin: pin @ None, map, start } = &mut self.store {
            let first = *start - *start % SMALL_PAGE;
            let len = (*start + self.len).next_multiple_of(SMALL_PAGE) - first;
            // SAFETY: the pin is dropped before the map, which never moves.
            *pin = unsafe { Pin::new(device, map[first..first + len].as_mut_ptr(), len) };
        }
    }
}

/// Clears elements of which few will be written. On Linux whole pages go back to the system, so
/// that zeros take no memory: in memory that is mapped for this process alone, as that of tensors
/// and of the runtime is. All pages in one call, for each makes all processors forget addresses,
/// which on a virtual machine takes longer than to write a page.
pub(crate) fn clear_sparse(values: &mut [f32]) {
    let (first, pages, last) = whole_pages(values);
    first.fill(0.0);
    last.fill(0.0);
    // SAFETY: whole pages of private memory without a file, which reads as zeros afterwards; the
    // system refuses where the memory is locked.
    if !unsafe { advise(pages, Advice::GiveBack) } {
        pages.fill(0.0);
    }
}

/// Tells the system that elements which [`clear_sparse`] cleared will be read: it maps all at once
/// what it would map page by page, still without memory for zeros.
pub(crate) fn will_read(values: &mut [f32]) {
    let (_, pages, _) = whole_pages(values);
    // SAFETY: it changes no contents. Systems that do not know it do nothing.
    unsafe { advise(pages, Advice::WillRead) };
}

/// What comes before the first whole page, whole pages, and what follows them.
fn whole_pages(values: &mut [f32]) -> (&mut [f32], &mut [f32], &mut [f32]) {
    const PER_PAGE: usize = SMALL_PAGE / size_of::<f32>();
    let before = values.as_ptr().align_offset(SMALL_PAGE).min(values.len());
    let (first, rest) = values.split_at_mut(before);
    let (pages, last) = rest.split_at_mut(rest.len() / PER_PAGE * PER_PAGE);
    (first, pages, last)
}

enum Advice {
    GiveBack,
    WillRead,
}

/// Advises the system about whole pages; false where it does not follow.
///
/// # Safety
/// [`Advice::GiveBack`] replaces contents of private memory without a file by zeros.
#[cfg(target_os = "linux")]
unsafe fn advise(pages: &mut [f32], advice: Advice) -> bool {
    let advice = match advice {
        Advice::GiveBack => libc::MADV_DONTNEED,
        Advice::WillRead => libc::MADV_POPULATE_READ,
    };
    // SAFETY: the pages are those of a slice; the rest is the caller's promise.
    unsafe { libc::madvise(pages.as_mut_ptr().cast(), size_of_val(pages), advice) == 0 }
}

#[cfg(not(target_os = "linux"))]
unsafe fn advise(_: &mut [f32], _: Advice) -> bool {
    false
}

/// Gives memory that was freed, and that the C library keeps for later, back to the system where
/// that is possible (glibc). After many allocations that were freed together, such as the weights
/// of a graph; it takes milliseconds.
pub(crate) fn give_back_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it may be called at any time by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Zeros, whose pages are taken when they are first written.
pub(crate) fn zeros<T: bytemuck::Zeroable>(n: usize) -> Result<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(n)
        .map_err(|()| Error::out_of_memory(n.saturating_mul(size_of::<T>())))
}

/// An empty vector with room for `n` items.
pub(crate) fn room<T>(n: usize) -> Result<Vec<T>> {
    let mut all = Vec::new();
    all.try_reserve_exact(n)
        .map_err(|e| Error::out_of_memory(n.saturating_mul(size_of::<T>())).with_source(e))?;
    Ok(all)
}

/// `n` times the same.
pub(crate) fn filled<T: Clone>(n: usize, value: T) -> Result<Vec<T>> {
    let mut all = room(n)?;
    all.resize(n, value);
    Ok(all)
}

/// A copy.
pub(crate) fn copied<T: Copy>(from: &[T]) -> Result<Vec<T>> {
    let mut all = room(from.len())?;
    all.extend_from_slice(from);
    Ok(all)
}

/// Puts one more at the end.
pub(crate) fn push<T>(all: &mut Vec<T>, item: T) -> Result<()> {
    if all.len() == all.capacity() {
        all.try_reserve(1)?;
    }
    all.push(item);
    Ok(())
}

/// Iterators whose items are gathered in memory that may be refused.
pub(crate) trait Gather: Iterator + Sized {
    /// All items.
    fn gathered(self) -> Result<Vec<Self::Item>> {
        let mut all = room(self.size_hint().0)?;
        for item in self {
            push(&mut all, item)?;
        }
        Ok(all)
    }

    /// All items, or the first error.
    fn gathered_or_error<T>(self) -> Result<Vec<T>>
    where
        Self: Iterator<Item = Result<T>>,
    {
        let mut all = room(self.size_hint().0)?;
        for item in self {
            push(&mut all, item?)?;
        }
        Ok(all)
    }
}

impl<I: Iterator> Gather for I {}

/// Whether there are so many bytes now, for what is then taken in many small blocks that cannot be
/// refused one by one.
pub(crate) fn check_room(n_bytes: usize) -> Result<()> {
    room::<u8>(n_bytes).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn blocks_of_any_size_are_zero_and_aligned() {
        for len in [0, 1, 64, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE + 77] {
            let mut all: Vec<Memory> = (0..3).map(|_| Memory::zeroed(len).unwrap()).collect();
            for memory in &mut all {
                assert_eq!(memory.bytes().len(), len);
                assert_eq!(memory.bytes().as_ptr() as usize % 64, 0);
                assert!(memory.bytes().iter().all(|&b| b == 0));
                memory.bytes_mut().fill(7);
                assert_eq!(memory.copy().unwrap().bytes(), memory.bytes());
            }
            assert!(all.iter().all(|m| m.bytes().iter().all(|&b| b == 7)));
        }
    }

    #[test]
    fn sparse_memory_is_cleared() {
        for (len, first) in [(5 * PAGE / 4, 0), (3000, 5), (10, 1), (0, 0)] {
            let mut memory = Memory::zeroed_in_small_pages(4 * len).unwrap();
            let values: &mut [f32] = bytemuck::cast_slice_mut(memory.bytes_mut());
            let part = &mut values[first..];
            for at in (0..part.len()).step_by(70_001) {
                part[at] = -0.0;
                part[at..].iter_mut().take(3000).for_each(|x| *x = f32::NAN);
            }
            clear_sparse(part);
            will_read(part);
            assert!(values.iter().all(|x| x.to_bits() == 0), "{len}");
        }
    }

    #[test]
    fn more_than_the_system_has_is_an_error() {
        let check = |result: Result<()>| {
            assert_eq!(result.unwrap_err().kind(), Kind::OutOfMemory);
        };
        let much = isize::MAX as usize / 2;
        check(Memory::zeroed(much).map(drop));
        check(zeros::<f32>(much / 4).map(drop));
        check(filled(much / 8, 1u64).map(drop));
        check(std::iter::repeat_n(1u8, much).gathered().map(drop));
        check(check_room(much));
        check(check_room(usize::MAX));
        assert!(Memory::zeroed(usize::MAX - 100).is_err());
    }

    #[test]
    fn vectors_that_grow() {
        assert_eq!((0..1000).gathered().unwrap(), Vec::from_iter(0..1000));
        assert_eq!((0..9).filter(|i| i % 2 == 0).gathered().unwrap(), [0, 2, 4, 6, 8]);
        let all = (0..9).map(|i| if i < 5 { Ok(i) } else { Err(Error::invalid("5")) });
        assert_eq!(all.gathered_or_error().unwrap_err().message(), "5");
        assert_eq!(copied(&filled(3, 7u8).unwrap()).unwrap(), [7, 7, 7]);
    }
}
