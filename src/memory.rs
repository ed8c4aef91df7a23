//! Zeroed host memory for tensors. Large blocks are mapped from the system: their pages cost
//! nothing until they are written, and are large where the system offers it.

use crate::error::{Error, Kind, Result};
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
    pub fn new(len: usize) -> Self {
        const PER_LINE: usize = size_of::<Line>() / size_of::<f32>();
        let values = vec![0.0f32; len + PER_LINE - 1];
        let start = values.as_ptr().align_offset(align_of::<Line>());
        Self { values, start, len }
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
    /// `len` bytes of zeros; an error when the system has none left for a large block.
    ///
    /// From 2 MB on the block begins at most 62 KB after the start of a large page, and the system
    /// is asked to use large pages (Linux, with transparent huge pages on request): strided access,
    /// as transposed views need, then misses the TLB less. The offset differs from block to block,
    /// so that arrays that are read together do not compete for the same cache sets.
    pub fn zeroed(len: usize) -> Result<Self> {
        if len < PAGE {
            let lines = bytemuck::allocation::zeroed_vec(len.div_ceil(64));
            return Ok(Self { store: Store::Lines(lines), len });
        }
        let failed = |e: std::io::Error| {
            let text = format!("the system gives no {len} bytes of memory: {e}");
            Error::new(Kind::Internal, text).with_source(e)
        };
        let total = len.checked_add(2 * PAGE).ok_or_else(|| Error::shape("memory too large"))?;
        let map = MmapMut::map_anon(total).map_err(failed)?;
        let first = map.as_ptr().align_offset(PAGE);
        let number = (map.as_ptr() as usize).wrapping_add(first) / PAGE;
        // Only advice: memory is the same without it.
        #[cfg(target_os = "linux")]
        let _ = map.advise_range(memmap2::Advice::HugePage, first, len - len % PAGE);
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

impl Clone for Memory {
    fn clone(&self) -> Self {
        let lines = || Store::Lines(bytemuck::allocation::zeroed_vec(self.len.div_ceil(64)));
        let mut copy =
            Self::zeroed(self.len).unwrap_or_else(|_| Self { store: lines(), len: self.len });
        copy.bytes_mut().copy_from_slice(self.bytes());
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_any_size_are_zero_and_aligned() {
        for len in [0, 1, 64, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE + 77] {
            let mut all: Vec<Memory> = (0..3).map(|_| Memory::zeroed(len).unwrap()).collect();
            for memory in &mut all {
                assert_eq!(memory.bytes().len(), len);
                assert_eq!(memory.bytes().as_ptr() as usize % 64, 0);
                assert!(memory.bytes().iter().all(|&b| b == 0));
                memory.bytes_mut().fill(7);
                assert_eq!(memory.clone().bytes(), memory.bytes());
            }
            assert!(all.iter().all(|m| m.bytes().iter().all(|&b| b == 7)));
        }
    }

    #[test]
    fn more_than_the_system_has_is_an_error() {
        assert!(Memory::zeroed(usize::MAX / 4).is_err());
        assert!(Memory::zeroed(usize::MAX - 100).is_err());
    }
}
