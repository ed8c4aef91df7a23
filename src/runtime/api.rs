//! The thin layer over ONNX Runtime's C functions: statuses become errors, and the runtime's
//! objects are released when their owner is dropped.

use std::ffi::{CStr, CString, c_char};
use std::ptr::{NonNull, null_mut};

use ort::sys;

use crate::error::{Error, Kind, Result};

/// The table of the runtime's C functions. Only called behind a [`super::Library`], whose loading
/// has checked that the table exists.
pub(super) fn api() -> &'static sys::OrtApi {
    ort::api()
}

/// Turns a status into a result and releases it.
pub(super) fn check(status: sys::OrtStatusPtr) -> Result<()> {
    let Some(status) = NonNull::new(status.0) else { return Ok(()) };
    // SAFETY: a non-null status is valid until released, which happens once, below.
    let (code, text) = unsafe {
        let code = (api().GetErrorCode)(status.as_ptr());
        (code, text((api().GetErrorMessage)(status.as_ptr())))
    };
    // SAFETY: as above; its text has been copied.
    unsafe { (api().ReleaseStatus)(status.as_ptr()) };
    let kind = match code {
        sys::OrtErrorCode::ORT_NO_SUCHFILE => Kind::NotFound,
        sys::OrtErrorCode::ORT_INVALID_PROTOBUF => Kind::InvalidData,
        sys::OrtErrorCode::ORT_NOT_IMPLEMENTED => Kind::Unsupported,
        _ if is_memory(&text) => Kind::OutOfMemory,
        _ => Kind::Runtime,
    };
    Err(Error::new(kind, format!("ONNX Runtime: {text}")))
}

/// Converts an error of the binding crate.
pub(super) fn wrap(error: ort::Error) -> Error {
    let text = error.to_string();
    let kind = if is_memory(&text) { Kind::OutOfMemory } else { Kind::Runtime };
    Error::new(kind, format!("ONNX Runtime: {text}"))
}

/// Whether the runtime's text says that memory is short: of the host, of its arenas, of a GPU. It
/// has no code for that.
fn is_memory(text: &str) -> bool {
    let words = [
        "bad_alloc",
        "Failed to allocate memory",
        "is smaller than requested",
        "out of memory",
        // Of our own operators.
        "the system has no memory",
    ];
    words.iter().any(|word| text.contains(word))
}

/// A C string of the runtime as text; empty for NULL.
///
/// # Safety
/// `chars` is NULL or a NUL-terminated string that lives through the call.
pub(super) unsafe fn text(chars: *const c_char) -> String {
    if chars.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(chars) }.to_string_lossy().into_owned()
}

/// A NUL-terminated copy; a NUL inside is an error.
pub(super) fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::invalid(format!("name {text:?} holds a NUL character")))
}

/// An object of the runtime that must be released once.
pub(super) struct Owned<T> {
    ptr: NonNull<T>,
    release: unsafe extern "system" fn(*mut T),
}

// SAFETY: the runtime's objects are not tied to the thread that made them; the wrappers that hold
// an `Owned` decide which calls may run at once.
unsafe impl<T> Send for Owned<T> {}
// SAFETY: a shared `Owned` gives out a pointer and nothing else.
unsafe impl<T> Sync for Owned<T> {}

impl<T> Owned<T> {
    /// Calls `make` with the place for the new object.
    ///
    /// # Safety
    /// On success `make` writes a pointer that `release` may be called on once.
    pub(super) unsafe fn make(
        release: unsafe extern "system" fn(*mut T),
        make: impl FnOnce(*mut *mut T) -> sys::OrtStatusPtr,
    ) -> Result<Self> {
        let mut out = null_mut();
        check(make(&raw mut out))?;
        let ptr = NonNull::new(out)
            .ok_or_else(|| Error::new(Kind::Runtime, "ONNX Runtime gave no object"))?;
        Ok(Self { ptr, release })
    }

    /// The object's address.
    pub(super) fn ptr(&self) -> *mut T {
        self.ptr.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: `make` got this pointer for exactly this call.
        unsafe { (self.release)(self.ptr.as_ptr()) }
    }
}
