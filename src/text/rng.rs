//! Seeded randomness whose values never change: a ChaCha8 stream for each purpose.
//!
//! The stream is keyed by (seed, purpose, a, b), so that any part of a run can be recomputed
//! on its own: the order of epoch 7 needs no knowledge of epochs 0 to 6.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a stream is drawn for; part of its key.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(crate) enum Purpose {
    /// The order of examples in an epoch.
    Order = 1,
    /// The order of batches in an epoch.
    Batches = 2,
    /// Masking of tokens.
    Mask = 3,
    /// Splitting a corpus.
    Split = 4,
    /// Generated sentences.
    Synthetic = 5,
    /// Drawing a sample of a corpus.
    Sample = 6,
    /// The order of labelled examples that are mixed with unlabelled ones.
    Labelled = 7,
    /// Drawing tokens of generated text.
    Generate = 8,
    /// Drawing the examples of an epoch by class or weight.
    Draw = 9,
}

/// One stream.
pub(crate) struct Stream(ChaCha8Rng);

impl Stream {
    pub(crate) fn new(seed: u64, purpose: Purpose, a: u64, b: u64) -> Self {
        let mut key = [0u8; 32];
        for (slot, word) in key.chunks_exact_mut(8).zip([seed, purpose as u64, a, b]) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in `0..n`; 0 for `n == 0`. The bias of at most n / 2^64 is of no consequence.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Shuffles in place (Fisher and Yates, from the end).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutation_is_fixed_for_ever() {
        // Computed by another implementation of ChaCha8 and of the shuffle.
        let mut order: Vec<u32> = (0..10).collect();
        Stream::new(7, Purpose::Order, 0, 0).shuffle(&mut order);
        assert_eq!(order, [3, 5, 6, 1, 7, 2, 4, 9, 0, 8]);
    }

    #[test]
    fn streams_differ_by_every_key_word() {
        let draw = |s, a, b| Stream::new(s, Purpose::Mask, a, b).below(1 << 40);
        let all = [draw(1, 0, 0), draw(2, 0, 0), draw(1, 1, 0), draw(1, 0, 1)];
        for i in 0..4 {
            assert!(all[i + 1..].iter().all(|v| *v != all[i]));
        }
    }

    #[test]
    fn uniform_enough() {
        let mut s = Stream::new(3, Purpose::Split, 0, 0);
        let mut hits = [0usize; 5];
        for _ in 0..10_000 {
            hits[s.below(5)] += 1;
        }
        assert!(hits.iter().all(|&h| (1800..2200).contains(&h)), "{hits:?}");
        let mean = (0..10_000).map(|_| s.unit()).sum::<f64>() / 1e4;
        assert!((mean - 0.5).abs() < 0.02);
    }
}
