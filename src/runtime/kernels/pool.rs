//! Working memory of kernels, which is kept for the next run: what a large block costs is the
//! system's zeros in its pages.

use std::mem::take;
use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use super::kernel::{KernelResult, error};

/// So many blocks are kept at most.
const MAX_KEPT: usize = 16;

/// Blocks of memory that nobody uses at the moment.
pub(super) struct Pool<T> {
    kept: Mutex<Vec<Vec<T>>>,
    zero: T,
    longest: usize,
}

impl<T: Copy> Pool<T> {
    /// Keeps blocks of up to `longest` values.
    pub(super) const fn new(zero: T, longest: usize) -> Self {
        Self { kept: Mutex::new(Vec::new()), zero, longest }
    }

    /// A block of at least `n` values, which are what the last user left.
    pub(super) fn block(&'static self, n: usize) -> KernelResult<Block<T>> {
        let mut values = self.kept.lock().ok().and_then(|mut kept| kept.pop()).unwrap_or_default();
        values
            .try_reserve_exact(n.saturating_sub(values.len()))
            .map_err(|_| error("out of memory"))?;
        values.resize(n.max(values.len()), self.zero);
        Ok(Block { values, pool: self })
    }
}

/// A block of a pool, which gets it back.
pub(super) struct Block<T: Copy + 'static> {
    values: Vec<T>,
    pool: &'static Pool<T>,
}

impl<T: Copy> Deref for Block<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values
    }
}

impl<T: Copy> DerefMut for Block<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values
    }
}

impl<T: Copy> Drop for Block<T> {
    fn drop(&mut self) {
        if self.values.len() <= self.pool.longest
            && let Ok(mut kept) = self.pool.kept.lock()
            && kept.len() < MAX_KEPT
        {
            kept.push(take(&mut self.values));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_used_again() {
        static POOL: Pool<u8> = Pool::new(7, 5);
        let mut first = POOL.block(3).unwrap();
        assert_eq!(*first, [7; 3]);
        first.fill(1);
        drop(first);
        let again = POOL.block(4).unwrap();
        assert_eq!(*again, [1, 1, 1, 7]);
        // Too long to be kept.
        drop(POOL.block(6).unwrap());
        assert_eq!(POOL.block(1).unwrap().len(), 1);
    }
}
