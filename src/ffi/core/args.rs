//! Arguments from C, checked before anything happens: texts, arrays, outputs, enumerations.

use std::ffi::{CStr, CString, c_char};

use crate::error::{Error, Result};

/// A NUL-terminated UTF-8 text that must be given.
///
/// # Safety
/// `text` is NULL or a NUL-terminated string that stays as it is while `'a` lasts.
pub(crate) unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<&'a str> {
    // SAFETY: by this function's contract.
    unsafe { optional_text(text, name) }?.ok_or_else(|| Error::invalid(format!("{name} is NULL")))
}

/// The name of a new model, which is not empty.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn model_name<'a>(name: *const c_char) -> Result<&'a str> {
    // SAFETY: by this function's contract.
    match unsafe { text(name, "name") }? {
        "" => Err(Error::invalid("name is empty; messages and checkpoints tell models by names")),
        name => Ok(name),
    }
}

/// A NUL-terminated UTF-8 text, or none for NULL.
///
/// # Safety
/// As for [`text`].
pub(crate) unsafe fn optional_text<'a>(text: *const c_char, name: &str) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: by this function's contract.
    let text = unsafe { CStr::from_ptr(text) }.to_str().map_err(|e| {
        let at = e.valid_up_to();
        Error::invalid(format!("{name} is not UTF-8: the byte at {at} begins no character"))
    })?;
    Ok(Some(text))
}

/// `n` elements from C. NULL is allowed when `n` is 0.
///
/// # Safety
/// `pointer` is NULL or leads to `n` elements that nobody changes while `'a` lasts.
pub(crate) unsafe fn slice<'a, T>(pointer: *const T, n: usize, name: &str) -> Result<&'a [T]> {
    if n == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(Error::invalid(format!("{name} is NULL, but its length is {n}")));
    }
    if !pointer.is_aligned() {
        return Err(Error::invalid(format!("{name} is not aligned to {} bytes", align_of::<T>())));
    }
    if n > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Error::invalid(format!("{name}: a length of {n} exceeds the address space")));
    }
    // SAFETY: checked above; the rest is this function's contract.
    Ok(unsafe { std::slice::from_raw_parts(pointer, n) })
}

/// An array of texts.
///
/// # Safety
/// As for [`slice`], and each element as for [`text`].
pub(crate) unsafe fn texts<'a>(
    pointer: *const *const c_char,
    n: usize,
    name: &str,
) -> Result<Vec<&'a str>> {
    // SAFETY: by this function's contract.
    let pointers = unsafe { slice(pointer, n, name) }?;
    // SAFETY: by this function's contract.
    let one = |(i, &p): (usize, &*const c_char)| unsafe { text(p, &format!("{name}[{i}]")) };
    pointers.iter().enumerate().map(one).collect()
}

/// A place for a result, written only on success.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Writes the result; without a place (an optional output), drops it.
    pub(crate) fn set(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: `output` and `optional_output` have the caller's word for the pointer.
            unsafe { self.0.write(value) };
        }
    }

    /// Whether the caller wants this result.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.0.is_null()
    }
}

/// A result that the caller must take.
///
/// # Safety
/// `pointer` is NULL or may be written to.
pub(crate) unsafe fn output<T>(pointer: *mut T, name: &str) -> Result<Out<T>> {
    if pointer.is_null() {
        return Err(Error::invalid(format!("{name} is NULL; it is where the result goes")));
    }
    // SAFETY: by this function's contract.
    unsafe { optional_output(pointer, name) }
}

/// A result that the caller may leave by giving NULL.
///
/// # Safety
/// `pointer` is NULL or may be written to.
pub(crate) unsafe fn optional_output<T>(pointer: *mut T, name: &str) -> Result<Out<T>> {
    if !pointer.is_aligned() {
        return Err(Error::invalid(format!("{name} is not aligned to {} bytes", align_of::<T>())));
    }
    Ok(Out(pointer))
}

