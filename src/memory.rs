//! Advice to the system about large memory.

/// Allocations from this many bytes on are worth large pages.
const LARGE: usize = 4 << 20;
/// A large page; also a multiple of every small page's size.
const PAGE: usize = 2 << 20;

/// Asks for large pages behind fresh, untouched memory of 4 MB or more, where the system offers
/// them on request (Linux): walks with strides, as transposed views need, then miss the address
/// cache less. Only advice: nothing happens elsewhere, or when it is refused.
pub(crate) fn prefer_large_pages(memory: &mut [u8]) {
    if memory.len() < LARGE {
        return;
    }
    #[cfg(target_os = "linux")]
    {
        let skip = memory.as_ptr().align_offset(PAGE).min(memory.len());
        let inner = &mut memory[skip..];
        let n = inner.len() - inner.len() % PAGE;
        // SAFETY: whole pages inside memory that is exclusively ours; the advice changes how
        // pages are backed, never what they hold.
        unsafe { libc::madvise(inner.as_mut_ptr().cast(), n, libc::MADV_HUGEPAGE) };
    }
}
