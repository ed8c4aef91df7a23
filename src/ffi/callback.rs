//! Callbacks into the host, each with a user pointer, each belonging to one handle.

use std::ffi::{CString, c_char, c_void};

/// How much a message of the log matters.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum mmopt_log_level {
    /// No messages.
    Off = 0,
    /// Something failed.
    Error = 1,
    /// Something is probably not as intended: a skipped step, a model that shares nothing.
    Warning = 2,
    /// What the library decided: threads, groups, sessions.
    Info = 3,
    /// Details for finding faults.
    Debug = 4,
}

/// Receives one message: the level (an mmopt_log_level) and a UTF-8 text without a line end, valid
/// during the call. It runs on the thread of the call that logs, and must not call into the object
/// that it is set on.
pub type mmopt_log_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, level: u32, message: *const c_char)>;

/// A user pointer, handed back to the callback it came with.
#[derive(Clone, Copy)]
pub(super) struct User(pub *mut c_void);

// SAFETY: the library never looks behind it; the header says that callbacks run on the thread of
// the call that causes them, so whether that is fine is the host's choice of threads.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

/// Where one handle's messages go.
#[derive(Clone, Copy)]
pub(super) struct Log {
    pub callback: mmopt_log_fn,
    pub user: User,
    pub level: u32,
}

impl Default for Log {
    fn default() -> Self {
        Self { callback: None, user: User(std::ptr::null_mut()), level: 0 }
    }
}

impl Log {
    /// Sends a message when its level is wanted; `text` is made only then.
    pub(super) fn send(&self, level: mmopt_log_level, text: impl FnOnce() -> String) {
        let Some(callback) = self.callback else { return };
        if level as u32 > self.level {
            return;
        }
        let mut text = text();
        text.retain(|c| c != '\0');
        let Ok(message) = CString::new(text) else { return };
        // SAFETY: the host gave this function for exactly this call.
        unsafe { callback(self.user.0, level as u32, message.as_ptr()) };
    }
}
