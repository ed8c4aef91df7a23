//! Options of a session, and their form for ONNX Runtime.

use std::ffi::CString;
use std::fmt;
use std::str::FromStr;

use ort::sys::{self, GraphOptimizationLevel as Level};

use super::api::{Owned, api, c_string, check};
use super::library::Library;
use crate::error::{Context, Error, Kind, Result};

/// Where a session computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA device, through the CUDA execution provider.
    Cuda {
        /// Device number, from 0.
        id: i32,
    },
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda { id } => write!(f, "cuda:{id}"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    /// `cpu`, `cuda` (device 0) or `cuda:N`.
    fn from_str(text: &str) -> Result<Self> {
        let id = match text.strip_prefix("cuda") {
            None if text == "cpu" => return Ok(Self::Cpu),
            Some("") => Some(0),
            Some(rest) => rest.strip_prefix(':').and_then(|n| n.parse().ok()).filter(|n| *n >= 0),
            None => None,
        };
        let unknown = || Error::invalid(format!("device '{text}' is not cpu, cuda or cuda:N"));
        Ok(Self::Cuda { id: id.ok_or_else(unknown)? })
    }
}

/// How far the runtime rewrites the graph when it opens a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Optimize {
    /// Not at all.
    Disabled,
    /// Constant folding and the like: cheap, and the names of values are kept.
    Basic,
    /// Everything, fusion of operators included.
    #[default]
    All,
}

/// Options of a [`super::Session`]; `Default` suits training on the CPU.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Name in messages. Default `model`.
    pub name: String,
    /// Threads that one operator may use; 0 lets the runtime choose. Default 1.
    pub threads: usize,
    /// Where to compute. Default the CPU.
    pub device: Device,
    /// Graph rewriting. Default all.
    pub optimize: Optimize,
    /// Only kernels with repeatable results, where the runtime knows of a choice. Default true.
    pub deterministic: bool,
    /// Plan all working memory as one block per shape. Default false: the plan doubled the peak
    /// (1483 against 752 MB for 12 layers, batch 8, sequence 128) and was no faster.
    pub mem_pattern: bool,
    /// Take working memory from one arena for all sessions, so that sessions used in turn need
    /// the memory of one. Default true.
    pub shared_arena: bool,
    /// While a run is under way, idle threads keep a core busy for a while instead of sleeping:
    /// faster for one session alone, slower where sessions share cores. Default false.
    pub spinning: bool,
    /// Use this library's fused kernels for operators of the domain `mmopt`; without them their
    /// form in standard operators runs. CPU only. Default true.
    pub kernels: bool,
    /// CUDA only: products of 32-bit floats in TF32 (10 bits of mantissa). Default false.
    pub tf32: bool,
    /// Values for dimensions that the model names, e.g. `("batch", 8)`. Default none.
    pub dimensions: Vec<(String, usize)>,
    /// Further session entries by the runtime's own keys. Default none.
    pub config: Vec<(String, String)>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            name: "model".into(),
            threads: 1,
            device: Device::Cpu,
            optimize: Optimize::All,
            deterministic: true,
            mem_pattern: false,
            shared_arena: true,
            spinning: false,
            kernels: true,
            tf32: false,
            dimensions: Vec::new(),
            config: Vec::new(),
        }
    }
}

impl Device {
    /// Whether this runtime can use it: its build has the execution provider, whose libraries
    /// load. That the device is there shows when a session is opened.
    pub(crate) fn check(self, library: &Library) -> Result<()> {
        SessionOptions { device: self, ..SessionOptions::default() }.build(library).map(drop)
    }
}

impl SessionOptions {
    /// The options in the runtime's form.
    pub(super) fn build(&self, library: &Library) -> Result<Owned<sys::OrtSessionOptions>> {
        let api = api();
        // SAFETY: the release function belongs to what is made.
        let built = unsafe {
            Owned::make(api.ReleaseSessionOptions, |out| (api.CreateSessionOptions)(out))
        }?;
        self.set_basics(built.ptr())?;
        self.set_entries(built.ptr(), library)?;
        if let (true, Device::Cpu, Some(kernels)) = (self.kernels, self.device, library.kernels()) {
            // SAFETY: the options live, and the domain as long as the library: for good.
            check(unsafe { (api.AddCustomOpDomain)(built.ptr(), kernels.domain()) })?;
        }
        if let Device::Cuda { id } = self.device {
            self.append_cuda(built.ptr(), library, id)?;
        }
        Ok(built)
    }

