//! Inputs and outputs bound to memory once, then run many times without a copy.
//!
//! Memory is the caller's (*raw*: parameters and gradients) or the binding's (*owned*: a batch, a
//! loss). On the CPU the runtime works on it directly. On another device it copies inputs in before
//! each run and outputs out after it.

use std::ffi::CString;
use std::sync::Arc;

use ort::sys;

use super::api::{Owned, api, c_string, check};
use super::options::Device;
use super::session::{Inner, Session, ValueInfo, input};
use super::value;
use crate::error::{Context, Error, Result};
use crate::tensor::{DType, Tensor};

/// A session's inputs and outputs over memory. Exclusive use; it may move between threads.
pub struct Binding {
    // Released before the session that it belongs to.
    binding: Owned<sys::OrtIoBinding>,
    session: Arc<Inner>,
    inputs: Vec<Slot>,
    outputs: Vec<Slot>,
}

/// The memory of one input or output.
struct Slot {
    name: String,
    c_name: CString,
    info: ValueInfo,
    dtype: DType,
    shape: Vec<usize>,
    ptr: *mut u8,
    owned: Option<Tensor>,
}

// SAFETY: the raw pointers are the caller's promise that the memory outlives the binding and is
// not used elsewhere during a run; nothing here depends on the thread.
unsafe impl Send for Binding {}
// SAFETY: shared use only reads names and owned outputs.
unsafe impl Sync for Binding {}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Input,
    Output,
}

impl Session {
    /// A binding of this session's inputs and outputs, with nothing bound yet. It keeps the
    /// session's data alive.
    pub fn bind(&self) -> Result<Binding> {
        Binding::new(self).context(|| format!("session '{}'", self.name()))
    }
}

impl Binding {
    fn new(session: &Session) -> Result<Self> {
        let (api, inner) = (api(), session.inner());
        // SAFETY: the session lives, and the binding holds it; the release function fits.
        let binding = unsafe {
            Owned::make(api.ReleaseIoBinding, |out| (api.CreateIoBinding)(inner.session.ptr(), out))
        }?;
        let slot = |info: &ValueInfo| Slot::new(info.clone());
        let inputs = session.inputs().iter().map(slot).collect::<Result<_>>()?;
        let outputs = session.outputs().iter().map(slot).collect::<Result<_>>()?;
        Ok(Self { binding, session: Arc::clone(inner), inputs, outputs })
    }

