//! Numbers on the wire: f32, or bfloat16 for gradients.
//!
//! A sum of gradients in bfloat16 among n ranks: each rank rounds its numbers and sends part r of
//! them to rank r, which adds them up in f32, in the order of ranks, and rounds the sum; then all
//! take all sums. Rounding changes a number x by at most u |x|, u = 2⁻⁸, so with g_r the gradient
//! of rank r a sum is off by at most u (1 + u) Σ |g_r| + u |Σ g_r| and some roundings of f32, on
//! every rank by the same.

use half::bf16;

use crate::comm::{Communicator, Values};
use crate::error::{Error, Result};

/// Element type of gradients on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GradientDtype {
    /// As they are.
    #[default]
    F32,
    /// Rounded to the nearest bfloat16: half the bytes.
    Bf16,
}

impl GradientDtype {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// Writes numbers as bytes.
    pub(super) fn encode(self, from: &[f32], into: &mut [u8]) {
        match self {
            Self::F32 => into.copy_from_slice(bytemuck::cast_slice(from)),
            Self::Bf16 => {
                for (x, bytes) in from.iter().zip(into.as_chunks_mut::<2>().0) {
                    *bytes = rounded(*x).to_ne_bytes();
                }
            }
        }
    }

    /// Reads numbers from bytes.
    pub(super) fn decode(self, from: &[u8], into: &mut [f32]) {
        match self {
            Self::F32 => bytemuck::cast_slice_mut(into).copy_from_slice(from),
            Self::Bf16 => {
                for (x, bytes) in into.iter_mut().zip(from.as_chunks::<2>().0) {
                    *x = bf16::from_ne_bytes(*bytes).to_f32();
                }
            }
        }
    }
}

/// The nearest bfloat16, ties to even; finite numbers stay finite.
fn rounded(x: f32) -> bf16 {
    let near = bf16::from_f32(x);
    if near.is_infinite() && x.is_finite() {
        return if x > 0.0 { bf16::MAX } else { bf16::MIN };
    }
    near
}

/// Memory for sums in bfloat16.
#[derive(Debug, Default)]
pub(super) struct SumScratch {
    own: Vec<u8>,
    others: Vec<u8>,
    sums: Vec<f32>,
    part: Vec<f32>,
}

impl SumScratch {
    /// Room for buckets of `n` numbers among `ranks`.
    pub fn new(n: usize, ranks: usize) -> Result<Self> {
        let part = n.div_ceil(ranks);
        Ok(Self {
            own: crate::memory::zeros(2 * part * ranks)?,
            others: crate::memory::zeros(2 * part * ranks)?,
            sums: crate::memory::zeros(part)?,
            part: crate::memory::zeros(part)?,
        })
    }

    /// Replaces each number by its sum over the ranks, the same bits on all.
    pub fn sum(&mut self, comm: &mut Communicator, values: &mut [f32]) -> Result<()> {
        let (rank, n) = (comm.rank(), comm.size());
        let part = values.len().div_ceil(n);
        let Some(own) = self.own.get_mut(..2 * part * n) else {
            return Err(Error::internal("a bucket larger than its memory"));
        };
        own.fill(0);
        GradientDtype::Bf16.encode(values, &mut own[..2 * values.len()]);
        let others = &mut self.others[..2 * part * n];
        let of = |r: usize| 2 * part * r..2 * part * (r + 1);
        for other in (0..n).filter_map(|round| partner(rank, round, n)) {
            // In each pair the lower rank sends first.
            if rank < other {
                comm.send(&own[of(other)], other)?;
                comm.receive(&mut others[of(other)], other)?;
            } else {
                comm.receive(&mut others[of(other)], other)?;
                comm.send(&own[of(other)], other)?;
            }
        }
        others[of(rank)].copy_from_slice(&own[of(rank)]);
        let (sums, addend) = (&mut self.sums[..part], &mut self.part[..part]);
        sums.fill(0.0);
        for r in 0..n {
            GradientDtype::Bf16.decode(&others[of(r)], addend);
            sums.iter_mut().zip(&*addend).for_each(|(s, x)| *s += x);
        }
        GradientDtype::Bf16.encode(sums, &mut own[of(rank)]);
        comm.all_gather(&own[of(rank)], others)?;
        GradientDtype::Bf16.decode(&others[..2 * values.len()], values);
        Ok(())
    }
}

