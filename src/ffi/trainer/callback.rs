//! Callbacks into the host, each with a user pointer, each belonging to one handle.

use std::ffi::{CString, c_char, c_void};

use super::create::mmopt_trainer;
use crate::error::{Error, Kind, Result};
use crate::ffi::core::args::{c_string, choice};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard};
use crate::optim::RateCallback;
use crate::train::{Level, Sink};

/// The level of a log message. A level includes those of lower numbers.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum mmopt_log_level {
    /// No messages.
    Off = 0,
    /// A call failed: the message of its error.
    Error = 1,
    /// Something may not be as intended: shared initializers that are trained as one parameter,
    /// quantised weights, a model without a partner where groups are used, a model that a step
    /// skipped, a synchronisation that was undone.
    Warning = 2,
    /// What the library does: repairs on import, threads, a summary of the sharing plan, files and
    /// checkpoints that are written and read.
    Info = 3,
    /// Details for debugging: the whole sharing plan, each session that is opened, learning rates
    /// and gradient norms of each step.
    Debug = 4,
}

/// Receives one message: its level, an mmopt_log_level, and a UTF-8 text without a line end, valid
/// during the callback. It runs on the thread of the call that logs, and must not call into its
/// trainer. Calls with shared access may log from several threads at once.
pub type mmopt_log_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, level: u32, message: *const c_char)>;

/// A user pointer, handed back to the callback it came with.
#[derive(Clone, Copy)]
pub(crate) struct User(pub *mut c_void);

// SAFETY: the library never looks behind it; the header says that callbacks run on the thread of
// the call that causes them, so whether that is fine is the host's choice of threads.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

/// The sink that hands messages to a callback; none without one, or at level 0.
pub(crate) fn sink(
    callback: mmopt_log_fn,
    user: User,
    level: u32,
) -> Result<Option<(Level, Sink)>> {
    let levels = [
        (0, None),
        (1, Some(Level::Error)),
        (2, Some(Level::Warning)),
        (3, Some(Level::Info)),
        (4, Some(Level::Debug)),
    ];
    let level = choice(level, "level", &levels)?;
    let (Some(callback), Some(level)) = (callback, level) else { return Ok(None) };
    let send = move |level: Level, text: &str| {
        let user = user;
        let text: Vec<u8> = text.bytes().filter(|&b| b != 0).collect();
        let Ok(message) = CString::new(text) else { return };
        // SAFETY: the host gave this function for exactly this call.
        unsafe { callback(user.0, level as u32, message.as_ptr()) };
    };
    Ok(Some((level, Box::new(send))))
}

/// Sets the callback for log messages up to level; NULL removes it. Without one nothing is logged.
/// user must stay valid until it is replaced or the trainer is freed. The messages of the trainer's
/// creation are delivered during this call, each once.
///
/// Errors: INVALID_ARGUMENT when level is no mmopt_log_level.
///
/// @param[in,out] trainer exclusive access.
/// @param level an mmopt_log_level.
/// @param callback may be NULL: no callback.
/// @param user passed to the callback.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_set_log_callback(
    trainer: *mut mmopt_trainer,
    level: u32,
    callback: mmopt_log_fn,
    user: *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: a trainer of the caller, by the header's contract.
    guard(|| unsafe {
        let sink = sink(callback, User(user), level)?;
        exclusive(trainer)?.trainer.set_log(sink);
        Ok(())
    })
}

/// What is about to run when the progress callback is called.
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

/// Where training is when the progress callback is called.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_progress {
    /// What is about to run, an mmopt_phase.
    pub phase: u32,
    /// 0; for later versions.
    pub reserved: u32,
    /// The index of the model; SIZE_MAX for all models.
    pub model: usize,
    /// The number of steps since the trainer was created or resumed.
    pub n_steps: u64,
}

/// Called before each pass and step, on the thread of that call; progress is valid during the
/// callback. Any result but 0 cancels the call, which fails with MMOPT_CODE_CANCELLED and has
/// changed nothing. It must not call into its trainer.
pub type mmopt_progress_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, progress: *const mmopt_progress) -> u32>;

/// One handle's progress callback.
#[derive(Clone, Copy)]
pub(crate) struct Progress {
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
    pub(crate) fn ask(&self, phase: mmopt_phase, model: usize, n_steps: u64) -> Result<()> {
        let Some(callback) = self.callback else { return Ok(()) };
        let progress = mmopt_progress { phase: phase as u32, reserved: 0, model, n_steps };
        // SAFETY: the host gave this function for exactly this call.
        match unsafe { callback(self.user.0, &raw const progress) } {
            0 => Ok(()),
            _ => Err(Error::new(Kind::Cancelled, "the progress callback asked to stop")),
        }
    }
}

/// Sets the callback that is called before each pass and step, and can cancel it; NULL removes it.
/// user must stay valid until it is replaced or the trainer is freed.
///
/// Errors: only those of any call.
///
/// @param[in,out] trainer exclusive access.
/// @param callback may be NULL: no callback.
/// @param user passed to the callback.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_set_progress_callback(
    trainer: *mut mmopt_trainer,
    callback: mmopt_progress_fn,
    user: *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: a trainer of the caller, by the header's contract.
    guard(|| unsafe {
        exclusive(trainer)?.progress = Progress { callback, user: User(user) };
        Ok(())
    })
}

/// Returns the learning rate of a model at a step, counted from 1. rate is the one of the schedule
/// and the adaptive learning rate. A result that is negative or not finite fails the step.
pub type mmopt_rate_fn = Option<
    unsafe extern "C" fn(user: *mut c_void, model: *const c_char, step: u64, rate: f64) -> f64,
>;

/// The optimizer's form of a host's callback.
///
/// # Safety
/// The callback may be called with `user` for as long as the result lives.
pub(crate) unsafe fn rate_callback(
    callback: mmopt_rate_fn,
    user: *mut c_void,
) -> Option<RateCallback> {
    let (callback, user) = (callback?, User(user));
    Some(Box::new(move |model: &str, step: u64, rate: f64| {
        let user = user;
        let Ok(name) = c_string(model, "a model's name") else { return f64::NAN };
        // SAFETY: by this function's contract.
        unsafe { callback(user.0, name.as_ptr(), step, rate) }
    }))
}

/// Sets the callback that returns each model's learning rate at each step; NULL removes it. user
/// must stay valid until it is replaced or the trainer is freed.
///
/// Errors: only those of any call.
///
/// @param[in,out] trainer exclusive access.
/// @param callback may be NULL: no callback.
/// @param user passed to the callback.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_set_rate_callback(
    trainer: *mut mmopt_trainer,
    callback: mmopt_rate_fn,
    user: *mut c_void,
) -> *mut mmopt_error {
    // SAFETY: a trainer of the caller, by the header's contract.
    guard(|| unsafe {
        let mut trainer = exclusive(trainer)?;
        trainer.trainer.optimizer_mut().set_rate_callback(rate_callback(callback, user));
        Ok(())
    })
}
