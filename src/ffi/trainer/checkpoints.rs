//! Which checkpoints stay, and all of a directory.

use std::ffi::c_char;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::create::mmopt_trainer;
use crate::checkpoint::listing::{self, Listed};
use crate::checkpoint::writer::Keep;
use crate::error::{Error, Result};
use crate::ffi::core::args::{flag, optional_output, optional_text, owned_text, text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{guard, shared};
use crate::ffi::core::structs::{Options, init, options};

/// Which of a run's checkpoints stay, and how one is written. A run is a trainer and all that
/// resume from its checkpoints; checkpoints of other runs are never removed.
/// mmopt_checkpoint_options_init fills in the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_checkpoint_options {
    /// sizeof(mmopt_checkpoint_options).
    pub struct_size: usize,
    /// So many of the newest stay, at least 1; default 2.
    pub keep_last: usize,
    /// So many of those with the best scores stay beside them; default 0.
    pub keep_best: usize,
    /// The score of this checkpoint, of any metric; NaN (default): it has none.
    pub score: f64,
    /// 1 (default): a greater score is better; 0: a smaller one.
    pub greater_is_better: u32,
    /// 1: the state is copied, which takes as much memory again, and a thread of its own writes the
    /// copy while training goes on; 0 (default): the checkpoint is written when the call returns.
    pub asynchronous: u32,
}

impl Default for mmopt_checkpoint_options {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            keep_last: 2,
            keep_best: 0,
            score: f64::NAN,
            greater_is_better: 1,
            asynchronous: 0,
        }
    }
}

// SAFETY: repr(C), begins with its size, numbers only.
unsafe impl Options for mmopt_checkpoint_options {
    const NAME: &'static str = "mmopt_checkpoint_options";
}

impl mmopt_checkpoint_options {
    fn checked(&self) -> Result<Keep> {
        if self.keep_last == 0 {
            return Err(Error::invalid("keep_last is 0; at least 1 checkpoint must stay"));
        }
        if self.score.is_infinite() || (self.keep_best > 0 && self.score.is_nan()) {
            return Err(Error::invalid(format!(
                "score is {} and keep_best {}; set score to a finite number, or keep_best to 0",
                self.score, self.keep_best
            )));
        }
        Ok(Keep {
            last: self.keep_last,
            best: self.keep_best,
            score: Some(self.score).filter(|s| s.is_finite()),
            greater_is_better: flag(self.greater_is_better, "greater_is_better")?,
        })
    }
}

/// Fills in the defaults. NULL is harmless.
///
/// @param[out] options filled with the defaults; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_checkpoint_options_init(options: *mut mmopt_checkpoint_options) {
    // SAFETY: the caller's struct, by the header's contract.
    unsafe { init(options) };
}

/// As mmopt_trainer_save_checkpoint, with a choice of which of this run's checkpoints stay, and of
/// whether it is written beside the training.
///
/// With asynchronous 1 one checkpoint is under way at most: the next one of this trainer, of either
/// kind, waits for it, and so do mmopt_trainer_resume and mmopt_trainer_free. If writing it failed,
/// that next call fails with its error and writes nothing; the call after that one is free of it.
/// mmopt_trainer_wait_for_checkpoint waits for it and says how it ended. A process that ends before
/// leaves the checkpoints that were there.
///
/// Errors: as mmopt_trainer_save_checkpoint; INVALID_ARGUMENT for keep_last 0, an infinite score,
/// keep_best without a score, or path together with asynchronous; those of the asynchronous
/// checkpoint before.
///
/// @param[in] trainer shared access.
/// @param[in] directory the directory, UTF-8.
/// @param[in] host_text any text; may be NULL: empty.
/// @param[in] options may be NULL: the defaults.
/// @param[out] path the checkpoint's own directory; free it with mmopt_string_free; may be NULL,
/// and must be with asynchronous 1, where only mmopt_trainer_wait_for_checkpoint knows it.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_save_checkpoint_with(
    trainer: *const mmopt_trainer,
    directory: *const c_char,
    host_text: *const c_char,
    options: *const mmopt_checkpoint_options,
    path: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let directory = text(directory, "directory")?;
        let host = optional_text(host_text, "host_text")?.unwrap_or("");
        let options = self::options(options)?;
        let keep = options.checked()?;
        let beside = flag(options.asynchronous, "asynchronous")?;
        let path = optional_output(path, "path")?;
        if beside && path.is_wanted() {
            return Err(Error::invalid(
                "path is not known before an asynchronous checkpoint is written; pass NULL, and \
                 ask mmopt_trainer_wait_for_checkpoint",
            ));
        }
        if beside {
            let begun = trainer.trainer.checkpoint_beside(Path::new(directory), host, keep);
            return trainer.trainer.log_error("writing", begun);
        }
        let written = trainer.trainer.checkpoint_keeping(Path::new(directory), host, keep);
        let written = trainer.trainer.log_error("writing", written)?;
        if path.is_wanted() {
            path.set(owned_text(&written.to_string_lossy(), "the path")?);
        }
        Ok(())
    })
}

