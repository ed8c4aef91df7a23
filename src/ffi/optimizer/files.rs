//! The state of an optimizer in a directory.

use std::ffi::c_char;
use std::path::Path;

use super::create::mmopt_optimizer;
use crate::checkpoint::reader;
use crate::checkpoint::weights::{self, Weights};
use crate::checkpoint::writer::Keep;
use crate::error::Error;
use crate::ffi::core::args::text;
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{exclusive, guard, shared};
use crate::optim::SavedTensor;

const STATE: &str = "optimizer.json";
const MOMENTS: &str = "optimizer.safetensors";

/// Writes a checkpoint of the optimizer (moments, master weights and counters, not the host's
/// values) into a directory, which is created if it does not exist. A crash at any point leaves the
/// previous checkpoint intact; of this run the newest stays. From the first checkpoint on no other
/// optimizer or trainer can write into the directory, until this one is freed or writes elsewhere.
///
/// Errors: STATE where another optimizer or trainer writes into the directory; IO when a file
/// cannot be written.
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
        let value = shared(optimizer)?;
        let optimizer = &value.optimizer;
        let root = Path::new(text(directory, "directory")?);
        let json = optimizer.state_json()?.to_string();
        value
            .run
            .write(root, optimizer.step_count(), Keep::last(1), |dir| {
                let tensors = optimizer.state_tensors();
                let views = tensors.iter().map(|t| {
                    let view = weights::View { dtype: t.dtype, shape: t.shape, bytes: t.bytes };
                    (t.name.as_str(), view)
                });
                weights::write(&dir.join(MOMENTS), views, &[])?;
                let path = dir.join(STATE);
                std::fs::write(&path, &json).map_err(|e| Error::io(&path, e))
            })
            .map(|_| ())
    })
}

/// Resumes from the newest whole checkpoint in a directory; models and parameters must be the same.
/// If the host restores its values too, before or after this call, training continues bit by bit. A
/// bf16 or f16 value that differs now replaces its master.
///
/// Errors: NOT_FOUND where there never was a checkpoint; INVALID_DATA where none is whole, and for
/// one of other models; UNSUPPORTED for one that a later library wrote; IO.
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
        let found = reader::open(Path::new(text(directory, "directory")?))?;
        let moments = Weights::from_bytes(found.file(MOMENTS)?.clone())?;
        let json = serde_json::from_str(found.text(STATE)?)
            .map_err(|e| Error::json(e).context(found.path_of(STATE).display()))?;
        let tensor = |name: &str| -> Option<SavedTensor> {
            moments.find(name).map(|v| (v.dtype, v.shape, v.bytes))
        };
        optimizer.optimizer.load_state(&json, &tensor)?;
        optimizer.run.go_on(&found.run);
        optimizer.n_pending = 0;
        Ok(())
    })
}
