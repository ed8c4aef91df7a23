//! A model ready to run, with the types of its inputs and outputs.

use std::ffi::{CString, c_char};
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::Arc;

use ort::sys;

use super::api::{Owned, api, c_string, check, text};
use super::arena::Meter;
use super::cancel::CancelToken;
use super::options::{Device, Optimize, SessionOptions};
use super::{value, version_errors};
use crate::error::{Context, Error, Kind, Result};
use crate::tensor::{DType, Tensor};

/// An input or output of a model as the runtime reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueInfo {
    /// Its name in the model.
    pub name: String,
    /// Element type; `None` for what is not a dense tensor (sequences, optionals, maps) or has a
    /// type this library does not know.
    pub dtype: Option<DType>,
    /// Dimensions; `None` for a free one. Empty for a scalar, and where the rank is unknown.
    pub shape: Vec<Option<usize>>,
    /// Names of the free dimensions that have one, e.g. `batch`; as long as `shape`.
    pub symbols: Vec<Option<String>>,
}

/// A model made ready on a device. Runs need exclusive use; it may move between threads.
pub struct Session {
    inner: Arc<Inner>,
    cancel_token: CancelToken,
    meter: Meter,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
}

/// The part of a session that its bindings keep alive.
pub(super) struct Inner {
    pub(super) name: String,
    pub(super) device: Device,
    pub(super) session: Owned<sys::OrtSession>,
}

impl Session {
    /// Opens a model from the bytes of an ONNX file, which are not needed afterwards. Loads ONNX
    /// Runtime from its usual place if none is loaded. The runtime refuses more than 2 GiB and
    /// weights in files beside; pass large weights as inputs.
    ///
    /// # Errors
    /// [`Kind::InvalidData`] when the bytes are not a model, [`Kind::RuntimeUnavailable`] when the
    /// runtime or its provider for the device is missing, else [`Kind::Runtime`]; each names the
    /// session and gives the runtime's text.
    pub fn from_bytes(model: &[u8], options: &SessionOptions) -> Result<Self> {
        if model.is_empty() {
            return Err(Error::data(format!("session '{}': the model is empty", options.name)));
        }
        Self::open(options, |env, built, out| {
            // SAFETY: the bytes live through the call, which copies what it keeps.
            unsafe {
                let bytes = model.as_ptr().cast();
                (api().CreateSessionFromArray)(env, bytes, model.len(), built, out)
            }
        })
    }

    /// Opens a model file, with weights in files beside it where it names some.
    pub fn from_file(path: &Path, options: &SessionOptions) -> Result<Self> {
        let file = runtime_path(path)?;
        Self::open(options, |env, built, out| {
            // SAFETY: a NUL-terminated path that lives through the call.
            unsafe { (api().CreateSession)(env, file.as_ptr(), built, out) }
        })
        .context(|| path.display())
    }

    fn open(
        options: &SessionOptions,
        create: impl FnOnce(
            *const sys::OrtEnv,
            *const sys::OrtSessionOptions,
            *mut *mut sys::OrtSession,
        ) -> sys::OrtStatusPtr,
    ) -> Result<Self> {
        let place = || format!("session '{}'", options.name);
        let library = super::load(None).context(place)?;
        let built = options.build(library).context(place)?;
        let make = || {
            // SAFETY: the environment and the options live; the release function fits.
            unsafe {
                Owned::make(api().ReleaseSession, |out| {
                    create(library.environment(), built.ptr(), out)
                })
            }
        };
        let with_kernels = options.kernels && options.device == Device::Cpu;
        let session = if with_kernels { library.open_in_turn(make) } else { make() };
        let session =
            session.map_err(|e| version_errors::explain(e, library.version())).context(place)?;
        let inputs = describe(&session, Side::Input).context(place)?;
        let outputs = describe(&session, Side::Output).context(place)?;
        let inner = Inner { name: options.name.clone(), device: options.device, session };
        let cancel_token = CancelToken::new()?;
        let meter = Meter::default();
        Ok(Self { inner: Arc::new(inner), cancel_token, meter, inputs, outputs })
    }

