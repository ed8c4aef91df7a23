//! ONNX Runtime: loaded once per process, on request or with the first trainer.

use std::ffi::{CString, c_char};
use std::path::Path;
use std::sync::OnceLock;

use super::args::optional_text;
use super::error::mmopt_error;
use super::guard::{guard, guard_or};

/// Loads ONNX Runtime, or does nothing if this process has loaded it already.
///
/// path is the shared library or its directory. NULL searches: the environment variables
/// MMOPT_ORT_LIB and ORT_DYLIB_PATH, the directory of libmmopt, .runtime/lib, the system's
/// directories. ONNX Runtime 1.17 or later is required. Creating a trainer loads it as well;
/// calling this function first reports early whether it is installed.
///
/// Errors: RUNTIME_UNAVAILABLE with all files that were tried and why each failed; another call may
/// succeed. STATE when another file is loaded. May be called from any thread.
///
/// @param[in] path the library or its directory; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_runtime_load(path: *const c_char) -> *mut mmopt_error {
    guard(|| {
        // SAFETY: the caller's text, by the header's contract.
        let path = unsafe { optional_text(path, "path") }?;
        crate::runtime::load(path.map(Path::new)).map(|_| ())
    })
}

/// The version of the loaded ONNX Runtime, for example "1.32.0"; empty before it is loaded.
/// Static, never freed.
#[unsafe(no_mangle)]
pub extern "C" fn mmopt_runtime_version() -> *const c_char {
    static TEXT: OnceLock<CString> = OnceLock::new();
    loaded(&TEXT, |library| {
        let (major, minor, patch) = library.version();
        format!("{major}.{minor}.{patch}")
    })
}

/// The file of the loaded ONNX Runtime; empty before it is loaded. Static, never freed.
#[unsafe(no_mangle)]
pub extern "C" fn mmopt_runtime_path() -> *const c_char {
    static TEXT: OnceLock<CString> = OnceLock::new();
    loaded(&TEXT, |library| library.path().display().to_string())
}

fn loaded(
    cache: &'static OnceLock<CString>,
    text: impl FnOnce(&crate::runtime::Library) -> String,
) -> *const c_char {
    guard_or(c"".as_ptr(), || {
        let Some(library) = crate::runtime::loaded() else { return Ok(c"".as_ptr()) };
        Ok(cache.get_or_init(|| CString::new(text(library)).unwrap_or_default()).as_ptr())
    })
}
