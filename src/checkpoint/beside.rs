//! A checkpoint that is written by a thread of its own, beside what goes on; one at a time.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;

use crate::error::{Error, Result};

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Running(JoinHandle<Result<PathBuf>>),
    /// Nobody has been told yet.
    Done(Result<PathBuf>),
}

/// What is being written. Dropping it waits.
#[derive(Debug, Default)]
pub struct Beside(Mutex<State>);

/// The right to begin the next, which ends with this object.
#[derive(Debug)]
pub struct Turn<'a>(MutexGuard<'a, State>);

impl State {
    fn wait(&mut self) {
        *self = match std::mem::take(self) {
            Self::Running(thread) => Self::Done(thread.join().unwrap_or_else(|_| {
                Err(Error::internal("the thread that wrote the checkpoint panicked"))
            })),
            other => other,
        };
    }
}

impl Beside {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Waits for what is being written; how it ended is kept for [`Beside::turn`].
    pub fn wait(&self) {
        self.state().wait();
    }

    /// Waits for what is being written, and says how it ended, once: `None` where there was
    /// nothing. On success the next one can begin.
    pub fn turn(&self) -> Result<(Turn<'_>, Option<PathBuf>)> {
        let mut state = self.state();
        state.wait();
        let written = match std::mem::take(&mut *state) {
            State::Done(done) => Some(done?),
            _ => None,
        };
        Ok((Turn(state), written))
    }
}

impl Turn<'_> {
    /// Does `work` in a thread; in this one where none can be started.
    pub fn begin(mut self, work: impl FnOnce() -> Result<PathBuf> + Send + 'static) {
        // The thread gets the work by a slot, so that it is not lost with a thread that is not
        // started.
        let slot = std::sync::Arc::new(Mutex::new(Some(work)));
        let take = |slot: &Mutex<Option<_>>| slot.lock().unwrap_or_else(|e| e.into_inner()).take();
        let own = slot.clone();
        let thread = std::thread::Builder::new().name("mmopt-checkpoint".into());
        let started = thread.spawn(move || match take(&own) {
            Some(work) => work(),
            None => Err(Error::internal("nothing to write")),
        });
        *self.0 = match started {
            Ok(thread) => State::Running(thread),
            Err(_) => take(&slot).map_or(State::Idle, |work| State::Done(work())),
        };
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn one_at_a_time_and_each_end_is_told_once() {
        let beside = Beside::default();
        let (turn, none) = beside.turn().unwrap();
        assert_eq!(none, None);
        turn.begin(|| Ok(PathBuf::from("one")));
        let (turn, one) = beside.turn().unwrap();
        assert_eq!(one, Some(PathBuf::from("one")));
        drop(turn);
        let (turn, none) = beside.turn().unwrap();
        assert_eq!(none, None);
        turn.begin(|| Err(Error::new(Kind::Io, "disk full")));
        beside.wait();
        assert_eq!(beside.turn().unwrap_err().kind(), Kind::Io);
        let (turn, none) = beside.turn().unwrap();
        assert_eq!(none, None);
        turn.begin(|| panic!("told to"));
        assert_eq!(beside.turn().unwrap_err().kind(), Kind::Internal);
        assert!(beside.turn().is_ok());
    }

    #[test]
    fn dropping_waits() {
        let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let own = done.clone();
        let beside = Beside::default();
        beside.turn().unwrap().0.begin(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            own.store(true, std::sync::atomic::Ordering::SeqCst);
            Ok(PathBuf::new())
        });
        drop(beside);
        assert!(done.load(std::sync::atomic::Ordering::SeqCst));
    }
}