    /// Dtype and shape of a model's outputs, from a session without optimisation. With every value
    /// of a graph as an output and all dimensions fixed, these are the types of all values.
    /// Sequences and optionals have dtype `None`.
    pub fn probe_types(model: &[u8]) -> Result<Vec<ValueInfo>> {
        let options = SessionOptions {
            name: "shapes".into(),
            optimize: Optimize::Basic,
            ..SessionOptions::default()
        };
        Ok(Self::from_bytes(model, &options)?.outputs)
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The model's inputs in its order, without those that have a default.
    pub fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }

    /// The model's outputs in its order.
    pub fn outputs(&self) -> &[ValueInfo] {
        &self.outputs
    }

    /// The token that cancels this session's runs from another thread.
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel_token.clone()
    }

    /// Sets the token, which other sessions may share.
    pub fn set_cancel_token(&mut self, cancel_token: CancelToken) {
        self.cancel_token = cancel_token;
    }

    /// Sets what counts the working memory of bound runs; sessions may share it.
    pub fn set_meter(&mut self, meter: Meter) {
        self.meter = meter;
    }

    /// Runs once: reads `inputs` where they lie, returns copies of `outputs` in the order asked.
    /// Threads may run one session at once.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for unknown names, [`Kind::InvalidArgument`] and [`Kind::Shape`] for a
    /// wrong dtype, shape, or missing input, [`Kind::Cancelled`] after a cancel, else
    /// [`Kind::Runtime`].
    pub fn run(&self, inputs: &[(&str, &Tensor)], outputs: &[&str]) -> Result<Vec<Tensor>> {
        self.run_unnamed(inputs, outputs).context(|| format!("session '{}'", self.name()))
    }

    fn run_unnamed(&self, inputs: &[(&str, &Tensor)], outputs: &[&str]) -> Result<Vec<Tensor>> {
        for (name, tensor) in inputs {
            self.input(name)?.accepts(tensor.dtype(), tensor.shape()).context(|| input(name))?;
        }
        self.check_complete(|wanted| inputs.iter().any(|(name, _)| *name == wanted))?;
        outputs.iter().try_for_each(|name| self.output(name).map(|_| ()))?;
        let names = c_strings(inputs.iter().map(|(name, _)| *name))?;
        let values = inputs
            .iter()
            // SAFETY: the tensors live through the run, and an input's memory is only read.
            .map(|(_, t)| unsafe {
                value::over(t.dtype(), t.shape(), t.bytes().as_ptr().cast_mut())
            })
            .collect::<Result<Vec<_>>>()?;
        let results = self.call(&names, &values, &c_strings(outputs.iter().copied())?)?;
        results
            .iter()
            .zip(outputs)
            .map(|(result, name)| value::to_tensor(result).context(|| format!("output '{name}'")))
            .collect()
    }

    fn call(
        &self,
        names: &[CString],
        values: &[Owned<sys::OrtValue>],
        outputs: &[CString],
    ) -> Result<Vec<Owned<sys::OrtValue>>> {
        let name_ptrs: Vec<*const c_char> = names.iter().map(|n| n.as_ptr()).collect();
        let value_ptrs: Vec<*const sys::OrtValue> =
            values.iter().map(|v| v.ptr().cast_const()).collect();
        let output_ptrs: Vec<*const c_char> = outputs.iter().map(|n| n.as_ptr()).collect();
        let mut results: Vec<*mut sys::OrtValue> = vec![null_mut(); outputs.len()];
        let n_cancelled = self.cancel_token.n_cancelled();
        // SAFETY: arrays of the lengths given, alive through the call; NULL asks for new values.
        let status = unsafe {
            (api().Run)(
                self.inner.session.ptr(),
                self.cancel_token.options(),
                name_ptrs.as_ptr(),
                value_ptrs.as_ptr(),
                values.len(),
                output_ptrs.as_ptr(),
                outputs.len(),
                results.as_mut_ptr(),
            )
        };
        self.finish(status, n_cancelled)?;
        results
            .into_iter()
            // SAFETY: each value was made by the run and is released once.
            .map(|ptr| unsafe {
                Owned::make(api().ReleaseValue, |out| {
                    *out = ptr;
                    sys::OrtStatusPtr(null_mut())
                })
            })
            .collect()
    }

    /// The input called `name`.
    pub(super) fn input(&self, name: &str) -> Result<&ValueInfo> {
        find(&self.inputs, name, "input")
    }

    /// The output called `name`.
    pub(super) fn output(&self, name: &str) -> Result<&ValueInfo> {
        find(&self.outputs, name, "output")
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// An error that lists the inputs for which `has` says no.
    pub(super) fn check_complete(&self, has: impl Fn(&str) -> bool) -> Result<()> {
        let missing: Vec<&str> =
            self.inputs.iter().map(|i| i.name.as_str()).filter(|name| !has(name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!("inputs without a value: {}", listed(&missing))))
    }

    /// Runs over a binding.
    pub(super) fn run_bound(&self, binding: *const sys::OrtIoBinding) -> Result<()> {
        let session = self.inner.session.ptr();
        let n_cancelled = self.cancel_token.n_cancelled();
        let options = self.cancel_token.options();
        // SAFETY: session and binding live and belong together; the caller has exclusive use.
        let run = || unsafe { (api().RunWithBinding)(session, options, binding) };
        let status = self.meter.during(run);
        self.finish(status, n_cancelled)
    }

    /// The token may have been reset since it ended the run, before which
    /// [`CancelToken::n_cancelled`] was `n_cancelled`.
    fn finish(&self, status: sys::OrtStatusPtr, n_cancelled: Option<u64>) -> Result<()> {
        check(status).map_err(|error| {
            let token = &self.cancel_token;
            if token.n_cancelled().is_none_or(|n| Some(n) != n_cancelled) {
                return Error::new(Kind::Cancelled, "the run was cancelled").with_source(error);
            }
            error
        })
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Session('{}' on {}, {} inputs, {} outputs)",
            self.name(),
            self.inner.device,
            self.inputs.len(),
            self.outputs.len()
        )
    }
}

