//! A process that was forked from one that used the library: it has none of its threads, and locks
//! that they held stay held. So every call there is an error in place of a call that may never end.

use crate::error::{Error, Result};

/// Whether this process is such a child.
#[cfg(unix)]
pub(crate) fn is_child() -> bool {
    use std::sync::Once;
    use std::sync::atomic::{AtomicBool, Ordering};

    static NOTED: Once = Once::new();
    static FORKED: AtomicBool = AtomicBool::new(false);

    unsafe extern "C" fn in_child() {
        FORKED.store(true, Ordering::Relaxed);
    }
    // From the first call on: a child of a process that only loaded the library may use it.
    NOTED.call_once(|| {
        // SAFETY: the function does what may be done in a child of a process with threads. Where
        // there is no memory for the note, children are told nothing.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
    FORKED.load(Ordering::Relaxed)
}

/// Elsewhere processes are not forked.
#[cfg(not(unix))]
pub(crate) fn is_child() -> bool {
    false
}

/// Refuses calls in such a child.
pub(crate) fn check() -> Result<()> {
    if is_child() {
        return Err(Error::state(
            "this process was forked from one that used the library, and has none of its threads; \
             fork before the first call, or call exec in the child",
        ));
    }
    Ok(())
}
