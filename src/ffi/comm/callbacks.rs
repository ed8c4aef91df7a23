//! The functions of the host's engine, and the transport that calls them.

use std::ffi::{CStr, CString, c_char, c_void};

use crate::comm::{Transport, Values};
use crate::error::{Error, Kind, Result};
use crate::ffi::core::structs::{Options, init};
use crate::ffi::core::tensor::mmopt_dtype;
use crate::ffi::trainer::callback::User;

/// What a communicator's function is told beside its own arguments, and where it says why it fails.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_communicator_call {
    /// NULL: the buffers are host memory, and the function returns when they can be used again. A
    /// later version may name a stream of a device here, for buffers of that device; a function
    /// that cannot do that must fail when it is not NULL.
    pub stream: *mut c_void,
    /// Room for a NUL-terminated UTF-8 text that says why the function failed; empty before. The
    /// message of the library's error ends with it.
    pub message: *mut c_char,
    /// The size of message in bytes, its end included; 512.
    pub message_size: usize,
    /// 0; for later versions.
    pub reserved: [u64; 4],
}

/// Returns a number of the communicator: the rank, or how many ranks there are. It is called once,
/// by mmopt_communicator_create.
pub type mmopt_communicator_number_fn = Option<unsafe extern "C" fn(user: *mut c_void) -> usize>;

/// Replaces each of n numbers of type dtype by its sum over all ranks, with the same bits on every
/// rank. dtype is an mmopt_dtype: F32, F64, U64 or I64. Returns 0, or any other number on failure.
pub type mmopt_all_reduce_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        call: *mut mmopt_communicator_call,
        data: *mut c_void,
        n: usize,
        dtype: u32,
    ) -> u32,
>;

/// Replaces n_bytes by those of rank root. Returns 0, or any other number on failure.
pub type mmopt_broadcast_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        call: *mut mmopt_communicator_call,
        data: *mut c_void,
        n_bytes: usize,
        root: usize,
    ) -> u32,
>;

/// Puts every rank's n_bytes into all, in order of rank; all is as many times as long. Returns 0,
/// or any other number on failure.
pub type mmopt_all_gather_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        call: *mut mmopt_communicator_call,
        data: *const c_void,
        n_bytes: usize,
        all: *mut c_void,
    ) -> u32,
>;

/// Sums data, which has n numbers for each rank, over all ranks, and puts the n numbers of this
/// rank into part. dtype as in mmopt_all_reduce_fn; data may be written to. Returns 0, or any other
/// number on failure.
pub type mmopt_reduce_scatter_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        call: *mut mmopt_communicator_call,
        data: *mut c_void,
        n: usize,
        dtype: u32,
        part: *mut c_void,
    ) -> u32,
>;

/// Gives n_bytes to rank to, which receives as many. Returns 0, or any other number on failure.
pub type mmopt_send_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        call: *mut mmopt_communicator_call,
        data: *const c_void,
        n_bytes: usize,
        to: usize,
    ) -> u32,
>;

/// Takes n_bytes from rank from, which sends as many. Returns 0, or any other number on failure.
pub type mmopt_receive_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        call: *mut mmopt_communicator_call,
        data: *mut c_void,
        n_bytes: usize,
        from: usize,
    ) -> u32,
>;

/// Returns when every rank has called it: 0, or any other number on failure.
pub type mmopt_barrier_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, call: *mut mmopt_communicator_call) -> u32>;

/// Is told that this rank gives up, and why, so that the others need not wait for it. Nothing is
/// called afterwards but mmopt_free_user_fn.
pub type mmopt_abort_fn = Option<unsafe extern "C" fn(user: *mut c_void, message: *const c_char)>;