    fn set_basics(&self, built: *mut sys::OrtSessionOptions) -> Result<()> {
        let api = api();
        let level = match self.optimize {
            Optimize::Disabled => Level::ORT_DISABLE_ALL,
            Optimize::Basic => Level::ORT_ENABLE_BASIC,
            Optimize::All => Level::ORT_ENABLE_ALL,
        };
        let threads = i32::try_from(self.threads)
            .map_err(|_| Error::invalid(format!("{} threads for one session", self.threads)))?;
        let id = c_string(&self.name)?;
        // SAFETY: `built` lives, and so do the strings for their calls.
        unsafe {
            check((api.SetSessionLogId)(built, id.as_ptr()))?;
            check((api.SetSessionGraphOptimizationLevel)(built, level))?;
            check((api.SetIntraOpNumThreads)(built, threads))?;
            check((api.SetDeterministicCompute)(built, self.deterministic))?;
            if !self.mem_pattern {
                check((api.DisableMemPattern)(built))?;
            }
            for (name, size) in &self.dimensions {
                let name = c_string(name)?;
                let size = i64::try_from(*size).map_err(|_| Error::shape("dimension too large"))?;
                check((api.AddFreeDimensionOverrideByName)(built, name.as_ptr(), size))?;
            }
        }
        Ok(())
    }

    fn set_entries(&self, built: *mut sys::OrtSessionOptions, library: &Library) -> Result<()> {
        let add = |key: &str, value: &str| {
            let (key, value) = (c_string(key)?, c_string(value)?);
            // SAFETY: `built` lives, and the strings for the call, which copies them.
            check(unsafe { (api().AddSessionConfigEntry)(built, key.as_ptr(), value.as_ptr()) })
        };
        let spin = if self.spinning { "1" } else { "0" };
        // Between runs no thread spins.
        add("session.force_spinning_stop", "1")?;
        add("session.intra_op.allow_spinning", spin)?;
        add("session.inter_op.allow_spinning", spin)?;
        if self.shared_arena && library.shared_arena() && self.device == Device::Cpu {
            add("session.use_env_allocators", "1")?;
        }
        self.config.iter().try_for_each(|(key, value)| add(key, value))
    }

    fn append_cuda(
        &self,
        built: *mut sys::OrtSessionOptions,
        library: &Library,
        id: i32,
    ) -> Result<()> {
        let providers = library.providers();
        if !providers.iter().any(|p| p == "CUDAExecutionProvider") {
            return Err(Error::new(
                Kind::RuntimeUnavailable,
                format!(
                    "device cuda:{id} needs CUDAExecutionProvider, which the ONNX Runtime at {} \
                     was built without (it has {}); load a GPU build instead",
                    library.path().display(),
                    providers.join(", ")
                ),
            ));
        }
        self.append_cuda_options(built, id).map_err(|error| {
            Error::new(Kind::RuntimeUnavailable, error.message())
                .context(format!("device cuda:{id}: CUDAExecutionProvider did not start"))
        })
    }

    fn append_cuda_options(&self, built: *mut sys::OrtSessionOptions, id: i32) -> Result<()> {
        let api = api();
        let id = c_string(&id.to_string())?;
        let tf32: CString = c_string(if self.tf32 { "1" } else { "0" })?;
        let keys = [c"device_id".as_ptr(), c"use_tf32".as_ptr()];
        let values = [id.as_ptr(), tf32.as_ptr()];
        // SAFETY: as many keys as values; the strings live through the calls, which copy them.
        unsafe {
            let cuda = Owned::make(api.ReleaseCUDAProviderOptions, |out| {
                (api.CreateCUDAProviderOptions)(out)
            })?;
            check((api.UpdateCUDAProviderOptions)(
                cuda.ptr(),
                keys.as_ptr(),
                values.as_ptr(),
                keys.len(),
            ))
            .context(|| "options")?;
            check((api.SessionOptionsAppendExecutionProvider_CUDA_V2)(built, cuda.ptr()))
        }
    }
}
