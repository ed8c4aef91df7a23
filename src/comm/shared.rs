//! A communicator that its owner and trainers hold.

use std::sync::{Arc, Mutex, TryLockError};

use super::communicator::Communicator;
use crate::error::{Error, Result};

/// One communicator, held in several places; used by one call at a time.
#[derive(Clone, Debug)]
pub struct SharedCommunicator {
    held: Arc<Mutex<Communicator>>,
    rank: usize,
    size: usize,
}

impl SharedCommunicator {
    /// From a communicator.
    pub fn new(communicator: Communicator) -> Self {
        let (rank, size) = (communicator.rank(), communicator.size());
        Self { held: Arc::new(Mutex::new(communicator)), rank, size }
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of ranks.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Uses it.
    ///
    /// # Errors
    /// Those of `call`; `State` while another call uses it.
    pub fn with<R>(&self, call: impl FnOnce(&mut Communicator) -> Result<R>) -> Result<R> {
        match self.held.try_lock() {
            Ok(mut communicator) => call(&mut communicator),
            Err(TryLockError::Poisoned(held)) => call(&mut held.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Error::state(
                "the communicator is in use by another call; all of its calls need one order, \
                 and its functions must not call into the library",
            )),
        }
    }
}
