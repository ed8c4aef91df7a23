//! A check of a host's transport: each operation once, on small numbers whose results are known.

use super::communicator::Communicator;
use super::transport::Values;
use crate::error::{Error, Result};

/// Elements of a part: enough that an operation which treats elements as bytes is found.
const N: usize = 5;

impl Communicator {
    /// Calls each operation of the transport and compares its results with what they must be.
    /// Every rank must call it.
    ///
    /// Error: `InvalidArgument` for a wrong result, with the operation's name, on the ranks that
    /// see it; those of the operations.
    pub fn check(&mut self) -> Result<()> {
        self.check_sums()?;
        self.check_copies()?;
        self.check_pairs()?;
        self.barrier()
    }

    /// Element `i` of rank `r` is i + r + 1.
    fn check_sums(&mut self) -> Result<()> {
        let (rank, n) = (self.rank(), self.size());
        let value = |i: usize| (i + rank + 1) as f64;
        let sum = |i: usize| (n * (i + 1) + n * (n - 1) / 2) as f64;
        let (mut a, mut b) = ([0f32; N], [0f64; N]);
        let (mut c, mut d) = ([0u64; N], [0i64; N]);
        for i in 0..N {
            (a[i], b[i]) = (value(i) as f32, value(i));
            // The high half shows whether all 64 bits are added.
            (c[i], d[i]) = ((value(i) as u64) << 40, -(value(i) as i64) << 40);
        }
        self.all_reduce(Values::F32(&mut a))?;
        self.all_reduce(Values::F64(&mut b))?;
        self.all_reduce(Values::U64(&mut c))?;
        self.all_reduce(Values::I64(&mut d))?;
        let good = (0..N).all(|i| {
            let s = sum(i);
            let (c, d) = (c[i] == (s as u64) << 40, d[i] == -(s as i64) << 40);
            f64::from(a[i]) == s && b[i] == s && c && d
        });
        told(good, "all_reduce")?;
        let mut from: Vec<f32> = (0..N * n).map(|i| value(i) as f32).collect();
        let mut part = [0f32; N];
        self.reduce_scatter(Values::F32(&mut from), Values::F32(&mut part))?;
        let good = (0..N).all(|i| f64::from(part[i]) == sum(rank * N + i));
        told(good, "reduce_scatter")
    }

    fn check_copies(&mut self) -> Result<()> {
        let (rank, n) = (self.rank() as u8, self.size());
        let own: Vec<u8> = (0..N as u8).map(|i| i.wrapping_mul(31) ^ rank).collect();
        let of = |r: usize| (0..N as u8).map(move |i| i.wrapping_mul(31) ^ r as u8);
        for root in [0, n - 1] {
            let mut bytes = own.clone();
            self.broadcast(&mut bytes, root)?;
            told(bytes.iter().copied().eq(of(root)), "broadcast")?;
        }
        let mut all = vec![0; N * n];
        self.all_gather(&own, &mut all)?;
        told(all.iter().copied().eq((0..n).flat_map(of)), "all_gather")
    }

    /// Each rank sends to the next one, the last to the first: even ranks send first.
    fn check_pairs(&mut self) -> Result<()> {
        let (rank, n) = (self.rank(), self.size());
        if n == 1 {
            return Ok(());
        }
        let (next, before) = ((rank + 1) % n, (rank + n - 1) % n);
        let (sent, mut got) = ([rank as u8, 7, 9], [0; 3]);
        // With an odd number of ranks the last and the first are both even: the last one waits.
        if rank.is_multiple_of(2) && rank + 1 < n {
            self.send(&sent, next)?;
            self.receive(&mut got, before)?;
        } else {
            self.receive(&mut got, before)?;
            self.send(&sent, next)?;
        }
        told(got == [before as u8, 7, 9], "send or receive")
    }
}

fn told(good: bool, what: &str) -> Result<()> {
    if good {
        return Ok(());
    }
    Err(Error::invalid(format!("the communicator's {what} gives a wrong result")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Transport;
    use crate::comm::local::{self, on_ranks};
    use std::time::Duration;

    #[test]
    fn threads_of_one_process_pass() {
        for n in 1..=5 {
            let group = local::group(n, Duration::from_secs(5));
            on_ranks(group, |mut comm| comm.check()).into_iter().for_each(Result::unwrap);
        }
    }

    /// A transport that does one thing wrong.
    struct Wrong {
        inner: local::Rank,
        what: &'static str,
    }

    impl Wrong {
        fn spoil(&self, what: &str, bytes: &mut [u8]) {
            if self.what == what
                && let Some(byte) = bytes.last_mut()
            {
                *byte ^= 0x40;
            }
        }
    }

    impl Transport for Wrong {
        fn rank(&self) -> usize {
            self.inner.rank()
        }
        fn size(&self) -> usize {
            self.inner.size()
        }
        fn all_reduce(&mut self, mut values: Values<'_>) -> Result<()> {
            self.spoil("all_reduce", values.bytes_mut());
            self.inner.all_reduce(values)
        }
        fn broadcast(&mut self, bytes: &mut [u8], root: usize) -> Result<()> {
            self.inner.broadcast(bytes, root)?;
            self.spoil("broadcast", bytes);
            Ok(())
        }
        fn all_gather(&mut self, from: &[u8], into: &mut [u8]) -> Result<()> {
            self.inner.all_gather(from, into)?;
            self.spoil("all_gather", into);
            Ok(())
        }
        fn reduce_scatter(&mut self, mut from: Values<'_>, into: Values<'_>) -> Result<()> {
            self.spoil("reduce_scatter", from.bytes_mut());
            self.inner.reduce_scatter(from, into)
        }
        fn send(&mut self, bytes: &[u8], to: usize) -> Result<()> {
            self.inner.send(bytes, to)
        }
        fn receive(&mut self, bytes: &mut [u8], from: usize) -> Result<()> {
            self.inner.receive(bytes, from)?;
            self.spoil("send or receive", bytes);
            Ok(())
        }
        fn barrier(&mut self) -> Result<()> {
            self.inner.barrier()
        }
        fn abort(&mut self, why: &str) {
            self.inner.abort(why);
        }
    }

    #[test]
    fn a_wrong_operation_is_named() {
        let all = ["all_reduce", "reduce_scatter", "broadcast", "all_gather", "send or receive"];
        for what in all {
            let ranks = local::ranks(2, Duration::from_secs(5)).into_iter();
            let comms = ranks.map(|inner| Communicator::new(Box::new(Wrong { inner, what })));
            let comms = comms.collect::<Result<Vec<_>>>().unwrap();
            let told = on_ranks(comms, |mut comm| comm.check());
            // The last part is the last rank's, so the first may see a good result and wait in
            // vain.
            let text = told[1].as_ref().unwrap_err().message();
            assert!(text.contains(&format!("{what} gives a wrong result")), "{what}: {text}");
        }
    }
}
