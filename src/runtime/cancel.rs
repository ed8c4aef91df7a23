//! Cancelling a run from another thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ort::sys;

use super::api::{Owned, api, check};
use crate::error::Result;

/// Cancels the runs of the sessions that have it, from any thread. It stays set until
/// [`CancelToken::reset`]: a run that begins later ends at once too, so nothing depends on timing.
/// Clones share one flag.
#[derive(Clone)]
pub struct CancelToken(Arc<Switch>);

struct Switch {
    thrown: AtomicBool,
    /// How often it was thrown: a run that it ended may find it reset.
    n_thrown: AtomicU64,
    /// Held while flag and options change, so that they agree.
    changing: Mutex<()>,
    options: Owned<sys::OrtRunOptions>,
}

impl CancelToken {
    /// A token that is not set. Loads ONNX Runtime from its usual place if none is loaded.
    pub fn new() -> Result<Self> {
        super::load(None)?;
        let api = api();
        // SAFETY: the release function belongs to what is made.
        let options =
            unsafe { Owned::make(api.ReleaseRunOptions, |out| (api.CreateRunOptions)(out)) }?;
        Ok(Self(Arc::new(Switch {
            thrown: AtomicBool::new(false),
            n_thrown: AtomicU64::new(0),
            changing: Mutex::new(()),
            options,
        })))
    }

    /// Ends current and later runs with [`crate::Kind::Cancelled`], after the operators that are
    /// being computed right now.
    pub fn cancel(&self) {
        let _changing = self.0.changing.lock().unwrap_or_else(|e| e.into_inner());
        self.0.thrown.store(true, Ordering::SeqCst);
        self.0.n_thrown.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the options live; the runtime reads the flag between operators.
        let status = unsafe { (api().RunOptionsSetTerminate)(self.0.options.ptr()) };
        if let Err(error) = check(status) {
            log::error!("a run could not be cancelled: {error}");
        }
    }

    /// Makes runs possible again.
    pub fn reset(&self) -> Result<()> {
        let _changing = self.0.changing.lock().unwrap_or_else(|e| e.into_inner());
        // SAFETY: the options live.
        check(unsafe { (api().RunOptionsUnsetTerminate)(self.0.options.ptr()) })?;
        self.0.thrown.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Whether [`CancelToken::cancel`] was called since the last reset.
    pub fn is_cancelled(&self) -> bool {
        self.0.thrown.load(Ordering::SeqCst)
    }

    /// How often [`CancelToken::cancel`] was called; `None` while it is set.
    pub(super) fn n_cancelled(&self) -> Option<u64> {
        let n = self.0.n_thrown.load(Ordering::SeqCst);
        (!self.is_cancelled()).then_some(n)
    }

    /// The run options with the flag.
    pub(super) fn options(&self) -> *const sys::OrtRunOptions {
        self.0.options.ptr()
    }
}

impl std::fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CancelToken({})", if self.is_cancelled() { "thrown" } else { "not thrown" })
    }
}
