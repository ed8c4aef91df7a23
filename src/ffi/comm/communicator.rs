//! Communicators as C objects.

use std::ffi::c_char;

use super::callbacks::{Host, mmopt_communicator_callbacks};
use crate::comm::{Communicator, SharedCommunicator, Traffic, Transport, check_place};
use crate::error::Error;
use crate::ffi::core::args::{output, text};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{Cell, exclusive, free, guard, guard_or, handle, into_raw, shared};
use crate::ffi::core::structs::options;

/// One rank's access to all others, on an engine of the host such as MPI or NCCL: mmopt_mpi.h and
/// mmopt_nccl.h make one, or functions of the host's own. Its calls are made by all ranks in the
/// same order. Trainers that use it keep it alive: it may be freed before them.
pub struct mmopt_communicator(Cell<SharedCommunicator>);

handle!(mmopt_communicator, SharedCommunicator, "communicator");

/// Makes a communicator of the host's functions. Asks for rank and size; exchanges nothing.
///
/// Errors: INVALID_ARGUMENT for a function that is NULL, a size of 0, or a rank that is not below
/// the size. free_user is not called then.
///
/// @param[in] callbacks copied.
/// @param[out] communicator the new object; free it with mmopt_communicator_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_communicator_create(
    callbacks: *const mmopt_communicator_callbacks,
    communicator: *mut *mut mmopt_communicator,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        if callbacks.is_null() {
            return Err(Error::invalid("callbacks is NULL; it has the host's functions"));
        }
        let callbacks = options(callbacks)?;
        let out = output(communicator, "communicator")?;
        let mut host = Host::new(&callbacks)?;
        // What is refused stays the host's.
        check_place(host.rank(), host.size())?;
        host.take_user();
        out.set(into_raw(SharedCommunicator::new(Communicator::new(Box::new(host))?)));
        Ok(())
    })
}

/// The rank of this process, counted from 0; 0 for NULL.
///
/// @param[in] communicator shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_communicator_rank(communicator: *const mmopt_communicator) -> usize {
    // SAFETY: a communicator of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(communicator) }?.rank()))
}

/// How many ranks there are; 0 for NULL.
///
/// @param[in] communicator shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_communicator_size(communicator: *const mmopt_communicator) -> usize {
    // SAFETY: a communicator of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(communicator) }?.size()))
}

/// Calls each function of the communicator once or more, with small numbers, and compares what they
/// do with what they must. Every rank calls it: a quick test of functions of one's own.
///
/// Errors: INVALID_ARGUMENT for a wrong result, with the function's name; COMMUNICATION for a
/// function that fails; STATE while a trainer uses the communicator.
///
/// @param[in,out] communicator exclusive access.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_communicator_check(
    communicator: *mut mmopt_communicator,
) -> *mut mmopt_error {
    // SAFETY: a communicator of the caller, by the header's contract.
    guard(|| unsafe { exclusive(communicator)?.with(Communicator::check) })
}

/// Returns when every rank has called it.
///
/// Errors: COMMUNICATION when the function fails; STATE while a trainer uses the communicator.
///
/// @param[in,out] communicator exclusive access.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_communicator_barrier(
    communicator: *mut mmopt_communicator,
) -> *mut mmopt_error {
    // SAFETY: a communicator of the caller, by the header's contract.
    guard(|| unsafe { exclusive(communicator)?.with(Communicator::barrier) })
}

/// Tells the other ranks that this one gives up, where the engine can. All later exchanges of this
/// rank fail with COMMUNICATION.
///
/// Errors: STATE while a trainer uses the communicator.
///
/// @param[in,out] communicator exclusive access.
/// @param[in] message why, UTF-8; handed to abort.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_communicator_abort(
    communicator: *mut mmopt_communicator,
    message: *const c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let communicator = exclusive(communicator)?;
        let message = text(message, "message")?;
        communicator.with(|c| {
            c.abort(message);
            Ok(())
        })
    })
}

/// What a communicator has exchanged since it was made, on this rank.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_traffic {
    /// Calls of its functions.
    pub n_calls: u64,
    /// Bytes of memory handed to all_reduce.
    pub all_reduce_bytes: u64,
    /// Bytes of memory handed to broadcast.
    pub broadcast_bytes: u64,
    /// Bytes of this rank's part in all_gather.
    pub all_gather_bytes: u64,
    /// Bytes of all parts in reduce_scatter.
    pub reduce_scatter_bytes: u64,
    /// Bytes handed to send.
    pub send_bytes: u64,
    /// Bytes handed to receive.
    pub receive_bytes: u64,
    /// Bytes that this rank sends for all of it where the engine uses rings. Of b bytes among n
    /// ranks all_reduce sends 2 b (n - 1) / n, reduce_scatter and, as a mean over the ranks,
    /// broadcast b (n - 1) / n, all_gather b (n - 1), send b. A model, not a measurement: engines
    /// may do otherwise, and add headers of their own.
    pub wire_bytes: u64,
    /// 0; for later versions.
    pub reserved: [u64; 4],
}

impl From<Traffic> for mmopt_traffic {
    fn from(t: Traffic) -> Self {
        let Traffic {
            n_calls,
            all_reduce_bytes,
            broadcast_bytes,
            all_gather_bytes,
            reduce_scatter_bytes,
            send_bytes,
            receive_bytes,
            wire_bytes,
        } = t;
        Self {
            n_calls,
            all_reduce_bytes,
            broadcast_bytes,
            all_gather_bytes,
            reduce_scatter_bytes,
            send_bytes,
            receive_bytes,
            wire_bytes,
            reserved: [0; 4],
        }
    }
}

/// What the communicator has exchanged so far.
///
/// Errors: STATE while a trainer uses the communicator.
///
/// @param[in,out] communicator exclusive access.
/// @param[out] traffic the counts of this rank.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_communicator_traffic(
    communicator: *mut mmopt_communicator,
    traffic: *mut mmopt_traffic,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let communicator = exclusive(communicator)?;
        let out = output(traffic, "traffic")?;
        out.set(communicator.with(|c| Ok(c.traffic()))?.into());
        Ok(())
    })
}

/// Frees a communicator; its functions and user stay in use by trainers that have it, until the
/// last of them is freed. NULL is harmless.
///
/// @param communicator may be NULL; freed by the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_communicator_free(communicator: *mut mmopt_communicator) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(communicator) };
}