impl ValueInfo {
    /// An error for a dtype or shape that the model does not accept here.
    pub(super) fn accepts(&self, dtype: DType, shape: &[usize]) -> Result<()> {
        if self.dtype != Some(dtype) {
            let wanted = self.dtype.map_or("no dense tensor", DType::name);
            return Err(Error::invalid(format!("given as {dtype}, the model has {wanted}")));
        }
        // An empty shape also stands for an unknown rank.
        let fits = self.shape.is_empty()
            || (self.shape.len() == shape.len()
                && self.shape.iter().zip(shape).all(|(w, g)| w.is_none_or(|w| w == *g)));
        if fits {
            return Ok(());
        }
        Err(Error::shape(format!("given with shape {shape:?}, the model has {}", self.dims())))
    }

    /// The shape as text, e.g. `[batch, ?, 768]`.
    pub fn dims(&self) -> String {
        let one = |i: usize| match (self.shape[i], &self.symbols[i]) {
            (Some(size), _) => size.to_string(),
            (None, Some(symbol)) => symbol.clone(),
            (None, None) => "?".into(),
        };
        format!("[{}]", (0..self.shape.len()).map(one).collect::<Vec<_>>().join(", "))
    }
}

/// Context for an input's errors.
pub(super) fn input(name: &str) -> String {
    format!("input '{name}'")
}

fn find<'a>(list: &'a [ValueInfo], name: &str, what: &str) -> Result<&'a ValueInfo> {
    list.iter().find(|info| info.name == name).ok_or_else(|| {
        let names: Vec<&str> = list.iter().map(|info| info.name.as_str()).collect();
        Error::not_found(format!("no {what} '{name}'; the model has {}", listed(&names)))
    })
}

