//! The communicator: checks and counts before the host's engine, and stops after a failure.

use super::transport::{Transport, Values};
use crate::error::{Error, Kind, Result};

/// What was exchanged so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Calls of the transport, barriers included.
    pub n_calls: u64,
    /// Bytes of memory that were handed to `all_reduce`.
    pub all_reduce_bytes: u64,
    /// The same for `broadcast`.
    pub broadcast_bytes: u64,
    /// Bytes of this rank's part in `all_gather`.
    pub all_gather_bytes: u64,
    /// Bytes of all parts in `reduce_scatter`.
    pub reduce_scatter_bytes: u64,
    /// Bytes that were sent to one rank.
    pub send_bytes: u64,
    /// Bytes that were received from one rank.
    pub receive_bytes: u64,
    /// Bytes that a rank sends for all of this, where the engine uses rings. With n ranks these are
    /// for b bytes 2 b (n − 1) / n in `all_reduce`, b (n − 1) / n in `reduce_scatter` and, as a
    /// mean over the ranks, in `broadcast`; b (n − 1) in `all_gather`, and b in `send`. Rounded up
    /// at each call; the engine's own headers are not in it.
    pub wire_bytes: u64,
}

/// One rank's communicator. Every rank makes the same calls in the same order.
pub struct Communicator {
    transport: Box<dyn Transport>,
    rank: usize,
    size: usize,
    traffic: Traffic,
    /// Why nothing works any more.
    failed: Option<String>,
    aborted: bool,
}

impl Communicator {
    /// A communicator on the host's transport.
    ///
    /// Error: `InvalidArgument` for no rank, or a rank that is not below their number.
    pub fn new(transport: Box<dyn Transport>) -> Result<Self> {
        let (rank, size) = (transport.rank(), transport.size());
        check_place(rank, size)?;
        Ok(Self {
            transport,
            rank,
            size,
            traffic: Traffic::default(),
            failed: None,
            aborted: false,
        })
    }

    /// This rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of ranks.
    pub fn size(&self) -> usize {
        self.size
    }

    /// What was exchanged so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Replaces each element by its sum over all ranks. Nothing is called for no element.
    pub fn all_reduce(&mut self, values: Values<'_>) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let bytes = values.bytes().len() as u64;
        self.call("all_reduce", |t| t.all_reduce(values))?;
        self.traffic.all_reduce_bytes += bytes;
        self.count_ring(2 * bytes);
        Ok(())
    }

    /// Replaces the bytes by those of rank `root`. Nothing is called for no byte.
    pub fn broadcast(&mut self, bytes: &mut [u8], root: usize) -> Result<()> {
        self.check_rank(root, "root")?;
        if bytes.is_empty() {
            return Ok(());
        }
        let n = bytes.len() as u64;
        self.call("broadcast", |t| t.broadcast(bytes, root))?;
        self.traffic.broadcast_bytes += n;
        self.count_ring(n);
        Ok(())
    }

    /// Puts every rank's bytes into `into`, in order of rank. Nothing is called for no byte.
    pub fn all_gather(&mut self, from: &[u8], into: &mut [u8]) -> Result<()> {
        self.check_parts(into.len(), from.len())?;
        if from.is_empty() {
            return Ok(());
        }
        self.call("all_gather", |t| t.all_gather(from, into))?;
        self.traffic.all_gather_bytes += from.len() as u64;
        self.traffic.wire_bytes += from.len() as u64 * (self.size as u64 - 1);
        Ok(())
    }

    /// Sums `from` over all ranks and puts the part of this rank into `into`. Nothing is called for
    /// no element.
    pub fn reduce_scatter(&mut self, from: Values<'_>, into: Values<'_>) -> Result<()> {
        self.check_parts(from.len(), into.len())?;
        if std::mem::discriminant(&from) != std::mem::discriminant(&into) {
            return Err(Error::invalid("reduce_scatter: two element types"));
        }
        if into.is_empty() {
            return Ok(());
        }
        let bytes = from.bytes().len() as u64;
        self.call("reduce_scatter", |t| t.reduce_scatter(from, into))?;
        self.traffic.reduce_scatter_bytes += bytes;
        self.count_ring(bytes);
        Ok(())
    }

