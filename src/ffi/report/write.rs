//! The page on training runs.

use std::ffi::c_char;
use std::path::Path;

use crate::ffi::core::args::{text, texts};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::guard;
use crate::report::write_report;

/// Writes a page on one or more training runs from their logs: one HTML file that a browser shows
/// without network. It has curves of losses, scores, learning rates, gradient norms and throughput;
/// how the models' gradients agree, what they share and how far they are apart; the options that
/// differ from a preset; and a table of scores to copy. Runs that differ in nothing but their seed
/// become one curve, their mean, with a band. Runs are named by their files.
///
/// logs are paths of files with one JSON object a line. Records and keys that are not known are
/// ignored; what a log lacks is left out of the page, which says so; so is a last line that was
/// torn. A file at path is replaced as a whole, or not at all.
///
/// Errors: INVALID_ARGUMENT when n_logs is 0, a log is named twice, or path is a log; NOT_FOUND or
/// IO for a file that cannot be read or written; INVALID_DATA for a file that is no log: the
/// message names file and line.
///
/// May be called from any thread.
///
/// @param[in] logs n_logs paths, UTF-8.
/// @param n_logs how many logs, at least 1.
/// @param[in] path where the page is written, UTF-8.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_report(
    logs: *const *const c_char,
    n_logs: usize,
    path: *const c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let logs = texts(logs, n_logs, "logs")?;
        write_report(&logs, Path::new(text(path, "path")?))
    })
}