/// Frees what user points to.
pub type mmopt_free_user_fn = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// The functions of an engine that carries numbers between ranks. mmopt_communicator_callbacks_init
/// fills it with NULLs; all functions but abort and free_user must be set.
///
/// Every rank is asked for the same operations in the same order, except send and receive, which
/// pair up. A function is called only by the thread that calls into the library, and must not call
/// into the library's objects. The library sets no time limit: a function must fail by itself when
/// another rank does not answer. After a failure none is called again but abort and free_user.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_communicator_callbacks {
    /// sizeof(mmopt_communicator_callbacks).
    pub struct_size: usize,
    /// Passed to each function.
    pub user: *mut c_void,
    /// The rank of this process, below size.
    pub rank: mmopt_communicator_number_fn,
    /// How many ranks there are, at least 1.
    pub size: mmopt_communicator_number_fn,
    /// Sums over the ranks.
    pub all_reduce: mmopt_all_reduce_fn,
    /// One rank's bytes for all.
    pub broadcast: mmopt_broadcast_fn,
    /// All ranks' bytes for all.
    pub all_gather: mmopt_all_gather_fn,
    /// Sums over the ranks, each rank a part.
    pub reduce_scatter: mmopt_reduce_scatter_fn,
    /// Bytes to one rank.
    pub send: mmopt_send_fn,
    /// Bytes from one rank.
    pub receive: mmopt_receive_fn,
    /// All ranks meet.
    pub barrier: mmopt_barrier_fn,
    /// This rank gives up; may be NULL.
    pub abort: mmopt_abort_fn,
    /// Called once, when the communicator is no longer used; may be NULL.
    pub free_user: mmopt_free_user_fn,
}

impl Default for mmopt_communicator_callbacks {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            user: std::ptr::null_mut(),
            rank: None,
            size: None,
            all_reduce: None,
            broadcast: None,
            all_gather: None,
            reduce_scatter: None,
            send: None,
            receive: None,
            barrier: None,
            abort: None,
            free_user: None,
        }
    }
}

// SAFETY: repr(C), begins with its size; pointers and functions that may be NULL.
unsafe impl Options for mmopt_communicator_callbacks {
    const NAME: &'static str = "mmopt_communicator_callbacks";
}

/// Fills in NULLs. NULL is harmless.
///
/// @param[out] callbacks filled with NULLs; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_communicator_callbacks_init(
    callbacks: *mut mmopt_communicator_callbacks,
) {
    // SAFETY: the caller's struct, by the header's contract.
    unsafe { init(callbacks) };
}

/// The host's functions as a transport.
pub(super) struct Host {
    functions: Functions,
    user: User,
    rank: usize,
    size: usize,
    /// Whether the user data are this object's to free.
    owns_user: bool,
}

/// The functions, all there.
struct Functions {
    all_reduce: unsafe extern "C" fn(
        *mut c_void,
        *mut mmopt_communicator_call,
        *mut c_void,
        usize,
        u32,
    ) -> u32,
    broadcast: unsafe extern "C" fn(
        *mut c_void,
        *mut mmopt_communicator_call,
        *mut c_void,
        usize,
        usize,
    ) -> u32,
    all_gather: unsafe extern "C" fn(
        *mut c_void,
        *mut mmopt_communicator_call,
        *const c_void,
        usize,
        *mut c_void,
    ) -> u32,
    reduce_scatter: unsafe extern "C" fn(
        *mut c_void,
        *mut mmopt_communicator_call,
        *mut c_void,
        usize,
        u32,
        *mut c_void,
    ) -> u32,
    send: unsafe extern "C" fn(
        *mut c_void,
        *mut mmopt_communicator_call,
        *const c_void,
        usize,
        usize,
    ) -> u32,
    receive: unsafe extern "C" fn(
        *mut c_void,
        *mut mmopt_communicator_call,
        *mut c_void,
        usize,
        usize,
    ) -> u32,
    barrier: unsafe extern "C" fn(*mut c_void, *mut mmopt_communicator_call) -> u32,
    abort: mmopt_abort_fn,
    free_user: mmopt_free_user_fn,
}

fn there<F>(function: Option<F>, name: &str) -> Result<F> {
    function.ok_or_else(|| Error::invalid(format!("callbacks.{name} is NULL")))
}

impl Host {
    /// Asks for rank and size.
    ///
    /// # Safety
    /// The functions may be called with `user` for as long as the result lives.
    pub(super) unsafe fn new(callbacks: &mmopt_communicator_callbacks) -> Result<Self> {
        let c = callbacks;
        let (rank, size) = (there(c.rank, "rank")?, there(c.size, "size")?);
        let functions = Functions {
            all_reduce: there(c.all_reduce, "all_reduce")?,
            broadcast: there(c.broadcast, "broadcast")?,
            all_gather: there(c.all_gather, "all_gather")?,
            reduce_scatter: there(c.reduce_scatter, "reduce_scatter")?,
            send: there(c.send, "send")?,
            receive: there(c.receive, "receive")?,
            barrier: there(c.barrier, "barrier")?,
            abort: c.abort,
            free_user: c.free_user,
        };
        // SAFETY: by this function's contract.
        let (rank, size) = unsafe { (rank(c.user), size(c.user)) };
        Ok(Self { functions, user: User(c.user), rank, size, owns_user: false })
    }

