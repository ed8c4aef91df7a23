//! Option structs that may grow: each begins with `struct_size`, the size that the caller was
//! compiled with. Only that many bytes are read; what a shorter struct lacks keeps its default,
//! and what a longer one adds must be zero, or the caller asks for something unknown here.

use crate::error::{Error, Result};

/// A struct of options that C fills in.
///
/// # Safety
/// `#[repr(C)]`, begins with `struct_size: size_t`, and every bit pattern of every field is valid.
pub(crate) unsafe trait Options: Copy + Default {
    /// The C name, for messages.
    const NAME: &'static str;
}

/// Reads a struct of options; NULL gives the defaults.
///
/// # Safety
/// `pointer` is NULL or leads to a `size_t` and as many bytes in all as it says.
pub(crate) unsafe fn options<T: Options>(pointer: *const T) -> Result<T> {
    let mut value = T::default();
    if pointer.is_null() {
        return Ok(value);
    }
    if !pointer.is_aligned() {
        return Err(Error::invalid(format!("{} is not aligned", T::NAME)));
    }
    let bytes: *const u8 = pointer.cast();
    // SAFETY: by this function's contract; aligned as checked above.
    let given = unsafe { bytes.cast::<usize>().read() };
    let known = size_of::<T>();
    if given < size_of::<usize>() || given > (1 << 16) {
        return Err(Error::invalid(format!(
            "{0}.struct_size is {given}; fill the struct with {0}_init first",
            T::NAME
        )));
    }
    // SAFETY: by this function's contract `given` bytes are there.
    let extra = unsafe {
        std::slice::from_raw_parts(bytes.add(known.min(given)), given.saturating_sub(known))
    };
    if extra.iter().any(|&b| b != 0) {
        return Err(Error::unsupported(format!(
            "{} sets options that this version of the library ({}) does not know",
            T::NAME,
            env!("CARGO_PKG_VERSION")
        )));
    }
    // SAFETY: both sides hold that many bytes, and `Options` allows every bit pattern.
    unsafe { std::ptr::copy_nonoverlapping(bytes, (&raw mut value).cast(), known.min(given)) };
    Ok(value)
}

/// Fills a struct of options with its defaults; NULL is harmless. It cannot panic.
///
/// # Safety
/// `pointer` is NULL or may be written to.
pub(crate) unsafe fn init<T: Options>(pointer: *mut T) {
    if !pointer.is_null() && pointer.is_aligned() {
        // SAFETY: by this function's contract.
        unsafe { pointer.write(T::default()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Probe {
        struct_size: usize,
        old: u64,
        new: u64,
        beyond: u64,
    }
    impl Default for Probe {
        fn default() -> Self {
            Self { struct_size: size_of::<Self>(), old: 1, new: 2, beyond: 0 }
        }
    }
    // SAFETY: repr(C), integers only, begins with its size.
    unsafe impl Options for Probe {
        const NAME: &'static str = "probe";
    }

    #[test]
    fn only_the_given_bytes_are_read() {
        let mut probe = Probe { struct_size: 16, old: 7, new: 8, beyond: 9 };
        // SAFETY: `probe` is larger than every size given here.
        unsafe {
            assert_eq!(options(&raw const probe).unwrap().old, 7);
            assert_eq!(options(&raw const probe).unwrap().new, 2);
            probe.struct_size = 24;
            assert_eq!(options(&raw const probe).unwrap().new, 8);
            probe.struct_size = 0;
            assert!(options(&raw const probe).is_err());
            assert_eq!(options::<Probe>(std::ptr::null()).unwrap().old, 1);
        }
    }

    #[test]
    fn what_a_newer_caller_sets_is_not_ignored() {
        let mut longer = [Probe::default(); 2];
        longer[0].struct_size = 2 * size_of::<Probe>();
        longer[1] = Probe { struct_size: 0, old: 0, new: 0, beyond: 0 };
        // SAFETY: the array holds as many bytes as its first element says.
        unsafe {
            assert!(options(longer.as_ptr()).is_ok());
            longer[1].new = 3;
            assert!(options(longer.as_ptr()).is_err());
        }
    }
}