/// Room for `n` results.
///
/// # Safety
/// `pointer` is NULL or leads to `n` elements that may be written to and that hold valid values.
pub(crate) unsafe fn output_slice<'a, T>(
    pointer: *mut T,
    n: usize,
    name: &str,
) -> Result<&'a mut [T]> {
    if n == 0 {
        return Ok(&mut []);
    }
    // SAFETY: by this function's contract; this checks NULL, alignment and size.
    let n = unsafe { slice(pointer.cast_const(), n, name) }?.len();
    // SAFETY: as above, and the caller gives these elements for writing.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, n) })
}

/// A number that must be one of an enumeration's.
pub(crate) fn choice<T: Copy>(value: u32, name: &str, choices: &[(u32, T)]) -> Result<T> {
    choices.iter().find(|c| c.0 == value).map(|c| c.1).ok_or_else(|| {
        let known: Vec<String> = choices.iter().map(|c| c.0.to_string()).collect();
        Error::invalid(format!("{name} is {value}; it must be one of {}", known.join(", ")))
    })
}

/// A flag that must be 0 or 1.
pub(crate) fn flag(value: u32, name: &str) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::invalid(format!("{name} is {value}; it is a flag, 0 or 1"))),
    }
}

/// Refuses what a later version may give a meaning to: it must not be passed over here.
pub(crate) fn reserved(is_zero: bool, name: &str) -> Result<()> {
    if is_zero {
        return Ok(());
    }
    Err(Error::unsupported(format!("{name} is not 0; this version of the library reserves it")))
}

/// A text without NUL for C; one inside is an error that names the text.
pub(crate) fn c_string(text: &str, name: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::invalid(format!("{name} holds a NUL character")))
}

/// A text that C owns from now on and frees with `mmopt_string_free`.
pub(crate) fn owned_text(text: &str, name: &str) -> Result<*mut c_char> {
    Ok(c_string(text, name)?.into_raw())
}

/// Frees a text that a function returned through a `char **`. NULL is harmless.
///
/// @param text may be NULL; freed by the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_string_free(text: *mut c_char) {
    super::guard::guard_or((), || {
        if !text.is_null() {
            // SAFETY: it came from `owned_text`, and the caller gives it up.
            drop(unsafe { CString::from_raw(text) });
        }
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_checked() {
        let bad = [c"fine".as_ptr(), c"\xff".as_ptr()];
        // SAFETY: NULL, or constant NUL-terminated strings.
        unsafe {
            assert_eq!(text(bad[0], "a").unwrap(), "fine");
            assert!(text(std::ptr::null(), "a").unwrap_err().message().contains("a is NULL"));
            assert!(optional_text(std::ptr::null(), "a").unwrap().is_none());
            let e = texts(bad.as_ptr(), 2, "names").unwrap_err();
            assert!(e.message().starts_with("names[1] is not UTF-8"), "{e}");
        }
    }

    #[test]
    fn arrays_are_checked() {
        let numbers = [1u32, 2, 3];
        let odd = numbers.as_ptr().cast::<u8>().wrapping_add(1).cast::<u32>();
        // SAFETY: refused before they are read, or inside `numbers`.
        unsafe {
            assert_eq!(slice(numbers.as_ptr(), 3, "n").unwrap(), [1, 2, 3]);
            assert!(slice::<u32>(std::ptr::null(), 0, "n").unwrap().is_empty());
            assert!(slice::<u32>(std::ptr::null(), 1, "n").is_err());
            assert!(slice(odd, 1, "n").is_err());
            assert!(slice(numbers.as_ptr(), usize::MAX / 2, "n").is_err());
            assert!(output(std::ptr::null_mut::<u32>(), "out").is_err());
        }
    }

    #[test]
    fn numbers_outside_an_enumeration_are_refused() {
        let choices = [(0, 'a'), (2, 'b')];
        assert_eq!(choice(2, "kind", &choices).unwrap(), 'b');
        let e = choice(1, "kind", &choices).unwrap_err();
        assert_eq!(e.message(), "kind is 1; it must be one of 0, 2");
        assert!(flag(2, "resume").is_err());
    }
}
