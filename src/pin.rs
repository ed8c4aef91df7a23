//! Host memory that an NVIDIA device copies from and to directly.
//!
//! Copies between a device and ordinary memory go through the driver's own small buffer; memory
//! that is *pinned* (registered with the driver) is read and written by the device itself, at the
//! bus's full rate and without the processor. The driver is loaded at first use, so that
//! nothing links to it; where it is missing or fails, memory stays unpinned and copies are slower.

use std::ffi::{c_int, c_uint, c_void};
use std::ptr::null_mut;
use std::sync::{Mutex, OnceLock};

use libloading::Library;

/// The names of the driver's library.
const NAMES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];
/// For every context, not only the one that is current: `CU_MEMHOSTREGISTER_PORTABLE`.
const PORTABLE: c_uint = 1;

type CudaContext = *mut c_void;

/// The driver's functions in use; each returns 0 when it worked (CUDA driver API).
struct Driver {
    device: unsafe extern "C" fn(*mut c_int, c_int) -> c_int,
    retain: unsafe extern "C" fn(*mut CudaContext, c_int) -> c_int,
    push: unsafe extern "C" fn(CudaContext) -> c_int,
    pop: unsafe extern "C" fn(*mut CudaContext) -> c_int,
    register: unsafe extern "C" fn(*mut c_void, usize, c_uint) -> c_int,
    unregister: unsafe extern "C" fn(*mut c_void) -> c_int,
    /// The retained contexts by device; never released.
    retained: Mutex<Vec<(i32, usize)>>,
}

/// A pinned block; dropping it unpins the block.
#[derive(Debug)]
pub(crate) struct Pin {
    device: i32,
    start: usize,
}

impl Driver {
    /// The driver, if this machine has one.
    fn loaded() -> Option<&'static Self> {
        static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();
        DRIVER.get_or_init(Self::open).as_ref()
    }

    fn open() -> Option<Self> {
        // SAFETY: loading the driver's library only runs its initialisers.
        let library = NAMES.into_iter().find_map(|name| unsafe { Library::new(name) }.ok())?;
        // SAFETY: the types are those of the driver API's header, and the library stays open for
        // the rest of the process.
        unsafe {
            let init: unsafe extern "C" fn(c_uint) -> c_int = *library.get(c"cuInit").ok()?;
            let driver = Self {
                device: *library.get(c"cuDeviceGet").ok()?,
                retain: *library.get(c"cuDevicePrimaryCtxRetain").ok()?,
                push: *library.get(c"cuCtxPushCurrent_v2").ok()?,
                pop: *library.get(c"cuCtxPopCurrent_v2").ok()?,
                register: *library.get(c"cuMemHostRegister_v2").ok()?,
                unregister: *library.get(c"cuMemHostUnregister").ok()?,
                retained: Mutex::new(Vec::new()),
            };
            let works = init(0) == 0;
            std::mem::forget(library);
            works.then_some(driver)
        }
    }

    /// The context that the device's sessions share.
    fn context(&self, device: i32) -> Option<CudaContext> {
        let mut retained = self.retained.lock().ok()?;
        if let Some(&(_, context)) = retained.iter().find(|(d, _)| *d == device) {
            return Some(context as CudaContext);
        }
        let (mut number, mut context) = (0, null_mut());
        // SAFETY: both are places for the outputs.
        let made = unsafe {
            (self.device)(&raw mut number, device) == 0
                && (self.retain)(&raw mut context, number) == 0
        };
        made.then(|| {
            retained.push((device, context as usize));
            context
        })
    }

    /// Runs `f` with the device's context current; false when that fails.
    fn within(&self, device: i32, f: impl FnOnce() -> bool) -> bool {
        let Some(context) = self.context(device) else { return false };
        // SAFETY: a retained context; what is pushed is popped.
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
    /// Pins `len` bytes from `start`; `None` where there is no driver or it fails.
    ///
    /// # Safety
    /// The memory must stay valid until the pin is dropped.
    pub unsafe fn new(device: i32, start: *mut u8, len: usize) -> Option<Self> {
        let driver = Driver::loaded()?;
        // SAFETY: the caller's promise.
        let register = || unsafe { (driver.register)(start.cast(), len, PORTABLE) == 0 };
        driver.within(device, register).then_some(Self { device, start: start as usize })
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(driver) = Driver::loaded() {
            // SAFETY: the block was registered and still lives. At the end of the process
            // the driver may be unloaded already; then the call fails.
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
