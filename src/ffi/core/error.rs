//! Errors as C sees them: an owned object with a code and a message.

use std::ffi::{CString, c_char};

use super::guard::guard_or;
use crate::error::{Error, Kind};

/// The kind of an error, for programs to act on. The numbers never change.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_code {
    /// Success; what `mmopt_error_code(NULL)` gives.
    Ok = 0,
    /// An argument is out of range, NULL, of the wrong length or dtype, or contradicts another.
    InvalidArgument = 1,
    /// A model, parameter, input or file of that name does not exist.
    NotFound = 2,
    /// Reading or writing a file failed.
    Io = 3,
    /// A file is damaged or malformed: truncated, cyclic, checksum mismatch.
    InvalidData = 4,
    /// Valid, but not supported by this library.
    Unsupported = 5,
    /// Shapes do not fit together.
    Shape = 6,
    /// ONNX Runtime could not be found, loaded, or is too old.
    RuntimeUnavailable = 7,
    /// ONNX Runtime refused a model or failed while running it.
    Runtime = 8,
    /// A loss, gradient or weight is NaN or infinite.
    NonFinite = 9,
    /// The call is not possible in the object's present state.
    State = 10,
    /// A callback or a cancel token stopped the call.
    Cancelled = 11,
    /// An earlier call failed inside the library while it used this object, which can only be
    /// freed.
    Poisoned = 12,
    /// A bug in this library.
    Internal = 13,
    /// The system has no memory, or no thread, for the call.
    OutOfMemory = 14,
    /// Another rank failed, ended, or did not answer in time, or a function of the communicator
    /// failed.
    Communication = 15,
}

impl From<Kind> for mmopt_code {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::InvalidArgument => Self::InvalidArgument,
            Kind::NotFound => Self::NotFound,
            Kind::Io => Self::Io,
            Kind::InvalidData => Self::InvalidData,
            Kind::Unsupported => Self::Unsupported,
            Kind::Shape => Self::Shape,
            Kind::RuntimeUnavailable => Self::RuntimeUnavailable,
            Kind::Runtime => Self::Runtime,
            Kind::NonFinite => Self::NonFinite,
            Kind::State => Self::State,
            Kind::Cancelled => Self::Cancelled,
            Kind::Poisoned => Self::Poisoned,
            Kind::Internal => Self::Internal,
            Kind::OutOfMemory => Self::OutOfMemory,
            Kind::Communication => Self::Communication,
        }
    }
}

/// Why a call failed. NULL is success. The caller frees it with mmopt_error_free.
pub struct mmopt_error {
    code: mmopt_code,
    message: CString,
}

impl mmopt_error {
    /// The error for C: the message, and whatever its causes add to it.
    pub(crate) fn into_raw(error: &Error) -> *mut Self {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(inner) = cause {
            let inner_text = inner.to_string();
            if !text.contains(&inner_text) {
                text = format!("{text}: {inner_text}");
            }
            cause = inner.source();
        }
        text.retain(|c| c != '\0');
        let message = CString::new(text).unwrap_or_default();
        Box::into_raw(Box::new(Self { code: error.kind().into(), message }))
    }
}

/// The code of an error, an mmopt_code. NULL gives MMOPT_CODE_OK.
///
/// @param[in] error shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_error_code(error: *const mmopt_error) -> u32 {
    guard_or(mmopt_code::Internal as u32, || {
        // SAFETY: NULL or an error of this library that was not freed, by the header's contract.
        Ok(unsafe { error.as_ref() }.map_or(0, |e| e.code as u32))
    })
}

/// The message of an error: what happened, where, and what to do about it, in English, UTF-8. Valid
/// until the error is freed. NULL gives an empty text.
///
/// @param[in] error shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_error_message(error: *const mmopt_error) -> *const c_char {
    guard_or(c"".as_ptr(), || {
        // SAFETY: NULL or an error of this library that was not freed, by the header's contract.
        Ok(unsafe { error.as_ref() }.map_or(c"".as_ptr(), |e| e.message.as_ptr()))
    })
}

/// Frees an error. NULL is harmless.
///
/// @param error may be NULL; freed by the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_error_free(error: *mut mmopt_error) {
    guard_or((), || {
        if !error.is_null() {
            // SAFETY: `into_raw` made it from a box, and the caller gives it up.
            drop(unsafe { Box::from_raw(error) });
        }
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn every_kind_keeps_its_number() {
        use Kind::*;
        let kinds = [
            InvalidArgument,
            NotFound,
            Io,
            InvalidData,
            Unsupported,
            Shape,
            RuntimeUnavailable,
            Runtime,
            NonFinite,
            State,
            Cancelled,
            Poisoned,
            Internal,
            OutOfMemory,
            Communication,
        ];
        for (i, kind) in kinds.into_iter().enumerate() {
            assert_eq!(kind as u32, i as u32 + 1);
            assert_eq!(mmopt_code::from(kind) as u32, kind as u32);
        }
    }

    #[test]
    fn the_message_carries_its_causes_once() {
        let io = std::io::Error::other("disk on fire");
        let error = Error::data("a\0b").with_source(io);
        let raw = mmopt_error::into_raw(&error);
        // SAFETY: `raw` is alive until it is freed on the last line.
        unsafe {
            assert_eq!(CStr::from_ptr(mmopt_error_message(raw)), c"ab: disk on fire");
            assert_eq!(mmopt_error_code(raw), 4);
            mmopt_error_free(raw);
        }
        let error = Error::io(std::path::Path::new("/x"), std::io::Error::other("full"));
        let raw = mmopt_error::into_raw(&error);
        // SAFETY: as above.
        unsafe {
            assert_eq!(CStr::from_ptr(mmopt_error_message(raw)), c"/x: full");
            mmopt_error_free(raw);
        }
    }
}
