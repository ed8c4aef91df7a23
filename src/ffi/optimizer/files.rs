//! The state of an optimizer in a directory.

use std::ffi::c_char;
use std::path::Path;

use super::create::mmopt_optimizer;
use crate::checkpoint::directory;
use crate::checkpoint::weights::{self, Weights};
use crate::error::Error;
use crate::ffi::core::args::text;
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard, shared};
use crate::optim::SavedTensor;

const STATE: &str = "optimizer.json";
const MOMENTS: &str = "optimizer.safetensors";

/// Writes a checkpoint of the optimizer (moments, master weights and counters, not the host's
/// values) into a directory, which is created if it does not exist. A crash leaves the previous
/// checkpoint intact.
///
/// Errors: IO when a file cannot be written.
///
/// @param[in] optimizer shared access.
/// @param[in] directory the directory, UTF-8.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_save_checkpoint(
    optimizer: *const mmopt_optimizer,
    directory: *const c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let optimizer = &shared(optimizer)?.optimizer;
        let root = Path::new(text(directory, "directory")?);
        let json = optimizer.state_json()?.to_string();
        directory::write(root, optimizer.step_count(), 1, |dir| {
            let tensors = optimizer.state_tensors();
            let views = tensors.iter().map(|t| {
                let view = weights::View { dtype: t.dtype, shape: t.shape, bytes: t.bytes };
                (t.name.as_str(), view)
            });
            weights::write(&dir.join(MOMENTS), views, &[])?;
            directory::write_text(&dir.join(STATE), &json)
        })
        .map(|_| ())
    })
}

/// Resumes from the last checkpoint in a directory; models and parameters must be the same. If the
/// host restores its values too, before or after this call, training continues bit by bit. A bf16
/// or f16 value that differs now replaces its master.
///
/// Errors: NOT_FOUND without a checkpoint; INVALID_DATA for a damaged one, or one of other models.
/// The optimizer is unchanged then.
///
/// @param[in,out] optimizer exclusive access.
/// @param[in] directory the directory, UTF-8.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_optimizer_resume(
    optimizer: *mut mmopt_optimizer,
    directory: *const c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let mut optimizer = exclusive(optimizer)?;
        let found = directory::open(Path::new(text(directory, "directory")?))?;
        let moments = Weights::read(&found.path.join(MOMENTS))?;
        let json = serde_json::from_str(&directory::read_text(&found.path.join(STATE))?)
            .map_err(|e| Error::data(format!("{STATE}: {e}")).with_source(e))?;
        let tensor = |name: &str| -> Option<SavedTensor> {
            moments.find(name).map(|v| (v.dtype, v.shape, v.bytes))
        };
        optimizer.optimizer.load_state(&json, &tensor)?;
        optimizer.n_pending = 0;
        Ok(())
    })
}
