//! Callbacks into the host, each with a user pointer, each belonging to one handle.

use std::ffi::{CString, c_char, c_void};

use crate::error::{Error, Kind, Result};

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

/// What is about to happen when the progress callback is asked.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_phase {
    /// A forward and backward pass.
    ForwardBackward = 1,
    /// A step of the optimizer.
    Step = 2,
    /// An evaluation.
    Evaluate = 3,
}

/// Where training stands when the progress callback is asked.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_progress {
    /// What is about to happen, an mmopt_phase.
    pub phase: u32,
    /// Must be ignored.
    pub reserved: u32,
    /// The model that it concerns; SIZE_MAX for all.
    pub model: usize,
    /// Steps taken since the trainer was created or resumed.
    pub n_steps: u64,
}

/// Asked before each pass and step, on the thread of that call; progress is valid during the
/// call. Any result but 0 cancels: the call that asked fails with MMOPT_CODE_CANCELLED and has
/// changed nothing. It must not call into the object that it is set on.
pub type mmopt_progress_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, progress: *const mmopt_progress) -> u32>;

/// One handle's progress callback.
#[derive(Clone, Copy)]
pub(super) struct Progress {
    pub callback: mmopt_progress_fn,
    pub user: User,
}

impl Default for Progress {
    fn default() -> Self {
        Self { callback: None, user: User(std::ptr::null_mut()) }
    }
}

impl Progress {
    /// Asks the host whether to go on.
    pub(super) fn ask(&self, phase: mmopt_phase, model: usize, n_steps: u64) -> Result<()> {
        let Some(callback) = self.callback else { return Ok(()) };
        let progress = mmopt_progress { phase: phase as u32, reserved: 0, model, n_steps };
        // SAFETY: the host gave this function for exactly this call.
        match unsafe { callback(self.user.0, &raw const progress) } {
            0 => Ok(()),
            _ => Err(Error::new(Kind::Cancelled, "the progress callback asked to stop")),
        }
    }
}

/// Gives the learning rate that a model is to use: step counts from 1, rate is what the schedule
/// and the losses say. A result that is negative or not finite fails the step.
pub type mmopt_rate_fn = Option<
    unsafe extern "C" fn(user: *mut c_void, model: *const c_char, step: u64, rate: f64) -> f64,
>;
