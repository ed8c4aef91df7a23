//! The guard around every export, and the cell inside every handle.
//!
//! A *handle* wraps a value in a [`Cell`]: the value, a count of its users, and whether a panic
//! happened while it was used (*poisoned*).

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};

use super::error::mmopt_error;
use super::fork;
use crate::error::{Error, Kind, Result};

/// The count that means: one exclusive user.
const EXCLUSIVE: isize = -1;

/// Runs the body of an export that can fail; a panic becomes an `Internal` error. In a forked child
/// it does not run.
pub(crate) fn guard(body: impl FnOnce() -> Result<()>) -> *mut mmopt_error {
    match catch(|| fork::check().and_then(|()| body())) {
        Ok(()) => std::ptr::null_mut(),
        Err(error) => mmopt_error::into_raw(&error),
    }
}

/// Runs the body of an export without an error channel: `otherwise` on failure.
pub(crate) fn guard_or<R>(otherwise: R, body: impl FnOnce() -> Result<R>) -> R {
    catch(body).unwrap_or(otherwise)
}

/// How many guards run, on all threads.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::AcqRel);
    }
}

/// From the first call on: while a guard runs, panics are not printed, on any thread, for what they
/// say is in the error. Outside of guards the hook that was there is called.
fn quieten() -> Running {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if RUNNING.load(Ordering::Acquire) == 0 {
                before(info);
            }
        }));
    });
    RUNNING.fetch_add(1, Ordering::AcqRel);
    Running
}

fn catch<R>(body: impl FnOnce() -> Result<R>) -> Result<R> {
    let _running = quieten();
    // Handles in use are poisoned as their borrows unwind, so no broken state is seen again.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(panicked(&*payload)))
}

fn panicked(payload: &(dyn Any + Send)) -> Error {
    let text = payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into());
    Error::internal(format!(
        "a defect in libmmopt: {text}; the objects in this call can only be freed now"
    ))
}

/// What every handle holds.
pub struct Cell<T> {
    users: AtomicIsize,
    poisoned: AtomicBool,
    value: UnsafeCell<T>,
}

impl<T> Cell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            users: AtomicIsize::new(0),
            poisoned: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    fn check_poison(&self, what: &str) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(Error::new(
                Kind::Poisoned,
                format!("{what}: an earlier call failed inside the library; it can only be freed"),
            ));
        }
        Ok(())
    }

    fn shared(&self, what: &str) -> Result<Shared<'_, T>> {
        self.check_poison(what)?;
        self.users
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |n| (n >= 0).then_some(n + 1))
            .map_err(|_| busy(what))?;
        Ok(Shared(self))
    }

    fn exclusive(&self, what: &str) -> Result<Exclusive<'_, T>> {
        self.check_poison(what)?;
        self.users
            .compare_exchange(0, EXCLUSIVE, Ordering::Acquire, Ordering::Relaxed)
            .map_err(|_| busy(what))?;
        Ok(Exclusive(self))
    }

    fn release(&self, count: isize) {
        if std::thread::panicking() {
            self.poisoned.store(true, Ordering::Release);
        }
        self.users.fetch_sub(count, Ordering::Release);
    }
}

fn busy(what: &str) -> Error {
    Error::state(format!(
        "{what} is in use by another call; a call that changes it needs exclusive access, \
         and callbacks must not call back into it"
    ))
}

/// A value that others may read at the same time.
pub(crate) struct Shared<'a, T>(&'a Cell<T>);

impl<T> Deref for Shared<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the count of users is positive, so no exclusive borrow exists.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> Drop for Shared<'_, T> {
    fn drop(&mut self) {
        self.0.release(1);
    }
}

/// A value that nobody else uses.
pub(crate) struct Exclusive<'a, T>(&'a Cell<T>);

impl<T> Deref for Exclusive<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the count says that this is the only borrow.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Exclusive<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the count says that this is the only borrow.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Exclusive<'_, T> {
    fn drop(&mut self) {
        self.0.release(EXCLUSIVE);
    }
}

/// A type that C holds by pointer. The bounds are what the thread rule of the header promises.
pub(crate) trait Handle: Sized {
    /// What the handle holds.
    type Value: Send + Sync;
    /// The noun, for messages.
    const NOUN: &'static str;
    fn new(value: Self::Value) -> Self;
    fn cell(&self) -> &Cell<Self::Value>;
}

/// Makes a tuple struct around a [`Cell`] a [`Handle`].
macro_rules! handle {
    ($name:ident, $value:ty, $noun:literal) => {
        impl $crate::ffi::core::guard::Handle for $name {
            type Value = $value;
            const NOUN: &'static str = $noun;
            fn new(value: $value) -> Self {
                Self($crate::ffi::core::guard::Cell::new(value))
            }
            fn cell(&self) -> &$crate::ffi::core::guard::Cell<$value> {
                &self.0
            }
        }
    };
}
pub(crate) use handle;

/// Gives a value to C, which frees it with the `_free` of its type.
pub(crate) fn into_raw<H: Handle>(value: H::Value) -> *mut H {
    Box::into_raw(Box::new(H::new(value)))
}