    /// From here on the user data are freed with this object.
    pub(super) fn take_user(&mut self) {
        self.owns_user = true;
    }

    /// Calls one function and reads what it says.
    fn call(
        &self,
        call: impl FnOnce(*mut c_void, *mut mmopt_communicator_call) -> u32,
    ) -> Result<()> {
        let mut room = [0u8; 512];
        let mut context = mmopt_communicator_call {
            stream: std::ptr::null_mut(),
            message: room.as_mut_ptr().cast(),
            message_size: room.len(),
            reserved: [0; 4],
        };
        let code = call(self.user.0, &raw mut context);
        if code == 0 {
            return Ok(());
        }
        // The last byte ends the text if the host has not.
        room[511] = 0;
        let text = CStr::from_bytes_until_nul(&room).map(CStr::to_string_lossy);
        let text = text.unwrap_or_default();
        let why = if text.is_empty() { String::new() } else { format!(": {text}") };
        Err(Error::new(Kind::Communication, format!("the host's function returned {code}{why}")))
    }
}

fn dtype(values: &Values<'_>) -> u32 {
    let dtype = match values {
        Values::F32(_) => mmopt_dtype::F32,
        Values::F64(_) => mmopt_dtype::F64,
        Values::U64(_) => mmopt_dtype::U64,
        Values::I64(_) => mmopt_dtype::I64,
    };
    dtype as u32
}

impl Transport for Host {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_reduce(&mut self, mut values: Values<'_>) -> Result<()> {
        let (n, dtype) = (values.len(), dtype(&values));
        let data = values.bytes_mut().as_mut_ptr().cast();
        // SAFETY: the host's function, by `new`; the buffer holds n numbers of that type.
        self.call(|user, call| unsafe { (self.functions.all_reduce)(user, call, data, n, dtype) })
    }

    fn broadcast(&mut self, bytes: &mut [u8], root: usize) -> Result<()> {
        let (data, n) = (bytes.as_mut_ptr().cast(), bytes.len());
        // SAFETY: as above, with n bytes.
        self.call(|user, call| unsafe { (self.functions.broadcast)(user, call, data, n, root) })
    }

    fn all_gather(&mut self, from: &[u8], into: &mut [u8]) -> Result<()> {
        let (data, n, all) = (from.as_ptr().cast(), from.len(), into.as_mut_ptr().cast());
        // SAFETY: as above; the communicator has checked that `into` is large enough.
        self.call(|user, call| unsafe { (self.functions.all_gather)(user, call, data, n, all) })
    }

    fn reduce_scatter(&mut self, mut from: Values<'_>, mut into: Values<'_>) -> Result<()> {
        let (n, dtype) = (into.len(), dtype(&into));
        let data = from.bytes_mut().as_mut_ptr().cast();
        let part = into.bytes_mut().as_mut_ptr().cast();
        let function = self.functions.reduce_scatter;
        // SAFETY: as above; the communicator has checked that `from` has a part for each rank.
        self.call(|user, call| unsafe { function(user, call, data, n, dtype, part) })
    }

    fn send(&mut self, bytes: &[u8], to: usize) -> Result<()> {
        let (data, n) = (bytes.as_ptr().cast(), bytes.len());
        // SAFETY: as above.
        self.call(|user, call| unsafe { (self.functions.send)(user, call, data, n, to) })
    }

    fn receive(&mut self, bytes: &mut [u8], from: usize) -> Result<()> {
        let (data, n) = (bytes.as_mut_ptr().cast(), bytes.len());
        // SAFETY: as above.
        self.call(|user, call| unsafe { (self.functions.receive)(user, call, data, n, from) })
    }

    fn barrier(&mut self) -> Result<()> {
        // SAFETY: the host's function, by `new`.
        self.call(|user, call| unsafe { (self.functions.barrier)(user, call) })
    }

    fn abort(&mut self, why: &str) {
        let text: Vec<u8> = why.bytes().filter(|&b| b != 0).collect();
        if let (Some(abort), Ok(text)) = (self.functions.abort, CString::new(text)) {
            // SAFETY: the host's function, by `new`.
            unsafe { abort(self.user.0, text.as_ptr()) };
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(free) = self.functions.free_user.filter(|_| self.owns_user) {
            // SAFETY: the host's function, by `new`; called once.
            unsafe { free(self.user.0) };
        }
    }
}
