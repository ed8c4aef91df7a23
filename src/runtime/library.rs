//! Finding and loading ONNX Runtime, once per process.
//!
//! Search order: the path given; else the file that `MMOPT_ORT_LIB` names; else the one that
//! `ORT_DYLIB_PATH` names; else the usual places. A path that was named is the only one tried: a
//! silent second choice would surprise. A failed attempt changes nothing: the next may succeed.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

// The standard library's `OnceLock` has no stable `get_or_try_init` yet.
use once_cell::sync::OnceCell;
use ort::AsPointer;
use ort::environment::{Environment, EnvironmentBuilder};
use ort::logging::LogLevel;

use super::api::{api, check, text};
use super::kernels::Kernels;
use super::probe::{FoundLibrary, own_file, probe};
use crate::error::{Error, Kind, Result};

/// Names of the shared library, the usual one first.
const NAMES: &[&str] = if cfg!(target_os = "macos") {
    &["libonnxruntime.dylib", "libonnxruntime.1.dylib"]
} else {
    &["libonnxruntime.so", "libonnxruntime.so.1"]
};

/// Directories that are searched last.
const SYSTEM_DIRS: &[&str] =
    &["/usr/local/lib", "/usr/local/lib64", "/usr/lib64", "/usr/lib", "/opt/onnxruntime/lib"];

static LIBRARY: OnceCell<Library> = OnceCell::new();
/// Locked while loading; holds the file that this process uses from then on.
static LOADING: Mutex<Option<FoundLibrary>> = Mutex::new(None);

/// The loaded ONNX Runtime with its environment. There is at most one, for the rest of the process.
pub struct Library {
    found: FoundLibrary,
    environment: Environment,
    shared_arena: bool,
    kernels: Option<Kernels>,
    domain_known: Mutex<bool>,
}

/// Loads ONNX Runtime, or returns the one that is loaded.
///
/// `path` names the library or its directory; `None` takes the file that `MMOPT_ORT_LIB` or
/// `ORT_DYLIB_PATH` names, else searches the usual places. Needs ONNX Runtime 1.17 or newer.
///
/// # Errors
/// [`Kind::RuntimeUnavailable`] with everything tried and why each failed; [`Kind::State`] when
/// `path` is another file than the one this process has already loaded.
pub fn load(path: Option<&Path>) -> Result<&'static Library> {
    let mut bound = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = &*bound {
        check_same(path, found)?;
    }
    LIBRARY.get_or_try_init(|| {
        switch_telemetry_off();
        let found = match &*bound {
            Some(found) => found.clone(),
            None => find(path)?,
        };
        let builder = ort::init_from(&found.path).map_err(|e| unusable(&found, &e))?;
        *bound = Some(found.clone());
        Library::open(found, builder)
    })
}

/// ONNX Runtime 1.32 writes a device id and a database below the user's cache folder and looks up a
/// host on the network, unless this variable is set before it is loaded. What the host set, if only
/// to nothing, stays.
fn switch_telemetry_off() {
    const NAME: &str = "ORT_DISABLE_TELEMETRY";
    if std::env::var_os(NAME).is_none() {
        // SAFETY: the standard library's own accesses take turns; a host that reads the environment
        // in C while it loads the runtime in another thread is told in the docs to set it itself.
        unsafe { std::env::set_var(NAME, "1") };
    }
}

fn unusable(found: &FoundLibrary, why: &dyn std::fmt::Display) -> Error {
    let path = found.path.display();
    Error::new(Kind::RuntimeUnavailable, format!("ONNX Runtime at {path}: {why}"))
}

/// The loaded library, or `None` before the first successful [`load`].
pub fn loaded() -> Option<&'static Library> {
    LIBRARY.get()
}

impl Library {
    /// The file that was loaded, links resolved.
    pub fn path(&self) -> &Path {
        &self.found.path
    }

    /// Major, minor and patch version.
    pub fn version(&self) -> (u32, u32, u32) {
        self.found.version
    }