/// The first names of a list that may be long.
fn listed(names: &[&str]) -> String {
    let shown = names.iter().take(8).map(|n| format!("'{n}'")).collect::<Vec<_>>().join(", ");
    match names.len() {
        0 => "none".into(),
        n if n > 8 => format!("{shown} and {} more", n - 8),
        _ => shown,
    }
}

/// A path as the runtime takes it: bytes, and on Windows UTF-16, that end with NUL.
#[cfg(not(windows))]
fn runtime_path(path: &Path) -> Result<CString> {
    c_string(&path.to_string_lossy())
}

#[cfg(windows)]
fn runtime_path(path: &Path) -> Result<Vec<u16>> {
    use std::os::windows::ffi::OsStrExt;
    let mut wide: Vec<u16> = path.as_os_str().encode_wide().collect();
    if wide.contains(&0) {
        return Err(Error::invalid(format!("'{}' contains NUL", path.display())));
    }
    wide.push(0);
    Ok(wide)
}

fn c_strings<'a>(names: impl Iterator<Item = &'a str>) -> Result<Vec<CString>> {
    names.map(c_string).collect()
}

#[derive(Clone, Copy)]
enum Side {
    Input,
    Output,
}

fn describe(session: &Owned<sys::OrtSession>, side: Side) -> Result<Vec<ValueInfo>> {
    let api = api();
    let (count, name, info) = match side {
        Side::Input => {
            (api.SessionGetInputCount, api.SessionGetInputName, api.SessionGetInputTypeInfo)
        }
        Side::Output => {
            (api.SessionGetOutputCount, api.SessionGetOutputName, api.SessionGetOutputTypeInfo)
        }
    };
    let mut n = 0;
    // SAFETY: the session lives; `n` is the place for the count.
    check(unsafe { count(session.ptr(), &raw mut n) })?;
    let mut allocator = null_mut();
    // SAFETY: `allocator` is the place for the runtime's own default, which is never released.
    check(unsafe { (api.GetAllocatorWithDefaultOptions)(&raw mut allocator) })?;
    let one = |index: usize| {
        let mut chars = null_mut();
        // SAFETY: an index below the count; the string is copied, then freed where it came from.
        let name = unsafe {
            check(name(session.ptr(), index, allocator, &raw mut chars))?;
            let copy = text(chars);
            check((api.AllocatorFree)(allocator, chars.cast()))?;
            copy
        };
        // SAFETY: an index below the count; the release function fits.
        let info =
            unsafe { Owned::make(api.ReleaseTypeInfo, |out| info(session.ptr(), index, out)) }?;
        value_info(name, &info)
    };
    (0..n).map(one).collect()
}

fn value_info(name: String, info: &Owned<sys::OrtTypeInfo>) -> Result<ValueInfo> {
    let api = api();
    let mut tensor = null();
    // SAFETY: the info lives; NULL comes back for what is not a dense tensor.
    check(unsafe { (api.CastTypeInfoToTensorInfo)(info.ptr(), &raw mut tensor) })?;
    if tensor.is_null() {
        return Ok(ValueInfo { name, dtype: None, shape: Vec::new(), symbols: Vec::new() });
    }
    let (dtype, dims) = value::type_and_dims(tensor)?;
    let mut symbols: Vec<*const c_char> = vec![null(); dims.len()];
    // SAFETY: room for as many pointers as there are dimensions; they live with the info.
    check(unsafe { (api.GetSymbolicDimensions)(tensor, symbols.as_mut_ptr(), symbols.len()) })?;
    let symbols = symbols
        .into_iter()
        // SAFETY: NULL or the info's own string.
        .map(|chars| Some(unsafe { text(chars) }).filter(|symbol| !symbol.is_empty()))
        .collect();
    let shape = dims.into_iter().map(|d| usize::try_from(d).ok()).collect();
    Ok(ValueInfo { name, dtype: DType::from_onnx(dtype).ok(), shape, symbols })
}
