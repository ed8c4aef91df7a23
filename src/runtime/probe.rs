//! Checks a shared library before it is used: does it load, is it ONNX Runtime, is it new enough.
//! The crate that calls the runtime panics on some other libraries, so each is checked first.

use std::error::Error as _;
use std::ffi::{CStr, OsStr, c_char, c_void};
use std::path::{Path, PathBuf};

#[cfg(unix)]
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
#[cfg(windows)]
use libloading::os::windows::Library;
use ort::sys;

/// The oldest minor version of ONNX Runtime 1 that has the API level this crate asks for.
pub(super) const OLDEST_MINOR: u32 = sys::ORT_API_VERSION;

/// A library that passed the checks.
#[derive(Clone, Debug)]
pub(super) struct FoundLibrary {
    /// The file that the loader mapped, links resolved.
    pub(super) path: PathBuf,
    /// Its version.
    pub(super) version: (u32, u32, u32),
}

type GetApiBase = unsafe extern "C" fn() -> *const sys::OrtApiBase;

/// Loads `name` (a path, or a bare name for the system's loader) and checks it. On success it
/// stays loaded; on failure it is closed, and the reason is returned.
pub(super) fn probe(name: &OsStr) -> Result<FoundLibrary, String> {
    let separates = |&byte: &u8| std::path::is_separator(char::from(byte));
    let is_path = name.as_encoded_bytes().iter().any(separates);
    if is_path && !Path::new(name).exists() {
        return Err("no such file".into());
    }
    let library = open(name)?;
    // SAFETY: the symbol that ONNX Runtime exports under this name has this type.
    let get_base = unsafe { library.get::<GetApiBase>(c"OrtGetApiBase") };
    let get_base =
        *get_base.map_err(|_| "not ONNX Runtime: it does not export OrtGetApiBase".to_string())?;
    let path = file_of(get_base as *const c_void).unwrap_or_else(|| PathBuf::from(name));
    let version = version(get_base)?;
    // It stays loaded.
    std::mem::forget(library);
    Ok(FoundLibrary { path: path.canonicalize().unwrap_or(path), version })
}

/// The file that this code was loaded from: `libmmopt`, or the program it is part of.
pub(super) fn own_file() -> Option<PathBuf> {
    file_of(own_file as *const c_void)
}

fn open(name: &OsStr) -> Result<Library, String> {
    // SAFETY: initialisers of a library run, as in any load.
    #[cfg(unix)]
    let library = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_LOCAL) };
    // SAFETY: initialisers of a library run, as in any load.
    #[cfg(windows)]
    let library = unsafe { Library::new(name) };
    library.map_err(|e| {
        // The loader's own words are the source.
        e.source().map_or_else(|| e.to_string(), ToString::to_string)
    })
}

/// The file that holds the code at `address`.
#[cfg(unix)]
fn file_of(address: *const c_void) -> Option<PathBuf> {
    // SAFETY: all-zero is a valid value of this plain C struct.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: any address may be asked for; 0 means that it belongs to no file.
    if unsafe { libc::dladdr(address, &raw mut info) } == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's string lives as long as the file is loaded.
    let bytes = unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes().to_vec();
    let name: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(bytes);
    PathBuf::from(name).canonicalize().ok()
}

/// The file that holds the code at `address`.
#[cfg(windows)]
fn file_of(address: *const c_void) -> Option<PathBuf> {
    #[link(name = "kernel32")]
    unsafe extern "system" {
        fn GetModuleHandleExW(flags: u32, address: *const c_void, module: *mut *mut c_void) -> i32;
        fn GetModuleFileNameW(module: *mut c_void, name: *mut u16, size: u32) -> u32;
    }
    /// The module is named by an address in it, and not kept loaded by this.
    const FROM_ADDRESS: u32 = 4 | 2;
    let (mut module, mut name) = (std::ptr::null_mut(), vec![0u16; 32_768]);
    // SAFETY: any address may be asked for; 0 means that it belongs to no module.
    if unsafe { GetModuleHandleExW(FROM_ADDRESS, address, &raw mut module) } == 0 {
        return None;
    }
    // SAFETY: `name` has room for as many units as stated.
    let n = unsafe { GetModuleFileNameW(module, name.as_mut_ptr(), name.len() as u32) };
    let name: std::ffi::OsString =
        std::os::windows::ffi::OsStringExt::from_wide(&name[..n as usize]);
    PathBuf::from(name).canonicalize().ok()
}

fn version(get_base: GetApiBase) -> Result<(u32, u32, u32), String> {
    // SAFETY: the entry point takes nothing and returns a table that lives with the library.
    let base = unsafe { get_base().as_ref() };
    let base = base.ok_or("not a working ONNX Runtime: OrtGetApiBase gave NULL")?;
    // SAFETY: part of every version's table; the string lives with the library.
    let text: *const c_char = unsafe { (base.GetVersionString)() };
    if text.is_null() {
        return Err("not a working ONNX Runtime: it reports no version".into());
    }
    // SAFETY: not NULL, NUL-terminated.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let version = parse(&text)
        .ok_or_else(|| format!("not a known ONNX Runtime: it reports version '{text}'"))?;
    if (version.0, version.1) < (1, OLDEST_MINOR) {
        return Err(format!("ONNX Runtime {text} is too old: 1.{OLDEST_MINOR} or newer is needed"));
    }
    // SAFETY: part of every version's table.
    if unsafe { (base.GetApi)(sys::ORT_API_VERSION) }.is_null() {
        return Err(format!("ONNX Runtime {text} does not offer API level {OLDEST_MINOR}"));
    }
    Ok(version)
}

/// `1.32.0`, `1.19`, `1.24.1-rc1`.
fn parse(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split('.');
    let mut next = || {
        let part = parts.next()?;
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse::<u32>().ok()
    };
    let (major, minor) = (next()?, next()?);
    Some((major, minor, next().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_parse() {
        assert_eq!(parse("1.32.0"), Some((1, 32, 0)));
        assert_eq!(parse("1.24.1-rc1"), Some((1, 24, 1)));
        assert_eq!(parse("1.19"), Some((1, 19, 0)));
        assert_eq!(parse("nightly"), None);
        assert_eq!(parse("1"), None);
    }

    #[test]
    fn own_file_exists() {
        assert!(own_file().unwrap().is_file());
    }
}