    /// Names of the execution providers that this build contains, e.g. `CPUExecutionProvider`.
    /// A provider that is listed may still lack its drivers; opening a session shows that.
    pub fn providers(&self) -> Vec<String> {
        let mut names = std::ptr::null_mut();
        let mut count = 0;
        // SAFETY: both are places for the outputs.
        let status = unsafe { (api().GetAvailableProviders)(&raw mut names, &raw mut count) };
        if check(status).is_err() || names.is_null() {
            return Vec::new();
        }
        let list = (0..usize::try_from(count).unwrap_or(0))
            // SAFETY: the runtime wrote `count` strings.
            .map(|i| unsafe { text(*names.add(i)) })
            .collect();
        // SAFETY: the list came from the call above and is released once.
        let _ = check(unsafe { (api().ReleaseAvailableProviders)(names, count) });
        list
    }

    /// Whether sessions can draw their working memory from one arena.
    pub(super) fn shared_arena(&self) -> bool {
        self.shared_arena
    }

    /// This library's own operators, where the runtime takes them.
    pub(super) fn kernels(&self) -> Option<&Kernels> {
        self.kernels.as_ref()
    }

    /// Runs `open`, which makes a session. The runtime registers a custom domain with its first
    /// session, and fails when two threads do so at once; until one has succeeded they take turns.
    pub(super) fn open_in_turn<T>(&self, open: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut known = self.domain_known.lock().unwrap_or_else(PoisonError::into_inner);
        if *known {
            drop(known);
            return open();
        }
        let opened = open()?;
        *known = true;
        Ok(opened)
    }

    /// The runtime's environment.
    pub(super) fn environment(&self) -> *mut ort::sys::OrtEnv {
        self.environment.ptr().cast_mut()
    }

    fn open(found: FoundLibrary, builder: EnvironmentBuilder) -> Result<Self> {
        let environment = builder
            .with_name("mmopt")
            .with_telemetry(false)
            .with_logger(std::sync::Arc::new(forward))
            .build()
            .map_err(|e| unusable(&found, &e))?;
        environment.set_log_level(LogLevel::Warning);
        let shared_arena = match register_arena(&environment) {
            Ok(()) => true,
            Err(error) => {
                log::warn!("sessions keep an arena each: {error}");
                false
            }
        };
        let kernels = Kernels::new()
            .inspect_err(|error| log::warn!("standard operators instead of kernels: {error}"))
            .ok();
        let (major, minor, patch) = found.version;
        log::info!("ONNX Runtime {major}.{minor}.{patch} from {}", found.path.display());
        Ok(Self { found, environment, shared_arena, kernels, domain_known: Mutex::new(false) })
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (major, minor, patch) = self.found.version;
        write!(f, "Library({major}.{minor}.{patch}, {})", self.found.path.display())
    }
}

/// One CPU arena in the environment: sessions used in turn then need the memory of the largest,
/// not of all together. On Linux it is this library's own, which counts.
fn register_arena(environment: &Environment) -> Result<()> {
    #[cfg(target_os = "linux")]
    match super::arena::register(environment) {
        Ok(()) => return Ok(()),
        Err(error) => log::info!("the runtime's own arena: {error}"),
    }
    use ort::sys::{OrtAllocatorType, OrtMemType};

    use super::api::Owned;
    let keys = [c"max_mem".as_ptr()];
    let values = [0usize];
    let (api, env) = (api(), environment.ptr().cast_mut());
    // SAFETY: one key and one value; each release function belongs to what is made.
    unsafe {
        let config = Owned::make(api.ReleaseArenaCfg, |out| {
            (api.CreateArenaCfgV2)(keys.as_ptr(), values.as_ptr(), keys.len(), out)
        })?;
        let info = Owned::make(api.ReleaseMemoryInfo, |out| {
            let kind = OrtAllocatorType::OrtArenaAllocator;
            (api.CreateCpuMemoryInfo)(kind, OrtMemType::OrtMemTypeDefault, out)
        })?;
        check((api.CreateAndRegisterAllocator)(env, info.ptr(), config.ptr()))
    }
}

/// The runtime's messages go to the `log` crate under the target `onnxruntime`.
fn forward(level: LogLevel, _category: &str, id: &str, _location: &str, message: &str) {
    log::log!(target: "onnxruntime", log_level(level, message), "{id}: {message}");
}

/// The level of a message; that a run was cancelled, which its caller asked for, is no error.
fn log_level(level: LogLevel, message: &str) -> log::Level {
    match level {
        LogLevel::Verbose => log::Level::Trace,
        LogLevel::Info => log::Level::Debug,
        LogLevel::Warning => log::Level::Warn,
        LogLevel::Error if message.contains("terminate flag") => log::Level::Debug,
        LogLevel::Error | LogLevel::Fatal => log::Level::Error,
    }
}

