//! Numbers that each rank has of its own and all want: what of all ranks' parts is equally long
//! goes in one operation, `all_gather`, and the rest is broadcast, rank by rank.

use super::wire::GradientDtype;
use crate::comm::Communicator;
use crate::error::Result;
use crate::optim::Pieces;

/// What ranks exchange: of each rank a number of elements.
pub(super) trait Parts {
    /// Elements of each of `n` ranks.
    fn lengths(&self, n: usize) -> Vec<usize>;
    /// Copies elements of this rank, from `first` on.
    fn read(&mut self, rank: usize, first: usize, into: &mut [f32]);
    /// Takes elements of another rank, from `first` on.
    fn write(&mut self, rank: usize, first: usize, from: &[f32]);
}

impl Parts for Pieces {
    fn lengths(&self, n: usize) -> Vec<usize> {
        Pieces::lengths(self, n)
    }

    fn read(&mut self, rank: usize, first: usize, into: &mut [f32]) {
        Pieces::read(self, rank, first, into);
    }

    fn write(&mut self, rank: usize, first: usize, from: &[f32]) {
        Pieces::write(self, rank, first, from);
    }
}

/// Memory of an exchange: at most so many elements at a time.
#[derive(Debug)]
pub(super) struct PartScratch {
    values: Vec<f32>,
    own: Vec<u8>,
    all: Vec<u8>,
}

impl PartScratch {
    /// Room for `bucket` elements of all ranks together, at least one of each.
    pub fn new(bucket: usize, ranks: usize) -> Result<Self> {
        let n = bucket.max(ranks);
        Ok(Self {
            values: crate::memory::zeros(n)?,
            own: crate::memory::zeros(4 * (n / ranks))?,
            all: crate::memory::zeros(4 * n)?,
        })
    }

    /// Gives every rank all elements.
    pub fn exchange(
        &mut self,
        comm: &mut Communicator,
        parts: &mut dyn Parts,
        dtype: GradientDtype,
    ) -> Result<()> {
        let n = comm.size();
        let lengths = parts.lengths(n);
        let common = lengths.iter().copied().min().unwrap_or(0);
        self.gather(comm, parts, dtype, common)?;
        for (rank, &length) in lengths.iter().enumerate() {
            self.broadcast(comm, parts, dtype, (rank, common..length))?;
        }
        Ok(())
    }

    fn gather(
        &mut self,
        comm: &mut Communicator,
        parts: &mut dyn Parts,
        dtype: GradientDtype,
        length: usize,
    ) -> Result<()> {
        let (own_rank, n, size) = (comm.rank(), comm.size(), dtype.size());
        let most = self.values.len() / n;
        for first in (0..length).step_by(most) {
            let m = most.min(length - first);
            let (values, own) = (&mut self.values[..m], &mut self.own[..m * size]);
            parts.read(own_rank, first, values);
            dtype.encode(values, own);
            let all = &mut self.all[..m * size * n];
            comm.all_gather(own, all)?;
            for (rank, bytes) in all.chunks_exact(m * size).enumerate() {
                if rank != own_rank {
                    dtype.decode(bytes, values);
                    parts.write(rank, first, values);
                }
            }
        }
        Ok(())
    }

    fn broadcast(
        &mut self,
        comm: &mut Communicator,
        parts: &mut dyn Parts,
        dtype: GradientDtype,
        (rank, range): (usize, std::ops::Range<usize>),
    ) -> Result<()> {
        let most = self.values.len();
        let end = range.end;
        for first in range.step_by(most) {
            let m = most.min(end - first);
            let (values, bytes) = (&mut self.values[..m], &mut self.all[..m * dtype.size()]);
            if rank == comm.rank() {
                parts.read(rank, first, values);
                dtype.encode(values, bytes);
            }
            comm.broadcast(bytes, rank)?;
            if rank != comm.rank() {
                dtype.decode(bytes, values);
                parts.write(rank, first, values);
            }
        }
        Ok(())
    }
}

/// Bytes that a rank sends for an exchange of parts of these lengths, as the communicator counts
/// them, but for rounding.
pub(super) fn bytes_of_exchange(lengths: &[usize], element: usize) -> f64 {
    let n = lengths.len().max(1) as f64;
    let all: usize = lengths.iter().sum();
    (all * element) as f64 * (n - 1.0) / n
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::local::{self, on_ranks};
    use std::time::Duration;

    struct Lists(Vec<Vec<f32>>);

    impl Parts for Lists {
        fn lengths(&self, n: usize) -> Vec<usize> {
            self.0.iter().map(Vec::len).chain(std::iter::repeat(0)).take(n).collect()
        }
        fn read(&mut self, rank: usize, first: usize, into: &mut [f32]) {
            into.copy_from_slice(&self.0[rank][first..first + into.len()]);
        }
        fn write(&mut self, rank: usize, first: usize, from: &[f32]) {
            self.0[rank][first..first + from.len()].copy_from_slice(from);
        }
    }

    #[test]
    fn every_rank_gets_all_parts() {
        let value = |rank: usize, i: usize| (rank * 64 + i) as f32;
        for lengths in [vec![3], vec![5, 2], vec![0, 4], vec![4, 7, 5], vec![6, 6, 6, 0]] {
            let n = lengths.len();
            for (bucket, dtype) in [(1, GradientDtype::F32), (7, GradientDtype::Bf16)] {
                let ends = on_ranks(local::group(n, Duration::from_secs(30)), |mut comm| {
                    let rank = comm.rank();
                    let own = |r: usize| move |i| if r == rank { value(r, i) } else { -1.0 };
                    let lists = lengths.iter().enumerate();
                    let mut lists = Lists(
                        lists.map(|(r, &length)| (0..length).map(own(r)).collect()).collect(),
                    );
                    PartScratch::new(bucket, n)?.exchange(&mut comm, &mut lists, dtype)?;
                    Ok((lists.0, comm.traffic()))
                });
                for end in ends {
                    let (lists, traffic) = end.unwrap();
                    for (r, list) in lists.iter().enumerate() {
                        let all: Vec<f32> = (0..lengths[r]).map(|i| value(r, i)).collect();
                        assert_eq!(*list, all);
                    }
                    let least = bytes_of_exchange(&lengths, dtype.size());
                    let off = traffic.wire_bytes as f64 - least;
                    assert!(off >= 0.0 && off <= traffic.n_calls as f64, "{traffic:?} {least}");
                }
            }
        }
    }
}
