//! Pieces of parameters' memory that processes exchange: each has an owner, whose numbers all get.

use crate::optim::plan::view::View;

/// A view of f32 numbers in memory.
struct Piece {
    owner: usize,
    /// Of the parameter's first element; null where this process has no use for the piece.
    data: *mut f32,
    view: View,
}

/// Pieces in an order that all processes have in common. The numbers of one owner's pieces, one
/// piece after the other, are counted from 0.
#[derive(Default)]
pub(crate) struct Pieces {
    list: Vec<Piece>,
}

impl Pieces {
    /// Adds a piece.
    ///
    /// # Safety
    /// As long as the pieces are in use, `data` must be null or valid for the view's f32 elements,
    /// and nobody else may use them.
    pub unsafe fn add(&mut self, owner: usize, data: *mut u8, view: View) {
        self.list.push(Piece { owner, data: data.cast(), view });
    }

    /// How many numbers each of `n` owners has.
    pub fn lengths(&self, n: usize) -> Vec<usize> {
        let mut lengths = vec![0; n];
        for piece in &self.list {
            lengths[piece.owner] += piece.view.len();
        }
        lengths
    }

    /// Copies an owner's numbers from `first` on; zeros where this process has none.
    pub fn read(&self, owner: usize, first: usize, into: &mut [f32]) {
        self.each_run(owner, first, into.len(), |data, at, n| {
            let into = &mut into[at..at + n];
            if data.is_null() {
                return into.fill(0.0);
            }
            // SAFETY: the promise of `add`; the run lies in the view.
            into.copy_from_slice(unsafe { std::slice::from_raw_parts(data, n) });
        });
    }

    /// Takes an owner's numbers from `first` on.
    pub fn write(&mut self, owner: usize, first: usize, from: &[f32]) {
        self.each_run(owner, first, from.len(), |data, at, n| {
            if data.is_null() {
                return;
            }
            // SAFETY: the promise of `add`; the run lies in the view.
            unsafe { std::slice::from_raw_parts_mut(data, n) }.copy_from_slice(&from[at..at + n]);
        });
    }

    /// Calls `f` for each run of contiguous numbers among `first..first + len`, with its memory,
    /// its place counted from `first`, and its length.
    fn each_run(
        &self,
        owner: usize,
        first: usize,
        len: usize,
        mut f: impl FnMut(*mut f32, usize, usize),
    ) {
        let (mut start, end) = (0, first + len);
        for piece in self.list.iter().filter(|p| p.owner == owner) {
            let run_len = piece.view.run_len;
            let (from, to) = (first.max(start), end.min(start + piece.view.len()));
            let mut at = from;
            while at < to {
                let (run, within) = ((at - start) / run_len, (at - start) % run_len);
                let n = (run_len - within).min(to - at);
                let data = match piece.data.is_null() {
                    true => piece.data,
                    false => piece.data.wrapping_add(piece.view.run_start(run) + within),
                };
                f(data, at - first, n);
                at += n;
            }
            start += piece.view.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_an_owner_are_counted_over_its_pieces() {
        let mut a: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let mut b = vec![50.0f32, 51.0];
        let mut other = vec![70.0f32; 3];
        let columns = View::slice(&[3, 4], 1, 1, 2).unwrap();
        let mut pieces = Pieces::default();
        // SAFETY: the vectors outlive the pieces and are not used before they are done.
        unsafe {
            pieces.add(1, a.as_mut_ptr().cast(), columns.transpose());
            pieces.add(0, other.as_mut_ptr().cast(), View::whole(&[3]));
            pieces.add(1, b.as_mut_ptr().cast(), View::whole(&[2]));
            pieces.add(1, std::ptr::null_mut(), View::whole(&[2]));
        }
        assert_eq!(pieces.lengths(3), [3, 10, 0]);
        let mut all = [1.0; 10];
        pieces.read(1, 0, &mut all);
        assert_eq!(all, [1.0, 2.0, 5.0, 6.0, 9.0, 10.0, 50.0, 51.0, 0.0, 0.0]);
        for first in 0..10 {
            for n in 0..=10 - first {
                let mut part = vec![-1.0; n];
                pieces.read(1, first, &mut part);
                assert_eq!(part, all[first..first + n]);
            }
        }
        pieces.write(1, 3, &[-6.0, -9.0, -10.0, -50.0, -51.0, 3.0]);
        assert_eq!((a[6], a[9], a[10], a[7]), (-6.0, -9.0, -10.0, 7.0));
        assert_eq!((b, other), (vec![-50.0, -51.0], vec![70.0; 3]));
    }
}
