//! Ranks that are threads of one process: for tests, and to try a program before it runs on several
//! machines.
//!
//! Every collective operation is one exchange: each rank leaves its bytes, and takes those of all.
//! Sums are taken in order of rank, so that they have the same bits everywhere.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::communicator::Communicator;
use super::transport::{Transport, Values};
use crate::error::{Error, Kind, Result};

/// What a rank left: which operation it is in, and its bytes.
type Left = (&'static str, Vec<u8>);

#[derive(Default)]
struct State {
    /// What each rank has left in the exchange that is under way.
    slots: Vec<Option<Left>>,
    /// What all have left, until each has taken it.
    full: Option<Arc<Vec<Left>>>,
    n_taken: usize,
    /// Messages from one rank to another.
    mail: HashMap<(usize, usize), VecDeque<Vec<u8>>>,
    /// Why each rank is gone.
    gone: Vec<Option<String>>,
}

struct Group {
    state: Mutex<State>,
    changed: Condvar,
    timeout: Duration,
}

/// One rank. Dropping it tells the others.
pub struct Rank {
    group: Arc<Group>,
    rank: usize,
    size: usize,
}

/// `size` ranks that know each other. A call that waits for another rank longer than `timeout`, or
/// for one that is gone, fails with that rank's number.
pub fn ranks(size: usize, timeout: Duration) -> Vec<Rank> {
    let state = State {
        slots: (0..size).map(|_| None).collect(),
        gone: vec![None; size],
        ..State::default()
    };
    let group = Arc::new(Group { state: Mutex::new(state), changed: Condvar::new(), timeout });
    (0..size).map(|rank| Rank { group: group.clone(), rank, size }).collect()
}

/// The same as communicators.
pub fn group(size: usize, timeout: Duration) -> Vec<Communicator> {
    let new = |rank| Communicator::new(Box::new(rank)).ok();
    ranks(size, timeout).into_iter().filter_map(new).collect()
}

/// Runs each rank on a thread of its own; the results in order of rank.
pub fn on_ranks<T: Send, R: Send>(
    ranks: Vec<T>,
    work: impl Fn(T) -> Result<R> + Sync,
) -> Vec<Result<R>> {
    let work = &work;
    crate::threads::side_by_side(ranks.into_iter().map(|rank| move || work(rank)))
}

fn failed(text: impl Into<String>) -> Error {
    Error::new(Kind::Communication, text)
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready` gives something. `missing` names ranks that are waited for.
    fn wait<R>(
        &self,
        mut ready: impl FnMut(&mut State) -> Option<R>,
        missing: impl Fn(&State) -> Vec<usize>,
    ) -> Result<R> {
        let end = Instant::now() + self.timeout;
        let mut state = self.lock();
        loop {
            if let Some(result) = ready(&mut state) {
                self.changed.notify_all();
                return Ok(result);
            }
            let waited_for = missing(&state);
            let gone = |&rank: &usize| state.gone[rank].as_ref().map(|why| (rank, why));
            if let Some((rank, why)) = waited_for.iter().find_map(gone) {
                return Err(failed(format!("rank {rank} is gone: {why}")));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let all: Vec<String> = waited_for.iter().map(ToString::to_string).collect();
                let (ranks, time) = (all.join(", "), self.timeout.as_secs_f64());
                return Err(failed(format!("rank {ranks} did not answer within {time} s")));
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Rank {
    /// Leaves bytes and takes those of all ranks.
    fn exchange(&self, what: &'static str, bytes: Vec<u8>) -> Result<Arc<Vec<Left>>> {
        let (rank, size) = (self.rank, self.size);
        let others = |_: &State| (0..size).filter(|&r| r != rank).collect();
        // The exchange before may still be read.
        self.group.wait(|s| s.full.is_none().then_some(()), others)?;
        self.group.lock().slots[rank] = Some((what, bytes));
        let full = |state: &mut State| {
            if state.full.is_none() {
                if state.slots.iter().any(Option::is_none) {
                    return None;
                }
                let all = state.slots.iter_mut().filter_map(Option::take).collect();
                (state.full, state.n_taken) = (Some(Arc::new(all)), 0);
            }
            let all = state.full.clone();
            state.n_taken += 1;
            if state.n_taken == size {
                state.full = None;
            }
            all
        };
        let missing = |s: &State| (0..size).filter(|&r| s.slots[r].is_none()).collect();
        let all = self.group.wait(full, missing)?;
        let n = all[rank].1.len();
        match all.iter().position(|(other, left)| *other != what || left.len() != n) {
            None => Ok(all),
            Some(r) => Err(failed(format!(
                "rank {r} called {} of {} bytes, rank {rank} {what} of {n}",
                all[r].0,
                all[r].1.len()
            ))),
        }
    }
}

/// Adds the elements of `all`, which are bytes of `T`, in order, from the element `first` on.
fn add<T: bytemuck::Pod>(into: &mut [T], all: &[Left], first: usize, add: impl Fn(T, T) -> T) {
    let bytes = first * size_of::<T>()..(first + into.len()) * size_of::<T>();
    for (rank, (_, left)) in all.iter().enumerate() {
        let elements = left[bytes.clone()].chunks_exact(size_of::<T>());
        for (to, from) in into.iter_mut().zip(elements.map(bytemuck::pod_read_unaligned::<T>)) {
            *to = if rank == 0 { from } else { add(*to, from) };
        }
    }
}

fn sum(into: Values<'_>, all: &[Left], first: usize) {
    match into {
        Values::F32(v) => add(v, all, first, |a, b| a + b),
        Values::F64(v) => add(v, all, first, |a, b| a + b),
        Values::U64(v) => add(v, all, first, u64::wrapping_add),
        Values::I64(v) => add(v, all, first, i64::wrapping_add),
    }
}

impl Transport for Rank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_reduce(&mut self, values: Values<'_>) -> Result<()> {
        let all = self.exchange("all_reduce", values.bytes().to_vec())?;
        sum(values, &all, 0);
        Ok(())
    }

    fn broadcast(&mut self, bytes: &mut [u8], root: usize) -> Result<()> {
        let all = self.exchange("broadcast", bytes.to_vec())?;
        bytes.copy_from_slice(&all[root].1);
        Ok(())
    }

    fn all_gather(&mut self, from: &[u8], into: &mut [u8]) -> Result<()> {
        let all = self.exchange("all_gather", from.to_vec())?;
        for (to, (_, left)) in into.chunks_exact_mut(from.len()).zip(all.iter()) {
            to.copy_from_slice(left);
        }
        Ok(())
    }

    fn reduce_scatter(&mut self, from: Values<'_>, into: Values<'_>) -> Result<()> {
        let all = self.exchange("reduce_scatter", from.bytes().to_vec())?;
        let first = self.rank * into.len();
        sum(into, &all, first);
        Ok(())
    }

    fn send(&mut self, bytes: &[u8], to: usize) -> Result<()> {
        let mut state = self.group.lock();
        state.mail.entry((self.rank, to)).or_default().push_back(bytes.to_vec());
        self.group.changed.notify_all();
        Ok(())
    }

    fn receive(&mut self, bytes: &mut [u8], from: usize) -> Result<()> {
        let key = (from, self.rank);
        let next = |state: &mut State| state.mail.get_mut(&key).and_then(VecDeque::pop_front);
        let got = self.group.wait(next, |_| vec![from])?;
        if got.len() != bytes.len() {
            let (n, m) = (got.len(), bytes.len());
            return Err(failed(format!("rank {from} sent {n} bytes, and {m} are expected")));
        }
        bytes.copy_from_slice(&got);
        Ok(())
    }

    fn barrier(&mut self) -> Result<()> {
        self.exchange("barrier", Vec::new()).map(drop)
    }

    fn abort(&mut self, why: &str) {
        self.group.lock().gone[self.rank].get_or_insert_with(|| why.to_owned());
        self.group.changed.notify_all();
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        self.abort("it has ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stalled_rank_is_named_within_the_limit() {
        let start = Instant::now();
        let ends = on_ranks(group(3, Duration::from_millis(200)), |mut comm| {
            if comm.rank() == 1 {
                std::thread::sleep(Duration::from_millis(1500));
                return Ok(());
            }
            comm.barrier()
        });
        for rank in [0, 2] {
            let e = ends[rank].as_ref().unwrap_err();
            assert!(e.message().contains("rank 1 did not answer within 0.2 s"), "{e}");
        }
        assert!(start.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn a_rank_that_gives_up_is_named_with_its_reason() {
        let ends = on_ranks(group(2, Duration::from_secs(60)), |mut comm| {
            if comm.rank() == 0 {
                comm.abort("no data");
                return comm.barrier();
            }
            comm.all_reduce(Values::F32(&mut [1.0]))
        });
        let text = |i: usize| ends[i].as_ref().unwrap_err().message().to_owned();
        assert!(text(0).contains("aborted: no data"), "{}", text(0));
        assert!(text(1).contains("rank 0 is gone: no data"), "{}", text(1));
    }

    #[test]
    fn different_calls_are_an_error_on_every_rank() {
        let ends = on_ranks(group(2, Duration::from_secs(60)), |mut comm| match comm.rank() {
            0 => comm.all_reduce(Values::F32(&mut [1.0])),
            _ => comm.all_reduce(Values::F64(&mut [1.0])),
        });
        for end in ends {
            assert!(end.unwrap_err().message().contains("called all_reduce of "));
        }
    }

    #[test]
    fn many_exchanges_in_a_row_stay_apart() {
        let ends = on_ranks(group(4, Duration::from_secs(30)), |mut comm| {
            for i in 0..500u64 {
                let mut sum = [comm.rank() as u64 + i];
                comm.all_reduce(Values::U64(&mut sum))?;
                assert_eq!(sum, [6 + 4 * i]);
            }
            Ok(())
        });
        ends.into_iter().for_each(Result::unwrap);
    }
}