    /// Gives the bytes to another rank.
    pub fn send(&mut self, bytes: &[u8], to: usize) -> Result<()> {
        self.check_peer(to)?;
        self.call("send", |t| t.send(bytes, to))?;
        self.traffic.send_bytes += bytes.len() as u64;
        self.traffic.wire_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Takes bytes from another rank.
    pub fn receive(&mut self, bytes: &mut [u8], from: usize) -> Result<()> {
        self.check_peer(from)?;
        let n = bytes.len() as u64;
        self.call("receive", |t| t.receive(bytes, from))?;
        self.traffic.receive_bytes += n;
        Ok(())
    }

    /// Returns when every rank has called it.
    pub fn barrier(&mut self) -> Result<()> {
        self.call("barrier", |t| t.barrier())
    }

    /// Tells the other ranks that this one gives up. All later calls fail here.
    pub fn abort(&mut self, why: &str) {
        if !std::mem::replace(&mut self.aborted, true) {
            self.transport.abort(why);
            self.failed.get_or_insert_with(|| format!("it was aborted: {why}"));
        }
    }

    /// After a failure it is not known which ranks have done what: nothing is exchanged any more.
    fn call(
        &mut self,
        what: &str,
        call: impl FnOnce(&mut dyn Transport) -> Result<()>,
    ) -> Result<()> {
        if let Some(why) = &self.failed {
            return Err(Error::new(
                Kind::Communication,
                format!("the communicator failed before: {why}"),
            ));
        }
        self.traffic.n_calls += 1;
        call(&mut *self.transport).map_err(|e| {
            let e = e.context(format!("rank {} of {}, {what}", self.rank, self.size));
            self.failed = Some(e.message().to_owned());
            e
        })
    }

    /// Counts what a ring sends of `bytes`.
    fn count_ring(&mut self, bytes: u64) {
        let n = self.size as u64;
        self.traffic.wire_bytes += (bytes * (n - 1)).div_ceil(n);
    }

    fn check_rank(&self, rank: usize, what: &str) -> Result<()> {
        if rank < self.size {
            return Ok(());
        }
        Err(Error::invalid(format!("{what} is rank {rank} of {}; counted from 0", self.size)))
    }

    fn check_peer(&self, rank: usize) -> Result<()> {
        self.check_rank(rank, "the other")?;
        if rank != self.rank {
            return Ok(());
        }
        Err(Error::invalid(format!("rank {rank} cannot send to itself")))
    }

    fn check_parts(&self, whole: usize, part: usize) -> Result<()> {
        if part.checked_mul(self.size) == Some(whole) {
            return Ok(());
        }
        let n = self.size;
        Err(Error::invalid(format!("{whole} elements are not {n} parts of {part}")))
    }
}

/// Refuses no rank, and a rank that is not below their number.
pub(crate) fn check_place(rank: usize, size: usize) -> Result<()> {
    if rank < size {
        return Ok(());
    }
    Err(Error::invalid(format!("the communicator says rank {rank} of {size}; ranks count from 0")))
}

impl std::fmt::Debug for Communicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Communicator(rank {} of {}, {:?})", self.rank, self.size, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::local::{self, on_ranks};
    use std::time::Duration;

    #[test]
    fn bytes_are_counted_by_the_model_of_a_ring() {
        let group = local::group(4, Duration::from_secs(5));
        let counted = on_ranks(group, |mut comm| {
            comm.all_reduce(Values::F32(&mut [0.0; 10]))?;
            comm.all_reduce(Values::F32(&mut []))?;
            comm.broadcast(&mut [0; 100], 2)?;
            comm.all_gather(&[0; 3], &mut [0; 12])?;
            comm.reduce_scatter(Values::F64(&mut [0.0; 8]), Values::F64(&mut [0.0; 2]))?;
            match comm.rank() {
                0 => comm.send(&[0; 7], 1)?,
                1 => comm.receive(&mut [0; 7], 0)?,
                _ => (),
            }
            comm.barrier()?;
            Ok(comm.traffic())
        });
        let one = Traffic {
            n_calls: 5,
            all_reduce_bytes: 40,
            broadcast_bytes: 100,
            all_gather_bytes: 3,
            reduce_scatter_bytes: 64,
            wire_bytes: 60 + 75 + 9 + 48,
            ..Traffic::default()
        };
        let sent = Traffic { n_calls: 6, send_bytes: 7, wire_bytes: one.wire_bytes + 7, ..one };
        let received = Traffic { n_calls: 6, receive_bytes: 7, ..one };
        let counted: Vec<Traffic> = counted.into_iter().map(Result::unwrap).collect();
        assert_eq!(counted, [sent, received, one, one]);
    }

    #[test]
    fn bad_arguments_are_refused_and_nothing_is_called() {
        let group = local::group(2, Duration::from_secs(5));
        for done in on_ranks(group, |mut comm| {
            let check = |e: Result<()>, part: &str| {
                let e = e.unwrap_err();
                assert_eq!(e.kind(), Kind::InvalidArgument);
                assert!(e.message().contains(part), "{e}");
            };
            let own = comm.rank();
            check(comm.broadcast(&mut [0], 2), "rank 2 of 2");
            check(comm.send(&[0], own), "itself");
            check(comm.receive(&mut [0], 7), "rank 7");
            check(comm.all_gather(&[0; 3], &mut [0; 5]), "2 parts of 3");
            let (from, into) = (Values::F32(&mut [0.0; 4]), Values::U64(&mut [0; 2]));
            check(comm.reduce_scatter(from, into), "two element types");
            assert_eq!(comm.traffic(), Traffic::default());
            comm.barrier()
        }) {
            done.unwrap();
        }
    }

    #[test]
    fn after_a_failure_nothing_is_exchanged() {
        let group = local::group(2, Duration::from_millis(100));
        let ends = on_ranks(group, |mut comm| {
            if comm.rank() == 1 {
                return Err(Error::invalid("gone"));
            }
            let first = comm.barrier().unwrap_err();
            assert_eq!(first.kind(), Kind::Communication);
            assert!(first.message().contains("rank 1"), "{first}");
            let again = comm.barrier().unwrap_err();
            assert!(again.message().contains("failed before"), "{again}");
            assert_eq!(comm.traffic().n_calls, 1);
            Ok(())
        });
        assert!(ends[0].is_ok());
    }
}