    /// Lets input `name` be read at `ptr`: `shape` elements of `dtype`, dense and row-major.
    /// Changes of the memory between runs take effect. Binding a name again replaces the binding.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] for an unknown name, [`crate::Kind::InvalidArgument`] for a NULL
    /// or a wrong dtype, [`crate::Kind::Shape`] for a wrong shape.
    ///
    /// # Safety
    /// The memory is valid for that many elements until the name is bound anew or the binding is
    /// dropped, and nobody writes to it during a run.
    pub unsafe fn bind_input_raw(
        &mut self,
        name: &str,
        dtype: DType,
        shape: &[usize],
        ptr: *const u8,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.bind(Side::Input, name, dtype, shape, ptr.cast_mut(), None) }
    }

    /// Lets output `name` be written at `ptr`: `shape` elements of `dtype`, dense and row-major.
    /// Outputs that are not bound are not computed.
    ///
    /// # Errors
    /// As [`Binding::bind_input_raw`]. A shape that is known only during a run is checked then.
    ///
    /// # Safety
    /// The memory is valid for that many elements until the name is bound anew or the binding is
    /// dropped, overlaps no other bound memory, and nobody uses it during a run.
    pub unsafe fn bind_output_raw(
        &mut self,
        name: &str,
        dtype: DType,
        shape: &[usize],
        ptr: *mut u8,
    ) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.bind(Side::Output, name, dtype, shape, ptr, None) }
    }

    /// Gives input `name` a tensor to read from, for [`Binding::input_mut`] to fill.
    pub fn bind_input_owned(&mut self, name: &str, tensor: Tensor) -> Result<()> {
        self.bind_owned(Side::Input, name, tensor)
    }

    /// Gives output `name` a tensor to write to, for [`Binding::output`] to read.
    pub fn bind_output_owned(&mut self, name: &str, tensor: Tensor) -> Result<()> {
        self.bind_owned(Side::Output, name, tensor)
    }

    /// An owned input, to fill before a run. Putting another tensor in its place is allowed: the
    /// next run reads that one.
    pub fn input_mut(&mut self, name: &str) -> Result<&mut Tensor> {
        let place = place(&self.session.name, Side::Input, name);
        let slot = self.inputs.iter_mut().find(|s| s.name == name);
        slot.and_then(|s| s.owned.as_mut())
            .ok_or_else(|| Error::not_found("no tensor is bound here").context(place))
    }

    /// An owned output, as the last run left it.
    pub fn output(&self, name: &str) -> Result<&Tensor> {
        let slot = self.outputs.iter().find(|s| s.name == name);
        slot.and_then(|s| s.owned.as_ref()).ok_or_else(|| {
            Error::not_found("no tensor is bound here").context(place(
                &self.session.name,
                Side::Output,
                name,
            ))
        })
    }

    /// Copies of the owned inputs, for [`Binding::put_back_inputs`].
    pub fn copy_inputs(&self) -> Result<Vec<Option<Tensor>>> {
        self.inputs.iter().map(|slot| slot.owned.as_ref().map(Tensor::copy).transpose()).collect()
    }

    /// Fills the owned inputs with what they held, where their sizes are the same.
    pub fn put_back_inputs(&mut self, saved: &[Option<Tensor>]) {
        for (slot, saved) in self.inputs.iter_mut().zip(saved) {
            if let (Some(own), Some(saved)) = (&mut slot.owned, saved)
                && own.bytes().len() == saved.bytes().len()
            {
                own.bytes_mut().copy_from_slice(saved.bytes());
            }
        }
    }

    /// Runs `session`, which must be the one that made this binding.
    ///
    /// # Errors
    /// [`crate::Kind::State`] for another session, [`crate::Kind::InvalidArgument`] when inputs or
    /// all outputs are unbound, [`crate::Kind::Cancelled`] after a cancel, else
    /// [`crate::Kind::Runtime`] with the runtime's text. After an error outputs are undefined.
    pub fn run(&mut self, session: &mut Session) -> Result<()> {
        let place = || format!("session '{}'", session.name());
        if !Arc::ptr_eq(&self.session, session.inner()) {
            return Err(Error::state("the binding belongs to another session").context(place()));
        }
        session.check_complete(|name| self.has_input(name)).context(place)?;
        if self.outputs.iter().all(|slot| slot.ptr.is_null()) {
            return Err(Error::invalid("no output is bound").context(place()));
        }
        self.refresh().context(place)?;
        session.run_bound(self.binding.ptr()).context(place)
    }

    fn has_input(&self, name: &str) -> bool {
        self.inputs.iter().any(|slot| slot.name == name && !slot.ptr.is_null())
    }

    fn bind_owned(&mut self, side: Side, name: &str, mut tensor: Tensor) -> Result<()> {
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        let ptr = tensor.bytes_mut().as_mut_ptr();
        // SAFETY: a tensor's memory never moves, and the slot holds the tensor.
        unsafe { self.bind(side, name, dtype, &shape, ptr, Some(tensor)) }
    }

    /// # Safety
    /// As [`Binding::bind_input_raw`] and [`Binding::bind_output_raw`].
    unsafe fn bind(
        &mut self,
        side: Side,
        name: &str,
        dtype: DType,
        shape: &[usize],
        ptr: *mut u8,
        owned: Option<Tensor>,
    ) -> Result<()> {
        let context = place(&self.session.name, side, name);
        let slots = if side == Side::Input { &mut self.inputs } else { &mut self.outputs };
        let Some(slot) = slots.iter_mut().find(|slot| slot.name == name) else {
            return Err(Error::not_found("the model has no such name").context(context));
        };
        if ptr.is_null() {
            return Err(Error::invalid("its memory is NULL").context(context));
        }
        slot.info.accepts(dtype, shape).context(|| &context)?;
        // SAFETY: the caller's promise.
        unsafe { attach(&self.binding, side, &slot.c_name, dtype, shape, ptr) }
            .context(|| &context)?;
        (slot.dtype, slot.ptr, slot.owned) = (dtype, ptr, owned);
        slot.shape = shape.to_vec();
        Ok(())
    }

    /// Rebinds tensors that replaced bound ones, and, on other devices than the CPU, all inputs,
    /// since binding copies them there.
    fn refresh(&mut self) -> Result<()> {
        let always = self.session.device != Device::Cpu;
        for slot in &mut self.inputs {
            let mut changed = always && !slot.ptr.is_null();
            if let Some(tensor) = &mut slot.owned {
                let ptr = tensor.bytes_mut().as_mut_ptr();
                if ptr != slot.ptr || tensor.shape() != slot.shape || tensor.dtype() != slot.dtype {
                    slot.info
                        .accepts(tensor.dtype(), tensor.shape())
                        .context(|| input(&slot.name))?;
                    (slot.ptr, slot.dtype) = (ptr, tensor.dtype());
                    slot.shape = tensor.shape().to_vec();
                    changed = true;
                }
            }
            if changed {
                let (side, name) = (Side::Input, &slot.c_name);
                // SAFETY: the slot's memory is the tensor it holds, or the caller's promise.
                unsafe { attach(&self.binding, side, name, slot.dtype, &slot.shape, slot.ptr) }
                    .context(|| input(&slot.name))?;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bound = |slots: &[Slot]| slots.iter().filter(|s| !s.ptr.is_null()).count();
        write!(
            f,
            "Binding('{}', {} of {} inputs, {} of {} outputs)",
            self.session.name,
            bound(&self.inputs),
            self.inputs.len(),
            bound(&self.outputs),
            self.outputs.len()
        )
    }
}

impl Slot {
    fn new(info: ValueInfo) -> Result<Self> {
        Ok(Self {
            name: info.name.clone(),
            c_name: c_string(&info.name)?,
            dtype: info.dtype.unwrap_or(DType::F32),
            info,
            shape: Vec::new(),
            ptr: std::ptr::null_mut(),
            owned: None,
        })
    }
}

fn place(session: &str, side: Side, name: &str) -> String {
    let side = if side == Side::Input { "input" } else { "output" };
    format!("session '{session}': {side} '{name}'")
}

/// # Safety
/// As [`Binding::bind_input_raw`] and [`Binding::bind_output_raw`].
unsafe fn attach(
    binding: &Owned<sys::OrtIoBinding>,
    side: Side,
    name: &CString,
    dtype: DType,
    shape: &[usize],
    ptr: *mut u8,
) -> Result<()> {
    // SAFETY: the caller's promise.
    let value = unsafe { value::over(dtype, shape, ptr) }?;
    let bind = if side == Side::Input { api().BindInput } else { api().BindOutput };
    // SAFETY: all three live; the binding keeps a reference of its own to the value.
    check(unsafe { bind(binding.ptr(), name.as_ptr(), value.ptr()) })
}
