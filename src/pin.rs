//! Host memory that an NVIDIA device copies from and to directly.
//!
//! Copies between a device and ordinary memory go through the driver's own small buffer; memory
//! that is *pinned* (registered with the driver) is read and written by the device itself, at the
//! bus's full rate and without the processor. The driver is opened by name at first use, so that
//! nothing depends on it; where it is missing or refuses, memory stays as it is and everything
//! works more slowly.

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::ptr::null_mut;
use std::sync::Mutex;

use once_cell::sync::OnceCell;

/// The names of the driver's library.
const NAMES: [&CStr; 2] = [c"libcuda.so.1", c"libcuda.so"];
/// For every context, not only the one that is current: `CU_MEMHOSTREGISTER_PORTABLE`.
const PORTABLE: c_uint = 1;

type Context = *mut c_void;

/// The driver's functions in use; each returns 0 when it worked (CUDA driver API).
struct Driver {
    device: unsafe extern "C" fn(*mut c_int, c_int) -> c_int,
    retain: unsafe extern "C" fn(*mut Context, c_int) -> c_int,
    push: unsafe extern "C" fn(Context) -> c_int,
    pop: unsafe extern "C" fn(*mut Context) -> c_int,
    register: unsafe extern "C" fn(*mut c_void, usize, c_uint) -> c_int,
    unregister: unsafe extern "C" fn(*mut c_void) -> c_int,
    /// The contexts that are held, by device; for the rest of the process.
    held: Mutex<Vec<(i32, usize)>>,
}

/// A pinned block; dropping it lets the block go.
#[derive(Debug)]
pub(crate) struct Pin {
    device: i32,
    start: usize,
}

/// A function of a library, if it has one of that name.
///
/// # Safety
/// `F` must be the type of a function pointer, and that function's.
unsafe fn function<F: Copy>(library: *mut c_void, name: &CStr) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: an open library and a NUL-terminated name.
    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
    // SAFETY: the caller's promise; a function pointer is as large as the address.
    (!found.is_null()).then(|| unsafe { std::mem::transmute_copy(&found) })
}

impl Driver {
    /// The driver, if this machine has one.
    fn get() -> Option<&'static Self> {
        static DRIVER: OnceCell<Option<Driver>> = OnceCell::new();
        DRIVER.get_or_init(Self::open).as_ref()
    }

    fn open() -> Option<Self> {
        // SAFETY: names are NUL-terminated; the library stays open.
        let library = NAMES.iter().find_map(|name| unsafe {
            let library = libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            (!library.is_null()).then_some(library)
        })?;
        // SAFETY: an open library; the types are those of the driver API's header.
        unsafe {
            let init: unsafe extern "C" fn(c_uint) -> c_int = function(library, c"cuInit")?;
            let driver = Self {
                device: function(library, c"cuDeviceGet")?,
                retain: function(library, c"cuDevicePrimaryCtxRetain")?,
                push: function(library, c"cuCtxPushCurrent_v2")?,
                pop: function(library, c"cuCtxPopCurrent_v2")?,
                register: function(library, c"cuMemHostRegister_v2")?,
                unregister: function(library, c"cuMemHostUnregister")?,
                held: Mutex::new(Vec::new()),
            };
            (init(0) == 0).then_some(driver)
        }
    }

    /// The context that the device's sessions share.
    fn context(&self, device: i32) -> Option<Context> {
        let mut held = self.held.lock().ok()?;
        if let Some(&(_, context)) = held.iter().find(|(d, _)| *d == device) {
            return Some(context as Context);
        }
        let (mut number, mut context) = (0, null_mut());
        // SAFETY: both are places for the outputs.
        let made = unsafe {
            (self.device)(&raw mut number, device) == 0
                && (self.retain)(&raw mut context, number) == 0
        };
        made.then(|| {
            held.push((device, context as usize));
            context
        })
    }

    /// Runs `f` where the device's context is current; false when it cannot be.
    fn within(&self, device: i32, f: impl FnOnce() -> bool) -> bool {
        let Some(context) = self.context(device) else { return false };
        // SAFETY: a context that is held; what is pushed is popped.
        unsafe {
            if (self.push)(context) != 0 {
                return false;
            }
            let worked = f();
            let mut popped = null_mut();
            (self.pop)(&raw mut popped);
            worked
        }
    }
}

impl Pin {
    /// Pins `len` bytes from `start`; `None` where there is no driver or it refuses.
    ///
    /// # Safety
    /// The memory must stay valid until the pin is dropped.
    pub unsafe fn new(device: i32, start: *mut u8, len: usize) -> Option<Self> {
        let driver = Driver::get()?;
        // SAFETY: the caller's promise.
        let register = || unsafe { (driver.register)(start.cast(), len, PORTABLE) == 0 };
        driver.within(device, register).then_some(Self { device, start: start as usize })
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(driver) = Driver::get() {
            // SAFETY: the block was registered and still lives. At the process's end the driver
            // may be gone already, and says so.
            driver.within(self.device, || unsafe {
                (driver.unregister)(self.start as *mut c_void) == 0
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_pinned_or_left_as_it_is() {
        let mut memory = vec![1u8; 1 << 20];
        // SAFETY: the memory outlives the pin.
        let pin = unsafe { Pin::new(0, memory.as_mut_ptr(), memory.len()) };
        memory.fill(2);
        drop(pin);
        // SAFETY: as above; there is no such device.
        assert!(unsafe { Pin::new(4096, memory.as_mut_ptr(), memory.len()) }.is_none());
        assert!(memory.iter().all(|&b| b == 2));
    }
}
