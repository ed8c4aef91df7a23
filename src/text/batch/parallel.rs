//! Work on every example of a corpus, on all cores.

use crate::error::Result;
use crate::memory::{Gather, room};
use crate::text::corpus::examples::Example;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Examples that a thread takes at once. Up to this many are encoded on the caller's thread.
pub(crate) const BLOCK: usize = 32;

/// `f` of each example with its index, in order; the error of the first that fails. The threads end
/// with the call, and with them the tokenizer's cache on each.
pub(crate) fn encode_each<T: Send>(
    examples: &[Example],
    f: impl Fn(usize, &Example) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    if examples.len() <= BLOCK {
        return examples.iter().enumerate().map(|(i, e)| f(i, e)).gathered_or_error();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut blocks = Vec::new();
        loop {
            let start = next.fetch_add(BLOCK, Ordering::Relaxed);
            let Some(block) = examples.get(start..) else { return blocks };
            let block = block.iter().take(BLOCK).enumerate();
            let results: Result<Vec<T>> = block.map(|(i, e)| f(start + i, e)).collect();
            if results.is_err() {
                // Blocks before this one are being encoded, those after it are not needed.
                next.store(examples.len(), Ordering::Relaxed);
            }
            blocks.push((start, results));
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let n_threads = cores.min(examples.len().div_ceil(BLOCK));
    let mut blocks = thread::scope(|scope| {
        let start = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        let threads: Vec<_> = (0..n_threads).filter_map(start).collect();
        // Where no thread can be started, the caller's does the work.
        let own = if threads.is_empty() { work() } else { Vec::new() };
        let theirs = threads.into_iter().map(|t| t.join().unwrap_or_else(|e| resume_unwind(e)));
        theirs.flatten().chain(own).collect::<Vec<_>>()
    });
    blocks.sort_by_key(|block| block.0);
    let mut all = room(examples.len())?;
    for (_, results) in blocks {
        all.extend(results?);
    }
    Ok(all)
}
