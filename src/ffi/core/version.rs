//! The version of the library that is loaded.

use std::ffi::{CStr, c_char};

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };

/// The version of the loaded library as text, for example "0.1.0"; static, never freed. The macros
/// MMOPT_VERSION_MAJOR, _MINOR and _PATCH tell what the caller was compiled with.
#[unsafe(no_mangle)]
pub extern "C" fn mmopt_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The version of the loaded library as one number: major * 10000 + minor * 100 + patch, to be
/// compared with MMOPT_VERSION_NUMBER.
#[unsafe(no_mangle)]
pub extern "C" fn mmopt_version_number() -> u32 {
    let part = |text: &str| text.parse::<u32>().unwrap_or(0);
    part(env!("CARGO_PKG_VERSION_MAJOR")) * 10000
        + part(env!("CARGO_PKG_VERSION_MINOR")) * 100
        + part(env!("CARGO_PKG_VERSION_PATCH"))
}