/// Whom a rank meets in a round, of `n`, in which all ranks meet in pairs but for one where their
/// number is odd: the circle method of tournaments. None where it waits.
fn partner(rank: usize, round: usize, n: usize) -> Option<usize> {
    // Where n is odd, the last is nobody; rank m − 1 stays, the others turn.
    let m = n + n % 2;
    let turning = m - 1;
    if round >= turning {
        return None;
    }
    let other = match rank {
        r if r == m - 1 => (0..turning).find(|&o| (2 * o) % turning == round)?,
        r => match (round + turning - r) % turning {
            o if o == r => m - 1,
            o => o,
        },
    };
    (other < n).then_some(other)
}

/// Adds up one bucket.
pub(super) fn sum_bucket(
    comm: &mut Communicator,
    scratch: &mut Option<SumScratch>,
    bucket: &mut [f32],
) -> Result<()> {
    match scratch {
        Some(scratch) if comm.size() > 1 => scratch.sum(comm, bucket),
        _ => comm.all_reduce(Values::F32(bucket)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::local::{self, on_ranks};
    use std::time::Duration;

    #[test]
    fn each_pair_meets_once_and_in_the_same_round() {
        for n in 1..=9 {
            for a in 0..n {
                let met: Vec<usize> = (0..n).filter_map(|round| partner(a, round, n)).collect();
                let mut sorted = met.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..n).filter(|&b| b != a).collect::<Vec<_>>(), "{a} of {n}");
                for round in 0..n {
                    if let Some(b) = partner(a, round, n) {
                        assert_eq!(partner(b, round, n), Some(a), "round {round} of {n}");
                    }
                }
            }
        }
    }

    #[test]
    fn sums_in_bf16_keep_their_bound_and_are_the_same_on_all() {
        let value = |rank: usize, i: usize| ((i * 37 + rank * 101) as f32 * 0.618).sin() * 3.0;
        for n in 1..=5 {
            for len in [1, 2, 7, 100] {
                let group = local::group(n, Duration::from_secs(30));
                let ends = on_ranks(group, |mut comm| {
                    let rank = comm.rank();
                    let mut values: Vec<f32> = (0..len).map(|i| value(rank, i)).collect();
                    SumScratch::new(len, n)?.sum(&mut comm, &mut values)?;
                    Ok((values, comm.traffic()))
                });
                let ends: Vec<_> = ends.into_iter().map(Result::unwrap).collect();
                let part = len.div_ceil(n) as u64;
                for (values, traffic) in &ends {
                    assert_eq!(*values, ends[0].0);
                    assert_eq!(traffic.wire_bytes, 2 * 2 * part * (n as u64 - 1), "{n}");
                }
                let u = 2f64.powi(-8);
                for (i, &sum) in ends[0].0.iter().enumerate() {
                    let all = (0..n).map(|r| f64::from(value(r, i)));
                    let (exact, size) = all.fold((0.0, 0.0), |(s, a), x| (s + x, a + x.abs()));
                    let bound = u * (1.0 + u) * size + u * exact.abs() + 1e-6 * size;
                    let off = (f64::from(sum) - exact).abs();
                    assert!(off <= bound, "{n} ranks: {off} and {bound}");
                }
            }
        }
    }

    #[test]
    fn the_largest_numbers_stay_finite_and_others_as_they_are() {
        let numbers = [f32::MAX, f32::MIN, f32::INFINITY, f32::NAN, 1.0, -0.0];
        let (mut bytes, mut back) = ([0; 12], [0.0; 6]);
        GradientDtype::Bf16.encode(&numbers, &mut bytes);
        GradientDtype::Bf16.decode(&bytes, &mut back);
        assert!(back[0].is_finite() && back[0] > 3e38 && back[1] == -back[0]);
        assert!(back[2] == f32::INFINITY && back[3].is_nan());
        assert_eq!(back[4..], [1.0, -0.0]);
    }
}