fn check_same(path: Option<&Path>, found: &FoundLibrary) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let same = candidates_of(path)
        .iter()
        .any(|p| Path::new(p).canonicalize().is_ok_and(|p| p == found.path));
    if same {
        return Ok(());
    }
    Err(Error::state(format!(
        "ONNX Runtime is already loaded from {}; a process can hold only one, so {} cannot be \
         loaded beside it",
        found.path.display(),
        path.display()
    )))
}

/// A file as it is; a directory stands for the library in it.
fn candidates_of(path: &Path) -> Vec<OsString> {
    if path.is_dir() {
        return NAMES.iter().map(|name| path.join(name).into_os_string()).collect();
    }
    if path.as_os_str().as_encoded_bytes().contains(&b'/') {
        return vec![path.as_os_str().to_owned()];
    }
    // A bare name: the file in the current directory if there is one, else the system's search.
    let local = Path::new(".").join(path);
    vec![if local.exists() { local.into_os_string() } else { path.as_os_str().to_owned() }]
}

fn find(path: Option<&Path>) -> Result<FoundLibrary> {
    let named = |var: &str| std::env::var_os(var).filter(|v| !v.is_empty()).map(PathBuf::from);
    let (origin, list) = if let Some(path) = path {
        ("the path given".to_string(), candidates_of(path))
    } else if let Some(path) = named("MMOPT_ORT_LIB") {
        ("MMOPT_ORT_LIB".to_string(), candidates_of(&path))
    } else if let Some(path) = named("ORT_DYLIB_PATH") {
        ("ORT_DYLIB_PATH".to_string(), candidates_of(&path))
    } else {
        ("the usual places".to_string(), usual_places())
    };
    let mut tried = Vec::new();
    for name in &list {
        match probe(name) {
            Ok(found) => return Ok(found),
            Err(why) => tried.push((name, why)),
        }
    }
    Err(not_found(&origin, &tried))
}

fn not_found(origin: &str, tried: &[(&OsString, String)]) -> Error {
    let mut message = format!("no usable ONNX Runtime; tried {origin}:");
    for (name, why) in tried {
        // The loader repeats the name in front of what it says.
        let shown = Path::new(name).display().to_string();
        let why = why.strip_prefix(&format!("{shown}: ")).unwrap_or(why);
        message.push_str(&format!("\n  {shown}: {why}"));
    }
    message.push_str(
        "\nSet MMOPT_ORT_LIB to the path of libonnxruntime (1.17 or newer), or give the path.",
    );
    Error::new(Kind::RuntimeUnavailable, message)
}

/// Beside this library, in a `.runtime/lib` above it (a source tree), where the system's loader
/// looks, and the common install directories.
fn usual_places() -> Vec<OsString> {
    let mut dirs = Vec::new();
    let own = own_file();
    if let Some(dir) = own.as_deref().and_then(Path::parent) {
        dirs.push(dir.to_path_buf());
        dirs.extend(dir.ancestors().take(4).map(|d| d.join(".runtime/lib")));
    }
    let exe = std::env::current_exe().ok();
    dirs.extend(exe.as_deref().and_then(Path::parent).map(Path::to_path_buf));
    let mut places = Vec::new();
    dirs.iter().for_each(|dir| push(&mut places, dir));
    places.extend(NAMES.iter().map(|name| OsStr::new(name).to_owned()));
    SYSTEM_DIRS.iter().for_each(|dir| push(&mut places, Path::new(dir)));
    places
}

/// Adds the library in `dir` once; the second name matters only where the first is missing.
fn push(places: &mut Vec<OsString>, dir: &Path) {
    let present = NAMES.iter().map(|name| dir.join(name)).find(|path| path.exists());
    let place = present.unwrap_or_else(|| dir.join(NAMES[0])).into_os_string();
    if !places.contains(&place) {
        places.push(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_cancelled_is_no_error() {
        let ended = "Exiting due to terminate flag being set to true.";
        assert_eq!(log_level(LogLevel::Error, ended), log::Level::Debug);
        assert_eq!(log_level(LogLevel::Error, "no memory"), log::Level::Error);
    }
}