/// Waits for the asynchronous checkpoint that is being written, if there is one.
///
/// Errors: those of writing it, as mmopt_trainer_save_checkpoint; each is told once, by this
/// function or the next checkpoint.
///
/// @param[in] trainer shared access.
/// @param[out] path the checkpoint's own directory; free it with mmopt_string_free; NULL where none
/// was written since the last checkpoint or wait; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_trainer_wait_for_checkpoint(
    trainer: *const mmopt_trainer,
    path: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let trainer = shared(trainer)?;
        let path = optional_output(path, "path")?;
        let written = trainer.trainer.wait_for_checkpoint();
        let written = trainer.trainer.log_error("writing", written)?;
        if path.is_wanted() {
            let text = |p: PathBuf| owned_text(&p.to_string_lossy(), "the path");
            path.set(written.map(text).transpose()?.unwrap_or(std::ptr::null_mut()));
        }
        Ok(())
    })
}

fn to_json(checkpoint: &Listed) -> Value {
    json!({
        "path": checkpoint.path.to_string_lossy(),
        "step": checkpoint.step,
        "run": checkpoint.run,
        "score": checkpoint.score,
        "bytes": checkpoint.bytes,
        "damage": checkpoint.damage,
    })
}

/// Reads and checks every file of every checkpoint in a directory, of trainers and optimizers. The
/// text is a JSON array, the newest first: {"path", "step": integer or null, "run": text, "score":
/// number or null, "bytes": of all files, "damage": why it cannot be used, null for a whole one}.
/// Each begins a line of the text. A writer at work is not disturbed.
///
/// Errors: NOT_FOUND without the directory; IO. A damaged checkpoint is no error.
///
/// @param[in] directory the directory, or that of one checkpoint, UTF-8.
/// @param[out] n_damaged how many cannot be used; may be NULL.
/// @param[out] json free it with mmopt_string_free; may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_checkpoint_list(
    directory: *const c_char,
    n_damaged: *mut usize,
    json: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let directory = text(directory, "directory")?;
        let n_damaged = optional_output(n_damaged, "n_damaged")?;
        let json = optional_output(json, "json")?;
        let all = listing::list(Path::new(directory))?;
        if json.is_wanted() {
            let lines: Vec<String> = all.iter().map(|c| to_json(c).to_string()).collect();
            json.set(owned_text(&format!("[{}]", lines.join(",\n")), "the list")?);
        }
        n_damaged.set(all.iter().filter(|c| c.damage.is_some()).count());
        Ok(())
    })
}

/// Removes damaged checkpoints from a directory, and of the whole ones all but the newest,
/// whichever runs wrote them. Those of a later library stay.
///
/// Errors: INVALID_ARGUMENT for keep_last 0, and for the directory of one checkpoint; STATE while a
/// trainer or optimizer writes there; NOT_FOUND without the directory; IO.
///
/// @param[in] directory the directory, UTF-8.
/// @param keep_last so many whole ones stay, at least 1.
/// @param[out] json the paths of those that are gone, a JSON array; free it with mmopt_string_free;
/// may be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_checkpoint_prune(
    directory: *const c_char,
    keep_last: usize,
    json: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let directory = text(directory, "directory")?;
        let json = optional_output(json, "json")?;
        let gone: Vec<PathBuf> = listing::prune(Path::new(directory), keep_last)?;
        if json.is_wanted() {
            let gone: Vec<_> = gone.iter().map(|p| p.to_string_lossy()).collect();
            json.set(owned_text(&Value::from(gone).to_string(), "the list")?);
        }
        Ok(())
    })
}
