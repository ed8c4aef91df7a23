//! Work on several threads at once. What no thread can be started for is done on the caller's.

use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::error::{Error, Result};

/// Calls each function on a thread of its own; the results in order.
pub(crate) fn side_by_side<R, F>(work: impl Iterator<Item = F>) -> Vec<Result<R>>
where
    R: Send,
    F: FnOnce() -> Result<R> + Send,
{
    // A function that was handed to a thread that does not start is still in its slot.
    let slots: Vec<Mutex<Option<F>>> = work.map(|work| Mutex::new(Some(work))).collect();
    let call = |slot: &Mutex<Option<F>>| {
        let work = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        work.map_or_else(|| Err(Error::internal("no work")), |work| work())
    };
    thread::scope(|scope| {
        let start = |slot| thread::Builder::new().spawn_scoped(scope, move || call(slot)).ok();
        let threads: Vec<_> = slots.iter().map(start).collect();
        let end = |(thread, slot): (Option<thread::ScopedJoinHandle<_>>, _)| match thread {
            Some(thread) => {
                thread.join().unwrap_or_else(|_| Err(Error::internal("a worker thread panicked")))
            }
            None => call(slot),
        };
        threads.into_iter().zip(&slots).map(end).collect()
    })
}

/// Calls all functions, at most `n` at the same time; the results in order.
pub(crate) fn at_most<R, F>(n: usize, work: impl Iterator<Item = F>) -> Vec<Result<R>>
where
    R: Send,
    F: FnOnce() -> Result<R> + Send,
{
    let work: Vec<F> = work.collect();
    if n >= work.len() {
        return side_by_side(work.into_iter());
    }
    let results: Vec<Mutex<Option<Result<R>>>> = work.iter().map(|_| Mutex::new(None)).collect();
    let next = Mutex::new(work.into_iter().zip(&results));
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
    let each = || {
        while let Some((work, result)) = take() {
            let done = work();
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        }
        Ok(())
    };
    // What panics leaves no result.
    let each = &each;
    let _: Vec<Result<()>> = side_by_side((0..n.max(1)).map(|_| each));
    let lost = || Err(Error::internal("a worker thread panicked"));
    let result = |r: Mutex<Option<_>>| r.into_inner().unwrap_or_else(PoisonError::into_inner);
    drop(next);
    results.into_iter().map(|r| result(r).unwrap_or_else(lost)).collect()
}

/// Calls `other` on a thread of its own while `own` runs on the caller's; the results of both.
/// Where no thread starts, `other` runs first.
pub(crate) fn beside<R: Send, S>(
    other: impl FnOnce() -> Result<R> + Send,
    own: impl FnOnce() -> S,
) -> (Result<R>, S) {
    let slot = Mutex::new(Some(other));
    let call = || {
        let work = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        work.map_or_else(|| Err(Error::internal("no work")), |work| work())
    };
    thread::scope(|scope| match thread::Builder::new().spawn_scoped(scope, call) {
        Ok(thread) => {
            let own = own();
            let other = thread.join();
            (other.unwrap_or_else(|_| Err(Error::internal("a worker thread panicked"))), own)
        }
        Err(_) => (call(), own()),
    })
}

/// Calls a function for each item, on all cores, in no particular order.
pub(crate) fn for_each<T: Send>(
    items: impl Iterator<Item = T> + Send,
    work: impl Fn(T) + Sync,
) -> Result<()> {
    let items = Mutex::new(items);
    let take = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let (take, work) = (&take, &work);
    let all = move || {
        while let Some(item) = take() {
            work(item);
        }
        Ok(())
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    side_by_side((0..cores).map(|_| all)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn results_are_in_order_and_a_panic_is_an_error() {
        let work = (0..4).map(|i| {
            move || match i {
                1 => Err(Error::invalid("1")),
                2 => panic!("told to"),
                _ => Ok(i),
            }
        });
        let got: Vec<_> = side_by_side(work).into_iter().map(|r| r.map_err(|e| e.kind())).collect();
        assert_eq!(got, [Ok(0), Err(Kind::InvalidArgument), Err(Kind::Internal), Ok(3)]);
    }

    #[test]
    fn no_more_than_so_many_at_the_same_time() {
        for n in 1..5 {
            let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let work = (0..4).map(|i| {
                let (now, most) = (&now, &most);
                move || {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    now.fetch_sub(1, Ordering::SeqCst);
                    if i == 2 { Err(Error::invalid("2")) } else { Ok(i) }
                }
            });
            let got: Vec<_> =
                at_most(n, work).into_iter().map(|r| r.map_err(|e| e.kind())).collect();
            assert_eq!(got, [Ok(0), Ok(1), Err(Kind::InvalidArgument), Ok(3)]);
            assert!(most.into_inner() <= n);
        }
        // One that panics takes none of the others with it.
        let work = (0..3).map(|i| move || if i == 0 { panic!("told to") } else { Ok(i) });
        let got: Vec<_> = at_most(2, work).into_iter().map(|r| r.ok()).collect();
        assert_eq!(got, [None, Some(1), Some(2)]);
    }

    /// Each waits for a word of the other, which takes both at the same time.
    #[test]
    fn one_runs_beside_the_caller() {
        let wait = std::time::Duration::from_secs(20);
        let (to_own, from_other) = std::sync::mpsc::channel();
        let (to_other, from_own) = std::sync::mpsc::channel();
        let caller = thread::current().id();
        let lost = || Error::internal("nobody speaks");
        let other = move || {
            assert!(thread::current().id() != caller);
            to_own.send(3).map_err(|_| lost())?;
            from_own.recv_timeout(wait).map_err(|_| lost())
        };
        let own = || {
            let heard = from_other.recv_timeout(wait).map_err(|_| lost());
            to_other.send(4).map_err(|_| lost()).and(heard).map(|x| (thread::current().id(), x))
        };
        let (other, own) = beside(other, own);
        assert_eq!((other.unwrap(), own.unwrap()), (4, (caller, 3)));
        let (other, own) = beside(|| -> Result<()> { panic!("told to") }, || 1);
        assert_eq!((other.map_err(|e| e.kind()), own), (Err(Kind::Internal), 1));
    }

    #[test]
    fn each_item_is_seen_once() {
        let sum = AtomicUsize::new(0);
        for_each(0..1000, |i| {
            sum.fetch_add(i, Ordering::Relaxed);
        })
        .unwrap();
        assert_eq!(sum.into_inner(), 499_500);
    }
}