/// Borrows a handle for reading.
///
/// # Safety
/// `handle` is NULL or came from [`into_raw`] and was not freed.
pub(crate) unsafe fn shared<'a, H>(handle: *const H) -> Result<Shared<'a, H::Value>>
where
    H: Handle + 'a,
{
    // SAFETY: by this function's contract.
    match unsafe { handle.as_ref() } {
        Some(h) => h.cell().shared(H::NOUN),
        None => Err(Error::invalid(format!("{} is NULL", H::NOUN))),
    }
}

/// Borrows a handle for changing it.
///
/// # Safety
/// `handle` is NULL or came from [`into_raw`] and was not freed.
pub(crate) unsafe fn exclusive<'a, H>(handle: *mut H) -> Result<Exclusive<'a, H::Value>>
where
    H: Handle + 'a,
{
    // SAFETY: by this function's contract. A shared reference: the cell guards the rest.
    match unsafe { handle.cast_const().as_ref() } {
        Some(h) => h.cell().exclusive(H::NOUN),
        None => Err(Error::invalid(format!("{} is NULL", H::NOUN))),
    }
}

/// Frees a handle; NULL is harmless. One that a running call still uses is left alone, and so is
/// every one in a forked child: it may wait for threads that there are not.
///
/// # Safety
/// `handle` is NULL or came from [`into_raw`] and was not freed.
pub(crate) unsafe fn free<H: Handle>(handle: *mut H) {
    guard_or((), || {
        // SAFETY: by this function's contract.
        let Some(h) = (unsafe { handle.cast_const().as_ref() }) else { return Ok(()) };
        if h.cell().users.load(Ordering::Acquire) == 0 && !fork::is_child() {
            // SAFETY: nobody uses it, and `into_raw` made it from a box.
            drop(unsafe { Box::from_raw(handle) });
        }
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::sync::{Arc, Barrier};

    struct Probe(Cell<Arc<AtomicUsize>>);
    handle!(Probe, Arc<AtomicUsize>, "probe");

    impl Drop for Probe {
        fn drop(&mut self) {
            self.0.value.get_mut().fetch_add(1, Ordering::SeqCst);
        }
    }

    fn probe() -> (*mut Probe, Arc<AtomicUsize>) {
        let freed = Arc::new(AtomicUsize::new(0));
        (into_raw(freed.clone()), freed)
    }

    fn code(error: *mut mmopt_error) -> u32 {
        // SAFETY: errors come from `guard` in these tests.
        unsafe {
            let code = super::super::error::mmopt_error_code(error);
            super::super::error::mmopt_error_free(error);
            code
        }
    }

    fn touch(h: *mut Probe) -> u32 {
        // SAFETY: the tests free each probe once, at their end.
        code(guard(|| unsafe { exclusive(h) }.map(|_| ())))
    }

    #[test]
    fn a_panic_poisons_the_handle_and_leaves_it_freeable() {
        let (h, freed) = probe();
        assert_eq!(touch(h), 0);
        let error = guard(|| {
            // SAFETY: `h` is alive.
            let _held = unsafe { exclusive(h) }?;
            let empty: &[u8] = &[];
            assert_eq!(empty.len(), 1, "told to");
            Ok(())
        });
        assert_eq!(code(error), Kind::Internal as u32);
        assert_eq!(touch(h), Kind::Poisoned as u32);
        // SAFETY: `h` is alive.
        assert_eq!(code(guard(|| unsafe { shared(h) }.map(|_| ()))), Kind::Poisoned as u32);
        // SAFETY: `h` is alive; freed here and nowhere else.
        unsafe { free(h) };
        assert_eq!(freed.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn null_is_an_error_and_free_of_null_is_harmless() {
        assert_eq!(touch(std::ptr::null_mut()), Kind::InvalidArgument as u32);
        // SAFETY: NULL is allowed.
        unsafe { free::<Probe>(std::ptr::null_mut()) };
    }

    #[test]
    fn a_second_user_is_told_so_and_readers_share() {
        let (h, freed) = probe();
        // SAFETY: `h` is alive until the end of this test.
        unsafe {
            let held = exclusive(h).unwrap();
            assert_eq!(touch(h), Kind::State as u32);
            free(h);
            assert_eq!(freed.load(Ordering::SeqCst), 0, "freed while in use");
            drop(held);
            let (a, b) = (shared(h).unwrap(), shared(h).unwrap());
            assert_eq!(touch(h), Kind::State as u32);
            drop((a, b));
            assert_eq!(touch(h), 0);
            free(h);
        }
        assert_eq!(freed.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn of_two_threads_one_gets_exclusive_use() {
        let (h, _) = probe();
        let address = h as usize;
        let (start, end) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let run = || {
            let (start, end) = (start.clone(), end.clone());
            std::thread::spawn(move || {
                start.wait();
                // SAFETY: freed after both threads ended.
                let got = unsafe { exclusive(address as *mut Probe) };
                end.wait();
                got.is_ok()
            })
        };
        let (a, b) = (run(), run());
        assert_ne!(a.join().unwrap(), b.join().unwrap());
        // SAFETY: `h` is alive.
        unsafe { free(h) };
    }
}
