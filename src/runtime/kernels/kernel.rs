//! What kernels share: access to inputs and outputs, work in parts on the session's threads, and
//! the guard against panics, which would end the process if they reached the runtime.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ort::operator::ComputeContext;

/// The result of a kernel.
pub(super) type KernelResult<T = ()> = ort::Result<T>;

/// Attributes of the cross-entropies, dropout, products and attention; what another operator or
/// node lacks is zero, but for `alpha` and `beta`, which are 1.
#[derive(Clone, Copy)]
pub(super) struct KernelAttributes {
    pub(super) ignore_index: i64,
    pub(super) label_smoothing: f32,
    pub(super) ratio: f32,
    pub(super) salt: i64,
    pub(super) trans_a: bool,
    pub(super) trans_b: bool,
    pub(super) alpha: f32,
    pub(super) beta: f32,
    pub(super) scale: f32,
    pub(super) empty_is_zero: bool,
}

pub(super) const DEFECT: &str = "the kernel failed; this is a defect of the library";

/// Runs `work`; `Err` if it panicked. The run then fails, and its outputs are discarded.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> std::result::Result<T, ()> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| ())
}

/// An error with this text.
pub(super) fn error(text: &str) -> ort::Error {
    ort::Error::new(text)
}

/// Checks a condition between the shapes of inputs.
pub(super) fn require(holds: bool, text: &str) -> KernelResult {
    if holds { Ok(()) } else { Err(error(text)) }
}

/// An input that the schema requires.
macro_rules! input {
    ($cx:expr, $i:expr, $t:ty => $value:ident) => {
        let $value = $cx.input($i)?.ok_or_else(|| $crate::runtime::kernels::kernel::missing($i))?;
        let $value = $value.try_extract_tensor::<$t>()?;
    };
}

/// An f32 output; `None` when the node leaves it out.
macro_rules! output {
    ($cx:expr, $i:expr, $dims:expr => $value:ident) => {
        let mut $value = $cx.output($i, $dims.to_vec())?;
        let $value = match &mut $value {
            Some(value) => Some(value.try_extract_tensor_mut::<f32>()?.1),
            None => None,
        };
    };
}
pub(super) use {input, output};

pub(super) fn missing(i: usize) -> ort::Error {
    error(&format!("input {i} is missing"))
}

/// Tells a race detector about an order that the runtime guarantees by means that the detector does
/// not see: writes before parts go to other threads happen before the work of these threads. Other
/// builds compile it to nothing.
mod handover {
    #[cfg(race_detector)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[cfg(race_detector)]
    static N: AtomicUsize = AtomicUsize::new(0);

    #[inline]
    pub(super) fn release() {
        #[cfg(race_detector)]
        N.fetch_add(1, Ordering::Release);
    }

    #[inline]
    pub(super) fn acquire() {
        #[cfg(race_detector)]
        N.load(Ordering::Acquire);
    }
}

/// Calls `work` once for each part, on the session's threads.
pub(super) fn each<T: Send>(
    cx: &ComputeContext,
    parts: Vec<T>,
    work: impl Fn(usize, T) + Sync + Send,
) -> KernelResult {
    try_each(cx, parts, |i, part| {
        work(i, part);
        Ok(())
    })
}

/// The same with work that may fail: all parts are tried, and the first error is the result.
pub(super) fn try_each<T: Send>(
    cx: &ComputeContext,
    parts: Vec<T>,
    work: impl Fn(usize, T) -> KernelResult + Sync + Send,
) -> KernelResult {
    let slots: Vec<_> = parts.into_iter().map(|part| Mutex::new(Some(part))).collect();
    // An own count: it makes the writes of all parts visible here, whatever the runtime's threads
    // do, and a race detector sees it.
    let (n_done, failed) = (AtomicUsize::new(0), Mutex::new(None));
    handover::release();
    cx.par_for(slots.len(), 0, |i| {
        // First of all, before any data of the caller is read.
        handover::acquire();
        let run = || {
            let part = slots.get(i).and_then(|slot| slot.lock().ok()?.take());
            part.map_or(Ok(()), |part| work(i, part))
        };
        let result = guarded(run).unwrap_or_else(|_| Err(error(DEFECT)));
        if let (Err(e), Ok(mut failed)) = (result, failed.lock()) {
            failed.get_or_insert(e);
        }
        n_done.fetch_add(1, Ordering::Release);
    })?;
    require(n_done.load(Ordering::Acquire) == slots.len(), DEFECT)?;
    failed.into_inner().ok().flatten().map_or(Ok(()), Err)
}

/// Rows of `width` elements that make up about 16,000 elements of work, at least one.
pub(super) fn rows_per_part(width: usize) -> usize {
    (16_384 / width.max(1)).max(1)
}
